// JSON as text: what goes in (payloads, items, options) and what comes out (documents). Included by queen.hpp.
// SPDX-License-Identifier: Apache-2.0
#ifndef QUEEN_JSON_HPP
#define QUEEN_JSON_HPP

#include "error.hpp"

#include <charconv>
#include <chrono>
#include <initializer_list>
#include <type_traits>

#if !defined(QUEEN_NO_NLOHMANN) && defined(__has_include)
#if __has_include(<nlohmann/json.hpp>)
#include <nlohmann/json.hpp>
/// 1 where the glue to nlohmann/json is there; QUEEN_NO_NLOHMANN leaves it out.
#define QUEEN_HAS_NLOHMANN 1
#endif
#endif
#ifndef QUEEN_HAS_NLOHMANN
#define QUEEN_HAS_NLOHMANN 0
#endif

namespace queen {

namespace detail {

inline void append_quoted(std::string &to, std::string_view text) {
    static const char digits[] = "0123456789abcdef";
    to += '"';
    for (char c : text) {
        if (c == '"' || c == '\\') (to += '\\') += c;
        else if (static_cast<unsigned char>(c) >= 0x20) to += c;
        else ((to += "\\u00") += digits[static_cast<unsigned char>(c) >> 4]) += digits[c & 15];
    }
    to += '"';
}

inline std::size_t skip_space(std::string_view text, std::size_t at) {
    while (at < text.size() && (text[at] == ' ' || text[at] == '\t' || text[at] == '\n' || text[at] == '\r')) at++;
    return at;
}

inline std::size_t skip_string(std::string_view text, std::size_t at) { // from the quote to behind the other one
    const std::size_t begin = at + 1;
    while ((at = text.find('"', at + 1)) != std::string_view::npos) {
        std::size_t slashes = 0; // an odd number of them makes the quote a part of the string
        while (at - slashes > begin && text[at - slashes - 1] == '\\') slashes++;
        if (slashes % 2 == 0) return at + 1;
    }
    return at;
}

// Behind the value that begins at `at`; npos where there is none. Only the outline is looked at.
inline std::size_t skip_value(std::string_view text, std::size_t at) {
    if (at >= text.size()) return std::string_view::npos;
    if (text[at] == '"') return skip_string(text, at);
    if (text[at] != '{' && text[at] != '[') {
        std::size_t end = text.find_first_of(",]}: \t\r\n", at);
        if (end == std::string_view::npos) end = text.size();
        return end == at ? std::string_view::npos : end;
    }
    std::size_t depth = 0;
    while (at < text.size()) {
        const char c = text[at];
        if (c == '"') {
            at = skip_string(text, at);
            if (at == std::string_view::npos) return at;
            continue;
        }
        if (c == '{' || c == '[') depth++;
        if ((c == '}' || c == ']') && --depth == 0) return at + 1;
        at++;
    }
    return std::string_view::npos;
}

inline bool is_one_value(std::string_view text) {
    const std::size_t end = skip_value(text, skip_space(text, 0));
    return end != std::string_view::npos && skip_space(text, end) == text.size();
}

inline void append_utf8(std::string &to, unsigned code) {
    const auto byte = [&](unsigned value) { to += static_cast<char>(static_cast<unsigned char>(value)); };
    if (code < 0x80) return byte(code);
    if (code < 0x800) return byte(0xC0 | code >> 6), byte(0x80 | (code & 63));
    if (code < 0x10000) return byte(0xE0 | code >> 12), byte(0x80 | (code >> 6 & 63)), byte(0x80 | (code & 63));
    byte(0xF0 | code >> 18), byte(0x80 | (code >> 12 & 63)), byte(0x80 | (code >> 6 & 63)), byte(0x80 | (code & 63));
}

// The text between quotes, with the escapes undone.
inline std::string unescaped(std::string_view text) {
    std::string out;
    const auto unit = [&](std::size_t at) {
        unsigned value = 0;
        if (at + 4 <= text.size()) std::from_chars(text.data() + at, text.data() + at + 4, value, 16);
        return value;
    };
    for (std::size_t at = 0; at < text.size(); at++) {
        if (text[at] != '\\' || at + 1 >= text.size()) {
            out += text[at];
            continue;
        }
        static const char names[] = "bfnrt", meant[] = "\b\f\n\r\t";
        const char c = text[++at];
        if (c == 'u') {
            unsigned code = unit(at + 1);
            at += 4;
            if (code >= 0xD800 && code < 0xDC00 && at + 2 < text.size() && text[at + 1] == '\\' && text[at + 2] == 'u') {
                code = 0x10000 + ((code - 0xD800) << 10) + (unit(at + 3) - 0xDC00);
                at += 6;
            }
            append_utf8(out, code);
        } else {
            const std::size_t which = std::string_view(names).find(c);
            out += which == std::string_view::npos ? c : meant[which];
        }
    }
    return out;
}

// The raw text of the value at a JSON pointer. Names are compared as they are written, without escapes.
inline std::optional<std::string_view> find(std::string_view text, std::string_view pointer) {
    std::size_t at = skip_space(text, 0);
    while (!pointer.empty()) {
        if (pointer[0] != '/' || at >= text.size() || (text[at] != '{' && text[at] != '[')) return std::nullopt;
        pointer.remove_prefix(1);
        const std::string_view key = pointer.substr(0, pointer.find('/'));
        pointer.remove_prefix(key.size());
        const bool object = text[at] == '{';
        std::size_t index = 0;
        for (at = skip_space(text, at + 1);; index++) {
            if (at >= text.size() || text[at] == '}' || text[at] == ']') return std::nullopt;
            bool here = !object && std::to_string(index) == key;
            if (object) {
                const std::size_t begin = at;
                at = skip_value(text, at);
                if (at == std::string_view::npos) return std::nullopt;
                here = at - begin >= 2 && text.substr(begin + 1, at - begin - 2) == key;
                at = skip_space(text, skip_space(text, at) + 1); // the colon
            }
            if (here) break;
            at = skip_value(text, at);
            if (at == std::string_view::npos) return std::nullopt;
            at = skip_space(text, at);
            if (at < text.size() && text[at] == ',') at = skip_space(text, at + 1);
        }
    }
    const std::size_t end = skip_value(text, at);
    if (end == std::string_view::npos) return std::nullopt;
    return text.substr(at, end - at);
}

} // namespace detail

/// A text as a JSON string, with quotes and escapes: `quote("a\"b")` is `"a\"b"`.
inline std::string quote(std::string_view text) {
    std::string out;
    detail::append_quoted(out, text);
    return out;
}

/// The JSON result of an operation. A value that owns its text.
class document {
  public:
    /// An empty one.
    document() = default;
    /// Of a JSON text.
    explicit document(std::string text) : text_(std::move(text)) {}

