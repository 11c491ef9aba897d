//! `queen-broker serve`.

use std::io::Write;
use std::process::{ExitCode, exit};
use std::str::FromStr;
use std::sync::Arc;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use clap::{ArgMatches, Args, Command, Error, FromArgMatches};
use queen_broker::{
    Address, Bound, Broker, Fault, FaultError, Options, SocketFile, SocketMode, Store,
};
use rustix::process::{Resource, getrlimit, setrlimit};
use tokio::runtime::Runtime;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::settings::{self, Settings};
use crate::{notify, say};

/// The flags of `serve`, which `settings` knows.
pub struct Serve(ArgMatches);

impl Args for Serve {
    fn augment_args(command: Command) -> Command {
        settings::flags(command)
            .about("Serve a store over HTTP until SIGTERM or SIGINT")
            .after_help(
                "A setting is taken from its flag, else from its variable in the environment, else from the file that \
                 --config names, else it has its default. A list in a variable is separated by commas, but \
                 for faults, which are JSON.\n\n\
                 SIGTERM or SIGINT: parked polls are answered, requests under way are finished, the store is closed. A \
                 second signal ends at once; nothing that was answered is lost by that. A service manager is told by \
                 NOTIFY_SOCKET when the broker is ready and when it ends.\n\n\
                 Exit status: 0 ended by a signal, 1 failed (address or store cannot be used, serving failed, ended by \
                 a second signal), 2 wrong settings.",
            )
    }

    fn augment_args_for_update(command: Command) -> Command {
        Serve::augment_args(command)
    }
}

impl FromArgMatches for Serve {
    fn from_arg_matches(flags: &ArgMatches) -> Result<Serve, Error> {
        Ok(Serve(flags.clone()))
    }

    fn update_from_arg_matches(&mut self, flags: &ArgMatches) -> Result<(), Error> {
        self.0 = flags.clone();
        Ok(())
    }
}

/// The settings, read.
struct Config {
    listen: Vec<Address>,
    socket_mode: SocketMode,
    options: Options,
    shutdown_timeout: Duration,
}

impl Config {
    fn new(settings: &Settings) -> Result<Config, String> {
        let mut tokens: Vec<String> = settings.all("token")?;
        if let Some((path, text)) = settings.contents("token-file")? {
            let found = text.lines().map(str::trim).filter(|line| !line.is_empty());
            let before = tokens.len();
            tokens.extend(found.map(str::to_owned));
            if tokens.len() == before {
                return Err(format!("token_file {} holds no token", path.display()));
            }
        }
        let jwt_secret = match (
            settings.maybe("jwt-secret")?,
            settings.contents("jwt-secret-file")?,
        ) {
            (Some(_), Some(_)) => return Err("give jwt_secret or jwt_secret_file, not both".into()),
            (Some(secret), None) => Some(secret),
            (None, None) => None,
            (None, Some((path, text))) => match text.trim_end_matches(['\r', '\n']) {
                "" => return Err(format!("jwt_secret_file {} is empty", path.display())),
                secret => Some(secret.to_owned()),
            },
        };
        let config = Config {
            listen: settings.all("listen")?,
            socket_mode: settings.one("socket-mode")?,
            options: Options {
                store: settings.path("data").map_or(Store::Memory, Store::File),
                durability: settings.one("durability")?,
                tokens,
                jwt_secret,
                default_subscription: settings.one("default-subscription")?,
                max_body_bytes: settings.one("max-body-bytes")?,
                testing: settings.one("testing")?,
                faults: faults(settings)?,
                on_warning: Some(Arc::new(|warning| say(format!("warning: {warning}")))),
            },
            shutdown_timeout: Duration::from_millis(settings.one("shutdown-timeout-millis")?),
        };
        if config.listen.is_empty() {
            return Err("listen is an empty list; name at least one address".into());
        }
        let guarded = !config.options.tokens.is_empty() || config.options.jwt_secret.is_some();
        match config.listen.iter().find(|address| !address.is_local()) {
            Some(address) if !guarded => Err(format!(
                "{address} can be reached from other machines; set a token (--token-file) or a JWT secret \
                 (--jwt-secret-file), or listen on 127.0.0.1"
            )),
            _ => Ok(config),
        }
    }
}

/// The faults to start with: each value is one of them or a list.
fn faults(settings: &Settings) -> Result<Vec<Fault>, String> {
    let given: Vec<Faults> = settings.all("fault")?;
    Ok(given.into_iter().flat_map(|faults| faults.0).collect())
}

struct Faults(Vec<Fault>);

impl FromStr for Faults {
    type Err = FaultError;

    fn from_str(text: &str) -> Result<Faults, FaultError> {
        Fault::parse_all(text).map(Faults)
    }
}

