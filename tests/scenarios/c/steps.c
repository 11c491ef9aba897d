#include "world.h"
#include <string.h>

json *error_json(const queen_error_t *error) {
    size_t n = 0;
    const char *text = queen_error_json(error, &n);
    return text == NULL ? NULL : json_parse(text, n);
}

static json *odd(const char *what) {
    return json_set(json_set(json_object(), "name", json_string("odd", 3)), "message", json_string(what, strlen(what)));
}

static void told(const char *json_of_it, size_t len, int32_t dropped, json *into) {
    json *reports = json_parse(json_of_it, len);
    for (size_t i = 0; i < reports->count; i++) json_add(into, reports->items[i]);
    (void)dropped;
}

/* Reports come on the dispatcher thread of a client. */
typedef struct listener {
    world *world;
    json *reports;
} listener;

static void on_reports(const char *text, size_t len, size_t dropped, void *user_data) {
    listener *l = user_data;
    pthread_mutex_lock(&l->world->lock);
    told(text, len, (int32_t)dropped, l->reports);
    pthread_mutex_unlock(&l->world->lock);
}

json *open_client(world *w, const char *name, const json *config) {
    queen_error_t *error = NULL;
    json *settings = json_object();
    for (size_t i = 0; i < config->count; i++) json_set(settings, config->keys[i], config->items[i]);
    char *text = json_text(json_set(settings, "url", json_string(w->url, strlen(w->url))));
    queen_client_t *handle = queen_client_new(text, strlen(text), &error);
    if (handle == NULL) {
        json *why = error_json(error);
        queen_error_free(error);
        return why;
    }
    client *made = &w->clients[w->client_count++];
    *made = (client){format("%s", name), handle, json_list()};
    listener *l = keep(sizeof *l);
    *l = (listener){w, made->reports};
    queen_report_callback(handle, on_reports, l, NULL);
    return NULL;
}

static client *client_of(world *w, const json *step) {
    const char *name = json_word(step, "client");
    for (size_t i = 0; i < w->client_count; i++)
        if (strcmp(w->clients[i].name, name == NULL ? "main" : name) == 0) return &w->clients[i];
    return NULL;
}

static pop *pop_of(world *w, const char *name) {
    static pop nothing;
    for (size_t i = 0; i < w->pop_count; i++)
        if (strcmp(w->pops[i].name, name) == 0) return &w->pops[i];
    return &nothing;
}

void release(pop *p) {
    for (size_t i = 0; i < p->count; i++) queen_delivery_free(p->deliveries[i]);
    p->count = 0;
}

void describe(const queen_delivery_t *delivery, json *payloads, json *messages) {
    queen_message_view_t v;
    for (size_t i = 0; queen_delivery_view(delivery, &v, sizeof v, i, 1) == 1; i++) {
        json *payload = json_parse(v.payload, v.payload_len), *message = json_object();
        json_add(payloads, payload);
        json_set(message, "queue", json_string(v.queue, v.queue_len));
        json_set(message, "partition", json_string(v.partition, v.partition_len));
        json_set(message, "partitionId", json_string(v.partition_id, v.partition_id_len));
        json_set(message, "leaseId", json_string(v.lease_id, v.lease_id_len));
        json_set(message, "consumerGroup", json_string(v.consumer_group, v.consumer_group_len));
        json_set(message, "id", json_string(v.id, v.id_len));
        json_set(message, "transactionId", json_string(v.transaction_id, v.transaction_id_len));
        json_set(message, "traceId", json_string(v.trace_id, v.trace_id_len));
        json_add(messages, json_set(message, "payload", payload));
    }
}

static json *with_queue(const json *step) {
    json *all = json_object();
    const json *options = json_get(step, "options");
    for (size_t i = 0; i < options->count; i++) json_set(all, options->keys[i], options->items[i]);
    if (json_word(step, "queue") != NULL) json_set(all, "queue", json_get(step, "queue"));
    if (json_word(step, "partition") != NULL) json_set(all, "partition", json_get(step, "partition"));
    if (json_word(step, "stream") != NULL) json_set(all, "stream", json_get(step, "stream"));
    if (json_word(step, "group") != NULL) json_set(all, "consumerGroup", json_get(step, "group"));
    return all;
}

