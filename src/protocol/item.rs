//! Messages as a caller hands them over, and what is checked at the door.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use uuid::Uuid;
use uuid::fmt::Hyphenated;

use super::{check_name, minted};
use crate::error::{Error, ErrorCode, Result};

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

    pub(super) fn raw_payload(&self) -> &RawValue {
        &self.payload
    }

    /// Whether the caller has given it a transaction id.
    pub(super) fn has_id(&self) -> bool {
        self.transaction_id.is_some()
    }

    pub(super) fn trace(&self) -> Option<&str> {
        self.trace_id.as_deref()
    }

    /// The transaction id, or one that is made now.
    pub(super) fn id_or_minted(&self) -> String {
        match self.transaction_id.as_deref() {
            Some(id) => id.to_owned(),
            None => {
                let mut text = [0; Hyphenated::LENGTH];
                let text = minted::mint().hyphenated().encode_lower(&mut text);
                text.to_owned()
            }
        }
    }

    /// Reads a JSON array of `{payload, transactionId?, traceId?}`.
    pub(crate) fn parse_list(json: &'a str) -> Result<Vec<Item<'a>>> {
        let items: Vec<Parsed<'a>> = serde_json::from_str(json).map_err(|error| {
            Error::new(
                ErrorCode::InvalidJson,
                format!("items: {error}; expected an array of {{\"payload\": any, \"transactionId\"?, \"traceId\"?}}"),
            )
        })?;
        // In place: the two are of one shape.
        Ok(items.into_iter().map(|item| item.0).collect())
    }
}

/// An item out of JSON. It is not for everybody to deserialize one.
struct Parsed<'a>(Item<'a>);

impl<'de: 'a, 'a> Deserialize<'de> for Parsed<'a> {
    fn deserialize<D: serde::Deserializer<'de>>(
        deserializer: D,
    ) -> std::result::Result<Self, D::Error> {
        let item = ItemText::deserialize(deserializer)?;
        Ok(Parsed(Item {
            payload: Cow::Borrowed(item.payload),
            transaction_id: item.transaction_id,
            trace_id: item.trace_id,
        }))
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
            if id.bytes().any(|byte| byte < 0x20) {
                check_name(&format!("items[{index}].transactionId"), id, true)?;
            }
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
        let payload = item.payload.get();
        if payload.len() <= 2 * MAX_NESTING {
            continue;
        }
        // As a rule there are too few brackets in all, which is counted many bytes at a time.
        let opening = payload.bytes().fold(0, |count, byte| {
            count + usize::from((byte == b'[') | (byte == b'{'))
        });
        if opening > MAX_NESTING && nesting(payload) > MAX_NESTING {
            return Err(Error::argument(format!(
                "items[{index}].payload is nested deeper than {MAX_NESTING}"
            )));
        }
    }
    Ok(())
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
