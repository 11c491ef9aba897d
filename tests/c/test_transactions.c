/* brokers: all. Verdicts and pushes together or not at all. */
#include "harness.h"

#define BATCH "{\"wait\":true,\"pollTimeoutMillis\":30000,\"batch\":10}"
#define OUT "[{\"payload\":{\"n\":7}}]"

static queen_delivery_t *batch_of(queen_client_t *client, const char *queue, int count) {
  queen_delivery_t *delivery = pop(client, queue, NULL, BATCH);
  check(delivery != NULL);
  check_code(queen_delivery_count(delivery), count);
  return delivery;
}

static void expect_empty(queen_client_t *client, const char *queue) {
  check(pop(client, queue, NULL, "{\"wait\":true,\"pollTimeoutMillis\":300}") == NULL);
}

static void expect_number(queen_client_t *client, const char *queue, const char *partition, int number) {
  queen_delivery_t *delivery = pop(client, queue, partition, BATCH);
  check(delivery != NULL);
  check_code(number_at(delivery, 0), number);
  wait_ok(queen_delivery_ack(delivery));
  queen_delivery_free(delivery);
}

/* waits for a commit and frees the transaction */
static queen_future_t *commit(queen_transaction_t *transaction) {
  queen_future_t *future = queen_transaction_commit(transaction, NULL);
  queen_transaction_free(transaction); /* the commit runs on */
  check_code(queen_future_wait(future, LONG_MS), QUEEN_OK);
  return future;
}

TEST(t1_a_message_is_acked_and_others_are_pushed) {
  queen_client_t *client = client_new();
  const char *from = queue_new(client, NULL), *to = queue_new(client, NULL);
  queen_delivery_t *delivery;
  queen_transaction_t *transaction = queen_transaction_new(client);
  queen_future_t *future;
  check(transaction != NULL);
  push_n(client, from, "p", 0, 2);
  delivery = batch_of(client, from, 2);
  check_code(queen_transaction_ack(transaction, delivery, 0, NULL), QUEEN_OK);
  check_code(queen_transaction_ack(transaction, delivery, 1, "completed"), QUEEN_OK);
  queen_delivery_free(delivery); /* the transaction keeps what it needs */
  check_code(queen_transaction_push(transaction, to, "a", OUT, Z, NULL), QUEEN_OK);
  check_code(queen_transaction_push(transaction, to, NULL, "{\"data\":{\"n\":7}}", Z, "{\"classicItems\":true}"), QUEEN_OK);
  future = commit(transaction);
  check(queen_future_error(future) == NULL);
  {
    const char *json = queen_future_json(future, NULL);
    check_json(json, "\"results\":[{\"type\":\"ack\"");
    check_code(count_of(json, "\"success\":true"), 2);
    check_code(count_of(json, "\"queued\""), 2);
  }
  queen_future_free(future);
  expect_empty(client, from);
  expect_number(client, to, "a", 7);
  expect_number(client, to, "Default", 7);
  client_end(client);
}

TEST(x100_a_rollback_has_a_reason_and_leaves_the_message_unsettled) {
  queen_client_t *client = client_new();
  const char *from = queue_new(client, NULL), *to = queue_new(client, NULL);
  const char *taken = "[{\"payload\":{\"n\":1},\"transactionId\":\"taken\"}]";
  queen_delivery_t *delivery;
  queen_transaction_t *transaction = queen_transaction_new(client);
  queen_future_t *future;
  const queen_error_t *error;
  push_n(client, from, "p", 0, 1);
  wait_ok(queen_push(client, to, NULL, taken, Z, NULL));
  delivery = batch_of(client, from, 1);
  check_code(queen_transaction_settle(transaction, delivery, "[{\"index\":0,\"status\":\"completed\"}]", Z), QUEEN_OK);
  check_code(queen_transaction_push(transaction, to, NULL, taken, Z, NULL), QUEEN_OK);
  /* meanwhile nobody else settles it */
  wait_code(queen_delivery_ack(delivery), QUEEN_E_ALREADY_SETTLED);
  future = commit(transaction);
  error = queen_future_error(future);
  check_code(queen_error_code(error), QUEEN_E_ROLLED_BACK);
  check_code(queen_error_outcome(error), QUEEN_OUTCOME_REFUSED);
  check_json(queen_error_json(error, NULL), "\"brokerCode\":\"duplicate\"");
  check_json(queen_error_json(error, NULL), "\"transactionIds\":[\"taken\"]");
  check_json(queen_future_json(future, NULL), "\"reason\":\"duplicate\"");
  check_code(count_of(queen_future_json(future, NULL), "\"index\""), 2);
  queen_future_free(future);
  wait_ok(queen_delivery_ack(delivery));
  queen_delivery_free(delivery);
  expect_empty(client, from);
  client_end(client);
}

