"""Code that was written for the classic client, feature by feature. The numbers are rows of tests/parity-rows.csv."""

from __future__ import annotations

import asyncio
import logging
from typing import Any, List

import pytest
from conftest import eventually

import queen
from queen import Queen


async def test_m1_m2_m3_m4_c62_p1_every_way_to_make_a_client() -> None:
    for made in (
        Queen("embedded:"),
        Queen(["http://127.0.0.1:1", "http://127.0.0.1:2"]),
        Queen({"url": "embedded:", "timeout_millis": 1000}),
        Queen({"urls": ["http://127.0.0.1:1"], "timeoutMillis": 1000}),
        Queen(url="embedded:", retry_attempts=5),
        Queen(urls=["http://127.0.0.1:1"], load_balancing_strategy="round-robin", affinity_hash_ring=64),
    ):
        await made.close()
    with pytest.raises(ValueError, match="Must provide urls or url in configuration"):
        Queen()
    with pytest.raises(ValueError, match="from int: 5"):
        Queen(5)  # type: ignore[arg-type]


async def test_c62_keywords_count_beside_a_url(queen_broker: queen.Broker, name: str) -> None:
    queen_broker.release()
    with queen.Broker(tokens=["secret"]) as broker:
        async with broker.client() as client:
            with pytest.raises(queen.QueenUnauthorizedError):
                await client.queue(name).push(1)
        async with broker.client(bearer_token="secret") as client:
            await client.queue(name).push(1)
        async with Queen([broker.url], bearer_token="secret") as client:
            await client.queue(name).push(1)
    with pytest.raises(queen.QueenConfigError, match="bearerTokn"):
        Queen("embedded:", bearer_tokn="secret")  # type: ignore[call-arg]


async def test_m14_p3_q1_q2_q3_q4_q23_create_and_delete(queen_client: Any, name: str) -> None:
    async with queen_client() as client:
        told: List[Any] = []

        async def remember(what: Any) -> None:
            told.append(what)

        made = await client.queue(name).config({"lease_time": 7, "retryLimit": 9}).create().on_success(remember)
        assert made["configured"] is True and told == [made]
        assert made["options"]["leaseTime"] == 7 and made["options"]["retryLimit"] == 9
        gone = await client.queue(name).delete()
        assert gone["deleted"] is True
        failed = await client.queue("bad\nname").delete().on_error(remember)
        assert failed["success"] is False and isinstance(told[-1], queen.QueenError)
        with pytest.raises(queen.QueenError):
            await client.queue("bad\nname").delete()
        for nameless in ("delete", "push", "dlq"):
            with pytest.raises(ValueError, match="Queue name is required"):
                getattr(client.queue(), nameless)(*([1] if nameless == "push" else []))


async def test_q5_q6_q7_q8_c28_p9_push_takes_any_item(queen_client: Any, name: str) -> None:
    async with queen_client() as client:
        queue = client.queue(name).partition("p")
        results = await queue.push(
            [
                {"data": {"n": 1}, "transactionId": "own"},
                {"payload": None},
                {"n": 3},
                "text",
                None,
                4.5,
                [6, 7],
            ]
        )
        assert [one["status"] for one in results] == ["queued"] * 7
        assert results[0]["transactionId"] == results[0]["transaction_id"] == "own"
        assert results[0]["message_id"] == results[0]["messageId"] and results[1]["transactionId"]
        assert (await queue.push({"data": 8}))[0]["status"] == "queued"
        with pytest.raises(ValueError, match="traceId is `t`; it must be a UUID"):
            await queue.push({"data": 1, "traceId": "t"})
        messages = await queue.batch(10).wait(True).pop()
        assert [message["data"] for message in messages] == [{"n": 1}, None, {"n": 3}, "text", None, 4.5, [6, 7], 8]
        first = messages[0]
        assert (
            first["transactionId"] == "own" and first["partition"] == "p" and first["partitionId"] and first["leaseId"]
        )
        assert first["createdAt"] and first["id"] and first["queue"] == name
        assert (await client.ack(messages))["success"] is True


