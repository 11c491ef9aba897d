// The client, its queues, streams and transactions. Included by queen.hpp. SPDX-License-Identifier: Apache-2.0
#ifndef QUEEN_CLIENT_HPP
#define QUEEN_CLIENT_HPP

#include "consumer.hpp"

namespace queen {

namespace detail {

using client_handle = std::shared_ptr<queen_client_t>;

// Starts a consumer with `start(text, length, &error)`; who starts it decides whether it throws.
template <class Start> result<consumer> started(const options &with, bool joins, Start start) {
    queen_error_t *error = nullptr;
    queen_consumer_t *made = start(with.text().data(), with.text().size(), &error);
    if (made == nullptr) return queen::error::take(error);
    return consumer(made, joins);
}

template <class F> struct notice { // registrations whose function takes a JSON text
    static void call(const char *json, std::size_t length, void *self) noexcept {
        guarded("a notice callback", [&] { (*static_cast<F *>(self))(std::string_view(json, length)); });
    }
    static void log(std::int32_t level, const char *json, std::size_t length, void *self) noexcept {
        guarded("a log callback", [&] { (*static_cast<F *>(self))(static_cast<int>(level), std::string_view(json, length)); });
    }
    static void report(const char *json, std::size_t length, std::size_t dropped, void *self) noexcept {
        guarded("a report callback", [&] { (*static_cast<F *>(self))(std::string_view(json, length), dropped); });
    }
    static void free(void *self) noexcept { delete static_cast<F *>(self); }
};

} // namespace detail

/// Verdicts and pushes that a broker applies together or not at all. Nothing is sent before commit().
///
/// An addition that fails makes the commit fail with the same error. Destroyed without a commit, its messages are unsettled
/// again. Move-only. Threads: any; moving and destroying are for one thread at a time.
class transaction {
  public:
    /// Of a client.
    explicit transaction(const detail::client_handle &client) : handle_(queen_transaction_new(client.get())) {}

    /// Adds a verdict on one message of a delivery: "completed", "failed", "retry" or "dlq".
    transaction &ack(const delivery &of, std::size_t index, std::string_view status = "completed") {
        const std::string word = detail::c_name(status, "status");
        note(queen_transaction_ack(handle_.get(), of.c_handle(), index, word.c_str()));
        return *this;
    }
    /// Acks every message of a delivery.
    transaction &ack(const delivery &of) {
        for (std::size_t index = 0; index < of.size(); index++) ack(of, index);
        if (!of) note(QUEEN_E_INVALID_ARGUMENT);
        return *this;
    }
    /// Adds verdicts as delivery::settle() takes them.
    transaction &settle(const delivery &of, std::string_view verdicts) {
        note(queen_transaction_settle(handle_.get(), of.c_handle(), verdicts.data(), verdicts.size()));
        return *this;
    }
    /// Adds verdicts by ids, as client::ack() takes them.
    transaction &ack_ids(std::string_view acks, const options &with = {}) {
        note(queen_transaction_ack_ids(handle_.get(), acks.data(), acks.size(), with.c_str()));
        return *this;
    }
    /// Adds a push of messages to one partition; "" is the partition "Default".
    transaction &push(std::string_view queue, std::string_view partition, const items &messages, const options &with = {}) {
        const std::string name = detail::c_name(queue, "queue"), part = detail::c_name(partition, "partition");
        note(queen_transaction_push(handle_.get(), name.c_str(), part.empty() ? nullptr : part.c_str(), messages.text().data(),
                                    messages.text().size(), with.c_str()));
        return *this;
    }
    /// The same with one message.
    transaction &push(std::string_view queue, std::string_view partition, const payload &value) {
        return push(queue, partition, items().add(value));
    }
    /// The code of the first addition that failed, errc::ok when none has.
    errc failed() const noexcept { return failed_; }
    /// Sends it all in one request, once: see queen_transaction_commit().
    future<document> commit(const options &with = {}) {
        return future<document>(queen_transaction_commit(handle_.get(), with.c_str()));
    }
    /// The handle for functions of queen.h, on loan.
    queen_transaction_t *c_handle() const noexcept { return handle_.get(); }

