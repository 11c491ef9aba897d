/* brokers: all. Handles freed in every order, futures forgotten by the thousand. */
#include "harness.h"

enum { CLIENT, FUTURE, CONSUMER, QUEUE, DELIVERY, KINDS };

static int32_t ack(queen_delivery_t *delivery, void *user_data) {
  (void)delivery;
  (void)user_data;
  return QUEEN_ACK;
}

/* one client with all that hangs on it; freed in the given order, without close */
static void walk(const int *order, const char *queue, int by_callback) {
  queen_client_t *client = client_new();
  queen_event_queue_t *events = queen_event_queue_new();
  queen_future_t *future, *routed;
  queen_consumer_t *consumer;
  queen_delivery_t *delivery;
  gate_t frees = GATE_INIT;
  queen_event_t event;
  int i;
  /* a partition of its own: what an abrupt end could not give back must not hold up the next round */
  push_n(client, queue, unique("partition"), 1, 1);
  consumer = consume_into(client, queue, NULL, events, 1);
  poll_event(events, &event);
  delivery = queen_event_take_delivery(&event);
  check(delivery != NULL);
  queen_events_free(&event, 1);
  if (by_callback) {
    queen_consumer_free(consumer);
    consumer = consume_at(client, queue, "\"partition\":\"none\"", ack, &frees, gate_bump, __FILE__, __LINE__);
  }
  future = queen_pop(client, queue, "none", POLL_30S); /* stays unfinished */
  routed = queen_pop(client, queue, "none", POLL_30S);
  check_code(queen_future_deliver(routed, events, 2), QUEEN_OK);
  queen_future_free(routed);
  for (i = 0; i < KINDS; i++) {
    switch (order[i]) {
      case CLIENT: queen_client_free(client); break;
      case FUTURE: queen_future_free(future); break;
      case CONSUMER: queen_consumer_free(consumer); break;
      case QUEUE: queen_event_queue_free(events); break;
      default: queen_delivery_free(delivery);
    }
  }
  if (by_callback) check(gate_reaches(&frees, 1, LONG_MS));
}

static int permute(int *order, int from, const char *queue) {
  int i, n = 0;
  if (from == KINDS) {
    walk(order, queue, 0);
    return 1;
  }
  for (i = from; i < KINDS; i++) {
    int swap = order[from];
    order[from] = order[i];
    order[i] = swap;
    n += permute(order, from + 1, queue);
    swap = order[from];
    order[from] = order[i];
    order[i] = swap;
  }
  return n;
}

TEST(handles_are_freed_in_every_order) {
  int order[KINDS] = {CLIENT, FUTURE, CONSUMER, QUEUE, DELIVERY};
  queen_client_t *client = client_new();
  const char *queue = queue_new(client, "{\"leaseTime\":5}");
  client_end(client);
  check_code(permute(order, 0, queue), 120);
  check_code(queen_shutdown(LONG_MS), QUEEN_OK); /* nothing is left behind that lives */
}

TEST(handles_of_a_callback_consumer_too) {
  static const int orders[][KINDS] = {{CLIENT, FUTURE, CONSUMER, QUEUE, DELIVERY},
                                      {DELIVERY, QUEUE, CONSUMER, FUTURE, CLIENT},
                                      {CONSUMER, CLIENT, DELIVERY, FUTURE, QUEUE},
                                      {QUEUE, DELIVERY, CLIENT, CONSUMER, FUTURE}};
  queen_client_t *client = client_new();
  const char *queue = queue_new(client, "{\"leaseTime\":5}");
  size_t i;
  client_end(client);
  for (i = 0; i < LEN(orders); i++) walk(orders[i], queue, 1);
  check_code(queen_shutdown(LONG_MS), QUEEN_OK);
}

