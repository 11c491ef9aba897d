//! How a broker is started.

use std::path::PathBuf;
use std::sync::Arc;

use queen_broker::{Address, DefaultSubscription, Durability, Fault, Options, Store, Warning};
use serde_json::Value;

use crate::config::Secret;
use crate::error::{Error, ErrorCode, Result};
use crate::log::{Level, Logger};
use crate::options::invalid;

/// How to start an [`EmbeddedBroker`](super::EmbeddedBroker). The default is a private store in memory that only this
/// process can reach, open to everyone in it, and not steered by a test.
#[derive(Clone, Debug)]
pub struct BrokerOptions {
    /// The name in the URL `embedded:?broker=NAME`. Default: one that no other broker of the process has.
    pub name: Option<String>,
    /// The store, an SQLite file that is created when it is missing; its folder must exist. Default: in memory, and gone
    /// when the broker stops.
    pub data: Option<PathBuf>,
    /// What an answered push survives. Default: a power failure.
    pub durability: Durability,
    /// Where to listen as well: `host:port`, where port 0 stands for a free one, or `unix:/path`. An address that other
    /// machines can reach needs a token or a JWT secret. Default: nowhere.
    pub listen: Vec<String>,
    /// Secrets of which a request must carry one as bearer token. Default: none is needed.
    pub tokens: Vec<Secret>,
    /// The key of JSON Web Tokens (HS256) that are taken beside them. Default: none are.
    pub jwt_secret: Option<Secret>,
    /// Where a consumer group starts that does not say so. Default: with what is pushed from then on.
    pub default_subscription: DefaultSubscription,
    /// The largest request body; a larger one is answered with 413. Default: 64 MiB.
    pub max_body_bytes: usize,
    /// Whether a test may steer the broker: faults and the clock, also by the routes below `/testing` of those who reach
    /// it. Default: no.
    pub testing: bool,
    /// What goes wrong from the start, and again from each restart. Any fault turns `testing` on.
    pub faults: Vec<Fault>,
}

impl Default for BrokerOptions {
    fn default() -> BrokerOptions {
        BrokerOptions {
            name: None,
            data: None,
            durability: Durability::default(),
            listen: Vec::new(),
            tokens: Vec::new(),
            jwt_secret: None,
            default_subscription: DefaultSubscription::default(),
            max_body_bytes: Options::default().max_body_bytes,
            testing: false,
            faults: Vec::new(),
        }
    }
}

type Read<T> = std::result::Result<T, String>;

impl BrokerOptions {
    /// Reads an options object: the fields in camelCase, `durability` as `full`, `normal` or `memory`,
    /// `defaultSubscription` as `new` or `all`, one fault or a list of them. An error names the key and the value.
    ///
    /// ```
    /// let options = queen::BrokerOptions::parse(r#"{"listen": "127.0.0.1:0", "testing": true}"#)?;
    /// assert!(options.testing);
    /// # Ok::<(), queen::Error>(())
    /// ```
    pub fn parse(json: &str) -> Result<BrokerOptions> {
        let value: Value = serde_json::from_str(json).map_err(|error| {
            Error::new(
                ErrorCode::InvalidJson,
                format!("options of broker: {error}"),
            )
        })?;
        let Value::Object(object) = value else {
            return Err(Error::new(
                ErrorCode::InvalidConfig,
                format!("options of broker are {value}, not an object"),
            ));
        };
        let mut options = BrokerOptions::default();
        for (key, value) in object.iter().filter(|(_, value)| !value.is_null()) {
            options.set(key, value).map_err(|why| match why {
                None => Error::new(
                    ErrorCode::InvalidConfig,
                    format!(
                        "options of broker have the unknown key `{key}`; known keys: {}",
                        KEYS.join(", ")
                    ),
                ),
                Some(why) => {
                    let secret = matches!(&**key, "tokens" | "jwtSecret");
                    let shown = if secret {
                        "<secret>".to_owned()
                    } else {
                        value.to_string()
                    };
                    invalid("broker", key, &shown, &why)
                }
            })?;
        }
        Ok(options)
    }

