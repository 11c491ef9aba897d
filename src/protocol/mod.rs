//! The wire: paths, request bodies and answers of every route, without any I/O. One file per route family.

pub(crate) mod ack;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
mod item;
pub(crate) mod kept;
pub(crate) mod lease;
pub(crate) mod message;
mod minted;
mod plain;
pub(crate) mod pop;
pub(crate) mod push;
pub(crate) mod queue;
pub(crate) mod stream;
pub(crate) mod transaction;

use bytes::Bytes;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use std::borrow::Cow;

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::Value;

use crate::error::{Error, ErrorCode, Outcome, Result};

/// The consumer group that the wire uses where the caller names none.
pub(crate) const QUEUE_MODE: &str = "__QUEUE_MODE__";

/// The partition that the wire uses where the caller names none.
pub(crate) const DEFAULT_PARTITION: &str = "Default";

/// Everything but the unreserved characters of RFC 3986.
const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'_')
    .remove(b'.')
    .remove(b'~');

/// Writes text as a JSON string.
fn json_text(to: &mut Vec<u8>, text: &str) {
    if is_plain(text.as_bytes()) {
        to.reserve(text.len() + 2);
        to.push(b'"');
        to.extend_from_slice(text.as_bytes());
        return to.push(b'"');
    }
    // Writing text into memory cannot fail.
    let _ = serde_json::to_writer(to, text);
}

/// Text that is a part of the answer, unless it has escapes.
#[derive(Deserialize)]
#[cfg_attr(test, derive(Debug, PartialEq))]
#[serde(transparent)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

impl Text<'_> {
    fn into_owned(self) -> String {
        self.0.into_owned()
    }
}

/// Whether a text stands in JSON as it is. Looked at eight bytes at a time: see "Determine if a word has a byte less than n"
/// of Sean Anderson's Bit Twiddling Hacks. Bytes above 127 are none of those.
fn is_plain(text: &[u8]) -> bool {
    const ONES: u64 = 0x0101_0101_0101_0101;
    let special = |word: u64| {
        let below = |word: u64, n: u64| word.wrapping_sub(ONES * n) & !word;
        let is = |byte: u8| below(word ^ (ONES * u64::from(byte)), 1);
        (below(word, 0x20) | is(b'"') | is(b'\\')) & (ONES << 7)
    };
    let (words, rest) = text.as_chunks::<8>();
    let found = words
        .iter()
        .fold(0, |found, word| found | special(u64::from_le_bytes(*word)));
    let mut last = [b' '; 8];
    last[..rest.len()].copy_from_slice(rest);
    found | special(u64::from_le_bytes(last)) == 0
}

/// One segment of a path, percent-encoded. `.` and `..` cannot be one: every URL parser resolves them away.
pub(crate) fn segment(what: &str, text: &str) -> Result<String> {
    match text {
        "" | "." | ".." => Err(Error::argument(format!(
            "{what} `{text}` cannot be addressed in a URL path"
        ))),
        _ => Ok(utf8_percent_encode(text, ESCAPED).to_string()),
    }
}

/// One `key=value` of a query string, percent-encoded.
pub(crate) fn query_pair(path: &mut String, key: &str, value: &str) {
    path.push(if path.contains('?') { '&' } else { '?' });
    path.push_str(key);
    path.push('=');
    path.extend(utf8_percent_encode(value, ESCAPED));
}

/// A name that the broker would accept: not empty unless allowed, no control characters.
pub(crate) fn check_name(what: &str, name: &str, may_be_empty: bool) -> Result<()> {
    if name.is_empty() && !may_be_empty {
        return Err(Error::argument(format!("{what} must not be empty")));
    }
    // None of them is part of a longer character.
    match name.bytes().find(|byte| *byte < 0x20) {
        Some(byte) => Err(Error::argument(format!(
            "{what} {name:?} has the control character {byte:#04x}"
        ))),
        None => Ok(()),
    }
}

