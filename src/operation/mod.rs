//! The catalogue: every operation by name, with its parameters and its result. Powers `queen_call`, the fluent Rust API of
//! [`crate::admin`] and `docs/OPERATIONS.md`. One file per family; most rows are a route and nothing else.

pub(crate) mod dlq;
pub(crate) mod group;
pub(crate) mod message;
mod messaging;
pub(crate) mod queue;
mod route;
pub(crate) mod status;
pub(crate) mod stream;
pub(crate) mod system;
pub(crate) mod trace;
mod transaction;

use once_cell::sync::Lazy;
use serde_json::{Value, json};

use crate::client::Client;
use crate::error::{Error, ErrorCode, Result};
use crate::output::AnyPending;

pub(crate) use self::route::Params;
use self::route::Route;

/// One operation of the catalogue.
pub struct Operation {
    /// The name for [`Client::call`].
    pub name: &'static str,
    /// What it does.
    pub summary: &'static str,
    /// The keys of its parameters.
    pub parameters: &'static [Parameter],
    /// The shape of its result.
    pub result: &'static str,
    run: Run,
}

enum Run {
    /// Read by serde and handed to the typed API.
    Typed(fn(&Client, &str) -> Result<Box<dyn AnyPending>>),
    /// A request made of the parameters by the table.
    Route(Route),
}

/// One key of an operation's parameters.
pub struct Parameter {
    /// The key.
    pub name: &'static str,
    /// The JSON type, with the unit.
    pub kind: &'static str,
    /// The default, or `required`.
    pub default: &'static str,
    /// What it means.
    pub doc: &'static str,
    reads: Reads,
    wire: &'static str,
}

/// What a parameter of a route must look like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reads {
    /// Text without control characters, not empty.
    Name,
    /// As [`Name`](Reads::Name), and empty is allowed.
    Text,
    /// A time with a zone.
    Time,
    /// A whole number, at least 0.
    Number,
    /// A whole number, at least 1.
    Positive,
    Flag,
    Object,
    /// A list of texts, or one text.
    Texts,
    /// Any JSON value, null included, carried as it is written.
    Any,
}

impl Parameter {
    const fn new(
        reads: Reads,
        name: &'static str,
        kind: &'static str,
        doc: &'static str,
    ) -> Parameter {
        Parameter {
            name,
            kind,
            default: "none",
            doc,
            reads,
            wire: name,
        }
    }

    const fn name(name: &'static str, doc: &'static str) -> Parameter {
        Parameter::new(Reads::Name, name, "string", doc)
    }

    const fn text(name: &'static str, doc: &'static str) -> Parameter {
        Parameter::new(Reads::Text, name, "string", doc)
    }

    const fn time(name: &'static str, doc: &'static str) -> Parameter {
        Parameter::new(Reads::Time, name, "string, ISO 8601 time with a zone", doc)
    }

    const fn number(name: &'static str, kind: &'static str, doc: &'static str) -> Parameter {
        Parameter::new(Reads::Number, name, kind, doc)
    }

    const fn flag(name: &'static str, doc: &'static str) -> Parameter {
        Parameter::new(Reads::Flag, name, "boolean", doc)
    }

    const fn required(mut self) -> Parameter {
        self.default = "required";
        self
    }

    const fn or(mut self, default: &'static str) -> Parameter {
        self.default = default;
        self
    }

    /// The key that the broker reads, where it is another one.
    const fn sent_as(mut self, wire: &'static str) -> Parameter {
        self.wire = wire;
        self
    }

    fn is_required(&self) -> bool {
        self.default == "required"
    }
}

const QUEUE: Parameter = Parameter::name("queue", "The queue.").required();
const ONE_QUEUE: Parameter = Parameter::name("queue", "Only this queue.").or("all");
const NAMESPACE: Parameter =
    Parameter::name("namespace", "Only queues of this namespace.").or("all");
const TASK: Parameter = Parameter::name("task", "Only queues of this task.").or("all");
const GROUP: Parameter = Parameter::name(
    "consumerGroup",
    "The consumer group; `__QUEUE_MODE__` is that of reading without a group.",
)
.required();
const PARTITION_ID: Parameter =
    Parameter::name("partitionId", "The id of the message's partition.").required();
const TRANSACTION_ID: Parameter =
    Parameter::name("transactionId", "The message's transaction id.").required();
const FROM: Parameter = Parameter::time("from", "Nothing older.");
const TO: Parameter = Parameter::time("to", "Nothing newer.");
const LIMIT: Parameter =
    Parameter::new(Reads::Positive, "limit", "integer", "The most entries.").or("100");
const OFFSET: Parameter =
    Parameter::number("offset", "integer", "How many entries to skip.").or("0");
const TIMEOUT: Parameter = Parameter::number(
    "timeoutMillis",
    "integer, milliseconds",
    "Deadline of the call.",
)
.or("the client's");

/// The families, in the order of the documentation.
static FAMILIES: &[&[&Operation]] = &[
    messaging::TABLE,
    transaction::TABLE,
    queue::TABLE,
    dlq::TABLE,
    message::TABLE,
    trace::TABLE,
    group::TABLE,
    stream::TABLE,
    status::TABLE,
    system::TABLE,
];

