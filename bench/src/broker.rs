//! What the driver does with a broker beside the measurement: filling queues, and looking that nothing was lost.

use std::fmt::Write;
use std::io;

use serde::Deserialize;
use serde_json::Value;
use uuid::Uuid;

use crate::http::Connection;
use crate::work::TEXT;

/// Adds message number `n` to the body of a push.
pub fn item(body: &mut String, queue: &str, partition: u64, n: u64) {
    let txn = Uuid::now_v7();
    let _ = write!(
        body,
        r#"{{"queue":"{queue}","partition":"p{partition}","transactionId":"{txn}","payload":{{"n":{n},"text":"{TEXT}"}}}},"#
    );
}

/// A push of some messages, each with its partition.
pub fn push(queue: &str, messages: impl Iterator<Item = (u64, u64)>) -> String {
    let mut body = String::from(r#"{"items":["#);
    for (partition, n) in messages {
        item(&mut body, queue, partition, n);
    }
    body.pop();
    body.push_str("]}");
    body
}

/// How many items of a push were stored as new.
pub fn stored(answer: &[u8]) -> u64 {
    let text = std::str::from_utf8(answer).unwrap_or_default();
    text.matches(r#""status":"queued""#).count() as u64
}

/// The answer of a pop, as far as it matters here.
#[derive(Deserialize)]
pub struct Popped<'a> {
    #[serde(borrow)]
    pub messages: Vec<Message<'a>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Message<'a> {
    pub transaction_id: &'a str,
    pub partition_id: &'a str,
    pub lease_id: &'a str,
    pub data: Data,
}

#[derive(Deserialize)]
pub struct Data {
    pub n: u64,
}

/// Which of the expected messages were seen.
pub struct Seen {
    seen: Vec<bool>,
    count: u64,
}

impl Seen {
    pub fn new(messages: u64) -> Seen {
        Seen {
            seen: vec![false; messages as usize],
            count: 0,
        }
    }

    /// Counts a message; it must be an expected one, and new.
    pub fn add(&mut self, n: u64) -> io::Result<()> {
        match self.seen.get_mut(n as usize) {
            Some(seen) if !*seen => *seen = true,
            Some(_) => return Err(io::Error::other(format!("message {n} came twice"))),
            None => return Err(io::Error::other(format!("message {n} was never pushed"))),
        }
        self.count += 1;
        Ok(())
    }

    pub fn count(&self) -> u64 {
        self.count
    }

    pub fn is_complete(&self) -> bool {
        self.count == self.seen.len() as u64
    }
}

/// The driver's own connection.
pub struct Broker(Connection);

impl Broker {
    pub async fn open(url: &str) -> io::Result<Broker> {
        Connection::open(url).await.map(Broker)
    }

    /// Puts messages into a queue: as they come in life, one partition after the other.
    pub async fn fill(&mut self, queue: &str, partitions: u64, messages: u64) -> io::Result<()> {
        let mut n = 0;
        while n < messages {
            let end = messages.min(n + 500);
            let body = push(queue, (n..end).map(|n| (n % partitions, n)));
            let answer = self.0.post("/api/v1/push", &body).await?.expect(201)?;
            if stored(answer.body) != end - n {
                return Err(io::Error::other("the queue was not filled"));
            }
            n = end;
        }
        Ok(())
    }

    /// Takes everything out of a queue; it must hold exactly the messages 0 to `messages`.
    pub async fn drain(&mut self, queue: &str, messages: u64) -> io::Result<()> {
        let path = format!("/api/v1/pop/queue/{queue}?batch=2000&partitions=1000&autoAck=true");
        let mut seen = Seen::new(messages);
        loop {
            let answer = self.0.get(&path).await?;
            if answer.status == 204 {
                break;
            }
            let popped: Popped = serde_json::from_slice(answer.expect(200)?.body)?;
            popped
                .messages
                .iter()
                .try_for_each(|m| seen.add(m.data.n))?;
        }
        match seen.is_complete() {
            true => Ok(()),
            false => Err(io::Error::other(format!(
                "{} of {messages} messages are in the queue",
                seen.count()
            ))),
        }
    }

    /// Looks that nothing waits in a queue and nothing was given up there.
    pub async fn expect_empty(&mut self, queue: &str) -> io::Result<()> {
        let depth = self
            .json(&format!("/api/v1/resources/queues/{queue}/depth"))
            .await?;
        let dead = self.json(&format!("/api/v1/dlq?queue={queue}")).await?;
        for (what, found) in [
            ("depth", &depth["pending"]),
            ("dead letters", &dead["total"]),
        ] {
            if found.as_i64() != Some(0) {
                return Err(io::Error::other(format!("{what} of the queue: {found}")));
            }
        }
        Ok(())
    }

    async fn json(&mut self, path: &str) -> io::Result<Value> {
        let answer = self.0.get(path).await?.expect(200)?;
        Ok(serde_json::from_slice(answer.body)?)
    }

    pub async fn delete(&mut self, queue: &str) -> io::Result<()> {
        let path = format!("/api/v1/resources/queues/{queue}");
        self.0.ask("DELETE", &path, "").await?.expect(200).map(drop)
    }
}
