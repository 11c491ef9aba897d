"""Streams: definitions, windows with filters, groups and sums, and consumers of both clients."""

from __future__ import annotations

import asyncio
import gc
import threading
from typing import Any, List, Optional

import pytest

import queen
import queen.sync


async def defined(client: queen.Queen, name: str, items: List[Any], **more: Any) -> bool:
    """Pushes items, and defines a stream over them with windows of a tenth of a second. False where there are no streams."""
    if items:
        await client.queue(name).push([{"data": item} for item in items])
    else:
        await client.queue(name).create()
    try:
        builder = client.stream(name, "tests").sources([name]).tumbling_time(0.1).grace_period(0).lease_timeout(30)
        assert (await builder.define())["success"] is True
    except queen.QueenUnsupportedError as error:
        assert "0.7" in str(error)
        return False
    return True


async def first_with_messages(consumer: queen.StreamConsumer) -> queen.Window:
    while True:
        window = await consumer.poll_window()
        assert window is not None
        if window.size():
            return window
        await consumer.ack(window)


async def test_s6_s7_s8_s9_a_window_is_filtered_grouped_and_summed(queen_client: Any, name: str) -> None:
    async with queen_client() as client:
        orders = [{"by": "ann", "n": 1}, {"by": "bob", "n": 2.5}, {"by": "ann", "n": 2**53}, {"n": "x"}]
        if not await defined(client, name, orders):
            return
        consumer = client.consumer(name, "g")
        window = await first_with_messages(consumer)
        assert [message["data"] for message in window.messages] == orders
        assert (window.size(), window.original_size(), window.key) == (4, 4, "__GLOBAL__")
        assert window.id.split(":")[1] == "__GLOBAL__" and window.start < window.end and window.leaseId
        with pytest.raises(AttributeError, match="nothing"):
            window.nothing  # noqa: B018

        groups = window.group_by("data.by")
        assert [(key, len(found)) for key, found in groups.items()] == [("ann", 2), ("bob", 1), ("null_key", 1)]
        assert groups["bob"][0]["data"]["n"] == 2.5
        wanted = {"count": True, "sum": ["data.n"], "avg": ["data.n"], "min": ["data.n"], "max": ["data.by"]}
        told = window.filter(lambda message: message["data"].get("by") == "ann").aggregate(wanted)
        assert told == {
            "count": 2,
            "sum": {"data.n": 2**53 + 1},
            "avg": {"data.n": (2**53 + 1) / 2},
            "min": {"data.n": 1},
            "max": {"data.by": None},
        }
        assert window.filter(lambda message: message["data"]["n"] == 1).size() == 1
        assert len(window.all_messages) == 4
        assert window.reset().size() == 4
        with pytest.raises(queen.QueenError):
            window.aggregate({"median": ["data.n"]})
        await consumer.ack(window)
        with pytest.raises(queen.QueenAlreadySettledError):
            await consumer.nack(window)
        assert not window.is_lost()


async def test_a_window_without_a_verdict_comes_again(queen_client: Any, name: str) -> None:
    async with queen_client() as client:
        if not await defined(client, name, [1, 2]):
            return
        consumer = client.consumer(name, "g")
        window: Optional[queen.Window] = await first_with_messages(consumer)
        assert window is not None
        first = window.id
        window = None
        gc.collect()
        window = await consumer.poll_window()
        assert window is not None and window.id == first
        await consumer.nack(window)
        window = await consumer.poll_window()
        assert window is not None and window.id == first
        await consumer.ack(window)
        await consumer.seek("2020-01-01T00:00:00Z")
        window = await consumer.poll_window()
        assert window is not None and window.start == "2020-01-01T00:00:00.000000Z" and window.size() == 0
        await consumer.ack(window)


async def test_m11_s2_s4_a_handler_that_raises_gets_its_window_again(queen_client: Any, name: str) -> None:
    async with queen_client() as client:
        if not await defined(client, name, [1, 2, 3]):
            return
        seen: List[Any] = []
        done = asyncio.Event()

        async def handle(window: queen.Window) -> None:
            await asyncio.sleep(0)
            if not window.size():
                return
            seen.append(window.id)
            if len(seen) == 1:
                raise ValueError("not now")
            done.set()

        summary = await client.consumer(name, "g").process(handle, signal=done)
        assert len(seen) == 2 and seen[0] == seen[1]
        assert (summary["reason"], summary["nacked"]) == ("stopped", 1) and summary["acked"] >= 1


async def test_stop_and_cancel_end_a_poll_at_once(queen_client: Any, name: str) -> None:
    async with queen_client() as client:
        if not await defined(client, name, []):
            return
        consumer = client.consumer(name, "g")
        running = asyncio.ensure_future(consumer.process(lambda window: None))
        await asyncio.sleep(0.2)
        consumer.stop()
        assert (await asyncio.wait_for(running, 10))["reason"] == "stopped"
        polling = asyncio.ensure_future(consumer.poll_window())
        await asyncio.sleep(0.1)
        polling.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asyncio.wait_for(polling, 10)
        assert await consumer.poll_window(0) is None


async def test_what_cannot_be_is_told(queen_client: Any, name: str) -> None:
    async with queen_client() as client:
        with pytest.raises((queen.QueenNotFoundError, queen.QueenUnsupportedError)):
            await client.consumer(name, "g").process(lambda window: None)
        with pytest.raises(queen.QueenError, match="consumerGroup"):
            await client.consumer(name, "").process(lambda window: None)


def test_the_blocking_client_has_the_same(sync_client: queen.sync.Queen, name: str) -> None:
    sync_client.queue(name).push([{"data": n} for n in range(5)])
    builder = sync_client.stream(name, "tests").sources(name).tumbling_time(0.1).grace_period(0)
    try:
        builder.define()
    except queen.QueenUnsupportedError:
        return
    done, sums = threading.Event(), []

    def handle(window: queen.Window) -> None:
        if window.size():
            sums.append(window.aggregate({"sum": ["data"]})["sum"]["data"])
            done.set()

    summary = sync_client.consumer(name, "g").process(handle, signal=done, concurrency=2)
    assert sum(sums) == 10 and summary["messages"] == 5
    consumer = sync_client.consumer(name, "h")
    window = consumer.poll_window()
    assert window is not None
    consumer.nack(window)
    assert consumer.poll_window() is not None
    assert consumer.seek("2020-01-01T00:00:00Z")


@pytest.mark.parametrize("operation", ["pop", "stream.poll"])
def test_what_brings_a_lease_is_not_called_by_name(sync_client: queen.sync.Queen, operation: str) -> None:
    with pytest.raises(queen.QueenInvalidArgumentError, match=operation):
        sync_client.call(operation, queue="q")
