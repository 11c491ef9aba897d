"""Event queues of the library: one for each asyncio loop, one for each blocking consumer, one for logs and notices."""

from __future__ import annotations

import asyncio
import atexit
import ctypes
import itertools
import os
import threading
import time
import weakref
from typing import Any, Callable, Dict, List, Optional

from . import _native
from ._json import loads_json
from ._lib import EVENT, blocking, check, lib, read_error, string_at
from .errors import QueenError

AT_ONCE = 64
"""At most so many events are handled in one go, so that nothing else in the loop waits for long."""

Read = Callable[[int, Optional[bytes]], Any]
"""Makes the result from a completed queen_future_t and its JSON."""


def read_json(_future: int, text: Optional[bytes]) -> Any:
    """The result as it is."""
    return loads_json(text) if text else None


class Sink:
    """Takes the events of one tag that are not completions. It must not block."""

    def delivery(self, handle: int) -> None:
        """A queen_delivery_t, which is the sink's now."""
        lib.queen_delivery_free(handle)

    def window(self, handle: int) -> None:
        """A queen_window_t, which is the sink's now."""
        lib.queen_window_free(handle)

    def event(self, kind: int, code: int, text: Optional[bytes]) -> None:
        """Any other event."""


class Notice(Sink):
    """Hands the JSON of an event to a function."""

    def __init__(self, function: Callable[[int, Any], None]) -> None:
        self._function = function

    def event(self, kind: int, code: int, text: Optional[bytes]) -> None:
        """See Sink."""
        self._function(code, loads_json(text) if text else None)


class Events:
    """An event queue, and who waits for what in it."""

    def __init__(self) -> None:
        self.queue = lib.queen_event_queue_new()
        self.waiters: Dict[int, Waiter | _Mark] = {}
        self.sinks: Dict[int, Sink] = {}
        self.next_tag = itertools.count(1).__next__
        self._buffer = bytearray(EVENT.size * AT_ONCE)
        self._pin = (ctypes.c_char * len(self._buffer)).from_buffer(self._buffer)
        self._address = ctypes.addressof(self._pin)
        self._memory = memoryview(self._buffer)

    def __del__(self) -> None:
        queue, self.queue = getattr(self, "queue", None), None
        if queue:
            lib.queen_event_queue_free(queue)

    def add(self, sink: Sink) -> int:
        """A tag whose events go to the sink."""
        tag = self.next_tag()
        self.sinks[tag] = sink
        return tag

    def drain(self, timeout_millis: int = 0) -> int:
        """Handles what waits, at most AT_ONCE events, and tells how many there were."""
        functions = blocking if timeout_millis else lib
        at, size = self._address, EVENT.size
        count = functions.queen_event_queue_poll(self.queue, at, size, AT_ONCE, timeout_millis)
        if count <= 0:
            return count
        try:
            for kind, code, tag, text, length, thing, _ in EVENT.iter_unpack(self._memory[: count * size]):
                try:
                    if kind == _native.QUEEN_EVENT_FUTURE:
                        self.waiters.pop(tag).complete(code, string_at(text, length) if text else None, thing)
                    elif kind == _native.QUEEN_EVENT_DELIVERY:
                        sink = self.sinks.get(tag)
                        if sink is not None:  # else it goes back with its event
                            sink.delivery(lib.queen_event_take_delivery(at) or 0)
                    elif kind == _native.QUEEN_EVENT_WINDOW:
                        sink = self.sinks.get(tag)
                        if sink is not None:
                            sink.window(lib.queen_event_take_window(at) or 0)
                    else:
                        sink = self.sinks.get(tag)
                        if sink is not None:
                            sink.event(kind, code, string_at(text, length) if text else None)
                except Exception as error:
                    self.failed(error)
                at += size
        finally:
            lib.queen_events_free(self._address, count)
        return count

    def failed(self, error: Exception) -> None:
        """One of those who take events has failed; the others are not to suffer."""
        raise error


class Waiter:
    """An asyncio future that a queen_future_t completes."""

    __slots__ = ("future", "handle", "read")

    def __init__(self, future: asyncio.Future[Any], handle: int, read: Read) -> None:
        self.future, self.handle, self.read = future, handle, read

    def complete(self, code: int, text: Optional[bytes], lent: int) -> None:
        """The operation has ended. A result that nobody waits for any more is given back with the handle."""
        future = self.future
        if not future.done():
            try:
                if code == _native.QUEEN_OK:
                    future.set_result(self.read(lent, text))
                else:
                    future.set_exception(read_error(lib.queen_future_error(lent)))
            except Exception as error:
                future.set_exception(error)
        handle, self.handle = self.handle, 0
        lib.queen_future_free(handle)


TURN_SECONDS = 0.001
"""So long one thing follows another without waiting before the rest of the loop has its turn."""


class Turn:
    """A turn of the loop in which one thing follows another."""

    def __init__(self) -> None:
        self._until = time.monotonic() + TURN_SECONDS

    def is_over(self) -> bool:
        """Whether it is; then the next one begins."""
        now = time.monotonic()
        if now < self._until:
            return False
        self._until = now + TURN_SECONDS
        return True


