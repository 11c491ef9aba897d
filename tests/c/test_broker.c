/* brokers: embedded. Brokers started by hand: options, faults, clock, end and return, as clients see them in this process
 * and over TCP. */
#include "process.h"

#define ITEM "[{\"payload\":{\"n\":1}}]"
#define QUICK "{\"timeoutMillis\":800}"
#define OUTSIDE "{\"testing\":true,\"listen\":\"127.0.0.1:0\"}"

#define broker_at(options) broker_at_line((options), __FILE__, __LINE__)
static queen_broker_t *broker_at_line(const char *options, const char *file, int line) {
  queen_error_t *error = NULL;
  queen_broker_t *broker = queen_broker_start(options, Z, &error);
  if (broker == NULL) print_error("%s: %s\n", options, queen_error_message(error));
  _assert_true(broker != NULL && error == NULL, "a broker", file, line);
  return broker;
}

static void broker_end(queen_broker_t *broker) {
  wait_ok(queen_broker_stop(broker, LONG_MS));
  queen_broker_free(broker);
}

/* over TCP where it listens */
static const char *url_of(const queen_broker_t *broker) {
  const char *address = queen_broker_address(broker, 0);
  return address != NULL ? address : queen_broker_url(broker);
}

/* a client that repeats without long pauses */
static queen_client_t *client_of(const queen_broker_t *broker, int attempts) {
  char config[256];
  snprintf(config, sizeof config, "{\"url\":\"%s\",\"retryDelayMillis\":10,\"retryMaxDelayMillis\":200,\"retryAttempts\":%d}",
           url_of(broker), attempts);
  return client_at(config);
}

/* runs a test in this process and over TCP, each with a broker and a client of its own */
static void each(void (*test)(queen_broker_t *broker, queen_client_t *client)) {
  static const char *const options[] = {"{\"testing\":true}", OUTSIDE};
  size_t i;
  for (i = 0; i < LEN(options); i++) {
    queen_broker_t *broker = broker_at(options[i]);
    queen_client_t *client = client_of(broker, 100);
    test(broker, client);
    client_end(client);
    broker_end(broker);
  }
}

static void fault(queen_broker_t *broker, const char *json) {
  wait_ok(queen_broker_remove_faults(broker, 0));
  wait_ok(queen_broker_reset_requests(broker));
  wait_ok(queen_broker_add_faults(broker, json, Z));
}

static void advance(queen_broker_t *broker, int seconds) {
  char change[64];
  snprintf(change, sizeof change, "{\"advanceMillis\":%d000}", seconds);
  wait_ok(queen_broker_move_clock(broker, change, Z));
}

/* waits until the broker's faults say so, as in "\"applied\":1" */
static void until_faults(queen_broker_t *broker, const char *fragment) {
  int64_t end = now_ms() + LONG_MS;
  for (;;) {
    char *json = wait_json(queen_broker_faults(broker));
    int there = json_has(json, fragment);
    free(json);
    if (there) return;
    check(now_ms() < end);
    usleep(2000);
  }
}

/* waits until the broker has seen a pop */
static void until_pop(queen_broker_t *broker) {
  int64_t end = now_ms() + LONG_MS;
  for (;;) {
    char *json = wait_json(queen_broker_requests(broker));
    int there = json_has(json, "\"pop\":");
    free(json);
    if (there) return;
    check(now_ms() < end);
    usleep(2000);
  }
}

static void fails(queen_future_t *future, int32_t code, int32_t outcome) {
  const queen_error_t *error;
  check_code(queen_future_wait(future, LONG_MS), QUEEN_OK);
  error = queen_future_error(future);
  if (queen_error_code(error) != code && error != NULL) print_error("%s\n", queen_error_message(error));
  check_code(queen_error_code(error), code);
  check_code(queen_error_outcome(error), outcome);
  queen_future_free(future);
}

