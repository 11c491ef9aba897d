// Consumers: handlers, iterators, streams.
#include "support.hpp"

TEST(Consumer, HandsOverMessages) {
    queen::client client(broker_url());
    const auto queue = client.queue(fresh("messages"));
    queue.push(queen::items().add("1").add("2").add("3")).get();
    told<std::string> got;
    const auto consumer = queue.consume([&](const queen::message &m) { got.tell(std::string(m.payload())); }, {{"limit", 3}});
    const auto summary = consumer.wait().value();
    EXPECT_EQ(got.wait(3), (std::vector<std::string>{"1", "2", "3"}));
    EXPECT_EQ(summary.string("/reason"), "limit");
    EXPECT_EQ(summary.number("/acked"), 3);
}

TEST(Consumer, AMessageHandlerOfABatchGetsThemOneByOne) {
    queen::client client(broker_url());
    const auto queue = client.queue(fresh("each"));
    queue.push(queen::items().add("1").add("2").add("3")).get();
    told<std::string> got;
    const auto consumer = queue.consume([&](const queen::message &m) { got.tell(std::string(m.payload())); },
                                        {{"limitTotal", 3}, {"batch", 3}});
    EXPECT_EQ(consumer.wait().value().number("/acked"), 3);
    EXPECT_EQ(got.wait(3), (std::vector<std::string>{"1", "2", "3"}));
}

TEST(Consumer, HandsOverDeliveriesAndTakesVerdicts) {
    queen::client client(broker_url());
    const auto queue = client.queue(fresh("verdicts"));
    client.call("queue.create", {{"queue", queue.name()}, {"options", queen::options{{"retryLimit", 5}}}}).get();
    queue.push(queen::items().add("1").add("2")).get();
    std::atomic<int> calls{0};
    const auto consumer = queue.consume(
        [&](queen::delivery &d) {
            EXPECT_EQ(d.size(), 2u);
            return ++calls == 1 ? queen::verdict::nack : queen::verdict::ack;
        },
        {{"batch", 2}, {"limit", 4}, {"idleMillis", 10000}});
    const auto summary = consumer.wait(20s).value();
    EXPECT_EQ(calls, 2);
    EXPECT_EQ(summary.number("/acked"), 2) << summary.text();
}

TEST(Consumer, DefersWhatIsMovedAway) {
    queen::client client(broker_url());
    const auto queue = client.queue(fresh("defer"));
    queue.push("1").get();
    told<std::shared_ptr<queen::delivery>> kept;
    const auto consumer = queue.consume([&](queen::delivery d) { kept.tell(std::make_shared<queen::delivery>(std::move(d))); },
                                        {{"limit", 1}});
    const auto got = kept.wait(1);
    EXPECT_EQ(consumer.wait(50ms).error().code(), queen::errc::timeout); // its verdict is waited for
    EXPECT_EQ((*got[0])[0].payload(), "1");
    got[0]->ack().get();
    EXPECT_EQ(consumer.wait().value().number("/acked"), 1);
}

TEST(Consumer, AHandlerThatThrowsIsANackWithItsReason) {
    hears_exceptions hears;
    queen::client client(broker_url());
    const auto queue = client.queue(fresh("throws"));
    client.call("queue.create", {{"queue", queue.name()}, {"options", queen::options{{"retryLimit", 0}}}}).get();
    queue.push(queen::items().add("1").add("2")).get();
    std::atomic<int> calls{0};
    const auto consumer = queue.consume(
        [&](const queen::message &) {
            if (calls++ == 0) throw std::runtime_error("no stock");
            throw 7; // NOLINT: any type may come
        },
        {{"limit", 2}});
    const auto summary = consumer.wait(30s).value();
    EXPECT_EQ(summary.number("/nacked"), 2) << summary.text();
    const auto heard = hears.heard->wait(2);
    EXPECT_EQ(heard[0], "a handler: no stock");
    EXPECT_EQ(heard[1], "a handler: something");
    const auto dead = client.call("dlq.list", {{"queue", queue.name()}}).get();
    EXPECT_NE(dead.text().find("no stock"), std::string::npos) << dead.text();
}

TEST(Consumer, AHookThatThrowsHarmsNobody) {
    queen::set_exception_hook([](std::string_view, std::exception_ptr) { throw std::runtime_error("the hook"); });
    steered its;
    its.client.queue("q").push("1").get();
    const auto consumer = its.client.queue("q").consume([](const queen::message &) { throw 1; }, {{"limit", 1}});
    EXPECT_EQ(consumer.wait(20s).value().number("/nacked"), 1);
    queen::set_exception_hook([](std::string_view, std::exception_ptr) {});
}

