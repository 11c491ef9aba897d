// Pushes, pops, futures, transactions, buffers, notices.
#include "support.hpp"

#include <poll.h>

TEST(Client, TellsWhatIsWrongWithItsConfiguration) {
    const auto bad = queen::client::open("ftp://nowhere");
    ASSERT_FALSE(bad);
    EXPECT_EQ(bad.error().code(), queen::errc::invalid_config);
    EXPECT_NE(bad.error().message().find("ftp"), std::string::npos) << bad.error().message();
    EXPECT_THROW(queen::client("ftp://nowhere"), queen::exception);
    EXPECT_THROW(queen::client(queen::options{{"url", "embedded:"}, {"nonsense", 1}}), queen::exception);
}

TEST(Client, PushesAndPops) {
    queen::client client(broker_url());
    const auto queue = client.queue(fresh("push")).partition("p");
    const auto pushed = queue.push(queen::items().add("{\"a\": 1.50}", "id-1", "").add("2")).get();
    EXPECT_EQ(pushed.string("/0/status"), "queued");
    EXPECT_EQ(pushed.string("/0/transactionId"), "id-1");
    EXPECT_EQ(queue.push_json(R"([{"payload":3,"transactionId":"id-1"}])").get().string("/0/status"), "duplicate");

    auto popped = queue.pop({{"batch", 10}, {"wait", true}}).get();
    ASSERT_EQ(popped.size(), 1u);
    queen::delivery &d = popped[0];
    ASSERT_EQ(d.size(), 2u);
    EXPECT_EQ(d[0].payload(), on_embedded() ? "{\"a\": 1.50}" : d[0].payload()); // byte for byte
    EXPECT_EQ(d[0].transaction_id(), "id-1");
    EXPECT_EQ(d[0].partition(), "p");
    EXPECT_EQ(d[0].queue(), queue.name());
    EXPECT_FALSE(d[0].lease_id().empty());
    EXPECT_FALSE(d[0].id().empty());
    EXPECT_FALSE(d[0].partition_id().empty());
    EXPECT_FALSE(d[0].created_at().empty());
    EXPECT_EQ(d[0].consumer_group(), "__QUEUE_MODE__");
    EXPECT_EQ(d[0].trace_id(), std::nullopt);
    std::string all;
    for (const queen::message m : d) all += m.payload();
    EXPECT_EQ(all.back(), '2');
    EXPECT_THROW(d[2], std::out_of_range);
    EXPECT_NE(d.json().find("\"messages\""), std::string_view::npos);
    EXPECT_FALSE(d.lost());
    EXPECT_TRUE(d.ack().get().is_true("/1/success"));
    EXPECT_EQ(d.ack().wait().error().code(), queen::errc::already_settled);
    EXPECT_TRUE(queue.pop().get().empty());
}

