//! The numbers of the ABI. They are explicit, in families, and never reused; a test compares them with the tables of the
//! core.
// Most are there for the header alone.
#![allow(dead_code)]

/// Success.
pub const QUEEN_OK: i32 = 0;

/// An argument is missing or out of range. The message names the argument and the value.
pub const QUEEN_E_INVALID_ARGUMENT: i32 = -101;

/// A string is not valid UTF-8. The message names the argument.
pub const QUEEN_E_INVALID_UTF8: i32 = -102;

/// A JSON argument cannot be read or has the wrong shape. The message names the argument and the place.
pub const QUEEN_E_INVALID_JSON: i32 = -103;

/// A configuration or an options object has an unknown key or a bad value. The message names both.
pub const QUEEN_E_INVALID_CONFIG: i32 = -104;

/// The handle is not in a state that allows the call, such as a second route for a future.
pub const QUEEN_E_INVALID_STATE: i32 = -105;

/// The catalogue has no operation of that name; queen_operations_json() lists them.
pub const QUEEN_E_UNKNOWN_OPERATION: i32 = -106;

/// The deadline passed first. The outcome tells whether a broker may have applied the call.
pub const QUEEN_E_TIMEOUT: i32 = -201;

/// The call was cancelled. The outcome tells whether a broker may have applied it.
pub const QUEEN_E_CANCELLED: i32 = -202;

/// The client, consumer or event queue is closed. Make a new one.
pub const QUEEN_E_CLOSED: i32 = -203;

/// maxPendingMessages or maxPendingBytes is reached, or a buffer is full, and nothing was kept. Wait for queen_client_ready(), or flush.
pub const QUEEN_E_WOULD_BLOCK: i32 = -204;

/// The call would wait for the thread that it runs on. Wait on a thread of your own.
pub const QUEEN_E_WOULD_DEADLOCK: i32 = -205;

/// Handles are still alive. Free them first.
pub const QUEEN_E_BUSY: i32 = -206;

/// The handle was made before a fork() and cannot be used in the child. Make a new client there.
pub const QUEEN_E_FORKED: i32 = -207;

/// No connection to the broker could be made; nothing was sent. Check the URL and that the broker runs.
pub const QUEEN_E_CONNECT: i32 = -301;

/// The connection broke after the request was sent; the broker may or may not have applied it.
pub const QUEEN_E_NETWORK: i32 = -302;

/// The answer is not what the protocol promises. Check that the URL names a Queen broker.
pub const QUEEN_E_BAD_ANSWER: i32 = -303;

/// The broker refused the request (HTTP 4xx). The message has its reason.
pub const QUEEN_E_BAD_REQUEST: i32 = -401;

/// The broker wants a valid token (HTTP 401). Set bearerToken.
pub const QUEEN_E_UNAUTHORIZED: i32 = -402;

/// The token does not allow the call (HTTP 403).
pub const QUEEN_E_FORBIDDEN: i32 = -403;

/// The broker knows no such thing (HTTP 404).
pub const QUEEN_E_NOT_FOUND: i32 = -404;

/// The request is larger than the broker takes (HTTP 413). Send fewer or smaller messages at once.
pub const QUEEN_E_TOO_LARGE: i32 = -405;

/// The broker asks for fewer requests (HTTP 429). Try again later.
pub const QUEEN_E_THROTTLED: i32 = -406;

/// The broker failed (HTTP 5xx). The message has its reason.
pub const QUEEN_E_BROKER: i32 = -407;

/// The broker has no such operation: it is older than that, or of another kind.
pub const QUEEN_E_UNSUPPORTED: i32 = -408;

/// Some items were refused. The result has one entry per item.
pub const QUEEN_E_PARTIAL: i32 = -501;

/// The lease has ended; the messages will be delivered again.
pub const QUEEN_E_LEASE_LOST: i32 = -502;

/// The message has a verdict already; this one changed nothing.
pub const QUEEN_E_ALREADY_SETTLED: i32 = -503;

/// The transaction would pass an earlier message of the partition that is unsettled. Nothing was sent; settle that one first, or within the transaction.
pub const QUEEN_E_ORDER: i32 = -504;

/// The broker rolled the transaction back: nothing of it was applied. brokerCode has the reason.
pub const QUEEN_E_ROLLED_BACK: i32 = -505;

/// Another process owns the store file. Run one `queen-broker serve` and let every process connect to it.
pub const QUEEN_E_LOCKED: i32 = -601;

/// The store of the embedded broker cannot be opened or used. The message has the reason.
pub const QUEEN_E_STORE: i32 = -602;

/// A defect of libqueen. Please report it with the message.
pub const QUEEN_E_INTERNAL: i32 = -901;

