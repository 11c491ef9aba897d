// What the tests of the C++ binding share.
#ifndef QUEEN_TEST_SUPPORT_HPP
#define QUEEN_TEST_SUPPORT_HPP

#include <queen/queen.hpp>

#include <gtest/gtest.h>

#include <atomic>
#include <condition_variable>
#include <cstdlib>
#include <mutex>
#include <thread>
#include <unistd.h>

using namespace std::chrono_literals;

// The broker under test: "embedded:" or a URL.
inline std::string broker_url() {
    const char *url = std::getenv("QUEEN_TEST_URL");
    return url == nullptr ? "embedded:" : url;
}

inline bool on_embedded() { return broker_url() == "embedded:"; }

// A name that nobody else has.
inline std::string fresh(const char *what) {
    static std::atomic<int> count{0};
    const auto now = std::chrono::system_clock::now().time_since_epoch().count();
    return std::string("cpp-") + what + "-" + std::to_string(getpid()) + "-" + std::to_string(now) + "-" + std::to_string(count++);
}

// An embedded broker of one's own, with a client whose repeats are quick.
struct steered {
    queen::broker broker{{{"testing", true}}};
    queen::client client{queen::options{{"url", broker.url()}, {"retryDelayMillis", 5}}};
};

// Something that another thread tells.
template <class T> class told {
  public:
    void tell(T value) {
        std::lock_guard<std::mutex> guard(lock_);
        all_.push_back(std::move(value));
        change_.notify_all();
    }
    // Waits until so many were told.
    std::vector<T> wait(std::size_t count, std::chrono::milliseconds time = 20s) {
        std::unique_lock<std::mutex> guard(lock_);
        EXPECT_TRUE(change_.wait_for(guard, time, [&] { return all_.size() >= count; })) << all_.size() << " of " << count;
        return all_;
    }

  private:
    std::mutex lock_;
    std::condition_variable change_;
    std::vector<T> all_;
};

// Hears of exceptions instead of stderr, while it lives.
struct hears_exceptions {
    std::shared_ptr<told<std::string>> heard = std::make_shared<told<std::string>>();
    hears_exceptions() {
        queen::set_exception_hook([into = heard](std::string_view where, std::exception_ptr what) {
            try {
                std::rethrow_exception(what);
            } catch (const std::exception &thrown) {
                into->tell(std::string(where) + ": " + thrown.what());
            } catch (...) {
                into->tell(std::string(where) + ": something");
            }
        });
    }
    hears_exceptions(const hears_exceptions &) = delete;
    hears_exceptions &operator=(const hears_exceptions &) = delete;
    ~hears_exceptions() { queen::set_exception_hook([](std::string_view, std::exception_ptr) {}); }
};

#endif
