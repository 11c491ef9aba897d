//! What the HTTP side asks of the writer, and what it gets back.

use std::sync::Arc;

use bytes::Bytes;
use crossbeam_channel::Sender;
use tokio::sync::oneshot;
use uuid::Uuid;

use super::census::{Census, QueueDetail};
use super::model::{GroupId, PartId};
use super::queue_options::QueueOptions;
use super::windows::{StreamAnswer, StreamCommand};
use crate::store::{self, Db, TraceRow};

/// The store failed.
#[derive(Debug, Clone)]
pub(crate) struct Failure {
    /// For the client.
    pub(crate) text: String,
    /// There is no space left, which is worth an answer of its own.
    pub(crate) full: bool,
}

impl From<&rusqlite::Error> for Failure {
    fn from(error: &rusqlite::Error) -> Failure {
        Failure {
            text: store::explain(error),
            full: store::is_full(error),
        }
    }
}

pub(crate) type Reply<T> = oneshot::Sender<Result<T, Failure>>;
pub(crate) type PopReply = Reply<Option<Delivery>>;

/// One request to the writer.
pub(crate) enum Command {
    Push(PushRequest, Reply<Vec<Pushed>>),
    Pop(PopRequest, PopReply),
    /// The client of a parked pop has gone away.
    Cancel(u64),
    /// The answer of a claim could not be handed over.
    Release(ClaimKey),
    /// The same for a window of a stream, by its lease.
    ReleaseWindow(Uuid),
    Ack(AckRequest, Reply<Vec<Acked>>),
    Extend {
        lease: Uuid,
        seconds: i64,
        reply: Reply<Extended>,
    },
    Configure(ConfigureRequest, Reply<Configured>),
    /// Counts the queues; true: anew, whatever it costs.
    Census(bool, Reply<Arc<Census>>),
    /// Looks at one queue, as a group sees it if one is named.
    Detail(String, Option<String>, Reply<Option<QueueDetail>>),
    Delete(String, Reply<bool>),
    DeadLetters(DeadLetterRequest, Reply<Bytes>),
    Transact(Transaction, Reply<Transacted>),
    /// Removes the dead-letter records of a message, and pushes it once more if told so.
    Bury(Grave, Reply<Option<Exhumed>>),
    Seek(Seek, Reply<Sought>),
    DeleteGroup(DeleteGroup, Reply<usize>),
    Trace(TraceRow, Reply<()>),
    Stream(StreamCommand, Reply<StreamAnswer>),
    /// Switches push maintenance, if told so, and says how it stands.
    Maintain(Option<bool>, Reply<Maintenance>),
    /// Answer the parked pops as if their time had run out.
    DismissPolls,
    /// A group and the new beginning of its subscriptions.
    Resubscribe(String, i64, Reply<usize>),
    /// Shows the newest message of a partition with a transaction id, as JSON.
    Message(Uuid, String, Reply<Option<String>>),
    /// Reads the store beside the writer, after everything before it was committed.
    View(View, Reply<Option<String>>),
    /// Answer when nothing is due any more: the clock was moved.
    CatchUp(Reply<()>),
    /// Says whether the store still takes transactions.
    Ping(Reply<()>),
    /// Tells where memory and store differ.
    Compare(Reply<Vec<String>>),
    /// Answer all parked pops as if their time had run out, and park none from now on.
    EndPolls,
    /// Finish what was queued before this and stop.
    Close,
}

/// A look at the store; nothing when there is no such thing.
pub(crate) type View = Box<dyn FnOnce(&Db) -> crate::store::Result<Option<String>> + Send>;

/// Pushes and acks that happen together or not at all.
pub(crate) struct Transaction {
    pub(crate) pushes: PushRequest,
    /// Each with the name of its group.
    pub(crate) acks: Vec<(String, AckItem)>,
}

/// What became of a transaction: one answer per push and per ack, or why nothing happened.
pub(crate) type Transacted = Result<(Vec<Pushed>, Vec<Acked>), Rejected>;

