/* brokers: all. Each message is settled once, in the order of its partition. */
#include "harness.h"

#define BATCH "{\"wait\":true,\"pollTimeoutMillis\":30000,\"batch\":10}"
#define DONE(i) "{\"index\":" #i ",\"status\":\"completed\"}"
#define FAILED(i) "{\"index\":" #i ",\"status\":\"failed\",\"error\":\"no good\"}"

static queen_delivery_t *batch_of(queen_client_t *client, const char *queue, int count) {
  queen_delivery_t *delivery = pop(client, queue, NULL, BATCH);
  check(delivery != NULL);
  check_code(queen_delivery_count(delivery), count);
  return delivery;
}

static void expect_empty(queen_client_t *client, const char *queue) {
  check(pop(client, queue, NULL, "{\"wait\":true,\"pollTimeoutMillis\":500}") == NULL);
}

TEST(second_verdict_answers_already_settled) {
  queen_client_t *client = client_new();
  const char *queue = queue_new(client, NULL);
  queen_delivery_t *delivery;
  push_n(client, queue, "p", 0, 2);
  delivery = batch_of(client, queue, 2);
  wait_ok(queen_delivery_settle(delivery, "[" DONE(0) "]", Z));
  wait_code(queen_delivery_settle(delivery, "[" FAILED(0) "]", Z), QUEEN_E_ALREADY_SETTLED);
  wait_ok(queen_delivery_settle(delivery, "[" DONE(1) "]", Z));
  wait_code(queen_delivery_ack(delivery), QUEEN_E_ALREADY_SETTLED);
  wait_code(queen_delivery_nack(delivery, NULL), QUEEN_E_ALREADY_SETTLED);
  wait_code(queen_delivery_settle(delivery, "[" DONE(0) "," DONE(1) "]", Z), QUEEN_E_ALREADY_SETTLED);
  queen_delivery_free(delivery);
  expect_empty(client, queue); /* the late nacks have changed nothing */
  client_end(client);
}

/* a later verdict waits for the earlier ones: the broker's ack is a cursor */
TEST(verdicts_out_of_order_are_held_back) {
  queen_client_t *client = client_new();
  const char *queue = queue_new(client, NULL);
  queen_delivery_t *delivery;
  queen_future_t *third, *first;
  push_n(client, queue, "p", 0, 3);
  delivery = batch_of(client, queue, 3);
  third = queen_delivery_settle(delivery, "[" DONE(2) "]", Z);
  check_code(queen_future_wait(third, 300), QUEEN_E_TIMEOUT);
  first = queen_delivery_settle(delivery, "[" DONE(0) "]", Z);
  wait_ok(first);
  check_code(queen_future_wait(third, 300), QUEEN_E_TIMEOUT);
  wait_code(queen_delivery_settle(delivery, "[" DONE(2) "]", Z), QUEEN_E_ALREADY_SETTLED); /* given, though held */
  wait_ok(queen_delivery_settle(delivery, "[" DONE(1) "]", Z));
  wait_ok(third);
  queen_delivery_free(delivery);
  expect_empty(client, queue);
  client_end(client);
}

/* held-back verdicts are not lost verdicts: a nack of the second waits for the first as well */
TEST(nack_is_held_back_too) {
  queen_client_t *client = client_new();
  const char *queue = queue_new(client, NULL);
  queen_delivery_t *delivery;
  queen_future_t *nack;
  push_n(client, queue, "p", 0, 2);
  delivery = batch_of(client, queue, 2);
  nack = queen_delivery_settle(delivery, "[" FAILED(1) "]", Z);
  check_code(queen_future_wait(nack, 300), QUEEN_E_TIMEOUT);
  wait_ok(queen_delivery_settle(delivery, "[" DONE(0) "]", Z));
  wait_ok(nack);
  queen_delivery_free(delivery);
  delivery = batch_of(client, queue, 1);
  check_code(number_at(delivery, 0), 1);
  wait_ok(queen_delivery_ack(delivery));
  queen_delivery_free(delivery);
  client_end(client);
}

