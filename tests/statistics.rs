//! Each field of the statistics counts what `docs/STATISTICS.md` says of it, and nothing else.

#[path = "support/script.rs"]
#[allow(dead_code, reason = "each test program uses its own part")]
mod script;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use queen::{
    BufferOptions, Client, ConsumeOptions, ConsumerEvent, ConsumerSink, ErrorCode, Item,
    PopOptions, PushOptions, WhenFull,
};
use script::{Reply, Script, Seen, answer, json};
use serde_json::{Value, json};

const LONG: Duration = Duration::from_secs(60);

/// The numbers of a snapshot by their names in the page.
fn numbers(client: &Client) -> BTreeMap<String, u64> {
    fn collect(prefix: &str, value: &Value, to: &mut BTreeMap<String, u64>) {
        let name = |key: &str| format!("{prefix}{key}");
        for (key, value) in value.as_object().unwrap() {
            match value.as_u64() {
                Some(number) => _ = to.insert(name(key), number),
                None => collect(&name(&format!("{key}.")), value, to),
            }
        }
    }
    let call = client.call("client.stats", "").unwrap();
    assert!(call.wait_for(LONG).unwrap());
    let mut numbers = BTreeMap::new();
    collect(
        "",
        &serde_json::from_str(&call.to_json().unwrap()).unwrap(),
        &mut numbers,
    );
    numbers
}

/// Which fields the page lists.
fn listed() -> BTreeSet<String> {
    let rows = include_str!("../docs/STATISTICS.md").lines();
    rows.filter_map(|line| Some(line.strip_prefix("| `")?.split_once('`')?.0.to_owned()))
        .collect()
}

fn until(what: &str, holds: impl Fn() -> bool) {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < LONG, "{what} has not come true");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Which fields have moved so far, by any client.
#[derive(Default)]
struct Moved(BTreeSet<String>);

impl Moved {
    /// Does something and sees that these counters have grown by so much, and no other.
    fn by<T>(&mut self, client: &Client, grown: &[(&str, u64)], work: impl FnOnce() -> T) -> T {
        // What depends on the length of a text or on time is looked at on its own.
        let counted = |name: &str| !name.contains("bytes") && !name.ends_with("Micros");
        let before = numbers(client);
        let result = work();
        let changed = || -> BTreeMap<String, u64> {
            let after = numbers(client);
            let grown = after.into_iter().map(|(name, number)| {
                let more = match name.ends_with("Micros") {
                    // It may get shorter.
                    true => u64::from(number != before[&name]),
                    false => number
                        .checked_sub(before[&name])
                        .unwrap_or_else(|| panic!("{name} has shrunk")),
                };
                (name, more)
            });
            grown.filter(|(_, more)| *more > 0).collect()
        };
        let wanted: BTreeMap<_, _> = grown
            .iter()
            .map(|(name, more)| ((*name).to_owned(), *more))
            .collect();
        let seen = || -> BTreeMap<String, u64> {
            changed()
                .into_iter()
                .filter(|(name, _)| counted(name))
                .collect()
        };
        // The last of them may be counted right after the call is complete.
        let began = Instant::now();
        while seen() != wanted && began.elapsed() < Duration::from_secs(10) {
            std::thread::sleep(Duration::from_millis(5));
        }
        assert_eq!(seen(), wanted);
        self.0.extend(changed().into_keys());
        result
    }

    /// Sees that these gauges stand so.
    fn stands(&mut self, client: &Client, gauges: &[(&str, u64)]) {
        for (name, wanted) in gauges {
            let stands = || numbers(client)[*name];
            until(&format!("{name} {wanted} ({})", stands()), || {
                stands() == *wanted
            });
            if *wanted > 0 {
                self.0.insert((*name).to_owned());
            }
        }
    }
}

