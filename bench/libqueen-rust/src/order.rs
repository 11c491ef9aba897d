//! What the subject is told, and what its messages look like.

use std::collections::BTreeMap;

use crate::Fallible;

/// The text in each payload: 100 letters.
const TEXT: &str = "abcdefghijklmnopqrstuvwxyzabcdefghijklmnopqrstuvwxyzabcdefghijklmnopqrstuvwxyzabcdefghijklmnopqrstuv";

/// The flags, as `queen-bench http-load --help` explains them.
pub struct Order {
    pub url: String,
    pub case: String,
    pub queue: String,
    pub in_flight: u64,
    pub partitions: u64,
    pub messages: u64,
    pub warm_up: u64,
}

impl Order {
    pub fn read() -> Fallible<Order> {
        let words: Vec<String> = std::env::args().skip(1).collect();
        let flags: BTreeMap<&str, &str> = words
            .chunks_exact(2)
            .map(|pair| (pair[0].trim_start_matches('-'), pair[1].as_str()))
            .collect();
        let text = |flag: &str| {
            let text = flags.get(flag).map(|text| (*text).to_owned());
            text.ok_or(format!("--{flag} is missing"))
        };
        let number = |flag: &str| -> Fallible<u64> { Ok(text(flag)?.parse()?) };
        Ok(Order {
            url: text("url")?,
            case: text("case")?,
            queue: text("queue")?,
            in_flight: number("in-flight")?,
            partitions: number("partitions")?,
            messages: number("messages")?,
            warm_up: number("warm-up")?,
        })
    }

    /// Messages in a push.
    pub fn batch(&self) -> u64 {
        if self.case == "push-batch-100" {
            100
        } else {
            1
        }
    }
}

pub fn payload(n: u64) -> String {
    format!(r#"{{"n":{n},"text":"{TEXT}"}}"#)
}

/// The number of a message.
pub fn number(payload: &str) -> u64 {
    let digits = payload.split_once("\"n\":").map_or("", |(_, rest)| rest);
    let end = digits.find(|c: char| !c.is_ascii_digit());
    let digits = &digits[..end.unwrap_or(digits.len())];
    digits.parse().unwrap_or(u64::MAX)
}

/// Which messages were seen; each is to come once.
pub struct Seen {
    seen: Vec<bool>,
    count: u64,
}

impl Seen {
    pub fn new(messages: u64) -> Seen {
        Seen {
            seen: vec![false; messages as usize],
            count: 0,
        }
    }

    /// Counts a message, and gives the count.
    pub fn add(&mut self, n: u64) -> u64 {
        let seen = self.seen.get_mut(n as usize);
        let seen = seen.unwrap_or_else(|| panic!("message {n} was never pushed"));
        assert!(!std::mem::replace(seen, true), "message {n} came twice");
        self.count += 1;
        self.count
    }
}
