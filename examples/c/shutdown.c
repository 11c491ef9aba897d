/*
 * A clean end on SIGTERM: no new messages, running handlers finish and settle, what was pushed is sent.
 *
 *     shutdown [URL] & kill %1
 */
#include "example.h"
#include <signal.h>
#include <unistd.h>

static int32_t on_message(queen_delivery_t *delivery, void *user_data) {
    (void)user_data;
    usleep(50000); /* work that a signal must not cut in two */
    print_payload("handled", delivery, 0);
    fflush(stdout);
    return QUEEN_ACK;
}

int main(int argc, char **argv) {
    queen_client_t *client;
    queen_consumer_t *consumer;
    queen_error_t *error = NULL;
    queen_future_t *summary;
    sigset_t signals;
    int received, n;

    /* Signals come to sigwait() below. The library's own threads have all of them blocked, and it installs no handler. */
    sigemptyset(&signals);
    sigaddset(&signals, SIGTERM);
    sigaddset(&signals, SIGINT);
    sigprocmask(SIG_BLOCK, &signals, NULL);

    client = connect_to(argc, argv);
    fresh_queue(client, "example-shutdown", NULL);
    for (n = 0; n < 1000; n++) {
        char items[40];

        snprintf(items, sizeof items, "[{\"payload\":%d}]", n);
        queen_future_free(queen_push(client, "example-shutdown", NULL, items, Z, NULL));
    }
    consumer = queen_consume(client, "{\"queue\":\"example-shutdown\"}", Z, on_message, NULL, NULL, &error);
    if (consumer == NULL) fail("consume", error);

    sigwait(&signals, &received);
    printf("signal %s\n", received == SIGTERM ? "TERM" : "INT");

    /* Ten seconds for what runs; then it is let go and comes again to somebody else. */
    summary = finished("stop", queen_consumer_stop(consumer, 10000));
    printf("%s\n", strstr(queen_future_json(summary, NULL), "\"unsettled\":0") != NULL ? "nothing is left unsettled" : "cut short");
    queen_future_free(summary);
    queen_consumer_free(consumer);
    goodbye(client); /* flushes pushes and buffers */
    if (queen_shutdown(10000) != QUEEN_OK) return 1; /* the library's threads are gone */
    printf("bye\n");
    return 0;
}
