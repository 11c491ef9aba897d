//! One error type and one table of codes.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// Declares [`ErrorCode`] and everything that is told about a code, in one table.
macro_rules! error_codes {
    ($($variant:ident = $number:literal, $name:literal, retriable: $retriable:literal, fatal: $fatal:literal, $doc:literal;)*) => {
        /// What went wrong, as a number that is never reused.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(i32)]
        #[non_exhaustive]
        pub enum ErrorCode {
            $(#[doc = $doc] $variant = $number,)*
        }

        impl ErrorCode {
            /// Every code, in the order of the table.
            pub const ALL: &[ErrorCode] = &[$(ErrorCode::$variant,)*];

            /// The name that C programs and documents use, such as `QUEEN_E_TIMEOUT`.
            pub fn name(self) -> &'static str {
                match self { $(ErrorCode::$variant => $name,)* }
            }

            /// What the code means and what to do, in a sentence or two.
            pub fn description(self) -> &'static str {
                match self { $(ErrorCode::$variant => $doc,)* }
            }

            /// Whether the same call may well succeed later.
            pub fn is_retriable(self) -> bool {
                match self { $(ErrorCode::$variant => $retriable,)* }
            }

            /// Whether the client or handle can do nothing more after this.
            pub fn is_fatal(self) -> bool {
                match self { $(ErrorCode::$variant => $fatal,)* }
            }
        }
    };
}

