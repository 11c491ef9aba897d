//! The brokers a contract test runs on.

use std::env;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, OnceLock, RwLock};
use std::time::{Duration, Instant};

use bytes::Bytes;
use queen_broker::{Broker, Options};

/// A broker to test against. Clones share it; it ends with the last of them.
#[derive(Clone)]
pub struct TestBroker {
    /// `embedded`, `tcp` or `official`.
    pub name: &'static str,
    /// The URL under which a client reaches it. `embedded:` gives each client a broker of its own.
    pub client_url: String,
    /// Held for reading by a test that shares the broker, for writing by one that must have it alone.
    pub turn: Arc<RwLock<()>>,
    wire: Arc<Wire>,
}

enum Wire {
    /// Opened by the first raw call.
    Embedded(Options, OnceLock<Broker>),
    Http {
        base: String,
        agent: ureq::Agent,
        _server: Option<Server>,
    },
}

/// A raw request.
pub struct Call {
    pub method: String,
    /// Path and query, percent-encoded.
    pub target: String,
    pub headers: Vec<(String, String)>,
    pub body: Option<Vec<u8>>,
}

/// What came back.
pub struct Reply {
    pub status: u16,
    pub headers: http::HeaderMap,
    pub text: String,
    pub took: Duration,
}

/// The brokers named by `QUEEN_TEST_BROKERS`.
pub fn brokers() -> Result<Vec<TestBroker>, String> {
    named(broker)
}

/// The same, but they want JSON Web Tokens that are signed with a secret. The official one has that of the transcripts.
pub fn guarded_brokers(jwt_secret: &str) -> Result<Vec<TestBroker>, String> {
    named(|name| match name {
        "embedded" => Ok(embedded(Options {
            jwt_secret: Some(jwt_secret.into()),
            ..Options::default()
        })),
        "tcp" => tcp(&["--jwt-secret", jwt_secret]),
        "official" => official("QUEEN_OFFICIAL_JWT_URL"),
        other => broker(other),
    })
}

fn named(make: impl Fn(&str) -> Result<TestBroker, String>) -> Result<Vec<TestBroker>, String> {
    let names = env::var("QUEEN_TEST_BROKERS").unwrap_or_else(|_| "embedded,tcp".into());
    names
        .split(',')
        .map(str::trim)
        .filter(|name| !name.is_empty())
        .map(make)
        .collect()
}

/// One broker by its name.
pub fn broker(name: &str) -> Result<TestBroker, String> {
    match name {
        "embedded" => Ok(embedded(Options::default())),
        "tcp" => tcp(&[]),
        "official" => official("QUEEN_OFFICIAL_URL"),
        other => Err(format!(
            "QUEEN_TEST_BROKERS: {other:?} is none of embedded, tcp, official"
        )),
    }
}

fn embedded(options: Options) -> TestBroker {
    TestBroker {
        name: "embedded",
        client_url: "embedded:".into(),
        turn: Arc::default(),
        wire: Arc::new(Wire::Embedded(options, OnceLock::new())),
    }
}

fn tcp(arguments: &[&str]) -> Result<TestBroker, String> {
    let (server, base) = Server::start(arguments)?;
    Ok(remote("tcp", base, Some(server)))
}

/// The official broker whose address stands in an environment variable.
fn official(variable: &str) -> Result<TestBroker, String> {
    let base = env::var(variable).map_err(|_| {
        format!("QUEEN_TEST_BROKERS names `official`: set {variable} to its address")
    })?;
    let base = base.trim_end_matches('/').to_owned();
    Ok(remote("official", base, None))
}

fn remote(name: &'static str, base: String, server: Option<Server>) -> TestBroker {
    let config = ureq::Agent::config_builder()
        .http_status_as_error(false)
        .timeout_global(Some(Duration::from_secs(90)))
        .build();
    let agent = ureq::Agent::new_with_config(config);
    let wire = Wire::Http {
        base: base.clone(),
        agent,
        _server: server,
    };
    TestBroker {
        name,
        client_url: base,
        turn: Arc::default(),
        wire: Arc::new(wire),
    }
}