TEST(an_earlier_message_that_is_unsettled_stops_the_commit) {
  queen_client_t *client = client_new();
  const char *from = queue_new(client, NULL), *to = queue_new(client, NULL);
  queen_delivery_t *delivery;
  queen_transaction_t *transaction = queen_transaction_new(client);
  queen_future_t *future;
  push_n(client, from, "p", 0, 2);
  delivery = batch_of(client, from, 2);
  check_code(queen_transaction_ack(transaction, delivery, 1, NULL), QUEEN_OK);
  check_code(queen_transaction_push(transaction, to, NULL, OUT, Z, NULL), QUEEN_OK);
  future = commit(transaction);
  check_code(queen_error_code(queen_future_error(future)), QUEEN_E_ORDER);
  check_code(queen_error_outcome(queen_future_error(future)), QUEEN_OUTCOME_NOT_APPLIED);
  queen_future_free(future);
  expect_empty(client, to);
  wait_ok(queen_delivery_ack(delivery));
  queen_delivery_free(delivery);
  client_end(client);
}

/* by the ids of a group's messages, which may come from anywhere */
TEST(c21_acks_by_ids_have_a_group_and_a_lease) {
  queen_client_t *client = client_new();
  const char *from = queue_new(client, NULL), *to = queue_new(client, NULL);
  const char *options = "{\"consumerGroup\":\"workers\",\"subscriptionMode\":\"all\"}";
  queen_delivery_t *delivery;
  queen_message_view_t view;
  queen_transaction_t *transaction = queen_transaction_new(client);
  char acks[512];
  queen_future_t *future;
  push_n(client, from, "p", 0, 1);
  delivery = pop(client, from, NULL, options);
  check(delivery != NULL);
  check_code(queen_delivery_view(delivery, &view, sizeof view, 0, 1), 1);
  snprintf(acks, sizeof acks, "[{\"transactionId\":\"%.*s\",\"partitionId\":\"%.*s\",\"leaseId\":\"%.*s\"}]",
           (int)view.transaction_id_len, view.transaction_id, (int)view.partition_id_len, view.partition_id,
           (int)view.lease_id_len, view.lease_id);
  check_code(queen_transaction_ack_ids(transaction, acks, Z, "{\"consumerGroup\":\"workers\"}"), QUEEN_OK);
  check_code(queen_transaction_push(transaction, to, NULL, OUT, Z, NULL), QUEEN_OK);
  future = commit(transaction);
  check(queen_future_error(future) == NULL);
  queen_future_free(future);
  wait_code(queen_delivery_ack(delivery), QUEEN_E_ALREADY_SETTLED); /* it was the live one */
  queen_delivery_free(delivery);
  expect_number(client, to, NULL, 7);
  client_end(client);
}

/* ---- inside a handler ---- */

typedef struct forward_t {
  const queen_client_t *client;
  const char *to;
  int32_t answer;
  gate_t good, bad;
} forward_t;

static int32_t forward(queen_delivery_t *delivery, void *user_data) {
  forward_t *f = (forward_t *)user_data;
  queen_transaction_t *transaction = queen_transaction_new(f->client);
  queen_future_t *future;
  char items[64];
  snprintf(items, sizeof items, "[{\"payload\":{\"n\":%d}}]", number_at(delivery, 0) * 10);
  queen_transaction_ack(transaction, delivery, 0, NULL);
  queen_transaction_push(transaction, f->to, "p", items, Z, NULL);
  future = queen_transaction_commit(transaction, NULL);
  queen_transaction_free(transaction);
  if (queen_future_wait(future, LONG_MS) == QUEEN_OK && queen_future_error(future) == NULL) gate_add(&f->good, 1);
  else gate_add(&f->bad, 1);
  queen_future_free(future);
  return f->answer;
}

