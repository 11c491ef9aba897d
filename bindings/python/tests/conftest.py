"""Tests run on the embedded broker, and on those that QUEEN_TCP_URL and QUEEN_OFFICIAL_URL name. Coroutine tests get a loop."""

from __future__ import annotations

import asyncio
import gc
import inspect
import itertools
import os
import time
from typing import Any, AsyncIterator, Callable, Iterator, List

import pytest

import queen
import queen.sync

PATIENCE_SECONDS = 60
numbers = itertools.count()


def brokers() -> List[Any]:
    """Where contract tests run."""
    urls = {"embedded": "embedded:"}
    for name in ("tcp", "official"):
        url = os.environ.get(f"QUEEN_{name.upper()}_URL")
        if url:
            urls[name] = url
    return [pytest.param(url, id=name) for name, url in urls.items()]


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: Any) -> Any:
    """Runs a coroutine test in a loop of its own, with a deadline."""
    if not inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    arguments = {name: pyfuncitem.funcargs[name] for name in pyfuncitem._fixtureinfo.argnames}

    async def run() -> None:
        await asyncio.wait_for(pyfuncitem.obj(**arguments), PATIENCE_SECONDS)

    asyncio.run(run())
    return True


@pytest.fixture(params=brokers())
def url(request: Any) -> str:
    return str(request.param)


@pytest.fixture
def name() -> str:
    """A queue that no other test has."""
    return f"py-{os.getpid()}-{time.time_ns()}-{next(numbers)}"


@pytest.fixture
def queen_client(url: str) -> Iterator[Callable[..., queen.Queen]]:
    """Makes clients of the broker under test."""
    made: List[queen.Queen] = []

    def make(**settings: Any) -> queen.Queen:
        made.append(queen.Queen(url, **settings))
        return made[-1]

    yield make
    assert all(client._closed for client in made), "a test has left its client open"


@pytest.fixture
def sync_client(url: str) -> Iterator[queen.sync.Queen]:
    with queen.sync.Queen(url) as client:
        yield client


@pytest.fixture(autouse=True)
def nothing_is_left() -> Iterator[None]:
    """No warning of a client that was not closed comes from a test, and none goes to the next one."""
    yield
    gc.collect()


async def eventually(what: Callable[[], Any], seconds: float = 20) -> Any:
    """Waits until it is so."""
    end = time.monotonic() + seconds
    while True:
        found = what()
        if inspect.isawaitable(found):
            found = await found
        if found:
            return found
        assert time.monotonic() < end, "it does not come"
        await asyncio.sleep(0.01)


async def take(stream: AsyncIterator[Any], count: int) -> List[Any]:
    """The first messages of an iterator."""
    found: List[Any] = []
    async for message in stream:
        found.append(message)
        if len(found) == count:
            break
    return found
