//! A running broker, asked over HTTP.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;

use super::{InspectError, Inspection, Source, survey};

/// How long a connection, or a pause within an answer, may take.
const PATIENCE: Duration = Duration::from_secs(30);
/// The largest answer, in bytes.
const MOST: u64 = 1 << 30;

/// Asks a broker what it holds: all queues, or one. The URL is `http://host:port`, also of an official broker, or
/// `unix:/path`, as `queen-broker serve` prints them. Changes nothing there.
///
/// Blocks until everything is answered; each request has 30 seconds.
pub fn inspect_server(
    url: &str,
    token: Option<&str>,
    queue: Option<&str>,
) -> Result<Inspection, InspectError> {
    let mut server = Server::new(url, token)?;
    Ok(Inspection {
        source: url.to_owned(),
        owner_pid: None,
        queues: survey(&mut server, queue)?,
    })
}

enum Door {
    /// `host:port`.
    Tcp(String),
    Unix(String),
}

struct Server<'a> {
    url: &'a str,
    door: Door,
    host: String,
    /// What the URL has before the routes.
    prefix: String,
    token: Option<&'a str>,
}

impl<'a> Server<'a> {
    fn new(url: &'a str, token: Option<&'a str>) -> Result<Server<'a>, InspectError> {
        let refuse = |reason: &str| {
            Err(InspectError::Server {
                url: url.into(),
                reason: reason.into(),
            })
        };
        if token.is_some_and(|token| token.contains(|c: char| c.is_control())) {
            return refuse("the token has control characters");
        }
        let (door, host, prefix) = if let Some(path) = url.strip_prefix("unix:") {
            (Door::Unix(path.into()), "localhost", "")
        } else if let Some(rest) = url.strip_prefix("http://") {
            let rest = rest.trim_end_matches('/');
            let (host, prefix) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
            let has_port = host
                .rsplit_once(':')
                .is_some_and(|(_, port)| !port.contains(']'));
            let address = match has_port {
                true => host.into(),
                false => format!("{host}:80"),
            };
            (Door::Tcp(address), host, prefix)
        } else {
            return refuse(
                "it must begin with http:// or unix:; TLS is not spoken here, so go past the proxy",
            );
        };
        if url.contains(|c: char| c.is_control() || c == ' ') {
            return refuse("it has a space or control characters");
        }
        Ok(Server {
            url,
            door,
            host: host.into(),
            prefix: prefix.into(),
            token,
        })
    }

    fn failed(&self, reason: impl std::fmt::Display) -> InspectError {
        InspectError::Server {
            url: self.url.into(),
            reason: reason.to_string(),
        }
    }

    /// The answer to a GET; nothing for 404.
    fn get(&self, route: &str) -> Result<Option<Value>, InspectError> {
        let (status, body) = self.exchange(route).map_err(|error| {
            self.failed(format!("no answer: {error}; does the broker run there?"))
        })?;
        match status {
            200 => {}
            404 => return Ok(None),
            401 | 403 => {
                return Err(self.failed(format!(
                    "HTTP {status}: the broker wants a token that may read; give it with --token-file"
                )));
            }
            _ => {
                let text = String::from_utf8_lossy(&body);
                let text: String = text.chars().take(200).collect();
                return Err(self.failed(format!("HTTP {status} to GET {route}: {text}")));
            }
        }
        serde_json::from_slice(&body)
            .map(Some)
            .map_err(|error| self.odd(&error.to_string()))
    }

    fn must(&self, route: &str) -> Result<Value, InspectError> {
        self.get(route)?
            .ok_or_else(|| self.failed(format!("HTTP 404 to GET {route}: it is no Queen broker")))
    }

    /// One request of HTTP/1.0, which ends with the connection and so needs no more than this.
    fn exchange(&self, route: &str) -> io::Result<(u16, Vec<u8>)> {
        let mut request = format!(
            "GET {}{route} HTTP/1.0\r\nHost: {}\r\nAccept: application/json\r\n",
            self.prefix, self.host
        );
        if let Some(token) = self.token {
            request.push_str(&format!("Authorization: Bearer {token}\r\n"));
        }
        request.push_str("\r\n");
        let mut answer = Vec::new();
        match &self.door {
            Door::Tcp(address) => {
                let mut stream = connect(address)?;
                stream.set_read_timeout(Some(PATIENCE))?;
                stream.set_write_timeout(Some(PATIENCE))?;
                stream.write_all(request.as_bytes())?;
                stream.take(MOST).read_to_end(&mut answer)?;
            }
            Door::Unix(path) => {
                let mut stream = UnixStream::connect(path)?;
                stream.set_read_timeout(Some(PATIENCE))?;
                stream.set_write_timeout(Some(PATIENCE))?;
                stream.write_all(request.as_bytes())?;
                stream.take(MOST).read_to_end(&mut answer)?;
            }
        }
        parse(&answer)
            .ok_or_else(|| io::Error::new(ErrorKind::InvalidData, "it is no HTTP, or cut off"))
    }
}

