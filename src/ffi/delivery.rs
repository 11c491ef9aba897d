//! `queen_delivery_t` and `queen_message_view_t`.

use std::ffi::{CString, c_char};
use std::mem::size_of;
use std::sync::OnceLock;

use super::future::{future, queen_future_t};
use super::handle::{
    self, Object, Stamp, body, c_text, give, guard, lend, lend_text, optional_text, panicked,
};
use crate::{Delivery, Error, Message, Result, Trace, WindowMessage};

/// Messages of one partition under one lease.
///
/// Each message is settled once, by a verdict of queen_delivery_ack(), _next(), _nack(), _settle(), by ids, or by what the handler
/// returns for the rest. A verdict is sent when every earlier message of the partition under that lease has one.
///
/// Ownership: freed with queen_delivery_free() by whoever holds it. Freed unsettled, it gives its messages back to the
/// broker without charging a retry.
pub struct queen_delivery_t {
    stamp: Stamp,
    delivery: Delivery,
    json: OnceLock<CString>,
}

impl Object for queen_delivery_t {
    const NAME: &'static str = "delivery";

    fn stamp(&self) -> &Stamp {
        &self.stamp
    }
}

impl queen_delivery_t {
    pub(super) fn new(delivery: Delivery) -> queen_delivery_t {
        queen_delivery_t {
            stamp: Stamp::owned(),
            delivery,
            json: OnceLock::new(),
        }
    }

    pub(super) fn delivery(&self) -> &Delivery {
        &self.delivery
    }
}

/// One message of a delivery: pointer and length of each field, UTF-8, not NUL-terminated.
///
/// Ownership: everything is on loan until the delivery is freed, settled or not.
#[repr(C)]
pub struct queen_message_view_t {
    /// The broker's id of the message.
    pub id: *const c_char,
    /// Length in bytes.
    pub id_len: usize,
    /// The producer's id, the key of acks and of de-duplication.
    pub transaction_id: *const c_char,
    /// Length in bytes.
    pub transaction_id_len: usize,
    /// The queue; empty when it was found by namespace or task and the broker does not tell.
    pub queue: *const c_char,
    /// Length in bytes.
    pub queue_len: usize,
    /// The partition's name.
    pub partition: *const c_char,
    /// Length in bytes.
    pub partition_len: usize,
    /// The partition's id, opaque.
    pub partition_id: *const c_char,
    /// Length in bytes.
    pub partition_id_len: usize,
    /// The lease; empty when the broker itself acked at delivery.
    pub lease_id: *const c_char,
    /// Length in bytes.
    pub lease_id_len: usize,
    /// The consumer group; "__QUEUE_MODE__" without one.
    pub consumer_group: *const c_char,
    /// Length in bytes.
    pub consumer_group_len: usize,
    /// When the push was committed, ISO 8601 in UTC.
    pub created_at: *const c_char,
    /// Length in bytes.
    pub created_at_len: usize,
    /// The trace id, NULL without one.
    pub trace_id: *const c_char,
    /// Length in bytes.
    pub trace_id_len: usize,
    /// The authenticated producer, NULL where the broker names none.
    pub producer_sub: *const c_char,
    /// Length in bytes.
    pub producer_sub_len: usize,
    /// The payload: JSON text, byte for byte as pushed.
    pub payload: *const c_char,
    /// Length in bytes.
    pub payload_len: usize,
}

impl queen_message_view_t {
    /// Of a message of a window, which knows less.
    pub(super) fn of_window(message: &WindowMessage) -> queen_message_view_t {
        fn lent(text: &str) -> (*const c_char, usize) {
            (text.as_ptr().cast(), text.len())
        }
        let (id, id_len) = lent(&message.id);
        let (created_at, created_at_len) = lent(&message.created_at);
        let (payload, payload_len) = lent(message.payload());
        let (nothing, _) = lent("");
        queen_message_view_t {
            id,
            id_len,
            transaction_id: nothing,
            transaction_id_len: 0,
            queue: nothing,
            queue_len: 0,
            partition: nothing,
            partition_len: 0,
            partition_id: nothing,
            partition_id_len: 0,
            lease_id: nothing,
            lease_id_len: 0,
            consumer_group: nothing,
            consumer_group_len: 0,
            created_at,
            created_at_len,
            trace_id: std::ptr::null(),
            trace_id_len: 0,
            producer_sub: std::ptr::null(),
            producer_sub_len: 0,
            payload,
            payload_len,
        }
    }

