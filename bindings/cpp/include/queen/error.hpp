// Errors, results and exceptions. Included by queen.hpp. SPDX-License-Identifier: Apache-2.0
#ifndef QUEEN_ERROR_HPP
#define QUEEN_ERROR_HPP

#include <queen.h>

#include <cstdint>
#include <cstdio>
#include <exception>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>

namespace queen {

/// The codes of queen.h; docs/ERRORS.md explains each.
enum class errc : std::int32_t {
    ok = QUEEN_OK,
    invalid_argument = QUEEN_E_INVALID_ARGUMENT,
    invalid_utf8 = QUEEN_E_INVALID_UTF8,
    invalid_json = QUEEN_E_INVALID_JSON,
    invalid_config = QUEEN_E_INVALID_CONFIG,
    invalid_state = QUEEN_E_INVALID_STATE,
    unknown_operation = QUEEN_E_UNKNOWN_OPERATION,
    timeout = QUEEN_E_TIMEOUT,
    cancelled = QUEEN_E_CANCELLED,
    closed = QUEEN_E_CLOSED,
    would_block = QUEEN_E_WOULD_BLOCK,
    would_deadlock = QUEEN_E_WOULD_DEADLOCK,
    busy = QUEEN_E_BUSY,
    forked = QUEEN_E_FORKED,
    connect = QUEEN_E_CONNECT,
    network = QUEEN_E_NETWORK,
    bad_answer = QUEEN_E_BAD_ANSWER,
    bad_request = QUEEN_E_BAD_REQUEST,
    unauthorized = QUEEN_E_UNAUTHORIZED,
    forbidden = QUEEN_E_FORBIDDEN,
    not_found = QUEEN_E_NOT_FOUND,
    too_large = QUEEN_E_TOO_LARGE,
    throttled = QUEEN_E_THROTTLED,
    broker = QUEEN_E_BROKER,
    unsupported = QUEEN_E_UNSUPPORTED,
    partial = QUEEN_E_PARTIAL,
    lease_lost = QUEEN_E_LEASE_LOST,
    already_settled = QUEEN_E_ALREADY_SETTLED,
    order = QUEEN_E_ORDER,
    rolled_back = QUEEN_E_ROLLED_BACK,
    locked = QUEEN_E_LOCKED,
    store = QUEEN_E_STORE,
    internal = QUEEN_E_INTERNAL
};

/// What is known about the effect of a call that failed.
enum class outcome : std::int32_t {
    not_applied = QUEEN_OUTCOME_NOT_APPLIED, ///< No broker has applied any of it.
    unknown = QUEEN_OUTCOME_UNKNOWN,         ///< It was sent, and no usable answer came.
    refused = QUEEN_OUTCOME_REFUSED          ///< A broker refused it, or the parts that the result names.
};

/// Why a call failed. A value: copy it, keep it. Empty (false) where nothing failed.
class error {
  public:
    /// No error.
    error() = default;

    /// An error that the binding itself has found.
    error(errc code, std::string message) : code_(code), message_(std::move(message)) {}

    /// A copy of an error of the C library; NULL is none.
    static error from(const queen_error_t *from) {
        error out;
        if (from == nullptr) return out;
        std::size_t length = 0;
        out.code_ = static_cast<errc>(queen_error_code(from));
        out.message_ = queen_error_message(from);
        out.http_status_ = queen_error_http_status(from);
        out.retriable_ = queen_error_is_retriable(from) == 1;
        out.fatal_ = queen_error_is_fatal(from) == 1;
        out.outcome_ = static_cast<queen::outcome>(queen_error_outcome(from));
        if (const char *json = queen_error_json(from, &length)) out.json_.assign(json, length);
        return out;
    }

    /// As from(), and frees the C error.
    static error take(queen_error_t *owned) {
        std::unique_ptr<queen_error_t, void (*)(queen_error_t *)> guard(owned, queen_error_free);
        return from(owned);
    }

    /// True when something failed.
    explicit operator bool() const noexcept { return code_ != errc::ok; }
    /// The code, errc::ok without an error.
    errc code() const noexcept { return code_; }
    /// The name of the code, such as "QUEEN_E_TIMEOUT".
    std::string_view name() const noexcept {
        const char *name = queen_error_code_name(static_cast<std::int32_t>(code_));
        return name == nullptr ? std::string_view("QUEEN_OK") : std::string_view(name);
    }
    /// A sentence for people: what happened, and what to do.
    const std::string &message() const noexcept { return message_; }
    /// The HTTP status that a broker answered, 0 when there was none.
    int http_status() const noexcept { return http_status_; }
    /// Whether the same call may well succeed later.
    bool retriable() const noexcept { return retriable_; }
    /// Whether the client or handle can do nothing more.
    bool fatal() const noexcept { return fatal_; }
    /// What is known about the effect of the call.
    queen::outcome outcome() const noexcept { return outcome_; }
    /// The whole error as a JSON object, as queen_error_json() describes it; empty for errors of the binding itself.
    const std::string &json() const noexcept { return json_; }

