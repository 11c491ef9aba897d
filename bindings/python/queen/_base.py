"""What the asyncio client and the blocking one share: the native client, and how calls of it begin."""

from __future__ import annotations

import ctypes
import json
import logging
import time
import warnings
from collections import OrderedDict
from typing import Any, Callable, Dict, Iterable, List, Mapping, NamedTuple, Optional, Tuple, Type, Union

from . import _log, _native
from ._events import Notice, Sink, notices, read_json, read_now
from ._json import Default, Dumps, Encoder, Loads, loads_json
from ._lib import LARGE, blocking, check, compact, lib, nul_terminated, take_error
from ._options import camel_keys
from .errors import QueenError, make_error
from .message import Delivery, Message, group_of, identify, lives, verdict
from .types import AckResponse, BufferStats, PushResult

log = logging.getLogger("queen")

Config = Union[str, List[str], Tuple[str, ...], Mapping[str, Any], None]

KEPT_SECONDS = 3600
"""A popped delivery that nobody settles is kept so long at most. Leases do not last longer."""

BY_METHOD = {"pop": "queue(name).pop()", "stream.poll": "consumer(stream, group).poll_window()"}

PLAIN_PUSH = b'{"classicItems":true}'


class Begun(NamedTuple):
    """A call of several that belong together: its future, and which of the caller's items it has."""

    future: Optional[int]
    places: List[int]


class Outcome(NamedTuple):
    """What became of a call: one of them."""

    result: Any
    error: Optional[QueenError]


def fields_of(message: Any) -> Any:
    """The dict that a message is, empty for what is none."""
    return message if isinstance(message, dict) else {}


