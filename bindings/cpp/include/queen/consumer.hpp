// Consumers: by handler and as an iterator. Included by queen.hpp. SPDX-License-Identifier: Apache-2.0
#ifndef QUEEN_CONSUMER_HPP
#define QUEEN_CONSUMER_HPP

#include "event_queue.hpp"

#include <algorithm>

namespace queen {

namespace detail {

inline void fail(const delivery &failed, const char *reason) { queen_future_free(queen_delivery_nack(failed.c_handle(), reason)); }
inline void fail(const window &, const char *) {} // windows have no reason; the nack follows

// What C calls. `Handle` is delivery or window; F takes it by reference or by value, or takes one message.
template <class Handle, class F> struct handler {
    static std::int32_t call(typename Handle::c_type *raw, void *self) noexcept {
        Handle came(raw);
        verdict answer = verdict::nack;
        try {
            answer = run(*static_cast<F *>(self), came);
        } catch (const std::exception &thrown) {
            if (came) fail(came, thrown.what());
            report_exception("a handler", thrown.what());
        } catch (...) {
            if (came) fail(came, "the handler has thrown");
            report_exception("a handler", "no std::exception");
        }
        // Moved away: it belongs to whoever has it now, or was freed by them.
        if (!came) return QUEEN_DEFER;
        came.release();
        return static_cast<std::int32_t>(answer);
    }
    static void free(void *self) noexcept { delete static_cast<F *>(self); }

    static constexpr bool by_message = !std::is_invocable_v<F &, Handle &> && !std::is_invocable_v<F &, Handle &&> &&
                                       std::is_invocable_v<F &, const message &>;

  private:
    template <class... Argument> static verdict answer_of(F &function, Argument &&...argument) {
        using answer = std::invoke_result_t<F &, Argument...>;
        static_assert(std::is_void_v<answer> || std::is_same_v<answer, verdict>, "a handler returns nothing or queen::verdict");
        if constexpr (std::is_void_v<answer>) {
            function(std::forward<Argument>(argument)...);
            return verdict::ack;
        } else {
            return function(std::forward<Argument>(argument)...);
        }
    }
    static verdict run(F &function, Handle &came) {
        if constexpr (std::is_invocable_v<F &, Handle &>) return answer_of(function, came);
        else if constexpr (by_message) return answer_of(function, came[0]);
        else return answer_of(function, std::move(came));
    }
};

} // namespace detail

/// A running consumer. Move-only.
///
/// Destroyed, it stops and waits until its last handler has returned, so that what handlers refer to may end after it;
/// inside its own handler it does not wait. Acks of handlers that have returned are sent. A consumer of an event queue does
/// not wait.
/// Threads: any; moving and destroying are for one thread at a time.
class consumer {
  public:
    /// None.
    consumer() noexcept = default;
    /// Takes over a consumer of the C library; `joins` says whether the destructor waits for its handlers.
    consumer(queen_consumer_t *owned, bool joins) noexcept : handle_(owned), joins_(joins) {}
    /// Moves it.
    consumer(consumer &&other) noexcept = default;
    /// Moves the other; the one that was here ends as in the destructor.
    consumer &operator=(consumer &&other) noexcept {
        if (this != &other) {
            finish();
            handle_ = std::move(other.handle_);
            joins_ = other.joins_;
        }
        return *this;
    }
    /// Stops it, and waits for its handlers.
    ~consumer() { finish(); }

    /// False when empty.
    explicit operator bool() const noexcept { return handle_ != nullptr; }
    /// Completes when it has ended and its last handler has returned, with the summary `{"reason", "deliveries", "messages",
    /// "acked", "nacked", "unsettled"}`, or with the error that ended it (then the summary is the partial value).
    future<document> ended() const { return future<document>(queen_consumer_future(handle_.get())); }
    /// Waits for ended().
    result<document> wait(std::chrono::milliseconds timeout = forever) const { return ended().wait(timeout); }
    /// Stops it: it polls no more and waits for handlers and verdicts, at most so long.
    future<document> stop(std::chrono::milliseconds timeout = std::chrono::seconds(30)) const {
        return future<document>(queen_consumer_stop(handle_.get(), timeout.count()));
    }
    /// Lets it run without a handle, until its limit or the close of the client. What its handler refers to must live on.
    void detach() {
        if (!handle_) return;
        auto ends = ended();
        std::move(ends).then([handle = std::move(handle_)](const auto &) {}); // C stops a consumer whose handle is freed
    }
    /// The handle for functions of queen.h, on loan.
    queen_consumer_t *c_handle() const noexcept { return handle_.get(); }

