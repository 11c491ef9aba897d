//! The shape of every operation: something that completes exactly once.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Condvar, Mutex, OnceLock, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use crate::budget::Permit;
use crate::error::{Error, ErrorCode, Outcome, Result};
use crate::runtime::{self, Role, lock};

/// A running operation of the background runtime. It completes exactly once: with a result, an error, a timeout,
/// cancelled or closed.
///
/// Await it in any async runtime, or [`wait`](Pending::wait) for it on a plain thread. Clones are the same operation.
///
/// Awaiting is cancel-safe: the operation runs in the background, polled or not, so a future that is dropped in a `select!` or
/// by a timeout ends the waiting and nothing else. What was pushed is pushed; a clone, or the same value awaited by
/// `&mut`, has the result. [`cancel`](Pending::cancel) is how an operation is ended early. The one that nobody holds any
/// more works on, but the messages of a pop that nobody can take go back to the broker.
/// ```
/// use queen::{Client, ErrorCode, PopOptions};
/// use std::time::Duration;
///
/// let client = Client::new("embedded:")?;
/// // Nothing is there: the pop waits at the broker, and is given up.
/// let patient = PopOptions { wait: true, ..PopOptions::default() };
/// let popping = client.queue("orders").pop_with(&patient);
/// assert!(!popping.wait_for(Duration::from_millis(1))?);
/// popping.cancel();
/// let error = popping.wait(Duration::from_secs(10)).err().expect("an error");
/// assert_eq!(error.code(), ErrorCode::Cancelled);
/// # Ok::<(), queen::Error>(())
/// ```
pub struct Pending<T>(Arc<Shared<T>>);

struct Shared<T> {
    state: Mutex<State>,
    done: Condvar,
    result: OnceLock<Result<T>>,
    cancelled: Notify,
    waits_for: WaitsFor,
}

#[derive(Default)]
struct State {
    complete: bool,
    sent: bool,
    keep_permit: bool,
    permit: Option<Permit>,
    wakers: Vec<Waker>,
    hooks: Hooks,
    transaction_ids: Option<Arc<[String]>>,
    keeper: Option<(Arc<dyn Keeper>, Ticket)>,
    /// Threads that wait.
    waiting: usize,
    /// Whether a task listens for the end.
    listened: bool,
}

/// What runs at the end. As a rule there is one.
#[derive(Default)]
struct Hooks {
    first: Option<Hook>,
    more: Vec<Hook>,
}

type Hook = Box<dyn FnOnce() + Send>;

impl Hooks {
    fn add(&mut self, hook: Hook) {
        match self.first {
            None => self.first = Some(hook),
            Some(_) => self.more.push(hook),
        }
    }

    fn run(self) {
        self.first
            .into_iter()
            .chain(self.more)
            .for_each(|hook| hook());
    }
}

/// Who carries operations and must know of those that end by themselves: cancelled, at their deadline, or by a close.
pub(crate) trait Keeper: Send + Sync {
    fn ended(self: Arc<Self>, ticket: Ticket);
}

/// By what a keeper knows an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ticket {
    pub(crate) index: u32,
    pub(crate) number: u64,
}

/// What the end of an operation depends on, so that a wait that can never end is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WaitsFor {
    /// The broker alone.
    Broker,
    /// The callbacks and handlers of this client.
    Client(u64),
    /// The handlers of this consumer.
    Consumer(u64),
}

/// An operation of any type, to be ended early.
pub(crate) trait Abort: Send + Sync {
    fn abort(&self, code: ErrorCode, message: &str);
}

impl<T: Send + Sync> Abort for Shared<T> {
    fn abort(&self, code: ErrorCode, message: &str) {
        Shared::abort(self, code, message);
    }
}

impl<T> Shared<T> {
    fn abort(&self, code: ErrorCode, message: &str) -> bool {
        self.complete_with(|state| {
            let outcome = if state.sent {
                Outcome::Unknown
            } else {
                Outcome::NotApplied
            };
            let ids = state.transaction_ids.take();
            Err(Error::new(code, message)
                .with_outcome(outcome)
                .with_transaction_ids(ids.map(|ids| ids.to_vec()).unwrap_or_default()))
        })
    }

