/* brokers: all. Stopping a consumer: in a long poll, with a running handler, at its deadline. */
#include "harness.h"

typedef struct work_t {
  gate_t entered, go, left, frees;
  queen_delivery_t *delivery;
  int32_t answer;
} work_t;
#define WORK_INIT {GATE_INIT, GATE_INIT, GATE_INIT, GATE_INIT, NULL, QUEEN_ACK}

static int32_t work(queen_delivery_t *delivery, void *user_data) {
  work_t *w = (work_t *)user_data;
  w->delivery = delivery;
  gate_add(&w->entered, 1);
  gate_reaches(&w->go, 1, LONG_MS);
  gate_add(&w->left, 1);
  return w->answer;
}

static void work_freed(void *w) { gate_add(&((work_t *)w)->frees, 1); }

TEST(stop_during_a_long_poll_is_prompt) {
  queen_client_t *client = client_new();
  const char *queue = queue_new(client, NULL);
  work_t w = WORK_INIT;
  queen_consumer_t *consumer;
  queen_delivery_t *delivery;
  int64_t start;
  gate_add(&w.go, 1);
  push_n(client, queue, "p", 0, 1);
  consumer = consume_at(client, queue, "\"pollTimeoutMillis\":30000,\"concurrency\":2", work, &w, work_freed, __FILE__, __LINE__);
  check(gate_reaches(&w.left, 1, LONG_MS)); /* from here on it only waits */
  start = now_ms();
  wait_json_has(queen_consumer_stop(consumer, LONG_MS), "\"reason\":\"stopped\"");
  check(now_ms() - start < PROMPT_MS);
  wait_json_has(queen_consumer_future(consumer), "\"reason\":\"stopped\"");
  check(gate_reaches(&w.frees, 1, LONG_MS));
  push_n(client, queue, "p", 1, 1); /* the dropped poll must not swallow it */
  delivery = pop(client, queue, NULL, POLL_30S);
  check_code(number_at(delivery, 0), 1);
  wait_ok(queen_delivery_ack(delivery));
  queen_delivery_free(delivery);
  check_code(gate_get(&w.entered), 1);
  queen_consumer_free(consumer);
  client_end(client);
  check_code(gate_get(&w.frees), 1);
}

TEST(stop_waits_for_a_running_handler) {
  queen_client_t *client = client_new();
  const char *queue = queue_new(client, NULL);
  work_t w = WORK_INIT;
  queen_consumer_t *consumer;
  queen_future_t *stop, *again;
  push_n(client, queue, "p", 0, 3);
  consumer = consume_at(client, queue, "\"batch\":1", work, &w, work_freed, __FILE__, __LINE__);
  check(gate_reaches(&w.entered, 1, LONG_MS));
  stop = queen_consumer_stop(consumer, LONG_MS);
  again = queen_consumer_stop(consumer, LONG_MS);
  check_code(queen_future_wait(stop, 300), QUEEN_E_TIMEOUT);
  check_code(gate_get(&w.frees), 0);
  gate_add(&w.go, 1);
  wait_ok(stop);
  wait_ok(again);
  check_code(gate_get(&w.left), 1);
  check_code(gate_get(&w.entered), 1); /* no new message was handed out after the stop */
  queen_consumer_free(consumer);
  {
    queen_delivery_t *rest = pop(client, queue, NULL, "{\"wait\":true,\"pollTimeoutMillis\":30000,\"batch\":10}");
    check_code(queen_delivery_count(rest), 2); /* the ack of the first was flushed, the rest is there at once */
    check_code(number_at(rest, 0), 1);
    wait_ok(queen_delivery_ack(rest));
    queen_delivery_free(rest);
  }
  client_end(client);
}