static void refused(const char *options, int32_t code, const char *key, const char *value) {
  queen_error_t *error = NULL;
  queen_broker_t *broker = queen_broker_start(options, Z, &error);
  check(broker == NULL && error != NULL);
  check_code(queen_error_code(error), code);
  if (strstr(queen_error_message(error), key) == NULL || strstr(queen_error_message(error), value) == NULL)
    fail_msg("%s: neither %s nor %s in: %s", options, key, value, queen_error_message(error));
  queen_error_free(error);
}

TEST(bad_options_name_key_and_value) {
  char text[256];
  queen_broker_t *broker = broker_at(OUTSIDE);
  refused("{\"listne\":1}", QUEEN_E_INVALID_CONFIG, "`listne`", "known keys: name, data");
  refused("{\"durability\":\"often\"}", QUEEN_E_INVALID_CONFIG, "`durability`", "\"often\"");
  refused("{\"maxBodyBytes\":-1}", QUEEN_E_INVALID_CONFIG, "`maxBodyBytes`", "-1");
  refused("{\"maxBodyBytes\":0}", QUEEN_E_INVALID_CONFIG, "`maxBodyBytes`", "0");
  refused("{\"testing\":\"yes\"}", QUEEN_E_INVALID_CONFIG, "`testing`", "\"yes\"");
  refused("{\"name\":\"\"}", QUEEN_E_INVALID_CONFIG, "`name`", "\"\"");
  refused("{\"listen\":\"here\"}", QUEEN_E_INVALID_CONFIG, "`listen`", "\"here\"");
  refused("{\"listen\":\"0.0.0.0:0\"}", QUEEN_E_INVALID_CONFIG, "`listen`", "tokens");
  refused("{\"faults\":{\"action\":\"explode\"}}", QUEEN_E_INVALID_CONFIG, "`faults`", "\"explode\"");
  refused("{\"data\":\"/no/such/folder/x.db\"}", QUEEN_E_STORE, "/no/such/folder", "create it");
  refused("[]", QUEEN_E_INVALID_CONFIG, "[]", "object");
  refused("{", QUEEN_E_INVALID_JSON, "broker", "options");
  snprintf(text, sizeof text, "{\"listen\":\"%s\"}", queen_broker_address(broker, 0) + strlen("http://"));
  refused(text, QUEEN_E_INVALID_CONFIG, "`listen`", "in use");
  snprintf(text, sizeof text, "{\"name\":\"%s\"}", strchr(queen_broker_url(broker), '=') + 1);
  refused(text, QUEEN_E_INVALID_CONFIG, "`name`", "has that name");
  broker_end(broker);
  check(queen_broker_start("{", Z, NULL) == NULL); /* nobody asks for the error */
  broker = queen_broker_start(NULL, 0, NULL);      /* every default */
  check(broker != NULL && queen_broker_address(broker, 0) == NULL);
  fails(queen_broker_faults(broker), QUEEN_E_INVALID_STATE, QUEEN_OUTCOME_NOT_APPLIED); /* no testing */
  queen_broker_free(broker);
}

