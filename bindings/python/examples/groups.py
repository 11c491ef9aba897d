"""Two consumer groups get every message each; a signal ends them when all is done."""

import asyncio

import queen


async def main() -> None:
    async with queen.Queen("embedded:") as client:
        await client.queue("orders").push([{"data": {"id": number}} for number in range(5)])
        done = asyncio.Event()
        seen = []

        async def handle(group: str, message: queen.Message) -> None:
            seen.append((group, message["data"]["id"]))
            if len(seen) == 10:
                done.set()

        async def run(group: str) -> None:
            # A group that is new begins at the end of the queue, unless it says otherwise.
            queue = client.queue("orders").group(group).subscription_mode("all")
            summary = await queue.consume(lambda message: handle(group, message), signal=done)
            print(group, "has handled", summary["acked"])

        await asyncio.gather(run("billing"), run("shipping"))


asyncio.run(main())
