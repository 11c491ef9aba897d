/* brokers: embedded. Calls to a broker that is down, answers 500, garbage, half a body, or never. */
#include "process.h"

#define ITEM "[{\"payload\":1,\"transactionId\":\"tx-77\"}]"
#define SHORT "{\"timeoutMillis\":4000}"

/* an outcome of UNKNOWN or REFUSED: the contract leaves open which of them a 500 is */
#define SENT (-1)

/* waits for a failed future and leaves it to be looked at */
static const queen_error_t *fails(queen_future_t *future, int32_t code, int32_t outcome) {
  const queen_error_t *error;
  check_code(queen_future_wait(future, LONG_MS), QUEEN_OK);
  error = queen_future_error(future);
  if (queen_error_code(error) != code && error != NULL) print_error("%s\n", queen_error_message(error));
  check_code(queen_error_code(error), code);
  if (outcome == SENT) check(queen_error_outcome(error) != QUEEN_OUTCOME_NOT_APPLIED);
  else check_code(queen_error_outcome(error), outcome);
  assert_string_equal(queen_error_name(error), code_text(code));
  check(*queen_error_message(error) != '\0');
  return error;
}

static void each_call_fails(const char *mode, int32_t code, int32_t outcome, int32_t http_status) {
  scripted_t server = scripted_start(mode);
  char config[128];
  queen_client_t *client;
  queen_transaction_t *transaction;
  queen_future_t *future;
  const queen_error_t *error;
  snprintf(config, sizeof config, "{\"url\":\"%s\",\"retryDelayMillis\":10}", server.url);
  client = client_at(config);
  future = queen_push(client, "q", "p", ITEM, Z, SHORT);
  error = fails(future, code, outcome);
  check_code(queen_error_http_status(error), http_status);
  /* an unknown push may be repeated with the same ids, which the error lists */
  if (outcome == QUEEN_OUTCOME_UNKNOWN) check_json(queen_error_json(error, NULL), "\"transactionIds\":[\"tx-77\"]");
  check(queen_future_json(future, NULL) == NULL);
  queen_future_free(future);
  future = queen_pop(client, "q", NULL, "{\"wait\":false,\"timeoutMillis\":4000}");
  fails(future, code, outcome);
  check(queen_future_take_delivery(future) == NULL);
  queen_future_free(future);
  future = queen_ack(client, "[{\"transactionId\":\"t\",\"partitionId\":\"p\",\"leaseId\":\"l\"}]", Z, SHORT);
  fails(future, code, outcome);
  queen_future_free(future);
  future = queen_renew(client, "lease", 10, SHORT);
  fails(future, code, outcome);
  queen_future_free(future);
  transaction = queen_transaction_new(client);
  check_code(queen_transaction_push(transaction, "q", "p", ITEM, Z, NULL), QUEEN_OK);
  future = queen_transaction_commit(transaction, SHORT);
  queen_transaction_free(transaction);
  error = fails(future, code, outcome);
  if (outcome == QUEEN_OUTCOME_UNKNOWN) check_json(queen_error_json(error, NULL), "\"transactionIds\":[\"tx-77\"]");
  queen_future_free(future);
  future = queen_call(client, "queue.create", "{\"queue\":\"q\"}", Z);
  check_code(queen_future_wait(future, LONG_MS + 10000), QUEEN_OK);
  check_code(queen_error_code(queen_future_error(future)), code);
  queen_future_free(future);
  /* the server recovers, and so does the client */
  scripted_mode(&server, "canned");
  wait_json_has(queen_push(client, "q", "p", ITEM, Z, NULL), "\"queued\"");
  client_end(client);
  scripted_stop(&server);
}

TEST(broker_that_is_down) { each_call_fails("refuse", QUEEN_E_CONNECT, QUEEN_OUTCOME_NOT_APPLIED, 0); }
TEST(broker_that_answers_500) { each_call_fails("500", QUEEN_E_BROKER, SENT, 500); }
TEST(broker_that_answers_garbage) { each_call_fails("garbage", QUEEN_E_BAD_ANSWER, QUEEN_OUTCOME_UNKNOWN, 0); }
TEST(broker_that_answers_half_a_body) { each_call_fails("half", QUEEN_E_NETWORK, QUEEN_OUTCOME_UNKNOWN, 0); }
TEST(x8_broker_that_resets) { each_call_fails("reset", QUEEN_E_NETWORK, QUEEN_OUTCOME_UNKNOWN, 0); }

