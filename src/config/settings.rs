//! Every setting: name, type, unit, default and range in one table.

use std::path::PathBuf;

use http::header::{HeaderName, HeaderValue};
use http::uri::Authority;
use serde_json::Value;

use super::{Config, LoadBalancing, Secret};

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
        doc: "The brokers of a cluster. ",
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
        doc: "Deadline of a call that names none: all attempts and pauses end by then. A waiting pop has its own waiting time on top.",
        apply: |config, value| {
            config.timeout_millis = integer(value, 1, 86_400_000)?;
            Ok(())
        },
    },
    Setting {
        name: "requestTimeoutMillis",
        kind: "integer, milliseconds",
        default: "(half of the call's time)",
        range: "1 to 86400000",
        doc: "How long one attempt of a call may take where another can follow. What cannot be repeated, such as a pop, may take all of its call's time.",
        apply: |config, value| {
            config.request_timeout_millis = Some(integer(value, 1, 86_400_000)?);
            Ok(())
        },
    },
    Setting {
        name: "connectTimeoutMillis",
        kind: "integer, milliseconds",
        default: "5000",
        range: "1 to 86400000",
        doc: "How long the making of a connection may take, TLS included.",
        apply: |config, value| {
            config.connect_timeout_millis = integer(value, 1, 86_400_000)?;
            Ok(())
        },
    },
    Setting {
        name: "retryAttempts",
        kind: "integer",
        default: "3",
        range: "1 to 1000",
        doc: "How often a request is tried in all when brokers cannot be reached, break off or answer 5xx. With several brokers each try goes to one after another, without a pause, until one answers. What must not be done twice is not sent again once a broker may have seen it. 4xx are never tried again, but for 429.",
        apply: |config, value| {
            config.retry_attempts = integer(value, 1, 1000)? as u32;
            Ok(())
        },
    },
    Setting {
        name: "retryDelayMillis",
        kind: "integer, milliseconds",
        default: "1000",
        range: "0 to 3600000",
        doc: "Pause before the second try, doubled before each further one, a fifth more or less. A pause that would end after the call's deadline is left out: the call fails with the error it has.",
        apply: |config, value| {
            config.retry_delay_millis = integer(value, 0, 3_600_000)?;
            Ok(())
        },
    },
    Setting {
        name: "retryMaxDelayMillis",
        kind: "integer, milliseconds",
        default: "30000",
        range: "0 to 3600000",
        doc: "The longest such pause, also where the `Retry-After` of a broker asks for more.",
        apply: |config, value| {
            config.retry_max_delay_millis = integer(value, 0, 3_600_000)?;
            Ok(())
        },
    },
    Setting {
        name: "throttledAttempts",
        kind: "integer",
        default: "10",
        range: "1 to 1000",
        doc: "How often a request is sent in all to a broker that answers 429: after the pause that its `Retry-After` names, else 500 ms and double each time. A waiting pop goes on until its deadline.",
        apply: |config, value| {
            config.throttled_attempts = integer(value, 1, 1000)? as u32;
            Ok(())
        },
    },
    Setting {
        name: "enableFailover",
        kind: "boolean",
        default: "true",
        range: "true, false",
        doc: "Whether a request that fails at one broker is tried at the others at once.",
        apply: |config, value| {
            config.enable_failover = boolean(value)?;
            Ok(())
        },
    },
    Setting {
        name: "loadBalancingStrategy",
        kind: "string",
        default: "affinity",
        range: "affinity, round-robin, session",
        doc: "How requests are spread over several brokers. `affinity`: pops of the same queue (or namespace and task), partition and group go to the same broker, whichever client they come from; everything else goes round. `round-robin`: each request goes to the next broker. `session`: all requests of the client go to one broker until that fails.",
        apply: |config, value| {
            config.load_balancing_strategy = LoadBalancing::parse(&text(value)?)
                .ok_or("must be affinity, round-robin or session")?;
            Ok(())
        },
    },
    Setting {
        name: "affinityHashRing",
        kind: "integer",
        default: "128",
        range: "1 to 65536",
        doc: "Virtual nodes for each broker on the ring of the strategy `affinity`. More spread the keys more evenly; all clients of a group should have the same number.",
        apply: |config, value| {
            config.affinity_hash_ring = integer(value, 1, 65_536)? as usize;
            Ok(())
        },
    },
    Setting {
        name: "healthRetryAfterMillis",
        kind: "integer, milliseconds",
        default: "5000",
        range: "1 to 86400000",
        doc: "How long a broker that broke off or answered 5xx is left alone while others answer; then one `GET /health` at a time asks whether it is back. When all have failed, all are tried.",
        apply: |config, value| {
            config.health_retry_after_millis = integer(value, 1, 86_400_000)?;
            Ok(())
        },
    },
    Setting {
        name: "maxAnswerBytes",
        kind: "integer, bytes",
        default: "536870912",
        range: "1024 to 1099511627776",
        doc: "The largest answer that is taken; a larger one fails with `QUEEN_E_BAD_ANSWER`.",
        apply: |config, value| {
            config.max_answer_bytes = integer(value, 1024, 1 << 40)? as usize;
            Ok(())
        },
    },
    Setting {
        name: "bearerToken",
        kind: "string",
        default: "(none)",
        range: "visible ASCII",
        doc: "Token sent as `Authorization: Bearer`. Never logged. It can also be set and asked for while the client runs: `queen_client_set_token`.",
        apply: |config, value| {
            let token = Secret::new(text(value)?);
            if !token.is_token() {
                return Err("must be visible ASCII without spaces".into());
            }
            config.bearer_token = Some(token);
            Ok(())
        },
    },
    Setting {
        name: "headers",
        kind: "object of strings",
        default: "{}",
        range: "header names; no Host, hop-by-hop or body headers",
        doc: "Headers sent with every request, such as those of a proxy. The values are never logged.",
        apply: |config, value| {
            config.headers = headers(value)?;
            Ok(())
        },
    },
    Setting {
        name: "hostHeader",
        kind: "string",
        default: "(the URL's)",
        range: "host or host:port",
        doc: "The `Host` to name, where a proxy tells tenants apart by it. With https:// it is also the name in the TLS handshake, while the URL says where to connect.",
        apply: |config, value| {
            config.host_header = Some(host(value)?);
            Ok(())
        },
    },
    Setting {
        name: "tlsCaFile",
        kind: "string, path",
        default: "(the platform's)",
        range: "PEM",
        doc: "Certificates to trust instead of those that the platform trusts.",
        apply: |config, value| {
            config.tls_ca_file = Some(path(value)?);
            Ok(())
        },
    },
    Setting {
        name: "tlsCertFile",
        kind: "string, path",
        default: "(none)",
        range: "PEM",
        doc: "The client's certificate and those between it and the root, for brokers that want one. Needs `tlsKeyFile`.",
        apply: |config, value| {
            config.tls_cert_file = Some(path(value)?);
            Ok(())
        },
    },
    Setting {
        name: "tlsKeyFile",
        kind: "string, path",
        default: "(none)",
        range: "PEM",
        doc: "The private key of `tlsCertFile`.",
        apply: |config, value| {
            config.tls_key_file = Some(path(value)?);
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
        name: "coalescePushes",
        kind: "boolean",
        default: "true",
        range: "true, false",
        doc: "Whether direct pushes that come while others are in flight leave together in the next request. `false` sends each call in a request of its own.",
        apply: |config, value| {
            config.coalesce_pushes = boolean(value)?;
            Ok(())
        },
    },
    Setting {
        name: "gatherMicros",
        kind: "integer, microseconds",
        default: "200",
        range: "0 to 100000",
        doc: "How long a request waits for the callers whom the answer to the one before has released, where others wait already: that long in all; where one request with all of them is found to be faster than two that take turns, until nobody has come for that long or for an eighth of the time of the last request, whichever is longer, up to half of that time. A caller alone never waits. 0 waits for nobody.",
        apply: |config, value| {
            config.gather_micros = integer(value, 0, 100_000)?;
            Ok(())
        },
    },
    Setting {
        name: "maxPushLanes",
        kind: "integer",
        default: "16",
        range: "1 to 64",
        doc: "Bound on requests of direct pushes in flight; how many of small calls there are below it follows what the brokers answer fastest. One that has taken a second does not count, up to 64 in all. Without `coalescePushes` there is none.",
        apply: |config, value| {
            config.max_push_lanes = integer(value, 1, 64)? as usize;
            Ok(())
        },
    },
    Setting {
        name: "maxBufferedMessages",
        kind: "integer",
        default: "1000000",
        range: "1 to 1000000000",
        doc: "Bound on messages in all buffers together, those on their way included. A full buffer does what its `whenFull` says.",
        apply: |config, value| {
            config.max_buffered_messages = integer(value, 1, 1_000_000_000)? as usize;
            Ok(())
        },
    },
    Setting {
        name: "maxBufferedBytes",
        kind: "integer, bytes",
        default: "268435456",
        range: "1024 to 1099511627776",
        doc: "Bound on what they take: their text, and what each message and each buffer costs to keep. One call alone may be larger.",
        apply: |config, value| {
            config.max_buffered_bytes = integer(value, 1024, 1 << 40)? as usize;
            Ok(())
        },
    },
    Setting {
        name: "statisticsIntervalMillis",
        kind: "integer, milliseconds",
        default: "0",
        range: "0, 100 to 86400000",
        doc: "How often `QUEEN_EVENT_STATISTICS` comes to those who asked for it; 0 never.",
        apply: |config, value| {
            config.statistics_interval_millis = match value.as_u64() {
                Some(0) => 0,
                _ => integer(value, 100, 86_400_000)
                    .map_err(|_| "must be 0 or an integer from 100 to 86400000")?,
            };
            Ok(())
        },
    },
    Setting {
        name: "maxParkedPolls",
        kind: "integer",
        default: "64",
        range: "1 to 100000",
        doc: "Bound on polls that wait at the brokers, for each broker of the list. Further ones queue inside the client, first come, first served, as a part of their own wait; one whose wait is over then only looks.",
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

fn path(value: &Value) -> std::result::Result<PathBuf, String> {
    match text(value)? {
        path if path.is_empty() => Err("must not be empty".into()),
        path => Ok(path.into()),
    }
}

/// Headers of the connection, of the body, and `Host`, which has a setting of its own.
const NOT_YOURS: &[&str] = &[
    "accept-encoding",
    "connection",
    "content-encoding",
    "content-length",
    "content-type",
    "expect",
    "host",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

fn headers(value: &Value) -> std::result::Result<Vec<(String, Secret)>, String> {
    let object = value.as_object().ok_or("must be an object of strings")?;
    let header = |(name, value): (&String, &Value)| {
        let lower = name.to_ascii_lowercase();
        if HeaderName::from_bytes(lower.as_bytes()).is_err() {
            return Err(format!("`{name}` is no name of a header"));
        }
        if lower == "host" {
            return Err("`Host` is set with `hostHeader`".into());
        }
        if NOT_YOURS.contains(&&*lower) {
            return Err(format!(
                "`{name}` belongs to the connection, not to the host"
            ));
        }
        match value.as_str() {
            Some(text) if HeaderValue::from_str(text).is_ok() && text.is_ascii() => {
                Ok((name.clone(), Secret::new(text)))
            }
            _ => Err(format!(
                "the value of `{name}` must be a string of visible ASCII"
            )),
        }
    };
    object.iter().map(header).collect()
}

fn host(value: &Value) -> std::result::Result<String, String> {
    let host = text(value)?;
    match host.parse::<Authority>() {
        Ok(authority) if !host.contains('@') && !authority.host().is_empty() => Ok(host),
        _ => Err("must be host or host:port".into()),
    }
}

fn boolean(value: &Value) -> std::result::Result<bool, String> {
    value
        .as_bool()
        .ok_or_else(|| "must be true or false".into())
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
    fn x2_headers_of_the_connection_are_refused() {
        let read = |json: &str| headers(&serde_json::from_str(json).unwrap());
        let good = read(r#"{"X-Tenant":"a b","Authorization":"Basic x"}"#).unwrap();
        assert_eq!(good.len(), 2);
        assert!(!format!("{good:?}").contains("Basic"));
        for bad in [
            r#"{"Host":"a"}"#,
            r#"{"transfer-Encoding":"chunked"}"#,
            r#"{"Content-Length":"4"}"#,
            r#"{"a b":"c"}"#,
            r#"{"X-A":7}"#,
            "{\"X-A\":\"s3cret\\n\"}",
            r#"["X-A"]"#,
        ] {
            let why = read(bad).unwrap_err();
            assert!(!why.contains("s3cret"), "{why}");
        }
    }

    #[test]
    fn x3_a_host_header_is_a_host_and_no_more() {
        let read = |text: &str| host(&Value::from(text));
        assert_eq!(read("a.example.com:8443").unwrap(), "a.example.com:8443");
        for bad in ["", "a b", "http://a", "u@a", "a/b"] {
            assert!(read(bad).is_err(), "{bad}");
        }
    }

    /// Those of the classic clients.
    #[test]
    fn d1_to_d7_defaults_of_a_client() {
        let config = Config::new("embedded:");
        assert_eq!(config.timeout_millis, 30_000);
        assert_eq!(
            (config.retry_attempts, config.retry_delay_millis),
            (3, 1000)
        );
        assert_eq!(config.load_balancing_strategy, LoadBalancing::Affinity);
        assert_eq!(config.affinity_hash_ring, 128);
        assert!(config.enable_failover);
        assert_eq!(config.health_retry_after_millis, 5000);
    }

    #[test]
    fn defaults_of_the_table_are_the_defaults() {
        let config = Config::new("embedded:");
        for (name, value) in [
            ("timeoutMillis", config.timeout_millis.to_string()),
            (
                "connectTimeoutMillis",
                config.connect_timeout_millis.to_string(),
            ),
            ("retryAttempts", config.retry_attempts.to_string()),
            ("retryDelayMillis", config.retry_delay_millis.to_string()),
            (
                "retryMaxDelayMillis",
                config.retry_max_delay_millis.to_string(),
            ),
            ("throttledAttempts", config.throttled_attempts.to_string()),
            ("enableFailover", config.enable_failover.to_string()),
            (
                "loadBalancingStrategy",
                config.load_balancing_strategy.as_str().into(),
            ),
            ("affinityHashRing", config.affinity_hash_ring.to_string()),
            (
                "healthRetryAfterMillis",
                config.health_retry_after_millis.to_string(),
            ),
            ("maxAnswerBytes", config.max_answer_bytes.to_string()),
            (
                "maxPendingMessages",
                config.max_pending_messages.to_string(),
            ),
            ("maxPendingBytes", config.max_pending_bytes.to_string()),
            (
                "maxBufferedMessages",
                config.max_buffered_messages.to_string(),
            ),
            ("maxBufferedBytes", config.max_buffered_bytes.to_string()),
            ("coalescePushes", config.coalesce_pushes.to_string()),
            ("gatherMicros", config.gather_micros.to_string()),
            ("maxPushLanes", config.max_push_lanes.to_string()),
            (
                "statisticsIntervalMillis",
                config.statistics_interval_millis.to_string(),
            ),
            ("maxParkedPolls", config.max_parked_polls.to_string()),
            ("cancelGraceMillis", config.cancel_grace_millis.to_string()),
        ] {
            let setting = SETTINGS.iter().find(|setting| setting.name == name);
            assert_eq!(setting.unwrap().default, value, "{name}");
        }
    }
}