TEST(Consumer, TellsWhatIsWrongWithItsOptions) {
    queen::client client(broker_url());
    const auto bad = client.queue("q").try_consume([](queen::delivery &) {}, {{"concurrency", -1}});
    ASSERT_FALSE(bad);
    EXPECT_NE(bad.error().message().find("concurrency"), std::string::npos);
    EXPECT_THROW(client.queue("q").consume([](queen::delivery &) {}, {{"concurrency", -1}}), queen::exception);
    EXPECT_THROW(client.queue("q").receive({{"concurrency", -1}}), queen::exception);
}

TEST(Consumer, ItsEndWaitsForItsHandlers) {
    queen::client client(broker_url());
    const auto queue = client.queue(fresh("join"));
    queue.push("1").get();
    told<int> began;
    std::atomic<bool> ended{false};
    {
        const auto consumer = queue.consume([&](queen::delivery &) {
            began.tell(1);
            std::this_thread::sleep_for(200ms);
            ended = true;
        });
        began.wait(1);
    }
    EXPECT_TRUE(ended);
    EXPECT_TRUE(queue.pop().get().empty()); // and its ack was sent
}

TEST(Consumer, MayEndInItsOwnHandler) {
    queen::client client(broker_url());
    const auto queue = client.queue(fresh("own"));
    auto consumer = std::make_shared<queen::consumer>();
    told<int> done;
    *consumer = queue.consume([&](queen::delivery &) {
        *consumer = queen::consumer(); // does not wait for itself
        done.tell(1);
    });
    queue.push("1").get();
    done.wait(1);
    client.close().get();
}

TEST(Consumer, StopsAndDetaches) {
    queen::client client(broker_url());
    auto consumer = client.queue(fresh("stop")).consume([](queen::delivery &) {});
    EXPECT_EQ(consumer.stop().get().string("/reason"), "stopped");
    auto runs_on = client.queue(fresh("stop")).consume([](queen::delivery &) {});
    const auto ended = runs_on.ended();
    runs_on.detach();
    EXPECT_FALSE(runs_on);
    EXPECT_EQ(ended.wait(50ms).error().code(), queen::errc::timeout);
    client.close().get();
    EXPECT_EQ(ended.get().string("/reason"), "closed");
}

TEST(Receive, IteratesAndGivesBackWhatIsNotSettled) {
    queen::client client(broker_url());
    const auto queue = client.queue(fresh("iterate"));
    queue.push(queen::items().add("1").add("2").add("3")).get();
    std::string got;
    auto stream = queue.receive({{"limit", 2}, {"batch", 1}});
    for (queen::delivery &d : stream) {
        got += d[0].payload();
        d.ack().get();
    }
    EXPECT_EQ(got, "12");
    EXPECT_TRUE(stream.ended());
    EXPECT_EQ(stream.wait().value().string("/reason"), "limit");
    EXPECT_EQ(stream.next(), std::nullopt);
    {
        auto another = queue.receive();
        auto third = another.next(20s);
        ASSERT_TRUE(third);
        EXPECT_EQ((*third)[0].payload(), "3");
        EXPECT_EQ(another.next(20ms), std::nullopt);
        EXPECT_FALSE(another.ended());
        third.reset(); // not settled: it comes again
        third = another.next(20s);
        ASSERT_TRUE(third);
        third->ack().get();
        another.stop().get();
        EXPECT_EQ(another.next(), std::nullopt);
        EXPECT_TRUE(another.ended());
    }
    EXPECT_TRUE(queue.pop().get().empty());
}

TEST(Receive, HandsOverMessageAfterMessage) {
    queen::client client(broker_url());
    const auto queue = client.queue(fresh("next"));
    queue.push(queen::items().add("1").add("2").add("3")).get();
    auto stream = queue.receive({{"limit", 3}, {"batch", 3}, {"each", true}});
    std::optional<queen::delivery> first = stream.next(20s);
    ASSERT_TRUE(first);
    const queen::delivery second = first->next();
    ASSERT_TRUE(second);
    EXPECT_EQ(second[0].payload(), "2");
    EXPECT_EQ(first->ack().wait().error().code(), queen::errc::already_settled);
    const queen::delivery third = second.next();
    ASSERT_TRUE(third);
    EXPECT_FALSE(third.next());
    EXPECT_EQ(stream.next(), std::nullopt);
    EXPECT_EQ(stream.wait().value().number("/acked"), 3);
    EXPECT_FALSE(queen::delivery().next());
}

