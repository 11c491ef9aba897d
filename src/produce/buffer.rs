//! The messages of one partition that wait to be sent together. Bookkeeping alone: the time comes from outside.

use std::borrow::Borrow;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::address::Address;
use crate::options::BufferOptions;
use crate::pending::Pending;
use crate::protocol::kept::{Body, Kept};
use crate::protocol::push::PushResult;

/// A request is no larger than this, unless one message alone is.
const MAX_BODY: usize = 1 << 20;

/// What a message costs beside its text: its place in the queue, which may be half empty, and the allocator's share.
const MESSAGE_COST: usize = 2 * size_of::<Message>() + 16;

/// What a buffer costs beside its messages: itself, its place in the tables, and the first allocations of its queues.
const BUFFER_COST: usize = size_of::<Buffer>() + 512;

/// A message with the number of the call that brought it.
pub(super) struct Message {
    pub(super) kept: Kept,
    pub(super) call: u64,
}

impl Borrow<Kept> for Message {
    fn borrow(&self) -> &Kept {
        &self.kept
    }
}

/// How many bytes these messages take while they wait.
pub(super) fn cost(messages: &[Kept]) -> usize {
    messages.iter().map(message_cost).sum()
}

fn message_cost(kept: &Kept) -> usize {
    kept.len() + MESSAGE_COST
}

/// A push that waits for room. It is not accepted yet.
pub(super) struct Waiter {
    pub(super) call: u64,
    pub(super) messages: Vec<Kept>,
    pub(super) options: BufferOptions,
    pub(super) pending: Pending<Vec<PushResult>>,
}

pub(super) struct Buffer {
    messages: VecDeque<Message>,
    /// The cost of the messages, those in flight included.
    bytes: usize,
    /// How many, from the front, a flush was asked for.
    covered: usize,
    /// The last call for which it was.
    covered_call: u64,
    /// How many, from the front, were sent before without a usable answer.
    attempted: usize,
    flight: Option<InFlight>,
    /// How many, from the front, were refused together, while the one that is to blame is looked for.
    suspects: usize,
    /// Requests that failed in a row.
    pub(super) failures: u32,
    /// Until then nothing is sent.
    pub(super) resume_at: Option<Instant>,
    /// When messages came: of each run the first call that no flush was asked for.
    marks: VecDeque<(u64, Instant)>,
    pub(super) options: BufferOptions,
    pub(super) waiting: VecDeque<Waiter>,
    /// How many of them have given up, at most.
    given_up: usize,
    /// Its entry in the timers.
    pub(super) scheduled: Option<Instant>,
    /// Whether it stands among those ready to be sent.
    pub(super) queued: bool,
    /// Whether it stands among those that wait for room in the client.
    pub(super) starving: bool,
    own_cost: usize,
}

struct InFlight {
    messages: usize,
    first_call: u64,
}

/// Messages on their way, as one request.
pub(super) struct Flight {
    pub(super) address: Arc<Address>,
    pub(super) messages: Vec<Message>,
    pub(super) body: Vec<u8>,
    /// How many, from the front, were sent before.
    pub(super) resent: usize,
}

impl Flight {
    pub(super) fn cost(&self) -> usize {
        self.messages
            .iter()
            .map(|message| message_cost(&message.kept))
            .sum()
    }
}

impl Buffer {
    /// What an empty buffer costs.
    pub(super) fn cost_of(address: &Address) -> usize {
        BUFFER_COST + address.queue.len() + address.partition.len()
    }

    pub(super) fn new(address: &Address, options: BufferOptions) -> Buffer {
        Buffer {
            messages: VecDeque::new(),
            bytes: 0,
            covered: 0,
            covered_call: 0,
            attempted: 0,
            flight: None,
            suspects: 0,
            failures: 0,
            resume_at: None,
            marks: VecDeque::new(),
            options,
            waiting: VecDeque::new(),
            given_up: 0,
            scheduled: None,
            queued: false,
            starving: false,
            own_cost: Buffer::cost_of(address),
        }
    }

    pub(super) fn own_cost(&self) -> usize {
        self.own_cost
    }

    /// Messages that wait, without those in flight.
    pub(super) fn queued_messages(&self) -> usize {
        self.messages.len()
    }

    pub(super) fn in_flight(&self) -> usize {
        self.flight.as_ref().map_or(0, |flight| flight.messages)
    }

    fn len(&self) -> usize {
        self.messages.len() + self.in_flight()
    }

