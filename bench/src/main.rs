//! `make bench`: the same work on several brokers by several clients, in turn, and what it cost.
//!
//! A client under measurement is a *subject*: a program that does one [`Work`](work::Work) with the broker at `--url`
//! and prints one JSON line, a [`Report`](work::Report). `http-load`, the subject in this program, talks HTTP itself.

#![forbid(unsafe_code)]

mod broker;
mod budget;
mod goals;
mod http;
mod load;
mod place;
mod plot;
mod process;
mod results;
mod rounds;
mod work;

use std::process::ExitCode;

use clap::Parser;

/// Measure brokers and clients.
#[derive(Parser)]
enum Command {
    /// Measure; scripts/bench starts the brokers and calls this.
    Run(rounds::Plan),
    /// Do one piece of work over HTTP and report it: the subject `http-load`.
    HttpLoad(work::Order),
    /// The same, with pushes that share requests: the subject `http-ceiling`.
    HttpCeiling(work::Order),
}

fn print(report: work::Report) -> bool {
    println!("{}", serde_json::json!(report));
    true
}

fn main() -> ExitCode {
    let done = match Command::parse() {
        Command::Run(plan) => rounds::run(&plan),
        Command::HttpLoad(order) => load::run(&order, false).map(print),
        Command::HttpCeiling(order) => load::run(&order, true).map(print),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(reason) => {
            eprintln!("queen-bench: {reason}");
            ExitCode::FAILURE
        }
    }
}
