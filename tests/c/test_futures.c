/* brokers: all. The three ways to learn an outcome, one route each, exactly once. */
#include "process.h"

#define ITEM "[{\"payload\":1}]"

typedef struct seen_t {
  gate_t calls, frees;
  int32_t code;
  pthread_t thread;
  int json_there, freed_before_call;
} seen_t;
#define SEEN_INIT {GATE_INIT, GATE_INIT, 99, 0, 0, 0}

static void on_complete(const queen_future_t *future, void *user_data) {
  seen_t *seen = (seen_t *)user_data;
  size_t len = 0;
  seen->code = queen_error_code(queen_future_error(future));
  seen->json_there = queen_future_json(future, &len) != NULL;
  seen->thread = pthread_self();
  seen->freed_before_call = gate_get(&seen->frees) != 0;
  gate_add(&seen->calls, 1);
}

static void on_free(void *user_data) { gate_add(&((seen_t *)user_data)->frees, 1); }

/* a future that completes when the test says so: a pop that waits for a message */
static queen_future_t *pending(const queen_client_t *client, const char *queue) {
  queen_future_t *future = queen_pop(client, queue, NULL, POLL_30S);
  check_code(queen_future_wait(future, 0), QUEEN_E_TIMEOUT);
  check(queen_future_error(future) == NULL);
  check(queen_future_json(future, NULL) == NULL);
  check(queen_future_take_delivery(future) == NULL);
  return future;
}

static void *wait_for(void *future) {
  return (void *)(intptr_t)queen_future_wait((const queen_future_t *)future, LONG_MS);
}

TEST(several_threads_wait_for_one_future) {
  queen_client_t *client = client_new();
  const char *queue = queue_new(client, NULL);
  queen_future_t *future = pending(client, queue);
  pthread_t threads[6];
  size_t i;
  for (i = 0; i < LEN(threads); i++) pthread_create(&threads[i], NULL, wait_for, future);
  check_code(queen_future_wait(future, 50), QUEEN_E_TIMEOUT); /* and the operation goes on */
  push_n(client, queue, NULL, 1, 1);
  for (i = 0; i < LEN(threads); i++) {
    void *code;
    pthread_join(threads[i], &code);
    check_code((intptr_t)code, QUEEN_OK);
  }
  check_code(queen_future_wait(future, 0), QUEEN_OK); /* finished stays finished */
  check_code(queen_error_code(queen_future_error(future)), QUEEN_OK);
  {
    queen_delivery_t *delivery = queen_future_take_delivery(future);
    check_code(number_at(delivery, 0), 1);
    check(queen_future_take_delivery(future) == NULL); /* taken is taken */
    wait_ok(queen_delivery_ack(delivery));
    queen_delivery_free(delivery);
  }
  queen_future_free(future);
  client_end(client);
}

TEST(callback_runs_once_on_another_thread) {
  queen_client_t *client = client_new();
  const char *queue = queue_new(client, NULL);
  seen_t seen = SEEN_INIT;
  queen_future_t *future = queen_push(client, queue, NULL, ITEM, Z, NULL);
  check_code(queen_future_on_complete(future, on_complete, &seen, on_free), QUEEN_OK);
  check_code(queen_future_wait(future, LONG_MS), QUEEN_OK); /* waiting stays allowed beside a route */
  check(gate_reaches(&seen.frees, 1, LONG_MS));
  check_code(seen.code, QUEEN_OK);
  check(seen.json_there && !seen.freed_before_call);
  check(!pthread_equal(seen.thread, pthread_self()));
  check_json(queen_future_json(future, NULL), "\"queued\""); /* routing does not consume the handle */
  queen_future_free(future);
  client_end(client);
  check_code(gate_get(&seen.calls), 1);
  check_code(gate_get(&seen.frees), 1);
}

/* a route set on a finished future fires too, and never on the caller's thread */
TEST(callback_on_a_finished_future_runs) {
  queen_client_t *client = client_new();
  queen_future_t *futures[3];
  size_t i;
  futures[0] = queen_call(client, "health", NULL, 0);
  futures[1] = queen_push(client, NULL, NULL, ITEM, Z, NULL); /* failed already */
  futures[2] = queen_push(NULL, "q", NULL, ITEM, Z, NULL);    /* failed already, and has no client */
  for (i = 0; i < LEN(futures); i++) {
    seen_t seen = SEEN_INIT;
    check_code(queen_future_wait(futures[i], LONG_MS), QUEEN_OK);
    check_code(queen_future_on_complete(futures[i], on_complete, &seen, on_free), QUEEN_OK);
    check(gate_reaches(&seen.frees, 1, LONG_MS));
    check_code(gate_get(&seen.calls), 1);
    check_code(seen.code, i == 0 ? QUEEN_OK : QUEEN_E_INVALID_ARGUMENT);
    check(!pthread_equal(seen.thread, pthread_self()));
    queen_future_free(futures[i]);
  }
  client_end(client);
}

