/* brokers: all. Every operation, typed and by name, and payloads that come back byte for byte. */
#include "harness.h"

static const char *params(const char *format, ...) __attribute__((format(printf, 1, 2)));
static const char *params(const char *format, ...) {
  static char text[2048];
  va_list list;
  va_start(list, format);
  vsnprintf(text, sizeof text, format, list);
  va_end(list);
  return text;
}

/* text of a view field as a C string, in a static buffer */
static const char *text_of(const char *text, size_t len) {
  static char copies[4][256];
  static unsigned next;
  char *copy = copies[next++ % 4];
  snprintf(copy, sizeof copies[0], "%.*s", (int)len, text);
  return copy;
}

TEST(queue_is_created_got_and_deleted_by_name) {
  queen_client_t *client = client_new();
  const char *queue = unique("admin");
  wait_code(queen_call(client, "queue.get", params("{\"queue\":\"%s\"}", queue), Z), QUEEN_E_NOT_FOUND);
  wait_json_has(queen_call(client, "queue.create",
                           params("{\"queue\":\"%s\",\"namespace\":\"ns\",\"task\":\"tk\",\"options\":{\"leaseTime\":77}}", queue), Z),
                "\"leaseTime\":77");
  push_n(client, queue, "a", 0, 3);
  wait_json_has(queen_call(client, "queue.get", params("{\"queue\":\"%s\"}", queue), Z), params("\"name\":\"%s\"", queue));
  wait_json_has(queen_call(client, "queue.delete", params("{\"queue\":\"%s\"}", queue), Z), "\"deleted\":true");
  wait_code(queen_call(client, "queue.get", params("{\"queue\":\"%s\"}", queue), Z), QUEEN_E_NOT_FOUND);
  check(pop(client, queue, "a", NO_WAIT) == NULL);
  client_end(client);
}

TEST(not_found_carries_its_http_status) {
  queen_client_t *client = client_new();
  queen_future_t *future = queen_call(client, "queue.get", params("{\"queue\":\"%s\"}", unique("none")), Z);
  const queen_error_t *error;
  check_code(queen_future_wait(future, LONG_MS), QUEEN_OK);
  error = queen_future_error(future);
  check_code(queen_error_code(error), QUEEN_E_NOT_FOUND);
  check_code(queen_error_http_status(error), 404);
  check_code(queen_error_is_retriable(error), 0);
  check_code(queen_error_outcome(error), QUEEN_OUTCOME_REFUSED);
  assert_string_equal(queen_error_name(error), "QUEEN_E_NOT_FOUND");
  check_json(queen_error_json(error, NULL), "\"httpStatus\":404");
  queen_future_free(future);
  client_end(client);
}

TEST(q21_push_answers_one_entry_per_item) {
  queen_client_t *client = client_new();
  const char *queue = queue_new(client, NULL);
  char *json = wait_json(queen_push(client, queue, "p",
                                    "[{\"payload\":1,\"transactionId\":\"one\"},{\"payload\":2,\"transactionId\":\"two\"},"
                                    "{\"payload\":null}]", Z, NULL));
  check_code(count_of(json, "queued"), 3);
  check(strstr(json, "one") != NULL && strstr(json, "two") != NULL && strstr(json, "one") < strstr(json, "two"));
  free(json);
  /* a duplicate is a success */
  json = wait_json(queen_push(client, queue, "p", "[{\"payload\":9,\"transactionId\":\"two\"},{\"payload\":4}]", Z, NULL));
  check_code(count_of(json, "duplicate"), 1);
  check_code(count_of(json, "queued"), 1);
  free(json);
  wait_ok(queen_flush(client, NULL));
  client_end(client);
}

