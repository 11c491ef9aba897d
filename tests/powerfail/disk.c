/*
 * A disk that loses power: a library for LD_PRELOAD that keeps, beside the files a program works on, what a disk would
 * hold if the power failed now. Killing the program (SIGKILL) is the power cut.
 *
 *   POWERFAIL_FILES   the folder the program works in; flat, and named by an absolute path without links
 *   POWERFAIL_DISK    the folder that holds what survives. What is in it at the start counts as being on the disk, and
 *                     POWERFAIL_FILES must hold the same
 *   POWERFAIL_SEED    0: nothing survives that was not synced. Otherwise the seed of a disk that writes back as it
 *                     likes: of what was not synced, random writes survive, whole or the first sectors of them
 *   POWERFAIL_MICROS  how long a sync takes, before anything of it is on the disk
 *
 * The rules are those of POSIX, read strictly. The content of a file survives if fsync or fdatasync of that file
 * followed, its name (made, removed or changed) if fsync of the folder followed. A sync brings the writes that were
 * finished when it began, in their order, and may be cut off in the middle. The shared memory of SQLite (-shm) never
 * survives. A call that would change a file in a way this library does not see ends the program.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <unistd.h>

#define MAX_FDS 65536
#define MAX_NAMES 64
#define SECTOR 512

/* A write or, without data, a change of the size. */
struct change {
  struct change *next;
  unsigned long number;
  off_t at;
  size_t length;
  char *data;
};

/* The content of a file, whatever its name. `disk` is what survives of it. */
struct content {
  int disk;
  char path[PATH_MAX];
  struct change *first, **last;
  unsigned long changes;
};