    /// Sets one option; an error without a text says that there is none of that key.
    fn set(&mut self, key: &str, value: &Value) -> std::result::Result<(), Option<String>> {
        match key {
            "name" => self.name = Some(text(value)?),
            "data" => self.data = Some(text(value)?.into()),
            "durability" => {
                let word = text(value)?.parse();
                self.durability = word.map_err(|_| "must be full, normal or memory".to_owned())?;
            }
            "listen" => self.listen = texts(value)?,
            "tokens" => self.tokens = texts(value)?.into_iter().map(Secret::new).collect(),
            "jwtSecret" => self.jwt_secret = Some(Secret::new(text(value)?)),
            "defaultSubscription" => {
                let word = text(value)?.parse();
                self.default_subscription = word.map_err(|_| "must be new or all".to_owned())?;
            }
            "maxBodyBytes" => {
                let bytes = value.as_u64().and_then(|bytes| usize::try_from(bytes).ok());
                self.max_body_bytes = bytes.ok_or("must be a whole number of bytes".to_owned())?;
            }
            "testing" => {
                self.testing = value.as_bool().ok_or("must be true or false".to_owned())?;
            }
            "faults" => {
                let faults = Fault::parse_all(&value.to_string());
                self.faults = faults.map_err(|error| format!("cannot be: {error}"))?;
            }
            _ => return Err(None),
        }
        Ok(())
    }

    /// Whether the options go together, and what the addresses mean.
    pub(super) fn check(&self) -> Result<Vec<Address>> {
        if let Some(name) = &self.name
            && name.is_empty()
        {
            return Err(invalid("broker", "name", "\"\"", "must not be empty"));
        }
        if self.max_body_bytes == 0 {
            return Err(invalid("broker", "maxBodyBytes", "0", "must be at least 1"));
        }
        let bad_secret = |key| invalid("broker", key, "<secret>", "must not be empty");
        if self.tokens.iter().any(|token| token.expose().is_empty()) {
            return Err(bad_secret("tokens"));
        }
        if self
            .jwt_secret
            .as_ref()
            .is_some_and(|key| key.expose().is_empty())
        {
            return Err(bad_secret("jwtSecret"));
        }
        let open = self.tokens.is_empty() && self.jwt_secret.is_none();
        let address = |text: &String| {
            let bad = |why: &str| invalid("broker", "listen", &format!("\"{text}\""), why);
            match text.parse::<Address>() {
                Err(why) => Err(bad(&format!("cannot be: {why}"))),
                Ok(address) if open && !address.is_local() => Err(bad(
                    "can be reached from other machines; give `tokens` or `jwtSecret`, or listen on 127.0.0.1",
                )),
                Ok(address) => Ok(address),
            }
        };
        self.listen.iter().map(address).collect()
    }

    /// What the broker itself is to know.
    pub(super) fn for_broker(&self) -> Options {
        // It belongs to no client, whose log could be told.
        let logger = Logger::from_environment();
        let on_warning = move |warning: &Warning| {
            logger.log(Level::Warn, "broker.warning", &warning.to_string(), &[]);
        };
        Options {
            on_warning: Some(Arc::new(on_warning)),
            store: self.data.clone().map_or(Store::Memory, Store::File),
            durability: self.durability,
            tokens: self
                .tokens
                .iter()
                .map(|token| token.expose().to_owned())
                .collect(),
            jwt_secret: self.jwt_secret.as_ref().map(|key| key.expose().to_owned()),
            default_subscription: self.default_subscription,
            max_body_bytes: self.max_body_bytes,
            testing: self.testing,
            faults: self.faults.clone(),
        }
    }
}

