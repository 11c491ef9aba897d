/* What crosses between Go and libqueen at once: a batch of events with all that belongs to them, a call with its route. */
#ifndef QUEEN_GO_BRIDGE_H
#define QUEEN_GO_BRIDGE_H

#include <queen.h>

#define QGO_EVENTS 128

typedef struct qgo_delivery {
    queen_delivery_t *handle;
    size_t count;
    queen_message_view_t *views; /* on loan from the handle; the array lives as long as the batch */
    queen_message_view_t one;    /* the array, where there is one message */
    struct qgo_delivery *next;
} qgo_delivery;

typedef struct qgo_event {
    int32_t type, code;
    uint64_t tag;
    const char *json;
    size_t json_len;
    const char *error; /* the error as JSON */
    size_t error_len;
    qgo_delivery *deliveries;
    queen_window_t *window; /* Go's */
} qgo_event;

typedef struct qgo_batch {
    queen_event_t raw[QGO_EVENTS];
    qgo_event events[QGO_EVENTS];
    size_t filled;
} qgo_batch;

/* Gives back what the batch lends and takes the events that wait; returns their number, or a QUEEN_E_* code. */
int64_t qgo_poll(const queen_event_queue_t *queue, qgo_batch *batch);

/* Gives back what the batch lends. Its deliveries and windows are Go's. */
void qgo_clear(qgo_batch *batch);

/* Routes a future to the queue. Frees the handle, unless it is to be kept for a cancel. */
queen_future_t *qgo_route(queen_future_t *future, const queen_event_queue_t *queue, uint64_t tag, int keep);

/* The calls that are made once for every message. */
queen_future_t *qgo_push(const queen_client_t *client, const char *queue, const char *partition, const char *items, size_t len,
                         const char *options, const queen_event_queue_t *events, uint64_t tag, int keep);
queen_future_t *qgo_settle(const queen_delivery_t *delivery, const char *verdicts, size_t len,
                           const queen_event_queue_t *events, uint64_t tag, int keep);

/* Frees descriptions of deliveries. The deliveries are Go's. */
void qgo_forget(qgo_delivery *delivery);

/* Acks what has no verdict yet and frees the delivery. A verdict that does not count is logged and counted by the core. The
 * second takes the next delivery that the consumer has at hand, NULL when the next comes as an event. */
void qgo_ack_and_free(queen_delivery_t *delivery);
qgo_delivery *qgo_next_and_free(queen_delivery_t *delivery);
void qgo_nack_and_free(queen_delivery_t *delivery, const char *reason);

/* The same for a window: 1 acks, 0 nacks. */
void qgo_end_window(queen_window_t *window, int ack);

#endif
