//! Three official brokers on one PostgreSQL, killed (-9) and started again one after another, under producers and a
//! consumer: no push fails or is lost, first deliveries of a partition keep their order, every message is handled. What is
//! forwarded in transactions arrives once, though the outcome of some commits is not known.

#[path = "support/mod.rs"]
mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::env;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use libtest_mimic::{Arguments, Failed, Trial};
use queen::{
    Client, ConsumeOptions, Delivery, ErrorCode, Item, Outcome, PopOptions, PushOptions,
    RollbackReason, Settlement,
};
use support::official::Broker;

const LONG: Duration = Duration::from_secs(120);
const PRODUCERS: usize = 4;

fn main() -> ExitCode {
    let brokers = env::var("QUEEN_TEST_BROKERS").unwrap_or_default();
    let trials = match brokers.split(',').any(|broker| broker == "official") {
        true => vec![Trial::test(
            "h2_c34_no_call_fails_while_brokers_are_killed",
            no_call_fails_while_brokers_are_killed,
        )],
        false => Vec::new(),
    };
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}

/// The first delivery of each message, in order, by partition.
type Handled = Arc<Mutex<BTreeMap<String, Vec<usize>>>>;

fn no_call_fails_while_brokers_are_killed() -> Result<(), Failed> {
    let kills = match env::var("QUEEN_TEST_SIZE").as_deref() {
        Ok("full") => 30,
        _ => 4,
    };
    let mut brokers: Vec<_> = (0..3).map(|_| Broker::start()).collect();
    let urls: Vec<_> = brokers.iter().map(Broker::url).collect();
    let config = serde_json::json!({"urls": urls, "healthRetryAfterMillis": 500}).to_string();
    let client = Client::new(&config).unwrap();
    let queue = format!("failover-{}", std::process::id());
    client
        .queue(&queue)
        .create(queen::QueueOptions::default())
        .wait(LONG)?;

    let handled = Handled::default();
    let consumer = consume(&client, &queue, handled.clone());
    let forwarder = Forwarder::default();
    let forwarding = forwarder.start(&client, &queue);
    let stop = AtomicBool::new(false);
    let renewals = AtomicUsize::new(0);
    let mut by_hand = ByHand::default();
    let pushed = std::thread::scope(|scope| {
        let producers: Vec<_> = (0..PRODUCERS)
            .map(|producer| {
                let (client, queue, stop) = (&client, &queue, &stop);
                scope.spawn(move || produce(client, queue, producer, stop))
            })
            .collect();
        let renewer = scope.spawn(|| renew(&client, &queue, &stop, &renewals));
        let feeder = scope.spawn(|| feed(&client, &queue, &stop));
        let popper = scope.spawn(|| pop_and_ack(&client, &queue, &stop));
        for round in 0..kills {
            std::thread::sleep(Duration::from_millis(1500));
            let broker = &mut brokers[round % 3];
            broker.kill();
            std::thread::sleep(Duration::from_millis(700));
            broker.start_again();
        }
        std::thread::sleep(Duration::from_millis(1500));
        stop.store(true, Ordering::SeqCst);
        renewer.join().unwrap();
        by_hand = popper.join().unwrap();
        forwarder
            .fed
            .store(feeder.join().unwrap(), Ordering::SeqCst);
        let pushed: Vec<_> = producers
            .into_iter()
            .map(|producer| producer.join().unwrap())
            .collect();
        pushed
    });
    assert!(pushed.iter().all(|count| *count > kills), "{pushed:?}");
    assert!(renewals.load(Ordering::SeqCst) > kills);
    assert!(by_hand.pops > kills, "{by_hand:?}");
    // At most the one that was under way when its broker died.
    assert!(by_hand.unknown <= kills, "{by_hand:?}");

    // Leases of answers that were lost end by themselves.
    let began = Instant::now();
    let all: usize = pushed.iter().sum();
    let count = || {
        handled
            .lock()
            .unwrap()
            .values()
            .map(Vec::len)
            .sum::<usize>()
    };
    while count() < all {
        assert!(
            began.elapsed() < LONG,
            "{} of {all} messages were handled",
            count()
        );
        assert!(!consumer.finished().is_complete(), "the consumer has ended");
        std::thread::sleep(Duration::from_millis(50));
    }
    for (partition, numbers) in &*handled.lock().unwrap() {
        let producer: usize = partition[1..].parse().unwrap();
        let wanted: Vec<_> = (0..pushed[producer]).collect();
        assert_eq!(numbers, &wanted, "{partition}");
    }
    consumer.stop(LONG).wait(LONG)?;
    let forwarded = arrived_once(&client, &queue, forwarder.fed.load(Ordering::SeqCst));
    forwarding.stop(LONG).wait(LONG)?;
    assert!(forwarded > kills, "{forwarded} messages were forwarded");
    client.close(LONG).wait(LONG)?;
    let unknown = forwarder.unknown.load(Ordering::SeqCst);
    println!(
        "{kills} kills, {pushed:?} pushes, {forwarded} forwarded, {unknown} commits of unknown outcome, {by_hand:?}"
    );
    Ok(())
}

