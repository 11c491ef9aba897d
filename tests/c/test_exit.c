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
TEST(lg1_lg2_environment_variable_asks_for_logs) {
  char output[65536];
  static const char *const asks[] = {"debug", "TRUE", "warn"};
  int64_t lines[3];
  size_t i;
  for (i = 0; i < LEN(asks); i++) {
    char *line;
    check(setenv("QUEEN_CLIENT_LOG", asks[i], 1) == 0);
    check_code(helper_run("complain", "embedded:", output, sizeof output), 0);
    check((strstr(output, "] [DEBUG] [") != NULL) == (i == 0));
    check((strstr(output, "] [INFO] [client.new] {") != NULL) == (i < 2));
    check(strstr(output, "] [WARN] [consumer.handler] {") != NULL);
    for (lines[i] = 0, line = strtok(output, "\n"); line != NULL; line = strtok(NULL, "\n"), lines[i]++) {
      int year = 0, millis = -1; /* [<ISO time>Z] [LEVEL] [component.operation] {details} */
      if (sscanf(line, "[%4d-%*2d-%*2dT%*2d:%*2d:%*2d.%3dZ] [", &year, &millis) != 2 || year < 2024 || millis < 0 ||
          line[strlen(line) - 1] != '}')
        fail_msg("no line of a log: %s", line);
    }
  }
  check(lines[0] > lines[1] && lines[1] > lines[2] && lines[2] > 0);
  check(setenv("QUEEN_CLIENT_LOG", "false", 1) == 0);
  check_code(helper_run("complain", "embedded:", output, sizeof output), 0);
  assert_string_equal(output, "");
  unsetenv("QUEEN_CLIENT_LOG");
  check_code(helper_run("complain", "embedded:", output, sizeof output), 0);
  assert_string_equal(output, "");
}

/* C-8: a library does not print, whatever a buffered push, a flush and a close have to tell */
TEST(c8_lg5_buffers_print_nothing) {
  scripted_t server = scripted_start("refuse");
  exits_silently("buffered", "embedded:");
  exits_silently("buffered", server.url);
  scripted_stop(&server);
}

TESTS(cmocka_unit_test(main_returns_with_work_in_flight), cmocka_unit_test(main_returns_while_a_server_does_not_answer),
      cmocka_unit_test(library_prints_nothing), cmocka_unit_test(c8_lg5_buffers_print_nothing),
      cmocka_unit_test(lg1_lg2_environment_variable_asks_for_logs))
