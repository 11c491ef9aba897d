/* brokers: embedded. link: none. Loading and unloading: the library stays (-z nodelete) and works. */
#include "process.h"

#include <dlfcn.h>

typedef struct api_t {
  void *library;
  queen_client_t *(*client_new_)(const char *, size_t, queen_error_t **);
  queen_future_t *(*push)(const queen_client_t *, const char *, const char *, const char *, size_t, const char *);
  queen_future_t *(*close)(const queen_client_t *, int64_t);
  int32_t (*wait)(const queen_future_t *, int64_t);
  const queen_error_t *(*error)(const queen_future_t *);
  void (*future_free)(queen_future_t *);
  void (*client_free)(queen_client_t *);
  int32_t (*shutdown)(int64_t);
} api_t;

/* a function pointer from an object pointer, as POSIX has it */
static void load(void *library, const char *name, void *slot) {
  void *symbol = dlsym(library, name);
  if (symbol == NULL) fail_msg("no %s", name);
  memcpy(slot, &symbol, sizeof symbol);
}

static api_t open_library(void) {
  const char *dir = getenv("QUEEN_LIB_DIR");
  char path[512];
  api_t api;
  memset(&api, 0, sizeof api);
  check(dir != NULL);
  snprintf(path, sizeof path, "%s/libqueen.so.0", dir);
  api.library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
  if (api.library == NULL) fail_msg("%s", dlerror());
  load(api.library, "queen_client_new", &api.client_new_);
  load(api.library, "queen_push", &api.push);
  load(api.library, "queen_client_close", &api.close);
  load(api.library, "queen_future_wait", &api.wait);
  load(api.library, "queen_future_error", &api.error);
  load(api.library, "queen_future_free", &api.future_free);
  load(api.library, "queen_client_free", &api.client_free);
  load(api.library, "queen_shutdown", &api.shutdown);
  return api;
}

static void use(const api_t *api, const queen_client_t *client) {
  queen_future_t *future = api->push(client, "q", "p", "[{\"payload\":1}]", Z, NULL);
  check(api->wait(future, LONG_MS) == QUEEN_OK && api->error(future) == NULL);
  api->future_free(future);
}

static void end(const api_t *api, queen_client_t *client) {
  queen_future_t *future = api->close(client, LONG_MS);
  check(api->wait(future, LONG_MS) == QUEEN_OK && api->error(future) == NULL);
  api->future_free(future);
  api->client_free(client);
}

TEST(load_use_shut_down_unload_many_times) {
  int i;
  for (i = 0; i < 10; i++) {
    api_t api = open_library();
    queen_client_t *client = api.client_new_("embedded:", Z, NULL);
    use(&api, client);
    end(&api, client);
    check(api.shutdown(LONG_MS) == QUEEN_OK);
    check(dlclose(api.library) == 0);
    check(threads_are_gone());
  }
}

/* unloaded with a client alive and threads running: they go on, and a second load finds them */
TEST(unload_with_a_client_alive) {
  api_t api = open_library(), again;
  queen_client_t *client = api.client_new_("embedded:", Z, NULL);
  use(&api, client);
  check(dlclose(api.library) == 0);
  use(&api, client); /* the code is still there */
  again = open_library();
  use(&again, client);
  end(&again, client);
  check(again.shutdown(LONG_MS) == QUEEN_OK);
  check(dlclose(again.library) == 0);
}

TESTS(cmocka_unit_test(load_use_shut_down_unload_many_times), cmocka_unit_test(unload_with_a_client_alive))
