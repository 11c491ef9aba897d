/* brokers: all. Dead letters, messages, traces and consumer groups by name. */
#include "harness.h"

static const char *params(const char *format, ...) {
  static char texts[16][1024];
  static unsigned next;
  char *text = texts[next++ % 16];
  va_list values;
  va_start(values, format);
  vsnprintf(text, sizeof texts[0], format, values);
  va_end(values);
  return text;
}

static const char *copy(const char *text, size_t len) { return params("%.*s", (int)len, text); }

/* pops one message of `queue` for group g, from its start */
static queen_delivery_t *next_of(queen_client_t *client, const char *queue) {
  queen_delivery_t *delivery =
      pop(client, queue, NULL, "{\"consumerGroup\":\"g\",\"subscriptionMode\":\"all\",\"wait\":true,\"pollTimeoutMillis\":10000}");
  check(delivery != NULL);
  return delivery;
}

static const char *partition_id_of(const queen_delivery_t *delivery) {
  queen_message_view_t view;
  check_code(queen_delivery_view(delivery, &view, sizeof view, 0, 1), 1);
  return copy(view.partition_id, view.partition_id_len);
}

TEST(q26_x46_dead_letters_are_listed_pushed_again_and_deleted) {
  queen_client_t *client = client_new();
  const char *queue = queue_new(client, NULL), *address[2], *partition_id;
  size_t i;
  wait_ok(queen_push(client, queue, "p", "[{\"payload\":{\"n\":1},\"transactionId\":\"one\"},{\"payload\":{\"n\":2},\"transactionId\":\"two\"}]",
                     Z, NULL));
  for (i = 0; i < 2; i++) {
    queen_delivery_t *delivery = next_of(client, queue);
    partition_id = partition_id_of(delivery);
    wait_ok(queen_delivery_settle(delivery, "[{\"index\":0,\"status\":\"dlq\",\"error\":\"no good\"}]", Z));
    queen_delivery_free(delivery);
    address[i] = params("{\"partitionId\":\"%s\",\"transactionId\":\"%s\"}", partition_id, i == 0 ? "one" : "two");
  }
  {
    char *json = wait_json(queen_call(client, "dlq.list", params("{\"queue\":\"%s\",\"consumerGroup\":\"g\"}", queue), Z));
    check_code(count_of(json, "no good"), 2);
    free(json);
    json = wait_json(queen_call(client, "dlq.list", params("{\"queue\":\"%s\",\"partition\":\"other\"}", queue), Z));
    check_code(count_of(json, "no good"), 0);
    free(json);
    json = wait_json(queen_call(
        client, "dlq.list", params("{\"queue\":\"%s\",\"partition\":\"p\",\"from\":\"2001-01-01T00:00:00Z\",\"limit\":1}", queue), Z));
    check_code(count_of(json, "no good"), 1);
    check(strstr(json, "two") != NULL); /* the newest first */
    free(json);
  }
  wait_json_has(queen_call(client, "message.get", address[0], Z), "\"status\":\"dead_letter\"");
  wait_json_has(queen_call(client, "dlq.retry", address[0], Z), "\"success\":true");
  wait_code(queen_call(client, "dlq.retry", address[0], Z), QUEEN_E_NOT_FOUND);
  wait_json_has(queen_call(client, "dlq.delete", address[1], Z), "\"success\":true");
  wait_code(queen_call(client, "dlq.delete", address[1], Z), QUEEN_E_NOT_FOUND);
  {
    queen_delivery_t *again = next_of(client, queue);
    check_code(number_at(again, 0), 1);
    wait_ok(queen_delivery_ack(again));
    queen_delivery_free(again);
  }
  wait_code(queen_call(client, "dlq.list", "{\"limit\":\"ten\"}", Z), QUEEN_E_INVALID_JSON);
  wait_code(queen_call(client, "dlq.list", "{\"from\":\"soon\"}", Z), QUEEN_E_INVALID_ARGUMENT);
  client_end(client);
}

static int32_t on_three(queen_delivery_t *delivery, void *user_data) {
  size_t i;
  for (i = 0; i < queen_delivery_count(delivery); i++) {
    char trace[128];
    snprintf(trace, sizeof trace, "{\"data\":%d,\"traceNames\":[\"%s\"]}", number_at(delivery, i), (const char *)user_data);
    queen_future_free(queen_delivery_trace(delivery, i, trace, Z)); /* nobody waits */
  }
  queen_future_free(queen_delivery_trace(delivery, 99, "{\"data\":1}", Z));
  queen_future_free(queen_delivery_trace(delivery, 0, "{}", Z));
  return QUEEN_ACK;
}

