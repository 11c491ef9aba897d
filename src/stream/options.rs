//! Which windows to consume, and how.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::consume::ConsumeOption;
use crate::error::Result;
use crate::options;
use crate::protocol::stream;

/// Which windows to consume, and how. Every field but the stream and the group has a default.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct StreamConsumeOptions {
    /// The stream.
    pub stream: Option<String>,
    /// The consumer group.
    #[serde(rename = "consumerGroup")]
    pub group: Option<String>,
    /// How many windows are handled side by side, each of another key. Default 1.
    pub concurrency: u64,
    /// The consumer ends after that many windows handed over, failed ones too.
    pub limit: Option<u64>,
    /// The consumer ends when no window came and none was handled for that long.
    pub idle_millis: Option<u64>,
    /// How long a poll waits at the broker. Default 30 000.
    pub poll_timeout_millis: u64,
    /// Whether leases are renewed while windows are unsettled: after a second, then at every third of `extend_millis`.
    /// Default true.
    pub renew_lease: bool,
    /// How long a renewal makes the lease last. Default 30 000.
    pub extend_millis: u64,
    /// After that long the lease of a window is renewed no more and the window is lost. Default 3600.
    pub max_handling_seconds: u64,
}

impl Default for StreamConsumeOptions {
    fn default() -> Self {
        StreamConsumeOptions {
            stream: None,
            group: None,
            concurrency: 1,
            limit: None,
            idle_millis: None,
            poll_timeout_millis: 30_000,
            renew_lease: true,
            extend_millis: 30_000,
            max_handling_seconds: 3600,
        }
    }
}

const OPERATION: &str = "stream.consume";
/// More handlers at the same time than any machine has threads for are a mistake.
const MOST_WORKERS: u64 = 10_000;

impl StreamConsumeOptions {
    /// Reads an options object with the keys in camelCase.
    pub fn parse(json: &str) -> Result<StreamConsumeOptions> {
        options::parse(OPERATION, json)
    }

    /// Stream and group, when all options can be.
    pub(super) fn check(&self) -> Result<(String, String)> {
        let (stream, group) = (
            self.stream.clone().unwrap_or_default(),
            self.group.clone().unwrap_or_default(),
        );
        stream::check(&stream, &group)?;
        let numbers = [
            ("concurrency", Some(self.concurrency), MOST_WORKERS),
            ("limit", self.limit, u64::MAX),
            ("idleMillis", self.idle_millis, u64::MAX),
            (
                "pollTimeoutMillis",
                Some(self.poll_timeout_millis),
                u64::MAX,
            ),
            ("extendMillis", Some(self.extend_millis), u64::MAX),
            (
                "maxHandlingSeconds",
                Some(self.max_handling_seconds),
                u64::MAX,
            ),
        ];
        for (name, value, most) in numbers {
            let why = match value {
                Some(0) => "must be at least 1".to_owned(),
                Some(value) if value > most => format!("must be at most {most}"),
                _ => continue,
            };
            let value = value.unwrap_or(0).to_string();
            return Err(options::invalid(OPERATION, name, &value, &why));
        }
        Ok((stream, group))
    }

    pub(super) fn longest(&self) -> Duration {
        Duration::from_secs(self.max_handling_seconds)
    }
}

/// The options of a stream consumer, as documented in `docs/CONFIGURATION.md`.
pub const STREAM_CONSUME_OPTIONS: &[ConsumeOption] = &[
    ConsumeOption::new("stream", "string", "required", "The stream."),
    ConsumeOption::new("consumerGroup", "string", "required", "The consumer group."),
    ConsumeOption::new(
        "concurrency",
        "integer",
        "1",
        "How many windows are handled side by side, each of another key; at most 10000. Polls of a group take turns.",
    ),
    ConsumeOption::new(
        "limit",
        "integer",
        "none",
        "The consumer ends after that many windows handed over, failed ones too.",
    ),
    ConsumeOption::new(
        "idleMillis",
        "integer, milliseconds",
        "never",
        "The consumer ends when no window came and none was handled for that long.",
    ),
    ConsumeOption::new(
        "pollTimeoutMillis",
        "integer, milliseconds",
        "30000",
        "How long a poll waits.",
    ),
    ConsumeOption::new(
        "renewLease",
        "boolean",
        "true",
        "Whether leases are renewed while windows are unsettled: after a second, then at every third of `extendMillis`.",
    ),
    ConsumeOption::new(
        "extendMillis",
        "integer, milliseconds",
        "30000",
        "How long a renewal makes the lease last.",
    ),
    ConsumeOption::new(
        "maxHandlingSeconds",
        "integer, seconds",
        "3600",
        "After that long the lease of a window is renewed no more and the window is lost.",
    ),
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde_json::Value;

    use super::*;

    #[test]
    fn d33_the_table_tells_every_key_and_its_default() {
        let defaults = serde_json::to_value(StreamConsumeOptions::default()).unwrap();
        let mut defaults: BTreeMap<String, Value> = serde_json::from_value(defaults).unwrap();
        for option in STREAM_CONSUME_OPTIONS {
            match defaults.remove(option.name).expect(option.name) {
                Value::Null => assert!(serde_json::from_str::<Value>(option.default).is_err()),
                default => assert_eq!(default.to_string(), option.default, "{}", option.name),
            }
        }
        assert!(defaults.is_empty(), "{defaults:?}");
    }

    #[test]
    fn options_that_cannot_be_are_named() {
        for (json, says) in [
            ("{}", "stream"),
            (r#"{"stream":"s"}"#, "consumerGroup"),
            (
                r#"{"stream":"s","consumerGroup":"g","concurrency":0}"#,
                "concurrency",
            ),
            (
                r#"{"stream":"s","consumerGroup":"g","concurrency":10001}"#,
                "10001",
            ),
            (
                r#"{"stream":"s","consumerGroup":"g","extendMillis":0}"#,
                "extendMillis",
            ),
            (r#"{"stream":"s","consumerGroup":"g","batch":1}"#, "batch"),
            (r#"{"stream":7}"#, "option `stream` of stream.consume is 7"),
        ] {
            let error = StreamConsumeOptions::parse(json)
                .and_then(|options| options.check())
                .unwrap_err();
            assert!(error.message().contains(says), "{json}: {error}");
        }
    }
}