/* what was pushed is what comes back: spacing, number forms, order and even repeated keys */
TEST(payload_bytes_come_back_verbatim) {
  static const char *const payloads[] = {"{\"n\":1.0,  \"big\":123456789012345678901234567890}",
                                         "null",
                                         "\"\\u00e9 \xc3\xa9 \\ud83d\\ude00\"",
                                         "[1e2,1E+2,-0,0.10, [ ] ,{\"b\":1,\"a\":2,\"b\":3}]",
                                         "  true ",
                                         "12345678901234567890.123456789"};
  queen_client_t *client = client_new();
  const char *queue = queue_new(client, NULL);
  queen_message_view_t views[8];
  queen_delivery_t *delivery;
  char items[1024] = "[";
  size_t i;
  for (i = 0; i < LEN(payloads); i++)
    sprintf(items + strlen(items), "%s{\"payload\":%s,\"transactionId\":\"t%d\"}", i ? "," : "", payloads[i], (int)i);
  strcat(items, "]");
  wait_ok(queen_push(client, queue, "p", items, Z, NULL));
  delivery = pop(client, queue, "p", "{\"wait\":true,\"pollTimeoutMillis\":10000,\"batch\":10}");
  check_code(queen_delivery_count(delivery), LEN(payloads));
  check_code(queen_delivery_view(delivery, views, sizeof views[0], 0, LEN(views)), LEN(payloads));
  for (i = 0; i < LEN(payloads); i++) {
    /* white space around a value belongs to the document, not to the value */
    const char *wanted = payloads[i] + strspn(payloads[i], " ");
    size_t len = strlen(wanted);
    while (wanted[len - 1] == ' ') len--;
    check_code(views[i].payload_len, len);
    assert_memory_equal(views[i].payload, wanted, len);
  }
  wait_ok(queen_delivery_ack(delivery));
  queen_delivery_free(delivery);
  client_end(client);
}

TEST(pop_ack_and_renew_by_ids) {
  queen_client_t *client = client_new();
  const char *queue = queue_new(client, NULL);
  queen_delivery_t *delivery;
  queen_message_view_t view;
  push_n(client, queue, "p", 1, 1);
  delivery = pop(client, queue, NULL, "{\"wait\":true,\"pollTimeoutMillis\":10000,\"leaseSeconds\":30}");
  check_code(queen_delivery_view(delivery, &view, sizeof view, 0, 1), 1);
  wait_json_has(queen_renew(client, text_of(view.lease_id, view.lease_id_len), 60, NULL), "\"renewed\":1");
  /* ids that match a live delivery settle it there */
  wait_ok(queen_ack(client, params("[{\"transactionId\":\"%s\",\"partitionId\":\"%s\",\"leaseId\":\"%s\"}]",
                                   text_of(view.transaction_id, view.transaction_id_len),
                                   text_of(view.partition_id, view.partition_id_len),
                                   text_of(view.lease_id, view.lease_id_len)), Z, NULL));
  wait_code(queen_delivery_ack(delivery), QUEEN_E_ALREADY_SETTLED);
  queen_delivery_free(delivery);
  check(pop(client, queue, NULL, NO_WAIT) == NULL);
  /* without a lease id an ack would break other consumers' leases: refused unless asked for */
  check(code_of(queen_ack(client, "[{\"transactionId\":\"t\",\"partitionId\":\"p\"}]", Z, NULL)) != QUEEN_OK);
  client_end(client);
}

TEST(ack_and_renew_of_a_dead_lease_say_so) {
  queen_client_t *client = client_new();
  const char *queue = queue_new(client, NULL);
  queen_delivery_t *delivery;
  queen_message_view_t view;
  char ack[512];
  push_n(client, queue, "p", 1, 1);
  delivery = pop(client, queue, NULL, POLL_10S);
  check_code(queen_delivery_view(delivery, &view, sizeof view, 0, 1), 1);
  snprintf(ack, sizeof ack, "[{\"transactionId\":\"%s\",\"partitionId\":\"%s\",\"leaseId\":\"00000000-0000-7000-8000-000000000000\"}]",
           text_of(view.transaction_id, view.transaction_id_len), text_of(view.partition_id, view.partition_id_len));
  {
    queen_future_t *future = queen_ack(client, ack, Z, NULL);
    check_code(queen_future_wait(future, LONG_MS), QUEEN_OK);
    check_code(queen_error_code(queen_future_error(future)), QUEEN_E_LEASE_LOST);
    check_json(queen_future_json(future, NULL), "\"success\":false"); /* error and full result */
    queen_future_free(future);
  }
  wait_code(queen_renew(client, "00000000-0000-7000-8000-000000000000", 10, NULL), QUEEN_E_LEASE_LOST);
  wait_ok(queen_delivery_ack(delivery)); /* the live lease is untouched */
  queen_delivery_free(delivery);
  client_end(client);
}

