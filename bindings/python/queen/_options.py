"""The fluent description of a queue, which both kinds of client share."""

from __future__ import annotations

from typing import Any, Dict, List, Mapping, Optional, TypeVar

from . import _native
from .defaults import QUEUE_DEFAULTS
from .errors import make_error
from .message import camel

Self = TypeVar("Self", bound="QueueOptions")


def camel_keys(options: Mapping[str, Any]) -> Dict[str, Any]:
    """Options in the spelling of the library. One that is given in both counts as it is spelled there."""
    return {
        **{camel(key): value for key, value in options.items()},
        **{key: value for key, value in options.items() if camel(key) == key},
    }


class QueueOptions:
    """What is wanted of a queue. Each method changes one thing and returns the same object."""

    # One is made for most calls, so what is not asked for costs nothing.
    _partition: Optional[str] = None
    _namespace: Optional[str] = None
    _task: Optional[str] = None
    _group: Optional[str] = None
    _config: Mapping[str, Any] = {}
    _buffer: Any = None
    _timeout_millis: Optional[int] = None

    def __init__(self, name: Optional[str] = None) -> None:
        self._name = name
        self._options: Dict[str, Any] = {}

    def _set(self: Self, name: str, value: Any) -> Self:
        if value is None:
            self._options.pop(name, None)
        else:
            self._options[name] = value
        return self

    @property
    def name(self) -> Optional[str]:
        """The queue's name."""
        return self._name

    def namespace(self: Self, name: str) -> Self:
        """Sets the namespace: of a queue that is created, or of the queues to read where none is named."""
        self._namespace = name
        return self

    def task(self: Self, name: str) -> Self:
        """Sets the task, as `namespace` does the namespace."""
        self._task = name
        return self

    def partition(self: Self, name: str) -> Self:
        """Sets the partition: of pushes, which go to "Default" without, and of pops and consumers."""
        self._partition = name
        return self

    def group(self: Self, name: str) -> Self:
        """Sets the consumer group."""
        self._group = name
        return self

    def config(self: Self, options: Mapping[str, Any]) -> Self:
        """Sets options for `create()`, over QUEUE_DEFAULTS; in snake_case, or in camelCase as the broker has them."""
        self._config = dict(options)
        return self

    def buffer(self: Self, options: Optional[Mapping[str, Any]] = None) -> Self:
        """Lets the client collect pushes and send them together; see BUFFER_DEFAULTS.

        Also `max_messages`, `max_bytes` and `when_full` ("wait", "fail" or "dropOldest").
        """
        self._buffer = camel_keys(options) if options else True
        return self

    def concurrency(self: Self, count: int) -> Self:
        """Sets how many handlers run side by side, each on another partition."""
        return self._set("concurrency", max(1, count))

    def batch(self: Self, size: int) -> Self:
        """Sets how many messages come at once. A handler gets a list of them where it is more than 1."""
        return self._set("batch", max(1, size))

    def partitions(self: Self, count: int) -> Self:
        """Sets from how many partitions one poll may bring messages."""
        return self._set("partitions", max(1, count))

    def limit(self: Self, count: Optional[int]) -> Self:
        """Ends each worker after so many messages; 0 is no limit."""
        return self._set("limit", count or None)

    def limit_total(self: Self, count: Optional[int]) -> Self:
        """Ends the consumer after so many messages of all workers together; 0 is no limit."""
        return self._set("limitTotal", count or None)

    def idle_millis(self: Self, millis: Optional[int]) -> Self:
        """Ends the consumer when nothing has come for so long; 0 is never."""
        return self._set("idleMillis", millis or None)

    def auto_ack(self: Self, enabled: bool) -> Self:
        """For consumers: whether messages are acked when the handler has returned. For pops: by the broker, at once."""
        return self._set("autoAck", enabled)

    def commit_on_delivery(self: Self, enabled: bool = True) -> Self:
        """Lets the broker count messages as done when it hands them to the consumer: at most once."""
        return self._set("commitOnDelivery", enabled or None)

    def renew_lease(self: Self, enabled: bool, interval_millis: Optional[int] = None) -> Self:
        """Whether leases are renewed. When is the library's business; the interval is not needed and changes nothing."""
        return self._set("renewLease", enabled)

    def lease_seconds(self: Self, seconds: int) -> Self:
        """Sets the length of leases."""
        return self._set("leaseSeconds", seconds)

    def subscription_mode(self: Self, mode: str) -> Self:
        """Where a group that is new begins: "all" or "new"."""
        return self._set("subscriptionMode", mode)

    def subscription_from(self: Self, from_: str) -> Self:
        """Where a group that is new begins: "now" or an ISO 8601 time."""
        return self._set("subscriptionFrom", from_)

    def each(self: Self, enabled: bool = True) -> Self:
        """Hands the messages of a batch over one by one."""
        return self._set("each", enabled or None)

    def ordered(self: Self, enabled: bool) -> Self:
        """With `each`: False lets messages of a batch run side by side."""
        return self._set("ordered", enabled)

    def wait(self: Self, enabled: bool) -> Self:
        """Whether a pop or poll waits at the broker for messages. A pop does not by itself, a consumer does."""
        return self._set("wait", enabled)

    def poll_timeout_millis(self: Self, millis: int) -> Self:
        """Sets how long a pop or poll waits."""
        return self._set("pollTimeoutMillis", millis)

    def max_handling_seconds(self: Self, seconds: int) -> Self:
        """Sets after how long a message that is being handled is given up."""
        return self._set("maxHandlingSeconds", seconds)

    def timeout_millis(self: Self, millis: int) -> Self:
        """Sets the deadline of calls, instead of the client's."""
        self._timeout_millis = millis
        return self

    def _needs_name(self, operation: str) -> str:
        if not self._name:
            raise make_error(
                _native.QUEEN_E_INVALID_ARGUMENT, f"Queue name is required for {operation}: queen.queue(name)"
            )
        return self._name

    def _source(self) -> Dict[str, Any]:
        """Where pops and consumers read."""
        if not (self._name or self._namespace or self._task):
            raise make_error(
                _native.QUEEN_E_INVALID_ARGUMENT,
                "Must specify queue, namespace, or task: queen.queue(name), .namespace(name) or .task(name)",
            )
        source = {
            "queue": self._name or None,
            "namespace": self._namespace,
            "task": self._task,
            "consumerGroup": self._group,
        }
        return {key: value for key, value in source.items() if value is not None}

    def _pop_options(self) -> Dict[str, Any]:
        wanted = ("batch", "wait", "pollTimeoutMillis", "autoAck", "leaseSeconds", "renewLease", "partitions")
        options = {
            key: self._options[key] for key in (*wanted, "subscriptionMode", "subscriptionFrom") if key in self._options
        }
        options.update(self._source())
        options.pop("queue", None)
        if self._timeout_millis is not None:
            options["timeoutMillis"] = self._timeout_millis
        return options

    def _consume_options(self) -> Dict[str, Any]:
        options = {**self._options, **self._source()}
        if self._partition is not None:
            options["partition"] = self._partition
        return options

    def _takes_lists(self) -> bool:
        """Whether a handler gets a list."""
        return self._options.get("batch", 1) > 1 and not self._options.get("each")

    def _push_options(self) -> Dict[str, Any]:
        options: Dict[str, Any] = {"classicItems": True}
        if self._buffer is not None:
            options["buffer"] = self._buffer
        if self._timeout_millis is not None:
            options["timeoutMillis"] = self._timeout_millis
        return options

    def _create_parameters(self) -> Dict[str, Any]:
        parameters = {
            "queue": self._needs_name("create"),
            "namespace": self._namespace,
            "task": self._task,
            "options": {**camel_keys(QUEUE_DEFAULTS), **camel_keys(self._config)},
            "timeoutMillis": self._timeout_millis,
        }
        return {key: value for key, value in parameters.items() if value is not None}

    def _flush_options(self) -> Dict[str, Any]:
        options: Dict[str, Any] = {"queue": self._needs_name("buffer flush")}
        if self._partition is not None:
            options["partition"] = self._partition
        return options


