//! The broker inside the process: the same requests, handed to its router without a socket.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, Weak};

use queen_broker::{Broker, OpenError, Options, Store, Warning};

use super::{Answer, Request};
use crate::config::{Durability, Embedded, Place};
use crate::error::{Error, ErrorCode, Outcome, Result};
use crate::log::{Level, Logger};
use crate::runtime::lock;
use crate::sys::{self, PerGeneration};

pub(crate) struct EmbeddedTransport {
    embedded: Embedded,
    logger: Arc<Logger>,
    /// Set once the store is open; read without a lock by every request.
    broker: OnceLock<Broker>,
    state: tokio::sync::Mutex<State>,
    reserved: Mutex<Option<StoreUse>>,
}

enum State {
    Unopened,
    /// Kept for what its drop does.
    Open {
        _store: StoreUse,
    },
    Closed,
}

impl EmbeddedTransport {
    pub(crate) fn new(embedded: Embedded, logger: &Arc<Logger>) -> EmbeddedTransport {
        // What is in memory lives from the first client that names it to the last, whether they call or not.
        let reserved = matches!(embedded.place, Place::Shared(_))
            .then(|| STORES.get(Stores::default).reserve(&embedded));
        EmbeddedTransport {
            embedded,
            logger: logger.clone(),
            broker: OnceLock::new(),
            state: tokio::sync::Mutex::new(State::Unopened),
            reserved: std::sync::Mutex::new(reserved),
        }
    }

    pub(crate) async fn send(&self, request: &Request) -> Result<Answer> {
        let broker = match self.broker.get() {
            Some(broker) => broker,
            None => self.open().await?,
        };
        let mut builder = http::Request::builder()
            .method(request.method.clone())
            .uri(&request.path);
        if request.body.is_some() {
            builder = builder.header(http::header::CONTENT_TYPE, "application/json");
        }
        let message = builder
            .body(request.body.clone().unwrap_or_default())
            .map_err(|error| Error::argument(format!("the request cannot be made: {error}")))?;
        let (head, body) = broker.handle(message).await.into_parts();
        Ok(Answer {
            status: head.status.as_u16(),
            body,
            ..Answer::default()
        })
    }

    /// Opens the store on the first call, whose error is that of the opening.
    async fn open(&self) -> Result<&Broker> {
        let mut state = self.state.lock().await;
        if let State::Unopened = *state {
            let embedded = self.embedded.clone();
            // If this call gives up meanwhile, the use is dropped where it was made and the store closes again.
            let opened =
                tokio::task::spawn_blocking(move || STORES.get(Stores::default).open(&embedded))
                    .await
                    .map_err(|error| {
                        Error::new(
                            ErrorCode::Internal,
                            format!("opening the store failed: {error}"),
                        )
                    })??;
            let (broker, warnings, store) = opened;
            warnings.hear(&self.logger);
            let _ = self.broker.set(broker);
            *state = State::Open { _store: store };
        }
        match (&*state, self.broker.get()) {
            (State::Open { .. }, Some(broker)) => Ok(broker),
            _ => Err(Error::new(ErrorCode::Closed, "the client is closed")),
        }
    }

    /// Lets go of the store; returns when it is closed, if this was its last user.
    pub(crate) async fn close(&self) {
        let before = std::mem::replace(&mut *self.state.lock().await, State::Closed);
        let reserved = lock(&self.reserved).take();
        if matches!(before, State::Open { .. }) || reserved.is_some() {
            // Closing joins the broker's threads.
            let _ = tokio::task::spawn_blocking(move || drop((before, reserved))).await;
        }
    }
}

static STORES: PerGeneration<Stores> = PerGeneration::new();

/// The open stores of the process: one broker per file or shared name.
#[derive(Default)]
struct Stores(Mutex<HashMap<Place, OpenStore>>);

struct OpenStore {
    /// None while it is only reserved.
    broker: Option<Broker>,
    durability: Durability,
    users: usize,
    /// The broker that was started by hand and has the file for itself.
    owner: Option<String>,
    warnings: Arc<Warnings>,
}

/// What a broker has warned of, for the logs of the clients that use it now and of those that come later.
#[derive(Default)]
struct Warnings(Mutex<(Vec<Warning>, Vec<Weak<Logger>>)>);

impl Warnings {
    fn add(&self, warning: &Warning) {
        let mut told = lock(&self.0);
        told.0.push(warning.clone());
        told.1.retain(|logger| logger.strong_count() > 0);
        let loggers: Vec<_> = told.1.iter().filter_map(Weak::upgrade).collect();
        // A log may do as it likes, so nothing is locked while it is told.
        drop(told);
        loggers.iter().for_each(|logger| tell(logger, warning));
    }