/// Pushes one message after another, each when the one before it is answered; tells how many.
fn produce(client: &Client, queue: &str, producer: usize, stop: &AtomicBool) -> usize {
    let queue = client.queue(queue).partition(format!("p{producer}"));
    let mut count = 0;
    while !stop.load(Ordering::SeqCst) {
        let item = Item::json(&count).unwrap();
        let results = queue.push(&[item]).wait(LONG).expect("a push failed");
        assert!(results[0].is_success(), "{results:?}");
        count += 1;
    }
    count
}

fn consume(client: &Client, queue: &str, handled: Handled) -> queen::Consumer {
    let options = ConsumeOptions {
        group: Some("all".into()),
        subscription_mode: Some("all".into()),
        concurrency: PRODUCERS as u64,
        batch: Some(500),
        lease_seconds: 3,
        poll_timeout_millis: 2_000,
        ..ConsumeOptions::default()
    };
    client
        .queue(queue)
        .consume_with(options, move |delivery| {
            let mut handled = handled.lock().unwrap();
            let numbers = handled
                .entry(delivery.source().partition.clone())
                .or_default();
            for message in delivery.messages() {
                let number: usize = message.json().unwrap();
                // What comes again was handled before.
                if !numbers.contains(&number) {
                    numbers.push(number);
                }
            }
            Settlement::Ack
        })
        .unwrap()
}

/// Holds a message and renews its lease over and over.
fn renew(client: &Client, queue: &str, stop: &AtomicBool, renewals: &AtomicUsize) {
    let held = client.queue(format!("{queue}-held"));
    let item = Item::json(&1).unwrap();
    held.push_with(&[item], &PushOptions::default())
        .wait(LONG)
        .expect("a push failed");
    let options = PopOptions {
        wait: true,
        group: Some("one".into()),
        subscription_mode: Some("all".into()),
        lease_seconds: Some(600),
        ..PopOptions::default()
    };
    let popped = held.pop_with(&options).wait(LONG).expect("a pop failed");
    let delivery = popped.take().expect("the message was pushed");
    let lease = delivery.source().lease_id.clone();
    while !stop.load(Ordering::SeqCst) {
        client
            .renew(&lease, 600, &Default::default())
            .wait(LONG)
            .expect("a renewal failed");
        renewals.fetch_add(1, Ordering::SeqCst);
        std::thread::sleep(Duration::from_millis(50));
    }
    delivery.ack().wait(LONG).expect("an ack failed");
}

/// Pops and acks by hand.
#[derive(Debug, Default)]
struct ByHand {
    pops: usize,
    /// Pops whose broker died after it had the request: it may have leased something, so nothing repeats them.
    unknown: usize,
}

/// Pops a message and acks it, over and over.
fn pop_and_ack(client: &Client, queue: &str, stop: &AtomicBool) -> ByHand {
    let queue = client.queue(format!("{queue}-by-hand"));
    let options = PopOptions {
        lease_seconds: Some(600),
        ..PopOptions::default()
    };
    let mut done = ByHand::default();
    while !stop.load(Ordering::SeqCst) {
        // No lease of a lost answer is in the way.
        let place = queue.clone().partition(format!("p{}", done.unknown));
        let item = Item::json(&done.pops).unwrap();
        place.push(&[item]).wait(LONG).expect("a push failed");
        done.pops += 1;
        // Another broker than that of the push may see the message later.
        loop {
            match place.pop_with(&options).wait(LONG) {
                Ok(popped) => {
                    let Some(delivery) = popped.take() else {
                        continue;
                    };
                    delivery.ack().wait(LONG).expect("an ack failed");
                }
                Err(error) => {
                    assert_eq!(error.outcome(), Outcome::Unknown, "{error}");
                    done.unknown += 1;
                }
            }
            break;
        }
    }
    done
}

