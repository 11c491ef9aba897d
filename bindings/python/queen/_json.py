"""Payloads as JSON: ready JSON passes through byte for byte, everything else is written here."""

from __future__ import annotations

import dataclasses
import datetime
import json.encoder
import uuid
from typing import Any, Callable, List, Optional, Union

from . import _native
from .errors import make_error

Default = Callable[[Any], Any]
Dumps = Callable[[Any], Union[bytes, str]]
Loads = Callable[[bytes], Any]

READY = (bytes, bytearray, memoryview)


_decoder = json.JSONDecoder()
_decode_first = _decoder.raw_decode


def loads_json(raw: bytes) -> Any:
    """How JSON is read, faster than by json.loads; payloads where a client has no `loads` of its own."""
    text = raw.decode()
    try:
        value, end = _decode_first(text)
        if end == len(text):
            return value
    except ValueError:
        pass
    return _decoder.decode(text)  # one with blanks around it, or none


def known(value: Any) -> Any:
    """What the json module cannot write but has one obvious form: dataclasses, models of pydantic, UUIDs, times."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    dump = getattr(value, "model_dump", None)  # pydantic 2
    if callable(dump):
        return dump(mode="json")
    if isinstance(value, uuid.UUID):
        return str(value)
    if isinstance(value, (datetime.datetime, datetime.date, datetime.time)):
        return value.isoformat()
    raise TypeError(f"{type(value).__name__} cannot be written as JSON; give the client a function `default` for it")


def _encoder(default: Default) -> Callable[[Any], str]:
    # A circle ends in a RecursionError too, without a note of every list and dict.
    encode = json.JSONEncoder(
        ensure_ascii=False, allow_nan=False, check_circular=False, separators=(",", ":"), default=default
    ).encode
    # That makes what does the work anew for each value, which takes longer than to write a small one.
    make = getattr(json.encoder, "c_make_encoder", None)
    if make is None:
        return encode
    chunks = make(None, default, json.encoder.encode_basestring, None, ":", ",", False, False, False)
    return lambda value: "".join(chunks(value, 0))


class _Ready(TypeError):
    """There is ready JSON among the items."""


class Encoder:
    """Writes payloads, as the settings `default` and `dumps` of a client say."""

    def __init__(self, default: Optional[Default] = None, dumps: Optional[Dumps] = None) -> None:
        self._own = default
        self._dumps = dumps
        self._encode = _encoder(self._default)
        self._encode_all = _encoder(self._default_of_all)

    def _default_of_all(self, value: Any) -> Any:
        if isinstance(value, READY):
            raise _Ready
        return self._default(value)

    def _default(self, value: Any) -> Any:
        if self._own is not None:
            return self._own(value)
        return known(value)

    def encode(self, value: Any) -> bytes:
        """Any value as JSON; bytes are JSON already."""
        if isinstance(value, READY):
            return bytes(value)
        try:
            text = self._encode(value) if self._dumps is None else self._dumps(value)
            return text if isinstance(text, bytes) else text.encode("utf-8")
        except (TypeError, ValueError, RecursionError) as error:
            raise make_error(
                _native.QUEEN_E_INVALID_JSON,
                f"the payload, a {type(value).__name__}, cannot be written as JSON: {error}",
            ) from error

    def item(self, item: Any) -> bytes:
        """An item of a push. Ready JSON may also be what a dict has under `data` or `payload`."""
        if isinstance(item, dict):
            key = "data" if "data" in item else "payload"
            value = item.get(key)
            if isinstance(value, READY):
                rest = self.encode({name: other for name, other in item.items() if name != key})
                comma = b"," if len(rest) > 2 else b""
                return b"%s%s%s:%s}" % (rest[:-1], comma, b'"%s"' % key.encode(), bytes(value))
        return self.encode(item)

    def items(self, items: Any) -> bytes:
        """What a push is given as a JSON array: one item or a list of them."""
        if isinstance(items, (list, tuple)):
            if self._dumps is None:  # all at once, unless one of them is ready
                try:
                    return self._encode_all(items).encode("utf-8")
                except (TypeError, ValueError, RecursionError):
                    pass
            many: List[bytes] = [self.item(item) for item in items]
            return b"[%s]" % b",".join(many)
        return b"[%s]" % self.item(items)
