//! How a row of the table becomes a request, and the answer a document.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use http::Method;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::{RawValue, to_raw_value};
use tokio::time::Instant;

use super::{Operation, Parameter, Reads, Run, TIMEOUT};
use crate::core::Core;
use crate::error::{Error, ErrorCode, Result};
use crate::output::Document;
use crate::pending::Pending;
use crate::protocol::{self, check_name, query_pair, segment};
use crate::transport::{self, Answer, Repeat, Request};

/// The longest path with query that every HTTP library on the way still takes, in bytes.
const MAX_PATH_BYTES: usize = 60_000;

/// What an operation is called with: each value as the JSON text that was given.
#[derive(Clone, Debug, Default, Deserialize)]
pub(crate) struct Params(BTreeMap<String, Box<RawValue>>);

impl Params {
    /// Sets a value; one that cannot be written as JSON counts as null.
    pub(crate) fn set(&mut self, key: &str, value: impl Serialize) {
        let value = to_raw_value(&value).unwrap_or_else(|_| RawValue::NULL.to_owned());
        self.0.insert(key.to_owned(), value);
    }

    pub(crate) fn remove(&mut self, key: &str) {
        self.0.remove(key);
    }

    /// A value of the caller's type; none where it is missing or another.
    pub(crate) fn get<'a, T: Deserialize<'a>>(&'a self, key: &str) -> Option<T> {
        serde_json::from_str(self.0.get(key)?.get()).ok()
    }

    pub(super) fn has(&self, key: &str) -> bool {
        self.0.contains_key(key)
    }
}

/// The way of an operation to the broker.
pub(super) struct Route {
    method: Method,
    /// `{name}` stands for a parameter; what is in `[…]` is left out when its parameter is not given.
    path: &'static str,
    repeat: Repeat,
    /// Looks at all parameters together, and may set some.
    prepare: Option<fn(&mut Params) -> Result<()>>,
    work: Work,
}

/// What a call does with its route.
pub(super) type Work = fn(Call) -> Pin<Box<dyn Future<Output = Result<String>> + Send>>;

impl Operation {
    pub(super) const fn get(name: &'static str, path: &'static str) -> Operation {
        Operation::route(name, Method::GET, path)
    }

    pub(super) const fn post(name: &'static str, path: &'static str) -> Operation {
        Operation::route(name, Method::POST, path)
    }

    pub(super) const fn delete(name: &'static str, path: &'static str) -> Operation {
        Operation::route(name, Method::DELETE, path)
    }

    const fn route(name: &'static str, method: Method, path: &'static str) -> Operation {
        Operation {
            name,
            summary: "",
            parameters: &[TIMEOUT],
            result: "",
            run: Run::Route(Route {
                repeat: match method {
                    Method::POST => Repeat::IfNotSent,
                    _ => Repeat::Safe,
                },
                method,
                path,
                prepare: None,
                work: |call| Box::pin(async move { call.document(&call.params).await }),
            }),
        }
    }

    pub(super) const fn says(mut self, summary: &'static str, result: &'static str) -> Operation {
        self.summary = summary;
        self.result = result;
        self
    }

    pub(super) const fn takes(mut self, parameters: &'static [Parameter]) -> Operation {
        self.parameters = parameters;
        self
    }

    pub(super) const fn prepared(mut self, prepare: fn(&mut Params) -> Result<()>) -> Operation {
        if let Run::Route(route) = &mut self.run {
            route.prepare = Some(prepare);
        }
        self
    }

    /// Done twice, it does what it does once.
    pub(super) const fn repeatable(mut self) -> Operation {
        if let Run::Route(route) = &mut self.run {
            route.repeat = Repeat::Safe;
        }
        self
    }

    pub(super) const fn done_by(mut self, work: Work) -> Operation {
        if let Run::Route(route) = &mut self.run {
            route.work = work;
        }
        self
    }

