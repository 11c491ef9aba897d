//! The subject `libqueen-rust` of `make bench`: one piece of work through the Rust API, and one JSON line about it, a `Report`
//! of bench/src/work.rs. One thread awaits everything; handlers of consumers run on their own.

#![forbid(unsafe_code)]

mod order;

use std::cell::RefCell;
use std::error::Error;
use std::ops::Range;
use std::rc::Rc;
use std::sync::mpsc::{self, Receiver};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use queen::{
    Aggregation, BufferOptions, Client, Consumer, Delivery, FlushOptions, Item, Number, PopOptions,
    QueueOptions,
};
use rustix::time::{ClockId, clock_gettime};
use tokio::runtime::Runtime;
use tokio::sync::mpsc::unbounded_channel;
use tokio::task::{JoinSet, LocalSet};

use crate::order::{Order, Seen, number, payload};

type Fallible<T> = Result<T, Box<dyn Error>>;

const PATIENCE: Duration = Duration::from_secs(120);
/// So many buffered messages wait for their report at most.
const UNREPORTED: u64 = 10_000;

/// What the work brings: what each operation took in microseconds, and when the last was done.
struct Done {
    took: Vec<f64>,
    at: Instant,
}

fn main() -> Fallible<()> {
    let order = Rc::new(Order::read()?);
    let client = Client::new(&order.url)?;
    let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    let warm_up = order.messages..order.messages + order.warm_up;
    match &*order.case {
        "push-seq" | "push-single" | "push-batch-100" => {
            drop(push(&runtime, &client, &order, warm_up)?);
        }
        "push-buffered" => drop(push_buffered(&runtime, &client, &order, warm_up)?),
        _ => {}
    }
    let (mut cpu, mut began) = (cpu_us(), Instant::now());
    let done = match &*order.case {
        "push-seq" | "push-single" | "push-batch-100" => {
            push(&runtime, &client, &order, 0..order.messages)?
        }
        "push-buffered" => push_buffered(&runtime, &client, &order, 0..order.messages)?,
        "pop-ack-100" => pop_ack(&runtime, &client, &order)?,
        "consume" => consume(&client, &order)?,
        "stream-windows" => {
            let (done, start) = windows(&client, &order)?;
            (cpu, began) = start;
            done
        }
        "latency-idle" => {
            let (done, start) = latency(&client, &order)?;
            (cpu, began) = start;
            done
        }
        other => return Err(format!("unknown case {other}").into()),
    };
    report(&order, done, began, cpu_us() - cpu)?;
    client.close(PATIENCE).wait(PATIENCE)?;
    Ok(())
}

fn report(order: &Order, done: Done, began: Instant, cpu_us: f64) -> Fallible<()> {
    let mut took = done.took;
    took.sort_by(f64::total_cmp);
    let percentile = |share: f64| {
        let last = took.len().max(1) - 1;
        took.get((last as f64 * share).round() as usize).copied()
    };
    let report = serde_json::json!({
        "messages": order.messages, "seconds": (done.at - began).as_secs_f64(), "cpu_us": cpu_us,
        "p50_us": percentile(0.50), "p99_us": percentile(0.99), "rss_mib": peak_rss_mib()?,
    });
    println!("{report}");
    Ok(())
}

/// Closed loops: each pushes the next when the last is answered.
fn push(
    runtime: &Runtime,
    client: &Client,
    order: &Rc<Order>,
    numbers: Range<u64>,
) -> Fallible<Done> {
    let left = Rc::new(RefCell::new(numbers));
    LocalSet::new().block_on(runtime, async {
        let mut loops = JoinSet::new();
        for _ in 0..order.in_flight {
            loops.spawn_local(push_loop(client.clone(), order.clone(), left.clone()));
        }
        let mut took = Vec::new();
        while let Some(ended) = loops.join_next().await {
            took.extend(ended??);
        }
        let at = Instant::now();
        Ok(Done { took, at })
    })
}

async fn push_loop(
    client: Client,
    order: Rc<Order>,
    left: Rc<RefCell<Range<u64>>>,
) -> queen::Result<Vec<f64>> {
    let (batch, mut took) = (order.batch(), Vec::new());
    loop {
        let taken = {
            let mut left = left.borrow_mut();
            let taken = left.start..left.end.min(left.start + batch);
            left.start = taken.end;
            taken
        };
        if taken.is_empty() {
            return Ok(took);
        }
        let partition = format!("p{}", taken.start / batch % order.partitions);
        let place = client.queue(&order.queue).partition(partition);
        let payloads: Vec<String> = taken.map(payload).collect();
        let items: queen::Result<Vec<Item>> = payloads.iter().map(|one| Item::raw(one)).collect();
        let items = items?;
        let began = Instant::now();
        // One that is not stored is an error.
        place.push(&items).await?;
        took.push(began.elapsed().as_secs_f64() * 1e6);
    }
}

