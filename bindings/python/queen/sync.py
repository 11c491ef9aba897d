"""The blocking client: for scripts, web applications and workers. It has the names of the asyncio client.

Calls let go of the GIL while they wait. A client may be used from many threads. After a fork the child makes a client of
its own; the parent's raises QueenForkedError there.
"""

from __future__ import annotations

import signal as signals
import threading
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import TYPE_CHECKING, Any, Callable, Deque, Dict, Iterator, List, Mapping, Optional, Tuple, Type, TypeVar

from . import _native
from ._base import (
    NO_LEASES,
    BaseQueen,
    Config,
    Outcome,
    ack_response,
    lease_ids,
    log,
    read_pushed,
    renew_response,
    settle,
    trace_parameters,
)
from ._events import Events, Read, Sink, read_json, wait
from ._json import Default, Dumps, Loads
from ._lib import lib
from ._options import DLQOptions, QueueOptions, as_list, camel_keys
from ._push import Callbacks, calls, item_of, partial_results
from .admin import Admin
from .consumer import STOP_MILLIS, acks_of, begin_consume, ended_with, reason_of
from .errors import QueenError
from .message import Delivery, Message, read_deliveries, verdict
from .streams import StreamOptions, Window, begin_poll, begin_stream, stream_options
from .transaction import BaseTransaction
from .types import (
    Ackable,
    AckResponse,
    AnyHandler,
    ConsumeSummary,
    DLQResponse,
    FlushSummary,
    Pushed,
    Settings,
    StatusLike,
    StreamSummary,
    TransactionResponse,
)

if TYPE_CHECKING:
    from typing_extensions import Unpack

CLOSE_MILLIS = 30000

_Self = TypeVar("_Self", bound="Queen")


class SyncMessage(Message):
    """A message of the blocking client."""

    __slots__ = ()
    _queen: Queen

    def trace(self, config: Any) -> Dict[str, Any]:
        """Adds a trace: `{"data": ..., "traceName": "name" or [names], "eventType": "info"}`.

        It never raises: `success` tells whether it went well, `error` why not.
        """
        try:
            told: Dict[str, Any] = self._queen.call("trace.add", **trace_parameters(self, config))
            return {"success": True, **told}
        except QueenError as error:
            log.warning("a trace was not added: %s", error)
            return {"success": False, "error": str(error)}

    def ack(self, status: StatusLike = True, error: Optional[str] = None) -> None:
        """Settles the message: True is done, False failed, also "retry" and "dlq". Raises where that does not count."""
        self._queen.forget(self._delivery, [self.index])
        wait(settle(self._delivery, [(self.index, verdict(status), error)]), read_json)

    def nack(self, reason: Optional[str] = None) -> None:
        """Fails the message: it is charged a retry and comes again, or goes to the dead-letter queue with the reason."""
        self.ack(False, reason)


