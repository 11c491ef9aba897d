//! A lease and the task that renews it from the pop until the broker has answered the last verdict under it.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use super::claim::Claim;
use super::hub::Hub;
use crate::error::{ErrorCode, Result};
use crate::log::Level;
use crate::protocol::lease;
use crate::runtime::lock;
use crate::transport::{self, Answer, Repeat, Request};

pub(crate) struct Lease {
    id: String,
    /// Claims under the lease that have not ended.
    live: AtomicUsize,
    claims: Mutex<Vec<Weak<Claim>>>,
    over: Notify,
}

/// How a lease is kept alive.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Renew {
    /// The length of the lease.
    pub(crate) lease_seconds: u64,
    /// After that long it is renewed no more and its messages are lost to their handlers.
    pub(crate) max_handling_seconds: u64,
    /// Whether the broker may have given it another length, which a first renewal sets right.
    pub(crate) unsure: bool,
}

/// When the first renewal is due where the length of the lease is not sure.
const EARLY: Duration = Duration::from_secs(2);

impl Lease {
    pub(crate) fn new(id: String) -> Arc<Lease> {
        Arc::new(Lease {
            id,
            live: AtomicUsize::new(0),
            claims: Mutex::default(),
            over: Notify::new(),
        })
    }

    pub(crate) fn id(&self) -> &str {
        &self.id
    }

    /// Adds a claim that the lease covers.
    pub(crate) fn cover(&self, claim: &Arc<Claim>) {
        self.live.fetch_add(1, Ordering::SeqCst);
        lock(&self.claims).push(Arc::downgrade(claim));
    }

    /// A claim has ended.
    pub(crate) fn release(&self) {
        if self.live.fetch_sub(1, Ordering::SeqCst) == 1 {
            self.over.notify_one();
        }
    }

    fn claims(&self) -> Vec<Arc<Claim>> {
        let claims = lock(&self.claims);
        claims.iter().filter_map(Weak::upgrade).collect()
    }

    /// Renews the lease at a third of its length until all its claims have ended.
    pub(crate) async fn keep(self: Arc<Self>, hub: Arc<Hub>, renew: Renew) {
        let length = Duration::from_secs(renew.lease_seconds);
        let interval = length / 3;
        let give_up = transport::after(renew.max_handling_seconds.saturating_mul(1000));
        let mut pause = match renew.unsure {
            true => interval.min(EARLY),
            false => interval,
        };
        let mut good_until = Instant::now() + length;
        while self.live.load(Ordering::SeqCst) > 0 {
            let next = (Instant::now() + pause).min(give_up);
            tokio::select! {
                _ = self.over.notified() => continue,
                _ = tokio::time::sleep_until(next) => {}
            }
            if Instant::now() >= give_up {
                return self.claims().iter().for_each(|claim| claim.lose());
            }
            let began = Instant::now();
            // A verdict on its way may end its claim before or after the renewal; those tell nothing.
            let waiting = Self::waiting(self.claims());
            let renewal = self.extend(&hub, renew.lease_seconds, interval).await;
            let waiting = Self::waiting(waiting);
            pause = match renewal {
                Ok(renewed) => {
                    if renewed.is_some_and(|renewed| renewed < waiting.len() as u64) {
                        waiting.iter().for_each(|claim| claim.doubt(false));
                    }
                    good_until = began + length;
                    interval
                }
                Err(error) if error.code() == ErrorCode::LeaseLost => {
                    return waiting.iter().for_each(|claim| claim.doubt(true));
                }
                Err(error) => {
                    hub.core.logger.log(
                        Level::Warn,
                        "consumer.renew",
                        "a lease could not be renewed and is tried again",
                        &[
                            ("leaseId", self.id.clone().into()),
                            ("error", error.to_string().into()),
                        ],
                    );
                    if Instant::now() >= good_until {
                        waiting.iter().for_each(|claim| claim.doubt(false));
                    }
                    interval.min(Duration::from_secs(1))
                }
            };
        }
    }

    fn waiting(mut claims: Vec<Arc<Claim>>) -> Vec<Arc<Claim>> {
        claims.retain(|claim| claim.is_waiting());
        claims
    }

    /// Sends one renewal; tells how many claims the broker has renewed, if it says so.
    async fn extend(&self, hub: &Hub, seconds: u64, patience: Duration) -> Result<Option<u64>> {
        let deadline = Instant::now() + patience.max(Duration::from_secs(1));
        let request = Request::post(lease::path(&self.id)?, lease::body(seconds), deadline)
            .repeat(Repeat::Safe);
        let answer = hub.core.send(&request).await.and_then(Answer::success);
        Ok(hub.core.read_renewal(&self.id, answer)?.renewed)
    }
}
