//! A broker under the hand of a test: faults on demand, the requests that were seen, and the clock.

mod fault;
mod faults;
pub(crate) mod layer;
mod request;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::clock;
use crate::engine::Engine;
use crate::engine::command::Command;
pub use fault::{Action, Fault, FaultError};
pub use faults::ActiveFault;
pub(crate) use faults::Faults;

use crate::work::Work;

/// Why a request has no answer: a fault was asked for. An extension of what [`Broker::handle`](crate::Broker::handle)
/// returns then.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NoAnswer {
    /// The connection is cut before the answer.
    #[error("a fault cuts the connection")]
    Cut,
    /// The connection is cut within the answer.
    #[error("a fault cuts the connection in the middle of the answer")]
    CutInBody,
    /// What comes is no HTTP.
    #[error("a fault answers with bytes that are no HTTP")]
    NotHttp,
}

/// What a test does with its broker: see [`Broker::testing`](crate::Broker::testing). Clones steer the same broker.
///
/// Any thread may use it at any time. It keeps the broker from being closed by its drop alone.
#[derive(Clone)]
pub struct Testing {
    engine: Arc<Engine>,
    faults: Arc<Faults>,
}

impl Testing {
    pub(crate) fn new(engine: &Arc<Engine>) -> Testing {
        Testing {
            engine: engine.clone(),
            faults: Arc::default(),
        }
    }

    pub(crate) fn shared_faults(&self) -> Arc<Faults> {
        self.faults.clone()
    }

    /// Adds a fault behind those that are there. The first fault that takes a request decides.
    pub fn add_fault(&self, fault: Fault) -> Result<ActiveFault, FaultError> {
        let mut added = self.add_faults(vec![fault])?;
        added
            .pop()
            .ok_or_else(|| FaultError::Invalid("none was given".into()))
    }

    /// Adds faults; if one of them cannot be, none is added.
    pub fn add_faults(&self, faults: Vec<Fault>) -> Result<Vec<ActiveFault>, FaultError> {
        self.faults.add(faults)
    }

    /// The faults in place and what they have done, in the order in which they are asked.
    pub fn faults(&self) -> Vec<ActiveFault> {
        self.faults.list()
    }

    /// Removes a fault; the requests that hang on it go their usual way. False when there is none with that id.
    pub fn remove_fault(&self, id: u64) -> bool {
        self.faults.remove(Some(id)) > 0
    }

    /// Removes all faults; the requests that hang on them go their usual way.
    pub fn clear_faults(&self) {
        self.faults.remove(None);
    }

    /// How many requests were seen, by the name of their route; those of `/testing` itself are not counted.
    pub fn requests(&self) -> BTreeMap<&'static str, u64> {
        self.faults.requests()
    }

    /// Counts the requests from zero.
    pub fn reset_requests(&self) {
        self.faults.forget_requests();
    }

    /// Moves the broker's time forward. Leases, delays, retention, the windows of deduplication and the timeouts of
    /// waiting pops follow; when this returns, all that became due by the move has happened.
    ///
    /// The clock stops at the year 9000. There is no way back.
    pub async fn advance_clock(&self, by: Duration) {
        // A broker that is closed has nothing due.
        let _ = self.engine.advance(by).await;
    }

    /// Stops the broker's time: from here on only [`advance_clock`](Self::advance_clock) moves it. Waiting pops wait
    /// on then, whatever timeout they asked for.
    pub fn freeze_clock(&self) {
        self.engine.clock.freeze();
    }

    /// Lets a time that was stopped run on from where it stands.
    pub async fn resume_clock(&self) {
        self.engine.clock.resume();
        self.advance_clock(Duration::ZERO).await;
    }

    /// Whether the broker's time stands still.
    pub fn is_clock_frozen(&self) -> bool {
        self.engine.clock.is_still()
    }

    /// How far the broker's time is ahead of the system's, so that the next broker on the store can go on from there.
    pub fn clock_ahead(&self) -> Duration {
        self.engine.clock.ahead()
    }

    /// The broker's time, in ISO-8601 with microseconds.
    pub fn now(&self) -> String {
        clock::iso(self.engine.clock.now())
    }

    /// What the broker has done so far.
    pub fn work(&self) -> Work {
        self.engine.meter.read()
    }

    /// Where what the broker holds in memory differs from its store: nowhere, or the broker has a fault.
    #[doc(hidden)]
    pub async fn disagreements(&self) -> Vec<String> {
        let asked = self.engine.ask(Command::Compare).await;
        asked.unwrap_or_else(|_| vec!["the broker gives no answer".into()])
    }

    /// Lets go of the requests that hang.
    pub(crate) fn end(&self) {
        self.faults.end();
    }
}

impl std::fmt::Debug for Testing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Testing")
            .field("now", &self.now())
            .field("faults", &self.faults())
            .finish()
    }
}
