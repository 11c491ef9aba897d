//! The messages that all workers of a consumer together may still hand over.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// A worker takes a share before it polls for as many, and leaves what the poll did not bring to the others: so nothing
/// beyond the total is ever leased.
#[derive(Clone)]
pub(crate) struct Quota(Arc<Inner>);

struct Inner {
    free: Arc<Semaphore>,
    /// What was not handed over.
    left: AtomicU64,
}

/// The largest quota.
pub(super) const MOST: u64 = 1_000_000_000_000;

impl Quota {
    pub(super) fn new(total: u64) -> Quota {
        let total = total.min(MOST);
        Quota(Arc::new(Inner {
            free: Arc::new(Semaphore::new(total as usize)),
            left: AtomicU64::new(total),
        }))
    }

    /// Takes at least one and at most `most`, waiting until there is one. `None`: all has been handed over.
    pub(super) async fn take(&self, most: u64) -> Option<Share> {
        let permit = self.0.free.clone().acquire_owned().await.ok()?;
        Some(self.share(permit, most))
    }

    /// As [`take`](Self::take), if there is one now.
    pub(super) fn try_take(&self, most: u64) -> Option<Share> {
        let permit = self.0.free.clone().try_acquire_owned().ok()?;
        Some(self.share(permit, most))
    }

    fn share(&self, mut permits: OwnedSemaphorePermit, most: u64) -> Share {
        let free = &self.0.free;
        let more = (free.available_permits() as u64).min(most.saturating_sub(1));
        let more = u32::try_from(more).unwrap_or(u32::MAX);
        // Another worker may have been faster; then one is what this one gets.
        if let Ok(more) = free.clone().try_acquire_many_owned(more) {
            permits.merge(more);
        }
        Share {
            quota: self.clone(),
            permits,
        }
    }
}

/// What a worker may hand over.
pub(super) struct Share {
    quota: Quota,
    permits: OwnedSemaphorePermit,
}

impl Share {
    pub(super) fn len(&self) -> u64 {
        self.permits.num_permits() as u64
    }

    /// Leaves all but `count` to the others.
    pub(super) fn keep(&mut self, count: u64) {
        let surplus = self.len().saturating_sub(count);
        drop(self.permits.split(surplus as usize));
    }

    /// Notes that `count` messages are handed over; the last of all ends the quota.
    pub(super) fn spend(&mut self, count: u64) {
        let count = count.min(self.len());
        if let Some(spent) = self.permits.split(count as usize) {
            spent.forget();
        }
        if self.quota.0.left.fetch_sub(count, Ordering::SeqCst) == count {
            self.quota.0.free.close();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn x39_shares_add_up_to_the_total() {
        let quota = Quota::new(10);
        let mut one = quota.take(8).await.unwrap();
        let mut two = quota.take(8).await.unwrap();
        assert_eq!((one.len(), two.len()), (8, 2));
        // Nothing is free, so a third waits for what the first leaves.
        let three = quota.take(8);
        tokio::pin!(three);
        assert!(ready_now(three.as_mut()).await.is_none());
        one.keep(3);
        let mut three = three.await.unwrap();
        assert!(three.len() >= 1);
        one.spend(3);
        two.spend(2);
        three.spend(1);
        drop(three);
        let mut rest = quota.take(100).await.unwrap();
        assert_eq!(rest.len(), 4);
        rest.spend(4);
        assert!(quota.take(1).await.is_none());
    }

    /// The result of a future if it is ready at once.
    async fn ready_now<T>(future: impl Future<Output = T> + Unpin) -> Option<T> {
        tokio::time::timeout(std::time::Duration::ZERO, future)
            .await
            .ok()
    }
}
