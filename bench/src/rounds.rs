//! The rounds: in each, every subject does the work on every broker, in turn.

use std::collections::BTreeMap;
use std::env;
use std::io::{self, Read};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use clap::Args;
use tokio::runtime::Runtime;

use crate::broker::Broker;
use crate::goals;
use crate::process::Processes;
use crate::results::{Results, Sample};
use crate::work::{self, Case, Order, Report, Size, Work};

/// One that takes longer has got stuck.
const LIMIT: Duration = Duration::from_secs(180);

/// What to measure.
#[derive(Args)]
pub struct Plan {
    /// A broker and its processes: NAME=URL,PID[,PID...]. The first is compared with each other one.
    #[arg(long = "broker", required = true, value_parser = Target::parse)]
    brokers: Vec<Target>,
    /// A subject: NAME=PROGRAM. http-load and http-ceiling are there without.
    #[arg(long = "subject", value_parser = Subject::parse)]
    subjects: Vec<Subject>,
    /// Only these cases.
    #[arg(long, value_delimiter = ',')]
    only: Vec<Case>,
    /// Only these subjects.
    #[arg(long, value_delimiter = ',')]
    only_subjects: Vec<String>,
    #[arg(long, default_value = "full")]
    size: Size,
    /// Rounds that count; one that does not comes before them.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// The file for the results.
    #[arg(long)]
    out: PathBuf,
}

#[derive(Clone)]
struct Target {
    name: String,
    url: String,
    processes: Processes,
}

impl Target {
    fn parse(text: &str) -> Result<Target, String> {
        let usage = || format!("{text:?} is not NAME=URL,PID[,PID...]");
        let (name, rest) = text.split_once('=').ok_or_else(usage)?;
        let (url, pids) = rest.split_once(',').ok_or_else(usage)?;
        let pids: Result<Vec<u32>, _> = pids.split(',').map(str::parse).collect();
        Ok(Target {
            name: name.into(),
            url: url.into(),
            processes: Processes(pids.map_err(|_| usage())?),
        })
    }
}

#[derive(Clone)]
struct Subject {
    name: String,
    program: PathBuf,
    arguments: Vec<String>,
}

impl Subject {
    fn parse(text: &str) -> Result<Subject, String> {
        let (name, program) = text
            .split_once('=')
            .ok_or_else(|| format!("{text:?} is not NAME=PROGRAM"))?;
        Ok(Subject {
            name: name.into(),
            program: program.into(),
            arguments: Vec::new(),
        })
    }

    /// A subject of this program.
    fn own(name: &str) -> io::Result<Subject> {
        Ok(Subject {
            name: name.into(),
            program: env::current_exe()?,
            arguments: vec![name.into()],
        })
    }

    /// Whether the work has a meaning for it.
    fn does(&self, case: Case) -> bool {
        !self.name.starts_with("http-") || !matches!(case, Case::PushBuffered | Case::LatencyIdle)
    }

    /// Runs it and reads its report.
    fn run(&self, order: &Order) -> io::Result<Report> {
        let mut command = Command::new(&self.program);
        command
            .args(&self.arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped());
        for (flag, value) in [
            ("--url", order.url.clone()),
            ("--case", order.case.name()),
            ("--queue", order.queue.clone()),
            ("--in-flight", order.in_flight.to_string()),
            ("--partitions", order.partitions.to_string()),
            ("--messages", order.messages.to_string()),
            ("--warm-up", order.warm_up.to_string()),
        ] {
            command.args([flag, &value]);
        }
        let mut child = command.spawn()?;
        let ended = wait(&mut child)?;
        let mut said = String::new();
        if let Some(mut out) = child.stdout.take() {
            out.read_to_string(&mut said)?;
        }
        if !ended {
            return Err(io::Error::other(format!(
                "no end after {} s",
                LIMIT.as_secs()
            )));
        }
        serde_json::from_str(&said).map_err(|_| io::Error::other("no report"))
    }
}

/// Waits for the end; kills what does not come to one. A report is one line, which the pipe holds.
fn wait(child: &mut Child) -> io::Result<bool> {
    let begin = Instant::now();
    while child.try_wait()?.is_none() {
        if begin.elapsed() > LIMIT {
            child.kill()?;
            child.wait()?;
            return Ok(false);
        }
        thread::sleep(Duration::from_millis(20));
    }
    Ok(true)
}

