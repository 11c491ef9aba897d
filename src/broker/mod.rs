//! The embedded broker started by hand: with listeners, faults on demand, and a clock that a test moves.

mod options;
mod running;

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use queen_broker::{Address, Testing};
use serde::{Deserialize, Serialize};

pub use self::options::BrokerOptions;
use self::running::Running;
use crate::core::next_id;
use crate::error::{Error, ErrorCode, Result};
use crate::options as json;
use crate::pending::{Completer, Pending, WaitsFor};
use crate::runtime::{self, lock};
use crate::sys;
use crate::transport::{self, Asked, Inside, Lost};
#[doc(inline)]
pub use queen_broker::{
    Action as FaultAction, ActiveFault, DefaultSubscription, Durability, Fault, FaultError,
};

/// An embedded broker that is started and ended by hand, and fails when it is told to: the tool to test a Queen
/// application with.
///
/// Clients of this process reach it by [`url`](Self::url), without a socket and yet as if there were one: they repeat,
/// fail over and report as with any other broker. Other processes reach it by its [`addresses`](Self::addresses). Several
/// brokers may run side by side.
///
/// Any thread may use it at any time. When it is dropped, it ends at once, as by [`kill`](Self::kill), in the background.
///
/// ```
/// use queen::{BrokerOptions, Client, EmbeddedBroker, Fault, FaultAction, Item};
/// use std::time::Duration;
///
/// const SOON: Duration = Duration::from_secs(20);
/// let options = BrokerOptions { testing: true, ..BrokerOptions::default() };
/// let broker = EmbeddedBroker::start(options)?;
/// let client = Client::new(broker.url())?;
///
/// // The next push is stored and its answer is lost. The client sends it again, and it is stored once.
/// broker.add_fault(Fault::new("push", FaultAction::CutAfterCommit).times(1))?;
/// let orders = client.queue("orders");
/// orders.push(&[Item::json(&1)?]).wait(SOON)?;
/// assert_eq!(broker.faults()?[0].applied, 1);
/// assert_eq!(broker.requests()?["push"], 2);
///
/// // The message is popped and forgotten. When its lease has ended, it comes again.
/// let first = orders.pop().wait(SOON)?.take().expect("a message");
/// broker.advance_clock(Duration::from_secs(301)).wait(SOON)?;
/// let second = orders.pop().wait(SOON)?.take().expect("the same message");
/// assert_eq!(first.messages()[0].transaction_id, second.messages()[0].transaction_id);
///
/// client.close(SOON).wait(SOON)?;
/// broker.stop(SOON).wait(SOON)?;
/// # Ok::<(), queen::Error>(())
/// ```
pub struct EmbeddedBroker(Arc<House>);

/// What the broker is, whether it runs or not.
struct House {
    name: String,
    url: String,
    options: BrokerOptions,
    /// Set by the first start.
    addresses: OnceLock<Vec<String>>,
    running: Mutex<Option<Running>>,
    /// How far the clock is ahead and whether it stands still, to go on from after a restart.
    clock: Mutex<(Duration, bool)>,
    /// Held by whoever starts or ends it.
    turn: tokio::sync::Mutex<()>,
    generation: u32,
}

/// A broker's time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct BrokerClock {
    /// ISO 8601 in UTC, with microseconds.
    pub now: String,
    /// Whether it stands still.
    pub frozen: bool,
}

/// How to move a broker's time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct ClockChange {
    /// So far forward. There is no way back.
    pub advance_millis: u64,
    /// `true` stops the time before it is moved: from then on only further moves do. `false` lets it run on after the
    /// move. Default: as it is.
    pub frozen: Option<bool>,
}

impl ClockChange {
    /// Reads an object with the keys `advanceMillis` and `frozen`.
    pub fn parse(json: &str) -> Result<ClockChange> {
        json::parse("broker.clock", json)
    }
}

impl From<FaultError> for Error {
    fn from(error: FaultError) -> Error {
        let code = match &error {
            FaultError::Syntax(_) => ErrorCode::InvalidJson,
            _ => ErrorCode::InvalidConfig,
        };
        Error::new(code, error.to_string())
    }
}

