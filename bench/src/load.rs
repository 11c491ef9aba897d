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
use crate::work::{Case, Order, Report};

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

/// Does the work. As the `ceiling`, single pushes that are under way together share requests: what is the best of several
/// numbers of connections counts, each of which gets its part of the messages.
pub fn run(order: &Order, ceiling: bool) -> io::Result<Report> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let shares = ceiling && order.case == Case::PushSingle;
    LocalSet::new().block_on(&runtime, measure(order.clone(), shares))
}

/// The numbers of connections that the ceiling tries.
const CONNECTIONS: [u64; 4] = [1, 2, 4, 8];

async fn measure(order: Order, shares: bool) -> io::Result<Report> {
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
        connections = push_all(&shared, connections, 1).await?;
        shared.took.borrow_mut().clear();
    }
    if shares {
        return best_of(&shared, connections).await;
    }
    *shared.left.borrow_mut() = 0..messages;
    let (cpu, begin) = (cpu_us(), Instant::now());
    if pushes {
        push_all(&shared, connections, 1).await?;
    } else {
        consume_all(&shared, connections).await?;
    }
    let end = shared.finished.get().unwrap_or_else(Instant::now);
    let done = match pushes {
        true => messages,
        false => shared.seen.borrow().count(),
    };
    report(&shared, done, (end - begin).as_secs_f64(), cpu_us() - cpu)
}

fn report(shared: &Shared, messages: u64, seconds: f64, cpu_us: f64) -> io::Result<Report> {
    let mut took = shared.took.take();
    took.sort_unstable();
    Ok(Report {
        messages,
        seconds,
        cpu_us,
        p50_us: percentile(&took, 0.50),
        p99_us: percentile(&took, 0.99),
        rss_mib: process::peak_rss_mib()?,
    })
}

/// Pushes a part of the messages over each number of connections, with as many messages under way; tells of all as if they
/// had been pushed the fastest way.
async fn best_of(shared: &Rc<Shared>, mut connections: Vec<Connection>) -> io::Result<Report> {
    let (messages, in_flight) = (shared.order.messages, shared.order.in_flight);
    let (mut best, mut first) = (None, 0);
    for (n, count) in CONNECTIONS.into_iter().enumerate() {
        let end = messages * (n as u64 + 1) / CONNECTIONS.len() as u64;
        *shared.left.borrow_mut() = first..end;
        shared.took.borrow_mut().clear();
        let rest = connections.split_off((count as usize).min(connections.len()));
        let (cpu, begin) = (cpu_us(), Instant::now());
        connections = push_all(shared, connections, (in_flight / count).max(1)).await?;
        let (took, cpu) = (begin.elapsed().as_secs_f64(), cpu_us() - cpu);
        connections.extend(rest);
        let scale = messages as f64 / (end - first) as f64;
        let report = report(shared, messages, took * scale, cpu * scale)?;
        if best
            .as_ref()
            .is_none_or(|best: &Report| report.seconds < best.seconds)
        {
            best = Some(report);
        }
        first = end;
    }
    best.ok_or_else(|| io::Error::other("nothing was pushed"))
}

/// Pushes until nothing is left, `share` pushes in one request; gives the connections back.
async fn push_all(
    shared: &Rc<Shared>,
    connections: Vec<Connection>,
    share: u64,
) -> io::Result<Vec<Connection>> {
    let mut loops = JoinSet::new();
    for connection in connections {
        loops.spawn_local(push_loop(shared.clone(), connection, share));
    }
    let mut back = Vec::new();
    while let Some(ended) = loops.join_next().await {
        back.push(ended.map_err(io::Error::other)??);
    }
    shared.finished.set(Some(Instant::now()));
    Ok(back)
}

async fn push_loop(
    shared: Rc<Shared>,
    mut connection: Connection,
    share: u64,
) -> io::Result<Connection> {
    let (batch, partitions) = (shared.order.case.batch(), shared.order.partitions);
    loop {
        let taken = {
            let mut left = shared.left.borrow_mut();
            let end = left.end.min(left.start + batch * share);
            let taken = left.start..end;
            left.start = end;
            taken
        };
        if taken.is_empty() {
            return Ok(connection);
        }
        let count = taken.end - taken.start;
        let begin = Instant::now();
        let messages = taken.map(|n| (n / batch % partitions, n));
        let body = push(&shared.order.queue, messages);
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

fn percentile(sorted: &[u32], share: f64) -> Option<f64> {
    let last = sorted.len().checked_sub(1)?;
    let place = (last as f64 * share).round() as usize;
    sorted.get(place).copied().map(f64::from)
}
