//! The live claims of a client, found by partition and lease.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, Weak};

use super::claim::Claim;
use crate::runtime::lock;

#[derive(Default)]
pub(crate) struct Claims(Mutex<HashMap<(String, String), Weak<Claim>>>);

fn key(claim: &Claim) -> (String, String) {
    let source = claim.source();
    (source.partition_id.clone(), source.lease_id.clone())
}

impl Claims {
    pub(crate) fn insert(&self, claim: &Arc<Claim>) {
        lock(&self.0).insert(key(claim), Arc::downgrade(claim));
    }

    pub(crate) fn remove(&self, claim: &Claim) {
        lock(&self.0).remove(&key(claim));
    }

    /// The claim that an ack by ids speaks of.
    pub(crate) fn find(&self, partition_id: &str, lease_id: &str) -> Option<Arc<Claim>> {
        lock(&self.0)
            .get(&(partition_id.to_owned(), lease_id.to_owned()))?
            .upgrade()
    }

    pub(crate) fn all(&self) -> Vec<Arc<Claim>> {
        lock(&self.0).values().filter_map(Weak::upgrade).collect()
    }
}
