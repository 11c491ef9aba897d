//! Fuzzes what the client makes of answers, see `fuzz.rs` in the library's `src/protocol`.

#![no_main]

use libfuzzer_sys::fuzz_target;
use queen_fuzz::changes_texts;

changes_texts!("answers");

fuzz_target!(|text: &[u8]| queen::fuzz_answer(text));
