//! `queen_transaction_t`.

use std::ffi::c_char;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::client::queen_client_t;
use super::delivery::queen_delivery_t;
use super::future::{future, queen_future_t};
use super::handle::{
    self, Object, Stamp, body, code, give, guard, lend, optional_text, or_empty, panicked,
    required_text,
};
use crate::{
    Ack, AckOptions, Dispatcher, Error, ItemOptions, Result, Status, Transaction,
    TransactionOptions,
};

/// Verdicts and pushes, to many queues and partitions, that a broker applies together or not at all.
///
/// Nothing is sent before queen_transaction_commit(). A verdict that was added belongs to the transaction: another one on
/// that message answers QUEEN_E_ALREADY_SETTLED, and what its handler returns does not count for it. Committed, the message
/// is settled. Rolled back, or freed without a commit, it is unsettled again: whoever holds the delivery decides, and if
/// nobody does it goes back to the broker without a retry charge. With an outcome that is not known it is lost, and comes
/// again unless the commit was applied.
///
/// An addition that fails makes every further one and the commit fail with the same error; the commit then sends nothing.
///
/// Ownership: freed with queen_transaction_free() by whoever made it; it keeps what it needs of client and deliveries.
pub struct queen_transaction_t {
    stamp: Stamp,
    dispatcher: Dispatcher,
    transaction: Mutex<Transaction>,
}

impl Object for queen_transaction_t {
    const NAME: &'static str = "transaction";

    fn stamp(&self) -> &Stamp {
        &self.stamp
    }
}

impl queen_transaction_t {
    fn lock(&self) -> MutexGuard<'_, Transaction> {
        self.transaction
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// Makes a transaction. Nothing is sent.
///
/// Returns NULL for NULL, and for a client of before a fork.
///
/// Ownership: `client` is borrowed; the transaction is returned and freed with queen_transaction_free().
/// Threads: any.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn queen_transaction_new(
    client: *const queen_client_t,
) -> *mut queen_transaction_t {
    guard(std::ptr::null_mut(), || {
        // SAFETY: `client` is NULL or a living handle by contract.
        match unsafe { lend(client) } {
            Ok(client) => give(queen_transaction_t {
                stamp: Stamp::owned(),
                dispatcher: client.client.dispatcher(),
                transaction: Mutex::new(client.client.transaction()),
            }),
            Err(_) => std::ptr::null_mut(),
        }
    })
}

/// Adds a verdict on the message at `index` of a delivery: `status` is "completed", "failed", "retry" or "dlq", NULL for
/// "completed". Verdicts of one delivery may be added in any order; the commit must not pass a message that is unsettled.
///
/// Returns QUEEN_OK. QUEEN_E_INVALID_ARGUMENT: NULL, an index beyond the delivery, another status, a delivery of another
/// client. QUEEN_E_ALREADY_SETTLED: the message has a verdict. QUEEN_E_LEASE_LOST, QUEEN_E_CLOSED: none can count any more.
/// QUEEN_E_INVALID_STATE: the commit was before.
///
/// Ownership: both handles are borrowed, the delivery may be freed at once; `status` is copied.
/// Threads: any.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn queen_transaction_ack(
    transaction: *const queen_transaction_t,
    delivery: *const queen_delivery_t,
    index: usize,
    status: *const c_char,
) -> i32 {
    // SAFETY: the handles and the text are valid by contract.
    unsafe {
        add(transaction, |transaction| {
            let status = match optional_text("status", status)? {
                None => Status::Completed,
                Some(status) => Status::parse(status)?,
            };
            transaction.ack_message(lend(delivery)?.delivery(), index, status);
            Ok(())
        })
    }
}

/// Adds verdicts on some messages of a delivery, `verdicts` as for queen_delivery_settle().
///
/// Returns what queen_transaction_ack() returns, and QUEEN_E_INVALID_JSON.
///
/// Ownership: both handles are borrowed, the delivery may be freed at once; `verdicts` is copied.
/// Threads: any.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn queen_transaction_settle(
    transaction: *const queen_transaction_t,
    delivery: *const queen_delivery_t,
    verdicts: *const c_char,
    len: usize,
) -> i32 {
    // SAFETY: the handles and the text are valid by contract.
    unsafe {
        add(transaction, |transaction| {
            let delivery = lend(delivery)?.delivery();
            transaction.settle_json(delivery, body("verdicts", verdicts, len)?);
            Ok(())
        })
    }
}

