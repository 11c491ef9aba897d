//! How fast a consumer polls after failures. A window that was given back comes again at once, so without a pause a handler
//! that fails would be called without end.

use std::sync::Mutex;
use std::time::Duration;

use tokio::time::Instant;

use crate::runtime::lock;
use crate::transport;

const FIRST: Duration = Duration::from_millis(100);
const LAST: Duration = Duration::from_secs(5);

/// The pause of all workers of a consumer.
#[derive(Default)]
pub(super) struct Pace(Mutex<State>);

#[derive(Default)]
struct State {
    next: Option<Duration>,
    until: Option<Instant>,
}

impl Pace {
    /// Something failed: the next poll waits, twice as long as after the failure before. `asked` is what a broker wants.
    pub(super) fn failed(&self, asked: Duration) -> Duration {
        let mut state = lock(&self.0);
        let pause = state.next.unwrap_or(FIRST);
        state.next = Some((pause * 2).min(LAST));
        let pause = transport::jittered(pause).max(asked);
        state.until = Some(Instant::now() + pause);
        pause
    }

    /// Something went well.
    pub(super) fn went_well(&self) {
        *lock(&self.0) = State::default();
    }

    /// When the next poll may begin.
    pub(super) fn until(&self) -> Option<Instant> {
        lock(&self.0).until
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_a_bound_and_begin_anew() {
        let pace = Pace::default();
        assert!(pace.until().is_none());
        let mut last = Duration::ZERO;
        for _ in 0..12 {
            last = pace.failed(Duration::ZERO);
        }
        assert!(
            last >= LAST.mul_f64(0.79) && last <= LAST.mul_f64(1.21),
            "{last:?}"
        );
        assert!(pace.until().is_some());
        pace.went_well();
        assert!(pace.until().is_none());
        assert!(pace.failed(Duration::ZERO) < FIRST * 2);
        assert_eq!(pace.failed(Duration::from_secs(9)), Duration::from_secs(9));
    }
}