async def test_q21_e4_callbacks_of_a_push(queen_client: Any, name: str) -> None:
    async with queen_client() as client:
        told: List[Any] = []

        async def success(items: Any) -> None:
            told.append(("success", items))

        async def duplicate(items: Any, error: Exception) -> None:
            told.append(("duplicate", items, str(error)))

        async def failed(items: Any, error: Exception) -> None:
            told.append(("error", items, error))

        queue = client.queue(name)
        await queue.push({"data": 1, "transactionId": "one"}).on_success(success)
        assert told[0][0] == "success" and told[0][1][0]["transactionId"] == "one" and told[0][1][0]["payload"] == 1
        again = [{"data": 1, "transactionId": "one"}, {"data": 2, "transactionId": "two"}]
        results = await queue.push(again).on_success(success).on_duplicate(duplicate).on_error(failed)
        assert [one["status"] for one in results] == ["duplicate", "queued"]
        assert [one[0] for one in told[1:]] == ["duplicate", "success"]
        assert told[1][1][0]["transactionId"] == "one" and "Duplicate" in told[1][2]
        assert await queue.push({"data": 1, "transactionId": "x" * 70000}).on_error(failed) is None
        assert told[-1][0] == "error" and isinstance(told[-1][2], queen.QueenError)
        with pytest.raises(queen.QueenError):
            await queue.push({"data": 1, "transactionId": "x" * 70000})


async def test_c30_a_push_that_nobody_awaits_warns_and_one_awaited_twice_is_sent_once(
    queen_client: Any, name: str
) -> None:
    async with queen_client() as client:
        with pytest.warns(RuntimeWarning, match=f"push to {name}/Default was never awaited"):
            client.queue(name).push(1)
        push = client.queue(name).push(2)
        assert await push == await push
        assert [message["data"] for message in await client.queue(name).batch(10).wait(True).pop()] == [2]


async def test_q10_q11_q13_c2_c22_d27_pop_tells_an_outage_from_an_empty_queue(
    queen_broker: queen.Broker, name: str
) -> None:
    async with queen_broker.client(retry_attempts=1) as client:
        assert await client.queue(name).pop() == []  # at once: it does not wait unless it is told to
        await client.queue(name).push([1, 2, 3])
        assert [message["data"] for message in await client.queue(name).batch(2).pop()] == [1, 2]
        for status, kind in [
            (401, queen.QueenUnauthorizedError),
            (403, queen.QueenForbiddenError),
            (500, queen.QueenBrokerError),
        ]:
            fault = queen_broker.fault("status", "pop", status=status)
            with pytest.raises(kind):
                await client.queue(name).pop()
            queen_broker.heal(fault)
        queen_broker.stop()
        with pytest.raises(queen.QueenConnectionError):
            await client.queue(name).pop()
        with pytest.raises(ValueError, match="Must specify queue, namespace, or task"):
            await client.queue().pop()


async def test_q9_q12_d29_c22_pop_by_namespace_and_with_an_ack_by_the_broker(queen_client: Any, name: str) -> None:
    async with queen_client() as client:
        await client.queue(name).namespace(f"ns-{name}").task("t").create()
        await client.queue(name).push([1, 2])
        messages = await client.queue().namespace(f"ns-{name}").task("t").wait(True).poll_timeout_millis(5000).pop()
        assert [message["data"] for message in messages] == [1]
        assert (await client.ack(messages[0]))["success"] is True
        taken = await client.queue(name).auto_ack(True).wait(True).pop()
        assert [message["data"] for message in taken] == [2] and not taken[0]["leaseId"]
        assert await client.queue(name).pop() == []


async def test_q14_q15_c33_each_group_gets_everything(queen_client: Any, name: str) -> None:
    async with queen_client() as client:
        await client.queue(name).push([1, 2])
        for group in ("a", "b"):
            queue = client.queue(name).group(group).subscription_mode("all").batch(10).wait(True)
            messages = await queue.pop()
            assert [message["data"] for message in messages] == [1, 2] and messages[0]["consumerGroup"] == group
            assert (await client.ack(messages, True, {"group": group}))["success"] is True
        await client.update_consumer_group_timestamp("a", "2020-01-01T00:00:00Z")
        assert (await client.delete_consumer_group("b"))["success"] is True


async def test_m5_m6_c18_e3_acks_tell_what_became_of_them(queen_client: Any, name: str) -> None:
    async with queen_client() as client:
        assert await client.ack([]) == {"success": True, "processed": 0, "results": []}
        assert "transactionId" in (await client.ack({"data": 1}))["error"]
        lame = await client.ack({"transactionId": "t"})
        assert lame["success"] is False and "partitionId" in lame["error"]
        with pytest.raises(ValueError, match="partitionId"):
            await client.ack([{"transactionId": "t"}])
        await client.queue(name).push([1, 2, 3])
        messages = await client.queue(name).batch(3).wait(True).pop()
        first = await client.ack(messages[0])
        assert first["success"] is True
        again = await client.ack(messages[0])
        assert again["success"] is False and again["error"]
        plain = {key: messages[1][key] for key in ("transactionId", "partitionId", "leaseId")}
        assert (await client.ack(plain))["success"] is True
        refused = await client.ack(
            [{**plain, "transactionId": "no", "leaseId": "00000000-0000-7000-8000-000000000000"}]
        )
        assert refused["success"] is False and refused["results"][0]["success"] is False
        assert (await client.ack(messages[2], "completed"))["success"] is True