/// Why a transaction was rolled back: a code and a text.
pub(crate) struct Rejected {
    pub(crate) reason: &'static str,
    pub(crate) error: String,
}

/// A group to be moved in a queue.
pub(crate) struct Seek {
    pub(crate) group: String,
    pub(crate) queue: String,
    pub(crate) part: SeekPart,
    pub(crate) to: Start,
}

/// Where to move it.
pub(crate) enum SeekPart {
    All,
    Named(String),
}

/// How many cursors were moved, or what is missing.
pub(crate) enum Sought {
    Moved(usize),
    NoQueue,
    NoPart,
}

/// A group to be deleted, on one queue or on all.
pub(crate) struct DeleteGroup {
    pub(crate) group: String,
    pub(crate) queue: Option<String>,
    /// Keep the registration: the group starts again where it began.
    pub(crate) keep: bool,
}

/// How push maintenance stands.
pub(crate) struct Maintenance {
    pub(crate) on: bool,
    /// Messages that are not in the log yet.
    pub(crate) buffered: i64,
}

/// Names a dead-lettered message.
pub(crate) struct Grave {
    pub(crate) part: Uuid,
    pub(crate) txn: String,
    /// Push it again under a new id.
    pub(crate) replay: bool,
}

/// A message whose dead-letter records were removed.
pub(crate) struct Exhumed {
    pub(crate) queue: Arc<str>,
    pub(crate) part: Arc<str>,
    /// The id of the copy that was pushed.
    pub(crate) copy: Option<Uuid>,
}

/// Items in the order of the request, apart by partition.
#[derive(Default)]
pub(crate) struct PushRequest {
    pub(crate) groups: Vec<PushGroup>,
    pub(crate) count: usize,
}

/// The items of one request for one partition.
pub(crate) struct PushGroup {
    pub(crate) queue: String,
    pub(crate) part: String,
    pub(crate) items: Vec<PushItem>,
}

/// One message to store.
pub(crate) struct PushItem {
    pub(crate) index: usize,
    /// The id it was promised when it was buffered: it is let in even where the queue is full.
    pub(crate) accepted: Option<Uuid>,
    pub(crate) txn: Option<String>,
    pub(crate) trace: Option<Uuid>,
    /// Who pushes, where tokens tell.
    pub(crate) producer: Option<Arc<str>>,
    /// The payload's JSON text, a slice of the request body.
    pub(crate) payload: Bytes,
}

/// What became of one item.
#[derive(Clone, Copy)]
pub(crate) enum Pushed {
    Stored(Uuid),
    /// The message with this id holds the transaction id already.
    Duplicate(Uuid),
    /// Kept beside the log until the maintenance ends; it will have this id.
    Buffered(Uuid),
    /// The queue holds this many messages and takes no more.
    Full(i64),
}

/// Where a group that is not known yet starts to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Start {
    All,
    New,
    Time(i64),
}

/// Where a pop looks for messages.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Source {
    Queue(Arc<str>),
    /// Every queue that has both, where both are named.
    Find {
        namespace: Option<Arc<str>>,
        task: Option<Arc<str>>,
    },
    /// The windows of a stream.
    Stream(Arc<str>),
}

/// A pop of any partition of some queues, or of one partition.
#[derive(Clone)]
pub(crate) struct PopRequest {
    pub(crate) id: u64,
    pub(crate) source: Source,
    pub(crate) part: Option<Arc<str>>,
    pub(crate) group: Arc<str>,
    pub(crate) batch: i64,
    pub(crate) parts: i64,
    /// How long to wait, in microseconds, when there is nothing.
    pub(crate) wait: Option<i64>,
    pub(crate) auto_ack: bool,
    pub(crate) lease_seconds: Option<i64>,
    pub(crate) start: Start,
    /// Say in the answer what batch and how many partitions were meant.
    pub(crate) echo: bool,
}

/// The finished answer of a pop and the claim behind it.
pub(crate) struct Delivery {
    pub(crate) body: Bytes,
    pub(crate) guard: ClaimGuard,
}

