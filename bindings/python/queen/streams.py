"""Streams: what is pushed to queues, cut into windows; docs/STREAMS.md tells what a window is."""

from __future__ import annotations

import asyncio
import ctypes
import inspect
from typing import TYPE_CHECKING, Any, Awaitable, Callable, Dict, List, Mapping, Optional, Sequence, Tuple, Union

from ._base import log
from ._events import Read, read_json, read_now
from ._json import Loads
from ._lib import compact, lib, nul_terminated, take_error
from .consumer import STOP_MILLIS, Consumer, reason_of
from .types import StreamSummary

if TYPE_CHECKING:
    from .client import Queen

WindowMessage = Dict[str, Any]
"""`{"id", "data", "created_at"}`"""


class Window:
    """A window of a stream under one lease: its messages, and what is left of them by filters.

    Every field that the broker tells is an attribute: `id`, `key`, `start`, `end`, `leaseId`, ... When the last reference is
    gone without a verdict, it goes back and comes again.
    """

    def __init__(self, handle: int, loads: Loads) -> None:
        self._handle: Optional[int] = handle
        self._loads = loads
        self._told: Optional[Mapping[str, Any]] = None
        self._left = list(range(lib.queen_window_original_size(handle)))

    def __del__(self) -> None:
        handle, self._handle = getattr(self, "_handle", None), None
        if handle:
            lib.queen_window_free(handle)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        try:
            return self._document[name]
        except KeyError:
            raise AttributeError(f"a window has no {name!r}; it has {', '.join(self._document)}") from None

    @property
    def _document(self) -> Mapping[str, Any]:
        told = self._told
        if told is None:
            # Before the first filter, so that it has all messages.
            told = self._now(lib.queen_window_document(self._handle), lambda _, text: self._loads(text or b"{}"))
            self._told = told
        return told

    @staticmethod
    def _now(future: Optional[int], read: Read) -> Any:
        """The result of a future that is complete already."""
        try:
            return read_now(future or 0, read)
        finally:
            lib.queen_future_free(future)

    @property
    def all_messages(self) -> Tuple[WindowMessage, ...]:
        """Every message of the window, whatever was filtered."""
        return tuple(self._document["messages"])

    @property
    def messages(self) -> List[WindowMessage]:
        """The messages that are left, in the order of their times."""
        found = self._document["messages"]
        return [found[place] for place in self._left]

    def filter(self, wanted: Callable[[WindowMessage], Any]) -> Window:
        """Leaves only the messages that are wanted."""
        return self._keep([index for index, message in enumerate(self.messages) if wanted(message)])

    def _keep(self, indices: Sequence[int]) -> Window:
        array = (ctypes.c_size_t * len(indices))(*indices)
        lib.queen_window_keep(self._handle, array, len(indices))
        self._left = [self._left[index] for index in indices]
        return self

    def group_by(self, path: str) -> Dict[str, List[WindowMessage]]:
        """The messages that are left, by the value at a dot path such as `data.customer`.

        What is missing, null, false, 0 or "" is in the group "null_key".
        """
        messages = self.messages
        groups = self._now(lib.queen_window_group_by(self._handle, nul_terminated("path", path)), read_json)
        return {group["key"]: [messages[index] for index in group["indices"]] for group in groups}

    def aggregate(self, wanted: Mapping[str, Any]) -> Dict[str, Any]:
        """Computes over the messages that are left.

        Args:
            wanted: `{"count": True, "sum": ["data.amount"], "avg": [...], "min": [...], "max": [...]}`, each optional.

        Returns:
            The same keys: `{"count": 3, "sum": {"data.amount": 12}, ...}`. What is no number counts for nothing; of nothing,
            sum and mean are 0 and extremes None.
        """
        text = compact(wanted)
        told: Dict[str, Any] = self._now(lib.queen_window_aggregate(self._handle, text, len(text)), read_json)
        return told

    def reset(self) -> Window:
        """Takes back every filter."""
        lib.queen_window_reset(self._handle)
        self._left = list(range(self.original_size()))
        return self

    def size(self) -> int:
        """How many messages are left."""
        return len(self._left)

    def original_size(self) -> int:
        """How many messages the window has."""
        return lib.queen_window_original_size(self._handle)

    def is_lost(self) -> bool:
        """Whether the lease is over for certain, so that no verdict counts and the window comes again."""
        return lib.queen_window_is_lost(self._handle) == 1

    def begin_settle(self, success: bool) -> Optional[int]:
        """The queen_future_t of a verdict."""
        return lib.queen_window_ack(self._handle) if success else lib.queen_window_nack(self._handle)

    def __repr__(self) -> str:
        return f"<window {self.id}: {self.size()} of {self.original_size()} messages>"


class StreamOptions:
    """How a stream is to be defined. Each option returns the same object."""

    def __init__(self, queen: Any, name: str, namespace: str) -> None:
        self._queen = queen
        self._parameters: Dict[str, Any] = {"stream": name, "namespace": namespace}

    def _with(self, name: str, value: Any) -> Any:
        self._parameters[name] = value
        return self

    def sources(self, queues: Union[str, Sequence[str]]) -> Any:
        """The queues to read."""
        return self._with("sources", [queues] if isinstance(queues, str) else list(queues))

    def partitioned(self, partitioned: bool = True) -> Any:
        """Windows of its own for each partition name. Default: all messages together."""
        return self._with("partitioned", partitioned)

    def tumbling_time(self, seconds: float) -> Any:
        """Windows of that length, one after another. Default 60."""
        return self._with("windowMillis", round(seconds * 1000))

    def grace_period(self, seconds: float) -> Any:
        """How long after its end a window closes. Default 30."""
        return self._with("graceMillis", round(seconds * 1000))

    def lease_timeout(self, seconds: float) -> Any:
        """The length of a window's lease. Default 60."""
        return self._with("leaseMillis", round(seconds * 1000))

    def strict_watermark(self, strict: bool = True) -> Any:
        """Windows close only when something later came to every source, as on brokers of generation 0.7."""
        return self._with("strictWatermark", strict)


