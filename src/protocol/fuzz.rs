//! Answers that no broker should give, read as if one had. The fuzzer makes them up (`fuzz/targets/answers.rs`); the tests replay
//! its seeds and what it once found.

use bytes::Bytes;

use super::{ack, document, lease, pop, push, refusal};
use crate::error::Result;

/// Reads an answer: its first line names who reads it, the rest is the body. Panics where what was read is not sound.
pub fn read(text: &[u8]) {
    let line = text.iter().position(|b| *b == b'\n').unwrap_or(text.len());
    let (reader, body) = text.split_at(line);
    let body = Bytes::copy_from_slice(body.get(1..).unwrap_or_default());
    match reader {
        b"pop" => check(pops(&body)),
        b"push" => check(pushed(&body)),
        b"ack" => check(acked(&body)),
        b"lease" => check(lease::parse("L", &body).map(|renewal| {
            assert_eq!(renewal.lease_id, "L");
        })),
        b"document" => check(document("x", &body).map(|text| is_json(&text))),
        b"items" => check(items(&body)),
        b"acks" => check(as_text(&body).and_then(ack::parse_list).map(|acks| {
            assert!(!acks.is_empty());
            let body = ack::body(&acks, "g");
            is_json(&String::from_utf8_lossy(&body));
        })),
        status => {
            let status = std::str::from_utf8(status)
                .ok()
                .and_then(|n| n.parse().ok());
            check::<()>(Err(refusal(status.unwrap_or(0), &body)));
        }
    }
}

/// An error says something.
fn check<T>(read: Result<T>) {
    if let Err(error) = read {
        assert!(!error.message().is_empty());
        assert!(error.message().len() < 1 << 20);
    }
}

fn is_json(text: &str) {
    serde_json::from_str::<serde::de::IgnoredAny>(text).expect("JSON");
}

fn as_text(body: &Bytes) -> Result<&str> {
    std::str::from_utf8(body).map_err(|error| crate::error::Error::argument(error.to_string()))
}

fn pops(body: &Bytes) -> Result<()> {
    let query = pop::Query {
        queue: Some("q".into()),
        batch: 10,
        partitions: 1,
        ..pop::Query::default()
    };
    for messages in pop::parse(body, &query)?.partitions {
        let first = messages.first().expect("a partition has messages");
        for message in &messages {
            assert_eq!(message.source.partition_id, first.source.partition_id);
            is_json(message.payload());
            let written = serde_json::to_string(&pop::MessageDocument::new(message));
            let written: serde_json::Result<serde_json::Value> =
                serde_json::from_str(&written.expect("a message can be written"));
            if let Ok(written) = written {
                assert_eq!(written["transactionId"], *message.transaction_id);
            }
        }
    }
    Ok(())
}

/// What C programs hand in as items, and the answer to a push of them.
fn items(body: &Bytes) -> Result<()> {
    let items = push::Item::parse_list(as_text(body)?)?;
    let push = push::Push::new("q", "p", &items)?;
    is_json(&String::from_utf8_lossy(&push::body([&push].into_iter())));
    assert_eq!(push.transaction_ids.len(), items.len());
    Ok(())
}

fn pushed(body: &Bytes) -> Result<()> {
    let items = push::Item::parse_list(r#"[{"payload":1},{"payload":2,"transactionId":"mine"}]"#)?;
    let push = push::Push::new("q", "p", &items)?;
    let results = push::answers([(&push, false)].into_iter(), body)?.remove(0)?;
    assert_eq!(results.len(), 2);
    for (index, result) in results.iter().enumerate() {
        assert_eq!(result.index, index);
    }
    assert_eq!(results[1].transaction_id, "mine");
    check::<()>(push::partial(&results).map_or(Ok(()), Err));
    Ok(())
}

fn acked(body: &Bytes) -> Result<()> {
    let acks = ack::parse_list(
        r#"[{"transactionId":"a","partitionId":"P","leaseId":"L"},{"transactionId":"b","partitionId":"P"}]"#,
    )?;
    let results = ack::parse(&acks, body)?;
    assert_eq!(results.len(), 2);
    for (result, ack) in results.iter().zip(&acks) {
        assert_eq!(result.transaction_id, ack.transaction_id);
    }
    check::<()>(ack::partial(&results).map_or(Ok(()), Err));
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    #[test]
    fn answers_of_any_kind_are_read_or_refused() {
        let fuzz = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz");
        let mut read = 0;
        for folder in ["seeds/answers", "found/answers"] {
            for entry in fs::read_dir(fuzz.join(folder)).unwrap() {
                let path = entry.unwrap().path();
                println!("{}", path.display());
                super::read(&fs::read(path).unwrap());
                read += 1;
            }
        }
        assert!(read > 20, "{read}");
    }
}
