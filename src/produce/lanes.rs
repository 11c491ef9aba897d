//! Lanes: slots for one request in flight each, that take in turn from all lines whose head is a direct push. What comes
//! while the lanes are busy leaves together. Bookkeeping alone: the time comes from outside.

mod gather;

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use self::gather::Gather;
use super::address::{Address, Place};
use super::calls::Call;
use super::fuse::{Course, Fused, MAX_MESSAGES, Misfit, Parcel, Size};
use super::outcome::Rules;
use super::state::State;
use super::tuner::Tuner;
use super::turns::{Holder, Line, Turn};
use crate::pending::{Pending, Ticket};
use crate::protocol::push::{Push, PushResult};

/// So many requests may be in flight at most, those included that take very long and do not count.
const MOST_LANES: usize = 64;

/// How the lanes of a client work.
#[derive(Clone, Copy, Debug)]
pub(super) struct LaneOptions {
    /// Whether calls share requests.
    pub(super) fuses: bool,
    /// How long a lane waits for those that its answer has released.
    pub(super) gather: Duration,
    /// How many requests may be in flight at most.
    pub(super) most: usize,
}

/// Lines to take from, in turn.
#[derive(Default)]
pub(super) struct Ready {
    lines: VecDeque<Arc<Address>>,
    /// How many messages wait there.
    waiting: usize,
    /// How many of the lines have nothing left to take.
    idle: usize,
}

/// So many messages are enough to send: no more would come in the time that a lane waits.
const AHEAD: usize = 128;

/// What the lanes share.
pub(super) struct Lanes {
    options: LaneOptions,
    pub(super) rules: Rules,
    tuner: Tuner,
    /// Lanes with a request in flight, those that gather included.
    busy: usize,
    /// Requests in flight with large calls. They take no lane: only small calls gain by sharing.
    beside: usize,
    /// Requests in flight that take so long that they do not count.
    overdue: usize,
    /// Messages in flight.
    flying: usize,
    flying_large: usize,
    gathers: VecDeque<Gather>,
    /// How often in a row hardly anybody came back while a lane waited.
    vain: u32,
    /// The lines whose first call is small, and those whose first is large.
    small: Ready,
    large: Ready,
    /// Lines that wait before their next attempt.
    pub(super) paused: BTreeSet<(Instant, Arc<Address>)>,
    /// Failures in a row that say that no request would go well, and until when nothing is tried.
    pub(super) outage: u32,
    pub(super) resume_at: Option<Instant>,
}

impl Lanes {
    pub(super) fn new(options: LaneOptions, rules: Rules) -> Lanes {
        Lanes {
            options,
            rules,
            tuner: Tuner::new(options.most),
            busy: 0,
            beside: 0,
            overdue: 0,
            flying: 0,
            flying_large: 0,
            gathers: VecDeque::new(),
            vain: 0,
            small: Ready::default(),
            large: Ready::default(),
            paused: BTreeSet::new(),
            outage: 0,
            resume_at: None,
        }
    }

    #[cfg(test)]
    pub(super) fn for_tests() -> Lanes {
        let options = LaneOptions {
            fuses: true,
            gather: Duration::from_micros(200),
            most: 1,
        };
        let rules = Rules {
            rounds: 3,
            delay: Duration::from_secs(1),
            longest_pause: Duration::from_secs(30),
        };
        Lanes::new(options, rules)
    }

    /// Sets how many requests may be in flight from now on. Those that are stay.
    #[cfg(test)]
    pub(super) fn set_most(&mut self, most: usize) {
        (self.options.most, self.tuner) = (most, Tuner::fixed(most));
    }

    /// The same for the lanes among them.
    #[cfg(test)]
    pub(super) fn set_lanes(&mut self, lanes: usize) {
        self.tuner = Tuner::fixed(lanes);
    }

    /// How many there are now.
    fn lanes(&self) -> usize {
        match self.options.fuses {
            true => (self.tuner.lanes() + self.overdue).min(MOST_LANES),
            false => self.options.most,
        }
    }