  private:
    void note(std::int32_t code) noexcept {
        if (failed_ == errc::ok) failed_ = static_cast<errc>(code);
    }
    std::unique_ptr<queen_transaction_t, detail::freer<queen_transaction_free>> handle_;
    errc failed_ = errc::ok;
};

/// A queue, or a partition of one, of a client. A cheap value that keeps the client alive. Threads: any.
class queue {
  public:
    /// Of a client; throws queen::exception for a name with a NUL.
    queue(detail::client_handle client, std::string_view name) : client_(std::move(client)), name_(detail::c_name(name, "queue")) {}

    /// The partition of that name.
    queue partition(std::string_view name) const {
        queue out(*this);
        out.partition_ = detail::c_name(name, "partition");
        return out;
    }
    /// The same queue as a consumer group sees it: pops and consumers are of the group.
    queue group(std::string_view name) const {
        queue out(*this);
        out.group_ = name;
        return out;
    }

    /// Pushes one message: JSON text, or an nlohmann::json. The result is `[{"index", "transactionId", "messageId", "status",
    /// ...}]`; docs/CONFIGURATION.md has the options, such as `{{"buffer", true}}`.
    future<document> push(const payload &value, const options &with = {}) const { return push(items().add(value), with); }
    /// Pushes several messages in one request.
    future<document> push(const items &messages, const options &with = {}) const {
        return push_json(messages.text(), with);
    }
    /// The same with a JSON array of items as queen_push() wants it, which is not copied before C has it.
    future<document> push_json(std::string_view array, const options &with = {}) const {
        return future<document>(queen_push(client_.get(), name_.c_str(), part(), array.data(), array.size(), with.c_str()));
    }
    /// Pops messages under a lease: `{{"batch", 10}, {"wait", true}}`. Without a name, by `namespace` or `task`.
    future<deliveries> pop(const options &with = {}) const {
        return future<deliveries>(queen_pop(client_.get(), name_.empty() ? nullptr : name_.c_str(), part(), grouped(with).c_str()));
    }
    /// Sends what is buffered for the queue or partition, and completes when all of it is settled.
    future<document> flush(options with = {}) const {
        if (!name_.empty()) with.set("queue", name_);
        if (!partition_.empty()) with.set("partition", partition_);
        return future<document>(queen_flush(client_.get(), with.c_str()));
    }

    /// Starts a consumer whose handler takes a `queen::delivery &` or, one at a time, a `const queen::message &`; it returns
    /// nothing (an ack) or a queen::verdict. Throws queen::exception for options that are wrong.
    ///
    /// An exception is a nack with what() as the reason, and goes to the exception hook. A handler that moves the delivery
    /// away, or takes it by value, defers: who holds it settles it. Handlers run on threads of the library, at most
    /// `concurrency` at once, and may block.
    template <class F> consumer consume(F handler, const options &with = {}) const {
        return try_consume(std::move(handler), with).value();
    }
    /// As consume(), with the error as a result.
    template <class F> result<consumer> try_consume(F handler, const options &with = {}) const {
        using wrapped = detail::handler<delivery, F>;
        options all = named(with);
        if (wrapped::by_message && all.has("batch") && !all.has("each")) all.set("each", true);
        return detail::started(all, true, [&](const char *text, std::size_t length, queen_error_t **error) {
            return queen_consume(client_.get(), text, length, wrapped::call, new F(std::move(handler)), wrapped::free, error);
        });
    }
    /// Starts a consumer that puts deliveries, lost leases and its end into an event queue, with this tag.
    consumer consume_events(const event_queue &events, std::uint64_t tag, const options &with = {}) const {
        return detail::started(named(with), false, [&](const char *text, std::size_t length, queen_error_t **error) {
            return queen_consume_events(client_.get(), text, length, events.c_handle(), tag, error);
        }).value();
    }
    /// A consumer to iterate over; see stream_of.
    delivery_stream receive(const options &with = {}) const {
        event_queue events;
        consumer source = consume_events(events, 0, with);
        return delivery_stream(std::move(events), std::move(source));
    }

    /// The name.
    const std::string &name() const noexcept { return name_; }

