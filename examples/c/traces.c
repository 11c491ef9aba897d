/* Traces: notes about a message while it is worked on, found again by the message or by a name of one's own. */
#include "example.h"

static int32_t on_order(queen_delivery_t *delivery, void *user_data) {
    (void)user_data;
    /* A trace never touches the delivery, and one that fails is logged: nobody has to wait for it. */
    queen_future_free(queen_delivery_trace(
        delivery, 0, "{\"data\":{\"text\":\"charging\"},\"traceNames\":[\"order-7\"],\"eventType\":\"step\"}", Z));
    queen_future_free(queen_delivery_trace(
        delivery, 0, "{\"data\":{\"text\":\"charged\",\"cents\":4200},\"traceNames\":[\"order-7\"]}", Z));
    return QUEEN_ACK;
}

int main(int argc, char **argv) {
    queen_client_t *client = connect_to(argc, argv);
    queen_consumer_t *consumer;
    queen_error_t *error = NULL;
    queen_future_t *traces;
    const char *at;
    int count = 0, tries;

    fresh_queue(client, "example-traces", NULL);
    done("push", queen_push(client, "example-traces", NULL, "[{\"payload\":{\"order\":7}}]", Z, NULL));
    consumer = queen_consume(client, "{\"queue\":\"example-traces\",\"limit\":1}", Z, on_order, NULL, NULL, &error);
    if (consumer == NULL) fail("consume", error);
    done("consume", queen_consumer_future(consumer));
    queen_consumer_free(consumer);

    for (tries = 0; count < 2 && tries < 100; tries++) { /* they travel beside the ack */
        traces = finished("traces", queen_call(client, "trace.by_name", "{\"traceName\":\"order-7\",\"limit\":2}", Z));
        for (count = 0, at = queen_future_json(traces, NULL); (at = strstr(at, "\"text\"")) != NULL; at++) count++;
        queen_future_free(traces);
    }
    printf("%d traces under the name order-7\n", count);
    goodbye(client);
    return count == 2 ? 0 : 1;
}