    fn ready(&mut self, size: Size) -> &mut Ready {
        match size {
            Size::Small => &mut self.small,
            Size::Large => &mut self.large,
        }
    }

    /// Whether a request of that size may be sent now. While nothing goes well, one at a time tries.
    fn may_send(&self, size: Size, now: Instant) -> bool {
        let under_way = self.busy + self.beside;
        let most = (self.options.most + self.overdue).min(MOST_LANES.max(self.options.most));
        under_way < if self.outage == 0 { most } else { 1 }
            && self.resume_at.is_none_or(|at| at <= now)
            && match size {
                // A lane that gathers goes before those that are idle: what comes meanwhile is what it waits for.
                Size::Small => self.busy < self.lanes() && self.gathers.is_empty(),
                Size::Large => true,
            }
    }

    /// When something is to be done, if nothing happens before.
    fn next_look(&self) -> Option<Instant> {
        let paused = self.paused.first().map(|(at, _)| *at);
        [paused, self.resume_at].into_iter().flatten().min()
    }
}

impl State {
    /// A direct push takes its place: behind everything that was pushed to the partition before, buffered or not.
    pub(super) fn push(
        &mut self,
        place: (&str, &str),
        push: Push,
        pending: &Pending<Vec<PushResult>>,
        deadline: Instant,
        now: Instant,
    ) -> Ticket {
        let place: &dyn Place = &place;
        let messages = push.messages();
        let line = match self.lines.get_mut(place) {
            Some(line) if line.buffer.is_none() => line,
            found => {
                let (queue, partition) = place.names();
                let address = found
                    .map(|line| line.address.clone())
                    .unwrap_or_else(|| Arc::new(Address::new(queue, partition)));
                self.cover(&address, now);
                let line = self.lines.entry(address.clone());
                line.or_insert_with(|| Line::new(address))
            }
        };
        self.last_call += 1;
        let call = Call {
            address: line.address.clone(),
            messages,
            pending: Some(pending.clone()),
            waiting: true,
        };
        let ticket = self.calls.insert(self.last_call, call, Some(deadline), now);
        line.behind.push_back(Turn::Push(Parcel {
            ticket,
            address: line.address.clone(),
            pending: pending.clone(),
            push,
            deadline,
            course: Course::default(),
        }));
        line.messages += messages;
        if let Some(size) = line.ready {
            let ready = self.lanes.ready(size);
            // It may have been empty.
            ready.idle -= usize::from(line.messages == messages);
            ready.waiting += messages;
        } else if line.behind.len() == 1 {
            let address = line.address.clone();
            self.make_ready(&address);
        }
        self.start(now);
        self.look_in_time();
        ticket
    }

    /// Lets the lanes take from a line, if its head is a direct push and nothing of it is in flight.
    pub(super) fn make_ready(&mut self, address: &Arc<Address>) {
        let Some(line) = self.lines.get_mut(address) else {
            return;
        };
        if let Some(Turn::Push(head)) = line.behind.front()
            && line.ready.is_none()
            && line.holder == Holder::Nobody
            && line.resume_at.is_none()
        {
            let size = head.size();
            line.ready = Some(size);
            let ready = self.lanes.ready(size);
            ready.waiting += line.messages;
            ready.idle += usize::from(line.messages == 0);
            ready.lines.push_back(address.clone());
        }
    }

    /// Lets idle lanes send, or the one that gathers once it has what it waits for.
    pub(super) fn start(&mut self, now: Instant) {
        while let Some(gather) = self.lanes.gathers.front()
            && self.lanes.small.waiting >= gather.messages
        {
            self.lanes.end_gather();
            self.send_one(Size::Small, now);
        }
        for size in [Size::Small, Size::Large] {
            while self.lanes.ready(size).waiting > 0
                && self.lanes.may_send(size, now)
                && self.send_one(size, now)
            {}
        }
    }

    fn send_one(&mut self, size: Size, now: Instant) -> bool {
        let Some(request) = self.take_request(size, now) else {
            return false;
        };
        match size {
            Size::Small => {
                self.lanes.busy += 1;
                self.lanes.flying += request.messages;
            }
            Size::Large => {
                self.lanes.beside += 1;
                self.lanes.flying_large += request.messages;
            }
        }
        self.after.requests.push(request);
        true
    }

