// Texts, options, items, documents: no broker is asked.
#include "support.hpp"

TEST(Json, QuotesWhatMustBe) {
    EXPECT_EQ(queen::quote("a\"b\\c\n\x01\xc3\xa9"), "\"a\\\"b\\\\c\\u000a\\u0001\xc3\xa9\"");
}

TEST(Json, FindsByPointer) {
    const queen::document d(R"( [ {"a": "x\"y", "b": {"c": [1, -23 ,{"d":true}]}} , 4.5, null ] )");
    EXPECT_EQ(d.string("/0/a"), "x\"y");
    EXPECT_EQ(d.number("/0/b/c/1"), -23);
    EXPECT_TRUE(d.is_true("/0/b/c/2/d"));
    EXPECT_EQ(d.find("/2"), "null");
    EXPECT_EQ(d.find("/0/b/c"), "[1, -23 ,{\"d\":true}]");
    EXPECT_EQ(d.number("/1"), std::nullopt); // no whole number
    EXPECT_EQ(d.find("/3"), std::nullopt);
    EXPECT_EQ(d.find("/0/z"), std::nullopt);
    EXPECT_EQ(d.find("/0/a/0"), std::nullopt);
    EXPECT_EQ(d.find("x"), std::nullopt);
    EXPECT_EQ(d.string("/1"), "");
}

TEST(Json, FindsNothingInBrokenText) {
    for (const char *text : {"", "[", "{\"a\"", "{\"a\":", "[1,", "\"", "{\"a\":\"\\", "}", "[\"a"}) {
        EXPECT_EQ(queen::document(text).find("/a/b"), std::nullopt) << text;
        EXPECT_EQ(queen::document(text).find("/1"), std::nullopt) << text;
    }
}

TEST(Json, UndoesEscapes) {
    EXPECT_EQ(queen::document(R"("\u00e9\ud83d\ude00\n\t\/\u20ac")").string(""), "\xc3\xa9\xf0\x9f\x98\x80\n\t/\xe2\x82\xac");
    EXPECT_EQ(queen::document(R"("\u12")").string("").empty(), false); // cut short: no crash
}

TEST(Options, AreWrittenAsJson) {
    EXPECT_EQ(queen::options().c_str(), nullptr);
    const queen::options all{{"batch", 10}, {"wait", true}, {"share", 0.5}, {"group", "a\"b"}, {"time", 2s},
                             {"nested", queen::options{{"x", -1}}}, {"raw", queen::raw_json{"[1]"}}};
    EXPECT_EQ(all.text(), R"({"batch":10,"wait":true,"share":0.500000,"group":"a\"b","time":2000,"nested":{"x":-1},"raw":[1]})");
    EXPECT_TRUE(all.has("nested"));
    EXPECT_FALSE(all.has("x"));
    queen::options text(R"({"a":1})");
    EXPECT_EQ(text.set("b", 2).text(), R"({"a":1,"b":2})");
    EXPECT_EQ(queen::options("{ }").set("b", 2).text(), R"({ "b":2})");
    EXPECT_THROW(queen::options(std::string("{}\0", 3)), queen::exception);
}

TEST(Items, AreWrittenAsJson) {
    EXPECT_EQ(queen::items().text(), "[]");
    queen::items two;
    two.add("{\"n\":1}").add(queen::quote("x"), "id-1", "trace-1");
    EXPECT_EQ(two.text(), R"([{"payload":{"n":1}},{"payload":"x","transactionId":"id-1","traceId":"trace-1"}])");
}

TEST(Error, IsAValue) {
    const queen::error none;
    EXPECT_FALSE(none);
    EXPECT_EQ(none.code(), queen::errc::ok);
    EXPECT_EQ(none.name(), "QUEEN_OK");
    queen::result<int> bad = queen::error(queen::errc::timeout, "too late");
    EXPECT_FALSE(bad);
    EXPECT_EQ(bad.partial(), nullptr);
    try {
        bad.value();
        FAIL();
    } catch (const queen::exception &thrown) {
        EXPECT_STREQ(thrown.what(), "QUEEN_E_TIMEOUT: too late");
        EXPECT_EQ(thrown.code(), queen::errc::timeout);
    }
    queen::result<std::string> good(std::string("x"));
    EXPECT_EQ(*good, "x");
    EXPECT_EQ(good->size(), 1u);
}

#if QUEEN_HAS_NLOHMANN
TEST(Nlohmann, GoesInAndComesOut) {
    queen::client client(broker_url());
    const auto queue = client.queue(fresh("nlohmann"));
    const nlohmann::json order = {{"id", 7}, {"lines", {1, 2}}};
    EXPECT_EQ(queue.push(order).get().as()[0]["status"], "queued");
    auto popped = queue.pop(nlohmann::json{{"batch", 5}, {"wait", true}}).get();
    ASSERT_EQ(popped.size(), 1u);
    EXPECT_EQ(popped[0][0].as(), order);
    using fields = std::map<std::string, nlohmann::json>;
    EXPECT_EQ(popped[0][0].as<fields>().at("id"), 7);
    popped[0].ack().get();
}
#endif
