/*
 * Tests of one's own consumer: what it does when answers get lost and messages come twice.
 *
 *     cc test_my_consumer.c $(pkg-config --cflags --libs queen) -o test_my_consumer && ./test_my_consumer
 */
#include <queen.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define WAIT_MS 30000
#define Z QUEEN_NUL_TERMINATED
#define CHECK(it) do { if (!(it)) { fprintf(stderr, "line %d: not so: %s\n", __LINE__, #it); exit(1); } } while (0)

/* ---- the application: it charges for each order, and for none of them twice ---- */

typedef struct shop_t {
    char charged[80]; /* the order that is paid; in real life a table with a unique key */
    int charges, calls;
} shop_t;

static int32_t on_order(queen_delivery_t *delivery, void *user_data) {
    shop_t *shop = user_data;
    queen_message_view_t order;
    char id[80];

    if (queen_delivery_view(delivery, &order, sizeof order, 0, 1) != 1) return QUEEN_NACK;
    snprintf(id, sizeof id, "%.*s", (int)order.transaction_id_len, order.transaction_id);
    if (strcmp(id, shop->charged) != 0) { /* without this line the second test fails */
        strcpy(shop->charged, id);
        shop->charges++;
    }
    shop->calls++;
    return QUEEN_ACK;
}

/* ---- the tests ---- */

/* Waits until the operation has finished, which must go well. */
static void done(queen_future_t *future) {
    CHECK(queen_future_wait(future, WAIT_MS) == QUEEN_OK && queen_future_error(future) == NULL);
    queen_future_free(future);
}

/* Whether the faults of the broker say so. */
static int faults_say(const queen_broker_t *broker, const char *text) {
    queen_future_t *faults = queen_broker_faults(broker);
    int said = strstr(queen_future_json(faults, NULL), text) != NULL;
    queen_future_free(faults);
    return said;
}

/* One life of the application. It ends when its order is settled, or at once when its acks get lost for good. */
static void live(const queen_broker_t *broker, shop_t *shop, int dies) {
    queen_client_t *client = queen_client_new(queen_broker_url(broker), Z, NULL);
    queen_consumer_t *consumer = queen_consume(client, "{\"queue\":\"orders\",\"limit\":1}", Z, on_order, shop, NULL, NULL);
    queen_future_t *ended = queen_consumer_future(consumer);

    while (queen_future_wait(ended, 5) == QUEEN_E_TIMEOUT)
        if (dies && faults_say(broker, "\"applied\":1")) break; /* handled, and its ack is on the way */
    queen_future_free(ended);
    done(queen_client_close(client, 0));
    queen_consumer_free(consumer);
    queen_client_free(client);
}

static void test(const char *name, const char *fault, int dies, int calls) {
    queen_broker_t *broker = queen_broker_start("{\"testing\":true}", Z, NULL);
    queen_client_t *client = queen_client_new(queen_broker_url(broker), Z, NULL);
    queen_future_t *left;
    shop_t shop = {"", 0, 0};

    done(queen_push(client, "orders", NULL, "[{\"payload\":{\"order\":1}}]", Z, NULL));
    done(queen_broker_add_faults(broker, fault, Z));
    live(broker, &shop, dies);
    done(queen_broker_remove_faults(broker, 0));
    done(queen_broker_move_clock(broker, "{\"advanceMillis\":61000}", Z)); /* the lease of the first life has ended */
    if (dies) live(broker, &shop, 0);
    CHECK(shop.calls == calls && shop.charges == 1);
    left = queen_pop(client, "orders", NULL, "{\"wait\":false}");
    CHECK(queen_future_wait(left, WAIT_MS) == QUEEN_OK && queen_future_take_delivery(left) == NULL);
    queen_future_free(left);
    done(queen_client_close(client, WAIT_MS));
    queen_client_free(client);
    done(queen_broker_stop(broker, WAIT_MS));
    queen_broker_free(broker);
    printf("ok: %s\n", name);
}

int main(void) {
    test("the answer to an ack gets lost: the ack is repeated, the order does not come again",
         "{\"route\":\"ack\",\"times\":1,\"action\":\"cutAfterCommit\"}", 0, 1);
    test("the program dies before its ack arrives: the order comes again and is charged once",
         "{\"route\":\"ack\",\"times\":1,\"action\":\"hang\"}", 1, 2);
    return 0;
}
