/*
 * A disk that is full at times: a library for LD_PRELOAD. While the file FULLDISK_WHEN exists, no file in the folder
 * FULLDISK_FILES can grow: a write beyond its end fails with ENOSPC and changes nothing. Writes within a file work, and
 * so does making an empty one, as on most file systems. Both are absolute paths without links.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* Whether a file would have to grow for a write that ends at a place, and cannot. */
static int full(int fd, off_t end) {
  const char *files = getenv("FULLDISK_FILES"), *when = getenv("FULLDISK_WHEN");
  char link[64], path[PATH_MAX];
  struct stat file;
  ssize_t length;
  if (files == NULL || when == NULL || access(when, F_OK) != 0) return 0;
  snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
  length = readlink(link, path, sizeof path - 1);
  if (length < 0) return 0;
  path[length] = 0;
  if (strncmp(path, files, strlen(files)) != 0 || path[strlen(files)] != '/') return 0;
  return fstat(fd, &file) == 0 && S_ISREG(file.st_mode) && end > file.st_size;
}

static ssize_t no_space(void) {
  errno = ENOSPC;
  return -1;
}

ssize_t write(int fd, const void *data, size_t length) {
  static ssize_t (*real)(int, const void *, size_t);
  off_t at;
  if (real == NULL) real = dlsym(RTLD_NEXT, "write");
  at = lseek(fd, 0, SEEK_CUR);
  return at >= 0 && full(fd, at + (off_t)length) ? no_space() : real(fd, data, length);
}

ssize_t pwrite64(int fd, const void *data, size_t length, off64_t at) {
  static ssize_t (*real)(int, const void *, size_t, off64_t);
  if (real == NULL) real = dlsym(RTLD_NEXT, "pwrite64");
  return full(fd, at + (off64_t)length) ? no_space() : real(fd, data, length, at);
}

ssize_t pwrite(int fd, const void *data, size_t length, off_t at) { return pwrite64(fd, data, length, at); }
