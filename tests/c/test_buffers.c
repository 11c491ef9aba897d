/* brokers: all. Client-side buffers: accepted at once, sent together, reported message by message. */
#include "process.h"

#define PATIENT(count) "{\"buffer\":{\"messageCount\":" count ",\"timeMillis\":3600000}}"

/* pushes n messages {"payload":i} one by one or `many` at a time; each is accepted as "buffered" */
static void push_buffered(const queen_client_t *client, const char *queue, const char *partition, int n, int many,
                          const char *options) {
  char *items = (char *)malloc((size_t)many * 32 + 3);
  int i = 0;
  while (i < n) {
    char *end = items;
    int k;
    for (k = 0; k < many; k++, i++) end += sprintf(end, "%c{\"payload\":%d}", k == 0 ? '[' : ',', i);
    strcpy(end, "]");
    wait_json_has(queen_push(client, queue, partition, items, Z, options), "\"status\":\"buffered\"");
  }
  free(items);
}

typedef struct told_t {
  int reports, dropped, empty;
} told_t;

/* flushes, however long a slow machine takes */
static void flush_all(const queen_client_t *client) {
  queen_future_t *future = queen_flush(client, "{\"timeoutMillis\":100000}");
  check_code(queen_future_wait(future, 110000), QUEEN_OK);
  wait_ok(future);
}

/* takes every report event that waits, and the ones that come until there are n of them, dropped ones included */
static told_t take_reports(queen_event_queue_t *events, uint64_t tag, int n) {
  told_t told = {0, 0, 0};
  queen_event_t event;
  while (told.reports + told.dropped < n) {
    poll_event(events, &event);
    check_code(event.type, QUEEN_EVENT_DELIVERY_REPORT);
    check(event.tag == tag && event.object == NULL && event.code >= 0);
    check(event.json != NULL && strlen(event.json) == event.json_len && event.json[0] == '[');
    told.reports += count_of(event.json, "\"transactionId\"");
    told.dropped += event.code;
    told.empty += strcmp(event.json, "[]") == 0;
    queen_events_free(&event, 1);
  }
  check_code(queen_event_queue_poll(events, &event, sizeof event, 1, 0), 0);
  return told;
}

TEST(b4_b9_reports_come_as_events) {
  queen_client_t *client = client_new();
  const char *queue = queue_new(client, NULL);
  queen_event_queue_t *events = queen_event_queue_new();
  queen_event_t event;
  check_code(queen_report_events(client, events, 71), QUEEN_OK);
  push_buffered(client, queue, "p", 250, 1, PATIENT("100"));
  wait_json_has(queen_flush(client, NULL), "\"flushed\":0");
  poll_event(events, &event);
  check_code(event.type, QUEEN_EVENT_DELIVERY_REPORT);
  check(strcmp(queen_event_type_name(event.type), "delivery_report") == 0);
  check_json(event.json, "\"partition\":\"p\"");
  check_json(event.json, "\"status\":\"queued\"");
  check_code(count_of(event.json, "\"messageId\":\""), 100); /* one event for each request */
  queen_events_free(&event, 1);
  check_code(take_reports(events, 71, 150).reports, 150);
  check_code(queen_report_events(client, NULL, 0), QUEEN_OK); /* off */
  push_buffered(client, queue, "p", 1, 1, PATIENT("1"));
  flush_all(client);
  check_code(queen_event_queue_poll(events, &event, sizeof event, 1, 0), 0);
  client_end(client);
  queen_event_queue_free(events);
}

typedef struct sink_t {
  gate_t calls, reports, dropped, frees, release;
  int bad, blocked;
  pthread_t thread;
} sink_t;
#define SINK_INIT {GATE_INIT, GATE_INIT, GATE_INIT, GATE_INIT, GATE_INIT, 0, 0, 0}

static void on_reports(const char *json, size_t len, size_t dropped, void *user_data) {
  sink_t *sink = (sink_t *)user_data;
  if (json == NULL || strlen(json) != len || json[0] != '[' || gate_get(&sink->frees) != 0) sink->bad++;
  if (sink->blocked && gate_get(&sink->calls) == 0) gate_reaches(&sink->release, 1, LONG_MS);
  sink->thread = pthread_self();
  gate_add(&sink->dropped, (int64_t)dropped);
  gate_add(&sink->reports, count_of(json, "\"transactionId\""));
  gate_add(&sink->calls, 1);
}

static void on_free(void *user_data) { gate_add(&((sink_t *)user_data)->frees, 1); }

