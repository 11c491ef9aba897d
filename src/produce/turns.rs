//! Who may send to a partition, in which order: direct pushes and the flushes of its buffer.

use std::collections::VecDeque;
use std::sync::Arc;

use tokio::sync::oneshot;
use tokio::time::Instant;

use super::address::{Address, Scope};
use super::backoff;
use super::buffer::Buffer;
use super::calls::{Call, Calls};
use super::fuse::{Parcel, Size};
use super::state::State;
use crate::pending::Ticket;

/// What waits for its turn to send.
pub(super) enum Turn {
    /// A direct push.
    Push(Parcel),
    /// A transaction.
    Place(oneshot::Sender<()>),
    /// The messages of the buffer up to that call.
    Flush(u64),
}

/// Who has the turn.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Holder {
    Nobody,
    /// Direct pushes in flight, or a transaction.
    Call,
    Flush(u64),
}

/// Everything that is on its way to one partition.
pub(super) struct Line {
    /// Its own key.
    pub(super) address: Arc<Address>,
    pub(super) holder: Holder,
    pub(super) behind: VecDeque<Turn>,
    pub(super) buffer: Option<Box<Buffer>>,
    /// Messages of the direct pushes that wait.
    pub(super) messages: usize,
    /// Direct pushes in line that have ended.
    pub(super) dead: usize,
    /// Among which lines it stands that are taken from.
    pub(super) ready: Option<Size>,
    /// Until then its direct pushes wait, after a failure.
    pub(super) resume_at: Option<Instant>,
}

impl Line {
    pub(super) fn new(address: Arc<Address>) -> Line {
        Line {
            address,
            holder: Holder::Nobody,
            behind: VecDeque::new(),
            buffer: None,
            messages: 0,
            dead: 0,
            ready: None,
            resume_at: None,
        }
    }

    /// A direct push that was in line no longer waits there.
    pub(super) fn leave(&mut self, calls: &mut Calls, ticket: Ticket) {
        match calls.get_mut(ticket) {
            Some(call) if call.waiting => {
                call.waiting = false;
                self.messages -= call.messages;
            }
            // It has ended, and that was noted.
            _ => self.dead = self.dead.saturating_sub(1),
        }
    }
}

impl State {
    /// A transaction takes its place: behind everything that was pushed to the partition before, buffered or not. It has
    /// the turn at once, or when the receiver says so.
    pub(super) fn join(
        &mut self,
        address: Address,
        messages: usize,
        now: Instant,
    ) -> (Arc<Address>, Ticket, Option<oneshot::Receiver<()>>) {
        let address = self.key(address);
        self.cover(&address, now);
        self.last_call += 1;
        let call = Call {
            address: address.clone(),
            messages,
            pending: None,
            waiting: false,
        };
        let ticket = self.calls.insert(self.last_call, call, None, now);
        let line = self.line(&address);
        if line.holder == Holder::Nobody && line.behind.is_empty() {
            line.holder = Holder::Call;
            return (address, ticket, None);
        }
        let (sender, receiver) = oneshot::channel();
        line.behind.push_back(Turn::Place(sender));
        (address, ticket, Some(receiver))
    }

    /// The next in line has its turn, if there is one.
    pub(super) fn pass_on(&mut self, address: &Arc<Address>, now: Instant) {
        let Some(line) = self.lines.get_mut(address) else {
            return;
        };
        line.holder = loop {
            match line.behind.front() {
                None => break Holder::Nobody,
                Some(Turn::Push(parcel)) if !parcel.pending.is_complete() => break Holder::Nobody,
                Some(_) => {}
            }
            match line.behind.pop_front() {
                Some(Turn::Push(ended)) => line.leave(&mut self.calls, ended.ticket),
                Some(Turn::Place(next)) => {
                    if next.send(()).is_ok() {
                        break Holder::Call;
                    }
                }
                Some(Turn::Flush(up_to)) => {
                    let buffer = line.buffer.as_ref();
                    if buffer.is_some_and(|buffer| buffer.has_up_to(up_to)) {
                        break Holder::Flush(up_to);
                    }
                }
                None => break Holder::Nobody,
            }
        };
        if line.buffer.as_ref().is_some_and(|buffer| buffer.is_idle()) {
            self.drop_buffer(address);
        }
        let Some(line) = self.lines.get(address) else {
            return;
        };
        match line.holder {
            Holder::Nobody if !line.behind.is_empty() => self.make_ready(address),
            Holder::Nobody if line.buffer.is_none() => drop(self.lines.remove(address)),
            Holder::Flush(_) => self.advance(address, now),
            _ => {}
        }
    }

