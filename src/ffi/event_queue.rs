//! `queen_event_queue_t`: the primitive under callbacks, for event loops and bindings.

use std::collections::{BTreeMap, VecDeque};
use std::io::Read;
use std::mem::size_of;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::event::{OLDEST_EVENT_SIZE, queen_event_t};
use super::future::FutureInner;
use super::handle::{self, Object, Stamp, code, give, guard, internal, lend, panicked, timeout};
use crate::sys;
use crate::{Delivery, Error, ErrorCode, Level, Result, StopSignal, Window};

/// Collects completions, deliveries and log records for a host that polls.
///
/// Ownership: the host's until queen_event_queue_free(). What feeds the queue does not keep it.
pub struct queen_event_queue_t {
    stamp: Stamp,
    pub(super) queue: Arc<EventQueue>,
}

impl Object for queen_event_queue_t {
    const NAME: &'static str = "event queue";

    fn stamp(&self) -> &Stamp {
        &self.stamp
    }
}

/// Log records beyond this wait for nobody: they are dropped and counted.
const MOST_LOGS: usize = 10_000;

/// The same for delivery reports, counted message by message.
const MOST_REPORTS: usize = 10_000;

/// Room for so many events is kept between polls.
const MOST_SPARE: usize = 256;

/// What waits for a poller.
pub(super) enum Event {
    Future(Arc<FutureInner>),
    Delivery(Delivery),
    LeaseLost(String),
    Window(Window),
    /// With the summary.
    Ended(Result<String>),
    Log(Level, String),
    Reports(ReportBatch),
    Statistics(Arc<Newest>),
    TokenWanted(Arc<Newest>),
    BackendState(Arc<Newest>),
}

/// Delivery reports of one request.
pub(super) struct ReportBatch {
    pub(super) json: String,
    /// How many reports it has.
    pub(super) count: usize,
    /// How many were dropped before it.
    pub(super) dropped: usize,
}

/// A place for the newest text of a kind; at most one event for it waits in a queue.
#[derive(Default)]
pub(super) struct Newest(Mutex<Option<String>>);

impl Newest {
    /// Replaces the text; `true` when there was none, so that an event must be queued.
    pub(super) fn put(&self, text: String) -> bool {
        let mut place = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        place.replace(text).is_none()
    }

    pub(super) fn take(&self) -> String {
        let mut place = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        place.take().unwrap_or_default()
    }
}

#[derive(Default)]
pub(super) struct EventQueue {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    events: VecDeque<(Event, u64)>,
    /// A wakeup that no poll has seen yet.
    woken: bool,
    closed: bool,
    /// Threads that wait.
    waiting: usize,
    /// One of them has been told and has not looked yet.
    told: bool,
    /// Room for the events of a poll, used again by the next.
    spare: Vec<(Event, u64)>,
    logs: usize,
    dropped_logs: usize,
    reports: usize,
    /// By the tag of their route.
    dropped_reports: BTreeMap<u64, usize>,
    socket: Option<Socket>,
    feeders: Vec<StopSignal>,
}

/// The two ends of a pair: a byte is in flight exactly while there is something to see.
struct Socket {
    host: UnixStream,
    library: UnixStream,
    signalled: bool,
}

impl State {
    /// When the last report was taken and others after it were dropped, an empty one tells how many.
    fn tell_dropped(&mut self) {
        if self.reports > 0 {
            return;
        }
        for (tag, dropped) in std::mem::take(&mut self.dropped_reports) {
            if dropped > 0 {
                let batch = ReportBatch {
                    json: "[]".to_owned(),
                    count: 0,
                    dropped,
                };
                self.events.push_back((Event::Reports(batch), tag));
            }
        }
    }

    /// Whether a thread that waits has to be told of the events. It costs a system call, so one is told once; it tells the
    /// next if it leaves something.
    fn must_tell(&mut self) -> bool {
        let must = !self.events.is_empty() && self.waiting > 0 && !self.told;
        self.told |= must;
        must
    }

    /// Makes the descriptor tell the truth.
    fn signal(&mut self) {
        let ready = !self.events.is_empty() || self.woken;
        let Some(socket) = &mut self.socket else {
            return;
        };
        if ready && !socket.signalled {
            sys::send_byte(socket.library.as_fd());
        } else if !ready && socket.signalled {
            let _ = socket.host.read(&mut [0u8; 1]);
        }
        socket.signalled = ready;
    }
}

