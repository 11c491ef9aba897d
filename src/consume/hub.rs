//! What the consuming side of a client shares: its live claims and its running consumers.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, Weak};

use tokio::time::Instant;

use super::claims::Claims;
use super::consumer::{Shared, StopReason};
use super::lanes::AckLanes;
use crate::core::Core;
use crate::error::Result;
use crate::runtime::lock;
use crate::stats::ConsumerStats;

pub(crate) struct Hub {
    pub(crate) core: Arc<Core>,
    pub(crate) claims: Claims,
    pub(super) acks: AckLanes,
    /// Held while a transaction takes its places.
    pub(crate) commits: Mutex<()>,
    consumers: Mutex<HashMap<u64, Weak<Shared>>>,
}

impl Hub {
    pub(crate) fn new(core: &Arc<Core>) -> Arc<Hub> {
        Arc::new(Hub {
            core: core.clone(),
            claims: Claims::default(),
            acks: AckLanes::default(),
            commits: Mutex::default(),
            consumers: Mutex::default(),
        })
    }

    pub(super) fn add(&self, consumer: &Arc<Shared>) -> Result<()> {
        let mut consumers = lock(&self.consumers);
        // Under the lock, so that a close that comes later sees the consumer.
        self.core.check_accepting()?;
        consumers.insert(consumer.id, Arc::downgrade(consumer));
        Ok(())
    }

    pub(super) fn remove(&self, id: u64) {
        lock(&self.consumers).remove(&id);
    }

    fn consumers(&self) -> Vec<Arc<Shared>> {
        lock(&self.consumers)
            .values()
            .filter_map(Weak::upgrade)
            .collect()
    }

    /// Stops every consumer by the deadline.
    pub(crate) async fn stop_all(&self, deadline: Instant, reason: StopReason) {
        let stops: Vec<_> = self
            .consumers()
            .into_iter()
            .map(|one| tokio::spawn(one.stop_until(deadline, reason)))
            .collect();
        for stop in stops {
            let _ = stop.await;
        }
    }

    /// Returns to the broker what no handler, poller or caller has in hand.
    pub(crate) fn give_back_untaken(&self) {
        self.claims
            .all()
            .iter()
            .for_each(|claim| claim.give_back_untaken());
    }

    /// Lets go of every claim: verdicts answer `Closed` from now on.
    pub(crate) fn abandon_all(&self) {
        self.claims.all().iter().for_each(|claim| claim.abandon());
    }

    /// What has not ended, for an error message.
    pub(crate) fn still_running(&self) -> Vec<String> {
        let consumers = self.consumers();
        consumers
            .iter()
            .filter(|one| !one.is_finished())
            .map(|one| one.still_running())
            .collect()
    }

    /// Consumers that run and what is in hand, for the statistics.
    pub(crate) fn counts(&self) -> ConsumerStats {
        let claims = self.claims.all();
        let running = self.consumers();
        ConsumerStats {
            running: running.iter().filter(|one| !one.is_finished()).count() as u64,
            deliveries: claims.len() as u64,
            messages: claims.iter().map(|claim| claim.messages.len() as u64).sum(),
        }
    }

    /// Completes when every consumer has ended.
    pub(crate) async fn all_finished(&self) {
        for consumer in self.consumers() {
            let _ = consumer.finished().await;
        }
    }
}
