//! What became of buffered messages, told message by message.

use std::sync::{Arc, PoisonError, RwLock};

use serde::Serialize;

use super::address::Address;
use super::buffer::Message;
use crate::protocol::push::PushResult;

/// What became of one message that was pushed into a buffer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct DeliveryReport {
    /// The queue.
    pub queue: String,
    /// The partition.
    pub partition: String,
    /// The caller's id, or the one that was minted.
    pub transaction_id: String,
    /// The broker's id of the stored message.
    pub message_id: Option<String>,
    /// What became of it.
    pub status: DeliveryStatus,
    /// Why it was not stored.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// With `duplicate`: the message had been sent before without an answer, so that it may be its own duplicate.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub resent: bool,
}

/// What became of a buffered message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub enum DeliveryStatus {
    /// It is stored.
    Queued,
    /// A message with this id of the caller's is stored already.
    Duplicate,
    /// The broker has accepted it and will store it later.
    Buffered,
    /// The broker refused it for good.
    Failed,
    /// It made room for newer ones.
    Dropped,
    /// The client was closed first.
    Closed,
}

impl DeliveryStatus {
    /// Whether the broker has taken the message.
    pub fn is_success(self) -> bool {
        use DeliveryStatus::{Buffered, Duplicate, Queued};
        matches!(self, Queued | Duplicate | Buffered)
    }
}

/// Receives delivery reports, one list for each request of a buffer. Called on library threads, for messages that were
/// dropped on the thread that pushes: it must be quick and must not block.
/// ```
/// use queen::{BufferOptions, Client, DeliveryStatus, Item};
/// use std::sync::{Arc, mpsc};
/// use std::time::Duration;
///
/// let client = Client::new("embedded:")?;
/// let (told, reports) = mpsc::channel();
/// client.set_reports(Some(Arc::new(move |list| {
///     list.iter().for_each(|report| drop(told.send(report.clone())))
/// })));
/// let events = client.queue("events").buffer(BufferOptions::default());
/// events.push(&[Item::json(&1)?]).wait(Duration::from_secs(10))?;
/// events.flush().wait(Duration::from_secs(30))?;
/// let report = reports.recv_timeout(Duration::from_secs(10)).expect("a report");
/// assert_eq!(report.status, DeliveryStatus::Queued);
/// # Ok::<(), queen::Error>(())
/// ```
pub type ReportSink = Arc<dyn Fn(&[DeliveryReport]) + Send + Sync>;

/// A long list is told in pieces of so many.
const MOST_AT_ONCE: usize = 1000;

/// Where the reports of a client go.
#[derive(Default)]
pub(super) struct Reports(RwLock<Option<ReportSink>>);

impl Reports {
    pub(super) fn set(&self, sink: Option<ReportSink>) {
        let mut place = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let before = std::mem::replace(&mut *place, sink);
        drop(place);
        drop(before);
    }

    fn sink(&self) -> Option<ReportSink> {
        self.0
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Tells what the broker answered.
    pub(super) fn answered(&self, address: &Address, results: Vec<PushResult>, resent: usize) {
        let Some(sink) = self.sink() else { return };
        let reports: Vec<_> = results
            .into_iter()
            .map(|result| answered(address, result, resent))
            .collect();
        reports.chunks(MOST_AT_ONCE).for_each(|piece| sink(piece));
    }

    /// Tells that messages were given up; of the first `attempted` nobody knows whether they are stored.
    pub(super) fn given_up<'a>(
        &self,
        address: &Address,
        messages: impl Iterator<Item = &'a Message>,
        status: DeliveryStatus,
        why: &str,
        attempted: usize,
    ) {
        let Some(sink) = self.sink() else { return };
        let mut reports = Vec::new();
        for (index, message) in messages.enumerate() {
            let error = match index < attempted {
                true => format!("{why}; it was sent before without an answer and may be stored"),
                false => why.to_owned(),
            };
            reports.push(DeliveryReport {
                queue: address.queue.to_string(),
                partition: address.partition.to_string(),
                transaction_id: message.kept.transaction_id().to_owned(),
                message_id: None,
                status,
                error: Some(error),
                resent: false,
            });
            if reports.len() == MOST_AT_ONCE {
                sink(&std::mem::take(&mut reports));
            }
        }
        if !reports.is_empty() {
            sink(&reports);
        }
    }
}

fn answered(address: &Address, result: PushResult, resent: usize) -> DeliveryReport {
    let (status, error) = match &*result.status {
        "queued" => (DeliveryStatus::Queued, None),
        "duplicate" => (DeliveryStatus::Duplicate, None),
        "buffered" => (DeliveryStatus::Buffered, None),
        other => (
            DeliveryStatus::Failed,
            Some(result.error.unwrap_or_else(|| other.to_owned())),
        ),
    };
    DeliveryReport {
        queue: address.queue.to_string(),
        partition: address.partition.to_string(),
        transaction_id: result.transaction_id,
        message_id: result.message_id,
        status,
        error,
        resent: status == DeliveryStatus::Duplicate && result.index < resent,
    }
}