static queen_future_t *commit(world *w, const client *of, const json *step) {
    queen_transaction_t *t = queen_transaction_new(of->handle);
    const json *operations = json_get(step, "operations");
    for (size_t i = 0; i < operations->count; i++) { /* the commit tells what was wrong with an addition */
        const json *one = operations->items[i];
        if (json_word(one, "ack") != NULL) {
            const pop *from = pop_of(w, json_word(one, "ack"));
            queen_transaction_ack(t, from->deliveries[0], (size_t)json_amount(one, "index", 0), json_word(one, "status"));
        } else {
            char *items = json_text(json_get(one, "items"));
            queen_transaction_push(t, json_word(one, "push"), json_word(one, "partition"), items, strlen(items), NULL);
        }
    }
    queen_future_t *future = queen_transaction_commit(t, NULL);
    queen_transaction_free(t);
    return future;
}

static queen_future_t *steer(const queen_broker_t *broker, const char *what, const json *step) {
    char *faults = json_text(json_get(step, "faults")), *change = json_text(json_get(step, "change"));
    if (strcmp(what, "add_faults") == 0) return queen_broker_add_faults(broker, faults, strlen(faults));
    if (strcmp(what, "faults") == 0) return queen_broker_faults(broker);
    if (strcmp(what, "remove_faults") == 0) return queen_broker_remove_faults(broker, 0);
    if (strcmp(what, "requests") == 0) return queen_broker_requests(broker);
    if (strcmp(what, "reset_requests") == 0) return queen_broker_reset_requests(broker);
    if (strcmp(what, "clock") == 0) return queen_broker_move_clock(broker, change, strlen(change));
    if (strcmp(what, "stop") == 0) return queen_broker_stop(broker, PATIENCE_MS);
    if (strcmp(what, "kill") == 0) return queen_broker_kill(broker);
    if (strcmp(what, "restart") == 0) return queen_broker_restart(broker);
    return NULL;
}

/* The future of a step that has one. */
static queen_future_t *future_of(world *w, const client *of, const json *step, const char *what) {
    const char *queue = json_word(step, "queue"), *partition = json_word(step, "partition");
    const json *given = json_get(step, "options");
    char *options = given->kind == KIND_NULL ? NULL : json_text(given);
    if (strcmp(what, "close") == 0) return queen_client_close(of->handle, (int64_t)json_amount(step, "timeoutMillis", PATIENCE_MS));
    if (strcmp(what, "push") == 0) {
        char *items = json_text(json_get(step, "items"));
        return queen_push(of->handle, queue, partition, items, strlen(items), options);
    }
    if (strcmp(what, "pop") == 0) return queen_pop(of->handle, queue, partition, options);
    if (strcmp(what, "ack.ids") == 0) {
        char *acks = json_text(json_get(step, "acks"));
        return queen_ack(of->handle, acks, strlen(acks), options);
    }
    if (strcmp(what, "settle") == 0) {
        char *verdicts = json_text(json_get(step, "verdicts"));
        return queen_delivery_settle(pop_of(w, json_word(step, "of"))->deliveries[0], verdicts, strlen(verdicts));
    }
    if (strcmp(what, "flush") == 0) return queen_flush(of->handle, json_text(with_queue(step)));
    if (strcmp(what, "transaction") == 0) return commit(w, of, step);
    if (strcmp(what, "statistics") == 0) return queen_client_stats(of->handle);
    if (strcmp(what, "call") == 0) {
        const json *parameters = json_get(step, "parameters");
        char *text = parameters->kind == KIND_NULL ? "{}" : json_text(parameters);
        return queen_call(of->handle, json_word(step, "operation"), text, strlen(text));
    }
    return NULL;
}

