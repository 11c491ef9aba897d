//! Messages that wait in the client before they are pushed: compact, and encoded when they leave.

use std::borrow::Borrow;

use super::item::{check_items, check_place};
use super::json_text;
use super::push::{self, Item, PushResult};
use crate::error::{Error, Result};

/// One message to push, checked and with its id minted: both ids and the payload in one allocation.
#[derive(Debug)]
pub(crate) struct Kept {
    /// Transaction id, trace id, payload.
    text: Box<str>,
    id_len: u16,
    trace_len: Option<u16>,
    /// Whether libqueen made the transaction id.
    minted: bool,
}

impl Kept {
    /// Checks everything that would make the broker refuse a request with these messages, and mints missing ids.
    pub(crate) fn list(queue: &str, partition: &str, items: &[Item<'_>]) -> Result<Vec<Kept>> {
        check_place(queue, partition)?;
        check_items(items)?;
        items
            .iter()
            .enumerate()
            .map(|(index, item)| Kept::new(index, item))
            .collect()
    }

    fn new(index: usize, item: &Item<'_>) -> Result<Kept> {
        let id = item.id_or_minted();
        let trace = item.trace().unwrap_or_default();
        let too_long = |what: &str, len: usize| {
            Error::argument(format!(
                "items[{index}].{what} has {len} bytes; at most {} are stored",
                u16::MAX
            ))
        };
        let id_len = u16::try_from(id.len()).map_err(|_| too_long("transactionId", id.len()))?;
        let trace_len = u16::try_from(trace.len()).map_err(|_| too_long("traceId", trace.len()))?;
        let payload = item.payload();
        let mut text = String::with_capacity(id.len() + trace.len() + payload.len());
        text.push_str(&id);
        text.push_str(trace);
        text.push_str(payload);
        Ok(Kept {
            text: text.into(),
            id_len,
            trace_len: item.trace().map(|_| trace_len),
            minted: !item.has_id(),
        })
    }

    pub(crate) fn transaction_id(&self) -> &str {
        &self.text[..usize::from(self.id_len)]
    }

    fn trace_id(&self) -> Option<&str> {
        let from = usize::from(self.id_len);
        self.trace_len
            .map(|len| &self.text[from..from + usize::from(len)])
    }

    fn payload(&self) -> &str {
        let from = usize::from(self.id_len) + usize::from(self.trace_len.unwrap_or(0));
        &self.text[from..]
    }

    /// How many bytes it keeps.
    pub(crate) fn len(&self) -> usize {
        self.text.len()
    }
}

/// The body of a push of waiting messages to one partition, filled one by one.
pub(crate) struct Body {
    text: Vec<u8>,
    /// What every item begins with.
    place: Vec<u8>,
}

impl Body {
    pub(crate) fn new(queue: &str, partition: &str) -> Body {
        let mut place = b"{\"queue\":".to_vec();
        json_text(&mut place, queue);
        place.extend_from_slice(b",\"partition\":");
        json_text(&mut place, partition);
        place.extend_from_slice(b",\"payload\":");
        Body {
            text: b"{\"items\":[".to_vec(),
            place,
        }
    }

    /// Adds a message unless that makes the body larger than `most` bytes; the first one always fits.
    pub(crate) fn add(&mut self, message: &Kept, most: usize) -> bool {
        let before = self.text.len();
        let first = self.text.ends_with(b"[");
        if !first {
            self.text.push(b',');
        }
        self.text.extend_from_slice(&self.place);
        self.text.extend_from_slice(message.payload().as_bytes());
        self.text.extend_from_slice(b",\"transactionId\":");
        json_text(&mut self.text, message.transaction_id());
        if let Some(trace) = message.trace_id() {
            self.text.extend_from_slice(b",\"traceId\":");
            json_text(&mut self.text, trace);
        }
        self.text.push(b'}');
        let fits = first || self.text.len() + 2 <= most;
        if !fits {
            self.text.truncate(before);
        }
        fits
    }

