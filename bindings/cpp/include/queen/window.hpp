// Windows of streams. Included by queen.hpp. SPDX-License-Identifier: Apache-2.0
#ifndef QUEEN_WINDOW_HPP
#define QUEEN_WINDOW_HPP

#include "delivery.hpp"

namespace queen {

/// All messages that the broker stored in a span of time, under one lease. Move-only; settled once. Destroyed unsettled,
/// it goes back and comes again. Filters change only what this handle shows.
/// Threads: any; moving and destroying are for one thread at a time.
class window {
  public:
    /// The type in C.
    using c_type = queen_window_t;
    /// An empty one.
    window() noexcept = default;
    /// Takes over a window of the C library.
    explicit window(queen_window_t *owned) noexcept : handle_(owned) {}

    /// False when empty: moved from, or released.
    explicit operator bool() const noexcept { return handle_ != nullptr; }
    /// The id: the same each time that it comes.
    std::string_view id() const noexcept { return text(queen_window_id(handle_.get())); }
    /// The partition's name where the stream is partitioned, else "__GLOBAL__".
    std::string_view key() const noexcept { return text(queen_window_key(handle_.get())); }
    /// Its first moment, ISO 8601 in UTC.
    std::string_view start() const noexcept { return text(queen_window_start(handle_.get())); }
    /// The first moment behind it.
    std::string_view stop() const noexcept { return text(queen_window_end(handle_.get())); }
    /// How many messages the filters have left.
    std::size_t size() const noexcept { return queen_window_size(handle_.get()); }
    /// How many it has.
    std::size_t original_size() const noexcept { return queen_window_original_size(handle_.get()); }
    /// One of those that are left, with id, created_at and payload; throws std::out_of_range beyond size().
    message operator[](std::size_t index) const {
        queen_message_view_t view;
        if (queen_window_view(handle_.get(), &view, sizeof view, index, 1) != 1) detail::out_of_range("message", index, size());
        return message(view);
    }
    /// To iterate over the messages that are left.
    detail::message_iterator<queen_window_t> begin() const noexcept { return {handle_.get(), 0}; }
    /// Behind the last.
    detail::message_iterator<queen_window_t> end() const noexcept { return {handle_.get(), size()}; }

    /// Leaves out the messages of which `keep(const message &)` says false. What it throws is thrown on, and nothing is
    /// left out then.
    template <class F> window &filter(F keep) {
        std::vector<std::size_t> left;
        const std::size_t count = size();
        for (std::size_t index = 0; index < count; index++)
            if (keep((*this)[index])) left.push_back(index);
        return this->keep(left);
    }
    /// Leaves only the messages at these places among those that are left.
    window &keep(const std::vector<std::size_t> &places) {
        detail::check(queen_window_keep(handle_.get(), places.data(), places.size()), "window::keep");
        return *this;
    }
    /// Takes back every filter.
    window &reset_filters() {
        detail::check(queen_window_reset(handle_.get()), "window::reset_filters");
        return *this;
    }
    /// The window as JSON.
    result<document> json() const { return now(queen_window_document(handle_.get())); }
    /// Groups by the value at a dot path such as "data.customer": `[{"key", "indices"}]`; see queen_window_group_by().
    result<document> group_by(std::string_view path) const {
        return now(queen_window_group_by(handle_.get(), detail::c_name(path, "path").c_str()));
    }
    /// Counts, sums, means and extremes: `{"count": true, "sum": ["data.amount"], ...}`; see queen_window_aggregate().
    result<document> aggregate(std::string_view wanted) const {
        return now(queen_window_aggregate(handle_.get(), wanted.data(), wanted.size()));
    }
    /// Finishes the window: the next of its key follows.
    future<document> ack() const { return future<document>(queen_window_ack(handle_.get())); }
    /// Gives it back: it comes again at once.
    future<document> nack() const { return future<document>(queen_window_nack(handle_.get())); }
    /// Whether the lease is over for certain.
    bool lost() const noexcept { return queen_window_is_lost(handle_.get()) == 1; }
    /// Lets go of it now: unsettled it goes back.
    void reset() noexcept { handle_.reset(); }
    /// The handle for functions of queen.h, on loan.
    queen_window_t *c_handle() const noexcept { return handle_.get(); }
    /// Hands the handle over; the caller frees it.
    queen_window_t *release() noexcept { return handle_.release(); }

  private:
    static std::string_view text(const char *from) noexcept { return from == nullptr ? std::string_view() : std::string_view(from); }
    static result<document> now(queen_future_t *owned) { return future<document>(owned).wait(); }
    std::unique_ptr<queen_window_t, detail::freer<queen_window_free>> handle_;
};

namespace detail {
template <> struct reader<std::optional<window>> {
    static std::optional<std::optional<window>> read(const queen_future_t *future) {
        if (queen_window_t *taken = queen_future_take_window(future)) return std::optional<window>(window(taken));
        return std::optional<window>();
    }
};
} // namespace detail

} // namespace queen

#endif
