/*
 * The subject `libqueen-c` of `make bench`: does one piece of work through the C ABI and prints one JSON line about it,
 * a Report of bench/src/work.rs. `queen-bench http-load --help` tells what the flags mean.
 *
 * Everything runs on one thread with an event queue, but for the handlers of consumers.
 */
#include <queen.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#define TEXT                                                                                                       \
    "abcdefghijklmnopqrstuvwxyzabcdefghijklmnopqrstuvwxyzabcdefghijklmnopqrstuvwxyzabcdefghijklmnopqrstuv"
#define ITEM_BYTES (sizeof TEXT + 64)
#define EVENTS 256
#define PATIENCE_MS 120000

static const char *url, *kind, *queue;
static unsigned long in_flight, partitions, messages, warm_up;

static queen_client_t *client;
static queen_event_queue_t *events;

/* What is measured. */
static double *took; /* microseconds of each operation */
static size_t took_count;
static double finished_at;

static void fail(const char *what, const char *why) {
    fprintf(stderr, "libqueen-c: %s: %s\n", what, why == NULL ? "no reason" : why);
    exit(1);
}

static double now_us(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec * 1e6 + (double)time.tv_nsec / 1e3;
}

static double cpu_us(void) {
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    return (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) * 1e6 +
           (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec);
}

static void note(double began) {
    took[took_count++] = now_us() - began;
}

/* Every message of a consuming case is to be seen once. */
static unsigned char *seen;
static unsigned long seen_count;

static void see(const queen_message_view_t *message) {
    const char *number = message->payload_len > 5 ? strstr(message->payload, "\"n\":") : NULL;
    unsigned long n = number == NULL ? messages : strtoul(number + 4, NULL, 10);
    if (n >= messages) fail("a message", "was never pushed");
    if (seen[n]++) fail("a message", "came twice");
    seen_count++;
}

static void see_all(const queen_delivery_t *delivery) {
    queen_message_view_t views[128];
    size_t count = queen_delivery_count(delivery), at = 0;
    while (at < count) {
        int64_t filled = queen_delivery_view(delivery, views, sizeof *views, at, 128);
        if (filled <= 0) fail("view", "of a delivery");
        for (int64_t i = 0; i < filled; i++) see(&views[i]);
        at += (size_t)filled;
    }
}

/* Pushes */

static char *body;
static double *began; /* of the push with that tag */

#define BEFORE "{\"payload\":{\"n\":"
#define BEHIND ",\"text\":\"" TEXT "\"}},"

static char *append(char *end, const char *text, size_t len) {
    memcpy(end, text, len);
    return end + len;
}

static char *append_number(char *end, unsigned long n) {
    char digits[24];
    size_t at = sizeof digits;
    do digits[--at] = (char)('0' + n % 10);
    while ((n /= 10) > 0);
    return append(end, digits + at, sizeof digits - at);
}

/* Pushes messages `first` and following to one partition. */
static queen_future_t *push(unsigned long first, unsigned long count, const char *options) {
    char partition[32] = "p";
    char *end = append_number(partition + 1, first / count % partitions);
    *end = '\0';
    end = body;
    *end++ = '[';
    for (unsigned long n = first; n < first + count; n++) {
        end = append(end, BEFORE, sizeof BEFORE - 1);
        end = append_number(end, n);
        end = append(end, BEHIND, sizeof BEHIND - 1);
    }
    end[-1] = ']';
    return queen_push(client, queue, partition, body, (size_t)(end - body), options);
}

static void expect_ok(const queen_event_t *event) {
    if (event->type == QUEEN_EVENT_FUTURE && event->code != QUEEN_OK)
        fail("an operation", queen_error_message(queen_future_error(event->object)));
}