TEST(null_and_bad_arguments_are_answered) {
  queen_broker_t *broker = broker_at("{\"testing\":true}");
  queen_error_t *error = NULL;
  int32_t nothing = QUEEN_OUTCOME_NOT_APPLIED;
  check(queen_broker_url(NULL) == NULL && queen_broker_address(NULL, 0) == NULL);
  check(queen_broker_address(broker, (size_t)-1) == NULL);
  fails(queen_broker_stop(NULL, 0), QUEEN_E_INVALID_ARGUMENT, nothing);
  fails(queen_broker_stop(broker, -1), QUEEN_E_INVALID_ARGUMENT, nothing);
  fails(queen_broker_kill(NULL), QUEEN_E_INVALID_ARGUMENT, nothing);
  fails(queen_broker_restart(NULL), QUEEN_E_INVALID_ARGUMENT, nothing);
  fails(queen_broker_faults(NULL), QUEEN_E_INVALID_ARGUMENT, nothing);
  fails(queen_broker_requests(NULL), QUEEN_E_INVALID_ARGUMENT, nothing);
  fails(queen_broker_reset_requests(NULL), QUEEN_E_INVALID_ARGUMENT, nothing);
  fails(queen_broker_remove_faults(NULL, 0), QUEEN_E_INVALID_ARGUMENT, nothing);
  fails(queen_broker_remove_faults(broker, 77), QUEEN_E_NOT_FOUND, nothing);
  fails(queen_broker_add_faults(NULL, "{}", Z), QUEEN_E_INVALID_ARGUMENT, nothing);
  fails(queen_broker_add_faults(broker, NULL, 4), QUEEN_E_INVALID_ARGUMENT, nothing);
  fails(queen_broker_add_faults(broker, NULL, 0), QUEEN_E_INVALID_JSON, nothing);
  fails(queen_broker_add_faults(broker, "bad\xff", Z), QUEEN_E_INVALID_UTF8, nothing);
  fails(queen_broker_add_faults(broker, "{\"action\":\"hang\",\"times\":0}", Z), QUEEN_E_INVALID_CONFIG, nothing);
  fails(queen_broker_move_clock(NULL, NULL, 0), QUEEN_E_INVALID_ARGUMENT, nothing);
  fails(queen_broker_move_clock(broker, "{\"advanceMillis\":-1}", Z), QUEEN_E_INVALID_CONFIG, nothing);
  fails(queen_broker_move_clock(broker, "{\"back\":1}", Z), QUEEN_E_INVALID_CONFIG, nothing);
  check(queen_broker_start(NULL, 3, &error) == NULL);
  check_code(queen_error_code(error), QUEEN_E_INVALID_ARGUMENT);
  queen_error_free(error);
  error = NULL;
  check(queen_broker_start("{\"name\":\"\xff\"}", Z, &error) == NULL);
  check_code(queen_error_code(error), QUEEN_E_INVALID_UTF8);
  queen_error_free(error);
  wait_json_has(queen_broker_faults(broker), "[]");
  queen_broker_free(NULL);
  queen_broker_free(broker);
}

static void cut_push(queen_broker_t *broker, queen_client_t *client) {
  static const char *const actions[] = {"\"cutBeforeCommit\"", "\"cutAfterCommit\"", "\"cutInBody\"", "\"notHttp\"",
                                        "\"status\",\"status\":503"};
  size_t i;
  for (i = 0; i < LEN(actions); i++) {
    char json[128];
    queen_delivery_t *delivery;
    snprintf(json, sizeof json, "{\"route\":\"push\",\"queue\":\"q\",\"times\":2,\"action\":%s}", actions[i]);
    fault(broker, json);
    wait_json_has(queen_push(client, "q", "p", ITEM, Z, NULL), "\"queued\"");
    wait_json_has(queen_broker_faults(broker), "\"matched\":3,\"applied\":2");
    wait_json_has(queen_broker_requests(broker), "\"push\":3");
    delivery = pop(client, "q", "p", NO_WAIT);
    check(delivery != NULL);
    check_code(number_at(delivery, 0), 1);
    wait_ok(queen_delivery_ack(delivery));
    queen_delivery_free(delivery);
    check(pop(client, "q", "p", NO_WAIT) == NULL); /* stored once */
  }
}
TEST(x12_cut_push_is_repeated_and_stored_once) { each(cut_push); }

/* a pop is never repeated once it was sent; before the commit nothing is leased, after it the messages come with the
 * end of the lease */
