/* brokers: embedded. Nothing runs before first use, nothing after shutdown, and one may begin again. */
#include "process.h"

static int32_t ack(queen_delivery_t *delivery, void *user_data) {
  (void)delivery;
  gate_add((gate_t *)user_data, 1);
  return QUEEN_ACK;
}

TEST(nothing_is_started_before_first_use) {
  queen_event_queue_t *events;
  check_code(other_threads(NULL, NULL), 0);
  queen_version_number();
  queen_operations_json(NULL);
  events = queen_event_queue_new();
  check_code(other_threads(NULL, NULL), 0);
  queen_event_queue_free(events);
  check_code(queen_shutdown(0), QUEEN_OK); /* nothing to shut down */
}

TEST(busy_while_handles_live_then_every_thread_is_gone) {
  int round;
  for (round = 0; round < 3; round++) { /* a new client works after it */
    queen_client_t *client = client_new();
    gate_t calls = GATE_INIT;
    queen_consumer_t *consumer;
    queen_future_t *future;
    queen_delivery_t *delivery;
    push_n(client, "q", "p", 0, 3);
    consumer = consume(client, "q", NULL, ack, &calls);
    check(gate_reaches(&calls, 3, LONG_MS));
    check(other_threads(NULL, NULL) > 0);
    check_code(queen_shutdown(LONG_MS), QUEEN_E_BUSY);
    consumer_end(consumer);
    push_n(client, "q", "p", 0, 1);
    delivery = pop(client, "q", NULL, POLL_10S);
    future = queen_push(client, "q", "p", "[{\"payload\":1}]", Z, NULL); /* BUSY has changed nothing */
    check_code(queen_future_wait(future, LONG_MS), QUEEN_OK);
    check(queen_future_error(future) == NULL);
    wait_ok(queen_delivery_ack(delivery));
    client_end(client);
    check_code(queen_shutdown(LONG_MS), QUEEN_E_BUSY); /* a future and a delivery */
    queen_delivery_free(delivery);
    check_code(queen_shutdown(LONG_MS), QUEEN_E_BUSY);
    queen_future_free(future);
    check_code(queen_shutdown(LONG_MS), QUEEN_OK);
    check(threads_are_gone());
    check_code(queen_shutdown(0), QUEEN_OK);
  }
}

/* it waits for what goes on in the background after free without close */
TEST(waits_for_background_closes) {
  int i;
  for (i = 0; i < 5; i++) {
    queen_client_t *client = client_new();
    queen_future_free(queen_pop(client, "q", NULL, POLL_30S));
    queen_future_free(queen_push(client, "q", "p", "[{\"payload\":1}]", Z, NULL));
    queen_client_free(client);
  }
  check_code(queen_shutdown(LONG_MS), QUEEN_OK);
  check(threads_are_gone());
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

TEST(deadline_while_a_handler_runs) {
  queen_client_t *client = client_new();
  hold_t h = {GATE_INIT, GATE_INIT, GATE_INIT};
  queen_consumer_t *consumer;
  int32_t code;
  push_n(client, "q", "p", 0, 1);
  consumer = consume_at(client, "q", NULL, hold, &h, hold_freed, __FILE__, __LINE__);
  check(gate_reaches(&h.entered, 1, LONG_MS));
  queen_consumer_free(consumer);
  queen_client_free(client);
  code = queen_shutdown(300); /* the delivery lent to the handler is a live handle, or it is only slow */
  check(code == QUEEN_E_TIMEOUT || code == QUEEN_E_BUSY);
  gate_add(&h.go, 1);
  check(gate_reaches(&h.frees, 1, LONG_MS));
  check_code(queen_shutdown(LONG_MS), QUEEN_OK);
  check(threads_are_gone());
}

/* handler threads are made on demand and go after ten idle seconds */

TEST(idle_handler_threads_go) {
  queen_client_t *client = client_new();
  hold_t h = {GATE_INIT, GATE_INIT, GATE_INIT};
  queen_consumer_t *consumer;
  int with_handlers, i;
  int64_t until;
  for (i = 0; i < 8; i++) {
    char partition[8];
    snprintf(partition, sizeof partition, "p%d", i);
    push_n(client, "q", partition, i, 1);
  }
  consumer = consume(client, "q", "\"concurrency\":8", hold, &h);
  check(gate_reaches(&h.entered, 8, LONG_MS));
  with_handlers = other_threads(NULL, NULL);
  gate_add(&h.go, 1);
  for (until = now_ms() + LONG_MS; now_ms() < until && other_threads(NULL, NULL) > with_handlers - 8;) usleep(100000);
  check(other_threads(NULL, NULL) <= with_handlers - 8);
  push_n(client, "q", "again", 1, 1); /* and they come back */
  check(gate_reaches(&h.entered, 9, LONG_MS));
  consumer_end(consumer);
  client_end(client);
  check_code(queen_shutdown(LONG_MS), QUEEN_OK);
}

TESTS(cmocka_unit_test(nothing_is_started_before_first_use),
      cmocka_unit_test(busy_while_handles_live_then_every_thread_is_gone), cmocka_unit_test(waits_for_background_closes),
      cmocka_unit_test(deadline_while_a_handler_runs), cmocka_unit_test(idle_handler_threads_go))
