//! `POST /api/v1/push`.

use std::borrow::Cow;
use std::collections::BTreeMap;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use uuid::Uuid;

use super::{bad_answer, check_name, misshapen};
use crate::error::{Error, ErrorCode, Outcome, Result};

pub(crate) const PATH: &str = "/api/v1/push";

/// The longest transaction id that the broker stores, in bytes.
const MAX_ID_BYTES: usize = 65_535;

/// How deep the arrays and objects of a payload may be nested.
const MAX_NESTING: usize = 100;

/// One message to push: the payload as JSON text, which is never parsed into values, and optional ids.
/// ```
/// use queen::Item;
///
/// let order = Item::raw(r#"{"order": 1}"#)?.transaction_id("order-1");
/// let same = Item::json(&serde_json::json!({"order": 1}))?.transaction_id("order-1");
/// assert!(Item::raw("{").is_err());
/// # Ok::<(), queen::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Item<'a> {
    payload: Cow<'a, RawValue>,
    transaction_id: Option<Cow<'a, str>>,
    trace_id: Option<Cow<'a, str>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct ItemText<'a> {
    #[serde(borrow)]
    payload: &'a RawValue,
    #[serde(borrow, default)]
    transaction_id: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    trace_id: Option<Cow<'a, str>>,
}

impl<'a> Item<'a> {
    /// A message whose payload is the JSON form of `value`.
    pub fn json<T: Serialize + ?Sized>(value: &T) -> Result<Item<'static>> {
        let payload = serde_json::value::to_raw_value(value)
            .map_err(|error| Error::new(ErrorCode::InvalidJson, format!("payload: {error}")))?;
        Ok(Item {
            payload: Cow::Owned(payload),
            transaction_id: None,
            trace_id: None,
        })
    }

    /// A message whose payload is exactly this JSON text.
    pub fn raw(payload: &'a str) -> Result<Item<'a>> {
        let payload = serde_json::from_str(payload)
            .map_err(|error| Error::new(ErrorCode::InvalidJson, format!("payload: {error}")))?;
        Ok(Item {
            payload: Cow::Borrowed(payload),
            transaction_id: None,
            trace_id: None,
        })
    }

    /// The idempotency key. Within the queue's window the partition stores a message of the same id once.
    pub fn transaction_id(mut self, id: impl Into<Cow<'a, str>>) -> Item<'a> {
        self.transaction_id = Some(id.into());
        self
    }

    /// The trace id, a UUID. Brokers of generation 1.x keep it for transactions alone.
    pub fn trace_id(mut self, id: impl Into<Cow<'a, str>>) -> Item<'a> {
        self.trace_id = Some(id.into());
        self
    }

    pub(super) fn payload(&self) -> &str {
        self.payload.get()
    }

    pub(super) fn trace(&self) -> Option<&str> {
        self.trace_id.as_deref()
    }

    /// The transaction id, and whether it was made here.
    pub(super) fn id_or_minted(&self) -> (Cow<'_, str>, bool) {
        match self.transaction_id.as_deref() {
            Some(id) => (Cow::Borrowed(id), false),
            None => (Cow::Owned(Uuid::now_v7().to_string()), true),
        }
    }

    /// Reads a JSON array of `{payload, transactionId?, traceId?}`.
    pub(crate) fn parse_list(json: &'a str) -> Result<Vec<Item<'a>>> {
        let items: Vec<ItemText<'a>> = serde_json::from_str(json).map_err(|error| {
            Error::new(
                ErrorCode::InvalidJson,
                format!("items: {error}; expected an array of {{\"payload\": any, \"transactionId\"?, \"traceId\"?}}"),
            )
        })?;
        Ok(items
            .into_iter()
            .map(|item| Item {
                payload: Cow::Borrowed(item.payload),
                transaction_id: item.transaction_id,
                trace_id: item.trace_id,
            })
            .collect())
    }
}

impl<'a> Item<'a> {
    /// Reads items of the form that was asked for.
    pub(crate) fn read_list(json: &'a str, classic: bool) -> Result<Vec<Item<'a>>> {
        match classic {
            true => Item::parse_classic(json),
            false => Item::parse_list(json),
        }
    }

    /// Reads items as the classic clients do: one value or an array of them. The payload of an object is what it has under
    /// `data`, else under `payload`, else the object itself; any other value is a payload. `transactionId` and `traceId` of
    /// an object count; what is null or empty there counts as missing.
    fn parse_classic(json: &'a str) -> Result<Vec<Item<'a>>> {
        let bad = |error: serde_json::Error| {
            Error::new(ErrorCode::InvalidJson, format!("items: {error}"))
        };
        let items: Vec<&'a RawValue> = match json.trim_start().starts_with('[') {
            true => serde_json::from_str(json).map_err(bad)?,
            false => vec![serde_json::from_str(json).map_err(bad)?],
        };
        items.into_iter().enumerate().map(classic).collect()
    }
}

/// An item of whatever form, by its place.
fn classic<'a>((index, item): (usize, &'a RawValue)) -> Result<Item<'a>> {
    let mut made = Item {
        payload: Cow::Borrowed(item),
        transaction_id: None,
        trace_id: None,
    };
    if !item.get().starts_with('{') {
        return Ok(made);
    }
    let fields: BTreeMap<Cow<'a, str>, &'a RawValue> = serde_json::from_str(item.get())
        .map_err(|error| Error::new(ErrorCode::InvalidJson, format!("items[{index}]: {error}")))?;
    if let Some(payload) = fields.get("data").or_else(|| fields.get("payload")) {
        made.payload = Cow::Borrowed(payload);
    }
    let id = |key: &str| {
        let Some(value) = fields.get(key) else {
            return Ok::<_, Error>(None);
        };
        let id: Option<Cow<'a, str>> = serde_json::from_str(value.get()).map_err(|_| {
            Error::argument(format!(
                "items[{index}].{key} is {:.60}; it must be a string",
                value.get()
            ))
        })?;
        Ok(id.filter(|id| !id.is_empty()))
    };
    made.transaction_id = id("transactionId")?;
    made.trace_id = id("traceId")?;
    Ok(made)
}