/* Pushes `count` messages in requests of `batch`, with so many under way; the next when one is answered. */
static void push_all(unsigned long first, unsigned long count, unsigned long batch, unsigned long lanes) {
    queen_event_t got[EVENTS];
    unsigned long next = first, end = first + count, open = 0;
    for (unsigned long lane = 0; lane < lanes && next < end; lane++, open++) {
        queen_future_t *future = push(next, batch, NULL);
        began[lane] = now_us();
        queen_future_deliver(future, events, lane);
        queen_future_free(future);
        next += batch;
    }
    while (open > 0) {
        int64_t filled = queen_event_queue_poll(events, got, sizeof *got, EVENTS, PATIENCE_MS);
        if (filled <= 0) fail("push", "no answer");
        for (int64_t i = 0; i < filled; i++) {
            unsigned long lane = got[i].tag;
            expect_ok(&got[i]);
            note(began[lane]);
            if (next >= end) {
                open--;
                continue;
            }
            queen_future_t *future = push(next, batch, NULL);
            began[lane] = now_us();
            queen_future_deliver(future, events, lane);
            queen_future_free(future);
            next += batch;
        }
        queen_events_free(got, (size_t)filled);
    }
}

/* Buffered pushes end at their last delivery report. */
static void push_buffered(unsigned long first, unsigned long count) {
    queen_event_t got[EVENTS];
    unsigned long reported = 0, next = first, end = first + count;
    while (reported < count) {
        /* So many wait for their report at most, so that the reports are read while the next are pushed. */
        while (next < end && next - first - reported < 10000) {
            queen_future_t *future = push(next, 1, "{\"buffer\":true}");
            if (queen_future_wait(future, PATIENCE_MS) != QUEEN_OK || queen_future_error(future) != NULL)
                fail("a buffered push", queen_error_message(queen_future_error(future)));
            queen_future_free(future);
            next++;
        }
        /* What a program does at its end, instead of waiting until the last buffers are old enough. */
        if (next == end) {
            queen_future_free(queen_flush(client, NULL));
            next++;
        }
        int64_t filled = queen_event_queue_poll(events, got, sizeof *got, EVENTS, PATIENCE_MS);
        if (filled <= 0) fail("buffered push", "no report");
        for (int64_t i = 0; i < filled; i++) {
            if (got[i].type != QUEEN_EVENT_DELIVERY_REPORT) fail("buffered push", "another event");
            if (got[i].code != 0) fail("buffered push", "reports were dropped");
            /* An event tells of several messages. */
            for (const char *at = got[i].json; (at = strstr(at, "\"status\":")) != NULL; at++, reported++)
                if (strncmp(at, "\"status\":\"queued\"", 17) != 0) fail("buffered push", got[i].json);
        }
        queen_events_free(got, (size_t)filled);
    }
}

/* Pops and acks: the tag tells the loop, its lowest bit whether an ack is under way. */

static void pop(unsigned long lane) {
    queen_future_t *future = queen_pop(client, queue, NULL, "{\"batch\":100,\"wait\":true,\"pollTimeoutMillis\":10000}");
    began[lane] = now_us();
    queen_future_deliver(future, events, lane << 1);
    queen_future_free(future);
}

static void pop_ack(void) {
    queen_event_t got[EVENTS];
    for (unsigned long lane = 0; lane < in_flight; lane++) pop(lane);
    while (seen_count < messages || finished_at == 0) {
        int64_t filled = queen_event_queue_poll(events, got, sizeof *got, EVENTS, PATIENCE_MS);
        if (filled <= 0) fail("pop", "no answer");
        for (int64_t i = 0; i < filled; i++) {
            unsigned long lane = got[i].tag >> 1;
            expect_ok(&got[i]);
            if (got[i].tag & 1) {
                note(began[lane]);
                if (seen_count == messages) finished_at = now_us();
                pop(lane);
                continue;
            }
            queen_delivery_t *delivery = queen_future_take_delivery(got[i].object);
            if (delivery == NULL) {
                pop(lane);
                continue;
            }
            see_all(delivery);
            queen_future_t *future = queen_delivery_ack(delivery);
            queen_future_deliver(future, events, lane << 1 | 1);
            queen_future_free(future);
            queen_delivery_free(delivery);
        }
        queen_events_free(got, (size_t)filled);
    }
}

