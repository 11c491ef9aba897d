/* brokers: all. What a delivery shows: views, older structs, JSON, and give-back when freed. */
#include "harness.h"

#define BATCH "{\"wait\":true,\"pollTimeoutMillis\":10000,\"batch\":10}"

static int same(const char *text, size_t len, const char *wanted) {
  return text != NULL && len == strlen(wanted) && memcmp(text, wanted, len) == 0;
}

TEST(views_show_every_field) {
  queen_client_t *client = client_new();
  const char *queue = queue_new(client, NULL);
  queen_delivery_t *delivery;
  queen_message_view_t views[4], again;
  int i;
  wait_ok(queen_push(client, queue, "p \xc3\xa9/1",
                     "[{\"payload\":{\"n\":0},\"transactionId\":\"tx-0\"},{\"payload\":{\"n\":1},\"transactionId\":\"tx-1\"},"
                     "{\"payload\":{\"n\":2},\"transactionId\":\"tx-2\"}]", Z, NULL));
  delivery = pop(client, queue, "p \xc3\xa9/1", BATCH);
  check_code(queen_delivery_count(delivery), 3);
  memset(views, 0xee, sizeof views);
  check_code(queen_delivery_view(delivery, views, sizeof views[0], 0, LEN(views)), 3);
  for (i = 0; i < 3; i++) {
    char id[8];
    sprintf(id, "tx-%d", i);
    check(same(views[i].transaction_id, views[i].transaction_id_len, id));
    check(same(views[i].queue, views[i].queue_len, queue));
    check(same(views[i].partition, views[i].partition_len, "p \xc3\xa9/1"));
    check(same(views[i].consumer_group, views[i].consumer_group_len, "__QUEUE_MODE__"));
    check(views[i].id != NULL && views[i].id_len > 0);
    check(views[i].partition_id != NULL && views[i].partition_id_len > 0);
    check(views[i].lease_id != NULL && views[i].lease_id_len > 0);
    check(views[i].created_at != NULL && views[i].created_at_len >= 20);
    check(views[i].trace_id == NULL && views[i].trace_id_len == 0);
    check(views[i].producer_sub == NULL && views[i].producer_sub_len == 0);
    check_code(number_at(delivery, (size_t)i), i);
  }
  check(((unsigned char *)&views[3])[0] == 0xee); /* nothing written beyond what was filled */
  check_code(queen_delivery_view(delivery, &again, sizeof again, 1, 1), 1);
  check(same(again.transaction_id, again.transaction_id_len, "tx-1"));
  check(again.payload == views[1].payload); /* on loan, not copied */
  wait_ok(queen_delivery_ack(delivery));
  check(same(views[2].transaction_id, views[2].transaction_id_len, "tx-2")); /* settled or not, until freed */
  queen_delivery_free(delivery);
  client_end(client);
}

/* a program built against an older, shorter struct keeps its own stride and nothing beyond is touched */
TEST(older_and_newer_structs_keep_their_stride) {
  enum { OLD = offsetof(queen_message_view_t, trace_id), NEW = sizeof(queen_message_view_t) + 32 };
  queen_client_t *client = client_new();
  const char *queue = queue_new(client, NULL);
  static union {
    unsigned char bytes[2 * NEW + 64];
    void *aligned;
  } room;
  queen_message_view_t full, first, second;
  queen_delivery_t *delivery;
  size_t i;
  push_n(client, queue, "p", 0, 2);
  delivery = pop(client, queue, "p", BATCH);
  check_code(queen_delivery_view(delivery, &full, sizeof full, 1, 1), 1);
  memset(room.bytes, 0xee, sizeof room.bytes);
  check_code(queen_delivery_view(delivery, (queen_message_view_t *)(void *)room.bytes, OLD, 0, 2), 2);
  memset(&second, 0, sizeof second);
  memcpy(&second, room.bytes + OLD, OLD);
  check(memcmp(&second, &full, OLD) == 0);
  for (i = 2 * OLD; i < sizeof room.bytes; i++) check(room.bytes[i] == 0xee);
  memset(room.bytes, 0xee, sizeof room.bytes);
  check_code(queen_delivery_view(delivery, (queen_message_view_t *)(void *)room.bytes, NEW, 0, 2), 2);
  memcpy(&first, room.bytes, sizeof first);
  memcpy(&second, room.bytes + NEW, sizeof second);
  check(memcmp(&second, &full, sizeof full) == 0);
  check(first.payload != NULL && first.payload_len == strlen("{\"n\":0}"));
  for (i = 2 * NEW; i < sizeof room.bytes; i++) check(room.bytes[i] == 0xee);
  wait_ok(queen_delivery_ack(delivery));
  queen_delivery_free(delivery);
  client_end(client);
}

TEST(json_holds_the_whole_delivery) {
  queen_client_t *client = client_new();
  const char *queue = queue_new(client, NULL);
  queen_delivery_t *delivery;
  char fragment[160];
  size_t len = 0;
  const char *json;
  wait_ok(queen_push(client, queue, "p", "[{\"payload\":{\"x\" : 1.50},\"transactionId\":\"tx\"}]", Z, NULL));
  delivery = pop(client, queue, "p", BATCH);
  json = queen_delivery_json(delivery, &len);
  check(json != NULL && strlen(json) == len);
  check(queen_delivery_json(delivery, NULL) == json);
  snprintf(fragment, sizeof fragment, "\"queue\":\"%s\"", queue);
  check_json(json, fragment);
  check_json(json, "\"partition\":\"p\"");
  check_json(json, "\"messages\":[{");
  check_json(json, "\"transactionId\":\"tx\"");
  check_json(json, "\"traceId\":null");
  check(strstr(json, "{\"x\" : 1.50}") != NULL); /* the payload's own bytes */
  wait_ok(queen_delivery_ack(delivery));
  queen_delivery_free(delivery);
  client_end(client);
}

