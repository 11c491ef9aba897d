/* brokers: embedded. The library's threads leave the host's signals alone; broken pipes harm nobody. */
#include "process.h"

typedef struct masks_t {
  int wrong, tid, missing;
} masks_t;

static void check_mask(int tid, void *argument) {
  static const int open_ones[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGPROF};
  masks_t *masks = (masks_t *)argument;
  char path[64], line[256];
  unsigned long long blocked = 0;
  FILE *file;
  int signal_number;
  size_t i;
  snprintf(path, sizeof path, "/proc/self/task/%d/status", tid);
  file = fopen(path, "r");
  if (file == NULL) return; /* it has just ended */
  while (fgets(line, sizeof line, file) != NULL)
    if (sscanf(line, "SigBlk: %llx", &blocked) == 1) break;
  fclose(file);
  for (signal_number = 1; signal_number <= 64; signal_number++) {
    int wanted = 1;
    for (i = 0; i < LEN(open_ones); i++)
      if (open_ones[i] == signal_number) wanted = 0;
    /* these two cannot be blocked, and 32 and 33 belong to glibc */
    if (signal_number == SIGKILL || signal_number == SIGSTOP || signal_number == 32 || signal_number == 33) continue;
    if ((int)(blocked >> (signal_number - 1) & 1) != wanted) {
      masks->wrong++;
      masks->tid = tid;
      masks->missing = signal_number;
    }
  }
}

static int32_t look_around(queen_delivery_t *delivery, void *user_data) {
  (void)delivery;
  gate_add((gate_t *)user_data, 1);
  gate_reaches((gate_t *)user_data, 100, LONG_MS); /* stay, so that the handler's thread is seen too */
  return QUEEN_ACK;
}

static void on_complete(const queen_future_t *future, void *user_data) {
  (void)future;
  gate_add((gate_t *)user_data, 1);
}

TEST(library_threads_block_the_hosts_signals) {
  scratch_t scratch = scratch_new();
  queen_client_t *client = client_at(scratch_url(&scratch, "signals.db"));
  queen_client_t *remote = client_at("http://127.0.0.1:1");
  gate_t entered = GATE_INIT, called = GATE_INIT;
  masks_t masks = {0, 0, 0};
  queen_consumer_t *consumer;
  queen_future_t *future;
  push_n(client, "q", "p", 0, 1);
  consumer = consume(client, "q", NULL, look_around, &entered);
  check(gate_reaches(&entered, 1, LONG_MS));
  future = queen_call(remote, "health", NULL, 0);
  check_code(queen_future_on_complete(future, on_complete, &called, NULL), QUEEN_OK);
  check(gate_reaches(&called, 1, LONG_MS));
  queen_future_free(future);
  check(other_threads(check_mask, &masks) >= 3); /* I/O, dispatcher, handler at least */
  if (masks.wrong != 0) fail_msg("%d wrong, for one signal %d in thread %d", masks.wrong, masks.missing, masks.tid);
  gate_add(&entered, 100);
  consumer_end(consumer);
  client_end(client);
  client_end(remote);
  scratch_end(&scratch);
}

/* the caller's own mask and the process's handlers stay as they were */
TEST(m12_c7_c61_x9_callers_mask_and_handlers_are_untouched) {
  sigset_t before, after;
  struct sigaction old[65], now;
  queen_client_t *client;
  int i;
  for (i = 1; i < 65; i++) sigaction(i, NULL, &old[i]);
  pthread_sigmask(SIG_SETMASK, NULL, &before);
  client = client_new();
  push_n(client, "q", "p", 0, 10);
  client_end(client);
  check_code(queen_shutdown(LONG_MS), QUEEN_OK);
  pthread_sigmask(SIG_SETMASK, NULL, &after);
  for (i = 1; i < 65; i++) {
    check(sigismember(&before, i) == sigismember(&after, i));
    if (i == 32 || i == 33 || i == SIGKILL || i == SIGSTOP) continue;
    check(sigaction(i, NULL, &now) == 0);
    if (now.sa_handler != old[i].sa_handler || now.sa_flags != old[i].sa_flags) fail_msg("signal %d has changed", i);
  }
}

/* SIGPIPE at its default, connections that break under load: the process lives, every future ends */
static void under_resets(const char *mode) {
  scripted_t server = scripted_start("canned");
  queen_client_t *client = client_at(server.url);
  queen_future_t *futures[200];
  char items[4200];
  int broken = 0, round;
  size_t i;
  signal(SIGPIPE, SIG_DFL);
  memset(items, 'x', sizeof items);
  memcpy(items, "[{\"payload\":\"", 13);
  strcpy(items + sizeof items - 4, "\"}]");
  wait_ok(queen_call(client, "health", NULL, 0)); /* a kept connection, to be broken */
  scripted_mode(&server, mode);
  for (round = 0; round < 3; round++) {
    for (i = 0; i < LEN(futures); i++) {
      char partition[16];
      snprintf(partition, sizeof partition, "p%d", (int)i % 20);
      futures[i] = queen_push(client, "q", partition, items, Z, "{\"timeoutMillis\":5000}");
    }
    for (i = 0; i < LEN(futures); i++) {
      int32_t code;
      check_code(queen_future_wait(futures[i], LONG_MS), QUEEN_OK);
      code = queen_error_code(queen_future_error(futures[i]));
      if (code == QUEEN_E_NETWORK || code == QUEEN_E_CONNECT || code == QUEEN_E_TIMEOUT) broken++;
      else fail_msg("a broken connection gives %s", code_text(code));
      queen_future_free(futures[i]);
    }
  }
  check_code(broken, 3 * LEN(futures));
  scripted_mode(&server, "canned");
  wait_ok(queen_push(client, "q", "p0", "[{\"payload\":1}]", Z, NULL)); /* and it recovers */
  client_end(client);
  scripted_stop(&server);
}

TEST(resets_after_the_request_harm_nobody) { under_resets("reset"); }
TEST(resets_before_the_request_harm_nobody) { under_resets("reset-early"); }

TESTS(cmocka_unit_test(library_threads_block_the_hosts_signals), cmocka_unit_test(m12_c7_c61_x9_callers_mask_and_handlers_are_untouched),
      cmocka_unit_test(resets_after_the_request_harm_nobody), cmocka_unit_test(resets_before_the_request_harm_nobody))