async def test_m6_q26_d34_verdicts_of_their_own_and_dead_letters(queen_client: Any, name: str) -> None:
    async with queen_client() as client:
        await client.queue(name).config({"retry_limit": 0}).create()
        await client.queue(name).push([1, 2])
        messages = await client.queue(name).batch(2).wait(True).pop()
        messages[1]["_status"], messages[1]["_error"] = "dlq", "too ugly"
        assert (await client.ack(messages))["success"] is True

        async def letters() -> Any:
            return (await client.queue(name).dlq().limit(10).offset(0).get())["messages"]

        found = await eventually(letters)
        assert len(found) == 1 and found[0]["data"] == 2 and "too ugly" in (found[0]["errorMessage"] or "")


async def test_a_popped_message_stays_leased_when_the_program_keeps_only_its_ids(queen_client: Any, name: str) -> None:
    async with queen_client() as client:
        await client.queue(name).push([1, 2])
        ids = [
            {key: message[key] for key in ("transactionId", "partitionId", "leaseId")}
            for message in await client.queue(name).batch(2).wait(True).pop()
        ]
        await asyncio.sleep(0.2)
        assert await client.queue(name).pop() == []
        assert (await client.ack(ids))["success"] is True
        assert not client._kept


async def test_m7_c19_renew(queen_client: Any, name: str) -> None:
    async with queen_client() as client:
        assert (await client.renew({}))["success"] is False
        await client.queue(name).push([1, 2])
        messages = await client.queue(name).batch(2).wait(True).pop()
        one = await client.renew(messages[0])
        assert one["success"] is True and one["newExpiresAt"]
        assert (await client.renew(messages[0]["leaseId"], lease_seconds=90))["success"] is True
        assert [answer["success"] for answer in await client.renew(messages)] == [True, True]
        await client.ack(messages)
        gone = await client.renew("00000000-0000-7000-8000-000000000000")
        assert gone["success"] is False and gone["error"]


async def test_t1_t2_t3_t4_t6_t7_t8_c21_transactions(queen_client: Any, name: str) -> None:
    async with queen_client() as client:
        with pytest.raises(Exception, match="Transaction has no operations to commit"):
            await client.transaction().commit()
        with pytest.raises(ValueError, match="partitionId"):
            client.transaction().ack("only-an-id")
        await client.queue(name).push([1, 2])
        messages = await client.queue(name).group("g").subscription_mode("all").batch(2).wait(True).pop()
        told = await (
            client.transaction()
            .ack(messages)
            .queue(f"{name}-next").push({"data": {"n": 1}})
            .queue(f"{name}-next").partition("q").push([{"payload": 2}, 3])
            .commit()
        )  # fmt: skip
        assert told["success"] is True and len(told["results"]) == 5 and not client._kept
        assert await client.queue(name).group("g").pop() == []
        found = await client.queue(f"{name}-next").partition("q").batch(5).wait(True).pop()
        assert [message["data"] for message in found] == [2, 3]
        twice = client.transaction().queue(f"{name}-next").push({"data": 1, "transactionId": found[0]["transactionId"]})
        with pytest.raises(queen.QueenRolledBackError) as caught:
            await (
                twice.queue(f"{name}-next")
                .partition("q")
                .push({"data": 1, "transactionId": found[0]["transactionId"]})
                .commit()
            )
        assert caught.value.broker_code


async def test_b1_b5_b8_b9_q25_m8_buffers(queen_client: Any, name: str) -> None:
    async with queen_client() as client:
        told: List[Any] = []
        queue = client.queue(name).buffer({"message_count": 50, "time_millis": 60000})
        assert await queue.push([1, 2]).on_success(told.append) == {"buffered": True, "count": 2}
        assert len(told[0]) == 2
        stats = client.get_buffer_stats()
        assert stats["totalBufferedMessages"] == 2 and stats["activeBuffers"] == 1 and stats["oldestBufferAge"] >= 0
        await queue.flush_buffer()
        assert client.get_buffer_stats()["totalBufferedMessages"] == 0
        await client.queue(name).buffer().push(3)
        await client.flush_all_buffers()
        assert [message["data"] for message in await client.queue(name).batch(9).wait(True).pop()] == [1, 2, 3]
        with pytest.raises(ValueError, match="buffer flush"):
            await client.queue().flush_buffer()


