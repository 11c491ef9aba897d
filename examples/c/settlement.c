/* Manual settlement: the handler hands the message to another thread, which settles it when its work is done. */
#include "example.h"
#include <pthread.h>
#include <unistd.h>

/* A one-place mailbox to the worker. */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t change = PTHREAD_COND_INITIALIZER;
static queen_delivery_t *box;
static int finished_work;

/* With QUEEN_DEFER the delivery is ours from the moment of entry, and its lease is renewed until it is settled. */
static int32_t on_message(queen_delivery_t *delivery, void *user_data) {
    (void)user_data;
    pthread_mutex_lock(&lock);
    while (box != NULL) pthread_cond_wait(&change, &lock);
    box = delivery;
    pthread_cond_broadcast(&change);
    pthread_mutex_unlock(&lock);
    return QUEEN_DEFER;
}

static void *work(void *nothing) {
    while (!finished_work) {
        queen_delivery_t *delivery;
        queen_message_view_t message;

        pthread_mutex_lock(&lock);
        while (box == NULL && !finished_work) pthread_cond_wait(&change, &lock);
        delivery = box;
        box = NULL;
        pthread_cond_broadcast(&change);
        pthread_mutex_unlock(&lock);
        if (delivery == NULL) break;

        usleep(10000); /* slow work; a long one would ask queen_delivery_is_lost() now and then */
        queen_delivery_view(delivery, &message, sizeof message, 0, 1);
        if (memcmp(message.payload, "13", 2) == 0) { /* given up: no retry will make it right */
            print_payload("dead-lettered", delivery, 0);
            done("settle", queen_delivery_settle(delivery, "[{\"index\":0,\"status\":\"dlq\",\"error\":\"unlucky\"}]", Z));
        } else {
            print_payload("acked", delivery, 0);
            done("ack", queen_delivery_ack(delivery));
        }
        queen_delivery_free(delivery);
    }
    return nothing;
}

int main(int argc, char **argv) {
    queen_client_t *client = connect_to(argc, argv);
    queen_consumer_t *consumer;
    queen_error_t *error = NULL;
    queen_future_t *summary;
    pthread_t worker;

    fresh_queue(client, "example-settlement", NULL);
    done("push", queen_push(client, "example-settlement", NULL, "[{\"payload\":12},{\"payload\":13},{\"payload\":14}]", Z, NULL));
    pthread_create(&worker, NULL, work, NULL);
    consumer = queen_consume(client, "{\"queue\":\"example-settlement\",\"limit\":3}", Z, on_message, NULL, NULL, &error);
    if (consumer == NULL) fail("consume", error);
    summary = finished("consume", queen_consumer_future(consumer)); /* waits for the deferred ones too */
    printf("summary: %s\n", queen_future_json(summary, NULL));
    queen_future_free(summary);

    pthread_mutex_lock(&lock);
    finished_work = 1;
    pthread_cond_broadcast(&change);
    pthread_mutex_unlock(&lock);
    pthread_join(worker, NULL);
    queen_consumer_free(consumer);
    goodbye(client);
    return 0;
}
