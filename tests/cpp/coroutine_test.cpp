// co_await, where the compiler has it.
#include "support.hpp"

#if QUEEN_HAS_COROUTINES

static queen::task<std::string> moves(queen::queue from, queen::queue to) {
    co_await from.push(queen::items().add("1").add("2"));
    const queen::options two{{"batch", 2}, {"wait", true}}; // gcc 12 has no list within an expression with co_await
    queen::deliveries popped = co_await from.pop(two);
    std::string seen;
    for (const queen::message m : popped.at(0)) {
        seen += m.payload();
        co_await to.push(m.payload());
    }
    co_await popped[0].ack();
    co_return seen;
}

TEST(Coroutines, AwaitOneAfterTheOther) {
    queen::client client(broker_url());
    const auto to = client.queue(fresh("to"));
    EXPECT_EQ(moves(client.queue(fresh("from")), to).get(), "12");
    EXPECT_EQ(to.pop({{"batch", 2}, {"wait", true}}).get().at(0).size(), 2u);
}

static queen::task<int> fails(queen::client client) {
    const auto came = co_await client.call("no.such").as_result();
    EXPECT_EQ(came.error().code(), queen::errc::unknown_operation);
    co_await client.call("no.such");
    co_return 1;
}

TEST(Coroutines, ThrowWhereTheyAreAwaited) {
    queen::client client(broker_url());
    EXPECT_THROW(fails(client).get(), queen::exception);
}

static queen::task<> pushes(queen::queue queue, int count) {
    for (int n = 0; n < count; n++) co_await queue.push(std::to_string(n));
}

TEST(Coroutines, ManyAtOnce) {
    queen::client client(broker_url());
    const auto queue = client.queue(fresh("many"));
    std::vector<queen::task<>> all;
    for (int n = 0; n < 100; n++) all.push_back(pushes(queue.partition(std::to_string(n)), 5));
    for (auto &each : all) each.get();
    EXPECT_EQ(client.flush().get().number("/messages").value_or(-1), 0);
}

TEST(Coroutines, OfAClosedClientGoOn) {
    queen::client client(broker_url());
    const auto queue = client.queue(fresh("closed"));
    auto waits = [](queen::queue from) -> queen::task<queen::errc> {
        const queen::options waiting{{"wait", true}};
        const auto came = co_await from.pop(waiting).as_result();
        co_return came.error().code();
    };
    auto waiting = waits(queue);
    client.close().get();
    EXPECT_EQ(waiting.get(), queen::errc::closed);
    EXPECT_EQ(waits(queue).get(), queen::errc::closed);
}

TEST(Coroutines, OfAFutureWithARouteFail) {
    queen::client client(broker_url());
    queen::event_queue events;
    auto waits = [](queen::future<queen::deliveries> routed) -> queen::task<queen::errc> {
        const auto came = co_await std::move(routed).as_result();
        co_return came.error().code();
    };
    auto pop = client.queue(fresh("routed")).pop({{"wait", true}});
    pop.deliver(events, 1);
    EXPECT_EQ(waits(std::move(pop)).get(), queen::errc::invalid_state);
}

#endif
