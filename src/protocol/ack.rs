//! `POST /api/v1/ack/batch`.

use std::io::Write;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::plain::{self, Plain};
use super::{QUEUE_MODE, Text, bad_answer, json_text, misshapen};
use crate::error::{Error, ErrorCode, Outcome, Result};

pub(crate) const PATH: &str = "/api/v1/ack/batch";

/// What a consumer has decided about a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Status {
    /// Done.
    #[serde(alias = "success", alias = "acked", alias = "ok")]
    Completed,
    /// Not done: deliver again, and count it as one of the queue's retries.
    Failed,
    /// Not done: deliver again, uncounted.
    Retry,
    /// Not to be done at all: into the dead-letter queue at once.
    Dlq,
}

impl Status {
    /// Reads `completed`, `failed`, `retry` or `dlq`.
    pub fn parse(status: &str) -> Result<Status> {
        let text = serde::de::value::StrDeserializer::<serde::de::value::Error>::new(status);
        Status::deserialize(text).map_err(|_| {
            Error::argument(format!(
                "status is `{status}`; it must be completed, failed, retry or dlq"
            ))
        })
    }

    fn name(self) -> &'static str {
        match self {
            Status::Completed => "completed",
            Status::Failed => "failed",
            Status::Retry => "retry",
            Status::Dlq => "dlq",
        }
    }

    /// Whether the broker ends the lease because of it: what lies behind in the partition comes again.
    pub fn is_negative(self) -> bool {
        self != Status::Completed
    }
}

/// One ack by ids, as a caller writes it.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Ack {
    /// The message's transaction id.
    pub transaction_id: String,
    /// The partition's id.
    pub partition_id: String,
    /// The lease of the delivery.
    #[serde(default, skip_serializing_if = "no_lease")]
    pub lease_id: Option<String>,
    /// The verdict, [`Status::Completed`] when missing.
    #[serde(default = "completed")]
    pub status: Status,
    /// Why, recorded when the message goes to the dead-letter queue.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

impl Ack {
    /// The lease that fences it, if any.
    pub(crate) fn lease(&self) -> Option<&str> {
        self.lease_id.as_deref().filter(|lease| !lease.is_empty())
    }

    /// Reads a JSON array of acks, or one ack alone.
    pub fn parse_list(json: &str) -> Result<Vec<Ack>> {
        parse_list(json)
    }
}

fn no_lease(lease: &Option<String>) -> bool {
    lease.as_deref().unwrap_or_default().is_empty()
}

fn completed() -> Status {
    Status::Completed
}

/// What the broker made of one ack.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct AckResult {
    /// Position among the acks of the call.
    pub index: usize,
    /// The message's transaction id.
    pub transaction_id: String,
    /// Whether the verdict counts.
    pub success: bool,
    /// Why it does not.
    pub error: Option<String>,
    /// Whether a message of this partition went to the dead-letter queue with this request.
    pub dlq: bool,
    /// Whether the message had been finished before.
    pub noop: bool,
}

impl AckResult {
    /// A message that comes again because one before it was given up.
    pub(crate) fn comes_again(transaction_id: String) -> AckResult {
        AckResult::noop(transaction_id)
    }

    /// A message that an earlier attempt has finished.
    pub(crate) fn done_before(transaction_id: String) -> AckResult {
        AckResult::noop(transaction_id)
    }

    fn noop(transaction_id: String) -> AckResult {
        AckResult {
            index: 0,
            transaction_id,
            success: true,
            error: None,
            dlq: false,
            noop: true,
        }
    }

    /// A verdict that has no answer yet.
    pub(crate) fn unanswered(transaction_id: String) -> AckResult {
        AckResult {
            success: false,
            noop: false,
            ..AckResult::noop(transaction_id)
        }
    }

    /// A verdict that has no answer of its own.
    pub(crate) fn failed(transaction_id: String, error: &str) -> AckResult {
        AckResult {
            index: 0,
            transaction_id,
            success: false,
            error: Some(error.to_owned()),
            dlq: false,
            noop: false,
        }
    }