/// Measures, prints, writes; false when a run went wrong.
pub fn run(plan: &Plan) -> io::Result<bool> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let works: Vec<Work> = work::all(plan.size)
        .into_iter()
        .filter(|work| plan.only.is_empty() || plan.only.contains(&work.case))
        .collect();
    let mut subjects = vec![Subject::own("http-load")?, Subject::own("http-ceiling")?];
    subjects.extend(plan.subjects.clone());
    let wanted = &plan.only_subjects;
    if let Some(name) = wanted
        .iter()
        .find(|name| subjects.iter().all(|s| s.name != **name))
    {
        return Err(io::Error::other(format!("there is no subject {name}")));
    }
    subjects.retain(|subject| wanted.is_empty() || wanted.contains(&subject.name));
    let mut results = Results {
        works: &works,
        brokers: plan
            .brokers
            .iter()
            .map(|broker| broker.name.as_str())
            .collect(),
        subjects: subjects
            .iter()
            .map(|subject| subject.name.as_str())
            .collect(),
        runs: BTreeMap::new(),
    };
    for (n, work) in works.iter().enumerate() {
        let begin = Instant::now();
        for round in 0..=plan.rounds {
            for subject in subjects.iter().filter(|one| one.does(work.case)) {
                for broker in &plan.brokers {
                    let runs = results.runs(n, &broker.name, &subject.name);
                    if runs.error.is_some() {
                        continue;
                    }
                    match measure(&runtime, broker, subject, work, round) {
                        // The first round warms everything up.
                        Ok(sample) if round > 0 => runs.samples.push(sample),
                        Ok(_) => {}
                        Err(error) => runs.error = Some(format!("round {round}: {error}")),
                    }
                }
            }
        }
        let (case, in_flight, partitions) = (work.case.name(), work.in_flight, work.partitions);
        let seconds = begin.elapsed().as_secs();
        eprintln!("{case}, {in_flight} in flight, partitions: {partitions}: {seconds} s");
    }
    results.write(&plan.out)?;
    results.print();
    results.print_ratios();
    goals::print(&results);
    Ok(results.runs.values().all(|runs| runs.error.is_none()))
}

/// One run on a queue of its own, and a look that every message is where it belongs.
fn measure(
    runtime: &Runtime,
    target: &Target,
    subject: &Subject,
    work: &Work,
    round: usize,
) -> io::Result<Sample> {
    let case = work.case;
    // Each partition and each connection is there before the clock runs.
    let warm_up = match case.pushes() {
        true => 2 * case.batch() * work.partitions.max(work.in_flight),
        false if case.is_filled() => 0,
        false => 5,
    };
    let order = Order {
        url: target.url.clone(),
        case,
        queue: format!("bench-{}-{}-{round}", std::process::id(), case.name()),
        in_flight: work.in_flight,
        partitions: work.partitions,
        messages: work.messages,
        warm_up,
    };
    let mut broker = runtime.block_on(Broker::open(&target.url))?;
    let queue = format!("{}-{}-{}", order.queue, work.partitions, subject.name);
    let order = Order { queue, ..order };
    if case.is_filled() {
        let fill = broker.fill(&order.queue, work.partitions, work.messages);
        runtime.block_on(fill)?;
    }
    let (watch, cpu) = (target.processes.watch(), target.processes.cpu_us()?);
    let report = subject.run(&order);
    let (cpu_us, broker_pss_mib) = (target.processes.cpu_us()? - cpu, watch.pss_mib());
    let report = report?;
    if report.messages != work.messages {
        let (found, wanted) = (report.messages, work.messages);
        return Err(io::Error::other(format!(
            "{found} messages instead of {wanted}"
        )));
    }
    runtime.block_on(async {
        if case.pushes() {
            broker.drain(&order.queue, work.messages + warm_up).await?;
        }
        broker.expect_empty(&order.queue).await?;
        broker.delete(&order.queue).await
    })?;
    Ok(Sample {
        report,
        // The warm-up is work too.
        broker_cpu_us_per_msg: cpu_us / (work.messages + warm_up) as f64,
        broker_pss_mib,
    })
}

#[cfg(test)]
mod tests {
    use clap::ValueEnum;

    use super::*;

    #[test]
    fn brokers_and_subjects_are_named() {
        let broker = Target::parse("official=http://127.0.0.1:1,23,45").unwrap();
        assert_eq!(
            (broker.name.as_str(), broker.url.as_str()),
            ("official", "http://127.0.0.1:1")
        );
        assert_eq!(broker.processes.0, [23, 45]);
        for wrong in ["official", "official=http://127.0.0.1:1", "a=b,c"] {
            assert!(Target::parse(wrong).is_err(), "{wrong}");
        }
        assert!(Subject::parse("libqueen-c=/bin/true").is_ok_and(|s| s.name == "libqueen-c"));
        assert!(Subject::parse("libqueen-c").is_err());
    }

    #[test]
    fn every_case_can_be_named() {
        for case in Case::value_variants() {
            assert_eq!(Case::from_str(&case.name(), false).unwrap(), *case);
        }
    }
}
