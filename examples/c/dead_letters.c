/* Dead letters: a message that fails too often is put aside, looked at, and pushed again when its cause is mended. */
#include "example.h"

static int mended;

static int32_t on_message(queen_delivery_t *delivery, void *user_data) {
    int *calls = user_data;

    ++*calls;
    print_payload(mended ? "handled" : "failed", delivery, 0);
    return mended ? QUEEN_ACK : QUEEN_NACK;
}

/* Runs a consumer until it has had nothing to do for a second. */
static int consume(const queen_client_t *client) {
    queen_error_t *error = NULL;
    int calls = 0;
    queen_consumer_t *consumer =
        queen_consume(client, "{\"queue\":\"example-dead-letters\",\"idleMillis\":1000}", Z, on_message, &calls, NULL, &error);

    if (consumer == NULL) fail("consume", error);
    done("consume", queen_consumer_future(consumer));
    queen_consumer_free(consumer);
    return calls;
}

/* The text of a member of a JSON object. A real program would have a JSON library. */
static void member(const char *json, const char *name, char *text, size_t size) {
    const char *at = strstr(json, name);

    *text = '\0';
    if (at == NULL) return;
    at += strlen(name);
    at += strspn(at, "\": ");
    snprintf(text, size, "%.*s", (int)strcspn(at, "\""), at);
}

int main(int argc, char **argv) {
    queen_client_t *client = connect_to(argc, argv);
    queen_future_t *letters;
    char partition_id[64], transaction_id[64], error[128], retry[256];
    int calls;

    /* Handed over once, and twice more. */
    fresh_queue(client, "example-dead-letters", "{\"retryLimit\":2}");
    done("push", queen_push(client, "example-dead-letters", NULL, "[{\"payload\":{\"amount\":-1},\"transactionId\":\"bill-1\"}]", Z, NULL));
    calls = consume(client);
    printf("%d tries\n", calls);

    letters = finished("list", queen_call(client, "dlq.list", "{\"queue\":\"example-dead-letters\"}", Z));
    member(queen_future_json(letters, NULL), "\"partitionId\"", partition_id, sizeof partition_id);
    member(queen_future_json(letters, NULL), "\"transactionId\"", transaction_id, sizeof transaction_id);
    member(queen_future_json(letters, NULL), "\"errorMessage\"", error, sizeof error);
    queen_future_free(letters);
    printf("dead letter: %s, because: %s\n", transaction_id, error);

    mended = 1;
    snprintf(retry, sizeof retry, "{\"partitionId\":\"%s\",\"transactionId\":\"%s\"}", partition_id, transaction_id);
    done("retry", queen_call(client, "dlq.retry", retry, Z)); /* dlq.delete would forget it */
    calls = consume(client);
    printf("%d more\n", calls);
    goodbye(client);
    return calls == 1 ? 0 : 1;
}