impl Serve {
    pub fn run(self) -> ExitCode {
        let settings = Settings::read(&self.0).and_then(|settings| {
            let config = Config::new(&settings)?;
            Ok((settings, config))
        });
        let (settings, config) = match settings {
            Ok(read) => read,
            Err(reason) => {
                say(reason);
                return ExitCode::from(2);
            }
        };
        if settings.print {
            let _ = write!(std::io::stdout(), "{}", settings.to_toml());
            return ExitCode::SUCCESS;
        }
        raise_file_limit();
        match serve(config) {
            Ok(()) => ExitCode::SUCCESS,
            Err(reason) => {
                say(reason);
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

fn serve(config: Config) -> Result<(), String> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|e| format!("cannot start the runtime: {e}"))?;
    let mut signals = {
        let _inside = runtime.enter();
        Signals::new().map_err(|e| format!("cannot wait for signals: {e}"))?
    };
    // Before the store, so that a wrong address leaves no new store behind.
    let bound = {
        let _inside = runtime.enter();
        bind(&config)?
    };
    let fresh = match &config.options.store {
        Store::File(path) if !path.exists() => Some(path.clone()),
        _ => None,
    };
    let Some(broker) = open(&runtime, &mut signals, config.options)? else {
        drop(bound);
        say("ended by a signal before the store was open");
        // Not by returning: that would wait for the store.
        exit(0);
    };
    if let Some(path) = fresh {
        // A mistyped path would otherwise look like an empty store.
        say(format!("{} is a new store", path.display()));
    }
    announce(&bound);
    notify::tell("READY=1");
    let (files, listeners): (Vec<_>, Vec<_>) = bound
        .into_iter()
        .map(|bound| (bound.file, bound.listener))
        .unzip();
    let (end, ended) = watch::channel(());
    let timeout = config.shutdown_timeout;
    let mut serving = JoinSet::new();
    for listener in listeners {
        let mut ended = ended.clone();
        let shutdown = async move { drop(ended.changed().await) };
        let serve = queen_broker::serve(broker.clone(), listener, shutdown, timeout);
        serving.spawn_on(serve, runtime.handle());
    }
    let served = runtime.block_on(async {
        tokio::select! {
            () = signals.any() => {}
            Some(served) = serving.join_next() => return finished(served),
        }
        notify::tell("STOPPING=1");
        let _ = end.send(());
        let began = Instant::now();
        watch_for_impatience(signals, files);
        while let Some(served) = serving.join_next().await {
            finished(served)?;
        }
        if began.elapsed() >= timeout {
            say(format!(
                "what was still under way after {} ms is cut off",
                timeout.as_millis()
            ));
        }
        Ok(())
    });
    close(runtime, broker, timeout)?;
    served
}

/// Opens the store, or nothing when a signal comes meanwhile: a large one takes its time, and to leave it half read, or half
/// brought up to date, does it no harm.
fn open(
    runtime: &Runtime,
    signals: &mut Signals,
    options: Options,
) -> Result<Option<Broker>, String> {
    let opening = runtime.spawn_blocking(|| Broker::open(options));
    runtime.block_on(async {
        tokio::select! {
            opened = opening => match opened {
                Ok(opened) => opened.map(Some).map_err(|e| e.to_string()),
                Err(error) => Err(format!("opening the store failed: {error}")),
            },
            () = signals.any() => Ok(None),
        }
    })
}

type Served = Result<std::io::Result<()>, tokio::task::JoinError>;

fn finished(served: Served) -> Result<(), String> {
    match served {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => Err(format!("serving failed: {error}")),
        Err(error) => Err(format!("serving failed: {error}")),
    }
}

fn bind(config: &Config) -> Result<Vec<Bound>, String> {
    let mut bound = Vec::new();
    for address in &config.listen {
        let found = address.bind(config.socket_mode);
        bound.push(found.map_err(|e| format!("cannot listen on {address}: {e}"))?);
    }
    Ok(bound)
}

/// Tells whoever started us where we listen. It may have closed its end; that is no reason to stop.
fn announce(bound: &[Bound]) {
    let mut out = std::io::stdout();
    for bound in bound {
        let _ = writeln!(out, "listening on {}", bound.url);
    }
    let _ = out.flush();
}

/// Ends the process when a second signal comes. What was answered is in the store, and the log of the store is made for
/// ends like this; only the socket files must go.
fn watch_for_impatience(mut signals: Signals, files: Vec<Option<SocketFile>>) {
    tokio::spawn(async move {
        signals.any().await;
        drop(files);
        say("ended by a second signal");
        exit(1);
    });
}

/// Closes the store; a disk that hangs does not hold the end up for ever.
fn close(runtime: Runtime, broker: Broker, timeout: Duration) -> Result<(), String> {
    let (done, closed) = mpsc::channel();
    thread::spawn(move || {
        broker.close();
        // The files of the sockets go with the tasks that own them.
        drop(runtime);
        let _ = done.send(());
    });
    let late = |_| {
        format!(
            "the store was not closed within {} ms; what was answered is in it",
            timeout.as_millis()
        )
    };
    closed
        .recv_timeout(timeout.max(Duration::from_secs(1)))
        .map_err(late)
}

/// The signals that end the program.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    /// Also asks for the signal of a file that may not grow further, which would otherwise kill the process; so the
    /// write fails, and the request with it.
    fn new() -> std::io::Result<Signals> {
        let _ = signal(SignalKind::from_raw(rustix::process::Signal::XFSZ.as_raw()))?;
        Ok(Signals {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    async fn any(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}
