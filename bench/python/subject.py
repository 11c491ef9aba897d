"""The subjects `libqueen-python` and `official-python` of `make bench`: one piece of work and one JSON line about it, a Report of
bench/src/work.rs. `queen-bench http-load --help` tells what the flags mean.

The same program for both: it uses what the two packages share, and runs on the one that its environment has.
"""

import argparse
import asyncio
import contextlib
import json
import resource
import sys
import time
from typing import Any, Dict, List, Optional

import queen

TEXT = "".join(chr(ord("a") + n % 26) for n in range(100))
PATIENCE_SECONDS = 120
CLASSIC = not hasattr(queen, "Broker")  # the official package has none

now = time.perf_counter


def cpu_us() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return (usage.ru_utime + usage.ru_stime) * 1e6


def message(n: int) -> Dict[str, Any]:
    return {"data": {"n": n, "text": TEXT}}


class Seen:
    """Every message of a consuming case is to be seen once."""

    def __init__(self, messages: int) -> None:
        self.left = set(range(messages))

    def see(self, messages: List[Any]) -> None:
        for one in messages:
            self.left.remove(one["data"]["n"])  # a second time is a KeyError


class Subject:
    def __init__(self, order: argparse.Namespace) -> None:
        self.order = order
        self.took: List[float] = []
        self.finished_at = 0.0

    async def push_all(self, client: Any, first: int, count: int, batch: int) -> None:
        """Closed loops: each pushes the next when the last is answered."""
        starts = iter(range(first, first + count, batch))
        order, took = self.order, self.took

        async def loop() -> None:
            for start in starts:
                partition = f"p{start // batch % order.partitions}"
                items = [message(n) for n in range(start, start + batch)]
                began = now()
                results = await client.queue(order.queue).partition(partition).push(items)
                took.append(now() - began)
                if any(result["status"] != "queued" for result in results):
                    raise RuntimeError(f"a push was answered with {results}")

        await asyncio.gather(*[loop() for _ in range(order.in_flight)])
        self.finished_at = now()

    async def push_buffered(self, client: Any, first: int, count: int) -> None:
        """Through the buffers of the client, until all of them are sent."""
        for n in range(first, first + count):
            place = client.queue(self.order.queue).partition(f"p{n % self.order.partitions}")
            await place.buffer({"message_count": 100, "time_millis": 1000}).push([message(n)])
        await client.flush_all_buffers()
        self.finished_at = now()

    async def pop_ack(self, client: Any) -> None:
        seen, done = Seen(self.order.messages), asyncio.Event()
        acked = 0

        async def loop() -> None:
            nonlocal acked
            while True:
                began = now()
                messages = await client.queue(self.order.queue).batch(100).wait(True).timeout_millis(10_000).pop()
                if not messages:
                    continue
                seen.see(messages)
                answer = await client.ack(messages, True)
                if not answer["success"]:
                    raise RuntimeError(f"an ack was answered with {answer}")
                self.took.append(now() - began)
                acked += len(messages)
                if acked == self.order.messages:
                    self.finished_at = now()
                    done.set()

        await self.run_until(done, [asyncio.ensure_future(loop()) for _ in range(self.order.in_flight)])
        if seen.left:
            raise RuntimeError(f"{len(seen.left)} messages did not come")

    async def run_until(self, done: asyncio.Event, tasks: List["asyncio.Future[Any]"]) -> None:
        """Runs tasks until the work is done, or one of them fails, and ends them."""
        waits = asyncio.ensure_future(done.wait())
        ended, _ = await asyncio.wait([waits, *tasks], timeout=PATIENCE_SECONDS, return_when=asyncio.FIRST_COMPLETED)
        failed = [task for task in ended if task is not waits and task.exception()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if failed:
            raise failed[0].exception()  # type: ignore[misc]
        if not done.is_set():
            raise RuntimeError("it takes too long")

    async def consume_with(self, client: Any, handler: Any, done: asyncio.Event, count: int) -> None:
        """A consumer with the default options, until the last ack is answered."""
        acked = 0
        if CLASSIC:  # it tells of no ack: its own calls are counted
            ack = client.ack

            async def counted(*given: Any, **more: Any) -> Any:
                nonlocal acked
                answer = await ack(*given, **more)
                if given[1] is not True or not answer["success"]:
                    raise RuntimeError(f"an ack of {given[1]} was answered with {answer}")
                acked += 1
                if acked == count:
                    self.finished_at = now()
                    done.set()
                return answer

            client.ack = counted
            # Without each() it hands over lists of a length that it chooses itself.
            consumer = client.queue(self.order.queue).each().consume(handler)
            await self.run_until(done, [asyncio.ensure_future(consumer)])
        else:  # the end of the consumer waits for the answers
            summary = await client.queue(self.order.queue).consume(handler, signal=done)
            self.finished_at = now()
            if summary["acked"] != count:
                raise RuntimeError(f"not all was acked: {summary}")

    async def consume(self, client: Any) -> None:
        seen, done = Seen(self.order.messages), asyncio.Event()

        async def handle(one: Any) -> None:
            seen.see([one])
            if not seen.left and not CLASSIC:
                done.set()

        await self.consume_with(client, handle, done, self.order.messages)

    async def latency(self, client: Any) -> float:
        """From the push to the handler, one message at a time, with a pause in which everything falls idle."""
        order, done = self.order, asyncio.Event()
        arrived: Optional["asyncio.Future[float]"] = None
        loop = asyncio.get_running_loop()

        async def handle(_: Any) -> None:
            assert arrived is not None
            arrived.set_result(now())

        count = order.warm_up + order.messages
        consumer = asyncio.ensure_future(self.consume_with(client, handle, done, count))
        await asyncio.sleep(0.5)
        cpu = 0.0
        for n in range(count):
            if n == order.warm_up:
                cpu, self.began = cpu_us(), now()
            await asyncio.sleep(0.02)
            arrived = loop.create_future()
            began = now()
            await client.queue(order.queue).partition("p0").push([message(n)])
            at = await asyncio.wait_for(arrived, PATIENCE_SECONDS)
            if n >= order.warm_up:
                self.took.append(at - began)
        if not CLASSIC:
            done.set()
        await consumer
        return cpu

    async def run(self) -> None:
        order = self.order
        batch = 100 if order.case == "push-batch-100" else 1
        async with contextlib.AsyncExitStack() as stack:
            client = queen.Queen(url=order.url)
            if CLASSIC:
                stack.push_async_callback(client.close)
            else:
                await stack.enter_async_context(client)
            pushes = order.case in ("push-seq", "push-single", "push-batch-100")
            if pushes and order.warm_up:
                await self.push_all(client, order.messages, order.warm_up, batch)
                self.took.clear()
            elif order.case == "push-buffered" and order.warm_up:
                await self.push_buffered(client, order.messages, order.warm_up)
            cpu, self.began = cpu_us(), now()
            if pushes:
                await self.push_all(client, 0, order.messages, batch)
            elif order.case == "push-buffered":
                await self.push_buffered(client, 0, order.messages)
            elif order.case == "pop-ack-100":
                await self.pop_ack(client)
            elif order.case == "consume":
                await self.consume(client)
            elif order.case == "latency-idle":
                cpu = await self.latency(client)
            else:
                raise SystemExit(f"unknown case {order.case}")
            self.report(cpu_us() - cpu)

    def report(self, cpu: float) -> None:
        took = sorted(self.took)

        def percentile(share: float) -> Optional[float]:
            return took[round((len(took) - 1) * share)] * 1e6 if took else None

        told = {
            "messages": self.order.messages,
            "seconds": self.finished_at - self.began,
            "cpu_us": cpu,
            "p50_us": percentile(0.50),
            "p99_us": percentile(0.99),
            "rss_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        }
        sys.__stdout__.write(json.dumps(told) + "\n")  # type: ignore[union-attr]


def main() -> None:
    flags = argparse.ArgumentParser()
    for name in ("url", "case", "queue"):
        flags.add_argument(f"--{name}", required=True)
    for name in ("in-flight", "partitions", "messages", "warm-up"):
        flags.add_argument(f"--{name}", type=int, required=True)
    subject = Subject(flags.parse_args())
    sys.stdout = sys.stderr  # the official package prints
    asyncio.run(subject.run())


main()
