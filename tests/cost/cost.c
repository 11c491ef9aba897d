/* What one message costs the client: does the work of one case with a broker that costs nothing, and counts with callgrind
 * what lies between the first push and the last answer.
 *
 *     cost seq MESSAGES             one push after the other, each waited for
 *     cost batch MESSAGES           the same, 100 messages to a push
 *     cost spread PARTITIONS MESSAGES   one message to a push, up to 1000 under way, over so many partitions
 *     cost buffer MESSAGES          one message to a push into the buffer of ten partitions, then one flush
 *
 * Prints how many messages were done. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "echo.h"
#include <queen.h>
#include <valgrind/callgrind.h>

#define TEXT "abcdefghijklmnopqrstuvwxyzabcdefghijklmnopqrstuvwxyzabcdefghijklmnopqrstuvwxyzabcdefghijklmnopqrstuv"
#define PATIENCE_MS 600000
#define WINDOW 1000
#define EVENTS 256

static queen_client_t *client;

static void stop(const char *what, const queen_error_t *error) {
  fprintf(stderr, "cost: %s: %s\n", what, error == NULL ? "no reason" : queen_error_message(error));
  exit(1);
}

/* Items of `count` messages; written once, so that it is not counted. */
static const char *items(unsigned long count) {
  static char text[100 * (sizeof TEXT + 32)];
  static unsigned long written = 0;
  char *end = text;
  if (written == count) return text;
  written = count;
  *end++ = '[';
  for (unsigned long n = 0; n < count; n++) end += sprintf(end, "{\"payload\":{\"n\":%lu,\"text\":\"" TEXT "\"}},", n);
  end[-1] = ']';
  *end = '\0';
  return text;
}

static queen_future_t *push(unsigned long n, unsigned long count, unsigned long partitions, const char *options) {
  char partition[32];
  const char *body = items(count);
  snprintf(partition, sizeof partition, "p%06lu", n % partitions);
  return queen_push(client, "cost", partition, body, strlen(body), options);
}

static void done(queen_future_t *future) {
  if (queen_future_wait(future, PATIENCE_MS) != QUEEN_OK || queen_future_error(future) != NULL)
    stop("a push", queen_future_error(future));
  queen_future_free(future);
}

static void seq(unsigned long messages, unsigned long batch) {
  echo_pause_us = 1000;
  for (unsigned long n = 0; n < messages; n += batch) {
    done(push(n, batch, 1, NULL));
    usleep(1000); /* until all is idle */
  }
}

static void spread(unsigned long partitions, unsigned long messages, queen_event_queue_t *events) {
  echo_pause_us = 0;
  queen_event_t got[EVENTS];
  unsigned long next = 0, answered = 0;
  while (answered < messages) {
    for (; next < messages && next - answered < WINDOW; next++) {
      queen_future_t *future = push(next, 1, partitions, NULL);
      queen_future_deliver(future, events, next);
      queen_future_free(future);
    }
    int64_t filled = queen_event_queue_poll(events, got, sizeof *got, EVENTS, PATIENCE_MS);
    if (filled <= 0) stop("spread", NULL);
    for (int64_t i = 0; i < filled; i++)
      if (got[i].code != QUEEN_OK) stop("a push", queen_future_error((const queen_future_t *)got[i].object));
    answered += (unsigned long)filled;
    queen_events_free(got, (size_t)filled);
  }
}

static void buffer(unsigned long messages) {
  for (unsigned long n = 0; n < messages; n++)
    done(push(n, 1, 10, "{\"buffer\":{\"messageCount\":100000,\"timeMillis\":3600000}}"));
  done(queen_flush(client, NULL));
}

int main(int argc, char **argv) {
  char url[64], config[300];
  queen_error_t *error = NULL;
  if (argc < 3) return 2;
  unsigned long last = strtoul(argv[argc - 1], NULL, 10);
  echo_start(url, sizeof url);
  snprintf(config, sizeof config, "{\"urls\":[\"%s\"],\"maxPendingMessages\":100000000,\"maxPendingBytes\":8000000000,\"maxBufferedMessages\":2000000,\"maxBufferedBytes\":4000000000}", url);
  client = queen_client_new(config, QUEEN_NUL_TERMINATED, &error);
  if (client == NULL) stop("client", error);
  queen_event_queue_t *events = queen_event_queue_new();
  /* Everything is there before it counts. */
  spread(10, 2000, events);
  seq(500, strcmp(argv[1], "batch") == 0 ? 100 : 1);
  CALLGRIND_START_INSTRUMENTATION;
  if (strcmp(argv[1], "seq") == 0) seq(last, 1);
  else if (strcmp(argv[1], "batch") == 0) seq(last, 100);
  else if (strcmp(argv[1], "spread") == 0) spread(strtoul(argv[2], NULL, 10), last, events);
  else if (strcmp(argv[1], "buffer") == 0) buffer(last);
  else return 2;
  CALLGRIND_STOP_INSTRUMENTATION;
  printf("%lu\n", last);
  done(queen_client_close(client, PATIENCE_MS));
  queen_event_queue_free(events);
  queen_client_free(client);
  return 0;
}
