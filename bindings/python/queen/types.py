"""Types of what goes in and comes out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Awaitable, Callable, Dict, List, Mapping, Optional, TypedDict, Union

from .message import Message

Json = Any
"""What json.loads makes."""


class AckResponse(TypedDict, total=False):
    """What became of an ack. `results` has one entry for each message of a list."""

    success: bool
    error: Optional[str]
    code: str
    transactionId: str
    dlq: bool
    noop: bool
    processed: int
    results: List[Dict[str, Any]]


class RenewResponse(TypedDict, total=False):
    """What became of a lease."""

    success: bool
    leaseId: str
    renewed: bool
    newExpiresAt: Optional[str]
    expiresAt: Optional[str]
    error: Optional[str]
    code: str


class BufferStats(TypedDict):
    """What waits in the client to be sent."""

    activeBuffers: int
    totalBufferedMessages: int
    oldestBufferAge: float
    flushesPerformed: int


class StreamSummary(TypedDict, total=False):
    """What a consumer of windows did."""

    reason: str
    windows: int
    messages: int
    acked: int
    nacked: int
    lost: int


class DLQResponse(TypedDict):
    """A page of dead letters."""

    messages: List[Dict[str, Any]]
    total: int


class TransactionResponse(TypedDict, total=False):
    """What a commit did: `results` has one entry for each message and verdict, in order."""

    success: bool
    transactionId: str
    results: List[Dict[str, Any]]
    error: Optional[str]


class ConsumeSummary(TypedDict, total=False):
    """What a consumer has done; the reason is "limit", "idle", "stopped" or "closed"."""

    reason: str
    deliveries: int
    messages: int
    acked: int
    nacked: int
    unsettled: int


class FlushSummary(TypedDict):
    """What a flush has waited for: direct calls, and messages in all."""

    flushed: int
    messages: int


class TraceConfig(TypedDict, total=False):
    """A trace; `data` must be there."""

    traceName: Optional[Union[str, List[str]]]
    eventType: Optional[str]
    data: Any


class PushResult(Dict[str, Any]):
    """What became of a message: `status` ("queued", "duplicate", "buffered"), `transactionId`, `messageId`.

    The ids are also found as `transaction_id` and `message_id`.
    """

    __slots__ = ()

    def __missing__(self, key: str) -> Any:
        if key in ("transaction_id", "message_id"):
            return self[key[:-3] + "Id"]
        raise KeyError(key)


MessageHandler = Callable[[Message], Any]
BatchMessageHandler = Callable[[List[Message]], Any]
AnyHandler = Callable[[Any], Any]
Callback = Callable[..., Any]
StatusLike = Union[bool, str]
Ackable = Union[str, Mapping[str, Any], List[Any]]
Pushed = Union[List[PushResult], Dict[str, Any], None]

if TYPE_CHECKING:
    AwaitableAny = Awaitable[Any]


class Settings(TypedDict, total=False):
    """The settings of a client, as docs/CONFIGURATION.md explains them."""

    url: str
    urls: List[str]
    timeout_millis: int
    request_timeout_millis: int
    connect_timeout_millis: int
    retry_attempts: int
    retry_delay_millis: int
    retry_max_delay_millis: int
    throttled_attempts: int
    enable_failover: bool
    load_balancing_strategy: str
    affinity_hash_ring: int
    health_retry_after_millis: int
    max_answer_bytes: int
    bearer_token: str
    headers: Dict[str, str]
    host_header: str
    tls_ca_file: str
    tls_cert_file: str
    tls_key_file: str
    max_pending_messages: int
    max_pending_bytes: int
    coalesce_pushes: bool
    gather_micros: int
    max_push_lanes: int
    max_buffered_messages: int
    max_buffered_bytes: int
    statistics_interval_millis: int
    max_parked_polls: int
    cancel_grace_millis: int
