#!/usr/bin/env python3
"""Can a binding for asyncio be written over the C ABI alone? One thread, no callback, no thread of
its own: loop.add_reader on the event queue's descriptor. usage: asyncio_probe.py LIBQUEEN_SO [URL]"""
import asyncio
import ctypes
import json
import os
import sys
import threading
import time

FUTURE, DELIVERY, ENDED = 1, 2, 3
CANCELLED, CLOSED = -202, -203
P, S, U64, I64, I32, SIZE = (ctypes.c_void_p, ctypes.c_char_p, ctypes.c_uint64, ctypes.c_int64,
                             ctypes.c_int32, ctypes.c_size_t)
MEASURE = SIZE(-1).value


class Event(ctypes.Structure):
    _fields_ = [("type", I32), ("code", I32), ("tag", U64), ("json", S), ("json_len", SIZE),
                ("object", P), ("event_size", SIZE)]


def load(path):
    lib = ctypes.CDLL(path)
    for name, result, *arguments in [
            ("version_number", ctypes.c_uint32), ("shutdown", I32, I64),
            ("client_new", P, S, SIZE, P), ("client_close", P, P, I64), ("client_free", None, P),
            ("push", P, P, S, S, S, SIZE, S), ("pop", P, P, S, S, S), ("call", P, P, S, S, SIZE),
            ("future_deliver", I32, P, P, U64), ("future_cancel", I32, P), ("future_free", None, P),
            ("future_error", P, P), ("future_take_delivery", P, P), ("error_message", S, P),
            ("event_queue_new", P), ("event_queue_fd", I32, P), ("event_queue_free", None, P),
            ("event_queue_poll", I64, P, ctypes.POINTER(Event), SIZE, SIZE, I64),
            ("event_take_delivery", P, ctypes.POINTER(Event)),
            ("events_free", None, ctypes.POINTER(Event), SIZE),
            ("consume_events", P, P, S, SIZE, P, U64, P), ("consumer_stop", P, P, I64),
            ("consumer_free", None, P), ("delivery_json", S, P, P), ("delivery_ack", P, P),
            ("delivery_nack", P, P, S), ("delivery_free", None, P)]:
        function = getattr(lib, "queen_" + name)
        function.restype, function.argtypes = result, arguments
    return lib


class QueenError(Exception):
    def __init__(self, code, message):
        super().__init__(message)
        self.code = code


class Queue:
    """The event queue as asyncio sees it: a descriptor, and a table from tags to waiters."""

    def __init__(self, lib):
        self.lib, self.loop = lib, asyncio.get_running_loop()
        self.handle = lib.queen_event_queue_new()
        self.waiters, self.consumers, self.next_tag = {}, {}, 1
        self.batch = (Event * 16)()
        self.fd = lib.queen_event_queue_fd(self.handle)
        self.loop.add_reader(self.fd, self.on_readable)

    def tag(self):
        self.next_tag += 1
        return self.next_tag

    def on_readable(self):
        # one batch for each wake: what remains keeps the descriptor readable
        count = self.lib.queen_event_queue_poll(self.handle, self.batch, ctypes.sizeof(Event), 16, 0)
        for i in range(count):
            event = self.batch[i]
            if event.type == FUTURE:
                self.finish(self.waiters.pop(event.tag), event)
            elif event.type == DELIVERY:
                self.consumers[event.tag].put_nowait(self.lib.queen_event_take_delivery(ctypes.byref(event)))
            elif event.type == ENDED:
                self.consumers[event.tag].put_nowait(json.loads(event.json))
        self.lib.queen_events_free(self.batch, count)

    def finish(self, waiter, event):
        if event.code != 0:
            error = self.lib.queen_future_error(event.object)
            result = QueenError(event.code, self.lib.queen_error_message(error).decode())
        elif event.json is None:  # a pop
            result = self.lib.queen_future_take_delivery(event.object)
        else:
            result = json.loads(event.json)
        if waiter.cancelled():
            return
        if isinstance(result, QueenError):
            waiter.set_exception(result)
        else:
            waiter.set_result(result)

    def send(self, future):
        """Takes a queen_future_t; an awaitable whose cancel() reaches the library."""
        tag, waiter = self.tag(), self.loop.create_future()
        self.waiters[tag] = waiter
        check("deliver", self.lib.queen_future_deliver(future, self.handle, tag) == 0)

        async def wait():
            try:
                return await asyncio.shield(waiter)
            except asyncio.CancelledError:
                self.lib.queen_future_cancel(future)
                try:
                    await waiter  # it still completes once
                except QueenError as error:
                    cancelled_with.append(error.code)
                raise
            finally:
                self.lib.queen_future_free(future)
        return wait()

    def free(self):
        self.loop.remove_reader(self.fd)  # watchers are removed before the queue is freed
        self.lib.queen_event_queue_free(self.handle)


