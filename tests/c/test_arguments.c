/* brokers: embedded. NULL, bad UTF-8, (NULL, n) and wrong numbers to every argument of every
 * function. A wrong argument is answered; it never crashes and never does half of the work. */
#include "harness.h"

#define BAD "bad\xff\xfe"
#define ARG QUEEN_E_INVALID_ARGUMENT
#define UTF QUEEN_E_INVALID_UTF8
#define JSN QUEEN_E_INVALID_JSON
#define CFG QUEEN_E_INVALID_CONFIG
#define ITEMS "[{\"payload\":1}]"
#define ACKS "[{\"transactionId\":\"t\",\"partitionId\":\"p\",\"leaseId\":\"l\"}]"

static queen_client_t *client;
static const char *queue;

/* each row: the call and what its future must hold */
#define FAILS(call, wanted)                                                      \
  do {                                                                           \
    queen_future_t *future_ = (call);                                            \
    if (future_ == NULL) fail_msg("%s gave no future", #call);                   \
    /* "bad arguments give a future that has failed already" */                  \
    check_code_at(queen_future_wait(future_, 0), QUEEN_OK, #call, __FILE__, __LINE__); \
    check_code_at(queen_error_code(queen_future_error(future_)), (wanted), #call, __FILE__, __LINE__); \
    check(queen_future_json(future_, NULL) == NULL);                             \
    check(*queen_error_message(queen_future_error(future_)) != '\0');            \
    queen_future_free(future_);                                                  \
  } while (0)

static void begin(void) {
  client = client_new();
  queue = queue_new(client, NULL);
}

TEST(push_checks_its_arguments) {
  begin();
  FAILS(queen_push(NULL, queue, "p", ITEMS, Z, NULL), ARG);
  FAILS(queen_push(client, NULL, "p", ITEMS, Z, NULL), ARG);
  FAILS(queen_push(client, "", "p", ITEMS, Z, NULL), ARG);
  FAILS(queen_push(client, "control\x01", "p", ITEMS, Z, NULL), ARG);
  FAILS(queen_push(client, BAD, "p", ITEMS, Z, NULL), UTF);
  FAILS(queen_push(client, queue, BAD, ITEMS, Z, NULL), UTF);
  FAILS(queen_push(client, queue, "p", NULL, 5, NULL), ARG);
  FAILS(queen_push(client, queue, "p", NULL, Z, NULL), ARG);
  FAILS(queen_push(client, queue, "p", "[{\"payload\":\"" BAD "\"}]", Z, NULL), UTF);
  FAILS(queen_push(client, queue, "p", ITEMS, Z, BAD), UTF);
  FAILS(queen_push(client, queue, "p", "[{\"payload\":", Z, NULL), JSN);
  FAILS(queen_push(client, queue, "p", "[] []", Z, NULL), JSN);
  FAILS(queen_push(client, queue, "p", ITEMS, 3, NULL), JSN); /* the length counts, not the NUL */
  FAILS(queen_push(client, queue, "p", ITEMS, Z, "{"), JSN);
  FAILS(queen_push(client, queue, "p", ITEMS, Z, "{\"timeoutMillis\":-1}"), CFG);
  FAILS(queen_push(client, queue, "p", ITEMS, Z, "{\"timeoutMillis\":\"soon\"}"), CFG);
  FAILS(queen_push(client, queue, "p", ITEMS, Z, "{\"nonsense\":1}"), CFG);
  FAILS(queen_push(client, queue, "p", ITEMS, Z, "[]"), CFG);
  /* none of them stored anything */
  check(pop(client, queue, NULL, NO_WAIT) == NULL);
  client_end(client);
}

/* wrong shapes, which are valid JSON: some argument error, whichever names it best */
TEST(push_checks_its_items) {
  static const char *const items[] = {"{\"payload\":1}", "1", "null", "\"text\"", "[1]", "[null]", "[{}]",
                                      "[{\"payload\":1,\"transactionId\":5}]", "[{\"data\":1}]"};
  size_t i;
  begin();
  for (i = 0; i < LEN(items); i++) {
    int32_t code = code_of(queen_push(client, queue, NULL, items[i], Z, NULL));
    if (code != ARG && code != JSN && code != CFG) fail_msg("%s gives %s", items[i], code_text(code));
  }
  check(pop(client, queue, NULL, NO_WAIT) == NULL);
  /* (NULL, 0) is a valid empty buffer: whatever "" gets, it gets */
  check_code(code_of(queen_push(client, queue, NULL, NULL, 0, NULL)), code_of(queen_push(client, queue, NULL, "", 0, NULL)));
  wait_ok(queen_push(client, queue, NULL, ITEMS "garbage behind the length", strlen(ITEMS), "{}"));
  client_end(client);
}

TEST(pop_checks_its_arguments) {
  begin();
  FAILS(queen_pop(NULL, queue, NULL, NULL), ARG);
  FAILS(queen_pop(client, NULL, NULL, NULL), ARG);
  FAILS(queen_pop(client, "", NULL, NULL), ARG);
  FAILS(queen_pop(client, BAD, NULL, NULL), UTF);
  FAILS(queen_pop(client, queue, BAD, NULL), UTF);
  FAILS(queen_pop(client, queue, NULL, BAD), UTF);
  FAILS(queen_pop(client, queue, NULL, "{\"wait\":"), JSN);
  FAILS(queen_pop(client, queue, NULL, "{\"wait\":1}"), CFG);
  FAILS(queen_pop(client, queue, NULL, "{\"batch\":0}"), CFG);
  FAILS(queen_pop(client, queue, NULL, "{\"batch\":-5}"), CFG);
  FAILS(queen_pop(client, queue, NULL, "{\"batch\":1.5}"), CFG);
  FAILS(queen_pop(client, queue, NULL, "{\"leaseSeconds\":-1}"), CFG);
  FAILS(queen_pop(client, queue, NULL, "{\"pollTimeoutMillis\":-1}"), CFG);
  FAILS(queen_pop(client, queue, NULL, "{\"bacth\":1}"), CFG);
  client_end(client);
}

TEST(ack_renew_and_flush_check_their_arguments) {
  begin();
  FAILS(queen_ack(NULL, ACKS, Z, NULL), ARG);
  FAILS(queen_ack(client, NULL, 4, NULL), ARG);
  FAILS(queen_ack(client, NULL, Z, NULL), ARG);
  FAILS(queen_ack(client, "[{\"transactionId\":\"" BAD "\"}]", Z, NULL), UTF);
  FAILS(queen_ack(client, ACKS, Z, BAD), UTF);
  FAILS(queen_ack(client, "[", Z, NULL), JSN);
  FAILS(queen_ack(client, ACKS, Z, "{"), JSN);
  FAILS(queen_ack(client, ACKS, Z, "{\"consumerGroup\":1}"), CFG);
  FAILS(queen_renew(NULL, "lease", 60, NULL), ARG);
  FAILS(queen_renew(client, NULL, 60, NULL), ARG);
  FAILS(queen_renew(client, "", 60, NULL), ARG);
  FAILS(queen_renew(client, BAD, 60, NULL), UTF);
  FAILS(queen_renew(client, "lease", -1, NULL), ARG);
  FAILS(queen_renew(client, "lease", 60, BAD), UTF);
  FAILS(queen_renew(client, "lease", 60, "{\"nonsense\":1}"), CFG);
  FAILS(queen_flush(NULL, NULL), ARG);
  FAILS(queen_flush(client, BAD), UTF);
  FAILS(queen_flush(client, "{\"nonsense\":1}"), CFG);
  client_end(client);
}

TEST(call_checks_its_arguments) {
  static const char *const operations[] = {"push",         "pop",          "ack",       "renew",
                                           "queue.create", "queue.delete", "queue.get"};
  size_t i;
  begin();
  FAILS(queen_call(NULL, "health", NULL, 0), ARG);
  FAILS(queen_call(client, NULL, NULL, 0), ARG);
  FAILS(queen_call(client, BAD, NULL, 0), UTF);
  FAILS(queen_call(client, "", NULL, 0), QUEEN_E_UNKNOWN_OPERATION);
  FAILS(queen_call(client, "no.such", "{}", Z), QUEEN_E_UNKNOWN_OPERATION);
  FAILS(queen_call(client, "health", NULL, 1), ARG);
  FAILS(queen_call(client, "health", NULL, Z), ARG);
  FAILS(queen_call(client, "health", "{\"" BAD "\":1}", Z), UTF);
  FAILS(queen_call(client, "health", "{", Z), JSN);
  for (i = 0; i < LEN(operations); i++) {
    /* without its required parameters, with a wrong type, with a key nobody knows */
    static const char *const params[] = {"{}", "{\"queue\":5,\"leaseId\":5,\"acks\":5}", "[]", "5"};
    char unknown[128];
    size_t j;
    for (j = 0; j < LEN(params); j++) {
      int32_t code = code_of(queen_call(client, operations[i], params[j], Z));
      if (code != ARG && code != JSN && code != CFG)
        fail_msg("%s %s gives %s", operations[i], params[j], code_text(code));
    }
    FAILS(queen_call(client, operations[i], BAD, Z), UTF);
    FAILS(queen_call(client, operations[i], "{\"queue\":", Z), JSN);
    snprintf(unknown, sizeof unknown, "{\"queue\":\"%s\",\"nonsense\":1}", queue);
    check(code_of(queen_call(client, operations[i], unknown, Z)) != QUEEN_OK);
  }
  wait_ok(queen_call(client, "health", NULL, 0));
  wait_ok(queen_call(client, "health", "{}xx", 2));
  client_end(client);
}

TEST(client_functions_check_their_arguments) {
  queen_error_t *error = NULL;
  begin();
  FAILS(queen_client_ready(NULL), ARG);
  FAILS(queen_client_close(NULL, 0), ARG);
  FAILS(queen_client_close(client, -1), ARG);
  wait_ok(queen_call(client, "health", NULL, 0)); /* the refused close has closed nothing */
  check(queen_client_new(NULL, Z, &error) == NULL);
  check_code(queen_error_code(error), ARG);
  queen_error_free(error);
  check(queen_client_new(NULL, 3, &error) == NULL);
  check_code(queen_error_code(error), ARG);
  queen_error_free(error);
  check(queen_client_new(BAD, Z, &error) == NULL);
  check_code(queen_error_code(error), UTF);
  queen_error_free(error);
  check(queen_client_new(BAD, Z, NULL) == NULL); /* the error is optional */
  queen_client_free(NULL);
  check_code(queen_shutdown(-1), ARG);
  client_end(client);
}

static void on_future(const queen_future_t *future, void *user_data) {
  (void)future;
  gate_add((gate_t *)user_data, 1000);
}

TEST(future_functions_check_their_arguments) {
  queen_event_queue_t *events = queen_event_queue_new();
  queen_future_t *future;
  gate_t frees = GATE_INIT;
  size_t len = 5;
  begin();
  future = queen_call(client, "health", NULL, 0);
  check_code(queen_future_wait(NULL, 0), ARG);
  check_code(queen_future_wait(future, -1), ARG);
  check_code(queen_future_wait(future, INT64_MIN), ARG);
  check_code(queen_future_cancel(NULL), ARG);
  check(queen_future_json(NULL, &len) == NULL);
  check_code(len, 0);
  check(queen_future_json(NULL, NULL) == NULL);
  check(queen_future_error(NULL) == NULL);
  check(queen_future_take_delivery(NULL) == NULL);
  queen_future_free(NULL);
  check_code(queen_future_deliver(NULL, events, 1), ARG);
  check_code(queen_future_deliver(future, NULL, 1), ARG);
  /* when the call itself fails, user_data_free has run on this thread before it returns */
  check_code(queen_future_on_complete(NULL, on_future, &frees, gate_bump), ARG);
  check_code(gate_get(&frees), 1);
  check_code(queen_future_on_complete(future, NULL, &frees, gate_bump), ARG);
  check_code(gate_get(&frees), 2);
  check_code(queen_future_on_complete(NULL, NULL, &frees, NULL), ARG);
  /* none of those was a route */
  check_code(queen_future_deliver(future, events, 1), QUEEN_OK);
  wait_ok(future);
  queen_event_queue_free(events);
  client_end(client);
  check_code(gate_get(&frees), 2);
}

TEST(event_functions_check_their_arguments) {
  queen_event_queue_t *events = queen_event_queue_new();
  queen_event_t event;
  memset(&event, 0, sizeof event);
  check_code(queen_event_queue_poll(NULL, &event, sizeof event, 1, 0), ARG);
  check_code(queen_event_queue_poll(events, NULL, sizeof event, 1, 0), ARG);
  check_code(queen_event_queue_poll(events, &event, 0, 1, 0), ARG);
  check_code(queen_event_queue_poll(events, &event, 4, 1, 0), ARG); /* smaller than the first version */
  check_code(queen_event_queue_poll(events, &event, sizeof event, 1, -1), ARG);
  check_code(queen_event_queue_poll(events, &event, sizeof event, 0, -1), ARG);
  check_code(queen_event_queue_poll(events, &event, sizeof event, 1, 0), 0);
  check_code(queen_event_queue_fd(NULL), ARG);
  check_code(queen_event_queue_wakeup(NULL), ARG);
  check(queen_event_take_delivery(NULL) == NULL);
  check(queen_event_take_delivery(&event) == NULL);
  queen_events_free(NULL, 0);
  queen_events_free(NULL, 3);
  queen_events_free(&event, 0);
  queen_event_queue_free(NULL);
  queen_event_queue_free(events);
}

static int32_t handle(queen_delivery_t *delivery, void *user_data) {
  (void)delivery;
  (void)user_data;
  return QUEEN_ACK;
}

TEST(consumer_functions_check_their_arguments) {
  static const struct {
    const char *options;
    size_t len;
    int32_t code;
  } rows[] = {{NULL, 0, CFG},
              {NULL, 3, ARG},
              {NULL, Z, ARG},
              {"{}", Z, CFG},
              {"{\"queue\":\"" BAD "\"}", Z, UTF},
              {"{\"queue\"", Z, JSN},
              {"{\"queue\":5}", Z, CFG},
              {"{\"queue\":\"q\",\"nonsense\":1}", Z, CFG},
              {"{\"queue\":\"q\",\"concurrency\":0}", Z, CFG},
              {"{\"queue\":\"q\",\"batch\":-1}", Z, CFG},
              {"{\"queue\":\"q\",\"limit\":-1}", Z, CFG},
              {"{\"queue\":\"q\",\"idleMillis\":-1}", Z, CFG},
              {"{\"queue\":\"q\",\"leaseSeconds\":\"60\"}", Z, CFG},
              {"{\"queue\":\"q\",\"maxHandlingSeconds\":-1}", Z, CFG}};
  queen_event_queue_t *events = queen_event_queue_new();
  queen_error_t *error = NULL;
  gate_t frees = GATE_INIT;
  int64_t n = 0;
  size_t i;
  begin();
  for (i = 0; i < LEN(rows); i++) {
    int32_t code;
    check(queen_consume(client, rows[i].options, rows[i].len, handle, &frees, gate_bump, &error) == NULL);
    code = queen_error_code(error);
    /* an absent queue may be told as a missing argument too */
    if (code != rows[i].code && !(rows[i].code == CFG && code == ARG))
      fail_msg("row %d: %s", (int)i, code_text(code));
    queen_error_free(error);
    check_code(gate_get(&frees), ++n);
    check(queen_consume_events(client, rows[i].options, rows[i].len, events, 1, &error) == NULL);
    check_code(queen_error_code(error), code);
    queen_error_free(error);
  }
  check(queen_consume(NULL, "{\"queue\":\"q\"}", Z, handle, &frees, gate_bump, &error) == NULL);
  check_code(queen_error_code(error), ARG);
  queen_error_free(error);
  check_code(gate_get(&frees), ++n);
  check(queen_consume(client, "{\"queue\":\"q\"}", Z, NULL, &frees, gate_bump, NULL) == NULL);
  check_code(gate_get(&frees), ++n);
  check(queen_consume_events(NULL, "{\"queue\":\"q\"}", Z, events, 1, NULL) == NULL);
  check(queen_consume_events(client, "{\"queue\":\"q\"}", Z, NULL, 1, &error) == NULL);
  check_code(queen_error_code(error), ARG);
  queen_error_free(error);
  FAILS(queen_consumer_future(NULL), ARG);
  FAILS(queen_consumer_stop(NULL, 0), ARG);
  queen_consumer_free(NULL);
  queen_event_queue_free(events);
  client_end(client);
}

TEST(delivery_functions_check_their_arguments) {
  queen_message_view_t view;
  queen_delivery_t *delivery;
  size_t len = 9;
  begin();
  push_n(client, queue, "p", 0, 2);
  delivery = pop(client, queue, "p", "{\"wait\":true,\"pollTimeoutMillis\":10000,\"batch\":2}");
  check(delivery != NULL);
  check_code(queen_delivery_count(NULL), 0);
  check_code(queen_delivery_view(NULL, &view, sizeof view, 0, 1), ARG);
  check_code(queen_delivery_view(delivery, NULL, sizeof view, 0, 1), ARG);
  check_code(queen_delivery_view(delivery, &view, 0, 0, 1), ARG);
  check_code(queen_delivery_view(delivery, &view, sizeof view, 2, 1), 0);
  check_code(queen_delivery_view(delivery, &view, sizeof view, SIZE_MAX, 1), 0);
  check_code(queen_delivery_view(delivery, &view, sizeof view, 0, 0), 0);
  check(queen_delivery_json(NULL, &len) == NULL);
  check_code(len, 0);
  check(queen_delivery_json(NULL, NULL) == NULL);
  check_code(queen_delivery_is_lost(delivery), 0);
  FAILS(queen_delivery_ack(NULL), ARG);
  FAILS(queen_delivery_nack(NULL, NULL), ARG);
  FAILS(queen_delivery_nack(delivery, BAD), UTF);
  FAILS(queen_delivery_settle(NULL, "[]", Z), ARG);
  FAILS(queen_delivery_settle(delivery, NULL, 2), ARG);
  FAILS(queen_delivery_settle(delivery, NULL, Z), ARG);
  FAILS(queen_delivery_settle(delivery, "[" BAD, Z), UTF);
  FAILS(queen_delivery_settle(delivery, "[", Z), JSN);
  check(code_of(queen_delivery_settle(delivery, "[{\"index\":2,\"status\":\"completed\"}]", Z)) != QUEEN_OK);
  check(code_of(queen_delivery_settle(delivery, "[{\"index\":-1,\"status\":\"completed\"}]", Z)) != QUEEN_OK);
  check(code_of(queen_delivery_settle(delivery, "[{\"index\":0,\"status\":\"sideways\"}]", Z)) != QUEEN_OK);
  check(code_of(queen_delivery_settle(delivery, "[{\"status\":\"completed\"}]", Z)) != QUEEN_OK);
  check(code_of(queen_delivery_settle(delivery, "{}", Z)) != QUEEN_OK);
  check_code(code_of(queen_delivery_settle(delivery, NULL, 0)), code_of(queen_delivery_settle(delivery, "", 0)));
  wait_ok(queen_delivery_ack(delivery)); /* no refused verdict has counted */
  queen_delivery_free(delivery);
  queen_delivery_free(NULL);
  client_end(client);
}

static void on_log(int32_t level, const char *json, size_t len, void *user_data) {
  (void)level, (void)json, (void)len, (void)user_data;
}

TEST(log_functions_check_their_arguments) {
  queen_event_queue_t *events = queen_event_queue_new();
  gate_t frees = GATE_INIT;
  begin();
  check_code(queen_log_callback(NULL, QUEEN_LOG_INFO, on_log, &frees, gate_bump), ARG);
  check_code(gate_get(&frees), 1);
  check_code(queen_log_callback(client, -1, on_log, &frees, gate_bump), ARG);
  check_code(gate_get(&frees), 2);
  check_code(queen_log_callback(client, 99, on_log, &frees, gate_bump), ARG);
  check_code(gate_get(&frees), 3);
  check_code(queen_log_events(NULL, QUEEN_LOG_INFO, events, 1), ARG);
  check_code(queen_log_events(client, -1, events, 1), ARG);
  check_code(queen_log_events(client, 99, events, 1), ARG);
  check_code(queen_log_callback(client, QUEEN_LOG_INFO, NULL, NULL, NULL), QUEEN_OK); /* off */
  check_code(queen_log_events(client, QUEEN_LOG_INFO, NULL, 0), QUEEN_OK);            /* off */
  queen_event_queue_free(events);
  client_end(client);
  check_code(gate_get(&frees), 3);
}

TESTS(cmocka_unit_test(push_checks_its_arguments), cmocka_unit_test(push_checks_its_items),
      cmocka_unit_test(pop_checks_its_arguments), cmocka_unit_test(ack_renew_and_flush_check_their_arguments),
      cmocka_unit_test(call_checks_its_arguments), cmocka_unit_test(client_functions_check_their_arguments),
      cmocka_unit_test(future_functions_check_their_arguments), cmocka_unit_test(event_functions_check_their_arguments),
      cmocka_unit_test(consumer_functions_check_their_arguments),
      cmocka_unit_test(delivery_functions_check_their_arguments), cmocka_unit_test(log_functions_check_their_arguments))