impl TestBroker {
    /// Sends a raw request and waits for its answer.
    pub fn call(&self, call: Call) -> Result<Reply, String> {
        let began = Instant::now();
        let (status, headers, body) = match &*self.wire {
            Wire::Embedded(options, cell) => {
                let broker = match cell.get() {
                    Some(broker) => broker.clone(),
                    None => {
                        let opened = Broker::open(options.clone()).map_err(|e| e.to_string())?;
                        cell.get_or_init(|| opened).clone()
                    }
                };
                in_process(&broker, call)?
            }
            Wire::Http { base, agent, .. } => over_tcp(agent, base, call)?,
        };
        let took = began.elapsed();
        let text = String::from_utf8(body).map_err(|e| format!("the answer is not UTF-8: {e}"))?;
        Ok(Reply {
            status,
            headers,
            text,
            took,
        })
    }
}

type Parts = (u16, http::HeaderMap, Vec<u8>);

fn in_process(broker: &Broker, call: Call) -> Result<Parts, String> {
    let mut request = http::Request::builder()
        .method(call.method.as_str())
        .uri(&call.target);
    for (name, value) in &call.headers {
        request = request.header(name, value);
    }
    let request = request
        .body(Bytes::from(call.body.unwrap_or_default()))
        .map_err(|e| e.to_string())?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .map_err(|e| e.to_string())?;
    let (head, body) = runtime.block_on(broker.handle(request)).into_parts();
    Ok((head.status.as_u16(), head.headers, body.to_vec()))
}

fn over_tcp(agent: &ureq::Agent, base: &str, call: Call) -> Result<Parts, String> {
    let mut request = http::Request::builder()
        .method(call.method.as_str())
        .uri(format!("{base}{}", call.target));
    for (name, value) in &call.headers {
        request = request.header(name, value);
    }
    let sent = match call.body {
        Some(body) => agent.run(request.body(body).map_err(|e| e.to_string())?),
        None => agent.run(request.body(()).map_err(|e| e.to_string())?),
    };
    let (head, mut body) = sent
        .map_err(|e| format!("request failed: {e}"))?
        .into_parts();
    let body = body
        .with_config()
        .limit(256 << 20)
        .read_to_vec()
        .map_err(|e| format!("body: {e}"))?;
    Ok((head.status.as_u16(), head.headers, body))
}

/// A `queen-broker serve` of our own, ended when dropped.
pub struct Server {
    child: Child,
}

impl Server {
    /// Starts it on a free port with further arguments; returns it with its base URL.
    pub fn start(arguments: &[&str]) -> Result<(Server, String), String> {
        Server::start_at("127.0.0.1:0", arguments)
    }

    /// Starts it at that address.
    pub fn start_at(listen: &str, arguments: &[&str]) -> Result<(Server, String), String> {
        let program = program()?;
        let mut child = Command::new(&program)
            .args(["serve", "--listen", listen])
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|e| format!("cannot start {}: {e}", program.display()))?;
        let out = child.stdout.take();
        let server = Server { child };
        let mut line = String::new();
        let out = out.ok_or("no output of queen-broker")?;
        BufReader::new(out)
            .read_line(&mut line)
            .map_err(|e| e.to_string())?;
        let base = line.trim().strip_prefix("listening on ").map(str::to_owned);
        base.map(|base| (server, base))
            .ok_or_else(|| format!("queen-broker said {line:?} instead of its address"))
    }

    /// The id of the process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// `kill -9`.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

/// The server program.
pub fn program() -> Result<PathBuf, String> {
    if let Some(path) = env::var_os("QUEEN_BROKER_BIN") {
        return Ok(path.into());
    }
    // Tests run as target/<profile>/deps/<name>; programs lie one level up.
    let own = env::current_exe().map_err(|e| e.to_string())?;
    let path = own
        .parent()
        .and_then(|deps| deps.parent())
        .map(|dir| dir.join("queen-broker"));
    path.filter(|path| path.exists()).ok_or_else(|| {
        "queen-broker is not built: run `cargo build -p queen-broker` first, or set QUEEN_BROKER_BIN".into()
    })
}
