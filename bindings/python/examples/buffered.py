"""Many small messages are collected and sent together; a report tells what became of each."""

import asyncio

import queen


async def main() -> None:
    async with queen.Queen("embedded:") as client:
        stored = 0

        def on_report(reports: list, dropped: int) -> None:
            nonlocal stored
            stored += sum(report["status"] == "queued" for report in reports)

        client.on_report(on_report)
        metrics = client.queue("metrics").partition("host-1").buffer({"message_count": 500, "time_millis": 200})
        for number in range(2000):
            await metrics.push({"data": {"load": number / 1000}})
        await client.flush_all_buffers()
        while stored < 2000:  # reports come behind
            await asyncio.sleep(0.01)
        print(stored, "stored in", client.stats()["requests"]["push"], "requests")


asyncio.run(main())
