//! `queen_consumer_t`.

use std::ffi::{c_char, c_void};

use super::client::queen_client_t;
use super::codes::{QUEEN_ACK, QUEEN_DEFER, QUEEN_NACK};
use super::delivery::queen_delivery_t;
use super::error::{queen_error_t, report};
use super::event_queue::{Event, queen_event_queue_t};
use super::future::{future, queen_future_t};
use super::handle::{
    self, Object, Stamp, body, free, give, guard, internal, lend, or_empty, timeout,
};
use super::user_data::{UserData, queen_user_data_free};
use crate::{
    AnyPending, ConsumeOptions, Consumer, ConsumerEvent, ConsumerSink, Delivery, Dispatcher, Error,
    Output, Result, Settlement, StopSignal, StreamConsumer,
};

/// A running consumer, of messages or of the windows of a stream.
///
/// Ownership: the host's until queen_consumer_free(). It ends by itself on its limit or when idle.
pub struct queen_consumer_t {
    stamp: Stamp,
    consumer: Running,
    dispatcher: Dispatcher,
}

/// What it hands over.
enum Running {
    Deliveries(Consumer),
    Windows(StreamConsumer),
}

impl queen_consumer_t {
    pub(super) fn of_windows(consumer: StreamConsumer, dispatcher: Dispatcher) -> queen_consumer_t {
        queen_consumer_t {
            stamp: Stamp::owned(),
            consumer: Running::Windows(consumer),
            dispatcher,
        }
    }

    pub(super) fn stop_signal(&self) -> StopSignal {
        match &self.consumer {
            Running::Deliveries(consumer) => consumer.stop_signal(),
            Running::Windows(consumer) => consumer.stop_signal(),
        }
    }
}

impl Object for queen_consumer_t {
    const NAME: &'static str = "consumer";

    fn stamp(&self) -> &Stamp {
        &self.stamp
    }
}

/// Handles a delivery and returns QUEEN_ACK, QUEEN_NACK or QUEEN_DEFER; any other number is a nack and is logged. What it
/// returns counts only for messages that have no verdict yet.
///
/// Ownership: with QUEEN_ACK and QUEEN_NACK the library frees the delivery after the handler has returned. With
/// QUEEN_DEFER the delivery is the host's from the moment the handler was entered: another thread may settle and free it
/// before the handler has returned.
/// Threads: a handler thread, at most `concurrency` at once per consumer. It may block; leases are renewed meanwhile.
/// Every function may be called from it, except waiting for the stop of its own consumer or the close of its own client.
pub type queen_delivery_handler =
    Option<unsafe extern "C" fn(delivery: *mut queen_delivery_t, user_data: *mut c_void) -> i32>;

/// Starts a consumer that hands deliveries to a handler.
///
/// `options` is a JSON object of `len` bytes, whose keys docs/CONFIGURATION.md explains: `queue` (or `namespace`, `task`),
/// `partition`, `consumerGroup`, `concurrency` (1), `batch` (not set: a handler gets one message at a time, fetched in such
/// numbers as it can take; 1: one message to a lease), `each` (false), `ordered` (true), `limit` (none; messages per
/// worker), `limitTotal` (none; messages of all workers), `idleMillis` (never), `wait` (true), `pollTimeoutMillis`
/// (30000), `autoAck` (true; false leaves what the handler acks to verdicts by hand), `commitOnDelivery` (false; true
/// means at most once, and no verdicts), `leaseSeconds` (60), `renewLease` (true; false fetches nothing ahead),
/// `partitions` (as many as needed; 1 with `batch`), `subscriptionMode`, `subscriptionFrom`, `maxHandlingSeconds` (3600).
///
/// Returns NULL on failure, sets `*error` if it is not NULL, and runs `user_data_free` before it returns.
///
/// Ownership: `options` is copied; `user_data` belongs to the library until `user_data_free`, which runs once, after the
/// last handler has returned; the consumer is returned and freed with queen_consumer_free(), the error with
/// queen_error_free().
/// Threads: any. Handlers run on handler threads.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn queen_consume(
    client: *const queen_client_t,
    options: *const c_char,
    len: usize,
    handler: queen_delivery_handler,
    user_data: *mut c_void,
    user_data_free: queen_user_data_free,
    error: *mut *mut queen_error_t,
) -> *mut queen_consumer_t {
    let user_data = UserData::new(user_data, user_data_free);
    let start = || {
        let handler = handler.ok_or_else(|| Error::argument("handler is NULL"))?;
        let run = move |delivery: Delivery| {
            let user_data = &user_data;
            let pointer = give(queen_delivery_t::new(delivery));
            // SAFETY: the host promised a function that takes these; the handle lives until it is freed here or, with
            // QUEEN_DEFER, by the host.
            unsafe {
                match handler(pointer, user_data.get()) {
                    QUEEN_DEFER => Settlement::Defer,
                    verdict => {
                        free(pointer);
                        match verdict {
                            QUEEN_ACK => Settlement::Ack,
                            QUEEN_NACK => Settlement::Nack,
                            other => Settlement::Other(other),
                        }
                    }
                }
            }
        };
        // SAFETY: the handle and the text are valid by contract.
        unsafe { consume(client, options, len, ConsumerSink::Handler(Box::new(run))) }
    };
    // SAFETY: `error` is NULL or writable by contract.
    unsafe { started(start, error) }
}

