//! The C ABI: one file per C object, a thin translation of the public Rust API. `include/queen.h` is made from the doc
//! comments and signatures of this folder.
//!
//! Every function runs inside [`handle::guard`], which catches panics, and looks at the fork stamp of each handle before
//! it touches anything else of it.
#![allow(unsafe_code, non_camel_case_types, clippy::missing_safety_doc)]
#![deny(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod broker;
mod client;
mod codes;
mod consumer;
mod delivery;
mod error;
mod event;
mod event_queue;
mod future;
mod handle;
mod log;
mod notice;
mod operations;
mod report;
mod spare;
mod statistics;
mod stream;
mod transaction;
mod user_data;
mod version;
mod window;
