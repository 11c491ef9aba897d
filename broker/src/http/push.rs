//! `POST /api/v1/push`.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt::{Arguments, Write};

use axum::Extension;
use axum::extract::State;
use axum::response::Response;
use bytes::Bytes;
use http::StatusCode;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::auth::Caller;
use super::input::Text;
use super::{Shared, answer, input};
use crate::engine::command::{Command, PushGroup, PushItem, PushRequest, Pushed};
use crate::engine::push_quoted;

/// The longest transaction id, in bytes.
const MAX_TXN: usize = 65_535;

#[derive(Deserialize)]
struct Push<'a> {
    #[serde(borrow)]
    items: Vec<Item<'a>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Item<'a> {
    #[serde(borrow)]
    queue: Cow<'a, str>,
    #[serde(borrow, default)]
    partition: Option<Text<'a>>,
    #[serde(borrow)]
    payload: &'a RawValue,
    #[serde(borrow, default)]
    transaction_id: Option<Text<'a>>,
}

pub(super) async fn push(
    State(app): Shared,
    Extension(caller): Extension<Caller>,
    body: Bytes,
) -> Response {
    let push: Push = match input::body(&body) {
        Ok(push) => push,
        Err(response) => return *response,
    };
    if let Some(fault) = push
        .items
        .iter()
        .enumerate()
        .find_map(|(n, item)| item_fault(n, item))
    {
        return answer::bad_body(fault);
    }
    let request = gather(&body, &push.items, &caller);
    let pushed = match app.engine.ask(|reply| Command::Push(request, reply)).await {
        Ok(pushed) => pushed,
        Err(reason) => return answer::refused(reason),
    };
    let mut out = String::with_capacity(push.items.len() * 192 + 2);
    out.push('[');
    for (index, (item, pushed)) in push.items.iter().zip(pushed).enumerate() {
        if index > 0 {
            out.push(',');
        }
        let _ = write!(out, r#"{{"index":{index},"#);
        let (id, status) = match pushed {
            Pushed::Stored(id) => (Some(id), "queued"),
            Pushed::Duplicate(id) => (Some(id), "duplicate"),
            Pushed::Buffered(id) => (Some(id), "buffered"),
            Pushed::Full(_) => (None, "failed"),
        };
        if let Some(id) = id {
            let _ = write!(out, r#""message_id":"{id}","#);
        }
        out.push_str(r#""transaction_id":"#);
        let _ = match (&item.transaction_id, id) {
            (Some(own), _) => {
                push_quoted(&mut out, own);
                Ok(())
            }
            (None, Some(id)) => write!(out, "\"{id}\""),
            (None, None) => write!(out, "null"),
        };
        out.push_str(r#","queueName":"#);
        push_quoted(&mut out, &item.queue);
        let _ = write!(out, r#","status":"{status}""#);
        if let Pushed::Full(most) = pushed {
            let _ = write!(out, r#","error":"queue is full: maxSize {most}""#);
        }
        out.push('}');
    }
    out.push(']');
    answer::json(StatusCode::CREATED, out)
}

/// What is wrong with the texts of an item, naming the field and the value.
pub(super) fn fault(item: Arguments, fields: [(&str, Option<&str>); 3]) -> Option<String> {
    for (name, value) in fields {
        let value = value.unwrap_or_default();
        let fault = input::name_fault(format_args!("{item}.{name}"), value);
        if fault.is_some() {
            return fault;
        }
        let length = value.len();
        if name == "transactionId" && length > MAX_TXN {
            return Some(format!(
                "{item}.{name} has {length} bytes, at most {MAX_TXN} are allowed"
            ));
        }
    }
    None
}

fn item_fault(n: usize, item: &Item) -> Option<String> {
    let name = format_args!("items[{n}]");
    if item.queue.is_empty() {
        return Some(format!("{name}.queue is empty"));
    }
    let fields = [
        ("queue", Some(&*item.queue)),
        ("partition", item.partition.as_deref()),
        ("transactionId", item.transaction_id.as_deref()),
    ];
    fault(name, fields).or_else(|| input::depth_fault(format_args!("{name}.payload"), item.payload))
}

/// Sorts the items by partition. Payloads stay slices of the body.
fn gather(body: &Bytes, items: &[Item], caller: &Caller) -> PushRequest {
    let mut groups: Vec<PushGroup> = Vec::new();
    let mut places: HashMap<(&str, &str), usize> = HashMap::new();
    let mut last = None;
    for (index, item) in items.iter().enumerate() {
        let part = item.partition.as_deref().unwrap_or("Default");
        let key = (&*item.queue, part);
        // Most requests are about one partition.
        let place = match last {
            Some((known, place)) if known == key => place,
            _ => *places.entry(key).or_insert_with(|| {
                groups.push(PushGroup {
                    queue: item.queue.to_string(),
                    part: part.to_owned(),
                    items: Vec::new(),
                });
                groups.len() - 1
            }),
        };
        last = Some((key, place));
        if let Some(group) = groups.get_mut(place) {
            group.items.push(PushItem {
                index,
                accepted: None,
                txn: item.transaction_id.as_deref().map(str::to_owned),
                trace: None,
                producer: caller.subject.clone(),
                payload: body.slice_ref(item.payload.get().as_bytes()),
            });
        }
    }
    PushRequest {
        groups,
        count: items.len(),
    }
}