    /// Runs an operation that has a route.
    pub(crate) fn start(&'static self, core: &Arc<Core>, mut params: Params) -> Pending<Document> {
        let Run::Route(route) = &self.run else {
            return Pending::failed(Error::new(
                ErrorCode::Internal,
                format!("{} has no route", self.name),
            ));
        };
        let prepared = self
            .check(&mut params)
            .and_then(|()| route.prepare.map_or(Ok(()), |prepare| prepare(&mut params)))
            .and_then(|()| route.target(self, &params));
        let (path, body) = match prepared {
            Ok(target) => target,
            Err(error) => return Pending::failed(error),
        };
        let millis = params
            .get(TIMEOUT.name)
            .unwrap_or(core.config.timeout_millis);
        let cost = (1, path.len() + body.map_or(0, |body| body.len()));
        let call = Call {
            core: core.clone(),
            operation: self,
            route,
            params,
            deadline: transport::after(millis),
        };
        let started = core.start(cost, call.deadline, move |pending| async move {
            if !pending.mark_sent() {
                return Err(Error::new(ErrorCode::Cancelled, "the call was cancelled"));
            }
            (route.work)(call).await.map(Document)
        });
        core.watch(self.name, started, Vec::new)
    }

    /// Looks at each parameter: whether it is known, there, and what it must be. A null stands for a missing one.
    fn check(&self, params: &mut Params) -> Result<()> {
        let known = |key: &str| self.parameters.iter().find(|one| one.name == key);
        params.0.retain(|key, value| {
            value.get() != "null" || known(key).is_none_or(|one| one.reads == Reads::Any)
        });
        for (key, value) in &params.0 {
            let Some(parameter) = known(key) else {
                let names: Vec<_> = self.parameters.iter().map(|one| one.name).collect();
                return Err(bad_params(
                    self.name,
                    format!("there is no `{key}`; there are {}", names.join(", ")),
                ));
            };
            parameter.check(self.name, value.get())?;
        }
        match self
            .parameters
            .iter()
            .find(|one| one.is_required() && !params.has(one.name))
        {
            Some(missing) => Err(bad_params(
                self.name,
                format!("`{}` is missing", missing.name),
            )),
            None => Ok(()),
        }
    }
}

impl Parameter {
    fn check(&self, operation: &str, json: &str) -> Result<()> {
        let value: Value = serde_json::from_str(json).unwrap_or_default();
        let text = |empty: bool| match value.as_str() {
            Some(text) => check_name(self.name, text, empty).map(|()| true),
            None => Ok(false),
        };
        let fits = match self.reads {
            Reads::Name => text(false)?,
            Reads::Text => text(true)?,
            Reads::Time => match value.as_str() {
                Some(time) => instant(self.name, time).map(|_| true)?,
                None => false,
            },
            Reads::Number => value.is_u64(),
            Reads::Positive => value.as_u64().is_some_and(|number| number > 0),
            Reads::Flag => value.is_boolean(),
            Reads::Object => value.is_object(),
            Reads::Texts => match &value {
                Value::Array(texts) => texts.iter().all(Value::is_string),
                one => one.is_string(),
            },
            Reads::Any => true,
        };
        match fits {
            true => Ok(()),
            false => Err(bad_params(
                operation,
                format!("`{}` is {json:.60}; it must be {}", self.name, self.must()),
            )),
        }
    }

    fn must(&self) -> &'static str {
        match self.reads {
            Reads::Number => "a whole number, 0 or more",
            Reads::Positive => "a whole number, 1 or more",
            _ => self.kind,
        }
    }
}

/// A time as the broker understands it. A time without a zone would mean something else on every machine.
pub(super) fn instant(key: &str, text: &str) -> Result<Timestamp> {
    text.parse().map_err(|_| {
        Error::argument(format!(
            "{key} is `{text}`; it must be a time with a zone, such as 2026-01-31T12:00:00Z"
        ))
    })
}