    fn of(message: &Message) -> queen_message_view_t {
        fn lent(text: &str) -> (*const c_char, usize) {
            (text.as_ptr().cast(), text.len())
        }
        fn optional(text: Option<&String>) -> (*const c_char, usize) {
            text.map_or((std::ptr::null(), 0), |text| lent(text))
        }
        let source = &*message.source;
        let (id, id_len) = lent(&message.id);
        let (transaction_id, transaction_id_len) = lent(&message.transaction_id);
        let (queue, queue_len) = lent(&source.queue);
        let (partition, partition_len) = lent(&source.partition);
        let (partition_id, partition_id_len) = lent(&source.partition_id);
        let (lease_id, lease_id_len) = lent(&source.lease_id);
        let (consumer_group, consumer_group_len) = lent(&source.consumer_group);
        let (created_at, created_at_len) = lent(&message.created_at);
        let (trace_id, trace_id_len) = optional(message.trace_id.as_ref());
        let (producer_sub, producer_sub_len) = optional(message.producer_sub.as_ref());
        let (payload, payload_len) = lent(message.payload());
        queen_message_view_t {
            id,
            id_len,
            transaction_id,
            transaction_id_len,
            queue,
            queue_len,
            partition,
            partition_len,
            partition_id,
            partition_id_len,
            lease_id,
            lease_id_len,
            consumer_group,
            consumer_group_len,
            created_at,
            created_at_len,
            trace_id,
            trace_id_len,
            producer_sub,
            producer_sub_len,
            payload,
            payload_len,
        }
    }
}

/// How many messages the delivery has; 0 for NULL.
///
/// Ownership: `delivery` is borrowed.
/// Threads: any.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn queen_delivery_count(delivery: *const queen_delivery_t) -> usize {
    // SAFETY: `delivery` is NULL or a living handle by contract.
    guard(0, || {
        unsafe { lend(delivery) }.map_or(0, |delivery| delivery.delivery.messages().len())
    })
}

/// Fills views of the messages from `first` on, at most `capacity`; `view_size` is `sizeof *views`. A smaller size, of an
/// older header, gets the fields that it knows; what a larger one has beyond this library is zeroed.
///
/// Returns how many were written, 0 when `first` is past the end; negative: QUEEN_E_INVALID_ARGUMENT for NULL or a size
/// of 0.
///
/// Ownership: the fields are on loan until the delivery is freed.
/// Threads: any.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn queen_delivery_view(
    delivery: *const queen_delivery_t,
    views: *mut queen_message_view_t,
    view_size: usize,
    first: usize,
    capacity: usize,
) -> i64 {
    guard(panicked().into(), || {
        let fill = || -> Result<i64> {
            // SAFETY: `delivery` is NULL or a living handle by contract.
            let messages = unsafe { lend(delivery) }?.delivery.messages();
            let made = messages.iter().skip(first).map(queen_message_view_t::of);
            // SAFETY: the array has room for `capacity` views of `view_size` bytes by contract.
            unsafe { write_views(made, views, view_size, capacity) }
        };
        fill().unwrap_or_else(|error| error.code().number().into())
    })
}

/// Writes views, at most `capacity`, and tells how many.
///
/// # Safety
/// `views` is NULL or has room for `capacity` views of `view_size` bytes.
pub(super) unsafe fn write_views(
    made: impl Iterator<Item = queen_message_view_t>,
    views: *mut queen_message_view_t,
    view_size: usize,
    capacity: usize,
) -> Result<i64> {
    if views.is_null() && capacity > 0 {
        return Err(Error::argument(format!(
            "views is NULL with a capacity of {capacity}"
        )));
    }
    if view_size == 0 {
        return Err(Error::argument("view_size is 0; pass sizeof *views"));
    }
    let mut place = views.cast::<u8>();
    let mut count = 0;
    for view in made.take(capacity) {
        let known = view_size.min(size_of::<queen_message_view_t>());
        // SAFETY: promised by the caller; at most `view_size` bytes are written, and no more are read than a view has.
        unsafe {
            place.write_bytes(0, view_size);
            place.copy_from_nonoverlapping((&raw const view).cast::<u8>(), known);
            place = place.add(view_size);
        }
        count += 1;
    }
    Ok(count)
}