    pub(crate) fn finish(mut self) -> Vec<u8> {
        self.text.extend_from_slice(b"]}");
        self.text
    }
}

/// Reads the answer to a push of waiting messages: one result for each, in order.
pub(crate) fn results<M: Borrow<Kept>>(messages: &[M], body: &[u8]) -> Result<Vec<PushResult>> {
    push::results(body, messages.len(), |index| {
        let kept = messages.get(index)?.borrow();
        Some((kept.transaction_id(), kept.minted))
    })
}

/// What a push into a buffer answers: accepted, stored later.
pub(crate) fn accepted(messages: &[Kept]) -> Vec<PushResult> {
    messages
        .iter()
        .enumerate()
        .map(|(index, kept)| PushResult::buffered(index, kept.transaction_id()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keep(items: &str) -> Result<Vec<Kept>> {
        Kept::list("q", "p", &Item::parse_list(items)?)
    }

    fn body(messages: &[Kept], most: usize) -> (usize, serde_json::Value) {
        let mut body = Body::new("q\"1", "ü/");
        let taken = messages
            .iter()
            .take_while(|kept| body.add(kept, most))
            .count();
        (taken, serde_json::from_slice(&body.finish()).unwrap())
    }

    #[test]
    fn what_is_kept_leaves_as_it_came() {
        let kept = keep(
            r#"[{"payload":{"n": 1.0},"transactionId":"é\"1","traceId":"0193b2c8-0000-7000-8000-00000000000a"},{"payload":null,"transactionId":""},{"payload":"x"}]"#,
        )
        .unwrap();
        let (taken, json) = body(&kept, 1 << 20);
        assert_eq!(taken, 3);
        let item = &json["items"][0];
        assert_eq!(
            (&item["queue"], &item["partition"]),
            (&"q\"1".into(), &"ü/".into())
        );
        assert_eq!(
            (&item["transactionId"], &item["traceId"]),
            (
                &"é\"1".into(),
                &"0193b2c8-0000-7000-8000-00000000000a".into()
            )
        );
        assert_eq!(item["payload"]["n"], 1.0);
        assert!(json["items"][1]["payload"].is_null());
        assert_eq!(json["items"][1]["transactionId"], "");
        assert_eq!(json["items"][1].get("traceId"), None);
        assert_eq!(kept[2].transaction_id().len(), 36);
    }

    #[test]
    fn a_body_keeps_to_its_size_unless_one_message_is_larger() {
        let kept = keep(r#"[{"payload":"aaaaaaaaaa"},{"payload":2},{"payload":3}]"#).unwrap();
        assert_eq!(body(&kept, 10).0, 1);
        let (two, json) = body(&kept, 300);
        assert_eq!((two, json["items"].as_array().unwrap().len()), (2, 2));
    }

    #[test]
    fn bad_messages_are_refused_at_the_door() {
        let message = |items: &str| keep(items).unwrap_err().message().to_owned();
        assert!(message("[]").contains("empty"));
        assert!(message(r#"[{"payload":1,"transactionId":"a\u0001"}]"#).contains("transactionId"));
        let long = format!(r#"[{{"payload":1,"traceId":"{}"}}]"#, "x".repeat(65_536));
        assert!(message(&long).contains("traceId"));
        assert!(Kept::list("", "p", &[Item::raw("1").unwrap()]).is_err());
    }

    #[test]
    fn results_belong_to_their_messages() {
        let kept = keep(r#"[{"payload":1},{"payload":2,"transactionId":"mine"}]"#).unwrap();
        let answer = br#"[{"index":1,"message_id":"m1","status":"duplicate"},{"index":0,"message_id":"m0","status":"duplicate"}]"#;
        let read = results(&kept, answer).unwrap();
        assert_eq!(
            (&*read[0].status, &*read[1].status),
            ("queued", "duplicate")
        );
        assert!(results(&kept, b"[]").is_err());
        assert_eq!(accepted(&kept)[1].status, "buffered");
    }
}