/* Consumers with the default options: one message for each call of the handler. */

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t change = PTHREAD_COND_INITIALIZER;

static int32_t handle(queen_delivery_t *delivery, void *user_data) {
    (void)user_data;
    pthread_mutex_lock(&lock);
    see_all(delivery);
    if (seen_count == messages) pthread_cond_signal(&change);
    pthread_mutex_unlock(&lock);
    return QUEEN_ACK;
}

static queen_consumer_t *start(queen_delivery_handler handler) {
    char options[200];
    queen_error_t *error = NULL;
    snprintf(options, sizeof options, "{\"queue\":\"%s\"}", queue);
    queen_consumer_t *consumer =
        queen_consume(client, options, QUEEN_NUL_TERMINATED, handler, NULL, NULL, &error);
    if (consumer == NULL) fail("consume", queen_error_message(error));
    return consumer;
}

/* The stop waits for the answers to the acks. */
static void stop(queen_consumer_t *consumer, unsigned long acked) {
    char wanted[64];
    queen_future_t *future = queen_consumer_stop(consumer, PATIENCE_MS);
    if (queen_future_wait(future, PATIENCE_MS) != QUEEN_OK || queen_future_error(future) != NULL) fail("stop", "of the consumer");
    snprintf(wanted, sizeof wanted, "\"acked\":%lu,", acked);
    if (strstr(queen_future_json(future, NULL), wanted) == NULL) fail("not all was acked", queen_future_json(future, NULL));
    queen_future_free(future);
    queen_consumer_free(consumer);
}

static void consume(void) {
    queen_consumer_t *consumer = start(handle);
    pthread_mutex_lock(&lock);
    while (seen_count < messages) pthread_cond_wait(&change, &lock);
    pthread_mutex_unlock(&lock);
    stop(consumer, messages);
    finished_at = now_us();
}

/* From the push to the handler, one message at a time, with a pause in which everything falls idle. */

static int32_t arrive(queen_delivery_t *delivery, void *user_data) {
    double at = now_us();
    queen_message_view_t message;
    (void)user_data;
    if (queen_delivery_view(delivery, &message, sizeof message, 0, 1) != 1) return QUEEN_NACK;
    pthread_mutex_lock(&lock);
    /* What warms up has other numbers. */
    if (strtoul(strstr(message.payload, "\"n\":") + 4, NULL, 10) < messages) {
        took[took_count++] = at - began[0];
        see(&message);
    } else {
        warm_up--;
    }
    pthread_cond_signal(&change);
    pthread_mutex_unlock(&lock);
    return QUEEN_ACK;
}

static void push_and_wait(unsigned long n) {
    unsigned long before_seen = seen_count, before_warm = warm_up;
    struct timespec rest = {0, 20 * 1000 * 1000};
    nanosleep(&rest, NULL);
    pthread_mutex_lock(&lock);
    began[0] = now_us();
    queen_future_t *future = push(n, 1, NULL);
    while (seen_count == before_seen && warm_up == before_warm) pthread_cond_wait(&change, &lock);
    pthread_mutex_unlock(&lock);
    if (queen_future_wait(future, PATIENCE_MS) != QUEEN_OK || queen_future_error(future) != NULL) fail("push", "failed");
    queen_future_free(future);
}

static int by_size(const void *one, const void *other) {
    double a = *(const double *)one, b = *(const double *)other;
    return (a > b) - (a < b);
}

static double percentile(double share) {
    return took[(size_t)((double)(took_count - 1) * share + 0.5)];
}

