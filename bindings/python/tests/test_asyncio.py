"""asyncio as it should be: one descriptor, no threads, cancellation, several loops, Ctrl-C, a clean exit."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import json
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from typing import Any, List

import pytest
from conftest import eventually, take

import queen
from queen import Queen
from queen._events import AT_ONCE, Port, port

FULL = os.environ.get("QUEEN_TEST_SIZE") == "full"


def test_p2_no_thread_of_python_is_started() -> None:
    program = script("""
import asyncio, queen, threading
async def main():
    async with queen.Queen("embedded:") as client:
        await client.queue("q").push([1, 2, 3])
        await client.queue("q").limit(3).consume(lambda message: None)
        print(threading.active_count())
asyncio.run(main())
""")
    assert program.communicate(timeout=20) == ("1\n", "")


async def test_c17_to_cancel_a_task_cancels_its_operation(queen_broker: queen.Broker, name: str) -> None:
    async with queen_broker.client() as client:
        waiting = asyncio.ensure_future(client.queue(name).wait(True).pop())
        await eventually(lambda: client.stats()["parkedPolls"] == 1)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        await eventually(lambda: client.stats()["parkedPolls"] == 0)
        assert not port().waiters
        # What came too late for who waited goes back uncharged, and to the next one.
        await client.queue(name).push(1)
        late = asyncio.ensure_future(client.queue(name).pop())
        await asyncio.sleep(0)
        time.sleep(0.2)  # the answer is here, and the loop has not looked
        late.cancel()
        with pytest.raises(asyncio.CancelledError):
            await late
        assert [message["data"] for message in await client.queue(name).wait(True).poll_timeout_millis(5000).pop()] == [
            1
        ]


async def test_a_deadline_of_asyncio_and_one_of_the_library(queen_broker: queen.Broker, name: str) -> None:
    async with queen_broker.client() as client:
        queen_broker.fault("hang", "push")
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(client.queue(name).push(1), 0.1)
        with pytest.raises(TimeoutError) as caught:
            await client.queue(name).partition("other").timeout_millis(100).push(1)
        assert isinstance(caught.value, queen.QueenTimeoutError) and caught.value.outcome == "unknown"
        assert len(caught.value.transaction_ids) == 1
        queen_broker.heal()


async def test_to_cancel_a_consumer_cancels_its_handlers_and_gives_back(queen_client: Any, name: str) -> None:
    async with queen_client() as client:
        await client.queue(name).push([1, 2])
        entered = asyncio.Event()
        kept: List[Any] = []

        async def handler(message: Any) -> None:
            kept.append(message)
            entered.set()
            await asyncio.sleep(60)

        running = asyncio.ensure_future(client.queue(name).consume(handler))
        await entered.wait()
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        assert kept[0]["data"] == 1 and kept[0]["partition"] == "Default"  # readable although it went back
        again = await client.queue(name).batch(2).wait(True).poll_timeout_millis(5000).pop()
        assert [message["data"] for message in again] == [1, 2]
        assert not port().sinks


async def test_consumers_run_beside_and_stop(queen_client: Any, name: str) -> None:
    async with queen_client() as client:
        seen: List[Any] = []
        consumer = client.queue(name).concurrency(2).start(seen.append)
        await client.queue(name).push([1, 2])
        await eventually(lambda: len(seen) == 2)
        assert not consumer.ended
        summary = await consumer.stop()
        assert summary["reason"] == "stopped" and summary["acked"] == 2 and consumer.ended
        assert await consumer.wait() == summary


async def test_handlers_see_the_context_of_who_started_them(queen_client: Any, name: str) -> None:
    who: contextvars.ContextVar[str] = contextvars.ContextVar("who", default="nobody")
    seen: List[str] = []
    async with queen_client() as client:
        await client.queue(name).push(1)
        who.set("me")
        await client.queue(name).limit(1).consume(lambda message: seen.append(who.get()))
    assert seen == ["me"]


async def test_messages_by_async_for(queen_client: Any, name: str) -> None:
    async with queen_client() as client:
        await client.queue(name).push([1, 2, 3])
        first = await take(client.queue(name).stream_messages(), 2)
        assert [message["data"] for message in first] == [1, 2]
        gc.collect()
        await asyncio.sleep(0.1)
        # The one on which the loop was left comes again, the one before it was acked.
        seen = [message["data"] async for message in client.queue(name).batch(5).limit_total(2).stream_messages()]
        assert seen == [2, 3]
        assert await client.queue(name).pop() == []
        with pytest.raises(queen.QueenConfigError):
            await take(client.queue(name).lease_seconds(-1).stream_messages(), 1)


@pytest.mark.parametrize("way", ["handler", "loop"])
async def test_messages_that_follow_one_another_leave_the_loop_its_turns(
    queen_client: Any, name: str, way: str
) -> None:
    async with queen_client() as client:
        await client.queue(name).push(list(range(1000)))
        seen: List[int] = []
        turns: List[int] = []

        def handler(message: Any) -> None:
            seen.append(message.data)
            time.sleep(0.0001)

        async def count_turns() -> None:
            while True:
                turns.append(len(seen))
                await asyncio.sleep(0)

        counting = asyncio.ensure_future(count_turns())
        queue = client.queue(name).batch(1000).each().limit_total(1000)
        if way == "handler":
            await queue.consume(handler)
        else:
            async for message in queue.stream_messages():
                handler(message)
        counting.cancel()
        assert seen == list(range(1000))
        assert len({turn for turn in turns if 0 < turn < 1000}) > 10


async def test_buffered_pushes_leave_the_loop_its_turns(queen_client: Any, name: str) -> None:
    async with queen_client() as client:
        turns: List[int] = []
        pushed = 0

        async def count_turns() -> None:
            while True:
                turns.append(pushed)
                await asyncio.sleep(0)

        counting = asyncio.ensure_future(count_turns())
        while pushed < 5000:
            told = await client.queue(name).buffer({"message_count": 100}).push(pushed)
            assert told == {"buffered": True, "count": 1}
            pushed += 1
        counting.cancel()
        assert not port().waiters
        await client.flush_all_buffers()
        assert len({turn for turn in turns if 0 < turn < 5000}) > 10
        messages = await client.queue(name).batch(5000).pop()
        assert [message.data for message in messages] == list(range(len(messages))) and messages


async def test_what_follows_goes_back_when_a_handler_stops_its_consumer(queen_client: Any, name: str) -> None:
    async with queen_client() as client:
        await client.queue(name).push(list(range(8)))
        stop = asyncio.Event()
        seen: List[int] = []

        def handler(message: Any) -> None:
            seen.append(message.data)
            if len(seen) % 2 == 0:
                stop.set()

        summary = await client.queue(name).batch(8).each().consume(handler, signal=stop)
        assert seen == [0, 1] and summary["acked"] == 2 and summary["unsettled"] == 0
        stop.clear()
        await client.queue(name).batch(8).each().consume(handler, signal=stop)
        messages: Any = client.queue(name).batch(8).stream_messages()
        await (await messages.__anext__()).ack()
        await messages.aclose()
        rest = await client.queue(name).batch(8).wait(True).poll_timeout_millis(5000).pop()
        assert [message.data for message in rest] == [5, 6, 7]


async def test_at_most_64_completions_in_one_callback(queen_client: Any, name: str) -> None:
    counts: List[int] = []
    at = port()
    drain = at.drain
    loop = asyncio.get_running_loop()
    descriptor = queen._events.lib.queen_event_queue_fd(at.queue)  # type: ignore[attr-defined]
    loop.add_reader(descriptor, lambda: counts.append(drain()))
    async with queen_client() as client:
        pushes = [asyncio.ensure_future(client.queue(name).partition(f"p{n % 16}").push(n)) for n in range(1000)]
        await asyncio.sleep(0)
        time.sleep(0.3)  # many complete while the loop does not look
        await asyncio.gather(*pushes)
    assert sum(counts) >= 1000 and max(counts) <= AT_ONCE


async def test_many_tasks_lose_nothing_and_hold_nothing(queen_client: Any, name: str, url: str, capfd: Any) -> None:
    total = 100_000 if FULL or url == "embedded:" else 20_000
    tasks = 1000
    loop = asyncio.get_running_loop()
    at = port()
    longest = 0.0
    drain = at.drain

    def timed() -> None:
        nonlocal longest
        began = time.perf_counter()
        drain()
        longest = max(longest, time.perf_counter() - began)

    loop.add_reader(queen._events.lib.queen_event_queue_fd(at.queue), timed)  # type: ignore[attr-defined]
    done = 0
    sizes: List[int] = []

    def rss() -> int:
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * resource.getpagesize()

    async with queen_client() as client:

        async def work(one: int) -> None:
            nonlocal done
            queue = client.queue(name).partition(f"p{one % 16}")
            for number in range(total // tasks):
                results = await queue.push({"data": number})
                assert results[0]["status"] == "queued"
                done += 1
                if done % (total // 10) == 0:
                    sizes.append(rss())

        await asyncio.wait_for(asyncio.gather(*(work(one) for one in range(tasks))), 55)
        assert client.stats()["pending"]["messages"] == 0
    assert done == total and not at.waiters
    # An embedded broker in memory keeps the messages, some 400 bytes each; the client itself keeps nothing.
    stored = 1500 * total if url == "embedded:" else 0
    assert sizes[-1] - sizes[0] < 16 * 2**20 + stored, sizes
    with capfd.disabled():
        print(f"\nlongest callback of {total} pushes from {tasks} tasks: {longest * 1000:.1f} ms")


def test_several_loops_in_several_threads_and_one_client_in_all(url: str, name: str) -> None:
    client = Queen(url)
    failures: List[BaseException] = []

    async def work(one: int) -> None:
        queue = client.queue(f"{name}-{one}")
        await asyncio.gather(*(queue.push(number) for number in range(50)))
        assert (await queue.limit_total(50).consume(lambda message: None))["acked"] == 50

    def run(one: int) -> None:
        try:
            asyncio.run(work(one))
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=run, args=(one,)) for one in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    asyncio.run(client.close())
    gc.collect()
    assert not [thing for thing in gc.get_objects() if type(thing) is Port], "a closed loop keeps its event queue"


def test_the_descriptors_of_closed_loops_are_given_back() -> None:
    async def work() -> None:
        async with Queen("embedded:") as client:
            await client.queue("q").push(1)

    asyncio.run(work())
    gc.collect()
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(20):
        asyncio.run(work())
    gc.collect()
    assert len(os.listdir("/proc/self/fd")) <= before + 2


def test_uvloop(url: str, name: str) -> None:
    uvloop = pytest.importorskip("uvloop", reason="uvloop is not installed")

    async def work() -> None:
        assert type(asyncio.get_running_loop()).__module__.startswith("uvloop")
        async with Queen(url) as client:
            await asyncio.gather(*(client.queue(name).push(number) for number in range(200)))
            seen: List[int] = []
            await client.queue(name).limit_total(200).consume(lambda message: seen.append(message["data"]))
            assert sorted(seen) == list(range(200))
            waiting = asyncio.ensure_future(client.queue(name).wait(True).pop())
            await asyncio.sleep(0.1)
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting

    loop = uvloop.new_event_loop()
    try:
        loop.run_until_complete(work())
    finally:
        loop.close()


def script(text: str, *arguments: str) -> subprocess.Popen[str]:
    """A program of its own."""
    return subprocess.Popen(
        [sys.executable, "-X", "dev", "-W", "error", "-c", text, *arguments],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def test_ctrl_c_ends_a_consumer() -> None:
    program = script("""
