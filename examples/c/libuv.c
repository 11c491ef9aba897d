/* libuv: the event queue as a poll handle of a loop that has timers and sockets of its own. Needs libuv1-dev, -luv. */
#include "example.h"
#include <uv.h>

typedef struct app_t {
    queen_client_t *client;
    queen_event_queue_t *events;
    uv_poll_t poll;
    uv_timer_t timer;
    int pushed, handled;
} app_t;

/* The loop says that the descriptor is readable: events wait. */
static void on_readable(uv_poll_t *poll, int status, int what) {
    app_t *app = poll->data;
    queen_event_t batch[64];
    int64_t count = queen_event_queue_poll(app->events, batch, sizeof *batch, 64, 0), i;

    (void)status, (void)what;
    for (i = 0; i < count; i++) {
        if (batch[i].type == QUEEN_EVENT_DELIVERY) {
            print_payload("handled", batch[i].object, 0);
            queen_future_free(queen_delivery_ack(batch[i].object)); /* nobody needs to hear of it */
            app->handled++;
        } else if (batch[i].type == QUEEN_EVENT_CONSUMER_ENDED) {
            uv_poll_stop(poll);
            uv_timer_stop(&app->timer); /* nothing is left: the loop ends */
        }
    }
    if (count > 0) queen_events_free(batch, (size_t)count);
}

/* A message every 20 ms, from the same thread. A push never blocks. */
static void on_tick(uv_timer_t *timer) {
    app_t *app = timer->data;
    char items[40];

    if (app->pushed == 5) return;
    snprintf(items, sizeof items, "[{\"payload\":{\"tick\":%d}}]", ++app->pushed);
    queen_future_free(queen_push(app->client, "example-libuv", NULL, items, Z, NULL)); /* the future runs on */
}

int main(int argc, char **argv) {
    app_t app = {.client = connect_to(argc, argv), .events = queen_event_queue_new()};
    uv_loop_t *loop = uv_default_loop();
    queen_error_t *error = NULL;
    queen_consumer_t *consumer;

    fresh_queue(app.client, "example-libuv", NULL);
    consumer = queen_consume_events(app.client, "{\"queue\":\"example-libuv\",\"limit\":5}", Z, app.events, 0, &error);
    if (consumer == NULL) fail("consume", error);

    uv_poll_init(loop, &app.poll, queen_event_queue_fd(app.events));
    app.poll.data = &app;
    uv_poll_start(&app.poll, UV_READABLE, on_readable);
    uv_timer_init(loop, &app.timer);
    app.timer.data = &app;
    uv_timer_start(&app.timer, on_tick, 0, 20);
    uv_run(loop, UV_RUN_DEFAULT);

    /* The watcher goes before the queue whose descriptor it watches. */
    uv_close((uv_handle_t *)&app.poll, NULL);
    uv_close((uv_handle_t *)&app.timer, NULL);
    uv_run(loop, UV_RUN_DEFAULT);
    uv_loop_close(loop);
    done("end", queen_consumer_future(consumer));
    queen_consumer_free(consumer);
    goodbye(app.client);
    queen_event_queue_free(app.events);
    printf("%d pushed, %d handled\n", app.pushed, app.handled);
    return app.handled == 5 ? 0 : 1;
}
