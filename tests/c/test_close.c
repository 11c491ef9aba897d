/* brokers: all. Close: one deadline, everything complete, nothing runs afterwards. */
#include "process.h"

typedef struct order_t {
  gate_t calls, frees;
  int64_t others_at_close; /* callbacks that had run when close's own ran */
} order_t;

static void on_other(const queen_future_t *future, void *user_data) {
  (void)future;
  gate_add(&((order_t *)user_data)->calls, 1);
}

static void on_close(const queen_future_t *future, void *user_data) {
  order_t *o = (order_t *)user_data;
  if (queen_future_error(future) == NULL) o->others_at_close = gate_get(&o->calls);
  gate_add(&o->calls, 1);
}

static void on_free(void *user_data) { gate_add(&((order_t *)user_data)->frees, 1); }

TEST(close_during_a_long_poll_is_prompt) {
  queen_client_t *client = client_new();
  const char *queue = queue_new(client, NULL);
  queen_future_t *waiting[4];
  int64_t start = now_ms();
  size_t i;
  for (i = 0; i < LEN(waiting); i++) waiting[i] = queen_pop(client, queue, NULL, POLL_30S);
  check_code(queen_future_wait(waiting[0], 100), QUEEN_E_TIMEOUT);
  wait_ok(queen_client_close(client, LONG_MS));
  check(now_ms() - start < PROMPT_MS);
  for (i = 0; i < LEN(waiting); i++) {
    check_code(queen_future_wait(waiting[i], 0), QUEEN_OK); /* complete by the time close is */
    check_code(queen_error_code(queen_future_error(waiting[i])), QUEEN_E_CLOSED);
    queen_future_free(waiting[i]);
  }
  queen_client_free(client);
}

TEST(no_callback_runs_after_close) {
  int round;
  for (round = 0; round < 10; round++) {
    queen_client_t *client = client_new();
    const char *queue = queue_new(client, NULL);
    order_t o = {GATE_INIT, GATE_INIT, -1};
    queen_future_t *futures[40], *close;
    size_t i;
    for (i = 0; i < LEN(futures); i++) {
      futures[i] = i % 4 ? queen_push(client, queue, "p", "[{\"payload\":1}]", Z, NULL) : queen_pop(client, queue, "q", POLL_30S);
      check_code(queen_future_on_complete(futures[i], on_other, &o, on_free), QUEEN_OK);
    }
    close = queen_client_close(client, LONG_MS);
    check_code(queen_future_on_complete(close, on_close, &o, on_free), QUEEN_OK);
    check(gate_reaches(&o.frees, LEN(futures) + 1, LONG_MS));
    check_code(o.others_at_close, LEN(futures)); /* its own callback is the last */
    check_code(gate_get(&o.calls), LEN(futures) + 1);
    for (i = 0; i < LEN(futures); i++) {
      check_code(queen_future_wait(futures[i], 0), QUEEN_OK);
      /* pushes submitted before are flushed, not thrown away */
      check_code(queen_error_code(queen_future_error(futures[i])), i % 4 ? QUEEN_OK : QUEEN_E_CLOSED);
      queen_future_free(futures[i]);
    }
    queen_future_free(close);
    queen_client_free(client);
  }
}

static int32_t count(queen_delivery_t *delivery, void *user_data) {
  (void)delivery;
  gate_add((gate_t *)user_data, 1);
  return QUEEN_ACK;
}

/* user_data on the stack is safe to leave once close went well */
TEST(close_stops_consumers_and_frees_their_user_data) {
  queen_client_t *client = client_new();
  const char *queue = queue_new(client, NULL);
  gate_t calls = GATE_INIT, frees = GATE_INIT;
  queen_event_queue_t *events = queen_event_queue_new();
  queen_consumer_t *by_callback, *by_event;
  queen_error_t *error = NULL;
  queen_event_t event;
  char options[256];
  push_n(client, queue, "p", 0, 5);
  by_callback = queen_consume(client, consume_options(options, sizeof options, queue, NULL), Z, count, &calls, NULL, &error);
  check(by_callback != NULL);
  check(gate_reaches(&calls, 5, LONG_MS));
  queen_consumer_free(by_callback);
  by_callback = consume_at(client, unique("none"), NULL, count, &frees, gate_bump, __FILE__, __LINE__);
  by_event = consume_into(client, unique("none"), NULL, events, 3);
  wait_ok(queen_client_close(client, LONG_MS));
  check_code(gate_get(&frees), 1);
  check_code(gate_get(&calls), 5);
  wait_ok(queen_consumer_stop(by_callback, 0)); /* has ended already */
  poll_event(events, &event);
  check_code(event.type, QUEEN_EVENT_CONSUMER_ENDED);
  check(event.tag == 3);
  queen_events_free(&event, 1);
  queen_consumer_free(by_callback);
  queen_consumer_free(by_event);
  queen_client_free(client);
  queen_event_queue_free(events);
}