TEST(Client, RefusesAPayloadThatIsNotOneValue) {
    queen::client client(broker_url());
    const auto queue = client.queue(fresh("payload"));
    for (const char *bad : {"1},{\"payload\":2", "1,\"transactionId\":\"x\"", "", "1 2", "{", "\"a", "]", "{\"a\":1}}", R"("\")"})
        EXPECT_EQ(queue.push(bad).wait().error().code(), queen::errc::invalid_json) << bad;
    for (const char *good : {" [1, \"}\"] ", R"("\\")", R"("\"")", R"({"a\\\"b":"\\"})"})
        EXPECT_EQ(queue.push(good).get().string("/0/status"), "queued") << good;
}

TEST(Client, IteratesOverManyMessages) {
    queen::client client(broker_url());
    const auto queue = client.queue(fresh("iterate"));
    queen::items items;
    std::string wanted, got;
    for (int n = 0; n < 40; n++) {
        items.add(std::to_string(n));
        wanted += std::to_string(n) + " ";
    }
    queue.push(items).get();
    auto popped = queue.pop({{"batch", 40}, {"wait", true}}).get();
    ASSERT_EQ(popped.size(), 1u);
    for (auto at = popped[0].begin(); at != popped[0].end();) got += std::string((*at++).payload()) + " ";
    EXPECT_EQ(got, wanted);
    auto at = popped[0].begin(), other = at;
    EXPECT_EQ((*++at).payload(), "1");
    EXPECT_EQ((*other).payload(), "0");
    other = at;
    EXPECT_EQ((*other).payload(), "1");
    EXPECT_EQ((*popped[0].end()).payload(), ""); // behind the end there is nothing, and no crash
    popped[0].ack().get();
    items.clear();
    EXPECT_EQ(items.text(), "[]");
}

TEST(Client, RefusesNamesWithANul) {
    queen::client client(broker_url());
    EXPECT_THROW(client.queue(std::string_view("a\0b", 3)), queen::exception);
    EXPECT_THROW(client.queue("a").partition(std::string_view("\0", 1)), queen::exception);
}

TEST(Client, NamesTheOptionThatIsWrong) {
    queen::client client(broker_url());
    const auto came = client.queue(fresh("options")).pop({{"bacth", 3}}).wait();
    ASSERT_FALSE(came);
    EXPECT_NE(came.error().message().find("bacth"), std::string::npos) << came.error().message();
    EXPECT_FALSE(came.error().json().empty());
    EXPECT_EQ(came.error().outcome(), queen::outcome::not_applied);
    EXPECT_EQ(client.call("no.such").wait().error().code(), queen::errc::unknown_operation);
}

TEST(Client, SettlesMessageByMessage) {
    queen::client client(broker_url());
    const auto queue = client.queue(fresh("settle"));
    queue.push(queen::items().add("1").add("2").add("3")).get();
    auto first = queue.pop({{"batch", 3}, {"wait", true}}).get();
    ASSERT_EQ(first.size(), 1u);
    auto done = first[0].settle(0, "completed");
    // A verdict on one that has it, and a new one: a part is refused, and the result tells which.
    auto part = first[0].settle(R"([{"index":0,"status":"completed"},{"index":1,"status":"completed"}])").wait();
    EXPECT_FALSE(part.ok());
    ASSERT_NE(part.partial(), nullptr) << part.error().message();
    EXPECT_FALSE(part.partial()->is_true("/0/success"));
    EXPECT_TRUE(part.partial()->is_true("/1/success"));
    EXPECT_TRUE(done.get().is_true("/0/success"));
    first.clear(); // the third goes back
    auto again = queue.pop({{"batch", 3}, {"wait", true}}).get();
    ASSERT_EQ(again.size(), 1u);
    EXPECT_EQ(again[0][0].payload(), "3");
    const std::string ack = queen::options{{"transactionId", again[0][0].transaction_id()},
                                           {"partitionId", again[0][0].partition_id()},
                                           {"leaseId", again[0][0].lease_id()}}.text();
    EXPECT_EQ(client.renew(again[0][0].lease_id(), 90s).get().string("/leaseId"), again[0][0].lease_id());
    EXPECT_TRUE(client.ack("[" + ack + "]").get().is_true("/0/success"));
}

TEST(Client, DeadLettersHaveTheReason) {
    queen::client client(broker_url());
    const auto queue = client.queue(fresh("dlq"));
    client.call("queue.create", {{"queue", queue.name()}, {"options", queen::options{{"retryLimit", 0}}}}).get();
    queue.push("1").get();
    auto popped = queue.pop({{"wait", true}}).get();
    ASSERT_EQ(popped.size(), 1u);
    popped[0].settle(0, "dlq", "bad \"order\"").get();
    const auto dead = client.call("dlq.list", {{"queue", queue.name()}}).get();
    EXPECT_NE(dead.text().find("bad \\\"order\\\""), std::string::npos) << dead.text();
}

TEST(Client, TracesAndGroups) {
    queen::client client(broker_url());
    const auto queue = client.queue(fresh("trace"));
    queue.push("1").get();
    auto popped = queue.group("g").pop({{"wait", true}, {"subscriptionMode", "all"}}).get();
    ASSERT_EQ(popped.size(), 1u);
    EXPECT_EQ(popped[0][0].consumer_group(), "g");
    const std::string name = fresh("name");
    EXPECT_TRUE(popped[0].trace(0, "{\"data\":{\"step\":1},\"traceNames\":\"" + name + "\"}").get().is_true("/success"));
    EXPECT_NE(client.call("trace.by_name", {{"traceName", name}}).get().text().find("step"), std::string::npos);
    EXPECT_EQ(popped[0].trace(7, "{\"data\":1}").wait().error().code(), queen::errc::invalid_argument);
    popped[0].ack().get();
    EXPECT_NE(client.call("group.list").get().text().find(queue.name()), std::string::npos);
}

TEST(Future, GoesEachWay) {
    queen::client client(broker_url());
    const auto queue = client.queue(fresh("ways"));
    told<std::string> came;
    queue.push("1").then([&](queen::result<queen::document> r) { came.tell(r.value().string("/0/status")); });
    EXPECT_EQ(came.wait(1)[0], "queued");
    EXPECT_EQ(queue.push("2").std_future().get().string("/0/status"), "queued");
    EXPECT_TRUE(queue.push("3").std_result().get().ok());
    EXPECT_THROW(queue.push("x").std_future().get(), queen::exception);
    EXPECT_EQ(queue.push("x").std_result().get().error().code(), queen::errc::invalid_json);

    queen::event_queue events;
    queen::event_batch batch(8);
    const auto push = queue.push("4");
    push.deliver(events, 44);
    queue.pop({{"batch", 9}, {"wait", true}}).deliver(events, 45);
    bool popped = false, pushed = false;
    pollfd watched{events.fd(), POLLIN, 0};
    while (!popped || !pushed) {
        ASSERT_EQ(poll(&watched, 1, 20000), 1);
        ASSERT_GT(events.poll(batch, 0ms), 0u);
        for (std::size_t i = 0; i < batch.size(); i++) {
            EXPECT_EQ(batch[i].type(), queen::event_type::future);
            if (batch[i].tag() == 44) pushed = batch[i].read().value().string("/0/status") == "queued";
            if (batch[i].tag() == 45) popped = !batch[i].read<queen::deliveries>().value().empty();
        }
    }
    EXPECT_THROW(push.deliver(events, 1), queen::exception); // a second route
    EXPECT_TRUE(push.wait().ok());
    events.wake_up();
    EXPECT_EQ(events.poll(batch), 0u);
}

TEST(Future, WaitsAndCancels) {
    queen::client client(broker_url());
    const auto pop = client.queue(fresh("cancel")).pop({{"wait", true}});
    EXPECT_EQ(pop.wait(20ms).error().code(), queen::errc::timeout);
    EXPECT_FALSE(pop.ready());
    EXPECT_THROW(pop.get(1ms), queen::exception);
    EXPECT_EQ(pop.wait(-1ms).error().code(), queen::errc::invalid_argument);
    pop.cancel();
    EXPECT_EQ(pop.wait(20s).error().code(), queen::errc::cancelled);
    EXPECT_TRUE(pop.ready());
}

TEST(Future, AThrowingCallbackIsReported) {
    hears_exceptions hears;
    queen::client client(broker_url());
    client.queue(fresh("throw")).push("1").then([](const auto &) { throw std::runtime_error("no luck"); });
    EXPECT_EQ(hears.heard->wait(1)[0], "a completion callback: no luck");
    EXPECT_EQ(client.queue(fresh("throw")).push("1").get().string("/0/status"), "queued"); // and all goes on
}

TEST(Transaction, CommitsTogetherOrNot) {
    queen::client client(broker_url());
    const auto from = client.queue(fresh("from")), to = client.queue(fresh("to"));
    from.push(queen::items().add("1").add("2")).get();
    auto popped = from.pop({{"batch", 2}, {"wait", true}}).get();
    ASSERT_EQ(popped.size(), 1u);
    {
        auto dropped = client.transaction();
        dropped.ack(popped[0]);
        EXPECT_EQ(popped[0].settle(0, "completed").wait().error().code(), queen::errc::already_settled);
    } // not committed: unsettled again
    const auto done = client.transaction().ack(popped[0]).push(to.name(), "", "\"made\"").commit().get();
    EXPECT_TRUE(done.is_true("/results/0/success")) << done.text();
    auto made = to.pop({{"wait", true}}).get();
    ASSERT_EQ(made.size(), 1u);
    EXPECT_EQ(made[0][0].payload(), "\"made\"");

    auto wrong = client.transaction();
    wrong.ack(made[0], 5);
    EXPECT_EQ(wrong.failed(), queen::errc::invalid_argument);
    EXPECT_EQ(wrong.commit().wait().error().code(), queen::errc::invalid_argument);
    EXPECT_EQ(client.transaction().settle(made[0], R"([{"index":0,"status":"completed"}])").commit().wait().error().code(),
              queen::errc::ok);
}

TEST(Buffers, ReportEachMessage) {
    queen::client client(broker_url());
    told<std::string> reports;
    client.on_report([&](std::string_view json, std::size_t dropped) {
        EXPECT_EQ(dropped, 0u);
        reports.tell(std::string(json));
    });
    const auto queue = client.queue(fresh("buffer")).partition("b");
    const queen::options buffered{{"buffer", queen::options{{"messageCount", 2}, {"timeMillis", 60000}}}};
    for (const char *n : {"1", "2", "3"}) EXPECT_EQ(queue.push(n, buffered).get().string("/0/status"), "buffered");
    queue.flush().get();
    int queued = 0;
    const std::vector<std::string> told_so_far = reports.wait(2);
    for (const std::string &each : told_so_far)
        for (std::size_t at = 0; (at = each.find("\"queued\"", at)) != std::string::npos; at++) queued++;
    EXPECT_EQ(queued, 3);
    client.flush().get();
    client.close().get(); // the callback refers to what ends here
}

TEST(Notices, LogStatisticsAndEvents) {
    queen::event_queue events;
    queen::client client(queen::options{{"url", broker_url()}, {"statisticsIntervalMillis", 100}});
    told<std::string> logs;
    client.on_log(QUEEN_LOG_DEBUG, [&](int level, std::string_view json) {
        EXPECT_GE(level, QUEEN_LOG_ERROR);
        logs.tell(std::string(json));
    });
    client.queue(fresh("log")).push("1").get();
    EXPECT_NE(logs.wait(1)[0].find("\"level\""), std::string::npos);
    EXPECT_EQ(client.statistics().get().text().front(), '{');
    client.log_to(events, QUEEN_LOG_DEBUG, 1);
    client.statistics_to(events, 2);
    client.report_to(events, 3);
    client.backends_to(events, 5);
    client.queue(fresh("log")).push("1", {{"buffer", queen::options{{"messageCount", 1}}}}).get();
    queen::event_batch batch;
    unsigned seen = 0;
    for (const auto end = std::chrono::steady_clock::now() + 20s; seen != 14 && std::chrono::steady_clock::now() < end;) {
        events.poll(batch, 1s);
        for (std::size_t i = 0; i < batch.size(); i++) {
            EXPECT_FALSE(batch[i].json().empty());
            EXPECT_FALSE(batch[i].take_delivery());
            EXPECT_FALSE(batch[i].read().ok());
            seen |= 1u << batch[i].tag();
        }
    }
    EXPECT_EQ(seen, 14u);
}

TEST(Notices, ATokenOnDemand) {
    queen::broker broker({{"tokens", "secret"}});
    queen::client client(broker.url());
    client.on_token_wanted([&](std::string_view json) {
        EXPECT_NE(json.find("missing"), std::string_view::npos);
        client.set_token("secret");
    });
    EXPECT_EQ(client.queue("q").push("1").get(20s).string("/0/status"), "queued");
    EXPECT_THROW(client.set_token("\n"), queen::exception);
    client.close().get();

    queen::event_queue events;
    queen::event_batch batch;
    queen::client other(broker.url());
    other.tokens_to(events, 4);
    const auto push = other.queue("q").push("1");
    ASSERT_EQ(events.poll(batch, 20s), 1u);
    EXPECT_EQ(batch[0].type(), queen::event_type::token_wanted);
    other.set_token(std::nullopt); // there is none
    EXPECT_EQ(push.wait(20s).error().code(), queen::errc::unauthorized);
}

TEST(Notices, TheStateOfABroker) {
    queen::broker broker({{"listen", "127.0.0.1:0"}, {"testing", true}});
    queen::client client(queen::options{{"url", broker.address()}, {"retryAttempts", 1}, {"retryDelayMillis", 1}});
    EXPECT_EQ(client.queue("q").push("1").get(20s).string("/0/status"), "queued");
    told<std::string> states;
    client.on_backend_state([&](std::string_view json) { states.tell(std::string(json)); });
    broker.kill().get();
    while (client.queue("q").push("1").wait().ok()) {}
    EXPECT_NE(states.wait(1)[0].find("unhealthy"), std::string::npos);
    client.close().get();
}

TEST(Broker, FailsWhenItIsTold) {
    steered its;
    its.client.queue("q").push("1").get();
    const auto added = its.broker.add_faults({{"route", "push"}, {"action", "status"}, {"status", 400}, {"times", 1}}).get();
    const auto refused = its.client.queue("q").push("2").wait();
    EXPECT_EQ(refused.error().code(), queen::errc::bad_request);
    EXPECT_EQ(refused.error().http_status(), 400);
    EXPECT_EQ(refused.error().outcome(), queen::outcome::refused);
    EXPECT_EQ(its.broker.faults().get().number("/0/applied"), 1);
    its.broker.remove_faults(static_cast<std::uint64_t>(added.number("/0/id").value())).get();
    EXPECT_EQ(its.broker.faults().get().text(), "[]");
    EXPECT_EQ(its.broker.requests().get().number("/push"), 2);
    its.broker.reset_requests().get();
    EXPECT_EQ(its.broker.requests().get().number("/push").value_or(0), 0);

    auto popped = its.client.queue("q").pop().get();
    ASSERT_EQ(popped.size(), 1u);
    its.broker.advance(10min).get(); // past the lease
    EXPECT_EQ(popped[0].ack().wait().error().code(), queen::errc::lease_lost);
    EXPECT_TRUE(popped[0].lost());
    EXPECT_TRUE(its.broker.move_clock({{"frozen", true}}).get().is_true("/frozen"));

    EXPECT_EQ(its.broker.restart().wait().error().code(), queen::errc::invalid_state);
    its.broker.stop().get();
    its.broker.restart().get();
    EXPECT_EQ(its.client.queue("q").push("1").get().string("/0/status"), "queued");
    EXPECT_FALSE(queen::broker::start({{"nonsense", 1}}).ok());
    EXPECT_THROW(queen::broker({{"nonsense", 1}}), queen::exception);
}

TEST(Library, TellsAboutItself) {
    EXPECT_EQ(queen::version(), QUEEN_VERSION_STRING);
    EXPECT_NE(queen::operations().find("queue.create"), std::string_view::npos);
    queen::client client("embedded:");
    EXPECT_EQ(queen::shutdown(0ms), queen::errc::busy);
}
