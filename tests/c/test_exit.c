/* brokers: embedded. Returning from main with work in flight, and the silence of the library. */
#include "process.h"

static void exits_silently(const char *mode, const char *url) {
  char output[4096];
  int code = helper_run(mode, url, output, sizeof output);
  if (code != 0 || output[0] != '\0') fail_msg("%s on %s: exit code %d, output: %s", mode, url, code, output);
}

TEST(main_returns_with_work_in_flight) {
  static const char *const modes[] = {"exit-nothing",   "exit-idle",  "exit-longpoll",  "exit-handler",
                                      "exit-consumers", "exit-storm", "exit-call-exit", "exit-closing"};
  scratch_t scratch = scratch_new();
  size_t i, round;
  for (round = 0; round < 5; round++) /* what is in flight differs from run to run */
    for (i = 0; i < LEN(modes); i++) {
      exits_silently(modes[i], "embedded:");
      exits_silently(modes[i], scratch_url(&scratch, "x.db")); /* and the store opens again after each of them */
    }
  scratch_end(&scratch);
}

TEST(main_returns_while_a_server_does_not_answer) {
  scripted_t server = scripted_start("hold");
  exits_silently("exit-longpoll", server.url);
  exits_silently("exit-storm", server.url);
  exits_silently("exit-closing", server.url);
  scripted_mode(&server, "canned");
  exits_silently("exit-handler", server.url);
  scripted_stop(&server);
}

TEST(library_prints_nothing) { exits_silently("walk", "embedded:"); }

/* but to stderr, when the environment asks for it */
TEST(environment_variable_asks_for_logs) {
  char output[8192];
  check(setenv("QUEEN_CLIENT_LOG", "debug", 1) == 0);
  check_code(helper_run("complain", "embedded:", output, sizeof output), 0);
  unsetenv("QUEEN_CLIENT_LOG");
  check(strlen(output) > 0);
  check_code(helper_run("complain", "embedded:", output, sizeof output), 0);
  assert_string_equal(output, "");
}

TESTS(cmocka_unit_test(main_returns_with_work_in_flight), cmocka_unit_test(main_returns_while_a_server_does_not_answer),
      cmocka_unit_test(library_prints_nothing), cmocka_unit_test(environment_variable_asks_for_logs))