    /// Whether nothing is left of it and nobody waits for it.
    pub(super) fn is_idle(&self) -> bool {
        self.len() == 0 && !self.has_waiters()
    }

    /// Pushes that wait for room; one that has given up may still be there.
    pub(super) fn waiters(&self) -> impl Iterator<Item = &Waiter> {
        self.waiting
            .iter()
            .filter(|waiter| !waiter.pending.is_complete())
    }

    /// One that waited has given up. It goes when it is the first, or with others once they are half of all.
    pub(super) fn forget_waiter(&mut self) {
        self.given_up += 1;
        while self
            .waiting
            .front()
            .is_some_and(|first| first.pending.is_complete())
        {
            self.waiting.pop_front();
            self.given_up = self.given_up.saturating_sub(1);
        }
        if 2 * self.given_up > self.waiting.len() {
            self.waiting.retain(|waiter| !waiter.pending.is_complete());
            self.given_up = 0;
        }
    }

    pub(super) fn has_waiters(&self) -> bool {
        self.waiters().next().is_some()
    }

    /// Whether that much more is within the bounds of a push with these options. A call larger than them passes alone.
    pub(super) fn has_room(&self, messages: usize, bytes: usize, options: &BufferOptions) -> bool {
        self.len() == 0 || Self::within(self.len() + messages, self.bytes + bytes, options)
    }

    fn within(messages: usize, bytes: usize, options: &BufferOptions) -> bool {
        options.max_messages.is_none_or(|most| messages <= most)
            && options.max_bytes.is_none_or(|most| bytes <= most)
    }

    /// How many of the oldest messages must go so that `enough` holds for the messages and bytes that this frees; none
    /// if that cannot be.
    pub(super) fn oldest_to_drop(
        &self,
        messages: usize,
        bytes: usize,
        options: &BufferOptions,
        enough: impl Fn(usize, usize) -> bool,
    ) -> Option<usize> {
        let mut freed = 0;
        for count in 0..=self.messages.len() {
            let left = self.len() - count;
            let fits =
                left == 0 || Self::within(left + messages, self.bytes - freed + bytes, options);
            if fits && enough(count, freed) {
                return Some(count);
            }
            freed += self
                .messages
                .get(count)
                .map_or(0, |message| message_cost(&message.kept));
        }
        None
    }

    /// Takes out the oldest messages that are not in flight; with how many of them were sent before.
    pub(super) fn drop_oldest(&mut self, count: usize) -> (Vec<Message>, usize) {
        let attempted = self.attempted.min(count);
        self.covered -= self.covered.min(count);
        self.attempted -= attempted;
        let dropped: Vec<Message> = self.messages.drain(..count).collect();
        self.bytes -= dropped
            .iter()
            .map(|message| message_cost(&message.kept))
            .sum::<usize>();
        self.forget_marks();
        (dropped, attempted)
    }

    pub(super) fn append(&mut self, call: u64, messages: Vec<Kept>, now: Instant) {
        if self.uncovered() == 0 {
            self.marks.push_back((call, now));
        }
        self.bytes += cost(&messages);
        self.messages
            .extend(messages.into_iter().map(|kept| Message { kept, call }));
        if call <= self.covered_call {
            self.covered = self.messages.len();
        }
    }

    /// How many messages no flush was asked for.
    pub(super) fn uncovered(&self) -> usize {
        self.messages.len() - self.covered
    }

    /// Asks for a flush of everything up to that call; `false` when one was asked for already.
    pub(super) fn cover(&mut self, call: u64) -> bool {
        let news = self.uncovered() > 0
            || self
                .waiting
                .back()
                .is_some_and(|last| last.call > self.covered_call);
        self.covered = self.messages.len();
        self.covered_call = self.covered_call.max(call);
        news
    }

    /// When what waits must be sent.
    pub(super) fn due(&self) -> Option<Instant> {
        let (_, since) = self.marks.back().filter(|_| self.uncovered() > 0)?;
        Some(*since + Duration::from_millis(self.options.time_millis))
    }

    /// Since when its oldest message waits.
    pub(super) fn oldest(&self) -> Option<Instant> {
        let (_, since) = self.marks.front().filter(|_| self.len() > 0)?;
        Some(*since)
    }

    fn forget_marks(&mut self) {
        let first = self
            .flight
            .as_ref()
            .map(|flight| flight.first_call)
            .or_else(|| self.messages.front().map(|message| message.call));
        let Some(first) = first else {
            return self.marks.clear();
        };
        while self.marks.get(1).is_some_and(|(call, _)| *call <= first) {
            self.marks.pop_front();
        }
    }