static void forwards(int32_t answer) {
  enum { N = 5 };
  queen_client_t *client = client_new();
  const char *from = queue_new(client, NULL);
  forward_t f = {NULL, NULL, 0, GATE_INIT, GATE_INIT};
  queen_consumer_t *consumer;
  int i;
  f.client = client;
  f.to = queue_new(client, NULL);
  f.answer = answer;
  push_n(client, from, "p", 0, N);
  consumer = consume(client, from, NULL, forward, &f);
  check(gate_reaches(&f.good, N, LONG_MS));
  consumer_end(consumer);
  check_code(gate_get(&f.bad), 0);
  expect_empty(client, from); /* settled by the commits, whatever the handler has answered */
  {
    queen_delivery_t *delivery = batch_of(client, f.to, N);
    for (i = 0; i < N; i++) check_code(number_at(delivery, (size_t)i), i * 10);
    wait_ok(queen_delivery_ack(delivery));
    queen_delivery_free(delivery);
  }
  client_end(client);
}

TEST(a_handler_transforms_and_forwards) { forwards(QUEEN_ACK); }
TEST(a_nack_after_the_commit_changes_nothing) { forwards(QUEEN_NACK); }

/* ---- what is wrong is told, and stops the commit ---- */

TEST(t6_wrong_additions_stop_the_commit) {
  queen_client_t *client = client_new();
  const char *queue = queue_new(client, NULL);
  const char *no_partition = "[{\"transactionId\":\"t\",\"leaseId\":\"l\"}]";
  const char *no_lease = "[{\"transactionId\":\"t\",\"partitionId\":\"p\"}]";
  queen_delivery_t *delivery;
  int i;
  push_n(client, queue, "p", 0, 1);
  delivery = batch_of(client, queue, 1);
  for (i = 0; i < 16; i++) {
    queen_transaction_t *t = queen_transaction_new(client);
    int32_t wanted = QUEEN_E_INVALID_ARGUMENT, code = QUEEN_OK;
    queen_future_t *future;
    switch (i) {
      case 0: code = queen_transaction_ack(t, delivery, 1, NULL); break;
      case 1: code = queen_transaction_ack(t, delivery, 0, "done"); break;
      case 2: code = queen_transaction_ack(t, NULL, 0, NULL); break;
      case 3: code = queen_transaction_push(t, NULL, NULL, OUT, Z, NULL); break;
      case 4: code = queen_transaction_push(t, "", NULL, OUT, Z, NULL); break;
      case 5: code = queen_transaction_push(t, queue, NULL, NULL, 3, NULL); break;
      case 6: code = queen_transaction_push(t, queue, NULL, "[]", Z, NULL); break;
      case 7: code = queen_transaction_push(t, queue, NULL, "[", Z, NULL), wanted = QUEEN_E_INVALID_JSON; break;
      case 8: code = queen_transaction_push(t, "\xff", NULL, OUT, Z, NULL), wanted = QUEEN_E_INVALID_UTF8; break;
      case 9: code = queen_transaction_ack_ids(t, no_partition, Z, NULL), wanted = QUEEN_E_INVALID_JSON; break;
      case 10: code = queen_transaction_ack_ids(t, no_lease, Z, NULL); break;
      case 11: code = queen_transaction_ack_ids(t, no_lease, Z, "{\"group\":1}"), wanted = QUEEN_E_INVALID_CONFIG; break;
      case 12: code = queen_transaction_settle(t, delivery, "[{\"index\":0}]", Z), wanted = QUEEN_E_INVALID_JSON; break;
      case 13: code = queen_transaction_settle(t, delivery, NULL, 2); break;
      case 15: code = queen_transaction_push(t, queue, NULL, OUT, Z, "{\"buffer\":true}"), wanted = QUEEN_E_INVALID_CONFIG; break;
      case 14: /* the same message twice */
        check_code(queen_transaction_ack(t, delivery, 0, NULL), QUEEN_OK);
        code = queen_transaction_ack(t, delivery, 0, NULL), wanted = QUEEN_E_ALREADY_SETTLED;
        break;
    }
    check_code(code, wanted);
    check_code(queen_transaction_push(t, queue, NULL, OUT, Z, NULL), wanted); /* it stays so */
    future = commit(t);
    check_code(queen_error_code(queen_future_error(future)), wanted);
    check(*queen_error_message(queen_future_error(future)) != '\0');
    queen_future_free(future);
  }
  wait_ok(queen_delivery_ack(delivery)); /* none of them has kept it */
  queen_delivery_free(delivery);
  expect_empty(client, queue); /* or has pushed anything */
  client_end(client);
}

