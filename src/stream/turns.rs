//! Polls of one group take turns in a process: a broker of generation 0.7 answers one of those that wait, and forgets the
//! others.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, Weak};

use tokio::sync::{Mutex as Turn, OwnedMutexGuard};

use crate::core::Core;
use crate::runtime::lock;
use crate::sys::PerGeneration;

/// By brokers, stream and group. A forked child starts with none.
static TURNS: PerGeneration<Mutex<HashMap<String, Weak<Turn<()>>>>> = PerGeneration::new();

/// Waits for the turn of a poll; it ends when the result is dropped.
pub(super) async fn turn(core: &Core, stream: &str, group: &str) -> OwnedMutexGuard<()> {
    let mut urls = core.config.urls.clone();
    urls.sort();
    // A broker in the process answers everyone, and may be another one for each client.
    let own = match urls.iter().any(|url| url.starts_with("embedded:")) {
        true => core.id,
        false => 0,
    };
    let key = format!("{own} {urls:?} {stream:?} {group:?}");
    let turn = {
        let mut turns = lock(TURNS.get(Mutex::default));
        turns.retain(|_, turn| turn.strong_count() > 0);
        let known = turns.get(&key).and_then(Weak::upgrade);
        known.unwrap_or_else(|| {
            let turn = Arc::new(Turn::new(()));
            turns.insert(key, Arc::downgrade(&turn));
            turn
        })
    };
    turn.lock_owned().await
}
