// What programs do wrong, all at once or at the wrong time.
#include "support.hpp"

TEST(Survival, MovedFromHandlesTellWhatTheyAre) {
    queen::client client(broker_url());
    const auto name = fresh("moved");
    client.queue(name).push("1").get();
    auto popped = client.queue(name).pop({{"wait", true}}).get();
    ASSERT_EQ(popped.size(), 1u);
    queen::delivery delivery = std::move(popped[0]);
    queen::delivery &empty = popped[0];
    EXPECT_FALSE(empty);
    EXPECT_EQ(empty.size(), 0u);
    EXPECT_TRUE(empty.json().empty());
    EXPECT_FALSE(empty.lost());
    EXPECT_EQ(empty.ack().wait().error().code(), queen::errc::invalid_argument);
    EXPECT_EQ(empty.nack("x").wait().error().code(), queen::errc::invalid_argument);
    EXPECT_EQ(empty.trace(0, "{}").wait().error().code(), queen::errc::invalid_argument);
    EXPECT_THROW(empty[0], std::out_of_range);
    EXPECT_EQ(client.transaction().ack(empty).commit().wait().error().code(), queen::errc::invalid_argument);

    auto future = delivery.ack();
    auto moved_future = std::move(future);
    EXPECT_EQ(future.wait().error().code(), queen::errc::invalid_argument); // NOLINT(bugprone-use-after-move)
    EXPECT_FALSE(future.ready());
    future.cancel();
    int called = 0;
    std::move(future).then([&](queen::result<queen::document> came) {
        called++;
        EXPECT_EQ(came.error().code(), queen::errc::invalid_argument);
    });
    EXPECT_EQ(called, 1);
    moved_future.get();

    auto transaction = client.transaction();
    auto other_transaction = std::move(transaction);
    EXPECT_EQ(transaction.push("q", "", "1").commit().wait().error().code(), queen::errc::invalid_argument); // NOLINT
    queen::event_queue events, other_events = std::move(events);
    queen::event_batch batch;
    EXPECT_THROW(events.poll(batch, 0ms), queen::exception); // NOLINT
    EXPECT_THROW(events.fd(), queen::exception);
    queen::broker broker, other_broker = std::move(broker);
    EXPECT_TRUE(broker.url().empty()); // NOLINT
    EXPECT_FALSE(broker.stop().wait().ok());
    queen::consumer consumer;
    EXPECT_FALSE(consumer.wait().ok());
    EXPECT_FALSE(consumer.stop().wait().ok());

    queen::client moved = std::move(client);
    EXPECT_FALSE(client); // NOLINT
    const auto came = client.queue("q").push("1").wait();
    EXPECT_EQ(came.error().code(), queen::errc::invalid_argument);
    EXPECT_NE(came.error().message().find("NULL"), std::string::npos);
    EXPECT_FALSE(client.close().wait().ok());
    EXPECT_THROW(client.queue("q").consume([](queen::delivery &) {}), queen::exception);
    EXPECT_THROW(client.on_log(QUEEN_LOG_INFO, [](int, std::string_view) {}), queen::exception);
    EXPECT_FALSE(client.transaction().commit().wait().ok());
}

TEST(Survival, UseAfterCloseIsAClearError) {
    queen::client client(broker_url());
    const auto queue = client.queue(fresh("closed"));
    queue.push("1").get();
    auto popped = queue.pop({{"wait", true}}).get();
    client.close().get();
    EXPECT_EQ(queue.push("1").wait().error().code(), queen::errc::closed);
    EXPECT_EQ(queue.pop().wait().error().code(), queen::errc::closed);
    EXPECT_EQ(popped[0].ack().wait().error().code(), queen::errc::closed);
    EXPECT_EQ(client.call("health").wait().error().code(), queen::errc::closed);
    EXPECT_EQ(client.transaction().push("q", "", "1").commit().wait().error().code(), queen::errc::closed);
    EXPECT_EQ(queue.try_consume([](queen::delivery &) {}).error().code(), queen::errc::closed);
    told<queen::errc> came; // no callback is forgotten
    queue.push("1").then([&](queen::result<queen::document> how) { came.tell(how.error().code()); });
    EXPECT_EQ(came.wait(1)[0], queen::errc::closed);
    EXPECT_THROW(queue.push("1").std_future().get(), queen::exception);
    client.close().get(); // and again
}

