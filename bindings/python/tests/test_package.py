"""The package itself: what it was built from, and that nothing was forgotten."""

from __future__ import annotations

import ast
import importlib.metadata
import inspect
import json
import pickle
import re
import subprocess
import sys
from pathlib import Path
from typing import Any, get_type_hints

import pytest

import queen
import queen.sync
from queen import _native, admin, errors
from queen._lib import lib
from queen.message import camel
from queen.types import Settings

CLONE = Path(__file__).resolve().parents[3]
HERE = Path(__file__).resolve().parents[1]


def test_j1_j3_p8_version_and_public_names() -> None:
    assert queen.__version__ == _native.QUEEN_VERSION_STRING == importlib.metadata.version("libqueen")
    for name in queen.__all__:
        assert hasattr(queen, name)
    classic = ["Queen", "Message", "AckResponse", "BufferStats", "DLQResponse", "TransactionResponse"]
    assert set(classic) <= set(queen.__all__) and (Path(queen.__file__).parent / "py.typed").is_file()  # P8


def test_every_code_of_the_header_has_its_exception() -> None:
    codes = {getattr(_native, name): name for name in dir(_native) if name.startswith("QUEEN_E_")}
    assert {code: name for code, (name, _) in errors._TABLE.items()} == codes
    assert len({kind for _, kind in errors._TABLE.values()}) == len(codes)
    for code, (name, kind) in errors._TABLE.items():
        error = errors.make_error(code, "text", {"outcome": "unknown", "retriable": True})
        assert type(error) is kind and error.name == name and str(error) == "text" and error.code == code
        again = pickle.loads(pickle.dumps(error))
        assert (type(again), again.code, str(again), again.outcome) == (kind, code, "text", "unknown")
        assert hasattr(queen, kind.__name__)


def test_every_setting_of_the_documentation_is_known() -> None:
    text = (CLONE / "docs" / "CONFIGURATION.md").read_text(encoding="utf-8").split("## URLs")[0]
    documented = set(re.findall(r"^\| `(\w+)` \|", text, flags=re.M))
    assert {camel(name) for name in get_type_hints(Settings)} == documented


def test_every_consumer_option_of_the_documentation_has_a_method() -> None:
    text = (CLONE / "docs" / "CONFIGURATION.md").read_text(encoding="utf-8").split("## Consumers")[1]
    documented = set(re.findall(r"^\| `(\w+)` \|", text, flags=re.M)) - {"queue"}
    methods = {camel(name) for name in dir(queen.QueueBuilder)} | {"consumerGroup"}  # group()
    assert documented <= methods


def test_every_operation_of_the_library_can_be_called() -> None:
    sys.path.insert(0, str(HERE))
    try:
        import operations
    finally:
        sys.path.pop(0)
    catalogue = json.loads(lib.queen_operations_json(None) or b"")
    for operation in catalogue:
        if operation["name"] not in operations.ELSEWHERE:
            method = getattr(admin.Admin, operation["name"].replace(".", "_"))
            given = set(inspect.signature(method).parameters) - {"self"}
            assert given == {operations.snake(parameter["name"]) for parameter in operation["parameters"]}
    written = (HERE / "queen" / "admin.py").read_text(encoding="utf-8")
    assert operations.module(catalogue) == written, "queen/admin.py is out of date: run tests/python/run generate"


async def test_admin_methods_reach_the_broker(queen_client: Any, name: str) -> None:
    async with queen_client() as client:
        await client.queue(name).push(1)
        listed = await client.admin.message_list(queue=name)
        assert listed["messages"][0]["data"] == 1
        assert (await client.admin.queue_depth(name))["queue"] == name
        assert (await client.call("queue.get", queue=name))["name"] == name
        with pytest.raises(LookupError, match=r"no\.such"):
            await client.call("no.such")
        with pytest.raises(ValueError, match="nonsense"):
            await client.call("queue.get", queue=name, nonsense=1)


def test_both_clients_have_the_same_names() -> None:
    def public(thing: type) -> set:
        return {name for name in dir(thing) if not name.startswith("_")}

    assert public(queen.Queen) - public(queen.sync.Queen) == {"settle", "take", "wait"}  # how the asyncio client waits
    assert public(queen.sync.Queen) - public(queen.Queen) == set()
    assert public(queen.QueueBuilder) - public(queen.sync.QueueBuilder) == {"start", "stream_messages"}
    assert public(queen.sync.QueueBuilder) - public(queen.QueueBuilder) == {"messages"}


def test_no_statement_prints() -> None:
    for path in Path(queen.__file__).parent.rglob("*.py"):
        calls = [node for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(node, ast.Call)]
        assert not [call for call in calls if isinstance(call.func, ast.Name) and call.func.id == "print"], path


def test_python_m_queen() -> None:
    told = json.loads(subprocess.check_output([sys.executable, "-m", "queen", "--json"]))
    assert told["version"] == queen.__version__ and told["libraryVersion"] and told["embeddedBroker"] is True
    text = subprocess.check_output([sys.executable, "-m", "queen"], text=True)
    assert "embeddedBroker  True" in text
    assert subprocess.run([sys.executable, "-m", "queen", "--no"], capture_output=True, check=False).returncode == 2


def test_the_fixture_and_its_faults(queen_broker: queen.Broker, name: str) -> None:
    with queen_broker.sync_client() as client:
        fault = queen_broker.fault("cutAfterCommit", "push", times=1)
        client.queue(name).push(1)
        assert queen_broker.applied(fault) == 1 and queen_broker.requests()["push"] == 2
        assert queen_broker.faults()[0]["id"] == fault
        queen_broker.heal()
        queen_broker.reset_requests()
        assert queen_broker.requests().get("push", 0) == 0
        assert len(client.queue(name).pop()) == 1 and client.queue(name).pop() == []
        queen_broker.move_clock(301_000)
        assert len(client.queue(name).pop()) == 1
        assert queen_broker.move_clock(frozen=True)["frozen"] is True
        queen_broker.kill()
        queen_broker.restart()
        queen_broker.stop()
        with pytest.raises(queen.QueenInvalidStateError, match="is stopped"):
            queen_broker.fault("hang")
        queen_broker.restart()
        with pytest.raises(LookupError, match="no fault 99"):
            queen_broker.applied(99)


def test_a_broker_that_listens(name: str) -> None:
    with queen.Broker(listen=["127.0.0.1:0"]) as broker, queen.sync.Queen(broker.addresses) as client:
        assert client.queue(name).push(1) and broker.addresses[0].startswith("http://127.0.0.1:")
    with pytest.raises(queen.QueenConfigError, match="nonsense"):
        queen.Broker(nonsense=1)
