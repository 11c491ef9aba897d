//! What the Rust client promises, on every broker of `QUEEN_TEST_BROKERS`.

mod buffers;
mod builder;
mod commits;
mod consume;
mod each;
mod groups;
mod letters;
mod limits;
mod pipeline;
mod produce;
mod queues;
mod runs;
mod settle;
mod status;
mod streams;
#[path = "../support/mod.rs"]
mod support;
mod traces;
mod transactions;

use std::collections::HashMap;
use std::process::ExitCode;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, Instant};

use libtest_mimic::{Arguments, Failed, Trial};
use queen::{
    Ack, AckOptions, Client, ConsumeOptions, Consumer, ConsumerEvent, ConsumerSink, Delivery,
    Document, Error, ErrorCode, Item, MessageVerdict, Pending, PopOptions, Queue, QueueOptions,
    SeekTo, Settlement, Status, StopReason, Trace,
};
use serde_json::{Value, json};
use support::brokers::{TestBroker, brokers};

type Tested = Result<(), Failed>;

/// Far beyond what anything here takes.
const LONG: Duration = Duration::from_secs(60);

type Tests = &'static [(&'static str, fn(&TestBroker) -> Tested)];

/// A table of tests by their names.
macro_rules! tests {
    ($($name:ident),* $(,)?) => { &[$((stringify!($name), $name)),*] };
}
use tests;

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    let brokers = match brokers() {
        Ok(brokers) => brokers,
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::FAILURE;
        }
    };
    let mut trials = Vec::new();
    for broker in &brokers {
        let tests = [
            produce::TESTS,
            pipeline::TESTS,
            builder::TESTS,
            buffers::TESTS,
            settle::TESTS,
            consume::TESTS,
            each::TESTS,
            runs::TESTS,
            limits::TESTS,
            queues::TESTS,
            letters::TESTS,
            traces::TESTS,
            transactions::TESTS,
            commits::TESTS,
            groups::TESTS,
            status::TESTS,
            streams::TESTS,
        ];
        for (name, test) in tests.concat() {
            let broker = broker.clone();
            trials.push(Trial::test(format!("{}::{name}", broker.name), move || {
                test(&broker)
            }));
        }
    }
    // The server of `tcp` ends with its broker, so the process must not exit before that.
    let conclusion = libtest_mimic::run(&arguments, trials);
    drop(brokers);
    conclusion.exit_code()
}

fn client(broker: &TestBroker) -> Client {
    Client::new(&broker.client_url).unwrap()
}

/// A queue that no other test or run uses.
fn fresh(client: &Client) -> Queue {
    client.queue(format!("contract-{}", uuid::Uuid::now_v7()))
}

fn push(queue: &Queue, payloads: impl IntoIterator<Item = u32>) {
    let items: Vec<Item<'_>> = payloads
        .into_iter()
        .map(|n| Item::json(&n).unwrap())
        .collect();
    queue.push(&items).wait(LONG).unwrap();
}

fn batch(size: u64) -> PopOptions {
    PopOptions {
        wait: true,
        batch: size,
        ..PopOptions::default()
    }
}

/// Pops what is there now.
fn pop_now(queue: &Queue, size: u64) -> Option<Delivery> {
    let options = PopOptions {
        wait: false,
        ..batch(size)
    };
    queue.pop_with(&options).wait(LONG).unwrap().take()
}

fn pop(queue: &Queue, size: u64) -> Delivery {
    queue
        .pop_with(&batch(size))
        .wait(LONG)
        .unwrap()
        .take()
        .expect("messages within 30 s")
}

fn numbers(delivery: &Delivery) -> Vec<u32> {
    delivery
        .messages()
        .iter()
        .map(|message| message.json().unwrap())
        .collect()
}

fn verdict(index: usize, status: Status) -> Vec<MessageVerdict> {
    serde_json::from_value(json!([{ "index": index, "status": status }])).unwrap()
}

/// The document of an operation that goes well.
fn told(pending: Pending<Document>) -> Value {
    pending.wait(LONG).unwrap().json().unwrap()
}

fn refused<T: Clone>(pending: Pending<T>) -> Error {
    match pending.wait(LONG) {
        Ok(_) => panic!("it went well"),
        Err(error) => error,
    }
}

/// The document of an operation by its name.
fn call(client: &Client, operation: &str, params: Value) -> Result<Value, Error> {
    let running = client.call(operation, &params.to_string())?;
    assert!(running.wait_for(LONG)?, "{operation} does not end");
    match running.error() {
        Some(error) => Err(error.clone()),
        None => Ok(serde_json::from_str(&running.to_json().unwrap()).unwrap()),
    }
}

/// A consumer whose events the test reads.
struct Reader {
    consumer: Consumer,
    events: mpsc::Receiver<ConsumerEvent>,
}

impl Reader {
    fn new(client: &Client, queue: &Queue, options: ConsumeOptions) -> Reader {
        let (sender, events) = mpsc::channel();
        let sender = Mutex::new(sender);
        let tell = move |event| sender.lock().unwrap().send(event).is_ok();
        let options = ConsumeOptions {
            queue: Some(queue.name().to_owned()),
            ..options
        };
        let consumer = client.consume(options, ConsumerSink::Events(Box::new(tell)));
        let consumer = consumer.unwrap();
        Reader { consumer, events }
    }

    /// The next event, a message.
    fn message(&self) -> Delivery {
        match self.events.recv_timeout(LONG) {
            Ok(ConsumerEvent::Delivery(delivery)) => delivery,
            other => panic!("{other:?}"),
        }
    }

    fn expect_nothing(&self) {
        let told = self.events.recv_timeout(Duration::from_millis(300));
        assert!(told.is_err(), "{told:?}");
    }
}

fn close(client: Client) -> Tested {
    client.close(LONG).wait(LONG)?;
    Ok(())
}
