//! Status and analytics.

use super::{Call, setters};
use crate::client::Client;
use crate::operation::status;
use crate::output::Document;
use crate::pending::Pending;

/// What the broker tells of itself for people to look at. Made by [`Client::status`].
#[derive(Clone)]
pub struct BrokerStatus(Call);

/// Time series of the broker, as its dashboard reads them. Made by [`Client::analytics`].
#[derive(Clone)]
pub struct Analytics(Call);

impl Client {
    /// Status of the broker and of its queues.
    pub fn status(&self) -> BrokerStatus {
        BrokerStatus(Call::new(self))
    }

    /// Time series of the broker.
    pub fn analytics(&self) -> Analytics {
        Analytics(Call::new(self))
    }
}

setters! {
    BrokerStatus;
    /// Nothing older, an ISO 8601 time with a zone.
    from: &str = "from";
    /// Nothing newer, an ISO 8601 time with a zone.
    to: &str = "to";
    /// Only queues of this namespace.
    namespace: &str = "namespace";
    /// Only queues of this task.
    task: &str = "task";
}

impl BrokerStatus {
    /// Throughput, queues, leases, dead letters and workers (`status`).
    pub fn get(&self) -> Pending<Document> {
        self.0.run(&status::STATUS)
    }

    /// A page of the queues with their counters (`status.queues`).
    pub fn queues(&self, limit: u64, offset: u64) -> Pending<Document> {
        let call = self.0.clone().with("limit", limit).with("offset", offset);
        call.run(&status::QUEUES)
    }

    /// A queue's options, counters and cursors (`status.queue`).
    pub fn queue(&self, name: &str) -> Pending<Document> {
        self.0.run_apart(&status::ONE, &[("queue", name)])
    }

    /// How many messages came, `hour` by hour or `day` by day (`status.analytics`).
    pub fn history(&self, interval: &str) -> Pending<Document> {
        let call = self.0.clone().with("interval", interval);
        call.run(&status::HISTORY)
    }

    /// What the broker holds on its disk until its database takes it (`status.buffers`).
    pub fn buffers(&self) -> Pending<Document> {
        self.0.run_apart(&status::BUFFERS, &[])
    }
}

setters! {
    Analytics;
    /// Nothing older, an ISO 8601 time with a zone.
    from: &str = "from";
    /// Nothing newer, an ISO 8601 time with a zone.
    to: &str = "to";
}

impl Analytics {
    fn of(&self, queue: Option<&str>) -> Call {
        let call = self.0.clone();
        match queue {
            Some(queue) => call.with("queue", queue),
            None => call,
        }
    }

    /// CPU, memory and database use of each broker (`analytics.system_metrics`).
    pub fn system_metrics(&self) -> Pending<Document> {
        self.0.run(&status::SYSTEM_METRICS)
    }

    /// Pushes, pops and acks of each worker, for one queue or all (`analytics.worker_metrics`).
    pub fn worker_metrics(&self, queue: Option<&str>) -> Pending<Document> {
        self.of(queue).run(&status::WORKER_METRICS)
    }

    /// How long messages waited (`analytics.queue_lag`).
    pub fn queue_lag(&self, queue: Option<&str>) -> Pending<Document> {
        self.of(queue).run(&status::QUEUE_LAG)
    }

    /// Pushes, pops and acks of queues (`analytics.queue_ops`).
    pub fn queue_ops(&self, queue: Option<&str>) -> Pending<Document> {
        self.of(queue).run(&status::QUEUE_OPS)
    }

    /// How many pops wait at each broker (`analytics.queue_parked_replicas`).
    pub fn queue_parked_replicas(&self, queue: Option<&str>) -> Pending<Document> {
        self.of(queue).run(&status::PARKED)
    }

    /// What retention has removed (`analytics.retention`).
    pub fn retention(&self, queue: Option<&str>) -> Pending<Document> {
        self.of(queue).run(&status::RETENTION)
    }

    /// How the database of a broker on PostgreSQL is (`analytics.postgres_stats`).
    pub fn postgres_stats(&self) -> Pending<Document> {
        self.0.run_apart(&status::POSTGRES, &[])
    }
}
