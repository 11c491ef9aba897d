//! `POST /api/v1/push`.

use std::borrow::Cow;
use std::io::Write;
use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::item::{check_items, check_place};
use super::plain::{self, Plain};
use super::{Text, bad_answer, json_text, misshapen};
use crate::error::{Error, ErrorCode, Outcome, Result};

pub use super::item::Item;

pub(crate) const PATH: &str = "/api/v1/push";

/// A call's items with their ids minted: what goes on the wire, once encoded, and what the answer is compared with.
#[derive(Debug)]
pub(crate) struct Push {
    /// The items in order, with commas between them.
    text: Vec<u8>,
    /// The transaction id of each item, in order.
    pub(crate) transaction_ids: Arc<[String]>,
    minted: Minted,
}

/// Which ids libqueen made.
#[derive(Debug)]
enum Minted {
    All,
    None,
    Some(Vec<bool>),
}

impl Minted {
    fn of(items: &[Item<'_>]) -> Minted {
        match items.iter().filter(|item| !item.has_id()).count() {
            0 => Minted::None,
            all if all == items.len() => Minted::All,
            _ => Minted::Some(items.iter().map(|item| !item.has_id()).collect()),
        }
    }

    fn is(&self, index: usize) -> bool {
        match self {
            Minted::All => true,
            Minted::None => false,
            Minted::Some(each) => each.get(index).copied().unwrap_or(false),
        }
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct WireItem<'a> {
    queue: &'a str,
    partition: &'a str,
    payload: &'a RawValue,
    transaction_id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    trace_id: Option<&'a str>,
}

impl<'a> WireItem<'a> {
    pub(super) fn new(
        queue: &'a str,
        partition: &'a str,
        item: &'a Item<'_>,
        transaction_id: &'a str,
    ) -> WireItem<'a> {
        WireItem {
            queue,
            partition,
            payload: item.raw_payload(),
            transaction_id,
            trace_id: item.trace(),
        }
    }
}

const HEAD: &[u8] = b"{\"items\":[";
const TAIL: &[u8] = b"]}";

/// What a request costs beside the texts of its pushes.
pub(crate) const FRAME: usize = HEAD.len() + TAIL.len();

impl Push {
    /// Checks everything that would make the broker refuse the whole request, and mints missing ids.
    pub(crate) fn new(queue: &str, partition: &str, items: &[Item<'_>]) -> Result<Push> {
        check_place(queue, partition)?;
        check_items(items)?;
        let transaction_ids: Arc<[String]> = items.iter().map(Item::id_or_minted).collect();
        let place = 48 + queue.len() + partition.len();
        let lens = items.iter().zip(&*transaction_ids);
        let size = lens.map(|(item, id)| place + item.payload().len() + id.len() + 24);
        let mut text = Vec::with_capacity(size.sum());
        text.extend_from_slice(b"{\"queue\":");
        json_text(&mut text, queue);
        text.extend_from_slice(b",\"partition\":");
        json_text(&mut text, partition);
        text.extend_from_slice(b",\"payload\":");
        let place = text.len();
        for (index, (item, id)) in items.iter().zip(&*transaction_ids).enumerate() {
            if index > 0 {
                text.push(b',');
                text.extend_from_within(..place);
            }
            text.extend_from_slice(item.payload().as_bytes());
            text.extend_from_slice(b",\"transactionId\":");
            json_text(&mut text, id);
            if let Some(trace) = item.trace() {
                text.extend_from_slice(b",\"traceId\":");
                json_text(&mut text, trace);
            }
            text.push(b'}');
        }
        Ok(Push {
            text,
            transaction_ids,
            minted: Minted::of(items),
        })
    }

    /// How many messages it has.
    pub(crate) fn messages(&self) -> usize {
        self.transaction_ids.len()
    }

    /// How many bytes of a request it takes.
    pub(crate) fn bytes(&self) -> usize {
        self.text.len() + 1
    }

    /// The ids that the caller gave.
    pub(crate) fn callers_ids(&self) -> impl Iterator<Item = &str> {
        let ids = match self.minted {
            Minted::All => &[],
            _ => &*self.transaction_ids,
        };
        let ids = ids.iter().enumerate();
        ids.filter(|(index, _)| !self.minted.is(*index))
            .map(|(_, id)| id.as_str())
    }

    /// Whether the caller gave any.
    pub(crate) fn has_callers_ids(&self) -> bool {
        !matches!(self.minted, Minted::All)
    }

    /// Results in the caller's order. `resent`: the call may have been stored by an earlier attempt.
    fn results(
        &self,
        entries: &mut [Option<WireResult<'_>>],
        resent: bool,
    ) -> Result<Vec<PushResult>> {
        let ids = self.transaction_ids.iter().enumerate().zip(entries);
        ids.map(|((index, id), entry)| {
            let entry = entry
                .take()
                .ok_or_else(|| bad_answer("push", format!("item {index} has no result")))?;
            Ok(entry.result(index, id, self.minted.is(index), resent))
        })
        .collect()
    }
}

/// The body of one request with all these pushes.
pub(crate) fn body<'a>(pushes: impl Iterator<Item = &'a Push> + Clone) -> Bytes {
    let size = pushes.clone().map(Push::bytes).sum::<usize>() + FRAME;
    let mut body = Vec::with_capacity(size);
    body.extend_from_slice(HEAD);
    for (index, push) in pushes.enumerate() {
        if index > 0 {
            body.push(b',');
        }
        body.extend_from_slice(&push.text);
    }
    body.extend_from_slice(TAIL);
    body.into()
}

/// Reads the answer to one request with all these pushes: for each of them one result per item, in the caller's order. The
/// flag of a push says whether an earlier attempt may have stored it.
pub(crate) fn answers<'a>(
    pushes: impl Iterator<Item = (&'a Push, bool)> + Clone,
    body: &[u8],
) -> Result<Vec<Result<Vec<PushResult>>>> {
    let count = pushes.clone().map(|(push, _)| push.messages()).sum();
    let mut entries = read(body, count)?;
    let mut rest = entries.as_mut_slice();
    Ok(pushes
        .map(|(push, resent)| {
            let (own, others) = std::mem::take(&mut rest).split_at_mut(push.messages());
            rest = others;
            push.results(own, resent)
        })
        .collect())
}

/// Reads the answer to a push of `count` items; `item` tells the id of each and whether libqueen made it.
pub(super) fn results<'a>(
    body: &[u8],
    count: usize,
    item: impl Fn(usize) -> Option<(&'a str, bool)>,
) -> Result<Vec<PushResult>> {
    let entries = read(body, count)?.into_iter().enumerate();
    entries
        .map(|(index, entry)| match (entry, item(index)) {
            (Some(entry), Some((id, minted))) => Ok(entry.result(index, id, minted, false)),
            _ => Err(bad_answer("push", format!("item {index} has no result"))),
        })
        .collect()
}

/// The entries of an answer in the order of the items; none for an item that it leaves out.
fn read(body: &[u8], count: usize) -> Result<Vec<Option<WireResult<'_>>>> {
    // Checked in one go, which is faster than text by text.
    let text = std::str::from_utf8(body).map_err(|error| misshapen("push", body, error))?;
    let entries: Vec<WireResult<'_>> = plain::read(text, |answer| answer.list(count, plain))
        .map_err(|error| misshapen("push", body, error))?;
    let mut slots: Vec<Option<WireResult<'_>>> =
        std::iter::repeat_with(|| None).take(count).collect();
    for (position, entry) in entries.into_iter().enumerate() {
        let index = entry.index.unwrap_or(position);
        let slot = slots
            .get_mut(index)
            .ok_or_else(|| bad_answer("push", format!("it has a result for item {index}")))?;
        *slot = Some(entry);
    }
    Ok(slots)
}

/// An entry as brokers of generation 1.x write it.
fn plain<'a>(answer: &mut Plain<'a>) -> Option<WireResult<'a>> {
    answer.literal("{\"index\":")?;
    let index = answer.number()?;
    answer.literal(",\"message_id\":")?;
    let message_id = answer.text()?;
    answer.literal(",\"transaction_id\":")?;
    answer.text()?;
    answer.literal(",\"queueName\":")?;
    answer.text()?;
    answer.literal(",\"status\":")?;
    let status = answer.text()?;
    answer.literal("}")?;
    Some(WireResult {
        index: usize::try_from(index).ok(),
        message_id: Some(message_id),
        camel_message_id: None,
        status,
        error: None,
    })
}

