/* What every C test shares: deadlines, waiting, JSON lookups, unique names, and a test main
 * that prints TAP. All asserts run on the main thread only: cmocka leaves a failed test with
 * longjmp. Handlers and other threads count with a gate_t instead. */
#ifndef HARNESS_H
#define HARNESS_H
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#ifdef __cplusplus
extern "C" { /* the cmocka of Debian 12 does not say so itself */
#endif
#include <cmocka.h>
#ifdef __cplusplus
}
#endif
#include <queen.h>

#define LONG_MS 30000    /* a deadline that nothing healthy reaches */
#define PROMPT_MS 12000  /* "prompt" = far below the long polls of 30 s, even on a loaded machine */
#define POLL_30S "{\"wait\":true,\"pollTimeoutMillis\":30000}"
#define POLL_10S "{\"wait\":true,\"pollTimeoutMillis\":10000}"
#define NO_WAIT "{\"wait\":false}"
#define Z QUEEN_NUL_TERMINATED
#define LEN(array) (sizeof(array) / sizeof((array)[0]))

static inline int64_t now_ms(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

/* ---- tests: TEST(name) { ... } and TESTS(cmocka_unit_test(name), ...) ---- */

static const char *running_test = "?";

static inline void test_hangs(int signal_number) {
  const char *text = ": no end after 120 s\n";
  ssize_t ignored = write(2, running_test, strlen(running_test));
  ignored = write(2, text, strlen(text));
  (void)ignored;
  (void)signal_number;
  abort();
}

/* cmocka turns a crash into a longjmp, which is no help when the crash is on a thread of the
 * library: let it kill the program, tests/c/run reports the signal and the lost tests. */
static inline void test_begin(const char *name) {
  static const int fatal[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGSYS};
  size_t i;
  running_test = name;
  fprintf(stderr, "# %s\n", name);
  for (i = 0; i < LEN(fatal); i++) signal(fatal[i], SIG_DFL);
  signal(SIGALRM, test_hangs);
  alarm(120);
}

#define TEST(name)                 \
  static void name##_body(void);   \
  static void name(void **state) { \
    (void)state;                   \
    test_begin(#name);             \
    name##_body();                 \
    alarm(0);                      \
  }                                \
  static void name##_body(void)

#define TESTS(...)                                             \
  int main(void) {                                             \
    const struct CMUnitTest tests[] = {__VA_ARGS__};           \
    cmocka_set_message_output(CM_OUTPUT_TAP);                  \
    return cmocka_run_group_tests(tests, NULL, NULL);          \
  }

#define check(condition) _assert_true((condition) ? 1 : 0, #condition, __FILE__, __LINE__)

static inline const char *code_text(int64_t code) {
  const char *name = queen_error_code_name((int32_t)code);
  return name != NULL ? name : "no code of queen.h";
}

#define check_code(got, wanted) check_code_at((got), (wanted), #got, __FILE__, __LINE__)
static inline void check_code_at(int64_t got, int64_t wanted, const char *what, const char *file, int line) {
  if (got == wanted) return;
  print_error("%s is %" PRId64 " (%s), wanted %" PRId64 " (%s)\n", what, got, code_text(got), wanted, code_text(wanted));
  _fail(file, line);
}

/* ---- a counter that other threads raise and the main thread waits for ---- */

typedef struct gate_t {
  pthread_mutex_t mutex;
  pthread_cond_t changed;
  int64_t n;
} gate_t;
#define GATE_INIT {PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER, 0}

static inline int64_t gate_add(gate_t *gate, int64_t n) {
  int64_t now;
  pthread_mutex_lock(&gate->mutex);
  now = gate->n += n;
  pthread_cond_broadcast(&gate->changed);
  pthread_mutex_unlock(&gate->mutex);
  return now;
}

static inline int64_t gate_get(gate_t *gate) { return gate_add(gate, 0); }

static inline int gate_reaches(gate_t *gate, int64_t n, int64_t timeout_ms) {
  struct timespec until;
  int there;
  clock_gettime(CLOCK_REALTIME, &until);
  until.tv_sec += timeout_ms / 1000;
  until.tv_nsec += (timeout_ms % 1000) * 1000000;
  if (until.tv_nsec >= 1000000000) until.tv_sec++, until.tv_nsec -= 1000000000;
  pthread_mutex_lock(&gate->mutex);
  while (gate->n < n && pthread_cond_timedwait(&gate->changed, &gate->mutex, &until) == 0) {}
  there = gate->n >= n;
  pthread_mutex_unlock(&gate->mutex);
  return there;
}

/* user_data_free for a gate: counts its runs */
static inline void gate_bump(void *gate) { gate_add((gate_t *)gate, 1); }

/* ---- JSON: compared without its spaces, because brokers differ in spacing ---- */

static inline int json_has(const char *json, const char *fragment) {
  size_t n = 0, i;
  char *flat;
  int found;
  if (json == NULL) return 0;
  flat = (char *)malloc(strlen(json) + 1);
  for (i = 0; json[i] != '\0'; i++)
    if (strchr(" \t\r\n", json[i]) == NULL) flat[n++] = json[i];
  flat[n] = '\0';
  found = strstr(flat, fragment) != NULL;
  free(flat);
  return found;
}

#define check_json(json, fragment) check_json_at((json), (fragment), __FILE__, __LINE__)
static inline void check_json_at(const char *json, const char *fragment, const char *file, int line) {
  if (json_has(json, fragment)) return;
  print_error("no %s in %s\n", fragment, json != NULL ? json : "(no JSON)");
  _fail(file, line);
}

static inline int count_of(const char *text, const char *word) {
  int n = 0;
  for (; text != NULL && (text = strstr(text, word)) != NULL; text += strlen(word)) n++;
  return n;
}

/* ---- futures: each of these takes the handle and frees it ---- */

#define code_of(future) code_of_at((future), __FILE__, __LINE__)
static inline int32_t code_of_at(queen_future_t *future, const char *file, int line) {
  int32_t code;
  check_code_at(queen_future_wait(future, LONG_MS), QUEEN_OK, "the wait for a future", file, line);
  code = queen_error_code(queen_future_error(future));
  queen_future_free(future);
  return code;
}

#define wait_code(future, wanted) wait_code_at((future), (wanted), __FILE__, __LINE__)
static inline void wait_code_at(queen_future_t *future, int32_t wanted, const char *file, int line) {
  const queen_error_t *error;
  check_code_at(queen_future_wait(future, LONG_MS), QUEEN_OK, "the wait for a future", file, line);
  error = queen_future_error(future);
  if (queen_error_code(error) != wanted)
    print_error("the error says: %s\n", error != NULL ? queen_error_message(error) : "(none)");
  check_code_at(queen_error_code(error), wanted, "the future's outcome", file, line);
  queen_future_free(future);
}
#define wait_ok(future) wait_code((future), QUEEN_OK)

/* waits for a result and returns a copy of its JSON, to be freed */
#define wait_json(future) wait_json_at((future), __FILE__, __LINE__)
static inline char *wait_json_at(queen_future_t *future, const char *file, int line) {
  size_t len = 0;
  const char *json;
  char *copy;
  check_code_at(queen_future_wait(future, LONG_MS), QUEEN_OK, "the wait for a future", file, line);
  if (queen_future_error(future) != NULL) print_error("%s\n", queen_error_message(queen_future_error(future)));
  check_code_at(queen_error_code(queen_future_error(future)), QUEEN_OK, "the future's outcome", file, line);
  json = queen_future_json(future, &len);
  _assert_true(json != NULL && strlen(json) == len, "JSON of its length, NUL-terminated", file, line);
  copy = strdup(json);
  queen_future_free(future);
  return copy;
}

#define wait_json_has(future, fragment)        \
  do {                                         \
    char *json_ = wait_json(future);           \
    check_json(json_, fragment);               \
    free(json_);                               \
  } while (0)

/* ---- clients, queues, messages ---- */

static inline const char *test_url(void) {
  const char *url = getenv("QUEEN_TEST_URL");
  return url != NULL && *url != '\0' ? url : "embedded:";
}

#define client_new() client_at(test_url())
#define client_at(config) client_at_line((config), __FILE__, __LINE__)
static inline queen_client_t *client_at_line(const char *config, const char *file, int line) {
  queen_error_t *error = NULL;
  queen_client_t *client = queen_client_new(config, Z, &error);
  if (client == NULL) print_error("%s: %s\n", config, queen_error_message(error));
  _assert_true(client != NULL && error == NULL, "a client", file, line);
  return client;
}

#define client_end(client) client_end_at((client), __FILE__, __LINE__)
static inline void client_end_at(queen_client_t *client, const char *file, int line) {
  wait_code_at(queen_client_close(client, LONG_MS), QUEEN_OK, file, line);
  queen_client_free(client);
}

/* a name no other test or run has used, in one of a few static buffers */
static inline const char *unique(const char *topic) {
  static char names[64][96];
  static unsigned next;
  char *name = names[next % 64];
  snprintf(name, sizeof names[0], "c-%s-%ld-%" PRIx64 "-%u", topic, (long)getpid(), (uint64_t)now_ms(), next);
  next++;
  return name;
}

/* creates a queue of its own for the test; options as in queue.create, or NULL */
#define queue_new(client, options) queue_new_at((client), (options), __FILE__, __LINE__)
static inline const char *queue_new_at(const queen_client_t *client, const char *options, const char *file, int line) {
  const char *name = unique("queue");
  char params[512];
  snprintf(params, sizeof params, "{\"queue\":\"%s\",\"options\":%s}", name, options != NULL ? options : "{\"leaseTime\":60}");
  wait_code_at(queen_call(client, "queue.create", params, Z), QUEEN_OK, file, line);
  return name;
}

/* pushes {"n":first} .. {"n":first+count-1} as one call */
#define push_n(client, queue, partition, first, count) push_n_at((client), (queue), (partition), (first), (count), __FILE__, __LINE__)
static inline void push_n_at(const queen_client_t *client, const char *queue, const char *partition, int first, int count,
                             const char *file, int line) {
  char *items = (char *)malloc((size_t)count * 40 + 3), *end = items;
  int i;
  for (i = 0; i < count; i++) end += sprintf(end, "%c{\"payload\":{\"n\":%d}}", i == 0 ? '[' : ',', first + i);
  strcpy(end, "]");
  wait_code_at(queen_push(client, queue, partition, items, Z, NULL), QUEEN_OK, file, line);
  free(items);
}

/* pops and returns the first delivery, NULL when nothing came */
#define pop(client, queue, partition, options) pop_at((client), (queue), (partition), (options), __FILE__, __LINE__)
static inline queen_delivery_t *pop_at(const queen_client_t *client, const char *queue, const char *partition,
                                       const char *options, const char *file, int line) {
  queen_future_t *future = queen_pop(client, queue, partition, options);
  queen_delivery_t *delivery;
  check_code_at(queen_future_wait(future, LONG_MS + 10000), QUEEN_OK, "the wait for a pop", file, line);
  if (queen_future_error(future) != NULL) print_error("%s\n", queen_error_message(queen_future_error(future)));
  check_code_at(queen_error_code(queen_future_error(future)), QUEEN_OK, "the pop's outcome", file, line);
  delivery = queen_future_take_delivery(future);
  queen_future_free(future);
  return delivery;
}

/* the number in a payload {"n":..}, -1 when there is none */
static inline int number_at(const queen_delivery_t *delivery, size_t index) {
  queen_message_view_t view;
  char text[64];
  int n = -1;
  memset(&view, 0, sizeof view);
  if (queen_delivery_view(delivery, &view, sizeof view, index, 1) != 1 || view.payload_len >= sizeof text) return -1;
  memcpy(text, view.payload, view.payload_len);
  text[view.payload_len] = '\0';
  return sscanf(text, "{\"n\":%d", &n) == 1 ? n : -1;
}

static inline const char *consume_options(char *buffer, size_t size, const char *queue, const char *more) {
  snprintf(buffer, size, "{\"queue\":\"%s\"%s%s}", queue, more != NULL ? "," : "", more != NULL ? more : "");
  return buffer;
}

/* starts a consumer; `more` are further options as in "\"batch\":2" */
#define consume(client, queue, more, handler, user_data) \
  consume_at((client), (queue), (more), (handler), (user_data), NULL, __FILE__, __LINE__)
static inline queen_consumer_t *consume_at(const queen_client_t *client, const char *queue, const char *more,
                                           queen_delivery_handler handler, void *user_data,
                                           queen_user_data_free user_data_free, const char *file, int line) {
  char options[640];
  queen_error_t *error = NULL;
  queen_consumer_t *consumer = queen_consume(client, consume_options(options, sizeof options, queue, more), Z, handler,
                                             user_data, user_data_free, &error);
  if (consumer == NULL) print_error("%s: %s\n", options, queen_error_message(error));
  _assert_true(consumer != NULL && error == NULL, "a consumer", file, line);
  return consumer;
}

#define consume_into(client, queue, more, events, tag) \
  consume_into_at((client), (queue), (more), (events), (tag), __FILE__, __LINE__)
static inline queen_consumer_t *consume_into_at(const queen_client_t *client, const char *queue, const char *more,
                                                const queen_event_queue_t *events, uint64_t tag, const char *file,
                                                int line) {
  char options[640];
  queen_error_t *error = NULL;
  queen_consumer_t *consumer = queen_consume_events(
      client, consume_options(options, sizeof options, queue, more), Z, events, tag, &error);
  if (consumer == NULL) print_error("%s: %s\n", options, queen_error_message(error));
  _assert_true(consumer != NULL && error == NULL, "a consumer", file, line);
  return consumer;
}

/* stops it, which must go well, and frees it */
#define consumer_end(consumer) consumer_end_at((consumer), __FILE__, __LINE__)
static inline void consumer_end_at(queen_consumer_t *consumer, const char *file, int line) {
  wait_code_at(queen_consumer_stop(consumer, LONG_MS), QUEEN_OK, file, line);
  queen_consumer_free(consumer);
}

/* polls one event, which must come */
#define poll_event(events, event) poll_event_at((events), (event), __FILE__, __LINE__)
static inline void poll_event_at(const queen_event_queue_t *events, queen_event_t *event, const char *file, int line) {
  memset(event, 0, sizeof *event);
  check_code_at(queen_event_queue_poll(events, event, sizeof *event, 1, LONG_MS), 1, "the poll for one event", file, line);
}

#endif
