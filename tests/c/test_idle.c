/* brokers: all. Waiting costs no CPU: ten seconds of long polls in under 50 ms. */
#include "harness.h"

#include <sys/resource.h>

static int32_t ack(queen_delivery_t *delivery, void *user_data) {
  (void)delivery;
  gate_add((gate_t *)user_data, 1);
  return QUEEN_ACK;
}

static int64_t cpu_us(void) {
  struct rusage usage;
  getrusage(RUSAGE_SELF, &usage);
  return (int64_t)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) * 1000000 + usage.ru_utime.tv_usec + usage.ru_stime.tv_usec;
}

TEST(idle_consumers_cost_no_cpu) {
  queen_client_t *client = client_new();
  const char *queue = queue_new(client, NULL);
  queen_event_queue_t *events = queen_event_queue_new();
  gate_t calls = GATE_INIT;
  queen_consumer_t *by_callback = consume(client, queue, NULL, ack, &calls);
  queen_consumer_t *by_event = consume_into(client, unique("none"), NULL, events, 1);
  queen_event_t event;
  int64_t before, spent;
  push_n(client, queue, "p", 0, 1); /* everything is up and connected once this was handled */
  check(gate_reaches(&calls, 1, LONG_MS));
  check_code(queen_event_queue_poll(events, &event, sizeof event, 1, 500), 0);
  before = cpu_us();
  check_code(queen_event_queue_poll(events, &event, sizeof event, 1, 10000), 0);
  spent = cpu_us() - before;
  if (spent >= 50000) fail_msg("10 s idle took %" PRId64 " us of CPU time", spent);
  push_n(client, queue, "p", 0, 1); /* and the consumer is awake at once when it matters */
  check(gate_reaches(&calls, 2, LONG_MS));
  consumer_end(by_callback);
  consumer_end(by_event);
  queen_event_queue_free(events);
  client_end(client);
}

TESTS(cmocka_unit_test(idle_consumers_cost_no_cpu))
