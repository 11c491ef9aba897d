//! Why a broker could not be opened.

use std::path::PathBuf;

use crate::testing::FaultError;

/// The reasons for which [`Broker::open`](crate::Broker::open) fails.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// Another process has the store file open.
    #[error(
        "{} is in use by {}; a store file has one owner at a time: close that process, or share the store \
         between processes with `queen-broker serve --data {}`",
        path.display(), owner(*owner_pid), path.display()
    )]
    Locked {
        /// The store file.
        path: PathBuf,
        /// The process that holds the lock, when the system tells it.
        owner_pid: Option<u32>,
    },
    /// What is there is no store that this version can use: a directory, a file or database of somebody else, a later
    /// layout, a log without its store.
    #[error("{} cannot be used as a store: {reason}", path.display())]
    Schema {
        /// The store file.
        path: PathBuf,
        /// What was found and what was expected.
        reason: String,
    },
    /// The file or its directory could not be reached.
    #[error(
        "cannot open {}: {source}; a store is a file with others beside it, so its directory must exist and both must be \
         writable", path.display()
    )]
    Io {
        /// The file that could not be opened.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// SQLite refused the file: damaged, not a database, full disk.
    #[error("cannot open the store {path}: {message}")]
    Store {
        /// The store file, or `:memory:`.
        path: String,
        /// What SQLite said.
        message: String,
    },
    /// One of the faults to start with cannot be.
    #[error(transparent)]
    Fault(#[from] FaultError),
}

fn owner(pid: Option<u32>) -> String {
    match pid {
        Some(pid) => format!("process {pid}"),
        None => "another process".into(),
    }
}
