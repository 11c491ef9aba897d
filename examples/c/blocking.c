/* Blocking: each operation is started, waited for, and its result read. Nothing else blocks in libqueen. */
#include "example.h"

int main(int argc, char **argv) {
    queen_client_t *client = connect_to(argc, argv);
    queen_future_t *future;
    queen_delivery_t *delivery;
    char queue[64];
    size_t i, popped = 0;

    /* A name that no earlier run has used: a queue is made by the first push to it. */
    snprintf(queue, sizeof queue, "example-blocking-%ld", (long)getpid());

    /* One call is stored together and in order. Each item can have an id of its own, which makes it safe to repeat. */
    future = finished("push", queen_push(client, queue, "customer-42",
                                         "[{\"payload\":{\"n\":1},\"transactionId\":\"order-1\"},{\"payload\":{\"n\":2}}]", Z, NULL));
    printf("pushed: %s\n", queen_future_json(future, NULL));
    queen_future_free(future);

    /* The same id again is a duplicate, which is a success: the message is there. */
    future = finished("push", queen_push(client, queue, "customer-42",
                                         "[{\"payload\":{\"n\":1},\"transactionId\":\"order-1\"}]", Z, NULL));
    printf("again: %s\n", strstr(queen_future_json(future, NULL), "\"duplicate\"") != NULL ? "duplicate" : "stored");
    queen_future_free(future);

    /* Up to ten messages, waiting for the first up to five seconds. */
    future = finished("pop", queen_pop(client, queue, NULL, "{\"batch\":10,\"wait\":true,\"pollTimeoutMillis\":5000}"));
    while ((delivery = queen_future_take_delivery(future)) != NULL) { /* one for each partition */
        for (i = 0; i < queen_delivery_count(delivery); i++, popped++) print_payload("popped", delivery, i);
        done("ack", queen_delivery_ack(delivery));
        queen_delivery_free(delivery);
    }
    queen_future_free(future);

    goodbye(client);
    return popped == 2 ? 0 : 1;
}
