/* brokers: all. Windows of streams; on a broker without streams each test sees that it says so. */
#include "harness.h"

typedef struct stream_t {
  queen_client_t *client;
  const char *queue;
  const char *name;
} stream_t;

/* A stream over a queue with payloads {"n":0}, ... of which each window has all; 0 where the broker has none. */
static int stream_begin(stream_t *s, const char *more) {
  char params[512];
  queen_future_t *defined;
  int has;
  s->client = client_new();
  s->queue = queue_new(s->client, NULL);
  s->name = unique("stream");
  snprintf(params, sizeof params,
           "{\"stream\":\"%s\",\"namespace\":\"c\",\"sources\":[\"%s\"],\"windowMillis\":3600000%s%s}", s->name, s->queue,
           more != NULL ? "," : "", more != NULL ? more : "");
  defined = queen_call(s->client, "stream.define", params, Z);
  check_code(queen_future_wait(defined, LONG_MS), QUEEN_OK);
  has = queen_future_error(defined) == NULL;
  if (!has) {
    check_code(queen_error_code(queen_future_error(defined)), QUEEN_E_UNSUPPORTED);
    check(strstr(queen_error_message(queen_future_error(defined)), "0.7") != NULL);
    wait_code(queen_stream_poll(s->client, s->name, "g", "{\"pollTimeoutMillis\":1000}", Z), QUEEN_E_UNSUPPORTED);
    client_end(s->client);
    check(strcmp(getenv("QUEEN_TEST_BROKER") != NULL ? getenv("QUEEN_TEST_BROKER") : "", "official") == 0);
  }
  queen_future_free(defined);
  return has;
}

/* Windows of a tenth of a second, of which one has what was pushed (or two, at the edge of a window). */
#define SHORT "\"windowMillis\":100,\"graceMillis\":0"
static int stream_short(stream_t *s) {
  char params[512];
  if (!stream_begin(s, NULL)) return 0;
  snprintf(params, sizeof params, "{\"stream\":\"%s\",\"namespace\":\"c\",\"sources\":[\"%s\"]," SHORT "}", s->name, s->queue);
  wait_ok(queen_call(s->client, "stream.define", params, Z));
  return 1;
}

static queen_window_t *poll_window(const stream_t *s, const char *group) {
  queen_future_t *future = queen_stream_poll(s->client, s->name, group, NULL, 0);
  queen_window_t *window;
  check_code(queen_future_wait(future, LONG_MS + 10000), QUEEN_OK);
  check_code(queen_error_code(queen_future_error(future)), QUEEN_OK);
  window = queen_future_take_window(future);
  check(window != NULL);
  check(queen_future_take_window(future) == NULL);
  queen_future_free(future);
  return window;
}

/* Acks windows until one has messages. */
static queen_window_t *poll_messages(const stream_t *s, const char *group) {
  for (;;) {
    queen_window_t *window = poll_window(s, group);
    if (queen_window_size(window) > 0) return window;
    wait_ok(queen_window_ack(window));
    queen_window_free(window);
  }
}

static int32_t odd(const queen_message_view_t *message, void *calls) {
  ++*(int *)calls;
  return (message->payload[message->payload_len - 2] - '0') % 2;
}