/// The keys of the options object.
const KEYS: [&str; 10] = [
    "name",
    "data",
    "durability",
    "listen",
    "tokens",
    "jwtSecret",
    "defaultSubscription",
    "maxBodyBytes",
    "testing",
    "faults",
];

fn text(value: &Value) -> Read<String> {
    let text = value.as_str().filter(|text| !text.is_empty());
    text.map(str::to_owned)
        .ok_or_else(|| "must be a text that is not empty".to_owned())
}

/// A list of texts; one of them alone stands for a list.
fn texts(value: &Value) -> Read<Vec<String>> {
    let each = match value {
        Value::Array(list) => list.iter().map(text).collect(),
        one => text(one).map(|one| vec![one]),
    };
    each.map_err(|_| "must be a text or a list of texts, none of them empty".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_is_read() {
        let options = BrokerOptions::parse(
            r#"{"name": "n", "data": "/tmp/x.db", "durability": "normal", "listen": ["127.0.0.1:0", "unix:/tmp/s"],
                "tokens": "t", "jwtSecret": "k", "defaultSubscription": "all", "maxBodyBytes": 1000, "testing": true,
                "faults": {"action": "hang"}}"#,
        )
        .unwrap();
        assert_eq!(options.name.as_deref(), Some("n"));
        assert_eq!(options.data, Some("/tmp/x.db".into()));
        assert_eq!(options.durability, Durability::Normal);
        assert_eq!(options.listen, ["127.0.0.1:0", "unix:/tmp/s"]);
        assert_eq!(options.tokens[0].expose(), "t");
        assert_eq!(options.default_subscription, DefaultSubscription::All);
        assert_eq!((options.max_body_bytes, options.testing), (1000, true));
        assert_eq!(options.faults.len(), 1);
        assert_eq!(options.check().unwrap().len(), 2);
        assert!(
            !BrokerOptions::parse(r#"{"testing": null}"#)
                .unwrap()
                .testing
        );
        for key in KEYS {
            let error = BrokerOptions::parse(&format!("{{\"{key}\": {{}}}}")).unwrap_err();
            assert!(
                error.message().contains(&format!("option `{key}`")),
                "{error}"
            );
        }
    }

    #[test]
    fn what_cannot_be_is_named() {
        for (json, key, value) in [
            (r#"{"listne": 1}"#, "`listne`", "known keys: name, data"),
            (r#"{"durability": "often"}"#, "`durability`", "\"often\""),
            (r#"{"maxBodyBytes": -1}"#, "`maxBodyBytes`", "-1"),
            (r#"{"testing": "yes"}"#, "`testing`", "\"yes\""),
            (
                r#"{"faults": [{"action": "explode"}]}"#,
                "`faults`",
                "\"explode\"",
            ),
            (r#"{"listen": [7]}"#, "`listen`", "7"),
            ("[]", "options of broker", "[]"),
        ] {
            let error = BrokerOptions::parse(json).unwrap_err();
            assert_eq!(error.code(), ErrorCode::InvalidConfig);
            let text = error.message();
            assert!(text.contains(key) && text.contains(value), "{json}: {text}");
        }
        let checked = |json| BrokerOptions::parse(json).unwrap().check().unwrap_err();
        for (json, key, value) in [
            (r#"{"listen": "here"}"#, "`listen`", "\"here\""),
            (r#"{"listen": "0.0.0.0:0"}"#, "`listen`", "0.0.0.0:0"),
            (r#"{"maxBodyBytes": 0}"#, "`maxBodyBytes`", "0"),
        ] {
            let text = checked(json).message().to_owned();
            assert!(text.contains(key) && text.contains(value), "{json}: {text}");
        }
        let secret = BrokerOptions::parse(r#"{"tokens": ["s3cret", ""]}"#).unwrap_err();
        assert!(!secret.message().contains("s3cret"), "{secret}");
        let code = BrokerOptions::parse("{").unwrap_err().code();
        assert_eq!(code, ErrorCode::InvalidJson);
    }
}
