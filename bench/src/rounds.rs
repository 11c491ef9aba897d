//! The rounds: in each, every subject does the work on every broker, in turn.

use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::io::{self, Read};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use clap::Args;
use tokio::runtime::Runtime;

use crate::broker::Broker;
use crate::budget::{self, Trial};
use crate::goals;
use crate::place::Target;
use crate::plot;
use crate::process::Watch;
use crate::results::{Results, Sample};
use crate::work::{self, Case, Order, Report, Size, Work};

/// One that takes longer has got stuck.
const LIMIT: Duration = Duration::from_secs(180);
/// A poll that begins right after a partition was made may be parked for a second by the official broker, whoever polls.
const FOUND: Duration = Duration::from_millis(1100);
/// Who does a message of each partition in that time is quick, and does so many.
const QUICK_SECONDS: f64 = 1.2;
const MORE: u64 = 5;

/// What to measure.
#[derive(Args)]
pub struct Plan {
    /// A broker and its processes: NAME=URL,PID[,PID...]. The first is compared with each other one.
    #[arg(long = "broker", value_parser = Target::parse)]
    brokers: Vec<Target>,
    /// The broker `in-process`, for the subjects of libqueen: STORE,PROGRAM, the file and the program that serves it before
    /// and after.
    #[arg(long, value_parser = Target::parse_inside)]
    in_process: Option<Target>,
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
    /// Rounds that count.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// What all runs may take together, in seconds; slow ones get fewer messages, as a first round finds out that does not
    /// count. Without it every run gets all messages, and there is no such round.
    #[arg(long)]
    seconds: Option<f64>,
    /// The folder for results.json, rounds.json and results.svg.
    #[arg(long)]
    out: PathBuf,
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

    /// Whether the work has a meaning for it there.
    fn does(&self, case: Case, broker: &Target) -> bool {
        if case == Case::StreamWindows {
            // The official broker of today has no streams.
            return self.name == "libqueen-rust" && broker.name != "official";
        }
        if self.name == "official-python-0.7" && !case.pushes() {
            // It takes the official broker's answer to its acks, a bare list, for an error.
            return false;
        }
        let over_http = self.name.starts_with("http-");
        let buffers = matches!(case, Case::PushBuffered | Case::LatencyIdle);
        !(over_http && buffers) && (!broker.is_inside() || self.name.starts_with("libqueen-"))
    }

    /// Whether it comes to an end in a time that can be waited for: with 512 pushes in flight the official Python client takes a
    /// minute for a thousand messages.
    fn bears(&self, work: &Work) -> bool {
        !self.name.starts_with("official-python") || work.in_flight <= 64
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
    let begin = Instant::now();
    let works: Vec<Work> = work::all(plan.size)
        .into_iter()
        .filter(|work| plan.only.is_empty() || plan.only.contains(&work.case))
        .collect();
    let subjects = plan.subjects()?;
    let brokers: Vec<&Target> = plan.brokers.iter().chain(&plan.in_process).collect();
    let mut bench = Bench {
        runtime: tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?,
        messages: BTreeMap::new(),
        results: Results {
            works: &works,
            brokers: brokers.iter().map(|broker| broker.name.as_str()).collect(),
            subjects: subjects
                .iter()
                .map(|subject| subject.name.as_str())
                .collect(),
            runs: BTreeMap::new(),
        },
    };
    let mut runs = Vec::new();
    for (n, work) in works.iter().enumerate() {
        for subject in &subjects {
            let brokers = brokers
                .iter()
                .filter(|broker| subject.does(work.case, broker) && subject.bears(work));
            runs.extend(brokers.map(|broker| Run {
                n,
                work,
                subject,
                broker,
            }));
        }
    }
    if let Some(seconds) = plan.seconds {
        bench.try_all(&runs, plan.rounds, seconds);
        eprintln!("first round: {} s", begin.elapsed().as_secs());
    }
    for (n, work) in works.iter().enumerate() {
        let begin = Instant::now();
        for round in 1..=plan.rounds {
            for run in runs.iter().filter(|run| run.n == n) {
                bench.measure(run, round);
            }
        }
        let (case, in_flight, partitions) = (work.case.name(), work.in_flight, work.partitions);
        let seconds = begin.elapsed().as_secs();
        eprintln!("{case}, {in_flight} in flight, partitions: {partitions}: {seconds} s");
    }
    let results = bench.results;
    results.write(&plan.out)?;
    fs::write(plan.out.join("results.svg"), plot::svg(&results))?;
    results.print();
    results.print_ratios();
    goals::print(&results);
    Ok(results.runs.values().all(|runs| runs.error.is_none()))
}

impl Plan {
    fn subjects(&self) -> io::Result<Vec<Subject>> {
        let mut subjects = vec![Subject::own("http-load")?, Subject::own("http-ceiling")?];
        subjects.extend(self.subjects.clone());
        let wanted = &self.only_subjects;
        if let Some(name) = wanted
            .iter()
            .find(|name| subjects.iter().all(|s| s.name != **name))
        {
            return Err(io::Error::other(format!("there is no subject {name}")));
        }
        subjects.retain(|subject| wanted.is_empty() || wanted.contains(&subject.name));
        Ok(subjects)
    }
}

/// One subject doing one work on one broker.
#[derive(Clone, Copy)]
struct Run<'a> {
    /// The place of the work in the plan.
    n: usize,
    work: &'a Work,
    subject: &'a Subject,
    broker: &'a Target,
}

