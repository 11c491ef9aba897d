//! The direct pushes that are not settled, and when each must be: bookkeeping in constant time for each of them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::address::Address;
use crate::pending::{Pending, Ticket};
use crate::protocol::push::PushResult;

/// A direct push, or a transaction's part for one partition.
pub(super) struct Call {
    pub(super) address: Arc<Address>,
    pub(super) messages: usize,
    /// None for a transaction, which has a task that ends it.
    pub(super) pending: Option<Pending<Vec<PushResult>>>,
    /// Whether it waits in its line: nothing of it was sent, or it is to be sent again.
    pub(super) waiting: bool,
}

/// A place in the table, linked to the others that end in the same millisecond.
struct Slot {
    number: u64,
    call: Option<Call>,
    /// When it must have ended; none without a deadline, or once that has come.
    tick: Option<u64>,
    before: Option<u32>,
    next: Option<u32>,
}

/// A table with stable places. A deadline costs no more than a link, however many calls there are: those of one
/// millisecond share an entry in the ordered table of ticks.
pub(super) struct Calls {
    slots: Vec<Slot>,
    free: Vec<u32>,
    len: usize,
    messages: usize,
    /// Milliseconds since this moment, and the first call that ends then.
    since: Option<Instant>,
    ticks: BTreeMap<u64, u32>,
}

impl Calls {
    pub(super) fn new() -> Calls {
        Calls {
            slots: Vec::new(),
            free: Vec::new(),
            len: 0,
            messages: 0,
            since: None,
            ticks: BTreeMap::new(),
        }
    }

    /// Notes a call under its number, which no other has had.
    pub(super) fn insert(
        &mut self,
        number: u64,
        call: Call,
        deadline: Option<Instant>,
        now: Instant,
    ) -> Ticket {
        self.len += 1;
        self.messages += call.messages;
        let slot = Slot {
            number,
            call: Some(call),
            tick: None,
            before: None,
            next: None,
        };
        let index = match self.free.pop() {
            Some(index) => {
                self.slots[index as usize] = slot;
                index
            }
            None => {
                self.slots.push(slot);
                u32::try_from(self.slots.len() - 1).expect("fewer calls than 2^32")
            }
        };
        if let Some(deadline) = deadline {
            self.link(index, deadline, now);
        }
        Ticket { index, number }
    }

    fn link(&mut self, index: u32, deadline: Instant, now: Instant) {
        let since = *self.since.get_or_insert(now);
        // A millisecond later at most, and never too early.
        let tick = deadline.saturating_duration_since(since).as_millis() as u64 + 1;
        let first = self.ticks.insert(tick, index);
        if let Some(first) = first {
            self.slots[first as usize].before = Some(index);
        }
        let slot = &mut self.slots[index as usize];
        (slot.tick, slot.before, slot.next) = (Some(tick), None, first);
    }

    fn unlink(&mut self, index: u32) {
        let slot = &mut self.slots[index as usize];
        let Some(tick) = slot.tick.take() else { return };
        let (before, next) = (slot.before.take(), slot.next.take());
        match (before, next) {
            (Some(before), _) => self.slots[before as usize].next = next,
            (None, Some(next)) => drop(self.ticks.insert(tick, next)),
            (None, None) => drop(self.ticks.remove(&tick)),
        }
        if let Some(next) = next {
            self.slots[next as usize].before = before;
        }
    }

    pub(super) fn get(&self, ticket: Ticket) -> Option<&Call> {
        let slot = self.slots.get(ticket.index as usize)?;
        slot.call.as_ref().filter(|_| slot.number == ticket.number)
    }

    pub(super) fn get_mut(&mut self, ticket: Ticket) -> Option<&mut Call> {
        let slot = self.slots.get_mut(ticket.index as usize)?;
        slot.call.as_mut().filter(|_| slot.number == ticket.number)
    }

    /// Forgets a call, once.
    pub(super) fn remove(&mut self, ticket: Ticket) -> Option<Call> {
        self.get(ticket)?;
        self.unlink(ticket.index);
        let call = self.slots[ticket.index as usize].call.take()?;
        self.free.push(ticket.index);
        self.len -= 1;
        self.messages -= call.messages;
        if self.len == 0 && self.slots.len() > KEPT {
            (self.slots, self.free) = (Vec::new(), Vec::new());
        }
        Some(call)
    }

    /// The calls whose deadline has come, each once.
    pub(super) fn take_due(&mut self, now: Instant) -> Vec<Pending<Vec<PushResult>>> {
        let mut due = Vec::new();
        while let Some(at) = self.next_due()
            && at <= now
            && let Some((_, mut first)) = self.ticks.pop_first()
        {
            loop {
                let slot = &mut self.slots[first as usize];
                (slot.tick, slot.before) = (None, None);
                due.extend(slot.call.as_ref().and_then(|call| call.pending.clone()));
                match slot.next.take() {
                    Some(next) => first = next,
                    None => break,
                }
            }
        }
        due
    }

    /// When the next deadline comes.
    pub(super) fn next_due(&self) -> Option<Instant> {
        let (tick, _) = self.ticks.first_key_value()?;
        Some(self.since? + Duration::from_millis(*tick))
    }

    /// All calls in no order.
    pub(super) fn iter(&self) -> impl Iterator<Item = (Ticket, &Call)> {
        self.slots.iter().enumerate().filter_map(|(index, slot)| {
            let ticket = Ticket {
                index: index as u32,
                number: slot.number,
            };
            Some((ticket, slot.call.as_ref()?))
        })
    }

    /// How many messages they have.
    pub(super) fn messages(&self) -> usize {
        self.messages
    }
}

/// A table of so many places is kept when it is empty.
const KEPT: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pending::WaitsFor;

    fn call() -> Call {
        Call {
            address: Arc::new(Address::new("q", "p")),
            messages: 2,
            pending: Some(Pending::new(WaitsFor::Broker)),
            waiting: false,
        }
    }

    #[test]
    fn deadlines_come_once_in_order_and_not_for_those_that_have_ended() {
        let start = Instant::now();
        let mut calls = Calls::new();
        let millis = |n: u64| start + Duration::from_millis(n);
        let tickets: Vec<_> = [50, 20, 50, 50, 1_000_000]
            .into_iter()
            .zip(1..)
            .map(|(at, number)| calls.insert(number, call(), Some(millis(at)), start))
            .collect();
        calls.insert(6, call(), None, start);
        assert!(calls.take_due(millis(19)).is_empty());
        let next = calls.next_due().unwrap();
        assert!(next > millis(20) && next <= millis(22));
        assert_eq!(calls.take_due(millis(22)).len(), 1);
        assert!(calls.take_due(millis(22)).is_empty());
        // The one in the middle, the first and the last of a millisecond.
        for ended in [2, 3, 0] {
            assert!(calls.remove(tickets[ended]).is_some());
            assert!(calls.remove(tickets[ended]).is_none());
        }
        assert!(calls.next_due().unwrap() > millis(1_000_000));
        assert!(calls.take_due(millis(999_999)).is_empty());
        assert_eq!(calls.messages(), 6);
        assert_eq!(calls.iter().count(), 3);
    }

    #[test]
    fn a_place_is_used_again_under_another_number() {
        let start = Instant::now();
        let mut calls = Calls::new();
        let first = calls.insert(1, call(), None, start);
        calls.remove(first).unwrap();
        let second = calls.insert(2, call(), None, start);
        assert_eq!(first.index, second.index);
        assert!(calls.get(first).is_none() && calls.get(second).is_some());
        assert!(calls.remove(first).is_none());
    }
}