class Queen(BaseQueen):
    """A blocking client; see queen.Queen for its arguments. `with` closes it.

    `handle_signals` closes it on SIGINT and SIGTERM, and then lets the signal do what it did before. It must be made on
    the main thread then.
    """

    _message = SyncMessage

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
        self._before: List[Tuple[int, Any]] = []
        if handle_signals:
            self._handle_signals()

    def queue(self, name: Optional[str] = None) -> QueueBuilder:
        """Describes a queue, to push to it, pop and consume from it. Without a name: queues by namespace or task."""
        return QueueBuilder(self, name)

    def stream(self, name: str, namespace: str) -> StreamBuilder:
        """Describes a stream, to define it: windows over what is pushed to some queues."""
        return StreamBuilder(self, name, namespace)

    def consumer(self, stream: str, group: str) -> StreamConsumer:
        """The windows of a stream for a consumer group."""
        return StreamConsumer(self, stream, group)

    def transaction(self) -> TransactionBuilder:
        """Begins a transaction: acks and pushes that happen together or not at all."""
        return TransactionBuilder(self)

    @property
    def admin(self) -> Admin:
        """Every operation of docs/OPERATIONS.md as a method."""
        return self._admin

    def outcome(self, handle: Optional[int]) -> Outcome:
        """Waits for a call, and tells its error as a value."""
        try:
            return Outcome(wait(handle, read_json), None)
        except QueenError as error:
            return Outcome(None, error)

    def call(self, operation: str, **parameters: Any) -> Any:
        """Runs any operation of docs/OPERATIONS.md by its name. Its parameters may be in snake_case."""
        return wait(self.begin_call(operation, parameters), read_json)

    def ack(
        self, message: Ackable, status: StatusLike = True, context: Optional[Mapping[str, Any]] = None
    ) -> AckResponse:
        """Settles a message or a list of them; see queen.Queen.ack."""
        if isinstance(message, list) and not message:
            return {"success": True, "processed": 0, "results": []}
        try:
            begun = self.begin_ack(message if isinstance(message, list) else [message], status, context or {})
        except QueenError as error:
            if isinstance(message, list):
                raise
            return {"success": False, "error": str(error), "code": error.name}
        return ack_response(message, [(one, self.outcome(one.future)) for one in begun])

    def renew(self, message_or_lease_id: Any, lease_seconds: Optional[int] = None) -> Any:
        """Makes leases last at least `lease_seconds` (60) from now; see queen.Queen.renew."""
        leases = lease_ids(message_or_lease_id)
        if not leases:
            return dict(NO_LEASES)
        return renew_response(message_or_lease_id, self.outcome(self.begin_renew(leases, lease_seconds)))

    def flush_all_buffers(self, timeout_millis: Optional[int] = None) -> FlushSummary:
        """Sends what is buffered, and waits until everything that was pushed before is settled."""
        options = {} if timeout_millis is None else {"timeoutMillis": timeout_millis}
        summary: FlushSummary = wait(self.begin_flush(options), read_json)
        return summary

    def ready(self) -> None:
        """Waits until there is room for further calls, after one has raised QueenWouldBlockError."""
        wait(self.begin_ready(), read_json)

    def delete_consumer_group(self, consumer_group: str, delete_metadata: bool = True) -> Dict[str, Any]:
        """Forgets where a group stands, and where its subscription began unless `delete_metadata` is False."""
        told: Dict[str, Any] = self.call("group.delete", consumer_group=consumer_group, delete_metadata=delete_metadata)
        return told

    def update_consumer_group_timestamp(self, consumer_group: str, timestamp: str) -> Dict[str, Any]:
        """Moves the begin of a group's subscription to an ISO 8601 time."""
        told: Dict[str, Any] = self.call("group.subscribe", consumer_group=consumer_group, timestamp=timestamp)
        return told

    def close(self, timeout_millis: int = CLOSE_MILLIS) -> None:
        """Closes the client; see queen.Queen.close."""
        if self._closed:
            return
        try:
            wait(self.begin_close(timeout_millis), read_json)
        except QueenError as error:
            if error.name != "QUEEN_E_TIMEOUT":
                self._end()
            raise
        self._end()

    def _end(self) -> None:
        self._closed = True
        self._kept.clear()
        for events in {events for events, _ in self._tags.values()}:  # the last reports are told before this returns
            events.settle(lib.queen_client_stats(self.handle))
        self._drop_routes()
        self._restore_signals()

    def __enter__(self: _Self) -> _Self:
        return self

    def __exit__(
        self, kind: Optional[Type[BaseException]], error: Optional[BaseException], trace: Optional[TracebackType]
    ) -> None:
        self.close()

    def _handle_signals(self) -> None:
        def on_signal(number: int, _frame: Any) -> None:
            self._restore_signals()  # a second one does at once what it did before
            try:
                self.close()
            finally:
                signals.raise_signal(number)

        for number in (signals.SIGINT, signals.SIGTERM):
            self._before.append((number, signals.getsignal(number)))
            signals.signal(number, on_signal)

    def _restore_signals(self) -> None:
        before, self._before = self._before, []
        for number, handler in before:
            signals.signal(number, handler)


class TransactionBuilder(BaseTransaction):
    """A transaction of the blocking client."""

    def commit(self, timeout_millis: Optional[int] = None) -> TransactionResponse:
        """Sends it all in one request, once; see queen.transaction.TransactionBuilder.commit."""
        return self._committed(wait(self._begin_commit(timeout_millis), read_json))


