"""Queues of the asyncio client."""

from __future__ import annotations

import inspect
import sys
import warnings
from typing import TYPE_CHECKING, Any, AsyncIterator, Callable, Dict, Generator, List, Optional, TypeVar

from ._base import read_pushed
from ._events import Read, read_json
from ._options import DLQOptions, QueueOptions, as_list
from ._push import Callbacks, calls, item_of, partial_results
from .consumer import Consumer, stream
from .errors import QueenError
from .message import Message, read_deliveries
from .types import AnyHandler, ConsumeSummary, DLQResponse, Pushed, PushResult

if TYPE_CHECKING:
    from .client import Queen

_Lazy = TypeVar("_Lazy", bound="Lazy")


async def finished(answer: Any) -> Any:
    """What a function has returned, which may be a coroutine function."""
    return await answer if inspect.isawaitable(answer) else answer


class Lazy:
    """Something that happens when it is awaited, once. Awaited again, it tells the same result."""

    _ran = False
    _result: Any = None

    def __await__(self) -> Generator[Any, None, Any]:
        if not self._ran:
            self._ran = True
            self._result = yield from self._run().__await__()
        return self._result

    async def _run(self) -> Any:
        raise NotImplementedError

    def __del__(self) -> None:
        if not self._ran and not sys.is_finalizing():
            warnings.warn(f"{self!r} was never awaited, so nothing was done", RuntimeWarning, stacklevel=2, source=self)


class PushBuilder(Lazy):
    """A push: `await` sends it.

    The result is a list with one entry for each message, or `{"buffered": True, "count": n}`.
    """

    _callbacks: Optional[Callbacks] = None

    def __init__(self, queen: Queen, queue: str, partition: Optional[str], items: Any, options: Dict[str, Any]) -> None:
        self._queen, self._queue, self._partition = queen, queue, partition
        self._items, self._options = items, options

    def _calls(self) -> Callbacks:
        if self._callbacks is None:
            self._callbacks = Callbacks()
        return self._callbacks

    def on_success(self, callback: Callable[..., Any]) -> PushBuilder:
        """Calls `callback(items)` with the messages that were stored."""
        self._calls().success = callback
        return self

    def on_error(self, callback: Callable[..., Any]) -> PushBuilder:
        """Calls `callback(items, error)` with those that were not; then nothing is raised."""
        self._calls().error = callback
        return self

    def on_duplicate(self, callback: Callable[..., Any]) -> PushBuilder:
        """Calls `callback(items, error)` with those whose transaction id is stored already."""
        self._calls().duplicate = callback
        return self

    def __await__(self) -> Generator[Any, None, Pushed]:
        return super().__await__()

    async def _run(self) -> Pushed:
        queen = self._queen
        callbacks = self._callbacks
        try:
            body = queen.encoder.items(self._items)
            wait = queen.take if "buffer" in self._options else queen.wait
            begun = queen.begin_push(self._queue, self._partition, body, self._options)
            results: List[PushResult] = await wait(begun, read_pushed)
        except QueenError as error:
            if callbacks is None:
                raise
            return await self._failed(callbacks, error)
        if "buffer" in self._options:
            if callbacks is not None and callbacks.success is not None:
                seen = [item_of(self._queue, self._partition, item) for item in as_list(self._items)]
                await finished(callbacks.success(seen))
            return {"buffered": True, "count": len(results)}
        if callbacks is not None:
            for function, arguments in calls(callbacks, self._queue, self._partition, self._items, results):
                await finished(function(*arguments))
        return results

    async def _failed(self, callbacks: Callbacks, error: QueenError) -> Pushed:
        results = partial_results(error)
        if results is None:
            if callbacks.error is None:
                raise error
            seen = [item_of(self._queue, self._partition, item) for item in as_list(self._items)]
            await finished(callbacks.error(seen, error))
            return None
        for function, arguments in calls(callbacks, self._queue, self._partition, self._items, results):
            await finished(function(*arguments))
        if callbacks.error is None:
            raise error
        return results

    def __repr__(self) -> str:
        return f"push to {self._queue}/{self._partition or 'Default'}"


class OperationBuilder(Lazy):
    """An operation on a queue: `await` does it."""

    def __init__(self, queen: Queen, operation: str, parameters: Dict[str, Any]) -> None:
        self._queen, self._operation, self._parameters = queen, operation, parameters
        self._success: Optional[Callable[..., Any]] = None
        self._error: Optional[Callable[..., Any]] = None

    def on_success(self, callback: Callable[..., Any]) -> OperationBuilder:
        """Calls `callback(result)`."""
        self._success = callback
        return self

    def on_error(self, callback: Callable[..., Any]) -> OperationBuilder:
        """Calls `callback(error)`; then nothing is raised."""
        self._error = callback
        return self

    def __await__(self) -> Generator[Any, None, Dict[str, Any]]:
        return super().__await__()

    async def _run(self) -> Any:
        try:
            result = await self._queen.call(self._operation, **self._parameters)
        except QueenError as error:
            if self._error is None:
                raise
            await finished(self._error(error))
            return {"success": False, "error": str(error)}
        if self._success is not None:
            await finished(self._success(result))
        return result

    def __repr__(self) -> str:
        return f"{self._operation} of {self._parameters['queue']}"


