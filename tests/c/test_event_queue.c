/* brokers: all. The event queue: batches, its descriptor, wakeup, and what its free ends. */
#include "process.h"

#define ITEM "[{\"payload\":1}]"

static int readable(int fd) {
  struct pollfd p;
  p.fd = fd;
  p.events = POLLIN;
  return poll(&p, 1, 0) == 1 && (p.revents & POLLIN) != 0;
}

/* waits for poll(2) to see it: it must, before the deadline */
static int becomes_readable(int fd) {
  struct pollfd p;
  p.fd = fd;
  p.events = POLLIN;
  return poll(&p, 1, LONG_MS) == 1;
}

/* n pushes, all completed, all on their way into the queue with tags from `first` */
static void fill(const queen_client_t *client, const queen_event_queue_t *events, const char *queue, uint64_t first, int n) {
  int i;
  for (i = 0; i < n; i++) {
    queen_future_t *future = queen_push(client, queue, "p", ITEM, Z, NULL);
    check_code(queen_future_deliver(future, events, first + (uint64_t)i), QUEEN_OK);
    queen_future_free(future);
  }
}

TEST(batches_keep_the_order_of_completion) {
  queen_client_t *client = client_new();
  const char *queue = queue_new(client, NULL);
  queen_event_queue_t *events = queen_event_queue_new();
  queen_event_t got[64];
  int seen[100] = {0}, total = 0;
  fill(client, events, queue, 0, 100);
  while (total < 100) {
    int64_t n = queen_event_queue_poll(events, got, sizeof got[0], LEN(got), LONG_MS), i;
    check(n > 0 && n <= (int64_t)LEN(got));
    for (i = 0; i < n; i++) {
      check_code(got[i].type, QUEEN_EVENT_FUTURE);
      check(got[i].tag < 100);
      seen[got[i].tag]++;
    }
    total += (int)n;
    queen_events_free(got, (size_t)n);
  }
  for (total = 0; total < 100; total++) check_code(seen[total], 1);
  check_code(queen_event_queue_poll(events, got, sizeof got[0], LEN(got), 0), 0);
  queen_event_queue_free(events);
  client_end(client);
}

/* a program built against a newer, longer struct polls at its own stride */
TEST(newer_structs_keep_their_stride) {
  typedef struct newer_t {
    queen_event_t event;
    uint64_t more[3];
  } newer_t;
  queen_client_t *client = client_new();
  const char *queue = queue_new(client, NULL);
  queen_event_queue_t *events = queen_event_queue_new();
  newer_t got[4];
  int64_t n = 0, i;
  uint64_t tags = 0;
  fill(client, events, queue, 1, 3);
  while (n < 3) {
    int64_t more = queen_event_queue_poll(events, (queen_event_t *)(void *)got, sizeof got[0], 3, LONG_MS);
    check(more > 0);
    for (i = 0; i < more; i++) {
      tags += got[i].event.tag;
      check_code(got[i].event.event_size, sizeof got[0]);
      check_json(got[i].event.json, "\"queued\"");
    }
    queen_events_free(&got[0].event, (size_t)more);
    n += more;
  }
  check(tags == 6);
  queen_event_queue_free(events);
  client_end(client);
}

TEST(descriptor_is_readable_exactly_while_events_wait) {
  queen_client_t *client = client_new();
  const char *queue = queue_new(client, NULL);
  queen_event_queue_t *events = queen_event_queue_new();
  int fd = queen_event_queue_fd(events), round;
  queen_event_t event;
  check(fd >= 0);
  check_code(queen_event_queue_fd(events), fd); /* always the same one */
  check((fcntl(fd, F_GETFL) & O_NONBLOCK) != 0);
  check((fcntl(fd, F_GETFD) & FD_CLOEXEC) != 0);
  for (round = 0; round < 20; round++) {
    int left;
    check(!readable(fd));
    fill(client, events, queue, 1, 3);
    wait_ok(queen_flush(client, NULL));
    check(becomes_readable(fd));
    for (left = 3; left > 0; left--) {
      check(becomes_readable(fd)); /* a partial poll leaves it readable */
      poll_event(events, &event);
      queen_events_free(&event, 1);
    }
    check(!readable(fd)); /* the poll that emptied it took the byte out */
  }
  queen_event_queue_free(events);
  client_end(client);
}

/* the descriptor made on first use, with events waiting already */
TEST(descriptor_made_late_is_readable_at_once) {
  queen_client_t *client = client_new();
  const char *queue = queue_new(client, NULL);
  queen_event_queue_t *events = queen_event_queue_new();
  queen_future_t *future = queen_push(client, queue, "p", ITEM, Z, NULL);
  queen_event_t event[2];
  int fd;
  check_code(queen_future_wait(future, LONG_MS), QUEEN_OK);
  check_code(queen_future_deliver(future, events, 1), QUEEN_OK); /* finished: arrives without a broker */
  fd = queen_event_queue_fd(events);
  check(becomes_readable(fd));
  /* the same for a wakeup that nobody has seen */
  check_code(queen_event_queue_poll(events, event, sizeof event[0], 2, LONG_MS), 1);
  queen_events_free(event, 1);
  check(!readable(fd));
  queen_future_free(future);
  queen_event_queue_free(events);
  events = queen_event_queue_new();
  check_code(queen_event_queue_wakeup(events), QUEEN_OK);
  check(readable(queen_event_queue_fd(events)));
  queen_event_queue_free(events);
  client_end(client);
}

