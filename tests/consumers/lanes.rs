//! Verdicts that leave together, and what becomes of them when a broker stumbles over one.

use super::*;

/// A broker that hands out `count` partitions with one message each, and lets go of acks after the test says so.
struct Gate {
    server: Arc<Script>,
    client: Client,
    deliveries: Vec<Delivery>,
    open: mpsc::Sender<()>,
}

/// The answer to acks comes from `ack`, for the first two requests after the gate has been opened for each.
fn gate(count: usize, ack: impl Fn(&Seen) -> Reply + Send + Sync + 'static) -> Gate {
    let (open, gate) = mpsc::channel::<()>();
    let (gate, asked) = (Mutex::new(gate), AtomicUsize::new(0));
    let names: Vec<String> = (0..count).map(|n| format!("p{n}")).collect();
    let partitions: Vec<_> = names.iter().map(|name| (&**name, 1)).collect();
    let waits = move |seen: &Seen| {
        if asked.fetch_add(1, Ordering::SeqCst) < 2 {
            gate.lock().unwrap().recv_timeout(LONG).unwrap();
        }
        ack(seen)
    };
    let server = plays(hands_out([messages(&partitions)]), waits, |_| renewed(1));
    let client = client(&server.url, r#""timeoutMillis":20000"#);
    let pop = PopOptions {
        batch: count as u64,
        partitions: count as u64,
        ..PopOptions::default()
    };
    let popped = client.queue("q").pop_with(&pop).wait(LONG).unwrap();
    let deliveries: Vec<_> = std::iter::from_fn(|| popped.take()).collect();
    assert_eq!(deliveries.len(), count);
    Gate {
        server: Arc::new(server),
        client,
        deliveries,
        open,
    }
}

impl Gate {
    /// Acks every delivery, the first two alone; what each ack came to.
    fn settle(&self) -> Vec<Result<(), queen::Error>> {
        let mut acks = Vec::new();
        for (number, delivery) in self.deliveries.iter().enumerate() {
            acks.push(delivery.ack());
            if number < 2 {
                until("it is under way", || self.sent() == number + 1);
            }
        }
        assert_eq!(self.sent(), 2, "the rest waits for one of them");
        self.open.send(()).unwrap();
        self.open.send(()).unwrap();
        let outcome = |ack: queen::Pending<Vec<queen::AckResult>>| ack.wait(LONG).map(|_| ());
        acks.into_iter().map(outcome).collect()
    }

    fn sent(&self) -> usize {
        requests(&self.server, "/ack").len()
    }

    /// How many acks each request had.
    fn sizes(&self) -> Vec<usize> {
        let sent = requests(&self.server, "/ack");
        sent.iter().map(|sent| acks(sent).len()).collect()
    }
}

fn names(seen: &Seen, partition: &str) -> bool {
    acks(seen)
        .iter()
        .any(|ack| ack["partitionId"] == format!("uuid-{partition}"))
}

#[test]
fn verdicts_that_come_while_others_are_under_way_leave_together() {
    let refuse = |seen: &Seen| {
        verdicts_with(seen, |ack| match ack["partitionId"] == "uuid-p7" {
            true => json!("consumer not found"),
            false => Value::Null,
        })
    };
    let gate = gate(30, refuse);
    let outcomes = gate.settle();
    // Each has the answer to its own.
    for (number, outcome) in outcomes.iter().enumerate() {
        assert_eq!(outcome.is_err(), number == 7, "{number}: {outcome:?}");
    }
    let sizes = gate.sizes();
    assert_eq!((sizes[0], sizes[1]), (1, 1));
    assert_eq!(sizes[2..].iter().sum::<usize>(), 28);
    assert!(sizes.len() <= 4, "{sizes:?}");
    let mut seen: Vec<_> = requests(&gate.server, "/ack")
        .iter()
        .flat_map(acks)
        .collect();
    seen.dedup_by_key(|ack| ack["transactionId"].to_string());
    assert_eq!(seen.len(), 30, "each of them once");
    assert_eq!(gate.client.stats().messages.acked, 29);
}

#[test]
fn a_refused_request_is_taken_apart_so_that_the_refusal_reaches_the_guilty_alone() {
    for status in [400, 413, 422] {
        let refuse = move |seen: &Seen| match names(seen, "p7") {
            true => script::json(status, r#"{"error":"no"}"#),
            false => acked(seen),
        };
        let gate = gate(12, refuse);
        for (number, outcome) in gate.settle().into_iter().enumerate() {
            match (number, outcome) {
                (7, Err(error)) => assert_eq!(error.http_status(), Some(status)),
                (_, outcome) => assert!(outcome.is_ok(), "{number}: {outcome:?}"),
            }
        }
    }
}

#[test]
fn a_request_that_a_broker_stumbles_over_twice_is_taken_apart() {
    let stumbles = |seen: &Seen| match names(seen, "p7") && acks(seen).len() > 1 {
        true => script::json(500, r#"{"error":"oops"}"#),
        false => acked(seen),
    };
    let gate = gate(12, stumbles);
    assert!(gate.settle().iter().all(Result::is_ok));
    let shared = gate.sizes().into_iter().filter(|size| *size > 1).count();
    assert!((2..=4).contains(&shared), "{:?}", gate.sizes());
}

#[test]
fn a_broker_that_is_away_gets_the_same_request_again() {
    let failures = AtomicUsize::new(0);
    let away = move |seen: &Seen| match acks(seen).len() > 1 {
        true => match failures.fetch_add(1, Ordering::SeqCst) {
            0 => script::json(503, r#"{"error":"later"}"#),
            1 => Reply::Reset,
            2 => script::json(503, ""),
            _ => acked(seen),
        },
        false => acked(seen),
    };
    let gate = gate(12, away);
    assert!(gate.settle().iter().all(Result::is_ok));
    let alone = gate.sizes().into_iter().filter(|size| *size == 1).count();
    assert_eq!(alone, 2, "nothing is taken apart: {:?}", gate.sizes());
}

#[test]
fn a_close_sends_the_verdicts_that_wait() {
    let gate = gate(12, acked);
    let acks: Vec<_> = gate.deliveries.iter().map(Delivery::ack).collect();
    let close = gate.client.close(LONG);
    gate.open.send(()).unwrap();
    gate.open.send(()).unwrap();
    assert_eq!(close.wait(LONG).unwrap().aborted, 0);
    assert!(acks.into_iter().all(|ack| ack.wait(LONG).is_ok()));
}