static void report(double began_at, double cpu) {
    struct rusage usage;
    char p50[32] = "null", p99[32] = "null";
    if (took_count > 0) {
        qsort(took, took_count, sizeof *took, by_size);
        snprintf(p50, sizeof p50, "%.1f", percentile(0.50));
        snprintf(p99, sizeof p99, "%.1f", percentile(0.99));
    }
    getrusage(RUSAGE_SELF, &usage);
    printf("{\"messages\":%lu,\"seconds\":%.6f,\"cpu_us\":%.0f,\"p50_us\":%s,\"p99_us\":%s,\"rss_mib\":%.2f}\n", messages,
           (finished_at - began_at) / 1e6, cpu, p50, p99, (double)usage.ru_maxrss / 1024);
}

static void read_order(int argc, char **argv) {
    for (int i = 1; i + 1 < argc; i += 2) {
        const char *flag = argv[i], *value = argv[i + 1];
        if (strcmp(flag, "--url") == 0) url = value;
        else if (strcmp(flag, "--case") == 0) kind = value;
        else if (strcmp(flag, "--queue") == 0) queue = value;
        else if (strcmp(flag, "--in-flight") == 0) in_flight = strtoul(value, NULL, 10);
        else if (strcmp(flag, "--partitions") == 0) partitions = strtoul(value, NULL, 10);
        else if (strcmp(flag, "--messages") == 0) messages = strtoul(value, NULL, 10);
        else if (strcmp(flag, "--warm-up") == 0) warm_up = strtoul(value, NULL, 10);
        else fail("unknown flag", flag);
    }
    if (url == NULL || kind == NULL || queue == NULL || in_flight == 0 || partitions == 0 || messages == 0)
        fail("a flag is missing", "see queen-bench http-load --help");
}

static void set_up(void) {
    queen_error_t *error = NULL;
    client = queen_client_new(url, QUEEN_NUL_TERMINATED, &error);
    if (client == NULL) fail("client", queen_error_message(error));
    events = queen_event_queue_new();
    body = malloc(100 * ITEM_BYTES + 16);
    began = calloc(in_flight, sizeof *began);
    took = calloc(messages + warm_up + 1, sizeof *took);
    seen = calloc(messages, 1);
    if (events == NULL || body == NULL || began == NULL || took == NULL || seen == NULL) fail("set up", "no memory");
}

int main(int argc, char **argv) {
    read_order(argc, argv);
    set_up();
    unsigned long batch = strcmp(kind, "push-batch-100") == 0 ? 100 : 1;
    int pushes = strcmp(kind, "push-seq") == 0 || strcmp(kind, "push-single") == 0 || batch == 100;
    int buffered = strcmp(kind, "push-buffered") == 0;
    queen_consumer_t *idle = NULL;
    if (pushes && warm_up > 0) push_all(messages, warm_up, batch, in_flight);
    if (buffered) {
        queen_report_events(client, events, 0);
        if (warm_up > 0) push_buffered(messages, warm_up);
    }
    unsigned long warm = warm_up;
    if (strcmp(kind, "latency-idle") == 0) {
        idle = start(arrive);
        while (warm_up > 0) push_and_wait(messages + warm_up - 1);
    }
    took_count = 0;
    double cpu = cpu_us(), began_at = now_us();
    if (pushes) push_all(0, messages, batch, in_flight);
    else if (buffered) push_buffered(0, messages);
    else if (strcmp(kind, "pop-ack-100") == 0) pop_ack();
    else if (strcmp(kind, "consume") == 0) consume();
    else if (idle != NULL) {
        for (unsigned long n = 0; n < messages; n++) push_and_wait(n);
        stop(idle, messages + warm);
    } else fail("unknown case", kind);
    if (finished_at == 0) finished_at = now_us();
    report(began_at, cpu_us() - cpu);
    queen_future_t *closed = queen_client_close(client, PATIENCE_MS);
    if (queen_future_wait(closed, PATIENCE_MS) != QUEEN_OK) fail("close", "takes too long");
    queen_future_free(closed);
    queen_event_queue_free(events);
    queen_client_free(client);
    free(body), free(began), free(took), free(seen);
    return 0;
}
