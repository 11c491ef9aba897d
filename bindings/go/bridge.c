#include "bridge.h"
#include <stdlib.h>

void qgo_forget(qgo_delivery *delivery) {
    while (delivery != NULL) {
        qgo_delivery *next = delivery->next;
        if (delivery->views != &delivery->one) free(delivery->views);
        free(delivery);
        delivery = next;
    }
}

static qgo_delivery *describe(queen_delivery_t *handle) {
    qgo_delivery *delivery = calloc(1, sizeof *delivery);
    if (delivery == NULL) return NULL;
    delivery->handle = handle;
    delivery->count = queen_delivery_count(handle);
    delivery->views = &delivery->one;
    if (delivery->count > 1) delivery->views = calloc(delivery->count, sizeof *delivery->views);
    if (delivery->views == NULL) {
        free(delivery);
        return NULL;
    }
    if (delivery->count > 0) {
        int64_t filled = queen_delivery_view(handle, delivery->views, sizeof *delivery->views, 0, delivery->count);
        delivery->count = filled < 0 ? 0 : (size_t)filled;
    }
    return delivery;
}

/* Without memory a delivery goes back to the broker. */
static qgo_delivery *describe_or_free(queen_delivery_t *handle) {
    qgo_delivery *delivery = describe(handle);
    if (delivery == NULL) queen_delivery_free(handle);
    return delivery;
}

static qgo_delivery *popped(const queen_future_t *future) {
    qgo_delivery *first = NULL, **last = &first;
    queen_delivery_t *handle;
    while ((handle = queen_future_take_delivery(future)) != NULL) {
        qgo_delivery *delivery = describe_or_free(handle);
        if (delivery == NULL) continue;
        *last = delivery;
        last = &delivery->next;
    }
    return first;
}

static void translate(queen_event_t *raw, qgo_event *event) {
    *event = (qgo_event){.type = raw->type, .code = raw->code, .tag = raw->tag, .json = raw->json, .json_len = raw->json_len};
    if (raw->type == QUEEN_EVENT_FUTURE && raw->object != NULL) {
        const queen_error_t *error = queen_future_error(raw->object);
        if (error != NULL) event->error = queen_error_json(error, &event->error_len);
        if (raw->json == NULL) { /* of pops and polls */
            event->deliveries = popped(raw->object);
            event->window = queen_future_take_window(raw->object);
        }
    } else if (raw->type == QUEEN_EVENT_DELIVERY) {
        queen_delivery_t *handle = queen_event_take_delivery(raw);
        if (handle != NULL) event->deliveries = describe_or_free(handle);
    } else if (raw->type == QUEEN_EVENT_WINDOW) {
        event->window = queen_event_take_window(raw);
    }
}

void qgo_clear(qgo_batch *batch) {
    for (size_t i = 0; i < batch->filled; i++) qgo_forget(batch->events[i].deliveries);
    if (batch->filled > 0) queen_events_free(batch->raw, batch->filled);
    batch->filled = 0;
}

int64_t qgo_poll(const queen_event_queue_t *queue, qgo_batch *batch) {
    qgo_clear(batch);
    int64_t filled = queen_event_queue_poll(queue, batch->raw, sizeof *batch->raw, QGO_EVENTS, 0);
    if (filled <= 0) return filled;
    batch->filled = (size_t)filled;
    for (size_t i = 0; i < batch->filled; i++) translate(&batch->raw[i], &batch->events[i]);
    return filled;
}

queen_future_t *qgo_route(queen_future_t *future, const queen_event_queue_t *queue, uint64_t tag, int keep) {
    queen_future_deliver(future, queue, tag);
    if (keep) return future;
    queen_future_free(future);
    return NULL;
}

queen_future_t *qgo_push(const queen_client_t *client, const char *queue, const char *partition, const char *items, size_t len,
                         const char *options, const queen_event_queue_t *events, uint64_t tag, int keep) {
    return qgo_route(queen_push(client, queue, partition, items, len, options), events, tag, keep);
}

queen_future_t *qgo_settle(const queen_delivery_t *delivery, const char *verdicts, size_t len,
                           const queen_event_queue_t *events, uint64_t tag, int keep) {
    return qgo_route(queen_delivery_settle(delivery, verdicts, len), events, tag, keep);
}

void qgo_ack_and_free(queen_delivery_t *delivery) {
    queen_future_free(queen_delivery_ack(delivery));
    queen_delivery_free(delivery);
}

qgo_delivery *qgo_next_and_free(queen_delivery_t *delivery) {
    queen_delivery_t *next = queen_delivery_next(delivery);
    queen_delivery_free(delivery);
    return next == NULL ? NULL : describe_or_free(next);
}

void qgo_nack_and_free(queen_delivery_t *delivery, const char *reason) {
    queen_future_free(queen_delivery_nack(delivery, reason));
    queen_delivery_free(delivery);
}

void qgo_end_window(queen_window_t *window, int ack) {
    queen_future_free(ack ? queen_window_ack(window) : queen_window_nack(window));
    queen_window_free(window);
}