/// A broker that does with a push what its payload says, and with the rest what the ids say. What is to be held waits for the
/// gate.
fn broker(gate: &Arc<AtomicBool>) -> Script {
    let gate = gate.clone();
    let renewals = Mutex::new(0);
    Script::start(move |seen: &Seen| {
        let body: Value = serde_json::from_str(&seen.body).unwrap_or_default();
        let hold = || until("the gate", || gate.load(Ordering::SeqCst));
        match &*seen.line {
            line if line.contains("/push") => {
                let first = body["items"][0]["payload"].as_str().unwrap_or("well");
                match first {
                    "refuse" => return json(400, "{}"),
                    "throttle" => return json(429, "{}"),
                    "fail" => return json(500, "{}"),
                    "redirect" => return answer("302 Found\r\nlocation: /x", ""),
                    "reset" => return Reply::Reset,
                    "garbage" => return Reply::Part(b"no HTTP\r\n\r\n".to_vec()),
                    "silence" => return Reply::Silence,
                    "hold" => hold(),
                    "fail once" if seen.number == 0 => return json(500, "{}"),
                    _ => {}
                }
                let items = body["items"].as_array().unwrap().iter();
                let results = items.enumerate().map(|(index, item)| {
                    let status = item["payload"]
                        .as_str()
                        .filter(|word| word.starts_with("as "))
                        .map(|word| &word[3..]);
                    json!({"index": index, "message_id": "m", "status": status.unwrap_or("queued")})
                });
                json(201, &results.collect::<Value>().to_string())
            }
            line if line.contains("/pop/queue/empty") => {
                hold();
                answer("204 No Content", "")
            }
            line if line.contains("/pop") => {
                let message = |n: u32| {
                    json!({"id": n.to_string(), "transactionId": format!("t-{n}"), "partitionId": "P", "partition": "p",
                        "leaseId": "L", "data": n})
                };
                json(200, &json!({"success": true, "messages": [message(1), message(2)], "partitionsClaimed": 1}).to_string())
            }
            line if line.contains("/ack") => {
                let acks = body["acknowledgments"].as_array().unwrap().iter();
                let results = acks.enumerate().map(|(index, ack)| {
                    json!({"index": index, "success": ack["transactionId"] != "late", "error": null})
                });
                json(200, &results.collect::<Value>().to_string())
            }
            line if line.contains("/lease/") => {
                let mut renewals = renewals.lock().unwrap();
                *renewals += 1;
                json(
                    200,
                    &json!({"success": !line.contains("over") && *renewals < 2, "renewed": 1})
                        .to_string(),
                )
            }
            line if line.contains("/transaction") => match seen.body.contains("\"break\"") {
                true => Reply::Reset,
                false => {
                    let well = !seen.body.contains("\"undo\"");
                    json(200, &json!({"success": well, "reason": "duplicate", "error": "no", "results": []}).to_string())
                }
            },
            _ => json(200, r#"{"status":"healthy"}"#),
        }
    })
}

fn client(url: &str, more: Value) -> Client {
    let mut config =
        json!({"url": url, "retryAttempts": 1, "throttledAttempts": 1, "retryDelayMillis": 1});
    config
        .as_object_mut()
        .unwrap()
        .extend(more.as_object().unwrap().clone());
    Client::new(&config.to_string()).unwrap()
}

fn push(client: &Client, payloads: &[&str]) -> queen::Result<Vec<queen::PushResult>> {
    let items: Vec<_> = payloads
        .iter()
        .map(|payload| Item::json(payload).unwrap().transaction_id(*payload))
        .collect();
    client.queue("q").push(&items).wait(LONG)
}

#[test]
fn every_field_counts_what_the_page_says() {
    let mut moved = Moved::default();
    let gate = Arc::new(AtomicBool::new(false));
    let server = broker(&gate);
    requests(&mut moved, &server);
    verdicts(&mut moved, &server);
    leases(&mut moved);
    transactions(&mut moved, &server);
    buffers(&mut moved, &server);
    gauges(&mut moved, &server, &gate);
    assert_eq!(
        moved.0,
        listed(),
        "left: seen to move, right: listed in docs/STATISTICS.md"
    );
}

fn requests(moved: &mut Moved, server: &Script) {
    let client = client(&server.url, json!({"timeoutMillis": 20_000}));
    let one = [("requests.push", 1), ("latency.push.count", 1)];
    let with = |more: &[(&'static str, u64)]| [&one[..], more].concat();
    let all = [
        "as queued",
        "as duplicate",
        "as buffered",
        "as failed",
        "as error",
    ];
    let outcomes = [
        ("messages.queued", 1),
        ("messages.duplicate", 1),
        ("messages.buffered", 1),
        ("messages.failed", 2),
    ];
    let before = numbers(&client);
    moved.by(&client, &with(&outcomes), || {
        push(&client, &all).unwrap_err()
    });
    let (seen, after) = (server.seen(), numbers(&client));
    let sent = seen.last().unwrap().body.len() as u64;
    assert_eq!(
        after["requests.bytesOut"] - before["requests.bytesOut"],
        sent
    );
    assert!(after["requests.bytesIn"] > 5 * r#"{"status":""}"#.len() as u64);
    let quantiles = ["p50Micros", "p90Micros", "p99Micros", "maxMicros"]
        .map(|part| after[&format!("latency.push.{part}")]);
    assert!(quantiles[0] > 0 && quantiles.is_sorted(), "{quantiles:?}");

    for (payload, field, code) in [
        ("refuse", "failures.refused", ErrorCode::BadRequest),
        ("throttle", "failures.throttled", ErrorCode::Throttled),
        ("fail", "failures.broker", ErrorCode::Broker),
        ("reset", "failures.network", ErrorCode::Network),
        ("garbage", "failures.badAnswer", ErrorCode::BadAnswer),
        ("redirect", "failures.badAnswer", ErrorCode::BadAnswer),
    ] {
        let error = moved.by(&client, &with(&[(field, 1)]), || {
            push(&client, &[payload]).unwrap_err()
        });
        assert_eq!(error.code(), code, "{payload}");
    }
    let hasty = self::client(&server.url, json!({"timeoutMillis": 500}));
    moved.by(&hasty, &with(&[("failures.timeout", 1)]), || {
        push(&hasty, &["silence"]).unwrap_err()
    });
    let lost = self::client(&script::nobody(), json!({}));
    moved.by(&lost, &with(&[("failures.connect", 1)]), || {
        push(&lost, &["well"]).unwrap_err()
    });
    let storeless = Client::new("embedded:///no/such/folder/store.db").unwrap();
    moved.by(&storeless, &with(&[("failures.other", 1)]), || {
        push(&storeless, &["well"]).unwrap_err()
    });

    let server = broker(&Arc::default());
    let patient = self::client(&server.url, json!({"retryAttempts": 2}));
    // Each attempt of a push is a request of its own.
    let again = [
        ("requests.push", 2),
        ("latency.push.count", 2),
        ("failures.broker", 1),
        ("requests.retries", 1),
        ("messages.queued", 1),
    ];
    moved.by(&patient, &again, || push(&patient, &["fail once"]).unwrap());
    let other = [("requests.other", 1), ("latency.other.count", 1)];
    moved.by(&patient, &other, || {
        let health = patient.call("health", "").unwrap();
        assert!(health.wait_for(LONG).unwrap() && health.error().is_none());
    });
}

fn verdicts(moved: &mut Moved, server: &Script) {
    let client = client(&server.url, json!({}));
    let ack = |id: &str, status: &str| json!({"transactionId": id, "partitionId": "P", "leaseId": "M", "status": status});
    let acks = json!({"acks": [
        ack("a", "completed"), ack("b", "failed"), ack("c", "retry"), ack("d", "dlq"), ack("late", "completed"),
    ]});
    let grown = [
        ("requests.ack", 1),
        ("latency.ack.count", 1),
        ("messages.acked", 1),
        ("messages.nacked", 1),
        ("messages.givenBack", 1),
        ("messages.deadLettered", 1),
        ("messages.refusedVerdicts", 1),
    ];
    moved.by(&client, &grown, || {
        let call = client.call("ack", &acks.to_string()).unwrap();
        assert!(call.wait_for(LONG).unwrap());
    });
    let options = PopOptions {
        batch: 2,
        wait: false,
        ..PopOptions::default()
    };
    let in_hand = [
        ("requests.pop", 1),
        ("latency.pop.count", 1),
        ("messages.popped", 2),
        ("consumers.deliveries", 1),
        ("consumers.messages", 2),
    ];
    let popped = moved.by(&client, &in_hand, || {
        client.queue("q").pop_with(&options).wait(LONG).unwrap()
    });
    popped.take().unwrap().ack().wait(LONG).unwrap();
    moved.stands(
        &client,
        &[
            ("consumers.deliveries", 0),
            ("consumers.messages", 0),
            ("messages.acked", 3),
        ],
    );
}

fn leases(moved: &mut Moved) {
    // The first renewal goes well, the second tells that the lease is over.
    let server = broker(&Arc::default());
    let client = client(&server.url, json!({}));
    let renew = |id: &str| client.renew(id, 60, &Default::default()).wait(LONG);
    let one = [("requests.renew", 1), ("latency.renew.count", 1)];
    moved.by(
        &client,
        &[&one[..], &[("leases.renewals", 1)]].concat(),
        || renew("L").unwrap(),
    );
    moved.by(
        &client,
        &[&one[..], &[("leases.failedRenewals", 1)]].concat(),
        || renew("over").unwrap_err(),
    );
    let options = PopOptions {
        lease_seconds: Some(1),
        renew_lease: true,
        wait: false,
        ..PopOptions::default()
    };
    let delivery = client
        .queue("q")
        .pop_with(&options)
        .wait(LONG)
        .unwrap()
        .take()
        .unwrap();
    until("the loss", || delivery.is_lost());
    moved.stands(&client, &[("leases.lost", 1)]);
}

fn transactions(moved: &mut Moved, server: &Script) {
    let client = client(&server.url, json!({}));
    let commit = |payload: &str| {
        let item = Item::json(payload).unwrap();
        client
            .transaction()
            .push("q", None, &[item])
            .commit()
            .wait(LONG)
    };
    let one = [
        ("requests.transaction", 1),
        ("latency.transaction.count", 1),
    ];
    let with = |more: &[(&'static str, u64)]| [&one[..], more].concat();
    let done = [("transactions.committed", 1), ("messages.queued", 1)];
    moved.by(&client, &with(&done), || commit("well").unwrap());
    let undone = [("transactions.rolledBack", 1), ("messages.failed", 1)];
    moved.by(&client, &with(&undone), || commit("undo").unwrap_err());
    let unknown = [("transactions.unknown", 1), ("failures.network", 1)];
    moved.by(&client, &with(&unknown), || commit("break").unwrap_err());
}

fn buffers(moved: &mut Moved, server: &Script) {
    let client = client(&server.url, json!({}));
    let options = BufferOptions {
        message_count: 3,
        time_millis: 86_400_000,
        max_messages: Some(4),
        when_full: WhenFull::DropOldest,
        ..BufferOptions::default()
    };
    let queue = |name: &str| client.queue("q").partition(name).buffer(options.clone());
    let add = |place: &str, payload: &str| {
        let pushed = queue(place)
            .push(&[Item::json(payload).unwrap()])
            .wait(LONG)
            .unwrap();
        assert_eq!(pushed[0].status, "buffered");
    };
    let sent = [
        ("requests.push", 1),
        ("latency.push.count", 1),
        ("messages.queued", 3),
        ("buffers.flushesPerformed", 1),
    ];
    moved.by(&client, &sent, || (0..3).for_each(|_| add("a", "well")));
    // A full buffer whose broker fails: it tries again, and what is new takes the place of the oldest.
    (0..3).for_each(|_| add("b", "fail"));
    until("a repeat", || numbers(&client)["buffers.retries"] > 0);
    moved.0.insert("buffers.retries".into());
    let dropped = || numbers(&client)["messages.dropped"];
    until("a drop", || {
        add("b", "fail");
        dropped() > 0
    });
    moved.0.insert("messages.dropped".into());
    moved.stands(&client, &[("buffers.activeBuffers", 1)]);
    let error = client.close(Duration::ZERO).wait(LONG).unwrap_err();
    let told: Value = serde_json::from_str(error.result_json().unwrap()).unwrap();
    assert!(told["unsent"].as_u64().unwrap() > 0);
    moved.stands(
        &client,
        &[("messages.closed", told["unsent"].as_u64().unwrap())],
    );
}

fn gauges(moved: &mut Moved, server: &Script, gate: &AtomicBool) {
    let client = client(&server.url, json!({"cancelGraceMillis": 0}));
    let held = client
        .queue("q")
        .partition("a")
        .push(&[Item::json("hold").unwrap()]);
    moved.stands(
        &client,
        &[("requests.inFlight", 1), ("pending.messages", 1)],
    );
    let bytes = numbers(&client)["pending.bytes"];
    assert!(bytes > 0 && bytes < 10_000, "{bytes}");
    let polling = client.queue("empty").pop_with(&PopOptions {
        wait: true,
        ..PopOptions::default()
    });
    moved.stands(&client, &[("requests.inFlight", 2), ("parkedPolls", 1)]);

    let small = BufferOptions {
        message_count: 1,
        time_millis: 0,
        max_messages: Some(1),
        ..BufferOptions::default()
    };
    let buffered = client.queue("q").partition("b").buffer(small.clone());
    buffered
        .push(&[Item::json("hold").unwrap()])
        .wait(LONG)
        .unwrap();
    moved.stands(
        &client,
        &[
            ("buffers.inFlightMessages", 1),
            ("buffers.totalBufferedMessages", 0),
        ],
    );
    let patient = PushOptions {
        buffer: Some(small),
        ..PushOptions::default()
    };
    let waiting = client
        .queue("q")
        .partition("b")
        .push_with(&[Item::json("well").unwrap()], &patient);
    moved.stands(&client, &[("buffers.waitingPushes", 1)]);
    let calm = BufferOptions {
        time_millis: 86_400_000,
        ..BufferOptions::default()
    };
    let calm = client.queue("q").partition("c").buffer(calm);
    calm.push(&[Item::json("well").unwrap()])
        .wait(LONG)
        .unwrap();
    moved.stands(
        &client,
        &[
            ("buffers.totalBufferedMessages", 1),
            ("buffers.activeBuffers", 2),
        ],
    );
    until("an age", || numbers(&client)["buffers.oldestBufferAge"] > 0);
    let bytes = numbers(&client)["buffers.bufferedBytes"];
    assert!(bytes > 0 && bytes < 10_000, "{bytes}");

    let options = ConsumeOptions {
        queue: Some("empty".into()),
        ..ConsumeOptions::default()
    };
    let sink = ConsumerSink::Events(Box::new(|_: ConsumerEvent| true));
    let consumer = client.consume(options, sink).unwrap();
    moved.stands(&client, &[("consumers.running", 1), ("parkedPolls", 2)]);
    moved.0.extend(
        [
            "pending.bytes",
            "buffers.oldestBufferAge",
            "buffers.bufferedBytes",
        ]
        .map(str::to_owned),
    );

    gate.store(true, Ordering::SeqCst);
    held.wait(LONG).unwrap();
    assert!(polling.wait(LONG).unwrap().is_empty());
    waiting.wait(LONG).unwrap();
    consumer.stop(LONG).wait(LONG).unwrap();
    client.flush(&Default::default()).wait(LONG).unwrap();
    for gauge in [
        "requests.inFlight",
        "pending.messages",
        "pending.bytes",
        "parkedPolls",
        "buffers.activeBuffers",
        "buffers.totalBufferedMessages",
        "buffers.inFlightMessages",
        "buffers.waitingPushes",
        "buffers.bufferedBytes",
        "buffers.oldestBufferAge",
        "consumers.running",
    ] {
        moved.stands(&client, &[(gauge, 0)]);
    }
    client.close(LONG).wait(LONG).unwrap();
}
