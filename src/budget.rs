//! The bound on what was handed over and is not complete.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::Notify;

use crate::error::{Error, ErrorCode, Result};

/// Counts messages and bytes of the calls in flight against the client's bounds.
#[derive(Clone)]
pub(crate) struct Budget(Arc<Shared>);

struct Shared {
    max_messages: usize,
    max_bytes: usize,
    messages: AtomicUsize,
    bytes: AtomicUsize,
    room: Notify,
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
            messages: AtomicUsize::new(0),
            bytes: AtomicUsize::new(0),
            room: Notify::new(),
        }))
    }

    /// Takes a share, or fails at once when there is no room. A call larger than the bounds passes when it is alone.
    ///
    /// The share is taken first and given back when it is too much, so that no caller waits for another one. Those that
    /// meet at the bounds may all be refused; they never go beyond them together.
    pub(crate) fn take(&self, messages: usize, bytes: usize) -> Result<Permit> {
        let shared = &*self.0;
        let used = (
            shared.messages.fetch_add(messages, Ordering::SeqCst),
            shared.bytes.fetch_add(bytes, Ordering::SeqCst),
        );
        let permit = Permit {
            budget: self.clone(),
            messages,
            bytes,
        };
        let fits = used.0 + messages <= shared.max_messages && used.1 + bytes <= shared.max_bytes;
        if fits || used == (0, 0) {
            return Ok(permit);
        }
        drop(permit);
        Err(Error::new(
            ErrorCode::WouldBlock,
            format!(
                "{} messages and {} bytes are in flight (maxPendingMessages {}, maxPendingBytes {}); nothing was \
                 kept, wait for queen_client_ready",
                used.0, used.1, shared.max_messages, shared.max_bytes
            ),
        ))
    }

    /// The messages and bytes that are taken.
    pub(crate) fn used(&self) -> (usize, usize) {
        let shared = &*self.0;
        (
            shared.messages.load(Ordering::SeqCst),
            shared.bytes.load(Ordering::SeqCst),
        )
    }

    /// Completes when a call of one message would be taken.
    pub(crate) async fn ready(&self) {
        loop {
            let room = self.0.room.notified();
            tokio::pin!(room);
            room.as_mut().enable();
            let (messages, bytes) = self.used();
            if messages < self.0.max_messages && bytes < self.0.max_bytes {
                return;
            }
            room.await;
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let shared = &*self.budget.0;
        shared.messages.fetch_sub(self.messages, Ordering::SeqCst);
        shared.bytes.fetch_sub(self.bytes, Ordering::SeqCst);
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

    #[test]
    fn many_at_once_never_go_beyond_the_bounds() {
        let budget = Budget::new(3, 300);
        let most = AtomicUsize::new(0);
        let now = AtomicUsize::new(0);
        std::thread::scope(|threads| {
            for _ in 0..4 {
                threads.spawn(|| {
                    for _ in 0..20_000 {
                        let Ok(_permit) = budget.take(1, 100) else {
                            continue;
                        };
                        most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                        now.fetch_sub(1, Ordering::SeqCst);
                    }
                });
            }
        });
        assert!((1..=3).contains(&most.into_inner()));
        assert_eq!(budget.used(), (0, 0));
    }
}
