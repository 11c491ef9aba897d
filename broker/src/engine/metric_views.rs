//! Numbers about the broker as a whole.

use std::fmt::Write;

use serde_json::json;

use super::census::Census;

/// What the HTTP side counts.
#[derive(Clone, Copy)]
pub(crate) struct Served {
    /// Seconds since the broker was opened.
    pub(crate) uptime: u64,
    pub(crate) requests: u64,
}

/// The numbers as JSON.
pub(crate) fn json(census: &Census, served: Served) -> String {
    let [queues, partitions, messages, dead] = census.sums();
    let body = json!({
        "uptime": served.uptime,
        "requests": { "total": served.requests },
        "queues": queues,
        "partitions": partitions,
        "messages": { "stored": messages, "deadLetter": dead },
    });
    body.to_string()
}

/// The numbers as Prometheus text, with the lag of every group.
pub(crate) fn prometheus(census: &Census, served: Served) -> String {
    let [queues, partitions, messages, dead] = census.sums();
    let mut out = String::new();
    for (name, kind, help, value) in [
        (
            "uptime_seconds",
            "gauge",
            "Seconds since the broker was opened.",
            served.uptime as i64,
        ),
        (
            "requests_total",
            "counter",
            "Requests received.",
            served.requests as i64,
        ),
        ("queues", "gauge", "Queues.", queues),
        ("partitions", "gauge", "Partitions.", partitions),
        ("messages", "gauge", "Stored messages.", messages),
        ("dead_letters", "gauge", "Dead-letter records.", dead),
    ] {
        let _ = write!(
            out,
            "# HELP queen_{name} {help}\n# TYPE queen_{name} {kind}\nqueen_{name} {value}\n"
        );
    }
    out.push_str("# HELP queen_group_lag Messages that a group has not finished.\n# TYPE queen_group_lag gauge\n");
    for queue in &census.queues {
        for (group, lag) in &queue.lags {
            let (queue, group) = (escape(&queue.name), escape(group));
            let _ = writeln!(
                out,
                "queen_group_lag{{queue=\"{queue}\",group=\"{group}\"}} {lag}"
            );
        }
    }
    out
}

/// A label value, as the text format wants it.
fn escape(text: &str) -> String {
    text.replace('\\', "\\\\")
        .replace('"', "\\\"")
        .replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    #[test]
    fn labels_are_escaped() {
        assert_eq!(super::escape("a\"b\\c\nd"), r#"a\"b\\c\nd"#);
    }
}
