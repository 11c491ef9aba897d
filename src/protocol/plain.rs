//! A reader of answers that are written just as brokers of generation 1.x write them when all goes well, at a tenth of what
//! serde takes for them. Each of its steps is `None` for anything else, which is left to serde.

use serde::Deserialize;
use serde_json::value::RawValue;

use super::Text;

/// What is left to read.
pub(super) struct Plain<'a>(&'a str);

impl<'a> Plain<'a> {
    pub(super) fn new(text: &'a str) -> Plain<'a> {
        Plain(text)
    }

    /// Passes over exactly that.
    pub(super) fn literal(&mut self, literal: &str) -> Option<()> {
        self.0 = self.0.strip_prefix(literal)?;
        Some(())
    }

    /// A text between quotes, without escapes.
    pub(super) fn text(&mut self) -> Option<Text<'a>> {
        let rest = self.0.strip_prefix('"')?;
        let end = memchr::memchr2(b'"', b'\\', rest.as_bytes())?;
        let (text, rest) = rest.split_at(end);
        self.0 = rest.strip_prefix('"')?;
        Some(Text(text.into()))
    }

    /// A text between quotes, or null.
    pub(super) fn nullable(&mut self) -> Option<Option<Text<'a>>> {
        match self.literal("null") {
            Some(()) => Some(None),
            None => self.text().map(Some),
        }
    }

    /// A number that is not negative.
    pub(super) fn number(&mut self) -> Option<u64> {
        let digits = self.0.bytes().take_while(u8::is_ascii_digit).count();
        let (number, rest) = self.0.split_at(digits);
        self.0 = rest;
        number.parse().ok()
    }

    pub(super) fn flag(&mut self) -> Option<bool> {
        match self.literal("true") {
            Some(()) => Some(true),
            None => self.literal("false").map(|()| false),
        }
    }

    /// Any value, as it is written.
    pub(super) fn value(&mut self) -> Option<&'a RawValue> {
        let mut reader = serde_json::Deserializer::from_str(self.0).into_iter::<&RawValue>();
        let value = reader.next()?.ok()?;
        self.0 = &self.0[reader.byte_offset()..];
        Some(value)
    }

    /// The elements of a list up to its end, each read by `element`.
    pub(super) fn list<T>(
        &mut self,
        count: usize,
        mut element: impl FnMut(&mut Plain<'a>) -> Option<T>,
    ) -> Option<Vec<T>> {
        self.literal("[")?;
        let mut elements = Vec::with_capacity(count);
        loop {
            elements.push(element(self)?);
            if self.literal("]").is_some() {
                return Some(elements);
            }
            self.literal(",")?;
        }
    }

    /// Whether all is read.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Reads an answer the short way, if it is written so, or else with serde.
pub(super) fn read<'a, T: Deserialize<'a>>(
    text: &'a str,
    short: impl FnOnce(&mut Plain<'a>) -> Option<T>,
) -> serde_json::Result<T> {
    let mut plain = Plain::new(text);
    match short(&mut plain) {
        Some(answer) if plain.is_empty() => Ok(answer),
        _ => serde_json::from_str(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_end_where_they_end() {
        let mut plain = Plain::new(r#"{"a":[1,"]}"]},12.5e3,"x\"y",null"#);
        for wanted in [r#"{"a":[1,"]}"]}"#, "12.5e3", r#""x\"y""#] {
            assert_eq!(plain.value().unwrap().get(), wanted);
            plain.literal(",").unwrap();
        }
        assert_eq!(plain.nullable().unwrap(), None);
        assert!(plain.is_empty() && plain.value().is_none());
    }

    #[test]
    fn what_is_not_plain_is_none() {
        assert!(Plain::new(r#""a\n""#).text().is_none());
        assert!(Plain::new(r#""a"#).text().is_none());
        assert!(Plain::new("-1").number().is_none());
        assert!(Plain::new("99999999999999999999").number().is_none());
        assert!(Plain::new("1").flag().is_none());
        assert!(Plain::new("[]").list(0, Plain::number).is_none());
        assert!(Plain::new("[1,]").list(0, Plain::number).is_none());
        assert_eq!(Plain::new("[1,2]").list(0, Plain::number).unwrap(), [1, 2]);
    }
}
