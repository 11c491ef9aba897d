//! What is to go wrong, as a test writes it: a value in Rust, an object in JSON.

use std::collections::BTreeMap;

use http::{HeaderName, HeaderValue, Method, StatusCode};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::request::{NO_QUEUE, ROUTES};

/// A fault: which requests it takes, how many of them, and what becomes of those.
///
/// It takes every request of its route until it is removed, unless it is told to take fewer.
///
/// ```
/// use queen_broker::{Action, Fault};
///
/// // The next two pushes to `orders` are stored, and their answers are lost.
/// let lost = Fault::new("push", Action::CutAfterCommit).queue("orders").times(2);
/// let same = Fault::parse(r#"{"route": "push", "queue": "orders", "times": 2, "action": "cutAfterCommit"}"#)?;
/// assert_eq!(lost, same);
/// # Ok::<(), queen_broker::FaultError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(try_from = "Text", into = "Text")]
pub struct Fault {
    pub(super) route: String,
    pub(super) method: Option<String>,
    pub(super) queue: Option<String>,
    pub(super) skip: u64,
    pub(super) times: Option<u64>,
    /// The share and the seed.
    pub(super) share: Option<(f64, u64)>,
    pub(super) action: Action,
}

/// What becomes of a request that a fault takes.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Action {
    /// It gets this answer. The broker does not see it, unless `after_commit` asks for the work to be done first.
    Status {
        /// 200 to 599.
        status: u16,
        /// Names and values, such as `Retry-After`. The type of the content is JSON unless it is named.
        headers: BTreeMap<String, String>,
        /// The body; nothing stands for `{"error": ...}` with a text that names the fault.
        body: Option<String>,
        /// Whether the request is done before it gets this answer.
        after_commit: bool,
    },
    /// It gets no answer until the client leaves. When the fault is removed or the broker ends, it goes its usual way.
    Hang,
    /// It is done at once, and its answer leaves this many milliseconds later.
    Delay {
        /// Milliseconds, in real time.
        millis: u64,
    },
    /// The connection is cut before anything is done.
    CutBeforeCommit,
    /// The connection is cut after the work is done and before the answer leaves. What was popped stays leased.
    CutAfterCommit,
    /// The work is done and the connection is cut in the middle of the answer's body.
    CutInBody,
    /// The work is done and answered with 200 and a page of HTML.
    NotJson,
    /// The work is done and answered with bytes that are no HTTP; then the connection is cut.
    NotHttp,
}

impl Action {
    /// An answer with nothing but a status.
    pub fn status(status: u16) -> Action {
        Action::Status {
            status,
            headers: BTreeMap::new(),
            body: None,
            after_commit: false,
        }
    }
}

/// Why a fault cannot be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FaultError {
    /// The text is not JSON.
    #[error("faults are not JSON: {0}")]
    Syntax(String),
    /// The text names the field, its value, and what is wrong with it.
    #[error("fault: {0}")]
    Invalid(String),
}

impl Fault {
    /// A fault for a route: its name, a pattern of its path with `*` for any run of characters, or `*` for every route.
    pub fn new(route: impl Into<String>, action: Action) -> Fault {
        Fault {
            route: route.into(),
            method: None,
            queue: None,
            skip: 0,
            times: None,
            share: None,
            action,
        }
    }

    /// Only requests with this method.
    #[must_use]
    pub fn method(mut self, method: impl Into<String>) -> Fault {
        self.method = Some(method.into());
        self
    }

    /// Only requests that name this queue.
    #[must_use]
    pub fn queue(mut self, queue: impl Into<String>) -> Fault {
        self.queue = Some(queue.into());
        self
    }

    /// Lets the first `requests` pass.
    #[must_use]
    pub fn skip(mut self, requests: u64) -> Fault {
        self.skip = requests;
        self
    }

    /// Takes at most so many requests.
    #[must_use]
    pub fn times(mut self, times: u64) -> Fault {
        self.times = Some(times);
        self
    }

    /// Takes only a share of the requests, from 0 to 1. Which ones depends on the seed and their order alone.
    #[must_use]
    pub fn share(mut self, share: f64, seed: u64) -> Fault {
        self.share = Some((share, seed));
        self
    }

    /// Reads one fault from a JSON object.
    pub fn parse(json: &str) -> Result<Fault, FaultError> {
        read(serde_json::from_str(json))
    }

    /// Reads faults from a JSON object or a list of them.
    pub fn parse_all(json: &str) -> Result<Vec<Fault>, FaultError> {
        match read::<Value>(serde_json::from_str(json))? {
            Value::Array(list) => {
                let each = list.into_iter().enumerate().map(|(n, value)| {
                    read(serde_json::from_value(value)).map_err(|e| match e {
                        FaultError::Invalid(why) => invalid(format!("number {n}: {why}")),
                        other => other,
                    })
                });
                each.collect()
            }
            one => Ok(vec![read(serde_json::from_value(one))?]),
        }
    }

