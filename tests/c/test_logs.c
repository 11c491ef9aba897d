/* brokers: embedded. Logs: one sink at a time, a callback or an event queue. */
#include "process.h"

typedef struct sink_t {
  gate_t lines, frees;
  int32_t worst, mildest;
  int bad;
  pthread_t thread;
} sink_t;
#define SINK_INIT {GATE_INIT, GATE_INIT, 99, 0, 0, 0}

static void on_log(int32_t level, const char *json, size_t len, void *user_data) {
  sink_t *sink = (sink_t *)user_data;
  if (json == NULL || strlen(json) != len || json[0] != '{') sink->bad++;
  if (level < sink->worst) sink->worst = level;
  if (level > sink->mildest) sink->mildest = level;
  if (gate_get(&sink->frees) != 0) sink->bad++;
  sink->thread = pthread_self();
  gate_add(&sink->lines, 1);
}

static void on_free(void *user_data) { gate_add(&((sink_t *)user_data)->frees, 1); }

static int32_t odd(queen_delivery_t *delivery, void *user_data) {
  (void)delivery;
  return gate_add((gate_t *)user_data, 1) == 1 ? 77 : QUEEN_ACK;
}

/* an answer of a handler that is no verdict is a nack "and is logged" */
static void make_noise(queen_client_t *client) {
  gate_t calls = GATE_INIT;
  const char *queue = queue_new(client, NULL);
  queen_consumer_t *consumer;
  push_n(client, queue, "p", 0, 1);
  consumer = consume(client, queue, NULL, odd, &calls);
  check(gate_reaches(&calls, 2, LONG_MS));
  consumer_end(consumer);
}

TEST(x10_callback_gets_the_log) {
  queen_client_t *client = client_new();
  sink_t sink = SINK_INIT;
  check_code(queen_log_callback(client, QUEEN_LOG_DEBUG, on_log, &sink, on_free), QUEEN_OK);
  make_noise(client);
  check(gate_reaches(&sink.lines, 1, LONG_MS));
  check(!pthread_equal(sink.thread, pthread_self()));
  client_end(client);
  check_code(sink.bad, 0);
  check_code(gate_get(&sink.frees), 1);
  check(sink.worst >= QUEEN_LOG_ERROR && sink.mildest <= QUEEN_LOG_DEBUG);
}

TEST(level_keeps_the_rest_out) {
  queen_client_t *client = client_new();
  sink_t sink = SINK_INIT;
  check_code(queen_log_callback(client, QUEEN_LOG_WARN, on_log, &sink, on_free), QUEEN_OK);
  make_noise(client);
  check(gate_reaches(&sink.lines, 1, LONG_MS)); /* a verdict that is none deserves a warning */
  client_end(client);
  check(sink.mildest <= QUEEN_LOG_WARN);
}

TEST(events_get_the_log) {
  queen_client_t *client = client_new();
  queen_event_queue_t *events = queen_event_queue_new();
  queen_event_t event;
  check_code(queen_log_events(client, QUEEN_LOG_WARN, events, 31), QUEEN_OK);
  make_noise(client);
  poll_event(events, &event);
  check_code(event.type, QUEEN_EVENT_LOG);
  check(event.tag == 31);
  check(event.code >= QUEEN_LOG_ERROR && event.code <= QUEEN_LOG_WARN);
  check(event.json != NULL && strlen(event.json) == event.json_len && event.json[0] == '{');
  check(event.object == NULL);
  queen_events_free(&event, 1);
  client_end(client);
  queen_event_queue_free(events);
}

TEST(one_sink_at_a_time) {
  queen_client_t *client = client_new();
  queen_event_queue_t *events = queen_event_queue_new();
  sink_t first = SINK_INIT, second = SINK_INIT;
  queen_event_t event;
  int64_t lines;
  check_code(queen_log_callback(client, QUEEN_LOG_WARN, on_log, &first, on_free), QUEEN_OK);
  check_code(queen_log_callback(client, QUEEN_LOG_WARN, on_log, &second, on_free), QUEEN_OK);
  check(gate_reaches(&first.frees, 1, LONG_MS)); /* replaced: its last line has been */
  lines = gate_get(&first.lines);
  make_noise(client);
  check(gate_reaches(&second.lines, 1, LONG_MS));
  check_code(gate_get(&first.lines), lines);
  check_code(queen_log_events(client, QUEEN_LOG_WARN, events, 1), QUEEN_OK);
  check(gate_reaches(&second.frees, 1, LONG_MS));
  lines = gate_get(&second.lines);
  make_noise(client);
  poll_event(events, &event);
  check_code(event.type, QUEEN_EVENT_LOG);
  queen_events_free(&event, 1);
  check_code(gate_get(&second.lines), lines);
  check_code(queen_log_callback(client, QUEEN_LOG_WARN, NULL, NULL, NULL), QUEEN_OK); /* off */
  while (queen_event_queue_poll(events, &event, sizeof event, 1, 0) == 1) queen_events_free(&event, 1);
  make_noise(client);
  check_code(queen_event_queue_poll(events, &event, sizeof event, 1, 300), 0);
  client_end(client);
  queen_event_queue_free(events);
  check_code(gate_get(&first.frees), 1);
  check_code(gate_get(&second.frees), 1);
  check_code(first.bad + second.bad, 0);
}

/* what the library says of a client that was freed without close: the unsent messages, in one warning */
TEST(unsent_messages_are_counted_in_a_warning) {
  scripted_t server = scripted_start("never"); /* one push is under way, the others wait behind it */
  queen_client_t *client = client_at(server.url);
  sink_t sink = SINK_INIT;
  int i;
  check_code(queen_log_callback(client, QUEEN_LOG_WARN, on_log, &sink, on_free), QUEEN_OK);
  for (i = 0; i < 50; i++) queen_future_free(queen_push(client, "q", "p", "[{\"payload\":1}]", Z, NULL));
  queen_client_free(client);
  check(gate_reaches(&sink.frees, 1, LONG_MS));
  check(gate_get(&sink.lines) >= 1);
  check_code(sink.bad, 0);
  scripted_stop(&server);
}

TESTS(cmocka_unit_test(x10_callback_gets_the_log), cmocka_unit_test(level_keeps_the_rest_out),
      cmocka_unit_test(events_get_the_log), cmocka_unit_test(one_sink_at_a_time),
      cmocka_unit_test(unsent_messages_are_counted_in_a_warning))
