//! The way to the brokers, tested on servers that play a script. Tests carry the row of the feature that they prove.

mod balance;
mod identity;
mod paths;
mod retry;
#[path = "../support/script.rs"]
#[allow(dead_code, reason = "each test program uses its own part")]
mod script;
mod tls;
mod transactions;

use std::time::Duration;

use queen::{Client, Error, Item, Pending, PushResult};

use script::{Reply, Seen, json};

const LONG: Duration = Duration::from_secs(60);

/// A client with that configuration beside its URLs, and short pauses.
fn client(urls: &[&str], config: &str) -> Client {
    let urls = serde_json::to_string(urls).unwrap();
    let more = if config.is_empty() { "" } else { "," };
    Client::new(&format!(
        r#"{{"urls":{urls},"retryDelayMillis":5{more}{config}}}"#
    ))
    .unwrap()
}

/// Pushes one message with the id `t-1`.
fn push(client: &Client) -> Pending<Vec<PushResult>> {
    let item = Item::raw("1").unwrap().transaction_id("t-1");
    client.queue("q").push(&[item])
}

fn push_fails(client: &Client) -> Error {
    push(client).wait(LONG).unwrap_err()
}

/// Takes pushes, knows an empty queue, and is healthy.
fn well(seen: &Seen) -> Reply {
    match &*seen.line {
        line if line.contains("/push") => {
            json(201, r#"[{"index":0,"message_id":"m","status":"queued"}]"#)
        }
        line if line.contains("/pop") => script::answer("204 No Content", ""),
        _ => json(200, r#"{"status":"healthy"}"#),
    }
}
