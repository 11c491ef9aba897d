//! `POST /api/v1/configure` and `/api/v1/resources/queues/:queue`.

use serde_json::{Map, Value, json};

use super::segment;
use crate::error::Result;

pub(crate) const CONFIGURE: &str = "/api/v1/configure";
pub(crate) const HEALTH: &str = "/health";

pub(crate) fn path(queue: &str) -> Result<String> {
    Ok(format!(
        "/api/v1/resources/queues/{}",
        segment("queue", queue)?
    ))
}

/// The options that every client sends along with the caller's, because brokers before 1.6 reset what is missing.
pub(crate) const DEFAULTS: &[(&str, u64)] = &[
    ("leaseTime", 300),
    ("retryLimit", 3),
    ("priority", 0),
    ("delayedProcessing", 0),
    ("windowBuffer", 0),
    ("maxSize", 0),
    ("retentionSeconds", 0),
    ("completedRetentionSeconds", 0),
];

/// The body of a configure call: the caller's options over the complete set of defaults.
pub(crate) fn configure(
    queue: &str,
    namespace: Option<&str>,
    task: Option<&str>,
    options: &Map<String, Value>,
) -> String {
    let mut all: Map<String, Value> = DEFAULTS
        .iter()
        .map(|(key, value)| ((*key).to_owned(), json!(value)))
        .collect();
    all.insert("encryptionEnabled".into(), json!(false));
    all.extend(options.clone());
    let mut body = json!({ "queue": queue, "options": all });
    if let Some(namespace) = namespace {
        body["namespace"] = namespace.into();
    }
    if let Some(task) = task {
        body["task"] = task.into();
    }
    body.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_callers_options_win_over_the_complete_set() {
        let options = json!({"leaseTime": 5, "dedupWindowSeconds": 9});
        let body: Value = serde_json::from_str(&configure(
            "q",
            None,
            Some("t"),
            options.as_object().unwrap(),
        ))
        .unwrap();
        assert_eq!(body["options"]["leaseTime"], 5);
        assert_eq!(body["options"]["dedupWindowSeconds"], 9);
        assert_eq!(body["options"]["retryLimit"], 3);
        assert_eq!(body["options"].as_object().unwrap().len(), 10);
        assert_eq!(body["task"], "t");
        assert!(body.get("namespace").is_none());
    }
}