/// Identifies a claim, to take it back.
#[derive(Clone)]
pub(crate) struct ClaimKey {
    pub(crate) lease: Option<Uuid>,
    pub(crate) parts: Vec<Taken>,
}

/// What a claim took from one partition: the committed offset before it and the last offset handed out.
#[derive(Clone, Copy)]
pub(crate) struct Taken {
    pub(crate) group: GroupId,
    pub(crate) part: PartId,
    pub(crate) before: i64,
    pub(crate) after: i64,
}

/// Gives the claim back when dropped, unless the answer has been handed over.
pub(crate) struct ClaimGuard {
    /// The command that does it.
    release: Option<Command>,
    engine: Sender<Command>,
}

impl ClaimGuard {
    pub(crate) fn new(release: Command, engine: Sender<Command>) -> ClaimGuard {
        ClaimGuard {
            release: Some(release),
            engine,
        }
    }

    /// The answer is out: from here on the lease is the consumer's.
    pub(crate) fn handed_over(&mut self) {
        self.release = None;
    }
}

impl Drop for ClaimGuard {
    fn drop(&mut self) {
        if let Some(release) = self.release.take() {
            // An engine that has stopped takes nothing back; the lease then runs out by itself.
            let _ = self.engine.send(release);
        }
    }
}

/// Acknowledgements of one group.
pub(crate) struct AckRequest {
    pub(crate) group: String,
    pub(crate) items: Vec<AckItem>,
}

/// What a consumer says of one message.
pub(crate) struct AckItem {
    pub(crate) txn: String,
    pub(crate) part: Arc<str>,
    pub(crate) lease: Arc<str>,
    pub(crate) verdict: Verdict,
    pub(crate) error: Option<String>,
}

/// The four statuses. The order is the one in which they win over each other at the same message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Verdict {
    Dlq,
    Failed,
    Retry,
    Completed,
}

/// The answer for one acknowledgement.
#[derive(Debug, Clone, Default)]
pub(crate) struct Acked {
    pub(crate) success: bool,
    pub(crate) error: Option<String>,
    pub(crate) lease_released: bool,
    pub(crate) dlq: bool,
    pub(crate) noop: bool,
}

/// The answer of a lease extension.
pub(crate) struct Extended {
    pub(crate) renewed: usize,
    /// The earliest expiry of the renewed claims.
    pub(crate) expires: Option<i64>,
}

/// A queue with all its options.
pub(crate) struct ConfigureRequest {
    pub(crate) queue: String,
    pub(crate) namespace: String,
    pub(crate) task: String,
    pub(crate) options: QueueOptions,
}

/// The id of the configured queue.
pub(crate) struct Configured {
    pub(crate) id: Uuid,
}

/// What a command needs of the disk, in rising order.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Need {
    Look,
    /// Room for a claim, if there is something to deliver.
    Claim,
    Write,
}

impl Command {
    pub(crate) fn need(&self) -> Need {
        match self {
            Command::Pop(..) => Need::Claim,
            Command::Push(..)
            | Command::Ack(..)
            | Command::Extend { .. }
            | Command::Configure(..)
            | Command::Delete(..)
            | Command::Transact(..)
            | Command::Bury(..)
            | Command::Seek(..)
            | Command::DeleteGroup(..)
            | Command::Trace(..)
            | Command::Resubscribe(..) => Need::Write,
            Command::Stream(StreamCommand::Find(_), _) => Need::Look,
            Command::Stream(..) => Need::Write,
            _ => Need::Look,
        }
    }
}

/// A page of dead-letter records.
pub(crate) struct DeadLetterRequest {
    /// Empty names mean any.
    pub(crate) queue: String,
    pub(crate) part: String,
    pub(crate) group: String,
    /// When the message was given up, both ends included.
    pub(crate) from: i64,
    pub(crate) to: i64,
    pub(crate) limit: i64,
    pub(crate) offset: i64,
}
