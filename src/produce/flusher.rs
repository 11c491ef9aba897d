//! Sends what is buffered: one task per client looks when, and each request is a task of its own.

use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tokio::time::Instant;

use super::buffer::Flight;
use super::report::DeliveryStatus;
use super::state::State;
use super::{Producer, flights};
use crate::error::{Error, ErrorCode, Result};
use crate::log::Level;
use crate::protocol::kept;
use crate::protocol::push::{self, PushResult};
use crate::transport::{self, Answer, Repeat, Request};

impl Producer {
    /// Runs while there are buffers.
    pub(super) async fn send_buffers(self: Arc<Producer>) {
        let _running = Running(self.clone());
        loop {
            let look = self.look.notified();
            tokio::pin!(look);
            look.as_mut().enable();
            let (flights, next) = self.change(|state, now| {
                state.fire(now);
                let flights: Vec<Flight> = std::iter::from_fn(|| state.take(now)).collect();
                state.looked();
                (flights, state.running.then(|| state.next_look()))
            });
            for flight in flights {
                let guard = InTheAir(self.clone(), Some(flight));
                self.core.detach(guard.send());
            }
            match next {
                None => return,
                Some(None) => look.await,
                Some(Some(at)) => {
                    let _ = tokio::time::timeout_at(at, look).await;
                }
            }
        }
    }

    /// Ends the buffers; how many messages were left in them or in flight. Each gets its report.
    pub(crate) async fn close(self: &Arc<Producer>, patience: Duration) -> usize {
        let left = self.change(|state, _| state.close());
        let mut unsent = 0;
        for (address, messages, attempted) in &left {
            unsent += messages.len();
            self.reports.given_up(
                address,
                messages.iter(),
                DeliveryStatus::Closed,
                CLOSED,
                *attempted,
            );
        }
        drop(left);
        self.closing.send_replace(true);
        self.gathering.seal();
        self.changed.notify_waiters();
        // They end at once and report their messages.
        let _ = tokio::time::timeout(patience, async {
            loop {
                let changed = self.changed.notified();
                tokio::pin!(changed);
                changed.as_mut().enable();
                if self.change(|state, _| state.flights()) == 0 {
                    return;
                }
                changed.await;
            }
        })
        .await;
        unsent += self.change(|state, _| state.take_cut_short());
        self.core.stats.pushed.closed.add(unsent);
        unsent
    }

    fn landed(self: &Arc<Producer>, flight: Flight, results: Vec<PushResult>, to_blame: bool) {
        self.count(&results);
        self.core.stats.buffer_flushes.add(1);
        let mut failed = results.iter().filter(|result| !result.is_success());
        if let Some(first) = failed.next() {
            self.core.logger.log(
                Level::Warn,
                "buffer.refused",
                "the broker refused buffered messages",
                &flight.address.fields(&[
                    ("messages", (1 + failed.count()).into()),
                    ("transactionId", first.transaction_id.clone().into()),
                    ("error", first.error.clone().into()),
                ]),
            );
        }
        // Reports of one partition come in order, so before the next request of it may leave.
        self.reports
            .answered(&flight.address, results, flight.resent);
        self.change(|state, now| state.landed(&flight, to_blame, now));
        self.changed.notify_waiters();
    }

    /// What was on its way when the client was closed.
    fn cut_short(self: &Arc<Producer>, flight: Flight) {
        let all = flight.messages.len();
        self.reports.given_up(
            &flight.address,
            flight.messages.iter(),
            DeliveryStatus::Closed,
            CLOSED,
            all,
        );
        self.change(|state, _| state.cut_short(&flight));
        self.changed.notify_waiters();
    }
}

/// After a panic the next push starts the task that sends anew.
struct Running(Arc<Producer>);

impl Drop for Running {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.change(|state, _| state.running = false);
        }
    }
}

const CLOSED: &str = "the client was closed first";

/// A request on its way; its messages go back to their buffer if its task ends without having done with them.
struct InTheAir(Arc<Producer>, Option<Flight>);

impl Drop for InTheAir {
    fn drop(&mut self) {
        if let Some(flight) = self.1.take() {
            let error = Error::new(ErrorCode::Internal, "the task that sent it has ended");
            self.0
                .change(|state, now| state.failed(flight, &error, now));
        }
    }
}

impl InTheAir {
    async fn send(mut self) {
        let producer = self.0.clone();
        let Some(flight) = self.1.as_mut() else {
            return;
        };
        let body = std::mem::take(&mut flight.body);
        let began = Instant::now();
        let deadline = transport::after(producer.core.config.timeout_millis);
        // What fails goes back to the buffer, which tries again.
        let request = Request::post(push::PATH, body, deadline)
            .repeat(Repeat::Safe)
            .once();
        let mut closing = producer.closing.subscribe();
        let answer = tokio::select! {
            biased;
            _ = closing.wait_for(|closing| *closing) => None,
            answer = producer.core.send(&request) => Some(answer),
        };
        let results = answer.map(|answer| {
            let body = answer.and_then(Answer::success)?;
            kept::results(&flight.messages, &body)
        });
        let Some(flight) = self.1.take() else {
            return;
        };
        let Some(results) = results else {
            return producer.cut_short(flight);
        };
        let millis = transport::ms(began.elapsed());
        producer.answered(flight, results, millis);
    }
}

impl Producer {
    fn answered(
        self: &Arc<Producer>,
        flight: Flight,
        results: Result<Vec<PushResult>>,
        millis: u64,
    ) {
        let log = |level: Level, operation: &str, message: &str, more: &[(&str, Value)]| {
            if self.core.logger.wants(level) {
                let mut fields = flight
                    .address
                    .fields(&[("messages", flight.messages.len().into())]);
                fields.extend(more.iter().cloned());
                self.core.logger.log(level, operation, message, &fields);
            }
        };
        let error = match results {
            Ok(results) => {
                let more = [("millis", millis.into())];
                log(
                    Level::Debug,
                    "buffer.flush",
                    "buffered messages were sent",
                    &more,
                );
                return self.landed(flight, results, false);
            }
            Err(error) => error,
        };
        if flights::is_refusal(&error) {
            if let [only] = flight.messages.as_slice() {
                let result = PushResult::failed(only.kept.transaction_id(), &error);
                return self.landed(flight, vec![result], true);
            }
            let more = [("error", error.to_string().into())];
            let message = "a request was refused; its messages are sent in smaller ones";
            log(Level::Warn, "buffer.split", message, &more);
            return self.back(flight, |state, flight, now| state.refused(flight, now));
        }
        self.core.stats.buffer_retries.add(1);
        let more = [("error", error.to_string().into())];
        let message = "buffered messages could not be sent and are tried again";
        log(Level::Warn, "buffer.retry", message, &more);
        self.back(flight, |state, flight, now| {
            state.failed(flight, &error, now);
        });
    }

    /// Messages go back to their buffer, unless it is gone.
    fn back(
        self: &Arc<Producer>,
        flight: Flight,
        put_back: impl FnOnce(&mut State, Flight, Instant),
    ) {
        let late = self.change(|state, now| match state.is_closed() {
            true => Some(flight),
            false => {
                put_back(state, flight, now);
                None
            }
        });
        if let Some(flight) = late {
            self.cut_short(flight);
        }
    }
}