    /// Takes from each line in turn what fits, whole calls in order; of those with large calls, from one.
    fn take_request(&mut self, size: Size, now: Instant) -> Option<Fused> {
        let mut request = Fused::new(self.lanes.options.fuses, size, now);
        while !request.is_full()
            && let Some(address) = self.lanes.ready(size).lines.pop_front()
        {
            let Some(line) = self.lines.get_mut(&address) else {
                continue;
            };
            line.ready = None;
            let ready = self.lanes.ready(size);
            ready.waiting -= line.messages;
            ready.idle -= usize::from(line.messages == 0);
            request.begin_line();
            let mut taken = 0;
            let stopped = loop {
                let Some(Turn::Push(head)) = line.behind.front() else {
                    break None;
                };
                // One that has ended is passed over; whoever ended it sees to the rest.
                let ended = head.pending.is_complete();
                if !ended && let Err(misfit) = request.takes(head) {
                    break Some(misfit);
                }
                let Some(Turn::Push(parcel)) = line.behind.pop_front() else {
                    break None;
                };
                line.leave(&mut self.calls, parcel.ticket);
                if !ended && parcel.pending.mark_sent() {
                    request.add(parcel);
                    taken += 1;
                }
            };
            match (taken, stopped) {
                (0, None) => self.pass_on(&address, now),
                // Its first call has ended, and the next one is large.
                (0, Some(Misfit::Large)) => self.make_ready(&address),
                (0, Some(_)) => {
                    line.ready = Some(size);
                    ready.waiting += line.messages;
                    ready.lines.push_front(address);
                }
                _ => {
                    line.holder = Holder::Call;
                    request.lines.push((address, taken));
                }
            }
            if stopped == Some(Misfit::Full) || size == Size::Large && !request.is_empty() {
                break;
            }
        }
        Some(request).filter(|request| !request.is_empty())
    }

    /// A request was answered for. If much waits already, the next one leaves before the callers have their results: they
    /// cannot be back in time, and come back while it is on its way. Returns whether that is so.
    pub(super) fn answered_ahead(&mut self, request: &mut Fused, now: Instant) -> bool {
        let LaneOptions { fuses, gather, .. } = self.lanes.options;
        let freed: usize = request
            .lines
            .iter()
            .filter_map(|(address, _)| Some(self.lines.get(address)?.messages))
            .sum();
        request.found_waiting = self.lanes.small.waiting + freed;
        let waiting = request.found_waiting + self.lanes.large.waiting;
        let ahead = fuses && !gather.is_zero() && waiting >= AHEAD && !self.lanes.tuner.whole();
        if ahead {
            self.free(request, now);
            self.start(now);
        }
        ahead
    }

    /// A request was answered for, and its calls have their results. A lane that has released callers waits for them.
    pub(super) fn answered(&mut self, request: &Fused, now: Instant) {
        self.free(request, now);
        self.settle(request, now);
        if let Some(gather) = self.lanes.gather(request, now) {
            self.lanes.busy += 1;
            self.after.gather = Some(gather.until);
            self.lanes.gathers.push_back(gather);
        }
        self.start(now);
    }

    /// The lines and the lane of a request are free again.
    fn free(&mut self, request: &Fused, now: Instant) {
        self.lane_ended(request);
        (self.lanes.outage, self.lanes.resume_at) = (0, None);
        for (address, _) in &request.lines {
            self.pass_on(address, now);
        }
        // Some that wait do so for a partition that is busy.
        let under_way = request.messages + self.lanes.flying + self.lanes.flying_large;
        // So did those that shared a request.
        let full = request.calls.len() > 1 || self.calls.messages() > under_way;
        if request.size == Size::Small {
            self.lanes.tuner.answered(request.messages, full, now);
        }
    }

    /// The calls of a request have their results.
    pub(super) fn settle(&mut self, request: &Fused, now: Instant) {
        for call in &request.calls {
            self.settled(call.ticket, now);
        }
    }

