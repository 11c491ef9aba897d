//! A broker under the hand of a test.

use std::sync::Arc;
use std::time::Duration;

use crate::clock;
use crate::engine::Engine;

/// What a test does with its broker: see [`Broker::testing`](crate::Broker::testing). Clones steer the same broker.
#[derive(Clone)]
pub struct Testing {
    engine: Arc<Engine>,
}

impl Testing {
    pub(crate) fn new(engine: &Arc<Engine>) -> Testing {
        Testing {
            engine: engine.clone(),
        }
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

    /// The broker's time, in ISO-8601 with microseconds.
    pub fn now(&self) -> String {
        clock::iso(self.engine.clock.now())
    }
}

impl std::fmt::Debug for Testing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Testing").field("now", &self.now()).finish()
    }
}
