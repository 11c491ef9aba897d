// A handler that acks an order and pushes a bill, together or not at all.
// prints: bill for {"order":1}
#include <queen/queen.hpp>

#include <iostream>

int main() {
    queen::client client("embedded:");
    client.queue("orders").push("{\"order\":1}").get();

    const queen::consumer consumer = client.queue("orders").consume(
        [&](queen::delivery &order) {
            client.transaction()
                .ack(order)
                .push("bills", "eu", queen::quote("bill for " + std::string(order[0].payload())))
                .commit()
                .get(); // rolled back it throws: the order is nacked and comes again
        },
        {{"limit", 1}});
    consumer.wait().value();

    for (queen::delivery &bill : client.queue("bills").receive({{"limit", 1}})) {
        std::cout << queen::document(std::string(bill[0].payload())).string("") << std::endl;
        bill.ack().get();
    }
    client.close().get();
}
