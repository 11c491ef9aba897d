/* brokers: all. Consumers whose deliveries arrive as events. */
#include "harness.h"

#include <sys/select.h>

TEST(deliveries_arrive_as_events) {
  queen_client_t *client = client_new();
  const char *queue = queue_new(client, NULL);
  queen_event_queue_t *events = queen_event_queue_new();
  queen_consumer_t *consumer;
  queen_event_t event;
  int i;
  push_n(client, queue, "p", 0, 3);
  consumer = consume_into(client, queue, "\"limit\":3", events, 42);
  for (i = 0; i < 3; i++) {
    queen_delivery_t *delivery;
    poll_event(events, &event);
    check_code(event.type, QUEEN_EVENT_DELIVERY);
    check(event.tag == 42 && event.object != NULL);
    /* taken: the event no longer owns it */
    delivery = queen_event_take_delivery(&event);
    check(delivery != NULL && event.object == NULL);
    check(queen_event_take_delivery(&event) == NULL);
    queen_events_free(&event, 1);
    check_code(number_at(delivery, 0), i);
    check_code(queen_event_queue_poll(events, &event, sizeof event, 1, 0), 0); /* the next waits for the verdict */
    wait_ok(queen_delivery_ack(delivery));
    queen_delivery_free(delivery);
  }
  poll_event(events, &event);
  check_code(event.type, QUEEN_EVENT_CONSUMER_ENDED);
  check_code(event.code, QUEEN_OK);
  check(event.tag == 42);
  check_json(event.json, "\"reason\":\"limit\"");
  check_json(event.json, "\"acked\":3");
  queen_events_free(&event, 1);
  check(queen_event_take_delivery(&event) == NULL);
  wait_json_has(queen_consumer_future(consumer), "\"reason\":\"limit\"");
  queen_consumer_free(consumer);
  queen_event_queue_free(events);
  client_end(client);
}

/* what is handled brings the next in hand, as long as there is one at hand */
TEST(message_after_message) {
  queen_client_t *client = client_new();
  const char *queue = queue_new(client, "{\"leaseTime\":120}");
  queen_event_queue_t *events = queen_event_queue_new();
  queen_consumer_t *consumer;
  queen_delivery_t *delivery, *next;
  queen_event_t event;
  int i;
  push_n(client, queue, "p", 0, 4);
  consumer = consume_into(client, queue, "\"batch\":10,\"each\":true", events, 1);
  poll_event(events, &event);
  delivery = queen_event_take_delivery(&event);
  queen_events_free(&event, 1);
  for (i = 0; i < 4; i++, delivery = next) {
    check(delivery != NULL);
    check_code(number_at(delivery, 0), i);
    next = queen_delivery_next(delivery);
    check(queen_delivery_next(delivery) == NULL); /* once */
    check_code(number_at(delivery, 0), i);        /* still readable */
    queen_delivery_free(delivery);
  }
  check(delivery == NULL && queen_delivery_next(NULL) == NULL);
  check_code(queen_event_queue_poll(events, &event, sizeof event, 1, 0), 0);
  push_n(client, queue, "p", 4, 1); /* the next comes as an event */
  poll_event(events, &event);
  check_code(number_at((const queen_delivery_t *)event.object, 0), 4);
  wait_ok(queen_delivery_ack((const queen_delivery_t *)event.object));
  queen_events_free(&event, 1);
  wait_json_has(queen_consumer_stop(consumer, LONG_MS), "\"acked\":5");
  queen_consumer_free(consumer);
  queen_event_queue_free(events);
  client_end(client);
}