/// A push whose ids are minted: what goes on the wire, and what the answer is compared with.
#[derive(Debug)]
pub(crate) struct Push {
    pub(crate) body: Bytes,
    /// The transaction id of each item, in order.
    pub(crate) transaction_ids: Vec<String>,
    /// Whether libqueen made the id.
    minted: Vec<bool>,
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
            payload: &item.payload,
            transaction_id,
            trace_id: item.trace_id.as_deref(),
        }
    }
}

/// A place that the broker would accept.
pub(super) fn check_place(queue: &str, partition: &str) -> Result<()> {
    check_name("queue", queue, false)?;
    check_name("partition", partition, true)
}

/// Refuses what would make the broker refuse the whole request.
pub(super) fn check_items(items: &[Item<'_>]) -> Result<()> {
    if items.is_empty() {
        return Err(Error::argument("items is empty; give at least one message"));
    }
    for (index, item) in items.iter().enumerate() {
        if let Some(id) = item.transaction_id.as_deref() {
            check_name(&format!("items[{index}].transactionId"), id, true)?;
            if id.len() > MAX_ID_BYTES {
                return Err(Error::argument(format!(
                    "items[{index}].transactionId has {} bytes; at most {MAX_ID_BYTES} are stored",
                    id.len()
                )));
            }
        }
        if let Some(id) = item.trace_id.as_deref()
            && Uuid::try_parse(id).is_err()
        {
            // Brokers drop any other without a word.
            return Err(Error::argument(format!(
                "items[{index}].traceId is `{id:.60}`; it must be a UUID"
            )));
        }
        if nesting(item.payload.get()) > MAX_NESTING {
            return Err(Error::argument(format!(
                "items[{index}].payload is nested deeper than {MAX_NESTING}"
            )));
        }
    }
    Ok(())
}

impl Push {
    /// Checks everything that would make the broker refuse the whole request, and mints missing ids.
    pub(crate) fn new(queue: &str, partition: &str, items: &[Item<'_>]) -> Result<Push> {
        check_place(queue, partition)?;
        check_items(items)?;
        let (transaction_ids, minted): (Vec<String>, Vec<bool>) = items
            .iter()
            .map(|item| {
                let (id, minted) = item.id_or_minted();
                (id.into_owned(), minted)
            })
            .unzip();
        let wire: Vec<WireItem<'_>> = items
            .iter()
            .zip(&transaction_ids)
            .map(|(item, id)| WireItem::new(queue, partition, item, id))
            .collect();
        let size: usize = wire.iter().map(|item| item.payload.get().len() + 160).sum();
        let mut body = Vec::with_capacity(size);
        body.extend_from_slice(b"{\"items\":");
        serde_json::to_writer(&mut body, &wire).map_err(|error| {
            Error::new(
                ErrorCode::Internal,
                format!("items cannot be written: {error}"),
            )
        })?;
        body.push(b'}');
        Ok(Push {
            body: body.into(),
            transaction_ids,
            minted,
        })
    }

    /// Reads the answer into one result per item, in the caller's order.
    pub(crate) fn results(&self, body: &[u8]) -> Result<Vec<PushResult>> {
        results(body, self.transaction_ids.len(), |index| {
            Some((
                self.transaction_ids.get(index)?.as_str(),
                *self.minted.get(index)?,
            ))
        })
    }
}

/// Reads the answer to a push of `count` items; `item` tells the id of each and whether libqueen made it.
pub(super) fn results<'a>(
    body: &[u8],
    count: usize,
    item: impl Fn(usize) -> Option<(&'a str, bool)>,
) -> Result<Vec<PushResult>> {
    let entries: Vec<WireResult> =
        serde_json::from_slice(body).map_err(|error| misshapen("push", body, error))?;
    let mut results: Vec<Option<PushResult>> = vec![None; count];
    for (position, entry) in entries.into_iter().enumerate() {
        let index = entry.index.unwrap_or(position);
        let (Some(slot), Some((id, minted))) = (results.get_mut(index), item(index)) else {
            return Err(bad_answer(
                "push",
                format!("it has a result for item {index}"),
            ));
        };
        // An id that libqueen minted can only be a duplicate of its own earlier attempt.
        let status = match entry.status.as_str() {
            "duplicate" if minted => "queued".to_owned(),
            _ => entry.status,
        };
        *slot = Some(PushResult {
            index,
            transaction_id: id.to_owned(),
            message_id: entry.message_id.or(entry.camel_message_id),
            status,
            error: entry.error,
        });
    }
    results
        .into_iter()
        .enumerate()
        .map(|(index, result)| {
            result.ok_or_else(|| bad_answer("push", format!("item {index} has no result")))
        })
        .collect()
}

#[derive(Deserialize)]
struct WireResult {
    index: Option<usize>,
    message_id: Option<String>,
    /// Two fields, so that an answer may have both spellings.
    #[serde(rename = "messageId")]
    camel_message_id: Option<String>,
    status: String,
    error: Option<String>,
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
    pub status: String,
    /// Why the item was not stored.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

impl PushResult {
    /// A message that waits in the client.
    pub(super) fn buffered(index: usize, transaction_id: &str) -> PushResult {
        PushResult {
            index,
            transaction_id: transaction_id.to_owned(),
            message_id: None,
            status: "buffered".to_owned(),
            error: None,
        }
    }

    /// A message that was refused alone.
    pub(crate) fn failed(transaction_id: &str, error: &Error) -> PushResult {
        PushResult {
            index: 0,
            transaction_id: transaction_id.to_owned(),
            message_id: None,
            status: "failed".to_owned(),
            error: Some(error.message().to_owned()),
        }
    }

    /// Whether the broker has taken the message.
    pub fn is_success(&self) -> bool {
        matches!(self.status.as_str(), "queued" | "duplicate" | "buffered")
    }
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
    let json = serde_json::to_string(results).unwrap_or_default();
    Some(
        Error::new(ErrorCode::Partial, message)
            .with_outcome(Outcome::Refused)
            .with_result(json),
    )
}

/// How deep valid JSON text nests.
fn nesting(json: &str) -> usize {
    let (mut depth, mut deepest, mut in_string, mut escaped) = (0usize, 0, false, false);
    for byte in json.bytes() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            b'[' | b'{' if !in_string => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b']' | b'}' if !in_string => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    deepest
}

#[cfg(test)]
mod tests {
    use super::*;

    fn push(items: &str) -> Result<Push> {
        Push::new("q", "p", &Item::parse_list(items)?)
    }

    #[test]
    fn q6_payload_text_is_kept_and_ids_are_minted() {
        let push = push(r#"[{"payload": {"b":1.0,  "a":123456789012345678901234567890}},{"payload":null,"transactionId":"x"}]"#)
            .unwrap();
        let body = String::from_utf8(push.body.to_vec()).unwrap();
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
        let results = push.results(answer).unwrap();
        assert_eq!(
            results[0].status, "queued",
            "a minted id cannot be the caller's duplicate"
        );
        assert_eq!(results[1].status, "duplicate");
        assert_eq!(results[0].message_id.as_deref(), Some("m0"));
        assert!(partial(&results).is_none());
        assert!(
            push.results(br#"[{"index":0,"status":"queued"}]"#).is_err(),
            "a missing result is not a success"
        );
        assert!(push.results(br#"[{"index":7,"status":"queued"}]"#).is_err());
        let refused = push
            .results(br#"[{"status":"queued"},{"status":"failed","error":"full"}]"#)
            .unwrap();
        let error = partial(&refused).unwrap();
        assert!(
            error.message().contains("full") && error.result_json().unwrap().contains("queued")
        );
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

    #[test]
    fn q5_t8_classic_items_are_of_any_form() {
        let items = |json: &'static str| -> Vec<(String, Option<String>)> {
            let items = Item::parse_classic(json).unwrap();
            items
                .iter()
                .map(|item| {
                    let id = item.transaction_id.as_deref().map(str::to_owned);
                    (item.payload().to_owned(), id)
                })
                .collect()
        };
        let one = |json: &'static str| {
            let all = items(json);
            assert_eq!(all.len(), 1, "{json}");
            all[0].clone()
        };
        // What is there counts, not what is truthy; `data` goes first.
        assert_eq!(one(r#"{"data":null}"#).0, "null");
        assert_eq!(one(r#"{"payload": 0, "data": [ 1]}"#).0, "[ 1]");
        assert_eq!(one(r#"{"payload":false}"#).0, "false");
        assert_eq!(one(r#" {"n":1.0}"#).0, r#"{"n":1.0}"#);
        for any in ["7", "null", "true", r#""text""#, "-1.50"] {
            assert_eq!(one(any).0, any);
        }
        assert_eq!(
            items(r#"[[1,2],"a",{"data":2}]"#)
                .iter()
                .map(|(payload, _)| payload.as_str())
                .collect::<Vec<_>>(),
            ["[1,2]", r#""a""#, "2"]
        );
        assert!(items("[]").is_empty());
        // Ids beside the payload, and of an object that is the payload.
        assert_eq!(
            one(r#"{"data":1,"transactionId":"t"}"#).1.as_deref(),
            Some("t")
        );
        assert_eq!(
            one(r#"{"transactionId":"t"}"#),
            (r#"{"transactionId":"t"}"#.to_owned(), Some("t".to_owned()))
        );
        for falsy in [
            r#"{"data":1,"transactionId":""}"#,
            r#"{"data":1,"transactionId":null}"#,
        ] {
            assert_eq!(one(falsy).1, None);
        }
        let message = |json: &str| Item::parse_classic(json).unwrap_err().message().to_owned();
        assert!(
            message(r#"[1,{"data":1,"transactionId":5}]"#).contains("items[1].transactionId is 5")
        );
        assert!(message("[1").contains("items"));
        assert!(message("1 2").contains("items"));
        assert!(message("").contains("items"));
    }

    #[test]
    fn brackets_in_strings_do_not_nest() {
        assert_eq!(nesting(r#"{"a[[[\"[[":[1,{"b":"}"}]}"#), 3);
    }
}
