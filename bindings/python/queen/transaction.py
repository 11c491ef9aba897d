"""Transactions: acks and pushes that happen together or not at all."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Dict, Generic, List, Mapping, Optional, Tuple, TypeVar

from . import _native
from ._events import read_json
from ._lib import compact, lib, nul_terminated
from ._options import as_list
from .errors import make_error
from .message import Delivery, group_of, identify, lives, verdict
from .types import StatusLike, TransactionResponse

if TYPE_CHECKING:
    from ._base import BaseQueen
    from .client import Queen

Self = TypeVar("Self", bound="BaseTransaction")


class BaseTransaction:
    """Collects acks and pushes. Nothing is sent before `commit()`."""

    def __init__(self, queen: BaseQueen) -> None:
        self._client = queen
        self._handle = lib.queen_transaction_new(queen.handle)
        self._settled: List[Tuple[Delivery, List[int]]] = []
        self._empty = True

    def __del__(self) -> None:
        handle, self._handle = getattr(self, "_handle", None), None
        if handle:
            lib.queen_transaction_free(handle)

    def ack(
        self: Self, messages: Any, status: StatusLike = "completed", context: Optional[Mapping[str, Any]] = None
    ) -> Self:
        """Adds verdicts on a message or a list of them.

        A message that lives is settled by the commit, whatever its handler returns. A dict needs `transactionId`,
        `partitionId` and `leaseId`; `context` may name its `group`.
        """
        self._empty = False
        by_delivery: Dict[int, Tuple[Delivery, List[int]]] = {}
        by_ids: List[Dict[str, Any]] = []
        others: List[Any] = []
        for message in as_list(messages):
            if lives(message):
                by_delivery.setdefault(id(message.delivery), (message.delivery, []))[1].append(message.index)
            else:
                by_ids.append({**identify(message), "status": verdict(status)})
                others.append(message)
        for delivery, indexes in by_delivery.values():
            text = compact([{"index": index, "status": verdict(status)} for index in indexes])
            # What cannot be added fails the commit, which says why.
            lib.queen_transaction_settle(self._handle, delivery.handle, text, len(text))
            self._settled.append((delivery, indexes))
        if by_ids:
            group = (context or {}).get("group") or group_of(others)
            options: Dict[str, Any] = {"consumerGroup": group} if group else {}
            if any("leaseId" not in ids for ids in by_ids):
                options["unfenced"] = True  # as the classic client: the caller has no lease to name
            text = compact(by_ids)
            lib.queen_transaction_ack_ids(self._handle, text, len(text), compact(options))
        return self

    def queue(self: Self, name: str) -> TransactionQueueBuilder[Self]:
        """Names a queue to push to."""
        return TransactionQueueBuilder(self, name)

    def add_push(self, queue: str, partition: Optional[str], items: Any) -> None:
        """Adds a push. Its messages have their ids from now on."""
        self._empty = False
        body = self._client.encoder.items(items)
        lib.queen_transaction_push(
            self._handle,
            nul_terminated("queue", queue),
            nul_terminated("partition", partition),
            body,
            len(body),
            b'{"classicItems":true}',
        )

    def _begin_commit(self, timeout_millis: Optional[int]) -> Optional[int]:
        if self._empty:
            raise make_error(_native.QUEEN_E_INVALID_ARGUMENT, "Transaction has no operations to commit")
        options = {} if timeout_millis is None else {"timeoutMillis": timeout_millis}
        return lib.queen_transaction_commit(self._handle, compact(options))

    def _committed(self, told: Dict[str, Any]) -> TransactionResponse:
        for delivery, indexes in self._settled:
            self._client.forget(delivery, indexes)
        return {"success": True, "transactionId": told["transactionId"], "results": told["results"]}


class TransactionQueueBuilder(Generic[Self]):
    """A queue to push to in a transaction."""

    def __init__(self, transaction: Self, name: str) -> None:
        self._transaction, self._name = transaction, name
        self._partition: Optional[str] = None

    def partition(self, name: str) -> TransactionQueueBuilder[Self]:
        """Sets the partition."""
        self._partition = name
        return self

    def push(self, items: Any) -> Self:
        """Adds a push of one message or a list of them, as QueueBuilder.push takes them."""
        self._transaction.add_push(self._name, self._partition, items)
        return self._transaction


class TransactionBuilder(BaseTransaction):
    """A transaction of the asyncio client."""

    def __init__(self, queen: Queen) -> None:
        super().__init__(queen)
        self._queen = queen

    async def commit(self, timeout_millis: Optional[int] = None) -> TransactionResponse:
        """Sends it all in one request, once.

        Raises:
            QueenRolledBackError: nothing was applied; `broker_code` has the reason.
            QueenOrderError: it would pass an earlier message that is unsettled. Nothing was sent.
        """
        return self._committed(await self._queen.wait(self._begin_commit(timeout_millis), read_json))
