//! What was measured: rows of medians, the file they go to, and the table of ratios.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;

use serde::Serialize;

use crate::work::{Report, Work};

/// One run.
#[derive(Clone, Debug)]
pub struct Sample {
    pub report: Report,
    /// None where the broker is a part of the subject.
    pub broker_cpu_us_per_msg: Option<f64>,
    pub broker_pss_mib: Option<f64>,
}

impl Sample {
    pub fn speed(&self) -> f64 {
        self.report.messages as f64 / self.report.seconds
    }

    pub fn cpu_us_per_msg(&self) -> f64 {
        self.report.cpu_us / self.report.messages as f64
    }
}

/// The runs of one subject on one broker, one for each round.
#[derive(Default)]
pub struct Runs {
    pub samples: Vec<Sample>,
    pub error: Option<String>,
}

/// One line of results.json. Every field is always there; null where it means nothing, and all that was measured where the run
/// went wrong.
#[derive(Serialize)]
struct Row<'a> {
    case: String,
    broker: &'a str,
    subject: &'a str,
    in_flight: u64,
    partitions: u64,
    messages: Option<u64>,
    msgs_per_s: Option<f64>,
    cpu_us_per_msg: Option<f64>,
    p50_us: Option<f64>,
    p99_us: Option<f64>,
    rss_mib: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'a str>,
}

/// One line of rounds.json: a run, with what the broker had to do.
#[derive(Serialize)]
struct Round<'a> {
    case: String,
    broker: &'a str,
    subject: &'a str,
    in_flight: u64,
    partitions: u64,
    round: usize,
    #[serde(flatten)]
    report: &'a Report,
    broker_cpu_us_per_msg: Option<f64>,
    broker_pss_mib: Option<f64>,
}

/// Everything that was measured: by place of the work in the plan, broker, subject.
pub struct Results<'a> {
    pub works: &'a [Work],
    pub brokers: Vec<&'a str>,
    pub subjects: Vec<&'a str>,
    pub runs: BTreeMap<(usize, &'a str, &'a str), Runs>,
}

impl<'a> Results<'a> {
    pub fn runs(&mut self, key: (usize, &'a str, &'a str)) -> &mut Runs {
        self.runs.entry(key).or_default()
    }

    /// Writes the medians to results.json, and every run to rounds.json.
    pub fn write(&self, folder: &Path) -> io::Result<()> {
        let (mut rows, mut rounds) = (Vec::new(), Vec::new());
        for (&(work, broker, subject), runs) in &self.runs {
            let work = &self.works[work];
            let of = |value: fn(&Sample) -> Option<f64>| runs.median(value).map(round);
            let done = runs.samples.first().filter(|_| runs.error.is_none());
            rows.push(serde_json::to_string(&Row {
                case: work.case.name(),
                broker,
                subject,
                in_flight: work.in_flight,
                partitions: work.partitions,
                messages: done.map(|sample| sample.report.messages),
                msgs_per_s: of(|s| Some(s.speed())),
                cpu_us_per_msg: of(|s| Some(s.cpu_us_per_msg())),
                p50_us: of(|s| s.report.p50_us),
                p99_us: of(|s| s.report.p99_us),
                rss_mib: of(|s| Some(s.report.rss_mib)),
                error: runs.error.as_deref(),
            })?);
            for (n, sample) in runs.samples.iter().enumerate() {
                rounds.push(serde_json::to_string(&Round {
                    case: work.case.name(),
                    broker,
                    subject,
                    in_flight: work.in_flight,
                    partitions: work.partitions,
                    round: n + 1,
                    report: &sample.report,
                    broker_cpu_us_per_msg: sample.broker_cpu_us_per_msg.map(round),
                    broker_pss_mib: sample.broker_pss_mib.map(round),
                })?);
            }
        }
        for (name, lines) in [("results.json", rows), ("rounds.json", rounds)] {
            fs::write(folder.join(name), format!("[\n{}\n]\n", lines.join(",\n")))?;
        }
        Ok(())
    }

    /// Prints the medians.
    pub fn print(&self) {
        println!(
            "{:<16} {:>6} {:>5}  {:<10} {:<14} {:>9} {:>9} {:>9} {:>9} {:>9} {:>9}",
            "case",
            "flight",
            "parts",
            "broker",
            "subject",
            "msg/s",
            "p50 us",
            "p99 us",
            "cpu us",
            "b.cpu us",
            "b.MiB"
        );
        for ((work, broker, subject), runs) in &self.runs {
            let work = &self.works[*work];
            let (name, in_flight, partitions) = (work.case.name(), work.in_flight, work.partitions);
            print!("{name:<16} {in_flight:>6} {partitions:>5}  {broker:<10} {subject:<14} ");
            if let Some(error) = &runs.error {
                println!("ERROR {error}");
                continue;
            }
            let of = |value: fn(&Sample) -> Option<f64>, digits: usize| match runs.median(value) {
                Some(value) => format!("{value:>9.digits$}"),
                None => format!("{:>9}", "-"),
            };
            println!(
                "{} {} {} {} {} {}",
                of(|s| Some(s.speed()), 0),
                of(|s| s.report.p50_us, 0),
                of(|s| s.report.p99_us, 0),
                of(|s| Some(s.cpu_us_per_msg()), 1),
                of(|s| s.broker_cpu_us_per_msg, 1),
                of(|s| s.broker_pss_mib, 1),
            );
        }
        println!(
            "cpu us: processor time of the subject per message. b.cpu us, b.MiB: the same of the broker, and its memory (PSS)"
        );
    }

