//! How acks are sent: until they are answered, and until it is known whether they count.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::Value;
use tokio::time::Instant;

use super::claim::Claim;
use crate::core::Core;
use crate::error::{Error, ErrorCode, Outcome, Result};
use crate::log::Level;
use crate::protocol::ack::{self, Ack, AckResult, Status};
use crate::protocol::message;
use crate::transport::{self, Answer, Repeat, Request};

/// Acks of one request.
pub(super) struct Sending<'a> {
    pub(super) acks: &'a [Ack],
    pub(super) group: &'a str,
    /// The affinity key of the pop they answer, if it is known. Then they are sent until the deadline, because the messages
    /// come again otherwise; without it, as often as any other request.
    pub(super) near: Option<&'a str>,
    pub(super) repeat: Repeat,
    /// Whether one of several claims may be what the broker stumbles over.
    pub(super) shared: bool,
    pub(super) deadline: Instant,
}

impl Claim {
    /// Sends acks until they are answered: an ack repeated is harmless, the broker answers it as done.
    pub(super) async fn request(&self, acks: &[Ack]) -> Result<Vec<AckResult>> {
        let sending = Sending {
            acks,
            group: &self.source().consumer_group,
            near: Some(&self.near),
            repeat: Repeat::Safe,
            shared: false,
            deadline: transport::after(self.core().config.timeout_millis),
        };
        self.core().send_acks(&sending).await
    }
}

impl Core {
    /// Sends acks, again where the broker could not look at them, and counts what became of them.
    pub(super) async fn send_acks(&self, sending: &Sending<'_>) -> Result<Vec<AckResult>> {
        let acks = sending.acks;
        let body = ack::body(acks, sending.group);
        let mut backoff = Duration::from_millis(50);
        // Whether an attempt may have counted that has no answer.
        let mut unknown = false;
        let mut results: Vec<AckResult> = Vec::new();
        let mut stumbles = 0;
        loop {
            let request =
                Request::post(ack::PATH, body.clone(), sending.deadline).repeat(sending.repeat);
            let request = match sending.near {
                Some(near) => request.near(near).once(),
                None => request,
            };
            let answer = match self.send(&request).await {
                Ok(answer) => {
                    unknown |= answer.past.unknown;
                    answer.success().and_then(|body| ack::parse(acks, &body))
                }
                Err(error) => Err(error),
            };
            let in_time = Instant::now() + backoff < sending.deadline;
            stumbles += u32::from(answer.as_ref().is_err_and(is_about_the_request));
            let cause = match answer {
                Err(error) if sending.shared && stumbles > 1 => return Err(error),
                Err(error) if sending.near.is_some() && error.is_retriable() && in_time => {
                    unknown |= error.outcome() == Outcome::Unknown;
                    error.to_string()
                }
                Err(error) if results.is_empty() => return Err(error),
                // Some were answered before.
                Err(_) => break,
                Ok(answers) => {
                    keep_successes(&mut results, answers);
                    let transient = results.iter().find(|result| result.is_transient());
                    match transient {
                        Some(result) if in_time && sending.repeat == Repeat::Safe => {
                            unknown = true;
                            result.error.clone().unwrap_or_default()
                        }
                        _ => break,
                    }
                }
            };
            self.logger.log(
                Level::Warn,
                "consumer.settle",
                "acks are sent again",
                &[("error", cause.into())],
            );
            tokio::time::sleep(backoff).await;
            backoff = (backoff * 2).min(Duration::from_secs(2));
        }
        if unknown {
            self.note_applied_before(sending, &mut results).await;
        }
        self.count_acks(acks, &results);
        Ok(results)
    }

    /// Corrects what a broker says of acks that it refuses because the lease is over, after an earlier attempt may have ended
    /// it. The broker keeps a cursor, so the last message of a partition tells of all.
    async fn note_applied_before(&self, sending: &Sending<'_>, results: &mut [AckResult]) {
        let mut doubtful: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
        for (index, ack) in sending.acks.iter().enumerate() {
            if results.get(index).is_some_and(AckResult::is_lease_lost) {
                doubtful.entry(&ack.partition_id).or_default().push(index);
            }
        }
        for indices in doubtful.into_values() {
            let acks: Vec<&Ack> = indices.iter().map(|index| &sending.acks[*index]).collect();
            let completed = acks.iter().all(|ack| ack.status == Status::Completed);
            if completed
                && let Some(last) = acks.last()
                && self.is_done_with(last, sending).await.unwrap_or(false)
            {
                for index in indices {
                    let id = sending.acks[index].transaction_id.clone();
                    results[index] = AckResult {
                        index,
                        ..AckResult::done_before(id)
                    };
                }
            }
        }
    }

    /// Whether the group has finished the message of that ack.
    async fn is_done_with(&self, ack: &Ack, sending: &Sending<'_>) -> Result<bool> {
        let path = message::path(&ack.partition_id, &ack.transaction_id)?;
        let request = Request::get(path, sending.deadline);
        let request = match sending.near {
            Some(near) => request.near(near),
            None => request,
        };
        let body = self.send(&request).await.and_then(Answer::success)?;
        let told: Value = serde_json::from_slice(&body)
            .map_err(|error| Error::argument(format!("the message cannot be read: {error}")))?;
        Ok(message::is_consumed(&told, sending.group))
    }
}

/// Whether a failure may be the fault of something that the request says.
pub(super) fn is_about_the_request(error: &Error) -> bool {
    match error.http_status() {
        Some(503) => false,
        Some(status) => matches!(status, 400 | 413 | 422) || status >= 500,
        None => error.code() == ErrorCode::BadAnswer,
    }
}

/// Takes in the answers of a further attempt; what counted before counts.
fn keep_successes(results: &mut Vec<AckResult>, answers: Vec<AckResult>) {
    if results.is_empty() {
        *results = answers;
        return;
    }
    for (result, answer) in results.iter_mut().zip(answers) {
        if !result.success {
            *result = answer;
        }
    }
}
