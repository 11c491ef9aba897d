/* brokers: embedded. Notices: a token is wanted, a broker is unhealthy or has recovered. */
#include "process.h"

#define ITEM "[{\"payload\":1}]"

typedef struct asker_t {
  queen_client_t *client;
  const char *token;
  gate_t questions, frees;
  char last[256];
  int bad;
} asker_t;
#define ASKER_INIT {NULL, NULL, GATE_INIT, GATE_INIT, "", 0}

static void on_notice(const char *json, size_t len, void *user_data) {
  asker_t *asker = (asker_t *)user_data;
  if (json == NULL || strlen(json) != len || gate_get(&asker->frees) != 0) asker->bad++;
  snprintf(asker->last, sizeof asker->last, "%s", json);
  gate_add(&asker->questions, 1); /* before the answer, which lets the push go */
  if (asker->token != NULL && queen_client_set_token(asker->client, asker->token) != QUEEN_OK) asker->bad++;
}

static void on_free(void *user_data) { gate_add(&((asker_t *)user_data)->frees, 1); }

static queen_client_t *client_of(const scripted_t *server, const char *more) {
  char config[256];
  snprintf(config, sizeof config, "{\"url\":\"%s\"%s}", server->url, more);
  return client_at(config);
}

TEST(callback_is_asked_for_a_token) {
  scripted_t server = scripted_start("token-t0p");
  queen_client_t *client = client_of(&server, "");
  asker_t asker = ASKER_INIT;
  asker.client = client;
  asker.token = "t0p";
  check_code(queen_token_callback(client, on_notice, &asker, on_free), QUEEN_OK);
  wait_json_has(queen_push(client, "q", "p", ITEM, Z, NULL), "\"queued\"");
  wait_json_has(queen_push(client, "q", "p", ITEM, Z, NULL), "\"queued\"");
  check_code(gate_get(&asker.questions), 1);
  check_json(asker.last, "\"reason\":\"missing\"");
  scripted_mode(&server, "token-n3w"); /* the old one is refused from now on */
  asker.token = "n3w";
  wait_json_has(queen_push(client, "q", "p", ITEM, Z, NULL), "\"queued\"");
  check_code(gate_get(&asker.questions), 2);
  check_json(asker.last, "\"reason\":\"refused\"");
  client_end(client);
  check_code(gate_get(&asker.frees), 1);
  check_code(asker.bad, 0);
  scripted_stop(&server);
}

TEST(x1_event_asks_for_a_token) {
  scripted_t server = scripted_start("token-t0p");
  queen_client_t *client = client_of(&server, "");
  queen_event_queue_t *events = queen_event_queue_new();
  queen_future_t *futures[20];
  queen_event_t event;
  char answer[64];
  size_t i;
  int requests = -1;
  check_code(queen_token_events(client, events, 41), QUEEN_OK);
  for (i = 0; i < LEN(futures); i++) futures[i] = queen_pop(client, "q", NULL, NO_WAIT);
  poll_event(events, &event);
  check_code(event.type, QUEEN_EVENT_TOKEN_WANTED);
  assert_string_equal(queen_event_type_name(event.type), "token_wanted");
  check(event.tag == 41 && event.code == 0 && event.object == NULL);
  check(strlen(event.json) == event.json_len);
  check_json(event.json, "\"reason\":\"missing\"");
  queen_events_free(&event, 1);
  check_code(queen_event_queue_poll(events, &event, sizeof event, 1, 300), 0); /* one question for all */
  check_code(queen_future_wait(futures[0], 0), QUEEN_E_TIMEOUT);
  scripted_ask(&server, "count\n", answer, sizeof answer);
  check(sscanf(answer, "count %d", &requests) == 1 && requests == 0); /* nothing leaves without one */
  check_code(queen_client_set_token(client, "t0p"), QUEEN_OK);
  for (i = 0; i < LEN(futures); i++) wait_ok(futures[i]);
  client_end(client);
  queen_event_queue_free(events);
  scripted_stop(&server);
}

TEST(question_ends_with_the_deadline_or_a_no) {
  scripted_t server = scripted_start("token-t0p");
  queen_client_t *client = client_of(&server, ",\"timeoutMillis\":500");
  queen_event_queue_t *events = queen_event_queue_new();
  queen_future_t *future;
  queen_event_t event;
  check_code(queen_token_events(client, events, 0), QUEEN_OK);
  future = queen_push(client, "q", "p", ITEM, Z, NULL);
  check_code(queen_future_wait(future, LONG_MS), QUEEN_OK);
  check_code(queen_error_code(queen_future_error(future)), QUEEN_E_UNAUTHORIZED);
  check_code(queen_error_outcome(queen_future_error(future)), QUEEN_OUTCOME_NOT_APPLIED);
  queen_future_free(future);
  poll_event(events, &event);
  queen_events_free(&event, 1);
  check_code(queen_client_set_token(client, NULL), QUEEN_OK);
  future = queen_push(client, "q", "p", ITEM, Z, "{\"timeoutMillis\":30000}");
  poll_event(events, &event); /* asked anew */
  queen_events_free(&event, 1);
  check_code(queen_client_set_token(client, NULL), QUEEN_OK);
  wait_code(future, QUEEN_E_UNAUTHORIZED);
  check_code(queen_token_events(client, NULL, 0), QUEEN_OK); /* nobody is asked: the broker's own refusal */
  future = queen_push(client, "q", "p", ITEM, Z, NULL);
  check_code(queen_future_wait(future, LONG_MS), QUEEN_OK);
  check_code(queen_error_http_status(queen_future_error(future)), 401);
  queen_future_free(future);
  client_end(client);
  queen_event_queue_free(events);
  scripted_stop(&server);
}

