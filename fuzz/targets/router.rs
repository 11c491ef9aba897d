//! Fuzzes the routes of the embedded broker: sequences of requests, see `src/play.rs`.

#![no_main]

use libfuzzer_sys::fuzz_target;
use queen_fuzz::{changes_texts, play::play};

changes_texts!("router");

fuzz_target!(|text: &[u8]| play(text));
