//! What a fault can know of a request: the name of its route and the queues that it speaks of.

use std::borrow::Cow;

use percent_encoding::percent_decode_str;
use serde_json::Value;

/// The names of the routes: the first part of their path behind `/api/v1/`.
pub(super) const ROUTES: [&str; 18] = [
    "push",
    "pop",
    "ack",
    "transaction",
    "lease",
    "configure",
    "resources",
    "dlq",
    "messages",
    "consumer-groups",
    "traces",
    "stream",
    "system",
    "status",
    "analytics",
    "stats",
    "metrics",
    "health",
];

/// Those of them whose requests name no queue.
pub(super) const NO_QUEUE: [&str; 8] = [
    "ack", "lease", "traces", "stream", "system", "stats", "metrics", "health",
];

/// Those of them that name it in their body.
const IN_BODY: [&str; 3] = ["push", "transaction", "configure"];

/// Where requests are counted that no route is for.
const OTHER: &str = "other";

/// The name of the route that a path leads to.
pub(super) fn route(path: &str) -> &'static str {
    let path = path.strip_prefix("/api/v1").unwrap_or(path);
    let first = path.split('/').nth(1).unwrap_or_default();
    let known = ROUTES.iter().find(|name| **name == first);
    known.copied().unwrap_or(OTHER)
}

/// Whether the queue of a route's requests can be told from the body alone.
pub(super) fn has_queue_in_body(route: &str) -> bool {
    IN_BODY.contains(&route)
}

/// Whether a request speaks of a queue.
pub(super) fn names_queue(wanted: &str, path: &str, query: Option<&str>, body: &[u8]) -> bool {
    in_path(path).as_deref() == Some(wanted)
        || in_query(query.unwrap_or_default(), wanted)
        || (!body.is_empty() && in_body(body, wanted))
}

fn in_path(path: &str) -> Option<Cow<'_, str>> {
    let parts: Vec<&str> = path.strip_prefix("/api/v1/")?.split('/').collect();
    let name = match parts.as_slice() {
        ["pop", "queue", name, ..] | ["resources" | "status", "queues", name, ..] => name,
        ["consumer-groups", _, "queues", name, ..] => name,
        _ => return None,
    };
    percent_decode_str(name).decode_utf8().ok()
}

fn in_query(query: &str, wanted: &str) -> bool {
    form_urlencoded::parse(query.as_bytes()).any(|(key, value)| key == "queue" && value == wanted)
}

/// `queue` of the body itself, of its `items`, of its `operations` and of their `items`.
fn in_body(body: &[u8], wanted: &str) -> bool {
    fn holds(value: &Value, wanted: &str) -> bool {
        value.get("queue").and_then(Value::as_str) == Some(wanted)
            || ["items", "operations"].iter().any(|key| {
                let list = value.get(key).and_then(Value::as_array);
                list.is_some_and(|list| list.iter().any(|inner| holds(inner, wanted)))
            })
    }
    serde_json::from_slice(body).is_ok_and(|value| holds(&value, wanted))
}

/// Whether a path fits a pattern, in which `*` stands for any run of characters.
pub(super) fn fits(pattern: &str, path: &str) -> bool {
    let Some((start, rest)) = pattern.split_once('*') else {
        return pattern == path;
    };
    let Some(mut path) = path.strip_prefix(start) else {
        return false;
    };
    let mut parts: Vec<&str> = rest.split('*').collect();
    let Some(end) = parts.pop() else { return true };
    for part in parts {
        match path.split_once(part) {
            Some((_, behind)) => path = behind,
            None => return false,
        }
    }
    path.ends_with(end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_route_of_the_broker_has_a_name() {
        let source = include_str!("../http/mod.rs");
        let paths: Vec<&str> = source
            .split('"')
            .filter(|text| text.starts_with('/') && !text.contains('\n'))
            .collect();
        assert!(paths.len() > 30);
        for path in paths {
            assert_ne!(
                route(path),
                OTHER,
                "{path}: add its name to ROUTES and docs/TESTING.md"
            );
        }
        assert_eq!(route("/api/v1/pop/queue/q"), "pop");
        assert_eq!(route("/api/v1"), OTHER);
        assert_eq!(route("/nowhere/push"), OTHER);
    }

    #[test]
    fn queues_are_found_in_path_query_and_body() {
        let none: &[u8] = b"";
        for path in [
            "/api/v1/pop/queue/a%20b",
            "/api/v1/pop/queue/a%20b/partition/p",
            "/api/v1/resources/queues/a%20b",
            "/api/v1/consumer-groups/queues/queues/a%20b/seek",
        ] {
            assert!(names_queue("a b", path, None, none), "{path}");
            assert!(!names_queue("a", path, None, none), "{path}");
        }
        assert!(names_queue(
            "a b",
            "/api/v1/dlq",
            Some("x=1&queue=a+b"),
            none
        ));
        for body in [
            r#"{"queue":"q"}"#,
            r#"{"items":[{"queue":"p"},{"queue":"q"}]}"#,
            r#"{"operations":[{"type":"ack"},{"type":"push","items":[{"queue":"q"}]}]}"#,
        ] {
            assert!(
                names_queue("q", "/api/v1/push", None, body.as_bytes()),
                "{body}"
            );
            assert!(
                !names_queue("r", "/api/v1/push", None, body.as_bytes()),
                "{body}"
            );
        }
        assert!(!names_queue("q", "/api/v1/push", None, b"not JSON"));
    }

    #[test]
    fn stars_stand_for_anything() {
        assert!(fits("/api/v1/pop*", "/api/v1/pop"));
        assert!(fits(
            "/api/v1/pop/*/partition/*",
            "/api/v1/pop/queue/q/partition/p"
        ));
        assert!(fits("*/seek", "/a/b/seek") && fits("/a*b*c", "/abc"));
        assert!(!fits("/a*b*c", "/acb") && !fits("/a", "/ab") && !fits("/a*bb", "/ab"));
    }
}
