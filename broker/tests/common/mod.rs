//! Requests in few words, for the tests of the broker.

#![allow(dead_code, reason = "each test program uses its own part")]

pub mod ledger;
pub mod powerfail;
pub mod server;

use std::path::Path;

use bytes::Bytes;
use http::Request;
use queen_broker::{Broker, Durability, Options, Store, Testing};
use serde_json::{Value, json};

/// An open broker, spoken to in process.
#[derive(Clone)]
pub struct Api(pub Broker);

impl Api {
    pub fn memory() -> Api {
        Api(Broker::open(Options::default()).unwrap())
    }

    /// In memory, with time in the hand of the test.
    pub fn testing() -> Api {
        let options = Options {
            testing: true,
            ..Options::default()
        };
        Api(Broker::open(options).unwrap())
    }

    pub fn clock(&self) -> &Testing {
        self.0.testing().unwrap()
    }

    pub fn file(path: &Path) -> Api {
        let options = Options {
            store: Store::File(path.into()),
            ..Options::default()
        };
        Api(Broker::open(options).unwrap())
    }

    pub fn fast_file(path: &Path) -> Api {
        let store = Store::File(path.into());
        Api(Broker::open(Options {
            store,
            durability: Durability::Normal,
            ..Options::default()
        })
        .unwrap())
    }

    /// Status and body; no body is null.
    pub async fn send(&self, method: &str, target: &str, body: Value) -> (u16, Value) {
        let body = if body.is_null() {
            Bytes::new()
        } else {
            body.to_string().into()
        };
        let request = Request::builder()
            .method(method)
            .uri(target)
            .body(body)
            .unwrap();
        let (head, body) = self.0.handle(request).await.into_parts();
        let body = if body.is_empty() {
            Value::Null
        } else {
            serde_json::from_slice(&body).unwrap()
        };
        (head.status.as_u16(), body)
    }

    /// Pushes one message to one partition and checks that it was stored.
    pub async fn push(&self, queue: &str, part: &str, txn: &str) {
        let item = json!({"queue": queue, "partition": part, "transactionId": txn, "payload": {"txn": txn}});
        let (status, answer) = self
            .send("POST", "/api/v1/push", json!({"items": [item]}))
            .await;
        assert_eq!(
            (status, &answer[0]["status"]),
            (201, &json!("queued")),
            "{answer}"
        );
    }

    /// Pops with a query; nothing is null.
    pub async fn pop(&self, queue: &str, query: &str) -> Value {
        let (status, body) = self
            .send(
                "GET",
                &format!("/api/v1/pop/queue/{queue}?{query}"),
                Value::Null,
            )
            .await;
        assert!(status == 200 || status == 204, "{status} {body}");
        body
    }

    /// Acknowledges all messages of a delivery with one status.
    pub async fn ack(&self, delivery: &Value, status: &str) -> Value {
        let acks: Vec<Value> = delivery["messages"]
            .as_array()
            .unwrap()
            .iter()
            .map(|m| ack_of(m, status))
            .collect();
        let body = json!({"acknowledgments": acks, "consumerGroup": delivery["consumerGroup"]});
        let (code, answer) = self.send("POST", "/api/v1/ack/batch", body).await;
        assert_eq!(code, 200);
        answer
    }

    pub async fn configure(&self, queue: &str, options: Value) {
        let (status, answer) = self
            .send(
                "POST",
                "/api/v1/configure",
                json!({"queue": queue, "options": options}),
            )
            .await;
        assert_eq!(status, 200, "{answer}");
    }

    pub async fn describe(&self, queue: &str) -> Value {
        self.send(
            "GET",
            &format!("/api/v1/resources/queues/{queue}"),
            Value::Null,
        )
        .await
        .1
    }
}

/// Sets a flag at the end of a scope, also of one that a failed assertion leaves: threads that look at it end then.
pub struct SetOnDrop<'a>(pub &'a std::sync::atomic::AtomicBool);

impl Drop for SetOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, std::sync::atomic::Ordering::Relaxed);
    }
}

/// Runs something as a user whom file permissions bind; root is bound by none.
pub fn unprivileged<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    use rustix::process::{Gid, Uid, geteuid};
    use rustix::thread::{set_thread_groups, set_thread_res_gid, set_thread_res_uid};
    let as_nobody = || {
        if geteuid().is_root() {
            let (uid, gid) = (Uid::from_raw(65534), Gid::from_raw(65534));
            set_thread_groups(&[]).unwrap();
            set_thread_res_gid(gid, gid, gid).unwrap();
            set_thread_res_uid(uid, uid, uid).unwrap();
        }
        work()
    };
    // The user belongs to the thread: the rest of the process stays as it was.
    std::thread::scope(|scope| scope.spawn(as_nobody).join().unwrap())
}

/// One acknowledgement of a delivered message.
pub fn ack_of(message: &Value, status: &str) -> Value {
    json!({
        "transactionId": message["transactionId"],
        "partitionId": message["partitionId"],
        "leaseId": message["leaseId"],
        "status": status,
    })
}

/// The transaction ids of a delivery.
pub fn txns(delivery: &Value) -> Vec<&str> {
    let messages = delivery["messages"].as_array();
    messages
        .into_iter()
        .flatten()
        .map(|m| m["transactionId"].as_str().unwrap())
        .collect()
}
