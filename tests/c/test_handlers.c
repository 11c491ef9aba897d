/* brokers: all. Handlers that block, that call back into the library, and that defer. */
#include "harness.h"

static void expect_empty(queen_client_t *client, const char *queue) {
  check(pop(client, queue, NULL, "{\"wait\":true,\"pollTimeoutMillis\":500}") == NULL);
}

/* ---- a handler that blocks ---- */

typedef struct block_t {
  gate_t entered, go, left;
} block_t;
#define BLOCK_INIT {GATE_INIT, GATE_INIT, GATE_INIT}

static int32_t block(queen_delivery_t *delivery, void *user_data) {
  block_t *b = (block_t *)user_data;
  (void)delivery;
  gate_add(&b->entered, 1);
  gate_reaches(&b->go, 1, LONG_MS);
  gate_add(&b->left, 1);
  return QUEEN_ACK;
}

static int32_t count(queen_delivery_t *delivery, void *user_data) {
  (void)delivery;
  gate_add((gate_t *)user_data, 1);
  return QUEEN_ACK;
}

static void on_done(const queen_future_t *future, void *user_data) {
  (void)future;
  gate_add((gate_t *)user_data, 1);
}

TEST(blocking_handler_stops_nothing_else) {
  queen_client_t *client = client_new();
  const char *slow = queue_new(client, NULL), *fast = queue_new(client, NULL);
  block_t b = BLOCK_INIT;
  gate_t counted = GATE_INIT, called = GATE_INIT;
  queen_consumer_t *blocked, *busy;
  int64_t until;
  int i, n = 0;
  push_n(client, slow, "p", 0, 1);
  blocked = consume(client, slow, "\"leaseSeconds\":1", block, &b);
  busy = consume(client, fast, NULL, count, &counted);
  check(gate_reaches(&b.entered, 1, LONG_MS));
  /* four leases long: pushes, callbacks and the other consumer go on all the while */
  for (until = now_ms() + 4000; now_ms() < until; n++) {
    queen_future_t *future = queen_push(client, fast, "p", "[{\"payload\":1}]", Z, NULL);
    check_code(queen_future_on_complete(future, on_done, &called, NULL), QUEEN_OK);
    wait_ok(future);
    check(gate_reaches(&called, n + 1, LONG_MS));
    check(gate_reaches(&counted, n + 1, LONG_MS));
    /* the lease is renewed, so the blocked message goes to nobody else */
    check(pop(client, slow, NULL, "{\"wait\":true,\"pollTimeoutMillis\":200}") == NULL);
  }
  check_code(gate_get(&b.entered), 1);
  gate_add(&b.go, 1);
  check(gate_reaches(&b.left, 1, LONG_MS));
  consumer_end(blocked);
  consumer_end(busy);
  for (i = 0; i < 2; i++) expect_empty(client, i ? slow : fast);
  client_end(client);
}

/* ---- a handler that calls back ---- */

typedef struct inside_t {
  const queen_client_t *client;
  const queen_consumer_t *consumer;
  gate_t ready; /* the consumer is known */
  const char *other;
  gate_t good, done;
  int line;
} inside_t;

static int call_back(inside_t *in, queen_delivery_t *delivery) {
  queen_future_t *future = queen_push(in->client, in->other, "p", "[{\"payload\":{\"n\":9}}]", Z, NULL);
  queen_delivery_t *popped;
  int64_t start = now_ms();
  if (!gate_reaches(&in->ready, 1, LONG_MS)) return __LINE__;
  if (queen_future_wait(future, LONG_MS) != QUEEN_OK || queen_future_error(future) != NULL) return __LINE__;
  queen_future_free(future);
  future = queen_flush(in->client, NULL);
  if (queen_future_wait(future, LONG_MS) != QUEEN_OK || queen_future_error(future) != NULL) return __LINE__;
  queen_future_free(future);
  future = queen_pop(in->client, in->other, "p", POLL_10S);
  if (queen_future_wait(future, LONG_MS) != QUEEN_OK || queen_future_error(future) != NULL) return __LINE__;
  popped = queen_future_take_delivery(future);
  queen_future_free(future);
  if (popped == NULL || number_at(popped, 0) != 9) return __LINE__;
  future = queen_delivery_ack(popped);
  queen_delivery_free(popped);
  if (queen_future_wait(future, LONG_MS) != QUEEN_OK || queen_future_error(future) != NULL) return __LINE__;
  queen_future_free(future);
  /* its own delivery: the explicit verdict counts, the return value no longer does */
  future = queen_delivery_ack(delivery);
  if (queen_future_wait(future, LONG_MS) != QUEEN_OK || queen_future_error(future) != NULL) return __LINE__;
  queen_future_free(future);
  /* what would wait for this very handler is told so at once */
  future = queen_consumer_stop(in->consumer, LONG_MS);
  if (queen_future_wait(future, LONG_MS) != QUEEN_E_WOULD_DEADLOCK) return __LINE__;
  queen_future_free(future);
  future = queen_consumer_future(in->consumer);
  if (queen_future_wait(future, LONG_MS) != QUEEN_E_WOULD_DEADLOCK) return __LINE__;
  queen_future_free(future);
  future = queen_client_close(in->client, LONG_MS);
  if (queen_future_wait(future, LONG_MS) != QUEEN_E_WOULD_DEADLOCK) return __LINE__;
  queen_future_free(future);
  {
    int32_t code = queen_shutdown(LONG_MS);
    if (code != QUEEN_E_WOULD_DEADLOCK && code != QUEEN_E_BUSY) return __LINE__;
  }
  return now_ms() - start < 2 * LONG_MS ? 0 : __LINE__;
}