/// The delivery as a JSON object: `queue`, `partition`, `partitionId`, `leaseId`, `consumerGroup` and `messages`, each
/// with `id`, `transactionId`, `traceId`, `data` (the payload), `producerSub`, `createdAt` and what it shares with the
/// others. NULL for NULL. `len` receives the length in bytes; it may be NULL.
///
/// Ownership: `delivery` is borrowed; the text (UTF-8, NUL-terminated) lives as long as `delivery`.
/// Threads: any.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn queen_delivery_json(
    delivery: *const queen_delivery_t,
    len: *mut usize,
) -> *const c_char {
    guard(std::ptr::null(), || {
        // SAFETY: `delivery` is NULL or a living handle, `len` NULL or writable, by contract.
        unsafe {
            let json = lend(delivery).ok().map(|delivery| {
                delivery.json.get_or_init(|| {
                    c_text(
                        delivery
                            .delivery
                            .to_json()
                            .unwrap_or_else(|error| error.to_json()),
                    )
                })
            });
            lend_text(json.map(|json| json.as_c_str()), len)
        }
    })
}

/// Acks every message that has no verdict yet.
///
/// The future completes when the broker has answered, with `[{"index", "transactionId", "success", "error", "dlq",
/// "noop"}]`. Errors: QUEEN_E_ALREADY_SETTLED when each message has a verdict; QUEEN_E_LEASE_LOST when the messages come
/// again; QUEEN_E_CLOSED; QUEEN_E_PARTIAL.
///
/// Ownership: `delivery` is borrowed and may be freed at once; the future is returned and freed with queen_future_free().
/// Threads: any.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn queen_delivery_ack(
    delivery: *const queen_delivery_t,
) -> *mut queen_future_t {
    // SAFETY: `delivery` is NULL or a living handle by contract.
    unsafe { future_of(delivery, |delivery| Ok(Box::new(delivery.ack()))) }
}

/// Acks every message that has no verdict yet, and takes the next delivery that its consumer has at hand, in hand for whoever
/// calls: for a consumer that feeds an event queue this is a turn through the queue less for each message.
///
/// NULL: nothing is at hand, and the next, if there is one, comes through the event queue; as it does for a delivery that
/// did not come from there, or whose messages have a verdict already. NULL also for NULL. Nobody is told the answer to the
/// ack; one that does not count is logged as a warning, and its messages come again.
///
/// Ownership: `delivery` is borrowed and still to be freed; the next is returned and freed with queen_delivery_free().
/// Threads: any.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn queen_delivery_next(
    delivery: *const queen_delivery_t,
) -> *mut queen_delivery_t {
    guard(std::ptr::null_mut(), || {
        // SAFETY: `delivery` is NULL or a living handle by contract.
        let next = unsafe { lend(delivery) }
            .ok()
            .and_then(|delivery| delivery.delivery.next());
        next.map_or(std::ptr::null_mut(), |next| {
            give(queen_delivery_t::new(next))
        })
    })
}

/// Fails every message that has no verdict yet: the first of them is charged one of the queue's retries (or goes to the
/// dead-letter queue when they are used up), all others come again uncharged.
///
/// `reason` is recorded with a dead letter; it may be NULL. The future is that of queen_delivery_ack().
///
/// Ownership: `delivery` is borrowed and may be freed at once; `reason` is copied; the future is returned and freed with
/// queen_future_free().
/// Threads: any.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn queen_delivery_nack(
    delivery: *const queen_delivery_t,
    reason: *const c_char,
) -> *mut queen_future_t {
    // SAFETY: `delivery` is NULL or a living handle, `reason` NULL or NUL-terminated, by contract.
    unsafe {
        future_of(delivery, |delivery| {
            Ok(Box::new(delivery.nack(optional_text("reason", reason)?)))
        })
    }
}