  private:
    errc code_ = errc::ok;
    std::string message_;
    std::string json_;
    int http_status_ = 0;
    bool retriable_ = false;
    bool fatal_ = false;
    queen::outcome outcome_ = queen::outcome::not_applied;
};

/// What is thrown where a caller has not asked for a result.
class exception : public std::runtime_error {
  public:
    /// Throws as "QUEEN_E_NAME: message".
    explicit exception(queen::error cause)
        : std::runtime_error(std::string(cause.name()) + ": " + cause.message()),
          cause_(std::make_shared<queen::error>(std::move(cause))) {}

    /// Why.
    const queen::error &error() const noexcept { return *cause_; }
    /// The code of error().
    errc code() const noexcept { return cause_->code(); }

  private:
    std::shared_ptr<queen::error> cause_; // exceptions are copied, and copying must not throw
};

/// What a call came to: a value, an error, or, where a call was refused in part, both.
template <class T> class [[nodiscard]] result {
  public:
    /// Success.
    result(T value) : value_(std::move(value)) {} // NOLINT: implicit, so that functions return values
    /// Failure.
    result(queen::error failed) : error_(std::move(failed)) {} // NOLINT
    /// Both of them, as far as they are there.
    result(std::optional<T> value, queen::error failed) : value_(std::move(value)), error_(std::move(failed)) {}

    /// True when all that was asked for was done.
    explicit operator bool() const noexcept { return !error_; }
    /// The same, as a word.
    bool ok() const noexcept { return !error_; }
    /// Why not. Empty where all went well.
    const queen::error &error() const noexcept { return error_; }
    /// The value; throws queen::exception when there is an error.
    T &value() & { return check(), *value_; }
    /// The value; throws queen::exception when there is an error.
    const T &value() const & { return check(), *value_; }
    /// The value, moved out; throws queen::exception when there is an error.
    T value() && { return check(), std::move(*value_); }
    /// The value if there is one, also beside an error (errc::partial); else nullptr. Does not throw.
    T *partial() noexcept { return value_ ? &*value_ : nullptr; }
    /// The value if there is one, also beside an error; else nullptr. Does not throw.
    const T *partial() const noexcept { return value_ ? &*value_ : nullptr; }
    /// As value().
    T &operator*() & { return value(); }
    /// As value().
    T *operator->() { return &value(); }

  private:
    void check() const {
        if (error_) throw exception(error_);
        if (!value_) throw exception({errc::invalid_state, "the result is empty: its value was moved out"});
    }
    std::optional<T> value_;
    queen::error error_;
};

/// Is told what user code has thrown where no caller can catch it: `where` says in which kind of function. Runs on the
/// thread of that function; what it throws itself is swallowed.
using exception_hook = std::function<void(std::string_view where, std::exception_ptr what)>;

namespace detail {

struct hook_place {
    std::mutex lock;
    std::shared_ptr<const exception_hook> hook;
};

// Never destroyed: threads of the library may still run while the statics of the program end.
inline hook_place &hook() {
    static auto *place = new hook_place;
    return *place;
}

inline void print_exception(std::string_view where, const char *what) noexcept {
    std::fprintf(stderr, "queen: %.*s has thrown: %s\n", static_cast<int>(where.size()), where.data(), what);
}

// Called in a catch block.
inline void report_exception(std::string_view where, const char *what) noexcept {
    try {
        std::shared_ptr<const exception_hook> hook_now;
        {
            std::lock_guard<std::mutex> guard(hook().lock);
            hook_now = hook().hook;
        }
        if (!hook_now) print_exception(where, what);
        else if (*hook_now) (*hook_now)(where, std::current_exception());
    } catch (...) {
        print_exception("the exception hook", "something");
    }
}

// Runs user code of a C callback: nothing is thrown through it.
template <class F> void guarded(std::string_view where, F &&run) noexcept {
    try {
        run();
    } catch (const std::exception &thrown) {
        report_exception(where, thrown.what());
    } catch (...) {
        report_exception(where, "no std::exception");
    }
}

inline void check(std::int32_t code, const char *what) {
    if (code == QUEEN_OK) return;
    std::string message(what);
    if (code == QUEEN_E_INVALID_ARGUMENT) message += ": an argument is not valid, or the handle is empty (moved from, or released)";
    else message += " failed";
    throw exception({static_cast<errc>(code), std::move(message)});
}

// C takes names that end with a NUL: one inside would cut the name short without a word.
inline std::string c_name(std::string_view name, const char *what) {
    if (name.find('\0') != std::string_view::npos)
        throw exception({errc::invalid_argument, std::string(what) + " \"" + std::string(name.substr(0, name.find('\0'))) +
                                                     "\\0...\": a name cannot contain a NUL"});
    return std::string(name);
}

} // namespace detail

/// Sets who is told of exceptions of handlers and callbacks. Without a hook they are printed to stderr; an empty function
/// silences them. A handler's exception is a nack besides, whose reason is what().
inline void set_exception_hook(exception_hook hook) {
    auto shared = std::make_shared<const exception_hook>(std::move(hook));
    std::lock_guard<std::mutex> guard(detail::hook().lock);
    detail::hook().hook = std::move(shared);
}

} // namespace queen

#endif
