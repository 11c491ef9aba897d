//! Changes to texts of requests that keep most of them requests: other words in the places of words, other requests in the
//! places of requests. The fuzzer's own changes, which know bytes only, come in between.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use crate::play::split;

/// Words that programs have stumbled over.
const NASTY: [&str; 28] = [
    "null",
    "true",
    "0",
    "-1",
    "1",
    "1.5",
    "2147483648",
    "9223372036854775807",
    "-9223372036854775808",
    "18446744073709551616",
    "1e400",
    "\"\"",
    "{}",
    "[]",
    "[[[[]]]]",
    "\"\\u0000\"",
    "\"\\ud800\"",
    "%00",
    "%ff",
    "%2f",
    "..",
    "NaN",
    "\"9999-12-31T23:59:59Z\"",
    "\"1969-01-01T00:00:00Z\"",
    "$p",
    "$l",
    "$t",
    "$a",
];

/// What to put in.
pub struct Dictionary {
    words: Vec<Vec<u8>>,
    blocks: Vec<Vec<u8>>,
}

impl Dictionary {
    /// Reads the words and the requests of all files in a folder.
    pub fn read(folder: &Path) -> Dictionary {
        let (mut words, mut blocks) = (BTreeSet::new(), BTreeSet::new());
        for entry in fs::read_dir(folder).expect("the folder of the seeds") {
            let text = fs::read(entry.expect("a seed").path()).expect("a seed");
            blocks.extend(split(&text).iter().map(|block| block.to_vec()));
            words.extend(tokens(&text).iter().map(|(a, b)| text[*a..*b].to_vec()));
        }
        words.extend(NASTY.map(|word| word.as_bytes().to_vec()));
        Dictionary {
            words: words.into_iter().filter(|word| word.len() < 100).collect(),
            blocks: blocks.into_iter().collect(),
        }
    }

    /// Changes a text at a few places.
    pub fn change(&self, text: &[u8], random: &mut Random) -> Vec<u8> {
        let mut text = text.to_vec();
        for _ in 0..=random.below(3) {
            text = match random.below(10) {
                0..5 => self.other_word(&text, random),
                5 => without(&text, random),
                _ => self.other_blocks(&text, random),
            };
        }
        text
    }

    fn other_word(&self, text: &[u8], random: &mut Random) -> Vec<u8> {
        let tokens = tokens(text);
        let Some((from, to)) = random.pick(&tokens).copied() else {
            return text.to_vec();
        };
        let own = random.pick(&tokens).map(|(a, b)| &text[*a..*b]);
        let nasty = NASTY[random.below(NASTY.len())].as_bytes();
        let word = match random.below(4) {
            0 => nasty,
            1 => own.unwrap_or_default(),
            _ => random.pick(&self.words).map_or(nasty, Vec::as_slice),
        };
        [&text[..from], word, &text[to..]].concat()
    }

    fn other_blocks(&self, text: &[u8], random: &mut Random) -> Vec<u8> {
        let mut blocks = split(text);
        let (one, other) = (random.below(blocks.len()), random.below(blocks.len()));
        match random.below(6) {
            0 => blocks.swap(one, other),
            1 => blocks.insert(one, blocks[other]),
            2 => drop(blocks.remove(one)),
            _ => blocks.insert(one, &self.blocks[random.below(self.blocks.len())]),
        }
        blocks.join(&b"\n%%\n"[..])
    }
}

/// The first part of one text and the last part of another.
pub fn cross(one: &[u8], other: &[u8], random: &mut Random) -> Vec<u8> {
    let (mut head, tail) = (split(one), split(other));
    head.truncate(random.below(head.len() + 1));
    head.extend(&tail[random.below(tail.len())..]);
    head.join(&b"\n%%\n"[..])
}

/// Leaves out a word, or all from one word to another.
fn without(text: &[u8], random: &mut Random) -> Vec<u8> {
    let tokens = tokens(text);
    let Some((from, to)) = random.pick(&tokens).copied() else {
        return text.to_vec();
    };
    let near = tokens.iter().find(|(a, _)| *a > to + random.below(40));
    let to = near
        .filter(|_| random.below(2) == 0)
        .map_or(to, |(a, _)| *a);
    [&text[..from], &text[to..]].concat()
}

/// Where the words of a text are: runs of letters and digits, and strings with their quotes.
fn tokens(text: &[u8]) -> Vec<(usize, usize)> {
    let of_word =
        |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.' | b'$' | b'%');
    let mut found = Vec::new();
    let mut at = 0;
    while at < text.len() {
        let rest = &text[at..];
        let length = match rest[0] {
            b'"' => rest[1..]
                .iter()
                .position(|b| *b == b'"')
                .map_or(1, |end| end + 2),
            _ => rest.iter().position(|b| !of_word(b)).unwrap_or(rest.len()),
        };
        if length > 1 || (length == 1 && rest[0] != b'"') {
            found.push((at, at + length));
        }
        at += length.max(1);
    }
    found
}

/// Random numbers from a seed that the fuzzer gives.
pub struct Random(u64);

impl Random {
    pub fn new(seed: u32) -> Random {
        Random(u64::from(seed) << 1 | 1)
    }

    pub fn below(&mut self, most: usize) -> usize {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % most.max(1)
    }

    fn pick<'a, T>(&mut self, from: &'a [T]) -> Option<&'a T> {
        from.get(self.below(from.len()))
    }
}
