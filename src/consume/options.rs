//! What to consume, and how.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::quota;
use crate::error::Result;
use crate::options;
use crate::protocol::pop::Query;
use crate::protocol::{QUEUE_MODE, check_name};

/// What to consume, and how. Every field but the queue (or namespace or task) has a default.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct ConsumeOptions {
    /// The queue.
    pub queue: Option<String>,
    /// One partition of it; any partition when missing.
    pub partition: Option<String>,
    /// Queues by namespace, where no queue is named.
    pub namespace: Option<String>,
    /// Queues by task, where no queue is named.
    pub task: Option<String>,
    /// The consumer group; without one the queue has a single cursor for everybody.
    #[serde(rename = "consumerGroup")]
    pub group: Option<String>,
    /// How many workers poll and handle side by side, each on another partition. Default 1.
    pub concurrency: u64,
    /// The most messages of one poll. They are handed over together, or one by one with `each`; with 1 there is one message
    /// to a lease. Default: handed over one by one, and fetched in such numbers as the handlers take in a quarter of a second.
    pub batch: Option<u64>,
    /// Whether the messages of a batch are handed over one by one, each when the one before it has its verdict. What lies
    /// behind a negative verdict is not handed over: it comes again. Default false.
    pub each: bool,
    /// `false`: with `each`, the messages of a batch do not wait for each other; up to `concurrency` are handed over side
    /// by side. Their verdicts still leave in order. Default true.
    pub ordered: bool,
    /// Each worker ends after that many messages handed over, failed ones too. A batch is not cut, but for `each`.
    /// Default: none.
    pub limit: Option<u64>,
    /// The consumer ends after that many messages handed over by all workers together. No message beyond it is taken from
    /// the broker. Default: none.
    pub limit_total: Option<u64>,
    /// The consumer ends when nothing came and nothing ran for that long. Default: never.
    pub idle_millis: Option<u64>,
    /// Whether polls wait at the broker; without it an empty poll is repeated after 100 ms. Default true.
    pub wait: bool,
    /// How long a poll waits. Default 30 000.
    pub poll_timeout_millis: u64,
    /// Whether [`Settlement::Ack`](crate::Settlement::Ack) acks what has no verdict yet. If not, messages are settled by hand, and the library
    /// keeps the lease until then. Default true.
    pub auto_ack: bool,
    /// Whether the broker counts messages as done when it hands them out: at most once, without lease and verdict. What
    /// a handler answers then changes nothing, and what was handed out is lost with the process. Default false.
    pub commit_on_delivery: bool,
    /// The length of the lease, 60 by default.
    pub lease_seconds: u64,
    /// Whether leases are renewed while messages are unsettled. Without it nothing is fetched before the handlers are done with
    /// what came before. Default true.
    pub renew_lease: bool,
    /// The most partitions of one poll; their deliveries are handed over one after another. Default: 1 where `batch` is set,
    /// else as many as are needed.
    pub partitions: Option<u64>,
    /// Where a group that is new starts: `all` or `new`. The broker's default is `new`.
    pub subscription_mode: Option<String>,
    /// Where a group that is new starts: `now` or an ISO 8601 time.
    pub subscription_from: Option<String>,
    /// After that long a delivery's lease is renewed no more and the delivery is lost. Default 3600.
    pub max_handling_seconds: u64,
}

impl Default for ConsumeOptions {
    fn default() -> Self {
        ConsumeOptions {
            queue: None,
            partition: None,
            namespace: None,
            task: None,
            group: None,
            concurrency: 1,
            batch: None,
            each: false,
            ordered: true,
            limit: None,
            limit_total: None,
            idle_millis: None,
            wait: true,
            poll_timeout_millis: 30_000,
            auto_ack: true,
            commit_on_delivery: false,
            lease_seconds: 60,
            renew_lease: true,
            partitions: None,
            subscription_mode: None,
            subscription_from: None,
            max_handling_seconds: 3600,
        }
    }
}

impl ConsumeOptions {
    /// Reads an options object with the keys in camelCase.
    pub fn parse(json: &str) -> Result<ConsumeOptions> {
        options::parse("consume", json)
    }

    /// Whether a handler gets one message at a time.
    pub(super) fn hands_one(&self) -> bool {
        self.each || self.batch.is_none()
    }

    pub(super) fn poll_timeout(&self) -> Duration {
        Duration::from_millis(self.poll_timeout_millis)
    }