class BaseQueen:
    """A client of one broker or of a cluster; `queen.Queen` and `queen.sync.Queen` are the two kinds."""

    _message: Type[Message] = Message

    def __init__(
        self,
        config: Config,
        settings: Mapping[str, Any],
        default: Optional[Default],
        dumps: Optional[Dumps],
        loads: Optional[Loads],
    ) -> None:
        self._handle: Optional[int] = None
        self.encoder = Encoder(default, dumps)
        self.loads: Loads = loads or loads_json
        """How payloads are read."""
        # Popped deliveries stay leased until they are settled, even if the program keeps only their ids.
        self._kept: OrderedDict[int, Tuple[Delivery, float]] = OrderedDict()
        self._tags: Dict[str, Tuple[Any, int]] = {}
        text = json.dumps(merge(config, settings), default=str).encode()
        error = ctypes.c_void_p()
        handle = lib.queen_client_new(text, len(text), ctypes.byref(error))
        if not handle:
            raise take_error(error)
        self._handle = handle
        self._closed = False
        _log.attach(handle)

    def __del__(self) -> None:
        handle, self._handle = getattr(self, "_handle", None), None
        if not handle:
            return
        if not self._closed:
            warnings.warn(f"{self!r} was never closed", ResourceWarning, stacklevel=2, source=self)
        lib.queen_client_free(handle)

    @property
    def handle(self) -> int:
        """The queen_client_t."""
        if not self._handle:
            raise make_error(_native.QUEEN_E_CLOSED, "the client is closed; make a new one")
        return self._handle

    # Calls. Each returns a queen_future_t.

    def begin_call(self, operation: str, parameters: Mapping[str, Any]) -> Optional[int]:
        """Any operation of docs/OPERATIONS.md, its parameters in snake_case or camelCase."""
        if operation in BY_METHOD:  # what they bring has a lease, which ends with the future
            raise make_error(
                _native.QUEEN_E_INVALID_ARGUMENT, f"{operation} cannot be called by name: use {BY_METHOD[operation]}"
            )
        text = self.encoder.encode(camel_keys(parameters))
        return lib.queen_call(self.handle, nul_terminated("operation", operation), text, len(text))

    def begin_push(
        self, queue: str, partition: Optional[str], body: bytes, options: Mapping[str, Any]
    ) -> Optional[int]:
        """Pushes what the encoder has made of the items."""
        functions = lib if len(body) < LARGE else blocking
        return functions.queen_push(
            self.handle,
            nul_terminated("queue", queue),
            nul_terminated("partition", partition),
            body,
            len(body),
            PLAIN_PUSH if len(options) == 1 else compact(options),
        )

    def begin_pop(self, queue: Optional[str], partition: Optional[str], options: Mapping[str, Any]) -> Optional[int]:
        """Pops; the future has deliveries."""
        return lib.queen_pop(
            self.handle, nul_terminated("queue", queue), nul_terminated("partition", partition), compact(options)
        )

    def begin_flush(self, options: Mapping[str, Any]) -> Optional[int]:
        """Flushes what is buffered and under way."""
        return lib.queen_flush(self.handle, compact(options))

    def begin_close(self, timeout_millis: int) -> Optional[int]:
        """Closes the client."""
        return lib.queen_client_close(self.handle, timeout_millis)

    def begin_renew(self, lease_ids: List[str], seconds: Optional[int]) -> Optional[int]:
        """Renews leases, each once."""
        parameters: Dict[str, Any] = {"leaseIds": list(dict.fromkeys(lease_ids))}
        if seconds is not None:
            parameters["leaseSeconds"] = seconds
        return self.begin_call("renew.many", parameters)

    def begin_ready(self) -> Optional[int]:
        """Waits for room."""
        return lib.queen_client_ready(self.handle)

    # Messages

    def messages(self, delivery: Delivery) -> List[Any]:
        """The messages of a delivery."""
        kind = self._message
        return [kind(delivery, index, self) for index in range(delivery.count)]

    def keep(self, delivery: Delivery) -> None:
        """Holds a delivery whose verdicts are the program's business, until they are all given."""
        now = time.monotonic()
        kept = self._kept
        while kept:
            first, (oldest, since) = next(iter(kept.items()))
            if now - since < KEPT_SECONDS and not oldest.is_lost():
                break
            kept.pop(first, None)
        kept[id(delivery)] = (delivery, now)

    def finish(self, delivery: Delivery, messages: List[Any], acks: Optional[bool]) -> Optional[Delivery]:
        """What becomes of a delivery whose handler has returned: acked, kept for verdicts, or done (None).

        Returns the next one that its consumer has at hand; without one it comes through the event queue.
        """
        if acks:
            following = lib.queen_delivery_next(delivery.handle)
            return Delivery(following) if following else None
        if acks is None:
            delivery.release(messages)
        else:
            self.keep(delivery)
        return None

    def forget(self, delivery: Delivery, indexes: Iterable[int]) -> None:
        """These messages have their verdict; with the last one the delivery is not held any more."""
        if id(delivery) in self._kept:
            delivery.settled.update(indexes)
            if len(delivery.settled) >= delivery.count:
                self._kept.pop(id(delivery), None)

    def forget_ids(self, ids: Iterable[Mapping[str, Any]]) -> None:
        """As forget(), where the verdicts were given by ids."""
        if not self._kept:
            return
        by_key = {delivery.key(): delivery for delivery, _ in self._kept.values()}
        for one in ids:
            delivery = by_key.get((one.get("leaseId"), one["partitionId"]))
            index = delivery.index_of(one["transactionId"]) if delivery is not None else None
            if delivery is not None and index is not None:
                self.forget(delivery, [index])

    # Acks

    def begin_ack(self, messages: List[Any], status: Any, context: Mapping[str, Any]) -> List[Begun]:
        """Verdicts on messages that live, each through its delivery, and on ids."""
        whole = self._begin_whole(messages, status)
        if whole is not None:
            return [whole]
        by_delivery: Dict[int, Tuple[Delivery, List[Tuple[int, Message, str, Optional[str]]]]] = {}
        by_ids: List[Tuple[int, Dict[str, Any]]] = []
        for place, message in enumerate(messages):
            own = fields_of(message)
            word = verdict(own.get("_status", status))
            reason = own.get("_error") or context.get("error")
            if lives(message):
                entry = by_delivery.setdefault(id(message.delivery), (message.delivery, []))
                entry[1].append((place, message, word, reason))
            else:
                by_ids.append(
                    (place, {**identify(message), "status": word, **({"error": str(reason)} if reason else {})})
                )
        begun = [self._begin_settle(delivery, entries) for delivery, entries in by_delivery.values()]
        if by_ids:
            acks = [ids for _, ids in by_ids]
            group = context.get("group") or group_of([messages[place] for place, _ in by_ids])
            begun.append(Begun(self._begin_ack_ids(acks, group, context), [place for place, _ in by_ids]))
        return begun

    def _begin_whole(self, messages: List[Any], status: Any) -> Optional[Begun]:
        """The ack of a delivery as a whole, as it is usual: all of its messages, in their order."""
        first = messages[0]
        if status is not True or not lives(first) or len(messages) != first.delivery.count:
            return None
        delivery = first.delivery
        for index, message in enumerate(messages):
            own = isinstance(message, Message) and message.delivery is delivery and message.index == index
            if not own or dict.__contains__(message, "_status"):
                return None
        self.forget(delivery, range(delivery.count))
        return Begun(lib.queen_delivery_ack(delivery.handle), list(range(delivery.count)))

    def _begin_settle(self, delivery: Delivery, entries: List[Tuple[int, Message, str, Optional[str]]]) -> Begun:
        indexes = {entry[1].index for entry in entries}
        self.forget(delivery, indexes)
        places = [entry[0] for entry in entries]
        if len(indexes) == len(entries) == delivery.count and all(entry[2] == "completed" for entry in entries):
            by_index = {entry[1].index: entry[0] for entry in entries}
            return Begun(lib.queen_delivery_ack(delivery.handle), [by_index[index] for index in range(delivery.count)])
        return Begun(settle(delivery, [(entry[1].index, entry[2], entry[3]) for entry in entries]), places)

    def _begin_ack_ids(
        self, acks: List[Dict[str, Any]], group: Optional[str], context: Mapping[str, Any]
    ) -> Optional[int]:
        options: Dict[str, Any] = {}
        if group:
            options["consumerGroup"] = group
        if any("leaseId" not in ids for ids in acks):
            options["unfenced"] = True  # as the classic client: the caller has no lease to name
        if context.get("timeout_millis") is not None:
            options["timeoutMillis"] = context["timeout_millis"]
        text = compact(acks)
        future = lib.queen_ack(self.handle, text, len(text), compact(options))
        self.forget_ids(acks)  # after the verdicts: what is let go without one goes back
        return future

    # Statistics and notices

    def stats(self) -> Dict[str, Any]:
        """What the client has done and has under way; docs/STATISTICS.md explains each field."""
        future = lib.queen_client_stats(self.handle)
        try:
            told: Dict[str, Any] = read_now(future or 0, read_json)
            return told
        finally:
            lib.queen_future_free(future)

    def get_buffer_stats(self) -> BufferStats:
        """What waits in buffers."""
        buffers = self.stats()["buffers"]
        return {
            "activeBuffers": buffers["activeBuffers"],
            "totalBufferedMessages": buffers["totalBufferedMessages"],
            "oldestBufferAge": buffers["oldestBufferAge"],
            "flushesPerformed": buffers["flushesPerformed"],
        }

    def set_token(self, token: Optional[str]) -> None:
        """Sets the bearer token of all further requests. None says that there is none to be had."""
        check(
            lib.queen_client_set_token(self.handle, nul_terminated("token", token)), "the token must be visible ASCII"
        )

    def _route(self, what: str, function: Callable[[Any, Any, int], int], sink: Optional[Sink]) -> None:
        """Has notices handed to a sink, instead of the one before."""
        before = self._tags.pop(what, None)
        events = self._notice_events()
        tag = events.add(sink) if sink is not None else 0
        check(function(self.handle, events.queue if sink is not None else None, tag), f"no {what} can be had")
        if sink is not None:
            self._tags[what] = (events, tag)
        if before is not None:
            before[0].sinks.pop(before[1], None)

    def _notice_events(self) -> Any:
        return notices()

    def _notice(self, function: Optional[Callable[..., Any]], *extra: str) -> Optional[Sink]:
        """A sink that calls the function; `extra` names what it gets beside the JSON."""
        if function is None:
            return None
        call = function
        return Notice(lambda code, told: self._tell(call, *((told, code) if extra else (told,))))

    def _tell(self, function: Callable[..., Any], *arguments: Any) -> None:
        function(*arguments)

    def on_report(self, callback: Optional[Callable[..., Any]]) -> None:
        """Calls `callback(reports, dropped)` with what became of buffered messages. None stops it."""
        self._route("reports", lib.queen_report_events, self._notice(callback, "dropped"))

    def on_statistics(self, callback: Optional[Callable[..., Any]]) -> None:
        """Calls `callback(statistics)` every `statistics_interval_millis` of the settings. None stops it."""
        self._route("statistics", lib.queen_statistics_events, self._notice(callback))

    def on_backend_state(self, callback: Optional[Callable[..., Any]]) -> None:
        """Calls `callback(state)` when a broker becomes unhealthy or recovers. None stops it."""
        self._route("states of brokers", lib.queen_backend_events, self._notice(callback))

    def on_token_wanted(self, source: Optional[Callable[..., Any]]) -> None:
        """Asks `source(reason)` for a bearer token, when there is none or one is refused. None asks nobody.

        What it returns is the token; None says that there is none to be had.
        """
        sink = None if source is None else Notice(lambda _code, told: self._ask(source, told["reason"]))
        self._route("questions for a token", lib.queen_token_events, sink)

    def _ask(self, source: Callable[..., Any], reason: str) -> None:
        token = None
        try:
            token = source(reason)
        finally:
            self.set_token(token)

    def _drop_routes(self) -> None:
        for events, tag in self._tags.values():
            events.sinks.pop(tag, None)
        self._tags.clear()

    def __repr__(self) -> str:
        return f"<{type(self).__module__}.{type(self).__name__}{' closed' if getattr(self, '_closed', True) else ''}>"


