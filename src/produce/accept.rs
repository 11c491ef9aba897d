//! Pushes into a buffer: they complete when they are accepted.

use std::sync::Arc;

use tokio::time::Instant;

use super::address::Address;
use super::buffer;
use super::report::DeliveryStatus;
use super::room::{Admit, Taken};
use super::{Producer, check_accepting};
use crate::error::{Error, ErrorCode};
use crate::log::Level;
use crate::options::{BufferOptions, WhenFull};
use crate::pending::Pending;
use crate::protocol::kept::{self, Kept};
use crate::protocol::push::{Item, PushResult};

impl Producer {
    pub(super) fn push_buffered(
        self: &Arc<Producer>,
        queue: &str,
        partition: &str,
        items: &[Item<'_>],
        options: &BufferOptions,
        deadline: Instant,
    ) -> Pending<Vec<PushResult>> {
        let kept = options
            .check()
            .and_then(|()| Kept::list(queue, partition, items));
        let messages = match kept {
            Ok(messages) => messages,
            Err(error) => return Pending::finished(Err(error)),
        };
        let address = Address::new(queue, partition);
        let results = kept::accepted(&messages);
        match self.try_accept(address.clone(), messages, options) {
            Err(error) => Pending::finished(Err(error)),
            Ok(None) => Pending::finished(Ok(results)),
            Ok(Some(messages)) if options.when_full == WhenFull::Wait => {
                self.wait_for_room(address, messages, options, deadline)
            }
            Ok(Some(_)) => Pending::finished(Err(self.full(&address, options))),
        }
    }

    /// Accepts messages, or gives them back where there is no room.
    fn try_accept(
        self: &Arc<Producer>,
        address: Address,
        messages: Vec<Kept>,
        options: &BufferOptions,
    ) -> crate::error::Result<Option<Vec<Kept>>> {
        let count = messages.len();
        let place = address.clone();
        let admitted = self.change(|state, now| {
            check_accepting(&self.core, state)?;
            Ok::<_, Error>(state.admit(address, messages, options, now))
        })?;
        match admitted {
            Admit::Full(messages) => Ok(Some(messages)),
            Admit::Taken(taken) => {
                let Taken {
                    made,
                    dropped,
                    attempted,
                } = taken;
                if self.core.logger.wants(Level::Debug) {
                    if made {
                        self.core.logger.log(
                            Level::Debug,
                            "buffer.new",
                            "a buffer was made",
                            &place.fields(&[
                                ("messageCount", options.message_count.into()),
                                ("timeMillis", options.time_millis.into()),
                            ]),
                        );
                    }
                    self.core.logger.log(
                        Level::Debug,
                        "buffer.add",
                        "messages were accepted",
                        &place.fields(&[("messages", count.into())]),
                    );
                }
                if !dropped.is_empty() {
                    self.core.stats.pushed.dropped.add(dropped.len());
                    self.core.logger.log(
                        Level::Warn,
                        "buffer.drop",
                        "messages were dropped from a full buffer",
                        &place.fields(&[("messages", dropped.len().into())]),
                    );
                    self.reports.given_up(
                        &place,
                        dropped.iter(),
                        DeliveryStatus::Dropped,
                        "dropped from a full buffer to make room",
                        attempted,
                    );
                    self.changed.notify_waiters();
                }
                Ok(None)
            }
        }
    }

    /// A push that completes when there is room for it.
    fn wait_for_room(
        self: &Arc<Producer>,
        address: Address,
        messages: Vec<Kept>,
        options: &BufferOptions,
        deadline: Instant,
    ) -> Pending<Vec<PushResult>> {
        let cost = (messages.len(), buffer::cost(&messages));
        let ids = messages
            .iter()
            .map(|kept| kept.transaction_id().to_owned())
            .collect();
        let producer = self.clone();
        self.core.start(cost, deadline, move |pending| {
            pending.note_transaction_ids(ids);
            let waiter = pending.clone();
            let place =
                producer.change(|state, now| state.wait(address, messages, options, waiter, now));
            let ended = pending.clone();
            pending.when_complete(move || {
                if let Some(Err(_)) = ended.result() {
                    producer.change(|state, now| state.waiter_gave_up(&place, now));
                    producer.changed.notify_waiters();
                }
            });
            async move {
                // Whoever makes room completes it.
                pending.ended().await;
                Err(Error::new(ErrorCode::Internal, "a push waits no more"))
            }
        })
    }

    fn full(self: &Arc<Producer>, address: &Address, options: &BufferOptions) -> Error {
        let (messages, bytes) = self.change(|state, _| state.used());
        let own = |bound: Option<usize>| bound.map_or("none".to_owned(), |most| most.to_string());
        Error::new(
            ErrorCode::WouldBlock,
            format!(
                "the buffer of queue `{}`, partition `{}` has no room (its maxMessages {}, maxBytes {}); all buffers hold \
                 {} messages and {} bytes (maxBufferedMessages {}, maxBufferedBytes {}); nothing was kept, flush or try \
                 again later",
                address.queue,
                address.partition,
                own(options.max_messages),
                own(options.max_bytes),
                messages,
                bytes,
                self.core.config.max_buffered_messages,
                self.core.config.max_buffered_bytes,
            ),
        )
    }
}
