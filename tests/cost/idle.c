/* A process with an open client and one consumer that waits: prints its memory in KiB, and the processor time in microseconds
 * that it takes in so many seconds.
 *
 *     idle URL SECONDS */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <queen.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

static int32_t handle(queen_delivery_t *delivery, void *user_data) {
  (void)delivery;
  (void)user_data;
  return QUEEN_ACK;
}

static long cpu_us(void) {
  struct rusage usage;
  getrusage(RUSAGE_SELF, &usage);
  return (usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) * 1000000L + usage.ru_utime.tv_usec + usage.ru_stime.tv_usec;
}

static long rss_kib(void) {
  char line[200];
  long kib = -1;
  FILE *status = fopen("/proc/self/status", "r");
  while (status != NULL && fgets(line, sizeof line, status) != NULL)
    if (sscanf(line, "VmRSS: %ld kB", &kib) == 1) break;
  if (status != NULL) fclose(status);
  return kib;
}

int main(int argc, char **argv) {
  queen_error_t *error = NULL;
  if (argc != 3) return 2;
  queen_client_t *client = queen_client_new(argv[1], QUEEN_NUL_TERMINATED, &error);
  const char *options = "{\"queue\":\"nothing-ever-comes\"}";
  queen_consumer_t *consumer = queen_consume(client, options, strlen(options), handle, NULL, NULL, &error);
  if (consumer == NULL) {
    fprintf(stderr, "idle: %s\n", queen_error_message(error));
    return 1;
  }
  sleep(3); /* its poll waits at the broker */
  long before = cpu_us();
  sleep((unsigned)atoi(argv[2]));
  long spent = cpu_us() - before;
  printf("%ld %ld\n", rss_kib(), spent);
  queen_future_t *closed = queen_client_close(client, 10000);
  int ended = queen_future_wait(closed, 20000) == QUEEN_OK && queen_future_error(closed) == NULL;
  queen_future_free(closed);
  queen_consumer_free(consumer);
  queen_client_free(client);
  return ended ? 0 : 1;
}
