"""The loaded library, and the few ways in which this package reads what it lends."""

from __future__ import annotations

import ctypes
import json
import struct
import threading
from pathlib import Path
from typing import Any, Optional, Tuple

from . import _native
from .errors import QueenError, make_error

PATH = Path(__file__).with_name("libqueen.so")

# One library, called in two ways. What does not block keeps the GIL: to let go of it would cost more than the call.
# What blocks, and what reads a large text, lets other threads run meanwhile.
_shared = ctypes.PyDLL(str(PATH))
lib = _native.Functions(_shared)
blocking = _native.Functions(ctypes.CDLL(str(PATH)))

VERSION: str = _native.QUEEN_VERSION_STRING
if lib.queen_version_number() >> 16 != _native.QUEEN_VERSION_NUMBER >> 16 or (
    lib.queen_version_number() < _native.QUEEN_VERSION_NUMBER
):
    raise ImportError(
        f"{PATH} is version {(lib.queen_version_string() or b'?').decode()}, and this package was built for {VERSION}; "
        "install it anew"
    )

LARGE = 1 << 16
"""A text so long, in bytes, is handed over without the GIL."""

# The structs are read as tuples of numbers, which is several times faster than by their fields.
_CODES = {ctypes.c_int32: "i", ctypes.c_uint64: "Q", ctypes.c_size_t: "N", ctypes.c_void_p: "N"}


def _format(kind: Any) -> struct.Struct:
    made = struct.Struct("@" + "".join(_CODES[field[1]] for field in kind._fields_))
    if made.size != ctypes.sizeof(kind):
        raise ImportError(f"the layout of {kind.__name__} is not understood on this machine")
    return made


EVENT = _format(_native.queen_event_t)
VIEW_SIZE = _format(_native.queen_message_view_t).size
VIEW_FIELDS: Tuple[str, ...] = tuple(field[0] for field in _native.queen_message_view_t._fields_[::2])
TEXT = struct.Struct("@NN")  # a field of a view: address and length

string_at = ctypes.string_at


def text_at(address: int, length: int) -> Optional[str]:
    """A field of a struct; None where it has no value."""
    return string_at(address, length).decode() if address else None


def nul_terminated(what: str, text: Optional[str]) -> Optional[bytes]:
    """A name as C reads it. One with a NUL inside would be cut short, so it is refused."""
    if text is None:
        return None
    if not isinstance(text, str):
        raise TypeError(f"{what} must be a string, not {type(text).__name__}: {text!r}")
    if "\0" in text:
        raise make_error(_native.QUEEN_E_INVALID_ARGUMENT, f"{what} has a NUL character: {text!r}")
    return text.encode("utf-8", "surrogatepass")


_compact = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode


def compact(value: Any) -> bytes:
    """Options and parameters as JSON."""
    return _compact(value).encode("utf-8", "surrogatepass")


def read_error(error: Optional[int]) -> QueenError:
    """The exception for a queen_error_t, which stays who owns it."""
    text = lib.queen_error_json(error, None)
    if not text:
        return make_error(_native.QUEEN_E_INTERNAL, "a call failed without an error")
    return make_error(**_error_fields(json.loads(text)))


def _error_fields(told: Any) -> Any:
    return {"code": told["code"], "message": told["message"], "details": told}


def take_error(slot: ctypes.c_void_p) -> QueenError:
    """The exception for an error that a failing call has left in the slot."""
    try:
        return read_error(slot.value)
    finally:
        lib.queen_error_free(slot.value)


def check(code: int, what: str) -> None:
    """Raises what a function says that returns a code alone."""
    if code < 0:
        name = (lib.queen_error_code_name(code) or b"?").decode()
        raise make_error(code, f"{what}: {name}")


class _One(threading.local):
    """Room for one view, of each thread."""

    def __init__(self) -> None:
        self.room = bytearray(VIEW_SIZE)
        self.pin = (ctypes.c_char * VIEW_SIZE).from_buffer(self.room)
        self.address = ctypes.addressof(self.pin)


_one = _One()


def views_of(delivery: int, count: int) -> bytes:
    """The queen_message_view_t of each message."""
    if count == 1:  # as usual, and without making an array
        one = _one
        if lib.queen_delivery_view(delivery, one.address, VIEW_SIZE, 0, 1) == 1:
            return bytes(one.room)
    array = (_native.queen_message_view_t * count)()
    filled = lib.queen_delivery_view(delivery, array, VIEW_SIZE, 0, count)
    if filled != count:
        raise make_error(_native.QUEEN_E_INTERNAL, f"a delivery has {count} messages and shows {filled}")
    return bytes(array)
