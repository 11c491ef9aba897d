//! Where the work is done: at a broker that runs all the time, or in one inside of the subject.

use std::io::{self, BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};

use crate::process::Processes;

/// A broker under measurement.
#[derive(Clone)]
pub struct Target {
    pub name: String,
    place: Place,
}

#[derive(Clone)]
enum Place {
    Server {
        url: String,
        processes: Processes,
    },
    /// The store of the subject's own broker. What is to be done with it before and after does a server of that program.
    Inside {
        program: PathBuf,
        store: PathBuf,
    },
}

impl Target {
    /// From NAME=URL,PID[,PID...]
    pub fn parse(text: &str) -> Result<Target, String> {
        let usage = || format!("{text:?} is not NAME=URL,PID[,PID...]");
        let (name, rest) = text.split_once('=').ok_or_else(usage)?;
        let (url, pids) = rest.split_once(',').ok_or_else(usage)?;
        let pids: Result<Vec<u32>, _> = pids.split(',').map(str::parse).collect();
        let processes = Processes(pids.map_err(|_| usage())?);
        Ok(Target {
            name: name.into(),
            place: Place::Server {
                url: url.into(),
                processes,
            },
        })
    }

    /// From STORE,PROGRAM
    pub fn parse_inside(text: &str) -> Result<Target, String> {
        let (store, program) = text
            .split_once(',')
            .ok_or_else(|| format!("{text:?} is not STORE,PROGRAM"))?;
        Ok(Target {
            name: "in-process".into(),
            place: Place::Inside {
                program: program.into(),
                store: store.into(),
            },
        })
    }

    /// Whether the broker runs inside of the subject, which is then one of libqueen.
    pub fn is_inside(&self) -> bool {
        matches!(self.place, Place::Inside { .. })
    }

    /// The URL for the subject.
    pub fn url(&self) -> String {
        match &self.place {
            Place::Server { url, .. } => url.clone(),
            Place::Inside { store, .. } => {
                format!("embedded://{}?durability=full", store.display())
            }
        }
    }

    /// The broker's processes, where they are not the subject's.
    pub fn processes(&self) -> Option<&Processes> {
        match &self.place {
            Place::Server { processes, .. } => Some(processes),
            Place::Inside { .. } => None,
        }
    }

    /// Processor time of the broker so far, where it is not the subject's.
    pub fn cpu_us(&self) -> io::Result<Option<f64>> {
        self.processes().map(Processes::cpu_us).transpose()
    }

    /// A server for the driver. One of a store inside must be ended before the subject begins.
    pub fn serve(&self) -> io::Result<Serving> {
        match &self.place {
            Place::Server { url, .. } => Ok(Serving {
                url: url.clone(),
                child: None,
            }),
            Place::Inside { program, store } => {
                let mut child = Command::new(program)
                    .arg("serve")
                    .arg("--data")
                    .arg(store)
                    .args(["--durability", "full", "--listen", "127.0.0.1:0"])
                    .stdin(Stdio::null())
                    .stdout(Stdio::piped())
                    .spawn()?;
                let mut line = String::new();
                if let Some(out) = child.stdout.take() {
                    BufReader::new(out).read_line(&mut line)?;
                }
                let url = line.trim().strip_prefix("listening on ");
                let url = url.map(str::to_owned);
                let mut serving = Serving {
                    url: String::new(),
                    child: Some(child),
                };
                serving.url = url.ok_or_else(|| io::Error::other("the store is not served"))?;
                Ok(serving)
            }
        }
    }
}

/// A server that runs.
pub struct Serving {
    pub url: String,
    child: Option<Child>,
}

impl Serving {
    /// Ends it if it was started for this; the store is closed then.
    pub fn end(mut self) -> io::Result<()> {
        let Some(mut child) = self.child.take() else {
            return Ok(());
        };
        kill_process(Pid::from_child(&child), Signal::TERM)?;
        match child.wait()?.success() {
            true => Ok(()),
            false => Err(io::Error::other("the server of the store has failed")),
        }
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn brokers_are_named() {
        let broker = Target::parse("official=http://127.0.0.1:1,23,45").unwrap();
        assert_eq!(
            (broker.name.as_str(), broker.url().as_str()),
            ("official", "http://127.0.0.1:1")
        );
        assert_eq!(broker.processes().unwrap().0, [23, 45]);
        for wrong in ["official", "official=http://127.0.0.1:1", "a=b,c"] {
            assert!(Target::parse(wrong).is_err(), "{wrong}");
        }
        let inside = Target::parse_inside("/tmp/x.db,/bin/true").unwrap();
        assert_eq!(inside.url(), "embedded:///tmp/x.db?durability=full");
        assert!(inside.processes().is_none() && inside.is_inside());
        assert!(Target::parse_inside("/tmp/x.db").is_err());
    }

    #[test]
    fn a_server_that_does_not_come_up_is_an_error() {
        let silent = Target::parse_inside("/tmp/x.db,/bin/true").unwrap();
        assert!(silent.serve().is_err());
    }
}
