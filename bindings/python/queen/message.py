"""Messages and the deliveries that they came with."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, Dict, Iterable, Iterator, Optional, Sequence, Tuple

from . import _native
from ._lib import TEXT, VIEW_FIELDS, VIEW_SIZE, lib, string_at, text_at, views_of
from .errors import make_error


@functools.lru_cache(maxsize=1024)
def camel(name: str) -> str:
    """`lease_seconds` as `leaseSeconds`, and `leaseSeconds` as it is."""
    head, *rest = name.split("_")
    return head + "".join(word[:1].upper() + word[1:] for word in rest)


# Where a field is in a view, in bytes.
_PLACE = {camel(field): TEXT.size * place for place, field in enumerate(VIEW_FIELDS) if field != "payload"}
_PAYLOAD = TEXT.size * VIEW_FIELDS.index("payload")
_field_at = TEXT.unpack_from
FIELDS = (*_PLACE, "data")


class Delivery:
    """Messages of one partition under one lease: a queen_delivery_t, freed with its last message."""

    __slots__ = ("__weakref__", "_views", "count", "handle", "settled")

    def __init__(self, handle: int) -> None:
        self.handle = handle
        self.count = lib.queen_delivery_count(handle)
        self._views: Optional[bytes] = None
        self.settled: set[int] = set()

    @property
    def views(self) -> bytes:
        """Where the fields of the messages are: a queen_message_view_t of each."""
        if self._views is None:
            self._views = views_of(self.handle, self.count)
        return self._views

    def __del__(self) -> None:
        handle, self.handle = self.handle, 0
        if handle:
            lib.queen_delivery_free(handle)

    def key(self) -> Tuple[Optional[str], Optional[str]]:
        """Lease and partition, by which verdicts by ids find it."""
        lease, partition = _PLACE["leaseId"], _PLACE["partitionId"]
        return text_at(*_field_at(self.views, lease)), text_at(*_field_at(self.views, partition))

    def index_of(self, transaction_id: str) -> Optional[int]:
        """The place of the message with that id."""
        wanted, place = transaction_id.encode(), _PLACE["transactionId"]
        for index in range(self.count):
            address, length = _field_at(self.views, index * VIEW_SIZE + place)
            if length == len(wanted) and string_at(address, length) == wanted:
                return index
        return None

    def release(self, messages: Iterable[Message]) -> None:
        """Lets go at once: messages without a verdict go back to the broker. Those that are handed in stay readable."""
        for message in messages:
            message.detach()
        handle, self.handle = self.handle, 0
        if handle:
            lib.queen_delivery_free(handle)

    def is_lost(self) -> bool:
        """Whether the lease is over for certain."""
        return not self.handle or lib.queen_delivery_is_lost(self.handle) == 1


class Message(Dict[str, Any]):
    """A message under a lease: a dict as in the classic client, and attributes.

    The fields are read when they are asked for; `data` parses the payload on first use, `raw` never. It stays readable
    as long as it is kept, settled or not.
    """

    __slots__ = ("_delivery", "_full", "_queen", "_raw", "index")

    index: int
    """The place of the message in its delivery."""

    def __init__(self, delivery: Delivery, index: int, queen: Any) -> None:
        self._delivery = delivery
        self.index = index
        self._queen = queen
        self._raw: Optional[bytes] = None  # of one that needs its delivery no more
        self._full = False

    @property
    def raw(self) -> bytes:
        """The payload, byte for byte as it was pushed."""
        if self._raw is not None:
            return self._raw
        address, length = _field_at(self._delivery.views, self.index * VIEW_SIZE + _PAYLOAD)
        return string_at(address, length)

    @property
    def data(self) -> Any:
        """The payload, parsed on first use."""
        return self["data"]

    @property
    def id(self) -> str:
        """The broker's id of the message."""
        return str(self["id"])

    @property
    def transaction_id(self) -> str:
        """The producer's id, the key of acks and of de-duplication."""
        return str(self["transactionId"])

    @property
    def queue(self) -> str:
        """The queue; empty when it was found by namespace or task and the broker does not tell."""
        return str(self["queue"])

    @property
    def partition(self) -> str:
        """The partition."""
        return str(self["partition"])

    @property
    def partition_id(self) -> str:
        """The id of the partition."""
        return str(self["partitionId"])

    @property
    def lease_id(self) -> str:
        """The lease; empty when the broker itself acked at delivery."""
        return str(self["leaseId"])

    @property
    def consumer_group(self) -> str:
        """The consumer group, "__QUEUE_MODE__" without one."""
        return str(self["consumerGroup"])

    @property
    def created_at(self) -> str:
        """When the message was stored, ISO 8601."""
        return str(self["createdAt"])

    @property
    def trace_id(self) -> Optional[str]:
        """The trace id, if there is one."""
        found: Optional[str] = self["traceId"]
        return found

    @property
    def producer_sub(self) -> Optional[str]:
        """The authenticated producer, where the broker names one."""
        found: Optional[str] = self["producerSub"]
        return found

    @property
    def lost(self) -> bool:
        """Whether the lease is over for certain: no verdict counts any more, and the message comes again."""
        return self._delivery.is_lost()

    @property
    def delivery(self) -> Delivery:
        """What the message came with."""
        return self._delivery

    def detach(self) -> None:
        """Copies everything out of the delivery."""
        if self._raw is None:
            self._copy()
            self._raw = self.raw

    def _copy(self) -> None:
        for key in _PLACE:
            if not dict.__contains__(self, key):
                self.__missing__(key)

    def _fill(self) -> Message:
        if not self._full:
            self._copy()
            if not dict.__contains__(self, "data"):
                self.__missing__("data")
            self._full = True
        return self

    def __missing__(self, key: str) -> Any:
        if key == "trace":
            return self.trace  # not kept: it would hold the message in a circle
        if self._full:  # and it was taken out since
            raise KeyError(key)
        if key == "data":
            value = self._queen.loads(self.raw)
        else:
            place = _PLACE.get(key)
            if place is None or self._raw is not None:
                raise KeyError(key)
            value = text_at(*_field_at(self._delivery.views, self.index * VIEW_SIZE + place))
        dict.__setitem__(self, key, value)
        return value

    def trace(self, config: Dict[str, Any]) -> Any:
        """Adds a trace to the message; see the client."""
        raise NotImplementedError

    def __repr__(self) -> str:
        return f"<Message {self['transactionId']} of {self['queue']}/{self['partition']}>"

    def __reduce__(self) -> Any:
        return dict, (dict(self),)

    # As a dict that has all its fields, whoever looks at it and by whatever way.
    if not TYPE_CHECKING:

        def get(self, key, default=None):
            """See dict."""
            return self[key] if key in self else default  # noqa: SIM401

        def __contains__(self, key):
            return dict.__contains__(self, key) or key == "trace" or (key in FIELDS and not self._full)

        def __iter__(self):
            return dict.__iter__(self._fill())

        def __len__(self):
            return dict.__len__(self._fill())

        def __bool__(self):
            return True

        def __eq__(self, other):
            return dict.__eq__(self._fill(), other._fill() if isinstance(other, Message) else other)

        def __ne__(self, other):
            return not self == other

        __hash__ = None

        def keys(self):
            """See dict."""
            return dict.keys(self._fill())

        def values(self):
            """See dict."""
            return dict.values(self._fill())

        def items(self):
            """See dict."""
            return dict.items(self._fill())

        def copy(self):
            """A plain dict with the same fields."""
            return dict(dict.items(self._fill()))

        __copy__ = copy

        def __or__(self, other):
            return {**self.copy(), **other}

        def __ror__(self, other):
            return {**other, **self.copy()}

        def pop(self, *arguments):
            """See dict."""
            return dict.pop(self._fill(), *arguments)

        def setdefault(self, key, default=None):
            """See dict."""
            return dict.setdefault(self._fill(), key, default)