TEST(windows_are_read_filtered_grouped_and_summed) {
  stream_t s;
  queen_window_t *window;
  queen_message_view_t views[8];
  size_t two[2] = {1, 0}, twice[2] = {0, 0}, beyond = 9;
  int calls = 0, n;
  if (!stream_short(&s)) return;
  wait_ok(queen_push(s.client, s.queue, "p",
                     "[{\"payload\":{\"k\":\"a\",\"n\":1}},{\"payload\":{\"k\":\"b\",\"n\":2}},"
                     "{\"payload\":{\"k\":\"a\",\"n\":3}},{\"payload\":{\"n\":9007199254740993}}]",
                     Z, NULL));
  window = poll_messages(&s, "g");
  n = (int)queen_window_size(window);
  check_code(n, 4); /* of one push, so of one moment */
  check_code(queen_window_original_size(window), 4);
  check(strcmp(queen_window_key(window), "__GLOBAL__") == 0);
  check(strstr(queen_window_id(window), ":__GLOBAL__:") != NULL);
  check(strlen(queen_window_start(window)) == strlen("2026-11-23T20:35:34.000000Z"));
  check(strcmp(queen_window_start(window), queen_window_end(window)) < 0);

  check_code(queen_window_view(window, views, sizeof *views, 1, LEN(views)), 3);
  check(views[0].payload_len == strlen("{\"k\":\"b\",\"n\":2}"));
  check(memcmp(views[0].payload, "{\"k\":\"b\",\"n\":2}", views[0].payload_len) == 0);
  check(views[0].id_len == 36 && views[0].created_at_len == 27);
  check(views[0].queue_len == 0 && views[0].trace_id == NULL);

  wait_json_has(queen_window_group_by(window, "data.k"),
                "[{\"key\":\"a\",\"indices\":[0,2]},{\"key\":\"b\",\"indices\":[1]},{\"key\":\"null_key\",\"indices\":[3]}]");
  wait_json_has(queen_window_aggregate(window, "{\"count\":true,\"sum\":[\"data.n\"],\"max\":[\"data.n\",\"data.k\"]}", Z),
                "{\"count\":4,\"sum\":{\"data.n\":9007199254740999},\"max\":{\"data.k\":null,\"data.n\":9007199254740993}}");

  check_code(queen_window_filter(window, odd, &calls), QUEEN_OK);
  check_code(calls, 4);
  check_code(queen_window_size(window), 3);
  wait_json_has(queen_window_aggregate(window, "{\"avg\":[\"data.n\"],\"min\":[\"data.n\"]}", Z), "\"min\":{\"data.n\":1}");
  check_code(queen_window_keep(window, twice, 2), QUEEN_E_INVALID_ARGUMENT);
  check_code(queen_window_keep(window, &beyond, 1), QUEEN_E_INVALID_ARGUMENT);
  check_code(queen_window_size(window), 3);
  check_code(queen_window_keep(window, two, 2), QUEEN_OK);
  wait_json_has(queen_window_document(window), "\"size\":2,\"originalSize\":4");
  wait_json_has(queen_window_document(window), "\"data\":{\"k\":\"a\",\"n\":3}");
  check_code(queen_window_keep(window, NULL, 0), QUEEN_OK);
  check_code(queen_window_size(window), 0);
  /* the views are of the window, not of the filter */
  check(memcmp(views[0].payload, "{\"k\":\"b\",\"n\":2}", views[0].payload_len) == 0);
  check_code(queen_window_reset(window), QUEEN_OK);
  check_code(queen_window_size(window), 4);

  wait_code(queen_window_aggregate(window, "{\"median\":[\"n\"]}", Z), QUEEN_E_INVALID_CONFIG);
  wait_code(queen_window_aggregate(window, "[", Z), QUEEN_E_INVALID_JSON);
  wait_code(queen_window_group_by(window, NULL), QUEEN_E_INVALID_ARGUMENT);
  wait_ok(queen_window_ack(window));
  wait_code(queen_window_nack(window), QUEEN_E_ALREADY_SETTLED);
  check_code(queen_window_is_lost(window), 0);
  queen_window_free(window);
  client_end(s.client);
}

TEST(a_window_that_is_freed_or_nacked_comes_again) {
  stream_t s;
  queen_window_t *window;
  char id[256];
  if (!stream_short(&s)) return;
  push_n(s.client, s.queue, "p", 0, 3);
  window = poll_messages(&s, "g");
  snprintf(id, sizeof id, "%s", queen_window_id(window));
  queen_window_free(window);
  window = poll_window(&s, "g");
  check(strcmp(queen_window_id(window), id) == 0);
  wait_ok(queen_window_nack(window));
  queen_window_free(window);
  /* also one that nobody has taken out of its future */
  queen_future_free(queen_stream_poll(s.client, s.name, "g", NULL, 0));
  window = poll_window(&s, "g");
  check(strcmp(queen_window_id(window), id) == 0);
  wait_ok(queen_window_ack(window));
  queen_window_free(window);
  client_end(s.client);
}

TEST(polls_that_bring_nothing_and_those_that_cannot) {
  stream_t s;
  queen_future_t *future;
  if (!stream_begin(&s, NULL)) return;
  future = queen_stream_poll(s.client, s.name, "g", "{\"pollTimeoutMillis\":0}", Z);
  check_code(queen_future_wait(future, LONG_MS), QUEEN_OK);
  check(queen_future_error(future) == NULL && queen_future_take_window(future) == NULL);
  check_json(queen_future_json(future, NULL), "{\"window\":null}");
  queen_future_free(future);
  wait_code(queen_stream_poll(s.client, "no such stream", "g", "{\"pollTimeoutMillis\":0}", Z), QUEEN_E_NOT_FOUND);
  wait_code(queen_stream_poll(s.client, NULL, "g", NULL, 0), QUEEN_E_INVALID_ARGUMENT);
  wait_code(queen_stream_poll(s.client, s.name, NULL, NULL, 0), QUEEN_E_INVALID_ARGUMENT);
  wait_code(queen_stream_poll(s.client, s.name, "g", "{\"pollTimeout\":1}", Z), QUEEN_E_INVALID_CONFIG);
  wait_code(queen_stream_poll(NULL, s.name, "g", NULL, 0), QUEEN_E_INVALID_ARGUMENT);
  client_end(s.client);
}