impl EmbeddedBroker {
    /// Starts a broker. Blocks while the store is opened, which is work on files and waits for nobody.
    ///
    /// [`ErrorCode::InvalidConfig`] names the option and its value, also for an address that cannot be listened on;
    /// [`ErrorCode::Locked`] tells who has the store file, [`ErrorCode::Store`] why it cannot be used.
    pub fn start(options: BrokerOptions) -> Result<EmbeddedBroker> {
        sys::install();
        let addresses = options.check()?;
        let name = match &options.name {
            Some(name) => name.clone(),
            None => format!("broker-{}", next_id()),
        };
        let encoded: String = url::form_urlencoded::byte_serialize(name.as_bytes()).collect();
        let house = Arc::new(House {
            url: format!("embedded:?broker={encoded}"),
            name,
            options,
            addresses: OnceLock::new(),
            running: Mutex::new(None),
            clock: Mutex::default(),
            turn: tokio::sync::Mutex::new(()),
            generation: sys::generation(),
        });
        transport::register(&house.name, house.clone())?;
        // From here on its drop forgets the name.
        let broker = EmbeddedBroker(house);
        let house = &broker.0;
        let (running, urls) = Running::begin(&house.name, &house.options, &addresses)?;
        let _ = house.addresses.set(urls);
        *lock(&house.running) = Some(running);
        Ok(broker)
    }

    /// The URL for clients of this process: `embedded:?broker=NAME`. It stays the same over restarts; while the broker is
    /// stopped, requests fail with [`ErrorCode::Connect`] and are repeated as usual.
    pub fn url(&self) -> &str {
        &self.0.url
    }

    /// Where it listens: `http://host:port`, which is a URL for clients, or `unix:/path`; in the order of the options, and
    /// the same over restarts.
    pub fn addresses(&self) -> &[String] {
        self.0.addresses.get().map_or(&[], Vec::as_slice)
    }

    /// Whether it takes requests.
    pub fn is_running(&self) -> bool {
        !self.0.is_foreign() && lock(&self.0.running).is_some()
    }

    /// Stops it in good order: nothing new is taken, polls that wait are answered, requests under way are finished. What
    /// is not finished within `timeout` is cut off. Complete when the store is closed and the addresses are free. A
    /// broker that is stopped already is left as it is.
    pub fn stop(&self, timeout: Duration) -> Pending<()> {
        self.0.end(Some(timeout))
    }

    /// Stops it abruptly: all connections are cut, and requests under way get no answer, whether they are done or not.
    /// What was answered is in the store, as after the end of a process; what was in memory alone is gone. Complete when
    /// the store is closed and the addresses are free.
    pub fn kill(&self) -> Pending<()> {
        self.0.end(None)
    }

    /// Starts it again after [`stop`](Self::stop) or [`kill`](Self::kill), on the same file and addresses. Its clock goes
    /// on as far ahead as it was. Faults are those of the options, counted from zero. [`ErrorCode::InvalidState`] when it
    /// runs.
    pub fn restart(&self) -> Pending<()> {
        let house = self.0.clone();
        self.0.run(async move { house.restart().await })
    }

    /// Adds a fault behind those that are there. The first fault that takes a request decides what becomes of it.
    pub fn add_fault(&self, fault: Fault) -> Result<ActiveFault> {
        Ok(self.0.testing()?.add_fault(fault)?)
    }

    /// Adds faults in their order; if one of them cannot be, none is added. See [`Fault::parse_all`] for JSON.
    pub fn add_faults(&self, faults: Vec<Fault>) -> Result<Vec<ActiveFault>> {
        Ok(self.0.testing()?.add_faults(faults)?)
    }

    /// The faults in place, with the number of requests that each has met (`matched`) and taken (`applied`).
    pub fn faults(&self) -> Result<Vec<ActiveFault>> {
        Ok(self.0.testing()?.faults())
    }

    /// Removes a fault by its id; requests that hang on it go their usual way. [`ErrorCode::NotFound`] when there is none.
    pub fn remove_fault(&self, id: u64) -> Result<()> {
        match self.0.testing()?.remove_fault(id) {
            true => Ok(()),
            false => Err(Error::new(
                ErrorCode::NotFound,
                format!("the broker `{}` has no fault {id}", self.0.name),
            )),
        }
    }

    /// Removes all faults; requests that hang on them go their usual way.
    pub fn clear_faults(&self) -> Result<()> {
        self.0.testing()?.clear_faults();
        Ok(())
    }

    /// How many requests were seen, by the name of their route: each attempt counts.
    pub fn requests(&self) -> Result<BTreeMap<&'static str, u64>> {
        Ok(self.0.testing()?.requests())
    }

    /// Counts the requests from zero.
    pub fn reset_requests(&self) -> Result<()> {
        self.0.testing()?.reset_requests();
        Ok(())
    }

    /// The broker's time.
    pub fn clock(&self) -> Result<BrokerClock> {
        Ok(clock(&self.0.testing()?))
    }

    /// Moves the broker's time forward. Leases, delays, retention, the windows of deduplication and polls that wait
    /// follow; when it is complete, all that became due by the move has happened.
    pub fn advance_clock(&self, by: Duration) -> Pending<BrokerClock> {
        self.move_clock(ClockChange {
            advance_millis: transport::ms(by),
            ..ClockChange::default()
        })
    }

    /// Moves, stops or releases the broker's time.
    pub fn move_clock(&self, change: ClockChange) -> Pending<BrokerClock> {
        let testing = match self.0.testing() {
            Ok(testing) => testing,
            Err(error) => return Pending::failed(error),
        };
        self.0.run(async move {
            if change.frozen == Some(true) {
                testing.freeze_clock();
            }
            let by = Duration::from_millis(change.advance_millis);
            testing.advance_clock(by).await;
            if change.frozen == Some(false) {
                testing.resume_clock().await;
            }
            Ok(clock(&testing))
        })
    }
}

