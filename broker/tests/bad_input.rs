//! Malformed requests: each is refused with an answer that says why, and nothing else happens.

mod common;

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::thread;

use bytes::Bytes;
use common::Api;
use common::server::{Server, agent, get, post};
use http::{Request, Uri};
use queen_broker::{Broker, Options};
use serde_json::{Value, json};

/// One request of `tests/bad-input/requests.txt`.
struct Case {
    method: String,
    target: Vec<u8>,
    body: Bytes,
    status: u16,
    text: String,
}

impl Case {
    fn name(&self) -> String {
        let target = String::from_utf8_lossy(&self.target);
        let body = String::from_utf8_lossy(&self.body[..self.body.len().min(100)]).into_owned();
        format!("{} {target:.100} {body}", self.method)
    }

    fn judge(&self, status: u16, body: &[u8]) -> Result<(), String> {
        let body = String::from_utf8_lossy(body);
        if status == self.status && body.contains(&self.text) {
            return Ok(());
        }
        let (name, wanted, text) = (self.name(), self.status, &self.text);
        Err(format!(
            "{name}\n  wanted {wanted} {text}\n  got {status} {body}"
        ))
    }
}

fn cases() -> Vec<Case> {
    let file = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../tests/bad-input/requests.txt"
    );
    let text = fs::read_to_string(file).unwrap();
    let mut cases = Vec::new();
    let mut lines = text
        .lines()
        .filter(|line| !line.starts_with("# ") && *line != "#");
    while let Some(line) = lines.find(|line| !line.is_empty()) {
        let (method, target) = line.split_once(' ').unwrap();
        let mut body = Vec::new();
        let answer = loop {
            let line = lines.next().expect("a request ends with its answer");
            match line.strip_prefix("-> ") {
                Some(answer) => break answer,
                None => body.push(line),
            }
        };
        let (status, text) = answer.split_once(' ').unwrap_or((answer, ""));
        cases.push(Case {
            method: method.into(),
            target: spell_out(target),
            body: spell_out(&body.join("\n")).into(),
            status: status.parse().unwrap(),
            text: text.into(),
        });
    }
    assert!(cases.len() > 100, "{}", cases.len());
    cases
}

/// `\xff` is a byte, `${text*3}` a repetition.
fn spell_out(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        if let Some(hex) = rest.strip_prefix("\\x") {
            bytes.push(u8::from_str_radix(&hex[..2], 16).unwrap());
            rest = &hex[2..];
        } else if let Some(inner) = rest.strip_prefix("${") {
            let star = inner.find('*').unwrap();
            let (times, after) = inner[star + 1..].split_once('}').unwrap();
            bytes.extend(spell_out(&inner[..star]).repeat(times.parse().unwrap()));
            rest = after;
        } else {
            let c = rest.chars().next().unwrap();
            bytes.extend(c.to_string().as_bytes());
            rest = &rest[c.len_utf8()..];
        }
    }
    bytes
}

/// All that a request could have changed.
const VIEWS: [&str; 6] = [
    "/api/v1/resources/queues/q",
    "/api/v1/consumer-groups",
    "/api/v1/dlq",
    "/api/v1/traces/names",
    "/api/v1/system/maintenance",
    "/metrics",
];

/// A view without what time and the mere counting of requests change in it.
fn still(view: Value) -> Value {
    match view {
        Value::Object(fields) => fields
            .into_iter()
            .filter(|(name, _)| !["uptime", "requests", "maxTimeLag"].contains(&&**name))
            .map(|(name, value)| (name, still(value)))
            .collect::<serde_json::Map<_, _>>()
            .into(),
        Value::Array(items) => items.into_iter().map(still).collect::<Vec<_>>().into(),
        other => other,
    }
}

/// What is in the store before; it is leased then.
fn first_push() -> Value {
    json!({"items": [{"queue": "q", "partition": "p", "transactionId": "t", "payload": 1}]})
}

