"""What can go wrong: QueenError, and one subclass for each code of docs/ERRORS.md."""

from __future__ import annotations

from typing import Any, Dict, List, Mapping, Optional, Type


class QueenError(Exception):
    """A call did not go well.

    Every failure of this package is one of these. The message says what happened and what to do.
    """

    code: int
    """The number of the error, as in docs/ERRORS.md."""
    name: str
    """Its name, such as "QUEEN_E_TIMEOUT"."""
    details: Mapping[str, Any]
    """Everything that the library tells about it."""

    def __init__(self, message: str, code: int = -901, details: Optional[Mapping[str, Any]] = None) -> None:
        super().__init__(message)
        self.code = code
        self.details = details or {}
        self.name = self.details.get("name") or _NAMES.get(code, "QUEEN_E_INTERNAL")

    def __reduce__(self) -> Any:
        return type(self), (str(self), self.code, dict(self.details))

    @property
    def http_status(self) -> Optional[int]:
        """The HTTP status that the broker answered, None where it answered none."""
        return self.details.get("httpStatus")

    @property
    def retriable(self) -> bool:
        """Whether the same call may well succeed later."""
        return bool(self.details.get("retriable"))

    @property
    def fatal(self) -> bool:
        """Whether the client can do nothing more."""
        return bool(self.details.get("fatal"))

    @property
    def outcome(self) -> str:
        """What is known of the effect: "notApplied", "unknown" or "refused"."""
        return str(self.details.get("outcome", "notApplied"))

    @property
    def broker_code(self) -> Optional[str]:
        """The broker's own word for the refusal, such as "quota_exceeded"."""
        return self.details.get("brokerCode")

    @property
    def retry_after_millis(self) -> Optional[int]:
        """The pause that the broker asks for."""
        return self.details.get("retryAfterMillis")

    @property
    def transaction_ids(self) -> List[str]:
        """The ids of a push. One of unknown outcome may be repeated with them: nothing is stored twice."""
        return list(self.details.get("transactionIds") or [])

    @property
    def result(self) -> Any:
        """The result of a call that was refused in part: one entry for each item."""
        return self.details.get("result")


class QueenInvalidArgumentError(QueenError, ValueError):
    """An argument is missing or out of range."""


class QueenInvalidUtf8Error(QueenError, ValueError):
    """A text is not valid UTF-8."""


class QueenInvalidJsonError(QueenError, ValueError):
    """A value has the wrong shape, or cannot be written as JSON."""


class QueenConfigError(QueenError, ValueError):
    """A setting or an option is unknown, or has a bad value."""


class QueenInvalidStateError(QueenError):
    """The object is not in a state that allows the call."""


class QueenUnknownOperationError(QueenError, LookupError):
    """There is no operation of that name."""


class QueenTimeoutError(QueenError, TimeoutError):
    """The deadline passed first."""


class QueenCancelledError(QueenError):
    """The call was cancelled by somebody else than its own task."""


class QueenClosedError(QueenError):
    """The client is closed. Make a new one."""


class QueenWouldBlockError(QueenError, BlockingIOError):
    """Too much is under way, or a buffer is full, and nothing was kept. Wait for `ready()`, or flush."""


class QueenWouldDeadlockError(QueenError):
    """The call would wait for itself."""


class QueenBusyError(QueenError):
    """Something is still in use."""


class QueenForkedError(QueenError):
    """The client was made before a fork and cannot be used in the child. Make a new one there."""


class QueenConnectionError(QueenError, ConnectionError):
    """No connection to the broker could be made, and nothing was sent."""


class QueenNetworkError(QueenError, ConnectionError):
    """The connection broke after the request was sent; the broker may or may not have applied it."""


class QueenBadAnswerError(QueenError):
    """The answer is not what a Queen broker says."""


class QueenBadRequestError(QueenError):
    """The broker refused the request (HTTP 4xx)."""


class QueenUnauthorizedError(QueenError, PermissionError):
    """The broker wants a valid token (HTTP 401)."""


class QueenForbiddenError(QueenError, PermissionError):
    """The token does not allow the call (HTTP 403)."""


class QueenNotFoundError(QueenError, LookupError):
    """The broker knows no such thing (HTTP 404)."""


class QueenTooLargeError(QueenError):
    """The request is larger than the broker takes (HTTP 413)."""