def merge(config: Config, settings: Mapping[str, Any]) -> Dict[str, Any]:
    """URL, list or dict, and keywords, as one object. Keywords always count."""
    merged: Dict[str, Any] = {}
    if isinstance(config, str):
        merged["url"] = config
    elif isinstance(config, (list, tuple)):
        merged["urls"] = list(config)
    elif isinstance(config, Mapping):
        merged.update(camel_keys(config))
    elif config is not None:
        raise make_error(
            _native.QUEEN_E_INVALID_CONFIG,
            f"a client is made from a URL, a list of URLs or a dict, not from {type(config).__name__}: {config!r}",
        )
    own = camel_keys(settings)
    if "url" in own or "urls" in own:
        merged.pop("url", None)
        merged.pop("urls", None)
    merged.update(own)
    merged = {key: value for key, value in merged.items() if value is not None}
    if not merged.get("url") and not merged.get("urls"):
        raise make_error(_native.QUEEN_E_INVALID_CONFIG, "Must provide urls or url in configuration")
    return merged


def settle(delivery: Delivery, verdicts: Iterable[Tuple[int, str, Optional[str]]]) -> Optional[int]:
    """Verdicts on messages of a delivery: index, status, reason."""
    text = compact(
        [
            {"index": index, "status": status, **({"error": str(reason)} if reason else {})}
            for index, status, reason in verdicts
        ]
    )
    return lib.queen_delivery_settle(delivery.handle, text, len(text))