    fn complete_with(&self, result: impl FnOnce(&mut State) -> Result<T>) -> bool {
        let mut state = lock(&self.state);
        if state.complete {
            return false;
        }
        let result = result(&mut state);
        let was_first = self.result.set(result).is_ok();
        debug_assert!(was_first);
        state.complete = true;
        let wakers = std::mem::take(&mut state.wakers);
        let hooks = std::mem::take(&mut state.hooks);
        let keeper = state.keeper.take();
        let (waiting, listened) = (state.waiting > 0, state.listened);
        let permit = if state.keep_permit {
            None
        } else {
            state.permit.take()
        };
        drop(state);
        // Each of these would cost a system call or a lock, even with nobody there.
        if waiting {
            self.done.notify_all();
        }
        if listened {
            self.cancelled.notify_waiters();
        }
        drop(permit);
        for waker in wakers {
            waker.wake();
        }
        hooks.run();
        if let Some((keeper, ticket)) = keeper {
            keeper.ended(ticket);
        }
        true
    }
}

impl<T> Clone for Pending<T> {
    fn clone(&self) -> Self {
        Pending(self.0.clone())
    }
}

impl<T: Clone> Pending<T> {
    pub(crate) fn new(waits_for: WaitsFor) -> Self {
        Pending(Arc::new(Shared {
            state: Mutex::default(),
            done: Condvar::new(),
            result: OnceLock::new(),
            cancelled: Notify::new(),
            waits_for,
        }))
    }

    /// A number that tells the operation from all others that live.
    pub(crate) fn key(&self) -> usize {
        Arc::as_ptr(&self.0) as usize
    }

    /// The same operation, when its type does not matter.
    pub(crate) fn to_abort(&self) -> Arc<dyn Abort>
    where
        T: Send + Sync + 'static,
    {
        self.0.clone()
    }

    /// An operation that is over already.
    pub(crate) fn finished(result: Result<T>) -> Self {
        let pending = Pending::new(WaitsFor::Broker);
        pending.complete(result);
        pending
    }

    /// An operation that has failed before anything was done.
    pub fn failed(error: Error) -> Self {
        Pending::finished(Err(error))
    }

    /// An operation that has succeeded already.
    pub fn ready(value: T) -> Self {
        Pending::finished(Ok(value))
    }

    /// Lets the operation hold its share of the client's bounds until it completes.
    pub(crate) fn hold(&self, permit: Permit) {
        lock(&self.0.state).permit = Some(permit);
    }

    /// Keeps the share beyond completion, until [`release_budget`](Self::release_budget).
    pub fn keep_budget(&self) {
        lock(&self.0.state).keep_permit = true;
    }

    /// Gives back the share that [`keep_budget`](Self::keep_budget) kept.
    pub fn release_budget(&self) {
        let permit = lock(&self.0.state).permit.take();
        drop(permit);
    }

    /// Notes the ids under which a push may have been stored, for errors whose outcome is unknown.
    pub(crate) fn note_transaction_ids(&self, ids: Vec<String>) {
        lock(&self.0.state).transaction_ids = Some(ids.into());
    }

    /// An operation that a keeper carries, with its share of the client's bounds and the ids of its messages.
    pub(crate) fn kept(permit: Permit, transaction_ids: Arc<[String]>) -> Self {
        let pending = Pending::new(WaitsFor::Broker);
        let mut state = lock(&pending.0.state);
        state.permit = Some(permit);
        state.transaction_ids = Some(transaction_ids);
        drop(state);
        pending
    }

    /// Says who is told when the operation ends by itself. `false`: it has ended already, and nobody is told.
    pub(crate) fn keep(&self, keeper: Arc<dyn Keeper>, ticket: Ticket) -> bool {
        let mut state = lock(&self.0.state);
        if !state.complete {
            state.keeper = Some((keeper, ticket));
        }
        !state.complete
    }

    /// Completes the operation on behalf of its keeper, who is not told.
    pub(crate) fn settle(&self, result: Result<T>) -> bool {
        self.complete_with(|state| {
            state.keeper = None;
            result
        })
    }

    /// Called right before bytes leave. `false`: the operation is over, send nothing.
    pub(crate) fn mark_sent(&self) -> bool {
        let mut state = lock(&self.0.state);
        state.sent |= !state.complete;
        !state.complete
    }