class QueenThrottledError(QueenError):
    """The broker asks for fewer requests (HTTP 429)."""


class QueenBrokerError(QueenError):
    """The broker failed (HTTP 5xx)."""


class QueenUnsupportedError(QueenError, NotImplementedError):
    """The broker has no such operation: it is older than that, or of another kind."""


class QueenPartialError(QueenError):
    """Some items were refused; `result` has one entry for each."""


class QueenLeaseLostError(QueenError):
    """The lease has ended, and the messages will be delivered again."""


class QueenAlreadySettledError(QueenError):
    """The message has a verdict already; this one changed nothing."""


class QueenOrderError(QueenError):
    """The transaction would pass an earlier message of the partition that is unsettled. Nothing was sent."""


class QueenRolledBackError(QueenError):
    """The broker rolled the transaction back: nothing of it was applied. `broker_code` has the reason."""


class QueenLockedError(QueenError):
    """Another process owns the store file."""


class QueenStoreError(QueenError, OSError):
    """The store of the embedded broker cannot be opened or used."""


class QueenInternalError(QueenError):
    """A defect of libqueen. Please report it with the message."""


# By code and name; a test compares them with the header.
_TABLE: Dict[int, tuple[str, Type[QueenError]]] = {
    -101: ("QUEEN_E_INVALID_ARGUMENT", QueenInvalidArgumentError),
    -102: ("QUEEN_E_INVALID_UTF8", QueenInvalidUtf8Error),
    -103: ("QUEEN_E_INVALID_JSON", QueenInvalidJsonError),
    -104: ("QUEEN_E_INVALID_CONFIG", QueenConfigError),
    -105: ("QUEEN_E_INVALID_STATE", QueenInvalidStateError),
    -106: ("QUEEN_E_UNKNOWN_OPERATION", QueenUnknownOperationError),
    -201: ("QUEEN_E_TIMEOUT", QueenTimeoutError),
    -202: ("QUEEN_E_CANCELLED", QueenCancelledError),
    -203: ("QUEEN_E_CLOSED", QueenClosedError),
    -204: ("QUEEN_E_WOULD_BLOCK", QueenWouldBlockError),
    -205: ("QUEEN_E_WOULD_DEADLOCK", QueenWouldDeadlockError),
    -206: ("QUEEN_E_BUSY", QueenBusyError),
    -207: ("QUEEN_E_FORKED", QueenForkedError),
    -301: ("QUEEN_E_CONNECT", QueenConnectionError),
    -302: ("QUEEN_E_NETWORK", QueenNetworkError),
    -303: ("QUEEN_E_BAD_ANSWER", QueenBadAnswerError),
    -401: ("QUEEN_E_BAD_REQUEST", QueenBadRequestError),
    -402: ("QUEEN_E_UNAUTHORIZED", QueenUnauthorizedError),
    -403: ("QUEEN_E_FORBIDDEN", QueenForbiddenError),
    -404: ("QUEEN_E_NOT_FOUND", QueenNotFoundError),
    -405: ("QUEEN_E_TOO_LARGE", QueenTooLargeError),
    -406: ("QUEEN_E_THROTTLED", QueenThrottledError),
    -407: ("QUEEN_E_BROKER", QueenBrokerError),
    -408: ("QUEEN_E_UNSUPPORTED", QueenUnsupportedError),
    -501: ("QUEEN_E_PARTIAL", QueenPartialError),
    -502: ("QUEEN_E_LEASE_LOST", QueenLeaseLostError),
    -503: ("QUEEN_E_ALREADY_SETTLED", QueenAlreadySettledError),
    -504: ("QUEEN_E_ORDER", QueenOrderError),
    -505: ("QUEEN_E_ROLLED_BACK", QueenRolledBackError),
    -601: ("QUEEN_E_LOCKED", QueenLockedError),
    -602: ("QUEEN_E_STORE", QueenStoreError),
    -901: ("QUEEN_E_INTERNAL", QueenInternalError),
}
_NAMES = {code: name for code, (name, _) in _TABLE.items()}


def make_error(code: int, message: str, details: Optional[Mapping[str, Any]] = None) -> QueenError:
    """The exception for a code."""
    kind = _TABLE[code][1] if code in _TABLE else QueenError
    return kind(message, code, details)