typedef struct handled_t {
  gate_t messages, windows, freed;
} handled_t;

static int32_t nacks_first(queen_window_t *window, void *user_data) {
  handled_t *handled = (handled_t *)user_data;
  if (queen_window_size(window) == 0) return QUEEN_ACK;
  if (gate_add(&handled->windows, 1) == 1) return 17; /* no verdict of any kind: a nack */
  gate_add(&handled->messages, (int64_t)queen_window_size(window));
  return QUEEN_ACK;
}

static void freed(void *user_data) { gate_add(&((handled_t *)user_data)->freed, 1); }

TEST(a_handler_gets_windows_and_a_nacked_one_again) {
  static handled_t handled = {GATE_INIT, GATE_INIT, GATE_INIT};
  stream_t s;
  queen_consumer_t *consumer;
  queen_error_t *error = NULL;
  char options[256];
  if (!stream_short(&s)) return;
  push_n(s.client, s.queue, "p", 0, 5);
  snprintf(options, sizeof options, "{\"stream\":\"%s\",\"consumerGroup\":\"g\"}", s.name);
  consumer = queen_stream_consume(s.client, options, Z, nacks_first, &handled, freed, &error);
  check(consumer != NULL && error == NULL);
  check(gate_reaches(&handled.messages, 5, LONG_MS));
  wait_json_has(queen_consumer_stop(consumer, LONG_MS), "\"nacked\":1");
  wait_json_has(queen_consumer_future(consumer), "\"reason\":\"stopped\"");
  check_code(gate_get(&handled.messages), 5);
  check(gate_reaches(&handled.freed, 1, LONG_MS));
  queen_consumer_free(consumer);
  client_end(s.client);
}

static int32_t defers(queen_window_t *window, void *place) {
  queen_window_t **taken = (queen_window_t **)place;
  if (queen_window_size(window) == 0) return QUEEN_ACK;
  __atomic_store_n(taken, window, __ATOMIC_RELEASE);
  return QUEEN_DEFER;
}

TEST(a_deferred_window_is_settled_elsewhere) {
  static queen_window_t *taken;
  stream_t s;
  queen_consumer_t *consumer;
  queen_window_t *window = NULL;
  char options[256];
  if (!stream_short(&s)) return;
  push_n(s.client, s.queue, "p", 0, 2);
  snprintf(options, sizeof options, "{\"stream\":\"%s\",\"consumerGroup\":\"g\"}", s.name);
  consumer = queen_stream_consume(s.client, options, Z, defers, &taken, NULL, NULL);
  while ((window = __atomic_load_n(&taken, __ATOMIC_ACQUIRE)) == NULL) usleep(1000);
  wait_code(queen_consumer_stop(consumer, 50), QUEEN_OK); /* lets go of it */
  wait_code(queen_window_ack(window), QUEEN_E_CLOSED);
  queen_window_free(window);
  queen_consumer_free(consumer);
  window = poll_messages(&s, "h"); /* another group sees it anyway */
  wait_ok(queen_window_ack(window));
  queen_window_free(window);
  client_end(s.client);
}

