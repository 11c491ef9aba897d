//! A window in the hands of its consumer: its messages, those that are left of them, and its verdict.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Serialize;
use serde_json::value::RawValue;

use super::aggregate::{self, Aggregates, Aggregation};
use super::lease::{Lease, OnLost};
use super::value::{Path, group_key};
use crate::core::Core;
use crate::dispatch::Dispatcher;
use crate::error::{Error, Result};
use crate::pending::Pending;
use crate::protocol::stream::{WindowMessage, WireWindow};

/// A window of a stream, under one lease. Clones are the same window, each with its own choice of messages.
///
/// It is settled once: by [`ack`](Window::ack), by [`nack`](Window::nack), or by what its handler returns. When the last
/// clone is dropped unsettled it goes back and comes again.
/// ```
/// # use queen::{Aggregation, Window};
/// # fn handle(mut window: Window) -> Result<(), queen::Error> {
/// let wanted = Aggregation { count: true, sum: vec!["data.amount".into()], ..Aggregation::default() };
/// for (customer, places) in window.group_by("data.customer") {
///     window.keep(&places)?;
///     println!("{customer}: {:?}", window.aggregate(&wanted));
///     window.reset();
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Window {
    hold: Arc<Hold>,
    /// The places of the messages that are left.
    left: Arc<Vec<u32>>,
}

/// Gives the window back when nobody holds it any more.
struct Hold {
    lease: Arc<Lease>,
    start: String,
    end: String,
    messages: Arc<[WindowMessage]>,
    more: BTreeMap<String, Box<RawValue>>,
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.lease.give_back();
    }
}

impl Window {
    pub(super) fn new(
        core: &Arc<Core>,
        place: (&str, &str),
        wire: WireWindow,
        on_lost: Option<OnLost>,
    ) -> Window {
        let lease = Lease::new(core, place, &wire, on_lost);
        let mut window = Window {
            left: Arc::default(),
            hold: Arc::new(Hold {
                lease,
                start: wire.start,
                end: wire.end,
                messages: wire.messages,
                more: wire.more,
            }),
        };
        window.reset();
        window
    }

    pub(super) fn lease(&self) -> &Arc<Lease> {
        &self.hold.lease
    }

    /// Its id: of the stream, the key, start and end.
    pub fn id(&self) -> &str {
        &self.hold.lease.window_id
    }

    /// The id of its lease.
    pub fn lease_id(&self) -> &str {
        &self.hold.lease.lease_id
    }

    /// The stream.
    pub fn stream(&self) -> &str {
        &self.hold.lease.stream
    }

    /// The consumer group.
    pub fn group(&self) -> &str {
        &self.hold.lease.group
    }

    /// The partition's name where the stream is partitioned, else `__GLOBAL__`.
    pub fn key(&self) -> &str {
        &self.hold.lease.key
    }

    /// Its first moment, ISO 8601 in UTC.
    pub fn start(&self) -> &str {
        &self.hold.start
    }

    /// The first moment behind it, ISO 8601 in UTC.
    pub fn end(&self) -> &str {
        &self.hold.end
    }

    /// Every message of the window, whatever was filtered.
    pub fn all_messages(&self) -> &[WindowMessage] {
        &self.hold.messages
    }

    /// The messages that are left, in the order of their times.
    pub fn messages(&self) -> impl ExactSizeIterator<Item = &WindowMessage> {
        let all = &self.hold.messages;
        self.left.iter().map(move |place| &all[*place as usize])
    }

    /// The message at a place among those that are left.
    pub fn message(&self, index: usize) -> Option<&WindowMessage> {
        self.hold.messages.get(*self.left.get(index)? as usize)
    }

    /// How many messages are left.
    pub fn size(&self) -> usize {
        self.left.len()
    }

    /// How many messages the window has.
    pub fn original_size(&self) -> usize {
        self.hold.messages.len()
    }

    /// Leaves out what the predicate does not want.
    pub fn filter(&mut self, mut wanted: impl FnMut(&WindowMessage) -> bool) -> &mut Window {
        let all = &self.hold.messages;
        Arc::make_mut(&mut self.left).retain(|place| wanted(&all[*place as usize]));
        self
    }

