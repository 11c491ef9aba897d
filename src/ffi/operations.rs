//! The hot operations by typed function, and every operation by name.

use std::ffi::c_char;

use super::client::{queen_client_t, with_client};
use super::future::queen_future_t;
use super::handle::{body, optional_text, or_empty, required_text};
use crate::{Ack, AckOptions, Error, FlushOptions, PopOptions, PushOptions, RenewOptions};

/// Pushes messages to one partition in one request. Calls of one client to one partition are stored in call order.
///
/// A push goes out at once while none is in flight; those that come meanwhile share the next request (configuration:
/// coalescePushes, gatherMicros), and each gets its own result.
///
/// `queue` is the name. `partition` may be NULL for "Default". `items` is a JSON array of
/// `{"payload": any, "transactionId"?: string, "traceId"?: string}` of `items_len` bytes; payloads are stored byte for
/// byte, missing transaction ids are minted. `options` is a JSON object or NULL: `timeoutMillis`, `buffer`,
/// `classicItems`.
///
/// `buffer` is true, or an object with `messageCount` (100), `timeMillis` (1000), `maxMessages`, `maxBytes` and `whenFull`
/// ("wait", "fail" or "dropOldest"): messages of one partition are collected in the client and sent together, once so many
/// are there or so long after the first of them. The future completes when they are accepted, with status "buffered" for
/// each; what becomes of them is told by queen_report_callback() or queen_report_events(). A direct push goes behind what is
/// buffered for its partition.
///
/// With `classicItems` true, items may have any form, as in the classic clients: one value or an array; an object's payload
/// is what it has under `data`, else under `payload`, else the object itself.
///
/// Result: `[{"index", "transactionId", "messageId", "status", "error"?, "resent"?}]`; "queued", "duplicate" and "buffered"
/// are successes. `resent` is true with a "duplicate" that may be its own, because the call was sent before without an
/// answer. Errors: QUEEN_E_PARTIAL when some were refused; QUEEN_E_WOULD_BLOCK beyond maxPendingMessages or
/// maxPendingBytes, or with a full buffer, nothing was kept; bad arguments, transport and broker errors. An error of unknown outcome lists the
/// transaction ids with which the push may be repeated.
///
/// Ownership: all arguments are borrowed or copied before the call returns; the future is returned and freed with
/// queen_future_free().
/// Threads: any.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn queen_push(
    client: *const queen_client_t,
    queue: *const c_char,
    partition: *const c_char,
    items: *const c_char,
    items_len: usize,
    options: *const c_char,
) -> *mut queen_future_t {
    // SAFETY: the handle and the texts are valid by contract.
    unsafe {
        with_client(client, |client| {
            let queue = required_text("queue", queue)?;
            let partition = optional_text("partition", partition)?;
            let items = body("items", items, items_len)?;
            let options = match optional_text("options", options)? {
                None => PushOptions::default(),
                options => PushOptions::parse(or_empty(options))?,
            };
            let pushing = client.push_json(queue, partition, items, &options);
            Ok(Box::new(pushing))
        })
    }
}

/// Pops messages under a lease.
///
/// `queue` is the name, or NULL with a `namespace` or `task` among the options. `partition` is a name, or NULL for any.
/// `options` is a JSON object or NULL: `batch` (1), `wait` (false), `pollTimeoutMillis` (30000), `consumerGroup`,
/// `autoAck` (false), `leaseSeconds` (the queue's), `renewLease` (false), `partitions` (1), `subscriptionMode`,
/// `subscriptionFrom`, `namespace`, `task`, `timeoutMillis`.
///
/// The future yields deliveries with queen_future_take_delivery(), one per partition, none when nothing came; its JSON is
/// `{"deliveries": [..]}`. Cancelling it ends the waiting at once; messages that still arrive are given back.
///
/// Ownership: all arguments are borrowed or copied before the call returns; the future is returned and freed with
/// queen_future_free().
/// Threads: any.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn queen_pop(
    client: *const queen_client_t,
    queue: *const c_char,
    partition: *const c_char,
    options: *const c_char,
) -> *mut queen_future_t {
    // SAFETY: the handle and the texts are valid by contract.
    unsafe {
        with_client(client, |client| {
            let queue = optional_text("queue", queue)?;
            let partition = optional_text("partition", partition)?;
            let options = PopOptions::parse(or_empty(optional_text("options", options)?))?;
            Ok(Box::new(client.pop(queue, partition, &options)))
        })
    }
}

