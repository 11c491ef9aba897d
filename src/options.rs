//! Options objects: JSON with known keys alone.

use std::fmt;

use serde::de::value::MapAccessDeserializer;
use serde::de::{DeserializeOwned, IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value};

use crate::error::{Error, ErrorCode, Result};

/// How to call where the only choice is the deadline.
macro_rules! deadline_options {
    ($(#[$doc:meta])* $name:ident, $operation:literal) => {
        $(#[$doc])*
        #[derive(Clone, Debug, Default, Deserialize)]
        #[serde(rename_all = "camelCase", deny_unknown_fields, default)]
        pub struct $name {
            /// Deadline of the call. Default: the client's `timeoutMillis`.
            pub timeout_millis: Option<u64>,
        }

        impl $name {
            /// Reads an options object with the keys in camelCase.
            pub fn parse(json: &str) -> Result<$name> {
                parse($operation, json)
            }
        }
    };
}

deadline_options! {
    /// How to renew a lease.
    RenewOptions, "renew"
}

/// How the items of a transaction's push are read.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct ItemOptions {
    /// As [`PushOptions::classic_items`].
    pub classic_items: bool,
}

impl ItemOptions {
    /// Reads an options object with the keys in camelCase.
    pub fn parse(json: &str) -> Result<ItemOptions> {
        parse("push", json)
    }
}

deadline_options! {
    /// How to commit a transaction.
    TransactionOptions, "transaction.commit"
}

/// How to push.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct PushOptions {
    /// Deadline of the call; into a buffer: how long to wait for room. Default: the client's `timeoutMillis`.
    pub timeout_millis: Option<u64>,
    /// Collects the messages in the client and sends them together later. In JSON `true` takes every default. Default:
    /// they are sent at once.
    #[serde(deserialize_with = "buffer")]
    pub buffer: Option<BufferOptions>,
    /// Whether items that are given as JSON may have any form, as in the classic clients: one value or an array; an object's
    /// payload is what it has under `data`, else under `payload`, else the object itself. Default: an array of
    /// `{payload, transactionId?, traceId?}`, and nothing is guessed.
    pub classic_items: bool,
}

impl PushOptions {
    /// Reads an options object with the keys in camelCase.
    pub fn parse(json: &str) -> Result<PushOptions> {
        parse("push", json)
    }
}

/// What to flush.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct FlushOptions {
    /// Only pushes to this queue. Default: all.
    pub queue: Option<String>,
    /// Only pushes to this partition; needs the queue. Default: all.
    pub partition: Option<String>,
    /// Deadline of the call. Default: the client's `timeoutMillis`.
    pub timeout_millis: Option<u64>,
}

impl FlushOptions {
    /// Reads an options object with the keys in camelCase.
    pub fn parse(json: &str) -> Result<FlushOptions> {
        parse("flush", json)
    }
}

/// How the messages of one partition are collected before they are sent. The options of the last push count.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct BufferOptions {
    /// So many messages are sent together, and never more. 1 to 100 000. Default 100.
    pub message_count: usize,
    /// So long after the first message all are sent. 0 to 86 400 000. Default 1000.
    pub time_millis: u64,
    /// Bound on the messages of this partition that are not answered for, at least `message_count`. Default: the
    /// client's `maxBufferedMessages`, which bounds all buffers together.
    pub max_messages: Option<usize>,
    /// Bound on their bytes. Default: the client's `maxBufferedBytes`, which bounds all buffers together.
    pub max_bytes: Option<usize>,
    /// What happens to a push that finds no room. Default: it waits.
    pub when_full: WhenFull,
}

impl Default for BufferOptions {
    fn default() -> Self {
        BufferOptions {
            message_count: 100,
            time_millis: 1000,
            max_messages: None,
            max_bytes: None,
            when_full: WhenFull::Wait,
        }
    }
}

/// What happens to a push that finds its buffer full.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub enum WhenFull {
    /// It completes when there is room, or fails with [`ErrorCode::Timeout`] at its deadline and keeps nothing.
    #[default]
    Wait,
    /// It fails with [`ErrorCode::WouldBlock`] and keeps nothing.
    Fail,
    /// The oldest messages of the buffer that are not on their way make room; each is reported as `dropped`.
    DropOldest,
}

impl BufferOptions {
    pub(crate) fn check(&self) -> Result<()> {
        let bad = |key: &str, value: &dyn fmt::Display, why: &str| {
            Err(invalid(
                "push",
                &format!("buffer.{key}"),
                &value.to_string(),
                why,
            ))
        };
        if !(1..=100_000).contains(&self.message_count) {
            return bad(
                "messageCount",
                &self.message_count,
                "must be from 1 to 100000",
            );
        }
        if self.time_millis > 86_400_000 {
            return bad(
                "timeMillis",
                &self.time_millis,
                "must be from 0 to 86400000",
            );
        }
        match (self.max_messages, self.max_bytes) {
            (Some(most), _) if most < self.message_count => bad(
                "maxMessages",
                &most,
                &format!("must be at least messageCount, {}", self.message_count),
            ),
            (_, Some(0)) => bad("maxBytes", &0, "must be at least 1"),
            _ => Ok(()),
        }
    }
}