/// Ends at the last delivery report.
fn push_buffered(
    runtime: &Runtime,
    client: &Client,
    order: &Order,
    numbers: Range<u64>,
) -> Fallible<Done> {
    let (tell, mut told) = unbounded_channel();
    client.set_reports(Some(Arc::new(move |reports| {
        let good = reports.iter().all(|report| report.status.is_success());
        let _ = tell.send((reports.len() as u64, good));
    })));
    let mut reported = 0;
    let count = numbers.end - numbers.start;
    let (mut next, mut flushed) = (numbers.start, false);
    runtime.block_on(async {
        while reported < count {
            while next < numbers.end && next - numbers.start - reported < UNREPORTED {
                let partition = format!("p{}", next % order.partitions);
                let place = client.queue(&order.queue).partition(partition);
                let text = payload(next);
                let item = Item::raw(&text)?;
                place.buffer(BufferOptions::default()).push(&[item]).await?;
                next += 1;
            }
            if next == numbers.end && !std::mem::replace(&mut flushed, true) {
                // It is not waited for: the reports tell when it is done.
                drop(client.flush(&FlushOptions::default()));
            }
            let (more, good) = told.recv().await.ok_or("no report")?;
            if !good {
                return Err("not all was stored".into());
            }
            reported += more;
        }
        let at = Instant::now();
        let took = Vec::new();
        Ok(Done { took, at })
    })
}

/// Loops that pop and acknowledge, until every message is acknowledged; pops that wait then are left to the close.
fn pop_ack(runtime: &Runtime, client: &Client, order: &Rc<Order>) -> Fallible<Done> {
    let seen = Rc::new(RefCell::new(Seen::new(order.messages)));
    let (tell, mut told) = unbounded_channel();
    LocalSet::new().block_on(runtime, async {
        for _ in 0..order.in_flight {
            let (client, order, seen, tell) =
                (client.clone(), order.clone(), seen.clone(), tell.clone());
            tokio::task::spawn_local(async move {
                loop {
                    let turn = pop_and_ack(&client, &order, &seen).await;
                    let failed = turn.is_err();
                    let _ = tell.send(turn);
                    if failed {
                        return;
                    }
                }
            });
        }
        let mut took = Vec::new();
        loop {
            let Some((micros, count, at)) = told.recv().await.ok_or("all have ended")?? else {
                continue;
            };
            took.push(micros);
            if count == order.messages {
                return Ok(Done { took, at });
            }
        }
    })
}

/// One pop and its acks: what they took, how many messages were seen so far, and when; none when nothing came.
async fn pop_and_ack(
    client: &Client,
    order: &Order,
    seen: &RefCell<Seen>,
) -> queen::Result<Option<(f64, u64, Instant)>> {
    let options = PopOptions {
        batch: 100,
        wait: true,
        poll_timeout_millis: 10_000,
        ..PopOptions::default()
    };
    let began = Instant::now();
    let popped = client.queue(&order.queue).pop_with(&options).await?;
    let mut numbers = Vec::new();
    while let Some(delivery) = popped.take() {
        numbers.extend(delivery.messages().iter().map(|m| number(m.payload())));
        // An ack that is refused is an error.
        delivery.ack().await?;
    }
    let counts = numbers.into_iter().map(|n| seen.borrow_mut().add(n));
    let count = counts.last();
    Ok(count.map(|count| (began.elapsed().as_secs_f64() * 1e6, count, Instant::now())))
}

/// The default options: one message for each call of the handler. Ends when the stop says that the acks are answered.
fn consume(client: &Client, order: &Order) -> Fallible<Done> {
    let (tell, told) = mpsc::channel();
    let (seen, messages) = (Mutex::new(Seen::new(order.messages)), order.messages);
    let consumer = client.queue(&order.queue).consume(move |delivery| {
        let mut seen = seen.lock().expect("a lock");
        for message in delivery.messages() {
            if seen.add(number(message.payload())) == messages {
                let _ = tell.send(());
            }
        }
    })?;
    told.recv_timeout(PATIENCE)?;
    stop(&consumer, order.messages)?;
    Ok(Done {
        took: Vec::new(),
        at: Instant::now(),
    })
}

