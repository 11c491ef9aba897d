/* brokers: embedded. Versions, struct layout, codes, names and the catalogue of operations. */
#include "harness.h"

#ifdef __cplusplus
#define LAYOUT(condition) static_assert(condition, #condition)
#else
#define LAYOUT(condition) _Static_assert(condition, #condition)
#endif

/* Bindings write these numbers down by hand; the structs may only be appended to. */
LAYOUT(sizeof(void *) != 8 || offsetof(queen_event_t, type) == 0);
LAYOUT(sizeof(void *) != 8 || offsetof(queen_event_t, code) == 4);
LAYOUT(sizeof(void *) != 8 || offsetof(queen_event_t, tag) == 8);
LAYOUT(sizeof(void *) != 8 || offsetof(queen_event_t, json) == 16);
LAYOUT(sizeof(void *) != 8 || offsetof(queen_event_t, json_len) == 24);
LAYOUT(sizeof(void *) != 8 || offsetof(queen_event_t, object) == 32);
LAYOUT(sizeof(void *) != 8 || offsetof(queen_event_t, event_size) == 40);
LAYOUT(sizeof(void *) != 8 || sizeof(queen_event_t) == 48);

/* a view is a row of pointer and length pairs */
#define PAIR(field, n)                                                                 \
  LAYOUT(offsetof(queen_message_view_t, field) == (n) * 2 * sizeof(void *));           \
  LAYOUT(offsetof(queen_message_view_t, field##_len) == ((n) * 2 + 1) * sizeof(void *))
PAIR(id, 0);
PAIR(transaction_id, 1);
PAIR(queue, 2);
PAIR(partition, 3);
PAIR(partition_id, 4);
PAIR(lease_id, 5);
PAIR(consumer_group, 6);
PAIR(created_at, 7);
PAIR(trace_id, 8);
PAIR(producer_sub, 9);
PAIR(payload, 10);
LAYOUT(sizeof(queen_message_view_t) == 22 * sizeof(void *));

LAYOUT(QUEEN_OK == 0);
LAYOUT(QUEEN_ACK == 0 && QUEEN_NACK == 1 && QUEEN_DEFER == 2);
LAYOUT(QUEEN_NUL_TERMINATED == (size_t)-1);

TEST(version_of_header_and_library_agree) {
  char text[32];
  check_code(queen_version_number(), QUEEN_VERSION_NUMBER);
  assert_string_equal(queen_version_string(), QUEEN_VERSION_STRING);
  snprintf(text, sizeof text, "%u.%u.%u", (unsigned)(QUEEN_VERSION_NUMBER >> 16), (unsigned)(QUEEN_VERSION_NUMBER >> 8) & 255,
           (unsigned)QUEEN_VERSION_NUMBER & 255);
  assert_string_equal(queen_version_string(), text);
}

#define CODE(code) {code, #code}
TEST(codes_have_their_names_and_numbers) {
  static const struct {
    int32_t code;
    const char *name;
  } codes[] = {
      CODE(QUEEN_OK), CODE(QUEEN_E_INVALID_ARGUMENT), CODE(QUEEN_E_INVALID_UTF8), CODE(QUEEN_E_INVALID_JSON),
      CODE(QUEEN_E_INVALID_CONFIG), CODE(QUEEN_E_INVALID_STATE), CODE(QUEEN_E_UNKNOWN_OPERATION), CODE(QUEEN_E_TIMEOUT),
      CODE(QUEEN_E_CANCELLED), CODE(QUEEN_E_CLOSED), CODE(QUEEN_E_WOULD_BLOCK), CODE(QUEEN_E_WOULD_DEADLOCK),
      CODE(QUEEN_E_BUSY), CODE(QUEEN_E_FORKED), CODE(QUEEN_E_CONNECT), CODE(QUEEN_E_NETWORK), CODE(QUEEN_E_BAD_ANSWER),
      CODE(QUEEN_E_BAD_REQUEST), CODE(QUEEN_E_UNAUTHORIZED), CODE(QUEEN_E_FORBIDDEN), CODE(QUEEN_E_NOT_FOUND),
      CODE(QUEEN_E_TOO_LARGE), CODE(QUEEN_E_THROTTLED), CODE(QUEEN_E_BROKER), CODE(QUEEN_E_PARTIAL),
      CODE(QUEEN_E_LEASE_LOST), CODE(QUEEN_E_ALREADY_SETTLED), CODE(QUEEN_E_LOCKED), CODE(QUEEN_E_STORE),
      CODE(QUEEN_E_INTERNAL)};
  size_t i, j;
  for (i = 0; i < LEN(codes); i++) {
    const char *name = queen_error_code_name(codes[i].code);
    if (name == NULL) fail_msg("%s has no name", codes[i].name);
    assert_string_equal(name, codes[i].name);
    for (j = 0; j < i; j++) check(codes[j].code != codes[i].code);
    check(codes[i].code == QUEEN_OK || codes[i].code < 0);
  }
  check(queen_error_code_name(1) == NULL);
  check(queen_error_code_name(-1) == NULL);
  check(queen_error_code_name(INT32_MIN) == NULL);
}

TEST(event_types_have_names) {
  static const int32_t types[] = {QUEEN_EVENT_FUTURE, QUEEN_EVENT_DELIVERY, QUEEN_EVENT_CONSUMER_ENDED,
                                  QUEEN_EVENT_LEASE_LOST, QUEEN_EVENT_LOG};
  size_t i, j;
  for (i = 0; i < LEN(types); i++) {
    check(queen_event_type_name(types[i]) != NULL);
    for (j = 0; j < i; j++) check(strcmp(queen_event_type_name(types[j]), queen_event_type_name(types[i])) != 0);
  }
  check(queen_event_type_name(0) == NULL);
  check(queen_event_type_name(-7) == NULL);
  check(queen_event_type_name(INT32_MAX) == NULL);
}

TEST(d35_catalogue_lists_every_operation) {
  static const char *const names[] = {"push",         "pop",          "ack",       "renew", "flush",
                                      "queue.create", "queue.delete", "queue.get", "health"};
  size_t len = 0, i;
  const char *json = queen_operations_json(&len);
  check(json != NULL && strlen(json) == len);
  check(queen_operations_json(NULL) == json); /* the length is optional */
  for (i = 0; i < LEN(names); i++) {
    char quoted[64];
    snprintf(quoted, sizeof quoted, "\"%s\"", names[i]);
    check_json(json, quoted);
  }
}

/* an error of a failing call: every accessor, and the document that holds them all */
TEST(errors_can_be_read) {
  queen_error_t *error = NULL;
  size_t len = 0;
  const char *json;
  char code[32];
  check(queen_client_new("{\"ulr\":\"embedded:\"}", Z, &error) == NULL);
  check(error != NULL);
  check_code(queen_error_code(error), QUEEN_E_INVALID_CONFIG);
  assert_string_equal(queen_error_name(error), "QUEEN_E_INVALID_CONFIG");
  check(strstr(queen_error_message(error), "ulr") != NULL);
  check_code(queen_error_http_status(error), 0);
  check_code(queen_error_is_retriable(error), 0);
  check_code(queen_error_outcome(error), QUEEN_OUTCOME_NOT_APPLIED);
  check(queen_error_is_fatal(error) == 0 || queen_error_is_fatal(error) == 1);
  json = queen_error_json(error, &len);
  check(json != NULL && strlen(json) == len);
  snprintf(code, sizeof code, "\"code\":%d", QUEEN_E_INVALID_CONFIG);
  check_json(json, code);
  check_json(json, "\"name\":\"QUEEN_E_INVALID_CONFIG\"");
  check_json(json, "\"message\":");
  check_json(json, "\"retriable\":false");
  check_json(json, "\"outcome\":");
  check(queen_error_json(error, NULL) == json);
  queen_error_free(error);
}

TEST(error_accessors_take_null) {
  size_t len = 77;
  check_code(queen_error_code(NULL), QUEEN_OK);
  check(queen_error_name(NULL) == NULL || strcmp(queen_error_name(NULL), "QUEEN_OK") == 0);
  check(queen_error_message(NULL) == NULL || *queen_error_message(NULL) == '\0');
  check_code(queen_error_http_status(NULL), 0);
  check_code(queen_error_is_retriable(NULL), 0);
  check_code(queen_error_is_fatal(NULL), 0);
  check_code(queen_error_outcome(NULL), QUEEN_OUTCOME_NOT_APPLIED);
  check(queen_error_json(NULL, &len) == NULL);
  check_code(len, 0);
  check(queen_error_json(NULL, NULL) == NULL);
  queen_error_free(NULL);
}

TESTS(cmocka_unit_test(version_of_header_and_library_agree), cmocka_unit_test(codes_have_their_names_and_numbers),
      cmocka_unit_test(event_types_have_names), cmocka_unit_test(d35_catalogue_lists_every_operation),
      cmocka_unit_test(errors_can_be_read), cmocka_unit_test(error_accessors_take_null))
