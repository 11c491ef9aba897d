//! Replays the golden transcripts of the official broker, one test per broker and transcript.

mod support;

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::ExitCode;
use std::sync::{Arc, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use libtest_mimic::{Arguments, Failed, Trial};
use serde_json::Value;
use support::brokers::{TestBroker, brokers, guarded_brokers};
use support::transcript::{Difference, Transcript, differences, transcripts};

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    let trials = match trials() {
        Ok(trials) => trials,
        // A broker that cannot be had is a failure.
        Err(reason) => vec![Trial::test("brokers", move || Err(Failed::from(reason)))],
    };
    // Run to the end, so that the servers are stopped before the exit.
    libtest_mimic::run(&arguments, trials).exit_code()
}

fn trials() -> Result<Vec<Trial>, String> {
    // Names of this run alone: the official broker keeps its queues.
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_err(|e| e.to_string())?;
    let prefix = format!("rec{:x}-", now.as_millis());
    let differences = Arc::new(differences(&prefix)?);
    let transcripts: Vec<Arc<Transcript>> =
        transcripts(&prefix)?.into_iter().map(Arc::new).collect();
    let mut trials = vec![
        every_difference_names_a_step(&transcripts, &differences),
        Trial::test("every row of DIFFERENCES.md is shown", rows_are_shown),
    ];
    let mut add = |broker: TestBroker, transcript: &Arc<Transcript>| {
        trials.push(trial(broker, transcript.clone(), differences.clone()));
    };
    let (guarded, open): (Vec<_>, Vec<_>) =
        transcripts.iter().partition(|t| t.jwt_secret.is_some());
    for broker in brokers()? {
        for transcript in &open {
            add(broker.clone(), transcript);
        }
    }
    for transcript in guarded {
        for broker in guarded_brokers(transcript.jwt_secret.as_deref().unwrap_or_default())? {
            add(broker, transcript);
        }
    }
    Ok(trials)
}

fn trial(
    broker: TestBroker,
    transcript: Arc<Transcript>,
    differences: Arc<Vec<Difference>>,
) -> Trial {
    let name = format!("{}::{}", broker.name, transcript.scenario);
    Trial::test(name, move || {
        // Who switches the whole broker must not meet the others.
        let (_with_others, _alone);
        match transcript.switches_broker() {
            true => _alone = broker.turn.write().unwrap_or_else(PoisonError::into_inner),
            false => _with_others = broker.turn.read().unwrap_or_else(PoisonError::into_inner),
        }
        transcript
            .replay(&broker, &differences)
            .map_err(Failed::from)
    })
}

/// A misspelt entry would silence nothing and look as if it did.
fn every_difference_names_a_step(
    transcripts: &[Arc<Transcript>],
    differences: &Arc<Vec<Difference>>,
) -> Trial {
    let (transcripts, differences) = (transcripts.to_vec(), differences.clone());
    Trial::test("every difference names a step", move || {
        match differences
            .iter()
            .find(|d| !transcripts.iter().any(|t| t.has(d)))
        {
            Some(lost) => Err(Failed::from(format!(
                "differences.json names the unknown step {lost}"
            ))),
            None => Ok(()),
        }
    })
}

/// `docs/DIFFERENCES.md` and what it says of the tests: each row names transcripts that differ, or functions that are
/// there, and each transcript that differs has a row.
fn rows_are_shown() -> Result<(), Failed> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let read = |file: &str| {
        fs::read_to_string(root.join(file)).map_err(|e| Failed::from(format!("{file}: {e}")))
    };
    let listed: Vec<Value> = serde_json::from_str(&read("tests/transcripts/differences.json")?)
        .map_err(|e| e.to_string())?;
    let differing: BTreeSet<&str> = listed
        .iter()
        .filter_map(|row| row["scenario"].as_str()?.get(..2))
        .collect();
    let (mut faults, mut shown, mut rows) = (Vec::new(), BTreeSet::new(), 0);
    let text = read("docs/DIFFERENCES.md")?;
    for row in text.lines().filter(|line| line.starts_with("| ")).skip(1) {
        rows += 1;
        let by = row.trim_end_matches(" |").rsplit("| ").next();
        for name in by.unwrap_or_default().split(", ") {
            let there = if let Some(number) = name.strip_prefix("transcript ") {
                shown.insert(number);
                differing.contains(number)
            } else if let Some((file, test)) = name.trim_matches('`').split_once("::") {
                read(&format!("broker/tests/{file}.rs"))?.contains(&format!("fn {test}()"))
            } else {
                false
            };
            if !there {
                faults.push(format!("{name:?} does not show this: {row}"));
            }
        }
    }
    let lost = differing.difference(&shown);
    faults.extend(lost.map(|n| format!("no row names transcript {n}")));
    match faults.is_empty() && rows > 0 {
        true => Ok(()),
        false => Err(format!("{rows} rows\n{}", faults.join("\n")).into()),
    }
}
