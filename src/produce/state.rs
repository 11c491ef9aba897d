//! What a producer keeps: the lines to the partitions, their buffers, and what all buffers share. Bookkeeping alone: the
//! time comes from outside, and what has to be done without the lock is left in `after`.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::Arc;

use tokio::time::Instant;

use super::address::Address;
use super::buffer::{Buffer, Message};
use super::calls::Calls;
use super::fuse::Fused;
use super::lanes::Lanes;
use super::turns::{Holder, Line};
use crate::pending::Pending;
use crate::protocol::push::PushResult;

/// The bounds of all buffers together.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    pub(super) messages: usize,
    pub(super) bytes: usize,
}

/// What is to be done once the lock is released.
#[derive(Default)]
pub(super) struct After {
    /// Pushes that waited and are accepted now.
    pub(super) accepted: Vec<(Pending<Vec<PushResult>>, Vec<PushResult>)>,
    /// Whether the task that sends has something new to look at.
    pub(super) wake: bool,
    /// Direct pushes that leave now.
    pub(super) requests: Vec<Fused>,
    /// When a lane that gathers has waited long enough.
    pub(super) gather: Option<Instant>,
    /// Whether the task that keeps the time has to look earlier than it meant to.
    pub(super) look: bool,
    /// Direct pushes whose deadline has come.
    pub(super) expired: Vec<Pending<Vec<PushResult>>>,
    /// Direct pushes that came when the client was closed already.
    pub(super) refused: Vec<Pending<Vec<PushResult>>>,
}

/// Numbers of the buffers, for the statistics.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Counts {
    pub(super) active: usize,
    pub(super) queued: usize,
    pub(super) in_flight: usize,
    pub(super) bytes: usize,
    pub(super) waiting: usize,
    pub(super) oldest: Option<Instant>,
}

pub(super) struct State {
    pub(super) bounds: Bounds,
    pub(super) last_call: u64,
    /// The direct pushes that are not settled.
    pub(super) calls: Calls,
    pub(super) lanes: Lanes,
    /// When the task that keeps the time looks next; none when it is not there.
    pub(super) looks_at: Option<Instant>,
    /// Whether that task is there.
    pub(super) keeps_time: bool,
    pub(super) lines: HashMap<Arc<Address>, Line>,
    pub(super) buffers: usize,
    /// Messages in buffers and in flight from there, and what they cost.
    pub(super) messages: usize,
    pub(super) bytes: usize,
    pub(super) ready: VecDeque<Arc<Address>>,
    pub(super) timers: BTreeSet<(Instant, Arc<Address>)>,
    /// Lines whose next waiting push lacks room in the client.
    pub(super) starving: VecDeque<Arc<Address>>,
    /// Requests of buffers in flight.
    pub(super) flights: usize,
    /// Messages that were in flight when the client was closed and are given up.
    pub(super) cut_short: usize,
    /// Failures in a row that say that no request would go well, and until when nothing is tried.
    pub(super) outage: u32,
    pub(super) resume_at: Option<Instant>,
    /// Flushes and closes that wait.
    pub(super) hurried: usize,
    /// Whether the task that sends is there.
    pub(super) running: bool,
    pub(super) closed: bool,
    pub(super) after: After,
}

impl State {
    pub(super) fn new(bounds: Bounds, lanes: Lanes) -> State {
        State {
            bounds,
            last_call: 0,
            calls: Calls::new(),
            lanes,
            looks_at: None,
            keeps_time: false,
            lines: HashMap::new(),
            buffers: 0,
            messages: 0,
            bytes: 0,
            ready: VecDeque::new(),
            timers: BTreeSet::new(),
            starving: VecDeque::new(),
            flights: 0,
            cut_short: 0,
            outage: 0,
            resume_at: None,
            hurried: 0,
            running: false,
            closed: false,
            after: After::default(),
        }
    }

    /// For the task that sends itself: it need not be woken.
    pub(super) fn looked(&mut self) {
        self.after.wake = false;
        self.running = !self.is_done();
    }

    pub(super) fn take_after(&mut self) -> After {
        std::mem::take(&mut self.after)
    }

    pub(super) fn buffer(&mut self, address: &Address) -> Option<&mut Buffer> {
        self.lines.get_mut(address)?.buffer.as_deref_mut()
    }

    pub(super) fn key(&self, address: Address) -> Arc<Address> {
        match self.lines.get_key_value(&address) {
            Some((key, _)) => key.clone(),
            None => Arc::new(address),
        }
    }

    pub(super) fn line(&mut self, address: &Arc<Address>) -> &mut Line {
        self.lines
            .entry(address.clone())
            .or_insert_with(|| Line::new(address.clone()))
    }

    pub(super) fn drop_buffer(&mut self, address: &Arc<Address>) {
        let Some(buffer) = self
            .lines
            .get_mut(address)
            .and_then(|line| line.buffer.take())
        else {
            return;
        };
        self.buffers -= 1;
        self.bytes -= buffer.own_cost();
        if let Some(at) = buffer.scheduled {
            self.timers.remove(&(at, address.clone()));
        }
    }

    /// Whether the task that sends has nothing to do any more.
    pub(super) fn is_done(&self) -> bool {
        self.buffers == 0 && self.flights == 0
    }

    pub(super) fn is_closed(&self) -> bool {
        self.closed
    }

    /// Accepts and sends nothing more from buffers; what is left in them, with how many of each were sent before. What is
    /// in flight is not among it.
    pub(super) fn close(&mut self) -> Vec<(Arc<Address>, VecDeque<Message>, usize)> {
        self.closed = true;
        self.after.wake = true;
        self.ready.clear();
        self.timers.clear();
        self.starving.clear();
        (self.buffers, self.messages, self.bytes) = (0, 0, 0);
        let mut left = Vec::new();
        for (address, line) in &mut self.lines {
            if let Some(buffer) = line.buffer.take() {
                let (messages, attempted) = buffer.into_messages();
                if !messages.is_empty() {
                    left.push((address.clone(), messages, attempted));
                }
            }
        }
        // Direct pushes that stand in line end with the client's operations.
        self.lines
            .retain(|_, line| line.holder == Holder::Call || !line.behind.is_empty());
        left
    }

    /// The messages in all buffers, those in flight included, and what they cost.
    pub(super) fn used(&self) -> (usize, usize) {
        (self.messages, self.bytes)
    }

    pub(super) fn counts(&self) -> Counts {
        let mut counts = Counts {
            bytes: self.bytes,
            ..Counts::default()
        };
        let buffers = self.lines.values().filter_map(|line| line.buffer.as_ref());
        for buffer in buffers {
            counts.active += 1;
            counts.queued += buffer.queued_messages();
            counts.in_flight += buffer.in_flight();
            counts.waiting += buffer.waiters().count();
            counts.oldest = match (counts.oldest, buffer.oldest()) {
                (Some(one), Some(other)) => Some(one.min(other)),
                (one, other) => one.or(other),
            };
        }
        counts
    }
}
