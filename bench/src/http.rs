//! A light HTTP/1.1 client: one connection, one request at a time, no copy of the answer.

use std::io;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// An open connection.
pub struct Connection {
    stream: TcpStream,
    host: String,
    out: Vec<u8>,
    /// The answer at hand.
    answer: Vec<u8>,
}

/// What came back.
pub struct Answer<'a> {
    pub status: u16,
    pub body: &'a [u8],
}

impl Answer<'_> {
    /// The answer if its status is the one that is wanted.
    pub fn expect(self, status: u16) -> io::Result<Self> {
        if self.status == status {
            return Ok(self);
        }
        let text = String::from_utf8_lossy(self.body);
        Err(io::Error::other(format!(
            "status {} instead of {status}: {text:.200}",
            self.status
        )))
    }
}

impl Connection {
    pub async fn open(url: &str) -> io::Result<Connection> {
        let host = url
            .strip_prefix("http://")
            .ok_or_else(|| io::Error::other(format!("{url}: only http:// is known")))?
            .trim_end_matches('/');
        let stream = TcpStream::connect(host).await?;
        stream.set_nodelay(true)?;
        Ok(Connection {
            stream,
            host: host.to_owned(),
            out: Vec::new(),
            answer: Vec::new(),
        })
    }

    pub async fn get(&mut self, path: &str) -> io::Result<Answer<'_>> {
        self.ask("GET", path, "").await
    }

    pub async fn post(&mut self, path: &str, body: &str) -> io::Result<Answer<'_>> {
        self.ask("POST", path, body).await
    }

    pub async fn ask(&mut self, method: &str, path: &str, body: &str) -> io::Result<Answer<'_>> {
        self.out.clear();
        let length = body.len();
        let host = &self.host;
        // A vector takes everything.
        let _ = io::Write::write_fmt(
            &mut self.out,
            format_args!(
                "{method} {path} HTTP/1.1\r\nhost: {host}\r\ncontent-type: application/json\r\n\
                 content-length: {length}\r\n\r\n{body}"
            ),
        );
        self.stream.write_all(&self.out).await?;
        self.read().await
    }

    async fn read(&mut self) -> io::Result<Answer<'_>> {
        self.answer.clear();
        let (status, start, length) = loop {
            self.more().await?;
            let mut headers = [httparse::EMPTY_HEADER; 32];
            let mut head = httparse::Response::new(&mut headers);
            let parsed = head.parse(&self.answer).map_err(io::Error::other)?;
            if let httparse::Status::Complete(start) = parsed {
                let status = head.code.unwrap_or_default();
                break (status, start, length(status, head.headers)?);
            }
        };
        while self.answer.len() < start + length {
            self.answer.reserve(start + length - self.answer.len());
            self.more().await?;
        }
        Ok(Answer {
            status,
            body: &self.answer[start..start + length],
        })
    }

    async fn more(&mut self) -> io::Result<()> {
        self.answer.reserve(4096);
        match self.stream.read_buf(&mut self.answer).await? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            _ => Ok(()),
        }
    }
}

fn length(status: u16, headers: &[httparse::Header]) -> io::Result<usize> {
    if status == 204 {
        return Ok(0);
    }
    let found = headers
        .iter()
        .find(|header| header.name.eq_ignore_ascii_case("content-length"))
        .and_then(|header| std::str::from_utf8(header.value).ok()?.parse().ok());
    found.ok_or_else(|| io::Error::other("an answer without content-length"))
}
