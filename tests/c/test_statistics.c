/* brokers: all. Statistics: a snapshot at any time, and the newest of them as an event. */
#include "harness.h"

#define ITEM "[{\"payload\":1}]"

/* a client of the test's broker with further settings */
static queen_client_t *client_with(const char *more) {
  char config[640];
  snprintf(config, sizeof config, "{\"url\":\"%s\",%s}", test_url(), more);
  return client_at(config);
}

TEST(b8_a_snapshot_counts_what_was_done) {
  queen_client_t *client = client_new();
  const char *queue = queue_new(client, NULL);
  queen_delivery_t *delivery;
  push_n(client, queue, "p", 0, 3);
  delivery = pop(client, queue, "p", "{\"batch\":3,\"wait\":false}");
  check(delivery != NULL);
  wait_json_has(queen_client_stats(client), "\"deliveries\":1");
  wait_ok(queen_delivery_ack(delivery));
  queen_delivery_free(delivery);
  wait_json_has(queen_push(client, queue, "p", ITEM, Z, "{\"buffer\":{\"timeMillis\":3600000}}"), "\"buffered\"");
  {
    char *json = wait_json(queen_client_stats(client));
    check_json(json, "\"queued\":3");
    check_json(json, "\"popped\":3,\"acked\":3");
    check_json(json, "\"activeBuffers\":1,\"totalBufferedMessages\":1");
    check_json(json, "\"p99Micros\":");
    check(strstr(json, "\"oldestBufferAge\":") != NULL && strstr(json, "\"flushesPerformed\":0") != NULL);
    free(json);
  }
  wait_json_has(queen_call(client, "client.stats", NULL, 0), "\"totalBufferedMessages\":1");
  check_code(code_of(queen_call(client, "client.stats", "{\"nonsense\":1}", Z)), QUEEN_E_INVALID_JSON);
  client_end(client);
  check_code(code_of(queen_client_stats(NULL)), QUEEN_E_INVALID_ARGUMENT);
}

TEST(only_the_newest_waits_in_an_event_queue) {
  queen_client_t *client = client_with("\"statisticsIntervalMillis\":100");
  const char *queue = queue_new(client, NULL);
  queen_event_queue_t *events = queen_event_queue_new();
  queen_event_t event, several[8];
  int i, seen = 0;
  check_code(queen_statistics_events(client, events, 5), QUEEN_OK);
  push_n(client, queue, "p", 0, 7);
  usleep(700000); /* several came meanwhile */
  check_code(queen_event_queue_poll(events, several, sizeof several[0], LEN(several), LONG_MS), 1);
  queen_events_free(several, 1);
  for (i = 0; i < 100 && !seen; i++) {
    poll_event(events, &event);
    check_code(event.type, QUEEN_EVENT_STATISTICS);
    check(strcmp(queen_event_type_name(event.type), "statistics") == 0);
    check(event.tag == 5 && event.code == 0 && event.object == NULL && strlen(event.json) == event.json_len);
    seen = json_has(event.json, "\"queued\":7");
    queen_events_free(&event, 1);
  }
  check(seen);
  check_code(queen_statistics_events(client, NULL, 0), QUEEN_OK); /* off */
  while (queen_event_queue_poll(events, &event, sizeof event, 1, 0) == 1) queen_events_free(&event, 1);
  check_code(queen_event_queue_poll(events, &event, sizeof event, 1, 300), 0);
  check_code(queen_statistics_events(client, events, 6), QUEEN_OK);
  poll_event(events, &event);
  check(event.tag == 6);
  queen_events_free(&event, 1);
  client_end(client); /* ends them, too */
  while (queen_event_queue_poll(events, &event, sizeof event, 1, 0) == 1) queen_events_free(&event, 1);
  check_code(queen_event_queue_poll(events, &event, sizeof event, 1, 300), 0);
  queen_event_queue_free(events);
}

TEST(events_need_an_interval) {
  queen_client_t *client = client_new();
  queen_event_queue_t *events = queen_event_queue_new();
  queen_error_t *error = NULL;
  check_code(queen_statistics_events(client, events, 1), QUEEN_E_INVALID_CONFIG);
  check_code(queen_statistics_events(client, NULL, 1), QUEEN_OK);
  check_code(queen_statistics_events(NULL, events, 1), QUEEN_E_INVALID_ARGUMENT);
  check(queen_client_new("{\"url\":\"embedded:\",\"statisticsIntervalMillis\":5}", Z, &error) == NULL);
  check(strstr(queen_error_message(error), "statisticsIntervalMillis") != NULL);
  queen_error_free(error);
  client_end(client);
  queen_event_queue_free(events);
}

TESTS(cmocka_unit_test(b8_a_snapshot_counts_what_was_done), cmocka_unit_test(only_the_newest_waits_in_an_event_queue),
      cmocka_unit_test(events_need_an_interval))