/// Every operation of the catalogue.
pub fn operations() -> impl Iterator<Item = &'static Operation> {
    FAMILIES.iter().copied().flatten().copied()
}

impl Client {
    /// Runs an operation of the catalogue by its name, with its parameters as a JSON object (empty: `{}`).
    pub fn call(&self, operation: &str, params: &str) -> Result<Box<dyn AnyPending>> {
        let found = operations()
            .find(|one| one.name == operation)
            .ok_or_else(|| {
                let names: Vec<_> = operations().map(|one| one.name).collect();
                Error::new(
                    ErrorCode::UnknownOperation,
                    format!(
                        "there is no operation `{operation}`; there are {}",
                        names.join(", ")
                    ),
                )
            })?;
        match &found.run {
            Run::Typed(run) => run(self, params),
            Run::Route(_) => Ok(Box::new(
                found.start(self.core(), route::read(found.name, params)?),
            )),
        }
    }
}

/// The catalogue as a JSON array of `{name, summary, parameters: [{name, type, default, doc}], result}`.
pub fn operations_json() -> &'static str {
    static JSON: Lazy<String> = Lazy::new(|| {
        let operations: Vec<Value> = operations()
            .map(|operation| {
                let parameters: Vec<Value> = operation
                    .parameters
                    .iter()
                    .map(|one| json!({"name": one.name, "type": one.kind, "default": one.default, "doc": one.doc}))
                    .collect();
                json!({
                    "name": operation.name,
                    "summary": operation.summary,
                    "parameters": parameters,
                    "result": operation.result,
                })
            })
            .collect();
        Value::from(operations).to_string()
    });
    &JSON
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn unknown_names_and_parameters_are_named() {
        let client = Client::new("embedded:").unwrap();
        let error = |operation: &str, params: &str| {
            let error = client.call(operation, params).err();
            error.map(|error| error.message().to_owned())
        };
        assert!(error("queue.crate", "{}").unwrap().contains("queue.crate"));
        assert!(
            error("pop", r#"{"queue":"a","btch":2}"#)
                .unwrap()
                .contains("btch")
        );
        assert!(error("pop", r#"{"queue":7}"#).unwrap().contains('7'));
        assert!(error("ack", "{}").unwrap().contains("acks"));
        assert!(error("flush", "[").is_some());
        assert!(error("health", "[]").unwrap().contains("object"));
    }

    /// The documented default of a parameter.
    fn default_of(operation: &str, parameter: &str) -> &'static str {
        let operation = operations().find(|one| one.name == operation).unwrap();
        let found = operation
            .parameters
            .iter()
            .find(|one| one.name == parameter);
        found.unwrap().default
    }

    #[test]
    fn d26_to_d29_e2_c22_what_a_pop_does_unless_told_otherwise_is_what_is_documented() {
        let pop = crate::consume::PopOptions::parse("{}").unwrap();
        let documented = |parameter: &str| default_of("pop", parameter);
        assert_eq!((pop.batch, documented("batch")), (1, "1"));
        assert_eq!((pop.wait, documented("wait")), (false, "false"));
        assert_eq!(
            (pop.poll_timeout_millis, documented("pollTimeoutMillis")),
            (30_000, "30000")
        );
        assert_eq!((pop.auto_ack, documented("autoAck")), (false, "false"));
        assert!(
            crate::consume::ConsumeOptions::parse("{}")
                .unwrap()
                .auto_ack
        );
    }

    #[test]
    fn d34_d35_defaults_can_be_read_by_programs() {
        assert_eq!(default_of("dlq.list", "limit"), "100");
        assert_eq!(default_of("dlq.list", "offset"), "0");
        let listed: Vec<Value> = serde_json::from_str(operations_json()).unwrap();
        for operation in &listed {
            for parameter in operation["parameters"].as_array().unwrap() {
                let default = parameter["default"].as_str().unwrap();
                assert!(!default.is_empty(), "{operation}");
            }
        }
        for setting in crate::SETTINGS {
            assert!(!setting.default.is_empty(), "{}", setting.name);
        }
    }

    /// A time says its unit in its name, and a name with a unit is a time of that unit.
    #[test]
    fn e1_names_carry_the_unit() {
        let parameters = operations().flat_map(|one| one.parameters);
        let parameters = parameters.map(|one| (one.name, one.kind));
        let settings = crate::SETTINGS.iter().map(|one| (one.name, one.kind));
        let mut times = 0;
        for (name, kind) in parameters.chain(settings) {
            let units = [("Millis", "milliseconds"), ("Seconds", " seconds")];
            for (suffix, unit) in units {
                assert_eq!(
                    name.ends_with(suffix),
                    kind.contains(unit),
                    "{name}: {kind}"
                );
                times += usize::from(kind.contains(unit));
            }
        }
        assert!(times > 20, "{times}");
    }

    #[test]
    fn the_catalogue_lists_each_name_once() {
        let listed: Vec<Value> = serde_json::from_str(operations_json()).unwrap();
        let names: HashSet<_> = listed.iter().map(|one| one["name"].as_str()).collect();
        assert_eq!(names.len(), operations().count());
    }
}
