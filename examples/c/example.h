/* What the examples share: a client for the URL of the command line, and waiting for what must go well. */
#ifndef EXAMPLE_H
#define EXAMPLE_H
#include <queen.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define Z QUEEN_NUL_TERMINATED
#define PATIENCE_MS 30000

/* Prints what went wrong and ends the program. Takes over the error. */
static inline void fail(const char *step, queen_error_t *error) {
    fprintf(stderr, "%s: %s: %s\n", step, queen_error_name(error), queen_error_message(error));
    queen_error_free(error);
    exit(1);
}

/* Waits for an operation that must go well. The future is the caller's, to read its result. */
static inline queen_future_t *finished(const char *step, queen_future_t *future) {
    int32_t code = queen_future_wait(future, PATIENCE_MS);
    const queen_error_t *error = queen_future_error(future);

    if (code == QUEEN_OK && error == NULL) return future;
    fprintf(stderr, "%s: %s\n", step, error != NULL ? queen_error_message(error) : queen_error_code_name(code));
    exit(1);
}

/* The same where the result does not matter. */
static inline void done(const char *step, queen_future_t *future) {
    queen_future_free(finished(step, future));
}

/* A client of the broker that the command line names; without one, of a broker in this program. */
static inline queen_client_t *connect_to(int argc, char **argv) {
    queen_error_t *error = NULL;
    queen_client_t *client = queen_client_new(argc > 1 ? argv[1] : "embedded:", Z, &error);

    if (client == NULL) fail("client", error);
    return client;
}

/* A queue with nothing in it, whatever an earlier run has left. `options` as for queue.create, or NULL. */
static inline void fresh_queue(const queen_client_t *client, const char *queue, const char *options) {
    char params[256];
    queen_future_t *gone;

    snprintf(params, sizeof params, "{\"queue\":\"%s\"}", queue);
    gone = finished("delete queue", queen_call(client, "queue.delete", params, Z));
    /* A server may remember for a second what it has just deleted. */
    if (strstr(queen_future_json(gone, NULL), "\"existed\":true") != NULL) sleep(2);
    queen_future_free(gone);
    snprintf(params, sizeof params, "{\"queue\":\"%s\",\"options\":%s}", queue, options != NULL ? options : "{}");
    done("create queue", queen_call(client, "queue.create", params, Z));
}

/* Prints the payload of a message: JSON text that points into its delivery. */
static inline void print_payload(const char *what, const queen_delivery_t *delivery, size_t index) {
    queen_message_view_t view;

    if (queen_delivery_view(delivery, &view, sizeof view, index, 1) == 1)
        printf("%s %.*s\n", what, (int)view.payload_len, view.payload);
}

/* Waits until everything is sent and settled, and lets go of the client. */
static inline void goodbye(queen_client_t *client) {
    done("close", queen_client_close(client, PATIENCE_MS));
    queen_client_free(client);
}
#endif
