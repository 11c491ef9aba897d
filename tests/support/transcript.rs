//! Golden transcripts: what the official broker answered, step by step. The format is told in `tests/transcripts/README.md`.

use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use serde_json::{Value, json};

use super::brokers::{Call, Reply, TestBroker};
use super::matching::{Binds, compare, expand, short};

/// What a path may not contain as it is. `%` stays: transcripts are encoded already.
const PATH: &AsciiSet = &CONTROLS
    .add(b' ')
    .add(b'"')
    .add(b'<')
    .add(b'>')
    .add(b'?')
    .add(b'#');

/// One scenario.
pub struct Transcript {
    pub scenario: String,
    /// The secret with which its tokens are signed, if the broker must want tokens.
    pub jwt_secret: Option<String>,
    steps: Vec<Value>,
}

/// A step that goes another way on purpose.
pub struct Difference {
    scenario: String,
    step: String,
    brokers: Vec<String>,
    /// The answer that comes instead.
    instead: Value,
}

/// The folder of the transcripts.
pub fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/transcripts")
}

fn read(path: &Path) -> Result<String, String> {
    std::fs::read_to_string(path).map_err(|e| format!("{}: {e}", path.display()))
}

/// Every transcript, with the prefix of its names changed, so that a used broker can be asked again.
pub fn transcripts(prefix: &str) -> Result<Vec<Transcript>, String> {
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder())
        .map_err(|e| e.to_string())?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| {
            path.file_name()
                .is_some_and(|name| name.as_encoded_bytes()[0].is_ascii_digit())
        })
        .collect();
    files.sort();
    let load = |path: &PathBuf| {
        let text = read(path)?.replace("rec-", prefix);
        Transcript::parse(&text).map_err(|e| format!("{}: {e}", path.display()))
    };
    files.iter().map(load).collect()
}

/// The table of deliberate differences.
pub fn differences(prefix: &str) -> Result<Vec<Difference>, String> {
    let text = read(&folder().join("differences.json"))?.replace("rec-", prefix);
    let rows: Vec<Value> =
        serde_json::from_str(&text).map_err(|e| format!("differences.json: {e}"))?;
    rows.iter()
        .map(Difference::parse)
        .collect::<Result<_, _>>()
        .map_err(|e| format!("differences.json: {e}"))
}

impl Difference {
    /// Reads one row of the table.
    pub fn parse(row: &Value) -> Result<Difference, String> {
        let field = |name: &str| {
            row[name]
                .as_str()
                .map(str::to_owned)
                .ok_or_else(|| format!("{name} is missing in {row}"))
        };
        field("reason")?;
        let brokers = row["brokers"]
            .as_array()
            .ok_or_else(|| format!("no brokers in {row}"))?;
        Ok(Difference {
            scenario: field("scenario")?,
            step: field("step")?,
            brokers: brokers
                .iter()
                .filter_map(|b| b.as_str().map(str::to_owned))
                .collect(),
            instead: row["instead"].clone(),
        })
    }
}

impl Transcript {
    /// Reads one file.
    pub fn parse(text: &str) -> Result<Transcript, String> {
        let doc: Value = serde_json::from_str(text).map_err(|e| e.to_string())?;
        let scenario = doc["scenario"].as_str().unwrap_or_default().to_owned();
        let steps = doc["steps"]
            .as_array()
            .cloned()
            .ok_or_else(|| format!("{scenario}: no steps"))?;
        let secret = doc["requires_env"]["JWT_SECRET"].as_str();
        Ok(Transcript {
            scenario,
            jwt_secret: secret.map(str::to_owned),
            steps,
        })
    }

    /// Whether a difference names a step of this transcript.
    pub fn has(&self, difference: &Difference) -> bool {
        self.scenario == difference.scenario
            && self
                .steps
                .iter()
                .any(|step| step["name"] == difference.step.as_str())
    }

    /// Whether it changes how the broker serves everyone.
    pub fn switches_broker(&self) -> bool {
        let switches = |step: &Value| {
            let request = &step["request"];
            let path = request["path"].as_str().unwrap_or_default();
            request["method"] == "POST" && path.starts_with("/api/v1/system/")
        };
        self.steps.iter().any(switches)
    }

    /// Walks through all steps; the error lists every step that failed.
    pub fn replay(&self, broker: &TestBroker, differences: &[Difference]) -> Result<(), String> {
        let mut binds = Binds::default();
        let mut faults = Vec::new();
        for step in &self.steps {
            let name = step["name"].as_str().unwrap_or_default();
            let difference = differences.iter().find(|d| {
                d.scenario == self.scenario
                    && d.step == name
                    && d.brokers.iter().any(|b| b == broker.name)
            });
            if let Err(fault) = run_step(broker, step, difference, &mut binds) {
                faults.push(format!("{name}: {fault}"));
            }
        }
        if faults.is_empty() {
            Ok(())
        } else {
            Err(faults.join("\n"))
        }
    }
}

