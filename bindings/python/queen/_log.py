"""The log of clients goes to the logger "queen" of the standard library."""

from __future__ import annotations

import json
import logging
import os
import sys
from typing import Any, Optional

from . import _native
from ._events import Sink, notices
from ._lib import check, lib

logger = logging.getLogger("queen")
logger.addHandler(logging.NullHandler())  # silent until the program says otherwise

_LEVELS = {
    _native.QUEEN_LOG_ERROR: logging.ERROR,
    _native.QUEEN_LOG_WARN: logging.WARNING,
    _native.QUEEN_LOG_INFO: logging.INFO,
    _native.QUEEN_LOG_DEBUG: logging.DEBUG,
}
_WORDS = {
    "true": logging.INFO,
    "info": logging.INFO,
    "debug": logging.DEBUG,
    "warn": logging.WARNING,
    "error": logging.ERROR,
}


class _Records(Sink):
    def event(self, kind: int, code: int, text: Optional[bytes]) -> None:
        level = _LEVELS.get(code, logging.INFO)
        if not logger.isEnabledFor(level):
            return
        told = json.loads((text or b"{}").decode())
        where = f"{told.pop('component', '?')}.{told.pop('operation', '?')}"
        made_at = told.pop("time", "")
        told.pop("level", None)
        logger.log(
            level,
            "[%s] %s",
            where,
            json.dumps(told),
            extra={"queen": told, "queen_time": made_at, "queen_operation": where},
        )


class _Classic(logging.Formatter):
    """The lines of the classic client."""

    def format(self, record: logging.LogRecord) -> str:
        word = "WARN" if record.levelno == logging.WARNING else record.levelname
        return f"[{getattr(record, 'queen_time', '')}] [{word}] {record.getMessage()}"


_records = _Records()
_TAG = 0  # no other sink has it


def from_environment() -> Optional[int]:
    """The level that QUEEN_CLIENT_LOG asks for."""
    return _WORDS.get(os.environ.get("QUEEN_CLIENT_LOG", "").lower())


def _has_a_reader() -> bool:
    at: Any = logger
    while at is not None:
        if any(not isinstance(handler, logging.NullHandler) for handler in at.handlers):
            return True
        at = at.parent if at.propagate else None
    return False


def attach(client: int) -> None:
    """Sends the records of a client to the logger, from the level on that it takes now. Without anybody who reads them
    they are not even made.
    """
    asked = from_environment()
    if asked is not None:
        if not _has_a_reader():
            handler = logging.StreamHandler(sys.stderr)
            handler.setFormatter(_Classic())
            logger.addHandler(handler)
        if not logger.isEnabledFor(asked):
            logger.setLevel(asked)
    elif not _has_a_reader():
        check(lib.queen_log_events(client, _native.QUEEN_LOG_WARN, None, 0), "the log cannot be silenced")
        return
    taken = [code for code, level in _LEVELS.items() if logger.isEnabledFor(level)]
    if taken:
        thread = notices()
        thread.sinks[_TAG] = _records
        check(lib.queen_log_events(client, max(taken), thread.queue, _TAG), "the log cannot be had")
