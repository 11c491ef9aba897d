//! A run: what a worker hands over one after another, with whoever handles it taking the next.

use std::ops::Range;
use std::sync::{Arc, Mutex, Weak};

use super::claim::Claim;
use super::consumer::Shared;
use super::delivery::Delivery;
use super::quota::Share;
use crate::runtime::lock;

/// The deliveries of a poll, and how far they are handed over.
pub(super) struct Run {
    shared: Weak<Shared>,
    turn: Mutex<Turn>,
}

struct Turn {
    deliveries: Vec<Delivery>,
    /// The delivery whose turn it is.
    at: usize,
    /// Its messages that are not handed over.
    next: Range<usize>,
    /// Of each delivery before it the first message that was not handed over.
    ends: Vec<usize>,
    /// Messages that the worker has handed over.
    handed: u64,
    share: Option<Share>,
    /// What was handed over last.
    last: Option<(Arc<Claim>, Range<usize>)>,
    /// Whether who has the last in hand may take the next.
    open: bool,
}

impl Run {
    pub(super) fn new(
        shared: &Arc<Shared>,
        deliveries: &[Delivery],
        handed: u64,
        share: Option<Share>,
    ) -> Arc<Run> {
        let first = deliveries.first();
        Arc::new(Run {
            shared: Arc::downgrade(shared),
            turn: Mutex::new(Turn {
                deliveries: deliveries.to_vec(),
                at: 0,
                next: first.map_or(0..0, |first| first.range().clone()),
                ends: Vec::with_capacity(deliveries.len()),
                handed,
                share,
                last: None,
                open: false,
            }),
        })
    }

    /// The next that is handed over, counted as such. `None`: nothing more is.
    pub(super) fn take(&self, shared: &Shared) -> Option<Delivery> {
        let part = lock(&self.turn).take(shared, None)?;
        shared.note_handed(&part);
        Some(part)
    }

    /// As [`take`](Self::take). Who has it in hand may take the next by [`follow`](Self::follow).
    pub(super) fn take_open(self: &Arc<Run>, shared: &Shared) -> Option<Delivery> {
        let part = {
            let mut turn = lock(&self.turn);
            turn.open = true;
            turn.take(shared, Some(self))?
        };
        shared.note_handed(&part);
        Some(part)
    }

    /// Acks what has been handled, and takes the next in hand. `None`: nothing is at hand, or it is the worker that hands on.
    pub(super) fn follow(self: &Arc<Run>, done: &Delivery) -> Option<Delivery> {
        let next = self.next(done);
        let claim = done.claim();
        // The worker sleeps on while the next is of the same claim.
        let sleeps = (next.as_ref()).is_some_and(|next| Arc::ptr_eq(next.claim(), claim));
        claim.ack_rest(done.range(), !sleeps);
        next
    }

    fn next(self: &Arc<Run>, done: &Delivery) -> Option<Delivery> {
        // What the broker has acked at delivery is done with when it is let go.
        if done.claim().is_committed() {
            return None;
        }
        let shared = self.shared.upgrade()?;
        let part = {
            let mut turn = lock(&self.turn);
            if !turn.open || !turn.is_last(done.claim(), done.range()) {
                return None;
            }
            turn.take(&shared, Some(self))?
        };
        shared.note_handed(&part);
        shared.touch();
        // A stop that was faster has given it back; the worker finds out.
        part.take().then_some(part)
    }

    /// Waits until what was handed over last is settled, and nobody has taken the next.
    pub(super) async fn settled(&self, shared: &Shared) {
        loop {
            let Some((claim, range)) = lock(&self.turn).last.clone() else {
                return;
            };
            claim.settled(&range).await;
            let mut turn = lock(&self.turn);
            if turn.is_last(&claim, &range) {
                turn.open = false;
                drop(turn);
                return shared.note_handled(&claim, &range);
            }
        }
    }

    /// Ends the run: of each delivery the first message that was not handed over, and how many the worker has handed over.
    pub(super) fn end(&self) -> (Vec<usize>, u64) {
        let mut turn = lock(&self.turn);
        while turn.at < turn.deliveries.len() {
            turn.pass();
        }
        turn.last = None;
        turn.share = None;
        let ended = (std::mem::take(&mut turn.ends), turn.handed);
        let deliveries = std::mem::take(&mut turn.deliveries);
        drop(turn);
        drop(deliveries);
        ended
    }
}

impl Turn {
    fn take(&mut self, shared: &Shared, run: Option<&Arc<Run>>) -> Option<Delivery> {
        loop {
            let delivery = self.deliveries.get(self.at)?;
            let count = shared.count_of_next(delivery, &self.next, self.handed, &self.share);
            if count > 0 {
                let part = delivery.part(self.next.start..self.next.start + count, run.cloned());
                self.next.start += count;
                self.handed += count as u64;
                if let Some(share) = &mut self.share {
                    share.spend(count as u64);
                }
                self.last = Some((part.claim().clone(), part.range().clone()));
                return Some(part);
            }
            self.pass();
        }
    }

    /// Goes on to the next delivery.
    fn pass(&mut self) {
        self.ends.push(self.next.start);
        self.at += 1;
        let delivery = self.deliveries.get(self.at);
        self.next = delivery.map_or(0..0, |delivery| delivery.range().clone());
    }

    fn is_last(&self, claim: &Arc<Claim>, range: &Range<usize>) -> bool {
        let last = self.last.as_ref();
        last.is_some_and(|(one, of)| Arc::ptr_eq(one, claim) && of == range)
    }
}
