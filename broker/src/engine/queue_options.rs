//! The seventeen options of a queue, as `configure` takes and echoes them.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// Every option with its effective value. The names are those of the protocol.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct QueueOptions {
    pub(crate) lease_time: i64,
    pub(crate) retry_limit: i64,
    pub(crate) retry_delay: i64,
    pub(crate) max_size: i64,
    pub(crate) ttl: i64,
    pub(crate) priority: i64,
    pub(crate) dead_letter_queue: bool,
    pub(crate) dlq_after_max_retries: bool,
    pub(crate) delayed_processing: i64,
    pub(crate) window_buffer: i64,
    pub(crate) retention_enabled: bool,
    pub(crate) retention_seconds: i64,
    pub(crate) completed_retention_seconds: i64,
    pub(crate) max_wait_time_seconds: i64,
    pub(crate) encryption_enabled: bool,
    pub(crate) min_pop_wait_time: i64,
    pub(crate) dedup_window_seconds: i64,
}

impl Default for QueueOptions {
    fn default() -> Self {
        QueueOptions {
            lease_time: 300,
            retry_limit: 3,
            retry_delay: 1000,
            max_size: 0,
            ttl: 3600,
            priority: 0,
            dead_letter_queue: true,
            dlq_after_max_retries: true,
            delayed_processing: 0,
            window_buffer: 0,
            retention_enabled: false,
            retention_seconds: 0,
            completed_retention_seconds: 0,
            max_wait_time_seconds: 0,
            encryption_enabled: false,
            min_pop_wait_time: 0,
            dedup_window_seconds: 3600,
        }
    }
}

impl QueueOptions {
    /// A queue that came into being by a push or a pop leases for a minute only.
    pub(crate) fn automatic() -> Self {
        QueueOptions {
            lease_time: 60,
            ..QueueOptions::default()
        }
    }

    /// Reads the options of a `configure`: what is absent or null takes its default. The error names field and value.
    pub(crate) fn from_request(given: &Map<String, Value>) -> Result<Self, String> {
        let d = QueueOptions::default();
        Ok(QueueOptions {
            lease_time: integer(given, "leaseTime", d.lease_time)?,
            retry_limit: integer(given, "retryLimit", d.retry_limit)?,
            retry_delay: integer(given, "retryDelay", d.retry_delay)?,
            max_size: integer(given, "maxSize", d.max_size)?,
            ttl: integer(given, "ttl", d.ttl)?,
            priority: integer(given, "priority", d.priority)?,
            dead_letter_queue: boolean(given, "deadLetterQueue", d.dead_letter_queue)?,
            dlq_after_max_retries: boolean(given, "dlqAfterMaxRetries", d.dlq_after_max_retries)?,
            delayed_processing: integer(given, "delayedProcessing", d.delayed_processing)?,
            window_buffer: integer(given, "windowBuffer", d.window_buffer)?,
            retention_enabled: boolean(given, "retentionEnabled", d.retention_enabled)?,
            retention_seconds: integer(given, "retentionSeconds", d.retention_seconds)?,
            completed_retention_seconds: integer(
                given,
                "completedRetentionSeconds",
                d.completed_retention_seconds,
            )?,
            max_wait_time_seconds: integer(given, "maxWaitTimeSeconds", d.max_wait_time_seconds)?,
            encryption_enabled: boolean(given, "encryptionEnabled", d.encryption_enabled)?,
            min_pop_wait_time: integer(given, "minPopWaitTime", d.min_pop_wait_time)?
                .clamp(0, 60_000),
            dedup_window_seconds: integer(given, "dedupWindowSeconds", d.dedup_window_seconds)?
                .max(0),
        })
    }

    /// Whether a message that ran out of retries leaves a record behind.
    pub(crate) fn dead_letters(&self) -> bool {
        self.dead_letter_queue || self.dlq_after_max_retries
    }
}

fn integer(given: &Map<String, Value>, name: &str, default: i64) -> Result<i64, String> {
    match given.get(name) {
        None | Some(Value::Null) => Ok(default),
        Some(Value::Number(n)) if n.is_i64() => Ok(n.as_i64().unwrap_or(default)),
        // The official broker takes a number in quotes as well.
        Some(Value::String(s)) if s.parse::<i64>().is_ok() => Ok(s.parse().unwrap_or(default)),
        Some(other) => Err(format!(
            "options.{name} must be a whole number, not {other}"
        )),
    }
}

fn boolean(given: &Map<String, Value>, name: &str, default: bool) -> Result<bool, String> {
    match given.get(name) {
        None | Some(Value::Null) => Ok(default),
        Some(Value::Bool(b)) => Ok(*b),
        Some(Value::String(s)) if s == "true" || s == "false" => Ok(s == "true"),
        Some(other) => Err(format!("options.{name} must be true or false, not {other}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<QueueOptions, String> {
        QueueOptions::from_request(&serde_json::from_str(text).unwrap())
    }

    #[test]
    fn absent_and_null_options_take_their_defaults() {
        assert_eq!(read("{}").unwrap(), QueueOptions::default());
        assert_eq!(
            read(r#"{"leaseTime":null,"unknown":[]}"#).unwrap(),
            QueueOptions::default()
        );
    }

    #[test]
    fn values_are_taken_and_clamped() {
        let options =
            read(r#"{"leaseTime":"77","minPopWaitTime":99999,"dedupWindowSeconds":-1}"#).unwrap();
        assert_eq!(
            (
                options.lease_time,
                options.min_pop_wait_time,
                options.dedup_window_seconds
            ),
            (77, 60_000, 0)
        );
    }

    #[test]
    fn a_wrong_type_names_field_and_value() {
        assert_eq!(
            read(r#"{"leaseTime":1.5}"#).unwrap_err(),
            "options.leaseTime must be a whole number, not 1.5"
        );
        assert_eq!(
            read(r#"{"retentionEnabled":7}"#).unwrap_err(),
            "options.retentionEnabled must be true or false, not 7"
        );
    }
}