TEST(event_carries_the_future) {
  queen_client_t *client = client_new();
  const char *queue = queue_new(client, NULL);
  queen_event_queue_t *events = queen_event_queue_new();
  queen_future_t *future = queen_push(client, queue, NULL, ITEM, Z, NULL);
  queen_event_t event;
  check_code(queen_future_deliver(future, events, UINT64_MAX), QUEEN_OK);
  queen_future_free(future); /* a routed future still arrives */
  poll_event(events, &event);
  check_code(event.type, QUEEN_EVENT_FUTURE);
  check_code(event.code, QUEEN_OK);
  check(event.tag == UINT64_MAX);
  check(event.json != NULL && strlen(event.json) == event.json_len);
  check_json(event.json, "\"queued\"");
  check(event.object != NULL && queen_future_error((const queen_future_t *)event.object) == NULL);
  check(queen_event_take_delivery(&event) == NULL); /* it holds a future */
  queen_events_free(&event, 1);
  future = queen_push(client, "", NULL, ITEM, Z, NULL);
  check_code(queen_future_deliver(future, events, 7), QUEEN_OK);
  poll_event(events, &event);
  check_code(event.code, QUEEN_E_INVALID_ARGUMENT);
  check(event.tag == 7);
  check_code(queen_error_code(queen_future_error((const queen_future_t *)event.object)), QUEEN_E_INVALID_ARGUMENT);
  queen_events_free(&event, 1);
  queen_future_free(future);
  check_code(queen_event_queue_poll(events, &event, sizeof event, 1, 0), 0); /* each arrived once */
  queen_event_queue_free(events);
  client_end(client);
}

/* the event of a pop lends a future from which the delivery is taken */
TEST(event_of_a_pop_yields_its_delivery) {
  queen_client_t *client = client_new();
  const char *queue = queue_new(client, NULL);
  queen_event_queue_t *events = queen_event_queue_new();
  queen_future_t *future = queen_pop(client, queue, NULL, POLL_30S);
  queen_delivery_t *delivery;
  queen_event_t event;
  check_code(queen_future_deliver(future, events, 1), QUEEN_OK);
  queen_future_free(future);
  push_n(client, queue, NULL, 5, 1);
  poll_event(events, &event);
  check_code(event.code, QUEEN_OK);
  check(event.json == NULL);
  delivery = queen_future_take_delivery((const queen_future_t *)event.object);
  queen_events_free(&event, 1); /* what was taken outlives the event */
  check_code(number_at(delivery, 0), 5);
  wait_ok(queen_delivery_ack(delivery));
  queen_delivery_free(delivery);
  queen_event_queue_free(events);
  client_end(client);
}

TEST(second_route_is_refused_and_changes_nothing) {
  queen_client_t *client = client_new();
  const char *queue = queue_new(client, NULL);
  queen_event_queue_t *events = queen_event_queue_new();
  seen_t first = SEEN_INIT, second = SEEN_INIT;
  queen_future_t *called = queen_pop(client, queue, NULL, POLL_30S);
  queen_future_t *delivered = queen_push(client, queue, "p", "[]", Z, NULL);
  queen_event_t event;
  check_code(queen_future_on_complete(called, on_complete, &first, on_free), QUEEN_OK);
  check_code(queen_future_on_complete(called, on_complete, &second, on_free), QUEEN_E_INVALID_STATE);
  check_code(gate_get(&second.frees), 1); /* on this thread, before the call returned */
  check_code(queen_future_deliver(called, events, 1), QUEEN_E_INVALID_STATE);
  check_code(gate_get(&first.frees), 0);
  check_code(queen_future_deliver(delivered, events, 2), QUEEN_OK);
  check_code(queen_future_deliver(delivered, events, 3), QUEEN_E_INVALID_STATE);
  check_code(queen_future_on_complete(delivered, on_complete, &second, on_free), QUEEN_E_INVALID_STATE);
  check_code(gate_get(&second.frees), 2);
  poll_event(events, &event);
  check(event.tag == 2);
  queen_events_free(&event, 1);
  check_code(queen_future_deliver(delivered, events, 4), QUEEN_E_INVALID_STATE); /* nor after it fired */
  queen_future_cancel(called);
  check(gate_reaches(&first.frees, 1, LONG_MS));
  check_code(first.code, QUEEN_E_CANCELLED);
  check_code(queen_event_queue_poll(events, &event, sizeof event, 1, 0), 0);
  queen_future_free(called);
  queen_future_free(delivered);
  queen_event_queue_free(events);
  client_end(client);
  check_code(gate_get(&first.calls), 1);
  check_code(gate_get(&second.calls), 0);
  check_code(gate_get(&second.frees), 2);
}