static void cut_pop(queen_broker_t *broker, queen_client_t *client) {
  queen_delivery_t *delivery;
  push_n(client, "q", "p", 1, 1);
  fault(broker, "{\"route\":\"pop\",\"times\":1,\"action\":\"cutBeforeCommit\"}");
  fails(queen_pop(client, "q", "p", NO_WAIT), QUEEN_E_NETWORK, QUEEN_OUTCOME_UNKNOWN);
  wait_json_has(queen_broker_requests(broker), "{\"pop\":1}");
  delivery = pop(client, "q", "p", NO_WAIT);
  check(delivery != NULL);
  advance(broker, 301);
  fault(broker, "{\"route\":\"pop\",\"times\":1,\"action\":\"cutAfterCommit\"}");
  fails(queen_pop(client, "q", "p", NO_WAIT), QUEEN_E_NETWORK, QUEEN_OUTCOME_UNKNOWN);
  wait_json_has(queen_broker_requests(broker), "{\"pop\":1}");
  queen_delivery_free(delivery);
  check(pop(client, "q", "p", NO_WAIT) == NULL);
  advance(broker, 301);
  delivery = pop(client, "q", "p", NO_WAIT);
  check_code(number_at(delivery, 0), 1);
  queen_delivery_free(delivery);
}
TEST(cut_pop_has_an_unknown_outcome) { each(cut_pop); }

static void no_answer(queen_broker_t *broker, queen_client_t *patient) {
  queen_client_t *client = client_of(broker, 2); /* its attempts end before the deadline, however busy the machine is */
  int64_t start;
  fault(broker, "{\"route\":\"push\",\"action\":\"notJson\"}");
  fails(queen_push(client, "q", "p", ITEM, Z, NULL), QUEEN_E_BAD_ANSWER, QUEEN_OUTCOME_UNKNOWN);
  fault(broker, "{\"route\":\"push\",\"action\":\"notHttp\"}");
  fails(queen_push(client, "q", "p", ITEM, Z, NULL), QUEEN_E_BAD_ANSWER, QUEEN_OUTCOME_UNKNOWN);
  fault(broker, "{\"route\":\"push\",\"action\":\"hang\"}");
  fails(queen_push(patient, "q", "p", ITEM, Z, QUICK), QUEEN_E_TIMEOUT, QUEEN_OUTCOME_UNKNOWN);
  fault(broker, "{\"route\":\"push\",\"action\":\"delay\",\"delayMillis\":200}");
  start = now_ms();
  wait_json_has(queen_push(client, "q", "p", ITEM, Z, NULL), "\"queued\"");
  check(now_ms() - start >= 200);
  client_end(client);
}
TEST(garbage_hanging_and_late_answers) { each(no_answer); }

static void hanging(queen_broker_t *broker, queen_client_t *client) {
  queen_future_t *push;
  fault(broker, "[{\"route\":\"push\",\"action\":\"hang\"}]");
  push = queen_push(client, "q", "p", ITEM, Z, NULL);
  until_faults(broker, "\"applied\":1");
  check_code(queen_future_wait(push, 0), QUEEN_E_TIMEOUT);
  wait_ok(queen_broker_remove_faults(broker, 0));
  wait_json_has(push, "\"queued\"");
}
TEST(hanging_request_goes_on_without_its_fault) { each(hanging); }

/* what a lost answer to an ack means to a consumer: nothing */
static int32_t count(queen_delivery_t *delivery, void *gate) {
  (void)delivery;
  gate_add((gate_t *)gate, 1);
  return QUEEN_ACK;
}
static void lost_ack(queen_broker_t *broker, queen_client_t *client) {
  gate_t handled = GATE_INIT;
  queen_consumer_t *consumer;
  push_n(client, "q", "p", 1, 1);
  fault(broker, "{\"route\":\"ack\",\"times\":1,\"action\":\"cutAfterCommit\"}");
  consumer = consume(client, "q", "\"limit\":1", count, &handled);
  wait_json_has(queen_consumer_future(consumer), "\"acked\":1");
  queen_consumer_free(consumer);
  wait_json_has(queen_broker_faults(broker), "\"applied\":1");
  advance(broker, 3600);
  check(pop(client, "q", "p", NO_WAIT) == NULL);
  check_code(gate_get(&handled), 1);
}
TEST(lost_answer_to_an_ack_changes_nothing) { each(lost_ack); }

