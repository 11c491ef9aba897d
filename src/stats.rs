//! What a client counts, and the snapshot of it. `docs/STATISTICS.md` says what each field means.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde::Serialize;

use crate::error::{Error, ErrorCode};
use crate::protocol::ack::Status;

/// A number that only grows.
#[derive(Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    pub(crate) fn add(&self, more: usize) {
        self.0.fetch_add(more as u64, Ordering::Relaxed);
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// A number of things that are under way.
#[derive(Default)]
pub(crate) struct Gauge(AtomicU64);

impl Gauge {
    /// One more until the result is dropped.
    pub(crate) fn enter(&self) -> Inside<'_> {
        self.0.fetch_add(1, Ordering::Relaxed);
        Inside(self)
    }

    fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

pub(crate) struct Inside<'a>(&'a Gauge);

impl Drop for Inside<'_> {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Buckets of a power of two are cut into so many.
const STEPS: usize = 8;
const BUCKETS: usize = 37 * STEPS;

/// How long something took: counted in buckets that are at most an eighth wide.
pub(crate) struct Histogram {
    buckets: [AtomicU64; BUCKETS],
    longest: AtomicU64,
}

impl Default for Histogram {
    fn default() -> Self {
        Histogram {
            buckets: std::array::from_fn(|_| AtomicU64::new(0)),
            longest: AtomicU64::new(0),
        }
    }
}

impl Histogram {
    pub(crate) fn note(&self, took: Duration) {
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        if let Some(bucket) = self.buckets.get(bucket(micros)) {
            bucket.fetch_add(1, Ordering::Relaxed);
        }
        self.longest.fetch_max(micros, Ordering::Relaxed);
    }

    fn snapshot(&self) -> Latency {
        let counts: Vec<u64> = self
            .buckets
            .iter()
            .map(|bucket| bucket.load(Ordering::Relaxed))
            .collect();
        let count: u64 = counts.iter().sum();
        let longest = self.longest.load(Ordering::Relaxed);
        let quantile = |share: f64| {
            let rank = (count as f64 * share).ceil().max(1.0) as u64;
            let mut seen = 0;
            let found = counts.iter().position(|in_bucket| {
                seen += in_bucket;
                seen >= rank
            });
            // The upper end of the bucket: never less than the truth.
            found.map_or(0, |bucket| (bucket_end(bucket)).min(longest))
        };
        Latency {
            count,
            p50_micros: quantile(0.5),
            p90_micros: quantile(0.9),
            p99_micros: quantile(0.99),
            max_micros: longest,
        }
    }
}

/// Below `STEPS` each number has a bucket; above it each power of two has `STEPS`.
fn bucket(micros: u64) -> usize {
    let steps = STEPS as u64;
    if micros < steps {
        return micros as usize;
    }
    let power = micros.ilog2() as usize;
    let first = STEPS.ilog2() as usize;
    let step = (micros >> (power - first)) as usize - STEPS;
    ((power - first + 1) * STEPS + step).min(BUCKETS - 1)
}

/// The largest number in a bucket.
fn bucket_end(bucket: usize) -> u64 {
    if bucket < STEPS {
        return bucket as u64;
    }
    let shift = bucket / STEPS - 1;
    ((((bucket % STEPS) + STEPS + 1) as u64) << shift) - 1
}

/// Which kind of request.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Route {
    Push,
    Pop,
    Ack,
    Renew,
    Other,
}

impl Route {
    /// By the path of the request.
    pub(crate) fn of(path: &str) -> Route {
        let Some(path) = path.strip_prefix("/api/v1/") else {
            return Route::Other;
        };
        let word = path.split(['/', '?']).next().unwrap_or_default();
        match word {
            "push" => Route::Push,
            "pop" => Route::Pop,
            "ack" => Route::Ack,
            "lease" => Route::Renew,
            _ => Route::Other,
        }
    }
}

/// One thing counted for each kind of request.
#[derive(Default)]
struct ByRoute<T> {
    push: T,
    pop: T,
    ack: T,
    renew: T,
    other: T,
}

impl<T> ByRoute<T> {
    fn of(&self, route: Route) -> &T {
        match route {
            Route::Push => &self.push,
            Route::Pop => &self.pop,
            Route::Ack => &self.ack,
            Route::Renew => &self.renew,
            Route::Other => &self.other,
        }
    }
}

/// What a client counts while it works.
#[derive(Default)]
pub(crate) struct Stats {
    requests: ByRoute<Counter>,
    latency: ByRoute<Histogram>,
    pub(crate) requests_in_flight: Gauge,
    bytes_out: Counter,
    bytes_in: Counter,
    failures: Failed,
    pub(crate) pushed: Pushed,
    pub(crate) popped: Counter,
    pub(crate) verdicts: Verdicts,
    pub(crate) leases: Leased,
    pub(crate) parked_polls: Gauge,
    pub(crate) buffer_flushes: Counter,
    pub(crate) buffer_retries: Counter,
}

