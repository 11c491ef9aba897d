/* What a scenario runs in. */
#ifndef SCENARIO_WORLD_H
#define SCENARIO_WORLD_H

#include "json.h"
#include <pthread.h>
#include <queen.h>

#define PATIENCE_MS 30000
#define MOST 32 /* clients, pops and steps in the background of one scenario; deliveries of one pop */

typedef struct client {
    char *name;
    queen_client_t *handle;
    json *reports;
} client;

typedef struct pop {
    char *name;
    queen_delivery_t *deliveries[MOST];
    size_t count;
} pop;

/* A consumer and what its handler needs. */
typedef struct consumption {
    pthread_mutex_t lock;
    pthread_cond_t ready; /* the handle is there */
    queen_client_t *client;
    queen_consumer_t *handle;
    json *rules, *payloads, *messages;
    json *windows; /* of a stream, else NULL */
    char *aggregate;
    double stop_millis;
} consumption;

/* A step that has begun: a future, or what came of it at once. */
typedef struct operation {
    char *name;
    json *step;
    queen_future_t *future;
    consumption *consuming;
    json *result, *error; /* NULL without */
} operation;

typedef struct world {
    queen_broker_t *broker;
    const char *url;
    json *saved;
    client clients[MOST];
    pop pops[MOST];
    operation *running[MOST];
    size_t client_count, pop_count, running_count;
    pthread_mutex_t lock; /* of the reports */
} world;

/* Opens a client; the error, or NULL. */
json *open_client(world *w, const char *name, const json *config);
/* Begins a step; it runs on until it is finished. */
operation *begin(world *w, json *step);
void finish(world *w, operation *o);
void release(pop *p);

/* The consumer of a step, of messages or of windows. */
void begin_consuming(operation *o, queen_client_t *client, const json *options);
void finish_consuming(operation *o);

json *error_json(const queen_error_t *error);
/* Adds what a delivery has to lists of payloads and of messages. */
void describe(const queen_delivery_t *delivery, json *payloads, json *messages);

#endif
