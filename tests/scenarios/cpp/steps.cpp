// What each step does with the binding.
#include "world.hpp"

using namespace std::chrono_literals;

static json described(const queen::error &error) {
    if (!error.json().empty()) return json::parse(error.json());
    return {{"name", error.name()}, {"message", error.message()}};
}

static outcome told(queen::result<queen::document> came) {
    outcome out;
    if (const queen::document *document = came.partial()) out.result = document->as();
    if (!came) out.error = described(came.error());
    return out;
}

// Waits, so that the step can be cancelled meanwhile.
template <class T> static queen::result<T> wait(const queen::future<T> &future, running *self) {
    if (self != nullptr) {
        std::lock_guard<std::mutex> guard(self->lock);
        self->cancel = [&future] { future.cancel(); };
        if (self->cancelled) future.cancel();
    }
    queen::result<T> came = future.wait(patience);
    if (self != nullptr) {
        std::lock_guard<std::mutex> guard(self->lock);
        self->cancel = nullptr;
    }
    if (came.error().code() == queen::errc::timeout && !future.ready()) throw std::runtime_error("it takes longer than 30 seconds");
    return came;
}

static queen::options options_of(const json &from) { return from.is_null() ? queen::options() : queen::options(from); }

static std::string word(const json &step, const char *field) { return step.value(field, std::string()); }

static queen::items items_of(const json &from) {
    queen::items out;
    for (const json &one : from) out.add(one.at("payload"), word(one, "transactionId"), word(one, "traceId"));
    return out;
}

static std::string client_name(const json &step) { return step.value("client", "main"); }

static queen::client client_of(world &w, const json &step) {
    std::lock_guard<std::mutex> guard(w.lock);
    return w.clients.at(client_name(step));
}

static queen::queue queue_of(world &w, const json &step) {
    queen::queue queue = client_of(w, step).queue(word(step, "queue"));
    return step.contains("partition") ? queue.partition(word(step, "partition")) : queue;
}

static std::shared_ptr<queen::deliveries> pop_of(world &w, const json &name) {
    std::lock_guard<std::mutex> guard(w.lock);
    return w.pops.at(name.get<std::string>());
}

static void describe(const queen::delivery &delivery, json &into) {
    for (const queen::message m : delivery) {
        into["payloads"].push_back(m.as());
        const auto trace = m.trace_id();
        into["messages"].push_back({{"queue", m.queue()}, {"partition", m.partition()}, {"partitionId", m.partition_id()},
            {"leaseId", m.lease_id()}, {"consumerGroup", m.consumer_group()}, {"id", m.id()}, {"transactionId", m.transaction_id()},
            {"traceId", trace ? json(*trace) : json()}, {"payload", m.as()}});
    }
}

outcome open(world &w, const std::string &name, const json &config) {
    json settings = config.is_null() ? json::object() : config;
    settings["url"] = w.url;
    auto made = queen::client::open(settings.dump());
    if (!made) return {{}, described(made.error())};
    made->on_report([&w, name](std::string_view text, std::size_t) {
        std::lock_guard<std::mutex> guard(w.lock);
        for (json &one : json::parse(text)) w.reports[name].push_back(std::move(one));
    });
    std::lock_guard<std::mutex> guard(w.lock);
    w.reports.emplace(name, json::array());
    w.clients.insert_or_assign(name, std::move(made).value());
    return {};
}

static outcome pop(world &w, const json &step, running *self) {
    auto came = wait(queue_of(w, step).pop(options_of(step.value("options", json()))), self);
    if (!came) return {{}, described(came.error())};
    auto got = std::make_shared<queen::deliveries>(std::move(came).value());
    json result = {{"payloads", json::array()}, {"messages", json::array()}, {"deliveries", got->size()}};
    for (const queen::delivery &each : *got) describe(each, result);
    std::lock_guard<std::mutex> guard(w.lock);
    if (step.contains("as")) w.pops[word(step, "as")] = got;
    return {result, {}};
}

