//! Every setting: name, type, unit, default and range in one table.

use serde_json::Value;

use super::{Config, Secret};

/// One row of the table of settings, as documented in `docs/CONFIGURATION.md`.
pub struct Setting {
    /// The key in a JSON configuration.
    pub name: &'static str,
    /// The JSON type.
    pub kind: &'static str,
    /// The default, as text.
    pub default: &'static str,
    /// The values that are accepted.
    pub range: &'static str,
    /// What it does.
    pub doc: &'static str,
    pub(super) apply: fn(&mut Config, &Value) -> std::result::Result<(), String>,
}

/// Every setting.
pub const SETTINGS: &[Setting] = &[
    Setting {
        name: "url",
        kind: "string",
        default: "(required, or urls)",
        range: "embedded:…, http://…, https://…",
        doc: "The broker. `embedded:` is a broker inside the process, see below.",
        apply: |config, value| {
            config.urls = vec![text(value)?];
            Ok(())
        },
    },
    Setting {
        name: "urls",
        kind: "array of strings",
        default: "(required, or url)",
        range: "one or more http(s) URLs",
        doc: "The brokers of a cluster. Requests go round-robin; one that cannot be connected to is passed over.",
        apply: |config, value| {
            config.urls = match value {
                Value::Array(items) => items
                    .iter()
                    .map(text)
                    .collect::<std::result::Result<_, _>>()?,
                _ => return Err("must be an array of strings".into()),
            };
            Ok(())
        },
    },
    Setting {
        name: "timeoutMillis",
        kind: "integer, milliseconds",
        default: "30000",
        range: "1 to 86400000",
        doc: "Deadline of a call that names none. A waiting pop has its own waiting time on top.",
        apply: |config, value| {
            config.timeout_millis = integer(value, 1, 86_400_000)?;
            Ok(())
        },
    },
    Setting {
        name: "bearerToken",
        kind: "string",
        default: "(none)",
        range: "visible ASCII",
        doc: "Token sent as `Authorization: Bearer`. Never logged.",
        apply: |config, value| {
            let token = text(value)?;
            if token.is_empty() || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
                return Err("must be visible ASCII without spaces".into());
            }
            config.bearer_token = Some(Secret::new(token));
            Ok(())
        },
    },
    Setting {
        name: "maxPendingMessages",
        kind: "integer",
        default: "100000",
        range: "1 to 100000000",
        doc: "Bound on messages handed over and not complete; beyond it calls fail with `QUEEN_E_WOULD_BLOCK`.",
        apply: |config, value| {
            config.max_pending_messages = integer(value, 1, 100_000_000)? as usize;
            Ok(())
        },
    },
    Setting {
        name: "maxPendingBytes",
        kind: "integer, bytes",
        default: "134217728",
        range: "1024 to 1099511627776",
        doc: "Bound on bytes handed over and not complete. One call alone may be larger.",
        apply: |config, value| {
            config.max_pending_bytes = integer(value, 1024, 1 << 40)? as usize;
            Ok(())
        },
    },
    Setting {
        name: "maxParkedPolls",
        kind: "integer",
        default: "64",
        range: "1 to 100000",
        doc: "Bound on polls that wait at one backend; further ones queue in fair order inside the client.",
        apply: |config, value| {
            config.max_parked_polls = integer(value, 1, 100_000)? as usize;
            Ok(())
        },
    },
    Setting {
        name: "cancelGraceMillis",
        kind: "integer, milliseconds",
        default: "500",
        range: "0 to 60000",
        doc: "How long a cancelled pop's request is kept, so that messages that still arrive are given back.",
        apply: |config, value| {
            config.cancel_grace_millis = integer(value, 0, 60_000)?;
            Ok(())
        },
    },
];

fn text(value: &Value) -> std::result::Result<String, String> {
    value
        .as_str()
        .map(str::to_owned)
        .ok_or_else(|| "must be a string".into())
}

fn integer(value: &Value, least: u64, most: u64) -> std::result::Result<u64, String> {
    value
        .as_u64()
        .filter(|number| (least..=most).contains(number))
        .ok_or_else(|| format!("must be an integer from {least} to {most}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_of_the_table_are_the_defaults() {
        let config = Config::new("embedded:");
        let shown = |name: &str| {
            SETTINGS
                .iter()
                .find(|setting| setting.name == name)
                .unwrap()
                .default
        };
        assert_eq!(shown("timeoutMillis"), config.timeout_millis.to_string());
        assert_eq!(
            shown("maxPendingMessages"),
            config.max_pending_messages.to_string()
        );
        assert_eq!(
            shown("maxPendingBytes"),
            config.max_pending_bytes.to_string()
        );
        assert_eq!(shown("maxParkedPolls"), config.max_parked_polls.to_string());
        assert_eq!(
            shown("cancelGraceMillis"),
            config.cancel_grace_millis.to_string()
        );
    }
}
