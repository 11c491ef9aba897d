/* Callbacks: the outcome of a push comes to a function, and messages come to a handler on a thread of its own. */
#include "example.h"
#include <pthread.h>

typedef struct app_t {
    pthread_mutex_t lock;
    pthread_cond_t change;
    int stored, handled;
} app_t;

static void count(app_t *app, int *counter) {
    pthread_mutex_lock(&app->lock);
    ++*counter;
    pthread_cond_signal(&app->change);
    pthread_mutex_unlock(&app->lock);
}

/* Runs on the client's dispatcher thread, one at a time; it should be short. The future is on loan. */
static void on_stored(const queen_future_t *future, void *user_data) {
    app_t *app = user_data;
    const queen_error_t *error = queen_future_error(future);

    if (error == NULL) count(app, &app->stored);
    else fprintf(stderr, "push: %s\n", queen_error_message(error));
}

/* Runs on a handler thread, and may block: the lease is renewed meanwhile. */
static int32_t on_message(queen_delivery_t *delivery, void *user_data) {
    app_t *app = user_data;

    print_payload("handled", delivery, 0);
    count(app, &app->handled);
    return QUEEN_ACK; /* or QUEEN_NACK: it comes again, until it is dead-lettered */
}

int main(int argc, char **argv) {
    app_t app = {PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER, 0, 0};
    queen_client_t *client = connect_to(argc, argv);
    queen_consumer_t *consumer;
    queen_error_t *error = NULL;
    int i;

    fresh_queue(client, "example-callbacks", NULL);
    consumer = queen_consume(client, "{\"queue\":\"example-callbacks\",\"concurrency\":2}", Z, on_message, &app, NULL, &error);
    if (consumer == NULL) fail("consume", error);

    for (i = 0; i < 5; i++) {
        char items[40];
        queen_future_t *push;

        snprintf(items, sizeof items, "[{\"payload\":%d}]", i);
        push = queen_push(client, "example-callbacks", NULL, items, Z, NULL);
        queen_future_on_complete(push, on_stored, &app, NULL);
        queen_future_free(push); /* the callback comes all the same */
    }

    pthread_mutex_lock(&app.lock);
    while (app.stored < 5 || app.handled < 5) pthread_cond_wait(&app.change, &app.lock);
    pthread_mutex_unlock(&app.lock);

    done("stop", queen_consumer_stop(consumer, PATIENCE_MS)); /* no handler runs after this */
    queen_consumer_free(consumer);
    goodbye(client);
    printf("%d stored, %d handled\n", app.stored, app.handled);
    return 0;
}