/* one pop over several partitions yields one delivery for each */
TEST(x25_pop_over_partitions_yields_a_delivery_for_each) {
  static const char *const partitions[] = {"a", "b", "c"};
  queen_client_t *client = client_new();
  const char *queue = queue_new(client, NULL);
  queen_future_t *future;
  queen_delivery_t *deliveries[4];
  int sum = 0;
  size_t i;
  for (i = 0; i < LEN(partitions); i++) push_n(client, queue, partitions[i], (int)i * 10, 2);
  future = queen_pop(client, queue, NULL, "{\"wait\":true,\"pollTimeoutMillis\":10000,\"batch\":10,\"partitions\":3}");
  check_code(queen_future_wait(future, LONG_MS), QUEEN_OK);
  for (i = 0; i < LEN(deliveries); i++) deliveries[i] = queen_future_take_delivery(future);
  check(deliveries[3] == NULL);
  queen_future_free(future);
  for (i = 0; i < 3; i++) {
    check_code(queen_delivery_count(deliveries[i]), 2);
    check_code(number_at(deliveries[i], 1), number_at(deliveries[i], 0) + 1);
    sum += number_at(deliveries[i], 0);
    wait_ok(queen_delivery_ack(deliveries[i]));
    queen_delivery_free(deliveries[i]);
  }
  check_code(sum, 30);
  check(pop(client, queue, NULL, NO_WAIT) == NULL);
  client_end(client);
}

/* giving back costs no retry: with one retry left, three give-backs change nothing */
TEST(freed_unsettled_comes_back_at_once_without_a_charge) {
  queen_client_t *client = client_new();
  const char *queue = queue_new(client, "{\"leaseTime\":120,\"retryLimit\":1}");
  queen_delivery_t *delivery;
  int i;
  push_n(client, queue, "p", 0, 2);
  for (i = 0; i < 3; i++) {
    delivery = pop(client, queue, NULL, "{\"wait\":true,\"pollTimeoutMillis\":30000,\"batch\":10}");
    check_code(queen_delivery_count(delivery), 2);
    check_code(number_at(delivery, 0), 0);
    queen_delivery_free(delivery);
  }
  for (i = 0; i < 2; i++) { /* failed twice = one retry, then the dead letter */
    delivery = pop(client, queue, NULL, POLL_30S);
    check_code(number_at(delivery, 0), 0);
    wait_ok(queen_delivery_nack(delivery, "no good"));
    queen_delivery_free(delivery);
  }
  delivery = pop(client, queue, NULL, POLL_30S);
  check_code(number_at(delivery, 0), 1);
  wait_ok(queen_delivery_ack(delivery));
  queen_delivery_free(delivery);
  check(pop(client, queue, NULL, "{\"wait\":true,\"pollTimeoutMillis\":500}") == NULL);
  client_end(client);
}

/* what was settled stays settled, only the rest is given back */
TEST(freed_in_part_gives_back_the_rest) {
  queen_client_t *client = client_new();
  const char *queue = queue_new(client, "{\"leaseTime\":120}");
  queen_delivery_t *delivery;
  push_n(client, queue, "p", 0, 4);
  delivery = pop(client, queue, NULL, BATCH);
  check_code(queen_delivery_count(delivery), 4);
  wait_ok(queen_delivery_settle(delivery, "[{\"index\":0,\"status\":\"completed\"},{\"index\":1,\"status\":\"completed\"}]", Z));
  queen_delivery_free(delivery);
  delivery = pop(client, queue, NULL, "{\"wait\":true,\"pollTimeoutMillis\":30000,\"batch\":10}");
  check_code(queen_delivery_count(delivery), 2);
  check_code(number_at(delivery, 0), 2);
  wait_ok(queen_delivery_ack(delivery));
  queen_delivery_free(delivery);
  client_end(client);
}

/* a verdict outlives its handle */
TEST(freed_with_a_verdict_under_way_is_settled) {
  queen_client_t *client = client_new();
  const char *queue = queue_new(client, "{\"leaseTime\":120}");
  queen_delivery_t *delivery;
  queen_future_t *future;
  push_n(client, queue, "p", 0, 1);
  delivery = pop(client, queue, NULL, BATCH);
  future = queen_delivery_ack(delivery);
  queen_delivery_free(delivery);
  wait_ok(future);
  check(pop(client, queue, NULL, "{\"wait\":true,\"pollTimeoutMillis\":500}") == NULL);
  client_end(client);
}

TESTS(cmocka_unit_test(views_show_every_field), cmocka_unit_test(older_and_newer_structs_keep_their_stride),
      cmocka_unit_test(json_holds_the_whole_delivery), cmocka_unit_test(x25_pop_over_partitions_yields_a_delivery_for_each),
      cmocka_unit_test(freed_unsettled_comes_back_at_once_without_a_charge),
      cmocka_unit_test(freed_in_part_gives_back_the_rest), cmocka_unit_test(freed_with_a_verdict_under_way_is_settled))
