/*
 * libqueen in one page: create a queue, push three orders, pop and acknowledge one, consume the rest.
 *
 *     quickstart [URL]      embedded:                  a broker inside this program, in memory (the default)
 *                           embedded:./orders.db       the same, kept in a file
 *                           http://127.0.0.1:6632      a server
 *
 * Every operation returns a future at once. Here each one is simply waited for; docs/CALLBACKS.md tells of
 * the other ways to learn its outcome. Whatever a function returns is ours and is freed by the function that
 * bears its type's name.
 */
#include <queen.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PATIENCE_MS 10000

/* Prints what went wrong and ends the program. The error object tells code, text and whether to try again. */
static void fail(const char *step, const queen_error_t *error) {
    fprintf(stderr, "%s: %s: %s\n", step, queen_error_name(error), queen_error_message(error));
    exit(1);
}

/* Waits until the operation has finished; returns only when it went well. */
static queen_future_t *finished(const char *step, queen_future_t *future) {
    int32_t code = queen_future_wait(future, PATIENCE_MS);

    if (code != QUEEN_OK) {
        fprintf(stderr, "%s: %s\n", step, queen_error_code_name(code));
        exit(1);
    }
    if (queen_future_error(future) != NULL) fail(step, queen_future_error(future));
    return future;
}

/* The view points into the delivery: nothing is copied, and nothing ends with a NUL. */
static void print_payload(const char *what, const queen_message_view_t *message) {
    printf("%s %.*s\n", what, (int)message->payload_len, message->payload);
}

/* Called on a thread of the library, here with one message at a time. The answer settles the message. */
static int32_t on_order(queen_delivery_t *delivery, void *user_data) {
    int *count = user_data;
    queen_message_view_t message;

    if (queen_delivery_view(delivery, &message, sizeof message, 0, 1) != 1) return QUEEN_NACK;
    print_payload("   the handler got", &message);
    *count += 1;
    return QUEEN_ACK;
}

int main(int argc, char **argv) {
    const char *url = argc > 1 ? argv[1] : "embedded:";
    const char *queue = "quickstart-orders";
    const char *queue_json = "{\"queue\":\"quickstart-orders\"}";
    const char *orders = "[{\"payload\":{\"order\":1,\"item\":\"tea\"}},"
                         " {\"payload\":{\"order\":2,\"item\":\"bread\"}},"
                         " {\"payload\":{\"order\":3,\"item\":\"honey\"}}]";
    /* Ends by itself after two messages, or when none has come for two seconds. */
    const char *options = "{\"queue\":\"quickstart-orders\",\"limit\":2,\"idleMillis\":2000}";
    queen_error_t *error = NULL;
    queen_client_t *client;
    queen_future_t *future;
    queen_delivery_t *delivery;
    queen_message_view_t message;
    queen_consumer_t *consumer;
    int consumed = 0;

    printf("libqueen %s, broker %s\n", queen_version_string(), url);
    client = queen_client_new(url, QUEEN_NUL_TERMINATED, &error);
    if (client == NULL) fail("new client", error);

    printf("1. A fresh queue named %s\n", queue);
    queen_future_free(finished("delete queue", queen_call(client, "queue.delete", queue_json, strlen(queue_json))));
    queen_future_free(finished("create queue", queen_call(client, "queue.create", queue_json, strlen(queue_json))));

    printf("2. Push three orders\n");
    queen_future_free(finished("push", queen_push(client, queue, NULL, orders, strlen(orders), NULL)));

    printf("3. Pop one and acknowledge it\n");
    future = finished("pop", queen_pop(client, queue, NULL, NULL));
    delivery = queen_future_take_delivery(future);
    queen_future_free(future);
    if (queen_delivery_view(delivery, &message, sizeof message, 0, 1) != 1) {
        fprintf(stderr, "pop: the queue is empty\n");
        exit(1);
    }
    print_payload("   popped", &message);
    queen_future_free(finished("ack", queen_delivery_ack(delivery)));
    queen_delivery_free(delivery); /* ends the view, too */

    printf("4. Consume the rest with a callback\n");
    consumer = queen_consume(client, options, strlen(options), on_order, &consumed, NULL, &error);
    if (consumer == NULL) fail("consume", error);
    future = finished("consume", queen_consumer_future(consumer));
    printf("   summary: %s\n", queen_future_json(future, NULL));
    queen_future_free(future);
    queen_consumer_free(consumer);

    printf("5. Close\n");
    queen_future_free(finished("close", queen_client_close(client, PATIENCE_MS)));
    queen_client_free(client);

    if (consumed != 2) {
        fprintf(stderr, "two orders should have been consumed, there were %d\n", consumed);
        return 1;
    }
    printf("Done: three orders in, three orders out.\n");
    return 0;
}