/* freeing the event frees the delivery it owns, which gives its messages back without a charge */
TEST(event_freed_with_its_delivery_gives_back) {
  queen_client_t *client = client_new();
  const char *queue = queue_new(client, "{\"leaseTime\":120,\"retryLimit\":0}");
  queen_event_queue_t *events = queen_event_queue_new();
  queen_consumer_t *consumer;
  queen_event_t event;
  queen_delivery_t *delivery;
  int i;
  push_n(client, queue, "p", 4, 1);
  consumer = consume_into(client, queue, NULL, events, 1);
  for (i = 0; i < 3; i++) {
    poll_event(events, &event);
    check_code(event.type, QUEEN_EVENT_DELIVERY);
    /* readable in the event too, without taking it */
    check_code(number_at((const queen_delivery_t *)event.object, 0), 4);
    queen_events_free(&event, 1);
  }
  poll_event(events, &event);
  delivery = queen_event_take_delivery(&event);
  queen_events_free(&event, 1);
  wait_ok(queen_delivery_ack(delivery));
  queen_delivery_free(delivery);
  consumer_end(consumer);
  queen_event_queue_free(events);
  client_end(client);
}

TEST(nack_after_the_event_was_freed) {
  queen_client_t *client = client_new();
  const char *queue = queue_new(client, "{\"leaseTime\":120,\"retryLimit\":1}");
  queen_event_queue_t *events = queen_event_queue_new();
  queen_consumer_t *consumer;
  queen_event_t event;
  int i;
  push_n(client, queue, "p", 4, 1);
  consumer = consume_into(client, queue, "\"idleMillis\":1500", events, 1);
  for (i = 0; i < 2; i++) {
    queen_delivery_t *delivery;
    poll_event(events, &event);
    delivery = queen_event_take_delivery(&event);
    check(delivery != NULL);
    queen_events_free(&event, 1);
    wait_ok(queen_delivery_nack(delivery, "no good"));
    queen_delivery_free(delivery);
  }
  poll_event(events, &event); /* dead-lettered: nothing but the end follows */
  check_code(event.type, QUEEN_EVENT_CONSUMER_ENDED);
  check_json(event.json, "\"reason\":\"idle\"");
  check_json(event.json, "\"nacked\":2");
  queen_events_free(&event, 1);
  queen_consumer_free(consumer);
  queen_event_queue_free(events);
  client_end(client);
}

/* stop gives back what no poller has taken, and waits for what one has */
TEST(stop_gives_back_what_nobody_took) {
  queen_client_t *client = client_new();
  const char *queue = queue_new(client, "{\"leaseTime\":120}");
  queen_event_queue_t *events = queen_event_queue_new();
  queen_consumer_t *consumer;
  queen_event_t event;
  queen_delivery_t *taken, *rest;
  queen_future_t *stop;
  push_n(client, queue, "a", 1, 1);
  push_n(client, queue, "b", 2, 1);
  consumer = consume_into(client, queue, "\"concurrency\":2", events, 1);
  poll_event(events, &event);
  taken = queen_event_take_delivery(&event);
  queen_events_free(&event, 1);
  stop = queen_consumer_stop(consumer, LONG_MS);
  check_code(queen_future_wait(stop, 300), QUEEN_E_TIMEOUT);
  rest = pop(client, queue, NULL, POLL_30S);
  check_code(number_at(rest, 0) + number_at(taken, 0), 3);
  wait_ok(queen_delivery_ack(taken));
  queen_delivery_free(taken);
  wait_ok(stop);
  poll_event(events, &event);
  check_code(event.type, QUEEN_EVENT_CONSUMER_ENDED); /* the delivery nobody took is gone from the queue */
  check_json(event.json, "\"reason\":\"stopped\"");
  check_json(event.json, "\"unsettled\":0"); /* and was never handed over */
  queen_events_free(&event, 1);
  wait_ok(queen_delivery_ack(rest));
  queen_delivery_free(rest);
  queen_consumer_free(consumer);
  queen_event_queue_free(events);
  client_end(client);
}