/// Starts a consumer that puts deliveries, lost leases and its end into an event queue, with this tag.
///
/// `options` as for queen_consume(). At most `concurrency` deliveries are unsettled at any time: the next comes when one
/// of them is settled by queen_delivery_ack(), _nack(), _settle() or by ids; queen_delivery_next() settles one and takes the
/// next, if it is at hand.
///
/// Returns NULL on failure and sets `*error` if it is not NULL.
///
/// Ownership: `options` is copied, `queue` is borrowed; the consumer is returned and freed with queen_consumer_free(), the
/// error with queen_error_free().
/// Threads: any.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn queen_consume_events(
    client: *const queen_client_t,
    options: *const c_char,
    len: usize,
    queue: *const queen_event_queue_t,
    tag: u64,
    error: *mut *mut queen_error_t,
) -> *mut queen_consumer_t {
    let start = || {
        // SAFETY: `queue` is NULL or a living handle by contract.
        let queue = unsafe { lend(queue) }?.queue.clone();
        let to = queue.clone();
        let tell = move |event: ConsumerEvent| {
            let event = match event {
                ConsumerEvent::Delivery(delivery) => Event::Delivery(delivery),
                ConsumerEvent::LeaseLost { json } => Event::LeaseLost(json),
                ConsumerEvent::Ended(result) => {
                    Event::Ended(result.map(|summary| summary.to_json()))
                }
            };
            to.push(event, tag)
        };
        // SAFETY: the handle and the text are valid by contract.
        let consumer =
            unsafe { consume(client, options, len, ConsumerSink::Events(Box::new(tell))) }?;
        queue.feed(consumer.stop_signal());
        Ok(consumer)
    };
    // SAFETY: `error` is NULL or writable by contract.
    unsafe { started(start, error) }
}

/// # Safety
/// `client` is NULL or a living handle, `options` readable for `len`.
unsafe fn consume(
    client: *const queen_client_t,
    options: *const c_char,
    len: usize,
    sink: ConsumerSink,
) -> Result<queen_consumer_t> {
    // SAFETY: promised by the caller.
    let (client, options) = unsafe { (&lend(client)?.client, body("options", options, len)?) };
    let consumer = client.consume(ConsumeOptions::parse(or_empty(Some(options)))?, sink)?;
    Ok(queen_consumer_t {
        stamp: Stamp::owned(),
        consumer: Running::Deliveries(consumer),
        dispatcher: client.dispatcher(),
    })
}

/// # Safety
/// `error` is NULL or may be written.
pub(super) unsafe fn started(
    start: impl FnOnce() -> Result<queen_consumer_t>,
    error: *mut *mut queen_error_t,
) -> *mut queen_consumer_t {
    guard(std::ptr::null_mut(), || {
        let (consumer, failure) = match guard(Err(internal()), start) {
            Ok(consumer) => (give(consumer), None),
            Err(failure) => (std::ptr::null_mut(), Some(failure)),
        };
        // SAFETY: promised by the caller.
        unsafe { report(error, failure) };
        consumer
    })
}

/// A future that completes when the consumer has ended and its last handler has returned, with the summary
/// `{"reason": "limit"|"idle"|"stopped"|"closed", "deliveries", "messages", "acked", "nacked", "unsettled"}` (of windows
/// that of queen_stream_consume()), or with the error that ended it; then the JSON of the future is the summary too, with
/// the reason `error`.
///
/// Ownership: `consumer` is borrowed; the future is returned and freed with queen_future_free().
/// Threads: any. Waiting for the future inside a handler of the consumer answers QUEEN_E_WOULD_DEADLOCK.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn queen_consumer_future(
    consumer: *const queen_consumer_t,
) -> *mut queen_future_t {
    // SAFETY: `consumer` is NULL or a living handle by contract.
    unsafe {
        with_consumer(consumer, |consumer| {
            Ok(match consumer {
                Running::Deliveries(consumer) => Box::new(consumer.finished()),
                Running::Windows(consumer) => Box::new(consumer.finished()),
            })
        })
    }
}

/// Stops the consumer: it polls no more, gives back what no handler or poller has taken, and waits for running and
/// deferred deliveries and their verdicts, at most `timeout_ms` milliseconds. What is unsettled then is let go and
/// answers QUEEN_E_CLOSED.
///
/// The future is that of queen_consumer_future(), or QUEEN_E_TIMEOUT while handlers still run at the deadline: call again
/// to wait longer.
///
/// Ownership: `consumer` is borrowed; the future is returned and freed with queen_future_free().
/// Threads: any. Waiting for the future inside a handler of the consumer answers QUEEN_E_WOULD_DEADLOCK.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn queen_consumer_stop(
    consumer: *const queen_consumer_t,
    timeout_ms: i64,
) -> *mut queen_future_t {
    // SAFETY: `consumer` is NULL or a living handle by contract.
    unsafe {
        with_consumer(consumer, |consumer| {
            let timeout = timeout(timeout_ms)?;
            Ok(match consumer {
                Running::Deliveries(consumer) => Box::new(consumer.stop(timeout)),
                Running::Windows(consumer) => Box::new(consumer.stop(timeout)),
            })
        })
    }
}

/// # Safety
/// `consumer` is NULL or a living handle.
unsafe fn with_consumer(
    consumer: *const queen_consumer_t,
    start: impl FnOnce(&Running) -> Result<Box<dyn AnyPending>>,
) -> *mut queen_future_t {
    // SAFETY: promised by the caller.
    let consumer = unsafe { lend(consumer) };
    let dispatcher = consumer
        .as_ref()
        .ok()
        .map(|consumer| consumer.dispatcher.clone());
    future(dispatcher, || start(&consumer?.consumer))
}

/// Frees the handle. A consumer that still runs stops in the background; running handlers finish and settle. NULL is
/// ignored.
///
/// Ownership: `consumer` is consumed.
/// Threads: any.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn queen_consumer_free(consumer: *mut queen_consumer_t) {
    // SAFETY: `consumer` is NULL or a living handle by contract, and this is its last use.
    unsafe { handle::free(consumer) }
}
