//! The matching rules of the golden transcripts.
//!
//! `<kind:n>` binds where it is first met and must be the same ever after; two names of one kind must differ.
//! `<timestamp>`, `<any>`, `<prefix:...>` stand for themselves. `{"$repeat":[s,n]}` is s repeated n times.
//! A list that begins with `<contains>` or `<unordered>` is matched in any order. Further keys are accepted.

use std::sync::LazyLock;

use regex_lite::{Captures, Regex};
use serde_json::{Map, Value};

static NAME: LazyLock<Regex> = LazyLock::new(|| Regex::new(r"<([a-z-]+:\d+)>").unwrap());
static ONE_NAME: LazyLock<Regex> = LazyLock::new(|| Regex::new(r"^<([a-z-]+:\d+)>$").unwrap());
static TIME: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(r"^\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d(:?\d\d)?)?$").unwrap()
});

/// What the names of a transcript stand for, in the order in which they were met.
#[derive(Clone, Default)]
pub struct Binds(Vec<(String, Value)>);

impl Binds {
    fn get(&self, name: &str) -> Option<&Value> {
        self.0
            .iter()
            .find(|(known, _)| known == name)
            .map(|(_, value)| value)
    }

    fn bind(&mut self, name: &str, value: &Value) -> Result<(), String> {
        if matches!(value, Value::Null | Value::Object(_) | Value::Array(_)) || value == "" {
            return Err(format!("cannot bind <{name}> to {}", short(value)));
        }
        // Timestamps may be equal by chance, ids may not.
        let twin = self
            .0
            .iter()
            .find(|(known, other)| kind(known) != "ts" && other == value);
        if let Some((known, _)) =
            twin.filter(|(known, _)| kind(name) != "ts" && kind(known) == kind(name))
        {
            return Err(format!(
                "<{name}> must differ from <{known}>, both are {value}"
            ));
        }
        self.0.push((name.to_owned(), value.clone()));
        Ok(())
    }

    /// Replaces the names within a value by what they stand for. A name alone must be known.
    pub fn fill(&self, value: &Value) -> Result<Value, String> {
        Ok(match value {
            Value::String(text) => match ONE_NAME.captures(text) {
                Some(name) => self
                    .get(&name[1])
                    .cloned()
                    .ok_or_else(|| format!("{text} is not bound yet"))?,
                None => Value::String(self.fill_text(text)),
            },
            Value::Array(list) => Value::Array(
                list.iter()
                    .map(|v| self.fill(v))
                    .collect::<Result<_, _>>()?,
            ),
            Value::Object(object) => {
                let pairs = object
                    .iter()
                    .map(|(k, v)| Ok((self.fill_text(k), self.fill(v)?)));
                Value::Object(pairs.collect::<Result<Map<_, _>, String>>()?)
            }
            other => other.clone(),
        })
    }

    /// The same within a text; unknown names stay.
    pub fn fill_text(&self, text: &str) -> String {
        let replace = |found: &Captures| match self.get(&found[1]) {
            Some(Value::String(value)) => value.clone(),
            Some(value) => value.to_string(),
            None => found[0].to_owned(),
        };
        NAME.replace_all(text, replace).into_owned()
    }
}

fn kind(name: &str) -> &str {
    name.split(':').next().unwrap_or_default()
}

/// Writes out the `$repeat` forms.
pub fn expand(value: &Value) -> Value {
    match value {
        Value::Object(object) => match repeat(object) {
            Some(text) => Value::String(text),
            None => Value::Object(object.iter().map(|(k, v)| (k.clone(), expand(v))).collect()),
        },
        Value::Array(list) => Value::Array(list.iter().map(expand).collect()),
        other => other.clone(),
    }
}

fn repeat(object: &Map<String, Value>) -> Option<String> {
    let form = object.get("$repeat").filter(|_| object.len() == 1)?;
    Some(form[0].as_str()?.repeat(form[1].as_u64()? as usize))
}

