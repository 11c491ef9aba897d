//! How many messages a poll asks for where the user does not say: about as many as the handlers take in a moment.
//!
//! The first poll asks for one message. From then on the time that handlers have taken for a message says how many fit into
//! [`MOMENT`]; a size grows by a factor of [`GROWTH`] at most, so that a guess from few messages cannot lease many, and is
//! bounded in messages and bytes.

use std::sync::Mutex;
use std::time::Duration;

use crate::runtime::lock;

/// The time for which a poll fetches. Far shorter than any lease, and far longer than a request.
const MOMENT: Duration = Duration::from_millis(250);
const GROWTH: u64 = 8;
const MOST_MESSAGES: u64 = 1000;
const MOST_BYTES: f64 = 4.0 * 1024.0 * 1024.0;
/// The most partitions of a poll: each is one more cursor for the broker to move.
const MOST_PARTITIONS: u64 = 100;

pub(super) struct Sizing(Mutex<State>);

struct State {
    size: u64,
    /// What a message took, in seconds, and how long its payload was: the last batch counts half.
    seconds: f64,
    bytes: f64,
    /// Whether the brokers seen so far take messages back without a charge. Otherwise nothing is fetched ahead of its handler.
    gives_back: bool,
}

impl Sizing {
    pub(super) fn new() -> Sizing {
        Sizing(Mutex::new(State {
            size: 1,
            seconds: 0.0,
            bytes: 0.0,
            gives_back: true,
        }))
    }

    /// How many messages the next poll asks for.
    pub(super) fn messages(&self) -> u64 {
        let state = lock(&self.0);
        if state.gives_back { state.size } else { 1 }
    }

    /// From how many partitions that many may come.
    pub(super) fn partitions(messages: u64) -> u64 {
        messages.min(MOST_PARTITIONS)
    }

    /// Whether a poll may run ahead of the handlers.
    pub(super) fn may_prefetch(&self) -> bool {
        lock(&self.0).gives_back
    }

    /// A poll has brought messages of a broker that takes them back or not.
    pub(super) fn note_broker(&self, gives_back: bool) {
        lock(&self.0).gives_back &= gives_back;
    }

    /// That many messages with that many bytes were handled in that time.
    pub(super) fn note(&self, messages: u64, bytes: usize, took: Duration) {
        if messages == 0 {
            return;
        }
        let mut state = lock(&self.0);
        let half = |before: f64, now: f64| {
            if before == 0.0 {
                now
            } else {
                (before + now) / 2.0
            }
        };
        state.seconds = half(state.seconds, took.as_secs_f64() / messages as f64);
        state.bytes = half(state.bytes, bytes as f64 / messages as f64);
        let by_time = MOMENT.as_secs_f64() / state.seconds.max(1e-9);
        let by_bytes = MOST_BYTES / state.bytes.max(1.0);
        let most = (state.size * GROWTH).min(MOST_MESSAGES);
        state.size = (by_time.min(by_bytes) as u64).clamp(1, most);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_follow_the_handlers_and_grow_step_by_step() {
        let sizing = Sizing::new();
        let mut sizes = Vec::new();
        for _ in 0..7 {
            let size = sizing.messages();
            sizes.push(size);
            sizing.note(
                size,
                100 * size as usize,
                Duration::from_micros(10) * size as u32,
            );
        }
        assert_eq!(sizes, [1, 8, 64, 512, 1000, 1000, 1000]);
        // Handlers that have become slow are seen within two polls.
        sizing.note(1000, 100_000, Duration::from_secs(1000));
        assert_eq!(sizing.messages(), 1);
        // What takes 10 ms comes by the dozen.
        (0..20).for_each(|_| sizing.note(10, 1000, Duration::from_millis(100)));
        assert!(
            (24..=25).contains(&sizing.messages()),
            "{}",
            sizing.messages()
        );
    }

    #[test]
    fn large_messages_come_in_small_numbers() {
        let sizing = Sizing::new();
        for _ in 0..10 {
            sizing.note(4, 4 << 20, Duration::from_micros(4));
        }
        assert_eq!(sizing.messages(), 4);
        sizing.note(1, 1 << 30, Duration::from_micros(1));
        assert_eq!(sizing.messages(), 1);
    }

    #[test]
    fn a_broker_that_takes_nothing_back_is_asked_for_one() {
        let sizing = Sizing::new();
        sizing.note(1, 1, Duration::from_micros(1));
        sizing.note_broker(true);
        assert!(sizing.messages() > 1 && sizing.may_prefetch());
        sizing.note_broker(false);
        assert!(sizing.messages() == 1 && !sizing.may_prefetch());
    }

    #[test]
    fn partitions_are_bounded() {
        assert_eq!(Sizing::partitions(1), 1);
        assert_eq!(Sizing::partitions(1000), MOST_PARTITIONS);
    }
}