impl Route {
    /// Path with query, and the body.
    fn target(&self, operation: &Operation, params: &Params) -> Result<(String, Option<Bytes>)> {
        let mut path = fill(self.path, params)?;
        let mut fields = BTreeMap::new();
        let rest = operation.parameters.iter().filter(|one| {
            let in_path = self.path.contains(&format!("{{{}}}", one.name));
            !in_path && one.name != TIMEOUT.name
        });
        for parameter in rest {
            let Some(value) = params.0.get(parameter.name) else {
                continue;
            };
            if self.method == Method::POST {
                fields.insert(parameter.wire, value);
            } else {
                let text = params.get(parameter.name);
                query_pair(
                    &mut path,
                    parameter.wire,
                    &text.unwrap_or_else(|| value.get().to_owned()),
                );
            }
        }
        if path.len() > MAX_PATH_BYTES {
            return Err(Error::argument(format!(
                "the parameters of {} make a URL of {} bytes; at most {MAX_PATH_BYTES} can be sent",
                operation.name,
                path.len()
            )));
        }
        let body = (self.method == Method::POST)
            .then(|| serde_json::to_vec(&fields).unwrap_or_default().into());
        Ok((path, body))
    }
}

/// Puts parameters into a path, each as one percent-encoded segment.
fn fill(template: &str, params: &Params) -> Result<String> {
    let mut path = String::with_capacity(template.len() + 40);
    let mut rest = template;
    while let Some(at) = rest.find(['{', '[', ']']) {
        path.push_str(&rest[..at]);
        let mark = rest.as_bytes()[at];
        rest = &rest[at + 1..];
        match mark {
            b'{' => {
                let (name, after) = rest.split_once('}').unwrap_or((rest, ""));
                let value: String = params.get(name).unwrap_or_default();
                path.push_str(&segment(name, &value)?);
                rest = after;
            }
            b'[' => {
                let (section, after) = rest.split_once(']').unwrap_or((rest, ""));
                let given = section
                    .split_once('{')
                    .and_then(|(_, name)| name.split('}').next())
                    .is_some_and(|name| params.has(name));
                if !given {
                    rest = after;
                }
            }
            _ => {}
        }
    }
    path.push_str(rest);
    Ok(path)
}

/// A running operation.
pub(super) struct Call {
    pub(super) core: Arc<Core>,
    operation: &'static Operation,
    route: &'static Route,
    pub(super) params: Params,
    deadline: Instant,
}

impl Call {
    pub(super) fn name(&self) -> &'static str {
        self.operation.name
    }

    /// Sends the request that these parameters make.
    pub(super) async fn send(&self, params: &Params) -> Result<Answer> {
        let (path, body) = self.route.target(self.operation, params)?;
        let request = match body {
            Some(body) => Request::post(path, body, self.deadline),
            None if self.route.method == Method::DELETE => Request::delete(path, self.deadline),
            None => Request::get(path, self.deadline),
        };
        let request = request.repeat(self.route.repeat);
        self.core.send(&request).await
    }

    /// As [`send`](Self::send); the answer is a JSON document.
    pub(super) async fn document(&self, params: &Params) -> Result<String> {
        protocol::document(self.operation.name, &self.send(params).await?.success()?)
    }
}

/// Reads parameters as serde describes them. An empty text stands for `{}`.
pub(super) fn read<'a, T: Deserialize<'a>>(operation: &str, params: &'a str) -> Result<T> {
    let params = match params.trim() {
        "" => "{}",
        _ => params,
    };
    // serde would read a list as the fields in order.
    if !params.trim_start().starts_with('{') {
        return Err(bad_params(
            operation,
            format!("they are not a JSON object: {params:.60}"),
        ));
    }
    serde_json::from_str(params).map_err(|error| bad_params(operation, error))
}

pub(super) fn bad_params(operation: &str, why: impl std::fmt::Display) -> Error {
    Error::new(
        ErrorCode::InvalidJson,
        format!("parameters of {operation}: {why}"),
    )
}
