//! Plays a text of requests against a broker and looks that it behaves, whatever the requests are.
//!
//! Requests are separated by lines of `%%`. The first line is method and target, then come header lines, an empty line and
//! the body. Two words are no methods: `CLOCK 5000` moves the broker's time by so many milliseconds, `RESTART` closes the
//! broker, checks its store and opens it again. Where the first request is `GUARD`, the broker wants tokens.
//!
//! What the broker gave a name to is written with a dollar: the newest partition id `$p`, lease `$l`, transaction id `$t`,
//! message id `$m` of a delivery, and `$a`, the acknowledgements of all its messages.
//!
//! Used by the fuzzer and, on stable Rust, by `broker/tests/fuzz.rs`.

use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri};
use queen_broker::{Broker, Durability, Options, Store};
use serde_json::value::RawValue;
use serde_json::{Value, json};
use tokio::task::JoinHandle;

/// The most requests of one text that are sent, and the most of them that wait at a time.
const REQUESTS: usize = 48;
const WAITING: usize = 8;
/// A broker that gives no answer in this time never will.
const PATIENCE: Duration = Duration::from_secs(60);

/// The requests of a text.
pub fn split(text: &[u8]) -> Vec<&[u8]> {
    let mut blocks = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.windows(4).position(|four| four == b"\n%%\n") {
        blocks.push(&rest[..at]);
        rest = &rest[at + 4..];
    }
    blocks.push(rest);
    blocks
}

/// Plays a text; panics when the broker does not behave.
pub fn play(text: &[u8]) {
    let folder = folder();
    let path = folder.path().join("store.db");
    let mut blocks = split(text).into_iter().take(REQUESTS).peekable();
    let guarded = blocks.next_if(|block| *block == b"GUARD").is_some();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        let mut broker = open(&path, guarded);
        let mut names = Names::default();
        let mut waiting = Vec::new();
        for block in blocks {
            if block == b"RESTART" {
                end(&broker, &mut waiting, &path).await;
                broker = open(&path, guarded);
            } else if let Some(millis) = block.strip_prefix(b"CLOCK ") {
                let millis: Option<u32> = std::str::from_utf8(millis)
                    .ok()
                    .and_then(|n| n.parse().ok());
                let by = Duration::from_millis(millis.unwrap_or(0).into());
                let testing = broker.testing().expect("it is opened for tests");
                timely(testing.advance_clock(by)).await;
            } else if let Some(request) = read(block, &names) {
                let broker = broker.clone();
                let head = request.method() == Method::HEAD;
                let about = format!("{request:.500?}");
                let waits = request.uri().query().is_some_and(|q| q.contains("wait"));
                let answer = async move {
                    let answer = timely(broker.handle(request)).await;
                    judge(&about, head, &answer);
                    answer
                };
                if waits && waiting.len() < WAITING {
                    waiting.push(tokio::spawn(answer));
                    // So that it is sent before what follows.
                    tokio::task::yield_now().await;
                } else if !waits {
                    names.learn(&answer.await);
                }
            }
            if let Some(testing) = broker.testing() {
                // A fault that was asked for would be mistaken for one that was not.
                testing.clear_faults();
            }
        }
        end(&broker, &mut waiting, &path).await;
    });
}

async fn timely<T>(work: impl Future<Output = T>) -> T {
    let done = tokio::time::timeout(PATIENCE, work).await;
    done.expect("the broker gives no answer")
}

/// Closes the broker, which ends what waits, and checks its store.
async fn end(broker: &Broker, waiting: &mut Vec<JoinHandle<Response<Bytes>>>, path: &Path) {
    // What was spawned last has not been polled yet.
    tokio::task::yield_now().await;
    let testing = broker.testing().expect("it is opened for tests");
    let differing = timely(testing.disagreements()).await;
    assert!(
        differing.is_empty(),
        "memory and store differ: {differing:#?}"
    );
    broker.close();
    for task in waiting.drain(..) {
        if let Err(panicked) = task.await {
            std::panic::resume_unwind(panicked.into_panic());
        }
    }
    let mut faults = Vec::new();
    queen_broker::check(path, |fault| faults.push(fault.to_owned())).expect("a store");
    assert!(faults.is_empty(), "the store has faults: {faults:#?}");
}

/// A folder in memory where there is one: syncs cost nothing there.
fn folder() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    tempfile::tempdir_in(memory)
        .or_else(|_| tempfile::tempdir())
        .expect("a folder for the store")
}

fn open(path: &Path, guarded: bool) -> Broker {
    let options = Options {
        store: Store::File(path.to_owned()),
        durability: Durability::Memory,
        max_body_bytes: 16 * 1024,
        testing: true,
        tokens: guarded.then(|| "token".into()).into_iter().collect(),
        jwt_secret: guarded.then(|| "protocol-transcript-secret".into()),
        ..Options::default()
    };
    Broker::open(options).expect("the store opens")
}

