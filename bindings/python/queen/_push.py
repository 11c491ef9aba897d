"""How a push is told about: the callbacks of the classic client, in its order."""

from __future__ import annotations

import json
from typing import Any, Callable, Dict, List, Optional, Tuple

from . import _native
from ._options import as_list
from .errors import QueenError, make_error
from .types import PushResult


class Callbacks:
    """What to call with what became of the items of a push."""

    __slots__ = ("duplicate", "error", "success")

    def __init__(self) -> None:
        self.success: Optional[Callable[..., Any]] = None
        self.error: Optional[Callable[..., Any]] = None
        self.duplicate: Optional[Callable[..., Any]] = None

    def __bool__(self) -> bool:
        return self.success is not None or self.error is not None or self.duplicate is not None


def item_of(queue: str, partition: Optional[str], item: Any) -> Dict[str, Any]:
    """An item as callbacks see it."""
    if isinstance(item, (bytes, bytearray)):
        item = json.loads(item)
    own = item if isinstance(item, dict) else {}
    payload = own["data"] if "data" in own else own.get("payload", item)
    seen = {"queue": queue, "partition": partition or "Default", "payload": payload}
    for key in ("transactionId", "traceId"):
        if own.get(key):
            seen[key] = own[key]
    return seen


def calls(
    callbacks: Callbacks, queue: str, partition: Optional[str], items: Any, results: List[PushResult]
) -> List[Tuple[Callable[..., Any], Tuple[Any, ...]]]:
    """The callbacks to call, and with what: duplicates, then failed ones, then those that are stored."""
    sorts: Dict[str, List[Dict[str, Any]]] = {"duplicate": [], "failed": [], "stored": []}
    for item, result in zip(as_list(items), results):
        seen = {**item_of(queue, partition, item), "transactionId": result.get("transactionId"), "result": result}
        status = result.get("status")
        if status in ("queued", "buffered"):
            sorts["stored"].append(seen)
        elif status == "duplicate":
            sorts["duplicate"].append(seen)
        else:
            sorts["failed"].append({**seen, "error": result.get("error")})
    wanted: List[Tuple[Callable[..., Any], Tuple[Any, ...]]] = []
    if sorts["duplicate"] and callbacks.duplicate is not None:
        reason = make_error(_native.QUEEN_E_PARTIAL, "Duplicate transaction IDs detected")
        wanted.append((callbacks.duplicate, (sorts["duplicate"], reason)))
    if sorts["failed"] and callbacks.error is not None:
        reason = make_error(_native.QUEEN_E_PARTIAL, str(sorts["failed"][0].get("error") or "Push failed"))
        wanted.append((callbacks.error, (sorts["failed"], reason)))
    if sorts["stored"] and callbacks.success is not None:
        wanted.append((callbacks.success, (sorts["stored"],)))
    return wanted


def partial_results(error: QueenError) -> Optional[List[PushResult]]:
    """The results of a push that was refused in part."""
    results = error.result
    return [PushResult(one) for one in results] if isinstance(results, list) else None