class DLQBuilder(DLQOptions):
    """A query of dead letters: `.get()`."""

    def __init__(self, queen: Queen, queue: str, group: Optional[str], partition: Optional[str]) -> None:
        super().__init__(queue, group, partition)
        self._queen = queen

    def get(self) -> DLQResponse:
        """The dead letters, as `{"messages": [...], "total": n}`."""
        page: DLQResponse = self._queen.call("dlq.list", **self._parameters)
        return page


class QueueBuilder(QueueOptions):
    """A queue, to push to it, pop and consume from it. Each option returns the same object."""

    def __init__(self, queen: Queen, name: Optional[str]) -> None:
        super().__init__(name)
        self._queen = queen

    def create(self) -> Dict[str, Any]:
        """Creates the queue with the options of `config()`, or changes it to them."""
        told: Dict[str, Any] = self._queen.call("queue.create", **self._create_parameters())
        return told

    def delete(self) -> Dict[str, Any]:
        """Deletes the queue and all its messages."""
        told: Dict[str, Any] = self._queen.call("queue.delete", queue=self._needs_name("delete operation"))
        return told

    def push(
        self,
        items: Any,
        *,
        on_success: Optional[Callable[..., Any]] = None,
        on_error: Optional[Callable[..., Any]] = None,
        on_duplicate: Optional[Callable[..., Any]] = None,
    ) -> Pushed:
        """Pushes one message, or a list of them, together and in order; see queen.queue.QueueBuilder.push.

        The callbacks are those of the asyncio client's PushBuilder.
        """
        queen, queue = self._queen, self._needs_name("push operation")
        callbacks = Callbacks()
        callbacks.success, callbacks.error, callbacks.duplicate = on_success, on_error, on_duplicate
        options = self._push_options()
        try:
            body = queen.encoder.items(items)
            results = wait(queen.begin_push(queue, self._partition, body, options), read_pushed)
        except QueenError as error:
            results = partial_results(error)
            if results is not None:
                for function, arguments in calls(callbacks, queue, self._partition, items, results):
                    function(*arguments)
            if on_error is None:
                raise
            if results is None:
                on_error([item_of(queue, self._partition, item) for item in as_list(items)], error)
            return results
        if "buffer" in options:
            if on_success is not None:
                on_success([item_of(queue, self._partition, item) for item in as_list(items)])
            return {"buffered": True, "count": len(results)}
        if callbacks:
            for function, arguments in calls(callbacks, queue, self._partition, items, results):
                function(*arguments)
        return list(results)

    def pop(self) -> List[SyncMessage]:
        """Pops up to `batch` messages under a lease. An empty list says that there is nothing; failures are raised.

        They stay leased until they are settled by `queen.ack()` or `message.ack()`, or the lease is over.
        """
        queen = self._queen
        read: Read = lambda future, _text: list(read_deliveries(future))  # noqa: E731
        messages: List[SyncMessage] = []
        for delivery in wait(queen.begin_pop(self._name, self._partition, self._pop_options()), read):
            messages += queen.messages(delivery)
            if not self._options.get("autoAck"):
                queen.keep(delivery)
        return messages

    def consume(
        self,
        handler: AnyHandler,
        *,
        signal: Optional[threading.Event] = None,
        on_success: Optional[Callable[..., Any]] = None,
        on_error: Optional[Callable[..., Any]] = None,
    ) -> ConsumeSummary:
        """Handles messages until a limit or the signal ends it, and tells what was done.

        Handlers run on this thread, with `concurrency` on so many threads. An exception that is none, such as Ctrl-C, ends
        the consumer; what was under way goes back.

        Args:
            handler: gets one message, or a list of them where `batch` is more than 1 and `each` is not set. A message is
                acked when it returns and failed when it raises.
            signal: ends the consumer when it is set. Handlers that run are waited for.
            on_success: called as `on_success(message, result)` when the handler has returned.
            on_error: called as `on_error(message, error)` when it has raised, before the message is failed.
        """
        consumer = _Consumer(self._queen, self._consume_options(), signal)
        try:
            return consumer.run(_Handling(self._queen, handler, self._takes_lists(), on_success, on_error))
        finally:
            consumer.let_go()

    def messages(self, *, signal: Optional[threading.Event] = None) -> Iterator[SyncMessage]:
        """Messages one at a time, for a loop.

        A message is acked when the next one is asked for, unless it has a verdict. One on which the loop is left is not:
        it comes again, so ack it before a `break` if it is done.
        """
        options = self._consume_options()
        if options.get("batch", 1) > 1:
            options["each"] = True
        consumer = _Consumer(self._queen, options, signal)
        try:
            yield from consumer.iterate()
        finally:
            consumer.let_go()

    def flush_buffer(self) -> None:
        """Sends what is buffered for this queue, and waits for it."""
        wait(self._queen.begin_flush(self._flush_options()), read_json)

    def dlq(self, consumer_group: Optional[str] = None) -> DLQBuilder:
        """Asks for dead letters."""
        return DLQBuilder(self._queen, self._needs_name("DLQ operations"), consumer_group, self._partition)


