//! The options of `POST /api/v1/configure`.

use serde::Serialize;
use serde_json::{Map, Value, json};

use crate::error::{Error, ErrorCode, Result};

/// Declares [`QueueOptions`] with a setter, the default and the documentation of each option.
macro_rules! queue_options {
    ($($(#[doc = $doc:literal])* $setter:ident: $kind:ty = $name:literal, $default:tt, $unit:literal;)*) => {
        impl QueueOptions {
            $($(#[doc = $doc])* #[doc = concat!(" Default `", stringify!($default), "`", $unit, "; on the wire `", $name, "`.")]
            pub fn $setter(self, value: $kind) -> QueueOptions {
                self.option($name, value)
            })*
        }

        /// The known options: name, type, default.
        const OPTIONS: &[(&str, Kind, &str)] = &[
            $(($name, <$kind as Known>::KIND, stringify!($default))),*
        ];

        /// The known options in one text.
        pub(crate) const OPTIONS_DOC: &str = concat!(
            $("`", $name, "` (", stringify!($default), $unit, "), ",)*
            "and any further one that the broker knows"
        );
    };
}

/// The options of a queue. What is not set gets its default, also when the queue exists already.
///
/// ```
/// use queen::{Client, QueueOptions};
/// use std::time::Duration;
///
/// let client = Client::new("embedded:")?;
/// let options = QueueOptions::new().lease_time_seconds(30).retry_limit(5);
/// client.queue("orders").create(options).wait(Duration::from_secs(10))?;
/// # Ok::<(), queen::Error>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct QueueOptions(Map<String, Value>);

queue_options! {
    /// How long a pop without a length of its own leases messages.
    lease_time_seconds: u64 = "leaseTime", 300, " s";
    /// How often a message that failed is delivered again, before it becomes a dead letter.
    retry_limit: u64 = "retryLimit", 3, "";
    /// The pause before a retry. Brokers of generation 1.x retry at once.
    retry_delay_millis: u64 = "retryDelay", 1000, " ms";
    /// The most undelivered messages, 0 for no bound. Brokers of generation 1.x store it and do not enforce it; the embedded one does.
    max_size: u64 = "maxSize", 0, "";
    /// The age at which messages may go. Brokers of generation 1.x store it alone; retention is what removes messages there.
    ttl_seconds: u64 = "ttl", 3600, " s";
    /// The rank among queues that are found by namespace or task. Brokers of generation 1.x store it alone.
    priority: u64 = "priority", 0, "";
    /// Whether messages whose retries are used up are kept as dead letters. This one or the next is enough.
    dead_letter_queue: bool = "deadLetterQueue", true, "";
    /// As `dead_letter_queue`.
    dlq_after_max_retries: bool = "dlqAfterMaxRetries", true, "";
    /// How long a message waits before its first delivery.
    delayed_processing_seconds: u64 = "delayedProcessing", 0, " s";
    /// How long messages are gathered before they are delivered.
    window_buffer_seconds: u64 = "windowBuffer", 0, " s";
    /// The switch of the next two.
    retention_enabled: bool = "retentionEnabled", false, "";
    /// The age at which messages are removed, consumed or not; 0 for never. Needs `retention_enabled`.
    retention_seconds: u64 = "retentionSeconds", 0, " s";
    /// The age at which messages are removed that every group has consumed; 0 for never. Needs `retention_enabled`.
    completed_retention_seconds: u64 = "completedRetentionSeconds", 0, " s";
    /// The age at which messages are removed without becoming dead letters; 0 for never.
    max_wait_time_seconds: u64 = "maxWaitTimeSeconds", 0, " s";
    /// Whether payloads are encrypted where they are stored, if the broker has a key.
    encryption_enabled: bool = "encryptionEnabled", false, "";
    /// How long a waiting pop that finds fewer messages than it asked for waits for more, at most 60 000.
    min_pop_wait_time_millis: u64 = "minPopWaitTime", 0, " ms";
    /// How long a transaction id is remembered, 0 for not at all.
    dedup_window_seconds: u64 = "dedupWindowSeconds", 3600, " s";
}

impl QueueOptions {
    /// The defaults.
    pub fn new() -> QueueOptions {
        QueueOptions::default()
    }

    /// The key under which consumers can find the queue.
    pub fn namespace(self, name: impl Into<String>) -> QueueOptions {
        self.option("namespace", name.into())
    }

    /// The second such key.
    pub fn task(self, name: impl Into<String>) -> QueueOptions {
        self.option("task", name.into())
    }

    /// A queue whose consumers must be done before messages are removed. Only brokers that know it, later than 1.3.
    pub fn retention_sink_hold(self, queue: impl Into<String>) -> QueueOptions {
        self.option("retentionSinkHold", queue.into())
    }

    /// How long that may hold up retention, in seconds. Such brokers take a week by themselves.
    pub fn retention_sink_hold_max_seconds(self, value: u64) -> QueueOptions {
        self.option("retentionSinkHoldMaxSeconds", value)
    }

    /// Any option by its name on the wire, also one that libqueen does not know.
    pub fn option(mut self, name: &str, value: impl Into<Value>) -> QueueOptions {
        self.0.insert(name.to_owned(), value.into());
        self
    }

    pub(crate) fn take(&mut self, name: &str) -> Option<Value> {
        self.0.remove(name)
    }

    /// Refuses what some brokers answer with a failure of their own.
    pub(crate) fn check(&self) -> Result<()> {
        for (name, value) in &self.0 {
            let wanted = match OPTIONS.iter().find(|(known, ..)| known == name) {
                Some((_, Kind::Number, _)) if !value.is_u64() => "a whole number, 0 or more",
                Some((_, Kind::Flag, _)) if !value.is_boolean() => "a boolean",
                None if matches!(&**name, "namespace" | "task") && !value.is_string() => "a string",
                _ => continue,
            };
            return Err(Error::new(
                ErrorCode::InvalidJson,
                format!("queue option `{name}` is {value}; it must be {wanted}"),
            ));
        }
        Ok(())
    }

    /// The complete set, because brokers before 1.6 reset what is missing and later ones keep it.
    pub(crate) fn completed(&self) -> Map<String, Value> {
        let default = |text: &str| serde_json::from_str(text).unwrap_or_else(|_| json!(text));
        let mut all: Map<String, Value> = OPTIONS
            .iter()
            .map(|(name, _, value)| ((*name).to_owned(), default(value)))
            .collect();
        all.extend(self.0.clone());
        all
    }
}

impl From<Map<String, Value>> for QueueOptions {
    /// A null stands for the default.
    fn from(mut options: Map<String, Value>) -> QueueOptions {
        options.retain(|_, value| !value.is_null());
        QueueOptions(options)
    }
}

impl From<&Map<String, Value>> for QueueOptions {
    fn from(options: &Map<String, Value>) -> QueueOptions {
        QueueOptions::from(options.clone())
    }
}

#[derive(Clone, Copy)]
enum Kind {
    Number,
    Flag,
}

/// The types that options have.
trait Known {
    const KIND: Kind;
}

impl Known for u64 {
    const KIND: Kind = Kind::Number;
}

impl Known for bool {
    const KIND: Kind = Kind::Flag;
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Those of the classic clients, and no more is sent than brokers know.
    #[test]
    fn d8_to_d16_defaults_of_a_queue() {
        let all = QueueOptions::new().completed();
        for (name, value) in [
            ("leaseTime", json!(300)),
            ("retryLimit", json!(3)),
            ("priority", json!(0)),
            ("delayedProcessing", json!(0)),
            ("windowBuffer", json!(0)),
            ("maxSize", json!(0)),
            ("retentionSeconds", json!(0)),
            ("completedRetentionSeconds", json!(0)),
            ("encryptionEnabled", json!(false)),
        ] {
            assert_eq!(all[name], value, "{name}");
        }
    }

    #[test]
    fn the_callers_options_win_over_the_complete_set() {
        let options = QueueOptions::new()
            .lease_time_seconds(5)
            .dead_letter_queue(false)
            .option("later", "x");
        let all = options.completed();
        assert_eq!(all["leaseTime"], 5);
        assert_eq!(all["deadLetterQueue"], false);
        assert_eq!(all["dlqAfterMaxRetries"], true);
        assert_eq!(all["retryLimit"], 3);
        assert_eq!(all["later"], "x");
        assert_eq!(all.len(), OPTIONS.len() + 1);
        assert!(
            OPTIONS_DOC.contains("`retryDelay` (1000 ms)"),
            "{OPTIONS_DOC}"
        );
    }

    #[test]
    fn wrong_types_are_named() {
        let message = |json: Value| {
            let map = json.as_object().cloned().unwrap();
            let error = QueueOptions::from(map).check().err();
            error.map(|error| error.message().to_owned())
        };
        assert!(
            message(json!({"leaseTime": "x"}))
                .unwrap()
                .contains("leaseTime")
        );
        assert!(message(json!({"retryLimit": 1.5})).unwrap().contains("1.5"));
        assert!(
            message(json!({"deadLetterQueue": 1}))
                .unwrap()
                .contains("boolean")
        );
        assert!(
            message(json!({"namespace": 1}))
                .unwrap()
                .contains("namespace")
        );
        assert_eq!(message(json!({"leaseTime": 1, "unknown": []})), None);
    }
}
