//! The snapshot of what a client counts. `docs/STATISTICS.md` says what each field means.

use std::sync::Arc;

use serde::Serialize;

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
    /// Transactions by how they ended.
    pub transactions: TransactionStats,
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
        /// Transactions.
        transaction,
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
        /// No HTTP, a redirect, or an answer beyond `maxAnswerBytes`.
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
    /// Transactions by how they ended.
    TransactionStats {
        /// Applied.
        committed,
        /// Undone by the broker.
        rolled_back,
        /// Perhaps applied: no usable answer came.
        unknown,
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
    /// Transactions.
    pub transaction: Latency,
    /// Everything else.
    pub other: Latency,
}