/// Compares what came with what a transcript expects; the error says where and how they differ.
pub fn compare(want: &Value, got: &Value, binds: &mut Binds, path: &str) -> Result<(), String> {
    match want {
        Value::String(text) => compare_text(text, got, binds).map_err(|e| format!("{path}: {e}")),
        Value::Object(object) => compare_object(object, got, binds, path),
        Value::Array(list) => compare_list(list, got, binds, path),
        Value::Number(_) if got.is_number() && want.as_f64() == got.as_f64() => Ok(()),
        other if other == got => Ok(()),
        other => Err(format!("{path}: expected {other}, got {}", short(got))),
    }
}

fn compare_text(want: &str, got: &Value, binds: &mut Binds) -> Result<(), String> {
    let differs = |want: &str| Err(format!("expected {want:?}, got {}", short(got)));
    if want == "<any>" {
        return Ok(());
    }
    if want == "<timestamp>" {
        return if got.as_str().is_some_and(|got| TIME.is_match(got)) {
            Ok(())
        } else {
            differs(want)
        };
    }
    if let Some(prefix) = want
        .strip_prefix("<prefix:")
        .and_then(|rest| rest.strip_suffix('>'))
    {
        return if got.as_str().is_some_and(|got| got.starts_with(prefix)) {
            Ok(())
        } else {
            differs(want)
        };
    }
    if let Some(name) = ONE_NAME.captures(want) {
        return match binds.get(&name[1]) {
            Some(bound) if bound == got => Ok(()),
            Some(bound) => Err(format!("{want} was {bound}, got {}", short(got))),
            None => binds.bind(&name[1], got),
        };
    }
    let filled = binds.fill_text(want);
    if got.as_str() == Some(filled.as_str()) {
        Ok(())
    } else {
        differs(&filled)
    }
}

fn compare_object(
    want: &Map<String, Value>,
    got: &Value,
    binds: &mut Binds,
    path: &str,
) -> Result<(), String> {
    if let Some(text) = repeat(want) {
        let same = got.as_str() == Some(text.as_str());
        return if same {
            Ok(())
        } else {
            Err(format!("{path}: the repeated text differs"))
        };
    }
    let Value::Object(object) = got else {
        return Err(format!("{path}: expected an object, got {}", short(got)));
    };
    for (key, value) in want {
        let key = binds.fill_text(key);
        let found = object
            .get(&key)
            .ok_or_else(|| format!("{path}: {key:?} is missing in {}", short(got)))?;
        compare(value, found, binds, &format!("{path}.{key}"))?;
    }
    Ok(())
}

fn compare_list(want: &[Value], got: &Value, binds: &mut Binds, path: &str) -> Result<(), String> {
    let Value::Array(list) = got else {
        return Err(format!("{path}: expected a list, got {}", short(got)));
    };
    let (mode, items) = match want.first().and_then(Value::as_str) {
        Some(mode @ ("<contains>" | "<unordered>")) => (mode, &want[1..]),
        _ => ("", want),
    };
    if mode != "<contains>" && items.len() != list.len() {
        return Err(format!(
            "{path}: expected {} elements, got {}: {}",
            items.len(),
            list.len(),
            short(got)
        ));
    }
    if mode.is_empty() {
        let mut pairs = items.iter().zip(list).enumerate();
        return pairs
            .try_for_each(|(n, (want, got))| compare(want, got, binds, &format!("{path}[{n}]")));
    }
    let free: Vec<usize> = (0..list.len()).collect();
    if assign(items, &free, list, binds, mode == "<unordered>") {
        return Ok(());
    }
    Err(format!(
        "{path}: no way to find {} expected elements in {}",
        items.len(),
        short(got)
    ))
}

/// Finds an element for each expected one, trying all ways.
fn assign(items: &[Value], free: &[usize], list: &[Value], binds: &mut Binds, once: bool) -> bool {
    let Some((first, rest)) = items.split_first() else {
        return true;
    };
    for &n in free {
        let saved = binds.clone();
        if compare(first, &list[n], binds, "[*]").is_ok() {
            let left: Vec<usize> = free
                .iter()
                .copied()
                .filter(|&other| !once || other != n)
                .collect();
            if assign(rest, &left, list, binds, once) {
                return true;
            }
        }
        *binds = saved;
    }
    false
}

/// A value, cut for a message.
pub fn short(value: &Value) -> String {
    let text = value.to_string();
    match text.char_indices().nth(300) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text,
    }
}