#[derive(Deserialize)]
#[cfg_attr(test, derive(Debug, PartialEq))]
struct WireResult<'a> {
    index: Option<usize>,
    #[serde(borrow, default)]
    message_id: Option<Text<'a>>,
    /// Two fields, so that an answer may have both spellings.
    #[serde(borrow, default, rename = "messageId")]
    camel_message_id: Option<Text<'a>>,
    #[serde(borrow)]
    status: Text<'a>,
    #[serde(borrow, default)]
    error: Option<Text<'a>>,
}

impl WireResult<'_> {
    fn result(self, index: usize, id: &str, minted: bool, resent: bool) -> PushResult {
        // An id that libqueen minted can only be a duplicate of its own earlier attempt.
        let duplicate = self.status.0 == "duplicate";
        let status = match &*self.status.0 {
            "queued" => "queued".into(),
            "duplicate" if minted => "queued".into(),
            "duplicate" => "duplicate".into(),
            _ => self.status.into_owned().into(),
        };
        PushResult {
            index,
            transaction_id: id.to_owned(),
            message_id: self
                .message_id
                .or(self.camel_message_id)
                .map(Text::into_owned),
            status,
            error: self.error.map(Text::into_owned),
            resent: duplicate && !minted && resent,
        }
    }
}

/// What became of one pushed message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct PushResult {
    /// Position among the items of the call.
    pub index: usize,
    /// The caller's id, or the one that was minted.
    pub transaction_id: String,
    /// The broker's id of the stored message.
    pub message_id: Option<String>,
    /// `queued`, `duplicate` (an id of the caller's that is stored already) or `buffered` (accepted, stored later) are
    /// successes; `failed` and `error` are not.
    pub status: Cow<'static, str>,
    /// Why the item was not stored.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// With `duplicate`: the call had been sent before without an answer, so that the message may be its own duplicate.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub resent: bool,
}

