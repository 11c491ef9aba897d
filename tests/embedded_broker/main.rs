//! The embedded broker started by hand: how clients see its faults, its clock, its end and its return, in this process
//! and over TCP.

mod faults;
mod life;

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use queen::{
    BrokerOptions, Client, ClockChange, ConsumeOptions, EmbeddedBroker, Error, ErrorCode, Fault,
    FaultAction, Item, Outcome, PopOptions, PushOptions, Queue, QueueOptions, Secret, Settlement,
};
use serde_json::json;

/// Far beyond what anything here takes.
const LONG: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);

fn testing() -> BrokerOptions {
    BrokerOptions {
        testing: true,
        ..BrokerOptions::default()
    }
}

/// A broker of its own for each way to reach one, and a client that repeats without long pauses.
fn each(test: impl Fn(&EmbeddedBroker, &Client)) {
    for outside in [false, true] {
        let mut options = testing();
        if outside {
            options.listen = vec!["127.0.0.1:0".into()];
        }
        let broker = EmbeddedBroker::start(options).unwrap();
        let client = client(url(&broker));
        test(&broker, &client);
        client.close(LONG).wait(LONG).unwrap();
        broker.stop(LONG).wait(LONG).unwrap();
    }
}

/// Over TCP if it listens.
fn url(broker: &EmbeddedBroker) -> &str {
    broker
        .addresses()
        .first()
        .map_or(broker.url(), String::as_str)
}

fn client(url: &str) -> Client {
    patient(url, 100)
}

/// A client that tries so often.
fn patient(url: &str, attempts: u32) -> Client {
    let config = json!({"url": url, "retryDelayMillis": 10, "retryMaxDelayMillis": 200, "retryAttempts": attempts});
    Client::new(&config.to_string()).unwrap()
}

fn push(queue: &Queue, payload: &str) -> Result<String, Error> {
    let pushed = queue.push(&[Item::json(payload).unwrap()]).wait(LONG)?;
    Ok(pushed[0].status.to_string())
}

/// What a pop brings that does not wait.
fn pop(queue: &Queue) -> Result<Option<queen::Delivery>, Error> {
    let options = PopOptions {
        wait: false,
        batch: 100,
        ..PopOptions::default()
    };
    Ok(queue.pop_with(&options).wait(LONG)?.take())
}

fn payloads(delivery: Option<queen::Delivery>) -> Vec<String> {
    let delivery = delivery.as_ref();
    let messages = delivery.map_or(&[][..], |delivery| delivery.messages());
    messages
        .iter()
        .map(|message| message.json().unwrap())
        .collect()
}

fn applied(broker: &EmbeddedBroker) -> Vec<u64> {
    let faults = broker.faults().unwrap();
    faults.iter().map(|fault| fault.applied).collect()
}
