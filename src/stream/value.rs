//! What stands at a dot path of a message, read without building the rest of it.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::fmt;

use serde::Serialize;
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use crate::protocol::stream::WindowMessage;

/// A number as exact as it came: whole numbers of 64 bits stay whole.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(untagged)]
#[non_exhaustive]
pub enum Number {
    /// Written without a point and an exponent, and within 64 bits.
    Int(i64),
    /// Any other that is finite.
    Float(f64),
}

impl Number {
    /// As a float; whole numbers beyond 53 bits are rounded.
    pub fn as_f64(self) -> f64 {
        match self {
            Number::Int(whole) => whole as f64,
            Number::Float(float) => float,
        }
    }

    fn parse(text: &str) -> Option<Number> {
        if let Ok(whole) = text.parse() {
            return Some(Number::Int(whole));
        }
        let float: f64 = text.parse().ok()?;
        float.is_finite().then_some(Number::Float(float))
    }

    /// Which is larger, exactly.
    pub(super) fn order(self, other: Number) -> Ordering {
        match (self, other) {
            (Number::Int(a), Number::Int(b)) => a.cmp(&b),
            (Number::Int(a), Number::Float(b)) => whole_and_float(a, b),
            (Number::Float(a), Number::Int(b)) => whole_and_float(b, a).reverse(),
            (Number::Float(a), Number::Float(b)) => a.total_cmp(&b),
        }
    }
}

/// Compares where rounding could make two numbers equal that are not.
fn whole_and_float(whole: i64, float: f64) -> Ordering {
    // 2^63 is a float, and beyond all whole numbers.
    const BEYOND: f64 = 9_223_372_036_854_775_808.0;
    if float >= BEYOND {
        return Ordering::Less;
    }
    if float < -BEYOND {
        return Ordering::Greater;
    }
    let floor = float.floor();
    whole
        .cmp(&(floor as i64))
        .then(floor.partial_cmp(&float).unwrap_or(Ordering::Equal))
}

/// A dot path: `data.order.lines.0.price`. A part that is a number is also a place in a list.
pub(super) struct Path<'p>(Vec<&'p str>);

impl<'p> Path<'p> {
    pub(super) fn new(text: &'p str) -> Path<'p> {
        Path(text.split('.').collect())
    }

    /// The JSON text at the path in a message `{id, data, created_at}`.
    pub(super) fn find<'m>(&self, message: &'m WindowMessage) -> Option<Cow<'m, str>> {
        let quoted = |text: &str| serde_json::to_string(text).ok().map(Cow::Owned);
        match self.0.split_first()? {
            (&"id", []) => quoted(&message.id),
            (&"created_at", []) => quoted(&message.created_at),
            (&"data", rest) => {
                let found = at(message.payload(), rest)?;
                Some(Cow::Borrowed(found))
            }
            _ => None,
        }
    }

    pub(super) fn number(&self, message: &WindowMessage) -> Option<Number> {
        let found = self.find(message)?;
        match found.as_bytes().first()? {
            b'-' | b'0'..=b'9' => Number::parse(&found),
            _ => None,
        }
    }
}

/// The JSON text at a path of a JSON text.
fn at<'j>(json: &'j str, path: &[&str]) -> Option<&'j str> {
    let [_, ..] = path else {
        return Some(json.trim());
    };
    let mut reader = serde_json::Deserializer::from_str(json);
    let found = Step(path).deserialize(&mut reader).ok()??;
    Some(found.get())
}

/// Goes one step of a path down.
struct Step<'p>(&'p [&'p str]);

impl<'de> DeserializeSeed<'de> for Step<'_> {
    type Value = Option<&'de RawValue>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        match self.0 {
            [] => serde::Deserialize::deserialize(deserializer).map(Some),
            _ => deserializer.deserialize_any(self),
        }
    }
}

impl<'de> Visitor<'de> for Step<'_> {
    type Value = Option<&'de RawValue>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut found = None;
        while let Some(key) = map.next_key::<Cow<'de, str>>()? {
            // The last of equal keys counts, as it does for every reader that builds values.
            match self.0.first().is_some_and(|part| *part == key) {
                true => found = map.next_value_seed(Step(self.0.get(1..).unwrap_or_default()))?,
                false => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        Ok(found)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
        let mut left = self.0.first().and_then(|part| part.parse::<usize>().ok());
        let mut found = None;
        loop {
            if left == Some(0) {
                let rest = self.0.get(1..).unwrap_or_default();
                match list.next_element_seed(Step(rest))? {
                    Some(value) => found = value,
                    None => return Ok(found),
                }
            } else if list.next_element::<IgnoredAny>()?.is_none() {
                return Ok(found);
            }
            left = left.and_then(|left| left.checked_sub(1));
        }
    }

    fn visit_bool<E>(self, _: bool) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_str<E>(self, _: &str) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(None)
    }
}

/// What groups of messages without a key are called.
const NO_KEY: &str = "null_key";

