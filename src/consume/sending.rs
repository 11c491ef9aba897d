//! How acks are sent: until they are answered, and until it is known whether they count.

use std::time::Duration;

use serde_json::Value;
use tokio::time::Instant;

use super::claim::Claim;
use crate::error::{Outcome, Result};
use crate::log::Level;
use crate::protocol::ack::{self, Ack, AckResult, Status};
use crate::protocol::message;
use crate::transport::{self, Answer, Repeat, Request};

impl Claim {
    /// Sends acks until they are answered: an ack repeated is harmless, the broker answers it as done.
    pub(super) async fn request(&self, acks: &[Ack]) -> Result<Vec<AckResult>> {
        let body = ack::body(acks, &self.source().consumer_group)?;
        let deadline = transport::after(self.core().config.timeout_millis);
        let mut backoff = Duration::from_millis(50);
        // Whether an attempt may have counted that has no answer.
        let mut unknown = false;
        loop {
            let request = Request::post(ack::PATH, body.clone(), deadline)
                .repeat(Repeat::Safe)
                .near(&self.near)
                .once();
            let answer = match self.core().send(&request).await {
                Ok(answer) => {
                    unknown |= answer.past.unknown;
                    answer.success().and_then(|body| ack::parse(acks, &body))
                }
                Err(error) => Err(error),
            };
            match answer {
                Err(error)
                    if error.is_retriable() && tokio::time::Instant::now() + backoff < deadline =>
                {
                    self.core().logger.log(
                        Level::Warn,
                        "consumer.settle",
                        "acks are sent again",
                        &[("error", error.to_string().into())],
                    );
                    unknown |= error.outcome() == Outcome::Unknown;
                    tokio::time::sleep(backoff).await;
                    backoff = (backoff * 2).min(Duration::from_secs(2));
                }
                Ok(mut results) => {
                    if unknown
                        && let Some(applied) = self.applied_before(acks, &results, deadline).await
                    {
                        results = applied;
                    }
                    self.core().count_acks(acks, &results);
                    return Ok(results);
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// What became of acks that a broker refuses because the lease is over, after an earlier attempt may have ended it. The
    /// broker keeps a cursor, so the last message tells of all. None where they did not count, or nobody knows.
    async fn applied_before(
        &self,
        acks: &[Ack],
        results: &[AckResult],
        deadline: Instant,
    ) -> Option<Vec<AckResult>> {
        let last = acks.last()?;
        let doubtful = results.iter().any(AckResult::is_lease_lost)
            && acks.iter().all(|ack| ack.status == Status::Completed);
        if !doubtful {
            return None;
        }
        let path = message::path(&last.partition_id, &last.transaction_id).ok()?;
        let request = Request::get(path, deadline).near(&self.near);
        let answer = self.core().send(&request).await.and_then(Answer::success);
        let told: Value = serde_json::from_slice(&answer.ok()?).ok()?;
        let done = message::is_consumed(&told, &self.source().consumer_group);
        done.then(|| {
            let done = |ack: &Ack| AckResult::done_before(ack.transaction_id.clone());
            acks.iter().map(done).collect()
        })
    }
}