    /// Leaves only the messages at these places among those that are left, in that order. [`ErrorCode::InvalidArgument`]
    /// names a place that there is not, or that is named twice, and then nothing is changed.
    ///
    /// [`ErrorCode::InvalidArgument`]: crate::ErrorCode::InvalidArgument
    pub fn keep(&mut self, indices: &[usize]) -> Result<&mut Window> {
        let mut seen = vec![false; self.left.len()];
        let mut kept = Vec::with_capacity(indices.len());
        for index in indices {
            match (seen.get_mut(*index), self.left.get(*index)) {
                (Some(seen @ false), Some(place)) => {
                    *seen = true;
                    kept.push(*place);
                }
                (Some(_), _) => {
                    return Err(Error::argument(format!("index {index} is named twice")));
                }
                _ => {
                    return Err(Error::argument(format!(
                        "index {index} is beyond the {} messages that are left",
                        self.left.len()
                    )));
                }
            }
        }
        self.left = Arc::new(kept);
        Ok(self)
    }

    /// Takes back every filter.
    pub fn reset(&mut self) -> &mut Window {
        // An answer of 4 GiB is beyond every bound.
        self.left = Arc::new((0..self.hold.messages.len() as u32).collect());
        self
    }

    /// The places of the messages that are left, by the value at a dot path, in the order in which the groups begin. Paths
    /// begin in the message (`data.user`, `created_at`). What is missing, null, false, 0 or `""` is in the group `null_key`.
    pub fn group_by(&self, path: &str) -> Vec<(String, Vec<usize>)> {
        let path = Path::new(path);
        let mut groups: Vec<(String, Vec<usize>)> = Vec::new();
        let mut places = std::collections::HashMap::new();
        for (index, message) in self.messages().enumerate() {
            let key = group_key(path.find(message).as_deref());
            let place = *places.entry(key.clone()).or_insert_with(|| {
                groups.push((key, Vec::new()));
                groups.len() - 1
            });
            groups[place].1.push(index);
        }
        groups
    }

    /// Counts, sums, means and extremes of the messages that are left.
    pub fn aggregate(&self, wanted: &Aggregation) -> Aggregates {
        aggregate::aggregate(self.messages(), wanted)
    }

    /// Finishes the window: the next of its key follows. Completes when the broker has answered;
    /// [`AlreadySettled`](crate::ErrorCode::AlreadySettled) when it has a verdict, [`LeaseLost`](crate::ErrorCode::LeaseLost)
    /// when it comes again.
    pub fn ack(&self) -> Pending<()> {
        self.hold.lease.settle(true)
    }

    /// Gives the window back: it comes again, at once and as often as it takes.
    pub fn nack(&self) -> Pending<()> {
        self.hold.lease.settle(false)
    }

    /// Whether the lease is over for certain, so that no verdict can count. Whoever works for long asks now and then, and
    /// stops when it is.
    pub fn is_lost(&self) -> bool {
        self.hold.lease.is_lost()
    }

    /// Runs callbacks of the client that the window came from.
    pub fn dispatcher(&self) -> Dispatcher {
        Dispatcher::new(&self.hold.lease.core().dispatcher)
    }

    /// The window as a JSON object: `id`, `leaseId`, `stream`, `consumerGroup`, `key`, `start`, `end`, `messages` (those that
    /// are left), `size`, `originalSize`, and what else the broker says of it.
    pub fn to_json(&self) -> String {
        let messages = self.messages().map(|message| MessageDocument {
            id: &message.id,
            data: serde_json::from_str(message.payload()).unwrap_or(RawValue::NULL),
            created_at: &message.created_at,
        });
        let document = Document {
            id: self.id(),
            lease_id: self.lease_id(),
            stream: self.stream(),
            consumer_group: self.group(),
            key: self.key(),
            start: self.start(),
            end: self.end(),
            size: self.size(),
            original_size: self.original_size(),
            messages: messages.collect(),
            more: &self.hold.more,
        };
        serde_json::to_string(&document).unwrap_or_else(|_| "null".into())
    }
}

impl std::fmt::Debug for Window {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "Window({} of {} messages of {})",
            self.size(),
            self.original_size(),
            self.id()
        )
    }
}

#[derive(Serialize)]
struct MessageDocument<'a> {
    id: &'a str,
    data: &'a RawValue,
    created_at: &'a str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Document<'a> {
    id: &'a str,
    lease_id: &'a str,
    stream: &'a str,
    consumer_group: &'a str,
    key: &'a str,
    start: &'a str,
    end: &'a str,
    size: usize,
    original_size: usize,
    messages: Vec<MessageDocument<'a>>,
    #[serde(flatten)]
    more: &'a BTreeMap<String, Box<RawValue>>,
}
