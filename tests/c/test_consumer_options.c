/* brokers: all. Options of consumers: one message at a time, limits over all workers, at most once. */
#include "harness.h"

typedef struct seen_t {
  gate_t calls;
  int numbers[64]; /* the first number of each delivery, under calls.mutex */
  int sizes[64];
} seen_t;
static const seen_t nothing_seen = {GATE_INIT, {0}, {0}};

/* notes what came and tells how many came before it */
static int64_t note(seen_t *seen, const queen_delivery_t *delivery) {
  int64_t call;
  pthread_mutex_lock(&seen->calls.mutex);
  call = seen->calls.n++;
  if (call < (int64_t)LEN(seen->numbers)) {
    seen->numbers[call] = number_at(delivery, 0);
    seen->sizes[call] = (int)queen_delivery_count(delivery);
  }
  pthread_cond_broadcast(&seen->calls.changed);
  pthread_mutex_unlock(&seen->calls.mutex);
  return call;
}

static int32_t ack_all(queen_delivery_t *delivery, void *user_data) {
  note((seen_t *)user_data, delivery);
  return QUEEN_ACK;
}

/* the second message fails at first, with a reason */
static int32_t nack_second(queen_delivery_t *delivery, void *user_data) {
  if (note((seen_t *)user_data, delivery) == 1) queen_future_free(queen_delivery_nack(delivery, "torn apart"));
  return QUEEN_ACK;
}

static char *ended(queen_consumer_t *consumer) {
  char *summary = wait_json(queen_consumer_future(consumer));
  queen_consumer_free(consumer);
  return summary;
}

/* acks `wanted` messages, which must be free long before any lease ends, and sees that no more are there */
static void holds(queen_client_t *client, const char *queue, size_t wanted) {
  size_t found = 0;
  while (found < wanted) {
    queen_delivery_t *delivery = pop(client, queue, NULL, "{\"wait\":true,\"batch\":100,\"pollTimeoutMillis\":20000}");
    check(delivery != NULL);
    found += queen_delivery_count(delivery);
    wait_ok(queen_delivery_ack(delivery));
    queen_delivery_free(delivery);
  }
  check_code((int64_t)found, (int64_t)wanted);
  check(pop(client, queue, NULL, NO_WAIT) == NULL);
}

TEST(q19_c6_x40_c20_each_message_alone_and_none_behind_a_nack) {
  static const int wanted[] = {0, 1, 1, 2, 3};
  queen_client_t *client = client_new();
  const char *queue = queue_new(client, "{\"leaseTime\":120,\"retryLimit\":3}");
  seen_t seen = nothing_seen;
  char *summary;
  size_t i;
  push_n(client, queue, "p", 0, 4);
  summary = ended(consume(client, queue, "\"each\":true,\"batch\":10,\"limit\":5", nack_second, &seen));
  check_json(summary, "\"messages\":5");
  check_json(summary, "\"acked\":4");
  check_json(summary, "\"nacked\":1");
  for (i = 0; i < LEN(wanted); i++) {
    check_code(seen.numbers[i], wanted[i]);
    check_code(seen.sizes[i], 1);
  }
  holds(client, queue, 0);
  free(summary);
  client_end(client);
}

TEST(a_reason_is_on_the_dead_letter) {
  queen_client_t *client = client_new();
  const char *queue = queue_new(client, "{\"leaseTime\":120,\"retryLimit\":0}");
  seen_t seen = nothing_seen;
  char params[256];
  push_n(client, queue, "p", 0, 2);
  free(ended(consume(client, queue, "\"each\":true,\"batch\":2,\"limit\":2", nack_second, &seen)));
  snprintf(params, sizeof params, "{\"queue\":\"%s\"}", queue);
  wait_json_has(queen_call(client, "dlq.list", params, Z), "\"errorMessage\":\"tornapart\"");
  client_end(client);
}

TEST(x39_c10_c37_limit_total_is_exact_and_leaves_nothing_leased) {
  queen_client_t *client = client_new();
  const char *queue = queue_new(client, "{\"leaseTime\":600}");
  seen_t seen = nothing_seen;
  char *summary;
  int i;
  for (i = 0; i < 5; i++) {
    char partition[16];
    snprintf(partition, sizeof partition, "p%d", i);
    push_n(client, queue, partition, i * 10, 4);
  }
  summary = ended(consume(client, queue, "\"limitTotal\":7,\"concurrency\":4,\"batch\":3,\"leaseSeconds\":600", ack_all, &seen));
  check_json(summary, "\"reason\":\"limit\"");
  check_json(summary, "\"messages\":7");
  check_json(summary, "\"acked\":7");
  holds(client, queue, 13);
  free(summary);
  client_end(client);
}