/* a whole answer whose body is no JSON: the status is known, the content is not usable */
TEST(broker_that_answers_bad_json) {
  scripted_t server = scripted_start("badjson");
  queen_client_t *client = client_at(server.url);
  queen_future_t *future = queen_push(client, "q", "p", ITEM, Z, SHORT);
  fails(future, QUEEN_E_BAD_ANSWER, QUEEN_OUTCOME_UNKNOWN);
  queen_future_free(future);
  future = queen_pop(client, "q", NULL, NO_WAIT);
  fails(future, QUEEN_E_BAD_ANSWER, QUEEN_OUTCOME_UNKNOWN);
  queen_future_free(future);
  client_end(client);
  scripted_stop(&server);
}

TEST(broker_that_never_answers) {
  scripted_t server = scripted_start("never");
  queen_client_t *client = client_at(server.url);
  queen_future_t *push = queen_push(client, "q", "p", ITEM, Z, "{\"timeoutMillis\":700}");
  queen_future_t *pop_ = queen_pop(client, "q", NULL, "{\"wait\":false,\"timeoutMillis\":700}");
  int64_t start = now_ms();
  check(scripted_reaches(&server, 2));
  fails(push, QUEEN_E_TIMEOUT, QUEEN_OUTCOME_UNKNOWN);
  check_json(queen_error_json(queen_future_error(push), NULL), "\"transactionIds\":[\"tx-77\"]");
  fails(pop_, QUEEN_E_TIMEOUT, QUEEN_OUTCOME_UNKNOWN);
  check(now_ms() - start < PROMPT_MS);
  queen_future_free(push);
  queen_future_free(pop_);
  client_end(client);
  scripted_stop(&server);
}

/* the client's own timeoutMillis holds where the call names none */
TEST(timeout_of_the_client_holds_for_its_calls) {
  scripted_t server = scripted_start("never");
  char config[128];
  queen_client_t *client;
  snprintf(config, sizeof config, "{\"url\":\"%s\",\"timeoutMillis\":600}", server.url);
  client = client_at(config);
  wait_code(queen_call(client, "health", NULL, 0), QUEEN_E_TIMEOUT);
  wait_code(queen_push(client, "q", "p", ITEM, Z, NULL), QUEEN_E_TIMEOUT);
  client_end(client);
  scripted_stop(&server);
}

TEST(slow_body_is_waited_for) {
  scripted_t server = scripted_start("slow");
  queen_client_t *client = client_at(server.url);
  queen_delivery_t *delivery;
  wait_json_has(queen_push(client, "q", "p", ITEM, Z, NULL), "\"queued\"");
  delivery = pop(client, "q", NULL, NO_WAIT);
  check(delivery != NULL);
  queen_delivery_free(delivery);
  client_end(client);
  scripted_stop(&server);
}

/* a call taken into a request completes alone; one not yet taken leaves its lane: nothing was sent */
TEST(cancel_and_deadline_belong_to_the_call) {
  scripted_t server = scripted_start("never");
  queen_client_t *client = client_at(server.url);
  queen_future_t *sent = queen_push(client, "q", "p", "[{\"payload\":1}]", Z, NULL);
  queen_future_t *queued, *late;
  check(scripted_reaches(&server, 1));
  queued = queen_push(client, "q", "p", "[{\"payload\":2}]", Z, NULL); /* same partition: waits its turn */
  late = queen_push(client, "q", "p", "[{\"payload\":3}]", Z, "{\"timeoutMillis\":300}");
  fails(late, QUEEN_E_TIMEOUT, QUEEN_OUTCOME_NOT_APPLIED);
  queen_future_cancel(queued);
  fails(queued, QUEEN_E_CANCELLED, QUEEN_OUTCOME_NOT_APPLIED);
  queen_future_cancel(sent);
  fails(sent, QUEEN_E_CANCELLED, QUEEN_OUTCOME_UNKNOWN);
  queen_future_free(late);
  queen_future_free(queued);
  queen_future_free(sent);
  client_end(client);
  scripted_stop(&server);
}