static int32_t calls_back(queen_delivery_t *delivery, void *user_data) {
  inside_t *in = (inside_t *)user_data;
  in->line = call_back(in, delivery);
  gate_add(&in->done, 1);
  return QUEEN_NACK;
}

TEST(handler_calls_back_into_the_library) {
  queen_client_t *client = client_new();
  const char *queue = queue_new(client, NULL);
  inside_t in = {client, NULL, GATE_INIT, NULL, GATE_INIT, GATE_INIT, 0};
  queen_consumer_t *consumer;
  in.other = queue_new(client, NULL);
  push_n(client, queue, "p", 0, 1);
  consumer = consume(client, queue, NULL, calls_back, &in);
  in.consumer = consumer;
  gate_add(&in.ready, 1);
  check(gate_reaches(&in.done, 1, LONG_MS));
  if (in.line != 0) fail_msg("the handler gave up at line %d", in.line);
  /* the stop and close it asked for go on by themselves */
  wait_ok(queen_consumer_future(consumer));
  queen_consumer_free(consumer);
  wait_ok(queen_client_close(client, LONG_MS));
  queen_client_free(client);
}

/* the dispatcher may wait for anything but the close of its own client */
static void closes_inside(const queen_future_t *future, void *user_data) {
  inside_t *in = (inside_t *)user_data;
  queen_future_t *close = queen_client_close(in->client, LONG_MS);
  (void)future;
  if (queen_future_wait(close, LONG_MS) != QUEEN_E_WOULD_DEADLOCK) in->line = __LINE__;
  queen_future_free(close);
  gate_add(&in->done, 1);
}

TEST(callback_waiting_for_its_close_would_deadlock) {
  queen_client_t *client = client_new();
  inside_t in = {client, NULL, GATE_INIT, NULL, GATE_INIT, GATE_INIT, 0};
  queen_future_t *future = queen_call(client, "health", NULL, 0);
  check_code(queen_future_on_complete(future, closes_inside, &in, NULL), QUEEN_OK);
  check(gate_reaches(&in.done, 1, LONG_MS));
  check_code(in.line, 0);
  queen_future_free(future);
  client_end(client);
}

/* ---- DEFER ---- */

typedef struct defer_t {
  gate_t given, settled;
  queen_delivery_t *delivery;
  const char *nack; /* NULL: ack */
  int wait_inside;  /* the handler returns only after the other thread is done with the handle */
} defer_t;

static int32_t defers(queen_delivery_t *delivery, void *user_data) {
  defer_t *d = (defer_t *)user_data;
  d->delivery = delivery;
  gate_add(&d->given, 1);
  if (d->wait_inside) gate_reaches(&d->settled, 1, LONG_MS);
  return QUEEN_DEFER;
}

TEST(deferred_is_settled_and_freed_before_the_handler_returned) {
  queen_client_t *client = client_new();
  const char *queue = queue_new(client, NULL);
  int i;
  for (i = 0; i < 30; i++) {
    defer_t d = {GATE_INIT, GATE_INIT, NULL, NULL, 1};
    queen_consumer_t *consumer;
    push_n(client, queue, "p", i, 1);
    consumer = consume(client, queue, "\"limit\":1", defers, &d);
    check(gate_reaches(&d.given, 1, LONG_MS));
    check_code(number_at(d.delivery, 0), i);
    if (i % 2) {
      wait_ok(queen_delivery_ack(d.delivery));
      queen_delivery_free(d.delivery);
    } else {
      queen_future_t *future = queen_delivery_ack(d.delivery);
      queen_delivery_free(d.delivery);
      wait_ok(future);
    }
    gate_add(&d.settled, 1);
    wait_json_has(queen_consumer_future(consumer), "\"acked\":1");
    queen_consumer_free(consumer);
  }
  expect_empty(client, queue);
  client_end(client);
}