impl EventQueue {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Queues an event; `false` when the queue is gone, in which case the event is dropped.
    pub(super) fn push(&self, event: Event, tag: u64) -> bool {
        let mut state = self.lock();
        if state.closed {
            drop(state);
            return false;
        }
        let mut event = event;
        if let Event::Log(level, json) = event {
            if state.logs >= MOST_LOGS {
                state.dropped_logs += 1;
                return true;
            }
            state.logs += 1;
            let dropped = std::mem::take(&mut state.dropped_logs);
            event = Event::Log(level, super::log::with_dropped(json, dropped));
        }
        if let Event::Reports(batch) = &mut event {
            if state.reports > 0 && state.reports + batch.count > MOST_REPORTS {
                *state.dropped_reports.entry(tag).or_default() += batch.count;
                return true;
            }
            batch.dropped = state.dropped_reports.remove(&tag).unwrap_or(0);
            state.reports += batch.count;
        }
        state.events.push_back((event, tag));
        state.signal();
        let must_tell = state.must_tell();
        drop(state);
        if must_tell {
            self.changed.notify_one();
        }
        true
    }

    /// Notes a consumer that is to end with the queue.
    pub(super) fn feed(&self, consumer: StopSignal) {
        let mut state = self.lock();
        match state.closed {
            true => {
                drop(state);
                consumer.stop();
            }
            false => {
                state.feeders.retain(StopSignal::is_live);
                state.feeders.push(consumer);
            }
        }
    }

    /// Waits for events and takes at most `capacity` of them. A wakeup ends the wait with none.
    fn poll(&self, capacity: usize, timeout: Duration) -> Result<Vec<(Event, u64)>> {
        let deadline = Instant::now().checked_add(timeout);
        let mut state = self.lock();
        loop {
            if state.closed {
                return Err(Error::new(ErrorCode::Closed, "the event queue was freed"));
            }
            if std::mem::take(&mut state.woken) {
                state.signal();
                return Ok(Vec::new());
            }
            let mut taken = std::mem::take(&mut state.spare);
            taken.reserve(capacity.min(state.events.len()));
            let mut stale = Vec::new();
            while taken.len() < capacity
                && let Some((event, tag)) = state.events.pop_front()
            {
                match event {
                    Event::Log(..) => state.logs -= 1,
                    Event::Reports(ref batch) => {
                        state.reports -= batch.count;
                        state.tell_dropped();
                    }
                    // Given back while nobody had it in hand: it will come again, so nobody may handle it now.
                    Event::Delivery(delivery) if !delivery.take() => {
                        stale.push(delivery);
                        continue;
                    }
                    _ => {}
                }
                taken.push((event, tag));
            }
            state.signal();
            if !taken.is_empty() {
                let must_tell = state.must_tell();
                drop(state);
                if must_tell {
                    self.changed.notify_one();
                }
                return Ok(taken);
            }
            state.spare = taken;
            if !stale.is_empty() {
                // Dropped without the lock, then looked again.
                drop(state);
                drop(stale);
                state = self.lock();
                continue;
            }
            let left = deadline.map_or(Duration::from_secs(3600), |at| {
                at.saturating_duration_since(Instant::now())
            });
            if left.is_zero() {
                return Ok(Vec::new());
            }
            state.waiting += 1;
            state = self
                .changed
                .wait_timeout(state, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
            state.waiting -= 1;
            state.told = false;
        }
    }

    /// Takes back the room that a poll has used, unless it is large.
    fn used(&self, room: Vec<(Event, u64)>) {
        if (1..=MOST_SPARE).contains(&room.capacity()) {
            self.lock().spare = room;
        }
    }

    fn fd(&self) -> Result<i32> {
        let mut state = self.lock();
        if state.socket.is_none() {
            let failed = |error: std::io::Error| {
                Error::new(ErrorCode::Internal, format!("no socket pair: {error}"))
            };
            let (host, library) = UnixStream::pair().map_err(failed)?;
            host.set_nonblocking(true).map_err(failed)?;
            library.set_nonblocking(true).map_err(failed)?;
            state.socket = Some(Socket {
                host,
                library,
                signalled: false,
            });
            state.signal();
        }
        match &state.socket {
            Some(socket) => Ok(socket.host.as_raw_fd()),
            None => Err(internal()),
        }
    }

    fn wakeup(&self) {
        let mut state = self.lock();
        state.woken = true;
        state.signal();
        drop(state);
        self.changed.notify_one();
    }

    fn close(&self) {
        let (events, feeders) = {
            let mut state = self.lock();
            state.closed = true;
            (
                std::mem::take(&mut state.events),
                std::mem::take(&mut state.feeders),
            )
        };
        self.changed.notify_all();
        feeders.iter().for_each(StopSignal::stop);
        for (event, _) in events {
            if let Event::Future(future) = &event {
                future.polled();
            }
        }
    }
}

impl Drop for queen_event_queue_t {
    fn drop(&mut self) {
        self.queue.close();
    }
}

/// Makes an event queue.
///
/// It never drops a completion or a delivery and never blocks a thread of the library. Of log records it keeps 10 000, and
/// the reports of 10 000 messages; the next one after a gap carries the number of those dropped. Of statistics it keeps the
/// newest.
///
/// Ownership: the queue is returned and freed with queen_event_queue_free().
/// Threads: any.
#[unsafe(no_mangle)]
pub extern "C" fn queen_event_queue_new() -> *mut queen_event_queue_t {
    guard(std::ptr::null_mut(), || {
        sys::install();
        give(queen_event_queue_t {
            stamp: Stamp::owned(),
            queue: Arc::default(),
        })
    })
}

/// Takes events, waiting at most `timeout_ms` milliseconds for the first; 0 only looks.
///
/// `events` is an array of `capacity` events, `event_size` is `sizeof *events`: newer libraries fill older structs.
///
/// Returns how many were written; 0 when the time is over or the poll was woken. Negative: QUEEN_E_INVALID_ARGUMENT for
/// NULL, a capacity of 0, an impossible size or a negative timeout; QUEEN_E_CLOSED when the queue was freed meanwhile.
///
/// Ownership: what the events lend is freed with queen_events_free() before the array is used again.
/// Threads: any, several at once. Blocks.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn queen_event_queue_poll(
    queue: *const queen_event_queue_t,
    events: *mut queen_event_t,
    event_size: usize,
    capacity: usize,
    timeout_ms: i64,
) -> i64 {
    guard(panicked().into(), || {
        let poll = || {
            // SAFETY: `queue` is NULL or a living handle by contract.
            let queue = unsafe { lend(queue) }?.queue.clone();
            let timeout = timeout(timeout_ms)?;
            if events.is_null() || capacity == 0 {
                return Err(Error::argument("events is NULL or its capacity 0"));
            }
            if event_size < OLDEST_EVENT_SIZE {
                return Err(Error::argument(format!(
                    "event_size is {event_size}; pass sizeof *events"
                )));
            }
            let mut taken = queue.poll(capacity, timeout)?;
            let count = taken.len();
            let mut place = events.cast::<u8>();
            for (event, tag) in taken.drain(..) {
                let made = queen_event_t::make(event, tag, event_size);
                // SAFETY: the array has room for `capacity` events of `event_size` bytes by contract, and an event of
                // this library is not larger than that.
                unsafe {
                    place.write_bytes(0, event_size);
                    place.cast::<queen_event_t>().write_unaligned(made);
                    place = place.add(event_size);
                }
            }
            queue.used(taken);
            Ok(count as i64)
        };
        poll().unwrap_or_else(|error| error.code().number().into())
    })
}