  private:
    const char *part() const noexcept { return partition_.empty() ? nullptr : partition_.c_str(); }
    options grouped(options with) const {
        if (!group_.empty()) with.set("consumerGroup", group_);
        return with;
    }
    options named(const options &with) const {
        options all = grouped(with);
        if (!name_.empty()) all.set("queue", name_);
        if (!partition_.empty()) all.set("partition", partition_);
        return all;
    }
    detail::client_handle client_;
    std::string name_, partition_, group_;
};

/// A stream of a client, as a consumer group sees it. A cheap value. Threads: any.
class stream {
  public:
    /// Of a client; throws queen::exception for a name with a NUL.
    stream(detail::client_handle client, std::string_view name, std::string_view group)
        : client_(std::move(client)), name_(detail::c_name(name, "stream")), group_(detail::c_name(group, "group")) {}

    /// Polls for the next window; none when nothing is due in `pollTimeoutMillis`.
    future<std::optional<window>> poll(const options &with = {}) const {
        return future<std::optional<window>>(
            queen_stream_poll(client_.get(), name_.c_str(), group_.c_str(), with.text().data(), with.text().size()));
    }
    /// Starts a consumer whose handler takes a `queen::window &` and returns nothing (an ack) or a queen::verdict; an
    /// exception is a nack. Throws queen::exception for options that are wrong.
    template <class F> consumer consume(F handler, const options &with = {}) const {
        using wrapped = detail::handler<window, F>;
        return detail::started(named(with), true, [&](const char *text, std::size_t length, queen_error_t **error) {
            return queen_stream_consume(client_.get(), text, length, wrapped::call, new F(std::move(handler)), wrapped::free, error);
        }).value();
    }
    /// A consumer to iterate over; see stream_of.
    window_stream windows(const options &with = {}) const {
        event_queue events;
        consumer source = detail::started(named(with), false, [&](const char *text, std::size_t length, queen_error_t **error) {
            return queen_stream_consume_events(client_.get(), text, length, events.c_handle(), 0, error);
        }).value();
        return window_stream(std::move(events), std::move(source));
    }

  private:
    options named(options with) const { return with.set("stream", name_).set("consumerGroup", group_); }
    detail::client_handle client_;
    std::string name_, group_;
};

/// A client of one broker or of a cluster. A cheap value: copies are the same client, and so do its queues keep it alive.
///
/// When the last of them is gone it closes in the background without waiting; close() is the orderly way. An empty one
/// (moved from) answers errc::invalid_argument, a closed one errc::closed. Threads: any.
class client {
  public:
    /// Of a URL, a JSON list of URLs, or a JSON object of docs/CONFIGURATION.md, such as "embedded:" or
    /// "http://host:6632". Connects to nothing yet. Throws queen::exception for what is wrong with it.
    template <class S, std::enable_if_t<std::is_convertible_v<const S &, std::string_view>, int> = 0>
    explicit client(const S &config) : client(open(config).value()) {}
    /// Of settings: `queen::client c(queen::options{{"url", "embedded:"}, {"retryAttempts", 1}})`.
    explicit client(const options &config) : client(config.text()) {}
    /// As the constructor, with the error as a result.
    static result<client> open(std::string_view config) {
        queen_error_t *error = nullptr;
        queen_client_t *made = queen_client_new(config.data(), config.size(), &error);
        if (made == nullptr) return queen::error::take(error);
        return client(detail::client_handle(made, queen_client_free));
    }

    /// False when moved from.
    explicit operator bool() const noexcept { return handle_ != nullptr; }
    /// A queue; nothing is sent.
    queen::queue queue(std::string_view name) const { return queen::queue(handle_, name); }
    /// A stream, for a consumer group; nothing is sent.
    queen::stream stream(std::string_view name, std::string_view group) const { return queen::stream(handle_, name, group); }
    /// A new transaction.
    queen::transaction transaction() const { return queen::transaction(handle_); }