    /// A request takes very long: it does not keep others from being sent.
    pub(super) fn overdue(&mut self, now: Instant) {
        self.lanes.overdue += 1;
        self.start(now);
    }

    /// Such a request has ended.
    pub(super) fn no_longer_overdue(&mut self) {
        self.lanes.overdue -= 1;
    }

    /// A lane has ended without an answer that is one.
    pub(super) fn lane_ended(&mut self, request: &Fused) {
        match request.size {
            Size::Small => {
                self.lanes.busy -= 1;
                self.lanes.flying -= request.messages;
            }
            Size::Large => {
                self.lanes.beside -= 1;
                self.lanes.flying_large -= request.messages;
            }
        }
    }

    /// A call is over. If it waits in its line, it will not be sent.
    pub(super) fn settled(&mut self, ticket: Ticket, now: Instant) {
        let Some(call) = self.calls.remove(ticket) else {
            return;
        };
        if !call.waiting {
            return;
        }
        let Some(line) = self.lines.get_mut(&call.address) else {
            return;
        };
        line.messages -= call.messages;
        line.dead += 1;
        if 2 * line.dead > line.behind.len() {
            line.dead = 0;
            line.behind
                .retain(|turn| !matches!(turn, Turn::Push(parcel) if parcel.pending.is_complete()));
        }
        if let Some(size) = line.ready {
            let ready = self.lanes.ready(size);
            ready.waiting -= call.messages;
            if line.messages == 0 {
                ready.idle += 1;
                self.sweep(size, now);
            }
        } else if line.holder == Holder::Nobody && line.messages == 0 {
            if let Some(at) = line.resume_at.take() {
                self.lanes.paused.remove(&(at, call.address.clone()));
            }
            self.pass_on(&call.address, now);
        }
    }

    /// Lines of which nothing is left to take go once they are half of all.
    fn sweep(&mut self, size: Size, now: Instant) {
        let ready = self.lanes.ready(size);
        if 2 * ready.idle <= ready.lines.len() {
            return;
        }
        for address in std::mem::take(&mut ready.lines) {
            match self.lines.get_mut(&address) {
                Some(line) if line.messages == 0 => {
                    line.ready = None;
                    self.lanes.ready(size).idle -= 1;
                    self.pass_on(&address, now);
                }
                Some(_) => self.lanes.ready(size).lines.push_back(address),
                None => {}
            }
        }
    }

    /// Calls go back to the front of their line, in order.
    pub(super) fn put_back(&mut self, address: &Arc<Address>, calls: Vec<Parcel>) {
        for parcel in calls.into_iter().rev() {
            let Some(call) = self.calls.get_mut(parcel.ticket) else {
                continue;
            };
            call.waiting = true;
            let messages = call.messages;
            let line = self.line(address);
            line.messages += messages;
            line.behind.push_front(Turn::Push(parcel));
        }
    }

    /// What the time has brought: deadlines, and the end of pauses. Returns when to look again.
    pub(super) fn look(&mut self, now: Instant) -> Option<Instant> {
        self.after.expired = self.calls.take_due(now);
        while let Some((at, _)) = self.lanes.paused.first()
            && *at <= now
            && let Some((_, address)) = self.lanes.paused.pop_first()
        {
            if let Some(line) = self.lines.get_mut(&address) {
                line.resume_at = None;
                self.pass_on(&address, now);
            }
        }
        if self.lanes.resume_at.is_some_and(|at| at <= now) {
            self.lanes.resume_at = None;
        }
        self.start(now);
        self.looks_at = self.next_look_at();
        // Without anything to wait for the task ends.
        self.keeps_time = self.looks_at.is_some();
        self.looks_at
    }

    fn next_look_at(&self) -> Option<Instant> {
        [self.calls.next_due(), self.lanes.next_look()]
            .into_iter()
            .flatten()
            .min()
    }

    /// Sees to it that somebody looks when the time comes.
    pub(super) fn look_in_time(&mut self) {
        if let Some(next) = self.next_look_at()
            && self.looks_at.is_none_or(|at| next < at)
        {
            self.looks_at = Some(next);
            self.after.look = true;
        }
    }
}
