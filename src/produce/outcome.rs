//! What becomes of the calls of a request that failed: which are over, which are sent again, when, and with whom.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::address::Address;
use super::fuse::{Fused, Parcel};
use super::state::State;
use super::turns::Holder;
use crate::error::{Error, ErrorCode, Outcome};
use crate::transport::{doubled, jittered, later};

/// So often a broker may stumble over a request before its calls are sent one by one.
const STUMBLES: u32 = 2;

/// When to try again.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rules {
    pub(super) rounds: u32,
    pub(super) delay: Duration,
    pub(super) longest_pause: Duration,
}

/// What a failure says of the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// It will fail whenever it is sent: one of its calls is to blame.
    Refused,
    /// A broker stumbled over it; one of its calls may be to blame.
    Stumbled,
    /// No request would go well now.
    Everybody,
    /// It may go well the next time.
    Passing,
    /// All its calls are over.
    Final,
}

impl Kind {
    /// `answered`: the error is what an answer says, or that it cannot be understood.
    fn of(error: &Error, answered: bool) -> Kind {
        let status = error.http_status();
        match error.code() {
            ErrorCode::Connect => Kind::Everybody,
            ErrorCode::Network | ErrorCode::Timeout => Kind::Passing,
            // What is no HTTP does not come from a broker.
            ErrorCode::BadAnswer if status.is_none() && !answered => Kind::Passing,
            ErrorCode::Broker if status == Some(503) => Kind::Everybody,
            ErrorCode::Broker => Kind::Stumbled,
            // The transport has waited as often as it may after HTTP 429.
            ErrorCode::Unauthorized | ErrorCode::Throttled => Kind::Final,
            // An answer that is too large or cannot be read may be due to one of the calls as well.
            ErrorCode::BadAnswer | ErrorCode::BadRequest | ErrorCode::InvalidArgument => {
                Kind::Refused
            }
            _ if matches!(status, Some(400..=499)) => Kind::Refused,
            _ => Kind::Final,
        }
    }
}

/// What came of a failure.
#[derive(Default)]
pub(super) struct Failed {
    /// These calls are over.
    pub(super) over: Vec<(Parcel, Error)>,
    /// So many are sent again, after that pause at most.
    pub(super) again: usize,
    pub(super) pause: Duration,
    /// Whether they are sent one by one.
    pub(super) alone: bool,
}

impl State {
    /// A request failed after so many attempts. Its calls are over, or go back to their lines, where each line waits by
    /// itself; a failure that concerns everybody makes all wait.
    pub(super) fn request_failed(
        &mut self,
        request: Fused,
        error: &Error,
        answered: bool,
        attempts: u32,
        now: Instant,
    ) -> Failed {
        let rules = self.lanes.rules;
        let kind = Kind::of(error, answered);
        let mut failed = Failed::default();
        let single = request.calls.len() == 1;
        self.lane_ended(&request);
        self.lanes.outage = match kind {
            Kind::Everybody => self.lanes.outage + 1,
            _ => 0,
        };
        let rounds = request.calls.iter().map(|parcel| parcel.course.rounds + 1);
        let everybody = rounds
            .max()
            .filter(|_| kind == Kind::Everybody)
            .map(|rounds| rules.pause(rounds, error));
        let mut calls = request.calls.into_iter();
        for (address, count) in &request.lines {
            let mut again = Vec::new();
            let mut rounds = 0;
            for mut parcel in calls.by_ref().take(*count) {
                let go_on = parcel.note(kind, single, error, attempts, &rules);
                rounds = rounds.max(parcel.course.rounds);
                match go_on && !parcel.pending.is_complete() {
                    true => again.push(parcel),
                    false => failed.over.push((parcel, error.clone())),
                }
            }
            let pause = match (kind, everybody) {
                (Kind::Refused, _) => Duration::ZERO,
                (_, Some(pause)) => pause,
                _ => rules.pause(rounds, error),
            };
            // A pause that ends after the deadline is none.
            let (again, late): (Vec<_>, Vec<_>) = again
                .into_iter()
                .partition(|parcel| now + pause < parcel.deadline);
            failed
                .over
                .extend(late.into_iter().map(|parcel| (parcel, error.clone())));
            failed.again += again.len();
            failed.alone |= again.iter().any(|parcel| parcel.course.alone);
            failed.pause = failed.pause.max(pause);
            let waits = everybody.is_none() && !pause.is_zero() && !again.is_empty();
            self.put_back(address, again);
            self.release(address, waits.then(|| now + pause), now);
        }
        if let Some(pause) = everybody
            && (failed.again > 0 || error.retry_after().is_some())
        {
            self.lanes.resume_at = Some(now + pause);
        }
        for (parcel, error) in &mut failed.over {
            *error = parcel.end(error.clone());
        }
        self.start(now);
        self.look_in_time();
        failed
    }

    /// A line is no longer busy. It may have to wait before its next attempt.
    fn release(&mut self, address: &Arc<Address>, resume_at: Option<Instant>, now: Instant) {
        let Some(line) = self.lines.get_mut(address) else {
            return;
        };
        match resume_at {
            None => self.pass_on(address, now),
            Some(at) => {
                line.holder = Holder::Nobody;
                line.resume_at = Some(at);
                self.lanes.paused.insert((at, address.clone()));
            }
        }
    }
}

impl Parcel {
    /// Notes a failure; whether the call is sent again.
    fn note(
        &mut self,
        kind: Kind,
        single: bool,
        error: &Error,
        attempts: u32,
        rules: &Rules,
    ) -> bool {
        let course = &mut self.course;
        course.attempts += attempts;
        course.unknown |= error.outcome() == Outcome::Unknown;
        match kind {
            Kind::Final => false,
            Kind::Refused => {
                course.alone = !single;
                !single
            }
            Kind::Everybody | Kind::Passing => {
                course.rounds += 1;
                course.rounds < rules.rounds
            }
            Kind::Stumbled => {
                course.rounds += 1;
                course.stumbles += 1;
                // None is blamed for what it was sent with: the last attempt is one of its own.
                let last = course.rounds >= rules.rounds;
                course.alone |= !single && (course.stumbles >= STUMBLES || last);
                !last || !single
            }
        }
    }

    /// The error that the call ends with.
    fn end(&self, error: Error) -> Error {
        let error = match self.course.unknown {
            true => error.with_outcome(Outcome::Unknown),
            false => error,
        };
        match self.course.attempts {
            0 | 1 => error,
            attempts => error.note(&format!("tried {attempts} times")),
        }
    }
}

impl Rules {
    /// The pause before the next attempt, also where a broker asks for more.
    fn pause(&self, failures: u32, error: &Error) -> Duration {
        let pause = jittered(doubled(self.delay, failures).min(self.longest_pause));
        let asked = error
            .retry_after()
            .map(|asked| later(asked.min(self.longest_pause)));
        pause.max(asked.unwrap_or_default())
    }
}
