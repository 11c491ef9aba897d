/* brokers: embedded. A forked child: the parent's handles answer FORKED, a new client works. */
#include "process.h"

#include <sys/mman.h>

/* in memory shared with the child: counts user_data_free runs by process */
typedef struct frees_t {
  pid_t parent;
  int in_parent, in_child;
} frees_t;
static frees_t *frees;

static void freed(void *user_data) {
  (void)user_data;
  if (getpid() == frees->parent) frees->in_parent++;
  else frees->in_child++;
}

typedef struct handles_t {
  queen_client_t *client;
  queen_future_t *done, *waiting, *routed;
  queen_event_queue_t *events;
  queen_consumer_t *by_callback, *by_event;
  queen_delivery_t *delivery;
  queen_transaction_t *transaction;
  queen_error_t *error;
  queen_event_t event;
  const char *url; /* of the parent's store */
} handles_t;

static int32_t ack(queen_delivery_t *delivery, void *user_data) {
  (void)delivery;
  (void)user_data;
  return QUEEN_ACK;
}
static void on_complete(const queen_future_t *future, void *user_data) {
  (void)future;
  (void)user_data;
}
static void on_log(int32_t level, const char *json, size_t len, void *user_data) {
  (void)level, (void)json, (void)len, (void)user_data;
}