def read_pushed(_future: int, text: Optional[bytes]) -> List[PushResult]:
    """The results of a push."""
    return list(map(PushResult, loads_json(text or b"[]")))


def ack_response(messages: Any, outcomes: List[Tuple[Begun, Outcome]]) -> AckResponse:
    """What `ack()` says. It never raises for what a broker answers; `success` tells."""
    if not isinstance(messages, list):
        outcome = outcomes[0][1]
        return entry_of(outcome, 0)
    begun, outcome = outcomes[0]
    if outcome.error is None and begun.places == list(range(len(messages))):  # all of it counts
        return {"success": True, "processed": len(messages), "results": outcome.result}
    results: List[Any] = [None] * len(messages)
    for begun, outcome in outcomes:
        for position, place in enumerate(begun.places):
            results[place] = entry_of(outcome, position)
    answer: AckResponse = {
        "success": all(one["success"] for one in results),
        "processed": len(results),
        "results": results,
    }
    for one in results:
        if not one["success"]:
            answer["error"] = one.get("error")
            break
    return answer


def entry_of(outcome: Outcome, position: int) -> AckResponse:
    """What became of one message of a call."""
    entries = outcome.result if outcome.error is None else outcome.error.result
    if isinstance(entries, list) and position < len(entries):
        entry: AckResponse = entries[position]
        if not entry.get("success") and outcome.error is not None:
            entry.setdefault("code", outcome.error.name)
        return entry
    error = outcome.error
    return {"success": False, "error": str(error), "code": error.name if error is not None else "QUEEN_E_INTERNAL"}


def lease_ids(messages: Any) -> List[str]:
    """The leases that `renew()` is asked for."""
    many = messages if isinstance(messages, list) else [messages]
    found = [one if isinstance(one, str) else one.get("leaseId") for one in many]
    return [lease for lease in found if lease]


NO_LEASES = {"success": False, "error": "No valid lease IDs found for renewal"}


def renew_response(messages: Any, outcome: Outcome) -> Any:
    """What `renew()` says: one answer for each message or lease that was asked for."""
    entries = outcome.result if outcome.error is None else outcome.error.result
    by_lease: Dict[str, Dict[str, Any]] = {}
    for entry in entries or []:
        by_lease[entry["leaseId"]] = {**entry, "newExpiresAt": entry.get("expiresAt")}
    answers = [
        dict(by_lease.get(lease) or {"leaseId": lease, "success": False, "error": str(outcome.error)})
        for lease in lease_ids(messages)
    ]
    return answers if isinstance(messages, list) else answers[0]


def trace_parameters(message: Message, config: Any) -> Dict[str, Any]:
    """The parameters of `trace.add`."""
    if not isinstance(config, dict) or "data" not in config:
        raise make_error(_native.QUEEN_E_INVALID_ARGUMENT, "Invalid trace config: requires { data: {...} }")
    names = config.get("traceName")
    names = [names] if isinstance(names, str) else [name for name in names or [] if isinstance(name, str) and name]
    group = message.consumer_group
    return {
        "transactionId": message.transaction_id,
        "partitionId": message.partition_id,
        **({} if group in ("", "__QUEUE_MODE__") else {"consumerGroup": group}),
        **({"traceNames": names} if names else {}),
        "eventType": config.get("eventType") or "info",
        "data": config["data"],
    }
