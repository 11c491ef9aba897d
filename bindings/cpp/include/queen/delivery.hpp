// Messages and deliveries. Included by queen.hpp. SPDX-License-Identifier: Apache-2.0
#ifndef QUEEN_DELIVERY_HPP
#define QUEEN_DELIVERY_HPP

#include "future.hpp"

#include <algorithm>
#include <iterator>
#include <vector>

namespace queen {

/// A message. All texts are on loan from its delivery or window, and end with it.
class message {
  public:
    /// Nothing.
    message() noexcept : view_() {}
    /// Of a view of C.
    explicit message(const queen_message_view_t &view) noexcept : view_(view) {}

    /// The payload: JSON text, byte for byte as pushed.
    std::string_view payload() const noexcept { return {view_.payload, view_.payload_len}; }
    /// The broker's id.
    std::string_view id() const noexcept { return {view_.id, view_.id_len}; }
    /// The producer's id, the key of acks and of de-duplication.
    std::string_view transaction_id() const noexcept { return {view_.transaction_id, view_.transaction_id_len}; }
    /// The queue; empty when it was found by namespace or task and the broker does not tell.
    std::string_view queue() const noexcept { return {view_.queue, view_.queue_len}; }
    /// The partition's name.
    std::string_view partition() const noexcept { return {view_.partition, view_.partition_len}; }
    /// The partition's id, opaque.
    std::string_view partition_id() const noexcept { return {view_.partition_id, view_.partition_id_len}; }
    /// The lease; empty when the broker itself acked at delivery.
    std::string_view lease_id() const noexcept { return {view_.lease_id, view_.lease_id_len}; }
    /// The consumer group; "__QUEUE_MODE__" without one.
    std::string_view consumer_group() const noexcept { return {view_.consumer_group, view_.consumer_group_len}; }
    /// When the push was committed, ISO 8601 in UTC.
    std::string_view created_at() const noexcept { return {view_.created_at, view_.created_at_len}; }
    /// The trace id, if there is one.
    std::optional<std::string_view> trace_id() const noexcept { return maybe(view_.trace_id, view_.trace_id_len); }
    /// The authenticated producer, if the broker names one.
    std::optional<std::string_view> producer() const noexcept { return maybe(view_.producer_sub, view_.producer_sub_len); }
#if QUEEN_HAS_NLOHMANN
    /// The payload parsed, or read into a type of yours (from_json). Throws what nlohmann/json throws; in a handler that is
    /// a nack.
    template <class T = nlohmann::json> T as() const { return nlohmann::json::parse(payload()).template get<T>(); }
#endif

  private:
    static std::optional<std::string_view> maybe(const char *text, std::size_t length) noexcept {
        if (text == nullptr) return std::nullopt;
        return std::string_view(text, length);
    }
    queen_message_view_t view_;
};

namespace detail {

inline std::int64_t fill_views(const queen_delivery_t *from, queen_message_view_t *views, std::size_t first, std::size_t room) {
    return queen_delivery_view(from, views, sizeof *views, first, room);
}
inline std::int64_t fill_views(const queen_window_t *from, queen_message_view_t *views, std::size_t first, std::size_t room) {
    return queen_window_view(from, views, sizeof *views, first, room);
}

// Walks over the messages of a delivery or window, and fetches some of them at once. `Handle` is that of C.
template <class Handle> class message_iterator {
  public:
    using iterator_category = std::input_iterator_tag;
    using value_type = message;
    using difference_type = std::ptrdiff_t;
    using pointer = const message *;
    using reference = message;
    message_iterator(const Handle *owner, std::size_t at) noexcept : owner_(owner), at_(at) {}
    message_iterator(const message_iterator &other) noexcept : owner_(other.owner_), at_(other.at_) {}
    message_iterator &operator=(const message_iterator &other) noexcept {
        owner_ = other.owner_, at_ = other.at_, first_ = count_ = 0;
        return *this;
    }
    message operator*() const {
        if (at_ - first_ >= count_) { // also where at_ is before first_
            first_ = at_;
            count_ = static_cast<std::size_t>(std::max<std::int64_t>(fill_views(owner_, views_, at_, room), 0));
            if (count_ == 0) return message();
        }
        return message(views_[at_ - first_]);
    }
    message_iterator &operator++() noexcept { return at_++, *this; }
    message_iterator operator++(int) noexcept { return message_iterator(owner_, at_++); }
    bool operator==(const message_iterator &other) const noexcept { return at_ == other.at_; }
    bool operator!=(const message_iterator &other) const noexcept { return at_ != other.at_; }

  private:
    static constexpr std::size_t room = 16;
    const Handle *owner_;
    std::size_t at_;
    mutable std::size_t first_ = 0, count_ = 0;
    mutable queen_message_view_t views_[room]; // filled on first use
};

[[noreturn]] inline void out_of_range(const char *what, std::size_t index, std::size_t size) {
    throw std::out_of_range(std::string(what) + " " + std::to_string(index) + " of " + std::to_string(size));
}

} // namespace detail

/// What becomes of the messages that have no verdict when a handler returns.
enum class verdict : std::int32_t {
    ack = QUEEN_ACK,  ///< They are done.
    nack = QUEEN_NACK ///< They are not done: the first is charged a retry, all come again.
};

/// Messages of one partition under one lease. Move-only.
///
/// Each message is settled once. Destroyed unsettled, a delivery gives its messages back, without charging a retry.
/// Threads: any; moving and destroying are for one thread at a time.
class delivery {
  public:
    /// The type in C.
    using c_type = queen_delivery_t;
    /// An empty one.
    delivery() noexcept = default;
    /// Takes over a delivery of the C library.
    explicit delivery(queen_delivery_t *owned) noexcept : handle_(owned) {}

