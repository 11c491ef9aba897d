//! What libqueen is to reach against the official Rust client, and against plain HTTP, on the official broker; its Go binding
//! against `net/http`, and its Python binding against the official Python client.

use crate::results::{Results, Runs, Sample, median};
use crate::work::{Case, Work};

/// Of one case: ratios of libqueen to the official client, and of its speed to that of plain HTTP.
struct Goal {
    case: Case,
    in_flight: Option<u64>,
    partitions: Option<u64>,
    /// Messages per second, at least.
    speed: Option<f64>,
    /// Processor time per message, at most.
    cpu: Option<f64>,
    /// The middle latency, at most.
    p50: Option<f64>,
    /// Messages per second against plain HTTP, at least.
    ceiling: Option<f64>,
}

/// A goal of speed is the lower of its ratio and this part of what plain HTTP reaches.
const ENOUGH: f64 = 0.85;

const fn goal(
    case: Case,
    in_flight: u64,
    partitions: u64,
    speed: f64,
    cpu: f64,
    ceiling: f64,
) -> Goal {
    const fn given(n: u64) -> Option<u64> {
        if n == 0 { None } else { Some(n) }
    }
    Goal {
        case,
        in_flight: given(in_flight),
        partitions: given(partitions),
        speed: Some(speed),
        cpu: Some(cpu),
        p50: None,
        ceiling: Some(ceiling),
    }
}

const GOALS: &[Goal] = &[
    Goal {
        speed: None,
        p50: Some(1.05),
        ceiling: None,
        ..goal(Case::PushSeq, 0, 0, 0.0, 0.7, 0.0)
    },
    goal(Case::PushSingle, 64, 1, 3.0, 0.2, 0.85),
    goal(Case::PushSingle, 64, 16, 1.0, 0.2, 0.85),
    goal(Case::PushSingle, 512, 1, 6.0, 0.1, 0.85),
    goal(Case::PushSingle, 512, 16, 2.4, 0.1, 0.85),
    goal(Case::PushBatch100, 0, 0, 1.0, 0.6, 0.95),
    goal(Case::PopAck100, 0, 0, 1.0, 0.5, 0.9),
    goal(Case::Consume, 0, 1, 20.0, 0.1, 0.8),
    goal(Case::Consume, 0, 16, 10.0, 0.1, 0.8),
    goal(Case::Consume, 0, 1000, 10.0, 0.1, 0.8),
    Goal {
        speed: None,
        cpu: None,
        p50: Some(1.05),
        ceiling: None,
        ..goal(Case::LatencyIdle, 0, 0, 0.0, 0.0, 0.0)
    },
];

impl Goal {
    fn is_of(&self, work: &Work) -> bool {
        self.case == work.case
            && self.in_flight.is_none_or(|n| n == work.in_flight)
            && self.partitions.is_none_or(|n| n == work.partitions)
    }
}

/// The medians of a number made of the runs of each round.
fn by_rounds(runs: [&Runs; 2], value: impl Fn(&Sample, &Sample) -> Option<f64>) -> Option<f64> {
    let rounds = runs[0].samples.iter().zip(&runs[1].samples);
    let values: Option<Vec<f64>> = rounds.map(|(one, other)| value(one, other)).collect();
    values.filter(|values| !values.is_empty()).map(median)
}

/// Prints each goal with what was measured.
pub fn print(results: &Results) {
    let mut lines = Vec::new();
    for (n, work) in results.works.iter().enumerate() {
        let runs = |subject| {
            let runs = results.runs.get(&(n, "official", subject));
            runs.filter(|runs| runs.error.is_none())
        };
        let (Some(ours), Some(goal)) = (
            runs("libqueen-c"),
            GOALS.iter().find(|goal| goal.is_of(work)),
        ) else {
            continue;
        };
        let (official, ceiling) = (runs("official-rust"), runs("http-ceiling"));
        let mut told = |what: &str, wanted: String, measured: f64, met: bool| {
            lines.push(line(work, what, &wanted, measured, met));
        };
        let ours_to = |other, value: fn(&Sample) -> Option<f64>| {
            by_rounds([ours, other], |one, other| {
                Some(value(one)? / value(other)?)
            })
        };
        let speed = |sample: &Sample| Some(sample.speed());
        let to_ceiling = ceiling.and_then(|ceiling| ours_to(ceiling, speed));
        if let (Some(goal), Some(measured)) = (goal.ceiling, to_ceiling) {
            told(
                "msg/s against plain HTTP",
                format!(">= {goal}"),
                measured,
                measured >= goal,
            );
        }
        let Some(official) = official else { continue };
        if let (Some(goal), Some(measured)) = (goal.speed, ours_to(official, speed)) {
            let enough = measured >= goal || to_ceiling.is_some_and(|ratio| ratio >= ENOUGH);
            told(
                "msg/s against official-rust",
                format!(">= {goal}"),
                measured,
                enough,
            );
        }
        let cpu = |sample: &Sample| Some(sample.cpu_us_per_msg());
        if let (Some(goal), Some(measured)) = (goal.cpu, ours_to(official, cpu)) {
            told(
                "CPU against official-rust",
                format!("<= {goal}"),
                measured,
                measured <= goal,
            );
        }
        if let (Some(goal), Some(measured)) = (goal.p50, ours_to(official, |s| s.report.p50_us)) {
            told(
                "p50 against official-rust",
                format!("<= {goal}"),
                measured,
                measured <= goal,
            );
        }
    }
    print_table("libqueen-c", &lines);
    print_table("libqueen-cpp", &cpp(results));
    print_table("libqueen-go", &go(results));
    let mut lines = python(results, "official-python");
    lines.extend(python(results, "official-python-0.7"));
    print_table("libqueen-python", &lines);
}