    /// Completes the operation unless it is complete; tells whether this call did it.
    pub(crate) fn complete(&self, result: Result<T>) -> bool {
        self.complete_with(|_| result)
    }

    /// Ends the operation early with `code`; the outcome depends on whether anything was sent.
    pub(crate) fn abort(&self, code: ErrorCode, message: &str) -> bool {
        self.0.abort(code, message)
    }

    fn complete_with(&self, result: impl FnOnce(&mut State) -> Result<T>) -> bool {
        self.0.complete_with(result)
    }

    /// Asks for the end of the operation and returns. It still completes once: with its result if that came first,
    /// else with [`ErrorCode::Cancelled`]. Any thread, any number of times.
    pub fn cancel(&self) {
        self.abort(ErrorCode::Cancelled, "the call was cancelled");
    }

    /// Waits until somebody else than the running task has completed the operation (cancel or close).
    pub(crate) async fn ended(&self) {
        let notified = self.0.cancelled.notified();
        tokio::pin!(notified);
        notified.as_mut().enable();
        {
            let mut state = lock(&self.0.state);
            if state.complete {
                return;
            }
            state.listened = true;
        }
        notified.await;
    }

    /// Whether the result is there.
    pub fn is_complete(&self) -> bool {
        lock(&self.0.state).complete
    }

    /// The result, if it is there.
    pub fn result(&self) -> Option<&Result<T>> {
        self.0.result.get()
    }

    /// Waits at most `timeout` on the calling thread: `Ok(true)` when the operation is complete, `Ok(false)` when it
    /// goes on. [`ErrorCode::WouldDeadlock`] when it can only end after the calling thread has returned.
    pub fn wait_for(&self, timeout: Duration) -> Result<bool> {
        let shared = &*self.0;
        let mut state = lock(&shared.state);
        if state.complete || timeout.is_zero() {
            return Ok(state.complete);
        }
        if shared.waits_for.includes(runtime::role()) {
            return Err(Error::new(
                ErrorCode::WouldDeadlock,
                "a handler or callback cannot wait for the end of its own consumer or client; wait on another thread",
            ));
        }
        let deadline = Instant::now().checked_add(timeout);
        loop {
            if state.complete {
                return Ok(true);
            }
            // A wait too long to be represented is cut into pieces.
            let left = deadline.map_or(Duration::from_secs(3600), |at| {
                at.saturating_duration_since(Instant::now())
            });
            if left.is_zero() {
                return Ok(false);
            }
            state.waiting += 1;
            state = shared
                .done
                .wait_timeout(state, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
            state.waiting -= 1;
        }
    }

    /// Waits at most `timeout` on the calling thread for the result; [`ErrorCode::Timeout`] when it is not there by
    /// then (the operation goes on).
    pub fn wait(&self, timeout: Duration) -> Result<T> {
        if !self.wait_for(timeout)? {
            return Err(Error::new(
                ErrorCode::Timeout,
                format!("not complete after {} ms", timeout.as_millis()),
            ));
        }
        match self.result() {
            Some(result) => result.clone(),
            None => Err(Error::new(
                ErrorCode::Internal,
                "a complete operation has no result",
            )),
        }
    }

    /// Another operation with the same end, which can be cancelled without touching this one.
    pub(crate) fn follow(&self) -> Pending<T>
    where
        T: Send + Sync + 'static,
    {
        let follower = Pending::new(self.0.waits_for);
        let (to, from) = (follower.clone(), self.clone());
        self.when_complete(move || {
            if let Some(result) = from.result() {
                to.complete(result.clone());
            }
        });
        follower
    }

    /// Runs `hook` once the operation is complete: on the completing thread, or at once on this one when it is
    /// complete already. Hooks must be short and must not block.
    pub fn when_complete(&self, hook: impl FnOnce() + Send + 'static) {
        let mut state = lock(&self.0.state);
        if !state.complete {
            return state.hooks.add(Box::new(hook));
        }
        drop(state);
        hook();
    }

    /// As [`when_complete`](Self::when_complete), for a hook that is in a box already.
    pub(crate) fn when_complete_boxed(&self, hook: Hook) {
        let mut state = lock(&self.0.state);
        if !state.complete {
            return state.hooks.add(hook);
        }
        drop(state);
        hook();
    }
}

impl WaitsFor {
    fn includes(self, role: Role) -> bool {
        match (self, role) {
            (WaitsFor::Client(id), Role::Callbacks { client, .. }) => id == client,
            (WaitsFor::Consumer(id), Role::Callbacks { consumer, .. }) => id == consumer,
            _ => false,
        }
    }
}

impl<T: Clone> Future for Pending<T> {
    type Output = Result<T>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<T>> {
        let mut state = lock(&self.0.state);
        match self.0.result.get() {
            Some(result) if state.complete => Poll::Ready(result.clone()),
            _ => {
                if !state.wakers.iter().any(|waker| waker.will_wake(cx.waker())) {
                    state.wakers.push(cx.waker().clone());
                }
                Poll::Pending
            }
        }
    }
}

impl<T> std::fmt::Debug for Pending<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let state = if lock(&self.0.state).complete {
            "complete"
        } else {
            "running"
        };
        write!(f, "Pending({state})")
    }
}

