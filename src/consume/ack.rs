//! Acks by ids.

use std::collections::HashMap;
use std::sync::Arc;

use serde::Deserialize;

use super::claim::Claim;
use super::hub::Hub;
use super::sending::Sending;
use super::slots::Verdict;
use crate::core::Core;
use crate::error::{Error, ErrorCode, Result};
use crate::options;
use crate::pending::Pending;
use crate::protocol::ack::{self, Ack, AckResult};
use crate::protocol::{QUEUE_MODE, check_name};
use crate::transport::{self, Repeat};

/// How to ack by ids.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct AckOptions {
    /// The consumer group of the pop; none for queue mode.
    #[serde(rename = "consumerGroup")]
    pub group: Option<String>,
    /// Allows acks without a lease id, which the broker does not check at all: they can finish messages that were never
    /// delivered. Default false.
    pub unfenced: bool,
    /// Deadline of the call. Default: the client's `timeoutMillis`.
    pub timeout_millis: Option<u64>,
}

impl AckOptions {
    /// Reads an options object with the keys in camelCase.
    pub fn parse(json: &str) -> Result<AckOptions> {
        options::parse("ack", json)
    }

    /// The group as the wire names it.
    pub(crate) fn group(&self) -> &str {
        self.group.as_deref().unwrap_or(QUEUE_MODE)
    }

    /// Refuses acks that say too little.
    pub(crate) fn check(&self, acks: &[Ack]) -> Result<()> {
        if acks.is_empty() {
            return Err(Error::argument("acks is empty; give at least one"));
        }
        for (index, ack) in acks.iter().enumerate() {
            let key = |key: &str| format!("acks[{index}].{key}");
            check_name(&key("transactionId"), &ack.transaction_id, true)?;
            check_name(&key("partitionId"), &ack.partition_id, false)?;
            if ack.lease().is_none() && !self.unfenced {
                return Err(Error::argument(format!(
                    "acks[{index}].leaseId is missing; without it the broker checks nothing (set `unfenced` to allow that)"
                )));
            }
        }
        Ok(())
    }
}

/// Acks that speak of one live claim of this client, with their places in the call.
type Settlements = HashMap<usize, (Arc<Claim>, Vec<Verdict>, Vec<usize>)>;

impl Hub {
    /// Acks by ids. What matches a live delivery of this client settles it there, by the same rules; the rest goes to
    /// the broker as written, in one request.
    pub(crate) fn ack(
        self: &Arc<Hub>,
        acks: Vec<Ack>,
        options: &AckOptions,
    ) -> Pending<Vec<AckResult>> {
        if let Err(error) = options.check(&acks) {
            return Pending::finished(Err(error));
        }
        let group = options.group().to_owned();
        let deadline = transport::after(
            options
                .timeout_millis
                .unwrap_or(self.core.config.timeout_millis),
        );
        let (settlements, rest) = self.sort(acks, &group);
        let cost = (
            1,
            rest.iter()
                .map(|(_, ack)| ack.transaction_id.len() + 120)
                .sum(),
        );
        let core = self.core.clone();
        self.core.start(cost, deadline, move |pending| {
            // Verdicts are given here, on the caller's thread, in the order of the calls.
            let settled: Vec<_> = settlements
                .into_values()
                .map(|(claim, verdicts, places)| (claim.settle(verdicts), places))
                .collect();
            async move {
                let mut results = Vec::new();
                let mut failure = None;
                if !rest.is_empty() && pending.mark_sent() {
                    let (places, acks): (Vec<usize>, Vec<Ack>) = rest.into_iter().unzip();
                    // Without a lease to fence it, a failure told twice would count twice.
                    let counts_once = acks
                        .iter()
                        .all(|ack| ack.lease().is_some() || !ack.status.is_negative());
                    let repeat = match counts_once {
                        true => Repeat::Safe,
                        false => Repeat::IfNotSent,
                    };
                    let sending = Sending {
                        acks: &acks,
                        group: &group,
                        near: None,
                        repeat,
                        shared: false,
                        deadline,
                    };
                    match core.send_acks(&sending).await {
                        Ok(answers) => results.extend(places.into_iter().zip(answers)),
                        Err(error) if settled.is_empty() => return Err(error),
                        Err(error) => {
                            results.extend(
                                places
                                    .into_iter()
                                    .zip(acks.iter().map(|ack| refused(ack, &error))),
                            );
                            failure = Some(error);
                        }
                    }
                }
                for (settlement, places) in settled {
                    let answers = match settlement.await {
                        Ok(answers) => answers,
                        Err(error) => {
                            let answers = error.result_json().map(ack::reread).unwrap_or_default();
                            failure = Some(error);
                            answers
                        }
                    };
                    results.extend(places.into_iter().zip(answers));
                }
                results.sort_by_key(|(place, _)| *place);
                let results: Vec<AckResult> = results
                    .into_iter()
                    .map(|(index, result)| AckResult { index, ..result })
                    .collect();
                match (failure, ack::partial(&results)) {
                    (None, None) => Ok(results),
                    (None, Some(error)) => Err(error),
                    (Some(error), _) => {
                        let all_alike = results.iter().all(|result| !result.success);
                        let code = if all_alike {
                            error.code()
                        } else {
                            ErrorCode::Partial
                        };
                        let json = serde_json::to_string(&results).unwrap_or_default();
                        Err(Error::new(code, error.message())
                            .with_outcome(error.outcome())
                            .with_result(json))
                    }
                }
            }
        })
    }

    /// Separates what settles live claims from what goes to the broker as written.
    fn sort(&self, acks: Vec<Ack>, group: &str) -> (Settlements, Vec<(usize, Ack)>) {
        let mut settlements = Settlements::new();
        let mut rest = Vec::new();
        for (place, ack) in acks.into_iter().enumerate() {
            match self.live(&ack, group) {
                Some((claim, index)) => {
                    let key = Arc::as_ptr(&claim) as usize;
                    let entry = settlements
                        .entry(key)
                        .or_insert_with(|| (claim, Vec::new(), Vec::new()));
                    entry.1.push(Verdict {
                        index,
                        status: ack.status,
                        reason: ack.error,
                    });
                    entry.2.push(place);
                }
                None => rest.push((place, ack)),
            }
        }
        (settlements, rest)
    }

    /// The live claim that an ack speaks of, and which of its messages.
    pub(crate) fn live(&self, ack: &Ack, group: &str) -> Option<(Arc<Claim>, usize)> {
        let claim = self.claims.find(&ack.partition_id, ack.lease()?)?;
        let index = claim.position(&ack.transaction_id)?;
        (claim.source().consumer_group == group).then_some((claim, index))
    }
}

impl Core {
    pub(super) fn count_acks(&self, acks: &[Ack], results: &[AckResult]) {
        for (ack, result) in acks.iter().zip(results) {
            self.stats.verdicts.note(ack.status, result.success);
        }
    }
}

fn refused(ack: &Ack, error: &Error) -> AckResult {
    AckResult::failed(ack.transaction_id.clone(), error.message())
}
