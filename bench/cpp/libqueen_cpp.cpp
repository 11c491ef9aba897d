// The subject `libqueen-cpp` of `make bench`: the C++ binding in a program of the shape of libqueen_c.c, so that the two differ by
// the binding alone. One thread polls an event queue; handlers run on the library's. Prints one JSON line.
#include <queen/queen.hpp>

#include <algorithm>
#include <charconv>
#include <condition_variable>
#include <cstring>
#include <sys/resource.h>
#include <thread>

using namespace std::chrono_literals;
using number = unsigned long;

static const std::string text =
    "abcdefghijklmnopqrstuvwxyzabcdefghijklmnopqrstuvwxyzabcdefghijklmnopqrstuvwxyzabcdefghijklmnopqrstuv";
static const std::string tail = ",\"text\":\"" + text + "\"}},";
static constexpr auto patience = 120s;

[[noreturn]] static void fail(const std::string &what, const std::string &why) {
    std::fprintf(stderr, "libqueen-cpp: %s: %s\n", what.c_str(), why.c_str());
    std::exit(1);
}

static double now_us() {
    return std::chrono::duration<double, std::micro>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

static rusage used() {
    rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    return usage;
}

static double cpu_us() {
    const rusage usage = used();
    return static_cast<double>(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) * 1e6 +
           static_cast<double>(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec);
}

struct order {
    std::string url, kind, queue;
    number in_flight = 0, partitions = 0, messages = 0, warm_up = 0;

    order(int argc, char **argv) {
        for (int i = 1; i + 1 < argc; i += 2) {
            const std::string flag = argv[i], value = argv[i + 1];
            if (flag == "--url") url = value;
            else if (flag == "--case") kind = value;
            else if (flag == "--queue") queue = value;
            else if (flag == "--in-flight") in_flight = std::stoul(value);
            else if (flag == "--partitions") partitions = std::stoul(value);
            else if (flag == "--messages") messages = std::stoul(value);
            else if (flag == "--warm-up") warm_up = std::stoul(value);
            else fail("unknown flag", flag);
        }
        if (url.empty() || kind.empty() || queue.empty() || in_flight == 0 || partitions == 0 || messages == 0)
            fail("a flag is missing", "see queen-bench http-load --help");
    }
};

class subject {
  public:
    explicit subject(const order &what)
        : order_(what), client_(what.url), queue_(client_.queue(what.queue)), began_(what.in_flight), seen_(what.messages) {
        took_.reserve(what.messages + what.warm_up + 1);
        for (number p = 0; p < what.partitions; p++) partitions_.push_back(queue_.partition("p" + std::to_string(p)));
    }

    void run() {
        const std::string &kind = order_.kind;
        const number batch = kind == "push-batch-100" ? 100 : 1;
        const bool pushes = kind == "push-seq" || kind == "push-single" || batch == 100;
        const number messages = order_.messages, warm_up = order_.warm_up;
        std::optional<queen::consumer> idle;
        if (pushes) push_all(messages, warm_up, batch);
        if (kind == "push-buffered") {
            client_.report_to(events_);
            push_buffered(messages, warm_up);
        }
        if (kind == "latency-idle") {
            idle = queue_.consume([this](const queen::message &message) { arrive(message); });
            for (number n = warm_up; n > 0; n--) push_and_wait(messages + n - 1);
        }
        took_.clear();
        const double cpu = cpu_us(), began = now_us();
        if (pushes) push_all(0, messages, batch);
        else if (kind == "push-buffered") push_buffered(0, messages);
        else if (kind == "pop-ack-100") pop_ack();
        else if (kind == "consume") consume();
        else if (idle) {
            for (number n = 0; n < messages; n++) push_and_wait(n);
            stop(*idle, messages + warm_up);
        } else fail("unknown case", kind);
        if (finished_ == 0) finished_ = now_us();
        report(began, cpu_us() - cpu);
        client_.close(patience).get(patience);
    }

  private:
    void see(const queen::message &message) {
        const std::string_view payload = message.payload();
        const std::size_t at = payload.find("\"n\":");
        const number n = at == std::string_view::npos ? order_.messages : std::strtoul(payload.data() + at + 4, nullptr, 10);
        if (n >= order_.messages) fail("a message", "was never pushed");
        if (seen_[n]++) fail("a message", "came twice");
        seen_count_++;
    }

    // Pushes messages `first` and following to one partition.
    queen::future<queen::document> push(number first, number count, const queen::options &options = {}) {
        body_.assign(1, '[');
        for (number n = first; n < first + count; n++) {
            char digits[24];
            body_ += "{\"payload\":{\"n\":";
            body_.append(digits, std::to_chars(digits, digits + sizeof digits, n).ptr);
            body_ += tail;
        }
        body_.back() = ']';
        return partitions_[first / count % order_.partitions].push_json(body_, options);
    }

    // Pushes `count` messages in requests of `batch`, with so many under way; the next when one is answered.
    void push_all(number first, number count, number batch) {
        number next = first, open = 0;
        const number end = first + count;
        const auto go = [&](number lane) {
            const auto future = push(next, batch);
            began_[lane] = now_us();
            future.deliver(events_, lane);
            next += batch;
        };
        for (number lane = 0; lane < order_.in_flight && next < end; lane++, open++) go(lane);
        while (open > 0) {
            if (events_.poll(got_, patience) == 0) fail("push", "no answer");
            for (std::size_t i = 0; i < got_.size(); i++) {
                const number lane = got_[i].tag();
                if (got_[i].code() != QUEEN_OK) fail("a push", got_[i].read().error().message());
                took_.push_back(now_us() - began_[lane]);
                if (next < end) go(lane);
                else open--;
            }
        }
    }

    // Buffered pushes end at their last delivery report.
    void push_buffered(number first, number count) {
        const queen::options buffered{{"buffer", true}};
        number reported = 0, next = first;
        const number end = first + count;
        bool flushed = false;
        while (reported < count) {
            for (; next < end && next - first - reported < 10000; next++) push(next, 1, buffered).get(patience);
            if (next == end && !std::exchange(flushed, true)) (void)client_.flush();
            if (events_.poll(got_, patience) == 0) fail("a buffered push", "no report");
            for (std::size_t i = 0; i < got_.size(); i++) {
                const std::string_view json = got_[i].json();
                if (got_[i].type() != queen::event_type::delivery_report || got_[i].code() != 0) fail("a buffered push", "reports were dropped");
                for (const char *at = json.data(); (at = std::strstr(at, "\"status\":")) != nullptr; at++, reported++)
                    if (std::strncmp(at, "\"status\":\"queued\"", 17) != 0) fail("a buffered push", std::string(json));
            }
        }
    }

    // The tag tells the loop, its lowest bit whether an ack is under way.
    void pop_ack() {
        const queen::options options{{"batch", 100}, {"wait", true}, {"pollTimeoutMillis", 10000}};
        const auto pop = [&](number lane) {
            const auto future = queue_.pop(options);
            began_[lane] = now_us();
            future.deliver(events_, lane << 1);
        };
        for (number lane = 0; lane < order_.in_flight; lane++) pop(lane);
        while (seen_count_ < order_.messages || finished_ == 0) {
            if (events_.poll(got_, patience) == 0) fail("a pop", "no answer");
            for (std::size_t i = 0; i < got_.size(); i++) {
                const number lane = got_[i].tag() >> 1;
                if (got_[i].code() != QUEEN_OK) fail("a pop or ack", got_[i].read().error().message());
                if (got_[i].tag() & 1) {
                    took_.push_back(now_us() - began_[lane]);
                    if (seen_count_ == order_.messages) finished_ = now_us();
                    pop(lane);
                    continue;
                }
                queen::deliveries popped = got_[i].read<queen::deliveries>().value();
                if (popped.empty()) pop(lane);
                for (const queen::delivery &delivery : popped) {
                    for (const queen::message message : delivery) see(message);
                    delivery.ack().deliver(events_, lane << 1 | 1);
                }
            }
        }
    }

    void consume() {
        const queen::consumer consumer = queue_.consume([this](const queen::message &message) {
            std::lock_guard<std::mutex> guard(lock_);
            see(message);
            if (seen_count_ == order_.messages) change_.notify_one();
        });
        {
            std::unique_lock<std::mutex> guard(lock_);
            change_.wait(guard, [&] { return seen_count_ == order_.messages; });
        }
        stop(consumer, order_.messages);
        finished_ = now_us();
    }

    // The stop waits for the answers to the acks.
    static void stop(const queen::consumer &consumer, number acked) {
        const queen::document summary = consumer.stop(patience).get(patience);
        if (summary.number("/acked") != static_cast<std::int64_t>(acked)) fail("not all was acked", summary.text());
    }

    // From the push to the handler, one message at a time, with a pause in which everything falls idle.
    void arrive(const queen::message &message) {
        const double at = now_us();
        const std::string_view payload = message.payload();
        std::lock_guard<std::mutex> guard(lock_);
        if (std::strtoul(payload.data() + payload.find("\"n\":") + 4, nullptr, 10) < order_.messages) { // what warms up has other numbers
            took_.push_back(at - began_[0]);
            see(message);
        }
        arrived_++;
        change_.notify_one();
    }

    void push_and_wait(number n) {
        std::this_thread::sleep_for(20ms);
        std::unique_lock<std::mutex> guard(lock_);
        const number before = arrived_;
        began_[0] = now_us();
        const auto future = push(n, 1);
        change_.wait(guard, [&] { return arrived_ != before; });
        guard.unlock();
        future.get(patience);
    }

    void report(double began, double cpu) {
        char p50[32] = "null", p99[32] = "null";
        std::sort(took_.begin(), took_.end());
        const auto percentile = [&](double share) { return took_[static_cast<std::size_t>(static_cast<double>(took_.size() - 1) * share + 0.5)]; };
        if (!took_.empty()) {
            std::snprintf(p50, sizeof p50, "%.1f", percentile(0.50));
            std::snprintf(p99, sizeof p99, "%.1f", percentile(0.99));
        }
        std::printf("{\"messages\":%lu,\"seconds\":%.6f,\"cpu_us\":%.0f,\"p50_us\":%s,\"p99_us\":%s,\"rss_mib\":%.2f}\n", order_.messages,
                    (finished_ - began) / 1e6, cpu, p50, p99, static_cast<double>(used().ru_maxrss) / 1024);
    }

    const order order_;
    queen::client client_;
    queen::queue queue_;
    std::vector<queen::queue> partitions_;
    queen::event_queue events_;
    queen::event_batch got_{256};
    std::string body_; // of a push
    std::vector<double> began_; // of the operation with that tag
    std::vector<double> took_;  // microseconds of each operation
    std::vector<unsigned char> seen_; // every message of a consuming case is to be seen once
    number seen_count_ = 0, arrived_ = 0;
    double finished_ = 0;
    std::mutex lock_;
    std::condition_variable change_;
};

int main(int argc, char **argv) {
    try {
        subject(order(argc, argv)).run();
    } catch (const std::exception &thrown) {
        fail("it ends", thrown.what());
    }
}
