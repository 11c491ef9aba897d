//! Patterns, pointers and names of scenarios; the README beside tells what they mean.

use serde_json::{Map, Value};

/// Why a value does not fit a pattern.
pub fn matches(pattern: &Value, value: &Value, at: &str) -> Result<(), String> {
    let wrong = || {
        let value = value.to_string();
        Err(format!("{at} is {value:.600} and not {pattern}"))
    };
    match (pattern, value) {
        (Value::Object(one), _) if test(one).is_some() => match test(one) {
            Some((name, argument)) if !fits(name, argument, value)? => wrong(),
            _ => Ok(()),
        },
        (Value::Object(wanted), Value::Object(object)) => {
            wanted.iter().try_for_each(|(key, one)| {
                let value = object.get(key).unwrap_or(&Value::Null);
                matches(one, value, &format!("{at}/{key}"))
            })
        }
        (Value::Array(wanted), Value::Array(list)) if wanted.len() == list.len() => wanted
            .iter()
            .zip(list)
            .enumerate()
            .try_for_each(|(n, (one, value))| matches(one, value, &format!("{at}/{n}"))),
        (Value::Number(wanted), Value::Number(number)) if wanted.as_f64() == number.as_f64() => {
            Ok(())
        }
        (Value::Object(_) | Value::Array(_) | Value::Number(_), _) => wrong(),
        _ if pattern == value => Ok(()),
        _ => wrong(),
    }
}

/// The test that an object is, if it is one.
fn test(object: &Map<String, Value>) -> Option<(&str, &Value)> {
    let (name, argument) = object.iter().next()?;
    (object.len() == 1 && name.starts_with('$')).then_some((name, argument))
}

fn fits(name: &str, argument: &Value, value: &Value) -> Result<bool, String> {
    let fit = |pattern: &Value, value: &Value| matches(pattern, value, "").is_ok();
    let list = value.as_array().map_or(&[][..], Vec::as_slice);
    let wanted = argument.as_array().map_or(&[][..], Vec::as_slice);
    Ok(match name {
        "$length" => {
            let length = match value {
                Value::Array(list) => Some(list.len()),
                Value::String(text) => Some(text.len()),
                _ => None,
            };
            length.map(|n| n as u64) == argument.as_u64()
        }
        "$contains" => match (value, argument) {
            (Value::String(text), Value::String(part)) => text.contains(part.as_str()),
            _ => list.iter().any(|one| fit(argument, one)),
        },
        "$min" => value.as_f64() >= argument.as_f64() && value.is_number(),
        "$max" => value.as_f64() <= argument.as_f64() && value.is_number(),
        "$is" => argument == kind(value),
        "$any" => wanted.iter().any(|one| fit(one, value)),
        "$set" => {
            let mut left: Vec<&Value> = list.iter().collect();
            value.is_array()
                && list.len() == wanted.len()
                && wanted.iter().all(|one| {
                    let found = left.iter().position(|value| fit(one, value));
                    found.map(|n| left.remove(n)).is_some()
                })
        }
        "$absent" => value.is_null(),
        "$not" => !fit(argument, value),
        _ => return Err(format!("no pattern: {name}")),
    })
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "list",
        Value::Object(_) => "object",
    }
}

/// Puts names in: `$queue`, and `${saved}`.
pub fn fill(value: &Value, saved: &Map<String, Value>) -> Value {
    match value {
        Value::String(text) => {
            let whole = text.strip_prefix("${").and_then(|t| t.strip_suffix('}'));
            if let Some(found) = whole.and_then(|name| saved.get(name)) {
                return found.clone();
            }
            let mut text = text.clone();
            for (name, one) in saved {
                if let Some(one) = one.as_str() {
                    text = text.replace(&format!("${{{name}}}"), one);
                }
            }
            let queue = saved.get("queue").and_then(Value::as_str);
            Value::String(text.replace("$queue", queue.unwrap_or_default()))
        }
        Value::Array(list) => list.iter().map(|one| fill(one, saved)).collect(),
        Value::Object(object) => object
            .iter()
            .map(|(key, one)| (key.clone(), fill(one, saved)))
            .collect(),
        _ => value.clone(),
    }
}