/* freeing the queue stops the consumers that feed it and gives their deliveries back */
TEST(queue_freed_stops_its_consumers) {
  queen_client_t *client = client_new();
  const char *queue = queue_new(client, "{\"leaseTime\":120,\"retryLimit\":0}");
  queen_event_queue_t *events = queen_event_queue_new();
  queen_consumer_t *consumer;
  queen_delivery_t *delivery;
  int fd = queen_event_queue_fd(events);
  fd_set set;
  struct timeval limit = {LONG_MS / 1000, 0};
  push_n(client, queue, "p", 0, 2);
  consumer = consume_into(client, queue, "\"batch\":2", events, 1);
  FD_ZERO(&set);
  FD_SET(fd, &set);
  check_code(select(fd + 1, &set, NULL, NULL, &limit), 1); /* a delivery waits inside */
  queen_event_queue_free(events);
  {
    queen_future_t *future = queen_consumer_future(consumer);
    check_code(queen_future_wait(future, LONG_MS), QUEEN_OK);
    queen_future_free(future);
  }
  delivery = pop(client, queue, NULL, "{\"wait\":true,\"pollTimeoutMillis\":30000,\"batch\":10}");
  check_code(queen_delivery_count(delivery), 2);
  wait_ok(queen_delivery_ack(delivery));
  queen_delivery_free(delivery);
  queen_consumer_free(consumer);
  client_end(client);
}

/* a delivery taken before is the caller's, whatever happens to queue, consumer and event */
TEST(taken_delivery_outlives_queue_and_consumer) {
  queen_client_t *client = client_new();
  const char *queue = queue_new(client, "{\"leaseTime\":120}");
  queen_event_queue_t *events = queen_event_queue_new();
  queen_consumer_t *consumer;
  queen_delivery_t *delivery;
  queen_event_t event;
  push_n(client, queue, "p", 6, 1);
  consumer = consume_into(client, queue, NULL, events, 1);
  poll_event(events, &event);
  delivery = queen_event_take_delivery(&event);
  queen_events_free(&event, 1);
  queen_event_queue_free(events);
  queen_consumer_free(consumer);
  check_code(number_at(delivery, 0), 6);
  wait_ok(queen_delivery_ack(delivery));
  queen_delivery_free(delivery);
  check(pop(client, queue, NULL, "{\"wait\":true,\"pollTimeoutMillis\":500}") == NULL);
  client_end(client);
}

/* a lease that ends behind our back is told as an event */
TEST(lost_lease_is_told) {
  queen_client_t *client = client_new();
  const char *queue = queue_new(client, "{\"leaseTime\":120}");
  queen_event_queue_t *events = queen_event_queue_new();
  queen_consumer_t *consumer;
  queen_delivery_t *delivery;
  queen_event_t event;
  push_n(client, queue, "p", 0, 1);
  consumer = consume_into(client, queue, "\"leaseSeconds\":1,\"maxHandlingSeconds\":1", events, 9);
  poll_event(events, &event);
  delivery = queen_event_take_delivery(&event);
  check(delivery != NULL);
  queen_events_free(&event, 1);
  poll_event(events, &event);
  check_code(event.type, QUEEN_EVENT_LEASE_LOST);
  check(event.tag == 9);
  check(event.json != NULL && strlen(event.json) == event.json_len);
  queen_events_free(&event, 1);
  check_code(queen_delivery_is_lost(delivery), 1);
  wait_code(queen_delivery_ack(delivery), QUEEN_E_LEASE_LOST);
  queen_delivery_free(delivery);
  wait_ok(queen_consumer_stop(consumer, LONG_MS));
  queen_consumer_free(consumer);
  queen_event_queue_free(events);
  client_end(client);
}

TESTS(cmocka_unit_test(deliveries_arrive_as_events), cmocka_unit_test(message_after_message),
      cmocka_unit_test(event_freed_with_its_delivery_gives_back),
      cmocka_unit_test(nack_after_the_event_was_freed), cmocka_unit_test(stop_gives_back_what_nobody_took),
      cmocka_unit_test(queue_freed_stops_its_consumers), cmocka_unit_test(taken_delivery_outlives_queue_and_consumer),
      cmocka_unit_test(lost_lease_is_told))