/* deferred counts as running: the next message of the partition waits for its verdict, stop too */
TEST(deferred_counts_as_running) {
  queen_client_t *client = client_new();
  const char *queue = queue_new(client, NULL);
  defer_t d = {GATE_INIT, GATE_INIT, NULL, NULL, 0};
  queen_consumer_t *consumer;
  queen_delivery_t *first;
  queen_future_t *stop;
  push_n(client, queue, "p", 0, 2);
  consumer = consume(client, queue, NULL, defers, &d);
  check(gate_reaches(&d.given, 1, LONG_MS));
  check(!gate_reaches(&d.given, 2, 500));
  first = d.delivery; /* the next comes as soon as it is acked */
  wait_ok(queen_delivery_ack(first));
  queen_delivery_free(first);
  check(gate_reaches(&d.given, 2, LONG_MS));
  check_code(number_at(d.delivery, 0), 1);
  stop = queen_consumer_stop(consumer, LONG_MS);
  check_code(queen_future_wait(stop, 300), QUEEN_E_TIMEOUT);
  wait_ok(queen_delivery_nack(d.delivery, "later"));
  queen_delivery_free(d.delivery);
  wait_ok(stop);
  queen_consumer_free(consumer);
  client_end(client);
}

/* freed without a verdict: given back */
TEST(deferred_and_freed_comes_again) {
  queen_client_t *client = client_new();
  const char *queue = queue_new(client, "{\"leaseTime\":120,\"retryLimit\":0}");
  defer_t d = {GATE_INIT, GATE_INIT, NULL, NULL, 0};
  queen_consumer_t *consumer;
  int i;
  push_n(client, queue, "p", 0, 1);
  consumer = consume(client, queue, NULL, defers, &d);
  for (i = 1; i <= 3; i++) {
    check(gate_reaches(&d.given, i, LONG_MS));
    check_code(number_at(d.delivery, 0), 0);
    if (i < 3) queen_delivery_free(d.delivery);
  }
  wait_ok(queen_delivery_ack(d.delivery));
  queen_delivery_free(d.delivery);
  consumer_end(consumer);
  expect_empty(client, queue);
  client_end(client);
}

/* after max_handling_seconds its lease is renewed no longer and it is lost */
TEST(deferred_for_too_long_is_lost) {
  queen_client_t *client = client_new();
  const char *queue = queue_new(client, NULL);
  defer_t d = {GATE_INIT, GATE_INIT, NULL, NULL, 0};
  queen_consumer_t *consumer;
  queen_delivery_t *kept;
  push_n(client, queue, "p", 0, 1);
  consumer = consume(client, queue, "\"leaseSeconds\":1,\"maxHandlingSeconds\":1", defers, &d);
  check(gate_reaches(&d.given, 1, LONG_MS));
  kept = d.delivery;
  check_code(queen_delivery_is_lost(kept), 0);
  check(gate_reaches(&d.given, 2, LONG_MS)); /* it came again */
  check_code(queen_delivery_is_lost(kept), 1);
  wait_code(queen_delivery_ack(kept), QUEEN_E_LEASE_LOST);
  queen_delivery_free(kept);
  wait_ok(queen_delivery_ack(d.delivery));
  queen_delivery_free(d.delivery);
  consumer_end(consumer);
  expect_empty(client, queue);
  client_end(client);
}

/* in part by hand, the rest by the handler's return value */
static int32_t settles_one(queen_delivery_t *delivery, void *user_data) {
  if (gate_add((gate_t *)user_data, 1) == 1) {
    queen_future_free(queen_delivery_settle(delivery, "[{\"index\":0,\"status\":\"completed\"}]", Z));
    return QUEEN_NACK; /* counts for the second alone */
  }
  return number_at(delivery, 0) == 1 ? QUEEN_ACK : QUEEN_NACK;
}

TEST(return_value_counts_for_the_rest) {
  queen_client_t *client = client_new();
  const char *queue = queue_new(client, "{\"leaseTime\":120,\"retryLimit\":5}");
  gate_t calls = GATE_INIT;
  queen_consumer_t *consumer;
  push_n(client, queue, "p", 0, 2);
  consumer = consume(client, queue, "\"batch\":2", settles_one, &calls);
  check(gate_reaches(&calls, 2, LONG_MS));
  consumer_end(consumer);
  check_code(gate_get(&calls), 2); /* a wrong first message would have been nacked and come a third time */
  expect_empty(client, queue);
  client_end(client);
}

TESTS(cmocka_unit_test(blocking_handler_stops_nothing_else), cmocka_unit_test(handler_calls_back_into_the_library),
      cmocka_unit_test(callback_waiting_for_its_close_would_deadlock),
      cmocka_unit_test(deferred_is_settled_and_freed_before_the_handler_returned), cmocka_unit_test(deferred_counts_as_running),
      cmocka_unit_test(deferred_and_freed_comes_again), cmocka_unit_test(deferred_for_too_long_is_lost),
      cmocka_unit_test(return_value_counts_for_the_rest))