/// Gives verdicts by ids. Those of a live delivery of this client settle it there, by the same rules; the rest goes to the
/// broker as written.
///
/// `acks` is a JSON array of `{"transactionId", "partitionId", "leaseId", "status"?, "error"?}` of `acks_len` bytes, with
/// status "completed" (default), "failed", "retry" or "dlq". `options` is a JSON object or NULL: `consumerGroup` (that of
/// the pop), `unfenced` (false; true allows acks without a lease id, which the broker does not check at all),
/// `timeoutMillis`.
///
/// Result: `[{"index", "transactionId", "success", "error", "dlq", "noop"}]`. Errors: QUEEN_E_LEASE_LOST or
/// QUEEN_E_PARTIAL when some were refused; QUEEN_E_ALREADY_SETTLED; bad arguments, transport and broker errors.
///
/// Ownership: all arguments are borrowed or copied before the call returns; the future is returned and freed with
/// queen_future_free().
/// Threads: any.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn queen_ack(
    client: *const queen_client_t,
    acks: *const c_char,
    acks_len: usize,
    options: *const c_char,
) -> *mut queen_future_t {
    // SAFETY: the handle and the texts are valid by contract.
    unsafe {
        with_client(client, |client| {
            let acks = Ack::parse_list(body("acks", acks, acks_len)?)?;
            let options = AckOptions::parse(or_empty(optional_text("options", options)?))?;
            Ok(Box::new(client.ack(acks, &options)))
        })
    }
}

/// Makes a lease last at least `lease_seconds` seconds from now; it never gets shorter.
///
/// `options` is a JSON object or NULL: `timeoutMillis`.
///
/// Result: `{"leaseId", "renewed", "expiresAt"}`. Errors: QUEEN_E_LEASE_LOST when it has ended; bad arguments, transport
/// and broker errors.
///
/// Ownership: all arguments are borrowed or copied before the call returns; the future is returned and freed with
/// queen_future_free().
/// Threads: any.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn queen_renew(
    client: *const queen_client_t,
    lease_id: *const c_char,
    lease_seconds: i64,
    options: *const c_char,
) -> *mut queen_future_t {
    // SAFETY: the handle and the texts are valid by contract.
    unsafe {
        with_client(client, |client| {
            let lease_id = required_text("lease_id", lease_id)?;
            let seconds = u64::try_from(lease_seconds).map_err(|_| {
                Error::argument(format!(
                    "lease_seconds is {lease_seconds}; it must be at least 1"
                ))
            })?;
            let options = RenewOptions::parse(or_empty(optional_text("options", options)?))?;
            Ok(Box::new(client.renew(lease_id, seconds, &options)))
        })
    }
}

/// Sends what is buffered and completes when every push submitted before is settled, well or not.
///
/// `options` is a JSON object or NULL: `queue` and `partition` (all pushes without), `timeoutMillis`. Result: `{"flushed",
/// "messages"}`, how many direct calls, and messages in all, were waited for. QUEEN_E_TIMEOUT at the deadline has the
/// result `{"flushed", "messages", "left"}`; what is left is sent on.
///
/// Ownership: all arguments are borrowed or copied before the call returns; the future is returned and freed with
/// queen_future_free().
/// Threads: any.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn queen_flush(
    client: *const queen_client_t,
    options: *const c_char,
) -> *mut queen_future_t {
    // SAFETY: the handle and the text are valid by contract.
    unsafe {
        with_client(client, |client| {
            let options = FlushOptions::parse(or_empty(optional_text("options", options)?))?;
            Ok(Box::new(client.flush(&options)))
        })
    }
}

/// Runs an operation of the catalogue by its name: everything that libqueen can do. queen_operations_json() and
/// docs/OPERATIONS.md list names, parameters and results.
///
/// `params` is a JSON object of `params_len` bytes; (NULL, 0) stands for `{}`.
///
/// Errors: QUEEN_E_UNKNOWN_OPERATION; QUEEN_E_INVALID_JSON names the parameter that is unknown, missing or of the wrong
/// type; those of the operation.
///
/// Ownership: all arguments are borrowed or copied before the call returns; the future is returned and freed with
/// queen_future_free().
/// Threads: any.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn queen_call(
    client: *const queen_client_t,
    operation: *const c_char,
    params: *const c_char,
    params_len: usize,
) -> *mut queen_future_t {
    // SAFETY: the handle and the texts are valid by contract.
    unsafe {
        with_client(client, |client| {
            client.call(
                required_text("operation", operation)?,
                body("params", params, params_len)?,
            )
        })
    }
}
