//! Every setting of a client: name, type, unit, default and range in one table.

use std::path::PathBuf;

use serde_json::Value;
use url::Url;

use crate::error::{Error, ErrorCode, Result};

/// The settings of a client. Start from [`Config::new`] or [`Config::parse`] and change fields as needed.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Config {
    /// The brokers: one `embedded:` URL, or one or more `http:` / `https:` URLs.
    pub urls: Vec<String>,
    /// Deadline of a call that names none.
    pub timeout_millis: u64,
    /// Token sent as `Authorization: Bearer`. Never logged.
    pub bearer_token: Option<Secret>,
    /// Bound on messages handed over and not complete.
    pub max_pending_messages: usize,
    /// Bound on bytes handed over and not complete.
    pub max_pending_bytes: usize,
    /// Bound on polls waiting at one backend.
    pub max_parked_polls: usize,
    /// How long a cancelled pop's request is kept so that messages that still arrive can be given back.
    pub cancel_grace_millis: u64,
}

/// A text that is not shown by `Debug`.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Wraps a text.
    pub fn new(text: impl Into<String>) -> Secret {
        Secret(text.into())
    }

    /// The text.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("<secret>")
    }
}

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
    apply: fn(&mut Config, &Value) -> std::result::Result<(), String>,
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

fn invalid(message: String) -> Error {
    Error::new(ErrorCode::InvalidConfig, message)
}

impl Config {
    /// All defaults, for one broker.
    pub fn new(url: impl Into<String>) -> Config {
        Config {
            urls: vec![url.into()],
            timeout_millis: 30_000,
            bearer_token: None,
            max_pending_messages: 100_000,
            max_pending_bytes: 128 << 20,
            max_parked_polls: 64,
            cancel_grace_millis: 500,
        }
    }

    /// Reads a URL, a JSON list of URLs, or a JSON object with the keys of [`SETTINGS`]. Unknown keys and values out of
    /// range are errors that name them.
    pub fn parse(source: &str) -> Result<Config> {
        let source = source.trim();
        let mut config = Config {
            urls: Vec::new(),
            ..Config::new("")
        };
        match source.as_bytes().first() {
            None => {
                return Err(invalid(
                    "the configuration is empty; give a URL such as `embedded:`".into(),
                ));
            }
            Some(b'[' | b'{') => {
                let value: Value = serde_json::from_str(source).map_err(|error| {
                    Error::new(ErrorCode::InvalidJson, format!("config: {error}"))
                })?;
                match value {
                    Value::Object(object) => {
                        if object.contains_key("url") && object.contains_key("urls") {
                            return Err(invalid(
                                "config has both `url` and `urls`; give one".into(),
                            ));
                        }
                        for (key, value) in &object {
                            config.set(key, value)?;
                        }
                    }
                    list => config.set("urls", &list)?,
                }
            }
            Some(_) => config.urls = vec![source.to_owned()],
        }
        config.endpoints()?;
        Ok(config)
    }

    fn set(&mut self, key: &str, value: &Value) -> Result<()> {
        let setting = SETTINGS
            .iter()
            .find(|setting| setting.name == key)
            .ok_or_else(|| {
                let known: Vec<_> = SETTINGS.iter().map(|setting| setting.name).collect();
                invalid(format!(
                    "config has the unknown key `{key}`; known keys: {}",
                    known.join(", ")
                ))
            })?;
        (setting.apply)(self, value).map_err(|why| {
            // A secret does not belong into an error message.
            let shown = if key == "bearerToken" {
                "<secret>".into()
            } else {
                value.to_string()
            };
            invalid(format!("config `{key}` is {shown}: {why}"))
        })
    }

    /// What the URLs name.
    pub(crate) fn endpoints(&self) -> Result<Vec<Endpoint>> {
        if self.urls.is_empty() {
            return Err(invalid(
                "config names no broker; set `url` or `urls`".into(),
            ));
        }
        let endpoints = self
            .urls
            .iter()
            .map(|url| Endpoint::parse(url))
            .collect::<Result<Vec<_>>>()?;
        if endpoints.len() > 1
            && endpoints
                .iter()
                .any(|endpoint| matches!(endpoint, Endpoint::Embedded(_)))
        {
            return Err(invalid(
                "an `embedded:` URL cannot be one of several brokers".into(),
            ));
        }
        Ok(endpoints)
    }
}

/// What one URL names.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Endpoint {
    /// The base of an HTTP broker, without a trailing slash.
    Http(String),
    /// A broker inside the process.
    Embedded(Embedded),
}

/// An `embedded:` URL.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Embedded {
    pub(crate) place: Place,
    pub(crate) durability: Durability,
}

/// Where an embedded broker keeps its data, and who shares it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Place {
    /// In memory, for one client.
    Private,
    /// In memory, for all clients of the process that use the name.
    Shared(String),
    /// In a file.
    File(PathBuf),
}

/// When an answer of the embedded broker may leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Durability {
    Full,
    Normal,
    Memory,
}