TEST(windows_come_as_events) {
  stream_t s;
  queen_event_queue_t *events = queen_event_queue_new();
  queen_event_t event;
  queen_consumer_t *consumer;
  queen_error_t *error = NULL;
  char options[256];
  size_t messages = 0;
  if (!stream_short(&s)) {
    queen_event_queue_free(events);
    return;
  }
  push_n(s.client, s.queue, "p", 0, 4);
  snprintf(options, sizeof options, "{\"stream\":\"%s\",\"consumerGroup\":\"g\"}", s.name);
  consumer = queen_stream_consume_events(s.client, options, Z, events, 7, &error);
  check(consumer != NULL && error == NULL);
  while (messages < 4) {
    queen_window_t *window;
    poll_event(events, &event);
    check_code(event.type, QUEEN_EVENT_WINDOW);
    check(event.tag == 7 && event.json == NULL && strcmp(queen_event_type_name(event.type), "window") == 0);
    check(queen_event_take_delivery(&event) == NULL);
    window = queen_event_take_window(&event);
    check(window != NULL && queen_event_take_window(&event) == NULL);
    queen_events_free(&event, 1);
    messages += queen_window_size(window);
    wait_ok(queen_window_ack(window));
    queen_window_free(window);
  }
  queen_future_free(queen_consumer_stop(consumer, LONG_MS));
  for (;;) { /* one that came meanwhile goes back with its event */
    int32_t type;
    poll_event(events, &event);
    type = event.type;
    if (type == QUEEN_EVENT_CONSUMER_ENDED) check_json(event.json, "\"messages\":");
    queen_events_free(&event, 1);
    if (type == QUEEN_EVENT_CONSUMER_ENDED) break;
    check_code(type, QUEEN_EVENT_WINDOW);
  }
  queen_consumer_free(consumer);
  queen_event_queue_free(events);
  client_end(s.client);
}

TEST(a_consumer_that_cannot_be_says_why) {
  queen_client_t *client = client_new();
  queen_event_queue_t *events = queen_event_queue_new();
  queen_error_t *error = NULL;
  queen_consumer_t *consumer;
  queen_event_t event;
  gate_t freed_gate = GATE_INIT;
  check(queen_stream_consume(client, "{\"stream\":\"s\"}", Z, nacks_first, &freed_gate, gate_bump, &error) == NULL);
  check(error != NULL && strstr(queen_error_message(error), "consumerGroup") != NULL);
  check_code(gate_get(&freed_gate), 1);
  queen_error_free(error);
  check(queen_stream_consume(client, "{\"stream\":\"s\",\"consumerGroup\":\"g\"}", Z, NULL, NULL, NULL, NULL) == NULL);
  check(queen_stream_consume_events(client, "{\"stream\":\"s\",\"consumerGroup\":\"g\"}", Z, NULL, 0, NULL) == NULL);
  consumer = queen_stream_consume_events(client, "{\"stream\":\"no such\",\"consumerGroup\":\"g\"}", Z, events, 1, NULL);
  check(consumer != NULL);
  poll_event(events, &event);
  check_code(event.type, QUEEN_EVENT_CONSUMER_ENDED);
  check(event.code == QUEEN_E_NOT_FOUND || event.code == QUEEN_E_UNSUPPORTED);
  queen_events_free(&event, 1);
  queen_consumer_free(consumer);
  queen_event_queue_free(events);
  client_end(client);
}

TEST(null_is_answered) {
  queen_message_view_t view;
  check(queen_window_id(NULL) == NULL && queen_window_key(NULL) == NULL);
  check(queen_window_start(NULL) == NULL && queen_window_end(NULL) == NULL);
  check(queen_window_size(NULL) == 0 && queen_window_original_size(NULL) == 0);
  check_code(queen_window_view(NULL, &view, sizeof view, 0, 1), QUEEN_E_INVALID_ARGUMENT);
  check_code(queen_window_filter(NULL, odd, NULL), QUEEN_E_INVALID_ARGUMENT);
  check_code(queen_window_keep(NULL, NULL, 0), QUEEN_E_INVALID_ARGUMENT);
  check_code(queen_window_reset(NULL), QUEEN_E_INVALID_ARGUMENT);
  check_code(queen_window_is_lost(NULL), QUEEN_E_INVALID_ARGUMENT);
  wait_code(queen_window_document(NULL), QUEEN_E_INVALID_ARGUMENT);
  wait_code(queen_window_aggregate(NULL, NULL, 0), QUEEN_E_INVALID_ARGUMENT);
  wait_code(queen_window_ack(NULL), QUEEN_E_INVALID_ARGUMENT);
  wait_code(queen_window_nack(NULL), QUEEN_E_INVALID_ARGUMENT);
  check(queen_future_take_window(NULL) == NULL && queen_event_take_window(NULL) == NULL);
  queen_window_free(NULL);
}

TESTS(cmocka_unit_test(windows_are_read_filtered_grouped_and_summed),
      cmocka_unit_test(a_window_that_is_freed_or_nacked_comes_again),
      cmocka_unit_test(polls_that_bring_nothing_and_those_that_cannot),
      cmocka_unit_test(a_handler_gets_windows_and_a_nacked_one_again),
      cmocka_unit_test(a_deferred_window_is_settled_elsewhere), cmocka_unit_test(windows_come_as_events),
      cmocka_unit_test(a_consumer_that_cannot_be_says_why), cmocka_unit_test(null_is_answered))