/// Adds verdicts by ids, `acks` and `options` as for queen_ack(). Those of a live delivery of this client take it over as
/// queen_transaction_ack() does; the rest goes to the broker as written. `timeoutMillis` does not matter here.
///
/// Returns what queen_transaction_ack() returns, QUEEN_E_INVALID_JSON and QUEEN_E_INVALID_CONFIG.
///
/// Ownership: `transaction` is borrowed; the texts are copied.
/// Threads: any.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn queen_transaction_ack_ids(
    transaction: *const queen_transaction_t,
    acks: *const c_char,
    acks_len: usize,
    options: *const c_char,
) -> i32 {
    // SAFETY: the handle and the texts are valid by contract.
    unsafe {
        add(transaction, |transaction| {
            let acks = Ack::parse_list(body("acks", acks, acks_len)?)?;
            let options = AckOptions::parse(or_empty(optional_text("options", options)?))?;
            transaction.ack_ids(acks, &options);
            Ok(())
        })
    }
}

/// Adds a push of messages to one partition, `partition` and `items` as for queen_push(); missing ids are minted now.
/// `options` is a JSON object or NULL: `classicItems`, as there.
///
/// The commit is stored behind what this client has pushed to the partition before, and before what it pushes later.
///
/// Returns QUEEN_OK, QUEEN_E_INVALID_ARGUMENT, QUEEN_E_INVALID_JSON, QUEEN_E_INVALID_CONFIG, QUEEN_E_INVALID_UTF8,
/// QUEEN_E_INVALID_STATE.
///
/// Ownership: `transaction` is borrowed; the texts are copied.
/// Threads: any.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn queen_transaction_push(
    transaction: *const queen_transaction_t,
    queue: *const c_char,
    partition: *const c_char,
    items: *const c_char,
    items_len: usize,
    options: *const c_char,
) -> i32 {
    // SAFETY: the handle and the texts are valid by contract.
    unsafe {
        add(transaction, |transaction| {
            let queue = required_text("queue", queue)?;
            let partition = optional_text("partition", partition)?;
            let options = ItemOptions::parse(or_empty(optional_text("options", options)?))?;
            let items = body("items", items, items_len)?;
            transaction.push_json(queue, partition, items, &options);
            Ok(())
        })
    }
}

/// Sends it all in one request, once: it is never repeated when a broker may have seen it.
///
/// `options` is a JSON object or NULL: `timeoutMillis`.
///
/// Result: `{"transactionId", "results"}` with one entry for each message and verdict, in order: `{"index", "type": "push",
/// "transactionId", "messageId", "status"}` or `{"index", "type": "ack", "transactionId", "success", "error", "dlq",
/// "noop"}`.
///
/// Errors before anything is sent: that of an addition; QUEEN_E_INVALID_ARGUMENT without any; QUEEN_E_ORDER where the commit
/// would pass an earlier message that is unsettled; QUEEN_E_LEASE_LOST; QUEEN_E_INVALID_STATE for a second commit.
/// QUEEN_E_ROLLED_BACK: nothing was applied, the result has `reason` and the same entries with an `error`, and
/// queen_error_json() has the reason as `brokerCode`. QUEEN_OUTCOME_UNKNOWN: it may have been applied; the error lists the
/// ids of the pushes, and a second transaction with them is rolled back as "duplicate" if the first was.
///
/// Ownership: `transaction` is borrowed and may be freed at once; `options` is copied; the future is returned and freed with
/// queen_future_free().
/// Threads: any, also inside a handler, which may wait for it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn queen_transaction_commit(
    transaction: *const queen_transaction_t,
    options: *const c_char,
) -> *mut queen_future_t {
    // SAFETY: the handle and the text are valid by contract.
    let transaction = unsafe { lend(transaction) };
    let dispatcher = transaction.as_ref().ok().map(|one| one.dispatcher.clone());
    future(dispatcher, || {
        let mut transaction = transaction?.lock();
        // SAFETY: the text is valid by contract.
        let options = unsafe { optional_text("options", options) }?;
        let options = TransactionOptions::parse(or_empty(options))?;
        Ok(Box::new(transaction.commit_with(&options)))
    })
}

/// Frees the transaction. Without a commit, its messages are unsettled again. NULL is ignored.
///
/// Ownership: `transaction` is consumed; a commit runs on.
/// Threads: any.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn queen_transaction_free(transaction: *mut queen_transaction_t) {
    // SAFETY: `transaction` is NULL or a living handle by contract, and this is its last use.
    unsafe { handle::free(transaction) }
}

/// Adds something. What cannot even be read fails the transaction too: a part of it must not be committed.
///
/// # Safety
/// `transaction` is NULL or a living handle.
unsafe fn add(
    transaction: *const queen_transaction_t,
    add: impl FnOnce(&mut Transaction) -> Result<()>,
) -> i32 {
    guard(panicked(), || {
        // SAFETY: promised by the caller.
        code(unsafe { lend(transaction) }.and_then(|handle| {
            let mut transaction = handle.lock();
            if let Err(error) = add(&mut transaction) {
                transaction.fail(error);
            }
            transaction
                .error()
                .map_or(Ok(()), |error: &Error| Err(error.clone()))
        }))
    })
}
