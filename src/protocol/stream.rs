//! `/api/v1/stream/…` of generation 0.7, in the answers of every broker that has it.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::{Text, bad_answer, check_name, misshapen};
use crate::error::{Error, ErrorCode, Outcome, Result};

pub(crate) const POLL: &str = "/api/v1/stream/poll";
pub(crate) const ACK: &str = "/api/v1/stream/ack";
pub(crate) const RENEW: &str = "/api/v1/stream/renew-lease";

/// One message of a window. Clones share the payload.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct WindowMessage {
    /// The broker's id of the message.
    pub id: String,
    /// When the push was committed, ISO 8601 in UTC, of whichever generation the broker is.
    pub created_at: String,
    payload: Bytes,
}

impl WindowMessage {
    pub(crate) fn new(id: String, created_at: String, payload: Bytes) -> WindowMessage {
        WindowMessage {
            id,
            created_at,
            payload,
        }
    }

    /// The payload: JSON text, byte for byte as pushed.
    pub fn payload(&self) -> &str {
        // It was cut out of JSON, which is UTF-8.
        std::str::from_utf8(&self.payload).unwrap_or("null")
    }

    /// The payload as a value of the caller's type.
    pub fn json<'a, T: Deserialize<'a>>(&'a self) -> Result<T> {
        serde_json::from_str(self.payload()).map_err(|error| {
            Error::new(
                ErrorCode::InvalidJson,
                format!("payload of message {}: {error}", self.id),
            )
        })
    }
}

/// What a poll brought.
#[derive(Debug)]
pub(crate) struct WireWindow {
    pub(crate) id: String,
    pub(crate) lease_id: String,
    pub(crate) key: String,
    pub(crate) start: String,
    pub(crate) end: String,
    pub(crate) messages: Arc<[WindowMessage]>,
    /// What else the broker says of it.
    pub(crate) more: BTreeMap<String, Box<RawValue>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Poll<'a> {
    stream_name: &'a str,
    consumer_group: &'a str,
    timeout: u64,
}

/// The body of a poll.
pub(crate) fn poll(stream: &str, group: &str, timeout_millis: u64) -> Vec<u8> {
    let body = Poll {
        stream_name: stream,
        consumer_group: group,
        timeout: timeout_millis,
    };
    serde_json::to_vec(&body).unwrap_or_default()
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Settle<'a> {
    window_id: &'a str,
    lease_id: &'a str,
    success: bool,
}

/// The body of an ack or a nack.
pub(crate) fn settle(window_id: &str, lease_id: &str, success: bool) -> Vec<u8> {
    let body = Settle {
        window_id,
        lease_id,
        success,
    };
    serde_json::to_vec(&body).unwrap_or_default()
}

/// The body of a renewal.
pub(crate) fn renew(lease_id: &str, extend_millis: u64) -> Vec<u8> {
    let body = serde_json::json!({"leaseId": lease_id, "extend_ms": extend_millis});
    body.to_string().into_bytes()
}

/// Names of a stream and a group that a broker would accept.
pub(crate) fn check(stream: &str, group: &str) -> Result<()> {
    check_name("stream", stream, false)?;
    check_name("consumerGroup", group, false)
}

#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(borrow, default)]
    window: Option<BTreeMap<Cow<'a, str>, &'a RawValue>>,
    #[serde(default)]
    error: Option<String>,
}

#[derive(Deserialize)]
struct WireMessage<'a> {
    #[serde(borrow)]
    id: Text<'a>,
    #[serde(borrow)]
    data: Option<&'a RawValue>,
    #[serde(borrow, default)]
    created_at: Option<Text<'a>>,
}

