#!/usr/bin/env python3
"""A broker that misbehaves on purpose: server.py MODE [--upstream HOST:PORT]

Prints `port N`, then obeys lines on stdin: `mode MODE` answers `ok`, `count` answers
`count N` (requests read so far; connections where none is read). It ends when stdin
closes, so a test that crashes leaves no orphan behind.

  refuse        the port is taken but nobody listens
  500           every request is answered 500; `500:3` does so three times, then `canned`
  reset         reads a request, then resets the connection; `reset:3` as above
  reset-early   resets each connection as soon as it is accepted
  garbage       answers bytes that are no HTTP
  badjson       answers 200 with a body that is no JSON
  half          announces a body, sends half of it and closes
  never         reads requests and never answers
  hold          answers like `canned`, but never a pop
  slow          answers like `canned`, but one byte at a time over about a second
  canned        takes pushes and acks, hands out one message to the first pop, then 204
  lost          answers like `canned`, but every lease is over as soon as it was given
  token-T       answers 401 unless the bearer token is T, then like `canned`
  forward       hands every request to --upstream
"""
import http.client
import json
import socket
import struct
import sys
import threading
import time
from urllib.parse import parse_qs, urlsplit

NOTHING, RESET, HANG = "nothing", "reset", "hang"


class Script:
    def __init__(self, mode, upstream):
        self.lock = threading.Condition()
        self.count = 0
        self.popped = False
        self.upstream = upstream
        self.listener = None
        self.listening = False
        self.port = 0
        self.set_mode(mode)

    def set_mode(self, mode):
        with self.lock:
            name, _, times = mode.partition(":")
            self.mode, self.left = name, int(times) if times else None
            if name == "refuse":
                if self.listener is not None:
                    # shutdown first: a thread blocked in accept would keep the socket listening
                    if self.listening:
                        self.listener.shutdown(socket.SHUT_RDWR)
                    self.listener.close()
                self.listener = self.bind()
                self.listening = False
            elif self.listener is None or not self.listening:
                self.listener = self.listener or self.bind()
                self.listener.listen(256)
                self.listening = True
                self.lock.notify_all()

    def bind(self):
        sock = socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(("127.0.0.1", self.port))
        self.port = sock.getsockname()[1]
        return sock

    def next_mode(self):
        """The mode of one more request: counts it, and counts a limited mode down."""
        with self.lock:
            self.count += 1
            if self.left is not None:
                if self.left == 0:
                    self.mode, self.left = "canned", None
                else:
                    self.left -= 1
            return self.mode

    def accept_forever(self):
        while True:
            with self.lock:
                while not self.listening:
                    self.lock.wait()
                listener = self.listener
            try:
                conn, _ = listener.accept()
            except OSError:
                continue
            threading.Thread(target=self.serve, args=(conn,), daemon=True).start()

    def serve(self, conn):
        try:
            conn.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            while True:
                if self.mode == "reset-early":
                    self.next_mode()
                    return reset(conn)
                request = read_request(conn)
                if request is None or self.answer(conn, self.next_mode(), *request) != NOTHING:
                    return
        except OSError:
            pass
        finally:
            conn.close()

    def answer(self, conn, mode, method, target, body, headers):
        if mode in ("reset", "reset-early", "refuse"):  # refuse: a connection kept from before
            reset(conn)
            return RESET
        if mode == "never" or (mode == "hold" and "/pop" in target):
            # held until the client gives up, so that nothing but its own deadline ends the call
            while conn.recv(65536):
                pass
            return HANG
        if mode == "garbage":
            conn.sendall(b"\x00\xff\xfe garbage \x01\x02\r\n\r\n\x80\x81")
            return RESET
        if mode == "half":
            conn.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
                         b"Content-Length: 4000\r\n\r\n" + b"[" + b" " * 1999)
            return RESET
        if mode == "500":
            status, text = 500, '{"error":"scripted failure"}'
        elif mode == "badjson":
            status, text = 200, '{"success":true,"messages":[{'
        elif mode.startswith("token-") and headers.get("authorization", "").strip() != "Bearer " + mode[6:]:
            status, text = 401, '{"error":"Token has expired"}'
        elif mode == "forward":
            status, text = self.forward(method, target, body)
        else:
            status, text = self.canned(target, body, mode == "lost")
        data = response(status, text)
        if mode == "slow":
            for i in range(len(data)):
                conn.sendall(data[i:i + 1])
                time.sleep(1.0 / len(data))
        else:
            conn.sendall(data)
        return NOTHING

    def canned(self, target, body, lost):
        url = urlsplit(target)
        path, query = url.path, parse_qs(url.query)
        if path.endswith("/push"):
            items = json.loads(body)["items"]
            return 201, json.dumps([
                {"index": i, "message_id": "0190-%d" % i, "queueName": item["queue"],
                 "transaction_id": item.get("transactionId") or "t%d" % i, "status": "queued"}
                for i, item in enumerate(items)])
        if "/pop" in path:
            with self.lock:
                first, self.popped = not self.popped, True
            if first:
                return 200, canned_pop(path, query)
            if query.get("wait") == ["true"]:
                time.sleep(0.1)  # a long poll that ends early: the consumer must poll anew
            return 204, ""
        if "/ack" in path:
            doc = json.loads(body)
            acks = doc.get("acknowledgments", [doc])
            return 200, json.dumps([
                {"index": i, "transactionId": a.get("transactionId"), "success": not lost,
                 "error": "invalid or expired lease" if lost else None,
                 "leaseReleased": True, "dlq": False, "noop": False} for i, a in enumerate(acks)])
        if path.endswith("/extend"):
            at = None if lost else "2099-01-01T00:00:00.000000Z"
            return 200, json.dumps({"leaseId": path.split("/")[-2], "success": not lost, "renewed": int(not lost),
                                    "newExpiresAt": at, "expiresAt": at, "lease_expires_at": at})
        if path.endswith("/health"):
            return 200, '{"status":"healthy","version":"1.3.0"}'
        return 404, '{"error":"Not Found","code":"no_such_route"}'

    def forward(self, method, target, body):
        conn = http.client.HTTPConnection(self.upstream, timeout=60)
        conn.request(method, target, body, {"Content-Type": "application/json"})
        answer = conn.getresponse()
        text = answer.read().decode()
        conn.close()
        return answer.status, text


