/* Child processes, the threads of this process, and the scripted server. */
#ifndef PROCESS_H
#define PROCESS_H
#include "harness.h"

#include <dirent.h>
#include <fcntl.h>
#include <poll.h>
#include <sys/syscall.h>
#include <sys/wait.h>

/* ---- children ---- */

/* waits for a child; its exit code, -signal, or -1000 when it had to be killed */
static inline int child_result(pid_t pid, int64_t timeout_ms) {
  int64_t until = now_ms() + timeout_ms;
  int status = 0;
  while (waitpid(pid, &status, WNOHANG) == 0) {
    if (now_ms() > until) {
      kill(pid, SIGKILL);
      waitpid(pid, &status, 0);
      return -1000;
    }
    usleep(5000); /* there is no waitpid with a deadline */
  }
  return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
}

/* Runs fn in a forked child. It returns 0, or the line of what went wrong, which is printed:
 * a child must not assert, the longjmp would run the parent's tests a second time. */
static inline int in_child(int (*fn)(void *), void *argument) {
  pid_t pid = fork();
  if (pid == 0) {
    int line;
    alarm(60);
    signal(SIGALRM, SIG_DFL);
    line = fn(argument);
    if (line != 0) fprintf(stderr, "# the child gave up at line %d\n", line);
    _exit(line != 0 ? 1 : 0);
  }
  return child_result(pid, 60000);
}
#define CHILD_CHECK(condition) \
  do {                         \
    if (!(condition)) return __LINE__; \
  } while (0)

typedef struct helper_t {
  pid_t pid;
  int in, out; /* its stdin; its stdout and stderr together */
} helper_t;

/* starts helper.c, the program beside the tests, or any other argv */
static inline helper_t process_start(char *const argv[], int separate_stderr) {
  helper_t helper;
  int in[2], out[2];
  check(pipe2(in, O_CLOEXEC) == 0 && pipe2(out, O_CLOEXEC) == 0);
  helper.pid = fork();
  if (helper.pid == 0) {
    dup2(in[0], 0);
    dup2(out[1], 1);
    if (!separate_stderr) dup2(out[1], 2);
    execvp(argv[0], argv);
    _exit(127);
  }
  close(in[0]);
  close(out[1]);
  helper.in = in[1];
  helper.out = out[0];
  return helper;
}

static inline helper_t helper_start(const char *mode, const char *argument) {
  const char *path = getenv("QUEEN_TEST_HELPER");
  char *argv[4];
  check(path != NULL); /* set by tests/c/run */
  argv[0] = (char *)path;
  argv[1] = (char *)mode;
  argv[2] = (char *)argument;
  argv[3] = NULL;
  return process_start(argv, 0);
}

/* reads one line without its end, or what came before the end of file; 0 when it never comes */
static inline int helper_line(helper_t *helper, char *line, size_t size) {
  struct pollfd p;
  size_t n = 0;
  p.fd = helper->out;
  p.events = POLLIN;
  while (n + 1 < size && poll(&p, 1, LONG_MS) == 1 && read(helper->out, line + n, 1) == 1 && line[n] != '\n') n++;
  line[n] = '\0';
  return n > 0;
}

/* closes its stdin, reads all it printed, waits; returns as child_result */
static inline int helper_end(helper_t *helper, char *output, size_t size) {
  struct pollfd p;
  size_t n = 0;
  ssize_t got;
  if (helper->in >= 0) close(helper->in);
  p.fd = helper->out;
  p.events = POLLIN;
  while (n + 1 < size && poll(&p, 1, LONG_MS) == 1 && (got = read(helper->out, output + n, size - 1 - n)) > 0) n += (size_t)got;
  output[n] = '\0';
  close(helper->out);
  return child_result(helper->pid, LONG_MS);
}

/* runs it to its end without telling it anything */
static inline int helper_run(const char *mode, const char *argument, char *output, size_t size) {
  helper_t helper = helper_start(mode, argument);
  return helper_end(&helper, output, size);
}

/* ---- a directory that goes with the test ---- */

typedef struct scratch_t {
  char dir[256];
} scratch_t;

static inline scratch_t scratch_new(void) {
  scratch_t scratch;
  const char *tmp = getenv("TMPDIR");
  snprintf(scratch.dir, sizeof scratch.dir, "%s/queen-XXXXXX", tmp != NULL ? tmp : "/tmp");
  check(mkdtemp(scratch.dir) != NULL);
  return scratch;
}