static outcome settle_all(world &w, const json &step, running *self) {
    outcome all{json::array(), {}};
    for (const queen::delivery &each : *pop_of(w, step.at("of"))) {
        const outcome one = told(wait(step["do"] == "ack" ? each.ack() : each.nack(word(step, "reason")), self));
        for (const json &entry : one.result) all.result.push_back(entry);
        if (one.error) return {all.result, one.error};
    }
    return all;
}

static outcome transaction(world &w, const json &step, running *self) {
    queen::transaction t = client_of(w, step).transaction();
    for (const json &one : step.at("operations")) { // the commit tells what was wrong with an addition
        if (one.contains("ack")) t.ack(pop_of(w, one["ack"])->at(0), one.value("index", std::size_t{0}), one.value("status", "completed"));
        else t.push(one.at("push").get<std::string>(), word(one, "partition"), items_of(one.at("items")));
    }
    return told(wait(t.commit(), self));
}

// The rules of a handler, and how often each payload came.
class rules {
  public:
    explicit rules(const json &step) : list_(step.value("handler", json::array())) {}
    // The one that decides on this call, once its time to sleep is over; an ack where there is none.
    json next(const json &payload) {
        int call;
        {
            std::lock_guard<std::mutex> guard(lock_);
            call = ++calls_[payload.dump()];
        }
        for (const json &rule : list_) {
            if (rule.contains("payload") && !misfit(rule["payload"], payload, "").empty()) continue;
            if (rule.contains("call") && rule["call"] != call) continue;
            std::this_thread::sleep_for(std::chrono::milliseconds(rule.value("sleepMillis", 0)));
            return rule;
        }
        return json::object();
    }

  private:
    const json list_;
    std::mutex lock_;
    std::map<std::string, int> calls_;
};

static queen::verdict react(world &w, const json &rule, const json &step, queen::delivery &d, std::atomic<bool> &stop) {
    const std::string then = rule.value("then", "ack");
    if (then == "ack") return queen::verdict::ack;
    if (then == "throw") throw std::runtime_error(word(rule, "reason"));
    if (then == "nack") {
        (void)d.nack(word(rule, "reason"));
        return queen::verdict::nack;
    }
    if (then == "stop") stop = true;
    else if (then == "settle") d.settle(0, rule.at("status").get<std::string>(), word(rule, "reason")).get(patience);
    else if (then == "transaction")
        client_of(w, step).transaction().ack(d, 0).push(word(rule, "queue"), "", items_of(rule.at("items"))).commit().get(patience);
    else throw std::runtime_error("no such rule: " + then);
    return queen::verdict::ack;
}

static outcome consume(world &w, const json &step, running *self) {
    std::mutex lock;
    json got = {{"payloads", json::array()}, {"messages", json::array()}};
    rules said(step);
    std::atomic<bool> stop{false};
    const auto handler = [&](queen::delivery &d) {
        {
            std::lock_guard<std::mutex> guard(lock);
            describe(d, got);
        }
        return react(w, said.next(d[0].as()), step, d, stop);
    };
    auto started = queue_of(w, step).try_consume(handler, options_of(step.value("options", json())));
    if (!started) return {{}, described(started.error())};
    const queen::consumer consumer = std::move(started).value();
    const auto began = std::chrono::steady_clock::now();
    const auto after = std::chrono::milliseconds(step.value("stopMillis", 30000));
    const auto ended = consumer.ended();
    while (!ended.ready() && !stop && std::chrono::steady_clock::now() < began + after) {
        std::this_thread::sleep_for(2ms);
        if (self == nullptr) continue;
        std::lock_guard<std::mutex> guard(self->lock);
        stop = stop || self->cancelled;
    }
    if (!ended.ready() && !stop && !step.contains("stopMillis")) throw std::runtime_error("the consumer does not end");
    outcome out = told(ended.ready() ? ended.wait() : consumer.stop(patience).wait(patience));
    std::lock_guard<std::mutex> guard(lock);
    got["summary"] = out.result;
    return {got, out.error};
}

