//! Replays the golden transcripts of the official broker, one test per broker and transcript.

mod support;

use std::process::ExitCode;
use std::sync::{Arc, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use libtest_mimic::{Arguments, Failed, Trial};
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
    let mut trials = vec![every_difference_names_a_step(&transcripts, &differences)];
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