TEST(stop_deadline_lets_go) {
  queen_client_t *client = client_new();
  const char *queue = queue_new(client, NULL);
  work_t w = WORK_INIT;
  queen_consumer_t *consumer;
  queen_delivery_t *again;
  w.answer = QUEEN_DEFER;
  push_n(client, queue, "p", 0, 1);
  /* a short lease: what was let go comes back when it ends, because nobody renews it any more */
  consumer = consume_at(client, queue, "\"leaseSeconds\":2", work, &w, work_freed, __FILE__, __LINE__);
  check(gate_reaches(&w.entered, 1, LONG_MS));
  wait_code(queen_consumer_stop(consumer, 200), QUEEN_E_TIMEOUT);
  check_code(gate_get(&w.frees), 0); /* its fn still runs */
  /* unsettled at the deadline is let go: the late verdict says so */
  wait_code(queen_delivery_ack(w.delivery), QUEEN_E_CLOSED);
  queen_delivery_free(w.delivery);
  gate_add(&w.go, 1);
  check(gate_reaches(&w.frees, 1, LONG_MS));
  again = pop(client, queue, NULL, POLL_30S);
  check_code(number_at(again, 0), 0);
  wait_ok(queen_delivery_ack(again));
  queen_delivery_free(again);
  queen_consumer_free(consumer);
  client_end(client);
  check_code(gate_get(&w.frees), 1);
}

TEST(stop_with_no_deadline_does_not_wait) {
  queen_client_t *client = client_new();
  const char *queue = queue_new(client, NULL);
  work_t w = WORK_INIT;
  queen_consumer_t *consumer = consume_at(client, queue, NULL, work, &w, work_freed, __FILE__, __LINE__);
  int32_t code;
  queen_future_t *refused = queen_consumer_stop(consumer, -1);
  check_code(queen_future_wait(refused, 0), QUEEN_OK);
  check_code(queen_error_code(queen_future_error(refused)), QUEEN_E_INVALID_ARGUMENT);
  queen_future_free(refused);
  {
    queen_future_t *future = queen_consumer_future(consumer); /* the refused stop has stopped nothing */
    check_code(queen_future_wait(future, 200), QUEEN_E_TIMEOUT);
    queen_future_free(future);
  }
  code = code_of(queen_consumer_stop(consumer, 0));
  check(code == QUEEN_OK || code == QUEEN_E_TIMEOUT);
  wait_ok(queen_consumer_stop(consumer, LONG_MS)); /* asked again, it finishes */
  queen_consumer_free(consumer);
  client_end(client);
  check_code(gate_get(&w.frees), 1);
}

/* freed without stop: stops in the background, the running handler finishes and settles */
TEST(freed_consumer_stops_by_itself) {
  queen_client_t *client = client_new();
  const char *queue = queue_new(client, NULL);
  work_t w = WORK_INIT;
  queen_consumer_t *consumer;
  queen_future_t *future;
  push_n(client, queue, "p", 0, 2);
  consumer = consume_at(client, queue, NULL, work, &w, work_freed, __FILE__, __LINE__);
  future = queen_consumer_future(consumer);
  check(gate_reaches(&w.entered, 1, LONG_MS));
  queen_consumer_free(consumer);
  check_code(queen_future_wait(future, 200), QUEEN_E_TIMEOUT);
  gate_add(&w.go, 1);
  wait_json_has(future, "\"acked\":1");
  check(gate_reaches(&w.frees, 1, LONG_MS));
  check_code(gate_get(&w.entered), 1);
  {
    queen_delivery_t *rest = pop(client, queue, NULL, POLL_30S);
    check_code(number_at(rest, 0), 1);
    wait_ok(queen_delivery_ack(rest));
    queen_delivery_free(rest);
  }
  client_end(client);
}

/* a stop that is forgotten still stops */
TEST(stop_future_may_be_freed) {
  queen_client_t *client = client_new();
  const char *queue = queue_new(client, NULL);
  work_t w = WORK_INIT;
  queen_consumer_t *consumer = consume_at(client, queue, NULL, work, &w, work_freed, __FILE__, __LINE__);
  queen_future_free(queen_consumer_stop(consumer, LONG_MS));
  check(gate_reaches(&w.frees, 1, LONG_MS));
  wait_json_has(queen_consumer_future(consumer), "\"reason\":\"stopped\"");
  queen_consumer_free(consumer);
  client_end(client);
}

TESTS(cmocka_unit_test(stop_during_a_long_poll_is_prompt), cmocka_unit_test(stop_waits_for_a_running_handler),
      cmocka_unit_test(stop_deadline_lets_go), cmocka_unit_test(stop_with_no_deadline_does_not_wait),
      cmocka_unit_test(freed_consumer_stops_by_itself), cmocka_unit_test(stop_future_may_be_freed))
