//! A broker that runs: its store, its listeners, and the requests that are under way.

use std::convert::Infallible;
use std::time::Duration;

use bytes::Bytes;
use queen_broker::{Address, Bound, Broker, NoAnswer, SocketFile, SocketMode};
use tokio::runtime::Runtime;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use super::options::BrokerOptions;
use crate::error::{Error, ErrorCode, Result};
use crate::options::invalid;
use crate::runtime::{self, Life, Living};
use crate::sys;
use crate::transport::{Asked, FileClaim, Lost, open_broker};

/// How long the threads of the listeners may take to end.
const PROMPT: Duration = Duration::from_secs(5);

pub(super) struct Running {
    pub(super) broker: Broker,
    server: Option<Server>,
    claim: Option<FileClaim>,
    /// Held by every request of this process.
    under_way: mpsc::Sender<Infallible>,
    drained: mpsc::Receiver<Infallible>,
    /// Whether the requests of this process are cut off.
    cut: watch::Sender<bool>,
    _living: Living,
}

/// The listeners, on threads of their own.
struct Server {
    runtime: Threads,
    end: watch::Sender<bool>,
    serving: Vec<JoinHandle<std::io::Result<()>>>,
    files: Vec<SocketFile>,
}

/// A runtime that may be dropped anywhere.
struct Threads(Option<Runtime>);

impl Drop for Threads {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

impl Running {
    /// Opens listeners and store. Gives the addresses as they came to be. Blocks while the store is opened.
    pub(super) fn begin(
        name: &str,
        options: &BrokerOptions,
        addresses: &[Address],
    ) -> Result<(Running, Vec<String>)> {
        // Before the store, so that a wrong address leaves no new store behind.
        let listening = Listening::open(addresses)?;
        let mut for_broker = options.for_broker();
        let claim = match &options.data {
            Some(path) => {
                let claim = FileClaim::new(path, name)?;
                for_broker.store = queen_broker::Store::File(claim.path.clone());
                Some(claim)
            }
            None => None,
        };
        let broker = open_broker(for_broker)?;
        let (urls, server) = match listening {
            Some(listening) => {
                let urls = listening.bound.iter().map(|bound| bound.url.clone());
                (urls.collect(), Some(listening.serve(&broker)))
            }
            None => (Vec::new(), None),
        };
        let (under_way, drained) = mpsc::channel(1);
        let running = Running {
            broker,
            server,
            claim,
            under_way,
            drained,
            cut: watch::Sender::new(false),
            _living: Living::new(Life::Inner),
        };
        Ok((running, urls))
    }

    /// Answers a request of this process.
    pub(super) fn ask(&self, request: http::Request<Bytes>) -> Asked<'static> {
        let (broker, under_way) = (self.broker.clone(), self.under_way.clone());
        let mut cut = self.cut.subscribe();
        Box::pin(async move {
            let _under_way = under_way;
            let response = tokio::select! {
                biased;
                _ = cut.wait_for(|cut| *cut) => return Err(Lost::Cut),
                response = broker.handle(request) => response,
            };
            match response.extensions().get() {
                None => Ok(response),
                Some(NoAnswer::NotHttp) => Err(Lost::NotHttp),
                Some(_) => Err(Lost::Cut),
            }
        })
    }

    /// Ends it: within `grace` in good order, without it or after it by cutting all connections. Completes when the
    /// store is closed and the addresses are free.
    pub(super) async fn end(self, grace: Option<Duration>) {
        let Running {
            broker,
            server,
            claim,
            under_way,
            mut drained,
            cut,
            _living,
        } = self;
        drop(under_way);
        let mut server = server;
        if let Some(grace) = grace {
            broker.end_polls();
            let in_good_order = async {
                if let Some(server) = &mut server {
                    server.end.send_replace(true);
                    for serving in &mut server.serving {
                        let _ = serving.await;
                    }
                }
                drained.recv().await;
            };
            let _ = tokio::time::timeout(grace, in_good_order).await;
        }
        cut.send_replace(true);
        let close = move || {
            if let Some(mut server) = server {
                if let Some(runtime) = server.runtime.0.take() {
                    runtime.shutdown_timeout(PROMPT);
                }
                drop(server.files);
            }
            broker.close();
            drop((claim, _living));
        };
        let _ = tokio::task::spawn_blocking(close).await;
    }
}

/// Listeners that do not answer yet.
struct Listening {
    runtime: Threads,
    bound: Vec<Bound>,
}

impl Listening {
    fn open(addresses: &[Address]) -> Result<Option<Listening>> {
        if addresses.is_empty() {
            return Ok(None);
        }
        let threads = std::thread::available_parallelism().map_or(1, |n| n.get().min(2));
        let runtime = sys::with_signals_blocked(|| {
            tokio::runtime::Builder::new_multi_thread()
                .worker_threads(threads)
                .thread_name("queen-broker")
                .enable_all()
                .on_thread_start(|| runtime::set_role(runtime::Role::Library))
                .build()
        })
        .map_err(|error| {
            Error::new(
                ErrorCode::Internal,
                format!("the threads of the listeners cannot be started: {error}"),
            )
        })?;
        let bound = {
            let _inside = runtime.enter();
            let bind = |address: &Address| {
                address.bind(SocketMode::default()).map_err(|error| {
                    let address = format!("\"{address}\"");
                    let why = format!("cannot be listened on: {error}");
                    invalid("broker", "listen", &address, &why)
                })
            };
            addresses.iter().map(bind).collect::<Result<_>>()
        };
        let runtime = Threads(Some(runtime));
        Ok(Some(Listening {
            bound: bound?,
            runtime,
        }))
    }

    fn serve(self, broker: &Broker) -> Server {
        let (end, ended) = watch::channel(false);
        let mut server = Server {
            runtime: self.runtime,
            end,
            serving: Vec::new(),
            files: Vec::new(),
        };
        for bound in self.bound {
            let mut ended = ended.clone();
            let shutdown = async move { drop(ended.wait_for(|ended| *ended).await) };
            // Whoever ends it has the deadline.
            let serve =
                queen_broker::serve(broker.clone(), bound.listener, shutdown, Duration::MAX);
            if let Some(runtime) = &server.runtime.0 {
                server.serving.push(runtime.spawn(serve));
            }
            server.files.extend(bound.file);
        }
        server
    }
}
