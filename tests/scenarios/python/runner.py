"""Runs scenarios with the Python binding: `BROKER URL FILE...`, see the README above."""

import asyncio
import contextvars
import itertools
import json
import logging
import os
import pathlib
import re
import sys
import time
from typing import Any, Callable, Dict, List, Optional, Tuple

from pattern import Wrong, fill, fit, matches, pointer

import queen
from queen._events import read_json
from queen._lib import compact, lib
from queen.message import Delivery, read_deliveries

PATIENCE_SECONDS = 30
PATIENCE_MILLIS = PATIENCE_SECONDS * 1000
# A field that is not known is a mistake.
STEP = set(
    "do client queue stream group aggregate partition as of reason name operation items options config parameters change verdicts acks operations "
    "handler faults step expect save timeoutMillis stopMillis millis within".split()
)
SNAKE = re.compile("([A-Z])")
RULE = {"payload", "call", "then", "reason", "status", "queue", "items", "sleepMillis"}
Outcome = Tuple[Any, Optional[Dict[str, Any]]]
numbers = itertools.count()
# The operations that a step in the background waits for: what `cancel` cancels.
under_way: "contextvars.ContextVar[List[int]]" = contextvars.ContextVar("under_way")


async def finish(client: queen.Queen, handle: Optional[int], read: Any = read_json) -> Any:
    """Waits for a future of the library."""
    cancellable = under_way.get([])
    cancellable.append(handle or 0)
    try:
        return await client.wait(handle, read)
    finally:
        cancellable.remove(handle or 0)


def payload(message: Any) -> Any:
    return json.loads(message.raw)


def describe(message: Any) -> Dict[str, Any]:
    fields = "queue partition partitionId leaseId consumerGroup id transactionId traceId".split()
    return {**{field: message[field] for field in fields}, "payload": payload(message)}


def tell(groups: List[List[Any]]) -> Dict[str, Any]:
    messages = [message for group in groups for message in group]
    return {
        "payloads": [payload(message) for message in messages],
        "messages": [describe(message) for message in messages],
        "deliveries": len(groups),
    }