passed, failed, cancelled_with = 0, 0, []


def check(what, good):
    global passed, failed
    if good:
        passed += 1
    else:
        failed += 1
        print("asyncio probe: failed:", what)


async def walk(lib, url):
    name = "asyncio-%d-%d" % (os.getpid(), time.time_ns())
    queue, client = Queue(lib), lib.queen_client_new(url.encode(), MEASURE, None)
    check("client", client is not None)
    results = await asyncio.gather(*[  # many in flight at once
        queue.send(lib.queen_push(client, name.encode(), b"p%d" % (i % 3), b'[{"payload":{"n":%d}}]' % i, MEASURE, None))
        for i in range(50)])
    check("every push queued", all(r[0]["status"] == "queued" for r in results))
    try:
        await queue.send(lib.queen_push(client, b"", None, b"[]", MEASURE, None))
        check("an empty queue name is refused", False)
    except QueenError as error:
        check("the refusal has a message", len(str(error)) > 0)

    waiting = asyncio.ensure_future(queue.send(lib.queen_pop(  # cancel a long poll
        client, b"none-" + name.encode(), None, b'{"wait":true,"pollTimeoutMillis":30000}')))
    await asyncio.sleep(0.1)
    start = time.monotonic()
    waiting.cancel()
    done, _ = await asyncio.wait([waiting])
    check("the task is cancelled", waiting.cancelled())
    check("the future too", cancelled_with == [CANCELLED])
    check("at once", time.monotonic() - start < 10)

    tag, numbers = queue.tag(), []
    inbox = queue.consumers[tag] = asyncio.Queue()
    consumer = lib.queen_consume_events(
        client, json.dumps({"queue": name, "concurrency": 3, "batch": 4}).encode(), MEASURE, queue.handle, tag, None)
    check("consumer", consumer is not None)
    nacked = False
    while len(numbers) < 50:
        delivery = await asyncio.wait_for(inbox.get(), 30)
        messages = json.loads(lib.queen_delivery_json(delivery, None))["messages"]
        if not nacked:
            nacked = True  # the whole delivery comes again
            await queue.send(lib.queen_delivery_nack(delivery, b"once more"))
        else:
            numbers += [message["data"]["n"] for message in messages]
            await queue.send(lib.queen_delivery_ack(delivery))
        lib.queen_delivery_free(delivery)
    check("each message once", sorted(numbers) == list(range(50)))
    check("in order", all([n for n in numbers if n % 3 == p] == list(range(p, 50, 3)) for p in range(3)))

    summary = await queue.send(lib.queen_consumer_stop(consumer, 30000))
    check("stopped", summary["reason"] == "stopped" and summary["acked"] == 50)
    check("the end is told as an event", (await asyncio.wait_for(inbox.get(), 30))["reason"] == "stopped")
    lib.queen_consumer_free(consumer)

    late = asyncio.ensure_future(queue.send(lib.queen_pop(
        client, b"none-" + name.encode(), None, b'{"wait":true,"pollTimeoutMillis":30000}')))
    await asyncio.sleep(0)
    await queue.send(lib.queen_client_close(client, 30000))
    try:
        await late
        check("close ends a long poll", False)
    except QueenError as error:
        check("close ends a long poll", error.code == CLOSED)
    check("nothing is left waiting", not queue.waiters)
    lib.queen_client_free(client)
    queue.free()
    check("no thread of its own", threading.active_count() == 1)
    check("shutdown", lib.queen_shutdown(30000) == 0)


if __name__ == "__main__":
    asyncio.run(asyncio.wait_for(walk(load(sys.argv[1]), sys.argv[2] if len(sys.argv) > 2 else "embedded:"), 120))
    print("asyncio probe: %d passed, %d failed" % (passed, failed))
    sys.exit(failed != 0)
