// What a scenario runs in.
#ifndef WORLD_HPP
#define WORLD_HPP

#include <queen/queen.hpp>

#include <atomic>
#include <functional>
#include <map>
#include <mutex>
#include <thread>

using json = nlohmann::json;

// Bounds each step.
inline constexpr std::chrono::seconds patience{30};

// What a step has come to.
struct outcome {
    json result;
    std::optional<json> error;
};

// A step in the background.
struct running {
    std::thread thread;
    std::mutex lock;
    std::function<void()> cancel; // of what it waits for now
    bool cancelled = false;
    std::atomic<bool> done{false};
    outcome came;
    std::string wrong; // with the scenario
};

struct world {
    std::optional<queen::broker> broker;
    std::string url;
    json saved = json::object();

    std::mutex lock;
    std::map<std::string, queen::client> clients;
    std::map<std::string, std::shared_ptr<queen::deliveries>> pops;
    std::map<std::string, json> reports;
    std::map<std::string, std::unique_ptr<running>> background;
};

// Opens a client.
outcome open(world &w, const std::string &name, const json &config);
// Does a step. `self` is the background step that it is, or null. Throws std::exception for what is wrong with the scenario.
outcome perform(world &w, const json &step, running *self);
// Why the value does not fit the pattern; "" when it does. Throws for a pattern that there is not.
std::string misfit(const json &pattern, const json &value, const std::string &at);

#endif