Finish = Callable[[Delivery, List[Any]], Optional[Delivery]]
"""What happens to a delivery that was handled well. Returns the next one, if it is at hand."""


class _Handling:
    """A handler with its callbacks."""

    def __init__(self, queen: Queen, handler: AnyHandler, lists: bool, on_success: Any, on_error: Any) -> None:
        self._queen, self._handler, self._lists = queen, handler, lists
        self._on_success, self._on_error = on_success, on_error

    def __call__(self, delivery: Delivery, finish: Finish) -> Optional[Delivery]:
        messages = self._queen.messages(delivery)
        try:
            for what in [messages] if self._lists else messages:
                self._call(what)
        except Exception as error:
            log.warning("a handler has failed: %s", error, exc_info=error)
            lib.queen_future_free(lib.queen_delivery_nack(delivery.handle, reason_of(error)))
            return None
        except BaseException:
            delivery.release(messages)
            raise
        return finish(delivery, messages)

    def _call(self, what: Any) -> None:
        try:
            answer = self._handler(what)
        except Exception as error:
            if self._on_error is not None:
                self._on_error(what, error)
            raise
        if self._on_success is not None:
            self._on_success(what, answer)


class _Consumer(Sink):
    """A consumer that is polled by the thread that runs it."""

    def __init__(self, queen: Queen, options: Dict[str, Any], signal: Optional[threading.Event]) -> None:
        self._queen, self._signal = queen, signal
        self._acks = acks_of(options)
        self._threads = int(options.get("concurrency", 1))
        self._waiting: Deque[Any] = deque()
        self._summary: Optional[ConsumeSummary] = None
        self._error: Optional[QueenError] = None
        self._stopping: Optional[int] = None
        self._events = Events()
        tag = self._events.add(self)
        self._handle: Optional[int] = self._begin(queen.handle, options, self._events.queue, tag)

    def _begin(self, client: int, options: Dict[str, Any], queue: Optional[int], tag: int) -> int:
        return begin_consume(client, options, queue, tag)

    def delivery(self, handle: int) -> None:
        """See Sink."""
        self._waiting.append(Delivery(handle))

    def event(self, kind: int, code: int, text: Optional[bytes]) -> None:
        """See Sink."""
        if kind == _native.QUEEN_EVENT_CONSUMER_ENDED:
            self._summary, self._error = ended_with(code, text)

    def window(self, handle: int) -> None:
        """See Sink."""
        self._waiting.append(Window(handle, self._queen.loads))

    def _stop_if_asked(self) -> None:
        if self._signal is not None and self._signal.is_set() and self._stopping is None:
            self._stopping = lib.queen_consumer_stop(self._handle, STOP_MILLIS)

    def _next(self) -> Any:
        """Waits for a delivery or a window; None at the end."""
        from ._events import SLICE_MILLIS, slice_millis

        at_a_time = slice_millis() if self._signal is None else SLICE_MILLIS
        while not self._waiting:
            self._stop_if_asked()
            if self._error is not None:
                raise self._error
            if self._summary is not None:
                return None
            self._events.drain(at_a_time)
        return self._waiting.popleft()

    def _finish(self, delivery: Delivery, messages: List[Any]) -> Optional[Delivery]:
        self._stop_if_asked()  # then there is no next one
        return self._queen.finish(delivery, messages, self._acks)

    def run(self, handling: Callable[[Any, Finish], Any]) -> ConsumeSummary:
        """Handles everything."""
        if self._threads == 1:
            while True:
                delivery = self._next()
                if delivery is None:
                    return self._summary or {}
                while delivery is not None:
                    delivery = handling(delivery, self._finish)
        failures: List[BaseException] = []

        def handle(delivery: Any) -> None:
            try:
                following = delivery
                while following is not None and not failures:
                    following = handling(following, self._finish)
            except BaseException as error:  # SystemExit and the like end the consumer, not the thread alone
                failures.append(error)
                lib.queen_event_queue_wakeup(self._events.queue)

        with ThreadPoolExecutor(self._threads, thread_name_prefix="queen-handler") as pool:
            while not failures:
                delivery = self._next()
                if delivery is None:
                    return self._summary or {}
                pool.submit(handle, delivery)
        raise failures[0]

    def iterate(self) -> Iterator[SyncMessage]:
        """Hands the messages out."""
        following: Optional[Delivery] = None
        while True:
            delivery = following or self._next()
            if delivery is None:
                return
            messages = self._queen.messages(delivery)
            try:
                yield from messages  # one
            except BaseException:
                delivery.release(messages)
                raise
            following = self._finish(delivery, messages)

    def let_go(self) -> None:
        """Ends it; what nobody has seen goes back."""
        self._waiting.clear()
        lib.queen_future_free(self._stopping)
        handle, self._handle = self._handle, None
        lib.queen_consumer_free(handle)


