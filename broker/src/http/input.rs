//! What comes in: bodies and names are read here, and what is wrong with them is told with the name of the field.

use std::borrow::Cow;
use std::fmt::Display;
use std::ops::Deref;

use axum::extract::{RawPathParams, Request};
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use percent_encoding::percent_decode_str;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::answer;

/// How deep lists and objects of a payload may lie in each other. Deeper ones are accidents or attacks, and no JSON
/// library of a consumer would read them.
const MAX_DEPTH: usize = 1000;

/// A text of a body, borrowed from it where it holds no escapes. (An `Option<Cow<str>>` never borrows.)
#[derive(Debug, Deserialize)]
#[serde(transparent)]
pub(super) struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

impl Deref for Text<'_> {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

/// Reads a JSON body.
pub(super) fn body<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<T, Box<Response>> {
    text(body).map_err(|fault| Box::new(answer::bad_body(fault)))
}

/// Reads JSON; the error names the field.
pub(super) fn text<'a, T: Deserialize<'a>>(json: &'a [u8]) -> Result<T, String> {
    serde_json::from_slice(json).map_err(|error| {
        // Read once more by a slower reader that knows where it is.
        let mut reader = serde_json::Deserializer::from_slice(json);
        match serde_path_to_error::deserialize::<_, T>(&mut reader) {
            Err(known) if known.path().iter().next().is_some() => known.to_string(),
            _ => error.to_string(),
        }
    })
}

/// What is wrong with a name that a queue, a partition, a group or a message is to have.
pub(super) fn name_fault(field: impl Display, name: &str) -> Option<String> {
    let code = name.bytes().find(|byte| *byte < b' ')?;
    Some(format!(
        "{field} contains the control character U+{code:04X}"
    ))
}

/// What is wrong with JSON that is kept as it came.
pub(super) fn depth_fault(field: impl Display, json: &RawValue) -> Option<String> {
    let openings = |text: &str| text.bytes().filter(|b| matches!(b, b'[' | b'{')).count();
    // Nearly all end here, and counting is quick.
    if openings(json.get()) <= MAX_DEPTH {
        return None;
    }
    let (mut depth, mut quoted, mut escaped) = (0, false, false);
    for byte in json.get().bytes() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = quoted,
            b'"' => quoted = !quoted,
            b'[' | b'{' if !quoted => depth += 1,
            b']' | b'}' if !quoted => depth -= 1,
            _ => {}
        }
        if depth > MAX_DEPTH {
            return Some(format!("{field} is nested deeper than {MAX_DEPTH} levels"));
        }
    }
    None
}

/// The answer where path or query cannot mean anything: no name has control characters, and all are UTF-8.
pub(super) fn refusal(path: &RawPathParams, request: &Request) -> Option<Response> {
    let in_path = path
        .iter()
        .find_map(|(field, value)| name_fault(field, value));
    let fault = in_path.or_else(|| query_fault(request.uri().query()?))?;
    Some(answer::error(StatusCode::BAD_REQUEST, &fault))
}

/// Says what the largest body is where a larger one was refused; in plain text, as it is refused by the official broker.
pub(super) fn explain_size(response: Response, max: usize) -> Response {
    if response.status() != StatusCode::PAYLOAD_TOO_LARGE {
        return response;
    }
    let text = format!("the body is larger than {max} bytes; send less at once");
    (StatusCode::PAYLOAD_TOO_LARGE, text).into_response()
}

fn query_fault(query: &str) -> Option<String> {
    if !query.contains('%') {
        return None;
    }
    query.split('&').find_map(|pair| {
        let (field, value) = pair.split_once('=').unwrap_or((pair, ""));
        match percent_decode_str(value).decode_utf8() {
            Ok(value) => name_fault(field, &value),
            Err(_) => Some(format!("{field} is not UTF-8")),
        }
    })
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Deserialize)]
    #[allow(dead_code, reason = "only read")]
    struct Outer<'a> {
        #[serde(borrow)]
        items: Vec<Inner<'a>>,
    }

    #[derive(Debug, Deserialize)]
    #[allow(dead_code, reason = "only read")]
    struct Inner<'a> {
        size: i64,
        #[serde(borrow)]
        payload: &'a RawValue,
    }

    #[test]
    fn a_fault_names_its_field() {
        let fault = |json: &str| text::<Outer>(json.as_bytes()).unwrap_err();
        let said = fault(r#"{"items":[{"size":1,"payload":{}},{"size":"x","payload":{}}]}"#);
        assert!(said.starts_with("items[1].size: invalid type"), "{said}");
        assert!(fault(r#"{"items":7}"#).starts_with("items: invalid type"));
        assert!(fault("{}").starts_with("missing field `items`"));
        let fine = br#"{"items":[{"size":1,"payload":[1e400, {"a":null}]}]}"#;
        assert_eq!(
            text::<Outer>(fine).unwrap().items[0].payload.get(),
            r#"[1e400, {"a":null}]"#
        );
    }

    #[test]
    fn depth_counts_what_is_open_and_not_what_is_written() {
        let fault =
            |json: String| depth_fault("payload", &RawValue::from_string(json).unwrap()).is_some();
        let nested = |n: usize| format!("{}{}", "[".repeat(n), "]".repeat(n));
        assert!(!fault(nested(MAX_DEPTH)));
        assert!(fault(nested(MAX_DEPTH + 1)));
        assert!(!fault(format!("[{}{{}}]", "[],".repeat(5000))));
        assert!(!fault(format!(r#""\"{}""#, "[".repeat(5000))));
        assert!(fault(format!(r#"["\\",{}]"#, nested(MAX_DEPTH))));
    }

    #[test]
    fn a_query_is_text_without_control_characters() {
        assert_eq!(
            query_fault("batch=1&consumerGroup=a%2Fb%20c+d%C3%A9&x"),
            None
        );
        assert_eq!(
            query_fault("batch=1&task=a%00").as_deref(),
            Some("task contains the control character U+0000")
        );
        assert_eq!(
            query_fault("namespace=%c0%af").as_deref(),
            Some("namespace is not UTF-8")
        );
    }
}
