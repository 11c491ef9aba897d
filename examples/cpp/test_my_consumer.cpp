// A test of one's own consumer: the program dies before its ack arrives. The order comes again, and is charged once.
// prints: 2 calls, 1 charge
#include <queen/queen.hpp>

#include <iostream>
#include <set>
#include <thread>

using namespace std::chrono_literals;

struct shop { // the application
    std::set<std::string> charged; // in real life a table with a unique key
    int calls = 0;
    void on_order(const queen::message &order) {
        calls++;
        charged.emplace(order.transaction_id());
    }
};

static queen::consumer start(const queen::client &client, shop &its) {
    return client.queue("orders").consume([&](const queen::message &order) { its.on_order(order); }, {{"limit", 1}});
}

int main() {
    queen::broker broker({{"testing", true}});
    shop its;
    {
        queen::client client(broker.url());
        client.queue("orders").push("{\"order\":1}").get();
        broker.add_faults({{"route", "ack"}, {"action", "hang"}}).get();
        const queen::consumer consumer = start(client, its);
        while (broker.faults().get().number("/0/applied") != 1) std::this_thread::sleep_for(1ms);
        (void)client.close(0ms).wait(); // handled, and dead before the ack arrives
    }
    broker.remove_faults().get();
    broker.advance(61s).get(); // the lease has ended
    queen::client client(broker.url());
    start(client, its).wait().value();
    std::cout << its.calls << " calls, " << its.charged.size() << " charge" << std::endl;
    client.close().get();
    return its.calls == 2 && its.charged.size() == 1 ? 0 : 1;
}
