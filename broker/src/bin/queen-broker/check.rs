//! `queen-broker check`.

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use queen_broker::OpenError;

/// Verify a store without changing it.
///
/// Looks at a store that no broker has open; one whose broker was killed is fine. Verifies the database file and its
/// layout, that every message can be read, that the offsets of each partition are without gaps, and that cursors, leases and dead letters are within their partitions. Prints one line for each
/// fault, and a last line that sums up.
///
/// Exit status: 0 no faults, 1 faults, 2 the store cannot be checked (in use, missing, not a store).
#[derive(Args)]
pub struct Check {
    /// The store.
    file: PathBuf,
}

impl Check {
    pub fn run(self) -> ExitCode {
        let file = self.file.display();
        // Whoever reads this may have enough before the end; the exit status still counts.
        let mut out = io::stdout().lock();
        match queen_broker::check(&self.file, |fault| drop(writeln!(out, "{fault}"))) {
            Ok(checked) => {
                let verdict = match checked.faults {
                    0 => "no faults".into(),
                    1 => "1 fault".into(),
                    n => format!("{n} faults"),
                };
                let (queues, partitions, messages) =
                    (checked.queues, checked.partitions, checked.messages);
                let _ = writeln!(
                    out,
                    "{file}: {verdict}; queues: {queues}, partitions: {partitions}, messages: {messages}"
                );
                ExitCode::from(u8::from(checked.faults > 0))
            }
            Err(error) => {
                match error {
                    OpenError::Locked {
                        owner_pid: Some(pid),
                        ..
                    } => crate::say(format!(
                        "cannot check {file}: process {pid} has it open; stop that broker first, or \
                         check a copy"
                    )),
                    error => crate::say(format!("cannot check {file}: {error}")),
                }
                ExitCode::from(2)
            }
        }
    }
}