def canned_pop(path, query):
    queue = path.split("/pop/queue/")[-1].split("/")[0]
    group = query.get("consumerGroup", ["__QUEUE_MODE__"])[0]
    common = {"partition": "Default", "partitionId": "p-1", "leaseId": "lease-1", "consumerGroup": group}
    message = {"id": "m-1", "transactionId": "t-1", "traceId": None, "data": {"canned": True},
               "producerSub": None, "createdAt": "2026-01-01T00:00:00.123456Z", **common}
    return json.dumps({"success": True, "queue": queue, **common, "messages": [message],
                       "partitionsClaimed": 1})


def response(status, text):
    if status == 204:
        return b"HTTP/1.1 204 No Content\r\n\r\n"
    body = text.encode()
    return (b"HTTP/1.1 %d Scripted\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
            % (status, len(body))) + body


def reset(conn):
    conn.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    conn.close()


def read_request(conn):
    data = b""
    while b"\r\n\r\n" not in data:
        more = conn.recv(65536)
        if not more:
            return None
        data += more
    head, _, body = data.partition(b"\r\n\r\n")
    lines = head.decode("latin-1").split("\r\n")
    method, target, _ = lines[0].split(" ", 2)
    headers = {name.lower(): value for name, value in (line.split(":", 1) for line in lines[1:])}
    if "chunked" in headers.get("transfer-encoding", ""):
        raise OSError("the scripted server reads no chunked requests")
    length = int(headers.get("content-length", "0"))
    while len(body) < length:
        more = conn.recv(65536)
        if not more:
            return None
        body += more
    return method, target, body, headers


def main():
    upstream = sys.argv[sys.argv.index("--upstream") + 1] if "--upstream" in sys.argv else None
    script = Script(sys.argv[1], upstream)
    threading.Thread(target=script.accept_forever, daemon=True).start()
    print("port %d" % script.port, flush=True)
    for line in sys.stdin:
        word, _, rest = line.strip().partition(" ")
        if word == "mode":
            script.set_mode(rest)
            print("ok", flush=True)
        elif word == "count":
            print("count %d" % script.count, flush=True)


if __name__ == "__main__":
    main()
