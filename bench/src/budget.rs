//! How many messages a run gets, so that all runs together take no longer than they may.

use std::time::Duration;

use crate::work::Work;

/// What a first run of one subject on one broker has shown.
#[derive(Clone, Copy, Debug)]
pub struct Trial {
    pub messages: u64,
    /// What does not grow with the messages: starting, warming up.
    pub fixed: Duration,
    /// What does: filling the queue, the work, looking that nothing is lost.
    pub growing: Duration,
}

impl Trial {
    /// Seconds for so many messages.
    fn seconds(&self, messages: u64) -> f64 {
        let share = messages as f64 / self.messages as f64;
        self.fixed.as_secs_f64() + self.growing.as_secs_f64() * share
    }

    /// As many messages as can be done in so many seconds, no more than are planned, and no fewer than were done.
    pub fn messages(&self, work: &Work, seconds: f64) -> u64 {
        let each = self.growing.as_secs_f64() / self.messages as f64;
        let left = (seconds - self.fixed.as_secs_f64()).max(0.0);
        work.part(self.messages.max((left / each) as u64))
    }
}

/// The seconds that one run may take: those that need less leave the rest to the others.
pub fn seconds_for_each<'a>(
    trials: impl Iterator<Item = (&'a Work, &'a Trial)>,
    together: f64,
) -> f64 {
    let mut wanted: Vec<f64> = trials
        .map(|(work, trial)| trial.seconds(work.messages))
        .collect();
    wanted.sort_by(f64::total_cmp);
    let (mut left, mut others) = (together, wanted.len());
    for seconds in wanted {
        if seconds * others as f64 > left {
            return left / others as f64;
        }
        left -= seconds;
        others -= 1;
    }
    f64::INFINITY
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::work::{self, Case, Size};

    fn trial(millis: u64) -> Trial {
        Trial {
            messages: 100,
            fixed: Duration::from_millis(100),
            growing: Duration::from_millis(millis),
        }
    }

    #[test]
    fn who_needs_less_leaves_the_rest_to_the_others() {
        let work = &work::all(Size::Full)[0];
        assert_eq!((work.case, work.messages), (Case::PushSeq, 1_000));
        // 0.2 s, 1.1 s and 10.1 s for all messages.
        let trials = [trial(10), trial(100), trial(1_000)];
        let each = |together| seconds_for_each(trials.iter().map(|trial| (work, trial)), together);
        assert_eq!(each(12.0), f64::INFINITY);
        assert!((each(3.3) - 2.0).abs() < 1e-9);
        assert!((each(1.2) - 0.5).abs() < 1e-9);
        assert_eq!(trials[2].messages(work, 2.1), 200);
        assert_eq!(trials[0].messages(work, 2.1), 1_000);
        assert_eq!(trials[2].messages(work, 0.0), 100);
        // Enough to be a measurement at all.
        let tiny = Trial {
            messages: 10,
            ..trials[2]
        };
        assert_eq!(tiny.messages(work, 0.0), 50);
    }
}