#[derive(Default)]
struct Failed {
    connect: Counter,
    network: Counter,
    timeout: Counter,
    throttled: Counter,
    refused: Counter,
    broker: Counter,
    bad_answer: Counter,
    other: Counter,
}

/// Messages by what the broker said of their push.
#[derive(Default)]
pub(crate) struct Pushed {
    queued: Counter,
    duplicate: Counter,
    buffered: Counter,
    failed: Counter,
    pub(crate) dropped: Counter,
    pub(crate) closed: Counter,
}

impl Pushed {
    /// Counts one message.
    pub(crate) fn note(&self, status: &str) {
        match status {
            "queued" => &self.queued,
            "duplicate" => &self.duplicate,
            "buffered" => &self.buffered,
            _ => &self.failed,
        }
        .add(1);
    }
}

/// Verdicts that the broker has taken.
#[derive(Default)]
pub(crate) struct Verdicts {
    acked: Counter,
    nacked: Counter,
    given_back: Counter,
    dead_lettered: Counter,
    refused: Counter,
}

impl Verdicts {
    /// Counts the answer to one verdict.
    pub(crate) fn note(&self, status: Status, taken: bool) {
        match status {
            _ if !taken => &self.refused,
            Status::Completed => &self.acked,
            Status::Failed => &self.nacked,
            Status::Retry => &self.given_back,
            Status::Dlq => &self.dead_lettered,
        }
        .add(1);
    }
}

#[derive(Default)]
pub(crate) struct Leased {
    renewals: Counter,
    failed_renewals: Counter,
    pub(crate) lost: Counter,
}

impl Leased {
    pub(crate) fn note_renewal(&self, well: bool) {
        match well {
            true => self.renewals.add(1),
            false => self.failed_renewals.add(1),
        }
    }
}

impl Stats {
    /// Counts a request that has ended, with the status of its answer.
    pub(crate) fn request(
        &self,
        route: Route,
        took: Duration,
        sent: usize,
        answer: Result<(u16, usize), &Error>,
    ) {
        self.requests.of(route).add(1);
        self.latency.of(route).note(took);
        self.bytes_out.add(sent);
        let failed = &self.failures;
        let counter = match answer {
            Ok((status, received)) => {
                self.bytes_in.add(received);
                match status {
                    429 => &failed.throttled,
                    400..=499 => &failed.refused,
                    500..=599 => &failed.broker,
                    200..=299 => return,
                    _ => &failed.bad_answer,
                }
            }
            Err(error) => match error.code() {
                ErrorCode::Connect => &failed.connect,
                ErrorCode::Network => &failed.network,
                ErrorCode::Timeout => &failed.timeout,
                ErrorCode::BadAnswer => &failed.bad_answer,
                _ => &failed.other,
            },
        };
        counter.add(1);
    }

    /// The numbers now; `now` has those that are counted elsewhere.
    pub(crate) fn snapshot(&self, now: Gauges) -> Statistics {
        let (requests, latency, failed) = (&self.requests, &self.latency, &self.failures);
        let (pushed, verdicts, leased) = (&self.pushed, &self.verdicts, &self.leases);
        Statistics {
            requests: RequestStats {
                push: requests.push.get(),
                pop: requests.pop.get(),
                ack: requests.ack.get(),
                renew: requests.renew.get(),
                other: requests.other.get(),
                in_flight: self.requests_in_flight.get(),
                retries: now.retries,
                bytes_out: self.bytes_out.get(),
                bytes_in: self.bytes_in.get(),
            },
            failures: FailureStats {
                connect: failed.connect.get(),
                network: failed.network.get(),
                timeout: failed.timeout.get(),
                throttled: failed.throttled.get(),
                refused: failed.refused.get(),
                broker: failed.broker.get(),
                bad_answer: failed.bad_answer.get(),
                other: failed.other.get(),
            },
            messages: MessageStats {
                queued: pushed.queued.get(),
                duplicate: pushed.duplicate.get(),
                buffered: pushed.buffered.get(),
                failed: pushed.failed.get(),
                dropped: pushed.dropped.get(),
                closed: pushed.closed.get(),
                popped: self.popped.get(),
                acked: verdicts.acked.get(),
                nacked: verdicts.nacked.get(),
                given_back: verdicts.given_back.get(),
                dead_lettered: verdicts.dead_lettered.get(),
                refused_verdicts: verdicts.refused.get(),
            },
            pending: now.pending,
            buffers: BufferStats {
                flushes_performed: self.buffer_flushes.get(),
                retries: self.buffer_retries.get(),
                ..now.buffers
            },
            consumers: now.consumers,
            leases: LeaseStats {
                renewals: leased.renewals.get(),
                failed_renewals: leased.failed_renewals.get(),
                lost: leased.lost.get(),
            },
            parked_polls: self.parked_polls.get(),
            latency: LatencyStats {
                push: latency.push.snapshot(),
                pop: latency.pop.snapshot(),
                ack: latency.ack.snapshot(),
                renew: latency.renew.snapshot(),
                other: latency.other.snapshot(),
            },
        }
    }
}