TEST(bad_tokens_are_refused_unseen) {
  queen_client_t *client = client_at("http://127.0.0.1:1");
  check_code(queen_client_set_token(client, ""), QUEEN_E_INVALID_ARGUMENT);
  check_code(queen_client_set_token(client, "a b"), QUEEN_E_INVALID_ARGUMENT);
  check_code(queen_client_set_token(client, "\xff"), QUEEN_E_INVALID_UTF8);
  check_code(queen_client_set_token(client, "fine"), QUEEN_OK);
  client_end(client);
}

TEST(null_handles_are_errors_and_free_the_user_data) {
  asker_t asker = ASKER_INIT;
  queen_client_t *client = client_new();
  queen_event_queue_t *events = queen_event_queue_new();
  check_code(queen_client_set_token(NULL, "t"), QUEEN_E_INVALID_ARGUMENT);
  check_code(queen_token_events(NULL, events, 0), QUEEN_E_INVALID_ARGUMENT);
  check_code(queen_backend_events(NULL, events, 0), QUEEN_E_INVALID_ARGUMENT);
  check_code(queen_token_callback(NULL, on_notice, &asker, on_free), QUEEN_E_INVALID_ARGUMENT);
  check_code(gate_get(&asker.frees), 1);
  check_code(queen_backend_callback(NULL, on_notice, &asker, on_free), QUEEN_E_INVALID_ARGUMENT);
  check_code(gate_get(&asker.frees), 2);
  check_code(queen_token_callback(client, NULL, &asker, on_free), QUEEN_OK); /* off */
  check_code(gate_get(&asker.frees), 3);
  /* an embedded broker wants no token and is always there */
  check_code(queen_client_set_token(client, "t"), QUEEN_OK);
  check_code(queen_backend_events(client, events, 0), QUEEN_OK);
  wait_ok(queen_call(client, "health", NULL, 0));
  client_end(client);
  queen_event_queue_free(events);
}

TEST(events_tell_how_brokers_are) {
  scripted_t one = scripted_start("500"), two = scripted_start("canned");
  queen_event_queue_t *events = queen_event_queue_new();
  queen_client_t *client;
  queen_event_t event;
  char config[256];
  int i;
  snprintf(config, sizeof config, "{\"urls\":[\"%s\",\"%s\"],\"healthRetryAfterMillis\":100}", one.url, two.url);
  client = client_at(config);
  check_code(queen_backend_events(client, events, 42), QUEEN_OK);
  for (i = 0; i < 4; i++) wait_json_has(queen_push(client, "q", "p", ITEM, Z, NULL), "\"queued\"");
  poll_event(events, &event);
  check_code(event.type, QUEEN_EVENT_BACKEND_STATE);
  assert_string_equal(queen_event_type_name(event.type), "backend_state");
  check(event.tag == 42 && event.object == NULL);
  check_json(event.json, "\"state\":\"unhealthy\"");
  check(strstr(event.json, one.url) != NULL);
  check(strstr(event.json, "\"error\":\"HTTP 500\"") != NULL); /* check_json skips spaces */
  queen_events_free(&event, 1);
  wait_json_has(queen_call(client, "client.backends", NULL, 0), "\"healthy\":false");
  scripted_mode(&one, "canned");
  for (i = 0; i < 1000; i++) { /* a probe leaves with a call */
    wait_json_has(queen_push(client, "q", "p", ITEM, Z, NULL), "\"queued\"");
    if (queen_event_queue_poll(events, &event, sizeof event, 1, 50) == 1) break;
  }
  check(i < 1000);
  check_json(event.json, "\"state\":\"healthy\"");
  check_json(event.json, "\"unhealthyMillis\":");
  queen_events_free(&event, 1);
  client_end(client);
  queen_event_queue_free(events);
  scripted_stop(&one);
  scripted_stop(&two);
}

TEST(callback_tells_how_a_broker_is) {
  scripted_t server = scripted_start("500");
  queen_client_t *client = client_of(&server, ",\"retryAttempts\":1");
  asker_t asker = ASKER_INIT;
  check_code(queen_backend_callback(client, on_notice, &asker, on_free), QUEEN_OK);
  wait_code(queen_push(client, "q", "p", ITEM, Z, NULL), QUEEN_E_BROKER);
  wait_code(queen_push(client, "q", "p", ITEM, Z, NULL), QUEEN_E_BROKER);
  check(gate_reaches(&asker.questions, 1, LONG_MS));
  check_json(asker.last, "\"state\":\"unhealthy\"");
  scripted_mode(&server, "canned"); /* one alone is asked all the same */
  wait_json_has(queen_push(client, "q", "p", ITEM, Z, NULL), "\"queued\"");
  check(gate_reaches(&asker.questions, 2, LONG_MS));
  check_json(asker.last, "\"state\":\"healthy\"");
  client_end(client);
  check_code(gate_get(&asker.frees), 1);
  check_code(asker.bad, 0);
  scripted_stop(&server);
}

TESTS(cmocka_unit_test(callback_is_asked_for_a_token), cmocka_unit_test(x1_event_asks_for_a_token),
      cmocka_unit_test(question_ends_with_the_deadline_or_a_no), cmocka_unit_test(bad_tokens_are_refused_unseen),
      cmocka_unit_test(null_handles_are_errors_and_free_the_user_data), cmocka_unit_test(events_tell_how_brokers_are),
      cmocka_unit_test(callback_tells_how_a_broker_is))