struct name {
  char text[NAME_MAX + 1];
  struct content *now, *durable;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_once_t once = PTHREAD_ONCE_INIT;
static char files[PATH_MAX], disk[PATH_MAX];
static unsigned seed, micros, contents;
static struct name names[MAX_NAMES];
static struct content *opened[MAX_FDS];
static struct content the_folder; /* what a descriptor of POWERFAIL_FILES stands for */

static int (*real_open)(const char *, int, ...);
static ssize_t (*real_pwrite)(int, const void *, size_t, off_t);
static ssize_t (*real_write)(int, const void *, size_t);
static int (*real_ftruncate)(int, off_t);
static int (*real_fsync)(int);
static int (*real_close)(int);
static int (*real_unlink)(const char *);
static int (*real_rename)(const char *, const char *);
static void *(*real_mmap)(void *, size_t, int, int, int, off_t);

static void die(const char *what) {
  fprintf(stderr, "powerfail: %s (errno %d)\n", what, errno);
  abort();
}

static void must(int fine, const char *what) {
  if (!fine) die(what);
}

static const char *setting(const char *name) {
  const char *value = getenv(name);
  return value ? value : "";
}

static struct content *new_content(const char *path, int flags) {
  struct content *content = calloc(1, sizeof *content);
  must(content != NULL, "out of memory");
  content->last = &content->first;
  snprintf(content->path, sizeof content->path, "%s", path);
  content->disk = real_open(path, O_RDWR | O_CLOEXEC | flags, 0644);
  must(content->disk >= 0, "cannot open a file of POWERFAIL_DISK");
  return content;
}

/* The row of a name, made when it is missing. */
static struct name *name_of(const char *text) {
  struct name *name;
  for (name = names; name < names + MAX_NAMES; name++) {
    if (name->text[0] == 0) snprintf(name->text, sizeof name->text, "%s", text);
    if (strcmp(name->text, text) == 0) return name;
  }
  die("too many names");
  return NULL;
}

static void start(void) {
  char path[PATH_MAX + NAME_MAX + 2];
  DIR *folder;
  struct dirent *entry;
  real_open = dlsym(RTLD_NEXT, "open");
  real_pwrite = dlsym(RTLD_NEXT, "pwrite64");
  real_write = dlsym(RTLD_NEXT, "write");
  real_ftruncate = dlsym(RTLD_NEXT, "ftruncate64");
  real_fsync = dlsym(RTLD_NEXT, "fsync");
  real_close = dlsym(RTLD_NEXT, "close");
  real_unlink = dlsym(RTLD_NEXT, "unlink");
  real_rename = dlsym(RTLD_NEXT, "rename");
  real_mmap = dlsym(RTLD_NEXT, "mmap64");
  snprintf(files, sizeof files, "%s", setting("POWERFAIL_FILES"));
  snprintf(disk, sizeof disk, "%s", setting("POWERFAIL_DISK"));
  seed = (unsigned)strtoul(setting("POWERFAIL_SEED"), NULL, 10);
  micros = (unsigned)strtoul(setting("POWERFAIL_MICROS"), NULL, 10);
  must(files[0] == '/' && disk[0] == '/', "POWERFAIL_FILES and POWERFAIL_DISK must be absolute paths");
  snprintf(path, sizeof path, "%s/.contents", disk);
  must(mkdir(path, 0755) == 0 || errno == EEXIST, "cannot make POWERFAIL_DISK/.contents");
  folder = opendir(disk);
  must(folder != NULL, "cannot read POWERFAIL_DISK");
  while ((entry = readdir(folder)) != NULL) {
    struct name *name;
    if (entry->d_name[0] == '.') continue;
    name = name_of(entry->d_name);
    snprintf(path, sizeof path, "%s/%s", disk, entry->d_name);
    name->now = name->durable = new_content(path, 0);
  }
  closedir(folder);
}

static void enter(void) {
  pthread_once(&once, start);
  pthread_mutex_lock(&lock);
}

static void leave(void) {
  int kept = errno;
  pthread_mutex_unlock(&lock);
  errno = kept;
}

/* The name within POWERFAIL_FILES that a path means; NULL for what is elsewhere or never survives. */
static const char *inside(const char *path) {
  size_t length = strlen(files), all = strlen(path);
  if (strncmp(path, files, length) != 0 || path[length] != '/') return NULL;
  if (all > 4 && strcmp(path + all - 4, "-shm") == 0) return NULL;
  return path + length + 1;
}

static struct content *content_of(int fd) {
  return fd >= 0 && fd < MAX_FDS ? opened[fd] : NULL;
}

/* Whether the disk does something now that nobody has asked for. */
static int whim(void) {
  return seed != 0 && rand_r(&seed) % 4 == 0;
}

static void to_disk(struct content *content, const struct change *change, size_t length) {
  if (change->data == NULL)
    must(real_ftruncate(content->disk, change->at) == 0, "cannot cut a file of POWERFAIL_DISK");
  else
    must(real_pwrite(content->disk, change->data, length, change->at) == (ssize_t)length, "cannot write to POWERFAIL_DISK");
}

static void changed(struct content *content, off_t at, const void *data, size_t length) {
  struct change *change = calloc(1, sizeof *change);
  must(change != NULL, "out of memory");
  change->number = ++content->changes;
  change->at = at;
  change->length = length;
  if (data != NULL) {
    change->data = malloc(length);
    must(change->data != NULL, "out of memory");
    memcpy(change->data, data, length);
    if (whim()) to_disk(content, change, whim() ? (length + SECTOR - 1) / SECTOR / 2 * SECTOR : length);
  }
  *content->last = change;
  content->last = &change->next;
}

/* Brings the changes up to a number to the disk. */
static void sync_content(struct content *content, unsigned long last) {
  while (content->first != NULL && content->first->number <= last) {
    struct change *change = content->first;
    to_disk(content, change, change->length);
    content->first = change->next;
    free(change->data);
    free(change);
  }
  if (content->first == NULL) content->last = &content->first;
}

static void sync_name(struct name *name) {
  char path[PATH_MAX + NAME_MAX + 2], fresh[PATH_MAX + 16];
  if (name->now == name->durable) return;
  snprintf(path, sizeof path, "%s/%s", disk, name->text);
  if (name->now == NULL) {
    must(real_unlink(path) == 0, "cannot remove a file of POWERFAIL_DISK");
  } else {
    snprintf(fresh, sizeof fresh, "%s/.contents/new", disk);
    must(linkat(AT_FDCWD, name->now->path, AT_FDCWD, fresh, 0) == 0, "cannot name a file of POWERFAIL_DISK");
    must(real_rename(fresh, path) == 0, "cannot name a file of POWERFAIL_DISK");
  }
  name->durable = name->now;
}

static void renamed(struct name *name, struct content *content) {
  name->now = content;
  if (whim()) sync_name(name);
}

static int open_file(const char *path, int flags, mode_t mode) {
  const char *text;
  int fd;
  enter();
  fd = real_open(path, flags, mode);
  text = inside(path);
  if (fd >= 0) must(fd < MAX_FDS, "too many descriptors");
  if (fd >= 0 && strcmp(path, files) == 0) opened[fd] = &the_folder;
  if (fd >= 0 && text != NULL) {
    struct name *name = name_of(text);
    if (name->now == NULL) {
      char own[PATH_MAX + 32];
      must(flags & O_CREAT, "a file of POWERFAIL_FILES came from nowhere");
      snprintf(own, sizeof own, "%s/.contents/%d-%u", disk, getpid(), contents++);
      renamed(name, new_content(own, O_CREAT | O_EXCL));
    } else if (flags & O_TRUNC) {
      changed(name->now, 0, NULL, 0);
    }
    opened[fd] = name->now;
  }
  leave();
  return fd;
}

#define OPEN(function)                                       \
  int function(const char *path, int flags, ...) {           \
    mode_t mode = 0;                                         \
    if (flags & (O_CREAT | O_TMPFILE)) {                     \
      va_list rest;                                          \
      va_start(rest, flags);                                 \
      mode = va_arg(rest, mode_t);                           \
      va_end(rest);                                          \
    }                                                        \
    return open_file(path, flags, mode);                     \
  }
OPEN(open)
OPEN(open64)
int __open_2(const char *path, int flags) { return open_file(path, flags, 0); }
int __open64_2(const char *path, int flags) { return open_file(path, flags, 0); }

int close(int fd) {
  int result;
  enter();
  if (content_of(fd) != NULL) opened[fd] = NULL;
  result = real_close(fd);
  leave();
  return result;
}

static ssize_t write_at(int fd, const void *data, size_t length, off_t at) {
  struct content *content;
  ssize_t result;
  enter();
  result = real_pwrite(fd, data, length, at);
  content = content_of(fd);
  if (content != NULL && result > 0) changed(content, at, data, (size_t)result);
  leave();
  return result;
}

ssize_t pwrite(int fd, const void *data, size_t length, off_t at) { return write_at(fd, data, length, at); }
ssize_t pwrite64(int fd, const void *data, size_t length, off64_t at) { return write_at(fd, data, length, at); }

ssize_t write(int fd, const void *data, size_t length) {
  pthread_once(&once, start);
  if (content_of(fd) != NULL) {
    ssize_t result = write_at(fd, data, length, lseek(fd, 0, SEEK_CUR));
    if (result > 0) lseek(fd, result, SEEK_CUR);
    return result;
  }
  return real_write(fd, data, length);
}

static int cut(int fd, off_t size) {
  struct content *content;
  int result;
  enter();
  result = real_ftruncate(fd, size);
  content = content_of(fd);
  if (content != NULL && result == 0) changed(content, size, NULL, 0);
  leave();
  return result;
}

int ftruncate(int fd, off_t size) { return cut(fd, size); }
int ftruncate64(int fd, off64_t size) { return cut(fd, size); }

static int sync_file(int fd) {
  struct content *content;
  struct name *name;
  unsigned long last;
  enter();
  content = content_of(fd);
  last = content != NULL ? content->changes : 0;
  leave();
  if (content == NULL) return real_fsync(fd);
  usleep(micros);
  enter();
  if (content == &the_folder)
    for (name = names; name < names + MAX_NAMES; name++) sync_name(name);
  else
    sync_content(content, last);
  leave();
  return 0;
}

int fsync(int fd) { return sync_file(fd); }
int fdatasync(int fd) { return sync_file(fd); }

int unlink(const char *path) {
  const char *text;
  int result;
  enter();
  result = real_unlink(path);
  text = inside(path);
  if (result == 0 && text != NULL) renamed(name_of(text), NULL);
  leave();
  return result;
}

int rename(const char *from, const char *to) {
  const char *old, *new;
  int result;
  enter();
  result = real_rename(from, to);
  old = inside(from);
  new = inside(to);
  must((old == NULL) == (new == NULL), "a rename into or out of POWERFAIL_FILES");
  if (result == 0 && old != NULL) {
    /* The new name first: between the two, the disk may know both and never neither. */
    renamed(name_of(new), name_of(old)->now);
    renamed(name_of(old), NULL);
  }
  leave();
  return result;
}

static void *map(void *where, size_t length, int protection, int flags, int fd, off_t at) {
  enter();
  must(content_of(fd) == NULL || !(protection & PROT_WRITE) || !(flags & MAP_SHARED), "a mapping that writes");
  leave();
  return real_mmap(where, length, protection, flags, fd, at);
}

void *mmap(void *w, size_t n, int p, int f, int fd, off_t at) { return map(w, n, p, f, fd, at); }
void *mmap64(void *w, size_t n, int p, int f, int fd, off64_t at) { return map(w, n, p, f, fd, at); }

/* Calls that this library does not follow. */
#define REFUSED(function, type, parameters, fd, arguments)                              \
  type function parameters {                                                            \
    static type(*real) parameters;                                                      \
    pthread_once(&once, start);                                                         \
    must(content_of(fd) == NULL, #function " is not followed, teach it to this library"); \
    if (real == NULL) real = dlsym(RTLD_NEXT, #function);                               \
    return real arguments;                                                              \
  }
struct iovec;
REFUSED(writev, ssize_t, (int fd, const struct iovec *v, int n), fd, (fd, v, n))
REFUSED(pwritev, ssize_t, (int fd, const struct iovec *v, int n, off_t at), fd, (fd, v, n, at))
REFUSED(pwritev64, ssize_t, (int fd, const struct iovec *v, int n, off64_t at), fd, (fd, v, n, at))
REFUSED(fallocate, int, (int fd, int mode, off_t at, off_t n), fd, (fd, mode, at, n))
REFUSED(fallocate64, int, (int fd, int mode, off64_t at, off64_t n), fd, (fd, mode, at, n))
REFUSED(posix_fallocate, int, (int fd, off_t at, off_t n), fd, (fd, at, n))
REFUSED(posix_fallocate64, int, (int fd, off64_t at, off64_t n), fd, (fd, at, n))
REFUSED(copy_file_range, ssize_t, (int from, off64_t *a, int fd, off64_t *b, size_t n, unsigned f), fd, (from, a, fd, b, n, f))
