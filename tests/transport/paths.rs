//! What names look like on the way: whatever they consist of, each is one segment of the path or one value of the query.

use std::collections::BTreeMap;

use queen::{Operation, Parameter};
use serde_json::{Value, json};

use crate::script::{Script, answer};
use crate::{LONG, client};

/// Signs that mean something in a URL, in JSON, in HTTP or to those who decode twice, and some of every length in UTF-8.
const SIGNS: &[&str] = &[
    "/", "\\", "?", "#", "%", "%2F", "%00", "&", "=", "+", " ", ".", "..", "~", ":", ";", "@",
    "\"", "'", "<", "[", "{", "|", "^", "`", ",", "*", "$", "!", "(", "\u{7f}", "é", "\u{a0}",
    "漢", "\u{2028}", "🐝", "e\u{301}", "a", "Z", "0", "-", "_",
];

/// Names made of those signs, always the same ones.
struct Names(u64);

impl Names {
    fn next(&mut self) -> String {
        let length = 1 + self.roll(7);
        let name: String = (0..length).map(|_| SIGNS[self.roll(SIGNS.len())]).collect();
        // These two cannot be a segment: every parser of URLs resolves them away.
        match &*name {
            "." | ".." => self.next(),
            _ => name,
        }
    }

    fn roll(&mut self, sides: usize) -> usize {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % sides
    }
}

/// RFC 3986, by the letter: all but the unreserved characters.
fn encoded(name: &str) -> String {
    name.bytes()
        .map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                char::from(byte).to_string()
            }
            byte => format!("%{byte:02X}"),
        })
        .collect()
}

/// The parameters of a call, with a name from `name` wherever the caller is free to choose one. None where nothing is sent.
fn parameters(operation: &Operation, mut name: impl FnMut() -> String) -> Option<Value> {
    let items = || json!([{"payload": 1, "transactionId": "t"}]);
    let value = |one: &Parameter, name: &mut dyn FnMut() -> String| match (operation.name, one.name)
    {
        (_, "timeoutMillis" | "buffer" | "classicItems" | "wait" | "pollTimeoutMillis") => None,
        (_, "items") => Some(items()),
        (_, "acks") => Some(
            json!([{"transactionId": name(), "partitionId": name(), "leaseId": name(), "error": name()}]),
        ),
        (_, "operations") => Some(json!([
            {"type": "push", "queue": name(), "partition": name(), "items": items()},
            {"type": "ack", "transactionId": name(), "partitionId": name(), "leaseId": name(), "consumerGroup": name()},
        ])),
        // One of two targets, and one of a few words.
        ("group.seek", "toEnd") => None,
        (_, "interval" | "status") => None,
        (_, "options") => Some(json!({})),
        _ => Some(match one.kind {
            kind if kind.contains("time with a zone") => json!("2026-01-31T12:00:00Z"),
            kind if kind.starts_with("string") => json!(name()),
            kind if kind.starts_with("array of strings") => json!([name()]),
            kind if kind.starts_with("integer") => json!(7),
            kind if kind.starts_with("boolean") => json!(true),
            _ => json!({"any": name()}),
        }),
    };
    let filled: serde_json::Map<_, _> = operation
        .parameters
        .iter()
        .filter_map(|one| Some((one.name.to_owned(), value(one, &mut name)?)))
        .collect();
    let asks_no_broker = matches!(operation.name, "flush" | "client.stats" | "client.backends");
    (!asks_no_broker).then(|| filled.into())
}

/// The text with each plain name replaced by what became of it.
fn replaced(
    text: &str,
    names: &BTreeMap<String, String>,
    becomes: impl Fn(&str) -> String,
) -> String {
    let all = names.iter().rev();
    all.fold(text.to_owned(), |text, (plain, name)| {
        text.replace(plain, &becomes(name))
    })
}

#[test]
fn c15_any_name_is_one_segment_or_value_in_every_operation() {
    let server = Script::start(|_| answer("204 No Content", ""));
    let client = client(&[&server.url], r#""retryAttempts":1"#);
    let sent = |operation: &Operation, params: &Value| {
        let before = server.count();
        let call = client.call(operation.name, &params.to_string()).unwrap();
        assert!(call.wait_for(LONG).unwrap());
        let seen = server.seen().split_off(before);
        assert_eq!(
            seen.len(),
            1,
            "{}: {params}: {:?}",
            operation.name,
            call.error()
        );
        seen.into_iter().next().unwrap()
    };
    let mut made = Names(7);
    let (mut in_path, mut in_query, mut in_body) = (0, 0, 0);
    for operation in queen::operations() {
        let mut count = 0;
        let plain = parameters(operation, || {
            count += 1;
            format!("plain{count:02}name")
        });
        let Some(plain) = plain else { continue };
        // What plain names become shows where each belongs.
        let shape = sent(operation, &plain);
        let (path, query) = shape.line.split_once('?').unwrap_or((&shape.line, ""));
        in_path += path.matches("plain").count();
        in_query += query.matches("plain").count();
        in_body += shape.body.matches("plain").count();
        for _ in 0..20 {
            let mut names = BTreeMap::new();
            let params = parameters(operation, || {
                let name = made.next();
                names.insert(format!("plain{:02}name", names.len() + 1), name.clone());
                name
            });
            let seen = sent(operation, &params.unwrap());
            assert_eq!(
                seen.line,
                replaced(&shape.line, &names, encoded),
                "{}: {names:?}",
                operation.name
            );
            let in_json = |name: &str| {
                let text = json!(name).to_string();
                text[1..text.len() - 1].to_owned()
            };
            let wanted = replaced(&shape.body, &names, in_json);
            let read = |text: &str| {
                (!text.is_empty()).then(|| serde_json::from_str::<Value>(text).unwrap())
            };
            assert_eq!(
                read(&seen.body),
                read(&wanted),
                "{}: {names:?}",
                operation.name
            );
        }
    }
    assert!(
        in_path > 20 && in_query > 20 && in_body > 10,
        "{in_path} {in_query} {in_body}"
    );
}

#[test]
fn c15_what_no_path_can_carry_is_refused() {
    let server = Script::start(|_| answer("204 No Content", ""));
    let client = client(&[&server.url], "");
    for name in ["", ".", ".."] {
        for (operation, params) in [
            ("queue.get", json!({"queue": name})),
            ("queue.delete", json!({"queue": name})),
            ("pop", json!({"queue": name})),
            ("pop", json!({"queue": "q", "partition": name})),
            ("renew", json!({"leaseId": name})),
            ("group.get", json!({"consumerGroup": name})),
            (
                "message.get",
                json!({"partitionId": "P", "transactionId": name}),
            ),
        ] {
            let call = client.call(operation, &params.to_string()).unwrap();
            assert!(call.wait_for(LONG).unwrap());
            let error = call
                .error()
                .unwrap_or_else(|| panic!("{operation} takes {name:?}"));
            assert_eq!(
                error.code(),
                queen::ErrorCode::InvalidArgument,
                "{operation} {name:?}: {error}"
            );
        }
    }
    assert_eq!(server.count(), 0);
}