TEST(everything_after_close_answers_closed) {
  queen_client_t *client = client_new();
  const char *queue = queue_new(client, NULL);
  gate_t frees = GATE_INIT;
  queen_error_t *error = NULL;
  queen_delivery_t *delivery;
  queen_consumer_t *consumer = consume_at(client, unique("none"), NULL, count, &frees, gate_bump, __FILE__, __LINE__);
  push_n(client, queue, "p", 0, 1);
  delivery = pop(client, queue, NULL, POLL_10S);
  check(delivery != NULL);
  /* a popped delivery that nobody settles must not hold close up: it is given back */
  queen_delivery_free(delivery);
  wait_ok(queen_client_close(client, LONG_MS));
  wait_ok(queen_client_close(client, LONG_MS)); /* a second close is fine */
  wait_ok(queen_client_close(client, 0));
  wait_code(queen_push(client, queue, NULL, "[{\"payload\":1}]", Z, NULL), QUEEN_E_CLOSED);
  wait_code(queen_pop(client, queue, NULL, NULL), QUEEN_E_CLOSED);
  wait_code(queen_ack(client, "[{\"transactionId\":\"t\",\"partitionId\":\"p\",\"leaseId\":\"l\"}]", Z, NULL), QUEEN_E_CLOSED);
  wait_code(queen_renew(client, "lease", 10, NULL), QUEEN_E_CLOSED);
  wait_code(queen_flush(client, NULL), QUEEN_E_CLOSED);
  wait_code(queen_call(client, "health", NULL, 0), QUEEN_E_CLOSED);
  wait_code(queen_client_ready(client), QUEEN_E_CLOSED);
  check_code(gate_get(&frees), 1);
  check(queen_consume(client, "{\"queue\":\"q\"}", Z, count, &frees, gate_bump, &error) == NULL);
  check_code(queen_error_code(error), QUEEN_E_CLOSED);
  queen_error_free(error);
  check_code(gate_get(&frees), 2);
  {
    queen_event_queue_t *events = queen_event_queue_new();
    check(queen_consume_events(client, "{\"queue\":\"q\"}", Z, events, 1, &error) == NULL);
    check_code(queen_error_code(error), QUEEN_E_CLOSED);
    queen_error_free(error);
    queen_event_queue_free(events);
  }
  { /* after its own close no callback of the client runs, so a route is an event queue's or none */
    queen_event_queue_t *events = queen_event_queue_new();
    queen_future_t *future = queen_flush(client, NULL);
    queen_event_t event;
    check_code(queen_future_deliver(future, events, 1), QUEEN_OK);
    queen_future_free(future);
    poll_event(events, &event);
    check_code(event.code, QUEEN_E_CLOSED);
    queen_events_free(&event, 1);
    queen_event_queue_free(events);
  }
  queen_consumer_free(consumer);
  queen_client_free(client);
}

typedef struct hold_t {
  gate_t entered, go, frees;
} hold_t;

static int32_t hold(queen_delivery_t *delivery, void *user_data) {
  hold_t *h = (hold_t *)user_data;
  (void)delivery;
  gate_add(&h->entered, 1);
  gate_reaches(&h->go, 1, LONG_MS);
  return QUEEN_ACK;
}

static void hold_freed(void *h) { gate_add(&((hold_t *)h)->frees, 1); }