static void time_moves(queen_broker_t *broker, queen_client_t *client) {
  queen_delivery_t *first, *again;
  char *still, *now;
  push_n(client, "q", "p", 1, 1);
  first = pop(client, "q", "p", NO_WAIT);
  check(first != NULL && pop(client, "q", "p", NO_WAIT) == NULL);
  advance(broker, 301);
  again = pop(client, "q", "p", NO_WAIT);
  check_code(number_at(again, 0), 1);
  queen_delivery_free(first);
  queen_delivery_free(again);

  wait_ok(queen_call(client, "queue.create", "{\"queue\":\"late\",\"options\":{\"delayedProcessing\":600}}", Z));
  push_n(client, "late", "p", 2, 1);
  check(pop(client, "late", "p", NO_WAIT) == NULL);
  advance(broker, 601);
  again = pop(client, "late", "p", NO_WAIT);
  check_code(number_at(again, 0), 2);
  queen_delivery_free(again);

  wait_ok(queen_call(client, "queue.create",
                     "{\"queue\":\"kept\",\"options\":{\"retentionEnabled\":true,\"retentionSeconds\":3600}}", Z));
  push_n(client, "kept", "p", 3, 1);
  advance(broker, 7200);
  check(pop(client, "kept", "p", NO_WAIT) == NULL);

  still = wait_json(queen_broker_move_clock(broker, "{\"frozen\":true}", Z));
  check_json(still, "\"frozen\":true");
  usleep(5000);
  now = wait_json(queen_broker_move_clock(broker, NULL, 0));
  assert_string_equal(still, now);
  free(still);
  free(now);
  wait_json_has(queen_broker_move_clock(broker, "{\"frozen\":false}", Z), "\"frozen\":false");
}
TEST(clock_moves_lease_delay_and_retention) { each(time_moves); }

TEST(two_brokers_at_once) {
  queen_broker_t *one = broker_at("{\"testing\":true}"), *two = broker_at(OUTSIDE);
  queen_client_t *first = client_of(one, 1), *second = client_of(two, 1), *both;
  char urls[256];
  int i;
  queen_delivery_t *delivery;
  push_n(first, "q", "p", 1, 1);
  check(pop(second, "q", "p", NO_WAIT) == NULL);
  delivery = pop(first, "q", "p", NO_WAIT);
  check_code(number_at(delivery, 0), 1);
  queen_delivery_free(delivery);
  /* a client of both goes on at the other one */
  snprintf(urls, sizeof urls, "[\"%s\",\"%s\"]", queen_broker_url(one), queen_broker_address(two, 0));
  both = client_at(urls);
  fault(one, "{\"route\":\"push\",\"action\":\"cutBeforeCommit\"}");
  for (i = 0; i < 6; i++) wait_json_has(queen_push(both, "q", "p", ITEM, Z, NULL), "\"queued\"");
  wait_json_has(queen_broker_requests(two), "\"push\":6");
  until_faults(one, "\"applied\":1");
  client_end(both);
  client_end(first);
  client_end(second);
  broker_end(one);
  broker_end(two);
}

/* a seed draws the same requests each time */
TEST(share_with_a_seed_is_the_same_each_time) {
  char drawn[2][41];
  int run, i;
  for (run = 0; run < 2; run++) {
    queen_broker_t *broker =
        broker_at("{\"faults\":{\"route\":\"push\",\"share\":0.3,\"seed\":7,\"action\":\"status\",\"status\":400}}");
    queen_client_t *client = client_of(broker, 1);
    for (i = 0; i < 40; i++)
      drawn[run][i] = code_of(queen_push(client, "q", "p", ITEM, Z, NULL)) == QUEEN_OK ? '.' : 'x';
    drawn[run][40] = '\0';
    client_end(client);
    broker_end(broker);
  }
  assert_string_equal(drawn[0], drawn[1]);
  check(strchr(drawn[0], 'x') != NULL && strchr(drawn[0], '.') != NULL);
}

