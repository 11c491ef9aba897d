//! How long a lane waits for the callers that its answer has released.

use std::time::Duration;

use tokio::time::Instant;

use super::{Fused, Lanes, MAX_MESSAGES, Size, State};

/// Where everything goes in one request, a lane waits for those who still come back until nobody has come for this part of
/// the time that its last request took, and no longer than that part of it.
const PAUSE_SHARE: u32 = 8;
const MOST_SHARE: u32 = 2;

/// After so many times in vain a lane does not wait any more, but for a try now and then.
const IN_VAIN: u32 = 3;
const TRY_AGAIN: u32 = 32;

/// A lane that waits for those that its answer has released.
pub(super) struct Gather {
    /// So many are all that can come.
    pub(super) messages: usize,
    /// It goes on for that long after somebody has come.
    pause: Duration,
    pub(super) until: Instant,
    /// It ends then, whoever still comes.
    limit: Instant,
    /// How many were there when it was last looked at.
    seen: usize,
    /// How many were there before its answer released that many.
    before: usize,
    released: usize,
}

impl Lanes {
    /// Whether a lane whose answer has released these callers waits for more than are there. With a single lane all that
    /// wait, and those that come back, can go together: otherwise the first to come back, or half of all, would take turns
    /// with the others, each part waiting for the other. Where other lanes are at work, each has its share. A caller alone
    /// finds an idle lane.
    pub(super) fn gather(&mut self, request: &Fused, now: Instant) -> Option<Gather> {
        // Those that it has released may be back already.
        let (before, released) = (request.found_waiting, request.messages);
        let alone = before == 0 && request.calls.len() == 1;
        if alone
            || request.size == Size::Large
            || !self.options.fuses
            || self.options.gather.is_zero()
        {
            return None;
        }
        let flying = self.busy - self.gathers.len();
        let all = before + released + self.flying;
        let messages = all.div_ceil(flying + 1).min(MAX_MESSAGES);
        if self.small.waiting >= messages {
            return None;
        }
        let pause = self.options.gather;
        let (pause, limit) = match self.tuner.whole() {
            true => {
                let took = now.saturating_duration_since(request.began);
                (pause.max(took / PAUSE_SHARE), pause.max(took / MOST_SHARE))
            }
            false => (pause, pause),
        };
        if self.vain >= IN_VAIN && !self.tuner.whole() {
            self.vain += 1;
            if self.vain < IN_VAIN + TRY_AGAIN {
                return None;
            }
            self.vain = IN_VAIN - 1;
        }
        Some(Gather {
            messages,
            pause,
            until: now + pause.min(limit),
            limit: now + limit,
            seen: self.small.waiting,
            before,
            released,
        })
    }

    pub(super) fn end_gather(&mut self) {
        let Some(gather) = self.gathers.pop_front() else {
            return;
        };
        self.busy -= 1;
        let came = self.small.waiting.saturating_sub(gather.before);
        self.vain = match came * 8 >= gather.released {
            true => 0,
            false => self.vain + 1,
        };
    }
}

impl State {
    /// Ends the waiting of lanes whose time to gather is over.
    pub(in crate::produce) fn gathered(&mut self, now: Instant) {
        let waiting = self.lanes.small.waiting;
        while let Some(gather) = self.lanes.gathers.front_mut()
            && gather.until <= now
        {
            if waiting > gather.seen && now < gather.limit {
                gather.seen = waiting;
                gather.until = (now + gather.pause).min(gather.limit);
                self.after.gather = Some(gather.until);
                break;
            }
            self.lanes.end_gather();
            if self.lanes.small.waiting > 0 && self.lanes.resume_at.is_none_or(|at| at <= now) {
                self.send_one(Size::Small, now);
            }
        }
        self.start(now);
    }
}