    /// False when empty: moved from, or released.
    explicit operator bool() const noexcept { return handle_ != nullptr; }
    /// How many messages it has; 0 when empty.
    std::size_t size() const noexcept { return queen_delivery_count(handle_.get()); }
    /// One of them; throws std::out_of_range beyond size().
    message operator[](std::size_t index) const {
        queen_message_view_t view;
        if (queen_delivery_view(handle_.get(), &view, sizeof view, index, 1) != 1) detail::out_of_range("message", index, size());
        return message(view);
    }
    /// To iterate over the messages.
    detail::message_iterator<queen_delivery_t> begin() const noexcept { return {handle_.get(), 0}; }
    /// Behind the last.
    detail::message_iterator<queen_delivery_t> end() const noexcept { return {handle_.get(), size()}; }

    /// Acks every message that has no verdict yet; completes when the broker has answered.
    future<document> ack() const { return future<document>(queen_delivery_ack(handle_.get())); }
    /// Acks every message that has no verdict yet, and takes the next delivery that its consumer has at hand: a turn through
    /// the event queue less. Empty: the next, if there is one, comes from there. That the ack does not count is only logged.
    delivery next() const noexcept { return delivery(queen_delivery_next(handle_.get())); }
    /// Fails every message that has no verdict yet; the first is charged a retry. A dead letter has the reason.
    future<document> nack(std::string_view reason = {}) const {
        const std::string text = detail::c_name(reason, "the reason");
        return future<document>(queen_delivery_nack(handle_.get(), text.empty() ? nullptr : text.c_str()));
    }
    /// Gives verdicts on some messages: a JSON array of `{"index", "status", "error"?}` with "completed", "failed",
    /// "retry" or "dlq".
    future<document> settle(std::string_view verdicts) const {
        return future<document>(queen_delivery_settle(handle_.get(), verdicts.data(), verdicts.size()));
    }
    /// The same for one message.
    future<document> settle(std::size_t index, std::string_view status, std::string_view reason = {}) const {
        options one{{"index", index}, {"status", status}};
        if (!reason.empty()) one.set("error", reason);
        return settle("[" + one.text() + "]");
    }
    /// Adds a trace to a message: `{"data": any, "traceNames"?, "eventType"?}`.
    future<document> trace(std::size_t index, std::string_view trace) const {
        return future<document>(queen_delivery_trace(handle_.get(), index, trace.data(), trace.size()));
    }
    /// Whether the lease is over for certain, so that the messages come again. A long handler asks now and then.
    bool lost() const noexcept { return queen_delivery_is_lost(handle_.get()) == 1; }
    /// The delivery as a JSON object, on loan.
    std::string_view json() const noexcept {
        std::size_t length = 0;
        const char *text = queen_delivery_json(handle_.get(), &length);
        return text == nullptr ? std::string_view() : std::string_view(text, length);
    }
    /// Lets go of it now: what is unsettled goes back and comes again.
    void reset() noexcept { handle_.reset(); }
    /// The handle for functions of queen.h, on loan. NULL when empty.
    queen_delivery_t *c_handle() const noexcept { return handle_.get(); }
    /// Hands the handle over; the caller frees it.
    queen_delivery_t *release() noexcept { return handle_.release(); }

  private:
    std::unique_ptr<queen_delivery_t, detail::freer<queen_delivery_free>> handle_;
};

/// What a pop brought: one delivery for each partition, none when nothing came.
using deliveries = std::vector<delivery>;

namespace detail {
template <> struct reader<deliveries> {
    static std::optional<deliveries> read(const queen_future_t *future) {
        deliveries out;
        while (queen_delivery_t *next = queen_future_take_delivery(future)) out.emplace_back(next);
        return out;
    }
};
} // namespace detail

} // namespace queen

#endif
