"""Fixtures for pytest, found by it once the package is installed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Iterator

import pytest

if TYPE_CHECKING:
    from .broker import Broker


@pytest.fixture
def queen_broker() -> Iterator[Broker]:
    """A broker in memory for one test, whose faults and clock the test steers; see queen.Broker."""
    from .broker import Broker

    with Broker() as broker:
        yield broker