TEST(Receive, ThrowsTheErrorThatEndsIt) {
    steered its;
    its.broker.add_faults({{"route", "pop"}, {"action", "status"}, {"status", 403}}).get();
    auto stream = its.client.queue("q").receive();
    try {
        for (queen::delivery &d : stream) d.ack().get();
        FAIL() << "no error";
    } catch (const queen::exception &thrown) {
        EXPECT_EQ(thrown.code(), queen::errc::forbidden) << thrown.what();
    }
}

TEST(Receive, IntoAnEventQueueOfOnesOwn) {
    queen::client client(broker_url());
    const auto queue = client.queue(fresh("events"));
    queue.push("1").get();
    queen::event_queue events;
    queen::event_batch batch;
    const auto consumer = queue.consume_events(events, 9, {{"limit", 1}});
    ASSERT_EQ(events.poll(batch), 1u);
    ASSERT_EQ(batch[0].type(), queen::event_type::delivery);
    EXPECT_EQ(batch[0].tag(), 9u);
    queen::delivery taken = batch[0].take_delivery();
    EXPECT_FALSE(batch[0].take_delivery());
    queen::event_batch moved = std::move(batch);
    moved.clear();
    EXPECT_EQ(taken[0].payload(), "1");
    taken.ack().get();
    ASSERT_EQ(events.poll(moved), 1u);
    EXPECT_EQ(moved[0].type(), queen::event_type::consumer_ended);
}

// Only the embedded broker has streams.
TEST(Stream, PollsConsumesAndIterates) {
    steered its;
    its.client.call("queue.create", {{"queue", "clicks"}}).get();
    its.client.call("stream.define", R"({"stream":"s","namespace":"n","sources":["clicks"],"windowMillis":1000,"graceMillis":0})").get();
    const auto stream = its.client.stream("s", "g");
    EXPECT_EQ(its.client.stream("none", "g").poll().wait().error().code(), queen::errc::not_found);
    EXPECT_FALSE(stream.poll({{"pollTimeoutMillis", 0}}).get().has_value());
    const auto fill = [&] {
        its.client.queue("clicks").push(queen::items().add(R"({"n":1,"who":"a"})").add(R"({"n":2,"who":"b"})").add(R"({"n":4,"who":"a"})")).get();
        its.broker.advance(3s).get();
    };
    fill();
    auto polled = stream.poll({{"pollTimeoutMillis", 20000}}).get();
    ASSERT_TRUE(polled.has_value());
    queen::window &w = *polled;
    EXPECT_EQ(w.original_size(), 3u);
    EXPECT_EQ(w.key(), "__GLOBAL__");
    EXPECT_FALSE(w.id().empty());
    EXPECT_LT(w.start(), w.stop());
    EXPECT_EQ(w[1].payload(), R"({"n":2,"who":"b"})");
    EXPECT_THROW(w[3], std::out_of_range);
    EXPECT_EQ(w.group_by("data.who").value().string("/0/key"), "a");
    w.filter([](const queen::message &m) { return m.payload().find("\"a\"") != std::string_view::npos; });
    EXPECT_EQ(w.size(), 2u);
    EXPECT_EQ(w.aggregate(R"({"sum":["data.n"]})").value().number("/sum/data.n"), 5);
    EXPECT_THROW(w.filter([](const queen::message &) -> bool { throw std::runtime_error("x"); }), std::runtime_error);
    EXPECT_EQ(w.size(), 2u);
    EXPECT_THROW(w.keep({7}), queen::exception);
    w.keep({1}).reset_filters();
    EXPECT_EQ(w.json().value().number("/size"), 3);
    EXPECT_FALSE(w.lost());
    w.ack().get();

    hears_exceptions hears;
    fill();
    std::atomic<int> calls{0};
    const auto consumer = stream.consume(
        [&](queen::window &) {
            if (calls++ == 0) throw std::runtime_error("not now");
        },
        {{"limit", 2}});
    EXPECT_EQ(consumer.wait(30s).value().number("/acked"), 1);
    EXPECT_EQ(hears.heard->wait(1)[0], "a handler: not now");
    fill();
    std::size_t messages = 0;
    for (queen::window &each : stream.windows({{"idleMillis", 20000}})) {
        messages += each.size(); // between those with messages are empty ones
        each.ack().get();
        if (messages > 0) break;
    }
    EXPECT_EQ(messages, 3u);
}