/// The error that a status outside 2xx stands for, with the reason that the body gives.
pub(crate) fn refusal(status: u16, body: &[u8]) -> Error {
    let told = told(body);
    let word = told.as_ref().and_then(|told| told.code.as_deref());
    let (code, outcome) = match status {
        // Unlike a thing that is not there.
        404 if word == Some("no_such_route") => (ErrorCode::Unsupported, Outcome::Refused),
        405 | 501 => (ErrorCode::Unsupported, Outcome::Refused),
        401 => (ErrorCode::Unauthorized, Outcome::Refused),
        403 => (ErrorCode::Forbidden, Outcome::Refused),
        404 => (ErrorCode::NotFound, Outcome::Refused),
        413 => (ErrorCode::TooLarge, Outcome::Refused),
        429 => (ErrorCode::Throttled, Outcome::Refused),
        400..=499 => (ErrorCode::BadRequest, Outcome::Refused),
        500..=599 => (ErrorCode::Broker, Outcome::Unknown),
        _ => (ErrorCode::BadAnswer, Outcome::Unknown),
    };
    let reason = match &told {
        Some(told) => told.message.clone(),
        None => match String::from_utf8_lossy(body).trim() {
            "" => "no reason given".into(),
            text => text.chars().take(200).collect(),
        },
    };
    let error = Error::new(code, format!("the broker answered HTTP {status}: {reason}"))
        .with_outcome(outcome)
        .with_http_status(status);
    match told.and_then(|told| told.code) {
        Some(word) => error.with_broker_code(word),
        None => error,
    }
}

/// What a JSON body says about an error.
struct Told {
    message: String,
    code: Option<String>,
}

/// Reads all kinds of error bodies: `{"error":text}`, with a `code`, and `{"error":code,"reason":code,"detail":text}`.
fn told(body: &[u8]) -> Option<Told> {
    let Ok(Value::Object(object)) = serde_json::from_slice(body) else {
        return None;
    };
    let text = |key: &str| object.get(key).and_then(Value::as_str).map(str::to_owned);
    let error = text("error")?;
    let code = text("code").or_else(|| text("reason"));
    let message = match text("detail") {
        Some(detail) => format!("{error}: {detail}"),
        None => error,
    };
    Some(Told { message, code })
}

/// An answer of status 2xx that does not say what the protocol promises.
pub(crate) fn bad_answer(route: &str, why: impl std::fmt::Display) -> Error {
    Error::new(
        ErrorCode::BadAnswer,
        format!("the answer of {route} cannot be understood: {why}"),
    )
    .with_outcome(Outcome::Unknown)
}

/// An answer of status 2xx of another shape than is due: the refusal that it tells of, or else [`bad_answer`].
pub(crate) fn misshapen(route: &str, body: &[u8], why: impl std::fmt::Display) -> Error {
    match serde_json::from_slice::<Verdict>(body).map(Verdict::refusal) {
        Ok(Some(reason)) => refused(route, &reason),
        _ => bad_answer(route, why),
    }
}

/// A refusal inside an answer of status 2xx.
fn refused(route: &str, reason: &str) -> Error {
    Error::new(
        ErrorCode::BadRequest,
        format!("the broker refused {route}: {reason}"),
    )
    .with_outcome(Outcome::Refused)
}

/// What an answer says of its own success.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Verdict {
    success: Option<Value>,
    error: Option<Value>,
    message: Option<Value>,
}

impl Verdict {
    /// Why it is none, where it says so.
    fn refusal(self) -> Option<String> {
        let text = |value: Option<Value>| Some(value?.as_str()?.to_owned());
        let failed = self.success == Some(Value::Bool(false));
        let reason = || text(self.message).unwrap_or_else(|| "no reason given".into());
        text(self.error).or_else(|| failed.then(reason))
    }
}