    /// Whether anything of the calls up to that one waits or is in flight.
    pub(super) fn has_up_to(&self, call: u64) -> bool {
        self.has_messages_up_to(call)
            || self
                .flight
                .as_ref()
                .is_some_and(|flight| flight.first_call <= call)
            || self
                .waiters()
                .next()
                .is_some_and(|waiter| waiter.call <= call)
    }

    pub(super) fn has_messages_up_to(&self, call: u64) -> bool {
        self.messages
            .front()
            .is_some_and(|message| message.call <= call)
    }

    /// How many messages of the calls up to that one wait or are in flight.
    pub(super) fn count_up_to(&self, call: u64) -> usize {
        let waiting = self.waiters().filter(|waiter| waiter.call <= call);
        self.in_flight()
            + self
                .messages
                .partition_point(|message| message.call <= call)
            + waiting.map(|waiter| waiter.messages.len()).sum::<usize>()
    }

    /// Takes the next request: messages of the calls up to that one, as many as may go together.
    pub(super) fn take(&mut self, address: &Arc<Address>, up_to: u64) -> Option<Flight> {
        if self.flight.is_some() {
            return None;
        }
        let most = match self.suspects {
            0 => self.options.message_count,
            suspects => (suspects / 2).clamp(1, self.options.message_count),
        };
        let mut body = Body::new(&address.queue, &address.partition);
        let count = self
            .messages
            .iter()
            .take(most)
            .take_while(|message| message.call <= up_to && body.add(&message.kept, MAX_BODY))
            .count();
        let first_call = self.messages.front().filter(|_| count > 0)?.call;
        let resent = self.attempted.min(count);
        self.covered -= self.covered.min(count);
        self.attempted -= resent;
        self.flight = Some(InFlight {
            messages: count,
            first_call,
        });
        Some(Flight {
            address: address.clone(),
            messages: self.messages.drain(..count).collect(),
            body: body.finish(),
            resent,
        })
    }

    /// What was in flight is done with. `to_blame`: it is the one message that was looked for.
    pub(super) fn landed(&mut self, flight: &Flight, to_blame: bool) {
        self.flight = None;
        self.bytes -= flight.cost();
        self.failures = 0;
        self.suspects = match to_blame {
            true => 0,
            false => self.suspects.saturating_sub(flight.messages.len()),
        };
        self.forget_marks();
    }

    /// What was in flight goes back to the front, in order. `sent`: a broker may have stored it.
    pub(super) fn put_back(&mut self, flight: Flight, sent: bool) {
        let count = flight.messages.len();
        self.flight = None;
        self.attempted += if sent { count } else { flight.resent };
        self.covered += count;
        for message in flight.messages.into_iter().rev() {
            self.messages.push_front(message);
        }
    }

    /// One of so many at the front is to blame: fewer are sent at a time until it is found.
    pub(super) fn suspect(&mut self, sent: usize) {
        self.suspects = sent;
    }

