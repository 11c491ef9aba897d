"""The blocking client."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from typing import Any, List

import pytest

import queen
import queen.sync


def test_the_whole_way_of_a_message(sync_client: queen.sync.Queen, name: str) -> None:
    client = sync_client
    assert client.queue(name).config({"lease_time": 30}).create()["configured"] is True
    results = client.queue(name).push([{"data": 1, "transactionId": "t"}, 2, 3])
    assert isinstance(results, list) and results[0]["transactionId"] == "t"
    messages = client.queue(name).batch(2).wait(True).pop()
    assert [message.data for message in messages] == [1, 2]
    assert client.renew(messages[0])["success"] is True
    messages[0].ack()
    told = client.transaction().ack(messages[1]).queue(name).partition("next").push(4).commit()
    assert told["success"] is True and not client._kept
    seen: List[Any] = []
    summary = client.queue(name).limit_total(2).consume(lambda message: seen.append(message["data"]))
    assert summary["acked"] == 2 and sorted(seen) == [3, 4]
    assert client.queue(name).pop() == []
    assert client.call("health")["status"] and client.admin.queue_get(name)["name"] == name
    assert client.queue(name).buffer({"time_millis": 60000}).push(5) == {"buffered": True, "count": 1}
    assert client.get_buffer_stats()["totalBufferedMessages"] == 1
    client.queue(name).flush_buffer()
    assert client.flush_all_buffers() == {"flushed": 0, "messages": 0}
    client.ready()
    assert client.queue(name).delete()["deleted"] is True


def test_callbacks_dead_letters_traces_and_groups(sync_client: queen.sync.Queen, name: str) -> None:
    client = sync_client
    client.queue(name).config({"retry_limit": 0}).create()
    told: List[Any] = []
    client.queue(name).push([{"data": 1, "transactionId": "t"}], on_success=told.append)
    client.queue(name).push([{"data": 1, "transactionId": "t"}], on_duplicate=lambda items, error: told.append(items))
    assert (
        client.queue(name).push(
            {"data": 1, "transactionId": "x" * 70000}, on_error=lambda items, error: told.append(error)
        )
        is None
    )
    assert len(told) == 3 and isinstance(told[2], queen.QueenError)

    def handler(message: Any) -> None:
        assert message["trace"]({"data": {"at": 1}, "traceName": name})["success"] is True
        assert message.trace(5)["success"] is False
        raise RuntimeError("never this one")

    failures: List[Any] = []
    client.queue(name).limit(1).consume(handler, on_error=lambda message, error: failures.append(error))
    assert len(failures) == 1 and client.admin.trace_by_name(name)["total"] == 1
    deadline = time.monotonic() + 20
    while not client.queue(name).dlq().get()["messages"]:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert "never this one" in client.queue(name).dlq().get()["messages"][0]["errorMessage"]
    assert client.queue(name).group("g").subscription_mode("all").wait(True).pop()[0].consumer_group == "g"
    client.update_consumer_group_timestamp("g", "2020-01-01T00:00:00Z")
    assert client.delete_consumer_group("g")["success"] is True


def test_a_loop_over_messages(sync_client: queen.sync.Queen, name: str) -> None:
    client = sync_client
    client.queue(name).push([1, 2, 3])
    seen = []
    for message in client.queue(name).messages():
        seen.append(message.data)
        if len(seen) == 2:
            break  # 2 has no verdict and comes again
    assert seen == [1, 2]
    assert [message.data for message in client.queue(name).batch(9).limit_total(2).messages()] == [2, 3]
    assert list(client.queue(name).idle_millis(50).messages()) == []


@pytest.mark.parametrize("threads", [1, 2])
def test_what_follows_goes_back_when_a_handler_stops_its_consumer(
    sync_client: queen.sync.Queen, name: str, threads: int
) -> None:
    queue = sync_client.queue(name).batch(8)
    queue.push(list(range(8)))
    stop = threading.Event()
    seen: List[int] = []

    def handler(message: Any) -> None:
        seen.append(message.data)
        if len(seen) == 2:
            stop.set()

    summary = sync_client.queue(name).batch(8).each().concurrency(threads).consume(handler, signal=stop)
    assert seen == [0, 1] and summary["acked"] == 2 and summary["unsettled"] == 0
    for message in queue.messages():
        message.ack()
        break
    stop.clear()
    for _ in queue.messages(signal=stop):
        stop.set()
    rest = sync_client.queue(name).batch(8).wait(True).poll_timeout_millis(5000).pop()
    assert [message.data for message in rest] == [4, 5, 6, 7]


def test_handlers_on_several_threads_and_a_stop(sync_client: queen.sync.Queen, name: str) -> None:
    client = sync_client
    for number in range(12):
        client.queue(name).partition(f"p{number % 4}").push(number)
    threads, stop = set(), threading.Event()
    seen: List[int] = []

    def handler(message: Any) -> None:
        threads.add(threading.current_thread().name)
        seen.append(message.data)
        time.sleep(0.02)
        if len(seen) == 12:
            stop.set()

    summary = client.queue(name).concurrency(4).consume(handler, signal=stop)
    assert summary["reason"] == "stopped" and summary["acked"] == 12 and sorted(seen) == list(range(12))
    assert len(threads) > 1
    lists: List[int] = []
    client.queue(name).push([1, 2, 3])
    client.queue(name).batch(3).limit(3).consume(lambda messages: lists.append(len(messages)))
    assert lists == [3]


def test_many_threads_use_one_client(sync_client: queen.sync.Queen, name: str) -> None:
    failures: List[BaseException] = []

    def work(one: int) -> None:
        try:
            for number in range(50):
                sync_client.queue(name).partition(f"p{one}").push(number)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(one,)) for one in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures and sync_client.stats()["messages"]["queued"] == 800


def test_waiting_lets_other_threads_run(sync_client: queen.sync.Queen, name: str) -> None:
    waiting = threading.Thread(target=lambda: sync_client.queue(name).wait(True).poll_timeout_millis(1000).pop())
    waiting.start()
    count = 0
    while waiting.is_alive():
        count += 1
    assert count > 10_000


def test_an_exception_that_is_none_ends_the_consumer(sync_client: queen.sync.Queen, name: str) -> None:
    def handler(message: Any) -> None:
        raise SystemExit(3)

    for threads in (1, 2):
        sync_client.queue(name).push(threads)
        with pytest.raises(SystemExit):
            sync_client.queue(name).concurrency(threads).consume(handler)
        (message,) = sync_client.queue(name).wait(True).poll_timeout_millis(5000).pop()  # it went back
        message.ack()


def run(text: str, **options: Any) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-X", "dev", "-c", text], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options
    )


def test_ctrl_c_ends_a_blocking_call() -> None:
    program = run("""