TEST(c3_tr4_traces_of_a_handler_go_to_their_messages_and_never_fail_it) {
  queen_client_t *client = client_new();
  const char *queue = queue_new(client, NULL), *name = unique("trace");
  queen_consumer_t *consumer;
  char *json;
  int64_t deadline = now_ms() + LONG_MS;
  push_n(client, queue, "p", 0, 3);
  consumer = consume(client, queue, "\"batch\":3,\"limit\":3", on_three, (void *)name);
  wait_json_has(queen_consumer_future(consumer), "\"acked\":3");
  for (;;) {
    json = wait_json(queen_call(client, "trace.by_name", params("{\"traceName\":\"%s\"}", name), Z));
    if (count_of(json, "\"event_type\"") == 3) break;
    check(now_ms() < deadline);
    free(json);
  }
  check(json_has(json, "\"data\":0") && json_has(json, "\"data\":1") && json_has(json, "\"data\":2"));
  free(json);
  wait_code(queen_delivery_trace(NULL, 0, "{\"data\":1}", Z), QUEEN_E_INVALID_ARGUMENT);
  queen_consumer_free(consumer);
  client_end(client);
}

TEST(x55_traces_by_ids_and_names) {
  queen_client_t *client = client_new();
  const char *queue = queue_new(client, NULL), *name = unique("trace"), *partition_id;
  queen_delivery_t *delivery;
  wait_ok(queen_push(client, queue, "p", "[{\"payload\":1,\"transactionId\":\"t\"}]", Z, NULL));
  delivery = next_of(client, queue);
  partition_id = partition_id_of(delivery);
  wait_json_has(queen_call(client, "trace.add",
                           params("{\"partitionId\":\"%s\",\"transactionId\":\"t\",\"data\":{\"a\":[1]},\"traceNames\":\"%s\","
                                  "\"consumerGroup\":\"g\",\"eventType\":\"step\"}",
                                  partition_id, name), Z),
                "\"success\":true");
  wait_json_has(queen_call(client, "trace.list", params("{\"partitionId\":\"%s\",\"transactionId\":\"t\"}", partition_id), Z),
                "\"event_type\":\"step\"");
  wait_json_has(queen_call(client, "trace.names", "{\"limit\":10000}", Z), params("\"trace_name\":\"%s\"", name));
  wait_code(queen_call(client, "trace.add", params("{\"partitionId\":\"%s\",\"transactionId\":\"t\"}", partition_id), Z),
            QUEEN_E_INVALID_JSON);
  wait_ok(queen_delivery_ack(delivery));
  queen_delivery_free(delivery);
  client_end(client);
}

TEST(x56_x57_groups_are_told_moved_and_forgotten) {
  queen_client_t *client = client_new();
  const char *queue = queue_new(client, NULL), *of;
  queen_delivery_t *delivery;
  push_n(client, queue, "p", 1, 1);
  delivery = next_of(client, queue);
  wait_ok(queen_delivery_ack(delivery));
  queen_delivery_free(delivery);
  wait_json_has(queen_call(client, "group.list", NULL, 0), params("\"queueName\":\"%s\"", queue));
  wait_json_has(queen_call(client, "group.get", "{\"consumerGroup\":\"g\"}", Z), params("\"%s\"", queue));
  of = params("{\"consumerGroup\":\"g\",\"queue\":\"%s\",\"timestamp\":\"1970-01-01T00:00:00Z\"}", queue);
  wait_json_has(queen_call(client, "group.seek", of, Z), "\"partitionsUpdated\":1");
  delivery = next_of(client, queue);
  check_code(number_at(delivery, 0), 1);
  wait_ok(queen_delivery_ack(delivery));
  queen_delivery_free(delivery);
  of = params("{\"consumerGroup\":\"g\",\"queue\":\"%s\",\"partition\":\"p\",\"toEnd\":true}", queue);
  wait_json_has(queen_call(client, "group.seek", of, Z), "\"updated\":true");
  wait_code(queen_call(client, "group.seek", params("{\"consumerGroup\":\"g\",\"queue\":\"%s\"}", queue), Z), QUEEN_E_INVALID_ARGUMENT);
  wait_json_has(queen_call(client, "group.subscribe", "{\"consumerGroup\":\"nobody\",\"timestamp\":\"2020-01-01T00:00:00Z\"}", Z),
                "\"rowsUpdated\":0");
  wait_ok(queen_call(client, "group.lagging", "{\"minLagSeconds\":86400}", Z));
  of = params("{\"consumerGroup\":\"g\",\"queue\":\"%s\",\"deleteMetadata\":true}", queue);
  wait_json_has(queen_call(client, "group.delete", of, Z), "\"deletedPartitions\":1");
  client_end(client);
}

TEST(x63_x64_health_and_metrics_answer) {
  queen_client_t *client = client_new();
  wait_json_has(queen_call(client, "health", NULL, 0), "\"status\":\"healthy\"");
  wait_json_has(queen_call(client, "metrics", NULL, 0), "\"uptime\"");
  wait_json_has(queen_call(client, "metrics.prometheus", NULL, 0), "#TYPEqueen_");
  client_end(client);
}

TESTS(cmocka_unit_test(q26_x46_dead_letters_are_listed_pushed_again_and_deleted),
      cmocka_unit_test(c3_tr4_traces_of_a_handler_go_to_their_messages_and_never_fail_it),
      cmocka_unit_test(x55_traces_by_ids_and_names), cmocka_unit_test(x56_x57_groups_are_told_moved_and_forgotten),
      cmocka_unit_test(x63_x64_health_and_metrics_answer))
