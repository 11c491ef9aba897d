/* A libqueen without the embedded broker: says so where one is asked for, and works with a server.
 *
 *     smoke URL */
#include <queen.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define WAIT_MS 30000
#define Z QUEEN_NUL_TERMINATED
#define CHECK(it) do { if (!(it)) { fprintf(stderr, "line %d: not so: %s\n", __LINE__, #it); exit(1); } } while (0)

/* Frees the error after a look at it. */
static void is_refused(queen_error_t *error) {
  CHECK(error != NULL && queen_error_code(error) == QUEEN_E_UNSUPPORTED);
  printf("%s\n", queen_error_message(error));
  CHECK(strstr(queen_error_message(error), "built without") != NULL);
  CHECK(strstr(queen_error_message(error), "queen-broker serve") != NULL);
  queen_error_free(error);
}

static void done(queen_future_t *future) {
  CHECK(queen_future_wait(future, WAIT_MS) == QUEEN_OK && queen_future_error(future) == NULL);
  queen_future_free(future);
}

int main(int argc, char **argv) {
  static const char *const embedded[] = {"embedded:", "embedded:///tmp/queen.db?durability=full", "embedded:?broker=mine"};
  queen_error_t *error = NULL;
  size_t i;
  CHECK(argc == 2);
  for (i = 0; i < 3; i++) {
    CHECK(queen_client_new(embedded[i], Z, &error) == NULL);
    is_refused(error);
  }
  CHECK(queen_broker_start(NULL, 0, &error) == NULL);
  is_refused(error);

  queen_client_t *client = queen_client_new(argv[1], Z, &error);
  CHECK(client != NULL);
  done(queen_push(client, "smoke", "p", "[{\"payload\":{\"order\":1}}]", Z, NULL));
  queen_future_t *popping = queen_pop(client, "smoke", "p", NULL);
  CHECK(queen_future_wait(popping, WAIT_MS) == QUEEN_OK && queen_future_error(popping) == NULL);
  queen_delivery_t *delivery = queen_future_take_delivery(popping);
  CHECK(delivery != NULL && queen_delivery_count(delivery) == 1);
  queen_future_free(popping);
  done(queen_delivery_ack(delivery));
  queen_delivery_free(delivery);
  done(queen_client_close(client, WAIT_MS));
  queen_client_free(client);
  return 0;
}