/// The name of the group that a value makes. Nothing, null, false, 0 and "" make none.
pub(super) fn group_key(json: Option<&str>) -> String {
    let Some(json) = json else {
        return NO_KEY.into();
    };
    let key = match json.as_bytes().first() {
        Some(b'"') => serde_json::from_str(json).unwrap_or_default(),
        Some(b'-' | b'0'..=b'9') => match Number::parse(json) {
            Some(Number::Int(0)) => String::new(),
            Some(Number::Int(whole)) => whole.to_string(),
            Some(Number::Float(0.0)) => String::new(),
            // The same key, whether the producer wrote 1 or 1.0.
            Some(Number::Float(float)) if float.fract() == 0.0 && float.abs() < 1e15 => {
                format!("{float:.0}")
            }
            Some(Number::Float(float)) => float.to_string(),
            None => json.to_owned(),
        },
        _ if matches!(json, "null" | "false") => String::new(),
        _ => json.to_owned(),
    };
    if key.is_empty() { NO_KEY.into() } else { key }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(payload: &'static str) -> WindowMessage {
        WindowMessage::new(
            "m1".into(),
            "2026-01-01T00:00:00.000000Z".into(),
            bytes::Bytes::from_static(payload.as_bytes()),
        )
    }

    fn found(payload: &'static str, path: &str) -> Option<String> {
        Path::new(path).find(&message(payload)).map(Cow::into_owned)
    }

    #[test]
    fn s7_paths_lead_into_objects_and_lists() {
        let payload = r#"{"a":{"b":[1,{"c":"x"}]},"é":2, "a.b":3,"d":1,"d":4,"e":{"f":null}}"#;
        for (path, value) in [
            ("data.a.b.0", Some("1")),
            ("data.a.b.1.c", Some(r#""x""#)),
            ("data.a.b.2", None),
            ("data.a.b.x", None),
            ("data.a.x", None),
            ("data.a.b.0.y", None),
            ("data.é", Some("2")),
            ("data.d", Some("4")),
            ("data.e.f", Some("null")),
            ("data.e.f.g", None),
            ("data.a.b", Some(r#"[1,{"c":"x"}]"#)),
            ("id", Some(r#""m1""#)),
            ("created_at", Some(r#""2026-01-01T00:00:00.000000Z""#)),
            ("id.x", None),
            ("other", None),
            ("", None),
        ] {
            assert_eq!(found(payload, path).as_deref(), value, "{path}");
        }
        assert_eq!(found(" 7 ", "data").as_deref(), Some("7"));
        for payload in ["7", "\"t\"", "true", "null", "[]", "1.5", "-1"] {
            assert_eq!(found(payload, "data.x"), None, "{payload}");
        }
    }

    #[test]
    fn s8_numbers_are_as_exact_as_they_were_written() {
        let number = |payload: &'static str| Path::new("data").number(&message(payload));
        assert_eq!(number("9223372036854775807"), Some(Number::Int(i64::MAX)));
        assert_eq!(number("-9223372036854775808"), Some(Number::Int(i64::MIN)));
        assert_eq!(
            number("9223372036854775808"),
            Some(Number::Float(9.223372036854776e18))
        );
        assert_eq!(number("1.0"), Some(Number::Float(1.0)));
        assert_eq!(number("1e3"), Some(Number::Float(1000.0)));
        for none in ["1e999", "true", "\"1\"", "null", "[1]", "{}"] {
            assert_eq!(number(none), None, "{none}");
        }
    }

    #[test]
    fn s8_whole_numbers_and_floats_compare_exactly() {
        let big = 9_007_199_254_740_993; // 2^53 + 1, which no float is
        for (one, other, order) in [
            (
                Number::Int(big),
                Number::Float(big as f64),
                Ordering::Greater,
            ),
            (Number::Int(1), Number::Float(1.0), Ordering::Equal),
            (Number::Int(1), Number::Float(1.5), Ordering::Less),
            (Number::Int(-1), Number::Float(-1.5), Ordering::Greater),
            (Number::Int(i64::MAX), Number::Float(9.3e18), Ordering::Less),
            (
                Number::Int(i64::MIN),
                Number::Float(-9.3e18),
                Ordering::Greater,
            ),
            (
                Number::Int(i64::MIN),
                Number::Float(i64::MIN as f64),
                Ordering::Equal,
            ),
        ] {
            assert_eq!(one.order(other), order, "{one:?} {other:?}");
            assert_eq!(other.order(one), order.reverse(), "{other:?} {one:?}");
        }
    }

    #[test]
    fn s7_what_is_falsy_has_the_null_key() {
        for json in [
            None,
            Some("null"),
            Some("false"),
            Some("0"),
            Some("-0"),
            Some("0.0"),
            Some("\"\""),
        ] {
            assert_eq!(group_key(json), NO_KEY, "{json:?}");
        }
        for (json, key) in [
            ("true", "true"),
            ("1", "1"),
            ("1.0", "1"),
            ("-2.50", "-2.5"),
            (r#""a\n""#, "a\n"),
            ("\"0\"", "0"),
            ("[1]", "[1]"),
        ] {
            assert_eq!(group_key(Some(json)), key);
        }
    }
}
