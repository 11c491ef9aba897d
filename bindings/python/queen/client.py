"""The client for asyncio."""

from __future__ import annotations

import asyncio
import inspect
import os
import signal as signals
from types import TracebackType
from typing import TYPE_CHECKING, Any, Callable, Coroutine, Dict, List, Mapping, Optional, Tuple, Type, TypeVar

from ._base import (
    NO_LEASES,
    BaseQueen,
    Config,
    Outcome,
    ack_response,
    lease_ids,
    log,
    renew_response,
    settle,
    trace_parameters,
)
from ._events import Read, port, read_json
from ._json import Default, Dumps, Loads
from .admin import Admin
from .errors import QueenError
from .message import Message, verdict
from .queue import QueueBuilder
from .streams import StreamBuilder, StreamConsumer
from .transaction import TransactionBuilder
from .types import Ackable, AckResponse, FlushSummary, Settings, StatusLike

if TYPE_CHECKING:
    from typing_extensions import Unpack

CLOSE_MILLIS = 30000

_Self = TypeVar("_Self", bound="Queen")


class AsyncMessage(Message):
    """A message of the asyncio client."""

    __slots__ = ()
    _queen: Queen

    async def trace(self, config: Any) -> Dict[str, Any]:
        """Adds a trace: `{"data": ..., "traceName": "name" or [names], "eventType": "info"}`.

        It never raises: `success` tells whether it went well, `error` why not.
        """
        try:
            told: Dict[str, Any] = await self._queen.call("trace.add", **trace_parameters(self, config))
            return {"success": True, **told}
        except QueenError as error:
            log.warning("a trace was not added: %s", error)
            return {"success": False, "error": str(error)}

    async def ack(self, status: StatusLike = True, error: Optional[str] = None) -> None:
        """Settles the message: True is done, False failed, also "retry" and "dlq". Raises where that does not count."""
        delivery = self._delivery
        self._queen.forget(delivery, [self.index])
        await self._queen.settle(delivery, [(self.index, verdict(status), error)])

    async def nack(self, reason: Optional[str] = None) -> None:
        """Fails the message: it is charged a retry and comes again, or goes to the dead-letter queue with the reason."""
        await self.ack(False, reason)


