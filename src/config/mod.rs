//! The configuration of a client.

mod endpoint;
mod settings;

use std::path::PathBuf;

use serde_json::Value;

#[cfg(feature = "embedded")]
pub(crate) use self::endpoint::{Durability, Place};
pub(crate) use self::endpoint::{Embedded, Endpoint, shown};
pub use self::settings::{SETTINGS, Setting};

use crate::error::{Error, ErrorCode, Result};

/// The settings of a client. Start from [`Config::new`] or [`Config::parse`] and change fields as needed.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Config {
    /// The brokers: one `embedded:` URL, or one or more `http:` / `https:` URLs.
    pub urls: Vec<String>,
    /// Deadline of a call that names none, with all its repeats and pauses.
    pub timeout_millis: u64,
    /// How long one attempt may take where another may follow; half of the call's time when missing.
    pub request_timeout_millis: Option<u64>,
    /// How long the making of a connection may take, TLS included.
    pub connect_timeout_millis: u64,
    /// How often a request is tried in all, each time at every broker that is not known to be down.
    pub retry_attempts: u32,
    /// Pause before the second attempt; doubled before each further one.
    pub retry_delay_millis: u64,
    /// The longest pause before an attempt, also where a broker asks for more.
    pub retry_max_delay_millis: u64,
    /// How often a request is sent in all while a broker answers 429.
    pub throttled_attempts: u32,
    /// Whether a request that fails at one broker is tried at the others.
    pub enable_failover: bool,
    /// How requests are spread over several brokers.
    pub load_balancing_strategy: LoadBalancing,
    /// Virtual nodes for each broker on the ring of the strategy `affinity`.
    pub affinity_hash_ring: usize,
    /// How long a broker that has failed is left alone before it is asked how it is.
    pub health_retry_after_millis: u64,
    /// Headers sent with every request, such as those of a proxy. The values are never logged.
    pub headers: Vec<(String, Secret)>,
    /// The `Host` to name, as `host` or `host:port`, where that is not the address to connect to.
    pub host_header: Option<String>,
    /// Certificates (PEM) to trust instead of those of the platform.
    pub tls_ca_file: Option<PathBuf>,
    /// The client's certificate chain (PEM), and
    pub tls_cert_file: Option<PathBuf>,
    /// its private key (PEM).
    pub tls_key_file: Option<PathBuf>,
    /// The largest answer that is taken.
    pub max_answer_bytes: usize,
    /// Token sent as `Authorization: Bearer`. Never logged.
    pub bearer_token: Option<Secret>,
    /// Bound on messages handed over and not complete.
    pub max_pending_messages: usize,
    /// Bound on bytes handed over and not complete.
    pub max_pending_bytes: usize,
    /// Whether direct pushes that come while others are in flight share a request.
    pub coalesce_pushes: bool,
    /// How long a request of such pushes waits for the callers that the answer before it has released.
    pub gather_micros: u64,
    /// Bound on requests of direct pushes in flight.
    pub max_push_lanes: usize,
    /// Bound on messages in all buffers of the client together.
    pub max_buffered_messages: usize,
    /// Bound on their bytes.
    pub max_buffered_bytes: usize,
    /// How often the statistics are told to those who asked for them; 0 never.
    pub statistics_interval_millis: u64,
    /// Bound on polls waiting at one backend.
    pub max_parked_polls: usize,
    /// How long a cancelled pop's request is kept so that messages that still arrive can be given back.
    pub cancel_grace_millis: u64,
}

/// How requests are spread over several brokers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum LoadBalancing {
    /// Pops of the same queue (or namespace and task), partition and group go to the same broker, whichever client they
    /// come from, so that they find its caches warm. Everything else goes round.
    Affinity,
    /// Each request goes to the next broker.
    RoundRobin,
    /// All requests of the client go to one broker until that fails.
    Session,
}

