// Patterns, as the README describes them.
#include "world.hpp"

static const char *kind(const json &value) {
    if (value.is_string()) return "string";
    if (value.is_number()) return "number";
    if (value.is_boolean()) return "boolean";
    if (value.is_array()) return "list";
    return value.is_object() ? "object" : "null";
}

static bool any_order(const json &wanted, const json &list, const std::string &at) {
    if (!list.is_array() || list.size() != wanted.size()) return false;
    std::vector<bool> taken(list.size());
    for (const json &one : wanted) {
        std::size_t i = 0;
        while (i < list.size() && (taken[i] || !misfit(one, list[i], at).empty())) i++;
        if (i == list.size()) return false;
        taken[i] = true;
    }
    return true;
}

static bool contains(const json &wanted, const json &value, const std::string &at) {
    if (value.is_string()) return wanted.is_string() && value.get<std::string>().find(wanted.get<std::string>()) != std::string::npos;
    if (value.is_array())
        for (const json &one : value)
            if (misfit(wanted, one, at).empty()) return true;
    return false;
}

static bool fits(const std::string &test, const json &wanted, const json &value, const std::string &at) {
    if (test == "$length") return (value.is_array() && value.size() == wanted) || (value.is_string() && value.get<std::string>().size() == wanted);
    if (test == "$contains") return contains(wanted, value, at);
    if (test == "$min") return value.is_number() && value >= wanted;
    if (test == "$max") return value.is_number() && value <= wanted;
    if (test == "$is") return wanted == kind(value);
    if (test == "$set") return any_order(wanted, value, at);
    if (test == "$absent") return value.is_null();
    if (test == "$not") return !misfit(wanted, value, at).empty();
    if (test == "$any") {
        for (const json &one : wanted)
            if (misfit(one, value, at).empty()) return true;
        return false;
    }
    throw std::runtime_error("no pattern: " + test);
}

std::string misfit(const json &pattern, const json &value, const std::string &at) {
    bool good = pattern == value;
    if (pattern.is_object() && pattern.size() == 1 && pattern.begin().key().rfind('$', 0) == 0) {
        good = fits(pattern.begin().key(), pattern.begin().value(), value, at);
    } else if (pattern.is_object() && value.is_object()) {
        for (const auto &[key, one] : pattern.items()) {
            const std::string why = misfit(one, value.value(key, json()), at + "/" + key);
            if (!why.empty()) return why;
        }
        return "";
    } else if (pattern.is_array() && value.is_array() && pattern.size() == value.size()) {
        for (std::size_t i = 0; i < pattern.size(); i++) {
            const std::string why = misfit(pattern[i], value[i], at + "/" + std::to_string(i));
            if (!why.empty()) return why;
        }
        return "";
    }
    if (good) return "";
    return at + " is " + value.dump().substr(0, 600) + " and not " + pattern.dump().substr(0, 600);
}