const _: () = assert!(OLDEST_EVENT_SIZE <= size_of::<queen_event_t>());

/// A descriptor for the host's event loop: readable exactly while events wait or a wakeup does. Level-triggered;
/// edge-triggered watchers poll until fewer than `capacity` events come.
///
/// Made on first use. Only watch it: nobody else may read, write or close it. Remove watchers before the queue is freed;
/// a loop that must own its descriptors duplicates it.
///
/// Returns the descriptor, or a negative QUEEN_E_* code.
///
/// Ownership: the descriptor stays the queue's.
/// Threads: any.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn queen_event_queue_fd(queue: *const queen_event_queue_t) -> i32 {
    guard(panicked(), || {
        // SAFETY: `queue` is NULL or a living handle by contract.
        match unsafe { lend(queue) }.and_then(|queue| queue.queue.fd()) {
            Ok(fd) => fd,
            Err(error) => error.code().number(),
        }
    })
}

/// Ends the running poll, or else the next one, with 0 events, once; the descriptor is readable until then.
///
/// Returns QUEEN_OK, or QUEEN_E_INVALID_ARGUMENT for NULL.
///
/// Ownership: `queue` is borrowed.
/// Threads: any.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn queen_event_queue_wakeup(queue: *const queen_event_queue_t) -> i32 {
    guard(panicked(), || {
        // SAFETY: `queue` is NULL or a living handle by contract.
        code(unsafe { lend(queue) }.map(|queue| queue.queue.wakeup()))
    })
}

/// Frees the queue: running polls end with QUEEN_E_CLOSED, deliveries in it go back to the broker, consumers that feed it
/// stop. NULL is ignored. A thread that polls in a loop leaves it first (queen_event_queue_wakeup() ends its poll), because
/// no poll may begin after this call.
///
/// Ownership: `queue` is consumed; its descriptor is closed.
/// Threads: any.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn queen_event_queue_free(queue: *mut queen_event_queue_t) {
    // SAFETY: `queue` is NULL or a living handle by contract, and this is its last use.
    unsafe { handle::free(queue) }
}