impl LoadBalancing {
    /// The word in a configuration: `affinity`, `round-robin` or `session`.
    pub fn as_str(self) -> &'static str {
        match self {
            LoadBalancing::Affinity => "affinity",
            LoadBalancing::RoundRobin => "round-robin",
            LoadBalancing::Session => "session",
        }
    }

    fn parse(word: &str) -> Option<LoadBalancing> {
        [
            LoadBalancing::Affinity,
            LoadBalancing::RoundRobin,
            LoadBalancing::Session,
        ]
        .into_iter()
        .find(|strategy| strategy.as_str() == word)
    }
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

    /// Whether it can be a bearer token: visible ASCII without spaces.
    pub(crate) fn is_token(&self) -> bool {
        !self.0.is_empty() && self.0.bytes().all(|byte| byte.is_ascii_graphic())
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("<secret>")
    }
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
            request_timeout_millis: None,
            connect_timeout_millis: 5_000,
            retry_attempts: 3,
            retry_delay_millis: 1_000,
            retry_max_delay_millis: 30_000,
            throttled_attempts: 10,
            enable_failover: true,
            load_balancing_strategy: LoadBalancing::Affinity,
            affinity_hash_ring: 128,
            health_retry_after_millis: 5_000,
            headers: Vec::new(),
            host_header: None,
            tls_ca_file: None,
            tls_cert_file: None,
            tls_key_file: None,
            max_answer_bytes: 512 << 20,
            bearer_token: None,
            max_pending_messages: 100_000,
            max_pending_bytes: 128 << 20,
            coalesce_pushes: true,
            gather_micros: 200,
            max_push_lanes: 16,
            max_buffered_messages: 1_000_000,
            max_buffered_bytes: 256 << 20,
            statistics_interval_millis: 0,
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
        config.check()?;
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
            let told = match key {
                "bearerToken" | "headers" => "<secret>".into(),
                "url" | "urls" => shown(&value.to_string()),
                _ => value.to_string(),
            };
            invalid(format!("config `{key}` is {told}: {why}"))
        })
    }

    /// Whether the settings go together.
    pub(crate) fn check(&self) -> Result<()> {
        let endpoints = self.endpoints()?;
        let secure = |endpoint: &Endpoint| matches!(endpoint, Endpoint::Http(base) if base.starts_with("https:"));
        let files = [
            ("tlsCaFile", &self.tls_ca_file),
            ("tlsCertFile", &self.tls_cert_file),
            ("tlsKeyFile", &self.tls_key_file),
        ];
        for (key, file) in files {
            if let Some(file) = file
                && !endpoints.iter().any(secure)
            {
                return Err(invalid(format!(
                    "config `{key}` is {}, but no URL begins with https://",
                    file.display()
                )));
            }
        }
        if self.tls_cert_file.is_some() != self.tls_key_file.is_some() {
            return Err(invalid(
                "config needs both `tlsCertFile` and `tlsKeyFile`, or none of them".into(),
            ));
        }
        let names_authorization =
            |(name, _): &(String, Secret)| name.eq_ignore_ascii_case("authorization");
        if self.bearer_token.is_some() && self.headers.iter().any(names_authorization) {
            return Err(invalid(
                "config has both `bearerToken` and an Authorization in `headers`; give one".into(),
            ));
        }
        if let Some(host) = &self.host_header
            && host.parse::<std::net::IpAddr>().is_ok()
            && endpoints.iter().any(secure)
        {
            return Err(invalid(format!(
                "config `hostHeader` is {host}: with https:// it must be a name"
            )));
        }
        Ok(())
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
        for (place, endpoint) in endpoints.iter().enumerate() {
            if endpoints[..place].contains(endpoint) {
                return Err(invalid(format!("`urls` names {} twice", self.urls[place])));
            }
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    fn message(source: &str) -> String {
        Config::parse(source).unwrap_err().message().to_owned()
    }

    #[test]
    fn m1_m2_m3_reads_url_list_and_object() {
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
    fn l12_an_unknown_strategy_is_an_error() {
        let text = message(r#"{"url":"http://a","loadBalancingStrategy":"fastest"}"#);
        assert!(
            text.contains("loadBalancingStrategy") && text.contains("fastest"),
            "{text}"
        );
        let config =
            Config::parse(r#"{"url":"http://a","loadBalancingStrategy":"session"}"#).unwrap();
        assert_eq!(config.load_balancing_strategy, LoadBalancing::Session);
        assert_eq!(
            Config::new("http://a").load_balancing_strategy,
            LoadBalancing::Affinity
        );
    }

    #[test]
    fn m1_m4_c62_errors_name_key_and_value() {
        assert!(message(r#"{"url":"http://a","timeoutMilis":5}"#).contains("timeoutMilis"));
        let text = message(r#"{"url":"http://a","timeoutMillis":-7}"#);
        assert!(
            text.contains("timeoutMillis") && text.contains("-7"),
            "{text}"
        );
        assert!(message("ftp://x").contains("ftp://x"));
        assert!(message("httpfoo").contains("httpfoo"));
        assert!(message("[]").contains("urls"));
        assert!(message("{}").contains("url"));
        assert!(message(r#"["http://a:1/","http://a:1"]"#).contains("http://a:1"));
        assert!(message(r#"["embedded:","http://a"]"#).contains("embedded:"));
        assert!(message("embedded:?sharde=x").contains("sharde"));
        assert!(message("embedded://host/x.db").contains("three slashes"));
        assert!(!message("http://user:pass@h").contains("pass@"));
        for broken in [
            r#"{"url":["http://u:pass@h"]}"#,
            r#"{"urls":[5,"http://u:pass@h"]}"#,
        ] {
            assert!(!message(broken).contains("pass"), "{}", message(broken));
        }
        assert!(!message(r#"{"url":"embedded:","bearerToken":"a b"}"#).contains("a b"));
    }
}