/// A JSON document of the broker, passed through as it is; null where it answers without one. A refusal inside an answer
/// of status 200 is an error.
pub(crate) fn document(route: &str, body: &Bytes) -> Result<String> {
    if body.is_empty() {
        return Ok("null".into());
    }
    let text = std::str::from_utf8(body).map_err(|error| bad_answer(route, error))?;
    // A payload somewhere inside may be more than a reader of values takes: half a surrogate pair, a number beyond all
    // floats, a thousand levels. So nothing but the verdict is read.
    let told: Verdict = match text.trim_start().starts_with('{') {
        true => serde_json::from_str(text).map_err(|error| bad_answer(route, error))?,
        false => {
            serde_json::from_str::<IgnoredAny>(text).map_err(|error| bad_answer(route, error))?;
            Verdict::default()
        }
    };
    match told.refusal() {
        None => Ok(text.to_owned()),
        Some(reason) => Err(refused(route, &reason)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn segments_are_encoded_whole() {
        assert_eq!(
            segment("queue", "a/b c?d#é%").unwrap(),
            "a%2Fb%20c%3Fd%23%C3%A9%25"
        );
        assert!(
            segment("partition", "..")
                .unwrap_err()
                .message()
                .contains("..")
        );
    }

    #[test]
    fn text_is_written_as_any_json_writer_does() {
        for text in [
            "",
            "plain",
            "é\u{7f}\u{2028}",
            "\"",
            "a\\b",
            "\n\u{1f}",
            "tail\"",
        ] {
            let mut written = Vec::new();
            json_text(&mut written, text);
            assert_eq!(written, serde_json::to_vec(text).unwrap(), "{text:?}");
        }
    }

    #[test]
    fn what_is_not_plain_is_found_at_every_place() {
        for len in 0..20 {
            assert!(is_plain(&vec![b' '; len]) && is_plain(&vec![0xe9; len]));
            for at in 0..len {
                for byte in 0..=255 {
                    let mut text = vec![b'a'; len];
                    text[at] = byte;
                    let plain = byte >= 0x20 && byte != b'"' && byte != b'\\';
                    assert_eq!(is_plain(&text), plain, "{byte} at {at} of {len}");
                }
            }
        }
    }

    #[test]
    fn refusals_keep_status_and_reason() {
        let error = refusal(503, br#"{"error":"pool"}"#);
        assert_eq!(
            (error.code(), error.http_status()),
            (ErrorCode::Broker, Some(503))
        );
        assert_eq!(error.outcome(), Outcome::Unknown);
        assert!(error.message().contains("pool"));
        assert_eq!(refusal(400, b"bad query").outcome(), Outcome::Refused);
        assert!(refusal(400, b"bad query").message().contains("bad query"));
        assert_eq!(refusal(302, b"").code(), ErrorCode::BadAnswer);
    }

    #[test]
    fn a_missing_route_is_told_from_a_missing_thing() {
        let code = |status, body: &[u8]| refusal(status, body).code();
        let no_route = br#"{"error":"Not Found","code":"no_such_route"}"#;
        assert_eq!(code(404, no_route), ErrorCode::Unsupported);
        assert_eq!(code(405, b""), ErrorCode::Unsupported);
        assert_eq!(
            code(404, br#"{"error":"Queue not found"}"#),
            ErrorCode::NotFound
        );
        assert_eq!(code(404, b"<html>"), ErrorCode::NotFound);
    }

    #[test]
    fn x7_codes_of_a_proxy_are_data() {
        let error = refusal(
            403,
            br#"{"error":"the plan allows no more","code":"quota_exceeded"}"#,
        );
        assert_eq!(
            (error.code(), error.broker_code()),
            (ErrorCode::Forbidden, Some("quota_exceeded"))
        );
        assert!(error.message().contains("the plan allows no more"));
        let error = refusal(
            400,
            br#"{"error":"kv_invalid","reason":"kv_key","detail":"no key"}"#,
        );
        assert_eq!(error.broker_code(), Some("kv_key"));
        assert!(error.message().contains("no key"));
        assert_eq!(refusal(400, br#"{"error":"plain"}"#).broker_code(), None);
    }

    #[test]
    fn a_document_may_hold_what_no_reader_of_values_takes() {
        let deep = format!("{}{}", "[".repeat(1000), "]".repeat(1000));
        for payload in [r#""\ud800""#, "1e400", &deep] {
            for text in [
                format!(r#"{{"messages":[{{"data":{payload}}}],"total":1}}"#),
                format!(r#"[{{"data":{payload}}}]"#),
            ] {
                let body = Bytes::from(text.clone());
                assert_eq!(document("dlq.list", &body).unwrap(), text);
            }
        }
    }

    #[test]
    fn q23_an_error_inside_a_200_is_an_error() {
        let error = document("configure", &Bytes::from_static(br#"{"error":"nope"}"#)).unwrap_err();
        assert!(error.message().contains("nope"));
        let refused = |body: &'static str| document("x", &Bytes::from_static(body.as_bytes()));
        assert!(
            refused(r#"{"success":false,"message":"why"}"#)
                .unwrap_err()
                .message()
                .contains("why")
        );
        assert_eq!(refused("").unwrap(), "null");
        assert!(refused(r#"{"success":true,"error":null}"#).is_ok());
        assert!(refused(r#"["error", false, "no"]"#).is_ok());
        assert!(document("configure", &Bytes::from_static(b"{]")).is_err());
    }
}
