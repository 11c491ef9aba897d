//! Counts, sums, means and extremes over the messages of a window.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::value::{Number, Path};
use crate::error::Result;
use crate::options;
use crate::protocol::stream::WindowMessage;

/// What to compute. Paths begin in the message: `data.amount`, `created_at`. What is no number, or not there, counts for
/// nothing.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Aggregation {
    /// How many messages.
    pub count: bool,
    /// Sums.
    pub sum: Vec<String>,
    /// Means of the numbers at the path.
    pub avg: Vec<String>,
    /// The smallest number.
    pub min: Vec<String>,
    /// The largest number.
    pub max: Vec<String>,
}

impl Aggregation {
    /// Reads `{"count": true, "sum": ["data.amount"], "avg": […], "min": […], "max": […]}`.
    pub fn parse(json: &str) -> Result<Aggregation> {
        options::parse("aggregate", json)
    }
}

/// What was computed, by path. What was not asked for is not there.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Aggregates {
    /// How many messages.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub count: Option<usize>,
    /// Sums: exact while all numbers are whole and the sum has 64 bits, else a float. Of nothing it is 0.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub sum: BTreeMap<String, Number>,
    /// Means over the numbers alone. Of nothing it is 0.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub avg: BTreeMap<String, f64>,
    /// The smallest, as it was written. Of nothing it is null.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub min: BTreeMap<String, Option<Number>>,
    /// The largest, as it was written. Of nothing it is null.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub max: BTreeMap<String, Option<Number>>,
}

/// Everything about the numbers at one path.
#[derive(Default)]
struct Tally {
    /// Holds the sum of more whole numbers than a window could have messages.
    whole: i128,
    float: f64,
    /// What adding floats has lost.
    lost: f64,
    floats: bool,
    count: usize,
    min: Option<Number>,
    max: Option<Number>,
}

impl Tally {
    fn add(&mut self, number: Number) {
        match number {
            Number::Int(whole) => self.whole += i128::from(whole),
            Number::Float(float) => {
                self.floats = true;
                self.add_float(float);
            }
        }
        self.count += 1;
        let smaller = self.min.is_none_or(|min| number.order(min).is_lt());
        let larger = self.max.is_none_or(|max| number.order(max).is_gt());
        if smaller {
            self.min = Some(number);
        }
        if larger {
            self.max = Some(number);
        }
    }

    /// Neumaier's summation: the order of the messages makes no difference worth a name.
    fn add_float(&mut self, float: f64) {
        let sum = self.float + float;
        self.lost += match self.float.abs() >= float.abs() {
            true => (self.float - sum) + float,
            false => (float - sum) + self.float,
        };
        self.float = sum;
    }

    fn sum(&self) -> Number {
        match i64::try_from(self.whole) {
            Ok(whole) if !self.floats => Number::Int(whole),
            _ => Number::Float(self.total()),
        }
    }

    fn total(&self) -> f64 {
        let mut all = Tally {
            float: self.float,
            lost: self.lost,
            ..Tally::default()
        };
        all.add_float(self.whole as f64);
        // Beyond all floats the correction is no number.
        let total = all.float + all.lost;
        if total.is_nan() { all.float } else { total }
    }

    fn avg(&self) -> f64 {
        match self.count {
            0 => 0.0,
            count => self.total() / count as f64,
        }
    }
}