    /// Whether the broker could not look at the verdict now, and may when it is sent again.
    pub(crate) fn is_transient(&self) -> bool {
        let error = self.error.as_deref().unwrap_or_default();
        !self.success && (error == "pool" || error.starts_with("ack flush failed"))
    }

    /// Whether the verdict was refused because the lease has ended.
    pub fn is_lease_lost(&self) -> bool {
        let told = |error: &str| {
            let error = error.to_ascii_lowercase();
            // What is said of an unknown message mentions leases as well.
            error.contains("lease") && !error.starts_with("unresolvable")
        };
        !self.success && self.error.as_deref().is_some_and(told)
    }
}

/// The body for acks of one group. What serde would write, in fewer steps.
pub(crate) fn body(acks: &[Ack], group: &str) -> Bytes {
    let mut body = Vec::with_capacity(64 + 224 * acks.len());
    body.extend_from_slice(b"{\"acknowledgments\":[");
    for (index, ack) in acks.iter().enumerate() {
        if index > 0 {
            body.push(b',');
        }
        body.extend_from_slice(b"{\"transactionId\":");
        json_text(&mut body, &ack.transaction_id);
        body.extend_from_slice(b",\"partitionId\":");
        json_text(&mut body, &ack.partition_id);
        if let Some(lease) = ack.lease() {
            body.extend_from_slice(b",\"leaseId\":");
            json_text(&mut body, lease);
        }
        body.extend_from_slice(b",\"status\":");
        json_text(&mut body, ack.status.name());
        if let Some(error) = &ack.error {
            body.extend_from_slice(b",\"error\":");
            json_text(&mut body, error);
        }
        body.push(b'}');
    }
    body.push(b']');
    if group != QUEUE_MODE {
        body.extend_from_slice(b",\"consumerGroup\":");
        json_text(&mut body, group);
    }
    body.push(b'}');
    body.into()
}

/// Reads a JSON array of acks, or one ack alone.
pub(crate) fn parse_list(json: &str) -> Result<Vec<Ack>> {
    let parsed = match json.trim_start().starts_with('{') {
        true => serde_json::from_str(json).map(|ack| vec![ack]),
        false => serde_json::from_str(json),
    };
    let acks: Vec<Ack> = parsed.map_err(|error| {
        Error::new(
            ErrorCode::InvalidJson,
            format!("acks: {error}; expected an array of {{transactionId, partitionId, leaseId, status?, error?}}"),
        )
    })?;
    match acks.is_empty() {
        true => Err(Error::argument("acks is empty; give at least one")),
        false => Ok(acks),
    }
}

/// An entry of an answer.
#[derive(Deserialize)]
#[cfg_attr(test, derive(Debug, PartialEq))]
struct WireResult<'a> {
    index: Option<usize>,
    success: Option<bool>,
    #[serde(borrow)]
    error: Option<Text<'a>>,
    dlq: Option<bool>,
    noop: Option<bool>,
}

/// An entry as brokers of generation 1.x write it.
fn plain<'a>(answer: &mut Plain<'a>) -> Option<WireResult<'a>> {
    answer.literal("{\"index\":")?;
    let index = answer.number()?;
    answer.literal(",\"transactionId\":")?;
    answer.text()?;
    answer.literal(",\"success\":")?;
    let success = answer.flag()?;
    answer.literal(",\"error\":")?;
    let error = answer.nullable()?;
    answer.literal(",\"leaseReleased\":")?;
    answer.flag()?;
    answer.literal(",\"dlq\":")?;
    let dlq = answer.flag()?;
    answer.literal(",\"noop\":")?;
    let noop = answer.flag()?;
    answer.literal("}")?;
    Some(WireResult {
        index: usize::try_from(index).ok(),
        success: Some(success),
        error,
        dlq: Some(dlq),
        noop: Some(noop),
    })
}

/// What brokers of generation 0.7 put around them.
#[derive(Deserialize)]
struct Around<'a> {
    #[serde(borrow)]
    results: Option<Vec<WireResult<'a>>>,
}

