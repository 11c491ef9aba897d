/* Transactions: an ack and what follows from the message, both or neither. */
#include "example.h"

/* The only message that waits, or NULL. */
static queen_delivery_t *next(const queen_client_t *client, const char *queue) {
    queen_future_t *pop = finished("pop", queen_pop(client, queue, NULL, NULL));
    queen_delivery_t *delivery = queen_future_take_delivery(pop);

    queen_future_free(pop);
    return delivery;
}

int main(int argc, char **argv) {
    queen_client_t *client = connect_to(argc, argv);
    queen_transaction_t *transaction;
    queen_delivery_t *order, *mail;
    queen_future_t *commit;

    fresh_queue(client, "example-orders", NULL);
    fresh_queue(client, "example-mails", NULL);
    done("push", queen_push(client, "example-orders", NULL, "[{\"payload\":{\"order\":7}}]", Z, NULL));

    order = next(client, "example-orders");
    print_payload("order", order, 0);

    /* Nothing is sent before the commit. */
    transaction = queen_transaction_new(client);
    queen_transaction_ack(transaction, order, 0, "completed");
    queen_transaction_push(transaction, "example-mails", NULL, "[{\"payload\":{\"thanks\":\"for order 7\"}}]", Z, NULL);
    done("commit", queen_transaction_commit(transaction, NULL));
    queen_transaction_free(transaction);
    queen_delivery_free(order); /* it has its verdict: nothing is given back */

    mail = next(client, "example-mails");
    print_payload("mail", mail, 0);

    /* One that cannot be: the message is acked already. Neither its ack nor its push counts. */
    done("ack", queen_delivery_ack(mail));
    transaction = queen_transaction_new(client);
    if (queen_transaction_ack(transaction, mail, 0, "completed") == QUEEN_OK) {
        queen_transaction_push(transaction, "example-orders", NULL, "[{\"payload\":{\"order\":8}}]", Z, NULL);
        commit = queen_transaction_commit(transaction, NULL);
        queen_future_wait(commit, PATIENCE_MS);
        printf("refused: %s\n", queen_error_name(queen_future_error(commit)));
        queen_future_free(commit);
    } else {
        printf("refused: the message has its verdict\n");
    }
    queen_transaction_free(transaction);
    queen_delivery_free(mail);

    order = next(client, "example-orders");
    printf("orders left: %s\n", order == NULL ? "none" : "one too many");
    queen_delivery_free(order);
    goodbye(client);
    return order == NULL ? 0 : 1;
}