error_codes! {
    InvalidArgument = -101, "QUEEN_E_INVALID_ARGUMENT", retriable: false, fatal: false,
        "An argument is missing or out of range. The message names the argument and the value.";
    InvalidUtf8 = -102, "QUEEN_E_INVALID_UTF8", retriable: false, fatal: false,
        "A string is not valid UTF-8. The message names the argument.";
    InvalidJson = -103, "QUEEN_E_INVALID_JSON", retriable: false, fatal: false,
        "A JSON argument cannot be read or has the wrong shape. The message names the argument and the place.";
    InvalidConfig = -104, "QUEEN_E_INVALID_CONFIG", retriable: false, fatal: false,
        "A configuration or an options object has an unknown key or a bad value. The message names both.";
    InvalidState = -105, "QUEEN_E_INVALID_STATE", retriable: false, fatal: false,
        "The handle is not in a state that allows the call, such as a second route for a future.";
    UnknownOperation = -106, "QUEEN_E_UNKNOWN_OPERATION", retriable: false, fatal: false,
        "The catalogue has no operation of that name; queen_operations_json() lists them.";
    Timeout = -201, "QUEEN_E_TIMEOUT", retriable: true, fatal: false,
        "The deadline passed first. The outcome tells whether a broker may have applied the call.";
    Cancelled = -202, "QUEEN_E_CANCELLED", retriable: true, fatal: false,
        "The call was cancelled. The outcome tells whether a broker may have applied it.";
    Closed = -203, "QUEEN_E_CLOSED", retriable: false, fatal: true,
        "The client, consumer or event queue is closed. Make a new one.";
    WouldBlock = -204, "QUEEN_E_WOULD_BLOCK", retriable: true, fatal: false,
        "maxPendingMessages or maxPendingBytes is reached, or a buffer is full, and nothing was kept. Wait for queen_client_ready(), or flush.";
    WouldDeadlock = -205, "QUEEN_E_WOULD_DEADLOCK", retriable: false, fatal: false,
        "The call would wait for the thread that it runs on. Wait on a thread of your own.";
    Busy = -206, "QUEEN_E_BUSY", retriable: true, fatal: false,
        "Handles are still alive. Free them first.";
    Forked = -207, "QUEEN_E_FORKED", retriable: false, fatal: true,
        "The handle was made before a fork() and cannot be used in the child. Make a new client there.";
    Connect = -301, "QUEEN_E_CONNECT", retriable: true, fatal: false,
        "No connection to the broker could be made; nothing was sent. Check the URL and that the broker runs.";
    Network = -302, "QUEEN_E_NETWORK", retriable: true, fatal: false,
        "The connection broke after the request was sent; the broker may or may not have applied it.";
    BadAnswer = -303, "QUEEN_E_BAD_ANSWER", retriable: false, fatal: false,
        "The answer is not what the protocol promises. Check that the URL names a Queen broker.";
    BadRequest = -401, "QUEEN_E_BAD_REQUEST", retriable: false, fatal: false,
        "The broker refused the request (HTTP 4xx). The message has its reason.";
    Unauthorized = -402, "QUEEN_E_UNAUTHORIZED", retriable: false, fatal: false,
        "The broker wants a valid token (HTTP 401). Set bearerToken.";
    Forbidden = -403, "QUEEN_E_FORBIDDEN", retriable: false, fatal: false,
        "The token does not allow the call (HTTP 403).";
    NotFound = -404, "QUEEN_E_NOT_FOUND", retriable: false, fatal: false,
        "The broker knows no such thing (HTTP 404).";
    TooLarge = -405, "QUEEN_E_TOO_LARGE", retriable: false, fatal: false,
        "The request is larger than the broker takes (HTTP 413). Send fewer or smaller messages at once.";
    Throttled = -406, "QUEEN_E_THROTTLED", retriable: true, fatal: false,
        "The broker asks for fewer requests (HTTP 429). Try again later.";
    Broker = -407, "QUEEN_E_BROKER", retriable: true, fatal: false,
        "The broker failed (HTTP 5xx). The message has its reason.";
    Unsupported = -408, "QUEEN_E_UNSUPPORTED", retriable: false, fatal: false,
        "The broker has no such operation: it is older than that, or of another kind.";
    Partial = -501, "QUEEN_E_PARTIAL", retriable: false, fatal: false,
        "Some items were refused. The result has one entry per item.";
    LeaseLost = -502, "QUEEN_E_LEASE_LOST", retriable: false, fatal: false,
        "The lease has ended; the messages will be delivered again.";
    AlreadySettled = -503, "QUEEN_E_ALREADY_SETTLED", retriable: false, fatal: false,
        "The message has a verdict already; this one changed nothing.";
    Order = -504, "QUEEN_E_ORDER", retriable: false, fatal: false,
        "The transaction would pass an earlier message of the partition that is unsettled. Nothing was sent; settle that one first, or within the transaction.";
    RolledBack = -505, "QUEEN_E_ROLLED_BACK", retriable: false, fatal: false,
        "The broker rolled the transaction back: nothing of it was applied. brokerCode has the reason.";
    Locked = -601, "QUEEN_E_LOCKED", retriable: true, fatal: false,
        "Another process owns the store file. Run one `queen-broker serve` and let every process connect to it.";
    Store = -602, "QUEEN_E_STORE", retriable: false, fatal: false,
        "The store of the embedded broker cannot be opened or used. The message has the reason.";
    Internal = -901, "QUEEN_E_INTERNAL", retriable: false, fatal: true,
        "A defect of libqueen. Please report it with the message.";
}

impl ErrorCode {
    /// The number, as in `queen.h`.
    pub fn number(self) -> i32 {
        self as i32
    }

    /// The code with that number.
    pub fn from_number(number: i32) -> Option<ErrorCode> {
        Self::ALL
            .iter()
            .copied()
            .find(|code| code.number() == number)
    }
}

/// What is known about the effect of a call that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i32)]
pub enum Outcome {
    /// No broker has applied any of it.
    NotApplied = 0,
    /// It was sent and no usable answer came: it may or may not have been applied.
    Unknown = 1,
    /// A broker answered and refused it, or the named parts of it.
    Refused = 2,
}