/* the same walk by name, as a binding without typed functions would do it */
TEST(hot_operations_by_name) {
  queen_client_t *client = client_new();
  const char *queue = queue_new(client, NULL);
  queen_future_t *future;
  queen_delivery_t *delivery;
  queen_message_view_t view;
  wait_json_has(queen_call(client, "push", params("{\"queue\":\"%s\",\"partition\":\"p\",\"items\":[{\"payload\":{\"n\":6}}]}", queue), Z),
                "\"queued\"");
  wait_ok(queen_call(client, "flush", NULL, 0));
  future = queen_call(client, "pop", params("{\"queue\":\"%s\",\"partition\":\"p\",\"wait\":true,\"pollTimeoutMillis\":10000}", queue), Z);
  check_code(queen_future_wait(future, LONG_MS), QUEEN_OK);
  check(queen_future_error(future) == NULL);
  delivery = queen_future_take_delivery(future);
  queen_future_free(future);
  check_code(number_at(delivery, 0), 6);
  check_code(queen_delivery_view(delivery, &view, sizeof view, 0, 1), 1);
  wait_ok(queen_call(client, "renew", params("{\"leaseId\":\"%s\",\"leaseSeconds\":60}", text_of(view.lease_id, view.lease_id_len)), Z));
  wait_ok(queen_call(client, "ack",
                     params("{\"acks\":[{\"transactionId\":\"%s\",\"partitionId\":\"%s\",\"leaseId\":\"%s\",\"status\":\"completed\"}]}",
                            text_of(view.transaction_id, view.transaction_id_len),
                            text_of(view.partition_id, view.partition_id_len), text_of(view.lease_id, view.lease_id_len)), Z));
  queen_delivery_free(delivery);
  check(pop(client, queue, NULL, NO_WAIT) == NULL);
  wait_json_has(queen_call(client, "health", "{}", Z), "\"status\"");
  client_end(client);
}

TEST(pop_of_nothing_is_a_success_without_a_delivery) {
  queen_client_t *client = client_new();
  const char *queue = queue_new(client, NULL);
  queen_future_t *future = queen_pop(client, queue, NULL, "{\"wait\":true,\"pollTimeoutMillis\":300}");
  check_code(queen_future_wait(future, LONG_MS), QUEEN_OK);
  check(queen_future_error(future) == NULL);
  check(queen_future_take_delivery(future) == NULL);
  queen_future_free(future);
  client_end(client);
}

/* auto-ack commits at delivery: nothing to settle, nothing comes again */
TEST(auto_acked_pop_has_no_lease) {
  queen_client_t *client = client_new();
  const char *queue = queue_new(client, NULL);
  queen_delivery_t *delivery;
  push_n(client, queue, NULL, 8, 1);
  delivery = pop(client, queue, NULL, "{\"wait\":true,\"pollTimeoutMillis\":10000,\"autoAck\":true}");
  check_code(number_at(delivery, 0), 8);
  queen_delivery_free(delivery);
  check(pop(client, queue, NULL, "{\"wait\":true,\"pollTimeoutMillis\":500}") == NULL);
  client_end(client);
}

/* a group of its own sees what queue mode has consumed, from the start when it asks for all */
TEST(groups_are_independent) {
  queen_client_t *client = client_new();
  const char *queue = queue_new(client, NULL);
  queen_delivery_t *delivery;
  queen_message_view_t view;
  push_n(client, queue, NULL, 2, 1);
  delivery = pop(client, queue, NULL, POLL_10S);
  check_code(queen_delivery_view(delivery, &view, sizeof view, 0, 1), 1);
  assert_string_equal(text_of(view.consumer_group, view.consumer_group_len), "__QUEUE_MODE__");
  wait_ok(queen_delivery_ack(delivery));
  queen_delivery_free(delivery);
  delivery = pop(client, queue, NULL, "{\"wait\":true,\"pollTimeoutMillis\":10000,\"consumerGroup\":\"g1\",\"subscriptionMode\":\"all\"}");
  check_code(number_at(delivery, 0), 2);
  check_code(queen_delivery_view(delivery, &view, sizeof view, 0, 1), 1);
  assert_string_equal(text_of(view.consumer_group, view.consumer_group_len), "g1");
  wait_ok(queen_delivery_ack(delivery));
  queen_delivery_free(delivery);
  client_end(client);
}

TESTS(cmocka_unit_test(queue_is_created_got_and_deleted_by_name), cmocka_unit_test(not_found_carries_its_http_status),
      cmocka_unit_test(q21_push_answers_one_entry_per_item), cmocka_unit_test(payload_bytes_come_back_verbatim),
      cmocka_unit_test(pop_ack_and_renew_by_ids), cmocka_unit_test(ack_and_renew_of_a_dead_lease_say_so),
      cmocka_unit_test(hot_operations_by_name), cmocka_unit_test(pop_of_nothing_is_a_success_without_a_delivery),
      cmocka_unit_test(auto_acked_pop_has_no_lease), cmocka_unit_test(groups_are_independent))
