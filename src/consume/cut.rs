//! Partitions of which a poll has left messages at the broker, because it had brought as many as it may.
//!
//! Broker 1.3.0 hands out of a queue what it believes to be ready, and may lose sight of such a partition for a second. A poll
//! that names the partition finds it.

use std::collections::VecDeque;
use std::sync::Mutex;

use super::delivery::Delivery;
use crate::runtime::lock;

/// So many are known at most; the oldest are forgotten first.
const MOST: usize = 64;

/// By the names of the partitions, in the order in which they were cut.
#[derive(Default)]
pub(super) struct Cut(Mutex<VecDeque<String>>);

impl Cut {
    /// Notes what a poll for at most that many messages has brought: of the last partition there may be more.
    pub(super) fn note(&self, most: u64, deliveries: &[Delivery]) {
        let partition = |delivery: &Delivery| delivery.claim().source().partition.clone();
        let messages: usize = deliveries.iter().map(|one| one.messages().len()).sum();
        let brought: Vec<String> = deliveries.iter().map(partition).collect();
        let mut cut = lock(&self.0);
        cut.retain(|name| !brought.contains(name));
        if messages as u64 >= most {
            cut.extend(brought.into_iter().last());
            if cut.len() > MOST {
                cut.pop_front();
            }
        }
    }

    /// Takes out the oldest that nobody works on.
    pub(super) fn take(&self, is_busy: impl Fn(&str) -> bool) -> Option<String> {
        let mut cut = lock(&self.0);
        let free = cut.iter().position(|name| !is_busy(name))?;
        cut.remove(free)
    }
}