    /// Checks the options; the poll of a worker, without its waiting time.
    pub(super) fn query(&self) -> Result<Query> {
        let numbers = [
            ("concurrency", Some(self.concurrency), 10_000),
            ("batch", self.batch, 1_000_000),
            ("limit", self.limit, u64::MAX),
            ("limitTotal", self.limit_total, quota::MOST),
            ("idleMillis", self.idle_millis, u64::MAX),
            (
                "pollTimeoutMillis",
                Some(self.poll_timeout_millis),
                86_400_000,
            ),
            ("leaseSeconds", Some(self.lease_seconds), 86_400 * 365),
            ("partitions", self.partitions, 1_000_000),
            (
                "maxHandlingSeconds",
                Some(self.max_handling_seconds),
                86_400 * 365,
            ),
        ];
        for (name, value, most) in numbers {
            if let Some(value) = value.filter(|value| *value == 0 || *value > most) {
                return Err(options::invalid(
                    "consume",
                    name,
                    &value.to_string(),
                    &format!("must be from 1 to {most}"),
                ));
            }
        }
        if !self.ordered && !self.each {
            return Err(options::invalid(
                "consume",
                "ordered",
                "false",
                "needs each: a batch is handed over as a whole",
            ));
        }
        if self.commit_on_delivery && !self.auto_ack {
            return Err(options::invalid(
                "consume",
                "autoAck",
                "false",
                "leaves verdicts to you, and commitOnDelivery leaves none to give; set one of them",
            ));
        }
        if let Some(queue) = &self.queue {
            check_name("queue", queue, false)?;
        }
        let query = Query {
            queue: self.queue.clone(),
            partition: self.partition.clone(),
            namespace: self.namespace.clone(),
            task: self.task.clone(),
            group: self.group.clone().filter(|group| group != QUEUE_MODE),
            batch: self.batch.unwrap_or(1),
            wait_millis: None,
            auto_ack: self.commit_on_delivery,
            lease_seconds: (!self.commit_on_delivery).then_some(self.lease_seconds),
            partitions: self.partitions.unwrap_or(1),
            subscription_mode: self.subscription_mode.clone(),
            subscription_from: self.subscription_from.clone(),
        };
        query.path()?;
        Ok(query)
    }
}

/// One key of the options of a consumer, as documented in `docs/CONFIGURATION.md`.
#[non_exhaustive]
pub struct ConsumeOption {
    /// The key in JSON.
    pub name: &'static str,
    /// The JSON type, with the unit.
    pub kind: &'static str,
    /// The default, as JSON or as text.
    pub default: &'static str,
    /// What it does.
    pub doc: &'static str,
}

impl ConsumeOption {
    pub(crate) const fn new(
        name: &'static str,
        kind: &'static str,
        default: &'static str,
        doc: &'static str,
    ) -> ConsumeOption {
        ConsumeOption {
            name,
            kind,
            default,
            doc,
        }
    }
}

