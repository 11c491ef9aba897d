//! The subject `official-rust` of `make bench`: one piece of work by the official Rust client, with its default options, and
//! one JSON line about it, a `Report` of bench/src/work.rs.

#![forbid(unsafe_code)]

use std::collections::{BTreeMap, HashSet};
use std::convert::Infallible;
use std::error::Error;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use queen_mq::{BufferOptions, Cancel, Config, Queen};
use rustix::time::{ClockId, clock_gettime};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

const TEXT: &str = "abcdefghijklmnopqrstuvwxyzabcdefghijklmnopqrstuvwxyzabcdefghijklmnopqrstuvwxyzabcdefghijklmnopqrstuv";

type Fallible<T> = Result<T, Box<dyn Error + Send + Sync>>;

#[derive(Clone)]
struct Order {
    url: String,
    case: String,
    queue: String,
    in_flight: u64,
    partitions: u64,
    messages: u64,
    warm_up: u64,
}

impl Order {
    fn read() -> Fallible<Order> {
        let words: Vec<String> = std::env::args().skip(1).collect();
        let flags: BTreeMap<&str, &str> = words
            .chunks_exact(2)
            .map(|pair| (pair[0].trim_start_matches('-'), pair[1].as_str()))
            .collect();
        let text = |flag: &str| flags.get(flag).map(|text| text.to_string()).ok_or(format!("--{flag} is missing"));
        let number = |flag: &str| -> Fallible<u64> { Ok(text(flag)?.parse()?) };
        Ok(Order {
            url: text("url")?,
            case: text("case")?,
            queue: text("queue")?,
            in_flight: number("in-flight")?,
            partitions: number("partitions")?,
            messages: number("messages")?,
            warm_up: number("warm-up")?,
        })
    }

    fn batch(&self) -> u64 {
        if self.case == "push-batch-100" { 100 } else { 1 }
    }
}

fn payload(n: u64) -> Value {
    json!({"n": n, "text": TEXT})
}

/// Which messages were seen; each may come once.
#[derive(Default)]
struct Seen(HashSet<u64>);

impl Seen {
    fn add(&mut self, data: &Value) -> usize {
        let n = data["n"].as_u64().expect("a number");
        assert!(self.0.insert(n), "message {n} came twice");
        self.0.len()
    }
}

/// What the work brings: what each operation took, and when the last was done.
struct Done {
    took: Vec<f64>,
    at: Instant,
}

#[tokio::main]
async fn main() -> Fallible<()> {
    let order = Order::read()?;
    let queen = Queen::connect(Config::new(&order.url))?;
    let warm_up = order.messages..order.messages + order.warm_up;
    match &*order.case {
        "push-seq" | "push-single" | "push-batch-100" => drop(push(&queen, &order, warm_up).await?),
        "push-buffered" => drop(push_buffered(&queen, &order, warm_up).await?),
        _ => {}
    }
    let (mut cpu, mut began) = (cpu_us(), Instant::now());
    let done = match &*order.case {
        "push-seq" | "push-single" | "push-batch-100" => push(&queen, &order, 0..order.messages).await?,
        "push-buffered" => push_buffered(&queen, &order, 0..order.messages).await?,
        "pop-ack-100" => pop_ack(&queen, &order).await?,
        "consume" => consume(&queen, &order).await?,
        "latency-idle" => {
            let (done, start) = latency(&queen, &order).await?;
            (cpu, began) = start;
            done
        }
        other => return Err(format!("unknown case {other}").into()),
    };
    let cpu = cpu_us() - cpu;
    let mut took = done.took;
    took.sort_by(f64::total_cmp);
    let percentile = |share: f64| took.get(((took.len().max(1) - 1) as f64 * share).round() as usize).copied();
    let report = json!({
        "messages": order.messages, "seconds": (done.at - began).as_secs_f64(), "cpu_us": cpu,
        "p50_us": percentile(0.50), "p99_us": percentile(0.99), "rss_mib": peak_rss_mib()?,
    });
    println!("{report}");
    // What still polls is given up.
    std::process::exit(0);
}

/// Closed loops: each pushes the next when the last is answered.
async fn push(queen: &Queen, order: &Order, numbers: std::ops::Range<u64>) -> Fallible<Done> {
    let left = Arc::new(Mutex::new(numbers));
    let mut loops = JoinSet::new();
    for _ in 0..order.in_flight {
        let (queen, order, left) = (queen.clone(), order.clone(), left.clone());
        loops.spawn(async move {
            let (batch, mut took) = (order.batch(), Vec::new());
            loop {
                let taken = {
                    let mut left = left.lock().expect("a lock");
                    let taken = left.start..left.end.min(left.start + batch);
                    left.start = taken.end;
                    taken
                };
                if taken.is_empty() {
                    return Fallible::Ok(took);
                }
                let partition = format!("p{}", taken.start / batch % order.partitions);
                let place = queen.queue(&order.queue).partition(partition);
                let (count, began) = (taken.end - taken.start, Instant::now());
                let results = match count {
                    1 => place.push(payload(taken.start)).await?,
                    _ => place.push_many(taken.map(payload)).await?,
                };
                took.push(began.elapsed().as_secs_f64() * 1e6);
                if results.len() as u64 != count {
                    return Err("not all was stored".into());
                }
            }
        });
    }
    let mut took = Vec::new();
    while let Some(ended) = loops.join_next().await {
        took.extend(ended??);
    }
    Ok(Done { took, at: Instant::now() })
}