TEST(x13_close_deadline_names_what_still_runs) {
  queen_client_t *client = client_new();
  const char *queue = queue_new(client, NULL);
  hold_t h = {GATE_INIT, GATE_INIT, GATE_INIT};
  queen_consumer_t *consumer;
  queen_future_t *close;
  push_n(client, queue, "p", 0, 1);
  consumer = consume_at(client, queue, NULL, hold, &h, hold_freed, __FILE__, __LINE__);
  check(gate_reaches(&h.entered, 1, LONG_MS));
  close = queen_client_close(client, 300);
  check_code(queen_future_wait(close, LONG_MS), QUEEN_OK);
  check_code(queen_error_code(queen_future_error(close)), QUEEN_E_TIMEOUT);
  check(strstr(queen_error_message(queen_future_error(close)), "handler") != NULL);
  queen_future_free(close);
  check_code(gate_get(&h.frees), 0); /* user_data lives until its free, whatever close said */
  close = queen_client_close(client, LONG_MS);
  check_code(queen_future_wait(close, 200), QUEEN_E_TIMEOUT);
  gate_add(&h.go, 1);
  wait_ok(close);
  check_code(gate_get(&h.frees), 1);
  queen_consumer_free(consumer);
  queen_client_free(client);
}

/* free without close is close with deadline 0 in the background */
TEST(free_without_close_completes_everything) {
  queen_client_t *client = client_new();
  const char *queue = queue_new(client, NULL);
  order_t o = {GATE_INIT, GATE_INIT, -1};
  gate_t frees = GATE_INIT;
  queen_future_t *waiting, *ended;
  queen_consumer_t *consumer;
  int64_t start;
  waiting = queen_pop(client, queue, NULL, POLL_30S);
  check_code(queen_future_on_complete(waiting, on_other, &o, on_free), QUEEN_OK);
  consumer = consume_at(client, unique("none"), NULL, count, &frees, gate_bump, __FILE__, __LINE__);
  ended = queen_consumer_future(consumer);
  queen_consumer_free(consumer);
  start = now_ms();
  queen_client_free(client);
  check(now_ms() - start < PROMPT_MS); /* never blocks */
  wait_code(waiting, QUEEN_E_CLOSED);
  check_code(queen_future_wait(ended, LONG_MS), QUEEN_OK);
  queen_future_free(ended);
  check(gate_reaches(&o.frees, 1, LONG_MS));
  check(gate_reaches(&frees, 1, LONG_MS));
  check_code(gate_get(&o.calls), 1);
  check(now_ms() - start < PROMPT_MS);
}

/* two threads close, others push: whatever happens, every future completes */
typedef struct race_t {
  const queen_client_t *client;
  const char *queue;
  gate_t *start;
  int bad;
} race_t;

static void *push_until_closed(void *argument) {
  race_t *r = (race_t *)argument;
  int32_t code = QUEEN_OK;
  int i;
  for (i = 0; code == QUEEN_OK && i < 100000; i++) {
    queen_future_t *future = queen_push(r->client, r->queue, "p", "[{\"payload\":1}]", Z, NULL);
    if (queen_future_wait(future, LONG_MS) != QUEEN_OK) r->bad++;
    code = queen_error_code(queen_future_error(future));
    queen_future_free(future);
    gate_add(r->start, 1);
  }
  if (code != QUEEN_E_CLOSED) r->bad++;
  return NULL;
}

TEST(close_races_pushes) {
  queen_client_t *client = client_new();
  gate_t start = GATE_INIT;
  race_t r[4];
  pthread_t threads[4];
  queen_future_t *one, *two;
  size_t i;
  for (i = 0; i < LEN(r); i++) {
    r[i].client = client;
    r[i].queue = queue_new(client, NULL);
    r[i].start = &start;
    r[i].bad = 0;
    pthread_create(&threads[i], NULL, push_until_closed, &r[i]);
  }
  check(gate_reaches(&start, 20, LONG_MS));
  one = queen_client_close(client, LONG_MS);
  two = queen_client_close(client, LONG_MS);
  for (i = 0; i < LEN(r); i++) {
    pthread_join(threads[i], NULL);
    check_code(r[i].bad, 0);
  }
  wait_ok(one);
  wait_ok(two);
  queen_client_free(client);
}

TESTS(cmocka_unit_test(close_during_a_long_poll_is_prompt), cmocka_unit_test(no_callback_runs_after_close),
      cmocka_unit_test(close_stops_consumers_and_frees_their_user_data),
      cmocka_unit_test(everything_after_close_answers_closed), cmocka_unit_test(x13_close_deadline_names_what_still_runs),
      cmocka_unit_test(free_without_close_completes_everything), cmocka_unit_test(close_races_pushes))
