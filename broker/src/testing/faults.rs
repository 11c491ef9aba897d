//! The faults that a broker has, the requests that it saw, and the decision what becomes of the next one.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::Serialize;
use tokio::sync::watch;

use super::fault::{Action, Fault, FaultError};
use super::request::{fits, names_queue};

/// A fault in place.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct ActiveFault {
    /// Names the fault in its broker.
    pub id: u64,
    /// What it does.
    #[serde(flatten)]
    pub fault: Fault,
    /// The requests that fitted, among those that no earlier fault took.
    pub matched: u64,
    /// Those of them that it took.
    pub applied: u64,
}

/// All faults of a broker.
#[derive(Default)]
pub(crate) struct Faults(Mutex<State>);

#[derive(Default)]
struct State {
    rules: Vec<Rule>,
    last_id: u64,
    /// The requests by route.
    requests: BTreeMap<&'static str, u64>,
    /// The broker is ending: nothing hangs any more.
    ended: bool,
}

struct Rule {
    active: ActiveFault,
    random: Random,
    /// Its end is what hanging requests wait for.
    alive: watch::Sender<()>,
}

/// What a request is judged by.
pub(super) struct Seen<'a> {
    pub(super) route: &'static str,
    pub(super) method: &'a str,
    pub(super) path: &'a str,
    pub(super) query: Option<&'a str>,
    pub(super) body: &'a [u8],
}

/// What becomes of a request.
pub(super) enum Fate {
    Usual,
    /// Its usual way, but not before this ends.
    Hangs(watch::Receiver<()>),
    Takes(Action),
}

impl Faults {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds faults behind those that are there: all, or none if one of them cannot be.
    pub(super) fn add(&self, faults: Vec<Fault>) -> Result<Vec<ActiveFault>, FaultError> {
        faults.iter().try_for_each(Fault::check)?;
        let mut state = self.lock();
        let added = faults.into_iter().map(|fault| {
            state.last_id += 1;
            let active = ActiveFault {
                id: state.last_id,
                matched: 0,
                applied: 0,
                fault,
            };
            state.rules.push(Rule {
                random: Random(active.fault.share.map_or(0, |(_, seed)| seed)),
                active: active.clone(),
                alive: watch::channel(()).0,
            });
            active
        });
        Ok(added.collect())
    }

    pub(super) fn list(&self) -> Vec<ActiveFault> {
        let state = self.lock();
        state.rules.iter().map(|rule| rule.active.clone()).collect()
    }

    /// Removes one fault, or all; the requests that hang on it go on.
    pub(super) fn remove(&self, id: Option<u64>) -> usize {
        let mut state = self.lock();
        let before = state.rules.len();
        state
            .rules
            .retain(|rule| id.is_some_and(|id| id != rule.active.id));
        before - state.rules.len()
    }

    /// Lets every request that hangs go on, and none hang from now on.
    pub(super) fn end(&self) {
        let mut state = self.lock();
        state.ended = true;
        for rule in &mut state.rules {
            rule.alive = watch::channel(()).0;
        }
    }

    pub(super) fn requests(&self) -> BTreeMap<&'static str, u64> {
        self.lock().requests.clone()
    }

    pub(super) fn forget_requests(&self) {
        self.lock().requests.clear();
    }

    /// Whether some fault asks for the queue.
    pub(super) fn ask_for_queue(&self) -> bool {
        let state = self.lock();
        let mut faults = state.rules.iter().map(|rule| &rule.active.fault);
        faults.any(|fault| fault.queue.is_some())
    }

    /// Counts a request and decides what becomes of it: the first fault that takes it does.
    pub(super) fn judge(&self, seen: &Seen) -> Fate {
        let mut state = self.lock();
        *state.requests.entry(seen.route).or_default() += 1;
        let ended = state.ended;
        for rule in &mut state.rules {
            if !rule.active.fault.is_for(seen) || !rule.takes() {
                continue;
            }
            return match &rule.active.fault.action {
                Action::Hang if ended => Fate::Usual,
                Action::Hang => Fate::Hangs(rule.alive.subscribe()),
                action => Fate::Takes(action.clone()),
            };
        }
        Fate::Usual
    }
}

