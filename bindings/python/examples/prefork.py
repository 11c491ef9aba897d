"""A web application under a server that forks, such as gunicorn: each worker has a client of its own.

    QUEEN_URL=http://localhost:6632 gunicorn --workers 4 prefork:application

The client is made by the first request of a worker, which is behind the fork. Run as a program, this file forks two workers
itself and lets each handle a request.
"""

import functools
import os
from typing import Any, Callable, Iterable

import queen
import queen.sync


@functools.cache
def client_of(_process: int) -> queen.sync.Queen:
    return queen.sync.Queen(os.environ["QUEEN_URL"])


def application(environ: dict, start_response: Callable[..., Any]) -> Iterable[bytes]:
    (stored,) = client_of(os.getpid()).queue("requests").push({"data": {"path": environ["PATH_INFO"]}}) or [{}]
    start_response("202 Accepted", [("Content-Type", "text/plain")])
    return [stored["transactionId"].encode()]


def main() -> None:
    with queen.Broker(listen="127.0.0.1:0", testing=False) as broker:
        os.environ["QUEEN_URL"] = broker.addresses[0]
        application({"PATH_INFO": "/parent"}, lambda *_: None)  # the parent has a client too
        for number in range(2):
            worker = os.fork()
            if worker == 0:
                application({"PATH_INFO": f"/worker/{number}"}, lambda *_: None)
                client_of(os.getpid()).close()
                os._exit(0)
            assert os.waitpid(worker, 0)[1] == 0
        with client_of(os.getpid()) as client:
            print(sorted(message.data["path"] for message in client.queue("requests").batch(10).pop()))


if __name__ == "__main__":
    main()
