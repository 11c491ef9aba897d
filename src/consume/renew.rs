//! Renewal of leases by their ids.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::hub::Hub;
use crate::core::Core;
use crate::error::{Error, ErrorCode, Outcome, Result};
use crate::pending::Pending;
use crate::protocol::lease::{self, Renewal, RenewalResult};
use crate::transport::{self, Answer, Repeat, Request};

/// How many renewals of one call are under way at the same time.
const AT_ONCE: usize = 16;

impl Hub {
    /// Renews a lease.
    pub(crate) fn renew(
        self: &Arc<Hub>,
        lease_id: &str,
        lease_seconds: u64,
        timeout_millis: Option<u64>,
    ) -> Pending<Renewal> {
        if let Err(error) = check(lease_seconds).and_then(|()| lease::path(lease_id).map(|_| ())) {
            return Pending::finished(Err(error));
        }
        let deadline = transport::after(timeout_millis.unwrap_or(self.core.config.timeout_millis));
        let (core, lease_id) = (self.core.clone(), lease_id.to_owned());
        self.core
            .start((1, 0), deadline, move |pending| async move {
                if !pending.mark_sent() {
                    return Err(Error::new(ErrorCode::Cancelled, "the call was cancelled"));
                }
                core.extend(&lease_id, lease_seconds, deadline).await
            })
    }

    /// Renews leases, each of them once, and tells what became of each.
    pub(crate) fn renew_many(
        self: &Arc<Hub>,
        lease_ids: &[String],
        lease_seconds: u64,
        timeout_millis: Option<u64>,
    ) -> Pending<Vec<RenewalResult>> {
        let checked = check(lease_seconds).and_then(|()| match lease_ids.is_empty() {
            true => Err(Error::argument("leaseIds is empty; give at least one")),
            false => lease_ids
                .iter()
                .try_for_each(|id| lease::path(id).map(|_| ())),
        });
        if let Err(error) = checked {
            return Pending::finished(Err(error));
        }
        let deadline = transport::after(timeout_millis.unwrap_or(self.core.config.timeout_millis));
        let (core, lease_ids) = (self.core.clone(), lease_ids.to_vec());
        let cost = (lease_ids.len(), lease_ids.iter().map(String::len).sum());
        self.core.start(cost, deadline, move |pending| async move {
            if !pending.mark_sent() {
                return Err(Error::new(ErrorCode::Cancelled, "the call was cancelled"));
            }
            let mut once = lease_ids.clone();
            once.sort();
            once.dedup();
            let mut answers = BTreeMap::new();
            let mut waiting = once.into_iter();
            let mut running = JoinSet::new();
            loop {
                while running.len() < AT_ONCE
                    && let Some(id) = waiting.next()
                {
                    let core = core.clone();
                    running.spawn(async move {
                        let answer = core.extend(&id, lease_seconds, deadline).await;
                        (id, answer)
                    });
                }
                match running.join_next().await {
                    Some(Ok((id, answer))) => {
                        answers.insert(id, answer);
                    }
                    Some(Err(_)) => {
                        return Err(Error::new(ErrorCode::Internal, "a renewal panicked"));
                    }
                    None => return overall(&lease_ids, &answers),
                }
            }
        })
    }
}

fn check(lease_seconds: u64) -> Result<()> {
    match lease_seconds {
        0 => Err(Error::argument("leaseSeconds is 0; it must be at least 1")),
        _ => Ok(()),
    }
}

/// One entry per lease, in the caller's order. The error is the shared cause where all failed alike, else
/// [`ErrorCode::Partial`].
fn overall(
    lease_ids: &[String],
    answers: &BTreeMap<String, Result<Renewal>>,
) -> Result<Vec<RenewalResult>> {
    let entry = |(index, id): (usize, &String)| {
        Some(RenewalResult::new(index, id, answers.get(id.as_str())?))
    };
    let results: Vec<_> = lease_ids.iter().enumerate().filter_map(entry).collect();
    let errors: Vec<&Error> = answers
        .values()
        .filter_map(|answer| answer.as_ref().err())
        .collect();
    let Some(first) = errors.first() else {
        return Ok(results);
    };
    let json = serde_json::to_string(&results).unwrap_or_default();
    let alike =
        errors.len() == answers.len() && errors.iter().all(|one| one.code() == first.code());
    Err(match alike {
        true => (*first).clone().with_result(json),
        false => Error::new(
            ErrorCode::Partial,
            format!(
                "{} of {} leases were not renewed; one of them: {}",
                errors.len(),
                answers.len(),
                first.message()
            ),
        )
        .with_outcome(Outcome::of_parts(
            errors.iter().map(|error| error.outcome()),
        ))
        .with_result(json),
    })
}

impl Core {
    async fn extend(
        &self,
        lease_id: &str,
        lease_seconds: u64,
        deadline: Instant,
    ) -> Result<Renewal> {
        let body = lease::body(lease_seconds);
        let request = Request::post(lease::path(lease_id)?, body, deadline).repeat(Repeat::Safe);
        let answer = self.send(&request).await.and_then(Answer::success);
        self.read_renewal(lease_id, answer)
    }

    /// Reads the answer to a renewal, and counts it.
    pub(super) fn read_renewal(&self, lease_id: &str, answer: Result<Bytes>) -> Result<Renewal> {
        let renewal = match answer {
            Ok(body) => lease::parse(lease_id, &body),
            Err(error) => Err(lease::refusal(lease_id, error)),
        };
        self.stats.leases.note_renewal(renewal.is_ok());
        renewal
    }
}
