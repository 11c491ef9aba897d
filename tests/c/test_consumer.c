/* brokers: all. Consumers by callback: verdicts of the handler, limit, idle, concurrency, order. */
#include "harness.h"

typedef struct log_t {
  gate_t calls, frees;
  int32_t answer;   /* what the handler returns */
  int32_t numbers[128];
  gate_t running;
  int64_t most;     /* most handlers at the same time, under calls.mutex */
  gate_t *hold;     /* each handler waits until this reaches hold_at */
  int64_t hold_at;
} log_t;

static log_t *log_new(int32_t answer) {
  static const log_t empty = {GATE_INIT, GATE_INIT, 0, {0}, GATE_INIT, 0, NULL, 0};
  log_t *log = (log_t *)malloc(sizeof *log);
  memcpy(log, &empty, sizeof empty);
  log->answer = answer;
  return log;
}

static void log_freed(void *log) { gate_add(&((log_t *)log)->frees, 1); }

/* the library frees the delivery on ACK and NACK */
static int32_t handler(queen_delivery_t *delivery, void *user_data) {
  log_t *log = (log_t *)user_data;
  int64_t now = gate_add(&log->running, 1);
  size_t i;
  pthread_mutex_lock(&log->calls.mutex);
  if (now > log->most) log->most = now;
  for (i = 0; i < queen_delivery_count(delivery) && log->calls.n + (int64_t)i < (int64_t)LEN(log->numbers); i++)
    log->numbers[log->calls.n + (int64_t)i] = number_at(delivery, i);
  pthread_mutex_unlock(&log->calls.mutex);
  if (log->hold != NULL) gate_reaches(log->hold, log->hold_at, LONG_MS);
  gate_add(&log->running, -1);
  gate_add(&log->calls, (int64_t)queen_delivery_count(delivery));
  return log->answer;
}

/* waits for a consumer that ends by itself; its summary holds the fragments */
static void ends_with(queen_consumer_t *consumer, const char *a, const char *b, const char *c) {
  queen_future_t *future = queen_consumer_future(consumer);
  char *json = wait_json(future);
  check_json(json, a);
  if (b != NULL) check_json(json, b);
  if (c != NULL) check_json(json, c);
  free(json);
  future = queen_consumer_future(consumer); /* may be asked for again */
  check_code(queen_future_wait(future, LONG_MS), QUEEN_OK);
  queen_future_free(future);
  wait_ok(queen_consumer_stop(consumer, LONG_MS)); /* stopping what has ended is fine */
  queen_consumer_free(consumer);
}

static void expect_empty(queen_client_t *client, const char *queue) {
  check(pop(client, queue, NULL, "{\"wait\":true,\"pollTimeoutMillis\":500}") == NULL);
}

TEST(v11_ack_settles_in_order_and_limit_ends) {
  queen_client_t *client = client_new();
  const char *queue = queue_new(client, NULL);
  log_t *log = log_new(QUEEN_ACK);
  int i;
  push_n(client, queue, "p", 0, 20);
  ends_with(consume_at(client, queue, "\"limit\":20,\"batch\":3", handler, log, log_freed, __FILE__, __LINE__),
            "\"reason\":\"limit\"", "\"messages\":20", "\"acked\":20");
  check(gate_reaches(&log->frees, 1, LONG_MS));
  check_code(gate_get(&log->calls), 20);
  for (i = 0; i < 20; i++) check_code(log->numbers[i], i);
  check_code(log->most, 1); /* concurrency is 1 unless told */
  expect_empty(client, queue);
  client_end(client);
  check_code(gate_get(&log->frees), 1);
  free(log);
}

/* the limit counts per worker, as in the classic clients; what is behind it stays free to take at once */
TEST(limit_leaves_the_rest) {
  queen_client_t *client = client_new();
  const char *queue = queue_new(client, "{\"leaseTime\":120}");
  log_t *log = log_new(QUEEN_ACK);
  queen_delivery_t *delivery;
  int i, left = 0;
  for (i = 0; i < 4; i++) {
    char partition[16];
    snprintf(partition, sizeof partition, "p%d", i);
    push_n(client, queue, partition, i * 10, 5);
  }
  ends_with(consume(client, queue, "\"limit\":3,\"concurrency\":2", handler, log), "\"reason\":\"limit\"",
            "\"messages\":6", "\"acked\":6");
  check_code(gate_get(&log->calls), 6);
  while (left < 14 && (delivery = pop(client, queue, NULL, POLL_30S)) != NULL) {
    left += (int)queen_delivery_count(delivery);
    wait_ok(queen_delivery_ack(delivery));
    queen_delivery_free(delivery);
  }
  check_code(left, 14);
  client_end(client);
  free(log);
}

TEST(idle_ends_a_consumer) {
  queen_client_t *client = client_new();
  const char *queue = queue_new(client, NULL);
  log_t *log = log_new(QUEEN_ACK);
  int64_t start = now_ms();
  push_n(client, queue, "p", 0, 2);
  ends_with(consume(client, queue, "\"idleMillis\":400,\"pollTimeoutMillis\":30000", handler, log), "\"reason\":\"idle\"",
            "\"messages\":2", NULL);
  check(now_ms() - start < PROMPT_MS); /* not at the end of the poll */
  check_code(gate_get(&log->calls), 2);
  client_end(client);
  free(log);
}