    /// Everything that is left and not in flight, when the client closes.
    pub(super) fn into_messages(self) -> (VecDeque<Message>, usize) {
        (self.messages, self.attempted)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::push::Item;

    fn kept(ids: std::ops::Range<usize>) -> Vec<Kept> {
        let items: Vec<_> = ids
            .map(|n| Item::raw("1").unwrap().transaction_id(n.to_string()))
            .collect();
        Kept::list("q", "p", &items).unwrap()
    }

    fn buffer(message_count: usize) -> (Arc<Address>, Buffer) {
        let address = Arc::new(Address::new("q", "p"));
        let options = BufferOptions {
            message_count,
            ..BufferOptions::default()
        };
        let buffer = Buffer::new(&address, options);
        (address, buffer)
    }

    fn ids(messages: &[Message]) -> Vec<usize> {
        messages
            .iter()
            .map(|message| message.kept.transaction_id().parse().unwrap())
            .collect()
    }

    #[test]
    fn b3_the_time_runs_from_the_first_message() {
        let (address, mut buffer) = buffer(10);
        let start = Instant::now();
        let second = Duration::from_secs(1);
        buffer.append(1, kept(0..1), start);
        buffer.append(2, kept(1..2), start + second / 2);
        assert_eq!(buffer.due(), Some(start + second));
        assert!(buffer.cover(2));
        assert!(!buffer.cover(2), "there is nothing new to flush");
        assert_eq!(buffer.due(), None);
        buffer.append(3, kept(2..3), start + 2 * second);
        assert_eq!(buffer.due(), Some(start + 3 * second));
        assert_eq!(buffer.oldest(), Some(start));
        let flight = buffer.take(&address, 2).unwrap();
        buffer.landed(&flight, false);
        assert_eq!(buffer.oldest(), Some(start + 2 * second));
        assert_eq!(buffer.due(), Some(start + 3 * second));
    }

    #[test]
    fn b4_a_request_has_at_most_message_count_messages() {
        let (address, mut buffer) = buffer(10);
        buffer.append(1, kept(0..25), Instant::now());
        buffer.cover(1);
        let mut sizes = Vec::new();
        let mut seen = Vec::new();
        while let Some(flight) = buffer.take(&address, u64::MAX) {
            assert!(buffer.take(&address, u64::MAX).is_none(), "one at a time");
            sizes.push(flight.messages.len());
            seen.extend(ids(&flight.messages));
            buffer.landed(&flight, false);
        }
        assert_eq!(sizes, [10, 10, 5]);
        assert_eq!(seen, (0..25).collect::<Vec<_>>());
        assert!(buffer.is_idle());
        assert_eq!(buffer.bytes, 0);
    }

    #[test]
    fn b11_a_failed_batch_goes_back_to_the_front_in_order() {
        let (address, mut buffer) = buffer(2);
        buffer.append(1, kept(0..3), Instant::now());
        buffer.cover(1);
        let bytes = buffer.bytes;
        let flight = buffer.take(&address, u64::MAX).unwrap();
        assert_eq!(flight.resent, 0);
        buffer.append(2, kept(3..4), Instant::now());
        buffer.put_back(flight, true);
        assert_eq!((buffer.covered, buffer.uncovered()), (3, 1));
        let flight = buffer.take(&address, u64::MAX).unwrap();
        assert_eq!((ids(&flight.messages), flight.resent), (vec![0, 1], 2));
        buffer.put_back(flight, false);
        let flight = buffer.take(&address, 1).unwrap();
        assert_eq!(flight.resent, 2, "sent once is sent");
        buffer.landed(&flight, false);
        let flight = buffer.take(&address, 1).unwrap();
        assert_eq!((ids(&flight.messages), flight.resent), (vec![2], 0));
        buffer.landed(&flight, false);
        assert!(buffer.take(&address, 1).is_none());
        assert_eq!(buffer.count_up_to(2), 1);
        assert!(buffer.bytes < bytes);
    }

    #[test]
    fn c35_a_refused_message_is_found_by_halving() {
        let (address, mut buffer) = buffer(8);
        buffer.append(1, kept(0..32), Instant::now());
        buffer.cover(1);
        let mut sizes = Vec::new();
        let mut stored = Vec::new();
        while let Some(flight) = buffer.take(&address, u64::MAX) {
            sizes.push(flight.messages.len());
            let seen = ids(&flight.messages);
            if seen.contains(&5) && seen.len() > 1 {
                buffer.put_back(flight, false);
                buffer.suspect(seen.len());
            } else {
                let to_blame = seen == [5];
                stored.extend(seen);
                buffer.landed(&flight, to_blame);
            }
        }
        assert_eq!(
            stored,
            (0..32).collect::<Vec<_>>(),
            "in order, the guilty too"
        );
        assert_eq!(sizes, [8, 4, 2, 1, 1, 8, 8, 8, 2]);
    }

    #[test]
    fn c12_oldest_messages_make_room_but_not_those_in_flight() {
        let (address, mut buffer) = buffer(2);
        let options = BufferOptions {
            message_count: 2,
            max_messages: Some(5),
            ..BufferOptions::default()
        };
        buffer.append(1, kept(0..5), Instant::now());
        buffer.cover(1);
        assert!(!buffer.has_room(1, 1, &options));
        let flight = buffer.take(&address, u64::MAX).unwrap();
        let always = |_: usize, _: usize| true;
        assert_eq!(buffer.oldest_to_drop(2, 1, &options, always), Some(2));
        assert_eq!(
            buffer.oldest_to_drop(4, 1, &options, always),
            None,
            "two are in flight"
        );
        let (dropped, attempted) = buffer.drop_oldest(2);
        assert_eq!((ids(&dropped), attempted), (vec![2, 3], 0));
        buffer.put_back(flight, true);
        let (dropped, attempted) = buffer.drop_oldest(3);
        assert_eq!((ids(&dropped), attempted), (vec![0, 1, 4], 2));
        assert_eq!((buffer.bytes, buffer.covered), (0, 0));
        assert!(buffer.has_room(100, 100, &options), "a call alone passes");
    }
}