impl Outcome {
    /// That of a call of several parts.
    pub(crate) fn of_parts(parts: impl IntoIterator<Item = Outcome>) -> Outcome {
        let worse = |one, other| match (one, other) {
            (Outcome::Unknown, _) | (_, Outcome::Unknown) => Outcome::Unknown,
            (Outcome::Refused, _) | (_, Outcome::Refused) => Outcome::Refused,
            _ => Outcome::NotApplied,
        };
        parts.into_iter().fold(Outcome::NotApplied, worse)
    }

    /// The word used in JSON: `notApplied`, `unknown` or `refused`.
    pub fn as_str(self) -> &'static str {
        match self {
            Outcome::NotApplied => "notApplied",
            Outcome::Unknown => "unknown",
            Outcome::Refused => "refused",
        }
    }
}

/// Why a call failed, and what that means for the data it carried. Cheap to clone.
/// ```
/// use queen::{Client, ErrorCode, Item, Outcome};
/// use std::time::Duration;
///
/// let client = Client::new(r#"{"url": "http://127.0.0.1:1", "retryAttempts": 1}"#)?;
/// let pushing = client.queue("orders").push(&[Item::json(&1)?]);
/// let error = pushing.wait(Duration::from_secs(60)).unwrap_err();
/// assert_eq!((error.code(), error.outcome()), (ErrorCode::Connect, Outcome::NotApplied));
/// assert!(error.is_retriable() && error.message().contains("127.0.0.1:1"));
/// # Ok::<(), queen::Error>(())
/// ```
#[derive(Clone)]
pub struct Error(Arc<Inner>);

#[derive(Clone)]
struct Inner {
    code: ErrorCode,
    message: String,
    http_status: Option<u16>,
    broker_code: Option<String>,
    retry_after: Option<Duration>,
    outcome: Outcome,
    transaction_ids: Vec<String>,
    result: Option<String>,
}