static outcome windows(world &w, const json &step, running *self) {
    std::mutex lock;
    json got = {{"windows", json::array()}};
    rules said(step);
    const std::string wanted = step.value("aggregate", json::object()).dump();
    const auto handler = [&](queen::window &window) {
        const std::string key(window.key());
        json now = {{"key", key}, {"start", window.start()}, {"payloads", json::array()}, {"aggregates", window.aggregate(wanted).value().as()}};
        for (const queen::message m : window) now["payloads"].push_back(m.as());
        {
            std::lock_guard<std::mutex> guard(lock);
            got["windows"].push_back(std::move(now));
        }
        const json rule = said.next(key);
        const std::string then = rule.value("then", "ack");
        if (then != "ack" && then != "nack") throw std::runtime_error(then + ": " + word(rule, "reason"));
        return then == "ack" ? queen::verdict::ack : queen::verdict::nack;
    };
    const queen::stream stream = client_of(w, step).stream(word(step, "stream"), word(step, "group"));
    const queen::consumer consumer = stream.consume(handler, options_of(step.value("options", json())));
    const outcome out = told(wait(consumer.ended(), self));
    std::lock_guard<std::mutex> guard(lock);
    got["summary"] = out.result;
    return {got, out.error};
}

static outcome steer(const queen::broker &broker, const json &step, const std::string &what) {
    const auto now = [&](queen::future<queen::document> future) { return told(wait(future, nullptr)); };
    if (what == "add_faults") return now(broker.add_faults(queen::options(step.at("faults").dump())));
    if (what == "faults") return now(broker.faults());
    if (what == "remove_faults") return now(broker.remove_faults());
    if (what == "requests") return now(broker.requests());
    if (what == "reset_requests") return now(broker.reset_requests());
    if (what == "clock") return now(broker.move_clock(step.at("change")));
    if (what == "stop") return now(broker.stop(patience));
    if (what == "kill") return now(broker.kill());
    if (what == "restart") return now(broker.restart());
    throw std::runtime_error("no such step: broker." + what);
}

outcome perform(world &w, const json &step, running *self) {
    const std::string what = step.at("do");
    const queen::options options = options_of(step.value("options", json()));
    const auto now = [&](queen::future<queen::document> future) { return told(wait(future, self)); };
    if (what == "open") return open(w, client_name(step), step.value("config", json()));
    if (what == "close") {
        const outcome closed = now(client_of(w, step).close(std::chrono::milliseconds(step.value("timeoutMillis", 30000))));
        return {{}, closed.error};
    }
    if (what == "push") return now(queue_of(w, step).push(items_of(step.at("items")), options));
    if (what == "pop") return pop(w, step, self);
    if (what == "ack" || what == "nack") return settle_all(w, step, self);
    if (what == "settle") return now(pop_of(w, step.at("of"))->at(0).settle(step.at("verdicts").dump()));
    if (what == "release") return pop_of(w, step.at("of"))->clear(), outcome();
    if (what == "lost") return {pop_of(w, step.at("of"))->at(0).lost(), {}};
    if (what == "ack.ids") return now(client_of(w, step).ack(step.at("acks").dump(), options));
    if (what == "transaction") return transaction(w, step, self);
    if (what == "consume") return consume(w, step, self);
    if (what == "windows") return windows(w, step, self);
    if (what == "flush") return {{}, now(step.contains("queue") ? queue_of(w, step).flush() : client_of(w, step).flush()).error};
    if (what == "statistics") return now(client_of(w, step).statistics());
    if (what == "call") return now(client_of(w, step).call(word(step, "operation"), options_of(step.value("parameters", json()))));
    if (what == "sleep") return std::this_thread::sleep_for(std::chrono::milliseconds(step.at("millis").get<int>())), outcome();
    if (what == "reports") {
        std::lock_guard<std::mutex> guard(w.lock);
        return {w.reports.at(client_name(step)), {}};
    }
    if (what.rfind("broker.", 0) == 0 && w.broker) return steer(*w.broker, step, what.substr(7));
    throw std::runtime_error("no such step: " + what);
}
