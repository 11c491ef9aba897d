"""What payloads may be, and what becomes of them."""

from __future__ import annotations

import dataclasses
import datetime
import decimal
import json
import uuid
from typing import Any, List, Optional

import pytest

import queen
import queen.sync


@dataclasses.dataclass
class Order:
    number: int
    lines: List[str]
    parent: Optional[Order] = None


def round_trip(name: str, items: Any, **settings: Any) -> List[Any]:
    with queen.sync.Queen("embedded:", **settings) as client:
        client.queue(name).push(items)
        return client.queue(name).batch(100).pop()


def test_ready_json_goes_through_byte_for_byte(name: str) -> None:
    ready = b'{ "z": 1.50,  "a": 12345678901234567890123 }'
    messages = round_trip(
        name, [ready, {"data": ready, "transactionId": "t"}, {"payload": bytearray(b"[1]")}, memoryview(b"2")]
    )
    assert [message.raw for message in messages] == [ready, ready, b"[1]", b"2"]
    assert messages[1].transaction_id == "t" and messages[0].data["z"] == 1.5


def test_a_circle_is_refused(name: str) -> None:
    circle: List[Any] = [1]
    circle.append({"again": circle})
    with queen.sync.Queen("embedded:") as client:
        for items in (circle, [circle], {"data": circle}):
            with pytest.raises(queen.QueenInvalidJsonError, match="recursion"):
                client.queue(name).push(items)
        client.queue(name).push({"data": 1})
        assert [message.data for message in client.queue(name).batch(9).pop()] == [1]


def test_dataclasses_uuids_times_and_models(name: str) -> None:
    one = uuid.uuid4()
    at = datetime.datetime(2026, 1, 2, tzinfo=datetime.timezone.utc)
    messages = round_trip(
        name, [{"data": Order(1, ["a"], Order(2, []))}, Order(3, []), {"data": {"id": one, "at": at}}]
    )
    assert messages[0].data == {"number": 1, "lines": ["a"], "parent": {"number": 2, "lines": [], "parent": None}}
    assert messages[1].data["number"] == 3 and messages[2].data == {"id": str(one), "at": at.isoformat()}


def test_pydantic_models(name: str) -> None:
    pydantic = pytest.importorskip("pydantic", reason="pydantic is not installed")

    class Model(pydantic.BaseModel):  # type: ignore[misc,name-defined]
        when: datetime.date
        name: str

    (message,) = round_trip(name, {"data": Model(when=datetime.date(2026, 1, 2), name="n")})
    assert message.data == {"when": "2026-01-02", "name": "n"}


def test_orjson_writes_and_reads(name: str) -> None:
    orjson = pytest.importorskip("orjson", reason="orjson is not installed")
    messages = round_trip(name, [orjson.dumps({"n": 1}), {"data": {"n": 2}}], dumps=orjson.dumps, loads=orjson.loads)
    assert [message.data for message in messages] == [{"n": 1}, {"n": 2}]


def test_a_default_of_ones_own(name: str) -> None:
    def default(value: Any) -> Any:
        if isinstance(value, decimal.Decimal):
            return str(value)
        raise TypeError(f"no {type(value).__name__}")

    (message,) = round_trip(name, {"data": decimal.Decimal("1.10")}, default=default)
    assert message.data == "1.10"


@pytest.mark.parametrize("bad", [object(), {"data": {1, 2}}, float("nan"), {"data": "\ud800"}])
def test_what_cannot_be_json_is_told(name: str, bad: Any) -> None:
    with queen.sync.Queen("embedded:") as client, pytest.raises(queen.QueenInvalidJsonError, match="the payload"):
        client.queue(name).push(bad)


def test_payloads_are_parsed_on_first_use_only(name: str) -> None:
    read: List[bytes] = []

    def loads(raw: bytes) -> Any:
        read.append(raw)
        return json.loads(raw)

    first, second = round_trip(name, [1, 2], loads=loads)
    assert first.raw == b"1" and first.transaction_id and read == []
    assert first.data == 1 and first.data == 1 and read == [b"1"]
    assert second["partition"] == "Default" and read == [b"1"]


def test_large_and_wide_texts(name: str) -> None:
    text = "ä😀\u0000\n" * 100_000
    (message,) = round_trip(name, {"data": {"text": text}})
    assert message.data["text"] == text


def test_names_of_every_kind(sync_client: queen.sync.Queen, name: str) -> None:
    odd = f"{name} a/b?c#d%ä😀"
    sync_client.queue(odd).partition("p/ä").push(1)
    (message,) = sync_client.queue(odd).partition("p/ä").wait(True).pop()
    assert message.queue == odd and message.partition == "p/ä"
    message.ack()
    assert sync_client.queue(odd).delete()["deleted"] is True
    with pytest.raises(ValueError, match="NUL"):
        sync_client.queue("a\0b").push(1)
    with pytest.raises(TypeError, match="queue must be a string"):
        sync_client.queue(5).push(1)  # type: ignore[arg-type]