fn run_step(
    broker: &TestBroker,
    step: &Value,
    difference: Option<&Difference>,
    binds: &mut Binds,
) -> Result<(), String> {
    if let Some(pause) = step["sleep_ms"].as_u64() {
        thread::sleep(Duration::from_millis(pause));
    }
    let request = binds.fill(&step["request"])?;
    let (reply, sides) = thread::scope(|scope| {
        let beside: Vec<_> = step["parallel"]
            .as_array()
            .into_iter()
            .flatten()
            .map(|side| {
                let request = binds.fill(&side["request"]);
                (
                    side,
                    scope.spawn(move || {
                        thread::sleep(Duration::from_millis(
                            side["after_ms"].as_u64().unwrap_or(0),
                        ));
                        send(broker, &request?)
                    }),
                )
            })
            .collect();
        let reply = send(broker, &request);
        let sides: Vec<_> = beside
            .into_iter()
            .map(|(side, thread)| (side, thread.join()))
            .collect();
        (reply, sides)
    });
    let reply = reply?;
    for (side, answer) in sides {
        let answer = answer.map_err(|_| "a parallel request panicked".to_owned())??;
        check_answer(&side["response"], &answer, binds).map_err(|e| format!("parallel: {e}"))?;
    }
    let Some(difference) = difference else {
        return check(step, &reply, binds);
    };
    if check(step, &reply, &mut binds.clone()).is_ok() {
        return Err(
            "listed as different, but it answers like the official broker: take it off the list"
                .into(),
        );
    }
    check_answer(&difference.instead, &reply, binds)
        .map_err(|e| format!("listed as different, but not as listed: {e}"))
}

fn check(step: &Value, reply: &Reply, binds: &mut Binds) -> Result<(), String> {
    let response = &step["response"];
    if response["body"] == "<text>" {
        let lacks = |text: &&Value| !reply.text.contains(text.as_str().unwrap_or_default());
        if let Some(text) = step["text_contains"]
            .as_array()
            .into_iter()
            .flatten()
            .find(lacks)
        {
            return Err(format!("the text lacks {text}"));
        }
        check_head(response, reply, binds)?;
    } else {
        check_answer(response, reply, binds)?;
    }
    for (path, count) in step["count"].as_object().into_iter().flatten() {
        let body = parse(&reply.text);
        // `$.messages` is `/messages` as a JSON pointer; `$[0].a` is `/0/a`.
        let pointer = path
            .trim_start_matches('$')
            .replace('[', ".")
            .replace(']', "")
            .replace('.', "/");
        let found = body
            .pointer(&pointer)
            .and_then(Value::as_array)
            .map(Vec::len);
        if found.map(|n| n as u64) != count.as_u64() {
            return Err(format!("{path} has {found:?} elements, expected {count}"));
        }
    }
    if let (Some(min), Some(max)) = (
        step["elapsed_ms"]["min"].as_u64(),
        step["elapsed_ms"]["max"].as_u64(),
    ) {
        let took = reply.took.as_millis() as u64;
        if !(min..=max).contains(&took) {
            return Err(format!("took {took} ms, expected {min} to {max}"));
        }
    }
    Ok(())
}

fn check_answer(response: &Value, reply: &Reply, binds: &mut Binds) -> Result<(), String> {
    check_head(response, reply, binds)?;
    compare(&response["body"], &parse(&reply.text), binds, "$")
}

fn check_head(response: &Value, reply: &Reply, binds: &mut Binds) -> Result<(), String> {
    if response["status"].as_u64() != Some(u64::from(reply.status)) {
        let body = short(&parse(&reply.text));
        return Err(format!(
            "status {}, expected {}; body {body}",
            reply.status, response["status"]
        ));
    }
    for (name, want) in response["headers"].as_object().into_iter().flatten() {
        let got = reply
            .headers
            .get(name)
            .and_then(|value| value.to_str().ok());
        if name == "content-type" {
            // Parameters such as the charset do not count.
            let kind = |text: &str| text.split(';').next().unwrap_or_default().trim().to_owned();
            if got.map(kind) != want.as_str().map(kind) {
                return Err(format!("content-type {got:?}, expected {want}"));
            }
        } else {
            compare(want, &json!(got), binds, name)?;
        }
    }
    Ok(())
}

/// A body as JSON: nothing is null, and what is not JSON is a text.
fn parse(text: &str) -> Value {
    if text.is_empty() {
        return Value::Null;
    }
    serde_json::from_str(text).unwrap_or_else(|_| json!({ "$text": text }))
}

fn send(broker: &TestBroker, request: &Value) -> Result<Reply, String> {
    let path = request["path"].as_str().unwrap_or_default();
    let mut target = utf8_percent_encode(path, PATH).to_string();
    if let Some(query) = request["query"]
        .as_object()
        .filter(|query| !query.is_empty())
    {
        let plain = |value: &Value| {
            value
                .as_str()
                .map_or_else(|| value.to_string(), str::to_owned)
        };
        let pairs = query.iter().map(|(name, value)| (name, plain(value)));
        target.push('?');
        target.push_str(
            &form_urlencoded::Serializer::new(String::new())
                .extend_pairs(pairs)
                .finish(),
        );
    }
    let body = match (&request["raw"], request.get("body")) {
        (Value::String(raw), _) => Some(raw.clone().into_bytes()),
        (_, Some(body)) => Some(expand(body).to_string().into_bytes()),
        _ => None,
    };
    let mut headers: Vec<(String, String)> = Vec::new();
    for (name, value) in request["headers"].as_object().into_iter().flatten() {
        headers.push((name.clone(), value.as_str().unwrap_or_default().to_owned()));
    }
    if body.is_some()
        && !headers
            .iter()
            .any(|(name, _)| name.eq_ignore_ascii_case("content-type"))
    {
        headers.push(("content-type".into(), "application/json".into()));
    }
    let method = request["method"].as_str().unwrap_or_default().to_owned();
    broker.call(Call {
        method,
        target,
        headers,
        body,
    })
}

impl std::fmt::Display for Difference {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} of {}", self.step, self.scenario)
    }
}