static inline const char *scratch_url(const scratch_t *scratch, const char *file) {
  static char url[512];
  snprintf(url, sizeof url, "embedded://%s/%s", scratch->dir, file);
  return url;
}

static inline void scratch_end(const scratch_t *scratch) {
  DIR *dir = opendir(scratch->dir);
  struct dirent *entry;
  while (dir != NULL && (entry = readdir(dir)) != NULL)
    if (entry->d_name[0] != '.') unlinkat(dirfd(dir), entry->d_name, 0);
  if (dir != NULL) closedir(dir);
  rmdir(scratch->dir);
}

/* ---- threads of this process ---- */

/* calls fn for every thread but this one; returns how many there are */
static inline int other_threads(void (*fn)(int tid, void *argument), void *argument) {
  DIR *dir = opendir("/proc/self/task");
  struct dirent *entry;
  int n = 0, self = (int)syscall(SYS_gettid);
  while (dir != NULL && (entry = readdir(dir)) != NULL) {
    int tid = atoi(entry->d_name);
    if (tid == 0 || tid == self) continue;
    n++;
    if (fn != NULL) fn(tid, argument);
  }
  if (dir != NULL) closedir(dir);
  return n;
}

/* Whether this thread is alone. A thread that was joined stays listed for a moment, until the kernel
 * has reaped it, so a few looks are allowed. */
static inline int threads_are_gone(void) {
  int64_t until = now_ms() + 5000;
  while (other_threads(NULL, NULL) > 0 && now_ms() < until) usleep(2000);
  return other_threads(NULL, NULL) == 0;
}

/* waits until another thread sleeps in the kernel: it has entered the call it was to block in */
static inline int thread_sleeps(int tid) {
  char path[64], text[256];
  int64_t until = now_ms() + LONG_MS;
  int calm = 0;
  snprintf(path, sizeof path, "/proc/self/task/%d/stat", tid);
  while (now_ms() < until) {
    FILE *file = fopen(path, "r");
    const char *state = file != NULL && fgets(text, sizeof text, file) != NULL ? strrchr(text, ')') : NULL;
    if (file != NULL) fclose(file);
    /* several looks in a row, because a lock may put it to sleep for a moment too */
    calm = state != NULL && state[1] == ' ' && state[2] == 'S' ? calm + 1 : 0;
    if (calm == 10) return 1;
    usleep(5000);
  }
  return 0;
}

/* ---- the scripted server ---- */

typedef struct scripted_t {
  helper_t process;
  int port;
  char url[64];
} scripted_t;

static inline void scripted_ask(scripted_t *server, const char *command, char *answer, size_t size) {
  check(write(server->process.in, command, strlen(command)) == (ssize_t)strlen(command));
  check(helper_line(&server->process, answer, size));
}

static inline scripted_t scripted_start(const char *mode) {
  scripted_t server;
  const char *path = getenv("QUEEN_SCRIPTED_SERVER");
  char line[64];
  char *argv[4];
  check(path != NULL); /* set by tests/c/run */
  argv[0] = (char *)"python3";
  argv[1] = (char *)path;
  argv[2] = (char *)mode;
  argv[3] = NULL;
  server.process = process_start(argv, 1);
  check(helper_line(&server.process, line, sizeof line) && sscanf(line, "port %d", &server.port) == 1);
  snprintf(server.url, sizeof server.url, "http://127.0.0.1:%d", server.port);
  return server;
}

static inline void scripted_mode(scripted_t *server, const char *mode) {
  char command[64], answer[64];
  snprintf(command, sizeof command, "mode %s\n", mode);
  scripted_ask(server, command, answer, sizeof answer);
  assert_string_equal(answer, "ok");
}

/* waits until the server has read n requests */
static inline int scripted_reaches(scripted_t *server, int n) {
  int64_t until = now_ms() + LONG_MS;
  char answer[64];
  int count = 0;
  while (now_ms() < until) {
    scripted_ask(server, "count\n", answer, sizeof answer);
    if (sscanf(answer, "count %d", &count) == 1 && count >= n) return 1;
    usleep(20000); /* the server has no way to call us */
  }
  return 0;
}

static inline void scripted_stop(scripted_t *server) {
  char output[256];
  check(helper_end(&server->process, output, sizeof output) == 0);
}

#endif