/// Computes in one walk over the messages.
pub(super) fn aggregate<'m>(
    messages: impl Iterator<Item = &'m WindowMessage>,
    wanted: &Aggregation,
) -> Aggregates {
    let lists = [&wanted.sum, &wanted.avg, &wanted.min, &wanted.max];
    let mut tallies: BTreeMap<&str, (Path, Tally)> = BTreeMap::new();
    for path in lists.into_iter().flatten() {
        tallies
            .entry(path)
            .or_insert_with(|| (Path::new(path), Tally::default()));
    }
    let mut count = 0;
    for message in messages {
        count += 1;
        for (path, tally) in tallies.values_mut() {
            if let Some(number) = path.number(message) {
                tally.add(number);
            }
        }
    }
    fn each<T>(
        paths: &[String],
        tallies: &BTreeMap<&str, (Path, Tally)>,
        of: impl Fn(&Tally) -> T,
    ) -> BTreeMap<String, T> {
        let found = paths
            .iter()
            .filter_map(|path| Some((path.clone(), of(&tallies.get(path.as_str())?.1))));
        found.collect()
    }
    Aggregates {
        count: wanted.count.then_some(count),
        sum: each(&wanted.sum, &tallies, Tally::sum),
        avg: each(&wanted.avg, &tallies, Tally::avg),
        min: each(&wanted.min, &tallies, |tally| tally.min),
        max: each(&wanted.max, &tallies, |tally| tally.max),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(payloads: &[&'static str], wanted: &str) -> serde_json::Value {
        let messages: Vec<_> = payloads
            .iter()
            .map(|payload| {
                let payload = bytes::Bytes::from_static(payload.as_bytes());
                WindowMessage::new(String::new(), String::new(), payload)
            })
            .collect();
        let wanted = Aggregation::parse(wanted).unwrap();
        serde_json::to_value(aggregate(messages.iter(), &wanted)).unwrap()
    }

    const ALL: &str =
        r#"{"count":true,"sum":["data.v"],"avg":["data.v"],"min":["data.v"],"max":["data.v"]}"#;

    #[test]
    fn s8_only_numbers_count_and_the_mean_is_over_them() {
        let told = of(
            &[
                r#"{"v":1}"#,
                r#"{"v":"2"}"#,
                r#"{"v":true}"#,
                r#"{"v":null}"#,
                "{}",
                "7",
                r#"{"v":4}"#,
            ],
            ALL,
        );
        assert_eq!(
            told,
            serde_json::json!({"count": 7, "sum": {"data.v": 5}, "avg": {"data.v": 2.5},
                "min": {"data.v": 1}, "max": {"data.v": 4}})
        );
    }

    #[test]
    fn s8_nothing_has_a_sum_and_a_mean_of_0_and_no_extremes() {
        assert_eq!(
            of(&[], ALL).to_string(),
            r#"{"avg":{"data.v":0.0},"count":0,"max":{"data.v":null},"min":{"data.v":null},"sum":{"data.v":0}}"#
        );
        assert_eq!(of(&["1"], "{}"), serde_json::json!({}));
        assert_eq!(of(&["1"], r#"{"count":false}"#), serde_json::json!({}));
    }

    #[test]
    fn s8_whole_sums_are_exact_to_64_bits_and_floats_beyond() {
        let sum = |payloads: &[&'static str]| {
            of(payloads, r#"{"sum":["data"]}"#)["sum"]["data"].to_string()
        };
        assert_eq!(
            sum(&["9007199254740993", "9007199254740993"]),
            "18014398509481986"
        );
        assert_eq!(
            sum(&["9223372036854775807", "-1", "1"]),
            "9223372036854775807"
        );
        assert_eq!(sum(&["9223372036854775807", "1"]), "9.223372036854776e+18");
        assert_eq!(
            sum(&[
                "9223372036854775807",
                "9223372036854775807",
                "-9223372036854775807"
            ]),
            "9223372036854775807"
        );
        assert_eq!(sum(&["1", "0.5"]), "1.5");
        assert_eq!(sum(&["1.0", "2"]), "3.0");
        // The order of floats makes no difference.
        assert_eq!(sum(&["1e16", "1.0", "1.0", "-1e16"]), "2.0");
        assert_eq!(
            sum(&["0.1", "0.2", "0.3", "-0.6"]),
            sum(&["-0.6", "0.3", "0.2", "0.1"])
        );
        assert_eq!(sum(&["1e308", "1e308"]), "null", "beyond all floats");
    }

    #[test]
    fn s8_extremes_are_told_as_they_came() {
        let told = of(
            &["2", "2.5", "-1.0", "9007199254740993"],
            r#"{"min":["data"],"max":["data"]}"#,
        );
        assert_eq!(
            told.to_string(),
            r#"{"max":{"data":9007199254740993},"min":{"data":-1.0}}"#
        );
    }

    #[test]
    fn unknown_aggregations_are_named() {
        let error = Aggregation::parse(r#"{"median":["x"]}"#).unwrap_err();
        assert!(error.message().contains("median"), "{error}");
        let error = Aggregation::parse(r#"{"sum":"data.v"}"#).unwrap_err();
        assert!(error.message().contains("sum"), "{error}");
    }
}
