//! The broker itself: health, metrics, maintenance.

use serde::Deserialize;

use super::route::{Call, read};
use super::{Operation, Parameter, Run, TIMEOUT};
use crate::error::{Error, ErrorCode, Outcome, Result};
use crate::output::Document;
use crate::pending::Pending;
use crate::protocol::bad_answer;

pub(super) static TABLE: &[&Operation] = &[
    &HEALTH,
    &BACKENDS,
    &METRICS,
    &PROMETHEUS,
    &REFRESH,
    &MAINTENANCE,
    &SET_MAINTENANCE,
    &POP_MAINTENANCE,
    &SET_POP_MAINTENANCE,
];

pub(crate) static HEALTH: Operation = Operation::get("health", "/health").says(
    "Asks a broker how it is. One that is not healthy answers QUEEN_E_BROKER.",
    "the broker's document: `{\"status\", \"version\", …}`",
);

/// For operations without any parameter.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Nothing {}

static BACKENDS: Operation = Operation {
    name: "client.backends",
    summary: "Tells how the client spreads its requests, and which brokers it takes for healthy. Asks no broker.",
    parameters: &[],
    result: "`{\"strategy\", \"virtualNodes\", \"backends\": [{\"url\", \"healthy\", \"failures\", \
             \"lastFailureMillisAgo\"}]}`; `failures` are those in a row",
    run: Run::Typed(|client, params| {
        read::<Nothing>("client.backends", params)?;
        let shown = serde_json::to_string(&client.backends())
            .map_err(|error| Error::new(ErrorCode::Internal, error.to_string()))?;
        Ok(Box::new(Pending::finished(Ok(Document(shown)))))
    }),
};

pub(crate) static METRICS: Operation = Operation::get("metrics", "/metrics").says(
    "Tells the counters of a broker.",
    "the broker's document: `{\"uptime\", \"requests\", \"messages\", \"memory\", …}`",
);

pub(crate) static PROMETHEUS: Operation =
    Operation::get("metrics.prometheus", "/metrics/prometheus")
        .done_by(|call| Box::pin(text(call)))
        .says(
            "Tells the counters of a broker in the text format of Prometheus.",
            "the text, as a JSON string",
        );

/// An answer that is not JSON, as a JSON string.
async fn text(call: Call) -> Result<String> {
    let body = call.send(&call.params).await?.text()?;
    let text =
        std::str::from_utf8(&body).map_err(|error| bad_answer("metrics.prometheus", error))?;
    // Where there is no such route, some brokers answer with the page of their dashboard.
    if text.trim_start().starts_with('<') {
        return Err(Error::new(
            ErrorCode::Unsupported,
            "the broker has no metrics in the text format of Prometheus",
        )
        .with_outcome(Outcome::Refused));
    }
    Ok(serde_json::Value::from(text).to_string())
}

pub(crate) static REFRESH: Operation = Operation::post("stats.refresh", "/api/v1/stats/refresh")
    .repeatable()
    .says(
        "Counts anew what `queue.list`, `overview` and `status` tell from a cache.",
        "the broker's document, with `refreshedAt`",
    );

const ENABLED: Parameter = Parameter::flag("enabled", "On or off.").required();

pub(crate) static MAINTENANCE: Operation =
    Operation::get("maintenance.get", "/api/v1/system/maintenance").says(
        "Tells whether push and pop maintenance are on.",
        "the broker's document: `{\"maintenanceMode\", \"popMaintenanceMode\", \"bufferedMessages\", …}`",
    );

pub(crate) static SET_MAINTENANCE: Operation =
    Operation::post("maintenance.set", "/api/v1/system/maintenance")
        .takes(&[ENABLED, TIMEOUT])
        .repeatable()
        .says(
            "Switches push maintenance, for all clients: while it is on, pushes are accepted as `buffered` and stored later.",
            "the broker's document: `{\"maintenanceMode\", \"bufferedMessages\", …}`",
        );

pub(crate) static POP_MAINTENANCE: Operation =
    Operation::get("maintenance.pop.get", "/api/v1/system/maintenance/pop").says(
        "Tells whether pop maintenance is on.",
        "the broker's document: `{\"popMaintenanceMode\", \"message\"}`",
    );

pub(crate) static SET_POP_MAINTENANCE: Operation =
    Operation::post("maintenance.pop.set", "/api/v1/system/maintenance/pop")
        .takes(&[ENABLED, TIMEOUT])
        .repeatable()
        .says(
            "Switches pop maintenance, for all clients: while it is on, pops answer at once and bring nothing.",
            "the broker's document: `{\"popMaintenanceMode\", \"message\"}`",
        );
