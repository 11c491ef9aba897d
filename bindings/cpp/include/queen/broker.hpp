// The embedded broker that a test steers. Included by queen.hpp. SPDX-License-Identifier: Apache-2.0
#ifndef QUEEN_BROKER_HPP
#define QUEEN_BROKER_HPP

#include "future.hpp"

namespace queen {

/// An embedded broker that is started and ended by hand, and fails when it is told to (docs/TESTING.md). Move-only;
/// destroyed, it ends at once, in the background. Threads: any; moving and destroying are for one thread at a time.
class broker {
  public:
    /// Starts one: `{{"testing", true}}`, options of queen_broker_start(). Throws queen::exception.
    explicit broker(const options &with = {}) : broker(start(with).value()) {}
    /// The same, with the error as a result.
    static result<broker> start(const options &with = {}) {
        queen_error_t *error = nullptr;
        queen_broker_t *made = queen_broker_start(with.text().data(), with.text().size(), &error);
        if (made == nullptr) return queen::error::take(error);
        return broker(made);
    }

    /// The URL for clients of this process. Empty when moved from.
    std::string_view url() const noexcept { return text(queen_broker_url(handle_.get())); }
    /// Where it listens; empty beyond the last address.
    std::string_view address(std::size_t index = 0) const noexcept { return text(queen_broker_address(handle_.get(), index)); }
    /// Stops it in good order.
    future<document> stop(std::chrono::milliseconds timeout = std::chrono::seconds(30)) const {
        return future<document>(queen_broker_stop(handle_.get(), timeout.count()));
    }
    /// Stops it abruptly.
    future<document> kill() const { return future<document>(queen_broker_kill(handle_.get())); }
    /// Starts it again, on the same file and addresses.
    future<document> restart() const { return future<document>(queen_broker_restart(handle_.get())); }
    /// Adds a fault, or a JSON list of them as text.
    future<document> add_faults(const options &faults) const {
        return future<document>(queen_broker_add_faults(handle_.get(), faults.text().data(), faults.text().size()));
    }
    /// The faults, with what they have met (`matched`) and taken (`applied`).
    future<document> faults() const { return future<document>(queen_broker_faults(handle_.get())); }
    /// Removes the fault of that id, or all.
    future<document> remove_faults(std::uint64_t id = 0) const {
        return future<document>(queen_broker_remove_faults(handle_.get(), id));
    }
    /// How many requests it has seen, by route.
    future<document> requests() const { return future<document>(queen_broker_requests(handle_.get())); }
    /// Counts them from zero.
    future<document> reset_requests() const { return future<document>(queen_broker_reset_requests(handle_.get())); }
    /// Moves its clock forward; complete when all that became due has happened.
    future<document> advance(std::chrono::milliseconds time) const { return move_clock({{"advanceMillis", time}}); }
    /// Moves its clock: `advanceMillis`, `frozen`. Without options tells the time.
    future<document> move_clock(const options &change = {}) const {
        return future<document>(queen_broker_move_clock(handle_.get(), change.text().data(), change.text().size()));
    }
    /// The handle for functions of queen.h, on loan. NULL when moved from.
    queen_broker_t *c_handle() const noexcept { return handle_.get(); }

  private:
    explicit broker(queen_broker_t *owned) noexcept : handle_(owned) {}
    static std::string_view text(const char *from) noexcept { return from == nullptr ? std::string_view() : std::string_view(from); }
    std::unique_ptr<queen_broker_t, detail::freer<queen_broker_free>> handle_;
};

} // namespace queen

#endif