def read_deliveries(future: int) -> Iterator[Delivery]:
    """Takes the deliveries out of the future of a pop."""
    while True:
        handle = lib.queen_future_take_delivery(future)
        if not handle:
            return
        yield Delivery(handle)


def verdict(status: Any) -> str:
    """True and False as the words for them."""
    if status is True:
        return "completed"
    if status is False:
        return "failed"
    return str(status)


def identify(message: Any) -> Dict[str, Any]:
    """The ids by which a message that is given as a dict is settled."""
    if isinstance(message, str):
        message = {"transactionId": message}
    transaction_id = message.get("transactionId") or message.get("id")
    if not transaction_id:
        raise make_error(_native.QUEEN_E_INVALID_ARGUMENT, "Message must have transactionId or id property")
    if not message.get("partitionId"):
        raise make_error(
            _native.QUEEN_E_INVALID_ARGUMENT, "Message must have partitionId property to ensure message uniqueness"
        )
    ids = {"transactionId": transaction_id, "partitionId": message["partitionId"]}
    if message.get("leaseId"):
        ids["leaseId"] = message["leaseId"]
    return ids


def lives(message: Any) -> bool:
    """Whether the message still has its delivery, which settles it whatever its ids and group are."""
    return isinstance(message, Message) and bool(message.delivery.handle)


def group_of(messages: Sequence[Any]) -> Optional[str]:
    """The consumer group that the messages themselves name."""
    for message in messages:
        if isinstance(message, dict) and message.get("consumerGroup"):
            group = message["consumerGroup"]
            return None if group == "__QUEUE_MODE__" else str(group)
    return None