/// `true` stands for every default, `false` and `null` for no buffer.
pub(crate) fn buffer<'de, D: Deserializer<'de>>(
    from: D,
) -> std::result::Result<Option<BufferOptions>, D::Error> {
    struct Buffer;

    impl<'de> Visitor<'de> for Buffer {
        type Value = Option<BufferOptions>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("`buffer` as true, false or an object")
        }

        fn visit_bool<E>(self, on: bool) -> std::result::Result<Self::Value, E> {
            Ok(on.then(BufferOptions::default))
        }

        fn visit_unit<E>(self) -> std::result::Result<Self::Value, E> {
            Ok(None)
        }

        fn visit_map<A: MapAccess<'de>>(
            self,
            map: A,
        ) -> std::result::Result<Self::Value, A::Error> {
            BufferOptions::deserialize(MapAccessDeserializer::new(map)).map(Some)
        }
    }

    from.deserialize_any(Buffer)
}

/// Reads an options object. Unknown keys and wrong types are errors that name them.
pub(crate) fn parse<T: DeserializeOwned>(operation: &str, json: &str) -> Result<T> {
    // serde would read a list as the fields in order.
    if json.trim_start().starts_with('[') && serde_json::from_str::<IgnoredAny>(json).is_ok() {
        return Err(Error::new(
            ErrorCode::InvalidConfig,
            format!("options of {operation} are a list, not an object"),
        ));
    }
    serde_json::from_str(json).map_err(|error| {
        let code = match error.classify() {
            serde_json::error::Category::Data => ErrorCode::InvalidConfig,
            _ => ErrorCode::InvalidJson,
        };
        let named = mistyped::<T>(operation, json).filter(|_| code == ErrorCode::InvalidConfig);
        named.unwrap_or_else(|| Error::new(code, format!("options of {operation}: {error}")))
    })
}

/// The first key whose value is of another type: the message of serde does not name it.
fn mistyped<T: DeserializeOwned>(operation: &str, json: &str) -> Option<Error> {
    let options: Map<String, Value> = serde_json::from_str(json).ok()?;
    // Where every key has a default, each can be looked at alone.
    serde_json::from_str::<T>("{}").ok()?;
    options.into_iter().find_map(|(key, value)| {
        let alone = Value::Object(Map::from_iter([(key.clone(), value.clone())]));
        let error = serde_json::from_value::<T>(alone).err()?.to_string();
        let shown: String = value.to_string().chars().take(60).collect();
        (!error.starts_with("unknown field")).then(|| {
            Error::new(
                ErrorCode::InvalidConfig,
                format!("option `{key}` of {operation} is {shown}: {error}"),
            )
        })
    })
}

/// An option with a value that cannot be.
pub(crate) fn invalid(operation: &str, key: &str, value: &str, why: &str) -> Error {
    Error::new(
        ErrorCode::InvalidConfig,
        format!("option `{key}` of {operation} is {value}: it {why}"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn b1_d30_d31_buffer_is_true_or_an_object_over_the_defaults() {
        let buffer = |json: &str| PushOptions::parse(json).map(|options| options.buffer);
        assert_eq!(buffer("{}").unwrap(), None);
        assert_eq!(buffer(r#"{"buffer":false}"#).unwrap(), None);
        let defaults = buffer(r#"{"buffer":true}"#).unwrap().unwrap();
        assert_eq!((defaults.message_count, defaults.time_millis), (100, 1000));
        let set = buffer(r#"{"buffer":{"messageCount":7,"whenFull":"dropOldest","maxBytes":9}}"#);
        assert_eq!(
            set.unwrap().unwrap(),
            BufferOptions {
                message_count: 7,
                max_bytes: Some(9),
                when_full: WhenFull::DropOldest,
                ..BufferOptions::default()
            }
        );
        let message = |json: &str| buffer(json).unwrap_err().message().to_owned();
        assert!(message(r#"{"buffer":{"messageCuont":7}}"#).contains("messageCuont"));
        assert!(message(r#"{"buffer":{"whenFull":"explode"}}"#).contains("explode"));
        assert!(message(r#"{"buffer":7}"#).contains("buffer"));
    }

    #[test]
    fn b1_buffer_options_out_of_range_are_named() {
        let message = |options: BufferOptions| options.check().unwrap_err().message().to_owned();
        let defaults = BufferOptions::default();
        assert!(defaults.check().is_ok());
        let none = BufferOptions {
            message_count: 0,
            ..defaults.clone()
        };
        assert!(message(none).contains("buffer.messageCount"));
        let small = BufferOptions {
            max_messages: Some(99),
            ..defaults.clone()
        };
        assert!(message(small).contains("buffer.maxMessages"));
        let late = BufferOptions {
            time_millis: u64::MAX,
            ..defaults
        };
        assert!(message(late).contains("buffer.timeMillis"));
    }
}