class Queen(BaseQueen):
    """A client for asyncio.

    `Queen("http://host:6632")`, `Queen([url, url])`, `Queen({"url": ..., ...})` or keywords alone; keywords always count.
    `embedded:` is a broker inside of the process. Nothing connects before the first call.

    It may be used from several loops in several threads. `async with` closes it.

    Args:
        config: a URL, a list of URLs, or a dict with settings.
        default: called with what cannot be written as JSON otherwise; returns something that can.
        dumps: writes payloads, such as `orjson.dumps`.
        loads: reads payloads from bytes, such as `orjson.loads`.
        handle_signals: closes the client on SIGINT and SIGTERM, and then lets the signal do what it did before. Must be
            made on the main thread inside of the running loop.
        settings: those of docs/CONFIGURATION.md in snake_case, such as `bearer_token`, `timeout_millis`.
    """

    _message = AsyncMessage

    def __init__(
        self,
        config: Config = None,
        *,
        default: Optional[Default] = None,
        dumps: Optional[Dumps] = None,
        loads: Optional[Loads] = None,
        handle_signals: bool = False,
        **settings: Unpack[Settings],
    ) -> None:
        super().__init__(config, settings, default, dumps, loads)
        self._admin = Admin(self)
        self._tasks: set[asyncio.Future[Any]] = set()
        self._before: List[Tuple[int, Any]] = []
        if handle_signals:
            self._handle_signals()

    def queue(self, name: Optional[str] = None) -> QueueBuilder:
        """Describes a queue, to push to it, pop and consume from it. Without a name: queues by namespace or task."""
        return QueueBuilder(self, name)

    def transaction(self) -> TransactionBuilder:
        """Begins a transaction: acks and pushes that happen together or not at all."""
        return TransactionBuilder(self)

    def stream(self, name: str, namespace: str) -> StreamBuilder:
        """Describes a stream, to define it: windows over what is pushed to some queues."""
        return StreamBuilder(self, name, namespace)

    def consumer(self, stream: str, group: str) -> StreamConsumer:
        """The windows of a stream for a consumer group."""
        return StreamConsumer(self, stream, group)

    @property
    def admin(self) -> Admin:
        """Every operation of docs/OPERATIONS.md as a method."""
        return self._admin

    # How calls are waited for

    def wait(self, handle: Optional[int], read: Read = read_json) -> Coroutine[Any, Any, Any]:
        """Waits for a future of the library in the running loop."""
        return port().wait(handle, read)

    def take(self, handle: Optional[int], read: Read = read_json) -> Coroutine[Any, Any, Any]:
        """As wait(), for a future that most likely has completed already."""
        return port().take(handle, read)

    async def outcome(self, handle: Optional[int], read: Read = read_json) -> Outcome:
        """As wait(), with the error as a value."""
        try:
            return Outcome(await port().wait(handle, read), None)
        except QueenError as error:
            return Outcome(None, error)

    async def settle(self, delivery: Any, verdicts: Any) -> Any:
        """Gives verdicts on messages of a delivery."""
        return await self.wait(settle(delivery, verdicts))

    async def call(self, operation: str, **parameters: Any) -> Any:
        """Runs any operation of docs/OPERATIONS.md by its name. Its parameters may be in snake_case."""
        return await self.wait(self.begin_call(operation, parameters))

    async def ack(
        self, message: Ackable, status: StatusLike = True, context: Optional[Mapping[str, Any]] = None
    ) -> AckResponse:
        """Settles a message or a list of them.

        Args:
            message: messages, or dicts with `transactionId`, `partitionId` and `leaseId`.
            status: True is done, False failed, also "retry" and "dlq".
            context: `group` (needed for dicts that do not name it), `error` (recorded with a dead letter),
                `timeout_millis`.

        Returns:
            `success`, and `error` where it is False: a refused ack is told and never raised. For a list also `results`.

        Raises:
            ValueError: a message of a list has no `transactionId` or no `partitionId`.
        """
        context = context or {}
        if isinstance(message, list) and not message:
            return {"success": True, "processed": 0, "results": []}
        try:
            begun = self.begin_ack(message if isinstance(message, list) else [message], status, context)
        except QueenError as error:
            if isinstance(message, list):
                raise
            return {"success": False, "error": str(error), "code": error.name}
        if len(begun) == 1:
            return ack_response(message, [(begun[0], await self.outcome(begun[0].future))])
        outcomes = await asyncio.gather(*(self.outcome(one.future) for one in begun))
        return ack_response(message, list(zip(begun, outcomes)))

    async def renew(self, message_or_lease_id: Any, lease_seconds: Optional[int] = None) -> Any:
        """Makes leases last at least `lease_seconds` (60) from now: of a lease id, a message, or a list of either.

        Returns:
            `{"success", "leaseId", "newExpiresAt", "error"}`, for a list one for each. `success` is False when it is over.
        """
        leases = lease_ids(message_or_lease_id)
        if not leases:
            return dict(NO_LEASES)
        return renew_response(message_or_lease_id, await self.outcome(self.begin_renew(leases, lease_seconds)))

    async def flush_all_buffers(self, timeout_millis: Optional[int] = None) -> FlushSummary:
        """Sends what is buffered, and waits until everything that was pushed before is settled."""
        options = {} if timeout_millis is None else {"timeoutMillis": timeout_millis}
        summary: FlushSummary = await self.wait(self.begin_flush(options))
        return summary

    async def ready(self) -> None:
        """Waits until there is room for further calls, after one has raised QueenWouldBlockError."""
        await self.wait(self.begin_ready())

    async def delete_consumer_group(self, consumer_group: str, delete_metadata: bool = True) -> Dict[str, Any]:
        """Forgets where a group stands, and where its subscription began unless `delete_metadata` is False."""
        told: Dict[str, Any] = await self.call(
            "group.delete", consumer_group=consumer_group, delete_metadata=delete_metadata
        )
        return told

    async def update_consumer_group_timestamp(self, consumer_group: str, timestamp: str) -> Dict[str, Any]:
        """Moves the begin of a group's subscription to an ISO 8601 time."""
        told: Dict[str, Any] = await self.call("group.subscribe", consumer_group=consumer_group, timestamp=timestamp)
        return told

    async def close(self, timeout_millis: int = CLOSE_MILLIS) -> None:
        """Closes the client: stops consumers, sends what is buffered, and waits for what is under way.

        Raises:
            QueenTimeoutError: something still runs; call again to wait longer.
            QueenPartialError: it is closed, and messages in buffers were not stored; the error says how many.
        """
        if self._closed:
            return
        try:
            await self.wait(self.begin_close(timeout_millis))
        except QueenError as error:
            if error.name != "QUEEN_E_TIMEOUT":
                self._end()
            raise
        self._end()

    def _end(self) -> None:
        self._closed = True
        self._kept.clear()
        self._drop_routes()
        self._restore_signals()

    async def __aenter__(self: _Self) -> _Self:
        return self

    async def __aexit__(
        self, kind: Optional[Type[BaseException]], error: Optional[BaseException], trace: Optional[TracebackType]
    ) -> None:
        await self.close()

    # Notices come in the loop in which they were asked for.

    def _notice_events(self) -> Any:
        return port()

    def _tell(self, function: Callable[..., Any], *arguments: Any) -> None:
        answer = function(*arguments)
        if inspect.isawaitable(answer):
            self._spawn(answer)

    def _ask(self, source: Callable[..., Any], reason: str) -> None:
        async def ask() -> None:
            token = None
            try:
                answer = source(reason)
                token = await answer if inspect.isawaitable(answer) else answer
            finally:
                self.set_token(token)

        self._spawn(ask())

    def _spawn(self, coroutine: Any) -> None:
        task = asyncio.ensure_future(coroutine)
        self._tasks.add(task)  # a loop keeps no task by itself
        task.add_done_callback(self._tasks.discard)

    # Signals

    def _handle_signals(self) -> None:
        loop = asyncio.get_running_loop()

        def on_signal(number: int, _frame: Any) -> None:
            self._restore_signals()  # a second one does at once what it did before
            loop.call_soon_threadsafe(lambda: self._spawn(self._shut_down(number)))

        for number in (signals.SIGINT, signals.SIGTERM):
            self._before.append((number, signals.getsignal(number)))
            signals.signal(number, on_signal)

    async def _shut_down(self, number: int) -> None:
        try:
            await self.close()
        finally:
            os.kill(os.getpid(), number)

    def _restore_signals(self) -> None:
        before, self._before = self._before, []
        for number, handler in before:
            signals.signal(number, handler)