TEST(v11_nack_brings_it_again_until_the_dead_letter) {
  queen_client_t *client = client_new();
  const char *queue = queue_new(client, "{\"leaseTime\":120,\"retryLimit\":2}");
  log_t *log = log_new(QUEEN_NACK);
  queen_consumer_t *consumer;
  push_n(client, queue, "p", 7, 1);
  consumer = consume(client, queue, NULL, handler, log);
  check(gate_reaches(&log->calls, 3, LONG_MS));
  consumer_end(consumer);
  check_code(gate_get(&log->calls), 3);
  check_code(log->numbers[2], 7);
  expect_empty(client, queue);
  client_end(client);
  free(log);
}

TEST(unknown_answer_is_a_nack) {
  static const int32_t answers[] = {3, -1, 77, INT32_MIN};
  size_t i;
  for (i = 0; i < LEN(answers); i++) {
    queen_client_t *client = client_new();
    const char *queue = queue_new(client, "{\"leaseTime\":120,\"retryLimit\":1}");
    log_t *log = log_new(answers[i]);
    queen_consumer_t *consumer;
    push_n(client, queue, "p", 7, 1);
    consumer = consume(client, queue, NULL, handler, log);
    check(gate_reaches(&log->calls, 2, LONG_MS));
    consumer_end(consumer);
    check_code(gate_get(&log->calls), 2);
    expect_empty(client, queue);
    client_end(client);
    free(log);
  }
}

TEST(q16_v10_concurrency_runs_as_many_as_it_says) {
  queen_client_t *client = client_new();
  const char *queue = queue_new(client, NULL);
  log_t *log = log_new(QUEEN_ACK);
  queen_consumer_t *consumer;
  gate_t go = GATE_INIT;
  int i;
  for (i = 0; i < 6; i++) {
    char partition[16];
    snprintf(partition, sizeof partition, "p%d", i);
    push_n(client, queue, partition, i, 2);
  }
  log->hold = &go;
  log->hold_at = 1;
  consumer = consume(client, queue, "\"concurrency\":3", handler, log);
  check(gate_reaches(&log->running, 3, LONG_MS)); /* three at once, each blocking */
  check(!gate_reaches(&log->running, 4, 500));    /* and no fourth */
  gate_add(&go, 1);
  check(gate_reaches(&log->calls, 12, LONG_MS));
  wait_json_has(queen_consumer_stop(consumer, LONG_MS), "\"messages\":12");
  queen_consumer_free(consumer);
  check_code(log->most, 3);
  client_end(client);
  free(log);
}

TEST(one_consumer_of_a_named_partition_leaves_the_others) {
  queen_client_t *client = client_new();
  const char *queue = queue_new(client, NULL);
  log_t *log = log_new(QUEEN_ACK);
  queen_delivery_t *delivery;
  push_n(client, queue, "mine", 1, 2);
  push_n(client, queue, "other", 5, 1);
  ends_with(consume(client, queue, "\"partition\":\"mine\",\"limit\":2", handler, log), "\"reason\":\"limit\"", NULL, NULL);
  check_code(log->numbers[0], 1);
  check_code(log->numbers[1], 2);
  delivery = pop(client, queue, NULL, POLL_30S);
  check_code(number_at(delivery, 0), 5);
  wait_ok(queen_delivery_ack(delivery));
  queen_delivery_free(delivery);
  client_end(client);
  free(log);
}

TEST(group_from_the_start_sees_the_backlog) {
  queen_client_t *client = client_new();
  const char *queue = queue_new(client, NULL);
  log_t *log = log_new(QUEEN_ACK);
  push_n(client, queue, "p", 0, 5);
  ends_with(consume(client, queue, "\"consumerGroup\":\"g\",\"subscriptionMode\":\"all\",\"limit\":5,\"batch\":5", handler, log),
            "\"messages\":5", NULL, NULL);
  check_code(gate_get(&log->calls), 5);
  client_end(client);
  free(log);
}

/* many messages through many workers: each exactly once, each partition in order */
TEST(every_message_arrives_once_and_in_order) {
  enum { PARTITIONS = 6, EACH = 20 };
  queen_client_t *client = client_new();
  const char *queue = queue_new(client, NULL);
  log_t *log = log_new(QUEEN_ACK);
  int last[PARTITIONS], i;
  for (i = 0; i < PARTITIONS; i++) {
    char partition[16];
    snprintf(partition, sizeof partition, "p%d", i);
    push_n(client, queue, partition, i * 1000, EACH);
    last[i] = i * 1000 - 1;
  }
  ends_with(consume(client, queue, "\"concurrency\":1,\"batch\":7,\"limit\":120", handler, log), "\"messages\":120", NULL, NULL);
  check_code(gate_get(&log->calls), PARTITIONS * EACH);
  for (i = 0; i < PARTITIONS * EACH; i++) {
    int p = log->numbers[i] / 1000;
    check(p >= 0 && p < PARTITIONS);
    check_code(log->numbers[i], last[p] + 1);
    last[p]++;
  }
  client_end(client);
  free(log);
}

TESTS(cmocka_unit_test(v11_ack_settles_in_order_and_limit_ends),
      cmocka_unit_test(limit_leaves_the_rest), cmocka_unit_test(idle_ends_a_consumer),
      cmocka_unit_test(v11_nack_brings_it_again_until_the_dead_letter), cmocka_unit_test(unknown_answer_is_a_nack),
      cmocka_unit_test(q16_v10_concurrency_runs_as_many_as_it_says),
      cmocka_unit_test(one_consumer_of_a_named_partition_leaves_the_others),
      cmocka_unit_test(group_from_the_start_sees_the_backlog), cmocka_unit_test(every_message_arrives_once_and_in_order))