/// A block as a request; nothing where HTTP could not carry it.
fn read(block: &[u8], names: &Names) -> Option<Request<Bytes>> {
    let line = |text: &mut &[u8]| {
        let end = text.iter().position(|b| *b == b'\n').unwrap_or(text.len());
        let (line, rest) = text.split_at(end);
        *text = rest.get(1..).unwrap_or_default();
        line.to_vec()
    };
    let mut rest = block;
    let first = line(&mut rest);
    let space = first.iter().position(|b| *b == b' ')?;
    let target = names.fill(&first[space + 1..]);
    let mut request = Request::new(Bytes::new());
    *request.method_mut() = Method::from_bytes(&first[..space]).ok()?;
    *request.uri_mut() = Uri::try_from(target).ok()?;
    loop {
        let header = line(&mut rest);
        if header.is_empty() {
            break;
        }
        let colon = header.iter().position(|b| *b == b':')?;
        let name = HeaderName::from_bytes(&header[..colon]).ok()?;
        let value = HeaderValue::from_bytes(header[colon + 1..].trim_ascii()).ok()?;
        request.headers_mut().append(name, value);
    }
    *request.body_mut() = names.fill(rest).into();
    Some(request)
}

/// What the broker gave names to.
#[derive(Default)]
struct Names {
    delivery: Value,
    message: Value,
}

impl Names {
    fn learn(&mut self, answer: &Response<Bytes>) {
        let Ok(body) = serde_json::from_slice::<Value>(answer.body()) else {
            return;
        };
        if let Some(message) = body["messages"].get(0) {
            self.message = message.clone();
            self.delivery = body;
        }
    }

    fn fill(&self, text: &[u8]) -> Vec<u8> {
        let mut out = Vec::with_capacity(text.len());
        let mut bytes = text.iter();
        while let Some(byte) = bytes.next() {
            let field = match (byte, bytes.as_slice().first()) {
                (b'$', Some(b'p')) => "partitionId",
                (b'$', Some(b'l')) => "leaseId",
                (b'$', Some(b't')) => "transactionId",
                (b'$', Some(b'm')) => "id",
                (b'$', Some(b'a')) => "",
                _ => {
                    out.push(*byte);
                    continue;
                }
            };
            bytes.next();
            match field {
                "" => out.extend(self.acks().to_string().into_bytes()),
                _ => out.extend(self.message[field].as_str().unwrap_or("none").bytes()),
            }
        }
        out
    }

    fn acks(&self) -> Value {
        let messages = self.delivery["messages"].as_array();
        let acks = messages.into_iter().flatten().map(|message| {
            json!({
                "transactionId": message["transactionId"],
                "partitionId": message["partitionId"],
                "leaseId": message["leaseId"],
                "status": "completed",
            })
        });
        acks.collect()
    }
}

/// Whether the official broker is on record with a failure of its own where a time or an id is none.
fn on_record(body: &[u8]) -> bool {
    let body: Value = serde_json::from_slice(body).unwrap_or_default();
    let error = body["error"].as_str().unwrap_or_default();
    let part = error.ends_with(" is not a partition id");
    let time = error.ends_with(" is not an ISO-8601 time");
    (time && (error.starts_with("seek failed: ") || error.starts_with("subscription failed: ")))
        || (part && (error.starts_with("trace failed: ") || error.starts_with("resolve failed: ")))
}

/// Any request has an answer that its sender can read.
pub fn judge(request: &str, head: bool, answer: &Response<Bytes>) {
    let (status, body) = (answer.status(), answer.body());
    let shown = || {
        let body = String::from_utf8_lossy(body);
        format!("{request}\n{status} {body:.2000}")
    };
    let kind = answer.headers().get("content-type");
    let kind = kind.map_or("", |kind| kind.to_str().expect("a type in ASCII"));
    if answer
        .extensions()
        .get::<queen_broker::NoAnswer>()
        .is_some()
    {
        panic!("no answer: {}", shown());
    }
    assert!(
        !status.is_server_error() || status == StatusCode::NOT_IMPLEMENTED || on_record(body),
        "{}",
        shown()
    );
    if head || body.is_empty() {
        let fits = head
            || status == StatusCode::NO_CONTENT
            || (status == StatusCode::METHOD_NOT_ALLOWED && answer.headers().contains_key("allow"));
        assert!(fits, "no body: {}", shown());
        return;
    }
    if kind.starts_with("text/plain") {
        // Two kinds of refusals, as the official broker has them, and the numbers for Prometheus.
        let known = [
            StatusCode::OK,
            StatusCode::BAD_REQUEST,
            StatusCode::PAYLOAD_TOO_LARGE,
        ];
        assert!(known.contains(&status), "plain text: {}", shown());
        assert!(std::str::from_utf8(body).is_ok(), "no UTF-8: {}", shown());
        return;
    }
    assert_eq!(kind, "application/json", "{}", shown());
    // Payloads are given back as they came, and may be JSON that a reader of values does not take: half a surrogate
    // pair, a number beyond all floats, a thousand levels.
    let grammar = serde_json::from_slice::<&RawValue>(body);
    assert!(grammar.is_ok(), "no JSON: {}", shown());
    if status.is_client_error() {
        let body: Value = serde_json::from_slice(body).unwrap_or_default();
        let error = body["error"].as_str().unwrap_or_default();
        assert!(!error.is_empty(), "no error is named: {}", shown());
    }
}
