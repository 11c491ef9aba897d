/* The program that tests start as a process of its own: helper MODE [URL].
 * The exit modes return from main with work in flight and must stay silent and exit with 0. */
#include "harness.h"

static gate_t entered = GATE_INIT, never = GATE_INIT;

static int32_t block(queen_delivery_t *delivery, void *user_data) {
  (void)delivery;
  (void)user_data;
  gate_add(&entered, 1);
  gate_reaches(&never, 1, LONG_MS);
  return QUEEN_ACK;
}

static int32_t busy(queen_delivery_t *delivery, void *user_data) {
  (void)delivery;
  (void)user_data;
  gate_add(&entered, 1);
  return QUEEN_NACK; /* so that it comes again and again */
}

static int32_t odd(queen_delivery_t *delivery, void *user_data) {
  (void)delivery;
  (void)user_data;
  return gate_add(&entered, 1) == 1 ? 77 : QUEEN_ACK;
}

static void on_complete(const queen_future_t *future, void *user_data) {
  (void)future;
  (void)user_data;
  gate_add(&entered, 1);
}

/* no assert here: a helper answers with its exit code */
#define MUST(condition) \
  do {                  \
    if (!(condition)) { \
      printf("helper: line %d: %s\n", __LINE__, #condition); \
      return 1;         \
    }                   \
  } while (0)

static int good(queen_future_t *future) {
  int ok = queen_future_wait(future, LONG_MS) == QUEEN_OK && queen_future_error(future) == NULL;
  queen_future_free(future);
  return ok;
}

/* prints the outcome of the first call: "ok", or name and message of the error; then waits for
 * the end of its stdin with the store open */
static int open_store(const char *url, int hold) {
  queen_error_t *error = NULL;
  queen_client_t *client = queen_client_new(url, Z, &error);
  queen_future_t *future;
  char c;
  MUST(client != NULL);
  future = queen_push(client, "q", "p", "[{\"payload\":1}]", Z, NULL);
  MUST(queen_future_wait(future, LONG_MS) == QUEEN_OK);
  if (queen_future_error(future) == NULL) printf("ok\n");
  else printf("%s %s\n", queen_error_name(queen_future_error(future)), queen_error_message(queen_future_error(future)));
  fflush(stdout);
  queen_future_free(future);
  if (hold)
    while (read(0, &c, 1) == 1) {}
  MUST(good(queen_client_close(client, LONG_MS)));
  queen_client_free(client);
  return 0;
}

static int walk(const char *url) {
  queen_client_t *client = queen_client_new(url, Z, NULL);
  queen_future_t *future;
  queen_delivery_t *delivery;
  queen_consumer_t *consumer;
  MUST(queen_client_new("nonsense:", Z, NULL) == NULL);
  MUST(good(queen_push(client, "q", "p", "[{\"payload\":1},{\"payload\":2}]", Z, NULL)));
  MUST(!good(queen_push(client, "", "p", "[", Z, NULL)));
  MUST(!good(queen_call(client, "queue.get", "{\"queue\":\"none\"}", Z)));
  future = queen_pop(client, "q", "p", NO_WAIT);
  MUST(queen_future_wait(future, LONG_MS) == QUEEN_OK);
  delivery = queen_future_take_delivery(future);
  queen_future_free(future);
  MUST(delivery != NULL && good(queen_delivery_nack(delivery, "loud?")));
  queen_delivery_free(delivery);
  consumer = queen_consume(client, "{\"queue\":\"q\",\"limit\":2}", Z, busy, NULL, NULL, NULL);
  MUST(consumer != NULL && gate_reaches(&entered, 2, LONG_MS));
  queen_consumer_free(consumer);
  {
    queen_client_t *lost = queen_client_new("http://127.0.0.1:1", Z, NULL);
    MUST(!good(queen_push(lost, "q", "p", "[{\"payload\":1}]", Z, NULL)));
    queen_client_free(lost);
  }
  MUST(good(queen_client_close(client, LONG_MS)));
  queen_client_free(client);
  MUST(queen_shutdown(LONG_MS) == QUEEN_OK);
  return 0;
}

int main(int argc, char **argv) {
  const char *mode = argc > 1 ? argv[1] : "", *url = argc > 2 ? argv[2] : "embedded:";
  queen_client_t *client;
  char partition[32];
  /* its own: in a store on disk the last process may have left a lease behind */
  snprintf(partition, sizeof partition, "p%ld", (long)getpid());
  alarm(100);
  if (strcmp(mode, "hold") == 0) return open_store(url, 1);
  if (strcmp(mode, "open") == 0) return open_store(url, 0);
  if (strcmp(mode, "walk") == 0) return walk(url);
  client = queen_client_new(url, Z, NULL);
  MUST(client != NULL);
  if (strcmp(mode, "complain") == 0) { /* something to log, for QUEEN_CLIENT_LOG */
    /* an answer that is no verdict is logged */
    MUST(good(queen_push(client, "q", "p", "[{\"payload\":1}]", Z, NULL)));
    MUST(queen_consume(client, "{\"queue\":\"q\"}", Z, odd, NULL, NULL, NULL) != NULL);
    MUST(gate_reaches(&entered, 2, LONG_MS));
    MUST(good(queen_client_close(client, LONG_MS)));
    return 0;
  }
  if (strcmp(mode, "buffered") == 0) {
    queen_future_t *closed;
    MUST(good(queen_push(client, "q", "p", "[{\"payload\":1}]", Z, "{\"buffer\":true}")));
    queen_future_free(queen_flush(client, "{\"timeoutMillis\":100}"));
    closed = queen_client_close(client, 200); /* without a broker it loses the message and says so, but not here */
    MUST(queen_future_wait(closed, LONG_MS) == QUEEN_OK);
    queen_future_free(closed);
    return 0;
  }
  if (strcmp(mode, "exit-nothing") == 0) return 0;
  MUST(good(queen_push(client, "q", partition, "[{\"payload\":1}]", Z, NULL)));
  if (strcmp(mode, "exit-idle") == 0) return 0;
  if (strcmp(mode, "exit-longpoll") == 0) {
    queen_future_t *future = queen_pop(client, "empty", NULL, POLL_30S);
    MUST(queen_future_on_complete(future, on_complete, NULL, NULL) == QUEEN_OK);
    return queen_future_wait(future, 50) == QUEEN_E_TIMEOUT ? 0 : 1;
  }
  if (strcmp(mode, "exit-handler") == 0) {
    MUST(queen_consume(client, "{\"queue\":\"q\"}", Z, block, NULL, NULL, NULL) != NULL);
    MUST(gate_reaches(&entered, 1, LONG_MS));
    return 0;
  }
  if (strcmp(mode, "exit-consumers") == 0) {
    MUST(queen_consume(client, "{\"queue\":\"empty\",\"concurrency\":3}", Z, busy, NULL, NULL, NULL) != NULL);
    MUST(queen_consume(client, "{\"queue\":\"q\"}", Z, busy, NULL, NULL, NULL) != NULL);
    MUST(gate_reaches(&entered, 1, LONG_MS));
    return 0;
  }
  if (strcmp(mode, "exit-storm") == 0 || strcmp(mode, "exit-call-exit") == 0) {
    int i;
    for (i = 0; i < 3000; i++) {
      queen_future_t *future = queen_push(client, "q", partition, "[{\"payload\":1}]", Z, NULL);
      MUST(queen_future_on_complete(future, on_complete, NULL, NULL) == QUEEN_OK);
      if (i % 3) queen_future_free(future);
    }
    if (strcmp(mode, "exit-call-exit") == 0) exit(0);
    return 0;
  }
  if (strcmp(mode, "exit-closing") == 0) {
    queen_future_free(queen_client_close(client, LONG_MS));
    queen_client_free(client);
    return 0;
  }
  printf("helper: unknown mode %s\n", mode);
  return 2;
}