    /// Any operation of docs/OPERATIONS.md by its name: `call("dlq.list", {{"queue", "orders"}})`.
    future<document> call(std::string_view operation, const options &parameters = {}) const {
        return future<document>(queen_call(handle_.get(), detail::c_name(operation, "operation").c_str(), parameters.text().data(),
                                           parameters.text().size()));
    }
    /// Verdicts by ids: a JSON array of `{"transactionId", "partitionId", "leaseId", "status"?, "error"?}`.
    future<document> ack(std::string_view acks, const options &with = {}) const {
        return future<document>(queen_ack(handle_.get(), acks.data(), acks.size(), with.c_str()));
    }
    /// Makes a lease last at least so long from now.
    future<document> renew(std::string_view lease_id, std::chrono::seconds time, const options &with = {}) const {
        return future<document>(queen_renew(handle_.get(), detail::c_name(lease_id, "lease id").c_str(), time.count(), with.c_str()));
    }
    /// Sends what is buffered, and completes when every push submitted before is settled.
    future<document> flush(const options &with = {}) const { return future<document>(queen_flush(handle_.get(), with.c_str())); }
    /// Completes when there is room again after errc::would_block.
    future<document> ready() const { return future<document>(queen_client_ready(handle_.get())); }
    /// Counters, gauges and latencies: docs/STATISTICS.md. Complete at once.
    future<document> statistics() const { return future<document>(queen_client_stats(handle_.get())); }
    /// Closes the client: stops its consumers, sends pushes and verdicts, ends the rest with errc::closed, all in this time.
    /// When it has completed well, no callback or handler runs any more.
    future<document> close(std::chrono::milliseconds timeout = std::chrono::seconds(30)) const {
        return future<document>(queen_client_close(handle_.get(), timeout.count()));
    }

    /// Log records of QUEEN_LOG_* `level` and above, as `function(int level, std::string_view json)`. This and the
    /// functions below replace the one before; they run on the dispatcher thread, and what they throw goes to the hook.
    template <class F> void on_log(int level, F function) const {
        using wrapped = detail::notice<F>;
        detail::check(queen_log_callback(handle_.get(), level, wrapped::log, new F(std::move(function)), wrapped::free), "on_log");
    }
    /// What became of buffered messages, as `function(std::string_view json, std::size_t dropped)`; see queen_report_events().
    template <class F> void on_report(F function) const {
        using wrapped = detail::notice<F>;
        detail::check(queen_report_callback(handle_.get(), wrapped::report, new F(std::move(function)), wrapped::free), "on_report");
    }
    /// Questions for a bearer token, as `function(std::string_view json)`; answered with set_token().
    template <class F> void on_token_wanted(F function) const {
        using wrapped = detail::notice<F>;
        detail::check(queen_token_callback(handle_.get(), wrapped::call, new F(std::move(function)), wrapped::free), "on_token_wanted");
    }
    /// A broker is unhealthy or has recovered, as `function(std::string_view json)`.
    template <class F> void on_backend_state(F function) const {
        using wrapped = detail::notice<F>;
        detail::check(queen_backend_callback(handle_.get(), wrapped::call, new F(std::move(function)), wrapped::free), "on_backend_state");
    }
    /// Sets the bearer token of all further requests; nothing says that there is none to be had.
    void set_token(std::optional<std::string_view> token) const {
        const std::string text = detail::c_name(token.value_or(""), "token");
        detail::check(queen_client_set_token(handle_.get(), token ? text.c_str() : nullptr), "set_token");
    }

    /// Log records into an event queue.
    void log_to(const event_queue &events, int level, std::uint64_t tag = 0) const {
        detail::check(queen_log_events(handle_.get(), level, events.c_handle(), tag), "log_to");
    }
    /// Delivery reports into an event queue.
    void report_to(const event_queue &events, std::uint64_t tag = 0) const {
        detail::check(queen_report_events(handle_.get(), events.c_handle(), tag), "report_to");
    }
    /// Statistics into an event queue, every `statisticsIntervalMillis` of the configuration.
    void statistics_to(const event_queue &events, std::uint64_t tag = 0) const {
        detail::check(queen_statistics_events(handle_.get(), events.c_handle(), tag), "statistics_to (is statisticsIntervalMillis set?)");
    }
    /// Questions for a token into an event queue.
    void tokens_to(const event_queue &events, std::uint64_t tag = 0) const {
        detail::check(queen_token_events(handle_.get(), events.c_handle(), tag), "tokens_to");
    }
    /// The state of brokers into an event queue.
    void backends_to(const event_queue &events, std::uint64_t tag = 0) const {
        detail::check(queen_backend_events(handle_.get(), events.c_handle(), tag), "backends_to");
    }
    /// The handle for functions of queen.h, on loan. NULL when moved from.
    queen_client_t *c_handle() const noexcept { return handle_.get(); }

  private:
    explicit client(detail::client_handle handle) noexcept : handle_(std::move(handle)) {}
    detail::client_handle handle_;
};

} // namespace queen

#endif
