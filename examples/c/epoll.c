/* Event queue with epoll: one thread, no callbacks. The queue's descriptor is readable while events wait. */
#include "example.h"
#include <sys/epoll.h>
#include <unistd.h>

enum { PUSH = 1, ACK = 2, CONSUMER = 3 }; /* tags: what an event is about */

int main(int argc, char **argv) {
    queen_client_t *client = connect_to(argc, argv);
    queen_event_queue_t *events = queen_event_queue_new();
    queen_error_t *error = NULL;
    queen_consumer_t *consumer;
    queen_future_t *push;
    struct epoll_event wanted = {.events = EPOLLIN}, ready;
    int loop = epoll_create1(EPOLL_CLOEXEC), acked = 0, ended = 0;

    fresh_queue(client, "example-epoll", NULL);
    epoll_ctl(loop, EPOLL_CTL_ADD, queen_event_queue_fd(events), &wanted); /* beside the program's own descriptors */

    consumer = queen_consume_events(client, "{\"queue\":\"example-epoll\",\"limit\":3}", Z, events, CONSUMER, &error);
    if (consumer == NULL) fail("consume", error);
    push = queen_push(client, "example-epoll", NULL, "[{\"payload\":1},{\"payload\":2},{\"payload\":3}]", Z, NULL);
    queen_future_deliver(push, events, PUSH);
    queen_future_free(push);

    while (!ended) {
        queen_event_t batch[64];
        int64_t count, i;

        if (epoll_wait(loop, &ready, 1, PATIENCE_MS) != 1) return 1;
        count = queen_event_queue_poll(events, batch, sizeof *batch, 64, 0); /* what is there; it does not wait */
        for (i = 0; i < count; i++) {
            queen_event_t *event = &batch[i];

            switch (event->type) {
            case QUEEN_EVENT_FUTURE:
                if (event->code != QUEEN_OK) fprintf(stderr, "failed: %s\n", queen_error_code_name(event->code));
                else if (event->tag == PUSH) printf("pushed: %d messages\n", 3);
                else acked++;
                break;
            case QUEEN_EVENT_DELIVERY: { /* the event owns it; the ack may outlive both */
                queen_future_t *ack = queen_delivery_ack(event->object);

                print_payload("got", event->object, 0);
                queen_future_deliver(ack, events, ACK);
                queen_future_free(ack);
                break;
            }
            case QUEEN_EVENT_CONSUMER_ENDED:
                printf("ended: %s\n", event->json);
                ended = 1;
                break;
            }
        }
        if (count > 0) queen_events_free(batch, (size_t)count);
    }

    queen_consumer_free(consumer);
    goodbye(client);
    close(loop);
    queen_event_queue_free(events);
    return acked == 3 ? 0 : 1;
}
