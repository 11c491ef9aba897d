// Event queues, for programs that poll. Included by queen.hpp. SPDX-License-Identifier: Apache-2.0
#ifndef QUEEN_EVENT_QUEUE_HPP
#define QUEEN_EVENT_QUEUE_HPP

#include "window.hpp"

namespace queen {

/// The kinds of events. Ignore those that you do not know: new ones will be added.
enum class event_type : std::int32_t {
    future = QUEEN_EVENT_FUTURE,
    delivery = QUEEN_EVENT_DELIVERY,
    consumer_ended = QUEEN_EVENT_CONSUMER_ENDED,
    lease_lost = QUEEN_EVENT_LEASE_LOST,
    log = QUEEN_EVENT_LOG,
    delivery_report = QUEEN_EVENT_DELIVERY_REPORT,
    statistics = QUEEN_EVENT_STATISTICS,
    token_wanted = QUEEN_EVENT_TOKEN_WANTED,
    backend_state = QUEEN_EVENT_BACKEND_STATE,
    window = QUEEN_EVENT_WINDOW
};

/// One event of an event_batch, on loan from it.
class event {
  public:
    /// Of an event of C.
    explicit event(queen_event_t &raw) noexcept : raw_(&raw) {}
    /// What has happened.
    event_type type() const noexcept { return static_cast<event_type>(raw_->type); }
    /// The tag of the route or consumer.
    std::uint64_t tag() const noexcept { return raw_->tag; }
    /// As `code` of queen_event_t: the code of an error, the level of a log record, the number of dropped reports.
    std::int32_t code() const noexcept { return raw_->code; }
    /// As `json` of queen_event_t; empty where there is none.
    std::string_view json() const noexcept {
        return raw_->json == nullptr ? std::string_view() : std::string_view(raw_->json, raw_->json_len);
    }
    /// Of a completion: what it came to, as T (document, deliveries, std::optional<window>).
    template <class T = document> result<T> read() const {
        if (type() != event_type::future) return queen::error(errc::invalid_state, "the event is no completion of a future");
        return detail::read<T>(static_cast<const queen_future_t *>(raw_->object));
    }
    /// Of a delivery: takes it, once; empty for other events.
    delivery take_delivery() const noexcept { return delivery(queen_event_take_delivery(raw_)); }
    /// Of a window: takes it, once; empty for other events.
    window take_window() const noexcept { return window(queen_event_take_window(raw_)); }

  private:
    queen_event_t *raw_;
};

/// Room for events, filled by event_queue::poll() again and again. What the events lend lives until the next poll into it.
/// Threads: one at a time.
class event_batch {
  public:
    /// Room for so many events.
    explicit event_batch(std::size_t capacity = 64) : room_(capacity == 0 ? 1 : capacity) {}
    event_batch(const event_batch &) = delete;
    event_batch &operator=(const event_batch &) = delete;
    /// Moves what is in it.
    event_batch(event_batch &&other) noexcept : room_(std::move(other.room_)), count_(std::exchange(other.count_, 0)) {}
    /// Moves what is in the other, and frees what was in this one.
    event_batch &operator=(event_batch &&other) noexcept {
        if (this != &other) {
            clear();
            room_ = std::move(other.room_);
            count_ = std::exchange(other.count_, 0);
        }
        return *this;
    }
    /// Gives back what was not taken.
    ~event_batch() { clear(); }

    /// How many events there are.
    std::size_t size() const noexcept { return count_; }
    /// One of them; `index` is below size().
    event operator[](std::size_t index) noexcept { return event(room_[index]); }
    /// Gives back what was not taken, and is empty.
    void clear() noexcept {
        if (count_ > 0) queen_events_free(room_.data(), count_);
        count_ = 0;
    }

  private:
    friend class event_queue;
    std::vector<queen_event_t> room_;
    std::size_t count_ = 0;
};

/// Collects completions, deliveries, windows and notices for a loop. Move-only. Destroyed, it gives its deliveries back and
/// stops the consumers that feed it.
/// Threads: any, several polls at once; no poll may begin once it is being destroyed.
class event_queue {
  public:
    /// Makes one.
    event_queue() : handle_(queen_event_queue_new()) {}

    /// Frees what is in `batch` and takes what waits, at most so much as it has room for, waiting for the first. The number
    /// of events: 0 when the time is over or the poll was woken. Throws queen::exception when the queue is empty (moved from).
    std::size_t poll(event_batch &batch, std::chrono::milliseconds timeout = forever) const {
        batch.clear();
        const std::int64_t count =
            queen_event_queue_poll(handle_.get(), batch.room_.data(), sizeof(queen_event_t), batch.room_.size(), timeout.count());
        if (count < 0) detail::check(static_cast<std::int32_t>(count), "event_queue::poll");
        batch.count_ = static_cast<std::size_t>(count);
        return batch.count_;
    }
    /// A descriptor that is readable exactly while events wait. Only watch it; it is the queue's.
    int fd() const {
        const std::int32_t descriptor = queen_event_queue_fd(handle_.get());
        if (descriptor < 0) detail::check(descriptor, "event_queue::fd");
        return descriptor;
    }
    /// Ends the running poll, or else the next one, with 0 events.
    void wake_up() const noexcept { queen_event_queue_wakeup(handle_.get()); }
    /// The handle for functions of queen.h, on loan. NULL when moved from.
    queen_event_queue_t *c_handle() const noexcept { return handle_.get(); }

  private:
    std::unique_ptr<queen_event_queue_t, detail::freer<queen_event_queue_free>> handle_;
};

template <class T> void future<T>::deliver(const event_queue &events, std::uint64_t tag) const {
    detail::check(queen_future_deliver(handle_.get(), events.c_handle(), tag), "future::deliver");
}

} // namespace queen

#endif