TEST(what_lies_behind_a_nack_is_lost_and_comes_again) {
  queen_client_t *client = client_new();
  const char *queue = queue_new(client, NULL);
  queen_delivery_t *delivery;
  push_n(client, queue, "p", 0, 4);
  delivery = batch_of(client, queue, 4);
  check_code(queen_delivery_is_lost(delivery), 0);
  wait_ok(queen_delivery_settle(delivery, "[" DONE(0) "," FAILED(1) "]", Z));
  check_code(queen_delivery_is_lost(delivery), 1);
  wait_code(queen_delivery_settle(delivery, "[" DONE(2) "]", Z), QUEEN_E_LEASE_LOST);
  wait_code(queen_delivery_settle(delivery, "[" FAILED(3) "]", Z), QUEEN_E_LEASE_LOST);
  queen_delivery_free(delivery);
  delivery = batch_of(client, queue, 3);
  check_code(number_at(delivery, 0), 1);
  check_code(number_at(delivery, 2), 3);
  wait_ok(queen_delivery_ack(delivery));
  queen_delivery_free(delivery);
  client_end(client);
}

/* in one call: one entry per item, in the caller's order, and an error for what was not done */
TEST(verdict_list_with_a_nack_inside_is_partial) {
  queen_client_t *client = client_new();
  const char *queue = queue_new(client, NULL);
  queen_delivery_t *delivery;
  queen_future_t *future;
  int32_t code;
  push_n(client, queue, "p", 0, 3);
  delivery = batch_of(client, queue, 3);
  future = queen_delivery_settle(delivery, "[" DONE(2) "," FAILED(1) "," DONE(0) "]", Z);
  check_code(queen_future_wait(future, LONG_MS), QUEEN_OK);
  code = queen_error_code(queen_future_error(future));
  check(code == QUEEN_E_PARTIAL || code == QUEEN_E_LEASE_LOST);
  {
    const char *json = queen_future_json(future, NULL);
    check(json != NULL && json[0] == '[');
    check_code(count_of(json, "\"success\""), 3);
    /* the one behind the nack was named first, and it alone does not count */
    check_json(json, "\"success\":false");
    check(strstr(json, "false") < strstr(json, "\"success\":true"));
    check_code(count_of(json, "\"success\":true"), 2);
  }
  queen_future_free(future);
  queen_delivery_free(delivery);
  delivery = batch_of(client, queue, 2);
  check_code(number_at(delivery, 0), 1);
  wait_ok(queen_delivery_ack(delivery));
  queen_delivery_free(delivery);
  client_end(client);
}

TEST(nack_counts_retries_and_ends_in_the_dead_letter) {
  queen_client_t *client = client_new();
  const char *queue = queue_new(client, "{\"leaseTime\":120,\"retryLimit\":2}");
  queen_delivery_t *delivery;
  int i;
  push_n(client, queue, "p", 0, 1);
  for (i = 0; i < 3; i++) {
    delivery = batch_of(client, queue, 1);
    wait_ok(queen_delivery_nack(delivery, i == 1 ? NULL : "no good"));
    queen_delivery_free(delivery);
  }
  expect_empty(client, queue);
  client_end(client);
}

TEST(retry_gives_back_and_dlq_buries) {
  queen_client_t *client = client_new();
  const char *queue = queue_new(client, "{\"leaseTime\":120,\"retryLimit\":0}");
  queen_delivery_t *delivery;
  int i;
  push_n(client, queue, "p", 0, 2);
  for (i = 0; i < 3; i++) { /* no charge, although the limit is 0 */
    delivery = batch_of(client, queue, 2);
    wait_ok(queen_delivery_settle(delivery, "[{\"index\":0,\"status\":\"retry\"}]", Z));
    queen_delivery_free(delivery);
  }
  delivery = batch_of(client, queue, 2);
  wait_ok(queen_delivery_settle(delivery, "[{\"index\":0,\"status\":\"dlq\",\"error\":\"poison\"}]", Z));
  queen_delivery_free(delivery);
  delivery = batch_of(client, queue, 1);
  check_code(number_at(delivery, 0), 1);
  wait_ok(queen_delivery_ack(delivery));
  queen_delivery_free(delivery);
  expect_empty(client, queue);
  client_end(client);
}