/* the broker acks when it hands out: nothing to settle, nothing comes again */
static int32_t at_most_once(queen_delivery_t *delivery, void *user_data) {
  queen_message_view_t view;
  note((seen_t *)user_data, delivery);
  memset(&view, 0, sizeof view);
  queen_delivery_view(delivery, &view, sizeof view, 0, 1);
  if (view.lease_id_len != 0 || queen_delivery_is_lost(delivery) != 0) return 77;
  if (code_of(queen_delivery_ack(delivery)) != QUEEN_E_ALREADY_SETTLED) return 78;
  return QUEEN_NACK;
}

TEST(x30_c3_commit_on_delivery_is_at_most_once) {
  queen_client_t *client = client_new();
  const char *queue = queue_new(client, "{\"leaseTime\":600}");
  seen_t seen = nothing_seen;
  char *summary;
  push_n(client, queue, "p", 0, 5);
  summary = ended(consume(client, queue, "\"commitOnDelivery\":true,\"batch\":2,\"limitTotal\":4", at_most_once, &seen));
  check_json(summary, "\"acked\":4");
  check_json(summary, "\"nacked\":0");
  check_json(summary, "\"unsettled\":0");
  check_code(seen.numbers[1], 2);
  holds(client, queue, 1);
  free(summary);
  client_end(client);
}

/* side by side as events: up to `concurrency` at once, verdicts in any order, sent in order */
TEST(messages_of_a_batch_side_by_side) {
  queen_client_t *client = client_new();
  const char *queue = queue_new(client, "{\"leaseTime\":600}");
  queen_event_queue_t *events = queen_event_queue_new();
  queen_delivery_t *deliveries[3];
  queen_future_t *last;
  queen_consumer_t *consumer;
  queen_event_t event;
  int i;
  push_n(client, queue, "p", 0, 3);
  consumer = consume_into(client, queue, "\"each\":true,\"ordered\":false,\"batch\":3,\"concurrency\":3,\"limitTotal\":3", events, 1);
  for (i = 0; i < 3; i++) {
    poll_event(events, &event);
    check_code(event.type, QUEEN_EVENT_DELIVERY);
    deliveries[i] = queen_event_take_delivery(&event);
    queen_events_free(&event, 1);
    check_code((int64_t)queen_delivery_count(deliveries[i]), 1);
    check_code(number_at(deliveries[i], 0), i);
    check_code(count_of(queen_delivery_json(deliveries[i], NULL), "transactionId"), 1); /* of its message alone */
  }
  last = queen_delivery_ack(deliveries[2]);
  wait_code(queen_delivery_settle(deliveries[1], "[{\"index\":1,\"status\":\"completed\"}]", Z), QUEEN_E_INVALID_ARGUMENT);
  queen_future_free(queen_delivery_settle(deliveries[1], "[{\"index\":0,\"status\":\"completed\"}]", Z));
  check_code(queen_future_wait(last, 300), QUEEN_E_TIMEOUT); /* held until the first has its verdict */
  wait_ok(queen_delivery_ack(deliveries[0]));
  wait_ok(last);
  for (i = 0; i < 3; i++) queen_delivery_free(deliveries[i]);
  free(ended(consumer));
  holds(client, queue, 0);
  queen_event_queue_free(events);
  client_end(client);
}

TEST(options_that_cannot_be_are_named) {
  static const struct {
    const char *options, *says;
  } bad[] = {
      {"{\"queue\":\"q\",\"limitTotal\":0}", "limitTotal"},
      {"{\"queue\":\"q\",\"ordered\":false}", "each"},
      {"{\"queue\":\"q\",\"commitOnDelivery\":true,\"autoAck\":false}", "commitOnDelivery"},
      {"{\"queue\":\"q\",\"limit_total\":3}", "limit_total"},
      {"{\"queue\":\"q\",\"each\":1}", "each"},
  };
  queen_client_t *client = client_new();
  size_t i;
  for (i = 0; i < LEN(bad); i++) {
    queen_error_t *error = NULL;
    check(queen_consume(client, bad[i].options, Z, ack_all, NULL, NULL, &error) == NULL);
    check(error != NULL);
    check(strstr(queen_error_message(error), bad[i].says) != NULL);
    queen_error_free(error);
  }
  client_end(client);
}

TESTS(cmocka_unit_test(q19_c6_x40_c20_each_message_alone_and_none_behind_a_nack),
      cmocka_unit_test(a_reason_is_on_the_dead_letter),
      cmocka_unit_test(x39_c10_c37_limit_total_is_exact_and_leaves_nothing_leased),
      cmocka_unit_test(x30_c3_commit_on_delivery_is_at_most_once), cmocka_unit_test(messages_of_a_batch_side_by_side),
      cmocka_unit_test(options_that_cannot_be_are_named))