TEST(freed_future_still_reaches_its_callback) {
  queen_client_t *client = client_new();
  const char *queue = queue_new(client, NULL);
  seen_t seen = SEEN_INIT;
  queen_future_t *future = queen_pop(client, queue, NULL, POLL_30S);
  check_code(queen_future_on_complete(future, on_complete, &seen, on_free), QUEEN_OK);
  queen_future_free(future); /* lets go, never cancels */
  push_n(client, queue, NULL, 1, 1);
  check(gate_reaches(&seen.frees, 1, LONG_MS));
  check_code(seen.code, QUEEN_OK);
  client_end(client);
}

/* nobody took the messages of the forgotten pop, so they are given back without a wait for the lease */
TEST(forgotten_pop_gives_its_messages_back) {
  queen_client_t *client = client_new();
  const char *queue = queue_new(client, NULL);
  queen_future_t *future = queen_pop(client, queue, NULL, POLL_30S);
  queen_delivery_t *delivery;
  queen_future_free(future);
  push_n(client, queue, NULL, 3, 1);
  delivery = pop(client, queue, NULL, POLL_30S);
  check_code(number_at(delivery, 0), 3);
  wait_ok(queen_delivery_ack(delivery));
  queen_delivery_free(delivery);
  /* the same for a future that had finished, and was freed with its delivery inside */
  push_n(client, queue, NULL, 4, 1);
  future = queen_pop(client, queue, NULL, POLL_30S);
  check_code(queen_future_wait(future, LONG_MS), QUEEN_OK);
  queen_future_free(future);
  delivery = pop(client, queue, NULL, POLL_30S);
  check_code(number_at(delivery, 0), 4);
  wait_ok(queen_delivery_ack(delivery));
  queen_delivery_free(delivery);
  client_end(client);
}

static queen_future_t *mine;
static const queen_client_t *its_client;
static const char *its_queue;
static gate_t nested = GATE_INIT;

static void on_nested(const queen_future_t *future, void *user_data) {
  (void)user_data;
  if (queen_future_error(future) == NULL) gate_add(&nested, 10);
}

static void on_outer(const queen_future_t *future, void *user_data) {
  queen_future_t *inner;
  (void)user_data;
  queen_future_free(mine); /* the lent one lives on until the callback ends */
  if (queen_future_error(future) == NULL && queen_future_json(future, NULL) != NULL) gate_add(&nested, 1);
  inner = queen_push(its_client, its_queue, NULL, ITEM, Z, NULL);
  /* completed by an I/O thread, so the dispatcher may wait */
  if (queen_future_wait(inner, LONG_MS) == QUEEN_OK && queen_future_error(inner) == NULL) gate_add(&nested, 1);
  if (queen_future_on_complete(inner, on_nested, NULL, NULL) == QUEEN_OK) gate_add(&nested, 1);
  queen_future_free(inner);
}

TEST(callback_may_call_back_and_free_its_handle) {
  queen_client_t *client = client_new();
  its_client = client;
  its_queue = queue_new(client, NULL);
  mine = queen_push(client, its_queue, NULL, ITEM, Z, NULL);
  check_code(queen_future_on_complete(mine, on_outer, NULL, NULL), QUEEN_OK);
  check(gate_reaches(&nested, 13, LONG_MS));
  client_end(client);
}

TESTS(cmocka_unit_test(several_threads_wait_for_one_future), cmocka_unit_test(callback_runs_once_on_another_thread),
      cmocka_unit_test(callback_on_a_finished_future_runs), cmocka_unit_test(event_carries_the_future),
      cmocka_unit_test(event_of_a_pop_yields_its_delivery), cmocka_unit_test(second_route_is_refused_and_changes_nothing),
      cmocka_unit_test(freed_future_still_reaches_its_callback), cmocka_unit_test(forgotten_pop_gives_its_messages_back),
      cmocka_unit_test(callback_may_call_back_and_free_its_handle))