/* an ack of k finishes everything before it only because those have verdicts: across two partitions
 * nothing waits for the other */
TEST(partitions_settle_independently) {
  queen_client_t *client = client_new();
  const char *queue = queue_new(client, NULL);
  queen_delivery_t *a, *b;
  push_n(client, queue, "a", 0, 1);
  push_n(client, queue, "b", 1, 1);
  a = pop(client, queue, "a", BATCH);
  b = pop(client, queue, "b", BATCH);
  check(a != NULL && b != NULL);
  wait_ok(queen_delivery_ack(b));
  wait_ok(queen_delivery_ack(a));
  queen_delivery_free(a);
  queen_delivery_free(b);
  client_end(client);
}

/* a pop that asks for renewal keeps its lease until it is settled */
TEST(popped_delivery_is_renewed_until_settled) {
  queen_client_t *client = client_new();
  const char *queue = queue_new(client, "{\"leaseTime\":60,\"retryLimit\":3}");
  queen_delivery_t *delivery, *other;
  push_n(client, queue, "p", 0, 1);
  delivery = pop(client, queue, NULL, "{\"wait\":true,\"pollTimeoutMillis\":10000,\"leaseSeconds\":1,\"renewLease\":true}");
  check(delivery != NULL);
  other = pop(client, queue, NULL, "{\"wait\":true,\"pollTimeoutMillis\":3000}"); /* three leases long */
  check(other == NULL);
  check_code(queen_delivery_is_lost(delivery), 0);
  wait_ok(queen_delivery_ack(delivery));
  queen_delivery_free(delivery);
  expect_empty(client, queue);
  client_end(client);
}

static void *settle_one(void *argument) {
  void **arguments = (void **)argument;
  char verdict[64];
  snprintf(verdict, sizeof verdict, "[{\"index\":%d,\"status\":\"completed\"}]", (int)(intptr_t)arguments[1]);
  return queen_delivery_settle((const queen_delivery_t *)arguments[0], verdict, Z);
}

/* verdicts from many threads, in any order: all done, each once */
TEST(many_threads_settle_one_delivery) {
  enum { N = 8 };
  queen_client_t *client = client_new();
  const char *queue = queue_new(client, NULL);
  queen_delivery_t *delivery;
  pthread_t threads[N];
  void *arguments[N][2];
  int i;
  push_n(client, queue, "p", 0, N);
  delivery = batch_of(client, queue, N);
  for (i = 0; i < N; i++) {
    arguments[i][0] = delivery;
    arguments[i][1] = (void *)(intptr_t)(N - 1 - i);
    pthread_create(&threads[i], NULL, settle_one, arguments[i]);
  }
  for (i = 0; i < N; i++) {
    void *future;
    pthread_join(threads[i], &future);
    arguments[i][0] = future;
  }
  for (i = 0; i < N; i++) wait_ok((queen_future_t *)arguments[i][0]);
  queen_delivery_free(delivery);
  expect_empty(client, queue);
  client_end(client);
}

TESTS(cmocka_unit_test(second_verdict_answers_already_settled), cmocka_unit_test(verdicts_out_of_order_are_held_back),
      cmocka_unit_test(nack_is_held_back_too), cmocka_unit_test(what_lies_behind_a_nack_is_lost_and_comes_again),
      cmocka_unit_test(verdict_list_with_a_nack_inside_is_partial),
      cmocka_unit_test(nack_counts_retries_and_ends_in_the_dead_letter), cmocka_unit_test(retry_gives_back_and_dlq_buries),
      cmocka_unit_test(partitions_settle_independently), cmocka_unit_test(popped_delivery_is_renewed_until_settled),
      cmocka_unit_test(many_threads_settle_one_delivery))