    /// Prints how the first broker stands against each other one: the medians of the ratios of each round.
    pub fn print_ratios(&self) {
        let Some((first, others)) = self.brokers.split_first() else {
            return;
        };
        for other in others {
            println!("\n{first} against {other}, medians of the ratios of each round");
            println!(
                "{:<16} {:>6} {:>5}  {:<14} {:>9} {:>9} {:>9}",
                "case", "flight", "parts", "subject", "msg/s", "b.cpu", "b.MiB"
            );
            for (n, work) in self.works.iter().enumerate() {
                for subject in &self.subjects {
                    let runs = |broker| self.runs.get(&(n, broker, *subject));
                    if let (Some(ours), Some(theirs)) = (runs(*first), runs(*other)) {
                        let (name, in_flight, partitions) =
                            (work.case.name(), work.in_flight, work.partitions);
                        let of = |value: fn(&Sample) -> f64| match ratio(ours, theirs, value) {
                            Some(ratio) => format!("{ratio:.2} x"),
                            None => "-".into(),
                        };
                        println!(
                            "{name:<16} {in_flight:>6} {partitions:>5}  {subject:<14} {:>9} {:>9} {:>9}",
                            of(Sample::speed),
                            of(|s| s.broker_cpu_us_per_msg.unwrap_or(f64::NAN)),
                            of(|s| s.broker_pss_mib.unwrap_or(f64::NAN))
                        );
                    }
                }
            }
        }
    }
}

impl Runs {
    /// The median of a number that every run has.
    fn median(&self, value: fn(&Sample) -> Option<f64>) -> Option<f64> {
        let values: Option<Vec<f64>> = self.samples.iter().map(value).collect();
        let values = values.filter(|values| self.error.is_none() && !values.is_empty());
        values.map(median)
    }
}

/// The median of the ratios of each round.
pub fn ratio(ours: &Runs, theirs: &Runs, value: fn(&Sample) -> f64) -> Option<f64> {
    if ours.error.is_some() || theirs.error.is_some() {
        return None;
    }
    let rounds = ours.samples.iter().zip(&theirs.samples);
    let ratio = median(rounds.map(|(a, b)| value(a) / value(b)).collect());
    (!ratio.is_nan()).then_some(ratio)
}

pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let half = values.len() / 2;
    match (values.len() % 2, values.get(half)) {
        (_, None) => f64::NAN,
        (0, Some(upper)) => (values[half - 1] + upper) / 2.0,
        (_, Some(middle)) => *middle,
    }
}

/// More digits would only look exact.
fn round(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
}

/// A run of 600 messages.
#[cfg(test)]
pub fn sample(seconds: f64) -> Sample {
    Sample {
        report: Report {
            messages: 600,
            seconds,
            cpu_us: 1.0,
            p50_us: Some(1.0),
            p99_us: None,
            rss_mib: 1.0,
        },
        broker_cpu_us_per_msg: None,
        broker_pss_mib: Some(1.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn runs(seconds: [f64; 3]) -> Runs {
        Runs {
            samples: seconds.map(sample).to_vec(),
            error: None,
        }
    }

    #[test]
    fn the_middle_counts() {
        assert_eq!(median(vec![9.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(vec![9.0, 1.0, 2.0, 4.0]), 3.0);
        assert!(median(Vec::new()).is_nan());
    }

    #[test]
    fn ratios_are_taken_round_by_round() {
        let (ours, theirs) = (runs([1.0, 2.0, 1.0]), runs([2.0, 6.0, 30.0]));
        assert_eq!(ratio(&ours, &theirs, Sample::speed), Some(3.0));
        let failed = Runs {
            error: Some("lost".into()),
            ..runs([1.0; 3])
        };
        assert_eq!(ratio(&ours, &failed, Sample::speed), None);
        let none = |s: &Sample| s.broker_cpu_us_per_msg.unwrap_or(f64::NAN);
        assert_eq!(ratio(&ours, &theirs, none), None);
        assert_eq!(ours.median(|s| s.report.p99_us), None);
        assert_eq!(ours.median(|s| s.broker_pss_mib), Some(1.0));
    }
}