TEST(wakeup_is_remembered_once) {
  queen_event_queue_t *events = queen_event_queue_new();
  int fd = queen_event_queue_fd(events);
  queen_event_t event;
  int64_t start = now_ms();
  check(!readable(fd));
  check_code(queen_event_queue_wakeup(events), QUEEN_OK);
  check_code(queen_event_queue_wakeup(events), QUEEN_OK); /* two of them are one */
  check(readable(fd));
  check_code(queen_event_queue_poll(events, &event, sizeof event, 1, LONG_MS), 0);
  check(now_ms() - start < PROMPT_MS);
  check(!readable(fd));
  start = now_ms();
  check_code(queen_event_queue_poll(events, &event, sizeof event, 1, 300), 0); /* used up: this one waits */
  check(now_ms() - start >= 290);
  queen_event_queue_free(events);
}

typedef struct poller_t {
  queen_event_queue_t *events;
  gate_t started;
  int tid;
  int64_t result;
} poller_t;

static void *poll_long(void *argument) {
  poller_t *p = (poller_t *)argument;
  queen_event_t event;
  p->tid = (int)syscall(SYS_gettid);
  gate_add(&p->started, 1);
  p->result = queen_event_queue_poll(p->events, &event, sizeof event, 1, LONG_MS);
  return NULL;
}

TEST(wakeup_ends_a_running_poll) {
  poller_t p = {queen_event_queue_new(), GATE_INIT, 0, 99};
  pthread_t thread;
  int64_t start = now_ms();
  pthread_create(&thread, NULL, poll_long, &p);
  check(gate_reaches(&p.started, 1, LONG_MS) && thread_sleeps(p.tid));
  check_code(queen_event_queue_wakeup(p.events), QUEEN_OK);
  pthread_join(thread, NULL);
  check_code(p.result, 0);
  check(now_ms() - start < PROMPT_MS);
  {
    queen_event_t event; /* it ended that poll, so it does not end the next */
    check_code(queen_event_queue_poll(p.events, &event, sizeof event, 1, 0), 0);
    check(!readable(queen_event_queue_fd(p.events)));
  }
  queen_event_queue_free(p.events);
}

TEST(free_ends_running_polls_with_closed) {
  poller_t p[3];
  pthread_t threads[3];
  queen_event_queue_t *events = queen_event_queue_new();
  int64_t start = now_ms();
  size_t i;
  for (i = 0; i < LEN(p); i++) {
    poller_t fresh = {events, GATE_INIT, 0, 99};
    memcpy(&p[i], &fresh, sizeof fresh);
    pthread_create(&threads[i], NULL, poll_long, &p[i]);
    check(gate_reaches(&p[i].started, 1, LONG_MS) && thread_sleeps(p[i].tid));
  }
  queen_event_queue_free(events);
  for (i = 0; i < LEN(p); i++) {
    pthread_join(threads[i], NULL);
    check_code(p[i].result, QUEEN_E_CLOSED);
  }
  check(now_ms() - start < PROMPT_MS);
}

/* completions on their way into a freed queue are dropped, their operations are not */
TEST(free_with_futures_under_way) {
  queen_client_t *client = client_new();
  const char *queue = queue_new(client, NULL);
  queen_event_queue_t *events = queen_event_queue_new();
  queen_future_t *waiting = queen_pop(client, queue, "q", POLL_30S);
  check_code(queen_future_deliver(waiting, events, 1), QUEEN_OK);
  fill(client, events, queue, 2, 50);
  queen_event_queue_free(events);
  wait_ok(queen_flush(client, NULL));
  queen_future_cancel(waiting);
  wait_code(waiting, QUEEN_E_CANCELLED);
  {
    queen_delivery_t *all = pop(client, queue, "p", "{\"wait\":true,\"pollTimeoutMillis\":10000,\"batch\":100}");
    check_code(queen_delivery_count(all), 50);
    wait_ok(queen_delivery_ack(all));
    queen_delivery_free(all);
  }
  client_end(client);
}

/* many threads may poll one queue: every event goes to exactly one of them */
typedef struct share_t {
  queen_event_queue_t *events;
  gate_t total;
} share_t;

static void *poll_all(void *argument) {
  share_t *s = (share_t *)argument;
  queen_event_t got[7];
  int64_t n;
  while ((n = queen_event_queue_poll(s->events, got, sizeof got[0], LEN(got), 20)) >= 0 && gate_get(&s->total) < 500) {
    gate_add(&s->total, n);
    queen_events_free(got, (size_t)n);
  }
  return NULL;
}

TEST(several_pollers_share_the_events) {
  queen_client_t *client = client_new();
  const char *queue = queue_new(client, NULL);
  share_t s = {queen_event_queue_new(), GATE_INIT};
  pthread_t threads[4];
  queen_event_t event;
  size_t i;
  for (i = 0; i < LEN(threads); i++) pthread_create(&threads[i], NULL, poll_all, &s);
  fill(client, s.events, queue, 1, 500);
  check(gate_reaches(&s.total, 500, LONG_MS));
  for (i = 0; i < LEN(threads); i++) pthread_join(threads[i], NULL);
  check_code(gate_get(&s.total), 500);
  check_code(queen_event_queue_poll(s.events, &event, sizeof event, 1, 0), 0);
  queen_event_queue_free(s.events);
  client_end(client);
}

TESTS(cmocka_unit_test(batches_keep_the_order_of_completion), cmocka_unit_test(newer_structs_keep_their_stride),
      cmocka_unit_test(descriptor_is_readable_exactly_while_events_wait),
      cmocka_unit_test(descriptor_made_late_is_readable_at_once), cmocka_unit_test(wakeup_is_remembered_once),
      cmocka_unit_test(wakeup_ends_a_running_poll), cmocka_unit_test(free_ends_running_polls_with_closed),
      cmocka_unit_test(free_with_futures_under_way), cmocka_unit_test(several_pollers_share_the_events))