/// Reads the answer to a poll. Nothing came: an empty body, 204 or 200, `null`, or no window.
pub(crate) fn parse(body: &Bytes) -> Result<Option<WireWindow>> {
    const ROUTE: &str = "stream poll";
    if body.is_empty() {
        return Ok(None);
    }
    // serde would read a list as the fields in order.
    if body.trim_ascii_start().starts_with(b"[") {
        return Err(bad_answer(ROUTE, "it is a list"));
    }
    let envelope: Option<Envelope> =
        serde_json::from_slice(body).map_err(|error| misshapen(ROUTE, body, error))?;
    let Some(envelope) = envelope else {
        return Ok(None);
    };
    if let Some(reason) = envelope.error {
        return Err(told(ROUTE, &reason));
    }
    let Some(mut window) = envelope.window else {
        return Ok(None);
    };
    let mut text = |key: &'static str| -> Result<String> {
        let raw = window
            .remove(key)
            .ok_or_else(|| bad_answer(ROUTE, format_args!("the window has no `{key}`")))?;
        serde_json::from_str(raw.get()).map_err(|error| bad_answer(ROUTE, error))
    };
    let (id, lease_id, key) = (text("id")?, text("leaseId")?, text("key")?);
    let (start, end) = (text("start")?, text("end")?);
    let wired: Vec<WireMessage> = match window.remove("messages") {
        Some(raw) => serde_json::from_str(raw.get()).map_err(|error| bad_answer(ROUTE, error))?,
        None => Vec::new(),
    };
    let messages = wired.into_iter().map(|one| {
        let payload = match one.data {
            Some(data) => body.slice_ref(data.get().as_bytes()),
            None => Bytes::from_static(b"null"),
        };
        let created_at = one.created_at.map_or_else(String::new, Text::into_owned);
        WindowMessage::new(one.id.into_owned(), iso(created_at), payload)
    });
    let (from, to) = (iso(start.clone()), iso(end.clone()));
    Ok(Some(WireWindow {
        // A window has one id, however its times are written.
        id: match id.strip_suffix(&format!("{start}:{end}")) {
            Some(rest) => format!("{rest}{from}:{to}"),
            None => id,
        },
        lease_id,
        key,
        start: from,
        end: to,
        messages: messages.collect(),
        more: window
            .into_iter()
            .map(|(key, raw)| (key.into_owned(), raw.to_owned()))
            .collect(),
    }))
}

/// A time as ISO 8601 with six decimals, from that or from the text of PostgreSQL: `2026-11-23 20:35:34+00`. What is
/// neither stays as it is.
pub(crate) fn iso(time: String) -> String {
    let bytes = time.as_bytes();
    let mut text = Cow::Borrowed(time.as_str());
    if bytes.get(10) == Some(&b' ') {
        let mut changed = time.replacen(' ', "T", 1);
        // A zone of hours alone is no ISO 8601.
        let digits = changed.len().checked_sub(3);
        if digits.is_some_and(|at| matches!(changed.as_bytes()[at], b'+' | b'-')) {
            changed.push_str(":00");
        }
        text = Cow::Owned(changed);
    }
    match text.parse::<Timestamp>() {
        Ok(read) => format!("{read:.6}"),
        Err(_) => time,
    }
}

/// What became of a verdict or a renewal, in a body of status 200.
pub(crate) fn answered(route: &str, body: &Bytes) -> Result<()> {
    #[derive(Deserialize)]
    struct Answered {
        success: Option<bool>,
        error: Option<String>,
    }
    let answer: Answered =
        serde_json::from_slice(body).map_err(|error| misshapen(route, body, error))?;
    match (answer.error, answer.success) {
        (Some(reason), _) => Err(told(route, &reason)),
        (None, Some(true)) => Ok(()),
        _ => Err(misshapen(route, body, "it does not tell of success")),
    }
}

/// Until when a renewal lets a lease live, where the broker tells.
pub(crate) fn expiry(body: &Bytes) -> Option<String> {
    #[derive(Deserialize)]
    struct Renewed {
        lease_expires_at: Option<String>,
    }
    let renewed: Renewed = serde_json::from_slice(body).ok()?;
    renewed.lease_expires_at.map(iso)
}

/// A document about streams, passed through as it is.
pub(crate) fn document(route: &str, body: &Bytes) -> Result<String> {
    super::document(route, body).map_err(meant)
}

/// What a refusal inside an answer of status 200 means.
pub(crate) fn told(route: &str, reason: &str) -> Error {
    let error = Error::new(
        ErrorCode::BadRequest,
        format!("the broker refused {route}: {reason}"),
    );
    meant(error.with_outcome(Outcome::Refused))
}

/// What a refusal means, whatever its status: brokers of generation 0.7 answer nearly all with 200 and a text.
pub(crate) fn meant(error: Error) -> Error {
    let known = error.message().to_ascii_lowercase();
    let about = |words: &[&str]| words.iter().any(|word| known.contains(word));
    let code = match error.code() {
        ErrorCode::Unsupported => {
            return error.recoded(ErrorCode::Unsupported, NO_STREAMS);
        }
        ErrorCode::BadRequest | ErrorCode::NotFound
            if about(&["invalid or expired lease", "lease not found"]) =>
        {
            ErrorCode::LeaseLost
        }
        ErrorCode::BadRequest if about(&["stream not found"]) => ErrorCode::NotFound,
        // There is no such route: what is missing would have a name.
        ErrorCode::NotFound if !about(&["stream not found", "does not exist"]) => {
            return error.recoded(ErrorCode::Unsupported, NO_STREAMS);
        }
        _ => return error,
    };
    error.recoded(code, "")
}