/// Gives verdicts on some messages; may be called many times, for other messages each time.
///
/// `verdicts` is a JSON array of `{"index", "status", "error"?}` with status "completed", "failed", "retry" or "dlq" and
/// the index of the message in the delivery. A message that has a verdict keeps it; its entry is refused. The future is
/// that of queen_delivery_ack(), with one entry per verdict.
///
/// Ownership: `delivery` is borrowed and may be freed at once; `verdicts` is copied; the future is returned and freed
/// with queen_future_free().
/// Threads: any.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn queen_delivery_settle(
    delivery: *const queen_delivery_t,
    verdicts: *const c_char,
    len: usize,
) -> *mut queen_future_t {
    // SAFETY: `delivery` is NULL or a living handle, `verdicts` readable for `len`, by contract.
    unsafe {
        future_of(delivery, |delivery| {
            Ok(Box::new(
                delivery.settle_json(body("verdicts", verdicts, len)?),
            ))
        })
    }
}

/// # Safety
/// `delivery` is NULL or a living handle.
unsafe fn future_of(
    delivery: *const queen_delivery_t,
    start: impl FnOnce(&Delivery) -> Result<Box<dyn crate::AnyPending>>,
) -> *mut queen_future_t {
    // SAFETY: promised by the caller.
    let delivery = unsafe { lend(delivery) };
    let dispatcher = delivery
        .as_ref()
        .ok()
        .map(|delivery| delivery.delivery.dispatcher());
    future(dispatcher, || start(&delivery?.delivery))
}

/// Adds a trace to the message at `index`: `trace` is a JSON object `{"data": any, "traceNames"?: string or array,
/// "eventType"?: string}` of `len` bytes.
///
/// It never touches the delivery, and a trace that fails is also logged as a warning, so a handler may free the future at
/// once. Result: `{"success", "traceId"}`. Errors: QUEEN_E_INVALID_ARGUMENT for an index beyond the delivery;
/// QUEEN_E_INVALID_JSON; transport and broker errors.
///
/// Ownership: `delivery` is borrowed and may be freed at once; `trace` is copied; the future is returned and freed with
/// queen_future_free().
/// Threads: any.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn queen_delivery_trace(
    delivery: *const queen_delivery_t,
    index: usize,
    trace: *const c_char,
    len: usize,
) -> *mut queen_future_t {
    // SAFETY: `delivery` is NULL or a living handle, `trace` readable for `len`, by contract.
    unsafe {
        future_of(delivery, |delivery| {
            let trace = Trace::parse(body("trace", trace, len)?)?;
            Ok(Box::new(delivery.trace(index, trace)))
        })
    }
}

/// 1 when the lease is over for certain, so that no verdict can count any more and the messages come again; else 0. A handler
/// that works for long asks now and then, and stops when it is.
///
/// Negative: QUEEN_E_INVALID_ARGUMENT for NULL, QUEEN_E_FORKED in a forked child.
///
/// Ownership: `delivery` is borrowed.
/// Threads: any, at any time.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn queen_delivery_is_lost(delivery: *const queen_delivery_t) -> i32 {
    guard(panicked(), || {
        // SAFETY: `delivery` is NULL or a living handle by contract.
        match unsafe { lend(delivery) } {
            Ok(delivery) => delivery.delivery.is_lost().into(),
            Err(error) => error.code().number(),
        }
    })
}

/// Frees the delivery. Messages without a verdict go back to the broker and come again, without counting as a retry.
/// NULL is ignored.
///
/// Ownership: `delivery` is consumed, and with it all views and texts of it.
/// Threads: any.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn queen_delivery_free(delivery: *mut queen_delivery_t) {
    // SAFETY: `delivery` is NULL or a living handle by contract, and this is its last use.
    unsafe { handle::free(delivery) }
}
