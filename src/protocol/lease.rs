//! `POST /api/v1/lease/:leaseId/extend`.

use serde::Serialize;
use serde_json::Value;

use super::{bad_answer, misshapen, segment};
use crate::error::{Error, ErrorCode, Outcome, Result};

pub(crate) fn path(lease_id: &str) -> Result<String> {
    Ok(format!(
        "/api/v1/lease/{}/extend",
        segment("leaseId", lease_id)?
    ))
}

pub(crate) fn body(seconds: u64) -> String {
    format!("{{\"seconds\":{seconds}}}")
}

/// A lease that was renewed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct Renewal {
    /// The lease.
    pub lease_id: String,
    /// How many partitions it still covers; null where the broker does not tell.
    pub renewed: Option<u64>,
    /// The earliest resulting expiry, ISO 8601; null where the broker does not tell.
    pub expires_at: Option<String>,
}

/// What became of one lease of several that were to be renewed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct RenewalResult {
    /// Position among the leases of the call.
    pub index: usize,
    /// The lease.
    pub lease_id: String,
    /// Whether it was renewed.
    pub success: bool,
    /// How many partitions it still covers; null where the broker does not tell.
    pub renewed: Option<u64>,
    /// The earliest resulting expiry, ISO 8601; null where the broker does not tell.
    pub expires_at: Option<String>,
    /// Why it was not renewed.
    pub error: Option<String>,
}

impl RenewalResult {
    pub(crate) fn new(index: usize, lease_id: &str, answer: &Result<Renewal>) -> RenewalResult {
        let renewal = answer.as_ref().ok();
        RenewalResult {
            index,
            lease_id: lease_id.to_owned(),
            success: renewal.is_some(),
            renewed: renewal.and_then(|renewal| renewal.renewed),
            expires_at: renewal.and_then(|renewal| renewal.expires_at.clone()),
            error: answer
                .as_ref()
                .err()
                .map(|error| error.message().to_owned()),
        }
    }
}

/// Reads an answer of status 200 of any generation: an object with three spellings of the expiry (1.x), with
/// `extended` (0.7), or a list of one object (0.15). A lease that has ended is [`ErrorCode::LeaseLost`].
pub(crate) fn parse(lease_id: &str, body: &[u8]) -> Result<Renewal> {
    let answer: Value =
        serde_json::from_slice(body).map_err(|error| bad_answer("lease extend", error))?;
    let extended = match &answer {
        Value::Array(list) => list.first().unwrap_or(&Value::Null),
        object => object,
    };
    let success = extended
        .get("success")
        .or_else(|| extended.get("extended"))
        .and_then(Value::as_bool);
    match success {
        Some(true) => Ok(Renewal {
            lease_id: lease_id.to_owned(),
            renewed: extended.get("renewed").and_then(Value::as_u64),
            expires_at: ["newExpiresAt", "expiresAt", "lease_expires_at"]
                .iter()
                .find_map(|key| extended.get(key).and_then(Value::as_str))
                .map(str::to_owned),
        }),
        Some(false) => {
            let why = extended
                .get("error")
                .and_then(Value::as_str)
                .unwrap_or("it has ended");
            Err(Error::new(
                ErrorCode::LeaseLost,
                format!("lease {lease_id} cannot be renewed: {why}"),
            )
            .with_outcome(Outcome::Refused))
        }
        None => Err(misshapen(
            "lease extend",
            body,
            "it does not tell whether the lease was extended",
        )),
    }
}

/// What a refused renewal means: brokers of generation 0.7 tell of a lease that has ended with HTTP 404.
pub(crate) fn refusal(lease_id: &str, error: Error) -> Error {
    let status = error.http_status().unwrap_or_default();
    let told = error.message().to_ascii_lowercase();
    if error.code() != ErrorCode::NotFound || !told.contains("lease not found") {
        return error;
    }
    Error::new(
        ErrorCode::LeaseLost,
        format!("lease {lease_id} cannot be renewed: {}", error.message()),
    )
    .with_outcome(error.outcome())
    .with_http_status(status)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn m7_c19_answers_of_three_generations() {
        let one = parse("L", br#"{"leaseId":"L","success":true,"renewed":3,"newExpiresAt":"t","expiresAt":"t","lease_expires_at":"t"}"#)
            .unwrap();
        assert_eq!(
            (one.renewed, one.expires_at.as_deref()),
            (Some(3), Some("t"))
        );
        assert!(parse("L", br#"{"leaseId":"L","extended":true,"seconds":60}"#).is_ok());
        assert_eq!(
            parse(
                "L",
                br#"[{"index":0,"leaseId":"L","success":true,"error":null,"expiresAt":"u"}]"#
            )
            .unwrap()
            .expires_at
            .as_deref(),
            Some("u")
        );
        let lost = br#"{"leaseId":"L","success":false,"renewed":0,"newExpiresAt":null,"expiresAt":null,"lease_expires_at":null}"#;
        assert_eq!(parse("L", lost).unwrap_err().code(), ErrorCode::LeaseLost);
        assert_eq!(parse("L", b"[]").unwrap_err().code(), ErrorCode::BadAnswer);
    }
}
