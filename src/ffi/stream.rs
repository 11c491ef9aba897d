//! Polls and consumers of windows. Consumers are `queen_consumer_t`, as those of messages.

use std::ffi::{c_char, c_void};

use super::client::queen_client_t;
use super::codes::{QUEEN_ACK, QUEEN_DEFER, QUEEN_NACK};
use super::consumer::{queen_consumer_t, started};
use super::error::queen_error_t;
use super::event_queue::{Event, queen_event_queue_t};
use super::future::{future, queen_future_t};
use super::handle::{body, free, give, lend, or_empty, required_text};
use super::user_data::{UserData, queen_user_data_free};
use super::window::queen_window_t;
use crate::{
    Error, Output, Result, Settlement, StreamConsumeOptions, StreamPollOptions, Window,
    WindowEvent, WindowSink,
};

/// Polls a stream for the next window of a consumer group, waiting for it.
///
/// `options` is a JSON object of `len` bytes: `pollTimeoutMillis` (30000, 0 only looks), `timeoutMillis` (the client's, for
/// the rest of the call). The window is to be had by queen_future_take_window(); without one the future goes well and there
/// is none. Polls of one group take turns in a process. The lease is not renewed; it has the length that the stream defines.
///
/// QUEEN_E_NOT_FOUND where there is no such stream, QUEEN_E_UNSUPPORTED on brokers that have no streams.
///
/// Ownership: the texts are copied; the future is returned and freed with queen_future_free().
/// Threads: any.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn queen_stream_poll(
    client: *const queen_client_t,
    stream: *const c_char,
    consumer_group: *const c_char,
    options: *const c_char,
    len: usize,
) -> *mut queen_future_t {
    // SAFETY: the handle and the texts are valid by contract.
    unsafe {
        let client = lend(client).map(|client| client.client.clone());
        let dispatcher = client.as_ref().ok().map(|client| client.dispatcher());
        future(dispatcher, || {
            let stream = required_text("stream", stream)?;
            let group = required_text("consumer_group", consumer_group)?;
            let options = or_empty(Some(body("options", options, len)?));
            let options = StreamPollOptions::parse(options)?;
            Ok(Box::new(client?.stream(stream).poll_with(group, &options)))
        })
    }
}

/// Handles a window and returns QUEEN_ACK, QUEEN_NACK or QUEEN_DEFER; any other number is a nack and is logged. What it
/// returns counts only where the window has no verdict yet.
///
/// Ownership: with QUEEN_ACK and QUEEN_NACK the library frees the window after the handler has returned. With QUEEN_DEFER
/// it is the host's from the moment the handler was entered: another thread may settle and free it before the handler has
/// returned.
/// Threads: a handler thread, at most `concurrency` at once per consumer. It may block; the lease is renewed meanwhile.
/// Every function may be called from it, except waiting for the stop of its own consumer or the close of its own client.
pub type queen_window_handler =
    Option<unsafe extern "C" fn(window: *mut queen_window_t, user_data: *mut c_void) -> i32>;

/// Starts a consumer that hands the windows of a stream to a handler.
///
/// `options` is a JSON object of `len` bytes, whose keys docs/CONFIGURATION.md explains: `stream` and `consumerGroup`
/// (required), `concurrency` (1), `limit` (none; windows), `idleMillis` (never), `pollTimeoutMillis` (30000), `renewLease`
/// (true), `extendMillis` (30000), `maxHandlingSeconds` (3600). Its summary is `{"reason", "windows", "messages", "acked",
/// "nacked", "lost"}`; queen_consumer_future(), queen_consumer_stop() and queen_consumer_free() are for it too.
///
/// Returns NULL on failure, sets `*error` if it is not NULL, and runs `user_data_free` before it returns. A stream that the
/// broker does not have, or a broker without streams, ends the consumer with that error.
///
/// Ownership: `options` is copied; `user_data` belongs to the library until `user_data_free`, which runs once, after the
/// last handler has returned; the consumer is returned and freed with queen_consumer_free(), the error with
/// queen_error_free().
/// Threads: any. Handlers run on handler threads.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn queen_stream_consume(
    client: *const queen_client_t,
    options: *const c_char,
    len: usize,
    handler: queen_window_handler,
    user_data: *mut c_void,
    user_data_free: queen_user_data_free,
    error: *mut *mut queen_error_t,
) -> *mut queen_consumer_t {
    let user_data = UserData::new(user_data, user_data_free);
    let start = || {
        let handler = handler.ok_or_else(|| Error::argument("handler is NULL"))?;
        let run = move |window: Window| {
            let user_data = &user_data;
            let pointer = give(queen_window_t::new(window));
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
        unsafe { consume(client, options, len, WindowSink::Handler(Box::new(run))) }
    };
    // SAFETY: `error` is NULL or writable by contract.
    unsafe { started(start, error) }
}

/// Starts a consumer that puts windows (QUEEN_EVENT_WINDOW), lost leases and its end into an event queue, with this tag.
///
/// `options` as for queen_stream_consume(). At most `concurrency` windows are unsettled at any time: the next comes when
/// one of them is settled by queen_window_ack() or queen_window_nack(), or freed.
///
/// Returns NULL on failure and sets `*error` if it is not NULL.
///
/// Ownership: `options` is copied, `queue` is borrowed; the consumer is returned and freed with queen_consumer_free(), the
/// error with queen_error_free().
/// Threads: any.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn queen_stream_consume_events(
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
        let tell = move |event: WindowEvent| {
            let event = match event {
                WindowEvent::Window(window) => Event::Window(window),
                WindowEvent::LeaseLost { json } => Event::LeaseLost(json),
                WindowEvent::Ended(result) => Event::Ended(result.map(|summary| summary.to_json())),
            };
            to.push(event, tag)
        };
        // SAFETY: the handle and the text are valid by contract.
        let consumer =
            unsafe { consume(client, options, len, WindowSink::Events(Box::new(tell))) }?;
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
    sink: WindowSink,
) -> Result<queen_consumer_t> {
    // SAFETY: promised by the caller.
    let (client, options) = unsafe { (&lend(client)?.client, body("options", options, len)?) };
    let options = StreamConsumeOptions::parse(or_empty(Some(options)))?;
    Ok(queen_consumer_t::of_windows(
        client.consume_windows(options, sink)?,
        client.dispatcher(),
    ))
}