static void stops(queen_broker_t *broker, queen_client_t *client) {
  queen_future_t *push, *waiting;
  queen_client_t *late;
  fault(broker, "{\"route\":\"push\",\"action\":\"delay\",\"delayMillis\":300}");
  waiting = queen_pop(client, "empty", NULL, POLL_30S);
  push = queen_push(client, "q", "p", ITEM, Z, NULL);
  until_faults(broker, "\"applied\":1");
  until_pop(broker);
  wait_ok(queen_broker_stop(broker, LONG_MS));
  wait_json_has(push, "\"queued\"");
  wait_json_has(waiting, "\"deliveries\":[]");
  /* after the stop */
  wait_ok(queen_broker_stop(broker, 0));
  wait_ok(queen_broker_kill(broker));
  fails(queen_broker_faults(broker), QUEEN_E_INVALID_STATE, QUEEN_OUTCOME_NOT_APPLIED);
  fails(queen_broker_add_faults(broker, "{\"action\":\"hang\"}", Z), QUEEN_E_INVALID_STATE, QUEEN_OUTCOME_NOT_APPLIED);
  fails(queen_broker_requests(broker), QUEEN_E_INVALID_STATE, QUEEN_OUTCOME_NOT_APPLIED);
  fails(queen_broker_move_clock(broker, NULL, 0), QUEEN_E_INVALID_STATE, QUEEN_OUTCOME_NOT_APPLIED);
  check(queen_broker_url(broker) != NULL);
  late = client_of(broker, 1);
  fails(queen_push(late, "q", "p", ITEM, Z, NULL), QUEEN_E_CONNECT, QUEEN_OUTCOME_NOT_APPLIED);
  client_end(late);
}
TEST(stop_answers_what_is_under_way) { each(stops); }

static void stops_late(queen_broker_t *broker, queen_client_t *client) {
  queen_future_t *popping;
  fault(broker, "{\"route\":\"pop\",\"action\":\"delay\",\"delayMillis\":3600000}");
  popping = queen_pop(client, "q", NULL, NO_WAIT);
  until_faults(broker, "\"applied\":1");
  wait_ok(queen_broker_stop(broker, 50));
  fails(popping, QUEEN_E_NETWORK, QUEEN_OUTCOME_UNKNOWN);
}
TEST(stop_cuts_what_outlasts_its_deadline) { each(stops_late); }

TEST(killed_broker_returns_with_its_messages) {
  static const char *const listen[] = {"[]", "[\"127.0.0.1:0\"]"};
  scratch_t scratch = scratch_new();
  size_t i;
  for (i = 0; i < LEN(listen); i++) {
    char options[512], url[128];
    queen_broker_t *broker;
    queen_client_t *client;
    queen_future_t *waiting, *push;
    queen_delivery_t *delivery;
    snprintf(options, sizeof options, "{\"testing\":true,\"data\":\"%s/%zu.db\",\"listen\":%s}", scratch.dir, i, listen[i]);
    broker = broker_at(options);
    snprintf(url, sizeof url, "%s", url_of(broker));
    client = client_of(broker, 100);
    push_n(client, "q", "p", 1, 1);
    waiting = queen_pop(client, "empty", NULL, POLL_30S);
    until_pop(broker);
    wait_ok(queen_broker_kill(broker));
    fails(waiting, QUEEN_E_NETWORK, QUEEN_OUTCOME_UNKNOWN);
    push = queen_push(client, "q", "p", "[{\"payload\":{\"n\":2}}]", Z, NULL); /* repeated until somebody is there */
    wait_ok(queen_broker_restart(broker));
    assert_string_equal(url, url_of(broker));
    wait_json_has(push, "\"queued\"");
    delivery = pop(client, "q", "p", "{\"wait\":false,\"batch\":10}");
    check_code(queen_delivery_count(delivery), 2);
    check_code(number_at(delivery, 0), 1);
    check_code(number_at(delivery, 1), 2);
    wait_ok(queen_delivery_ack(delivery));
    queen_delivery_free(delivery);
    fails(queen_broker_restart(broker), QUEEN_E_INVALID_STATE, QUEEN_OUTCOME_NOT_APPLIED);
    client_end(client);
    broker_end(broker);
  }
  scratch_end(&scratch);
}

