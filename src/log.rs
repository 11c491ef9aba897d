//! Log records of a client, handed to whoever asked for them.

use std::io::Write;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, RwLock};

use serde_json::{Map, Value};

/// How much a record matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
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

/// Receives log records as JSON: `{"level","component","operation","message", …fields}`. Called on library threads: it
/// must be quick and must not block. Payloads and tokens are never part of a record.
pub type LogSink = Arc<dyn Fn(Level, &str) + Send + Sync>;

/// The log of one client. Silent unless a sink is set or `QUEEN_CLIENT_LOG` asks for stderr.
pub(crate) struct Logger {
    level: AtomicU8,
    sink: RwLock<Option<LogSink>>,
}

impl Logger {
    /// Reads `QUEEN_CLIENT_LOG`: `true` or a level name sends the log to stderr, anything else leaves it off.
    pub(crate) fn from_environment() -> Logger {
        let level = match std::env::var("QUEEN_CLIENT_LOG")
            .unwrap_or_default()
            .to_ascii_lowercase()
            .as_str()
        {
            "true" | "info" => Some(Level::Info),
            "debug" => Some(Level::Debug),
            "warn" => Some(Level::Warn),
            "error" => Some(Level::Error),
            _ => None,
        };
        let logger = Logger {
            level: AtomicU8::new(0),
            sink: RwLock::new(None),
        };
        if let Some(level) = level {
            logger.set(
                level,
                Some(Arc::new(|_, line| {
                    let _ = writeln!(std::io::stderr(), "{line}");
                })),
            );
        }
        logger
    }

    /// Replaces the sink.
    pub(crate) fn set(&self, level: Level, sink: Option<LogSink>) {
        let number = if sink.is_some() { level as u8 } else { 0 };
        let before = {
            let mut place = self
                .sink
                .write()
                .unwrap_or_else(|poisoned| poisoned.into_inner());
            self.level.store(number, Ordering::SeqCst);
            std::mem::replace(&mut *place, sink)
        };
        drop(before);
    }

    /// Whether a record of that level would go anywhere.
    pub(crate) fn wants(&self, level: Level) -> bool {
        level as u8 <= self.level.load(Ordering::Relaxed)
    }

    /// Hands out a record.
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
        let sink = self
            .sink
            .read()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
            .clone();
        let Some(sink) = sink else { return };
        let (component, operation) = operation.split_once('.').unwrap_or(("client", operation));
        let mut record = Map::new();
        record.insert("level".into(), level.as_str().into());
        record.insert("component".into(), component.into());
        record.insert("operation".into(), operation.into());
        record.insert("message".into(), message.into());
        for (key, value) in fields {
            record.insert((*key).to_owned(), value.clone());
        }
        sink(level, &Value::Object(record).to_string());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;

    #[test]
    fn records_reach_the_sink_from_their_level_on() {
        let logger = Logger {
            level: AtomicU8::new(0),
            sink: RwLock::new(None),
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
    }
}
