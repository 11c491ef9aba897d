//! How a broker is opened.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

/// What [`Broker::open`](crate::Broker::open) needs to know. The default is a private store in memory.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Options {
    /// Where the messages live.
    pub store: Store,
    /// What a crash of the machine may cost.
    pub durability: Durability,
    /// A secret that requests must carry as `Authorization: Bearer <token>`. `/health`, `/metrics` and
    /// `/metrics/prometheus` are open to everyone.
    pub token: Option<String>,
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The token is a secret: logs may tell that there is one.
        let token = self.token.as_ref().map(|_| "***");
        f.debug_struct("Options")
            .field("store", &self.store)
            .field("durability", &self.durability)
            .field("token", &token)
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
