//! A server that plays a script: answers that no broker gives on demand.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rustix::net::{AddressFamily, SocketType, bind, getsockname, socket, sockopt};

/// What the server does with a request.
pub enum Reply {
    /// A whole answer; the connection stays.
    Answer(String),
    /// These bytes as they are, then the end of the connection.
    Part(Vec<u8>),
    /// The first bytes at once, the rest one at a time with a pause before each.
    Slow(String, Duration),
    /// No answer: the connection is reset.
    Reset,
    /// No answer at all until the client leaves.
    Silence,
}

/// An answer of that status line and headers (without the length), with that body.
pub fn answer(head: &str, body: &str) -> Reply {
    Reply::Answer(whole(head, body))
}

/// A JSON answer of that status.
pub fn json(status: u16, body: &str) -> Reply {
    answer(
        &format!("{status} Scripted\r\ncontent-type: application/json"),
        body,
    )
}

/// The text of an answer.
pub fn whole(head: &str, body: &str) -> String {
    let length = match head.starts_with("204") {
        true => String::new(),
        false => format!("content-length: {}\r\n", body.len()),
    };
    format!("HTTP/1.1 {head}\r\n{length}\r\n{body}")
}

/// A request as it came.
#[derive(Clone, Debug)]
pub struct Seen {
    /// How many came before it.
    pub number: usize,
    /// Which connection it came on.
    pub connection: usize,
    pub at: Instant,
    /// Method and target.
    pub line: String,
    /// With the names in lower case.
    pub headers: Vec<(String, String)>,
    pub body: String,
}

impl Seen {
    /// The value of a header.
    pub fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(key, _)| key == name)?;
        Some(&found.1)
    }
}

/// Wraps a connection, in TLS for instance; an error ends it.
pub type Wrap = Arc<dyn Fn(TcpStream) -> std::io::Result<Box<dyn Stream>> + Send + Sync>;

/// A connection of whatever kind.
pub trait Stream: Read + Write {}
impl<T: Read + Write> Stream for T {}

/// A running server. It lives as long as the test.
pub struct Script {
    pub url: String,
    seen: Arc<Mutex<Vec<Seen>>>,
    open: Arc<AtomicUsize>,
}

impl Script {
    /// Answers each request as `play` says.
    pub fn start(play: impl Fn(&Seen) -> Reply + Send + Sync + 'static) -> Script {
        Script::with("http", Arc::new(|stream| Ok(Box::new(stream))), play)
    }

    /// The same on connections that are wrapped.
    pub fn with(
        scheme: &str,
        wrap: Wrap,
        play: impl Fn(&Seen) -> Reply + Send + Sync + 'static,
    ) -> Script {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("{scheme}://{}", listener.local_addr().unwrap());
        let seen = Arc::new(Mutex::new(Vec::new()));
        let open = Arc::new(AtomicUsize::new(0));
        let script = Script {
            url,
            seen: seen.clone(),
            open: open.clone(),
        };
        let play = Arc::new(play);
        std::thread::spawn(move || {
            for (connection, stream) in listener.incoming().enumerate() {
                let Ok(stream) = stream else { continue };
                let (wrap, play, seen) = (wrap.clone(), play.clone(), seen.clone());
                let open = open.clone();
                open.fetch_add(1, Ordering::SeqCst);
                std::thread::spawn(move || {
                    serve(stream, connection, &wrap, &*play, &seen);
                    open.fetch_sub(1, Ordering::SeqCst);
                });
            }
        });
        script
    }

    /// The requests so far.
    pub fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    /// How many connections are open.
    pub fn open(&self) -> usize {
        self.open.load(Ordering::SeqCst)
    }

    /// How many requests came so far.
    pub fn count(&self) -> usize {
        self.seen.lock().unwrap().len()
    }

    /// How many requests for a path with that in it came so far.
    pub fn count_of(&self, path: &str) -> usize {
        let seen = self.seen.lock().unwrap();
        seen.iter().filter(|seen| seen.line.contains(path)).count()
    }
}

/// The URL of a port at which nobody listens. It stays taken, so that no server of another test gets it.
pub fn nobody() -> String {
    let socket = socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
    bind(&socket, &SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = SocketAddrV4::try_from(getsockname(&socket).unwrap()).unwrap();
    std::mem::forget(socket);
    format!("http://{address}")
}

fn serve(
    stream: TcpStream,
    connection: usize,
    wrap: &Wrap,
    play: &dyn Fn(&Seen) -> Reply,
    seen: &Mutex<Vec<Seen>>,
) {
    let _ = stream.set_nodelay(true);
    let Ok(raw) = stream.try_clone() else { return };
    let Ok(mut stream) = wrap(stream) else { return };
    while let Some(mut request) = request(&mut *stream, connection) {
        {
            let mut seen = seen.lock().unwrap();
            request.number = seen.len();
            seen.push(request.clone());
        }
        let written = match play(&request) {
            Reply::Answer(text) => stream.write_all(text.as_bytes()),
            Reply::Slow(text, pause) => text.bytes().try_for_each(|byte| {
                std::thread::sleep(pause);
                stream.write_all(&[byte])?;
                stream.flush()
            }),
            Reply::Part(bytes) => {
                let _ = stream.write_all(&bytes);
                let _ = stream.flush();
                return;
            }
            Reply::Reset => {
                reset(&raw);
                return;
            }
            Reply::Silence => {
                while matches!(stream.read(&mut [0; 1024]), Ok(read) if read > 0) {}
                return;
            }
        };
        if written.and_then(|()| stream.flush()).is_err() {
            return;
        }
    }
}

/// With no time to linger the close is a reset.
fn reset(stream: &TcpStream) {
    sockopt::set_socket_linger(stream, Some(Duration::ZERO)).unwrap();
}

/// Reads one request; none at the end of the connection.
fn request(stream: &mut dyn Stream, connection: usize) -> Option<Seen> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        if !matches!(stream.read(&mut byte), Ok(1)) {
            return None;
        }
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).ok()?;
    let mut lines = head.trim_end().split("\r\n");
    let line = lines.next()?.rsplit_once(' ')?.0.to_owned();
    let headers: Vec<_> = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
        .collect();
    let length = headers
        .iter()
        .find(|(name, _)| name == "content-length")
        .map_or(Some(0), |(_, value)| value.parse().ok())?;
    let mut body = vec![0; length];
    stream.read_exact(&mut body).ok()?;
    Some(Seen {
        number: 0,
        connection,
        at: Instant::now(),
        line,
        headers,
        body: String::from_utf8(body).ok()?,
    })
}
