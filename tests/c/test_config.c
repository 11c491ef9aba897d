/* brokers: embedded. The three shapes of a configuration, and errors that name what is wrong. */
#include "harness.h"

static void check_refused(const char *config, int32_t code, const char *named) {
  queen_error_t *error = NULL;
  queen_client_t *client = queen_client_new(config, Z, &error);
  if (client != NULL) fail_msg("accepted: %s", config);
  check_code_at(queen_error_code(error), code, config, __FILE__, __LINE__);
  if (strstr(queen_error_message(error), named) == NULL)
    fail_msg("%s: the message does not name %s: %s", config, named, queen_error_message(error));
  queen_error_free(error);
}

TEST(wrong_configurations_are_refused_and_named) {
  check_refused("{\"url\":\"embedded:\",\"timeoutMilis\":5}", QUEEN_E_INVALID_CONFIG, "timeoutMilis");
  check_refused("{\"url\":\"embedded:\",\"timeout_millis\":5}", QUEEN_E_INVALID_CONFIG, "timeout_millis");
  check_refused("{\"url\":\"embedded:\",\"timeoutMillis\":\"5\"}", QUEEN_E_INVALID_CONFIG, "timeoutMillis");
  check_refused("{\"url\":\"embedded:\",\"timeoutMillis\":-5}", QUEEN_E_INVALID_CONFIG, "timeoutMillis");
  check_refused("{\"url\":\"embedded:\",\"timeoutMillis\":1.5}", QUEEN_E_INVALID_CONFIG, "timeoutMillis");
  check_refused("{\"url\":\"embedded:\",\"maxPendingMessages\":true}", QUEEN_E_INVALID_CONFIG, "maxPendingMessages");
  check_refused("{\"url\":\"embedded:\",\"maxPendingBytes\":null}", QUEEN_E_INVALID_CONFIG, "maxPendingBytes");
  check_refused("{\"url\":5}", QUEEN_E_INVALID_CONFIG, "url");
  check_refused("{\"urls\":[5]}", QUEEN_E_INVALID_CONFIG, "urls");
  check_refused("{}", QUEEN_E_INVALID_CONFIG, "url");
  check_refused("[]", QUEEN_E_INVALID_CONFIG, "");
  check_refused("[5]", QUEEN_E_INVALID_CONFIG, "");
  check_refused("gopher://x", QUEEN_E_INVALID_CONFIG, "gopher");
  check_refused("http://", QUEEN_E_INVALID_CONFIG, "");
  check_refused("{\"url\":\"gopher://x\"}", QUEEN_E_INVALID_CONFIG, "gopher");
  check_refused("", QUEEN_E_INVALID_CONFIG, "");
  check_refused("{\"url\":", QUEEN_E_INVALID_JSON, "");
  check_refused("[\"embedded:\"", QUEEN_E_INVALID_JSON, "");
}

TEST(m1_m2_m3_three_shapes_are_accepted) {
  static const char *const configs[] = {"embedded:", "[\"embedded:\"]", "{\"url\":\"embedded:\"}",
                                        "{\"urls\":[\"embedded:\"],\"timeoutMillis\":20000}",
                                        " \n{ \"url\" : \"embedded:\" } "};
  size_t i;
  for (i = 0; i < LEN(configs); i++) {
    queen_client_t *client = client_at(configs[i]);
    wait_ok(queen_call(client, "health", NULL, 0));
    client_end(client);
  }
}

TEST(configuration_is_copied_and_its_length_counts) {
  char config[] = "embedded:GARBAGE";
  queen_client_t *client = queen_client_new(config, strlen("embedded:"), NULL);
  check(client != NULL);
  memset(config, 'x', sizeof config);
  wait_ok(queen_call(client, "health", NULL, 0));
  client_end(client);
}

/* making a client is no I/O: a broker that is not there is told by the first call */
TEST(new_client_does_no_io) {
  queen_client_t *client = client_at("{\"url\":\"http://127.0.0.1:1\",\"retryDelayMillis\":10}");
  wait_code(queen_call(client, "health", NULL, 0), QUEEN_E_CONNECT);
  client_end(client);
  client = client_at("embedded:///no/such/directory/at/all/x.db");
  wait_code(queen_call(client, "health", NULL, 0), QUEEN_E_STORE);
  client_end(client);
}

TEST(option_errors_name_the_key) {
  queen_client_t *client = client_new();
  queen_future_t *future = queen_push(client, "q", NULL, "[]", Z, "{\"timeoutMillis\":5000,\"frobnicate\":1}");
  queen_error_t *error = NULL;
  check_code(queen_future_wait(future, 0), QUEEN_OK);
  check_code(queen_error_code(queen_future_error(future)), QUEEN_E_INVALID_CONFIG);
  check(strstr(queen_error_message(queen_future_error(future)), "frobnicate") != NULL);
  queen_future_free(future);
  check(queen_consume_events(client, "{\"queue\":\"q\",\"concurency\":2}", Z, NULL, 0, NULL) == NULL);
  check(queen_consume(client, "{\"queue\":\"q\",\"concurency\":2}", Z, (queen_delivery_handler)NULL, NULL, NULL, NULL) == NULL);
  {
    queen_event_queue_t *events = queen_event_queue_new();
    check(queen_consume_events(client, "{\"queue\":\"q\",\"concurency\":2}", Z, events, 0, &error) == NULL);
    check(strstr(queen_error_message(error), "concurency") != NULL);
    queen_error_free(error);
    queen_event_queue_free(events);
  }
  client_end(client);
}

TESTS(cmocka_unit_test(wrong_configurations_are_refused_and_named), cmocka_unit_test(m1_m2_m3_three_shapes_are_accepted),
      cmocka_unit_test(configuration_is_copied_and_its_length_counts), cmocka_unit_test(new_client_does_no_io),
      cmocka_unit_test(option_errors_name_the_key))