async def test_b14_m13_close_sends_what_is_buffered_and_reports_come(queen_client: Any, url: str, name: str) -> None:
    async with queen_client() as reader:
        told: List[Any] = []
        async with queen_client() as client:
            client.on_report(lambda reports, dropped: told.extend(reports))
            await client.queue(name).buffer({"time_millis": 60000}).push([1, 2])
            await client.flush_all_buffers()
            await eventually(lambda: len(told) == 2)
            assert {one["status"] for one in told} == {"queued"}
            if url != "embedded:":  # its broker is this client's alone
                await client.queue(name).buffer({"time_millis": 60000}).push(3)
        if url != "embedded:":
            assert len(await reader.queue(name).batch(9).wait(True).pop()) == 3


async def test_c5_c9_q16_handler_gets_one_message_unless_there_is_a_batch(queen_client: Any, name: str) -> None:
    async with queen_client() as client:
        shapes: List[Any] = []

        async def handler(what: Any) -> None:
            shapes.append([one["data"] for one in what] if isinstance(what, list) else what["data"])

        for configure in ("", "batch-1", "each", "batch"):
            await client.queue(name).push([1, 2])
            queue = client.queue(name).limit(2).idle_millis(10000)
            if configure == "batch-1":
                queue.batch(1)
            elif configure == "each":
                queue.batch(10).each()
            elif configure == "batch":
                queue.batch(10)
            summary = await queue.consume(handler)
            assert summary["acked"] == 2 and summary["reason"] == "limit"
        assert shapes == [1, 2, 1, 2, 1, 2, [1, 2]]


async def test_c4_v11_q22_c29_e4_success_acks_failure_nacks_and_callbacks_change_nothing(
    queen_client: Any, name: str
) -> None:
    async with queen_client() as client:
        await client.queue(name).config({"retry_limit": 1}).create()
        await client.queue(name).push([{"data": "good"}, {"data": "bad"}])
        told: List[Any] = []

        async def handler(message: Any) -> str:
            if message["data"] == "bad":
                raise RuntimeError("not this one")
            return "fine"

        async def success(message: Any, result: Any) -> None:
            told.append((message["data"], result))

        async def failed(message: Any, error: Exception) -> None:
            told.append((message["data"], str(error)))

        summary = await client.queue(name).limit(2).consume(handler).on_success(success).on_error(failed)
        assert told[:2] == [("good", "fine"), ("bad", "not this one")]
        assert summary["acked"] == 1 and summary["nacked"] == 1


async def test_q18_manual_acks_inside_and_after_the_handler(queen_client: Any, name: str) -> None:
    async with queen_client() as client:
        await client.queue(name).push([1, 2])
        kept: List[Any] = []

        async def handler(message: Any) -> None:
            if message["data"] == 1:
                assert (await client.ack(message))["success"] is True
            else:
                kept.append(message)
                asyncio.get_running_loop().call_later(0.1, lambda: asyncio.ensure_future(client.ack(message)))

        summary = await client.queue(name).auto_ack(False).limit(2).consume(handler)
        assert summary["acked"] == 2 and len(kept) == 1


async def test_c7_c10_q17_limits_and_idle(queen_client: Any, name: str) -> None:
    async with queen_client() as client:
        await client.queue(name).push(list(range(6)))
        seen: List[Any] = []
        summary = await client.queue(name).limit_total(4).concurrency(2).consume(seen.append)
        assert len(seen) == 4 and summary["messages"] == 4
        summary = await client.queue(name).limit(0).idle_millis(100).consume(seen.append)
        assert summary["reason"] == "idle" and len(seen) == 6


async def test_c13_c17_p4_a_signal_ends_a_poll_at_once(queen_client: Any, name: str) -> None:
    async with queen_client() as client:
        stop = asyncio.Event()
        running = asyncio.ensure_future(client.queue(name).consume(lambda message: None, signal=stop))
        await asyncio.sleep(0.2)
        began = asyncio.get_running_loop().time()
        stop.set()
        summary = await running
        assert summary["reason"] == "stopped" and asyncio.get_running_loop().time() - began < 5


