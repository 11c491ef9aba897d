/*
 * Runs scenarios with the C ABI: BROKER URL FILE... (see the README in the folder above).
 *
 * Steps are futures: one in the background is a future that is waited for later.
 */
#include "world.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static double now_millis(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec * 1e3 + (double)time.tv_nsec / 1e6;
}

/* Why what came of a step is not what was wanted; NULL when it is. */
static char *judge(world *w, const json *step, const operation *o) {
    const json *expect = json_get(step, "expect"), *wanted = json_get(expect, "error"), *save = json_get(step, "save");
    const json *pattern = json_get(expect, "result");
    char *why = NULL;
    if (wanted->kind == KIND_NULL && o->error != NULL) return format("failed: %s", json_text(o->error));
    if (wanted->kind != KIND_NULL && o->error == NULL) return format("went well with %.600s, but %s was wanted", json_text(o->result), json_text(wanted));
    if (wanted->kind == KIND_STRING) why = pattern_mismatch(wanted, json_get(o->error, "name"), "error");
    else if (wanted->kind != KIND_NULL) why = pattern_mismatch(wanted, o->error, "error");
    if (why == NULL && pattern->kind != KIND_NULL) why = pattern_mismatch(pattern, o->result, "result");
    for (size_t i = 0; why == NULL && i < save->count; i++) {
        json *found = pattern_pointer(o->result, save->items[i]->text);
        if (found->kind == KIND_NULL) return format("nothing to save at %s in %.600s", save->items[i]->text, json_text(o->result));
        json_set(w->saved, save->keys[i], found);
    }
    return why;
}

static operation *running(world *w, const char *name) {
    for (size_t i = 0; i < w->running_count; i++)
        if (strcmp(w->running[i]->name, name) == 0) return w->running[i];
    return NULL;
}

static char *run_step(world *w, const json *raw) {
    json *step = pattern_fill(raw, w->saved);
    const char *what = json_word(step, "do"), *name = json_word(step, "name");
    if (strcmp(what, "start") == 0) {
        operation *o = begin(w, json_get(step, "step"));
        o->name = format("%s", name);
        w->running[w->running_count++] = o;
        return NULL;
    }
    if (strcmp(what, "cancel") == 0) {
        queen_future_cancel(running(w, name)->future);
        return NULL;
    }
    if (strcmp(what, "join") == 0) {
        operation *o = running(w, name);
        finish(w, o);
        return judge(w, step, o);
    }
    for (double end = now_millis() + json_amount(step, "within", 0);;) {
        operation *o = begin(w, step);
        finish(w, o);
        char *why = judge(w, step, o);
        if (why == NULL || now_millis() >= end) return why;
        nanosleep(&(struct timespec){0, 20 * 1000 * 1000}, NULL);
    }
}

static char *end(world *w) {
    char *why = NULL;
    for (size_t i = 0; i < w->running_count; i++) {
        operation *o = w->running[i];
        if (o->future != NULL) queen_future_cancel(o->future);
        if (o->consuming != NULL && o->future != NULL) o->consuming->stop_millis = 0;
        finish(w, o);
    }
    for (size_t i = 0; i < w->pop_count; i++) release(&w->pops[i]);
    for (size_t i = 0; i < w->client_count; i++) {
        client *c = &w->clients[i];
        queen_future_t *closed = queen_client_close(c->handle, PATIENCE_MS);
        if (queen_future_wait(closed, 2 * PATIENCE_MS) != QUEEN_OK || queen_future_error(closed) != NULL)
            why = format("the close of client %s: %s", c->name, queen_error_message(queen_future_error(closed)));
        queen_future_free(closed);
        queen_client_free(c->handle);
    }
    queen_broker_free(w->broker);
    return why;
}

static char *read_file(const char *path, size_t *n) {
    FILE *file = fopen(path, "rb");
    if (file == NULL) return NULL;
    fseek(file, 0, SEEK_END);
    *n = (size_t)ftell(file);
    rewind(file);
    char *text = keep(*n + 1);
    if (fread(text, 1, *n, file) != *n) text = NULL;
    fclose(file);
    return text;
}

static char *scenario(const char *broker, const char *url, const char *path) {
    static unsigned count;
    size_t n = 0;
    char *text = read_file(path, &n), *why = NULL;
    const json *steps = json_get(json_parse(text, n), "steps");
    world w = {.url = url, .saved = json_object()};
    queen_error_t *error = NULL;
    if (steps->kind != KIND_LIST) return format("%s is no scenario", path);
    pthread_mutex_init(&w.lock, NULL);
    char *queue = format("scenario-c-%d-%lld-%u", (int)getpid(), (long long)time(NULL), count++);
    json_set(w.saved, "queue", json_string(queue, strlen(queue)));
    if (strcmp(broker, "embedded") == 0) {
        w.broker = queen_broker_start("{\"testing\":true}", QUEEN_NUL_TERMINATED, &error);
        if (w.broker == NULL) return format("no broker: %s", queen_error_message(error));
        w.url = queen_broker_url(w.broker);
    }
    json *refused = open_client(&w, "main", json_set(json_object(), "retryDelayMillis", json_number(5)));
    if (refused != NULL) why = json_text(refused);
    for (size_t i = 0; i < steps->count && why == NULL; i++) {
        why = run_step(&w, steps->items[i]);
        if (why != NULL) why = format("step %zu (%s): %s", i + 1, json_word(steps->items[i], "do"), why);
    }
    char *ended = end(&w);
    return why != NULL ? why : ended;
}

int main(int argc, char **argv) {
    if (argc < 4) {
        fprintf(stderr, "usage: BROKER URL FILE...\n");
        return 2;
    }
    for (int i = 3; i < argc; i++) {
        const char *slash = strrchr(argv[i], '/'), *base = slash == NULL ? argv[i] : slash + 1;
        char *why = scenario(argv[1], argv[2], argv[i]);
        int n = (int)strcspn(base, ".");
        if (why == NULL) printf("ok %.*s\n", n, base);
        else printf("FAILED %.*s: %s\n", n, base, why);
        fflush(stdout);
        json_free_all();
    }
    return 0;
}
