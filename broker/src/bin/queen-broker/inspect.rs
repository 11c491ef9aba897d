//! `queen-broker inspect`.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use queen_broker::{InspectError, Inspection, OpenError};

/// Show what a store or a running broker holds: queues, partitions, groups, leases.
///
/// A file is read without changing it, also while a server has it open. A server is asked over HTTP and may be any Queen MQ
/// broker. WAITING counts what the slowest group has not finished, LEASED what is handed out of it, DEAD the dead letters, LAG
/// what a group has not finished.
///
/// Exit status: 0 shown, 2 cannot be shown (missing, not a store, no answer, wrong token, no such queue).
#[derive(Args)]
pub struct Inspect {
    /// A store, or the URL of a broker: `http://host:port`, or `unix:/path` for a socket file.
    #[arg(value_name = "FILE|URL")]
    target: String,
    /// Print JSON (docs/BROKER.md shows its shape).
    #[arg(long)]
    json: bool,
    /// Show this queue only.
    #[arg(long, value_name = "NAME")]
    queue: Option<String>,
    /// What the broker at the URL wants as `Authorization: Bearer SECRET`. Other users of the machine can read command
    /// lines: better use a file.
    #[arg(long, value_name = "SECRET", conflicts_with = "token_file")]
    token: Option<String>,
    /// A file with that secret in its first line.
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
}

impl Inspect {
    pub fn run(self) -> ExitCode {
        let inspection = match self.inspect() {
            Ok(inspection) => inspection,
            Err(reason) => {
                crate::say(reason);
                return ExitCode::from(2);
            }
        };
        let text = match self.json {
            true => serde_json::to_string_pretty(&inspection).map(|text| text + "\n"),
            false => Ok(inspection.to_string()),
        };
        match text {
            // Whoever reads this may have enough before the end.
            Ok(text) => drop(io::stdout().write_all(text.as_bytes())),
            Err(error) => {
                crate::say(error);
                return ExitCode::from(2);
            }
        }
        ExitCode::SUCCESS
    }

    fn inspect(&self) -> Result<Inspection, String> {
        let target = &self.target;
        let queue = self.queue.as_deref();
        let token = match (&self.token, &self.token_file) {
            (Some(token), _) => Some(token.clone()),
            (None, Some(path)) => Some(first_line(path)?),
            (None, None) => None,
        };
        let is_url = ["http:", "https:", "unix:"]
            .iter()
            .any(|kind| target.starts_with(kind));
        let inspected = match is_url {
            true => queen_broker::inspect_server(target, token.as_deref(), queue),
            false => queen_broker::inspect(Path::new(target), queue),
        };
        inspected.map_err(|error| match error {
            InspectError::Store(OpenError::Store { .. }) => {
                format!("{error}; if a server has it open, ask that by its URL")
            }
            error => error.to_string(),
        })
    }
}

fn first_line(path: &Path) -> Result<String, String> {
    let name = path.display();
    let text = std::fs::read_to_string(path)
        .map_err(|e| format!("--token-file: cannot read {name}: {e}"))?;
    let line = text.lines().map(str::trim).find(|line| !line.is_empty());
    line.map(str::to_owned)
        .ok_or_else(|| format!("--token-file: {name} holds no token"))
}
