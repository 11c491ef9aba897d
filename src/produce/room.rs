//! Room for buffered messages: what is accepted, what waits for room, what is dropped for it.

use std::sync::Arc;

use tokio::time::Instant;

use super::address::{Address, Scope};
use super::buffer::{self, Buffer, Message, Waiter};
use super::state::State;
use crate::options::{BufferOptions, WhenFull};
use crate::pending::Pending;
use crate::protocol::kept::{self, Kept};
use crate::protocol::push::PushResult;

/// What came of a push into a buffer.
pub(super) enum Admit {
    Taken(Taken),
    /// There is no room.
    Full(Vec<Kept>),
}

/// A push was accepted.
pub(super) struct Taken {
    /// Whether its buffer is new.
    pub(super) made: bool,
    /// What has made room for it.
    pub(super) dropped: Vec<Message>,
    /// How many of those were sent before.
    pub(super) attempted: usize,
}

impl State {
    /// Accepts messages into the buffer of a partition, unless there is no room.
    pub(super) fn admit(
        &mut self,
        address: Address,
        messages: Vec<Kept>,
        options: &BufferOptions,
        now: Instant,
    ) -> Admit {
        let address = self.key(address);
        let (count, bytes) = (messages.len(), buffer::cost(&messages));
        let found = self
            .lines
            .get(&address)
            .and_then(|line| line.buffer.as_ref());
        let (most, used) = (self.bounds, (self.messages, self.bytes));
        let own = match found {
            Some(_) => 0,
            None => Buffer::cost_of(&address),
        };
        // A call larger than the bounds passes when it is alone.
        let fits = |freed: usize, freed_bytes: usize| {
            used.0 == freed
                || (used.0 - freed + count <= most.messages
                    && used.1 - freed_bytes + own + bytes <= most.bytes)
        };
        let drops = match found {
            Some(buffer) if buffer.has_waiters() => None,
            // Who waits for room in the client comes first.
            _ if !self.starving.is_empty() && options.when_full != WhenFull::DropOldest => None,
            None => fits(0, 0).then_some(0),
            Some(buffer) if options.when_full == WhenFull::DropOldest => {
                buffer.oldest_to_drop(count, bytes, options, fits)
            }
            Some(buffer) => (buffer.has_room(count, bytes, options) && fits(0, 0)).then_some(0),
        };
        let Some(drops) = drops else {
            return Admit::Full(messages);
        };
        self.last_call += 1;
        let call = self.last_call;
        let (dropped, attempted) = match self.buffer(&address) {
            Some(buffer) if drops > 0 => {
                let before = buffer.queued_messages();
                let (dropped, attempted) = buffer.drop_oldest(drops);
                debug_assert_eq!(before, buffer.queued_messages() + dropped.len());
                self.messages -= dropped.len();
                self.bytes -= dropped
                    .iter()
                    .map(|message| buffer::cost(std::slice::from_ref(&message.kept)))
                    .sum::<usize>();
                (dropped, attempted)
            }
            _ => (Vec::new(), 0),
        };
        self.append(&address, call, messages, options, now);
        // A flush whose messages were all dropped is over.
        self.advance(&address, now);
        Admit::Taken(Taken {
            made: own > 0,
            dropped,
            attempted,
        })
    }

    fn append(
        &mut self,
        address: &Arc<Address>,
        call: u64,
        messages: Vec<Kept>,
        options: &BufferOptions,
        now: Instant,
    ) {
        self.messages += messages.len();
        self.bytes += buffer::cost(&messages);
        let awaited = !self.starving.is_empty();
        let line = self.line(address);
        let mut made = 0;
        let buffer = line.buffer.get_or_insert_with(|| {
            made = Buffer::cost_of(address);
            Box::new(Buffer::new(address, options.clone()))
        });
        buffer.options = options.clone();
        buffer.append(call, messages, now);
        // What takes room that somebody waits for is sent now.
        let full = buffer.uncovered() >= buffer.options.message_count || awaited;
        let due = buffer.due();
        if made > 0 {
            self.buffers += 1;
            self.bytes += made;
        }
        if !self.running {
            self.after.wake = true;
        }
        if full {
            self.cover(address, now);
        } else if let Some(due) = due {
            self.schedule(address, due);
        }
    }

    /// A push waits for room, behind all others to the same partition. What takes the room is sent now.
    pub(super) fn wait(
        &mut self,
        address: Address,
        messages: Vec<Kept>,
        options: &BufferOptions,
        pending: Pending<Vec<PushResult>>,
        now: Instant,
    ) -> Arc<Address> {
        let address = self.key(address);
        self.last_call += 1;
        let waiter = Waiter {
            call: self.last_call,
            messages,
            options: options.clone(),
            pending,
        };
        let line = self.line(&address);
        let mut made = 0;
        let buffer = line.buffer.get_or_insert_with(|| {
            made = Buffer::cost_of(&address);
            Box::new(Buffer::new(&address, options.clone()))
        });
        buffer.waiting.push_back(waiter);
        if made > 0 {
            self.buffers += 1;
            self.bytes += made;
        }
        self.cover(&address, now);
        if !self.starving.is_empty() {
            self.starve(&address);
        } else if self.let_in_line(&address, now) {
            // It lacks room in the client, which others have taken.
            self.cover_all(&Scope::default(), now);
        }
        self.after.wake = true;
        address
    }

    /// A push that waited has ended without being accepted.
    pub(super) fn waiter_gave_up(&mut self, address: &Arc<Address>, now: Instant) {
        if let Some(buffer) = self.buffer(address) {
            buffer.forget_waiter();
        }
        self.let_in(address, now);
        self.advance(address, now);
    }

    /// Accepts pushes that wait, first those of that line, then those of others.
    pub(super) fn let_in(&mut self, address: &Arc<Address>, now: Instant) {
        self.let_in_line(address, now);
        while let Some(next) = self.starving.pop_front() {
            if let Some(buffer) = self.buffer(&next) {
                buffer.starving = false;
            }
            if self.let_in_line(&next, now) {
                // It went to the back of the line, but it is the first.
                if let Some(last) = self.starving.pop_back() {
                    self.starving.push_front(last);
                }
                return;
            }
        }
    }

    /// A line waits for room in the client.
    fn starve(&mut self, address: &Arc<Address>) {
        let Some(buffer) = self.buffer(address) else {
            return;
        };
        if !std::mem::replace(&mut buffer.starving, true) {
            self.starving.push_back(address.clone());
        }
    }

    /// Accepts waiting pushes of one line in order; `true` when the next of them lacks room in the client.
    fn let_in_line(&mut self, address: &Arc<Address>, now: Instant) -> bool {
        loop {
            let (most, used) = (self.bounds, (self.messages, self.bytes));
            let Some(buffer) = self.buffer(address) else {
                return false;
            };
            let Some(next) = buffer.waiting.front() else {
                return false;
            };
            let (count, bytes) = (next.messages.len(), buffer::cost(&next.messages));
            if !buffer.has_room(count, bytes, &next.options) {
                return false;
            }
            let fits =
                used.0 == 0 || (used.0 + count <= most.messages && used.1 + bytes <= most.bytes);
            if !fits {
                self.starve(address);
                return true;
            }
            let Some(next) = buffer.waiting.pop_front() else {
                return false;
            };
            // One that was cancelled or is too late keeps nothing.
            if next.pending.mark_sent() {
                let results = kept::accepted(&next.messages);
                self.after.accepted.push((next.pending, results));
                self.append(address, next.call, next.messages, &next.options, now);
                self.advance(address, now);
            }
        }
    }
}
