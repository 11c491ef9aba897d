//! What processes cost: memory and processor time of a broker with everything that belongs to it.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// Linux counts the time of processes in these.
const TICKS_PER_SECOND: f64 = 100.0;
const PAUSE: Duration = Duration::from_millis(200);

/// The processes of a broker: those that were named and all their descendants.
#[derive(Clone, Debug)]
pub struct Processes(pub Vec<u32>);

impl Processes {
    fn all(&self) -> BTreeSet<u32> {
        let mut found = BTreeSet::new();
        let mut open = self.0.clone();
        while let Some(pid) = open.pop() {
            if found.insert(pid) {
                let tasks = fs::read_dir(format!("/proc/{pid}/task"))
                    .into_iter()
                    .flatten();
                for task in tasks.flatten() {
                    let children = fs::read_to_string(task.path().join("children"));
                    let children = children.unwrap_or_default();
                    open.extend(
                        children
                            .split_whitespace()
                            .filter_map(|pid| pid.parse::<u32>().ok()),
                    );
                }
            }
        }
        found
    }

    /// Processor time so far, that of ended children included.
    pub fn cpu_us(&self) -> io::Result<f64> {
        let mut ticks = 0;
        for pid in self.all() {
            match fs::read_to_string(format!("/proc/{pid}/stat")) {
                // What comes before the last bracket is the name, which may contain anything.
                Ok(stat) => {
                    let fields = stat.rsplit(')').next().unwrap_or_default();
                    let times = fields.split_whitespace().skip(11).take(4);
                    ticks += times
                        .filter_map(|text| text.parse::<u64>().ok())
                        .sum::<u64>();
                }
                // It has ended meanwhile; its parent tells of it.
                Err(_) if !self.0.contains(&pid) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(ticks as f64 * 1e6 / TICKS_PER_SECOND)
    }

    /// The memory that is theirs: private pages, and their share of shared ones (PSS).
    fn pss_kib(&self) -> u64 {
        let all = self.all().into_iter();
        all.map(|pid| kib(&format!("/proc/{pid}/smaps_rollup"), "Pss:"))
            .sum()
    }

    /// Looks at the memory now and then until the watch is ended.
    pub fn watch(&self) -> Watch {
        let (processes, end) = (self.clone(), Arc::new(AtomicBool::new(false)));
        let ended = end.clone();
        let thread = thread::spawn(move || {
            let mut peak = 0;
            while !ended.load(Ordering::Relaxed) {
                peak = peak.max(processes.pss_kib());
                thread::park_timeout(PAUSE);
            }
            peak.max(processes.pss_kib())
        });
        Watch { end, thread }
    }
}

/// A look at memory that goes on.
pub struct Watch {
    end: Arc<AtomicBool>,
    thread: JoinHandle<u64>,
}

impl Watch {
    /// The peak.
    pub fn pss_mib(self) -> f64 {
        self.end.store(true, Ordering::Relaxed);
        self.thread.thread().unpark();
        self.thread.join().unwrap_or_default() as f64 / 1024.0
    }
}

/// The most memory that this process ever had.
pub fn peak_rss_mib() -> io::Result<f64> {
    match kib("/proc/self/status", "VmHWM:") {
        0 => Err(io::Error::other("/proc/self/status tells no VmHWM")),
        peak => Ok(peak as f64 / 1024.0),
    }
}

/// A number of KiB from a file of the kernel; 0 when the process is gone.
fn kib(path: &str, key: &str) -> u64 {
    let text = fs::read_to_string(path).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix(key));
    let number = line.and_then(|rest| rest.split_whitespace().next()?.parse().ok());
    number.unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_seen_with_its_children() {
        let mut child = std::process::Command::new("sleep")
            .arg("60")
            .spawn()
            .unwrap();
        let own = Processes(vec![std::process::id()]);
        let all = own.all();
        let memory = own.watch().pss_mib();
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(all.contains(&child.id()), "{all:?} without {}", child.id());
        assert!(memory > 0.5, "{memory}");
        assert!(peak_rss_mib().unwrap() > 0.5);
    }

    #[test]
    fn time_is_counted() {
        let own = Processes(vec![std::process::id()]);
        let before = own.cpu_us().unwrap();
        let mut n = 0_u64;
        while own.cpu_us().unwrap() == before {
            n = std::hint::black_box(n.wrapping_mul(3) + 1);
        }
        assert!(own.cpu_us().unwrap() > before);
    }

    #[test]
    fn a_root_that_is_gone_is_an_error() {
        assert!(Processes(vec![u32::MAX]).cpu_us().is_err());
    }
}
