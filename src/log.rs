//! Log records of a client, handed to whoever asked for them.

use std::io::Write;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, RwLock};

use jiff::Timestamp;
use serde_json::{Map, Value};

/// How much a record matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
#[non_exhaustive]
pub enum Level {
    /// Something was lost or cannot go on.
    Error = 1,
    /// Something failed and is tried again, or was dropped and counted.
    Warn = 2,
    /// What a running client did.
    Info = 3,
    /// Every step.
    Debug = 4,
}

impl Level {
    /// The level with that number.
    pub fn from_number(number: i32) -> Option<Level> {
        [Level::Error, Level::Warn, Level::Info, Level::Debug]
            .into_iter()
            .find(|level| *level as i32 == number)
    }

    /// `error`, `warn`, `info` or `debug`.
    pub fn as_str(self) -> &'static str {
        match self {
            Level::Error => "error",
            Level::Warn => "warn",
            Level::Info => "info",
            Level::Debug => "debug",
        }
    }
}

/// Receives log records as JSON: `{"time","level","component","operation","message", …fields}`. Called on library threads:
/// it must be quick and must not block. Payloads and tokens are never part of a record.
pub type LogSink = Arc<dyn Fn(Level, &str) + Send + Sync>;

/// The log of one client. Silent unless a sink is set or `QUEEN_CLIENT_LOG` asks for stderr.
pub(crate) struct Logger {
    level: AtomicU8,
    place: RwLock<Place>,
}

/// Where records go.
#[derive(Clone)]
enum Place {
    Nowhere,
    /// As lines `[time] [LEVEL] [component.operation] {details}`.
    Stderr,
    Sink(LogSink),
}

impl Logger {
    /// Reads `QUEEN_CLIENT_LOG`: `true` or a level name sends the log to stderr, anything else leaves it off.
    pub(crate) fn from_environment() -> Logger {
        let asked = std::env::var("QUEEN_CLIENT_LOG").unwrap_or_default();
        let level = match asked.to_ascii_lowercase().as_str() {
            "true" | "info" => Some(Level::Info),
            "debug" => Some(Level::Debug),
            "warn" => Some(Level::Warn),
            "error" => Some(Level::Error),
            _ => None,
        };
        Logger {
            level: AtomicU8::new(level.map_or(0, |level| level as u8)),
            place: RwLock::new(match level {
                Some(_) => Place::Stderr,
                None => Place::Nowhere,
            }),
        }
    }

    /// Replaces the sink.
    pub(crate) fn set(&self, level: Level, sink: Option<LogSink>) {
        let (number, place) = match sink {
            Some(sink) => (level as u8, Place::Sink(sink)),
            None => (0, Place::Nowhere),
        };
        let before = {
            let mut current = self
                .place
                .write()
                .unwrap_or_else(|poisoned| poisoned.into_inner());
            self.level.store(number, Ordering::SeqCst);
            std::mem::replace(&mut *current, place)
        };
        drop(before);
    }

    /// Whether a record of that level would go anywhere.
    pub(crate) fn wants(&self, level: Level) -> bool {
        level as u8 <= self.level.load(Ordering::Relaxed)
    }

    /// Hands out a record; `operation` is `component.operation`.
    pub(crate) fn log(
        &self,
        level: Level,
        operation: &str,
        message: &str,
        fields: &[(&str, Value)],
    ) {
        if !self.wants(level) {
            return;
        }
        let place = self
            .place
            .read()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
            .clone();
        let time = format!("{:.3}", Timestamp::now());
        let mut record = Map::new();
        record.insert("message".into(), message.into());
        for (key, value) in fields {
            record.insert((*key).to_owned(), value.clone());
        }
        match place {
            Place::Nowhere => {}
            Place::Stderr => {
                let line = line(&time, level, operation, &record);
                let _ = std::io::stderr().write_all(line.as_bytes());
            }
            Place::Sink(sink) => {
                let (component, operation) =
                    operation.split_once('.').unwrap_or(("client", operation));
                record.insert("time".into(), time.into());
                record.insert("level".into(), level.as_str().into());
                record.insert("component".into(), component.into());
                record.insert("operation".into(), operation.into());
                sink(level, &Value::Object(record).to_string());
            }
        }
    }
}

/// One line, written at once so that those of several threads do not mix.
fn line(time: &str, level: Level, operation: &str, details: &Map<String, Value>) -> String {
    let level = level.as_str().to_ascii_uppercase();
    let details = serde_json::to_string(details).unwrap_or_default();
    format!("[{time}] [{level}] [{operation}] {details}\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;

    #[test]
    fn records_reach_the_sink_from_their_level_on() {
        let logger = Logger {
            level: AtomicU8::new(0),
            place: RwLock::new(Place::Nowhere),
        };
        let seen = Arc::new(Mutex::new(Vec::new()));
        logger.log(Level::Error, "a.b", "nobody listens", &[]);
        let to = seen.clone();
        logger.set(
            Level::Warn,
            Some(Arc::new(move |_, line| {
                to.lock().unwrap().push(line.to_owned())
            })),
        );
        logger.log(Level::Info, "a.b", "too quiet", &[]);
        logger.log(
            Level::Warn,
            "consumer.poll",
            "heard",
            &[("attempt", 2.into())],
        );
        logger.set(Level::Warn, None);
        logger.log(Level::Error, "a.b", "off again", &[]);
        let seen = seen.lock().unwrap();
        assert_eq!(seen.len(), 1);
        let record: Value = serde_json::from_str(&seen[0]).unwrap();
        assert_eq!(
            (record["component"].as_str(), record["operation"].as_str()),
            (Some("consumer"), Some("poll"))
        );
        assert_eq!(record["attempt"], 2);
        let time: Timestamp = record["time"].as_str().unwrap().parse().unwrap();
        assert!(Timestamp::now().duration_since(time).as_secs().abs() < 60);
    }

    #[test]
    fn lg2_a_line_has_time_level_operation_and_details() {
        let details = Map::from_iter([("message".to_owned(), "a \"b\"\n".into())]);
        let time = format!("{:.3}", Timestamp::UNIX_EPOCH);
        assert_eq!(
            line(&time, Level::Warn, "consumer.poll", &details),
            "[1970-01-01T00:00:00.000Z] [WARN] [consumer.poll] {\"message\":\"a \\\"b\\\"\\n\"}\n"
        );
    }
}