impl Endpoint {
    fn parse(url: &str) -> Result<Endpoint> {
        if let Some(rest) = url.strip_prefix("embedded:") {
            return Embedded::parse(url, rest).map(Endpoint::Embedded);
        }
        let bad = |why: &str| invalid(format!("url `{url}` {why}"));
        let parsed = Url::parse(url).map_err(|error| bad(&format!("cannot be read: {error}")))?;
        if !matches!(parsed.scheme(), "http" | "https") {
            return Err(bad("must start with http://, https:// or embedded:"));
        }
        if !parsed.username().is_empty() || parsed.password().is_some() {
            return Err(invalid(
                "a url must not carry a user or password; use bearerToken".into(),
            ));
        }
        if parsed.query().is_some() || parsed.fragment().is_some() {
            return Err(bad("must not have a query or fragment"));
        }
        Ok(Endpoint::Http(
            parsed.as_str().trim_end_matches('/').to_owned(),
        ))
    }
}

impl Embedded {
    fn parse(url: &str, rest: &str) -> Result<Embedded> {
        let bad = |why: String| invalid(format!("url `{url}` {why}"));
        let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
        let path = match path.strip_prefix("//") {
            Some(absolute) if absolute.starts_with('/') => absolute,
            Some(_) => {
                return Err(bad(
                    "must have three slashes before an absolute path: embedded:///path/file.db"
                        .into(),
                ));
            }
            None => path,
        };
        let path = percent_encoding::percent_decode_str(path)
            .decode_utf8()
            .map_err(|_| bad("has a path that is not UTF-8".into()))?;
        let mut shared = None;
        let mut durability = Durability::Full;
        for (key, value) in url::form_urlencoded::parse(query.as_bytes()) {
            match (&*key, &*value) {
                ("shared", "") => return Err(bad("has an empty `shared` name".into())),
                ("shared", name) => shared = Some(name.to_owned()),
                ("durability", "full") => durability = Durability::Full,
                ("durability", "normal") => durability = Durability::Normal,
                ("durability", "memory") => durability = Durability::Memory,
                ("durability", other) => {
                    return Err(bad(format!(
                        "has durability `{other}`; it is full, normal or memory"
                    )));
                }
                (other, _) => {
                    return Err(bad(format!(
                        "has the unknown option `{other}`; known: shared, durability"
                    )));
                }
            }
        }
        let place = match (&*path, shared) {
            ("", None) => Place::Private,
            ("", Some(name)) => Place::Shared(name),
            (path, None) => Place::File(PathBuf::from(path)),
            (_, Some(_)) => {
                return Err(bad(
                    "cannot have `shared` with a file: a file is always shared".into(),
                ));
            }
        };
        Ok(Embedded { place, durability })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(source: &str) -> String {
        Config::parse(source).unwrap_err().message().to_owned()
    }

    #[test]
    fn reads_url_list_and_object() {
        assert_eq!(Config::parse("embedded:").unwrap().urls, ["embedded:"]);
        assert_eq!(
            Config::parse(r#"["http://a:1","http://b:1/"]"#)
                .unwrap()
                .urls
                .len(),
            2
        );
        let config =
            Config::parse(r#"{"url":"http://a","timeoutMillis":5,"bearerToken":"t0p"}"#).unwrap();
        assert_eq!(
            (
                config.timeout_millis,
                config.bearer_token.as_ref().unwrap().expose()
            ),
            (5, "t0p")
        );
        assert!(!format!("{config:?}").contains("t0p"));
    }

    #[test]
    fn errors_name_key_and_value() {
        assert!(message(r#"{"url":"http://a","timeoutMilis":5}"#).contains("timeoutMilis"));
        let text = message(r#"{"url":"http://a","timeoutMillis":-7}"#);
        assert!(
            text.contains("timeoutMillis") && text.contains("-7"),
            "{text}"
        );
        assert!(message("ftp://x").contains("ftp://x"));
        assert!(message("[]").contains("urls"));
        assert!(message("{}").contains("url"));
        assert!(message(r#"["embedded:","http://a"]"#).contains("embedded:"));
        assert!(message("embedded:?sharde=x").contains("sharde"));
        assert!(message("embedded://host/x.db").contains("three slashes"));
        assert!(!message("http://user:pass@h").contains("pass@"));
        assert!(!message(r#"{"url":"embedded:","bearerToken":"a b"}"#).contains("a b"));
    }

    #[test]
    fn embedded_places() {
        let place = |url: &str| match Endpoint::parse(url).unwrap() {
            Endpoint::Embedded(embedded) => embedded.place,
            other => panic!("{other:?}"),
        };
        assert_eq!(place("embedded:"), Place::Private);
        assert_eq!(place("embedded:?shared=a"), Place::Shared("a".into()));
        assert_eq!(
            place("embedded:///tmp/a%20b.db?durability=normal"),
            Place::File("/tmp/a b.db".into())
        );
        assert_eq!(place("embedded:./rel.db"), Place::File("./rel.db".into()));
    }

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