    /// Sees to a buffer whose flush has the turn: it is sent, or the turn ends because nothing is left of it.
    pub(super) fn advance(&mut self, address: &Arc<Address>, now: Instant) {
        let Some(line) = self.lines.get_mut(address) else {
            return;
        };
        let Holder::Flush(up_to) = line.holder else {
            return;
        };
        let Some(buffer) = line
            .buffer
            .as_mut()
            .filter(|buffer| buffer.has_up_to(up_to))
        else {
            return self.pass_on(address, now);
        };
        let may_send = !buffer.queued
            && buffer.in_flight() == 0
            && buffer.resume_at.is_none_or(|at| at <= now)
            && buffer.has_messages_up_to(up_to);
        if may_send {
            buffer.queued = true;
            self.ready.push_back(address.clone());
            self.after.wake = true;
        }
    }

    /// Asks for a flush of what is in a buffer now.
    pub(super) fn cover(&mut self, address: &Arc<Address>, now: Instant) {
        let last = self.last_call;
        let Some(line) = self.lines.get_mut(address) else {
            return;
        };
        if !line
            .buffer
            .as_mut()
            .is_some_and(|buffer| buffer.cover(last))
        {
            return;
        }
        match (line.behind.back_mut(), &mut line.holder) {
            (Some(Turn::Flush(up_to)), _) | (None, Holder::Flush(up_to)) => *up_to = last,
            (None, holder @ Holder::Nobody) => *holder = Holder::Flush(last),
            (Some(Turn::Push(_) | Turn::Place(_)), _) | (None, Holder::Call) => {
                line.behind.push_back(Turn::Flush(last));
            }
        }
        self.advance(address, now);
    }

    /// Asks for a flush of everything in those places now.
    pub(super) fn cover_all(&mut self, scope: &Scope, now: Instant) {
        let addresses: Vec<_> = self
            .lines
            .iter()
            .filter(|(address, line)| line.buffer.is_some() && scope.has(address))
            .map(|(address, _)| address.clone())
            .collect();
        for address in addresses {
            self.cover(&address, now);
        }
    }

    /// Does not let those places wait for long before the next attempt.
    pub(super) fn hurry(&mut self, scope: &Scope, now: Instant) {
        let soon = now + backoff::FIRST;
        self.resume_at = self.resume_at.map(|at| at.min(soon));
        let late: Vec<_> = self
            .lines
            .iter_mut()
            .filter(|(address, _)| scope.has(address))
            .filter_map(|(address, line)| Some((address, line.buffer.as_mut()?)))
            .filter(|(_, buffer)| buffer.resume_at.is_some_and(|at| at > soon))
            .map(|(address, buffer)| {
                buffer.resume_at = Some(soon);
                address.clone()
            })
            .collect();
        for address in late {
            self.schedule(&address, soon);
        }
        self.after.wake = true;
    }

    pub(super) fn schedule(&mut self, address: &Arc<Address>, at: Instant) {
        let first = self.timers.first().map(|(first, _)| *first);
        let Some(buffer) = self.buffer(address) else {
            return;
        };
        match buffer.scheduled {
            Some(before) if before <= at => return,
            before => {
                buffer.scheduled = Some(at);
                if let Some(before) = before {
                    self.timers.remove(&(before, address.clone()));
                }
            }
        }
        self.timers.insert((at, address.clone()));
        self.after.wake |= first.is_none_or(|first| at < first);
    }
}