class World:
    """What a scenario runs in, and how it does steps."""

    def __init__(self, broker: str, url: str) -> None:
        self.broker = queen.Broker() if broker == "embedded" else None
        self.url = self.broker.url if self.broker else url
        self.saved: Dict[str, Any] = {"queue": f"scenario-python-{os.getpid()}-{time.time_ns()}-{next(numbers)}"}
        self.clients: Dict[str, queen.Queen] = {}
        self.pops: Dict[str, List[List[Any]]] = {}
        self.reports: Dict[str, List[Any]] = {}
        self.running: Dict[str, "asyncio.Task[Outcome]"] = {}
        self.cancellable: Dict[str, List[int]] = {}
        self.open("main", {"retryDelayMillis": 5})

    def open(self, name: str, config: Dict[str, Any]) -> None:
        client = queen.Queen({**config, "url": self.url})
        reports = self.reports[name] = []
        client.on_report(lambda told, _dropped: reports.extend(told))
        self.clients[name] = client

    async def run(self, raw: Dict[str, Any]) -> None:
        """Does a step and looks at what comes of it."""
        step = fill(raw, self.saved)
        if set(step) - STEP or any(set(rule) - RULE for rule in step.get("handler", [])):
            raise Wrong(f"a field is not known: {step}")
        do = step["do"]
        if do == "start":
            cancellable = self.cancellable[step["name"]] = []
            under_way.set(cancellable)
            self.running[step["name"]] = asyncio.ensure_future(self.act(step["step"]))
            under_way.set([])
        elif do == "cancel":
            for handle in self.cancellable[step["name"]]:
                lib.queen_future_cancel(handle)
        elif do == "join":
            if step["name"] not in self.running:
                raise Wrong(f"{step['name']} does not run")
            self.judge(step, await self.running.pop(step["name"]))
        else:
            end = time.monotonic() + step.get("within", 0) / 1000
            while True:
                outcome = await self.act(step)
                try:
                    return self.judge(step, outcome)
                except Wrong:
                    if time.monotonic() >= end:
                        raise
                await asyncio.sleep(0.02)

    def judge(self, step: Dict[str, Any], outcome: Outcome) -> None:
        result, error = outcome
        expect = step.get("expect", {})
        wanted = expect.get("error")
        if wanted is None and error is not None:
            raise Wrong(f"failed: {error}")
        if wanted is not None and error is None:
            raise Wrong(f"went well with {result}, but {wanted} was wanted")
        if error is not None:
            matches(wanted, error["name"] if isinstance(wanted, str) else error, "error")
        if "result" in expect:
            matches(expect["result"], result, "result")
        for name, path in step.get("save", {}).items():
            self.saved[name] = pointer(result, path)

    async def act(self, step: Dict[str, Any]) -> Outcome:
        try:
            return await asyncio.wait_for(self.do(step), PATIENCE_SECONDS), None
        except queen.QueenError as error:
            told = getattr(error, "told", None) or error.result
            return told, {**error.details, "name": error.name, "message": str(error)}

    async def do(self, step: Dict[str, Any]) -> Any:
        do, name = step["do"], step.get("client", "main")
        queue, partition, options = step.get("queue"), step.get("partition"), step.get("options", {})
        if do == "open":
            return self.open(name, step.get("config", {}))
        if do.startswith("broker."):
            return await self.steer(do[len("broker.") :], step)
        client = self.clients[name]
        if do == "close":
            return await client.close(step.get("timeoutMillis", PATIENCE_MILLIS))
        if do == "push":
            body = compact(step.get("items"))
            return await finish(client, client.begin_push(queue or "", partition, body, {"classicItems": True, **options}))
        if do == "pop":
            popping = client.begin_pop(queue, partition, options)
            deliveries = await finish(client, popping, lambda future, _: list(read_deliveries(future)))
            groups = [client.messages(delivery) for delivery in deliveries]
            if "as" in step:
                self.pops[step["as"]] = groups
            return tell(groups)
        if do in ("ack", "nack", "settle"):
            return await self.each(client, step, self.verdict(step))
        if do == "release":
            for group in self.pops.pop(step["of"], []):
                group[0].delivery.release(group)
            return None
        if do == "lost":
            return self.pops[step["of"]][0][0].lost
        if do == "ack.ids":
            return await client.call("ack", acks=step["acks"], **options)
        if do == "transaction":
            return await self.transaction(client, step["operations"])
        if do == "consume":
            return await self.consume(client, step)
        if do == "windows":
            return await self.windows(client, step)
        if do == "flush":
            where = {"queue": queue, "partition": partition}
            await finish(client, client.begin_flush({key: value for key, value in where.items() if value is not None}))
            return None
        if do == "reports":
            return list(self.reports[name])
        if do == "statistics":
            return client.stats()
        if do == "call":
            return await client.call(step["operation"], **step.get("parameters", {}))
        if do == "sleep":
            return await asyncio.sleep(step["millis"] / 1000)
        raise Wrong(f"no such step here: {do}")

    def verdict(self, step: Dict[str, Any]) -> Callable[[Delivery], Optional[int]]:
        if step["do"] == "ack":
            return lambda delivery: lib.queen_delivery_ack(delivery.handle)
        if step["do"] == "nack":
            reason = step.get("reason")
            return lambda delivery: lib.queen_delivery_nack(delivery.handle, reason.encode() if reason else None)
        verdicts = compact(step["verdicts"])
        return lambda delivery: lib.queen_delivery_settle(delivery.handle, verdicts, len(verdicts))

    async def each(self, client: queen.Queen, step: Dict[str, Any], verdict: Callable[[Delivery], Optional[int]]) -> Any:
        """Gives a verdict on each delivery of a pop."""
        told: List[Any] = []
        for group in self.pops.get(step["of"], []):
            try:
                told += await finish(client, verdict(group[0].delivery))
            except queen.QueenError as error:
                error.told = told + (error.result or [])  # type: ignore[attr-defined]
                raise
        return told

    async def transaction(self, client: queen.Queen, operations: List[Dict[str, Any]]) -> Any:
        transaction = client.transaction()
        for one in operations:
            if "ack" in one:
                for group in self.pops.get(one["ack"], [])[:1]:
                    transaction.ack(group[one.get("index", 0)], one.get("status", "completed"))
            else:
                place = transaction.queue(one["push"])
                if "partition" in one:
                    place = place.partition(one["partition"])
                place.push(one["items"])
        return await finish(client, lib.queen_transaction_commit(transaction._handle, None))

    async def consume(self, client: queen.Queen, step: Dict[str, Any]) -> Any:
        options = dict(step.get("options", {}))
        options.update({key: step[key] for key in ("queue", "partition") if key in step})
        got: List[List[Any]] = []
        rules, stop = Rules(step), asyncio.Event()

        async def handle(what: Any) -> None:
            messages = what if isinstance(what, list) else [what]
            got.append(messages)
            rule = await rules.next(payload(messages[0]))
            if rule is not None:
                await react(client, rule, messages, stop)

        if "stopMillis" in step:
            asyncio.get_running_loop().call_later(step["stopMillis"] / 1000, stop.set)
        lists = options.get("batch", 1) > 1 and not options.get("each")
        consumer = queen.Consumer(client, options, lists, handle, stop).start()
        try:
            summary = await consumer.wait()
        except queen.QueenError as error:
            error.told = {**tell(got), "summary": error.result}  # type: ignore[attr-defined]
            raise
        return {**tell(got), "summary": summary}

    async def windows(self, client: queen.Queen, step: Dict[str, Any]) -> Any:
        got: List[Any] = []
        rules = Rules(step)

        async def handle(window: queen.Window) -> None:
            payloads = [message["data"] for message in window.messages]
            aggregates = window.aggregate(step.get("aggregate", {}))
            got.append({"key": window.key, "start": window.start, "payloads": payloads, "aggregates": aggregates})
            rule = await rules.next(window.key)
            if rule is not None and rule.get("then", "ack") != "ack":  # to raise is the nack
                raise RuntimeError(rule.get("reason", ""))

        options = {SNAKE.sub(r"_\1", key).lower(): value for key, value in step.get("options", {}).items()}
        try:
            summary = await client.consumer(step["stream"], step["group"]).process(handle, **options)
        except queen.QueenError as error:
            error.told = {"windows": got, "summary": error.result}  # type: ignore[attr-defined]
            raise
        return {"windows": got, "summary": summary}

    async def steer(self, what: str, step: Dict[str, Any]) -> Any:
        assert self.broker is not None
        change = step.get("change", {})
        steps: Dict[str, Callable[[], Any]] = {
            "add_faults": lambda: self.broker.add_faults(step["faults"]),
            "faults": self.broker.faults,
            "remove_faults": self.broker.heal,
            "requests": self.broker.requests,
            "reset_requests": self.broker.reset_requests,
            "clock": lambda: self.broker.move_clock(change.get("advanceMillis", 0), change.get("frozen")),
            "stop": lambda: self.broker.stop(PATIENCE_MILLIS),
            "kill": self.broker.kill,
            "restart": self.broker.restart,
        }
        if what not in steps:
            raise Wrong(f"no such step: broker.{what}")
        # They wait for the broker, which may wait for what runs in this loop.
        return await asyncio.get_running_loop().run_in_executor(None, steps[what])

    async def end(self) -> None:
        """Ends what is left."""
        for task in self.running.values():
            task.cancel()
        await asyncio.gather(*self.running.values(), return_exceptions=True)
        for groups in self.pops.values():
            for group in groups:
                group[0].delivery.release(group)
        for client in self.clients.values():
            await asyncio.wait_for(client.close(PATIENCE_MILLIS), 2 * PATIENCE_SECONDS)
        if self.broker:
            self.broker.release()


