/* brokers: embedded. Consumers poll on through every failure and recover with the server. */
#include "process.h"

static int32_t count(queen_delivery_t *delivery, void *user_data) {
  size_t len;
  if (strstr(queen_delivery_json(delivery, &len), "canned") != NULL) gate_add((gate_t *)user_data, 1);
  return QUEEN_ACK;
}

/* the server fails in one way for a while, then hands out one message */
static void recovers_from(const char *mode, int requests) {
  scripted_t server = scripted_start(mode);
  queen_client_t *client = client_at(server.url);
  gate_t got = GATE_INIT;
  queen_consumer_t *consumer = consume(client, "q", "\"pollTimeoutMillis\":1000", count, &got);
  queen_future_t *ended = queen_consumer_future(consumer);
  check(scripted_reaches(&server, requests)); /* it has polled anew after a failure */
  check_code(queen_future_wait(ended, 0), QUEEN_E_TIMEOUT);
  check_code(gate_get(&got), 0);
  scripted_mode(&server, "canned");
  check(gate_reaches(&got, 1, LONG_MS));
  wait_json_has(queen_consumer_stop(consumer, LONG_MS), "\"acked\":1");
  wait_json_has(ended, "\"reason\":\"stopped\"");
  queen_consumer_free(consumer);
  client_end(client);
  scripted_stop(&server);
}

TEST(consumer_recovers_from_500) { recovers_from("500", 3); }
TEST(consumer_recovers_from_resets) { recovers_from("reset", 3); }
TEST(consumer_recovers_from_early_resets) { recovers_from("reset-early", 3); }
TEST(consumer_recovers_from_garbage) { recovers_from("garbage", 3); }
TEST(consumer_recovers_from_bad_json) { recovers_from("badjson", 3); }
TEST(consumer_recovers_from_half_bodies) { recovers_from("half", 3); }

TEST(consumer_recovers_from_a_broker_that_was_down) {
  scripted_t server = scripted_start("refuse");
  queen_client_t *client = client_at(server.url);
  gate_t got = GATE_INIT;
  queen_consumer_t *consumer = consume(client, "q", "\"pollTimeoutMillis\":1000", count, &got);
  queen_future_t *ended = queen_consumer_future(consumer);
  wait_code(queen_call(client, "health", NULL, 0), QUEEN_E_CONNECT); /* it has surely tried by now, too */
  check_code(queen_future_wait(ended, 1500), QUEEN_E_TIMEOUT);
  scripted_mode(&server, "canned");
  check(gate_reaches(&got, 1, LONG_MS));
  queen_future_free(ended);
  consumer_end(consumer);
  client_end(client);
  scripted_stop(&server);
}

/* it does not hammer a broker that fails: backoff between attempts */
TEST(failing_polls_back_off) {
  scripted_t server = scripted_start("500");
  queen_client_t *client = client_at(server.url);
  gate_t got = GATE_INIT;
  queen_consumer_t *consumer = consume(client, "q", NULL, count, &got);
  queen_future_t *ended = queen_consumer_future(consumer);
  char answer[64];
  int requests = 0;
  check(scripted_reaches(&server, 1));
  check_code(queen_future_wait(ended, 2000), QUEEN_E_TIMEOUT);
  scripted_ask(&server, "count\n", answer, sizeof answer);
  check(sscanf(answer, "count %d", &requests) == 1);
  check(requests < 200);
  queen_future_free(ended);
  consumer_end(consumer); /* and a stop does not wait for the backoff or the broker */
  client_end(client);
  scripted_stop(&server);
}

/* stopping is prompt while the broker holds the poll and will never answer */
TEST(stop_is_prompt_on_a_silent_broker) {
  scripted_t server = scripted_start("never");
  queen_client_t *client = client_at(server.url);
  gate_t got = GATE_INIT;
  queen_consumer_t *consumer = consume(client, "q", "\"pollTimeoutMillis\":30000", count, &got);
  int64_t start;
  check(scripted_reaches(&server, 1));
  start = now_ms();
  wait_ok(queen_consumer_stop(consumer, LONG_MS));
  check(now_ms() - start < PROMPT_MS);
  queen_consumer_free(consumer);
  wait_ok(queen_client_close(client, LONG_MS));
  check(now_ms() - start < PROMPT_MS);
  queen_client_free(client);
  scripted_stop(&server);
}

/* consumers fed into an event queue recover alike */
TEST(event_consumer_recovers_too) {
  scripted_t server = scripted_start("500:4");
  queen_client_t *client = client_at(server.url);
  queen_event_queue_t *events = queen_event_queue_new();
  queen_consumer_t *consumer = consume_into(client, "q", "\"limit\":1,\"pollTimeoutMillis\":1000", events, 5);
  queen_event_t event;
  poll_event(events, &event);
  check_code(event.type, QUEEN_EVENT_DELIVERY);
  wait_ok(queen_delivery_ack((const queen_delivery_t *)event.object));
  queen_events_free(&event, 1);
  poll_event(events, &event);
  check_code(event.type, QUEEN_EVENT_CONSUMER_ENDED);
  check_json(event.json, "\"reason\":\"limit\"");
  queen_events_free(&event, 1);
  queen_consumer_free(consumer);
  client_end(client);
  queen_event_queue_free(events);
  scripted_stop(&server);
}

