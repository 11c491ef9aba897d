//! The windows of a stream.

use std::sync::{Arc, Mutex};

use queen::{Aggregation, Client, Error, Settlement, StreamConsumeOptions, Window, WindowSink};
use serde_json::{Value, json};

use crate::step::{Rules, Step};
use crate::world::{Outcome, Slot, finish, lock};

pub fn consume(step: &Step, slot: &Slot, client: &Client) -> Result<Outcome, Error> {
    let mut options = step.options.clone().unwrap_or_else(|| json!({}));
    options["stream"] = step.stream.clone().into();
    options["consumerGroup"] = step.group.clone().into();
    let options = StreamConsumeOptions::parse(&options.to_string())?;
    let wanted = step
        .aggregate
        .as_ref()
        .map_or("{}".into(), Value::to_string);
    let wanted = Aggregation::parse(&wanted)?;
    let got: Arc<Mutex<Vec<Value>>> = Arc::default();
    let (rules, noted) = (Rules::of(step), got.clone());
    let handler = move |window: Window| {
        let payloads: Vec<Value> = window
            .messages()
            .filter_map(|one| one.json().ok())
            .collect();
        let told = json!({"key": window.key(), "start": window.start(), "payloads": payloads, "aggregates": window.aggregate(&wanted)});
        lock(&noted).push(told);
        let Some(rule) = rules.next(&window.key().into()) else {
            return Settlement::Ack;
        };
        match &*rule.then {
            "nack" => Settlement::Nack,
            "" | "ack" => Settlement::Ack,
            other => panic!("{other}: {}", rule.reason),
        }
    };
    let consumer = client.consume_windows(options, WindowSink::Handler(Box::new(handler)))?;
    let (summary, error) = finish(slot, consumer.finished());
    Ok((json!({"windows": *lock(&got), "summary": summary}), error))
}
