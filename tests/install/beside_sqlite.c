/* libqueen.a carries an SQLite of its own. Here it is linked beside the system's, and both must work. */
#include <queen.h>
#include <sqlite3.h>
#include <stdio.h>
#include <string.h>

int main(void) {
    sqlite3 *db = NULL;
    queen_client_t *client;
    queen_future_t *created, *closed;
    const char *params = "{\"queue\":\"beside\"}";
    int ok;

    if (sqlite3_open(":memory:", &db) != SQLITE_OK) return 1;
    if (sqlite3_exec(db, "create table t (x)", NULL, NULL, NULL) != SQLITE_OK) return 1;

    client = queen_client_new("embedded:", QUEEN_NUL_TERMINATED, NULL);
    created = queen_call(client, "queue.create", params, strlen(params));
    ok = queen_future_wait(created, 10000) == QUEEN_OK && queen_future_error(created) == NULL;
    closed = queen_client_close(client, 10000);
    ok = queen_future_wait(closed, 15000) == QUEEN_OK && queen_future_error(closed) == NULL && ok;

    queen_future_free(created);
    queen_future_free(closed);
    queen_client_free(client);
    ok = sqlite3_exec(db, "insert into t values (1)", NULL, NULL, NULL) == SQLITE_OK && ok;
    printf("system SQLite %s, libqueen %s\n", sqlite3_libversion(), queen_version_string());
    return sqlite3_close(db) == SQLITE_OK && ok ? 0 : 1;
}