TEST(reports_come_by_callback_until_the_close) {
  queen_client_t *client = client_new();
  const char *queue = queue_new(client, NULL);
  sink_t sink = SINK_INIT, second = SINK_INIT;
  check_code(queen_report_callback(client, on_reports, &sink, on_free), QUEEN_OK);
  push_buffered(client, queue, NULL, 30, 1, PATIENT("10"));
  check(gate_reaches(&sink.reports, 30, LONG_MS));
  check(!pthread_equal(sink.thread, pthread_self()));
  check_code(queen_report_callback(client, on_reports, &second, on_free), QUEEN_OK);
  check(gate_reaches(&sink.frees, 1, LONG_MS)); /* replaced */
  push_buffered(client, queue, NULL, 5, 1, PATIENT("100"));
  client_end(client); /* the close sends them, and their reports come before its end */
  check_code(gate_get(&second.reports), 5);
  check_code(gate_get(&second.frees), 1);
  check_code(gate_get(&sink.reports), 30);
  check_code(sink.bad + second.bad, 0);
}

/* "reports to 10 000 with the dropped number in the next one" */
TEST(reports_that_nobody_takes_are_bounded_and_counted) {
  queen_client_t *client = client_new();
  const char *queue = queue_new(client, NULL);
  queen_event_queue_t *events = queen_event_queue_new();
  told_t told;
  check_code(queen_report_events(client, events, 3), QUEEN_OK);
  push_buffered(client, queue, "p", 12000, 1000, PATIENT("1000"));
  flush_all(client);
  told = take_reports(events, 3, 12000);
  check_code(told.reports, 10000);
  check_code(told.dropped, 2000);
  check_code(told.empty, 1); /* none follow that could tell it */
  push_buffered(client, queue, "p", 12000, 1000, PATIENT("1000"));
  flush_all(client);
  {
    queen_event_t first; /* makes room for one batch, which then carries the number */
    poll_event(events, &first);
    queen_events_free(&first, 1);
  }
  push_buffered(client, queue, "p", 1000, 1000, PATIENT("1000"));
  flush_all(client);
  told = take_reports(events, 3, 12000);
  check_code(told.reports, 10000);
  check_code(told.dropped, 2000);
  check_code(told.empty, 0);
  client_end(client);
  queen_event_queue_free(events);
}

TEST(reports_for_a_slow_callback_are_bounded_and_counted) {
  queen_client_t *client = client_new();
  const char *queue = queue_new(client, NULL);
  sink_t sink = SINK_INIT;
  sink.blocked = 1;
  check_code(queen_report_callback(client, on_reports, &sink, on_free), QUEEN_OK);
  push_buffered(client, queue, "p", 15000, 1000, PATIENT("1000"));
  flush_all(client); /* a blocked callback delays no flush */
  gate_add(&sink.release, 1);
  check(gate_reaches(&sink.dropped, 5000, LONG_MS));
  client_end(client);
  check_code(gate_get(&sink.reports), 10000);
  check_code(gate_get(&sink.dropped), 5000);
  check_code(sink.bad, 0);
}

TEST(b5_by_name_and_by_place) {
  queen_client_t *client = client_new();
  const char *queue = queue_new(client, NULL);
  char params[512];
  int i;
  for (i = 0; i < 3; i++) {
    snprintf(params, sizeof params, "{\"queue\":\"%s\",\"partition\":\"p%d\",\"items\":[{\"payload\":{\"n\":%d}}],\"buffer\":"
             "{\"messageCount\":10,\"timeMillis\":3600000}}", queue, i, i);
    wait_json_has(queen_call(client, "push", params, Z), "\"buffered\"");
  }
  check(pop(client, queue, NULL, NO_WAIT) == NULL);
  snprintf(params, sizeof params, "{\"queue\":\"%s\",\"partition\":\"p1\"}", queue);
  wait_json_has(queen_flush(client, params), "\"messages\":1");
  {
    queen_delivery_t *delivery = pop(client, queue, NULL, NO_WAIT);
    check(delivery != NULL);
    check_code(number_at(delivery, 0), 1);
    wait_ok(queen_delivery_ack(delivery));
    queen_delivery_free(delivery);
  }
  check(pop(client, queue, NULL, NO_WAIT) == NULL);
  wait_json_has(queen_call(client, "flush", "{}", Z), "\"messages\":2");
  snprintf(params, sizeof params, "{\"queue\":\"%s\",\"items\":[{\"payload\":1}],\"buffer\":true}", queue);
  wait_json_has(queen_call(client, "push", params, Z), "\"buffered\"");
  check_code(code_of(queen_flush(client, "{\"partition\":\"p1\"}")), QUEEN_E_INVALID_ARGUMENT);
  client_end(client);
}