/// Reads an answer of status 200: an array (0.15, 1.x), or an object with `results` (0.7).
pub(crate) fn parse(acks: &[Ack], body: &[u8]) -> Result<Vec<AckResult>> {
    let wrong = |error: serde_json::Error| misshapen("the ack", body, error);
    let text = std::str::from_utf8(body).map_err(|error| bad_answer("ack", error))?;
    let entries: Vec<WireResult<'_>> = match text.trim_start().starts_with('{') {
        false => plain::read(text, |answer| answer.list(acks.len(), plain)).map_err(wrong)?,
        true => {
            let around: Around<'_> = serde_json::from_str(text).map_err(wrong)?;
            around.results.ok_or_else(|| {
                let why = "it is neither a list nor has `results`";
                misshapen("the ack", body, why)
            })?
        }
    };
    if entries.len() != acks.len() {
        return Err(bad_answer(
            "ack",
            format!("{} results for {} acks", entries.len(), acks.len()),
        ));
    }
    let mut results: Vec<Option<AckResult>> = vec![None; acks.len()];
    for (position, entry) in entries.into_iter().enumerate() {
        let index = entry.index.unwrap_or(position);
        let (Some(ack), Some(slot)) = (acks.get(index), results.get_mut(index)) else {
            return Err(bad_answer(
                "ack",
                format!("it has a result for ack {index}"),
            ));
        };
        *slot = Some(AckResult {
            index,
            transaction_id: ack.transaction_id.clone(),
            success: entry.success.unwrap_or(false),
            error: entry.error.map(Text::into_owned),
            dlq: entry.dlq.unwrap_or(false),
            noop: entry.noop.unwrap_or(false),
        });
    }
    results
        .into_iter()
        .collect::<Option<Vec<_>>>()
        .ok_or_else(|| bad_answer("ack", "an ack has no result"))
}

/// The results of acks as JSON. What serde would write, in fewer steps.
pub(crate) fn results_json(results: &[AckResult]) -> String {
    let mut json = Vec::with_capacity(2 + 144 * results.len());
    json.push(b'[');
    for result in results {
        if json.len() > 1 {
            json.push(b',');
        }
        // Writing numbers into memory cannot fail.
        let _ = write!(json, "{{\"index\":{},\"transactionId\":", result.index);
        json_text(&mut json, &result.transaction_id);
        let flag = |value: bool| if value { "true" } else { "false" };
        json.extend_from_slice(b",\"success\":");
        json.extend_from_slice(flag(result.success).as_bytes());
        json.extend_from_slice(b",\"error\":");
        match &result.error {
            Some(error) => json_text(&mut json, error),
            None => json.extend_from_slice(b"null"),
        }
        json.extend_from_slice(b",\"dlq\":");
        json.extend_from_slice(flag(result.dlq).as_bytes());
        json.extend_from_slice(b",\"noop\":");
        json.extend_from_slice(flag(result.noop).as_bytes());
        json.push(b'}');
    }
    json.push(b']');
    String::from_utf8(json).unwrap_or_default()
}

/// The results inside an error of libqueen's own making.
pub(crate) fn reread(json: &str) -> Vec<AckResult> {
    serde_json::from_str(json).unwrap_or_default()
}