static handles_t make(const char *url) {
  handles_t h;
  memset(&h, 0, sizeof h);
  h.url = url;
  frees = (frees_t *)mmap(NULL, sizeof *frees, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  memset(frees, 0, sizeof *frees);
  frees->parent = getpid();
  h.client = client_at(url);
  h.events = queen_event_queue_new();
  push_n(h.client, "q", "p", 1, 1);
  push_n(h.client, "q", "e", 2, 1);
  h.done = queen_push(h.client, "q", "x", "[{\"payload\":1}]", Z, NULL);
  check_code(queen_future_wait(h.done, LONG_MS), QUEEN_OK);
  h.delivery = pop(h.client, "q", "p", POLL_10S);
  check(h.delivery != NULL);
  h.waiting = queen_pop(h.client, "empty", NULL, POLL_30S);
  h.routed = queen_pop(h.client, "empty", NULL, POLL_30S);
  check_code(queen_future_on_complete(h.routed, on_complete, NULL, freed), QUEEN_OK);
  h.by_callback = consume_at(h.client, "empty", NULL, ack, NULL, freed, __FILE__, __LINE__);
  h.by_event = consume_into(h.client, "q", "\"partition\":\"e\"", h.events, 1);
  h.transaction = queen_transaction_new(h.client);
  poll_event(h.events, &h.event);
  check_code(queen_event_queue_fd(h.events) >= 0, 1);
  check(queen_client_new("nonsense:", Z, &h.error) == NULL);
  return h;
}

static void end(handles_t *h) {
  queen_events_free(&h->event, 1);
  queen_future_free(h->done);
  queen_future_free(h->waiting);
  queen_future_free(h->routed);
  queen_delivery_free(h->delivery);
  queen_transaction_free(h->transaction);
  queen_consumer_free(h->by_callback);
  queen_consumer_free(h->by_event);
  queen_error_free(h->error);
  client_end(h->client);
  queen_event_queue_free(h->events);
  check_code(frees->in_child, 0);
  check_code(frees->in_parent, 2);
  munmap(frees, sizeof *frees);
}

/* a future made in the child by a handle of the parent: failed already */
static int forked(queen_future_t *future) {
  int ok = future != NULL && queen_future_wait(future, 0) == QUEEN_OK &&
           queen_error_code(queen_future_error(future)) == QUEEN_E_FORKED;
  queen_future_free(future);
  return ok;
}

static int child_asks(void *argument) {
  handles_t *h = (handles_t *)argument;
  queen_error_t *error = NULL;
  queen_event_t event;
  queen_message_view_t view;
  int before;
  CHILD_CHECK(forked(queen_push(h->client, "q", "p", "[]", Z, NULL)));
  CHILD_CHECK(forked(queen_pop(h->client, "q", "p", NULL)));
  CHILD_CHECK(forked(queen_ack(h->client, "[]", Z, NULL)));
  CHILD_CHECK(forked(queen_renew(h->client, "lease", 10, NULL)));
  CHILD_CHECK(forked(queen_flush(h->client, NULL)));
  CHILD_CHECK(forked(queen_call(h->client, "health", NULL, 0)));
  CHILD_CHECK(forked(queen_client_ready(h->client)));
  CHILD_CHECK(forked(queen_client_close(h->client, LONG_MS)));
  CHILD_CHECK(queen_future_wait(h->waiting, LONG_MS) == QUEEN_E_FORKED);
  CHILD_CHECK(queen_future_wait(h->done, 0) == QUEEN_E_FORKED);
  CHILD_CHECK(queen_future_cancel(h->waiting) == QUEEN_E_FORKED);
  CHILD_CHECK(queen_future_deliver(h->waiting, h->events, 1) == QUEEN_E_FORKED);
  before = frees->in_child;
  CHILD_CHECK(queen_future_on_complete(h->waiting, on_complete, NULL, freed) == QUEEN_E_FORKED);
  CHILD_CHECK(frees->in_child == before + 1); /* the child's own call failed, so it ran, here */
  frees->in_child = before;
  CHILD_CHECK(queen_future_json(h->done, NULL) == NULL);
  CHILD_CHECK(queen_future_take_delivery(h->done) == NULL);
  CHILD_CHECK(queen_event_queue_poll(h->events, &event, sizeof event, 1, LONG_MS) == QUEEN_E_FORKED);
  CHILD_CHECK(queen_event_queue_fd(h->events) == QUEEN_E_FORKED);
  CHILD_CHECK(queen_event_queue_wakeup(h->events) == QUEEN_E_FORKED);
  CHILD_CHECK(queen_consume(h->client, "{\"queue\":\"q\"}", Z, ack, NULL, NULL, &error) == NULL);
  CHILD_CHECK(queen_error_code(error) == QUEEN_E_FORKED);
  queen_error_free(error);
  CHILD_CHECK(queen_consume_events(h->client, "{\"queue\":\"q\"}", Z, h->events, 1, &error) == NULL);
  CHILD_CHECK(queen_error_code(error) == QUEEN_E_FORKED);
  queen_error_free(error);
  CHILD_CHECK(forked(queen_consumer_future(h->by_callback)));
  CHILD_CHECK(forked(queen_consumer_stop(h->by_event, LONG_MS)));
  CHILD_CHECK(forked(queen_delivery_ack(h->delivery)));
  CHILD_CHECK(forked(queen_delivery_nack(h->delivery, "no")));
  CHILD_CHECK(forked(queen_delivery_settle(h->delivery, "[]", Z)));
  CHILD_CHECK(queen_transaction_new(h->client) == NULL);
  CHILD_CHECK(queen_transaction_ack(h->transaction, h->delivery, 0, NULL) == QUEEN_E_FORKED);
  CHILD_CHECK(queen_transaction_push(h->transaction, "q", NULL, "[]", Z, NULL) == QUEEN_E_FORKED);
  CHILD_CHECK(forked(queen_transaction_commit(h->transaction, NULL)));
  CHILD_CHECK(queen_delivery_view(h->delivery, &view, sizeof view, 0, 1) == QUEEN_E_FORKED);
  CHILD_CHECK(queen_log_callback(h->client, QUEEN_LOG_INFO, on_log, NULL, NULL) == QUEEN_E_FORKED);
  CHILD_CHECK(queen_log_events(h->client, QUEEN_LOG_INFO, h->events, 1) == QUEEN_E_FORKED);
  return 0;
}

static int child_frees(void *argument) {
  handles_t *h = (handles_t *)argument;
  queen_events_free(&h->event, 1);
  queen_future_free(h->waiting);
  queen_future_free(h->routed);
  queen_future_free(h->done);
  queen_delivery_free(h->delivery);
  queen_transaction_free(h->transaction);
  queen_consumer_free(h->by_callback);
  queen_consumer_free(h->by_event);
  queen_client_free(h->client);
  queen_event_queue_free(h->events);
  queen_error_free(h->error);
  CHILD_CHECK(frees->in_child == 0);
  return 0;
}

/* what every child may do: a client of its own, with all that belongs to it */
static int child_works(void *argument) {
  queen_client_t *client = queen_client_new((const char *)argument, Z, NULL);
  queen_event_queue_t *events = queen_event_queue_new();
  queen_future_t *future;
  queen_delivery_t *delivery;
  queen_consumer_t *consumer;
  queen_event_t event;
  CHILD_CHECK(client != NULL && events != NULL);
  future = queen_push(client, "mine", "p", "[{\"payload\":{\"n\":5}},{\"payload\":{\"n\":6}}]", Z, NULL);
  CHILD_CHECK(queen_future_wait(future, LONG_MS) == QUEEN_OK && queen_future_error(future) == NULL);
  queen_future_free(future);
  future = queen_pop(client, "mine", "p", POLL_10S);
  CHILD_CHECK(queen_future_wait(future, LONG_MS) == QUEEN_OK);
  delivery = queen_future_take_delivery(future);
  queen_future_free(future);
  CHILD_CHECK(number_at(delivery, 0) == 5);
  future = queen_delivery_ack(delivery);
  CHILD_CHECK(queen_future_wait(future, LONG_MS) == QUEEN_OK && queen_future_error(future) == NULL);
  queen_future_free(future);
  queen_delivery_free(delivery);
  consumer = queen_consume_events(client, "{\"queue\":\"mine\"}", Z, events, 1, NULL);
  CHILD_CHECK(consumer != NULL);
  CHILD_CHECK(queen_event_queue_poll(events, &event, sizeof event, 1, LONG_MS) == 1);
  CHILD_CHECK(number_at((const queen_delivery_t *)event.object, 0) == 6);
  queen_events_free(&event, 1);
  queen_consumer_free(consumer);
  future = queen_client_close(client, LONG_MS);
  CHILD_CHECK(queen_future_wait(future, LONG_MS) == QUEEN_OK && queen_future_error(future) == NULL);
  queen_future_free(future);
  queen_client_free(client);
  queen_event_queue_free(events);
  CHILD_CHECK(queen_shutdown(LONG_MS) == QUEEN_OK);
  return 0;
}

static int child_frees_then_works(void *argument) {
  int line = child_frees(argument);
  return line != 0 ? line : child_works((void *)"embedded:");
}

static int child_of_child(void *argument) {
  queen_client_t *client = queen_client_new("embedded:", Z, NULL);
  queen_future_t *future = queen_call(client, "health", NULL, 0);
  (void)argument;
  CHILD_CHECK(queen_future_wait(future, LONG_MS) == QUEEN_OK);
  queen_future_free(future);
  CHILD_CHECK(in_child(child_works, (void *)"embedded:") == 0);
  future = queen_call(client, "health", NULL, 0); /* and the child's own client goes on */
  CHILD_CHECK(queen_future_wait(future, LONG_MS) == QUEEN_OK && queen_future_error(future) == NULL);
  return 0;
}

static int child_opens_the_store(void *argument) {
  queen_client_t *client = queen_client_new((const char *)argument, Z, NULL);
  queen_future_t *future;
  int32_t code;
  CHILD_CHECK(client != NULL);
  future = queen_call(client, "health", NULL, 0);
  CHILD_CHECK(queen_future_wait(future, LONG_MS) == QUEEN_OK);
  code = queen_error_code(queen_future_error(future));
  CHILD_CHECK(code == QUEEN_E_LOCKED);
  CHILD_CHECK(strstr(queen_error_message(queen_future_error(future)), "fork") != NULL);
  return 0;
}

TEST(parents_handles_answer_forked) {
  handles_t h = make("embedded:");
  check_code(in_child(child_asks, &h), 0);
  push_n(h.client, "q", "after", 1, 1); /* the parent has noticed nothing */
  end(&h);
}

TEST(freeing_in_the_child_does_not_hang) {
  handles_t h = make("embedded:");
  check_code(in_child(child_frees, &h), 0);
  check_code(in_child(child_frees_then_works, &h), 0);
  end(&h);
}

TEST(child_works_with_a_client_of_its_own) {
  handles_t h = make("embedded:");
  int i;
  for (i = 0; i < 10; i++) check_code(in_child(child_works, (void *)"embedded:"), 0);
  check_code(in_child(child_of_child, NULL), 0);
  end(&h);
  check_code(in_child(child_works, (void *)"embedded:"), 0); /* also with nothing alive here */
}

TEST(store_open_at_the_fork_stays_the_parents) {
  scratch_t scratch = scratch_new();
  char url[512], other[512];
  handles_t h;
  snprintf(url, sizeof url, "%s", scratch_url(&scratch, "mine.db"));
  snprintf(other, sizeof other, "%s", scratch_url(&scratch, "other.db"));
  h = make(url);
  check_code(in_child(child_opens_the_store, url), 0);
  check_code(in_child(child_works, other), 0);
  push_n(h.client, "q", "after", 1, 1); /* its lock and its store have survived both children */
  {
    char line[512];
    helper_t helper = helper_start("open", url);
    check(helper_line(&helper, line, sizeof line));
    check(strncmp(line, "QUEEN_E_LOCKED", 14) == 0);
    check_code(helper_end(&helper, line, sizeof line), 0);
  }
  end(&h);
  scratch_end(&scratch);
}

static int child_uses_broker(void *argument) {
  queen_broker_t *broker = (queen_broker_t *)argument, *own;
  queen_client_t *client;
  queen_future_t *future;
  CHILD_CHECK(forked(queen_broker_faults(broker)));
  CHILD_CHECK(forked(queen_broker_stop(broker, LONG_MS)));
  CHILD_CHECK(forked(queen_broker_restart(broker)));
  CHILD_CHECK(queen_broker_url(broker) == NULL && queen_broker_address(broker, 0) == NULL);
  queen_broker_free(broker); /* leaks on purpose */
  own = queen_broker_start("{\"testing\":true,\"name\":\"kin\"}", Z, NULL); /* the name is free here */
  CHILD_CHECK(own != NULL);
  client = queen_client_new(queen_broker_url(own), Z, NULL);
  future = queen_push(client, "q", "p", "[{\"payload\":1}]", Z, NULL);
  CHILD_CHECK(queen_future_wait(future, LONG_MS) == QUEEN_OK && queen_future_error(future) == NULL);
  queen_future_free(future);
  queen_client_free(client);
  queen_broker_free(own);
  return 0;
}
TEST(broker_of_the_parent_is_not_the_childs) {
  queen_broker_t *broker = queen_broker_start("{\"testing\":true,\"name\":\"kin\",\"listen\":\"127.0.0.1:0\"}", Z, NULL);
  queen_client_t *client = client_at(queen_broker_address(broker, 0));
  push_n(client, "q", "p", 1, 1);
  check_code(in_child(child_uses_broker, broker), 0);
  push_n(client, "q", "p", 2, 1); /* the parent's lives on */
  client_end(client);
  wait_ok(queen_broker_stop(broker, LONG_MS));
  queen_broker_free(broker);
}

TESTS(cmocka_unit_test(parents_handles_answer_forked), cmocka_unit_test(freeing_in_the_child_does_not_hang),
      cmocka_unit_test(child_works_with_a_client_of_its_own), cmocka_unit_test(store_open_at_the_fork_stays_the_parents),
      cmocka_unit_test(broker_of_the_parent_is_not_the_childs))
