//! The program: the embedded broker as a server, and tools for its stores.

#![forbid(unsafe_code)]
#![cfg_attr(
    not(test),
    deny(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::indexing_slicing
    )
)]

mod check;
mod inspect;
mod notify;
mod serve;
mod settings;

use std::fmt::Display;
use std::io::{self, Write};
use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// The embedded Queen MQ broker.
///
/// `serve` serves a store, `check` verifies one, `inspect` shows what one holds. Each tells more with --help.
#[derive(Parser)]
#[command(version, max_term_width = 100)]
struct Command {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand)]
enum Action {
    Serve(serve::Serve),
    Check(check::Check),
    Inspect(inspect::Inspect),
}

/// A line on stderr. Who reads it may be gone; that is no reason to fail.
fn say(text: impl Display) {
    let _ = writeln!(io::stderr(), "queen-broker: {text}");
}

fn main() -> ExitCode {
    match Command::parse().action {
        Action::Serve(serve) => serve.run(),
        Action::Check(check) => check.run(),
        Action::Inspect(inspect) => inspect.run(),
    }
}