impl PushResult {
    /// A message that waits in the client.
    pub(super) fn buffered(index: usize, transaction_id: &str) -> PushResult {
        PushResult {
            index,
            transaction_id: transaction_id.to_owned(),
            message_id: None,
            status: "buffered".into(),
            error: None,
            resent: false,
        }
    }

    /// A message that was refused alone.
    pub(crate) fn failed(transaction_id: &str, error: &Error) -> PushResult {
        PushResult {
            index: 0,
            transaction_id: transaction_id.to_owned(),
            message_id: None,
            status: "failed".into(),
            error: Some(error.message().to_owned()),
            resent: false,
        }
    }

    /// Whether the broker has taken the message.
    pub fn is_success(&self) -> bool {
        matches!(&*self.status, "queued" | "duplicate" | "buffered")
    }
}

/// The results of a push as JSON. What serde would write, in fewer steps.
pub(crate) fn results_json(results: &[PushResult]) -> String {
    let texts = |result: &PushResult| {
        let error = result.error.as_ref().map_or(0, String::len);
        let id = result.message_id.as_ref().map_or(0, String::len);
        result.transaction_id.len() + id + error + 128
    };
    let mut json = Vec::with_capacity(2 + results.iter().map(texts).sum::<usize>());
    json.push(b'[');
    for result in results {
        if json.len() > 1 {
            json.push(b',');
        }
        json.extend_from_slice(b"{\"index\":");
        // Writing numbers into memory cannot fail.
        let _ = write!(json, "{}", result.index);
        json.extend_from_slice(b",\"transactionId\":");
        json_text(&mut json, &result.transaction_id);
        json.extend_from_slice(b",\"messageId\":");
        match &result.message_id {
            Some(id) => json_text(&mut json, id),
            None => json.extend_from_slice(b"null"),
        }
        json.extend_from_slice(b",\"status\":");
        json_text(&mut json, &result.status);
        if let Some(error) = &result.error {
            json.extend_from_slice(b",\"error\":");
            json_text(&mut json, error);
        }
        if result.resent {
            json.extend_from_slice(b",\"resent\":true");
        }
        json.push(b'}');
    }
    json.push(b']');
    String::from_utf8(json).unwrap_or_default()
}

