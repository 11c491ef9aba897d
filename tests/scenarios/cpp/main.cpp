// Runs scenarios with the C++ binding: BROKER URL FILE... (see the README beside).
#include "world.hpp"

#include <fstream>
#include <iostream>
#include <unistd.h>

using namespace std::chrono_literals;

static void replace(std::string &text, const std::string &name, const std::string &with) {
    for (std::size_t at = 0; (at = text.find(name, at)) != std::string::npos; at += with.size()) text.replace(at, name.size(), with);
}

// Puts the names in: $queue, and ${saved}.
static json filled(const json &value, const json &saved) {
    json out = value;
    if (value.is_structured())
        for (auto &one : out) one = filled(one, saved);
    if (!value.is_string()) return out;
    std::string text = value;
    if (text.rfind("${", 0) == 0 && text.find('}') == text.size() - 1) return saved.at(text.substr(2, text.size() - 3));
    for (const auto &[name, one] : saved.items())
        if (one.is_string()) replace(text, "${" + name + "}", one);
    replace(text, "$queue", saved.at("queue"));
    return text;
}

// Why what came is not what was wanted; else keeps what is to be saved.
static std::string judge(world &w, const json &step, const outcome &came) {
    const json expect = step.value("expect", json::object());
    if (came.error && !expect.contains("error")) return "failed: " + came.error->dump();
    if (expect.contains("error")) {
        if (!came.error) return "went well with " + came.result.dump().substr(0, 600) + ", but an error was wanted: " + expect["error"].dump();
        const json wanted = expect["error"].is_string() ? json{{"name", expect["error"]}} : expect["error"];
        const std::string why = misfit(wanted, *came.error, "error");
        if (!why.empty()) return why;
    }
    if (expect.contains("result")) {
        const std::string why = misfit(expect["result"], came.result, "result");
        if (!why.empty()) return why;
    }
    const json save = step.value("save", json::object());
    for (const auto &[name, path] : save.items()) {
        const json::json_pointer place(path.get<std::string>());
        if (!came.result.contains(place)) return "nothing to save at " + path.dump() + " in " + came.result.dump().substr(0, 600);
        w.saved[name] = came.result[place];
    }
    return "";
}

static void start(world &w, const json &step) {
    auto made = std::make_unique<running>();
    running &r = *made;
    r.thread = std::thread([&w, &r, inner = step.at("step")] {
        try {
            r.came = perform(w, inner, &r);
        } catch (const std::exception &wrong) {
            r.wrong = wrong.what();
        }
        r.done = true;
    });
    w.background[step.at("name")] = std::move(made);
}

static void cancel(running &r) {
    std::lock_guard<std::mutex> guard(r.lock);
    r.cancelled = true;
    if (r.cancel) r.cancel();
}

static std::string run(world &w, const json &raw) {
    const json step = filled(raw, w.saved);
    const std::string what = step.at("do");
    if (what == "start") return start(w, step), "";
    if (what == "cancel") return cancel(*w.background.at(step.at("name"))), "";
    if (what == "join") {
        running &r = *w.background.at(step.at("name"));
        for (const auto end = std::chrono::steady_clock::now() + patience; !r.done; std::this_thread::sleep_for(2ms))
            if (std::chrono::steady_clock::now() > end) return "it has not ended";
        return r.wrong.empty() ? judge(w, step, r.came) : r.wrong;
    }
    const auto end = std::chrono::steady_clock::now() + std::chrono::milliseconds(step.value("within", 0));
    while (true) {
        const std::string wrong = judge(w, step, perform(w, step, nullptr));
        if (wrong.empty() || std::chrono::steady_clock::now() >= end) return wrong;
        std::this_thread::sleep_for(20ms);
    }
}

static std::string end(world &w) {
    for (auto &[name, r] : w.background) {
        cancel(*r);
        r->thread.join();
    }
    w.pops.clear();
    for (auto &[name, client] : w.clients) {
        const auto closed = client.close(patience).wait(patience);
        if (!closed) return "the close of client " + name + ": " + closed.error().message();
    }
    return "";
}

static std::string scenario(const std::string &broker, const std::string &url, const std::string &file) {
    static int count = 0;
    world w;
    std::string wrong;
    try {
        std::ifstream stream(file);
        const json scenario = json::parse(stream);
        w.url = url;
        w.saved["queue"] = "scenario-cpp-" + std::to_string(getpid()) + "-" +
                           std::to_string(std::chrono::system_clock::now().time_since_epoch().count()) + "-" + std::to_string(count++);
        if (broker == "embedded") w.url = w.broker.emplace(queen::options{{"testing", true}}).url();
        if (const outcome opened = open(w, "main", {{"retryDelayMillis", 5}}); opened.error) return opened.error->dump();
        int n = 0;
        for (const json &step : scenario.at("steps")) {
            n++;
            try {
                wrong = run(w, step);
            } catch (const std::exception &thrown) { // what is wrong with the scenario itself
                wrong = thrown.what();
            }
            if (!wrong.empty()) {
                wrong = "step " + std::to_string(n) + " (" + step.value("do", "?") + "): " + wrong;
                break;
            }
        }
    } catch (const std::exception &thrown) {
        wrong = thrown.what();
    }
    const std::string ended = end(w);
    return wrong.empty() ? ended : wrong;
}

int main(int argc, char **argv) {
    if (argc < 4) {
        std::cerr << "usage: BROKER URL FILE...\n";
        return 2;
    }
    queen::set_exception_hook([](std::string_view, std::exception_ptr) {}); // exceptions of handlers are a part of scenarios
    for (int i = 3; i < argc; i++) {
        std::string name = argv[i];
        name = name.substr(name.rfind('/') + 1);
        name = name.substr(0, name.rfind(".json"));
        std::string wrong = scenario(argv[1], argv[2], argv[i]);
        replace(wrong, "\n", " ");
        if (wrong.empty()) std::cout << "ok " << name << std::endl;
        else std::cout << "FAILED " << name << ": " << wrong << std::endl;
    }
}