/* works until it hears that the lease is over */
static int32_t until_lost(queen_delivery_t *delivery, void *user_data) {
  int64_t until = now_ms() + LONG_MS;
  while (queen_delivery_is_lost(delivery) == 0 && now_ms() < until) usleep(5000);
  if (queen_delivery_is_lost(delivery) == 1) gate_add((gate_t *)user_data, 1);
  return QUEEN_ACK;
}

TEST(c40_x44_a_handler_hears_that_its_lease_is_lost) {
  scripted_t server = scripted_start("lost");
  queen_client_t *client = client_at(server.url);
  gate_t lost = GATE_INIT;
  queen_consumer_t *consumer = consume(client, "q", "\"leaseSeconds\":1,\"limit\":1", until_lost, &lost);
  char *summary = wait_json(queen_consumer_future(consumer));
  check_code(gate_get(&lost), 1);
  check_json(summary, "\"acked\":0");
  check_json(summary, "\"unsettled\":1"); /* the broker has refused the ack: the message comes again */
  free(summary);
  queen_consumer_free(consumer);
  client_end(client);
  scripted_stop(&server);
}

TEST(c40_x44_an_event_tells_that_the_lease_is_lost) {
  scripted_t server = scripted_start("lost");
  queen_client_t *client = client_at(server.url);
  queen_event_queue_t *events = queen_event_queue_new();
  queen_consumer_t *consumer = consume_into(client, "q", "\"leaseSeconds\":1,\"limit\":1", events, 9);
  queen_delivery_t *delivery;
  queen_event_t event;
  poll_event(events, &event);
  delivery = queen_event_take_delivery(&event);
  queen_events_free(&event, 1);
  poll_event(events, &event);
  check_code(event.type, QUEEN_EVENT_LEASE_LOST);
  check(event.tag == 9);
  check_json(event.json, "\"leaseId\":\"lease-1\"");
  check_json(event.json, "\"certain\":true");
  queen_events_free(&event, 1);
  check_code(queen_delivery_is_lost(delivery), 1);
  wait_code(queen_delivery_ack(delivery), QUEEN_E_LEASE_LOST);
  queen_delivery_free(delivery);
  wait_json_has(queen_consumer_future(consumer), "\"reason\":\"limit\"");
  queen_consumer_free(consumer);
  queen_event_queue_free(events);
  client_end(client);
  scripted_stop(&server);
}

/* what no further poll would mend ends it, with an error that carries what it did */
TEST(c5_x38_a_refused_consumer_ends_with_an_error_and_its_summary) {
  scripted_t server = scripted_start("token-secret");
  queen_client_t *client = client_at(server.url);
  queen_event_queue_t *events = queen_event_queue_new();
  queen_consumer_t *consumer = consume_into(client, "q", "\"concurrency\":3", events, 5);
  queen_future_t *future = queen_consumer_future(consumer);
  queen_event_t event;
  check_code(queen_future_wait(future, LONG_MS), QUEEN_OK);
  check_code(queen_error_code(queen_future_error(future)), QUEEN_E_UNAUTHORIZED);
  check_json(queen_future_json(future, NULL), "\"reason\":\"error\"");
  queen_future_free(future);
  poll_event(events, &event);
  check_code(event.type, QUEEN_EVENT_CONSUMER_ENDED);
  check_code(event.code, QUEEN_E_UNAUTHORIZED);
  check_json(event.json, "\"reason\":\"error\"");
  queen_events_free(&event, 1);
  queen_consumer_free(consumer);
  queen_event_queue_free(events);
  client_end(client);
  scripted_stop(&server);
}

TESTS(cmocka_unit_test(c40_x44_a_handler_hears_that_its_lease_is_lost),
      cmocka_unit_test(c40_x44_an_event_tells_that_the_lease_is_lost),
      cmocka_unit_test(c5_x38_a_refused_consumer_ends_with_an_error_and_its_summary),
      cmocka_unit_test(consumer_recovers_from_500), cmocka_unit_test(consumer_recovers_from_resets),
      cmocka_unit_test(consumer_recovers_from_early_resets), cmocka_unit_test(consumer_recovers_from_garbage),
      cmocka_unit_test(consumer_recovers_from_bad_json), cmocka_unit_test(consumer_recovers_from_half_bodies),
      cmocka_unit_test(consumer_recovers_from_a_broker_that_was_down), cmocka_unit_test(failing_polls_back_off),
      cmocka_unit_test(stop_is_prompt_on_a_silent_broker), cmocka_unit_test(event_consumer_recovers_too))