#[tokio::test(flavor = "multi_thread")]
async fn in_process_each_is_refused_and_nothing_happens() {
    let api = Api(Broker::open(Options::default()).unwrap());
    assert_eq!(api.send("POST", "/api/v1/push", first_push()).await.0, 201);
    api.pop("q", "leaseSeconds=100000").await;
    let look = || async {
        let mut found = Vec::new();
        for view in VIEWS {
            let (status, body) = api.send("GET", view, Value::Null).await;
            assert_eq!(status, 200, "{view}");
            found.push(still(body));
        }
        found
    };
    let before = look().await;
    let mut faults = Vec::new();
    for case in cases() {
        // What is no URI cannot be said in process.
        let Ok(uri) = Uri::try_from(case.target.as_slice()) else {
            assert_eq!(case.status, 414, "{}", case.name());
            continue;
        };
        let request = Request::builder().method(&*case.method).uri(uri);
        let request = request.body(case.body.clone()).unwrap();
        let (head, body) = api.0.handle(request).await.into_parts();
        faults.extend(case.judge(head.status.as_u16(), &body).err());
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
    assert_eq!(look().await, before);
    assert_eq!(api.send("GET", "/health", Value::Null).await.0, 200);
}

/// Sends bytes and reads what comes until the other side closes.
fn exchange(address: &str, parts: Vec<Bytes>) -> Vec<u8> {
    let mut stream = TcpStream::connect(address).unwrap();
    let mut out = stream.try_clone().unwrap();
    // Beside the reading: a server that has seen enough answers before it has read everything.
    let writer = thread::spawn(move || parts.iter().try_for_each(|part| out.write_all(part)));
    let mut answer = Vec::new();
    let mut buffer = [0; 65536];
    // A reset after the answer is how it says that it will not read the rest.
    while let Ok(n @ 1..) = stream.read(&mut buffer) {
        answer.extend(&buffer[..n]);
    }
    drop(stream);
    let _ = writer.join().unwrap();
    answer
}

/// Status and body of an answer.
fn parse(answer: &[u8]) -> Option<(u16, &[u8])> {
    let status = answer.strip_prefix(b"HTTP/1.1 ")?.get(..3)?;
    let end = answer.windows(4).position(|four| four == b"\r\n\r\n")?;
    let status = std::str::from_utf8(status).ok()?.parse().ok()?;
    Some((status, &answer[end + 4..]))
}

#[test]
fn over_tcp_each_is_refused_and_nothing_happens() {
    let mut server = Server::start(&[]);
    let (agent, base) = (agent(), server.base.clone());
    post(&agent, &format!("{base}/api/v1/push"), &first_push()).unwrap();
    get(
        &agent,
        &format!("{base}/api/v1/pop/queue/q?leaseSeconds=100000"),
    )
    .unwrap();
    let look = || {
        VIEWS.map(|view| {
            let (status, body) = get(&agent, &format!("{base}{view}")).unwrap();
            assert_eq!(status, 200, "{view}");
            still(body)
        })
    };
    let before = look();
    let mut faults = Vec::new();
    for case in cases() {
        let mut head = format!("{} ", case.method).into_bytes();
        head.extend(&case.target);
        let length = case.body.len();
        let rest = format!(
            " HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n"
        );
        head.extend(rest.as_bytes());
        let answer = exchange(server.address(), vec![head.into(), case.body.clone()]);
        match parse(&answer) {
            Some((status, body)) => faults.extend(case.judge(status, body).err()),
            None => faults.push(format!("{} has no answer", case.name())),
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
    assert_eq!(look(), before);
    assert_eq!(get(&agent, &format!("{base}/health")).unwrap().0, 200);
    assert!(server.terminate().success());
}

/// What is not HTTP, or lies about itself, ends its own connection and nothing else.
#[test]
fn noise_on_a_connection_hurts_nobody() {
    let mut server = Server::start(&[]);
    let post = "POST /api/v1/push HTTP/1.1\r\nhost: x\r\n";
    let item = r#"{"items":[{"queue":"q","payload":1}]}"#;
    let noise: Vec<(String, &[u16])> = vec![
        ("\0\0\0\0\r\n\r\n".into(), &[400]),
        ("GET\r\n\r\n".into(), &[400]),
        ("GET /health HTTP/9.9\r\n\r\n".into(), &[400, 505]),
        ("GET /hea\u{7f}lth HTTP/1.1\r\n\r\n".into(), &[400]),
        (
            format!("GET /health HTTP/1.1\r\n{}\r\n", "x: y\r\n".repeat(2000)),
            &[431],
        ),
        (
            format!(
                "GET /health HTTP/1.1\r\nx: {}\r\n\r\n",
                "y".repeat(2_000_000)
            ),
            &[431],
        ),
        ("GET /health HTTP/1.1\r\nno colon\r\n\r\n".into(), &[400]),
        (format!("{post}content-length: many\r\n\r\n"), &[400]),
        (format!("{post}content-length: -1\r\n\r\n"), &[400]),
        (
            format!("{post}content-length: 99999999999999999999\r\n\r\n"),
            &[400],
        ),
        (
            format!("{post}content-length: 1\r\ncontent-length: 2\r\n\r\n"),
            &[400],
        ),
        (
            format!("{post}transfer-encoding: chunked\r\n\r\nzz\r\n"),
            &[400],
        ),
        (
            format!("{post}transfer-encoding: chunked\r\n\r\nfffffffffffffffff\r\n"),
            &[400],
        ),
        // The body stops in the middle: nobody is left to be answered.
        (format!("{post}content-length: 1000\r\n\r\n{item}"), &[]),
        (
            format!("{post}transfer-encoding: chunked\r\n\r\n25\r\n{item}\r\n"),
            &[],
        ),
    ];
    for (text, statuses) in noise {
        let address = server.address().to_owned();
        let mut stream = TcpStream::connect(&address).unwrap();
        let _ = stream.write_all(text.as_bytes());
        let _ = stream.shutdown(std::net::Shutdown::Write);
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        let status = parse(&answer).map(|(status, _)| status);
        assert!(
            status.is_none_or(
                |status| statuses.contains(&status) || (status == 400 && statuses.is_empty())
            ),
            "{text:.80}: {}",
            String::from_utf8_lossy(&answer)
        );
    }
    let agent = agent();
    let (_, metrics) = get(&agent, &format!("{}/metrics", server.base)).unwrap();
    assert_eq!(
        (&metrics["queues"], &metrics["messages"]["stored"]),
        (&json!(0), &json!(0)),
        "{metrics}"
    );
    assert_eq!(
        get(&agent, &format!("{}/health", server.base)).unwrap().0,
        200
    );
    assert!(server.terminate().success());
}

/// Numbers at the ends of their range are numbers: nothing overflows on the way.
#[tokio::test]
async fn huge_numbers_are_taken_as_far_as_they_go() {
    let api = Api::memory();
    let (max, min) = (i64::MAX, i64::MIN);
    for n in [max, min, -1, 0] {
        let queue = format!("q{n}");
        let options: Value = [
            "leaseTime",
            "retryLimit",
            "retryDelay",
            "maxSize",
            "ttl",
            "priority",
            "delayedProcessing",
            "windowBuffer",
            "retentionSeconds",
            "completedRetentionSeconds",
            "maxWaitTimeSeconds",
            "minPopWaitTime",
            "dedupWindowSeconds",
        ]
        .into_iter()
        .map(|name| (name.to_owned(), json!(n)))
        .chain([("retentionEnabled".to_owned(), json!(true))])
        .collect::<serde_json::Map<_, _>>()
        .into();
        api.configure(&queue, options).await;
        api.push(&queue, "p", "t").await;
        let seconds = n.clamp(i32::MIN.into(), i32::MAX.into());
        api.pop(
            &queue,
            &format!("batch={n}&partitions={n}&leaseSeconds={seconds}"),
        )
        .await;
        api.pop(
            &queue,
            &format!("batch={n}&consumerGroup=g&subscriptionMode=all&wait=true&timeout=0"),
        )
        .await;
        let (status, found) = api
            .send(
                "GET",
                &format!("/api/v1/resources/queues/{queue}"),
                Value::Null,
            )
            .await;
        assert_eq!(status, 200, "{found}");
    }
    let longest = format!("wait=true&timeout={}", u64::MAX);
    let waiting = api.pop("none", &longest);
    assert!(
        tokio::time::timeout(std::time::Duration::from_millis(50), waiting)
            .await
            .is_err()
    );
    api.push("held", "p", "t").await;
    let held = api.pop("held", "").await;
    let route = format!("/api/v1/lease/{}/extend", held["leaseId"].as_str().unwrap());
    for n in [max, min] {
        let (status, answer) = api.send("POST", &route, json!({ "seconds": n })).await;
        assert_eq!((status, &answer["renewed"]), (200, &json!(1)), "{answer}");
    }
    for view in ["/api/v1/dlq", "/api/v1/messages", "/api/v1/traces/names"] {
        let most = format!("{view}?limit={}&offset={}", u32::MAX, u32::MAX);
        assert_eq!(api.send("GET", &most, Value::Null).await.0, 200);
    }
    for n in [max, min] {
        let lagging = format!("/api/v1/consumer-groups/lagging?minLagSeconds={n}");
        assert_eq!(api.send("GET", &lagging, Value::Null).await.0, 200);
    }
}
