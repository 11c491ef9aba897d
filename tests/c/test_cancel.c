/* brokers: all. Cancel asks and returns; the future completes once, with its result or CANCELLED. */
#include "harness.h"

#define ROUNDS 400

typedef struct round_t {
  gate_t calls;
  int32_t code;
  int has_json;
} round_t;

static void on_complete(const queen_future_t *future, void *user_data) {
  round_t *round = (round_t *)user_data;
  round->code = queen_error_code(queen_future_error(future));
  round->has_json = queen_future_json(future, NULL) != NULL;
  gate_add(&round->calls, 1);
}

static void *cancel(void *future) {
  int i;
  for (i = 0; i < 3; i++)
    if (queen_future_cancel((const queen_future_t *)future) != QUEEN_OK) return future;
  return NULL;
}

TEST(cancel_races_completion) {
  queen_client_t *client = client_new();
  const char *queue = queue_new(client, NULL);
  round_t *rounds = (round_t *)calloc(ROUNDS, sizeof *rounds);
  int i, done = 0, cancelled = 0, stored = 0;
  queen_delivery_t *delivery;
  for (i = 0; i < ROUNDS; i++) {
    queen_future_t *future = queen_push(client, queue, NULL, "[{\"payload\":1}]", Z, NULL);
    pthread_t thread;
    void *refused = NULL;
    pthread_mutex_init(&rounds[i].calls.mutex, NULL);
    pthread_cond_init(&rounds[i].calls.changed, NULL);
    check_code(queen_future_on_complete(future, on_complete, &rounds[i], NULL), QUEEN_OK);
    pthread_create(&thread, NULL, cancel, future);
    if (i % 2) queen_future_wait(future, i % 5);
    pthread_join(thread, &refused);
    check(refused == NULL);
    check_code(queen_future_wait(future, LONG_MS), QUEEN_OK);
    check_code(queen_future_cancel(future), QUEEN_OK); /* any state, any number of times */
    queen_future_free(future);
  }
  client_end(client);
  for (i = 0; i < ROUNDS; i++) {
    check_code(gate_get(&rounds[i].calls), 1);
    if (rounds[i].code == QUEEN_OK) done++;
    else check_code(rounds[i].code, QUEEN_E_CANCELLED), cancelled++;
    check(rounds[i].has_json == (rounds[i].code == QUEEN_OK)); /* never both */
  }
  check_code(done + cancelled, ROUNDS);
  free(rounds);
  if (strncmp(test_url(), "embedded:", 9) == 0) return; /* the store has gone with its client */
  client = client_new();
  while ((delivery = pop(client, queue, NULL, "{\"wait\":false,\"batch\":1000}")) != NULL) {
    stored += (int)queen_delivery_count(delivery);
    wait_ok(queen_delivery_ack(delivery));
    queen_delivery_free(delivery);
  }
  check(stored >= done && stored <= ROUNDS);
  client_end(client);
}

TEST(cancelled_pop_completes_at_once_and_loses_nothing) {
  queen_client_t *client = client_new();
  const char *queue = queue_new(client, NULL);
  int i;
  for (i = 0; i < 5; i++) {
    queen_future_t *future = queen_pop(client, queue, NULL, POLL_30S);
    queen_delivery_t *delivery;
    int64_t start = now_ms();
    check_code(queen_future_wait(future, 50), QUEEN_E_TIMEOUT);
    check_code(queen_future_cancel(future), QUEEN_OK);
    check_code(queen_future_wait(future, LONG_MS), QUEEN_OK);
    check(now_ms() - start < PROMPT_MS);
    check_code(queen_error_code(queen_future_error(future)), QUEEN_E_CANCELLED);
    check(queen_future_take_delivery(future) == NULL);
    /* pushed within the grace: the dead pop's request may catch it and must give it back */
    push_n(client, queue, NULL, i, 1);
    delivery = pop(client, queue, NULL, POLL_30S);
    check_code(number_at(delivery, 0), i);
    wait_ok(queen_delivery_ack(delivery));
    queen_delivery_free(delivery);
    queen_future_free(future);
  }
  client_end(client);
}

/* the message and the cancel meet: whoever wins, the message is delivered exactly once more */
TEST(pop_cancelled_while_its_message_arrives_loses_nothing) {
  queen_client_t *client = client_new();
  const char *queue = queue_new(client, NULL);
  int i;
  for (i = 0; i < 20; i++) {
    queen_future_t *future = queen_pop(client, queue, NULL, POLL_30S);
    queen_future_t *push;
    queen_delivery_t *delivery;
    char item[64];
    int32_t code;
    queen_future_wait(future, 20);
    snprintf(item, sizeof item, "[{\"payload\":{\"n\":%d}}]", i);
    push = queen_push(client, queue, NULL, item, Z, NULL);
    check_code(queen_future_cancel(future), QUEEN_OK);
    check_code(queen_future_wait(future, LONG_MS), QUEEN_OK);
    code = queen_error_code(queen_future_error(future));
    check(code == QUEEN_OK || code == QUEEN_E_CANCELLED);
    wait_ok(push);
    delivery = queen_future_take_delivery(future);
    check((delivery != NULL) == (code == QUEEN_OK));
    if (delivery == NULL) delivery = pop(client, queue, NULL, POLL_30S);
    check_code(number_at(delivery, 0), i);
    wait_ok(queen_delivery_ack(delivery));
    queen_delivery_free(delivery);
    queen_future_free(future);
  }
  client_end(client);
}

TEST(cancel_of_a_finished_future_changes_nothing) {
  queen_client_t *client = client_new();
  const char *queue = queue_new(client, NULL);
  queen_future_t *future = queen_push(client, queue, NULL, "[{\"payload\":1}]", Z, NULL);
  check_code(queen_future_wait(future, LONG_MS), QUEEN_OK);
  check_code(queen_future_cancel(future), QUEEN_OK);
  check(queen_future_error(future) == NULL);
  check_json(queen_future_json(future, NULL), "\"queued\"");
  queen_future_free(future);
  future = queen_push(client, "", NULL, "[]", Z, NULL);
  check_code(queen_future_cancel(future), QUEEN_OK);
  wait_code(future, QUEEN_E_INVALID_ARGUMENT);
  client_end(client);
}

TEST(cancel_one_of_many_leaves_the_others) {
  queen_client_t *client = client_new();
  queen_future_t *futures[8];
  const char *queues[8];
  size_t i;
  for (i = 0; i < LEN(futures); i++) {
    queues[i] = queue_new(client, NULL);
    futures[i] = queen_pop(client, queues[i], NULL, POLL_30S);
  }
  for (i = 0; i < LEN(futures); i += 2) queen_future_cancel(futures[i]);
  for (i = 1; i < LEN(futures); i += 2) push_n(client, queues[i], NULL, (int)i, 1);
  for (i = 0; i < LEN(futures); i++) {
    check_code(queen_future_wait(futures[i], LONG_MS), QUEEN_OK);
    check_code(queen_error_code(queen_future_error(futures[i])), i % 2 ? QUEEN_OK : QUEEN_E_CANCELLED);
    queen_future_free(futures[i]);
  }
  client_end(client);
}

TESTS(cmocka_unit_test(cancel_races_completion), cmocka_unit_test(cancelled_pop_completes_at_once_and_loses_nothing),
      cmocka_unit_test(pop_cancelled_while_its_message_arrives_loses_nothing),
      cmocka_unit_test(cancel_of_a_finished_future_changes_nothing), cmocka_unit_test(cancel_one_of_many_leaves_the_others))