class Rules:
    """The rules of a handler, and how often each payload came."""

    def __init__(self, step: Dict[str, Any]) -> None:
        self.rules: List[Dict[str, Any]] = step.get("handler", [])
        self.calls: Dict[str, int] = {}

    async def next(self, first: Any) -> Optional[Dict[str, Any]]:
        """The one that decides on this call, once its time to sleep is over."""
        key = json.dumps(first)
        call = self.calls[key] = self.calls.get(key, 0) + 1
        for rule in self.rules:
            if ("payload" not in rule or fit(rule["payload"], first)) and rule.get("call", call) == call:
                await asyncio.sleep(rule.get("sleepMillis", 0) / 1000)
                return rule
        return None


async def react(client: queen.Queen, rule: Dict[str, Any], messages: List[Any], stop: asyncio.Event) -> None:
    then, reason = rule.get("then", "ack"), rule.get("reason", "")
    if then == "nack":
        await client.ack(messages, False, {"error": reason})
    elif then == "throw":
        raise RuntimeError(reason)
    elif then == "stop":
        stop.set()
    elif then == "settle":
        await messages[0].ack(rule["status"], reason)
    elif then == "transaction":
        transaction = client.transaction().ack(messages[0])
        await transaction.queue(rule["queue"]).push(rule["items"]).commit()
    elif then != "ack":
        raise Wrong(f"no such rule: {then}")


async def scenario(broker: str, url: str, file: str) -> None:
    steps = json.loads(pathlib.Path(file).read_text())["steps"]
    world = World(broker, url)
    try:
        for n, step in enumerate(steps):
            try:
                await world.run(step)
            except Exception as error:
                raise Wrong(f"step {n + 1} ({step.get('do')}): {error if isinstance(error, Wrong) else repr(error)}") from error
    finally:
        await world.end()


def main() -> None:
    logging.getLogger("queen").setLevel(logging.CRITICAL)  # handlers that fail are a part of scenarios
    broker, url, *files = sys.argv[1:]
    for file in files:
        name = pathlib.Path(file).stem
        try:
            asyncio.run(scenario(broker, url, file))
            print(f"ok {name}", flush=True)
        except Exception as error:
            print(f"FAILED {name}: {' '.join(str(error).split())}", flush=True)


main()
