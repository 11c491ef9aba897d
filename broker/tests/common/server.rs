//! The broker as a program of its own.

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

/// The program under test.
pub fn program() -> Command {
    Command::new(env!("CARGO_BIN_EXE_queen-broker"))
}

/// A running `queen-broker serve`, killed when dropped.
pub struct Server {
    pub child: Child,
    pub base: String,
}

impl Server {
    pub fn start(arguments: &[&str]) -> Server {
        Server::launch(&mut program(), arguments)
    }

    /// Starts it by a command that may carry an environment or another program in front.
    pub fn launch(command: &mut Command, arguments: &[&str]) -> Server {
        command.arg("serve").args(arguments);
        Server::spawn(command.args(["--listen", "127.0.0.1:0"]))
    }

    /// Listens on all addresses; `base` is the first of them.
    pub fn start_on(addresses: &[&str], arguments: &[&str]) -> Server {
        let mut command = program();
        command.arg("serve").args(arguments);
        for address in addresses {
            command.args(["--listen", address]);
        }
        Server::spawn(&mut command)
    }

    /// Starts a command that is whole, and reads where it listens.
    pub fn spawn(command: &mut Command) -> Server {
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        let base = line
            .trim()
            .strip_prefix("listening on ")
            .expect("the first line tells the address")
            .to_owned();
        Server { child, base }
    }

    pub fn address(&self) -> &str {
        self.base.strip_prefix("http://").unwrap()
    }

    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    pub fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(self.child.id() as i32).unwrap();
        kill_process(pid, signal).unwrap();
    }

    /// SIGTERM, and how it ended.
    pub fn terminate(&mut self) -> ExitStatus {
        self.signal(Signal::TERM);
        self.child.wait().unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs the program to its end: exit code and what it said on stderr.
pub fn run(arguments: &[&str]) -> (i32, String) {
    let (code, _, said) = output(arguments);
    (code, said)
}

/// Runs the program to its end: exit code, stdout, stderr.
pub fn output(arguments: &[&str]) -> (i32, String, String) {
    let output = program().args(arguments).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (
        output.status.code().unwrap(),
        text(output.stdout),
        text(output.stderr),
    )
}

/// A client that takes every status as an answer.
pub fn agent() -> ureq::Agent {
    let config = ureq::Agent::config_builder()
        .http_status_as_error(false)
        .timeout_global(Some(Duration::from_secs(60)))
        .build();
    ureq::Agent::new_with_config(config)
}

/// POST of a JSON body; an error is a broken connection.
pub fn post(agent: &ureq::Agent, url: &str, body: &Value) -> Result<(u16, Value), ureq::Error> {
    read(
        agent
            .post(url)
            .header("content-type", "application/json")
            .send(body.to_string())?,
    )
}

/// GET; an error is a broken connection.
pub fn get(agent: &ureq::Agent, url: &str) -> Result<(u16, Value), ureq::Error> {
    read(agent.get(url).call()?)
}

/// A request as it goes over a socket, whose connection ends with the answer.
pub fn request(method: &str, target: &str, body: &str) -> String {
    format!(
        "{method} {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

/// The answer to such a request: status and body.
pub fn answer(stream: &mut impl Read) -> (u16, String) {
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    let (head, body) = text
        .split_once("\r\n\r\n")
        .unwrap_or_else(|| panic!("{text:?}"));
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, body.to_owned())
}

fn read(mut response: http::Response<ureq::Body>) -> Result<(u16, Value), ureq::Error> {
    let text = response.body_mut().read_to_string()?;
    let body = if text.is_empty() {
        Value::Null
    } else {
        serde_json::from_str(&text).unwrap_or(Value::String(text))
    };
    Ok((response.status().as_u16(), body))
}
