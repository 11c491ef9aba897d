//! The windows of a stream.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use queen::{Aggregation, Client, Error, Settlement, StreamConsumeOptions, Window, WindowSink};
use serde_json::{Value, json};

use crate::pattern::matches;
use crate::step::Step;
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
    let calls: Mutex<HashMap<String, u64>> = Mutex::default();
    let (rules, noted) = (step.handler.clone(), got.clone());
    let handler = move |window: Window| {
        let payloads: Vec<Value> = window
            .messages()
            .filter_map(|one| one.json().ok())
            .collect();
        let told = json!({"key": window.key(), "start": window.start(), "payloads": payloads, "aggregates": window.aggregate(&wanted)});
        lock(&noted).push(told);
        let key = Value::from(window.key());
        let call = {
            let mut calls = lock(&calls);
            let count = calls.entry(window.key().to_owned()).or_default();
            *count += 1;
            *count
        };
        let rule = rules.iter().find(|rule| {
            let fits = |wanted| matches(wanted, &key, "").is_ok();
            rule.payload.as_ref().is_none_or(fits) && rule.call.is_none_or(|n| n == call)
        });
        let Some(rule) = rule else {
            return Settlement::Ack;
        };
        thread::sleep(Duration::from_millis(rule.sleep_millis));
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
