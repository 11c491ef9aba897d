/* brokers: embedded. Stores: on disk, by relative path, in memory alone or shared by name. */
#include "process.h"

static void has_message(const char *url, int n) {
  queen_client_t *client = client_at(url);
  queen_delivery_t *delivery = pop(client, "kept", "p", POLL_10S);
  check_code(number_at(delivery, 0), n);
  wait_ok(queen_delivery_ack(delivery));
  queen_delivery_free(delivery);
  client_end(client);
}

TEST(file_store_keeps_messages_and_acks) {
  scratch_t scratch = scratch_new();
  const char *url = scratch_url(&scratch, "x.db");
  queen_client_t *client = client_at(url);
  push_n(client, "kept", "p", 1, 2);
  client_end(client); /* the last close closes the store before it completes */
  check_code(queen_shutdown(LONG_MS), QUEEN_OK);
  has_message(url, 1);
  has_message(url, 2);
  client = client_at(url);
  check(pop(client, "kept", "p", NO_WAIT) == NULL);
  client_end(client);
  scratch_end(&scratch);
}

TEST(relative_path_and_absolute_path_are_one_store) {
  scratch_t scratch = scratch_new();
  char before[512], file[512];
  queen_client_t *relative, *absolute;
  queen_delivery_t *delivery;
  check(getcwd(before, sizeof before) != NULL && chdir(scratch.dir) == 0);
  relative = client_at("embedded:./relative.db");
  push_n(relative, "kept", "p", 4, 1);
  snprintf(file, sizeof file, "%s/relative.db", scratch.dir);
  check(access(file, R_OK) == 0);
  absolute = client_at(scratch_url(&scratch, "relative.db")); /* one broker per file and process */
  delivery = pop(absolute, "kept", "p", POLL_10S);
  check_code(number_at(delivery, 0), 4);
  wait_ok(queen_delivery_ack(delivery));
  queen_delivery_free(delivery);
  client_end(relative);
  push_n(absolute, "kept", "p", 5, 1); /* ended by the last close only */
  client_end(absolute);
  check(chdir(before) == 0);
  has_message(scratch_url(&scratch, "relative.db"), 5);
  scratch_end(&scratch);
}

TEST(memory_is_private_unless_shared_by_name) {
  queen_client_t *one = client_at("embedded:"), *two = client_at("embedded:");
  queen_client_t *a = client_at("embedded:?shared=c-test"), *b = client_at("embedded:?shared=c-test");
  queen_client_t *other = client_at("embedded:?shared=another");
  queen_delivery_t *delivery;
  push_n(one, "q", "p", 1, 1);
  check(pop(two, "q", "p", NO_WAIT) == NULL);
  push_n(a, "q", "p", 2, 1);
  check(pop(b, "q", "none", NO_WAIT) == NULL); /* the first call opens the store, here for b */
  check(pop(other, "q", "p", NO_WAIT) == NULL);
  check(pop(one, "q", "none", NO_WAIT) == NULL);
  client_end(a);
  delivery = pop(b, "q", "p", POLL_10S); /* lives as long as one of its clients */
  check_code(number_at(delivery, 0), 2);
  wait_ok(queen_delivery_ack(delivery));
  queen_delivery_free(delivery);
  push_n(b, "q", "p", 3, 1);
  client_end(b);
  a = client_at("embedded:?shared=c-test"); /* and no longer */
  check(pop(a, "q", "p", NO_WAIT) == NULL);
  client_end(a);
  client_end(one);
  client_end(two);
  client_end(other);
}

TEST(second_process_is_told_who_holds_the_store) {
  scratch_t scratch = scratch_new();
  const char *url = scratch_url(&scratch, "locked.db");
  queen_client_t *client;
  queen_future_t *future;
  char line[512], pid[32];
  helper_t helper = helper_start("hold", url);
  const queen_error_t *error;
  check(helper_line(&helper, line, sizeof line));
  assert_string_equal(line, "ok");
  client = client_at(url); /* no I/O: the first call tells */
  future = queen_call(client, "health", NULL, 0);
  check_code(queen_future_wait(future, LONG_MS), QUEEN_OK);
  error = queen_future_error(future);
  check_code(queen_error_code(error), QUEEN_E_LOCKED);
  snprintf(pid, sizeof pid, "%ld", (long)helper.pid);
  if (strstr(queen_error_message(error), pid) == NULL)
    fail_msg("no pid %s in: %s", pid, queen_error_message(error));
  check(strstr(queen_error_message(error), "queen-broker serve") != NULL);
  check_code(queen_error_outcome(error), QUEEN_OUTCOME_NOT_APPLIED);
  queen_future_free(future);
  client_end(client);
  check_code(helper_end(&helper, line, sizeof line), 0);
  client = client_at(url); /* free again once the other has closed */
  push_n(client, "q", "p", 1, 1);
  client_end(client);
  scratch_end(&scratch);
}

/* the lock dies with its process, however it dies */
TEST(killed_process_leaves_no_lock) {
  scratch_t scratch = scratch_new();
  const char *url = scratch_url(&scratch, "killed.db");
  queen_client_t *client;
  queen_delivery_t *delivery;
  char line[512];
  helper_t helper = helper_start("hold", url);
  check(helper_line(&helper, line, sizeof line));
  assert_string_equal(line, "ok");
  kill(helper.pid, SIGKILL);
  check_code(helper_end(&helper, line, sizeof line), -SIGKILL);
  client = client_at(url);
  delivery = pop(client, "q", "p", POLL_10S); /* its answered push is there */
  check(delivery != NULL);
  wait_ok(queen_delivery_ack(delivery));
  queen_delivery_free(delivery);
  client_end(client);
  scratch_end(&scratch);
}

TEST(file_that_is_no_store_is_an_error_and_stays) {
  scratch_t scratch = scratch_new();
  char path[512], text[64] = "";
  queen_client_t *client;
  FILE *file;
  snprintf(path, sizeof path, "%s/notes.db", scratch.dir);
  file = fopen(path, "w");
  check(file != NULL);
  fputs("these are notes and no database, long enough to be read as a header of one", file);
  fclose(file);
  client = client_at(scratch_url(&scratch, "notes.db"));
  wait_code(queen_call(client, "health", NULL, 0), QUEEN_E_STORE);
  client_end(client);
  file = fopen(path, "r");
  check(fgets(text, sizeof text, file) != NULL && strncmp(text, "these are notes", 15) == 0);
  fclose(file);
  scratch_end(&scratch);
}

TESTS(cmocka_unit_test(file_store_keeps_messages_and_acks), cmocka_unit_test(relative_path_and_absolute_path_are_one_store),
      cmocka_unit_test(memory_is_private_unless_shared_by_name),
      cmocka_unit_test(second_process_is_told_who_holds_the_store), cmocka_unit_test(killed_process_leaves_no_lock),
      cmocka_unit_test(file_that_is_no_store_is_an_error_and_stays))
