//! Runs scenarios with the Rust API: `BROKER URL FILE...`, see the README beside.

#![forbid(unsafe_code)]

mod pattern;
mod step;
mod windows;
mod world;

use std::env;
use std::fs;
use std::path::Path;

use serde::Deserialize;
use serde_json::Value;

use crate::world::World;

#[derive(Deserialize)]
struct Scenario {
    steps: Vec<Value>,
}

fn run(broker: &str, url: &str, file: &Path) -> Result<(), String> {
    let text = fs::read_to_string(file).map_err(|error| error.to_string())?;
    let scenario: Scenario = serde_json::from_str(&text).map_err(|error| error.to_string())?;
    let world = World::new(broker, url).map_err(|error| error.to_string())?;
    let mut result = Ok(());
    for (n, step) in scenario.steps.iter().enumerate() {
        result = world
            .run(step)
            .map_err(|why| format!("step {} ({}): {why}", n + 1, step["do"]));
        if result.is_err() {
            break;
        }
    }
    let ended = world.end();
    result.and(ended)
}

fn main() {
    // Handlers that panic are a part of scenarios.
    std::panic::set_hook(Box::new(|_| {}));
    let arguments: Vec<String> = env::args().skip(1).collect();
    let [broker, url, files @ ..] = &arguments[..] else {
        eprintln!("usage: BROKER URL FILE...");
        std::process::exit(2);
    };
    for file in files.iter().map(Path::new) {
        let name = file.file_stem().unwrap_or_default().to_string_lossy();
        match run(broker, url, file) {
            Ok(()) => println!("ok {name}"),
            Err(why) => println!("FAILED {name}: {}", why.replace('\n', " ")),
        }
    }
}