/// A result whose error is [`Error`].
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// An error of which nothing was applied.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Error {
        Error(Arc::new(Inner {
            code,
            message: message.into(),
            http_status: None,
            broker_code: None,
            retry_after: None,
            outcome: Outcome::NotApplied,
            transaction_ids: Vec::new(),
            result: None,
        }))
    }

    /// A bad argument; `message` names it and its value.
    pub fn argument(message: impl Into<String>) -> Error {
        Error::new(ErrorCode::InvalidArgument, message)
    }

    /// The same error with another outcome.
    pub fn with_outcome(self, outcome: Outcome) -> Error {
        self.edit(|inner| inner.outcome = outcome)
    }

    /// The same error with the HTTP status that a broker answered.
    pub fn with_http_status(self, status: u16) -> Error {
        self.edit(|inner| inner.http_status = Some(status))
    }

    /// The same error with the word that the broker or a proxy has for it.
    pub fn with_broker_code(self, code: impl Into<String>) -> Error {
        self.edit(|inner| inner.broker_code = Some(code.into()))
    }

    /// The same error with the pause that the broker asks for.
    pub fn with_retry_after(self, pause: Duration) -> Error {
        self.edit(|inner| inner.retry_after = Some(pause))
    }

    /// The same error with a remark behind its message.
    pub(crate) fn note(self, remark: &str) -> Error {
        self.edit(|inner| inner.message.push_str(&format!(" ({remark})")))
    }

    /// The same error under another code, and with another message unless that is empty.
    pub(crate) fn recoded(self, code: ErrorCode, message: &str) -> Error {
        self.edit(|inner| {
            inner.code = code;
            if !message.is_empty() {
                message.clone_into(&mut inner.message);
            }
        })
    }

    /// The same error with the ids under which the call's messages may have been stored.
    pub fn with_transaction_ids(self, ids: Vec<String>) -> Error {
        self.edit(|inner| inner.transaction_ids = ids)
    }

    /// The same error with the full result of a call that was refused in part, as JSON text.
    pub fn with_result(self, json: String) -> Error {
        self.edit(|inner| inner.result = Some(json))
    }

    fn edit(mut self, change: impl FnOnce(&mut Inner)) -> Error {
        change(Arc::make_mut(&mut self.0));
        self
    }

    /// The code.
    pub fn code(&self) -> ErrorCode {
        self.0.code
    }

    /// A sentence for people: what happened and what to do.
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// The HTTP status of the answer, if there was one.
    pub fn http_status(&self) -> Option<u16> {
        self.0.http_status
    }

    /// The word that the broker or a proxy before it has for the refusal, such as `rate_limited` or `quota_exceeded`.
    pub fn broker_code(&self) -> Option<&str> {
        self.0.broker_code.as_deref()
    }

    /// How long the broker asks to wait before the next try.
    pub fn retry_after(&self) -> Option<Duration> {
        self.0.retry_after
    }

    /// What is known about the effect of the call.
    pub fn outcome(&self) -> Outcome {
        self.0.outcome
    }

    /// The transaction ids of a push: repeating it with the same ids stores nothing twice.
    pub fn transaction_ids(&self) -> &[String] {
        &self.0.transaction_ids
    }

    /// The full result (JSON) of a call that was refused in part.
    pub fn result_json(&self) -> Option<&str> {
        self.0.result.as_deref()
    }

    /// Whether the same call may well succeed later.
    pub fn is_retriable(&self) -> bool {
        self.0.code.is_retriable()
    }

    /// Whether the client or handle can do nothing more after this.
    pub fn is_fatal(&self) -> bool {
        self.0.code.is_fatal()
    }

    /// The error as a JSON object: `code`, `name`, `message`, `httpStatus` (or null), `retriable`, `fatal`,
    /// `outcome` (`notApplied`, `unknown`, `refused`), and where they apply `brokerCode`, `retryAfterMillis`,
    /// `transactionIds` and `result`.
    pub fn to_json(&self) -> String {
        let mut object = serde_json::json!({
            "code": self.code().number(),
            "name": self.code().name(),
            "message": self.message(),
            "httpStatus": self.http_status(),
            "retriable": self.is_retriable(),
            "fatal": self.is_fatal(),
            "outcome": self.outcome().as_str(),
        });
        if let Some(code) = self.broker_code() {
            object["brokerCode"] = code.into();
        }
        if let Some(pause) = self.retry_after() {
            object["retryAfterMillis"] = (pause.as_millis() as u64).into();
        }
        if !self.0.transaction_ids.is_empty() {
            object["transactionIds"] = self.0.transaction_ids.clone().into();
        }
        if let Some(result) = self
            .result_json()
            .and_then(|text| serde_json::from_str(text).ok())
        {
            object["result"] = result;
        }
        object.to_string()
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code().name(), self.message())
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Error({self}, outcome {})", self.outcome().as_str())
    }
}

impl std::error::Error for Error {}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn x8_codes_are_unique_negative_and_found_again() {
        let mut seen = HashSet::new();
        for &code in ErrorCode::ALL {
            assert!(code.number() < 0, "{}", code.name());
            assert!(
                seen.insert(code.number()),
                "{} is used twice",
                code.number()
            );
            assert_eq!(ErrorCode::from_number(code.number()), Some(code));
            assert!(code.name().starts_with("QUEEN_E_"));
        }
        assert_eq!(ErrorCode::from_number(0), None);
    }

    #[test]
    fn json_tells_everything() {
        let error = Error::new(ErrorCode::Network, "gone \"away\"")
            .with_outcome(Outcome::Unknown)
            .with_http_status(502)
            .with_transaction_ids(vec!["a".into()])
            .with_result("[1]".into());
        let json: serde_json::Value = serde_json::from_str(&error.to_json()).unwrap();
        assert_eq!(json["name"], "QUEEN_E_NETWORK");
        assert_eq!(json["message"], "gone \"away\"");
        assert_eq!(json["httpStatus"], 502);
        assert_eq!(json["outcome"], "unknown");
        assert_eq!(json["transactionIds"][0], "a");
        assert_eq!(json["result"][0], 1);
    }
}
