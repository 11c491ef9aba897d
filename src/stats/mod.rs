//! What a client counts, and the snapshot of it. `docs/STATISTICS.md` says what each field means.

mod histogram;
mod statistics;

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use self::histogram::Histogram;
pub use self::statistics::{
    BufferStats, ConsumerStats, FailureStats, Latency, LatencyStats, LeaseStats, MessageStats,
    PendingStats, RequestStats, Statistics, StatisticsSink, TransactionStats,
};
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

/// Which kind of request.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Route {
    Push,
    Pop,
    Ack,
    Renew,
    Transaction,
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
            "transaction" => Route::Transaction,
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
    transaction: T,
    other: T,
}

impl<T> ByRoute<T> {
    fn of(&self, route: Route) -> &T {
        match route {
            Route::Push => &self.push,
            Route::Pop => &self.pop,
            Route::Ack => &self.ack,
            Route::Renew => &self.renew,
            Route::Transaction => &self.transaction,
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
    /// Direct pushes that were sent again.
    pub(crate) push_retries: Counter,
    pub(crate) pushed: Pushed,
    pub(crate) popped: Counter,
    pub(crate) verdicts: Verdicts,
    pub(crate) transactions: Transacted,
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

/// Transactions by how they ended.
#[derive(Default)]
pub(crate) struct Transacted {
    pub(crate) committed: Counter,
    pub(crate) rolled_back: Counter,
    pub(crate) unknown: Counter,
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
                transaction: requests.transaction.get(),
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
            transactions: TransactionStats {
                committed: self.transactions.committed.get(),
                rolled_back: self.transactions.rolled_back.get(),
                unknown: self.transactions.unknown.get(),
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
                transaction: latency.transaction.snapshot(),
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

#[cfg(test)]
mod tests {
    use super::*;

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
        let listed: Vec<_> = include_str!("../../docs/STATISTICS.md")
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