    /// Says what is wrong with it, if anything is.
    pub(super) fn check(&self) -> Result<(), FaultError> {
        let route = self.route.as_str();
        if route != "*" && !route.starts_with('/') && !ROUTES.contains(&route) {
            let known = ROUTES.join(", ");
            return Err(invalid(format!(
                "route is {route:?}; it is one of {known}, a path such as \"/api/v1/pop/queue/*\", or \"*\""
            )));
        }
        if let Some(queue) = &self.queue
            && NO_QUEUE.contains(&route)
        {
            return Err(invalid(format!(
                "queue is {queue:?}, but requests of the route {route:?} name no queue; leave it out"
            )));
        }
        if let Some(method) = &self.method {
            let known = [Method::GET, Method::POST, Method::PUT, Method::DELETE];
            if !known.iter().any(|known| known == method.as_str()) {
                return Err(invalid(format!(
                    "method is {method:?}; it is GET, POST, PUT or DELETE"
                )));
            }
        }
        if self.times == Some(0) {
            return Err(invalid("times is 0; it is at least 1, or left out"));
        }
        if let Some((share, _)) = self.share
            && !(0.0..=1.0).contains(&share)
        {
            return Err(invalid(format!("share is {share}; it is from 0 to 1")));
        }
        match &self.action {
            Action::Status {
                status, headers, ..
            } => check_answer(*status, headers),
            _ => Ok(()),
        }
    }
}

fn check_answer(status: u16, headers: &BTreeMap<String, String>) -> Result<(), FaultError> {
    if !(200..=599).contains(&status) || StatusCode::from_u16(status).is_err() {
        return Err(invalid(format!(
            "status is {status}; it is from 200 to 599"
        )));
    }
    for (name, value) in headers {
        if name.parse::<HeaderName>().is_err() || value.parse::<HeaderValue>().is_err() {
            return Err(invalid(format!(
                "headers has {name:?}: {value:?}, which no answer can carry"
            )));
        }
        let framing = ["content-length", "transfer-encoding", "connection"];
        if framing.iter().any(|own| name.eq_ignore_ascii_case(own)) {
            return Err(invalid(format!(
                "headers has {name:?}, which the server sets itself; leave it out"
            )));
        }
    }
    Ok(())
}

fn read<T>(parsed: serde_json::Result<T>) -> Result<T, FaultError> {
    parsed.map_err(|error| match error.is_data() {
        true => invalid(error.to_string()),
        false => FaultError::Syntax(error.to_string()),
    })
}

fn invalid(why: impl Into<String>) -> FaultError {
    FaultError::Invalid(why.into())
}

/// A fault as it stands in JSON.
#[derive(Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct Text {
    route: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    method: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    queue: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    skip: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    times: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    share: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    seed: Option<u64>,
    action: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    headers: Option<BTreeMap<String, String>>,
    /// A text is sent as it is, anything else as JSON.
    #[serde(skip_serializing_if = "Option::is_none")]
    body: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    after_commit: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    delay_millis: Option<u64>,
}

/// The actions that need no more than their name.
const PLAIN: [(&str, Action); 6] = [
    ("hang", Action::Hang),
    ("cutBeforeCommit", Action::CutBeforeCommit),
    ("cutAfterCommit", Action::CutAfterCommit),
    ("cutInBody", Action::CutInBody),
    ("notJson", Action::NotJson),
    ("notHttp", Action::NotHttp),
];

impl Text {
    fn action(&self) -> Result<Action, String> {
        let own = match self.action.as_str() {
            "status" => "status",
            "delay" => "delayMillis",
            _ => "",
        };
        let given = [
            ("status", "status", self.status.is_some()),
            ("status", "headers", self.headers.is_some()),
            ("status", "body", self.body.is_some()),
            ("status", "afterCommit", self.after_commit.is_some()),
            ("delayMillis", "delayMillis", self.delay_millis.is_some()),
        ];
        if let Some((_, field, _)) = given.iter().find(|(of, _, given)| *given && *of != own) {
            return Err(format!(
                "{field} says nothing to the action {:?}; leave it out",
                self.action
            ));
        }
        match self.action.as_str() {
            "status" => Ok(Action::Status {
                status: self.status.ok_or("the action \"status\" needs `status`")?,
                headers: self.headers.clone().unwrap_or_default(),
                body: self.body.as_ref().map(|body| match body {
                    Value::String(text) => text.clone(),
                    other => other.to_string(),
                }),
                after_commit: self.after_commit.unwrap_or(false),
            }),
            "delay" => Ok(Action::Delay {
                millis: self
                    .delay_millis
                    .ok_or("the action \"delay\" needs `delayMillis`")?,
            }),
            name => {
                let found = PLAIN.iter().find(|(known, _)| *known == name);
                found.map(|(_, action)| action.clone()).ok_or_else(|| {
                    let known = PLAIN.map(|(known, _)| known).join(", ");
                    format!("action is {name:?}; it is one of status, delay, {known}")
                })
            }
        }
    }
}