class StreamBuilder(StreamOptions):
    """How a stream is to be defined. Each option returns the same object."""

    def define(self) -> Dict[str, Any]:
        """Defines the stream, or replaces its definition: `{"success", "stream_id", "name"}`."""
        told: Dict[str, Any] = self._queen.call("stream.define", **self._parameters)
        return told


class _Windows(_Consumer):
    """A consumer of windows."""

    def _begin(self, client: int, options: Dict[str, Any], queue: Optional[int], tag: int) -> int:
        return begin_stream(client, options, queue, tag)


class StreamConsumer:
    """The windows of a stream for a consumer group; see queen.StreamConsumer."""

    def __init__(self, queen: Queen, stream: str, group: str) -> None:
        self._queen, self._stream, self._group = queen, stream, group

    def process(
        self, handler: Callable[[Window], Any], *, signal: Optional[threading.Event] = None, **options: Optional[int]
    ) -> StreamSummary:
        """Handles windows until the signal ends it or it has had enough, and tells what was done.

        A window is acked when the handler returns and comes again at once when it raises. Handlers run on this thread, with
        `concurrency` on so many threads. `options`: `concurrency`, `limit`, `idle_millis`, `poll_timeout_millis`,
        `extend_millis`, as for queen.StreamConsumer.process.
        """

        def handle(window: Window, _finish: Finish) -> None:
            try:
                handler(window)
            except Exception as error:
                log.warning("a handler of %s has failed: %s", window.id, error, exc_info=error)
                lib.queen_future_free(window.begin_settle(False))
                return
            lib.queen_future_free(window.begin_settle(True))

        consumer = _Windows(self._queen, stream_options(self._stream, self._group, camel_keys(options)), signal)
        try:
            summary: Any = consumer.run(handle)
            return summary  # type: ignore[no-any-return]
        finally:
            consumer.let_go()

    def poll_window(self, poll_timeout_millis: int = STOP_MILLIS) -> Optional[Window]:
        """The next window, or None when none came in that time. Give it its verdict with `ack()` and `nack()`."""

        def read(future: int, _text: Optional[bytes]) -> Optional[Window]:
            handle = lib.queen_future_take_window(future)
            return Window(handle, self._queen.loads) if handle else None

        window: Optional[Window] = wait(
            begin_poll(self._queen.handle, self._stream, self._group, poll_timeout_millis), read
        )
        return window

    def ack(self, window: Window) -> None:
        """Finishes a window: the next of its key follows. Raises where that does not count."""
        wait(window.begin_settle(True), read_json)

    def nack(self, window: Window) -> None:
        """Gives a window back: it comes again at once."""
        wait(window.begin_settle(False), read_json)

    def seek(self, timestamp: str) -> Dict[str, Any]:
        """Moves the group to a time, ISO 8601 with a zone."""
        told: Dict[str, Any] = self._queen.call(
            "stream.seek", stream=self._stream, consumer_group=self._group, timestamp=timestamp
        )
        return told
