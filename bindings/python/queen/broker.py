"""An embedded broker that is started and ended by hand, and fails when it is told to: for tests of an application."""

from __future__ import annotations

import ctypes
from types import TracebackType
from typing import TYPE_CHECKING, Any, Dict, List, Optional, Type, Union

from ._events import read_json, wait
from ._lib import blocking, compact, lib, take_error
from ._options import camel_keys

if TYPE_CHECKING:
    from . import sync
    from .client import Queen

Fault = Dict[str, Any]


def _quick(settings: Dict[str, Any]) -> Any:
    return {"retry_delay_millis": 5, **settings}


class Broker:
    """A broker in this process. docs/TESTING.md explains its options, faults and clock.

    Its methods block for moments at most, so that tests with asyncio may use it as well.

    Args:
        options: `data` (a file; in memory without), `listen`, `tokens`, `faults`, ... in snake_case or camelCase.
            `testing` is on unless it is set to False.
    """

    def __init__(self, **options: Any) -> None:
        self._handle: Optional[int] = None
        text = compact({"testing": True, **camel_keys(options)})
        error = ctypes.c_void_p()
        self._handle = blocking.queen_broker_start(text, len(text), ctypes.byref(error))
        if not self._handle:
            raise take_error(error)

    def __del__(self) -> None:
        self.release()

    def release(self) -> None:
        """Ends the broker at once, in the background, and lets go of it."""
        handle, self._handle = getattr(self, "_handle", None), None
        if handle:
            lib.queen_broker_free(handle)

    def __enter__(self) -> Broker:
        return self

    def __exit__(
        self, kind: Optional[Type[BaseException]], error: Optional[BaseException], trace: Optional[TracebackType]
    ) -> None:
        self.release()

    @property
    def url(self) -> str:
        """The URL for clients of this process. No socket is used."""
        return (lib.queen_broker_url(self._handle) or b"").decode()

    @property
    def addresses(self) -> List[str]:
        """Where it listens, in the order of `listen`."""
        found: List[str] = []
        while True:
            address = lib.queen_broker_address(self._handle, len(found))
            if address is None:
                return found
            found.append(address.decode())

    def client(self, **settings: Any) -> Queen:
        """A client for asyncio that repeats quickly after faults."""
        from .client import Queen

        return Queen(self.url, **_quick(settings))

    def sync_client(self, **settings: Any) -> sync.Queen:
        """A blocking client that repeats quickly after faults."""
        from . import sync

        return sync.Queen(self.url, **_quick(settings))

    def stop(self, timeout_millis: int = 5000) -> None:
        """Stops in good order: requests under way are finished. Clients find nobody then."""
        wait(lib.queen_broker_stop(self._handle, timeout_millis), read_json)

    def kill(self) -> None:
        """Stops abruptly: connections are cut, and requests under way get no answer."""
        wait(lib.queen_broker_kill(self._handle), read_json)

    def restart(self) -> None:
        """Starts it again after `stop()` or `kill()`, on the same file and addresses."""
        wait(lib.queen_broker_restart(self._handle), read_json)

    def add_faults(self, faults: Union[Fault, List[Fault]]) -> List[Fault]:
        """Adds faults, and tells them with their ids. Their fields are those of docs/TESTING.md."""
        text = compact(faults)
        added: List[Fault] = wait(lib.queen_broker_add_faults(self._handle, text, len(text)), read_json)
        return added

    def fault(self, action: str, route: str = "*", **fields: Any) -> int:
        """Adds one fault, and tells its id: `broker.fault("cutAfterCommit", "ack", times=1)`."""
        added = self.add_faults({"action": action, "route": route, **camel_keys(fields)})
        return int(added[0]["id"])

    def faults(self) -> List[Fault]:
        """The faults in place, each with `matched` and `applied`."""
        told: List[Fault] = wait(lib.queen_broker_faults(self._handle), read_json)
        return told

    def applied(self, fault_id: int) -> int:
        """How many requests the fault has taken."""
        for fault in self.faults():
            if fault["id"] == fault_id:
                return int(fault["applied"])
        raise LookupError(f"there is no fault {fault_id}")

    def heal(self, fault_id: int = 0) -> None:
        """Removes a fault, or all of them. Requests that hang on it go their usual way."""
        wait(lib.queen_broker_remove_faults(self._handle, fault_id), read_json)

    def requests(self) -> Dict[str, int]:
        """How many requests the broker has seen, by route."""
        told: Dict[str, int] = wait(lib.queen_broker_requests(self._handle), read_json)
        return told

    def reset_requests(self) -> None:
        """Counts the requests from zero."""
        wait(lib.queen_broker_reset_requests(self._handle), read_json)

    def move_clock(self, advance_millis: int = 0, frozen: Optional[bool] = None) -> Dict[str, Any]:
        """Moves the broker's time forward: leases end, delays are over. Tells `now` and `frozen`."""
        change: Dict[str, Any] = {"advanceMillis": advance_millis}
        if frozen is not None:
            change["frozen"] = frozen
        text = compact(change)
        told: Dict[str, Any] = wait(lib.queen_broker_move_clock(self._handle, text, len(text)), read_json)
        return told

    def __repr__(self) -> str:
        return f"<queen.Broker {self.url}>"