/// Every key of [`ConsumeOptions`].
pub const CONSUME_OPTIONS: &[ConsumeOption] = &[
    ConsumeOption::new(
        "queue",
        "string",
        "(required, or one of the next)",
        "The queue.",
    ),
    ConsumeOption::new(
        "namespace",
        "string",
        "none",
        "Queues by namespace, where no queue is named.",
    ),
    ConsumeOption::new(
        "task",
        "string",
        "none",
        "Queues by task, where no queue is named.",
    ),
    ConsumeOption::new("partition", "string", "any", "One partition of the queue."),
    ConsumeOption::new(
        "consumerGroup",
        "string",
        "queue mode",
        "The consumer group; without one the queue has a single cursor for everybody.",
    ),
    ConsumeOption::new(
        "subscriptionMode",
        "string",
        "the broker's",
        "Where a group that is new starts: `all` or `new`. Anything else goes to the broker as it is. Brokers 1.x start at `new`.",
    ),
    ConsumeOption::new(
        "subscriptionFrom",
        "string",
        "none",
        "Where a group that is new starts: `now` or an ISO 8601 time. Wins over the mode.",
    ),
    ConsumeOption::new(
        "concurrency",
        "integer",
        "1",
        "How many workers poll and handle side by side, each on another partition; at most 10000.",
    ),
    ConsumeOption::new(
        "batch",
        "integer",
        "(as handlers take)",
        "The most messages of one poll, over all its partitions; at most 1000000. They are handed over together, or one by one with `each`; with 1 there is one message to a lease. Not set, messages are handed over one by one and fetched in such numbers as the handlers take in a quarter of a second, at most 1000 or 4 MiB of them.",
    ),
    ConsumeOption::new(
        "partitions",
        "integer",
        "(1 with `batch`, else up to 100)",
        "The most partitions of one poll; their deliveries are handed over one after another.",
    ),
    ConsumeOption::new(
        "each",
        "boolean",
        "false",
        "Hands the messages of a batch over one by one, each when the one before it has its verdict. What lies behind a negative verdict is not handed over: it comes again.",
    ),
    ConsumeOption::new(
        "ordered",
        "boolean",
        "true",
        "`false`, with `each`: messages of a batch do not wait for each other; up to `concurrency` of them are handed over side by side. Their verdicts still leave in order.",
    ),
    ConsumeOption::new(
        "limit",
        "integer",
        "none",
        "Each worker ends after that many messages handed over, failed ones too. A batch is not cut, but for `each`.",
    ),
    ConsumeOption::new(
        "limitTotal",
        "integer",
        "none",
        "The consumer ends after that many messages handed over by all workers together. No message beyond it is taken from the broker.",
    ),
    ConsumeOption::new(
        "idleMillis",
        "integer, milliseconds",
        "never",
        "The consumer ends when nothing came and nothing ran for that long.",
    ),
    ConsumeOption::new(
        "wait",
        "boolean",
        "true",
        "Whether polls wait at the broker. Without it an empty poll is repeated after 100 ms.",
    ),
    ConsumeOption::new(
        "pollTimeoutMillis",
        "integer, milliseconds",
        "30000",
        "How long a poll waits.",
    ),
    ConsumeOption::new(
        "autoAck",
        "boolean",
        "true",
        "Whether a handler's ack acks what has no verdict yet. If not, messages are settled by hand, and the lease is kept until then.",
    ),
    ConsumeOption::new(
        "commitOnDelivery",
        "boolean",
        "false",
        "The broker counts messages as done when it hands them out: at most once, without lease and verdict. What a handler answers changes nothing.",
    ),
    ConsumeOption::new(
        "leaseSeconds",
        "integer, seconds",
        "60",
        "The length of the lease.",
    ),
    ConsumeOption::new(
        "renewLease",
        "boolean",
        "true",
        "Whether leases are renewed while messages are unsettled, each at a third of its length.",
    ),
    ConsumeOption::new(
        "maxHandlingSeconds",
        "integer, seconds",
        "3600",
        "After that long a delivery's lease is renewed no more and the delivery is lost.",
    ),
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde_json::Value;

    use super::*;
    use crate::error::ErrorCode;

    #[test]
    fn d17_to_d25_d35_the_table_tells_every_key_and_its_default() {
        let defaults = serde_json::to_value(ConsumeOptions::default()).unwrap();
        let mut defaults: BTreeMap<String, Value> = serde_json::from_value(defaults).unwrap();
        for option in CONSUME_OPTIONS {
            let default = defaults.remove(option.name).expect(option.name);
            match default {
                Value::Null => assert!(serde_json::from_str::<Value>(option.default).is_err()),
                default => assert_eq!(default.to_string(), option.default, "{}", option.name),
            }
        }
        assert!(defaults.is_empty(), "{defaults:?}");
    }

    #[test]
    fn options_that_cannot_be_are_named() {
        for (json, says) in [
            (r#"{"queue":"q","batch":0}"#, "batch"),
            (r#"{"queue":"q","limitTotal":0}"#, "limitTotal"),
            (r#"{"queue":"q","concurrency":10001}"#, "10001"),
            (r#"{"queue":"q","ordered":false}"#, "needs each"),
            (
                r#"{"queue":"q","commitOnDelivery":true,"autoAck":false}"#,
                "commitOnDelivery",
            ),
            (r#"{"queue":"q","batchSize":3}"#, "batchSize"),
            (r#"{"queue":"q","each":1}"#, "option `each` of consume is 1"),
            (r#"{"queue":7}"#, "option `queue` of consume is 7"),
            ("{}", "queue"),
        ] {
            let error = ConsumeOptions::parse(json)
                .and_then(|options| options.query())
                .unwrap_err();
            assert!(error.message().contains(says), "{json}: {error}");
            let code = error.code();
            assert!(
                matches!(code, ErrorCode::InvalidConfig | ErrorCode::InvalidArgument),
                "{code:?}"
            );
        }
    }

    #[test]
    fn x30_c3_only_commit_on_delivery_asks_the_broker_to_ack() {
        let path = |json: &str| {
            let query = ConsumeOptions::parse(json).unwrap().query().unwrap();
            query.path().unwrap()
        };
        for auto_ack in [true, false] {
            let path = path(&format!(r#"{{"queue":"q","autoAck":{auto_ack}}}"#));
            assert_eq!(path, "/api/v1/pop/queue/q?batch=1&leaseSeconds=60");
        }
        let path = path(r#"{"queue":"q","commitOnDelivery":true}"#);
        assert_eq!(path, "/api/v1/pop/queue/q?batch=1&autoAck=true");
    }
}