TEST(t7_a_transaction_is_committed_once_and_not_empty) {
  queen_client_t *client = client_new();
  const char *queue = queue_new(client, NULL);
  queen_transaction_t *transaction = queen_transaction_new(client);
  wait_code(queen_transaction_commit(transaction, NULL), QUEEN_E_INVALID_ARGUMENT);
  wait_code(queen_transaction_commit(transaction, NULL), QUEEN_E_INVALID_STATE);
  queen_transaction_free(transaction);
  transaction = queen_transaction_new(client);
  check_code(queen_transaction_push(transaction, queue, NULL, OUT, Z, NULL), QUEEN_OK);
  wait_code(queen_transaction_commit(transaction, "{\"timeout\":1}"), QUEEN_E_INVALID_CONFIG);
  wait_ok(queen_transaction_commit(transaction, "{\"timeoutMillis\":30000}")); /* bad options have not used it up */
  check_code(queen_transaction_push(transaction, queue, NULL, OUT, Z, NULL), QUEEN_E_INVALID_STATE);
  queen_transaction_free(transaction);
  expect_number(client, queue, NULL, 7);
  queen_transaction_free(queen_transaction_new(client));
  queen_transaction_free(NULL);
  check(queen_transaction_new(NULL) == NULL);
  check_code(queen_transaction_ack(NULL, NULL, 0, NULL), QUEEN_E_INVALID_ARGUMENT);
  check_code(queen_transaction_push(NULL, queue, NULL, OUT, Z, NULL), QUEEN_E_INVALID_ARGUMENT);
  wait_code(queen_transaction_commit(NULL, NULL), QUEEN_E_INVALID_ARGUMENT);
  client_end(client);
}

TEST(freed_without_a_commit_it_lets_go) {
  queen_client_t *client = client_new();
  const char *queue = queue_new(client, NULL);
  queen_delivery_t *delivery;
  queen_transaction_t *transaction = queen_transaction_new(client);
  push_n(client, queue, "p", 0, 1);
  delivery = batch_of(client, queue, 1);
  check_code(queen_transaction_ack(transaction, delivery, 0, NULL), QUEEN_OK);
  queen_transaction_free(transaction);
  wait_ok(queen_delivery_ack(delivery));
  queen_delivery_free(delivery);
  client_end(client);
}

TEST(the_client_may_be_freed_first) {
  queen_client_t *client = client_new();
  queen_transaction_t *transaction = queen_transaction_new(client);
  check_code(queen_transaction_push(transaction, "q", NULL, OUT, Z, NULL), QUEEN_OK);
  client_end(client);
  wait_code(queen_transaction_commit(transaction, NULL), QUEEN_E_CLOSED);
  queen_transaction_free(transaction);
}

TESTS(cmocka_unit_test(t1_a_message_is_acked_and_others_are_pushed),
      cmocka_unit_test(x100_a_rollback_has_a_reason_and_leaves_the_message_unsettled),
      cmocka_unit_test(an_earlier_message_that_is_unsettled_stops_the_commit),
      cmocka_unit_test(c21_acks_by_ids_have_a_group_and_a_lease), cmocka_unit_test(a_handler_transforms_and_forwards),
      cmocka_unit_test(a_nack_after_the_commit_changes_nothing), cmocka_unit_test(t6_wrong_additions_stop_the_commit),
      cmocka_unit_test(t7_a_transaction_is_committed_once_and_not_empty),
      cmocka_unit_test(freed_without_a_commit_it_lets_go), cmocka_unit_test(the_client_may_be_freed_first))
