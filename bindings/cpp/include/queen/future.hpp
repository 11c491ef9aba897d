// Futures: wait, callback, std::future, event queue, co_await. Included by queen.hpp. SPDX-License-Identifier: Apache-2.0
#ifndef QUEEN_FUTURE_HPP
#define QUEEN_FUTURE_HPP

#include "json.hpp"

#include <future>

#if defined(__cpp_impl_coroutine) && defined(__has_include)
#if __has_include(<coroutine>)
#include <coroutine>
/// 1 where futures can be awaited: with a compiler in C++20 mode or later.
#define QUEEN_HAS_COROUTINES 1
#endif
#endif
#ifndef QUEEN_HAS_COROUTINES
#define QUEEN_HAS_COROUTINES 0
#endif

namespace queen {

/// For waits: as long as it takes.
inline constexpr std::chrono::milliseconds forever{std::int64_t{1} << 40};

class event_queue;

namespace detail {

template <auto Free> struct freer {
    template <class T> void operator()(T *handle) const noexcept { Free(handle); }
};

using future_handle = std::unique_ptr<queen_future_t, freer<queen_future_free>>;

// How the value of a future is read. Specialised for each type of result.
template <class T> struct reader;

template <> struct reader<document> {
    static std::optional<document> read(const queen_future_t *future) {
        std::size_t length = 0;
        const char *json = queen_future_json(future, &length);
        if (json == nullptr) return std::nullopt;
        return document(std::string(json, length));
    }
};

// Of a future that has completed.
template <class T> result<T> read(const queen_future_t *future) {
    queen::error failed = queen::error::from(queen_future_error(future));
    std::optional<T> value = reader<T>::read(future);
    return result<T>(std::move(value), std::move(failed));
}

inline queen::error wait_error(std::int32_t code) {
    const char *why = "the wait has failed";
    if (code == QUEEN_E_TIMEOUT) why = "the future has not completed in this time; the operation goes on";
    if (code == QUEEN_E_INVALID_ARGUMENT) why = "the future is empty (it was moved from, or has a callback), or the time is negative";
    if (code == QUEEN_E_WOULD_DEADLOCK) why = "the wait would be for the thread that it runs on; wait on a thread of your own";
    if (code == QUEEN_E_INVALID_STATE) why = "the future is delivered to an event queue or a callback already";
    return {static_cast<errc>(code), why};
}

template <class T> result<T> wait(const queen_future_t *future, std::chrono::milliseconds timeout) {
    const std::int32_t code = queen_future_wait(future, timeout.count());
    if (code != QUEEN_OK) return wait_error(code);
    return read<T>(future);
}

// After a route that C has refused. With a closed client no callback runs any more, but its futures are complete.
template <class T> result<T> unrouted(const queen_future_t *future, std::int32_t code) {
    if (code == QUEEN_E_CLOSED) return wait<T>(future, forever);
    return wait_error(code);
}

template <class T, class F> struct completion {
    F function;
    bool called = false;

    static void call(const queen_future_t *future, void *self) noexcept {
        auto *completion_ = static_cast<completion *>(self);
        completion_->called = true;
        guarded("a completion callback", [&] { completion_->function(read<T>(future)); });
    }
    // Not called before: the route was refused, and whoever has asked for it still needs the function.
    static void free(void *self) noexcept {
        auto *completion_ = static_cast<completion *>(self);
        if (completion_->called) delete completion_;
    }
};

#if QUEEN_HAS_COROUTINES
// Waits within a coroutine; needs no memory beside the coroutine's own.
template <class T, bool Throws> class awaiter {
  public:
    explicit awaiter(future_handle future) : future_(std::move(future)) {}
    bool await_ready() const noexcept { return queen_future_wait(future_.get(), 0) == QUEEN_OK; }
    bool await_suspend(std::coroutine_handle<> waiting) noexcept {
        waiting_ = waiting;
        const std::int32_t code = queen_future_on_complete(future_.get(), resume, this, nullptr);
        // When it is routed, the coroutine may be gone by now.
        if (code == QUEEN_OK) return true;
        refused_ = code;
        return false;
    }
    auto await_resume() {
        result<T> out = refused_ == QUEEN_OK ? wait<T>(future_.get(), std::chrono::milliseconds(0)) : unrouted<T>(future_.get(), refused_);
        if constexpr (Throws) return std::move(out).value();
        else return out;
    }

  private:
    static void resume(const queen_future_t *, void *self) noexcept {
        guarded("a coroutine", [&] { static_cast<awaiter *>(self)->waiting_.resume(); });
    }
    future_handle future_;
    std::coroutine_handle<> waiting_;
    std::int32_t refused_ = QUEEN_OK;
};
#endif

} // namespace detail

/// An operation under way; it completes exactly once, with a value of T, an error, or both (errc::partial).
///
/// Wait for it (wait(), get()), or give it one of then(), std_future(), deliver(), co_await. To let it go never cancels:
/// the operation runs on. Move-only; an empty one (moved from) answers errc::invalid_argument.
/// Threads: any may wait and cancel; moving and destroying are for one thread at a time.
template <class T> class [[nodiscard]] future {
  public:
    /// Takes over a future of the C library.
    explicit future(queen_future_t *owned) noexcept : handle_(owned) {}

    /// Waits until it has completed, at most so long. errc::timeout when it has not, and then it can be waited for again.
    /// Deliveries and windows come out of the first wait that succeeds. Does not throw for what the operation came to.
    result<T> wait(std::chrono::milliseconds timeout = forever) const { return detail::wait<T>(handle_.get(), timeout); }

    /// The value; throws queen::exception for any error, also of a wait that took too long.
    T get(std::chrono::milliseconds timeout = forever) const { return wait(timeout).value(); }

    /// Whether it has completed, well or not.
    bool ready() const noexcept { return queen_future_wait(handle_.get(), 0) == QUEEN_OK; }

    /// Asks for its end. It still completes once: with what came first, else with errc::cancelled.
    void cancel() const noexcept { queen_future_cancel(handle_.get()); }

    /// Calls `function` with the result<T>, once. Consumes the future.
    ///
    /// It runs on the dispatcher thread of the client and should be short; what it throws goes to the exception hook. Where
    /// the client is closed already, it runs on the calling thread before this returns.
    template <class F> void then(F function) && {
        auto *made = new detail::completion<T, F>{std::move(function)};
        const detail::future_handle routed = std::move(handle_);
        const std::int32_t code = queen_future_on_complete(routed.get(), made->call, made, made->free);
        if (code == QUEEN_OK) return;
        std::unique_ptr<detail::completion<T, F>> owned(made);
        detail::guarded("a completion callback", [&] { owned->function(detail::unrouted<T>(routed.get(), code)); });
    }

    /// As a std::future, which throws queen::exception where the operation failed. Consumes the future.
    std::future<T> std_future() && {
        std::promise<T> promise;
        std::future<T> out = promise.get_future();
        std::move(*this).then([promise = std::move(promise)](result<T> came) mutable {
            if (came) promise.set_value(std::move(came).value());
            else promise.set_exception(std::make_exception_ptr(exception(came.error())));
        });
        return out;
    }

    /// As a std::future of the result. Consumes the future.
    std::future<result<T>> std_result() && {
        std::promise<result<T>> promise;
        std::future<result<T>> out = promise.get_future();
        std::move(*this).then([promise = std::move(promise)](result<T> came) mutable { promise.set_value(std::move(came)); });
        return out;
    }

    /// Puts the completion into an event queue, with this tag. Throws queen::exception where it has a route already.
    void deliver(const event_queue &events, std::uint64_t tag) const;

#if QUEEN_HAS_COROUTINES
    /// `co_await client.queue("q").push("1")`: the value, or queen::exception. The coroutine goes on on the dispatcher
    /// thread of the client, where it must not wait for the client's close; its steps should be short.
    auto operator co_await() && { return detail::awaiter<T, true>(std::move(handle_)); }
    /// `co_await client.queue("q").push("1").as_result()`: the same as a result<T>, without exceptions.
    auto as_result() && { return detail::awaiter<T, false>(std::move(handle_)); }
#endif

    /// The handle for functions of queen.h, on loan. NULL when empty.
    queen_future_t *c_handle() const noexcept { return handle_.get(); }

  private:
    detail::future_handle handle_;
};

#if QUEEN_HAS_COROUTINES
/// A coroutine that begins at once, and that a thread can wait for with get(): `queen::task<int> f() { co_return 1; }`.
/// Destroyed before its end, it runs on by itself.
template <class T = void> class task {
    struct promise_base {
        std::promise<T> out;
        std::suspend_never initial_suspend() noexcept { return {}; }
        std::suspend_never final_suspend() noexcept { return {}; }
        void unhandled_exception() { out.set_exception(std::current_exception()); }
    };
    struct promise_value : promise_base {
        template <class U> void return_value(U &&value) { this->out.set_value(std::forward<U>(value)); }
    };
    struct promise_void : promise_base {
        void return_void() { this->out.set_value(); }
    };

  public:
    /// For the compiler.
    struct promise_type : std::conditional_t<std::is_void_v<T>, promise_void, promise_value> {
        /// The task that the caller gets.
        task get_return_object() { return task(this->out.get_future()); }
    };
    /// Waits for the end; the value, or what the coroutine has thrown. Once.
    T get() { return out_.get(); }
    /// The std::future of the end.
    std::future<T> std_future() && { return std::move(out_); }

  private:
    explicit task(std::future<T> out) : out_(std::move(out)) {}
    std::future<T> out_;
};
#endif

} // namespace queen

#endif