static void read_future(operation *o, queen_future_t *future) {
    size_t n = 0;
    if (queen_future_wait(future, PATIENCE_MS) != QUEEN_OK) {
        o->error = odd("the step takes too long");
        return;
    }
    const char *text = queen_future_json(future, &n);
    o->result = json_parse(text, n);
    o->error = error_json(queen_future_error(future));
}

/* Verdicts on each delivery of a pop, one after another. */
static void settle_all(operation *o, const pop *p, const char *what) {
    json *all = json_list();
    for (size_t i = 0; i < p->count && o->error == NULL; i++) {
        queen_future_t *future = strcmp(what, "ack") == 0 ? queen_delivery_ack(p->deliveries[i])
                                                            : queen_delivery_nack(p->deliveries[i], json_word(o->step, "reason"));
        read_future(o, future);
        for (size_t k = 0; k < o->result->count; k++) json_add(all, o->result->items[k]);
        queen_future_free(future);
    }
    o->result = all;
}

operation *begin(world *w, json *step) {
    operation *o = keep(sizeof *o);
    const char *what = json_word(step, "do"), *of_pop = json_word(step, "of");
    const client *of = client_of(w, step);
    o->step = step;
    o->result = json_null();
    if (strcmp(what, "open") == 0) o->error = open_client(w, json_word(step, "client"), json_get(step, "config"));
    else if (strncmp(what, "broker.", 7) == 0 && w->broker != NULL) o->future = steer(w->broker, what + 7, step);
    else if (of == NULL) o->error = odd("there is no such client");
    else if (strcmp(what, "consume") == 0 || strcmp(what, "windows") == 0) begin_consuming(o, of->handle, with_queue(step));
    else if (strcmp(what, "ack") == 0 || strcmp(what, "nack") == 0) settle_all(o, pop_of(w, of_pop), what);
    else if (strcmp(what, "release") == 0) release(pop_of(w, of_pop));
    else if (strcmp(what, "lost") == 0) o->result = json_boolean(queen_delivery_is_lost(pop_of(w, of_pop)->deliveries[0]) == 1);
    else if (strcmp(what, "reports") == 0) {
        pthread_mutex_lock(&w->lock);
        o->result = json_parse(json_text(of->reports), strlen(json_text(of->reports)));
        pthread_mutex_unlock(&w->lock);
    } else if (strcmp(what, "sleep") == 0) {
        queen_event_queue_t *nothing = queen_event_queue_new();
        queen_event_t event;
        queen_event_queue_poll(nothing, &event, sizeof event, 1, (int64_t)json_amount(step, "millis", 0));
        queen_event_queue_free(nothing);
    } else if ((o->future = future_of(w, of, step, what)) == NULL) o->error = odd(format("no such step here: %s", what));
    return o;
}

/* Keeps what a pop brought under its name, and tells of it. */
static void keep_popped(world *w, operation *o) {
    const char *name = json_word(o->step, "as");
    pop *p = pop_of(w, name == NULL ? "" : name);
    if (name != NULL && p->name == NULL) {
        p = &w->pops[w->pop_count++];
        p->name = format("%s", name);
    }
    pop passing = {NULL, {NULL}, 0}, *to = name == NULL ? &passing : p;
    json *payloads = json_list(), *messages = json_list();
    release(to);
    while (to->count < MOST && (to->deliveries[to->count] = queen_future_take_delivery(o->future)) != NULL)
        describe(to->deliveries[to->count++], payloads, messages);
    o->result = json_set(json_set(json_object(), "payloads", payloads), "messages", messages);
    json_set(o->result, "deliveries", json_number((double)to->count));
    release(&passing);
}

void finish(world *w, operation *o) {
    const char *what = json_word(o->step, "do");
    if (o->future == NULL) return;
    if (o->consuming != NULL) {
        finish_consuming(o);
    } else {
        read_future(o, o->future);
        if (strcmp(what, "pop") == 0) keep_popped(w, o);
        if (strcmp(what, "flush") == 0 || strcmp(what, "close") == 0) o->result = json_null();
        queen_future_free(o->future);
    }
    o->future = NULL;
}