/* handles work on when the client's own handle has gone: each keeps alive what it needs, to read */
TEST(what_was_answered_stays_readable_after_the_client) {
  queen_client_t *client = client_new();
  const char *queue = queue_new(client, NULL);
  queen_future_t *push;
  queen_delivery_t *delivery;
  int32_t code;
  push = queen_push(client, queue, "p", "[{\"payload\":{\"n\":3}}]", Z, NULL);
  check_code(queen_future_wait(push, LONG_MS), QUEEN_OK);
  delivery = pop(client, queue, NULL, POLL_10S);
  queen_client_free(client);
  check_json(queen_future_json(push, NULL), "\"queued\"");
  check_code(number_at(delivery, 0), 3);
  code = code_of(queen_delivery_ack(delivery)); /* a verdict after the end completes, one way or the other */
  check(code == QUEEN_OK || code == QUEEN_E_CLOSED);
  queen_future_free(push);
  queen_delivery_free(delivery);
}

#define MANY 10000

static int64_t push_many_and_forget(const queen_client_t *client, const char *queue) {
  int64_t accepted = 0;
  int i;
  for (i = 0; i < MANY; i++) {
    queen_future_t *future = queen_push(client, queue, "p", "[{\"payload\":1}]", Z, NULL);
    /* a refusal is there at once: beyond the bound the future has failed already */
    if (queen_future_wait(future, 0) == QUEEN_OK && queen_future_error(future) != NULL)
      check_code(queen_error_code(queen_future_error(future)), QUEEN_E_WOULD_BLOCK);
    else
      accepted++;
    queen_future_free(future);
  }
  return accepted;
}

static int64_t drain(queen_client_t *client, const char *queue) {
  int64_t n = 0;
  queen_delivery_t *delivery;
  while ((delivery = pop(client, queue, "p", "{\"wait\":false,\"batch\":2000}")) != NULL) {
    n += (int64_t)queen_delivery_count(delivery);
    wait_ok(queen_delivery_ack(delivery));
    queen_delivery_free(delivery);
  }
  return n;
}

TEST(ten_thousand_futures_freed_unfinished_are_stored) {
  char config[256];
  queen_client_t *client;
  const char *queue;
  int64_t accepted;
  snprintf(config, sizeof config, "{\"url\":\"%s\",\"maxPendingMessages\":%d}", test_url(), 2 * MANY);
  client = client_at(config);
  queue = queue_new(client, NULL);
  check_code(push_many_and_forget(client, queue), MANY); /* within the bound nothing is refused */
  wait_ok(queen_flush(client, NULL));
  check_code(drain(client, queue), MANY);
  client_end(client);
  /* with a small bound some are refused, and exactly the others are stored */
  snprintf(config, sizeof config, "{\"url\":\"%s\",\"maxPendingMessages\":50}", test_url());
  client = client_at(config);
  queue = queue_new(client, NULL);
  accepted = push_many_and_forget(client, queue);
  check(accepted >= 50);
  wait_ok(queen_client_ready(client));
  wait_ok(queen_flush(client, NULL));
  check_code(drain(client, queue), accepted);
  client_end(client);
}

TEST(thousands_of_pops_freed_unfinished_take_nothing) {
  queen_client_t *client = client_new();
  const char *queue = queue_new(client, NULL);
  queen_delivery_t *delivery;
  int i;
  for (i = 0; i < 300; i++) {
    queen_future_t *future = queen_pop(client, queue, NULL, POLL_30S);
    if (i % 2) queen_future_cancel(future);
    queen_future_free(future);
  }
  /* the forgotten half runs on and is given what comes, but hands it back */
  push_n(client, queue, "p", 5, 1);
  delivery = NULL;
  for (i = 0; i < 5 && delivery == NULL; i++) delivery = pop(client, queue, NULL, POLL_30S);
  check_code(number_at(delivery, 0), 5);
  wait_ok(queen_delivery_ack(delivery));
  queen_delivery_free(delivery);
  client_end(client);
}

TESTS(cmocka_unit_test(handles_are_freed_in_every_order), cmocka_unit_test(handles_of_a_callback_consumer_too),
      cmocka_unit_test(what_was_answered_stays_readable_after_the_client),
      cmocka_unit_test(ten_thousand_futures_freed_unfinished_are_stored),
      cmocka_unit_test(thousands_of_pops_freed_unfinished_take_nothing))
