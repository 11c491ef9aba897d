#include "world.h"
#include <string.h>
#include <time.h>

static void rest(double millis) {
    struct timespec time = {(time_t)(millis / 1000), (long)((long long)millis % 1000 * 1000000)};
    nanosleep(&time, NULL);
}

/* Waits for a future, and tells whether it went well. */
static int went_well(queen_future_t *future) {
    int good = queen_future_wait(future, PATIENCE_MS) == QUEEN_OK && queen_future_error(future) == NULL;
    queen_future_free(future);
    return good;
}

static int32_t react(consumption *c, const json *rule, queen_delivery_t *delivery) {
    const char *then = json_word(rule, "then"), *reason = json_word(rule, "reason");
    if (then == NULL || strcmp(then, "ack") == 0) return QUEEN_ACK;
    if (strcmp(then, "nack") == 0) {
        if (reason != NULL) queen_future_free(queen_delivery_nack(delivery, reason));
        return QUEEN_NACK;
    }
    if (strcmp(then, "throw") == 0) return 4711; /* C has no exceptions; this is no answer either */
    if (strcmp(then, "stop") == 0) {
        pthread_mutex_lock(&c->lock);
        while (c->handle == NULL) pthread_cond_wait(&c->ready, &c->lock);
        pthread_mutex_unlock(&c->lock);
        queen_future_free(queen_consumer_stop(c->handle, PATIENCE_MS));
        return QUEEN_ACK;
    }
    if (strcmp(then, "settle") == 0) {
        json *verdict = json_set(json_set(json_object(), "index", json_number(0)), "status", json_get(rule, "status"));
        if (reason != NULL) json_set(verdict, "error", json_get(rule, "reason"));
        char *text = json_text(json_add(json_list(), verdict));
        return went_well(queen_delivery_settle(delivery, text, strlen(text))) ? QUEEN_ACK : QUEEN_NACK;
    }
    if (strcmp(then, "transaction") == 0) {
        queen_transaction_t *t = queen_transaction_new(c->client);
        char *items = json_text(json_get(rule, "items"));
        queen_transaction_ack(t, delivery, 0, NULL);
        queen_transaction_push(t, json_word(rule, "queue"), NULL, items, strlen(items), NULL);
        int good = went_well(queen_transaction_commit(t, NULL));
        queen_transaction_free(t);
        return good ? QUEEN_ACK : QUEEN_NACK;
    }
    return QUEEN_NACK; /* no such rule */
}

/* The rule that decides on so-manyeth call for a payload, once its time to sleep is over; NULL without one. */
static const json *next_rule(const consumption *c, const json *payload, size_t calls) {
    for (size_t i = 0; i < c->rules->count; i++) {
        const json *rule = c->rules->items[i], *wanted = json_get(rule, "payload");
        if (wanted->kind != KIND_NULL && pattern_mismatch(wanted, payload, "") != NULL) continue;
        if ((size_t)json_amount(rule, "call", (double)calls) != calls) continue;
        rest(json_amount(rule, "sleepMillis", 0));
        return rule;
    }
    return NULL;
}

static int32_t handle(queen_delivery_t *delivery, void *user_data) {
    consumption *c = user_data;
    size_t calls = 0;
    pthread_mutex_lock(&c->lock);
    size_t before = c->payloads->count;
    describe(delivery, c->payloads, c->messages);
    const json *payload = c->payloads->items[before];
    /* Handlers that get several messages at once go by the first; no scenario has rules by call for those. */
    for (size_t i = 0; i <= before; i++) calls += pattern_mismatch(payload, c->payloads->items[i], "") == NULL;
    pthread_mutex_unlock(&c->lock);
    const json *rule = next_rule(c, payload, calls);
    return rule == NULL ? QUEEN_ACK : react(c, rule, delivery);
}

static int32_t handle_window(queen_window_t *window, void *user_data) {
    consumption *c = user_data;
    const char *name = queen_window_key(window);
    json *key = json_string(name, strlen(name)), *payloads = json_list(), *told = json_object();
    queen_message_view_t v;
    size_t calls = 1, n = 0;
    for (size_t i = 0; queen_window_view(window, &v, sizeof v, i, 1) == 1; i++) json_add(payloads, json_parse(v.payload, v.payload_len));
    queen_future_t *computed = queen_window_aggregate(window, c->aggregate, strlen(c->aggregate));
    const char *text = queen_future_json(computed, &n);
    json_set(json_set(json_set(told, "key", key), "payloads", payloads), "aggregates", json_parse(text, n));
    json_set(told, "start", json_string(queen_window_start(window), strlen(queen_window_start(window))));
    queen_future_free(computed);
    pthread_mutex_lock(&c->lock);
    for (size_t i = 0; i < c->windows->count; i++) calls += strcmp(json_word(c->windows->items[i], "key"), name) == 0;
    json_add(c->windows, told);
    pthread_mutex_unlock(&c->lock);
    const json *rule = next_rule(c, key, calls);
    const char *then = rule == NULL ? NULL : json_word(rule, "then");
    if (then == NULL || strcmp(then, "ack") == 0) return QUEEN_ACK;
    return strcmp(then, "nack") == 0 ? QUEEN_NACK : 4711; /* see react */
}

void begin_consuming(operation *o, queen_client_t *client, const json *options) {
    consumption *c = keep(sizeof *c);
    queen_error_t *error = NULL;
    char *text = json_text(options);
    pthread_mutex_init(&c->lock, NULL);
    pthread_cond_init(&c->ready, NULL);
    c->client = client;
    c->rules = json_get(o->step, "handler");
    c->payloads = json_list();
    c->messages = json_list();
    c->stop_millis = json_amount(o->step, "stopMillis", -1);
    queen_consumer_t *handle_of;
    if (json_word(options, "stream") == NULL) {
        handle_of = queen_consume(client, text, strlen(text), handle, c, NULL, &error);
    } else {
        const json *wanted = json_get(o->step, "aggregate");
        c->windows = json_list();
        c->aggregate = wanted->kind == KIND_NULL ? "{}" : json_text(wanted);
        handle_of = queen_stream_consume(client, text, strlen(text), handle_window, c, NULL, &error);
    }
    if (handle_of == NULL) {
        o->error = error_json(error);
        queen_error_free(error);
        return;
    }
    pthread_mutex_lock(&c->lock);
    c->handle = handle_of;
    pthread_cond_broadcast(&c->ready);
    pthread_mutex_unlock(&c->lock);
    o->consuming = c;
    o->future = queen_consumer_future(c->handle);
}

/* The future has the summary, an error too. */
void finish_consuming(operation *o) {
    consumption *c = o->consuming;
    size_t n;
    if (c->stop_millis >= 0 && queen_future_wait(o->future, (int64_t)c->stop_millis) != QUEEN_OK)
        queen_future_free(queen_consumer_stop(c->handle, PATIENCE_MS));
    if (queen_future_wait(o->future, PATIENCE_MS) != QUEEN_OK) went_well(queen_consumer_stop(c->handle, PATIENCE_MS));
    const char *summary = queen_future_json(o->future, &n);
    o->error = error_json(queen_future_error(o->future));
    pthread_mutex_lock(&c->lock);
    o->result = c->windows != NULL ? json_set(json_object(), "windows", c->windows)
                                   : json_set(json_set(json_object(), "payloads", c->payloads), "messages", c->messages);
    pthread_mutex_unlock(&c->lock);
    json_set(o->result, "summary", json_parse(summary, summary == NULL ? 0 : n));
    queen_future_free(o->future);
    queen_consumer_free(c->handle);
}
