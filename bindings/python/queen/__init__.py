"""Queen MQ, the message queue with unlimited FIFO partitions: a client on the native library libqueen.

    async with queen.Queen("embedded:") as client:          # or "http://host:6632"
        await client.queue("orders").push({"data": {"id": 1}})
        await client.queue("orders").limit(1).consume(handler)

`queen.sync.Queen` is the same without asyncio. `embedded:` is a broker inside of the process, in memory or in a file.
"""

from __future__ import annotations

from ._lib import VERSION as __version__
from .broker import Broker
from .client import AsyncMessage, Queen
from .consumer import Consumer
from .defaults import BUFFER_DEFAULTS, CLIENT_DEFAULTS, CONSUME_DEFAULTS, POP_DEFAULTS, QUEUE_DEFAULTS
from .errors import (
    QueenAlreadySettledError,
    QueenBadAnswerError,
    QueenBadRequestError,
    QueenBrokerError,
    QueenBusyError,
    QueenCancelledError,
    QueenClosedError,
    QueenConfigError,
    QueenConnectionError,
    QueenError,
    QueenForbiddenError,
    QueenForkedError,
    QueenInternalError,
    QueenInvalidArgumentError,
    QueenInvalidJsonError,
    QueenInvalidStateError,
    QueenInvalidUtf8Error,
    QueenLeaseLostError,
    QueenLockedError,
    QueenNetworkError,
    QueenNotFoundError,
    QueenOrderError,
    QueenPartialError,
    QueenRolledBackError,
    QueenStoreError,
    QueenThrottledError,
    QueenTimeoutError,
    QueenTooLargeError,
    QueenUnauthorizedError,
    QueenUnknownOperationError,
    QueenUnsupportedError,
    QueenWouldBlockError,
    QueenWouldDeadlockError,
)
from .message import Message
from .queue import QueueBuilder
from .streams import StreamBuilder, StreamConsumer, Window
from .transaction import TransactionBuilder
from .types import (
    AckResponse,
    BufferStats,
    ConsumeSummary,
    DLQResponse,
    FlushSummary,
    PushResult,
    RenewResponse,
    StreamSummary,
    TraceConfig,
    TransactionResponse,
)

__all__ = [
    "BUFFER_DEFAULTS",
    "CLIENT_DEFAULTS",
    "CONSUME_DEFAULTS",
    "POP_DEFAULTS",
    "QUEUE_DEFAULTS",
    "AckResponse",
    "AsyncMessage",
    "Broker",
    "BufferStats",
    "ConsumeSummary",
    "Consumer",
    "DLQResponse",
    "FlushSummary",
    "Message",
    "PushResult",
    "Queen",
    "QueenAlreadySettledError",
    "QueenBadAnswerError",
    "QueenBadRequestError",
    "QueenBrokerError",
    "QueenBusyError",
    "QueenCancelledError",
    "QueenClosedError",
    "QueenConfigError",
    "QueenConnectionError",
    "QueenError",
    "QueenForbiddenError",
    "QueenForkedError",
    "QueenInternalError",
    "QueenInvalidArgumentError",
    "QueenInvalidJsonError",
    "QueenInvalidStateError",
    "QueenInvalidUtf8Error",
    "QueenLeaseLostError",
    "QueenLockedError",
    "QueenNetworkError",
    "QueenNotFoundError",
    "QueenOrderError",
    "QueenPartialError",
    "QueenRolledBackError",
    "QueenStoreError",
    "QueenThrottledError",
    "QueenTimeoutError",
    "QueenTooLargeError",
    "QueenUnauthorizedError",
    "QueenUnknownOperationError",
    "QueenUnsupportedError",
    "QueenWouldBlockError",
    "QueenWouldDeadlockError",
    "QueueBuilder",
    "RenewResponse",
    "StreamBuilder",
    "StreamConsumer",
    "StreamSummary",
    "TraceConfig",
    "TransactionBuilder",
    "TransactionResponse",
    "Window",
    "__version__",
]
