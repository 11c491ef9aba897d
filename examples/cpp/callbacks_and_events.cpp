// Completions three ways: a callback, a std::future, and an event queue in a poll() loop.
// prints: callback: queued
// prints: std::future: queued
// prints: event 7: queued
#include <queen/queen.hpp>

#include <iostream>
#include <poll.h>

int main() {
    queen::client client("embedded:");
    const queen::queue queue = client.queue("events");

    std::promise<void> called;
    queue.push("1").then([&](queen::result<queen::document> pushed) { // on a thread of the library
        if (pushed) std::cout << "callback: " << pushed->string("/0/status") << std::endl;
        else std::cout << "callback: " << pushed.error().message() << std::endl;
        called.set_value();
    });
    called.get_future().wait();

    std::future<queen::document> future = queue.push("2").std_future();
    std::cout << "std::future: " << future.get().string("/0/status") << std::endl;

    queen::event_queue events;
    queen::event_batch batch;
    queue.push("3").deliver(events, 7);
    pollfd watched{events.fd(), POLLIN, 0}; // or epoll, libuv, ...
    ::poll(&watched, 1, -1);
    events.poll(batch, std::chrono::milliseconds(0));
    for (std::size_t i = 0; i < batch.size(); i++)
        std::cout << "event " << batch[i].tag() << ": " << batch[i].read().value().string("/0/status") << std::endl;
    client.close().get();
}
