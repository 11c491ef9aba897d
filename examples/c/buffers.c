/* Buffers: pushes that return at once and travel together, with a report of what became of each message. */
#include "example.h"

int main(int argc, char **argv) {
    queen_client_t *client = connect_to(argc, argv);
    queen_event_queue_t *events = queen_event_queue_new();
    queen_event_t event;
    int i, reported = 0, requests = 0;

    fresh_queue(client, "example-buffers", NULL);
    queen_report_events(client, events, 0);

    for (i = 0; i < 1000; i++) {
        char items[80];

        /* The future completes when the message is in the buffer, which is at once, as long as that is not full. */
        snprintf(items, sizeof items, "[{\"payload\":{\"reading\":%d},\"transactionId\":\"reading-%d\"}]", i, i);
        done("push", queen_push(client, "example-buffers", "sensor-1", items, Z,
                                "{\"buffer\":{\"messageCount\":250,\"timeMillis\":1000}}"));
    }
    queen_future_free(queen_flush(client, NULL)); /* not to wait for the last second */

    while (reported < 1000) {
        const char *at;

        if (queen_event_queue_poll(events, &event, sizeof event, 1, PATIENCE_MS) != 1) return 1;
        if (event.type == QUEEN_EVENT_DELIVERY_REPORT) {
            /* [{"queue", "partition", "transactionId", "messageId", "status", "error"?}, ...] */
            requests++;
            for (at = event.json; (at = strstr(at, "\"status\":\"queued\"")) != NULL; at++) reported++;
            if (strstr(event.json, "\"error\"") != NULL) fprintf(stderr, "not stored: %s\n", event.json);
        }
        queen_events_free(&event, 1);
    }
    printf("%d messages stored, in %s requests\n", reported, requests < 20 ? "a few" : "many");
    goodbye(client); /* would send what is still in buffers */
    queen_event_queue_free(events);
    return 0;
}