import asyncio, queen
async def main():
    async with queen.Queen("embedded:") as client:
        print("ready", flush=True)
        await client.queue("q").consume(print)
asyncio.run(main())
""")
    assert program.stdout is not None and program.stdout.readline() == "ready\n"
    time.sleep(0.2)
    began = time.monotonic()
    program.send_signal(signal.SIGINT)
    out, err = program.communicate(timeout=20)
    assert program.returncode in (130, -signal.SIGINT, 1) and "KeyboardInterrupt" in err, err
    assert "Exception ignored" not in err and "never" not in err and time.monotonic() - began < 10, err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_m12_c7_handle_signals_closes_and_then_lets_the_signal_do_what_it_did(number: int) -> None:
    program = script("""
import asyncio, queen
async def main():
    client = queen.Queen("embedded:", handle_signals=True)
    told = []
    client.on_report(lambda reports, dropped: print([one["status"] for one in reports], flush=True))
    await client.queue("q").buffer({"time_millis": 60000}).push(1)
    print("ready", flush=True)
    await asyncio.sleep(60)
asyncio.run(main())
""")
    assert program.stdout is not None and program.stdout.readline() == "ready\n"
    program.send_signal(number)
    out, err = program.communicate(timeout=20)
    assert out == "['queued']\n", (out, err)
    assert program.returncode != 0 and ("KeyboardInterrupt" in err or program.returncode == -signal.SIGTERM), err


def test_m12_no_signal_handler_unless_it_is_asked_for() -> None:
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)

    async def work() -> None:
        async with Queen("embedded:"):
            assert (signal.getsignal(signal.SIGTERM)) == before[1]

    asyncio.run(work())
    threading.Thread(target=lambda: asyncio.run(work())).start()  # the classic client cannot be made there
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


def test_the_interpreter_exits_cleanly_with_work_in_flight() -> None:
    program = script("""