impl<'a> Run<'a> {
    fn key(&self) -> (usize, &'a str, &'a str) {
        (self.n, &self.broker.name, &self.subject.name)
    }
}

struct Bench<'a> {
    runtime: Runtime,
    /// Of those that get fewer messages than planned.
    messages: BTreeMap<(usize, &'a str, &'a str), u64>,
    results: Results<'a>,
}

impl<'a> Bench<'a> {
    /// A round that does not count: it warms everything up and tells how many messages each run can get.
    fn try_all(&mut self, runs: &[Run<'a>], rounds: usize, seconds: f64) {
        let begin = Instant::now();
        let mut trials = Vec::new();
        for run in runs {
            match self.try_one(run) {
                Ok(trial) => trials.push((run, trial)),
                Err(error) => self.failed(run, 0, &error),
            }
        }
        let left = (seconds - begin.elapsed().as_secs_f64()).max(0.0);
        let each = trials.iter().map(|(run, trial)| (run.work, trial));
        let each = budget::seconds_for_each(each, left / rounds as f64);
        for (run, trial) in trials {
            let messages = trial.messages(run.work, each);
            self.messages.insert(run.key(), messages);
        }
    }

    /// With a message in each partition a quick subject is done before it has found its pace, so it does more, then and in all
    /// rounds.
    fn try_one(&self, run: &Run<'a>) -> io::Result<Trial> {
        let messages = run.work.part(run.work.messages / 20);
        let (sample, trial) = self.done(run, messages, 0)?;
        if messages == run.work.partitions && sample.report.seconds < QUICK_SECONDS {
            return Ok(self.done(run, run.work.part(MORE * messages), 0)?.1);
        }
        Ok(trial)
    }

    fn measure(&mut self, run: &Run<'a>, round: usize) {
        let key = run.key();
        if self.results.runs(key).error.is_some() {
            return;
        }
        let messages = self.messages.get(&key).copied();
        match self.done(run, messages.unwrap_or(run.work.messages), round) {
            Ok((sample, _)) => self.results.runs(key).samples.push(sample),
            Err(error) => self.failed(run, round, &error),
        }
    }

    fn failed(&mut self, run: &Run<'a>, round: usize, error: &io::Error) {
        self.results.runs(run.key()).error = Some(format!("round {round}: {error}"));
    }

    /// One run on a queue of its own, and a look that every message is where it belongs.
    fn done(&self, run: &Run, messages: u64, round: usize) -> io::Result<(Sample, Trial)> {
        let Run { work, broker, .. } = run;
        let case = work.case;
        // Each partition and each connection is there before the clock runs.
        let warm_up = match case.pushes() {
            true => 2 * case.batch() * work.partitions.max(work.in_flight),
            false if case.is_filled() => 0,
            false => 5,
        };
        let (pid, name, subject) = (std::process::id(), case.name(), &run.subject.name);
        let order = Order {
            url: broker.url(),
            case,
            queue: format!(
                "bench-{pid}-{name}-{round}-{}-{messages}-{subject}",
                work.partitions
            ),
            in_flight: work.in_flight,
            partitions: work.partitions,
            messages,
            warm_up,
        };
        let (begin, mut growing) = (Instant::now(), Duration::ZERO);
        if case.is_filled() {
            let filling = Instant::now();
            self.fill(broker, &order)?;
            growing += filling.elapsed();
            if broker.name == "official" {
                thread::sleep(FOUND);
            }
        }
        let watch = broker.processes().map(|processes| processes.watch());
        let cpu_before = broker.cpu_us()?;
        let report = run.subject.run(&order);
        let cpu_after = broker.cpu_us()?;
        let broker_pss_mib = watch.map(Watch::pss_mib);
        let report = report?;
        if report.messages != messages {
            let found = report.messages;
            let error = format!("{found} messages instead of {messages}");
            return Err(io::Error::other(error));
        }
        growing += Duration::from_secs_f64(report.seconds);
        let draining = Instant::now();
        self.look(broker, &order)?;
        growing += draining.elapsed();
        let trial = Trial {
            messages,
            fixed: begin.elapsed().saturating_sub(growing),
            growing,
        };
        let sample = Sample {
            report,
            // The warm-up is work too.
            broker_cpu_us_per_msg: cpu_before
                .zip(cpu_after)
                .map(|(before, after)| (after - before) / (messages + warm_up) as f64),
            broker_pss_mib,
        };
        Ok((sample, trial))
    }

    fn fill(&self, target: &Target, order: &Order) -> io::Result<()> {
        let server = target.serve()?;
        self.runtime.block_on(async {
            let mut broker = Broker::open(&server.url).await?;
            broker
                .fill(&order.queue, order.partitions, order.messages)
                .await
        })?;
        server.end()
    }

    /// Nothing is lost, nothing is left, nothing is dead.
    fn look(&self, target: &Target, order: &Order) -> io::Result<()> {
        let server = target.serve()?;
        self.runtime.block_on(async {
            let mut broker = Broker::open(&server.url).await?;
            if order.case.pushes() {
                let messages = order.messages + order.warm_up;
                broker.drain(&order.queue, messages).await?;
            }
            broker.expect_empty(&order.queue).await?;
            broker.delete(&order.queue).await
        })?;
        server.end()
    }
}

#[cfg(test)]
mod tests {
    use clap::ValueEnum;

    use super::*;

    #[test]
    fn subjects_are_named() {
        assert!(Subject::parse("libqueen-c=/bin/true").is_ok_and(|s| s.name == "libqueen-c"));
        assert!(Subject::parse("libqueen-c").is_err());
    }

    #[test]
    fn who_does_what_where() {
        let subject = |name| Subject::parse(&format!("{name}=/bin/true")).unwrap();
        let server = Target::parse("official=http://127.0.0.1:1,1").unwrap();
        let inside = Target::parse_inside("/tmp/x.db,/bin/true").unwrap();
        assert!(subject("official-rust").does(Case::LatencyIdle, &server));
        assert!(!subject("official-rust").does(Case::PushSeq, &inside));
        assert!(subject("libqueen-rust").does(Case::PushSeq, &inside));
        assert!(subject("http-ceiling").does(Case::Consume, &server));
        assert!(!subject("http-ceiling").does(Case::PushBuffered, &server));
    }

    #[test]
    fn every_case_can_be_named() {
        for case in Case::value_variants() {
            assert_eq!(Case::from_str(&case.name(), false).unwrap(), *case);
        }
    }
}