class Port(Events):
    """The event queue of an asyncio loop: its descriptor is watched by the loop, and no thread waits for anything."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__()
        # The loop keeps the port, by its watcher. A port that kept the loop would keep both for ever.
        self.loop = weakref.ref(loop)
        self._turn = Turn()
        descriptor = lib.queen_event_queue_fd(self.queue)
        check(descriptor, "the event queue has no descriptor")
        loop.add_reader(descriptor, self.drain)

    def __del__(self) -> None:
        for waiter in self.waiters.values():  # the loop was closed while they waited
            lib.queen_future_free(waiter.handle)
        super().__del__()

    def failed(self, error: Exception) -> None:
        """See Events."""
        loop = self.loop()
        if loop is not None:
            loop.call_exception_handler({"message": "an event of libqueen was not handled", "exception": error})

    async def take(self, handle: Optional[int], read: Read) -> Any:
        """As wait(), for a queen_future_t that most likely has completed already: then without the event queue."""
        if not handle or lib.queen_future_wait(handle, 0) != _native.QUEEN_OK:
            return await self.wait(handle, read)
        try:
            return read_now(handle, read)
        finally:
            lib.queen_future_free(handle)
            if self._turn.is_over():
                await asyncio.sleep(0)

    async def wait(self, handle: Optional[int], read: Read) -> Any:
        """Waits for a queen_future_t, which is consumed. To cancel the task cancels the operation."""
        if not handle:
            raise QueenError("the library has made no future")
        waiter = Waiter(asyncio.get_running_loop().create_future(), handle, read)
        tag = self.next_tag()
        self.waiters[tag] = waiter
        code = lib.queen_future_deliver(handle, self.queue, tag)
        if code != _native.QUEEN_OK:
            del self.waiters[tag]
            lib.queen_future_free(handle)
            check(code, "the completion cannot be delivered")
        try:
            return await waiter.future
        except asyncio.CancelledError:
            if waiter.handle:
                lib.queen_future_cancel(waiter.handle)
            raise


class _Last(threading.local):
    """The port that this thread has asked for last."""

    def __init__(self) -> None:
        self.port: Callable[[], Optional[Port]] = lambda: None


_last = _Last()
_ports: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, Port] = weakref.WeakKeyDictionary()
_ports_lock = threading.Lock()


def port() -> Port:
    """The port of the running loop."""
    loop = asyncio.get_running_loop()
    last: Optional[Port] = _last.port()  # a look into the dictionary takes much longer
    if last is not None and last.loop() is loop:
        return last
    found = _ports.get(loop)
    if found is None:
        with _ports_lock:  # several loops may begin at once, each in its thread
            found = _ports[loop] = Port(loop)
    _last.port = weakref.ref(found)
    return found


SETTLE_SECONDS = 5
"""A close waits so long for what its client is still to be told."""

SLICE_MILLIS = 50
"""The main thread waits in slices of this length, because Python handles signals, such as Ctrl-C, in between."""


def slice_millis() -> int:
    """How long this thread may wait at a time."""
    return SLICE_MILLIS if threading.current_thread() is threading.main_thread() else 3_600_000


def wait(handle: Optional[int], read: Read) -> Any:
    """Waits for a queen_future_t on this thread, without the GIL. An exception, such as Ctrl-C, cancels the operation."""
    if not handle:
        raise QueenError("the library has made no future")
    try:
        at_a_time = slice_millis()
        while True:
            code = blocking.queen_future_wait(handle, at_a_time)
            if code == _native.QUEEN_OK:
                break
            if code != _native.QUEEN_E_TIMEOUT:
                check(code, "the operation cannot be waited for")
        return read_now(handle, read)
    except BaseException:
        lib.queen_future_cancel(handle)  # without effect on one that has ended
        raise
    finally:
        lib.queen_future_free(handle)


def read_now(handle: int, read: Read) -> Any:
    """The result of a completed future, which stays who owns it."""
    error = lib.queen_future_error(handle)
    if error:
        raise read_error(error)
    return read(handle, lib.queen_future_json(handle, None))


class _Mark:
    """A place in an event queue."""

    def __init__(self, handle: int) -> None:
        self.handle, self.passed = handle, threading.Event()

    def complete(self, _code: int, _text: Optional[bytes], _lent: int) -> None:
        """The thread has come to it."""
        lib.queen_future_free(self.handle)
        self.passed.set()


class Thread(Events):
    """An event queue with a thread of Python's that waits for it."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self._ended = False
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._ended:
            self.drain(3_600_000)

    def failed(self, error: Exception) -> None:
        """See Events."""
        threading.excepthook(threading.ExceptHookArgs((type(error), error, error.__traceback__, self._thread)))

    def settle(self, future: Optional[int]) -> None:
        """Waits until the thread has handled what came before this future, which is consumed. Not on the thread itself."""
        if not future or threading.current_thread() is self._thread:
            lib.queen_future_free(future)
            return
        mark, tag = _Mark(future), self.next_tag()
        self.waiters[tag] = mark
        if lib.queen_future_deliver(future, self.queue, tag) == _native.QUEEN_OK:
            mark.passed.wait(SETTLE_SECONDS)  # a handler that takes longer is left alone
        else:
            self.waiters.pop(tag).complete(0, None, 0)

    def end(self) -> None:
        """Ends the thread."""
        self._ended = True
        lib.queen_event_queue_wakeup(self.queue)
        self._thread.join(5)


_notices: List[Thread] = []
_notices_lock = threading.Lock()


def notices() -> Thread:
    """The thread that takes log records, and what blocking clients are told. It starts when it is first needed."""
    with _notices_lock:
        if not _notices:
            _notices.append(Thread("queen-notices"))
        return _notices[0]


def _end_notices() -> None:
    with _notices_lock:
        for thread in _notices:
            thread.end()
        _notices.clear()


def _in_child() -> None:
    """After a fork: the loops and the thread are the parent's. What they hold is left alone."""
    global _notices_lock, _ports_lock
    _notices_lock, _ports_lock = threading.Lock(), threading.Lock()
    _notices.clear()
    _ports.clear()
    _last.port = lambda: None


atexit.register(_end_notices)
os.register_at_fork(after_in_child=_in_child)
