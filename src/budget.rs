//! The bound on what was handed over and is not complete.

use std::sync::{Arc, Mutex};

use tokio::sync::Notify;

use crate::error::{Error, ErrorCode, Result};
use crate::runtime::lock;

/// Counts messages and bytes of the calls in flight against the client's bounds.
#[derive(Clone)]
pub(crate) struct Budget(Arc<Shared>);

struct Shared {
    max_messages: usize,
    max_bytes: usize,
    used: Mutex<Used>,
    room: Notify,
}

#[derive(Default)]
struct Used {
    messages: usize,
    bytes: usize,
}

/// A call's share; given back when dropped.
pub(crate) struct Permit {
    budget: Budget,
    messages: usize,
    bytes: usize,
}

impl Budget {
    pub(crate) fn new(max_messages: usize, max_bytes: usize) -> Budget {
        Budget(Arc::new(Shared {
            max_messages,
            max_bytes,
            used: Mutex::default(),
            room: Notify::new(),
        }))
    }

    /// Takes a share, or fails at once when there is no room. A call larger than the bounds passes when it is alone.
    pub(crate) fn take(&self, messages: usize, bytes: usize) -> Result<Permit> {
        let shared = &*self.0;
        let mut used = lock(&shared.used);
        let fits = used.messages + messages <= shared.max_messages
            && used.bytes + bytes <= shared.max_bytes;
        if !fits && (used.messages > 0 || used.bytes > 0) {
            return Err(Error::new(
                ErrorCode::WouldBlock,
                format!(
                    "{} messages and {} bytes are in flight (maxPendingMessages {}, maxPendingBytes {}); nothing was \
                     kept, wait for queen_client_ready",
                    used.messages, used.bytes, shared.max_messages, shared.max_bytes
                ),
            ));
        }
        used.messages += messages;
        used.bytes += bytes;
        drop(used);
        Ok(Permit {
            budget: self.clone(),
            messages,
            bytes,
        })
    }

    /// The messages and bytes that are taken.
    pub(crate) fn used(&self) -> (usize, usize) {
        let used = lock(&self.0.used);
        (used.messages, used.bytes)
    }

    /// Completes when a call of one message would be taken.
    pub(crate) async fn ready(&self) {
        loop {
            let room = self.0.room.notified();
            tokio::pin!(room);
            room.as_mut().enable();
            {
                let used = lock(&self.0.used);
                if used.messages < self.0.max_messages && used.bytes < self.0.max_bytes {
                    return;
                }
            }
            room.await;
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let shared = &*self.budget.0;
        let mut used = lock(&shared.used);
        used.messages -= self.messages;
        used.bytes -= self.bytes;
        drop(used);
        shared.room.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refuses_beyond_the_bounds_and_gives_back() {
        let budget = Budget::new(2, 100);
        let first = budget.take(1, 90).unwrap();
        assert_eq!(
            budget.take(1, 20).err().unwrap().code(),
            ErrorCode::WouldBlock
        );
        let second = budget.take(1, 10).unwrap();
        assert!(budget.take(1, 0).is_err());
        drop((first, second));
        let large = budget.take(50, 5000).unwrap();
        assert!(
            budget.take(1, 1).is_err(),
            "a call larger than the bounds is alone"
        );
        drop(large);
        assert!(budget.take(1, 1).is_ok());
    }
}
