//! What is known of each message of a claim, and of the claim as a whole.

use super::settle::Waiter;
use super::taken::Hold;
use crate::error::{Error, ErrorCode, Outcome, Result};
use crate::protocol::ack::{AckResult, Status};

/// A verdict on one message of a claim.
#[derive(Clone, Debug)]
pub(crate) struct Verdict {
    pub(crate) index: usize,
    pub(crate) status: Status,
    pub(crate) reason: Option<String>,
}

pub(super) struct State {
    pub(super) slots: Vec<Slot>,
    /// The first message whose verdict has not been answered.
    pub(super) next: usize,
    pub(super) sending: bool,
    /// Whether what has no verdict is left to the end of the lease.
    pub(super) left: bool,
    /// Whether some verdict is negative: what lies behind it comes again.
    pub(super) negative: bool,
    pub(super) end: Option<End>,
    /// Whether the broker has said that the lease is over. Verdicts are sent all the same: their answers end the claim.
    pub(super) gone: bool,
    /// Whether the loss was told, and as certain.
    pub(super) told: Option<bool>,
    /// Answers to hand out once the lock is released.
    pub(super) answers: Vec<Answer>,
}

type Answer = (Waiter, Result<AckResult>);

#[derive(Default)]
pub(super) struct Slot {
    /// Whether a handler, a poller or a caller has it in hand.
    pub(super) in_hand: bool,
    /// Whether nobody holds it any more, so that it goes back unless it has a verdict.
    pub(super) returned: bool,
    /// Whether a stop called it back before anybody had it in hand.
    pub(super) recalled: bool,
    pub(super) verdict: Option<(Status, Option<String>)>,
    /// Whether a transaction has taken over the verdict.
    pub(super) hold: Option<Hold>,
    /// Whether the broker has answered that the verdict does not count.
    pub(super) refused: bool,
    /// Who waits for the answer.
    pub(super) waiter: Option<Waiter>,
}

/// How a claim ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// Every message has its verdict, and the broker has answered.
    Settled,
    /// A negative verdict ended the lease; what lay behind comes again.
    Nacked,
    /// The lease is gone.
    Lost,
    /// The client or consumer was closed first.
    Closed,
}

impl Slot {
    /// Whether it has a verdict, or will get that of a transaction.
    pub(super) fn is_taken(&self) -> bool {
        self.verdict.is_some() || self.hold.is_some()
    }
}

impl State {
    /// Notes a verdict, unless it comes too late.
    pub(super) fn give(&mut self, verdict: Verdict, waiter: Waiter) {
        let slot = &mut self.slots[verdict.index];
        let refusal = match self.end {
            _ if slot.is_taken() => already_settled(),
            Some(end) => end.refusal(),
            None => {
                self.negative |= verdict.status.is_negative();
                slot.verdict = Some((verdict.status, verdict.reason));
                slot.waiter = Some(waiter);
                return;
            }
        };
        self.answers.push((waiter, Err(refusal)));
    }

    pub(super) fn answer(&mut self, index: usize, result: Result<AckResult>) {
        if let Some(waiter) = self.slots[index].waiter.take() {
            self.answers.push((waiter, result));
        }
    }
}

impl End {
    /// What a verdict is told that comes afterwards.
    pub(super) fn refusal(self) -> Error {
        match self {
            End::Settled => already_settled(),
            End::Closed => closed(),
            End::Lost | End::Nacked => lost(),
        }
    }
}

/// There is nothing to settle.
pub(super) fn already_committed() -> Error {
    Error::new(
        ErrorCode::AlreadySettled,
        "the broker counted the messages as done when it handed them out; there is nothing to settle",
    )
}

pub(super) fn already_settled() -> Error {
    Error::new(
        ErrorCode::AlreadySettled,
        "the message has a verdict already",
    )
}

pub(super) fn closed() -> Error {
    Error::new(
        ErrorCode::Closed,
        "the client or consumer was closed before the verdict was answered",
    )
    .with_outcome(Outcome::Unknown)
}

pub(super) fn lost() -> Error {
    Error::new(
        ErrorCode::LeaseLost,
        "the lease has ended; the message will be delivered again",
    )
    .with_outcome(Outcome::Refused)
}
