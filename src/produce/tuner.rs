//! How many lanes there are: as few as the brokers answer fastest with. More lanes mean smaller requests, which cost more
//! on both sides, so that only a clear gain is worth them. Bookkeeping alone: the time comes from outside.
//!
//! Below one lane there is one that waits for all callers whom its answer has released, so that they do not fall apart into
//! two groups that take turns: where a request costs the same whatever is in it, half of the requests take half of the time.

use std::time::Duration;

use tokio::time::Instant;

/// The number of lanes to begin with: one for those that do not suffer a slow request of others.
const FIRST: usize = 2;

/// One lane that waits for all.
const WHOLE: usize = 0;

/// An observation lasts at least that long, and for so many answers of each lane.
const SPAN: Duration = Duration::from_millis(100);
const ANSWERS: usize = 8;

/// One that lasts longer was not about throughput.
const TOO_LONG: Duration = Duration::from_secs(5);

/// How much more twice the lanes must bring, and what half of them may lose.
const GAIN: f64 = 1.15;
const LOSS: f64 = 0.97;

/// At the beginning so much shorter, and for so many fewer answers.
const HASTE: u32 = 4;
const FEWER: usize = 2;

/// A trial that brings less than that part of what was thought best ends after so many answers of each lane.
const HOPELESS: f64 = 0.7;
const SOON: usize = 2;

/// Observations before the next trial: after a change, and at most.
const REST: u32 = 4;
const LONGEST_REST: u32 = 64;

pub(super) struct Tuner {
    most: usize,
    now: usize,
    /// Whether the next trial is with more.
    up: bool,
    trial: Option<Trial>,
    /// Observations until the next trial.
    rest: u32,
    patience: u32,
    /// Whether a trial has failed already.
    settled: bool,
    seen: Seen,
}

/// Another number of lanes than was thought best.
struct Trial {
    best: usize,
    /// What that brings, in messages a second.
    rate: f64,
}

/// What has been observed since a moment.
#[derive(Default)]
struct Seen {
    since: Option<Instant>,
    /// Answers that are not counted, because the lanes were others when their requests left.
    skips: usize,
    answers: usize,
    messages: usize,
    /// Answers at which calls waited for a lane, or for their partition.
    full: usize,
}

impl Tuner {
    pub(super) fn new(most: usize) -> Tuner {
        Tuner {
            most,
            now: FIRST.min(most),
            up: false,
            trial: None,
            rest: 0,
            patience: REST,
            settled: false,
            seen: Seen::default(),
        }
    }

    /// With that many for a while.
    #[cfg(test)]
    pub(super) fn fixed(lanes: usize) -> Tuner {
        Tuner {
            now: lanes,
            rest: u32::MAX,
            ..Tuner::new(lanes)
        }
    }

    /// How many lanes there are.
    pub(super) fn lanes(&self) -> usize {
        self.now.max(1)
    }

    /// Whether it is one that waits for all.
    pub(super) fn whole(&self) -> bool {
        self.now == WHOLE
    }

    /// A request with so many messages was answered. `full`: calls waited for that.
    pub(super) fn answered(&mut self, messages: usize, full: bool, now: Instant) {
        let lanes = self.lanes();
        let seen = &mut self.seen;
        if seen.skips > 0 {
            seen.skips -= 1;
            return;
        }
        let Some(since) = seen.since else {
            seen.since = Some(now);
            return;
        };
        seen.answers += 1;
        seen.messages += messages;
        seen.full += usize::from(full);
        let span = now.saturating_duration_since(since);
        let rate = seen.messages as f64 / span.as_secs_f64();
        let hopeless = self.trial.as_ref().is_some_and(|trial| {
            seen.answers >= SOON * lanes && span >= SPAN / HASTE && rate < trial.rate * HOPELESS
        });
        let (enough, answers) = match self.settled {
            true => (SPAN, ANSWERS),
            false => (SPAN / HASTE, ANSWERS / FEWER),
        };
        if !hopeless && (span < enough || seen.answers < answers * lanes) {
            return;
        }
        // Where the lanes are not what is waited for, their number tells nothing.
        let tells = span < TOO_LONG && seen.full * 4 >= seen.answers * 3;
        *seen = Seen {
            since: Some(now),
            ..Seen::default()
        };
        if tells {
            self.observed(rate);
        } else if self.whole() || self.trial.is_some() {
            // Those that it was for have gone.
            *self = Tuner::new(self.most);
        }
    }

    fn observed(&mut self, rate: f64) {
        match self.trial.take() {
            Some(trial) => {
                let enough = match self.now > trial.best {
                    true => trial.rate * GAIN,
                    false => trial.rate * LOSS,
                };
                if rate >= enough {
                    self.patience = REST;
                    // It may go on that way.
                    self.begin_trial(rate);
                } else {
                    self.settled = true;
                    self.change(trial.best);
                    self.up = !self.up;
                    self.rest = self.patience;
                    self.patience = (self.patience * 2).min(LONGEST_REST);
                }
            }
            None if self.rest > 0 => self.rest -= 1,
            None => self.begin_trial(rate),
        }
    }

