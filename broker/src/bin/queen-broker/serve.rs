//! `queen-broker serve`.

use std::io::Write;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use clap::builder::NonEmptyStringValueParser;
use queen_broker::{Broker, DefaultSubscription, Durability, Options, Store};
use rustix::process::{Resource, getrlimit, setrlimit};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

/// Serve a store over HTTP until SIGTERM or SIGINT.
#[derive(Args)]
pub struct Serve {
    /// Address and port; port 0 picks a free one. The first line printed tells which.
    #[arg(long, default_value = "127.0.0.1:6632")]
    listen: SocketAddr,
    /// The store, an SQLite file that is created when it is missing. Without it everything is in memory.
    #[arg(long)]
    data: Option<PathBuf>,
    /// What an answered push survives: full (power failure), normal (crash of the process), memory (the same, but a
    /// power failure may cost the whole store).
    #[arg(long, default_value = "full")]
    durability: Durability,
    /// A secret that clients send as `Authorization: Bearer <token>`; may be given several times. Health and metrics
    /// need none.
    #[arg(long, value_parser = NonEmptyStringValueParser::new())]
    token: Vec<String>,
    /// The key of JSON Web Tokens (HS256), which clients send in the same way. Their `role` says what they open.
    #[arg(long, value_parser = NonEmptyStringValueParser::new())]
    jwt_secret: Option<String>,
    /// Where a new consumer group starts that does not say so: new (at the end), all (at the oldest message).
    #[arg(long, default_value = "new")]
    default_subscription: DefaultSubscription,
    /// The largest request body in bytes; a larger one is answered with 413.
    #[arg(long, default_value_t = Options::default().max_body_bytes)]
    max_body_bytes: usize,
}

impl Serve {
    pub fn run(self) -> ExitCode {
        let guarded = !self.token.is_empty() || self.jwt_secret.is_some();
        if !is_local(self.listen.ip()) && !guarded {
            eprintln!(
                "queen-broker: {} can be reached from other machines; give a --token or a --jwt-secret, or listen on \
             127.0.0.1",
                self.listen
            );
            return ExitCode::from(2);
        }
        raise_file_limit();
        match run(self) {
            Ok(()) => ExitCode::SUCCESS,
            Err(reason) => {
                eprintln!("queen-broker: {reason}");
                ExitCode::FAILURE
            }
        }
    }
}

/// A thousand waiting consumers are a thousand open connections; the usual limit is hardly more.
fn raise_file_limit() {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    // Without it the broker still works, for fewer clients.
    let _ = setrlimit(Resource::Nofile, limit);
}

fn is_local(address: IpAddr) -> bool {
    address.to_canonical().is_loopback()
}

fn run(serve: Serve) -> Result<(), String> {
    let store = serve.data.map_or(Store::Memory, Store::File);
    let options = Options {
        store,
        durability: serve.durability,
        tokens: serve.token,
        jwt_secret: serve.jwt_secret,
        default_subscription: serve.default_subscription,
        max_body_bytes: serve.max_body_bytes,
        ..Options::default()
    };
    let broker = Broker::open(options).map_err(|e| e.to_string())?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|e| format!("cannot start the runtime: {e}"))?;
    let served = runtime.block_on(listen(broker.clone(), serve.listen));
    broker.close();
    served
}

async fn listen(broker: Broker, address: SocketAddr) -> Result<(), String> {
    let listener = TcpListener::bind(address)
        .await
        .map_err(|e| format!("cannot listen on {address}: {e}"))?;
    let address = listener
        .local_addr()
        .map_err(|e| format!("cannot tell the address: {e}"))?;
    let handler = |e| format!("cannot wait for signals: {e}");
    let mut term = signal(SignalKind::terminate()).map_err(handler)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(handler)?;
    // Whoever started us may have closed its end; that is no reason to stop.
    let mut out = std::io::stdout();
    let _ = writeln!(out, "listening on http://{address}").and_then(|()| out.flush());
    let shutdown = async move {
        tokio::select! {
            _ = term.recv() => {}
            _ = interrupt.recv() => {}
        }
    };
    queen_broker::serve(broker, listener, shutdown)
        .await
        .map_err(|e| format!("serving failed: {e}"))
}
