"""Consumers of the asyncio client."""

from __future__ import annotations

import asyncio
import contextvars
import ctypes
import inspect
import json
from collections import deque
from typing import TYPE_CHECKING, Any, AsyncIterator, Callable, Deque, Dict, List, Optional, Set, cast

from . import _native
from ._base import log
from ._events import Sink, Turn, port
from ._lib import compact, lib, take_error
from .errors import QueenError, make_error
from .message import Delivery, Message
from .types import AnyHandler, ConsumeSummary

if TYPE_CHECKING:
    from .client import Queen

STOP_MILLIS = 30000


def begin_consume(client: int, options: Dict[str, Any], queue: Optional[int], tag: int) -> int:
    """A queen_consumer_t that feeds an event queue."""
    text = compact(options)
    error = ctypes.c_void_p()
    handle = lib.queen_consume_events(client, text, len(text), queue, tag, ctypes.byref(error))
    if not handle:
        raise take_error(error)
    return handle


def acks_of(options: Dict[str, Any]) -> Optional[bool]:
    """Whether a delivery that went well is acked; None where the broker has counted it as done."""
    return None if options.get("commitOnDelivery") else bool(options.get("autoAck", True))


def ended_with(code: int, text: Optional[bytes]) -> tuple[ConsumeSummary, Optional[QueenError]]:
    """The summary and the error of a consumer's last event."""
    told: Any = json.loads(text.decode()) if text else {}
    if code == _native.QUEEN_OK:
        return told, None
    if "message" in told:
        return cast(ConsumeSummary, told.get("result") or {}), make_error(code, told["message"], told)
    return told, make_error(code, "the consumer has ended with an error")


def reason_of(error: BaseException) -> bytes:
    """What is recorded with a failed message."""
    return f"{type(error).__name__}: {error}".replace("\0", "?").encode("utf-8", "replace")