/// The error of a push of which some items were refused.
pub(crate) fn partial(results: &[PushResult]) -> Option<Error> {
    let mut refused = results.iter().filter(|result| !result.is_success());
    let first = refused.next()?;
    let message = format!(
        "{} of {} messages were not stored; item {}: {}",
        1 + refused.count(),
        results.len(),
        first.index,
        first.error.as_deref().unwrap_or(&first.status)
    );
    let json = results_json(results);
    Some(
        Error::new(ErrorCode::Partial, message)
            .with_outcome(Outcome::Refused)
            .with_result(json),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;

    fn push(items: &str) -> Result<Push> {
        Push::new("q", "p", &Item::parse_list(items)?)
    }

    fn results(push: &Push, answer: &[u8]) -> Result<Vec<PushResult>> {
        answers([(push, false)].into_iter(), answer)?.remove(0)
    }

    #[test]
    fn q6_payload_text_is_kept_and_ids_are_minted() {
        let push = push(r#"[{"payload": {"b":1.0,  "a":123456789012345678901234567890}},{"payload":null,"transactionId":"x"}]"#)
            .unwrap();
        let body = String::from_utf8(super::body([&push].into_iter()).to_vec()).unwrap();
        assert!(
            body.contains(r#"{"b":1.0,  "a":123456789012345678901234567890}"#),
            "{body}"
        );
        assert!(body.contains(r#""payload":null"#));
        let minted: Uuid = push.transaction_ids[0].parse().unwrap();
        assert_eq!(minted.get_version_num(), 7);
        assert_eq!(push.transaction_ids[1], "x");
    }

    #[test]
    fn what_would_poison_a_request_is_refused_at_the_door() {
        let message = |items: &str| push(items).unwrap_err().message().to_owned();
        assert!(message("[]").contains("empty"));
        assert!(message(r#"[{"data":1}]"#).contains("data"));
        assert!(message(r#"{"payload":1}"#).contains("array"));
        assert!(message(r#"[{"payload":1,"transactionId":"a\u0001"}]"#).contains("transactionId"));
        assert!(message(r#"[{"transactionId":"a"}]"#).contains("payload"));
        let deep = format!(r#"[{{"payload":{}1{}}}]"#, "[".repeat(101), "]".repeat(101));
        assert!(message(&deep).contains("nested"));
        let long = format!(
            r#"[{{"payload":1,"transactionId":"{}"}}]"#,
            "x".repeat(65_536)
        );
        assert!(message(&long).contains("65536"));
        assert!(Push::new("", "p", &[Item::raw("1").unwrap()]).is_err());
        assert!(Item::raw("1 2").is_err());
    }

    #[test]
    fn results_come_in_the_callers_order_in_both_spellings() {
        let push = push(r#"[{"payload":1},{"payload":2,"transactionId":"mine"}]"#).unwrap();
        let answer = br#"[{"index":1,"message_id":"m1","status":"duplicate"},{"index":0,"messageId":"m0","status":"duplicate"}]"#;
        let read = results(&push, answer).unwrap();
        assert_eq!(
            read[0].status, "queued",
            "a minted id cannot be the caller's duplicate"
        );
        assert_eq!(read[1].status, "duplicate");
        assert_eq!(read[0].message_id.as_deref(), Some("m0"));
        assert!(partial(&read).is_none());
        assert!(
            results(&push, br#"[{"index":0,"status":"queued"}]"#).is_err(),
            "a missing result is not a success"
        );
        assert!(results(&push, br#"[{"index":7,"status":"queued"}]"#).is_err());
        let refused = results(
            &push,
            br#"[{"status":"queued"},{"status":"failed","error":"full"}]"#,
        )
        .unwrap();
        let error = partial(&refused).unwrap();
        assert!(
            error.message().contains("full") && error.result_json().unwrap().contains("queued")
        );
    }

    #[test]
    fn answers_are_read_as_serde_would_or_left_to_it() {
        let entry = |index: u32, status: &str| {
            format!(
                r#"{{"index":{index},"message_id":"m{index}","transaction_id":"é","queueName":"q","status":"{status}"}}"#
            )
        };
        let short = |text: &str| Some(format!("{:?}", Plain::new(text).list(1, plain)?));
        for text in [
            format!("[{}]", entry(0, "queued")),
            format!("[{},{}]", entry(10, "queued"), entry(2, "duplicate")),
        ] {
            let read: Vec<WireResult<'_>> = serde_json::from_str(&text).unwrap();
            assert_eq!(short(&text), Some(format!("{read:?}")));
        }
        let good = format!("[{}]", entry(0, "queued"));
        for (from, to) in [
            ("\"q\"", "\"q\\\"\""),
            ("index\":0", "index\":-1"),
            ("}", ",\"error\":\"full\"}"),
            ("message_id", "messageId"),
            ("{", "{ "),
        ] {
            assert_eq!(short(&good.replace(from, to)), None, "{to}");
        }
    }

    #[test]
    fn results_are_written_as_serde_would() {
        let result = |index, error: Option<&str>, resent| PushResult {
            index,
            transaction_id: "é\"1".into(),
            message_id: Some("m".into()).filter(|_| index > 0),
            status: "queued".into(),
            error: error.map(str::to_owned),
            resent,
        };
        let results = [
            result(0, None, false),
            result(10, Some("no \\ way"), true),
            result(2, None, true),
        ];
        for some in [&results[..], &results[..1], &[]] {
            assert_eq!(results_json(some), serde_json::to_string(some).unwrap());
        }
    }

    #[test]
    fn q7_c28_a_trace_id_that_is_no_uuid_is_refused() {
        let error = push(r#"[{"payload":1},{"payload":1,"traceId":"mine"}]"#).unwrap_err();
        assert!(
            error.message().contains("items[1].traceId is `mine`"),
            "{error}"
        );
        let id = Uuid::now_v7();
        assert!(push(&format!(r#"[{{"payload":1,"traceId":"{id}"}}]"#)).is_ok());
    }
}
