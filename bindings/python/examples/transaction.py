"""A worker takes an order and makes a bill of it: the ack and the push happen together or not at all."""

import asyncio

import queen


async def main() -> None:
    async with queen.Queen("embedded:") as client:
        await client.queue("orders").push({"data": {"id": 7, "cents": 1250}})

        async def handle(order: queen.Message) -> None:
            bill = {"data": {"order": order.data["id"], "due": order.data["cents"]}}
            await client.transaction().ack(order).queue("bills").partition("eu").push(bill).commit()

        await client.queue("orders").limit(1).consume(handle)
        (bill,) = await client.queue("bills").pop()
        print("bill", bill.data)
        await bill.ack()  # type: ignore[attr-defined]


asyncio.run(main())
