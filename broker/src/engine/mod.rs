//! The broker proper: one writer thread that owns the truth, and readers that fetch payloads beside it.

mod ack;
mod admin;
pub(crate) mod analytics_views;
mod answer;
mod buffer;
pub(crate) mod census;
mod claim;
pub(crate) mod command;
pub(crate) mod group_views;
mod groups;
pub(crate) mod history;
mod ids;
pub(crate) mod metric_views;
mod model;
mod park;
mod picture;
mod push;
pub(crate) mod queue_options;
pub(crate) mod queue_views;
mod reader;
pub(crate) mod stream_views;
mod streams;
mod subscription;
mod sweep;
pub(crate) mod trace_views;
mod transaction;
mod txns;
pub(crate) mod views;
pub(crate) mod windows;
mod writer;

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crossbeam_channel::Sender;
use tokio::sync::oneshot;

use crate::clock::Clock;
use crate::error::OpenError;
use crate::options::{Durability, Store};
use crate::store::Db;
use crate::work::Meter;
pub(crate) use model::Model;
pub(crate) use queue_options::QueueOptions;
pub(crate) use reader::push_quoted;
pub(crate) use subscription::{FinderKey, Mode, Subscription};

use history::History;

use command::{Command, Failure, PopRequest, Reply};

/// Threads that read payloads from a file store. A store in memory is read by its writer.
const READERS: usize = 2;

/// Why the engine gave no answer.
pub(crate) enum Refused {
    /// It is closed or closing.
    Closed,
    /// The store failed.
    Failed(Failure),
}

/// The door to the writer thread.
pub(crate) struct Engine {
    pub(crate) clock: Clock,
    pub(crate) history: Arc<History>,
    /// The queues that asked for payloads to be encrypted when the store was opened.
    pub(crate) encrypting: Vec<String>,
    pub(crate) meter: Meter,
    commands: Sender<Command>,
    writer: Mutex<Option<JoinHandle<()>>>,
    closed: AtomicBool,
    next_pop: AtomicU64,
}

impl Engine {
    /// Opens the store, reads it, and starts the threads.
    ///
    /// With `metered` the statements of SQLite are counted too.
    pub(crate) fn open(
        store: &Store,
        durability: Durability,
        metered: bool,
    ) -> Result<Engine, OpenError> {
        let meter = Meter::default();
        let counting = metered.then(|| meter.clone());
        let clock = Clock::default();
        let path = match store {
            Store::Memory => PathBuf::from(":memory:"),
            Store::File(path) => path.clone(),
        };
        let failed = |message: String| OpenError::Store {
            path: path.display().to_string(),
            message,
        };
        let thread = |source| OpenError::Io {
            path: path.clone(),
            source,
        };
        let db = Db::writer(store, durability)?;
        let log = reader::DeliveryLog {
            history: Arc::default(),
            clock: clock.clone(),
        };
        let history = log.history.clone();
        let (commands, inbox) = crossbeam_channel::unbounded();
        let mut readers = reader::Readers::none(log.clone());
        if let Store::File(path) = store {
            for n in 0..READERS {
                let db = Db::reader(path).map_err(|e| failed(crate::store::explain(&e)))?;
                readers.start(n, db, counting.clone()).map_err(thread)?;
            }
        }
        let encrypting = db
            .encrypting()
            .map_err(|e| failed(crate::store::explain(&e)))?;
        let writer = writer::Writer::new(
            db,
            clock.clone(),
            inbox,
            commands.clone(),
            readers,
            history.clone(),
            meter.clone(),
        )
        .map_err(|e| failed(crate::store::explain(&e)))?;
        let accepted = writer.db.accept();
        accepted.map_err(|e| failed(crate::store::explain(&e)))?;
        let handle = thread::Builder::new()
            .name("queen-writer".into())
            .spawn(move || writer.run(counting))
            .map_err(thread)?;
        Ok(Engine {
            clock,
            history,
            encrypting,
            meter,
            commands,
            writer: Mutex::new(Some(handle)),
            closed: AtomicBool::new(false),
            next_pop: AtomicU64::new(1),
        })
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    /// Sends a command and waits for its answer. Giving up the wait does not stop the command.
    pub(crate) async fn ask<T>(
        &self,
        command: impl FnOnce(Reply<T>) -> Command,
    ) -> Result<T, Refused> {
        let (reply, answer) = oneshot::channel();
        self.commands
            .send(command(reply))
            .map_err(|_| Refused::Closed)?;
        answer
            .await
            .map_err(|_| Refused::Closed)?
            .map_err(Refused::Failed)
    }

    /// Asks for messages. Giving up the wait takes a parked pop out and gives a claim back.
    pub(crate) async fn pop(
        &self,
        mut request: PopRequest,
    ) -> Result<Option<command::Delivery>, Refused> {
        request.id = self.next_pop.fetch_add(1, Ordering::Relaxed);
        let (reply, answer) = oneshot::channel();
        let cancel = Cancel {
            id: request.id,
            commands: &self.commands,
            armed: true,
        };
        let mut parked = Parked { answer, cancel };
        self.commands
            .send(Command::Pop(request, reply))
            .map_err(|_| Refused::Closed)?;
        let answer = (&mut parked.answer).await;
        parked.cancel.armed = false;
        answer
            .map_err(|_| Refused::Closed)?
            .map_err(Refused::Failed)
    }

    /// Sends a command that has no answer.
    pub(crate) fn tell(&self, command: Command) {
        // An engine that is closed has nothing left to do.
        let _ = self.commands.send(command);
    }

    /// Moves the clock forward; returns when everything that became due by that is done.
    pub(crate) async fn advance(&self, by: Duration) -> Result<(), Refused> {
        self.clock.advance(by);
        self.ask(Command::CatchUp).await
    }

    /// Answers the parked polls and parks none from now on.
    pub(crate) fn end_polls(&self) {
        let _ = self.commands.send(Command::EndPolls);
    }

    /// Lets queued work finish and ends the threads. A second call waits for the first.
    pub(crate) fn close(&self) {
        self.closed.store(true, Ordering::Release);
        let mut writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(handle) = writer.take() {
            let _ = self.commands.send(Command::Close);
            let _ = handle.join();
        }
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.close();
    }
}

/// A pop in flight. The fields are dropped in this order, so that by the time the writer hears of the cancellation it
/// finds the channel of the answer closed.
struct Parked<'a, T> {
    answer: oneshot::Receiver<T>,
    cancel: Cancel<'a>,
}

/// Tells the writer, when dropped before the answer came, that nobody waits any more.
struct Cancel<'a> {
    id: u64,
    commands: &'a Sender<Command>,
    armed: bool,
}

impl Drop for Cancel<'_> {
    fn drop(&mut self) {
        if self.armed {
            let _ = self.commands.send(Command::Cancel(self.id));
        }
    }
}
