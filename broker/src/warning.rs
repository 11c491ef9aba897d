//! What an operator should know although everything works.

use std::collections::HashSet;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

/// Something that works otherwise than its settings may let one expect.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Warning {
    /// A queue asks for `encryptionEnabled`, and this broker keeps payloads as plain text.
    PlainText {
        /// The queue.
        queue: String,
    },
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Warning::PlainText { queue } => write!(
                f,
                "queue {queue:?} has encryptionEnabled, but this broker does not encrypt: its payloads are stored as plain \
                 text; encrypt them before they are pushed, or put the store on an encrypted disk"
            ),
        }
    }
}

/// Receives warnings, each once while the broker is open. Called on the thread that opens the broker or serves the
/// request: it must be quick and must not block.
pub type WarningHook = Arc<dyn Fn(&Warning) + Send + Sync>;

/// Tells each warning once.
pub(crate) struct Warnings {
    hook: Option<WarningHook>,
    plain_text: Mutex<HashSet<String>>,
}

impl Warnings {
    pub(crate) fn new(hook: Option<WarningHook>) -> Warnings {
        Warnings {
            hook,
            plain_text: Mutex::default(),
        }
    }

    pub(crate) fn plain_text(&self, queue: &str) {
        let Some(hook) = &self.hook else { return };
        let mut told = self
            .plain_text
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if told.insert(queue.to_owned()) {
            drop(told);
            let queue = queue.to_owned();
            hook(&Warning::PlainText { queue });
        }
    }
}