async def test_c1_c14_a_consumer_that_is_refused_ends_with_all_its_workers(
    queen_broker: queen.Broker, name: str
) -> None:
    async with queen_broker.client() as client:
        queen_broker.fault("status", "pop", status=403, body={"error": "not you", "code": "forbidden"})
        with pytest.raises(queen.QueenForbiddenError) as caught:
            await client.queue(name).concurrency(4).consume(lambda message: None)
        assert caught.value.http_status == 403 and caught.value.broker_code == "forbidden"
        polls = queen_broker.requests()["pop"]
        await asyncio.sleep(0.3)
        assert queen_broker.requests()["pop"] == polls


async def test_c5_a_consumer_lives_through_what_passes(queen_broker: queen.Broker, name: str) -> None:
    async with queen_broker.client() as client:
        queen_broker.fault("cutBeforeCommit", "pop", times=2)
        queen_broker.fault("status", "pop", status=500, times=2)
        await client.queue(name).push(1)
        assert (await client.queue(name).limit(1).consume(lambda message: None))["acked"] == 1


async def test_c3_c10_tr1_tr2_tr3_tr4_tr5_e6_each_message_has_its_own_trace(queen_client: Any, name: str) -> None:
    async with queen_client() as client:
        await client.queue(name).push([1, 2])
        told: List[Any] = []

        async def handler(messages: Any) -> None:
            for message in messages:
                told.append(await message["trace"]({"data": {"n": message["data"]}, "traceName": [name, "", 5]}))
            told.append(await messages[0].trace({"no": "data"}))

        await client.queue(name).batch(2).limit(2).consume(handler)
        assert [one["success"] for one in told] == [True, True, False] and "data" in told[2]["error"]
        page = await client.admin.trace_by_name(name)
        by_message = {trace["transaction_id"]: trace["data"] for trace in page["traces"]}
        assert sorted(data["n"] for data in by_message.values()) == [1, 2] and len(by_message) == 2


async def test_d35_d30_d31_d8_d16_defaults_can_be_read() -> None:
    assert queen.QUEUE_DEFAULTS["lease_time"] == 300 and queen.CLIENT_DEFAULTS["timeout_millis"] == 30000
    assert queen.BUFFER_DEFAULTS == {"message_count": 100, "time_millis": 1000}
    assert queen.POP_DEFAULTS["wait"] is False and queen.CONSUME_DEFAULTS["auto_ack"] is True


async def test_p9_p1_a_message_is_a_dict(queen_client: Any, name: str) -> None:
    import copy
    import json
    import pickle

    async with queen_client() as client:
        await client.queue(name).push({"data": {"n": 1}})
        (message,) = await client.queue(name).wait(True).pop()
        assert isinstance(message, dict) and isinstance(message, queen.Message) and message
        assert message._raw is None and "data" in message and "trace" in message and "nothing" not in message
        assert message.get("nothing", 3) == 3 and message.get("data") == {"n": 1}
        with pytest.raises(KeyError):
            message["nothing"]
        assert (
            dict(message) == {**message} == message.copy() == pickle.loads(pickle.dumps(message)) == copy.copy(message)
        )
        assert json.loads(json.dumps(message)) == dict(message.items()) and len(message) == len(list(message))
        assert (
            message.data == message["data"]
            and message.raw == b'{"n":1}'
            and message.transaction_id == message["transactionId"]
        )
        assert {"a": 1, **message}["data"] == {"n": 1} and message.pop("data") == {"n": 1} and "data" not in message
        message["own"] = 5
        assert message["own"] == 5 and name in repr(message)
        await client.ack(message)


def test_lg1_lg2_lg5_c8_the_log_is_that_of_the_standard_library(
    caplog: Any, capfd: Any, name: str, monkeypatch: Any
) -> None:
    import queen.sync

    monkeypatch.delenv("QUEEN_CLIENT_LOG", raising=False)
    with caplog.at_level(logging.DEBUG, logger="queen"):
        with queen.sync.Queen("embedded:", bearer_token="sesame") as client:
            client.queue(name).push({"data": "a secret payload"})

        async def wait() -> None:
            await eventually(lambda: any("producer.push" in record.getMessage() for record in caplog.records))

        asyncio.run(wait())
    texts = [record.getMessage() for record in caplog.records if record.name == "queen"]
    assert not any("secret payload" in text or "sesame" in text for text in texts)
    assert capfd.readouterr() == ("", "")