/// Pushes what is to be forwarded; tells how many.
fn feed(client: &Client, queue: &str, stop: &AtomicBool) -> usize {
    let input = client.queue(format!("{queue}-in"));
    let mut count = 0;
    while !stop.load(Ordering::SeqCst) {
        let place = input.clone().partition(format!("p{}", count % 3));
        let item = Item::json(&count).unwrap();
        place.push(&[item]).wait(LONG).expect("a push failed");
        count += 1;
        std::thread::sleep(Duration::from_millis(5));
    }
    count
}

/// Forwards messages in transactions: acked and pushed on, or neither.
#[derive(Clone, Default)]
struct Forwarder {
    fed: Arc<AtomicUsize>,
    unknown: Arc<AtomicUsize>,
}

impl Forwarder {
    fn start(&self, client: &Client, queue: &str) -> queen::Consumer {
        let options = ConsumeOptions {
            concurrency: 3,
            batch: Some(50),
            lease_seconds: 3,
            poll_timeout_millis: 2_000,
            ..ConsumeOptions::default()
        };
        let (this, inside, output) = (self.clone(), client.clone(), format!("{queue}-out"));
        client
            .queue(format!("{queue}-in"))
            .consume_with(options, move |delivery| {
                this.forward(&inside, &output, &delivery)
            })
            .unwrap()
    }

    fn forward(&self, client: &Client, output: &str, delivery: &Delivery) -> Settlement {
        let mut transaction = client.transaction();
        transaction.ack(delivery);
        let mut ids = Vec::new();
        for message in delivery.messages() {
            let number: usize = message.json().unwrap();
            let id = format!("out-{number}");
            let item = Item::json(&number).unwrap().transaction_id(id.clone());
            transaction.push(output, None, &[item]);
            ids.push(id);
        }
        let Err(error) = transaction.commit().wait(LONG) else {
            return Settlement::Ack;
        };
        match error.outcome() {
            Outcome::Unknown => {
                assert_eq!(error.transaction_ids(), ids);
                assert!(delivery.is_lost(), "nobody else may settle it now");
                self.unknown.fetch_add(1, Ordering::SeqCst);
            }
            // A lease that could not be renewed in time.
            Outcome::Refused => {
                assert_eq!(
                    RollbackReason::of(&error),
                    Some(RollbackReason::AckRejected)
                )
            }
            Outcome::NotApplied => assert_eq!(error.code(), ErrorCode::LeaseLost, "{error}"),
        }
        Settlement::Nack
    }
}

/// Waits until every number has arrived, and sees that each is one message.
fn arrived_once(client: &Client, queue: &str, count: usize) -> usize {
    let output = client.queue(format!("{queue}-out")).group("check");
    let options = PopOptions {
        wait: true,
        subscription_mode: Some("all".into()),
        batch: 500,
        poll_timeout_millis: 2_000,
        ..PopOptions::default()
    };
    let mut arrived: BTreeMap<usize, BTreeSet<String>> = BTreeMap::new();
    let began = Instant::now();
    while arrived.len() < count {
        assert!(
            began.elapsed() < LONG,
            "{} of {count} arrived",
            arrived.len()
        );
        let Some(delivery) = output.pop_with(&options).wait(LONG).unwrap().take() else {
            continue;
        };
        for message in delivery.messages() {
            let ids = arrived.entry(message.json().unwrap()).or_default();
            ids.insert(message.id.clone());
        }
        delivery.ack().wait(LONG).unwrap();
    }
    let twice: Vec<_> = arrived.iter().filter(|(_, ids)| ids.len() > 1).collect();
    assert!(twice.is_empty(), "stored more than once: {twice:?}");
    arrived.len()
}