  private:
    void finish() noexcept {
        if (handle_ && joins_) {
            // So long a verdict by another thread is waited for; for a running handler as long as it takes.
            std::int32_t code = QUEEN_E_TIMEOUT;
            while (code == QUEEN_E_TIMEOUT) {
                const detail::future_handle stopped(queen_consumer_stop(handle_.get(), 10000));
                if (queen_future_wait(stopped.get(), forever.count()) != QUEEN_OK) break; // in its own handler
                code = queen_error_code(queen_future_error(stopped.get()));
            }
        }
        handle_.reset();
    }
    std::unique_ptr<queen_consumer_t, detail::freer<queen_consumer_free>> handle_;
    bool joins_ = false;
};

/// A consumer as an iterator: `for (queen::delivery &d : client.queue("orders").receive()) { ...; d.ack(); }`.
///
/// The loop takes one delivery after the other; what is neither settled nor moved away goes back when the loop goes on. It
/// ends with the consumer (limit, idle, stop), and throws queen::exception where an error has ended that.
/// Threads: one at a time, but for stop().
template <class Handle> class stream_of {
  public:
    /// Of a queue and a consumer that feeds it.
    stream_of(event_queue events, consumer source) : events_(std::move(events)), source_(std::move(source)) {}

    /// The next one; nothing at the end, or when the time is over (ended() tells which). Throws queen::exception where an
    /// error has ended the consumer.
    std::optional<Handle> next(std::chrono::milliseconds timeout = forever) {
        const auto end = std::chrono::steady_clock::now() + timeout;
        while (!ended_) {
            for (; at_ < batch_.size(); ) {
                const event now = batch_[at_++];
                if constexpr (std::is_same_v<Handle, delivery>) {
                    if (delivery came = now.take_delivery()) return came;
                } else {
                    if (window came = now.take_window()) return came;
                }
                if (now.type() == event_type::consumer_ended) ended_ = true;
            }
            if (ended_) break;
            const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(end - std::chrono::steady_clock::now());
            at_ = 0;
            if (events_.poll(batch_, std::max(left, std::chrono::milliseconds(0))) == 0 && std::chrono::steady_clock::now() >= end)
                return std::nullopt;
        }
        if (const auto how = source_.wait(); !how) throw exception(how.error());
        return std::nullopt;
    }
    /// Whether the consumer has ended.
    bool ended() const noexcept { return ended_; }
    /// How it has ended; see consumer::wait().
    result<document> wait(std::chrono::milliseconds timeout = forever) const { return source_.wait(timeout); }
    /// Stops the consumer; the loop ends after what was handed over.
    future<document> stop(std::chrono::milliseconds timeout = std::chrono::seconds(30)) const { return source_.stop(timeout); }

    /// An input iterator.
    class iterator {
      public:
        using iterator_category = std::input_iterator_tag; ///< One pass.
        using value_type = Handle;                         ///< What it yields.
        using difference_type = std::ptrdiff_t;            ///< Not used.
        using pointer = Handle *;                          ///< To the current one.
        using reference = Handle &;                        ///< The current one.
        /// At the end.
        iterator() noexcept = default;
        /// At the first.
        explicit iterator(stream_of *source) : source_(source) { ++*this; }
        /// The current one.
        Handle &operator*() noexcept { return *now_; }
        /// The current one.
        Handle *operator->() noexcept { return &*now_; }
        /// Lets go of the current one and waits for the next.
        iterator &operator++() {
            now_.reset(); // the consumer hands over the next when this one is settled or gone
            now_ = source_->next();
            if (!now_) source_ = nullptr;
            return *this;
        }
        /// Both at the end, or both not.
        bool operator==(const iterator &other) const noexcept { return source_ == other.source_; }
        /// The contrary.
        bool operator!=(const iterator &other) const noexcept { return source_ != other.source_; }

      private:
        stream_of *source_ = nullptr;
        std::optional<Handle> now_;
    };
    /// Waits for the first.
    iterator begin() { return iterator(this); }
    /// The end.
    iterator end() noexcept { return iterator(); }

  private:
    event_queue events_;
    event_batch batch_{16};
    std::size_t at_ = 0;
    bool ended_ = false;
    consumer source_; // ends before the queue that it feeds
};

/// Deliveries of a queue, one after the other.
using delivery_stream = stream_of<delivery>;
/// Windows of a stream, one after the other.
using window_stream = stream_of<window>;

} // namespace queen

#endif