TEST(Survival, AThousandClients) {
    const std::string url = broker_url(), name = fresh("thousand");
    for (int n = 0; n < 1000; n++) {
        queen::client client(url);
        auto push = client.queue(name).partition(std::to_string(n % 10)).push(std::to_string(n));
        switch (n % 4) {
        case 0: push.get(); break;
        case 1: client.close().get(); break;
        case 2: std::move(push).then([](const auto &) {}); break;
        default: break; // everything is dropped under way
        }
    }
}

TEST(Survival, ACancellationStorm) {
    queen::client client(broker_url());
    const auto queue = client.queue(fresh("storm"));
    std::vector<std::thread> threads;
    std::atomic<int> completed{0}, wanted{0};
    for (int t = 0; t < 4; t++)
        threads.emplace_back([&] {
            for (int n = 0; n < 250; n++) {
                auto pop = queue.pop({{"wait", true}});
                auto push = queue.push("1");
                wanted += 2;
                std::thread hurried([&] { pop.cancel(), push.cancel(); });
                pop.cancel();
                hurried.join();
                std::move(pop).then([&](const auto &) { completed++; });
                std::move(push).then([&](const auto &) { completed++; });
            }
        });
    for (auto &each : threads) each.join();
    client.close().get();
    EXPECT_EQ(completed, wanted); // each of them, once
    EXPECT_EQ(wanted, 2000);
}

TEST(Survival, AClientGoesWhileItsConsumersAndFuturesLive) {
    const auto name = fresh("gone");
    std::vector<queen::future<queen::document>> pushes;
    queen::consumer consumer;
    queen::deliveries popped;
    {
        queen::client client(broker_url());
        client.queue(name).push("0").get();
        popped = client.queue(name).pop({{"wait", true}}).get();
        for (int n = 0; n < 50; n++) pushes.push_back(client.queue(name).push(std::to_string(n)));
        consumer = client.queue(fresh("gone")).consume([](queen::delivery &) {});
    }
    for (auto &each : pushes) {
        const auto came = each.wait(20s);
        EXPECT_TRUE(came || came.error().code() == queen::errc::closed) << came.error().message();
    }
    EXPECT_TRUE(consumer.wait(20s).ok());
    EXPECT_FALSE(popped[0][0].payload().empty()); // what is in memory stays
    const auto acked = popped[0].ack().wait(20s); // in time or not: the close goes on in the background
    EXPECT_TRUE(acked || acked.error().code() == queen::errc::closed) << acked.error().message();
}

// Ends with work under way: pushes, a poll that waits, a handler that runs, callbacks that come, statics that are destroyed.
static bool exits_in_flight = false;
// Read by LeakSanitizer, where it is. What was under way at such an exit is nobody's any more, and no leak.
extern "C" int __lsan_is_turned_off() { return exits_in_flight ? 1 : 0; }

[[noreturn]] static void exit_in_flight() {
    exits_in_flight = true;
    static queen::client client("embedded:");
    static std::vector<queen::future<queen::document>> pushes;
    static queen::consumer consumer = client.queue("exit").consume([](const queen::message &) { std::this_thread::sleep_for(1ms); });
    static queen::event_queue events;
    static auto pop = client.queue("other").pop({{"wait", true}});
    pop.deliver(events, 1);
    for (int n = 0; n < 2000; n++) {
        pushes.push_back(client.queue("exit").partition(std::to_string(n % 7)).push(std::to_string(n)));
        client.queue("exit").push("1").then([](const auto &) {});
    }
    std::exit(0);
}

TEST(SurvivalDeathTest, TheProcessExitsWithWorkInFlight) {
    testing::FLAGS_gtest_death_test_style = "threadsafe";
    for (int n = 0; n < 5; n++) EXPECT_EXIT(exit_in_flight(), testing::ExitedWithCode(0), "");
}
