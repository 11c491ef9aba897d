/* Statistics and logs: what the client does, as JSON, to a callback or an event queue. Nothing is printed by itself. */
#include "example.h"

/* {"time", "level", "component", "operation", "message", ...}; payloads and tokens are never in it. */
static void on_log(int32_t level, const char *json, size_t len, void *user_data) {
    int *records = user_data;

    (void)len;
    if (level <= QUEEN_LOG_WARN) fprintf(stderr, "%s\n", json);
    ++*records;
}

int main(int argc, char **argv) {
    char config[600];
    queen_error_t *error = NULL;
    queen_client_t *client;
    queen_event_queue_t *events = queen_event_queue_new();
    queen_event_t event;
    queen_future_t *stats;
    int records = 0, snapshots = 0;

    /* Settings beside the URL make the configuration an object. */
    snprintf(config, sizeof config, "{\"url\":\"%s\",\"statisticsIntervalMillis\":100}", argc > 1 ? argv[1] : "embedded:");
    client = queen_client_new(config, Z, &error);
    if (client == NULL) fail("client", error);
    queen_log_callback(client, QUEEN_LOG_DEBUG, on_log, &records, NULL);
    queen_statistics_events(client, events, 0);

    fresh_queue(client, "example-statistics", NULL);
    done("push", queen_push(client, "example-statistics", NULL, "[{\"payload\":1},{\"payload\":2}]", Z, NULL));

    while (snapshots < 3) { /* one every 100 ms; only the newest waits */
        if (queen_event_queue_poll(events, &event, sizeof event, 1, PATIENCE_MS) != 1) return 1;
        if (event.type == QUEEN_EVENT_STATISTICS) snapshots++;
        queen_events_free(&event, 1);
    }

    stats = queen_client_stats(client); /* at once, at any time */
    printf("queued: %s\n", strstr(queen_future_json(stats, NULL), "\"queued\":2") != NULL ? "2" : "another number");
    queen_future_free(stats);
    goodbye(client); /* the last callback has run */
    queen_event_queue_free(events);
    printf("%d snapshots, log records: %s\n", snapshots, records > 0 ? "some" : "none");
    return 0;
}