    fn hear(&self, logger: &Arc<Logger>) {
        let mut told = lock(&self.0);
        told.1.push(Arc::downgrade(logger));
        let before = told.0.clone();
        drop(told);
        before.iter().for_each(|warning| tell(logger, warning));
    }
}

fn tell(logger: &Logger, warning: &Warning) {
    logger.log(Level::Warn, "broker.warning", &warning.to_string(), &[]);
}

/// One client's use of a store. Dropping the last one closes the store, which blocks.
enum StoreUse {
    Private(Broker),
    /// With the place in the table.
    Listed(Place),
}

impl Stores {
    /// Counts a user of a store that may not be open yet.
    fn reserve(&self, embedded: &Embedded) -> StoreUse {
        let mut stores = lock(&self.0);
        let store = stores.entry(embedded.place.clone()).or_insert(OpenStore {
            broker: None,
            durability: embedded.durability,
            users: 0,
            owner: None,
            warnings: Arc::default(),
        });
        store.users += 1;
        StoreUse::Listed(embedded.place.clone())
    }

    /// Opens a store or joins those who have it open. Blocks.
    fn open(&self, embedded: &Embedded) -> Result<(Broker, Arc<Warnings>, StoreUse)> {
        let key = match &embedded.place {
            Place::Private => {
                let warnings = Arc::default();
                let broker = open(Store::Memory, embedded.durability, &warnings)?;
                return Ok((broker.clone(), warnings, StoreUse::Private(broker)));
            }
            Place::Shared(name) => Place::Shared(name.clone()),
            Place::File(path) => Place::File(canonical(path)?),
        };
        let mut stores = lock(&self.0);
        let found = stores.get(&key);
        if let (Some(owner), Place::File(path)) = (found.and_then(|s| s.owner.as_ref()), &key) {
            return Err(owned(path, owner));
        }
        if let Some(store) = found.filter(|store| store.durability != embedded.durability) {
            return Err(Error::new(
                ErrorCode::InvalidConfig,
                format!(
                    "{key:?} is used in this process with durability {:?}; {:?} cannot be had beside it",
                    store.durability, embedded.durability
                ),
            ));
        }
        let warnings = found.map_or_else(Arc::default, |store| store.warnings.clone());
        let broker = match found.and_then(|store| store.broker.clone()) {
            Some(broker) => broker,
            None => open_listed(&key, embedded.durability, &warnings)?,
        };
        let store = stores.entry(key.clone()).or_insert(OpenStore {
            broker: None,
            durability: embedded.durability,
            users: 0,
            owner: None,
            warnings: Arc::default(),
        });
        store.broker = Some(broker.clone());
        store.warnings = warnings.clone();
        store.users += 1;
        Ok((broker, warnings, StoreUse::Listed(key)))
    }
}

fn open_listed(key: &Place, durability: Durability, warnings: &Arc<Warnings>) -> Result<Broker> {
    let Place::File(path) = key else {
        return open(Store::Memory, durability, warnings);
    };
    refuse_parents_store(path)?;
    let broker = open(Store::File(path.clone()), durability, warnings)?;
    OPEN_FILES.note(path);
    Ok(broker)
}

impl Drop for StoreUse {
    fn drop(&mut self) {
        let key = match self {
            StoreUse::Private(broker) => return broker.close(),
            StoreUse::Listed(key) => key,
        };
        // The table stays locked while the store closes, so that whoever opens it next finds it closed.
        let mut stores = lock(&STORES.get(Stores::default).0);
        let Some(store) = stores.get_mut(key) else {
            return;
        };
        store.users -= 1;
        if store.users > 0 {
            return;
        }
        if let Some(store) = stores.remove(key)
            && let Some(broker) = store.broker
        {
            broker.close();
            if let Place::File(path) = key {
                OPEN_FILES.forget(path);
            }
        }
    }
}

fn open(store: Store, durability: Durability, warnings: &Arc<Warnings>) -> Result<Broker> {
    let durability = match durability {
        Durability::Full => queen_broker::Durability::Full,
        Durability::Normal => queen_broker::Durability::Normal,
        Durability::Memory => queen_broker::Durability::Memory,
    };
    let warnings = warnings.clone();
    open_broker(Options {
        store,
        durability,
        on_warning: Some(Arc::new(move |warning| warnings.add(warning))),
        ..Options::default()
    })
}

/// Opens a broker. Blocks.
pub(crate) fn open_broker(options: Options) -> Result<Broker> {
    // The broker's threads take the signal mask of this one while they start.
    sys::with_signals_blocked(|| Broker::open(options)).map_err(|error| {
        let code = match &error {
            OpenError::Locked { .. } => ErrorCode::Locked,
            OpenError::Fault(_) => ErrorCode::InvalidConfig,
            _ => ErrorCode::Store,
        };
        Error::new(code, error.to_string()).with_outcome(Outcome::NotApplied)
    })
}

