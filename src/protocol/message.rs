//! `GET /api/v1/messages/:partitionId/:transactionId`.

use serde_json::Value;

use super::segment;
use crate::error::Result;

pub(crate) fn path(partition_id: &str, transaction_id: &str) -> Result<String> {
    Ok(format!(
        "/api/v1/messages/{}/{}",
        segment("partitionId", partition_id)?,
        segment("transactionId", transaction_id)?
    ))
}

/// Whether that group is done with the message of such a document.
pub(crate) fn is_consumed(document: &Value, group: &str) -> bool {
    let groups = document.get("consumerGroups").and_then(Value::as_array);
    groups.into_iter().flatten().any(|one| {
        let named = |key: &str| one.get(key).and_then(Value::as_str) == Some(group);
        (named("group") || named("name")) && one.get("consumed") == Some(&Value::Bool(true))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn one_group_is_done_and_another_is_not() {
        let document = json!({"consumerGroups": [
            {"name": "a", "group": "a", "consumed": false},
            {"name": "b", "group": "b", "consumed": true},
        ]});
        assert!(is_consumed(&document, "b"));
        assert!(!is_consumed(&document, "a") && !is_consumed(&document, "c"));
        assert!(!is_consumed(&json!({"error": "Message not found"}), "a"));
        assert_eq!(path("p/1", "t 2").unwrap(), "/api/v1/messages/p%2F1/t%202");
    }
}
