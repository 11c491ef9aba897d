//! Where callers hand over direct pushes, and where the state of a producer is kept. No caller waits there for another one:
//! who finds somebody at work lays its push down, and whoever is at work takes it in before leaving.

use std::sync::atomic::{AtomicIsize, Ordering, fence};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Mutex, MutexGuard, TryLockError};

use tokio::time::Instant;

use super::address::Address;
use super::state::State;
use crate::pending::Pending;
use crate::protocol::push::{Push, PushResult};
use crate::runtime::lock;

/// A direct push that is in no line yet.
pub(super) struct Arrival {
    pub(super) address: Address,
    pub(super) push: Push,
    pub(super) pending: Pending<Vec<PushResult>>,
    pub(super) deadline: Instant,
}

pub(super) struct Desk {
    state: Mutex<Kept>,
    arrivals: Sender<Arrival>,
    /// How many of them lie there; for a moment less than none, when one is taken before it is counted.
    waiting: AtomicIsize,
}

pub(super) struct Kept {
    pub(super) state: State,
    arrivals: Receiver<Arrival>,
}

impl Desk {
    pub(super) fn new(state: State) -> Desk {
        let (sender, receiver) = mpsc::channel();
        Desk {
            state: Mutex::new(Kept {
                state,
                arrivals: receiver,
            }),
            arrivals: sender,
            waiting: AtomicIsize::new(0),
        }
    }

    /// Waits for the state. Whoever has let go of it calls [`again`](Desk::again) until there is nothing left.
    pub(super) fn open(&self) -> MutexGuard<'_, Kept> {
        lock(&self.state)
    }

    /// The same, unless somebody else has it.
    pub(super) fn try_open(&self) -> Option<MutexGuard<'_, Kept>> {
        match self.state.try_lock() {
            Ok(kept) => Some(kept),
            Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        }
    }

    /// Lays a push down. The caller then calls [`again`](Desk::again): nobody may be there any more.
    pub(super) fn lay_down(&self, arrival: Arrival) {
        // The receiver lives as long as the sender.
        let _ = self.arrivals.send(arrival);
        self.waiting.fetch_add(1, Ordering::SeqCst);
    }

    /// The state, if something lies there and nobody is at work. Either the one who lays down finds that nobody is, or the
    /// one who leaves finds what was laid down: each writes first and looks then.
    pub(super) fn again(&self) -> Option<MutexGuard<'_, Kept>> {
        fence(Ordering::SeqCst);
        match self.waiting.load(Ordering::SeqCst) > 0 {
            true => self.try_open(),
            false => None,
        }
    }

    /// The next push that was laid down.
    pub(super) fn take(&self, kept: &mut Kept) -> Option<Arrival> {
        let arrival = kept.arrivals.try_recv().ok()?;
        self.waiting.fetch_sub(1, Ordering::SeqCst);
        Some(arrival)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::AtomicUsize;
    use std::time::Duration;

    use super::super::Producer;
    use super::super::lanes::Lanes;
    use super::super::state::Bounds;
    use super::*;
    use crate::config::Config;
    use crate::core::{Core, Phase};
    use crate::error::ErrorCode;
    use crate::options::PushOptions;
    use crate::pending::WaitsFor;
    use crate::protocol::push::Item;

    #[test]
    fn nothing_that_was_laid_down_stays_there() {
        const EACH: usize = 20_000;
        let bounds = Bounds {
            messages: 1,
            bytes: 1,
        };
        let desk = Desk::new(State::new(bounds, Lanes::for_tests()));
        let (laid_down, taken) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let take_all = |kept: &mut Kept| {
            while desk.take(kept).is_some() {
                taken.fetch_add(1, Ordering::SeqCst);
            }
        };
        let leave = |kept| {
            drop::<MutexGuard<'_, Kept>>(kept);
            while let Some(mut kept) = desk.again() {
                take_all(&mut kept);
            }
        };
        let work = || {
            for _ in 0..EACH {
                if let Some(mut kept) = desk.try_open() {
                    take_all(&mut kept);
                    leave(kept);
                    continue;
                }
                desk.lay_down(Arrival {
                    address: Address::new("q", "p"),
                    push: Push::new("q", "p", &[Item::raw("1").unwrap()]).unwrap(),
                    pending: Pending::new(WaitsFor::Broker),
                    deadline: Instant::now(),
                });
                laid_down.fetch_add(1, Ordering::SeqCst);
                if let Some(mut kept) = desk.again() {
                    take_all(&mut kept);
                    leave(kept);
                }
            }
        };
        std::thread::scope(|threads| {
            for _ in 0..4 {
                threads.spawn(work);
            }
        });
        let laid_down = laid_down.into_inner();
        assert!(laid_down > 0, "the threads never met");
        assert_eq!(taken.load(Ordering::SeqCst), laid_down);
        assert_eq!(desk.waiting.load(Ordering::SeqCst), 0);
    }

    /// A producer whose broker never answers.
    fn producer() -> (Arc<Core>, Arc<Producer>, std::net::TcpListener) {
        let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", silent.local_addr().unwrap());
        let core = Core::new(Config::new(url)).unwrap();
        let producer = Producer::new(&core);
        (core, producer, silent)
    }

    fn push(producer: &Arc<Producer>) -> Pending<Vec<PushResult>> {
        producer.push(
            "q",
            "p",
            &[Item::raw("1").unwrap()],
            &PushOptions::default(),
        )
    }

    #[test]
    fn a_push_does_not_wait_for_whoever_is_at_work() {
        let (_core, producer, _silent) = producer();
        let kept = producer.desk.open();
        let first = push(&producer);
        let cancelled = push(&producer);
        cancelled.cancel();
        let last = push(&producer);
        assert_eq!(kept.state.direct_messages(), 0);
        drop(producer.leave(kept, Instant::now()));
        // The one that was cancelled takes no place.
        assert_eq!(producer.unsettled_direct(), 2);
        let error = cancelled.wait(Duration::ZERO).unwrap_err();
        assert_eq!(error.code(), ErrorCode::Cancelled);
        assert!(!first.is_complete() && !last.is_complete());
        assert_eq!(producer.abort_rest(), 2);
        assert!(first.is_complete() && last.is_complete());
        assert_eq!(producer.unsettled_direct(), 0);
    }

    #[test]
    fn a_push_that_meets_the_end_of_the_client_is_refused() {
        let (core, producer, _silent) = producer();
        let kept = producer.desk.open();
        let late = push(&producer);
        core.enter(Phase::Closed);
        drop(producer.leave(kept, Instant::now()));
        let error = late.wait(Duration::ZERO).unwrap_err();
        assert_eq!(error.code(), ErrorCode::Closed);
        assert_eq!(error.outcome(), crate::error::Outcome::NotApplied);
        assert_eq!(core.budget.used(), (0, 0));
        let later = push(&producer).wait(Duration::ZERO).unwrap_err();
        assert_eq!(later.code(), ErrorCode::Closed);
    }
}