import queen.sync
with queen.sync.Queen("embedded:") as client:
    print("ready", flush=True)
    client.queue("q").wait(True).pop()
""")
    assert program.stdout is not None and program.stdout.readline() == "ready\n"
    time.sleep(0.2)
    began = time.monotonic()
    program.send_signal(signal.SIGINT)
    _, err = program.communicate(timeout=20)
    assert "KeyboardInterrupt" in err and "Exception ignored" not in err and time.monotonic() - began < 5, err


def test_a_forked_child_is_told_and_makes_a_client_of_its_own(tmp_path: Any) -> None:
    program = run("""
import os, queen, queen.sync, warnings
warnings.simplefilter("ignore", DeprecationWarning)  # of every fork in a process with threads
broker = queen.Broker(listen="127.0.0.1:0")
url = broker.addresses[0]
client = queen.sync.Queen(url)
client.queue("q").push(1)
child = os.fork()
if child == 0:
    try:
        client.queue("q").push(2)
    except queen.QueenForkedError as error:
        print("told:", error, flush=True)
    with queen.sync.Queen(url) as own:
        print(own.queue("q").push(3)[0]["status"], flush=True)
    import asyncio
    async def main():
        async with queen.Queen(url) as own:
            print((await own.queue("q").push(4))[0]["status"], flush=True)
    asyncio.run(main())
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
client.queue("q").push(5)
print([message.data for message in client.queue("q").batch(9).pop()])
client.close()
""")
    out, err = program.communicate(timeout=30)
    lines = out.splitlines()
    assert lines[0].startswith("told:") and lines[1:] == ["queued", "queued", "[1, 3, 4, 5]"], (out, err)
    assert err == ""


def test_m12_handle_signals_closes_first() -> None:
    program = run("""
import queen.sync, time
client = queen.sync.Queen("embedded:", handle_signals=True)
client.on_report(lambda reports, dropped: print([one["status"] for one in reports], flush=True))
client.queue("q").buffer({"time_millis": 60000}).push(1)
print("ready", flush=True)
time.sleep(60)
""")
    assert program.stdout is not None and program.stdout.readline() == "ready\n"
    program.send_signal(signal.SIGTERM)
    out, err = program.communicate(timeout=20)
    assert program.returncode == -signal.SIGTERM and out == "['queued']\n", (out, err)


def test_the_last_reports_are_told_before_close_returns(name: str) -> None:
    for _ in range(50):
        told: List[Any] = []
        with queen.sync.Queen("embedded:") as client:

            def slowly(reports: Any, _dropped: int, told: List[Any] = told) -> None:
                time.sleep(0.01)
                told.extend(reports)

            client.on_report(slowly)
            client.queue(name).buffer({"time_millis": 60000}).push(1)
        assert [one["status"] for one in told] == ["queued"]


@pytest.mark.parametrize("value, lines", [("true", True), ("DEBUG", True), ("", False), ("no", False)])
def test_lg1_lg2_queen_client_log(value: str, lines: bool) -> None:
    program = run(
        """
import queen.sync
with queen.sync.Queen("embedded:", bearer_token="sesame") as client:
    client.queue("q").push({"data": "payload"})
""",
        env={**os.environ, "QUEEN_CLIENT_LOG": value},
    )
    out, err = program.communicate(timeout=20)
    assert out == "" and bool(err) is lines and "sesame" not in err and "payload" not in err
    if lines:
        assert "] [INFO] [client.new] {" in err and err.startswith("[20")


def test_tokens_on_demand(name: str) -> None:
    with queen.Broker(tokens=["good"]) as broker, broker.sync_client() as client:
        asked: List[str] = []

        def source(reason: str) -> str:
            asked.append(reason)
            return "good"

        client.on_token_wanted(source)
        client.queue(name).push(1)
        assert asked == ["missing"]
        client.on_token_wanted(None)


def test_what_the_broker_counts_as_done_needs_no_verdict(sync_client: queen.sync.Queen, name: str) -> None:
    sync_client.queue(name).push([{"data": n} for n in range(4)])
    queue = sync_client.queue(name).limit_total(2).commit_on_delivery()
    seen: List[int] = []
    summary = queue.consume(lambda message: seen.append(message.data))
    assert summary["messages"] == 2
    seen += [message.data for message in sync_client.queue(name).limit_total(2).commit_on_delivery().messages()]
    assert seen == [0, 1, 2, 3]
    assert sync_client.queue(name).pop() == []
