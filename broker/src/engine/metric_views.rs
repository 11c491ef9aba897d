//! Numbers about the broker as a whole, read beside the writer.

use std::fmt::Write;

use serde_json::json;

use super::census::Census;
use crate::store::{Db, Result};

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
pub(crate) fn prometheus(db: &Db, census: &Census, served: Served) -> Result<Option<String>> {
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
    let rows = db.group_rows(None)?;
    for rows in rows.chunk_by(|a, b| (&a.group, &a.queue) == (&b.group, &b.queue)) {
        let Some(first) = rows.first() else { continue };
        let lag: i64 = rows.iter().map(|row| row.lag).sum();
        let (queue, group) = (escape(&first.queue), escape(&first.group));
        let _ = writeln!(
            out,
            "queen_group_lag{{queue=\"{queue}\",group=\"{group}\"}} {lag}"
        );
    }
    Ok(Some(out))
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