/// What the C++ binding may cost beside the C ABI.
fn cpp(results: &Results) -> Vec<String> {
    const CPU: f64 = 1.1;
    let mut lines = Vec::new();
    for (n, work) in results.works.iter().enumerate() {
        let runs = |subject| {
            let runs = results.runs.get(&(n, "official", subject));
            runs.filter(|runs| runs.error.is_none())
        };
        let (Some(ours), Some(c)) = (runs("libqueen-cpp"), runs("libqueen-c")) else {
            continue;
        };
        let cpu =
            |one: &Sample, other: &Sample| Some(one.cpu_us_per_msg() / other.cpu_us_per_msg());
        if let Some(measured) = by_rounds([ours, c], cpu) {
            let (what, met) = ("CPU against libqueen-c", measured <= CPU);
            lines.push(line(work, what, &format!("<= {CPU}"), measured, met));
        }
    }
    lines
}

/// What the Go binding is to reach against a program with `net/http` and no client: messages per second at least, processor
/// time per message at most.
fn go(results: &Results) -> Vec<String> {
    let mut lines = Vec::new();
    for (n, work) in results.works.iter().enumerate() {
        let (speed, cpu) = match (work.case, work.in_flight, work.partitions) {
            (Case::PushSingle, 512, 1) => (3.0, Some(0.333)),
            (Case::Consume, ..) => (10.0, None),
            _ => continue,
        };
        let runs = |subject| {
            let runs = results.runs.get(&(n, "official", subject));
            runs.filter(|runs| runs.error.is_none())
        };
        let (Some(ours), Some(other)) = (runs("libqueen-go"), runs("http-go")) else {
            continue;
        };
        let ratio = |value: fn(&Sample) -> f64| {
            by_rounds([ours, other], |one, other| Some(value(one) / value(other)))
        };
        if let Some(measured) = ratio(Sample::speed) {
            let (what, met) = ("msg/s against http-go", measured >= speed);
            lines.push(line(work, what, &format!(">= {speed}"), measured, met));
        }
        if let (Some(cpu), Some(measured)) = (cpu, ratio(Sample::cpu_us_per_msg)) {
            let (what, met) = ("CPU against http-go", measured <= cpu);
            lines.push(line(work, what, &format!("<= {cpu}"), measured, met));
        }
    }
    lines
}

/// What the Python binding is to reach against an official Python client.
fn python(results: &Results, official: &'static str) -> Vec<String> {
    let mut lines = Vec::new();
    for (n, work) in results.works.iter().enumerate() {
        let (speed, cpu) = match (work.case, work.in_flight, work.partitions) {
            (Case::PushSingle, 64, 16) => (Some(12.0), 1.0 / 50.0),
            (Case::PushBatch100 | Case::PopAck100, ..) => (None, 1.0 / 6.0),
            (Case::Consume, ..) => (Some(20.0), 1.0 / 50.0),
            _ => continue,
        };
        let runs = |subject| {
            let runs = results.runs.get(&(n, "official", subject));
            runs.filter(|runs| runs.error.is_none())
        };
        let (Some(ours), Some(other)) = (runs("libqueen-python"), runs(official)) else {
            continue;
        };
        let ratio = |value: fn(&Sample) -> f64| {
            by_rounds([ours, other], |one, other| Some(value(one) / value(other)))
        };
        if let (Some(speed), Some(measured)) = (speed, ratio(Sample::speed)) {
            let (what, met) = (format!("msg/s against {official}"), measured >= speed);
            lines.push(line(work, &what, &format!(">= {speed}"), measured, met));
        }
        if let Some(measured) = ratio(Sample::cpu_us_per_msg) {
            let (what, met) = (format!("CPU against {official}"), measured <= cpu);
            lines.push(line(work, &what, &format!("<= {cpu:.3}"), measured, met));
        }
    }
    lines
}

fn line(work: &Work, what: &str, wanted: &str, measured: f64, met: bool) -> String {
    let (name, in_flight, partitions) = (work.case.name(), work.in_flight, work.partitions);
    let met = if met { "met" } else { "MISSED" };
    format!(
        "{name:<16} {in_flight:>6} {partitions:>5}  {what:<33} {wanted:>9} {measured:>9.3}  {met}"
    )
}

fn print_table(subject: &str, lines: &[String]) {
    if lines.is_empty() {
        return;
    }
    println!("\nGoals of {subject} on the official broker, medians of the ratios of each round");
    println!(
        "{:<16} {:>6} {:>5}  {:<33} {:>9} {:>9}",
        "case", "flight", "parts", "what", "goal", "measured"
    );
    lines.iter().for_each(|line| println!("{line}"));
}