class ConsumeBuilder(Lazy):
    """A consumer: `await` runs it until it ends, and tells what it has done. To cancel the task ends it at once."""

    def __init__(self, queen: Queen, options: Dict[str, Any], lists: bool, handler: AnyHandler, signal: Any) -> None:
        self._consumer = Consumer(queen, options, lists, handler, signal)

    def on_success(self, callback: Callable[..., Any]) -> ConsumeBuilder:
        """Calls `callback(message, result)` when the handler has returned. How messages are acked stays as it is."""
        self._consumer.on_success = callback
        return self

    def on_error(self, callback: Callable[..., Any]) -> ConsumeBuilder:
        """Calls `callback(message, error)` when the handler has raised, before the message is failed."""
        self._consumer.on_error = callback
        return self

    def __await__(self) -> Generator[Any, None, ConsumeSummary]:
        return super().__await__()

    async def _run(self) -> ConsumeSummary:
        return await self._consumer.start().wait()

    def __repr__(self) -> str:
        return repr(self._consumer)


class DLQBuilder(DLQOptions):
    """A query of dead letters: `await .get()`."""

    def __init__(self, queen: Queen, queue: str, group: Optional[str], partition: Optional[str]) -> None:
        super().__init__(queue, group, partition)
        self._queen = queen

    async def get(self) -> DLQResponse:
        """The dead letters, as `{"messages": [...], "total": n}`."""
        page: DLQResponse = await self._queen.call("dlq.list", **self._parameters)
        return page


class QueueBuilder(QueueOptions):
    """A queue, to push to it, pop and consume from it. Each option returns the same object."""

    def __init__(self, queen: Queen, name: Optional[str]) -> None:
        super().__init__(name)
        self._queen = queen

    def create(self) -> OperationBuilder:
        """Creates the queue with the options of `config()`, or changes it to them."""
        return OperationBuilder(self._queen, "queue.create", self._create_parameters())

    def delete(self) -> OperationBuilder:
        """Deletes the queue and all its messages."""
        return OperationBuilder(self._queen, "queue.delete", {"queue": self._needs_name("delete operation")})

    def push(self, items: Any) -> PushBuilder:
        """Pushes one message, or a list of them, together and in order.

        A message is any value, its payload; or a dict with the payload under `data` or `payload`, and perhaps
        `transactionId` and `traceId`. Bytes are ready JSON.
        """
        return PushBuilder(
            self._queen, self._needs_name("push operation"), self._partition, items, self._push_options()
        )

    async def pop(self) -> List[Message]:
        """Pops up to `batch` messages under a lease. An empty list says that there is nothing; failures are raised.

        They stay leased until they are settled by `queen.ack()` or `message.ack()`, or the lease is over.
        """
        queen = self._queen
        read: Read = lambda future, _text: list(read_deliveries(future))  # noqa: E731
        deliveries = await queen.wait(queen.begin_pop(self._name, self._partition, self._pop_options()), read)
        messages: List[Message] = []
        for delivery in deliveries:
            messages += queen.messages(delivery)
            if not self._options.get("autoAck"):
                queen.keep(delivery)
        return messages

    def consume(self, handler: AnyHandler, *, signal: Any = None) -> ConsumeBuilder:
        """Handles messages until a limit or the signal ends it.

        Args:
            handler: gets one message, or a list of them where `batch` is more than 1 and `each` is not set. A message is
                acked when it returns and failed when it raises.
            signal: an asyncio.Event that ends the consumer when it is set. Handlers that run are waited for.
        """
        return ConsumeBuilder(self._queen, self._consume_options(), self._takes_lists(), handler, signal)

    def start(self, handler: AnyHandler) -> Consumer:
        """Begins to consume, and returns the running consumer."""
        return Consumer(self._queen, self._consume_options(), self._takes_lists(), handler, None).start()

    def stream_messages(self) -> AsyncIterator[Message]:
        """Messages one at a time, for `async for`.

        A message is acked when the next one is asked for, unless it has a verdict. One on which the loop is left is not:
        it comes again, so ack it before a `break` if it is done. `contextlib.aclosing` ends the iterator at once when the
        loop is left; without it that happens when it is collected.
        """
        options = self._consume_options()
        if options.get("batch", 1) > 1:
            options["each"] = True
        return stream(self._queen, options)

    async def flush_buffer(self) -> None:
        """Sends what is buffered for this queue, and waits for it."""
        await self._queen.wait(self._queen.begin_flush(self._flush_options()), read_json)

    def dlq(self, consumer_group: Optional[str] = None) -> DLQBuilder:
        """Asks for dead letters."""
        return DLQBuilder(self._queen, self._needs_name("DLQ operations"), consumer_group, self._partition)