    /// The whole text.
    const std::string &text() const noexcept { return text_; }
    /// The raw JSON at a pointer such as "/0/status", on loan from the document; nothing where there is none.
    std::optional<std::string_view> find(std::string_view pointer) const { return detail::find(text_, pointer); }
    /// The string at a pointer, without quotes and escapes; "" where there is no string.
    std::string string(std::string_view pointer) const {
        const auto raw = find(pointer);
        if (!raw || raw->size() < 2 || raw->front() != '"') return {};
        return detail::unescaped(raw->substr(1, raw->size() - 2));
    }
    /// The whole number at a pointer; nothing where there is none.
    std::optional<std::int64_t> number(std::string_view pointer) const {
        std::int64_t value = 0;
        const auto raw = find(pointer);
        if (!raw || std::from_chars(raw->data(), raw->data() + raw->size(), value).ptr != raw->data() + raw->size())
            return std::nullopt;
        return value;
    }
    /// Whether there is `true` at a pointer.
    bool is_true(std::string_view pointer) const { return find(pointer) == std::string_view("true"); }
#if QUEEN_HAS_NLOHMANN
    /// Parsed, or read into a type of yours (from_json). Throws what nlohmann/json throws.
    template <class T = nlohmann::json> T as() const { return nlohmann::json::parse(text_).template get<T>(); }
#endif

  private:
    std::string text_;
};

/// A payload that goes in: JSON text, which is stored byte for byte, or an nlohmann::json. A text that is to be a JSON
/// string goes through quote().
class payload {
  public:
    /// JSON text, borrowed for the call.
    template <class S, std::enable_if_t<std::is_convertible_v<const S &, std::string_view>, int> = 0>
    payload(const S &text) : text_(text) {} // NOLINT: implicit, so that push("1") reads well
#if QUEEN_HAS_NLOHMANN
    /// A value of nlohmann/json.
    template <class J, std::enable_if_t<std::is_same_v<J, nlohmann::json> || std::is_same_v<J, nlohmann::ordered_json>, int> = 0>
    payload(const J &value) : owned_(value.dump()), text_(owned_) {} // NOLINT
#endif
    payload(const payload &) = delete;
    payload &operator=(const payload &) = delete;
    /// The text.
    std::string_view text() const noexcept { return text_; }

  private:
    std::string owned_;
    std::string_view text_;
};

/// The messages of one push, in order.
class items {
  public:
    /// None yet.
    items() = default;