class Consumer(Sink):
    """A running consumer. It ends by itself on its limit, when idle, or when the client is closed."""

    def __init__(self, queen: Queen, options: Dict[str, Any], lists: bool, handler: AnyHandler, signal: Any) -> None:
        self._handle: Optional[int] = None
        self._queen, self._options, self._lists = queen, options, lists
        self._handler, self._signal = handler, signal
        self._acks = acks_of(options)
        self.on_success: Optional[Callable[..., Any]] = None
        self.on_error: Optional[Callable[..., Any]] = None
        self._tasks: Set[asyncio.Task[None]] = set()
        self._watch: Optional[asyncio.Task[None]] = None

    def start(self) -> Consumer:
        """Begins to consume in the running loop."""
        self._loop = asyncio.get_running_loop()
        self._context = contextvars.copy_context()
        self._port = port()
        self._ended: asyncio.Future[ConsumeSummary] = self._loop.create_future()
        self._tag = self._port.add(self)
        try:
            self._handle = self._begin()
        except BaseException:
            self._port.sinks.pop(self._tag, None)
            raise
        if self._signal is not None:
            self._watch = self._loop.create_task(self._stop_on_signal())
        return self

    def _begin(self) -> int:
        return begin_consume(self._queen.handle, self._options, self._port.queue, self._tag)

    async def wait(self) -> ConsumeSummary:
        """Waits until the consumer has ended and its last handler has returned. To cancel this ends it at once.

        Raises:
            QueenError: the broker refuses for good, such as HTTP 401.
        """
        try:
            return await asyncio.shield(self._ended)
        except asyncio.CancelledError:
            await self._abort()
            raise
        finally:
            self._let_go()

    async def stop(self, timeout_millis: int = STOP_MILLIS) -> ConsumeSummary:
        """Polls no more, gives back what no handler has, and waits for handlers and verdicts.

        Raises:
            QueenTimeoutError: handlers still run at the deadline. What they have comes again.
        """
        if self._handle and not self._ended.done():
            await self._queen.wait(lib.queen_consumer_stop(self._handle, timeout_millis))
        return await self.wait()

    def ask_to_stop(self) -> None:
        """As stop(), without waiting for it."""
        if self._handle and not self._ended.done():
            lib.queen_future_free(lib.queen_consumer_stop(self._handle, STOP_MILLIS))

    @property
    def ended(self) -> bool:
        """Whether it has ended."""
        return self._ended.done()

    async def _stop_on_signal(self) -> None:
        await self._signal.wait()
        handle = self._handle
        if handle and not self._ended.done():
            await self._queen.outcome(lib.queen_consumer_stop(handle, STOP_MILLIS))

    async def _abort(self) -> None:
        """Ends it without waiting: handlers are cancelled, and what they have goes back uncharged."""
        self._port.sinks.pop(self._tag, None)
        if not self._ended.done():
            self._ended.cancel()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    def _let_go(self) -> None:
        self._port.sinks.pop(self._tag, None)
        if self._watch is not None:
            self._watch.cancel()
            self._watch = None
        handle, self._handle = self._handle, None
        if handle:
            lib.queen_consumer_free(handle)

    def __del__(self) -> None:
        handle, self._handle = self._handle, None
        if handle:
            lib.queen_consumer_free(handle)

    # What the port tells

    def delivery(self, handle: int) -> None:
        """See Sink."""
        delivery = Delivery(handle)
        # In the context of who has started the consumer, not in that of the loop's callback.
        task = self._context.run(self._loop.create_task, self._handle_all(delivery))
        self._tasks.add(task)
        task.add_done_callback(self._task_done)

    def event(self, kind: int, code: int, text: Optional[bytes]) -> None:
        """See Sink."""
        if kind != _native.QUEEN_EVENT_CONSUMER_ENDED:
            return
        self._port.sinks.pop(self._tag, None)
        summary, error = ended_with(code, text)
        if self._tasks:  # handlers that let go of their messages may still run
            waiting = asyncio.gather(*self._tasks, return_exceptions=True)
            waiting.add_done_callback(lambda _: self._finish(summary, error))
        else:
            self._finish(summary, error)

    def _finish(self, summary: ConsumeSummary, error: Optional[QueenError]) -> None:
        if self._ended.done():
            return
        if error is None:
            self._ended.set_result(summary)
        else:
            self._ended.set_exception(error)
            self._ended.exception()  # told to who waits; nobody has to

    def _task_done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None and not self._ended.done():
            self._ended.set_exception(task.exception() or RuntimeError())  # SystemExit and the like

    async def _handle_all(self, delivery: Delivery) -> None:
        """Handles a delivery, and those that follow it."""
        following: Optional[Delivery] = delivery
        turn = Turn()
        while following is not None:
            following = await self._handle_one(following)
            if following is not None and turn.is_over():
                try:
                    await asyncio.sleep(0)  # handlers that never wait are not all that is in the loop
                except BaseException:
                    following.release(())
                    raise

    async def _handle_one(self, delivery: Delivery) -> Optional[Delivery]:
        messages: List[Any] = self._queen.messages(delivery)
        try:
            if self._lists:
                await self._call(messages)
            else:
                for message in messages:  # one
                    await self._call(message)
        except Exception as error:
            log.warning("a handler of %s has failed: %s", self._options.get("queue"), error, exc_info=error)
            lib.queen_future_free(lib.queen_delivery_nack(delivery.handle, reason_of(error)))
            return None
        except BaseException:
            delivery.release(messages)
            raise
        if self._signal is not None and self._signal.is_set():
            self.ask_to_stop()  # now, and not when the loop has its turn: then there is no next one
        return self._queen.finish(delivery, messages, self._acks)

    async def _call(self, what: Any) -> None:
        try:
            answer = self._handler(what)
            if inspect.isawaitable(answer):
                answer = await answer
        except Exception as error:
            if self.on_error is not None:
                told = self.on_error(what, error)
                if inspect.isawaitable(told):
                    await told
            raise
        if self.on_success is not None:
            told = self.on_success(what, answer)
            if inspect.isawaitable(told):
                await told

    def __repr__(self) -> str:
        return (
            f"consumer of {self._options.get('queue') or self._options.get('namespace') or self._options.get('task')}"
        )


class _Inbox(Sink):
    """What an iterator has not handed out yet."""

    def __init__(self) -> None:
        self.waiting: Deque[Delivery] = deque()
        self.news = asyncio.Event()
        self.over = False
        self.error: Optional[QueenError] = None

    def delivery(self, handle: int) -> None:
        self.waiting.append(Delivery(handle))
        self.news.set()

    def event(self, kind: int, code: int, text: Optional[bytes]) -> None:
        if kind == _native.QUEEN_EVENT_CONSUMER_ENDED:
            _, self.error = ended_with(code, text)
            self.over = True
            self.news.set()


async def stream(queen: Queen, options: Dict[str, Any]) -> AsyncIterator[Message]:
    """See QueueBuilder.stream_messages."""
    inbox, at = _Inbox(), port()
    tag = at.add(inbox)
    handle: Optional[int] = None
    acks, turn = acks_of(options), Turn()
    try:
        handle = begin_consume(queen.handle, options, at.queue, tag)
        while True:
            while not inbox.waiting:
                if inbox.over:
                    if inbox.error is not None:
                        raise inbox.error
                    return
                inbox.news.clear()
                await inbox.news.wait()
            delivery = inbox.waiting.popleft()
            messages: List[Any] = queen.messages(delivery)
            try:
                for message in messages:  # one
                    yield message
            except BaseException:
                delivery.release(messages)
                raise
            following = queen.finish(delivery, messages, acks)
            if following is not None:
                inbox.waiting.appendleft(following)
                if turn.is_over():
                    await asyncio.sleep(0)
    finally:
        at.sinks.pop(tag, None)
        inbox.waiting.clear()  # what nobody has seen goes back
        if handle:
            lib.queen_consumer_free(handle)