fn stop(consumer: &Consumer, acked: u64) -> Fallible<()> {
    let summary = consumer.stop(PATIENCE).wait(PATIENCE)?;
    match summary.acked as u64 == acked {
        true => Ok(()),
        false => Err(format!("not all was acked: {summary:?}").into()),
    }
}

/// Windows of two milliseconds with a push of a hundred messages each, more or less; the clock runs from their first poll. What a
/// window takes is what its counts and sums take.
fn windows(client: &Client, order: &Order) -> Fallible<(Done, (f64, Instant))> {
    const LENGTH: Duration = Duration::from_millis(2);
    let (total, queue) = (order.messages + order.warm_up, client.queue(&order.queue));
    queue.create(QueueOptions::new()).wait(PATIENCE)?;
    let stream = client
        .stream(&order.queue)
        .namespace("bench")
        .sources(&[&order.queue]);
    stream
        .tumbling(LENGTH)
        .grace_period(Duration::ZERO)
        .define()
        .wait(PATIENCE)?;
    let mut pushes = Vec::new();
    for first in (0..total).step_by(100) {
        let texts: Vec<String> = (first..total.min(first + 100)).map(payload).collect();
        let items: queen::Result<Vec<Item>> = texts.iter().map(|one| Item::raw(one)).collect();
        pushes.push(queue.clone().partition("p0").push(&items?));
        std::thread::sleep(LENGTH);
    }
    for push in pushes {
        push.wait(PATIENCE)?;
    }
    let (tell, told) = mpsc::channel();
    let wanted =
        Aggregation::parse(r#"{"count":true,"sum":["data.n"],"avg":["data.n"],"max":["data.n"]}"#)?;
    let start = (cpu_us(), Instant::now());
    let consumer = client
        .stream(&order.queue)
        .consume("bench", move |window| {
            let began = Instant::now();
            let sums = window.aggregate(&wanted);
            let _ = tell.send((window.size(), sums, began.elapsed().as_secs_f64() * 1e6));
        })?;
    let (mut count, mut sum, mut took) = (0, 0, Vec::new());
    while count < total {
        let (size, sums, micros) = told.recv_timeout(PATIENCE)?;
        if size == 0 {
            continue;
        }
        count += size as u64;
        sum += match sums.sum.get("data.n") {
            Some(Number::Int(sum)) => *sum as u64,
            other => return Err(format!("the sum of a window is {other:?}").into()),
        };
        took.push(micros);
    }
    consumer.stop(PATIENCE).wait(PATIENCE)?;
    let at = Instant::now();
    if (count, sum) != (total, total * (total - 1) / 2) {
        return Err(format!("{count} messages with the sum {sum} came in windows").into());
    }
    client.stream(&order.queue).delete().wait(PATIENCE)?;
    Ok((Done { took, at }, start))
}

/// From the push to the handler, one message at a time, after a pause in which everything falls idle.
fn latency(client: &Client, order: &Order) -> Fallible<(Done, (f64, Instant))> {
    let (tell, told) = mpsc::channel();
    let handler = move |delivery: Delivery| {
        let _ = tell.send((Instant::now(), number(delivery.messages()[0].payload())));
    };
    let consumer = client.queue(&order.queue).consume(handler)?;
    for n in 0..order.warm_up {
        push_and_wait(client, order, order.messages + n, &told)?;
    }
    let start = (cpu_us(), Instant::now());
    let took: Fallible<Vec<f64>> = (0..order.messages)
        .map(|n| push_and_wait(client, order, n, &told))
        .collect();
    stop(&consumer, order.messages + order.warm_up)?;
    let at = Instant::now();
    Ok((Done { took: took?, at }, start))
}

fn push_and_wait(
    client: &Client,
    order: &Order,
    n: u64,
    told: &Receiver<(Instant, u64)>,
) -> Fallible<f64> {
    std::thread::sleep(Duration::from_millis(20));
    let place = client.queue(&order.queue).partition("p0");
    let text = payload(n);
    let began = Instant::now();
    let pushing = place.push(&[Item::raw(&text)?]);
    let (arrived, number) = told.recv_timeout(PATIENCE)?;
    pushing.wait(PATIENCE)?;
    match number == n {
        true => Ok((arrived - began).as_secs_f64() * 1e6),
        false => Err(format!("message {number} came instead of {n}").into()),
    }
}

/// Processor time of this process so far.
fn cpu_us() -> f64 {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    time.tv_sec as f64 * 1e6 + time.tv_nsec as f64 / 1e3
}

/// The most memory that this process ever had.
fn peak_rss_mib() -> Fallible<f64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.and_then(|line| line.split_whitespace().next());
    Ok(kib.ok_or("no VmHWM")?.parse::<f64>()? / 1024.0)
}