async fn push_buffered(queen: &Queen, order: &Order, numbers: std::ops::Range<u64>) -> Fallible<Done> {
    for n in numbers {
        let place = queen.queue(&order.queue).partition(format!("p{}", n % order.partitions));
        place.buffer(BufferOptions::default()).push(payload(n)).await?;
    }
    queen.flush_all_buffers().await?;
    Ok(Done { took: Vec::new(), at: Instant::now() })
}

async fn pop_ack(queen: &Queen, order: &Order) -> Fallible<Done> {
    let seen = Arc::new(Mutex::new(Seen::default()));
    let (tell, mut ends) = mpsc::unbounded_channel();
    for _ in 0..order.in_flight {
        let (queen, order, seen, tell) = (queen.clone(), order.clone(), seen.clone(), tell.clone());
        tokio::spawn(async move {
            let place = queen.queue(&order.queue).batch(100).wait(true).poll_timeout(Duration::from_secs(10));
            loop {
                let began = Instant::now();
                let messages = match place.pop().await {
                    Ok(messages) if messages.is_empty() => continue,
                    Ok(messages) => messages,
                    Err(error) => return tell.send(Err(error.to_string())),
                };
                match queen.ack_all(&messages).await {
                    Ok(results) if results.iter().all(|result| result.success) => {}
                    other => return tell.send(Err(format!("not all was acked: {other:?}"))),
                }
                let count = {
                    let mut seen = seen.lock().expect("a lock");
                    messages.iter().map(|message| seen.add(&message.data)).last().unwrap_or(0)
                };
                let _ = tell.send(Ok((began.elapsed().as_secs_f64() * 1e6, count as u64, Instant::now())));
            }
        });
    }
    let mut took = Vec::new();
    loop {
        let (micros, count, at) = ends.recv().await.ok_or("all have ended")??;
        took.push(micros);
        if count == order.messages {
            return Ok(Done { took, at });
        }
    }
}

/// The default options, and a limit so that it ends when the last ack is answered.
async fn consume(queen: &Queen, order: &Order) -> Fallible<Done> {
    let seen = Arc::new(Mutex::new(Seen::default()));
    let summary = queen
        .queue(&order.queue)
        .limit(order.messages)
        .consume(move |message| {
            seen.lock().expect("a lock").add(&message.data);
            async { Ok::<_, Infallible>(()) }
        })
        .await?;
    match summary.acked == order.messages {
        true => Ok(Done { took: Vec::new(), at: Instant::now() }),
        false => Err(format!("not all was acked: {summary:?}").into()),
    }
}

/// One message at a time, after a pause in which everything falls idle.
async fn latency(queen: &Queen, order: &Order) -> Fallible<(Done, (f64, Instant))> {
    let (tell, mut arrivals) = mpsc::unbounded_channel();
    let (cancel, reader) = (Cancel::new(), queen.queue(&order.queue));
    let consumer = reader.cancel(cancel.clone());
    let consumer = tokio::spawn(async move {
        consumer
            .consume(move |_| {
                let _ = tell.send(Instant::now());
                async { Ok::<_, Infallible>(()) }
            })
            .await
    });
    let mut took = Vec::new();
    let mut start = (cpu_us(), Instant::now());
    for n in 0..order.warm_up + order.messages {
        if n == order.warm_up {
            took.clear();
            start = (cpu_us(), Instant::now());
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
        let began = Instant::now();
        let place = queen.queue(&order.queue).partition("p0");
        let pushing = tokio::spawn(async move { place.push(payload(n)).await });
        let arrived = arrivals.recv().await.ok_or("the consumer has ended")?;
        took.push((arrived - began).as_secs_f64() * 1e6);
        pushing.await??;
    }
    // The last acks are answered before the end.
    cancel.cancel();
    let summary = consumer.await??;
    match summary.acked == order.warm_up + order.messages {
        true => Ok((Done { took, at: Instant::now() }, start)),
        false => Err(format!("not all was acked: {summary:?}").into()),
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
    let kib: f64 = line.and_then(|line| line.split_whitespace().next()).ok_or("no VmHWM")?.parse()?;
    Ok(kib / 1024.0)
}
