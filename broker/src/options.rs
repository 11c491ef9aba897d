//! How a broker is opened.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use crate::warning::WarningHook;

use crate::testing::Fault;

/// What [`Broker::open`](crate::Broker::open) needs to know. The default is a private store in memory, open to everyone.
#[derive(Clone)]
pub struct Options {
    /// Where the messages live.
    pub store: Store,
    /// What a crash of the machine may cost.
    pub durability: Durability,
    /// Secrets of which a request must carry one as `Authorization: Bearer <token>`; each opens everything. With no
    /// token and no [`jwt_secret`](Options::jwt_secret) the broker is open to everyone. `/health`, `/metrics` and
    /// `/metrics/prometheus` always are. An empty token lets nobody in.
    pub tokens: Vec<String>,
    /// The key of JSON Web Tokens (HS256) that are taken beside [`tokens`](Options::tokens). Their claim `role`, or the
    /// list `roles`, opens what it names (`read-only`, `write-only`, `read-write`, `admin`); `sub` becomes the
    /// `producerSub` of the messages they push; `exp`, `nbf` and `iat` are checked with 30 seconds of grace. An empty
    /// key fits no token.
    pub jwt_secret: Option<String>,
    /// Where a new consumer group starts whose first pop names neither `subscriptionMode` nor `subscriptionFrom`.
    pub default_subscription: DefaultSubscription,
    /// The largest request body, in bytes; a larger one is answered with 413. The default is 64 MiB.
    pub max_body_bytes: usize,
    /// Hears of what works otherwise than a setting lets one expect. Without it such warnings are lost.
    pub on_warning: Option<WarningHook>,
    /// Whether a test may steer the broker, by [`Broker::testing`](crate::Broker::testing) and by the routes below
    /// `/testing`.
    pub testing: bool,
    /// What goes wrong from the start. Any fault makes this a broker for [`testing`](Options::testing).
    pub faults: Vec<Fault>,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            store: Store::default(),
            durability: Durability::default(),
            tokens: Vec::new(),
            jwt_secret: None,
            default_subscription: DefaultSubscription::default(),
            max_body_bytes: 64 * 1024 * 1024,
            on_warning: None,
            testing: false,
            faults: Vec::new(),
        }
    }
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Secrets: logs may tell that they are there.
        let tokens: Vec<&str> = self.tokens.iter().map(|_| "***").collect();
        let jwt_secret = self.jwt_secret.as_ref().map(|_| "***");
        f.debug_struct("Options")
            .field("store", &self.store)
            .field("durability", &self.durability)
            .field("tokens", &tokens)
            .field("jwt_secret", &jwt_secret)
            .field("default_subscription", &self.default_subscription)
            .field("max_body_bytes", &self.max_body_bytes)
            .field("on_warning", &self.on_warning.is_some())
            .field("testing", &self.testing)
            .field("faults", &self.faults)
            .finish()
    }
}

/// Where the messages live.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Store {
    /// In memory: everything is gone when the broker is closed.
    #[default]
    Memory,
    /// In an SQLite database, created when it is missing. Its directory must exist.
    File(PathBuf),
}

/// What must have happened before a push or an ack is answered, and so what may be lost.
///
/// In every level, answered work survives `kill -9` of the process: it has been handed to the operating system.
/// The levels differ in what a power failure or a crash of the operating system costs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Durability {
    /// The answer leaves after the data is on the disk (synced). Loses nothing that was answered.
    #[default]
    Full,
    /// The answer leaves when the operating system has the data. A power failure may lose the last answered pushes
    /// and acks (those acked messages come back); the store itself stays sound.
    Normal,
    /// The disk is never waited for, not even to keep the file sound. A power failure may cost the whole store.
    Memory,
}

impl FromStr for Durability {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "full" => Ok(Durability::Full),
            "normal" => Ok(Durability::Normal),
            "memory" => Ok(Durability::Memory),
            other => Err(format!(
                "durability must be full, normal or memory, not {other:?}"
            )),
        }
    }
}

/// Where a new consumer group starts that does not say so itself.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum DefaultSubscription {
    /// At the end: it gets what is pushed from then on.
    #[default]
    New,
    /// At the oldest message that is still stored.
    All,
}

impl FromStr for DefaultSubscription {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "new" => Ok(DefaultSubscription::New),
            "all" => Ok(DefaultSubscription::All),
            other => Err(format!(
                "default subscription must be new or all, not {other:?}"
            )),
        }
    }
}