impl Fault {
    fn is_for(&self, seen: &Seen) -> bool {
        let route = match self.route.as_str() {
            "*" => true,
            pattern if pattern.starts_with('/') => fits(pattern, seen.path),
            name => name == seen.route,
        };
        let method = self.method.as_deref();
        let queue = self.queue.as_deref();
        route
            && method.is_none_or(|method| method == seen.method)
            && queue.is_none_or(|queue| names_queue(queue, seen.path, seen.query, seen.body))
    }
}

impl Rule {
    /// Counts a request that fits, and says whether this one is taken.
    fn takes(&mut self) -> bool {
        let ActiveFault {
            fault,
            matched,
            applied,
            ..
        } = &mut self.active;
        *matched += 1;
        if *matched <= fault.skip || fault.times.is_some_and(|times| *applied >= times) {
            return false;
        }
        if let Some((share, _)) = fault.share
            && self.random.next() >= share
        {
            return false;
        }
        *applied += 1;
        true
    }
}

/// SplitMix64: the same seed draws the same numbers, on every machine and in every version.
struct Random(u64);

impl Random {
    /// A number from 0 up to, but not including, 1.
    fn next(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 11) as f64 / (1_u64 << 53) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(path: &str) -> Seen<'_> {
        Seen {
            route: super::super::request::route(path),
            method: "POST",
            path,
            query: None,
            body: b"",
        }
    }

    fn taken(faults: &Faults, requests: usize) -> Vec<bool> {
        (0..requests)
            .map(|_| matches!(faults.judge(&seen("/api/v1/push")), Fate::Takes(_)))
            .collect()
    }

    #[test]
    fn counts_decide_which_requests_are_taken() {
        let faults = Faults::default();
        let fault = Fault::new("push", Action::CutInBody).skip(1).times(2);
        faults.add(vec![fault]).unwrap();
        assert!(matches!(faults.judge(&seen("/api/v1/ack")), Fate::Usual));
        assert_eq!(taken(&faults, 5), [false, true, true, false, false]);
        let active = &faults.list()[0];
        assert_eq!((active.id, active.matched, active.applied), (1, 5, 2));
        assert_eq!(faults.requests(), BTreeMap::from([("ack", 1), ("push", 5)]));
    }

    #[test]
    fn a_seed_draws_the_same_share_each_time() {
        let run = |seed| {
            let faults = Faults::default();
            let fault = Fault::new("*", Action::CutInBody).share(0.25, seed);
            faults.add(vec![fault]).unwrap();
            taken(&faults, 4000)
        };
        let share = |run: &[bool]| run.iter().filter(|taken| **taken).count();
        assert_eq!(run(7), run(7));
        assert_ne!(run(7), run(8));
        for seed in 0..20 {
            assert!((900..1100).contains(&share(&run(seed))), "{seed}");
        }
        let first: Vec<usize> = (0..40).filter(|n| run(1)[*n]).collect();
        assert_eq!(
            first,
            [15, 20, 21, 23, 25, 28],
            "a seed means the same in every version"
        );
    }

    #[test]
    fn the_first_fault_that_takes_a_request_hides_it_from_the_rest() {
        let faults = Faults::default();
        let one = |action| Fault::new("push", action).times(1);
        faults
            .add(vec![one(Action::NotJson), one(Action::NotHttp)])
            .unwrap();
        let next = || faults.judge(&seen("/api/v1/push"));
        assert!(matches!(next(), Fate::Takes(Action::NotJson)));
        assert!(matches!(next(), Fate::Takes(Action::NotHttp)));
        assert!(matches!(next(), Fate::Usual));
        let counts = |fault: &ActiveFault| (fault.matched, fault.applied);
        let counts: Vec<_> = faults.list().iter().map(counts).collect();
        assert_eq!(counts, [(3, 1), (2, 1)]);
        assert_eq!((faults.remove(Some(1)), faults.remove(Some(1))), (1, 0));
        assert_eq!((faults.remove(None), faults.list().len()), (1, 0));
    }

    #[test]
    fn one_bad_fault_keeps_all_out() {
        let faults = Faults::default();
        let good = Fault::new("push", Action::Hang);
        let bad = Fault::new("push", Action::Hang).share(2.0, 0);
        assert!(faults.add(vec![good, bad]).is_err());
        assert!(faults.list().is_empty());
    }
}