class DLQOptions:
    """Which dead letters are wanted. Each method changes one thing and returns the same object."""

    def __init__(self, queue: str, group: Optional[str], partition: Optional[str]) -> None:
        self._parameters: Dict[str, Any] = {"queue": queue, "limit": 100, "offset": 0}
        if group:
            self._parameters["consumerGroup"] = group
        if partition:
            self._parameters["partition"] = partition

    def _set(self: DLQSelf, name: str, value: Any) -> DLQSelf:
        self._parameters[name] = value
        return self

    def limit(self: DLQSelf, count: int) -> DLQSelf:
        """Sets the most entries."""
        return self._set("limit", max(1, count))

    def offset(self: DLQSelf, count: int) -> DLQSelf:
        """Sets how many entries to skip."""
        return self._set("offset", max(0, count))

    def from_(self: DLQSelf, timestamp: str) -> DLQSelf:
        """Nothing older than this ISO 8601 time."""
        return self._set("from", timestamp)

    def to(self: DLQSelf, timestamp: str) -> DLQSelf:
        """Nothing newer than this ISO 8601 time."""
        return self._set("to", timestamp)


DLQSelf = TypeVar("DLQSelf", bound=DLQOptions)


def as_list(items: Any) -> List[Any]:
    """One thing or a list of them, as a list."""
    return list(items) if isinstance(items, (list, tuple)) else [items]
