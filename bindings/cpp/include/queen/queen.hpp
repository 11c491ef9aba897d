// libqueen for C++17 and later, header-only over queen.h. SPDX-License-Identifier: Apache-2.0
//
// - Handles own what they hold and can neither leak nor be freed twice. Moved-from ones answer errc::invalid_argument.
// - Operations return a queen::future at once: wait() gives a queen::result, get() throws queen::exception, and then(),
//   std_future(), deliver() and co_await are the other ways. Functions that start something throw; their try_ or static
//   forms return a result. A name or an option with a NUL in it always throws.
// - No exception leaves through a C callback: a handler that throws is a nack, and set_exception_hook() is told.
// - Texts are UTF-8, JSON is text: payloads go in and come out byte for byte. With nlohmann/json at hand, its values go in,
//   and as<T>() gives them.
#ifndef QUEEN_QUEEN_HPP
#define QUEEN_QUEEN_HPP

#include "broker.hpp"
#include "client.hpp"

namespace queen {

/// The version of the loaded library, such as "0.1.0".
inline std::string_view version() noexcept { return queen_version_string(); }

/// The catalogue of operations for client::call(), a JSON array.
inline std::string_view operations() noexcept {
    std::size_t length = 0;
    const char *text = queen_operations_json(&length);
    return {text, length};
}

/// Stops the background threads and waits for them; errc::busy while any handle lives. Never needed before the process ends.
inline errc shutdown(std::chrono::milliseconds timeout) noexcept { return static_cast<errc>(queen_shutdown(timeout.count())); }

} // namespace queen

#endif