/// A store file that a broker started by hand has for itself. To be dropped after that broker is closed.
pub(crate) struct FileClaim {
    pub(crate) path: PathBuf,
}

impl FileClaim {
    /// Claims a file for the broker of that name, unless this process has it open already.
    pub(crate) fn new(path: &Path, owner: &str) -> Result<FileClaim> {
        let path = canonical(path)?;
        refuse_parents_store(&path)?;
        let mut stores = lock(&STORES.get(Stores::default).0);
        match stores.entry(Place::File(path.clone())) {
            Entry::Occupied(found) => Err(match &found.get().owner {
                Some(owner) => owned(&path, owner),
                None => Error::new(
                    ErrorCode::Locked,
                    format!(
                        "{} is in use by clients of this process; close them first, and let them name the broker \
                         afterwards",
                        path.display()
                    ),
                ),
            }),
            Entry::Vacant(place) => {
                place.insert(OpenStore {
                    broker: None,
                    durability: Durability::Full,
                    users: 1,
                    owner: Some(owner.to_owned()),
                    warnings: Arc::default(),
                });
                OPEN_FILES.note(&path);
                Ok(FileClaim { path })
            }
        }
    }
}

impl Drop for FileClaim {
    fn drop(&mut self) {
        lock(&STORES.get(Stores::default).0).remove(&Place::File(self.path.clone()));
        OPEN_FILES.forget(&self.path);
    }
}

fn owned(path: &Path, owner: &str) -> Error {
    Error::new(
        ErrorCode::Locked,
        format!(
            "{} is in use by the broker `{owner}` of this process; connect to its URL instead",
            path.display()
        ),
    )
}

/// The one path under which a file that may not exist yet is known.
fn canonical(path: &Path) -> Result<PathBuf> {
    let fail = |why: String| {
        Error::new(
            ErrorCode::Store,
            format!("the store {} cannot be opened: {why}", path.display()),
        )
    };
    let name = path
        .file_name()
        .ok_or_else(|| fail("it names no file".into()))?;
    if let Ok(whole) = path.canonicalize() {
        return Ok(whole);
    }
    let folder = path
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    let folder = folder.canonicalize().map_err(|error| {
        fail(format!(
            "folder {}: {error}; create it first",
            folder.display()
        ))
    })?;
    Ok(folder.join(name))
}

/// Which files the processes up the line of forks have open. Atomics alone, because a lock could be held by a thread
/// that a forked child does not have.
static OPEN_FILES: OpenFiles = OpenFiles([const { (AtomicU64::new(0), AtomicU32::new(0)) }; 256]);

/// Hash of the path (0: free) and the generation that opened it. Beyond 256 open files further ones are not noted.
struct OpenFiles([(AtomicU64, AtomicU32); 256]);

impl OpenFiles {
    fn hash(path: &Path) -> u64 {
        let mut hasher = DefaultHasher::new();
        path.hash(&mut hasher);
        hasher.finish().max(1)
    }

    fn note(&self, path: &Path) {
        let hash = Self::hash(path);
        for (slot, generation) in &self.0 {
            if slot
                .compare_exchange(0, hash, Ordering::SeqCst, Ordering::SeqCst)
                .is_ok()
            {
                generation.store(sys::generation(), Ordering::SeqCst);
                return;
            }
        }
    }

    fn forget(&self, path: &Path) {
        let hash = Self::hash(path);
        for (slot, generation) in &self.0 {
            if generation.load(Ordering::SeqCst) == sys::generation()
                && slot
                    .compare_exchange(hash, 0, Ordering::SeqCst, Ordering::SeqCst)
                    .is_ok()
            {
                return;
            }
        }
    }

    fn is_open_in_a_parent(&self, path: &Path) -> bool {
        let hash = Self::hash(path);
        self.0.iter().any(|(slot, generation)| {
            slot.load(Ordering::SeqCst) == hash
                && generation.load(Ordering::SeqCst) != sys::generation()
        })
    }
}

fn refuse_parents_store(path: &Path) -> Result<()> {
    match OPEN_FILES.is_open_in_a_parent(path) {
        false => Ok(()),
        true => Err(Error::new(
            ErrorCode::Locked,
            format!(
                "{} was open when this process was forked; SQLite's locks belong to the parent, so the child cannot open \
                 it. Use it in one process, or run `queen-broker serve` and connect to that",
                path.display()
            ),
        )),
    }
}
