//! What the contract tests share: the brokers they run on, and the golden transcripts.
//!
//! Which brokers run says `QUEEN_TEST_BROKERS`, a list of `embedded`, `tcp` and `official` (default `embedded,tcp`):
//!
//! - `embedded`: the broker of this repository, in process;
//! - `tcp`: the same one as a server, the program `queen-broker` (`QUEEN_BROKER_BIN`, else beside the tests);
//! - `official`: a running official broker at `QUEEN_OFFICIAL_URL`.
//!
//! A broker that is asked for and cannot be had is an error, never a silent skip.

#![allow(dead_code, reason = "each test program uses its own part")]

pub mod brokers;
pub mod matching;
pub mod official;
pub mod transcript;