impl TryFrom<Text> for Fault {
    type Error = String;

    fn try_from(text: Text) -> Result<Fault, String> {
        let share = match (text.share, text.seed) {
            (None, Some(seed)) => {
                return Err(format!("seed is {seed}, but there is no share to draw"));
            }
            (share, seed) => share.map(|share| (share, seed.unwrap_or(0))),
        };
        let fault = Fault {
            action: text.action()?,
            route: text.route.unwrap_or_else(|| "*".into()),
            method: text.method,
            queue: text.queue,
            skip: text.skip.unwrap_or(0),
            times: text.times,
            share,
        };
        fault.check().map_err(|error| match error {
            FaultError::Invalid(why) | FaultError::Syntax(why) => why,
        })?;
        Ok(fault)
    }
}

impl From<Fault> for Text {
    fn from(fault: Fault) -> Text {
        let text = Text {
            route: Some(fault.route),
            method: fault.method,
            queue: fault.queue,
            skip: (fault.skip > 0).then_some(fault.skip),
            times: fault.times,
            share: fault.share.map(|(share, _)| share),
            seed: fault.share.map(|(_, seed)| seed),
            ..Text::default()
        };
        match fault.action {
            Action::Status {
                status,
                headers,
                body,
                after_commit,
            } => Text {
                action: "status".into(),
                status: Some(status),
                headers: (!headers.is_empty()).then_some(headers),
                body: body.map(Value::String),
                after_commit: after_commit.then_some(true),
                ..text
            },
            Action::Delay { millis } => Text {
                action: "delay".into(),
                delay_millis: Some(millis),
                ..text
            },
            plain => {
                let found = PLAIN.into_iter().find(|(_, action)| *action == plain);
                Text {
                    action: found.map_or("", |(name, _)| name).into(),
                    ..text
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_survive_the_round_trip() {
        for text in [
            r#"{"route":"*","action":"hang"}"#,
            r#"{"route":"push","method":"POST","queue":"q","skip":1,"times":2,"share":0.5,"seed":7,"action":"cutInBody"}"#,
            r#"{"route":"/api/v1/*","action":"delay","delayMillis":5}"#,
            r#"{"route":"pop","action":"status","status":503,"headers":{"Retry-After":"1"},"body":"x","afterCommit":true}"#,
        ] {
            let fault = Fault::parse(text).unwrap();
            assert_eq!(serde_json::to_string(&fault).unwrap(), text);
        }
        let body = Fault::parse(r#"{"action":"status","status":500,"body":{"a":1}}"#).unwrap();
        assert_eq!(
            body,
            Fault::new(
                "*",
                Action::Status {
                    status: 500,
                    headers: BTreeMap::new(),
                    body: Some(r#"{"a":1}"#.into()),
                    after_commit: false,
                }
            )
        );
    }

    #[test]
    fn what_cannot_be_is_named() {
        for (text, word) in [
            (r#"{"action":"explode"}"#, "\"explode\""),
            (r#"{"route":"psuh","action":"hang"}"#, "\"psuh\""),
            (r#"{}"#, "action is \"\""),
            (r#"{"action":"hang","tiems":1}"#, "tiems"),
            (r#"{"action":"hang","times":0}"#, "times is 0"),
            (r#"{"action":"hang","times":-1}"#, "-1"),
            (r#"{"action":"hang","share":1.5}"#, "share is 1.5"),
            (r#"{"action":"hang","seed":1}"#, "seed is 1"),
            (r#"{"action":"hang","status":500}"#, "status says nothing"),
            (r#"{"action":"status"}"#, "needs `status`"),
            (r#"{"action":"status","status":99}"#, "status is 99"),
            (
                r#"{"action":"status","status":500,"headers":{"a b":"c"}}"#,
                "\"a b\"",
            ),
            (
                r#"{"action":"status","status":500,"headers":{"Content-Length":"3"}}"#,
                "Content-Length",
            ),
            (r#"{"action":"delay"}"#, "needs `delayMillis`"),
            (
                r#"{"route":"ack","queue":"q","action":"hang"}"#,
                "name no queue",
            ),
            (r#"{"method":"FETCH","action":"hang"}"#, "FETCH"),
            (
                r#"[{"action":"hang"},{"action":"x"}]"#,
                "number 1: action is \"x\"",
            ),
            (r#"7"#, "7"),
        ] {
            match Fault::parse_all(text) {
                Err(FaultError::Invalid(why)) => assert!(why.contains(word), "{text}: {why}"),
                other => panic!("{text}: {other:?}"),
            }
        }
        assert!(matches!(Fault::parse_all("{"), Err(FaultError::Syntax(_))));
        assert!(Fault::new("pop", Action::status(700)).check().is_err());
    }
}
