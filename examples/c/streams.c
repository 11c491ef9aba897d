/*
 * Streams: what is pushed to a queue, cut into windows of a fifth of a second, each summed by customer.
 *
 *     streams [URL]     a broker that has streams: the embedded one (the default), or one of generation 0.7
 */
#include "example.h"

/* The sums of one customer's messages in the window. */
static void print_sums(const queen_window_t *window, const char *customer) {
    queen_future_t *sums = finished("sums", queen_window_aggregate(window, "{\"count\":true,\"sum\":[\"data.amount\"]}", Z));

    printf("%s: %s\n", customer, queen_future_json(sums, NULL));
    queen_future_free(sums);
}

/* Says of a message whether it is the customer's. Payloads are JSON text; a real program would parse it. */
static int32_t is_of(const queen_message_view_t *message, void *customer) {
    char wanted[64];
    int len = snprintf(wanted, sizeof wanted, "{\"customer\":\"%s\"", (const char *)customer);

    return message->payload_len >= (size_t)len && memcmp(message->payload, wanted, (size_t)len) == 0;
}

/* Called for window after window. A nack would bring the same window again, at once. */
static int32_t on_window(queen_window_t *window, void *user_data) {
    size_t *total = user_data;

    if (queen_window_size(window) == 0) return QUEEN_ACK; /* a quiet time */
    queen_window_filter(window, is_of, "ann");
    print_sums(window, "ann");
    queen_window_reset(window);
    queen_window_filter(window, is_of, "bob");
    print_sums(window, "bob");
    *total += queen_window_original_size(window);
    return QUEEN_ACK;
}

int main(int argc, char **argv) {
    const char *define = "{\"stream\":\"example-sales\",\"namespace\":\"examples\",\"sources\":[\"example-sales\"],"
                         "\"windowMillis\":200,\"graceMillis\":0}";
    const char *options = "{\"stream\":\"example-sales\",\"consumerGroup\":\"sums\",\"idleMillis\":1000}";
    queen_client_t *client = connect_to(argc, argv);
    queen_consumer_t *consumer;
    queen_error_t *error = NULL;
    size_t total = 0;

    done("create", queen_call(client, "queue.create", "{\"queue\":\"example-sales\"}", Z));
    done("define", queen_call(client, "stream.define", define, Z));
    done("push", queen_push(client, "example-sales", NULL,
                            "[{\"payload\":{\"customer\":\"ann\",\"amount\":3}},{\"payload\":{\"customer\":\"bob\",\"amount\":0.5}},"
                            " {\"payload\":{\"customer\":\"ann\",\"amount\":4}}]",
                            Z, NULL));

    consumer = queen_stream_consume(client, options, Z, on_window, &total, NULL, &error);
    if (consumer == NULL) fail("consume", error);
    done("consume", queen_consumer_future(consumer)); /* ends when no window has come for a second */
    queen_consumer_free(consumer);
    done("delete", queen_call(client, "stream.delete", "{\"stream\":\"example-sales\"}", Z));
    goodbye(client);

    printf("%zu messages in windows\n", total);
    return total == 3 ? 0 : 1;
}
