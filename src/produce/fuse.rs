//! One request with many calls: what fits into it, and what it stands for.

use std::collections::HashSet;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;

use bytes::Bytes;
use tokio::time::Instant;

use super::address::Address;
use crate::pending::{Pending, Ticket};
use crate::protocol::push::{self, Push, PushResult};

/// A request is no larger than this, unless one call alone is.
pub(super) const MAX_BYTES: usize = 1 << 20;

/// Nor has it more messages, unless one call alone has.
pub(super) const MAX_MESSAGES: usize = 2048;

/// A call that has half of that keeps a request for itself.
const HALF: usize = 2;

/// A call of so many messages or bytes is large.
const LARGE_MESSAGES: usize = 64;
const LARGE_BYTES: usize = 64 << 10;

/// Small calls share requests to be fewer. A large one costs its partition's work whatever it shares, so that it goes along
/// with others of its partition at most, beside the other requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Size {
    Small,
    Large,
}

/// A direct push on its way.
pub(super) struct Parcel {
    pub(super) ticket: Ticket,
    pub(super) address: Arc<Address>,
    pub(super) pending: Pending<Vec<PushResult>>,
    pub(super) push: Push,
    pub(super) deadline: Instant,
    pub(super) course: Course,
}

/// What a call has been through.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Course {
    /// Requests that failed.
    pub(super) rounds: u32,
    /// Those that a broker stumbled over.
    pub(super) stumbles: u32,
    /// Attempts at any backend.
    pub(super) attempts: u32,
    /// Whether one of them may have stored it.
    pub(super) unknown: bool,
    /// Whether it goes in a request of its own, to see whether it is the one to blame.
    pub(super) alone: bool,
}

impl Parcel {
    pub(super) fn size(&self) -> Size {
        match self.push.messages() >= LARGE_MESSAGES || self.push.bytes() >= LARGE_BYTES {
            true => Size::Large,
            false => Size::Small,
        }
    }

    fn goes_alone(&self) -> bool {
        self.course.alone
            || self.push.messages() * HALF >= MAX_MESSAGES
            || self.push.bytes() * HALF >= MAX_BYTES
    }
}

/// Why a call is not taken into a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Misfit {
    /// The request is to be sent as it is.
    Full,
    /// It is large and the request is not; other lines may go on.
    Large,
    /// It names an id that the request has; other lines may go on.
    Twice,
}

/// A request that is being filled, or on its way.
pub(super) struct Fused {
    /// In order; those of one line stand together.
    pub(super) calls: Vec<Parcel>,
    /// The lines they are of, which are busy until the answer, with how many each has.
    pub(super) lines: Vec<(Arc<Address>, usize)>,
    pub(super) messages: usize,
    pub(super) size: Size,
    /// When it was made.
    pub(super) began: Instant,
    /// How many messages waited when it was answered.
    pub(super) found_waiting: usize,
    bytes: usize,
    closed: bool,
    /// The callers' ids of the calls of the last line, by their hash, once there can be two the same.
    ids: HashSet<u64>,
    hashed: usize,
    hasher: RandomState,
    /// Whether several calls may share a request at all.
    fuses: bool,
}

impl Fused {
    pub(super) fn new(fuses: bool, size: Size, now: Instant) -> Fused {
        Fused {
            calls: Vec::new(),
            lines: Vec::new(),
            messages: 0,
            size,
            began: now,
            found_waiting: 0,
            bytes: push::FRAME,
            closed: false,
            ids: HashSet::new(),
            hashed: 0,
            hasher: RandomState::new(),
            fuses,
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.calls.is_empty()
    }

    pub(super) fn is_full(&self) -> bool {
        self.closed
    }

    /// The next calls are of another line.
    pub(super) fn begin_line(&mut self) {
        self.ids.clear();
        self.hashed = self.calls.len();
    }

    /// Whether a call goes along, as the next of its line.
    pub(super) fn takes(&mut self, parcel: &Parcel) -> Result<(), Misfit> {
        if self.closed {
            return Err(Misfit::Full);
        }
        if self.size == Size::Small && parcel.size() == Size::Large {
            return Err(Misfit::Large);
        }
        if self.calls.is_empty() {
            self.closed = !self.fuses || parcel.goes_alone();
            return Ok(());
        }
        let (messages, bytes) = (parcel.push.messages(), parcel.push.bytes());
        if parcel.goes_alone()
            || self.messages + messages > MAX_MESSAGES
            || self.bytes + bytes > MAX_BYTES
        {
            self.closed = true;
            return Err(Misfit::Full);
        }
        if parcel.push.has_callers_ids() && self.has_an_id_of(parcel) {
            return Err(Misfit::Twice);
        }
        Ok(())
    }

    /// Two ids of one hash are rare and do no harm: the call goes in the next request.
    fn has_an_id_of(&mut self, parcel: &Parcel) -> bool {
        for earlier in &self.calls[self.hashed..] {
            let ids = earlier.push.callers_ids();
            self.ids.extend(ids.map(|id| self.hasher.hash_one(id)));
        }
        self.hashed = self.calls.len();
        let mut ids = parcel.push.callers_ids();
        ids.any(|id| self.ids.contains(&self.hasher.hash_one(id)))
    }

    pub(super) fn add(&mut self, parcel: Parcel) {
        self.messages += parcel.push.messages();
        self.bytes += parcel.push.bytes();
        self.calls.push(parcel);
    }

    /// When the last of its calls ends: one that ends earlier does not cut the attempt short for the others.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.calls.iter().map(|call| call.deadline).max()
    }

    pub(super) fn body(&self) -> Bytes {
        push::body(self.calls.iter().map(|call| &call.push))
    }
}