/// Outcome of a failed call: no broker has applied any of it.
pub const QUEEN_OUTCOME_NOT_APPLIED: i32 = 0;

/// Outcome of a failed call: it was sent and no usable answer came, so it may or may not have been applied.
pub const QUEEN_OUTCOME_UNKNOWN: i32 = 1;

/// Outcome of a failed call: a broker answered and refused it, or the parts that the result names.
pub const QUEEN_OUTCOME_REFUSED: i32 = 2;

/// A handler's answer: the messages without a verdict are done.
pub const QUEEN_ACK: i32 = 0;

/// A handler's answer: the messages without a verdict are not done. The first is charged a retry, all come again.
pub const QUEEN_NACK: i32 = 1;

/// A handler's answer: the delivery is the host's from the moment the handler was entered; another thread settles and
/// frees it.
pub const QUEEN_DEFER: i32 = 2;

/// An event: a future that was routed to the queue has completed.
pub const QUEEN_EVENT_FUTURE: i32 = 1;

/// An event: messages for a consumer.
pub const QUEEN_EVENT_DELIVERY: i32 = 2;

/// An event: a consumer has ended; no event of it follows.
pub const QUEEN_EVENT_CONSUMER_ENDED: i32 = 3;

/// An event: the lease of a delivery is lost or doubtful.
pub const QUEEN_EVENT_LEASE_LOST: i32 = 4;

/// An event: a log record.
pub const QUEEN_EVENT_LOG: i32 = 5;

/// An event: what became of buffered messages.
pub const QUEEN_EVENT_DELIVERY_REPORT: i32 = 6;

/// An event: the statistics of a client.
pub const QUEEN_EVENT_STATISTICS: i32 = 7;

/// An event: requests wait for a bearer token.
pub const QUEEN_EVENT_TOKEN_WANTED: i32 = 8;

/// An event: a broker has become unhealthy or has recovered.
pub const QUEEN_EVENT_BACKEND_STATE: i32 = 9;

/// An event: a window for a consumer of a stream.
pub const QUEEN_EVENT_WINDOW: i32 = 10;

/// Log level: something was lost or cannot go on.
pub const QUEEN_LOG_ERROR: i32 = 1;

/// Log level: something failed and is tried again, or was dropped and counted.
pub const QUEEN_LOG_WARN: i32 = 2;

/// Log level: what a running client did.
pub const QUEEN_LOG_INFO: i32 = 3;

/// Log level: every step.
pub const QUEEN_LOG_DEBUG: i32 = 4;

/// Major part of the version of this header.
pub const QUEEN_VERSION_MAJOR: u32 = 0;

/// Minor part of the version of this header.
pub const QUEEN_VERSION_MINOR: u32 = 1;

/// Patch part of the version of this header.
pub const QUEEN_VERSION_PATCH: u32 = 0;

/// Version of this header as one number, `major << 16 | minor << 8 | patch`. Compare it with queen_version_number().
pub const QUEEN_VERSION_NUMBER: u32 = 256;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ErrorCode, Level, Outcome};

    #[test]
    fn error_codes_are_those_of_the_core() {
        let text = include_str!("codes.rs");
        for code in ErrorCode::ALL {
            let line = format!("pub const {}: i32 = {};", code.name(), code.number());
            assert!(text.contains(&line), "{line}");
            let doc = format!("/// {}", code.description());
            assert!(text.contains(&doc), "{doc}");
        }
        assert_eq!(
            text.matches("pub const QUEEN_E_").count() - 1,
            ErrorCode::ALL.len()
        );
    }

    #[test]
    fn other_numbers_are_those_of_the_core() {
        assert_eq!(Outcome::NotApplied as i32, QUEEN_OUTCOME_NOT_APPLIED);
        assert_eq!(Outcome::Unknown as i32, QUEEN_OUTCOME_UNKNOWN);
        assert_eq!(Outcome::Refused as i32, QUEEN_OUTCOME_REFUSED);
        assert_eq!(Level::from_number(QUEEN_LOG_ERROR), Some(Level::Error));
        assert_eq!(Level::from_number(QUEEN_LOG_DEBUG), Some(Level::Debug));
        let version = format!("{QUEEN_VERSION_MAJOR}.{QUEEN_VERSION_MINOR}.{QUEEN_VERSION_PATCH}");
        assert_eq!(version, env!("CARGO_PKG_VERSION"));
        let number = QUEEN_VERSION_MAJOR << 16 | QUEEN_VERSION_MINOR << 8 | QUEEN_VERSION_PATCH;
        assert_eq!(number, QUEEN_VERSION_NUMBER);
    }
}