class StreamBuilder(StreamOptions):
    """How a stream is to be defined. Each option returns the same object."""

    async def define(self) -> Dict[str, Any]:
        """Defines the stream, or replaces its definition: `{"success", "stream_id", "name"}`."""
        told: Dict[str, Any] = await self._queen.call("stream.define", **self._parameters)
        return told


def begin_stream(client: int, options: Dict[str, Any], queue: Optional[int], tag: int) -> int:
    """A queen_consumer_t of windows that feeds an event queue."""
    text = compact(options)
    error = ctypes.c_void_p()
    handle = lib.queen_stream_consume_events(client, text, len(text), queue, tag, ctypes.byref(error))
    if not handle:
        raise take_error(error)
    return handle


def stream_options(stream: str, group: str, more: Mapping[str, Any]) -> Dict[str, Any]:
    """The options of a stream consumer."""
    return {
        "stream": stream,
        "consumerGroup": group,
        **{name: value for name, value in more.items() if value is not None},
    }


def begin_poll(client: int, stream: str, group: str, poll_timeout_millis: int) -> Optional[int]:
    """The future of one poll."""
    options = compact({"pollTimeoutMillis": poll_timeout_millis})
    return lib.queen_stream_poll(
        client, nul_terminated("stream", stream), nul_terminated("group", group), options, len(options)
    )


class _Windows(Consumer):
    """A consumer that hands windows to a handler."""

    def _begin(self) -> int:
        return begin_stream(self._queen.handle, self._options, self._port.queue, self._tag)

    def window(self, handle: int) -> None:
        """See Sink."""
        task = self._context.run(self._loop.create_task, self._handle_window(Window(handle, self._queen.loads)))
        self._tasks.add(task)
        task.add_done_callback(self._task_done)

    async def _handle_window(self, window: Window) -> None:
        try:
            answer: Any = self._handler(window)
            if inspect.isawaitable(answer):
                await answer
        except Exception as error:
            log.warning("a handler of %s has failed: %s", window.id, reason_of(error).decode(), exc_info=error)
            lib.queen_future_free(window.begin_settle(False))
            return
        lib.queen_future_free(window.begin_settle(True))  # refused where the handler has given a verdict itself


class StreamConsumer:
    """The windows of a stream for a consumer group."""

    def __init__(self, queen: Queen, stream: str, group: str) -> None:
        self._queen, self._stream, self._group = queen, stream, group
        self._running: List[_Windows] = []

    async def process(
        self,
        handler: Callable[[Window], Union[Any, Awaitable[Any]]],
        *,
        signal: Optional[asyncio.Event] = None,
        concurrency: Optional[int] = None,
        limit: Optional[int] = None,
        idle_millis: Optional[int] = None,
        poll_timeout_millis: Optional[int] = None,
        extend_millis: Optional[int] = None,
    ) -> StreamSummary:
        """Handles windows until it is stopped, or has had enough, and tells what was done.

        A window is acked when the handler returns and comes again at once when it raises. Its lease is renewed meanwhile.

        Args:
            handler: gets one window; may be a coroutine function.
            signal: ends it when it is set. Handlers that run are waited for.
            concurrency: how many windows are handled side by side, each of another key. Default 1.
            limit: ends it after that many windows, failed ones too.
            idle_millis: ends it when no window has come for that long.
            poll_timeout_millis: how long a poll waits at the broker. Default 30000.
            extend_millis: how long a renewal makes the lease last. Default 30000.

        Raises:
            QueenError: the broker refuses for good: no such stream, or no streams at all (QueenUnsupportedError).
        """
        options = stream_options(
            self._stream,
            self._group,
            {
                "concurrency": concurrency,
                "limit": limit,
                "idleMillis": idle_millis,
                "pollTimeoutMillis": poll_timeout_millis,
                "extendMillis": extend_millis,
            },
        )
        consumer = _Windows(self._queen, options, False, handler, signal)
        consumer.start()
        self._running.append(consumer)
        try:
            summary: Any = await consumer.wait()
            return summary  # type: ignore[no-any-return]
        finally:
            self._running.remove(consumer)

    def stop(self) -> None:
        """Ends `process()`: the poll that waits is broken off, handlers that run are waited for."""
        for consumer in self._running:
            consumer.ask_to_stop()

    async def poll_window(self, poll_timeout_millis: int = STOP_MILLIS) -> Optional[Window]:
        """The next window, or None when none came in that time. Give it its verdict with `ack()` and `nack()`."""

        def read(future: int, _text: Optional[bytes]) -> Optional[Window]:
            handle = lib.queen_future_take_window(future)
            return Window(handle, self._queen.loads) if handle else None

        window: Optional[Window] = await self._queen.wait(
            begin_poll(self._queen.handle, self._stream, self._group, poll_timeout_millis), read
        )
        return window

    async def ack(self, window: Window) -> None:
        """Finishes a window: the next of its key follows. Raises where that does not count."""
        await self._queen.wait(window.begin_settle(True))

    async def nack(self, window: Window) -> None:
        """Gives a window back: it comes again at once."""
        await self._queen.wait(window.begin_settle(False))

    async def seek(self, timestamp: str) -> Dict[str, Any]:
        """Moves the group to a time, ISO 8601 with a zone."""
        told: Dict[str, Any] = await self._queen.call(
            "stream.seek", stream=self._stream, consumer_group=self._group, timestamp=timestamp
        )
        return told