/* A free does not wait: who connects while the broker ends may be cut off before it is refused. */
static void until_gone(queen_client_t *client) {
  int32_t code = QUEEN_E_NETWORK;
  int tries;
  for (tries = 0; code == QUEEN_E_NETWORK && tries < 1000; tries++) {
    queen_future_t *push = queen_push(client, "q", "p", ITEM, Z, NULL);
    check_code(queen_future_wait(push, LONG_MS), QUEEN_OK);
    code = queen_error_code(queen_future_error(push));
    queen_future_free(push);
    usleep(10000);
  }
  check_code(code, QUEEN_E_CONNECT);
}

TEST(free_with_living_clients) {
  static const char *const options[] = {"{\"testing\":true}", OUTSIDE};
  size_t i;
  for (i = 0; i < LEN(options); i++) {
    queen_broker_t *broker = broker_at(options[i]);
    queen_client_t *client = client_of(broker, 1);
    queen_future_t *waiting = queen_pop(client, "q", NULL, POLL_30S);
    until_pop(broker);
    queen_broker_free(broker);
    fails(waiting, QUEEN_E_NETWORK, QUEEN_OUTCOME_UNKNOWN);
    until_gone(client);
    client_end(client);
  }
  check_code(queen_shutdown(LONG_MS), QUEEN_OK); /* its threads are gone, too */
}

TEST(shutdown_waits_for_brokers) {
  queen_broker_t *broker = broker_at(OUTSIDE);
  check_code(queen_shutdown(LONG_MS), QUEEN_E_BUSY);
  queen_broker_free(broker);
  check_code(queen_shutdown(LONG_MS), QUEEN_OK);
  check(threads_are_gone());
}

TEST(tokens_are_needed_where_they_are_given) {
  queen_broker_t *broker = broker_at("{\"tokens\":[\"open-sesame\"],\"listen\":\"127.0.0.1:0\"}");
  const char *urls[2];
  size_t i;
  urls[0] = queen_broker_url(broker);
  urls[1] = queen_broker_address(broker, 0);
  for (i = 0; i < LEN(urls); i++) {
    queen_client_t *client = client_at(urls[i]);
    wait_code(queen_push(client, "q", "p", ITEM, Z, NULL), QUEEN_E_UNAUTHORIZED);
    check_code(queen_client_set_token(client, "open-sesame"), QUEEN_OK);
    wait_ok(queen_push(client, "q", "p", ITEM, Z, NULL));
    client_end(client);
  }
  broker_end(broker);
}

TESTS(cmocka_unit_test(bad_options_name_key_and_value), cmocka_unit_test(null_and_bad_arguments_are_answered),
      cmocka_unit_test(x12_cut_push_is_repeated_and_stored_once), cmocka_unit_test(cut_pop_has_an_unknown_outcome),
      cmocka_unit_test(garbage_hanging_and_late_answers), cmocka_unit_test(hanging_request_goes_on_without_its_fault),
      cmocka_unit_test(lost_answer_to_an_ack_changes_nothing), cmocka_unit_test(clock_moves_lease_delay_and_retention),
      cmocka_unit_test(two_brokers_at_once), cmocka_unit_test(share_with_a_seed_is_the_same_each_time),
      cmocka_unit_test(stop_answers_what_is_under_way), cmocka_unit_test(stop_cuts_what_outlasts_its_deadline),
      cmocka_unit_test(killed_broker_returns_with_its_messages), cmocka_unit_test(free_with_living_clients),
      cmocka_unit_test(shutdown_waits_for_brokers), cmocka_unit_test(tokens_are_needed_where_they_are_given))
