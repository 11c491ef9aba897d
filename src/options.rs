//! Options objects: JSON with known keys alone.

use serde::Deserialize;
use serde::de::{DeserializeOwned, IgnoredAny};

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
    /// How to push.
    PushOptions, "push"
}
deadline_options! {
    /// How to renew a lease.
    RenewOptions, "renew"
}
deadline_options! {
    /// How to flush.
    FlushOptions, "flush"
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
        Error::new(code, format!("options of {operation}: {error}"))
    })
}

/// An option with a value that cannot be.
pub(crate) fn invalid(operation: &str, key: &str, value: &str, why: &str) -> Error {
    Error::new(
        ErrorCode::InvalidConfig,
        format!("option `{key}` of {operation} is {value}: it {why}"),
    )
}
