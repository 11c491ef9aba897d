//! A broker for tests, asked in process and over TCP: what one request brings.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use queen_broker::{Broker, Fault, NoAnswer, Options, Testing, serve};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::oneshot;

/// What comes of a request.
#[derive(Debug, Clone, PartialEq)]
pub enum Came {
    /// Status, lower-case headers, body.
    Answer(u16, Vec<(String, String)>, String),
    Cut,
    CutInBody,
    NotHttp,
}

impl Came {
    pub fn status(&self) -> u16 {
        match self {
            Came::Answer(status, ..) => *status,
            other => panic!("no answer: {other:?}"),
        }
    }

    pub fn text(&self) -> &str {
        match self {
            Came::Answer(.., body) => body,
            other => panic!("no answer: {other:?}"),
        }
    }

    pub fn json(&self) -> Value {
        serde_json::from_str(self.text()).unwrap()
    }

    pub fn header(&self, wanted: &str) -> Option<&str> {
        match self {
            Came::Answer(_, headers, _) => headers
                .iter()
                .find(|(name, _)| name == wanted)
                .map(|(_, value)| value.as_str()),
            other => panic!("no answer: {other:?}"),
        }
    }
}

/// A way to a broker of its own.
#[derive(Clone)]
pub struct Door {
    pub broker: Broker,
    address: Option<SocketAddr>,
}

/// Both ways, each to a broker of its own. They end with the runtime.
pub async fn both() -> [Door; 2] {
    both_with(|| Options {
        testing: true,
        ..Options::default()
    })
    .await
}

pub async fn both_with(options: impl Fn() -> Options) -> [Door; 2] {
    let inside = Door {
        broker: Broker::open(options()).unwrap(),
        address: None,
    };
    let (outside, _) = served(options()).await;
    [inside, outside]
}

/// A broker over TCP, and how to end it.
pub async fn served(
    options: Options,
) -> (Door, (oneshot::Sender<()>, tokio::task::JoinHandle<()>)) {
    let broker = Broker::open(options).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (end, ended) = oneshot::channel();
    let serving = serve(
        broker.clone(),
        listener,
        async {
            if ended.await.is_err() {
                std::future::pending::<()>().await;
            }
        },
        Duration::from_secs(10),
    );
    let serving = tokio::spawn(async { serving.await.unwrap() });
    let address = Some(address);
    (Door { broker, address }, (end, serving))
}

impl Door {
    pub fn testing(&self) -> &Testing {
        self.broker.testing().unwrap()
    }

    pub fn fault(&self, fault: Fault) -> u64 {
        self.testing().add_fault(fault).unwrap().id
    }

    pub async fn get(&self, target: &str) -> Came {
        self.send("GET", target, String::new()).await
    }

    pub async fn post(&self, target: &str, body: Value) -> Came {
        self.send("POST", target, body.to_string()).await
    }

    pub async fn push(&self, queue: &str, txn: &str) -> Came {
        let item = json!({"queue": queue, "partition": "p", "transactionId": txn, "payload": txn});
        self.post("/api/v1/push", json!({"items": [item]})).await
    }

    /// The transaction ids of what a pop brings.
    pub async fn pop(&self, queue: &str) -> Vec<String> {
        let popped = self
            .get(&format!("/api/v1/pop/queue/{queue}?batch=100"))
            .await;
        if popped.status() == 204 {
            return Vec::new();
        }
        let popped = popped.json();
        let messages = popped["messages"].as_array().unwrap().iter();
        messages
            .map(|m| m["transactionId"].as_str().unwrap().to_owned())
            .collect()
    }

    pub async fn send(&self, method: &str, target: &str, body: String) -> Came {
        match self.address {
            None => self.inside(method, target, body).await,
            Some(address) => {
                let (method, target) = (method.to_owned(), target.to_owned());
                let asked = move || outside(address, &method, &target, &body);
                tokio::task::spawn_blocking(asked).await.unwrap()
            }
        }
    }

    async fn inside(&self, method: &str, target: &str, body: String) -> Came {
        let request = Request::builder().method(method).uri(target);
        let request = request.body(Bytes::from(body)).unwrap();
        let (head, body) = self.broker.handle(request).await.into_parts();
        match head.extensions.get() {
            Some(NoAnswer::Cut) => Came::Cut,
            Some(NoAnswer::CutInBody) => Came::CutInBody,
            Some(NoAnswer::NotHttp) => Came::NotHttp,
            Some(other) => panic!("{other}"),
            None => {
                let header = |(name, value): (&http::HeaderName, &http::HeaderValue)| {
                    (name.to_string(), value.to_str().unwrap().to_owned())
                };
                let headers = head.headers.iter().map(header).collect();
                let body = String::from_utf8(body.to_vec()).unwrap();
                Came::Answer(head.status.as_u16(), headers, body)
            }
        }
    }
}

/// One request on a connection of its own, read to its end.
fn outside(address: SocketAddr, method: &str, target: &str, body: &str) -> Came {
    let mut stream = TcpStream::connect(address).unwrap();
    let length = body.len();
    write!(
        stream,
        "{method} {target} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{body}"
    )
    .unwrap();
    let mut came = Vec::new();
    if let Err(error) = stream.read_to_end(&mut came) {
        assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{error}");
    }
    if came.is_empty() {
        return Came::Cut;
    }
    let text = String::from_utf8_lossy(&came);
    let Some((head, body)) = text.split_once("\r\n\r\n") else {
        panic!("half a head: {text:?}");
    };
    let mut lines = head.split("\r\n");
    let Some(status) = lines.next().unwrap().strip_prefix("HTTP/1.1 ") else {
        return Came::NotHttp;
    };
    let header = |line: &str| {
        let (name, value) = line.split_once(": ").unwrap();
        (name.to_owned(), value.to_owned())
    };
    let headers: Vec<_> = lines.map(header).collect();
    let length = headers.iter().find(|(name, _)| name == "content-length");
    if let Some((_, length)) = length {
        let length: usize = length.parse().unwrap();
        if body.len() < length {
            assert_eq!(body.len(), length / 2);
            return Came::CutInBody;
        }
    }
    Came::Answer(status[..3].parse().unwrap(), headers, body.to_owned())
}