import asyncio, os, queen, warnings
warnings.simplefilter("ignore", ResourceWarning)
async def main():
    asyncio.get_running_loop().slow_callback_duration = 60  # else the loop tells of it in debug mode
    client = queen.Queen("embedded:")
    globals()["client"] = client
    for number in range(500):
        asyncio.ensure_future(client.queue("q").push(number))
    asyncio.ensure_future(client.queue("none").wait(True).pop())
    globals()["consumer"] = client.queue("q").start(lambda message: asyncio.sleep(60))
    await asyncio.sleep(0.1)
    print("bye", flush=True)
asyncio.run(main())
""")
    out, err = program.communicate(timeout=30)
    assert (program.returncode, out, err) == (0, "bye\n", "")


def test_a_client_that_nobody_closes_warns() -> None:
    with pytest.warns(ResourceWarning, match="was never closed"):
        Queen("embedded:")
        gc.collect()


async def test_x2_tokens_on_demand_states_and_statistics(name: str) -> None:
    with queen.Broker(tokens=["good"]) as broker:
        asked: List[str] = []

        async def source(reason: str) -> str:
            asked.append(reason)
            return "good"

        statistics: List[Any] = []
        async with broker.client(statistics_interval_millis=100) as client:
            client.on_token_wanted(source)
            client.on_statistics(statistics.append)
            await client.queue(name).push(1)
            assert asked == ["missing"]
            await eventually(lambda: statistics and statistics[-1]["messages"]["queued"] == 1)
            client.on_statistics(None)
        json.dumps(statistics)


async def test_what_the_broker_counts_as_done_needs_no_verdict(queen_client: Any, name: str) -> None:
    async with queen_client() as client:
        await client.queue(name).push([{"data": n} for n in range(4)])
        seen: List[int] = []
        queue = client.queue(name).limit_total(2).commit_on_delivery()
        summary = await queue.consume(lambda message: seen.append(message.data))
        assert summary["messages"] == 2
        seen += await take(client.queue(name).limit_total(2).commit_on_delivery().stream_messages(), 2)
        assert [getattr(one, "data", one) for one in seen] == [0, 1, 2, 3]
        assert await client.queue(name).pop() == []
