// Many small pushes that the client collects, and what became of each.
// prints: 1000 reports
#include <queen/queen.hpp>

#include <atomic>
#include <iostream>

int main() {
    std::atomic<int> reports{0};
    queen::client client("embedded:");
    client.on_report([&](std::string_view json, std::size_t) {
        const queen::document report{std::string(json)};
        for (int n = 0; report.find("/" + std::to_string(n)); n++)
            if (report.string("/" + std::to_string(n) + "/status") == "queued") reports++;
    });

    const queen::queue metrics = client.queue("metrics").partition("host-1");
    const queen::options buffered{{"buffer", queen::options{{"messageCount", 100}, {"timeMillis", 200}}}};
    for (int n = 0; n < 1000; n++) metrics.push(std::to_string(n), buffered).get();
    client.flush().get();
    client.close().get(); // the last report was told by then
    std::cout << reports << " reports" << std::endl;
}