    /// Adds a message. Without ids the library makes a transaction id, and there is no trace.
    items &add(const payload &value, std::string_view transaction_id = {}, std::string_view trace_id = {}) {
        text_.reserve(text_.size() + value.text().size() + 64);
        text_ += text_.empty() ? "[{\"payload\":" : (text_.pop_back(), ",{\"payload\":");
        // More than one value would make another item of it. The library then says where the JSON is wrong.
        if (!detail::is_one_value(value.text())) text_ += "<not one JSON value> ";
        text_ += value.text();
        if (!transaction_id.empty()) detail::append_quoted(text_ += ",\"transactionId\":", transaction_id);
        if (!trace_id.empty()) detail::append_quoted(text_ += ",\"traceId\":", trace_id);
        text_ += "}]";
        return *this;
    }

    /// Removes all, and keeps the memory for the next.
    items &clear() noexcept {
        text_.clear();
        return *this;
    }

    /// The JSON array.
    std::string_view text() const noexcept { return text_.empty() ? std::string_view("[]") : std::string_view(text_); }

  private:
    std::string text_;
};

/// JSON text that goes into options as it is.
struct raw_json {
    std::string_view text; ///< The JSON.
};

class options;

/// A value of an option: bool, number, text, duration in milliseconds, nested options, raw_json.
class option_value {
  public:
    /// A number or a bool.
    template <class N, std::enable_if_t<std::is_arithmetic_v<N>, int> = 0>
    option_value(N value) { // NOLINT: implicit on purpose, as all here
        if constexpr (std::is_same_v<N, bool>) text_ = value ? "true" : "false";
        else text_ = std::to_string(value);
    }
    /// A text.
    template <class S, std::enable_if_t<std::is_convertible_v<const S &, std::string_view>, int> = 0>
    option_value(const S &text) : text_(quote(text)) {} // NOLINT
    /// A duration, in milliseconds.
    template <class R, class P>
    option_value(std::chrono::duration<R, P> time) // NOLINT
        : text_(std::to_string(std::chrono::duration_cast<std::chrono::milliseconds>(time).count())) {}
    /// JSON as it is.
    option_value(raw_json json) : text_(json.text) {} // NOLINT
    /// An object.
    inline option_value(const options &nested); // NOLINT
    /// The JSON.
    const std::string &text() const noexcept { return text_; }

  private:
    std::string text_;
};

/// Options of a call by their names in docs/CONFIGURATION.md and docs/OPERATIONS.md: `{{"batch", 10}, {"wait", true}}`, or
/// a JSON object as text. A name that is not known, or a bad value, is an error of the call that names both.
class options {
  public:
    /// One of them.
    struct one {
        /// Its name and its value.
        one(std::string_view name_, option_value value_) : name(name_), value(std::move(value_)) {}
        std::string_view name; ///< The name.
        option_value value;    ///< The value.
    };

    /// The defaults.
    options() = default;
    /// A list of them.
    options(std::initializer_list<one> list) {
        for (const one &each : list) set(each.name, each.value);
    }
    /// A JSON object as text. It is checked by the call.
    template <class S, std::enable_if_t<std::is_convertible_v<const S &, std::string_view>, int> = 0>
    options(const S &object) : text_(detail::c_name(object, "options")) {} // NOLINT: implicit on purpose
#if QUEEN_HAS_NLOHMANN
    /// An object of nlohmann/json.
    template <class J, std::enable_if_t<std::is_same_v<J, nlohmann::json> || std::is_same_v<J, nlohmann::ordered_json>, int> = 0,
              class = void>
    options(const J &object) : text_(object.dump()) {} // NOLINT
#endif

    /// Sets one.
    options &set(std::string_view name, const option_value &value) {
        const std::size_t end = text_.rfind('}');
        if (end == std::string::npos) text_ = "{";
        else text_.erase(end);
        if (text_.find(':') != std::string::npos) text_ += ',';
        detail::append_quoted(text_, name);
        text_ += ':';
        text_ += value.text();
        text_ += '}';
        return *this;
    }
    /// Whether one of that name is set.
    bool has(std::string_view name) const { return detail::find(text_, "/" + std::string(name)).has_value(); }
    /// The JSON object, empty for the defaults.
    const std::string &text() const noexcept { return text_; }
    /// For C: NULL for the defaults.
    const char *c_str() const noexcept { return text_.empty() ? nullptr : text_.c_str(); }

  private:
    std::string text_;
};

inline option_value::option_value(const options &nested) : text_(nested.text().empty() ? "{}" : nested.text()) {}

} // namespace queen

#endif