/// Completes its operation when it is dropped without having done so: a panic or the end of the runtime must not
/// leave anybody waiting.
pub(crate) struct Completer<T: Clone>(pub(crate) Pending<T>);

impl<T: Clone> Drop for Completer<T> {
    fn drop(&mut self) {
        let message = if std::thread::panicking() {
            "a background task panicked"
        } else {
            "the runtime has ended"
        };
        self.0.abort(ErrorCode::Internal, message);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    fn pending() -> Pending<u32> {
        Pending::new(WaitsFor::Broker)
    }

    #[test]
    fn completes_once() {
        let op = pending();
        assert!(!op.wait_for(Duration::from_millis(1)).unwrap());
        assert!(op.complete(Ok(1)));
        assert!(!op.complete(Ok(2)));
        op.cancel();
        assert_eq!(op.wait(Duration::ZERO).unwrap(), 1);
    }

    #[test]
    fn cancel_tells_whether_anything_was_sent() {
        let op = pending();
        op.cancel();
        assert_eq!(
            op.wait(Duration::ZERO).unwrap_err().outcome(),
            Outcome::NotApplied
        );
        assert!(!op.mark_sent(), "a cancelled call is not sent");
        let op = pending();
        assert!(op.mark_sent());
        op.cancel();
        let error = op.wait(Duration::ZERO).unwrap_err();
        assert_eq!(
            (error.code(), error.outcome()),
            (ErrorCode::Cancelled, Outcome::Unknown)
        );
    }

    #[test]
    fn hooks_run_once_before_or_after() {
        let count = Arc::new(AtomicUsize::new(0));
        let op = pending();
        for _ in 0..2 {
            let count = count.clone();
            op.when_complete(move || {
                count.fetch_add(1, Ordering::SeqCst);
            });
            op.complete(Ok(0));
        }
        assert_eq!(count.load(Ordering::SeqCst), 2);
    }

    #[test]
    fn cancel_racing_completion_has_one_winner() {
        for _ in 0..500 {
            let op = pending();
            let other = op.clone();
            let thread = std::thread::spawn(move || other.complete(Ok(7)));
            op.cancel();
            let completed = thread.join().unwrap();
            assert_eq!(op.wait(Duration::ZERO).is_ok(), completed);
        }
    }

    #[test]
    fn a_dropped_completer_ends_the_operation() {
        let op = pending();
        drop(Completer(op.clone()));
        assert_eq!(
            op.wait(Duration::ZERO).unwrap_err().code(),
            ErrorCode::Internal
        );
    }

    #[test]
    fn waiting_for_oneself_is_refused() {
        runtime::set_role(Role::Callbacks {
            client: 4,
            consumer: 9,
        });
        let refused = |waits_for| {
            let op: Pending<u32> = Pending::new(waits_for);
            op.wait_for(Duration::from_millis(1)).is_err()
        };
        assert!(refused(WaitsFor::Client(4)) && refused(WaitsFor::Consumer(9)));
        assert!(
            !refused(WaitsFor::Client(5))
                && !refused(WaitsFor::Consumer(8))
                && !refused(WaitsFor::Broker)
        );
        runtime::set_role(Role::Outside);
    }
}
