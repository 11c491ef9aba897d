//! The subject `http-load`: closed loops over plain HTTP, one connection for each request under way.

use std::cell::{Cell, RefCell};
use std::fmt::Write;
use std::io;
use std::ops::Range;
use std::rc::Rc;
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};
use tokio::sync::Notify;
use tokio::task::{JoinSet, LocalSet};

use crate::broker::{Popped, Seen, push, stored};
use crate::http::Connection;
use crate::process;
use crate::work::{Order, Report};

/// What the loops of a run share. One thread runs them all.
struct Shared {
    order: Order,
    /// The messages to push, as far as no loop has taken them.
    left: RefCell<Range<u64>>,
    /// The messages that were handled.
    seen: RefCell<Seen>,
    /// What each operation took, in microseconds.
    took: RefCell<Vec<u32>>,
    finished: Cell<Option<Instant>>,
    done: Notify,
}

pub fn run(order: &Order) -> io::Result<Report> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    LocalSet::new().block_on(&runtime, measure(order.clone()))
}

async fn measure(order: Order) -> io::Result<Report> {
    let mut connections = Vec::new();
    for _ in 0..order.in_flight {
        let mut connection = Connection::open(&order.url).await?;
        connection.get("/health").await?.expect(200)?;
        connections.push(connection);
    }
    let (pushes, messages, warm_up) = (order.case.pushes(), order.messages, order.warm_up);
    let shared = Rc::new(Shared {
        // The numbers of the warm-up follow those that count.
        left: RefCell::new(messages..messages + warm_up),
        seen: RefCell::new(Seen::new(if pushes { 0 } else { messages })),
        took: RefCell::default(),
        finished: Cell::new(None),
        done: Notify::new(),
        order,
    });
    if pushes && warm_up > 0 {
        connections = push_all(&shared, connections).await?;
        shared.took.borrow_mut().clear();
    }
    *shared.left.borrow_mut() = 0..messages;
    let (cpu, begin) = (cpu_us(), Instant::now());
    if pushes {
        push_all(&shared, connections).await?;
    } else {
        consume_all(&shared, connections).await?;
    }
    let end = shared.finished.get().unwrap_or_else(Instant::now);
    let mut took = shared.took.take();
    took.sort_unstable();
    Ok(Report {
        messages: match pushes {
            true => messages,
            false => shared.seen.borrow().count(),
        },
        seconds: (end - begin).as_secs_f64(),
        cpu_us: cpu_us() - cpu,
        p50_us: percentile(&took, 0.50),
        p99_us: percentile(&took, 0.99),
        rss_mib: process::peak_rss_mib()?,
    })
}

/// Pushes until nothing is left; gives the connections back.
async fn push_all(
    shared: &Rc<Shared>,
    connections: Vec<Connection>,
) -> io::Result<Vec<Connection>> {
    let mut loops = JoinSet::new();
    for connection in connections {
        loops.spawn_local(push_loop(shared.clone(), connection));
    }
    let mut back = Vec::new();
    while let Some(ended) = loops.join_next().await {
        back.push(ended.map_err(io::Error::other)??);
    }
    shared.finished.set(Some(Instant::now()));
    Ok(back)
}

async fn push_loop(shared: Rc<Shared>, mut connection: Connection) -> io::Result<Connection> {
    let (batch, partitions) = (shared.order.case.batch(), shared.order.partitions);
    loop {
        let taken = {
            let mut left = shared.left.borrow_mut();
            let end = left.end.min(left.start + batch);
            let taken = left.start..end;
            left.start = end;
            taken
        };
        if taken.is_empty() {
            return Ok(connection);
        }
        let count = taken.end - taken.start;
        let partition = taken.start / batch % partitions;
        let begin = Instant::now();
        let body = push(&shared.order.queue, taken.map(|n| (partition, n)));
        let answer = connection.post("/api/v1/push", &body).await?.expect(201)?;
        if stored(answer.body) != count {
            let text = String::from_utf8_lossy(answer.body);
            return Err(io::Error::other(format!("not all was stored: {text:.300}")));
        }
        shared.took(begin);
    }
}

/// Handles until every message was seen. Polls that still wait then are given up.
async fn consume_all(shared: &Rc<Shared>, connections: Vec<Connection>) -> io::Result<()> {
    let mut loops = JoinSet::new();
    for connection in connections {
        loops.spawn_local(consume_loop(shared.clone(), connection));
    }
    loop {
        tokio::select! {
            () = shared.done.notified() => return Ok(()),
            ended = loops.join_next() => match ended {
                Some(ended) => ended.map_err(io::Error::other)??,
                None => return Ok(()),
            },
        }
    }
}

async fn consume_loop(shared: Rc<Shared>, mut connection: Connection) -> io::Result<()> {
    let (queue, batch) = (&shared.order.queue, shared.order.case.batch());
    let path = format!("/api/v1/pop/queue/{queue}?batch={batch}&wait=true&timeout=10000");
    let mut acks = String::new();
    let mut numbers = Vec::new();
    loop {
        let begin = Instant::now();
        let answer = connection.get(&path).await?;
        if answer.status == 204 {
            continue;
        }
        let popped: Popped = serde_json::from_slice(answer.expect(200)?.body)?;
        acks.clear();
        acks.push_str(r#"{"acknowledgments":["#);
        numbers.clear();
        for message in &popped.messages {
            let _ = write!(
                acks,
                r#"{{"transactionId":"{}","partitionId":"{}","leaseId":"{}","status":"completed"}},"#,
                message.transaction_id, message.partition_id, message.lease_id
            );
            numbers.push(message.data.n);
        }
        acks.pop();
        acks.push_str("]}");
        let answer = connection.post("/api/v1/ack/batch", &acks).await?;
        let answer = answer.expect(200)?;
        let text = std::str::from_utf8(answer.body).unwrap_or_default();
        // Brokers differ in their spaces.
        let good =
            text.matches(r#""success":true"#).count() + text.matches(r#""success": true"#).count();
        if good != numbers.len() {
            return Err(io::Error::other(format!("not all was acked: {text:.300}")));
        }
        shared.took(begin);
        let mut seen = shared.seen.borrow_mut();
        numbers.iter().try_for_each(|n| seen.add(*n))?;
        if seen.is_complete() {
            shared.finished.set(Some(Instant::now()));
            shared.done.notify_one();
            return Ok(());
        }
    }
}

impl Shared {
    fn took(&self, begin: Instant) {
        let micros = begin.elapsed().as_micros();
        self.took
            .borrow_mut()
            .push(u32::try_from(micros).unwrap_or(u32::MAX));
    }
}

/// Processor time of this process so far.
fn cpu_us() -> f64 {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    let time = Duration::new(time.tv_sec as u64, time.tv_nsec as u32);
    time.as_secs_f64() * 1e6
}

fn percentile(sorted: &[u32], share: f64) -> f64 {
    let last = sorted.len().saturating_sub(1);
    let place = (last as f64 * share).round() as usize;
    sorted.get(place).copied().map_or(0.0, f64::from)
}