TEST(c12_a_full_buffer_fails_or_drops_as_told) {
  scripted_t server = scripted_start("never");
  queen_client_t *client = client_at(server.url);
  queen_event_queue_t *events = queen_event_queue_new();
  queen_event_t event;
  const char *fails = "{\"buffer\":{\"messageCount\":2,\"maxMessages\":4,\"whenFull\":\"fail\"}}";
  const char *drops = "{\"buffer\":{\"messageCount\":2,\"maxMessages\":4,\"whenFull\":\"dropOldest\"}}";
  check_code(queen_report_events(client, events, 9), QUEEN_OK);
  push_buffered(client, "q", "p", 2, 1, fails);
  check(scripted_reaches(&server, 1)); /* these two are on their way */
  push_buffered(client, "q", "p", 2, 1, fails);
  check_code(code_of(queen_push(client, "q", "p", "[{\"payload\":9}]", Z, fails)), QUEEN_E_WOULD_BLOCK);
  push_buffered(client, "q", "p", 1, 1, drops);
  poll_event(events, &event);
  check_json(event.json, "\"status\":\"dropped\"");
  check_code(count_of(event.json, "\"transactionId\""), 1);
  queen_events_free(&event, 1);
  {
    queen_future_t *closed = queen_client_close(client, 0);
    check_code(queen_future_wait(closed, LONG_MS), QUEEN_OK);
    check_code(queen_error_code(queen_future_error(closed)), QUEEN_E_PARTIAL);
    check_json(queen_future_json(closed, NULL), "\"unsent\":4");
    queen_future_free(closed);
  }
  check_code(take_reports(events, 9, 4).reports, 4);
  queen_client_free(client);
  queen_event_queue_free(events);
  check_code(queen_shutdown(LONG_MS), QUEEN_OK); /* nothing of it is left, not even what was on its way */
  scripted_stop(&server);
}

/* freed without a close: each message is reported all the same, and user_data_free runs */
TEST(c42_free_reports_what_was_not_sent) {
  scripted_t server = scripted_start("refuse");
  queen_client_t *client = client_at(server.url);
  sink_t sink = SINK_INIT;
  check_code(queen_report_callback(client, on_reports, &sink, on_free), QUEEN_OK);
  push_buffered(client, "q", NULL, 500, 100, PATIENT("1000"));
  queen_client_free(client);
  check(gate_reaches(&sink.frees, 1, LONG_MS));
  check_code(gate_get(&sink.reports), 500);
  check_code(sink.bad, 0);
  scripted_stop(&server);
}

TEST(arguments_are_checked) {
  queen_client_t *client = client_new();
  sink_t sink = SINK_INIT;
  static const char *const bad[] = {"{\"buffer\":1}", "{\"buffer\":{\"messageCount\":0}}", "{\"buffer\":{\"nonsense\":1}}",
                                    "{\"buffer\":{\"maxMessages\":1}}", "{\"buffer\":{\"whenFull\":\"explode\"}}",
                                    "{\"buffer\":{\"timeMillis\":-1}}"};
  size_t i;
  for (i = 0; i < LEN(bad); i++) check_code(code_of(queen_push(client, "q", "p", "[{\"payload\":1}]", Z, bad[i])), QUEEN_E_INVALID_CONFIG);
  wait_json_has(queen_flush(client, NULL), "\"messages\":0"); /* nothing was kept */
  check_code(queen_report_events(NULL, NULL, 0), QUEEN_E_INVALID_ARGUMENT);
  check_code(queen_report_callback(NULL, on_reports, &sink, on_free), QUEEN_E_INVALID_ARGUMENT);
  check_code(gate_get(&sink.frees), 1);
  check_code(queen_report_callback(client, NULL, &sink, on_free), QUEEN_OK); /* stops them; user_data has no use */
  check_code(gate_get(&sink.frees), 2);
  client_end(client);
}

TESTS(cmocka_unit_test(b4_b9_reports_come_as_events), cmocka_unit_test(reports_come_by_callback_until_the_close),
      cmocka_unit_test(reports_that_nobody_takes_are_bounded_and_counted),
      cmocka_unit_test(reports_for_a_slow_callback_are_bounded_and_counted), cmocka_unit_test(b5_by_name_and_by_place),
      cmocka_unit_test(c12_a_full_buffer_fails_or_drops_as_told), cmocka_unit_test(c42_free_reports_what_was_not_sent),
      cmocka_unit_test(arguments_are_checked))