/* the bound on what was copied and not completed, and the future that says when there is room */
TEST(pending_bound_refuses_and_ready_tells) {
  enum { BOUND = 10 };
  scripted_t server = scripted_start("never");
  queen_client_t *client;
  queen_future_t *held[BOUND], *refused, *ready;
  char config[160];
  int i;
  snprintf(config, sizeof config, "{\"url\":\"%s\",\"maxPendingMessages\":%d,\"timeoutMillis\":60000}", server.url, BOUND);
  client = client_at(config);
  wait_ok(queen_client_ready(client)); /* room from the start */
  for (i = 0; i < BOUND; i++) {
    held[i] = queen_push(client, "q", "p", "[{\"payload\":1}]", Z, NULL);
    check_code(queen_future_wait(held[i], 0), QUEEN_E_TIMEOUT);
  }
  refused = queen_push(client, "q", "p", "[{\"payload\":1}]", Z, NULL);
  check_code(queen_future_wait(refused, 0), QUEEN_OK);
  fails(refused, QUEEN_E_WOULD_BLOCK, QUEEN_OUTCOME_NOT_APPLIED);
  check_code(queen_error_is_retriable(queen_future_error(refused)), 1);
  queen_future_free(refused);
  ready = queen_client_ready(client);
  check_code(queen_future_wait(ready, 200), QUEEN_E_TIMEOUT);
  for (i = BOUND / 2; i < BOUND; i++) {
    queen_future_cancel(held[i]);
    wait_code(held[i], QUEEN_E_CANCELLED);
  }
  wait_ok(ready);
  for (i = BOUND / 2; i < BOUND; i++) {
    held[i] = queen_push(client, "q", "p", "[{\"payload\":1}]", Z, NULL);
    check_code(queen_future_wait(held[i], 0), QUEEN_E_TIMEOUT);
  }
  for (i = 0; i < BOUND; i++) {
    queen_future_cancel(held[i]);
    queen_future_free(held[i]);
  }
  client_end(client);
  scripted_stop(&server);
}

TEST(pending_bytes_are_bounded_too) {
  scripted_t server = scripted_start("never");
  queen_client_t *client;
  queen_future_t *held, *refused;
  char config[160], items[4000];
  snprintf(config, sizeof config, "{\"url\":\"%s\",\"maxPendingBytes\":5000,\"timeoutMillis\":60000}", server.url);
  client = client_at(config);
  memset(items, 'x', sizeof items);
  memcpy(items, "[{\"payload\":\"", 13);
  memcpy(items + sizeof items - 4, "\"}]", 4);
  held = queen_push(client, "q", "p", items, Z, NULL);
  check_code(queen_future_wait(held, 0), QUEEN_E_TIMEOUT);
  refused = queen_push(client, "q", "p", items, Z, NULL);
  fails(refused, QUEEN_E_WOULD_BLOCK, QUEEN_OUTCOME_NOT_APPLIED);
  queen_future_free(refused);
  queen_future_cancel(held);
  queen_future_free(held);
  wait_ok(queen_client_ready(client));
  client_end(client);
  scripted_stop(&server);
}

/* close has its deadline even when the broker keeps silent */
TEST(close_does_not_hang_on_a_silent_broker) {
  scripted_t server = scripted_start("never");
  queen_client_t *client = client_at(server.url);
  queen_future_t *push = queen_push(client, "q", "p", ITEM, Z, "{\"timeoutMillis\":60000}");
  queen_future_t *waiting = queen_pop(client, "q", NULL, POLL_30S), *close;
  int64_t start = now_ms();
  check(scripted_reaches(&server, 2));
  close = queen_client_close(client, 500);
  check_code(queen_future_wait(close, LONG_MS), QUEEN_OK);
  check(now_ms() - start < PROMPT_MS);
  queen_future_free(close);
  fails(push, QUEEN_E_CLOSED, QUEEN_OUTCOME_UNKNOWN);
  fails(waiting, QUEEN_E_CLOSED, QUEEN_OUTCOME_UNKNOWN);
  queen_future_free(push);
  queen_future_free(waiting);
  client_end(client);
  scripted_stop(&server);
}

TESTS(cmocka_unit_test(broker_that_is_down), cmocka_unit_test(broker_that_answers_500),
      cmocka_unit_test(broker_that_answers_garbage), cmocka_unit_test(broker_that_answers_half_a_body),
      cmocka_unit_test(x8_broker_that_resets), cmocka_unit_test(broker_that_answers_bad_json),
      cmocka_unit_test(broker_that_never_answers), cmocka_unit_test(timeout_of_the_client_holds_for_its_calls),
      cmocka_unit_test(slow_body_is_waited_for), cmocka_unit_test(cancel_and_deadline_belong_to_the_call),
      cmocka_unit_test(pending_bound_refuses_and_ready_tells), cmocka_unit_test(pending_bytes_are_bounded_too),
      cmocka_unit_test(close_does_not_hang_on_a_silent_broker))