/// The error of acks of which some were refused: [`ErrorCode::LeaseLost`] where all that failed share that cause.
pub(crate) fn partial(results: &[AckResult]) -> Option<Error> {
    let refused: Vec<_> = results.iter().filter(|result| !result.success).collect();
    let first = refused.first()?;
    let code = match refused.iter().all(|result| result.is_lease_lost()) {
        true => ErrorCode::LeaseLost,
        false => ErrorCode::Partial,
    };
    let message = format!(
        "{} of {} acks were refused; ack {} ({}): {}",
        refused.len(),
        results.len(),
        first.index,
        first.transaction_id,
        first.error.as_deref().unwrap_or("no reason given")
    );
    let json = results_json(results);
    Some(
        Error::new(code, message)
            .with_outcome(Outcome::Refused)
            .with_result(json),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn acks() -> Vec<Ack> {
        parse_list(r#"[{"transactionId":"a","partitionId":"P","leaseId":"L"},{"transactionId":"b","partitionId":"P","status":"failed"}]"#)
            .unwrap()
    }

    #[test]
    fn bodies_name_the_group_but_not_queue_mode() {
        let body = |group: &str| String::from_utf8(body(&acks(), group).to_vec()).unwrap();
        assert_eq!(
            body("g"),
            r#"{"acknowledgments":[{"transactionId":"a","partitionId":"P","leaseId":"L","status":"completed"},{"transactionId":"b","partitionId":"P","status":"failed"}],"consumerGroup":"g"}"#
        );
        assert!(!body(QUEUE_MODE).contains("consumerGroup"));
    }

    #[test]
    fn acks_and_results_are_written_as_serde_would() {
        let ack = |lease: Option<&str>, status, error: Option<&str>| Ack {
            transaction_id: "é\"1".into(),
            partition_id: "p\\".into(),
            lease_id: lease.map(str::to_owned),
            status,
            error: error.map(str::to_owned),
        };
        let acks = [
            ack(None, Status::Completed, None),
            ack(Some(""), Status::Failed, Some("no \"way\"")),
            ack(Some("L"), Status::Retry, None),
            ack(Some("L"), Status::Dlq, None),
        ];
        let wanted = serde_json::json!({"acknowledgments": acks, "consumerGroup": "g\n"});
        let written: serde_json::Value = serde_json::from_slice(&body(&acks, "g\n")).unwrap();
        assert_eq!(written, wanted);
        let results = [
            AckResult::comes_again("a".into()),
            AckResult::failed("\t".into(), "no \\ way"),
            AckResult {
                index: 12,
                dlq: true,
                ..AckResult::noop("b".into())
            },
        ];
        for some in [&results[..], &results[..1], &[]] {
            assert_eq!(results_json(some), serde_json::to_string(some).unwrap());
        }
    }

    #[test]
    fn answers_are_read_as_serde_would() {
        let text = r#"[{"index":0,"transactionId":"a","success":true,"error":null,"leaseReleased":true,"dlq":false,"noop":false},{"index":1,"transactionId":"é","success":false,"error":"no","leaseReleased":false,"dlq":true,"noop":true}]"#;
        let read: Vec<WireResult<'_>> = serde_json::from_str(text).unwrap();
        assert_eq!(Plain::new(text).list(2, plain), Some(read));
        let other = text.replace("\"noop\"", "\"new\":1,\"noop\"");
        assert_eq!(Plain::new(&other).list(2, plain), None);
        assert!(parse(&acks(), other.as_bytes()).unwrap()[1].noop);
    }

    #[test]
    fn wrong_acks_are_named() {
        let message = |json: &str| parse_list(json).unwrap_err().message().to_owned();
        assert!(message(r#"[{"transactionId":"a"}]"#).contains("partitionId"));
        assert!(
            message(r#"[{"transactionId":"a","partitionId":"p","status":"maybe"}]"#)
                .contains("maybe")
        );
        assert!(message("[]").contains("empty"));
        assert_eq!(
            parse_list(r#"{"transactionId":"a","partitionId":"p"}"#)
                .unwrap()
                .len(),
            1
        );
    }

    #[test]
    fn m5_m6_c18_answers_of_two_generations() {
        let results = parse(&acks(), br#"[{"index":1,"success":false,"error":"Invalid or expired LEASE"},{"index":0,"success":true,"noop":true}]"#)
            .unwrap();
        assert!(results[0].noop && results[1].is_lease_lost());
        let unknown = AckResult::failed(
            "a".into(),
            "unresolvable: no such message; if leased, it comes again",
        );
        assert!(!unknown.is_lease_lost());
        assert_eq!(partial(&results).unwrap().code(), ErrorCode::LeaseLost);
        let old = parse(&acks(), br#"{"successful":1,"failed":1,"results":[{"success":true,"message":""},{"success":false,"error":"Message not found"}]}"#)
            .unwrap();
        assert_eq!(partial(&old).unwrap().code(), ErrorCode::Partial);
        assert!(parse(&acks(), b"[]").is_err());
        assert!(parse(&acks(), br#"{"status":"completed"}"#).is_err());
    }
}
