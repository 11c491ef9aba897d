//! The embedded Queen MQ broker: the protocol of the official broker on an SQLite store, in process or over TCP.
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use queen_broker::{Broker, Options, Store};
//!
//! let options = Options { store: Store::File("orders.db".into()), ..Options::default() };
//! let broker = Broker::open(options)?;
//! let request = http::Request::get("/health").body(bytes::Bytes::new())?;
//! assert_eq!(broker.handle(request).await.status(), 200);
//! broker.close();
//! # Ok(())
//! # }
//! ```
//!
//! The broker knows nothing of any client: it speaks HTTP values. SQLite runs on threads that the broker starts when it
//! is opened and joins when it is closed, never on the caller's runtime.

#![forbid(unsafe_code)]
#![deny(missing_docs)]
#![cfg_attr(
    not(test),
    deny(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::indexing_slicing
    )
)]

mod check;
mod clock;
mod engine;
mod error;
mod http;
mod inspect;
mod listen;
mod lock;
mod options;
mod serve;
mod store;
mod testing;
mod warning;
mod wire;
mod work;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use ::http::{Request, Response, StatusCode};
use axum::Router;
use axum::body::Body;
use bytes::Bytes;
use http_body_util::BodyExt;
use tower::ServiceExt;

pub use check::{Checked, check};
use engine::Engine;
pub use error::OpenError;
pub use inspect::{
    GroupPartition, InspectError, InspectedGroup, InspectedPartition, InspectedQueue, Inspection,
    Messages, inspect, inspect_server,
};
pub use listen::{Address, Bound, SocketFile, SocketMode};
use lock::{Claim, StoreLock};
pub use options::{DefaultSubscription, Durability, Options, Store};
pub use serve::{Listener, serve};
use store::Found;
pub use testing::{Action, ActiveFault, Fault, FaultError, NoAnswer, Testing};
use warning::Warnings;
pub use warning::{Warning, WarningHook};
pub use work::Work;

/// An open broker. Clones share it; it closes with [`Broker::close`] or when the last of them is dropped.
#[derive(Clone)]
pub struct Broker {
    shared: Arc<Shared>,
    router: Router,
}

struct Shared {
    engine: Arc<Engine>,
    testing: Option<Testing>,
    /// Taken out, and so released, when the threads have ended.
    lock: Mutex<Option<(StoreLock, Claim)>>,
}

impl Shared {
    /// Answers what waits, whoever makes it wait.
    fn end_polls(&self) {
        if let Some(testing) = &self.testing {
            testing.end();
        }
        self.engine.end_polls();
    }
}

impl Broker {
    /// Opens the store, creating it when it is missing, and starts the broker's threads.
    ///
    /// Blocks while SQLite reads the store; needs no async runtime. What is refused is left as it is: nothing is changed
    /// in the file or its log, and no new file takes its place. A file that is missing or empty becomes a new store.
    pub fn open(options: Options) -> Result<Broker, OpenError> {
        let (store, lock, created) = match options.store {
            Store::Memory => (Store::Memory, None, false),
            Store::File(path) => {
                let path = real_path(&path)?;
                let (lock, created) = take(&path)?;
                (Store::File(path), Some(lock), created)
            }
        };
        let testing = options.testing || !options.faults.is_empty();
        let engine = Engine::open(&store, options.durability, testing).inspect_err(|_| {
            if let (true, Store::File(path)) = (created, &store) {
                store::discard(path);
            }
        })?;
        let engine = Arc::new(engine);
        let testing = testing.then(|| Testing::new(&engine));
        if let Some(testing) = &testing {
            testing.add_faults(options.faults)?;
        }
        let app = http::App {
            engine: engine.clone(),
            guard: http::auth::Guard::new(options.tokens, options.jwt_secret),
            default_subscription: options.default_subscription,
            max_body_bytes: options.max_body_bytes,
            warnings: Warnings::new(options.on_warning),
            paused: AtomicBool::new(false),
            opened: Instant::now(),
            requests: AtomicU64::new(0),
        };
        for queue in &app.engine.encrypting {
            app.warnings.plain_text(queue);
        }
        let shared = Shared {
            testing,
            engine,
            lock: Mutex::new(lock),
        };
        Ok(Broker {
            router: http::router(Arc::new(app), shared.testing.as_ref()),
            shared: Arc::new(shared),
        })
    }

    /// Answers one request, through the same router that serves TCP.
    ///
    /// Dropping the future is safe at any time: what was sent to the store is finished there, a parked pop is taken
    /// out, and messages that were claimed for this request are given back.
    ///
    /// Where a fault cuts the connection, the response has [`NoAnswer`] as an extension, and what else is in it was
    /// never sent.
    pub async fn handle(&self, request: Request<Bytes>) -> Response<Bytes> {
        // The router never fails; an error here would be a bug, and still gets an answer.
        let failed = || {
            let mut response = Response::new(Bytes::from_static(br#"{"error":"no answer"}"#));
            *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
            response
        };
        let Ok(response) = self.router.clone().oneshot(request.map(Body::from)).await;
        let (head, body) = response.into_parts();
        if head.extensions.get::<NoAnswer>().is_some() {
            return Response::from_parts(head, Bytes::new());
        }
        match body.collect().await {
            Ok(body) => Response::from_parts(head, body.to_bytes()),
            Err(_) => failed(),
        }
    }

    /// The routes, to be served by the caller's own means.
    pub fn router(&self) -> Router {
        self.router.clone()
    }

    /// What a test may do with the broker; nothing unless it was opened with [`Options::testing`] or a fault.
    pub fn testing(&self) -> Option<&Testing> {
        self.shared.testing.as_ref()
    }

    /// Answers the polls that wait, with nothing, and lets none wait any more: the beginning of an end in good order.
    /// Requests that hang on a fault go on.
    pub fn end_polls(&self) {
        self.shared.end_polls();
    }

    /// Closes the broker: new requests get 503, parked polls end empty, queued commits finish, the threads are
    /// joined, the lock on the store is released. Blocks until then. Closing twice is harmless.
    pub fn close(&self) {
        self.shared.engine.close();
        if let Some(testing) = &self.shared.testing {
            testing.end();
        }
        self.shared
            .lock
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
    }
}

impl std::fmt::Debug for Broker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Broker")
            .field("closed", &self.shared.engine.is_closed())
            .finish()
    }
}

/// Takes hold of a store, having looked whether it is one; true: it is new. Looking leaves no trace, not even a lock file
/// beside somebody else's database.
fn take(path: &Path) -> Result<((StoreLock, Claim), bool), OpenError> {
    let claim = Claim::new(path)?;
    let held = StoreLock::take_existing(path)?;
    let found = store::find(path)?;
    if found == Found::Database {
        store::recognize(path)?;
    }
    if found != Found::Nothing {
        store::must_be_writable(path)?;
    }
    let lock = match held {
        Some(lock) => lock,
        None => StoreLock::take(path)?,
    };
    let created = found == Found::Nothing && store::create(path)?;
    Ok(((lock, claim), created))
}

/// The file behind links and relative parts, so that one store has one name and one lock.
fn real_path(path: &Path) -> Result<PathBuf, OpenError> {
    let io = |source| OpenError::Io {
        path: path.to_path_buf(),
        source,
    };
    if path.exists() {
        return path.canonicalize().map_err(io);
    }
    let name = path
        .file_name()
        .ok_or_else(|| io(io::Error::from(io::ErrorKind::InvalidInput)))?;
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    Ok(directory.canonicalize().map_err(io)?.join(name))
}