const NO_STREAMS: &str = "this broker has no streams: brokers of generation 0.7 (up to 0.7.4) have them, and the embedded broker of libqueen";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::refusal;

    const WINDOW: &str = r#"{"window":{"end":"2026-11-23 20:35:42.700000+00",
        "id":"127cf2f3:A:b:2026-11-23 20:35:40.7+00:2026-11-23 20:35:42.700000+00","key":"A:b",
        "leaseId":"5a7478ae","messages":[{"created_at":"2026-11-23 20:35:41.136645+00","data":{"v": 1.0},"id":"m"}],
        "start":"2026-11-23 20:35:40.7+00","region":{"a":1}}}"#;

    #[test]
    fn s2_a_window_of_generation_0_7_is_read_with_its_times_made_iso() {
        let window = parse(&Bytes::from_static(WINDOW.as_bytes()))
            .unwrap()
            .unwrap();
        assert_eq!(
            (&*window.start, &*window.end),
            ("2026-11-23T20:35:40.700000Z", "2026-11-23T20:35:42.700000Z")
        );
        assert_eq!(
            window.id,
            "127cf2f3:A:b:2026-11-23T20:35:40.700000Z:2026-11-23T20:35:42.700000Z"
        );
        assert_eq!((&*window.key, &*window.lease_id), ("A:b", "5a7478ae"));
        let message = &window.messages[0];
        assert_eq!(message.created_at, "2026-11-23T20:35:41.136645Z");
        assert_eq!(message.payload(), r#"{"v": 1.0}"#);
        assert_eq!(window.more["region"].get(), r#"{"a":1}"#);
    }

    #[test]
    fn s2_nothing_has_many_shapes() {
        for body in ["", "null", "{}", r#"{"window":null}"#] {
            assert!(
                parse(&Bytes::from_static(body.as_bytes()))
                    .unwrap()
                    .is_none(),
                "{body}"
            );
        }
        for body in ["[]", "<html>", r#"{"window":{}}"#, r#"{"window":{"id":1}}"#] {
            let error = parse(&Bytes::from_static(body.as_bytes())).unwrap_err();
            assert_eq!(error.code(), ErrorCode::BadAnswer, "{body}");
        }
    }

    #[test]
    fn times_of_both_spellings_are_one() {
        for (given, iso_time) in [
            ("2026-11-23 20:35:34+00", "2026-11-23T20:35:34.000000Z"),
            ("2026-11-23 20:35:34.5+05:30", "2026-11-23T15:05:34.500000Z"),
            ("2026-11-23 20:35:34.5-03", "2026-11-23T23:35:34.500000Z"),
            ("2026-11-23T20:35:34.123456Z", "2026-11-23T20:35:34.123456Z"),
            ("soon", "soon"),
            ("", ""),
        ] {
            assert_eq!(iso(given.into()), iso_time);
        }
    }

    #[test]
    fn s10_refusals_mean_the_same_in_every_status() {
        let code = |reason: &str| told("x", reason).code();
        assert_eq!(code("Stream not found"), ErrorCode::NotFound);
        assert_eq!(code("Invalid or expired lease"), ErrorCode::LeaseLost);
        assert_eq!(code("Lease not found or expired"), ErrorCode::LeaseLost);
        assert_eq!(code("Missing leaseId"), ErrorCode::BadRequest);
        let code = |status, body: &[u8]| meant(refusal(status, body)).code();
        assert_eq!(
            code(404, br#"{"error":"Stream not found"}"#),
            ErrorCode::NotFound
        );
        assert_eq!(
            code(400, br#"{"error":"Invalid or expired lease"}"#),
            ErrorCode::LeaseLost
        );
        assert_eq!(
            code(404, br#"{"error":"source queue \"q\" does not exist"}"#),
            ErrorCode::NotFound
        );
        for body in [
            &br#"{"error":"Not Found","code":"no_such_route"}"#[..],
            b"<html><body><h1>File Not Found</h1></body></html>",
            b"",
        ] {
            let error = meant(refusal(404, body));
            assert_eq!(error.code(), ErrorCode::Unsupported);
            assert!(error.message().contains("0.7"), "{error}");
        }
        assert_eq!(code(503, b"{}"), ErrorCode::Broker);
    }

    #[test]
    fn an_answer_without_success_is_none() {
        let answered = |body: &'static str| answered("x", &Bytes::from_static(body.as_bytes()));
        assert!(answered(r#"{"success":true,"acked":false}"#).is_ok());
        assert_eq!(
            answered(r#"{"error":"Invalid or expired lease"}"#)
                .unwrap_err()
                .code(),
            ErrorCode::LeaseLost
        );
        for body in ["{}", "", "[]"] {
            assert_eq!(answered(body).unwrap_err().code(), ErrorCode::BadAnswer);
        }
    }
}