fn connect(address: &str) -> io::Result<TcpStream> {
    let mut last = io::Error::new(ErrorKind::InvalidInput, "the name has no address");
    for address in address.to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, PATIENCE) {
            Ok(stream) => return Ok(stream),
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// Status and body of a whole answer.
fn parse(answer: &[u8]) -> Option<(u16, Vec<u8>)> {
    let end = answer.windows(4).position(|four| four == b"\r\n\r\n")?;
    let (head, body) = answer.split_at_checked(end + 4)?;
    let head = std::str::from_utf8(head).ok()?;
    let mut lines = head.lines();
    let mut first = lines.next()?.split(' ');
    let version = first.next()?;
    let status = first.next()?.parse().ok()?;
    let length = lines
        .filter_map(|line| line.split_once(':'))
        .find(|(name, _)| name.eq_ignore_ascii_case("content-length"));
    let whole = match length {
        Some((_, length)) => length.trim().parse() == Ok(body.len()),
        None => true,
    };
    (version.starts_with("HTTP/") && whole).then(|| (status, body.to_vec()))
}

/// A name as a part of a path.
fn segment(name: &str) -> String {
    utf8_percent_encode(name, NON_ALPHANUMERIC).to_string()
}

impl Source for Server<'_> {
    fn queues(&mut self) -> Result<Value, InspectError> {
        self.must("/api/v1/resources/queues")
    }

    fn queue(&mut self, name: &str) -> Result<Option<Value>, InspectError> {
        self.get(&format!("/api/v1/resources/queues/{}", segment(name)))
    }

    fn groups(&mut self) -> Result<Value, InspectError> {
        self.must("/api/v1/consumer-groups")
    }

    fn group(&mut self, name: &str) -> Result<Value, InspectError> {
        self.must(&format!("/api/v1/consumer-groups/{}", segment(name)))
    }

    fn odd(&self, what: &str) -> InspectError {
        self.failed(format!("the answer is not that of a broker: {what}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_read_whole_or_not_at_all() {
        let ok = |text: &str| parse(text.as_bytes());
        assert_eq!(
            ok("HTTP/1.0 200 OK\r\nA: b\r\nContent-Length: 2\r\n\r\n{}"),
            Some((200, b"{}".to_vec()))
        );
        assert_eq!(
            ok("HTTP/1.1 404 Not Found\r\n\r\n"),
            Some((404, Vec::new()))
        );
        assert_eq!(ok("HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\n{}"), None);
        assert_eq!(ok("HTTP/1.1 200 OK\r\nA: b\r\n"), None);
        assert_eq!(ok("SSH-2.0-x 200 \r\n\r\n"), None);
        assert_eq!(ok(""), None);
    }

    #[test]
    fn urls_name_a_door() {
        let tcp = |url| match Server::new(url, None) {
            Ok(Server {
                door: Door::Tcp(address),
                prefix,
                ..
            }) => (address, prefix),
            _ => panic!("{url}"),
        };
        assert_eq!(tcp("http://a:1"), ("a:1".into(), "".into()));
        assert_eq!(tcp("http://a/"), ("a:80".into(), "".into()));
        assert_eq!(tcp("http://[::1]/x/y/"), ("[::1]:80".into(), "/x/y".into()));
        assert_eq!(tcp("http://[::1]:6632"), ("[::1]:6632".into(), "".into()));
        assert!(Server::new("https://a", None).is_err());
        assert!(Server::new("http://a\r\nb", None).is_err());
        assert!(Server::new("http://a", Some("x\r\nX: y")).is_err());
    }
}