/// What is counted where it is kept.
pub(crate) struct Gauges {
    pub(crate) retries: u64,
    pub(crate) pending: PendingStats,
    pub(crate) buffers: BufferStats,
    pub(crate) consumers: ConsumerStats,
}

/// Declares a part of the statistics: plain numbers, documented in `docs/STATISTICS.md`.
macro_rules! numbers {
    ($(#[$doc:meta])* $name:ident { $($(#[$field_doc:meta])* $field:ident,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
        #[serde(rename_all = "camelCase")]
        #[non_exhaustive]
        pub struct $name {
            $($(#[$field_doc])* pub $field: u64,)*
        }
    };
}

/// What a client has done and what it has under way. As JSON it has these fields in camelCase.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct Statistics {
    /// Requests to brokers.
    pub requests: RequestStats,
    /// Requests that did not go well, by what went wrong.
    pub failures: FailureStats,
    /// Messages by what became of them.
    pub messages: MessageStats,
    /// Calls that have not completed.
    pub pending: PendingStats,
    /// Messages that wait in the client.
    pub buffers: BufferStats,
    /// Consumers and what they have in hand.
    pub consumers: ConsumerStats,
    /// Leases of popped messages.
    pub leases: LeaseStats,
    /// Pops that wait at a broker.
    pub parked_polls: u64,
    /// How long requests took.
    pub latency: LatencyStats,
}

/// Receives the statistics of a client every `statistics_interval_millis`. Called on library threads: it must be quick and
/// must not block.
pub type StatisticsSink = Arc<dyn Fn(&Statistics) + Send + Sync>;

numbers! {
    /// Requests to brokers.
    RequestStats {
        /// Pushes that were answered or failed.
        push,
        /// Pops, those that brought nothing included.
        pop,
        /// Acks.
        ack,
        /// Lease renewals.
        renew,
        /// Everything else.
        other,
        /// Requests under way.
        in_flight,
        /// Requests that were sent again.
        retries,
        /// Bytes of request bodies.
        bytes_out,
        /// Bytes of answer bodies.
        bytes_in,
    }
}

numbers! {
    /// Requests that did not go well, by what went wrong.
    FailureStats {
        /// No connection.
        connect,
        /// The connection broke.
        network,
        /// No answer in time.
        timeout,
        /// HTTP 429.
        throttled,
        /// Other HTTP 4xx.
        refused,
        /// HTTP 5xx.
        broker,
        /// An answer that breaks the protocol.
        bad_answer,
        /// Anything else, such as a store that cannot be opened.
        other,
    }
}

numbers! {
    /// Messages by what became of them.
    MessageStats {
        /// Pushed and stored.
        queued,
        /// Pushed with an id of the caller's that was stored before.
        duplicate,
        /// Accepted by a broker that stores them later.
        buffered,
        /// Refused by the broker.
        failed,
        /// Dropped from a full buffer to make room.
        dropped,
        /// Left in buffers when the client was closed.
        closed,
        /// Brought by pops.
        popped,
        /// Acked.
        acked,
        /// Failed.
        nacked,
        /// Given back without a retry charge.
        given_back,
        /// Sent to the dead-letter queue by a verdict.
        dead_lettered,
        /// Verdicts that did not count, mostly because the lease was over.
        refused_verdicts,
    }
}

numbers! {
    /// What counts against `maxPendingMessages` and `maxPendingBytes`.
    PendingStats {
        /// Messages handed over and not complete.
        messages,
        /// Their bytes.
        bytes,
    }
}

numbers! {
    /// Messages that wait in the client.
    BufferStats {
        /// Partitions with a buffer.
        active_buffers,
        /// Messages that wait, without those in flight.
        total_buffered_messages,
        /// What they and those in flight take, in bytes, as counted against `maxBufferedBytes`.
        buffered_bytes,
        /// Age of the oldest waiting message in milliseconds.
        oldest_buffer_age,
        /// Requests that were sent from buffers and answered.
        flushes_performed,
        /// Requests from buffers that failed and are tried again.
        retries,
        /// Messages that were sent from buffers and are not answered.
        in_flight_messages,
        /// Pushes that wait for room.
        waiting_pushes,
    }
}

numbers! {
    /// Consumers and what is in hand.
    ConsumerStats {
        /// Consumers that run.
        running,
        /// Deliveries whose last verdict is not answered, those of pops included.
        deliveries,
        /// The messages in them.
        messages,
    }
}

numbers! {
    /// Leases of popped messages.
    LeaseStats {
        /// Renewals that went well.
        renewals,
        /// Renewals that failed.
        failed_renewals,
        /// Deliveries whose lease was lost for certain.
        lost,
    }
}

numbers! {
    /// How long requests of one kind took, from handing over to the answer.
    Latency {
        /// Requests counted.
        count,
        /// Half of them took at most so many microseconds.
        p50_micros,
        /// Nine of ten.
        p90_micros,
        /// Ninety-nine of a hundred.
        p99_micros,
        /// The longest.
        max_micros,
    }
}

/// How long requests took, by their kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct LatencyStats {
    /// Pushes.
    pub push: Latency,
    /// Pops, the waiting at the broker included.
    pub pop: Latency,
    /// Acks.
    pub ack: Latency,
    /// Lease renewals.
    pub renew: Latency,
    /// Everything else.
    pub other: Latency,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_hold_what_belongs_to_them() {
        let mut last = 0;
        for micros in (0..100_000).chain((100_000..1 << 36).step_by(7_654_321)) {
            let bucket = bucket(micros);
            assert!(bucket >= last && bucket < BUCKETS, "{micros}");
            assert!(bucket_end(bucket) >= micros, "{micros}");
            assert!(
                bucket_end(bucket) as f64 <= micros as f64 * 1.125 + 1.0,
                "{micros}"
            );
            last = bucket;
        }
        assert_eq!(bucket(u64::MAX), BUCKETS - 1);
    }

    #[test]
    fn quantiles_are_close_and_never_beyond_the_longest() {
        let histogram = Histogram::default();
        assert_eq!(histogram.snapshot(), Latency::default());
        for micros in 1..=1000 {
            histogram.note(Duration::from_micros(micros));
        }
        let latency = histogram.snapshot();
        assert_eq!((latency.count, latency.max_micros), (1000, 1000));
        for (got, wanted) in [
            (latency.p50_micros, 500),
            (latency.p90_micros, 900),
            (latency.p99_micros, 990),
        ] {
            assert!(
                got >= wanted && got <= wanted + wanted / 8,
                "{got} {wanted}"
            );
        }
    }

    /// The paths of all numbers in a JSON object.
    fn paths(prefix: &str, value: &serde_json::Value, to: &mut Vec<String>) {
        match value.as_object() {
            None => to.push(prefix.trim_start_matches('.').to_owned()),
            Some(object) => object
                .iter()
                .for_each(|(key, value)| paths(&format!("{prefix}.{key}"), value, to)),
        }
    }

    #[test]
    fn the_page_of_statistics_lists_every_field() {
        let now = Stats::default().snapshot(Gauges {
            retries: 0,
            pending: PendingStats::default(),
            buffers: BufferStats::default(),
            consumers: ConsumerStats::default(),
        });
        let mut fields = Vec::new();
        paths("", &serde_json::to_value(now).unwrap(), &mut fields);
        let listed: Vec<_> = include_str!("../docs/STATISTICS.md")
            .lines()
            .filter_map(|line| line.strip_prefix("| `")?.split('`').next())
            .collect();
        fields.sort();
        let mut sorted = listed.clone();
        sorted.sort();
        assert_eq!(sorted, fields);
    }

    #[test]
    fn requests_are_counted_by_kind_and_outcome() {
        assert_eq!(Route::of("/api/v1/pop/queue/push?ack"), Route::Pop);
        assert_eq!(Route::of("/api/v1/lease/L/extend"), Route::Renew);
        assert_eq!(Route::of("/api/v1/pushy"), Route::Other);
        assert_eq!(Route::of("/health"), Route::Other);
        let stats = Stats::default();
        let took = Duration::from_millis(1);
        stats.request(Route::Push, took, 10, Ok((201, 5)));
        stats.request(Route::Push, took, 10, Ok((429, 0)));
        let error = Error::new(ErrorCode::Connect, "no");
        stats.request(Route::Ack, took, 1, Err(&error));
        let now = stats.snapshot(Gauges {
            retries: 0,
            pending: PendingStats::default(),
            buffers: BufferStats::default(),
            consumers: ConsumerStats::default(),
        });
        assert_eq!((now.requests.push, now.requests.ack), (2, 1));
        assert_eq!((now.failures.throttled, now.failures.connect), (1, 1));
        assert_eq!((now.requests.bytes_out, now.requests.bytes_in), (21, 5));
        assert_eq!(now.latency.push.count, 2);
    }
}
