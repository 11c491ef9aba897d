//! Verdicts on their way. Those that are given while a request is under way leave together in the next one, whatever the
//! partition, as long as their messages came from the same kind of poll; a verdict that comes alone leaves at once.
//!
//! A claim is in one request at a time, so the order of its verdicts, which the broker needs, is that of the claim. What
//! goes wrong with a request that several claims share is found out by sending for each of them alone.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex};

use super::claim::Claim;
use super::hub::Hub;
use super::sending::{Sending, is_about_the_request};
use crate::error::Result;
use crate::protocol::ack::{Ack, AckResult};
use crate::runtime::lock;
use crate::transport::{self, Repeat};

/// How many requests of one kind of poll are under way at the same time.
const LANES: usize = 2;

/// How many verdicts a request has at most.
pub(super) const MOST_ACKS: usize = 1000;

/// How many bytes of reasons a request has at most, but for the last verdict.
const MOST_BYTES: usize = 1 << 20;

/// The claims that have verdicts to send, by the affinity key of their poll, which names the group too.
#[derive(Default)]
pub(crate) struct AckLanes(Mutex<HashMap<Arc<str>, Line>>);

#[derive(Default)]
struct Line {
    waiting: VecDeque<Arc<Claim>>,
    /// Lanes at work.
    running: usize,
}

/// A claim with what it has to say in one request.
struct Part {
    claim: Arc<Claim>,
    acks: Vec<Ack>,
}

impl AckLanes {
    /// Takes a claim in. `true`: one more lane is to begin.
    fn enter(&self, claim: &Arc<Claim>) -> bool {
        let mut lines = lock(&self.0);
        let line = lines.entry(claim.near.clone()).or_default();
        line.waiting.push_back(claim.clone());
        let begins = line.running < LANES;
        line.running += usize::from(begins);
        begins
    }

    /// The next claim; `None` where none waits.
    fn next(&self, near: &Arc<str>) -> Option<Arc<Claim>> {
        lock(&self.0).get_mut(near)?.waiting.pop_front()
    }

    /// Ends a lane, unless a claim waits.
    fn leave(&self, near: &Arc<str>) -> bool {
        let mut lines = lock(&self.0);
        let Some(line) = lines.get_mut(near) else {
            return true;
        };
        if !line.waiting.is_empty() {
            return false;
        }
        line.running -= 1;
        if line.running == 0 {
            lines.remove(near);
        }
        true
    }
}

impl Hub {
    /// Sends the verdicts of a claim that are ready, with those of others.
    pub(super) fn send_verdicts(self: &Arc<Hub>, claim: &Arc<Claim>) {
        if self.acks.enter(claim) {
            let lane = self.clone().lane(claim.near.clone());
            self.core.background(lane);
        }
    }

    async fn lane(self: Arc<Hub>, near: Arc<str>) {
        loop {
            let parts = self.fill(&near);
            if !parts.is_empty() {
                self.send_parts(parts).await;
            } else if self.acks.leave(&near) {
                return;
            }
        }
    }

    /// What the next request says.
    fn fill(&self, near: &Arc<str>) -> Vec<Part> {
        let (mut parts, mut count, mut bytes) = (Vec::new(), 0, 0);
        while count < MOST_ACKS
            && bytes < MOST_BYTES
            && let Some(claim) = self.acks.next(near)
        {
            let acks = claim.begin_sending(MOST_ACKS - count);
            if acks.is_empty() {
                continue;
            }
            count += acks.len();
            let reasons = acks.iter().filter_map(|ack| ack.error.as_ref());
            bytes += reasons.map(String::len).sum::<usize>();
            parts.push(Part { claim, acks });
        }
        parts
    }

    async fn send_parts(self: &Arc<Hub>, mut parts: Vec<Part>) {
        let losing = Losing(parts.iter().map(|part| part.claim.clone()).collect());
        match &mut *parts {
            [] => {}
            [alone] => alone.send().await,
            [first, others @ ..] => {
                let counts: Vec<_> = others.iter().map(|part| part.acks.len()).collect();
                let mut acks = std::mem::take(&mut first.acks);
                for part in others {
                    acks.append(&mut part.acks);
                }
                let sending = Sending {
                    acks: &acks,
                    group: &first.claim.source().consumer_group,
                    near: Some(&first.claim.near),
                    repeat: Repeat::Safe,
                    shared: true,
                    deadline: transport::after(self.core.config.timeout_millis),
                };
                let answer = self.core.send_acks(&sending).await;
                // Each has its own again.
                for (part, count) in parts[1..].iter_mut().zip(counts).rev() {
                    part.acks = acks.split_off(acks.len() - count);
                }
                parts[0].acks = acks;
                match answer {
                    Ok(results) => {
                        let mut results = results.into_iter();
                        for part in &parts {
                            let own = results.by_ref().take(part.acks.len()).collect();
                            part.answered(Ok(own));
                        }
                    }
                    Err(error) if is_about_the_request(&error) => {
                        for part in parts {
                            self.core.background(async move { part.send().await });
                        }
                    }
                    Err(error) => parts
                        .iter()
                        .for_each(|part| part.answered(Err(error.clone()))),
                }
            }
        }
        drop(losing);
    }
}

impl Part {
    async fn send(&self) {
        let losing = Losing(vec![self.claim.clone()]);
        let answer = self.claim.request(&self.acks).await;
        self.answered(answer);
        drop(losing);
    }

    fn answered(&self, answer: Result<Vec<AckResult>>) {
        self.claim.answered(&self.acks, answer);
    }
}

/// A panic while verdicts are on their way leaves nobody waiting for them.
struct Losing(Vec<Arc<Claim>>);

impl Drop for Losing {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.iter().for_each(|claim| claim.lose());
        }
    }
}