impl std::fmt::Debug for EmbeddedBroker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let state = match self.is_running() {
            true => "running",
            false => "stopped",
        };
        write!(f, "EmbeddedBroker({}, {state})", self.0.url)
    }
}

impl Drop for EmbeddedBroker {
    fn drop(&mut self) {
        if self.0.is_foreign() {
            return;
        }
        transport::unregister(&self.0.name);
        // It may also be about to run again.
        if self.is_running() || self.0.turn.try_lock().is_err() {
            self.kill();
        }
    }
}

impl Inside for House {
    fn ask(&self, request: http::Request<Bytes>) -> Asked<'_> {
        match &*lock(&self.running) {
            Some(running) => running.ask(request),
            None => Box::pin(std::future::ready(Err(Lost::Refused))),
        }
    }
}

impl House {
    /// Whether it belongs to the process that this one was forked from.
    fn is_foreign(&self) -> bool {
        self.generation != sys::generation()
    }

    fn check_fork(&self) -> Result<()> {
        match self.is_foreign() {
            false => Ok(()),
            true => Err(Error::new(
                ErrorCode::Forked,
                "this broker was started before a fork(); start a new one in the child",
            )),
        }
    }

    fn testing(&self) -> Result<Testing> {
        self.check_fork()?;
        let state = |why: String| Error::new(ErrorCode::InvalidState, why);
        match &*lock(&self.running) {
            None => Err(state(format!(
                "the broker `{}` is stopped; restart it first",
                self.name
            ))),
            Some(running) => running.broker.testing().cloned().ok_or_else(|| {
                state(format!(
                    "the broker `{}` was started without the option `testing`",
                    self.name
                ))
            }),
        }
    }

    /// Does something in the background.
    fn run<T: Clone + Send + Sync + 'static>(
        &self,
        work: impl Future<Output = Result<T>> + Send + 'static,
    ) -> Pending<T> {
        let runtime = match self.check_fork().and_then(|()| runtime::handle()) {
            Ok(runtime) => runtime,
            Err(error) => return Pending::failed(error),
        };
        let pending = Pending::new(WaitsFor::Broker);
        let operation = pending.clone();
        runtime.spawn(async move {
            let _completer = Completer(operation.clone());
            operation.complete(work.await);
        });
        pending
    }

    fn end(self: &Arc<House>, grace: Option<Duration>) -> Pending<()> {
        let house = self.clone();
        self.run(async move {
            let _turn = house.turn.lock().await;
            let running = lock(&house.running).take();
            if let Some(running) = running {
                if let Some(testing) = running.broker.testing() {
                    *lock(&house.clock) = (testing.clock_ahead(), testing.is_clock_frozen());
                }
                running.end(grace).await;
            }
            Ok(())
        })
    }

    async fn restart(self: &Arc<House>) -> Result<()> {
        let _turn = self.turn.lock().await;
        if lock(&self.running).is_some() {
            return Err(Error::new(
                ErrorCode::InvalidState,
                format!("the broker `{}` runs; stop or kill it first", self.name),
            ));
        }
        let house = self.clone();
        let begin = move || {
            let urls = house.addresses.get().map_or(&[][..], Vec::as_slice);
            let same = |url: &String| url.trim_start_matches("http://").parse::<Address>();
            let addresses: std::result::Result<Vec<_>, _> = urls.iter().map(same).collect();
            let addresses = addresses.map_err(|why| Error::new(ErrorCode::Internal, why))?;
            Running::begin(&house.name, &house.options, &addresses)
        };
        let begun = tokio::task::spawn_blocking(begin).await;
        let (running, _) = begun.map_err(|error| {
            Error::new(
                ErrorCode::Internal,
                format!("starting the broker failed: {error}"),
            )
        })??;
        let (ahead, frozen) = *lock(&self.clock);
        if let Some(testing) = running.broker.testing() {
            if frozen {
                testing.freeze_clock();
            }
            testing.advance_clock(ahead).await;
        }
        *lock(&self.running) = Some(running);
        Ok(())
    }
}

fn clock(testing: &Testing) -> BrokerClock {
    BrokerClock {
        now: testing.now(),
        frozen: testing.is_clock_frozen(),
    }
}