    fn begin_trial(&mut self, rate: f64) {
        let other = |up: bool| match (self.now, up) {
            // One lane may bring nothing where two do, or all that wait for one another.
            (WHOLE, true) => 2.min(self.most),
            (WHOLE, false) => 1,
            (2, false) => WHOLE,
            (now, true) => (now * 2).min(self.most),
            (now, false) => now / 2,
        };
        if other(self.up) == self.now {
            self.up = !self.up;
            self.rest = self.patience;
            return;
        }
        self.trial = Some(Trial {
            best: self.now,
            rate,
        });
        self.change(other(self.up));
    }

    fn change(&mut self, lanes: usize) {
        self.seen = Seen {
            skips: 2 * self.now.max(lanes).max(1),
            ..Seen::default()
        };
        self.now = lanes;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A broker that answers so many messages a second with so many lanes, more or less.
    fn run(tuner: &mut Tuner, now: &mut Instant, rate: impl Fn(usize) -> f64) -> Vec<usize> {
        let mut lanes = Vec::new();
        for n in 0..20_000u32 {
            let noise = 1.0 + 0.04 * f64::from(n % 7) / 7.0;
            *now += Duration::from_secs_f64(50.0 / rate(tuner.lanes()) * noise);
            tuner.answered(50, true, *now);
            lanes.push(tuner.lanes());
        }
        lanes.split_off(10_000)
    }

    /// How much of the time it was that many.
    fn share(lanes: &[usize], of: usize) -> f64 {
        lanes.iter().filter(|lanes| **lanes == of).count() as f64 / lanes.len() as f64
    }

    #[test]
    fn the_lanes_follow_what_the_broker_answers_fastest() {
        let mut now = Instant::now();
        let mut tuner = Tuner::new(16);
        let flat = |_| 10_000.0;
        let seen = run(&mut tuner, &mut now, flat);
        assert!(share(&seen, 1) > 0.9, "few where more bring nothing");
        let parallel = |lanes: usize| 5_000.0 * lanes.min(8) as f64;
        let seen = run(&mut tuner, &mut now, parallel);
        assert!(share(&seen, 8) > 0.8, "as many as bring more");
        let crowded = |lanes: usize| 20_000.0 / lanes as f64;
        let seen = run(&mut tuner, &mut now, crowded);
        assert!(share(&seen, 1) > 0.8, "and back");
    }

    #[test]
    fn all_go_in_one_where_a_request_costs_the_same_whatever_is_in_it() {
        // The callers of 64 messages fall apart into two groups, or do not.
        let mut now = Instant::now();
        let mut share_of_whole = |micros: fn(usize) -> u64| {
            let mut tuner = Tuner::new(16);
            let mut whole = 0;
            for n in 0..20_000 {
                let messages = if tuner.whole() { 64 } else { 32 };
                now += Duration::from_micros(micros(messages));
                tuner.answered(messages, true, now);
                whole += usize::from(tuner.whole() && n >= 10_000);
            }
            f64::from(whole as u16) / 10_000.0
        };
        let same = share_of_whole(|_| 10_000);
        assert!(same > 0.9, "{same}");
        // All of them wait for the client in turn, which the broker does not where there are two groups.
        let by_message = share_of_whole(|messages| if messages == 64 { 16_000 } else { 6_400 });
        assert!(by_message < 0.1, "{by_message}");
    }

    #[test]
    fn a_hopeless_trial_is_short() {
        let mut now = Instant::now();
        let mut tuner = Tuner::new(16);
        let mut trials = 0;
        for _ in 0..2_000 {
            let whole = tuner.whole();
            now += Duration::from_millis(if whole { 12 } else { 24 });
            tuner.answered(64, true, now);
            trials += usize::from(!whole);
        }
        assert!((1..100).contains(&trials), "{trials}");
    }

    #[test]
    fn it_begins_anew_when_those_that_it_was_for_have_gone() {
        let mut now = Instant::now();
        let mut tuner = Tuner::new(16);
        let mut answer = |tuner: &mut Tuner, full| {
            now += Duration::from_millis(10);
            tuner.answered(50, full, now);
        };
        // With the trials, and the rests between them.
        for crowded in 1..200 {
            (0..crowded).for_each(|_| answer(&mut tuner, true));
            (0..60).for_each(|_| answer(&mut tuner, false));
            assert_eq!((tuner.lanes(), tuner.whole()), (FIRST, false), "{crowded}");
        }
    }

    #[test]
    fn the_bounds_hold() {
        let mut now = Instant::now();
        let eager = |lanes: usize| 1_000.0 * lanes as f64;
        for most in [1, 3, 16] {
            let mut tuner = Tuner::new(most);
            let seen = run(&mut tuner, &mut now, eager);
            assert!(share(&seen, most) > 0.8, "{most}");
            assert!(seen.iter().all(|lanes| (1..=most).contains(lanes)));
        }
    }

    #[test]
    fn callers_who_do_not_wait_for_a_lane_tell_nothing() {
        let mut now = Instant::now();
        let mut tuner = Tuner::new(16);
        for _ in 0..10_000 {
            now += Duration::from_millis(1);
            tuner.answered(1, false, now);
            assert_eq!(tuner.lanes(), FIRST);
        }
    }
}
