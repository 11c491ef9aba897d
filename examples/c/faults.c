/* Faults: a broker of one's own that fails when it is told to, to see what a program does then. */
#include "example.h"

int main(void) {
    queen_error_t *error = NULL;
    queen_broker_t *broker = queen_broker_start("{\"testing\":true}", Z, &error);
    queen_client_t *client;
    queen_future_t *future;

    if (broker == NULL) fail("broker", error);
    client = queen_client_new(queen_broker_url(broker), Z, &error);
    if (client == NULL) fail("client", error);

    /* The next push is stored, and its answer is lost. It is repeated with the same id, so it is there once. */
    done("fault", queen_broker_add_faults(broker, "{\"route\":\"push\",\"times\":1,\"action\":\"cutAfterCommit\"}", Z));
    done("push", queen_push(client, "orders", NULL, "[{\"payload\":{\"order\":1}}]", Z, NULL));
    future = finished("depth", queen_call(client, "queue.depth", "{\"queue\":\"orders\"}", Z));
    printf("depth after a lost answer: %s\n", queen_future_json(future, NULL));
    queen_future_free(future);

    /* A broker that says 503 twice: the push waits and goes through. */
    done("fault", queen_broker_add_faults(broker, "{\"route\":\"push\",\"times\":2,\"action\":\"status\",\"status\":503}", Z));
    done("push", queen_push(client, "orders", NULL, "[{\"payload\":{\"order\":2}}]", Z, NULL));

    /* A message whose lease ends comes again: the clock is the test's. */
    future = finished("pop", queen_pop(client, "orders", NULL, "{\"leaseSeconds\":60}"));
    done("clock", queen_broker_move_clock(broker, "{\"advanceMillis\":61000}", Z));
    queen_future_free(future); /* too late to give anything back */
    future = finished("pop", queen_pop(client, "orders", NULL, "{\"wait\":true,\"pollTimeoutMillis\":5000}"));
    printf("it came again: %s\n", strstr(queen_future_json(future, NULL), "\"order\":1") != NULL ? "yes" : "no");
    queen_future_free(future);

    future = finished("faults", queen_broker_faults(broker));
    printf("applied: %s\n", strstr(queen_future_json(future, NULL), "\"applied\":2") != NULL ? "all" : "not all");
    queen_future_free(future);
    goodbye(client);
    done("stop", queen_broker_stop(broker, PATIENCE_MS));
    queen_broker_free(broker);
    return 0;
}
