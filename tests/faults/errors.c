/* Errors of the system for the files of one job, put in front of the C library by LD_PRELOAD.

ZOO_ERROR_FILES: part of the paths; ZOO_ERROR_AT: open, read, write or change; ZOO_ERROR: its number; ZOO_ERROR_AFTER:
so many bytes come through first; ZOO_ERROR_HIT: a file that is made when an error was given. Only processes
that run the script of a rule are concerned. Once it has begun, every later operation fails too. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))
#define FILES 65536

static int armed = -1;
static long passed;
static char marked[FILES];

static int is_job(void) {
  char line[8192];
  int file = (int)(REAL(open))("/proc/self/cmdline", O_RDONLY);
  ssize_t length = file < 0 ? 0 : (REAL(read))(file, line, sizeof line);
  if (file >= 0) (REAL(close))(file);
  return length > 0 && memmem(line, (size_t)length, "/.snakemake/scripts/", 20) != NULL;
}

static int at(const char *what) {
  if (armed < 0) armed = getenv("ZOO_ERROR") && getenv("ZOO_ERROR_FILES") && is_job();
  return armed && strcmp(getenv("ZOO_ERROR_AT"), what) == 0;
}

static int is_meant(const char *path) { return path && strstr(path, getenv("ZOO_ERROR_FILES")) != NULL; }

static int fail(void) {
  int file = (int)(REAL(open))(getenv("ZOO_ERROR_HIT"), O_CREAT | O_WRONLY, 0644);
  if (file >= 0) (REAL(close))(file);
  errno = atoi(getenv("ZOO_ERROR"));
  return -1;
}

/* Whether opening fails; else remember the files that reading or writing is to fail for. */
static int refused(const char *path, int writes) {
  if (writes ? at("change") && is_meant(path) : at("open") && is_meant(path)) return fail();
  return 0;
}

static int opened(int file, const char *path, int writes) {
  if (file >= 0 && file < FILES) marked[file] = at(writes ? "write" : "read") && is_meant(path);
  return file;
}

static int stopped(int file, size_t count) {
  if (file < 0 || file >= FILES || !marked[file]) return 0;
  passed += (long)count;
  return passed > atol(getenv("ZOO_ERROR_AFTER")) ? fail() : 0;
}

#define OPEN(name)                                                              \
  int name(const char *path, int flags, ...) {                                  \
    va_list more;                                                               \
    va_start(more, flags);                                                      \
    mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(more, mode_t) : 0;     \
    va_end(more);                                                               \
    int writes = (flags & O_ACCMODE) != O_RDONLY;                               \
    if (refused(path, writes)) return -1;                                       \
    return opened((REAL(name))(path, flags, mode), path, writes);               \
  }
OPEN(open)
OPEN(open64)

#define OPENAT(name)                                                            \
  int name(int folder, const char *path, int flags, ...) {                      \
    va_list more;                                                               \
    va_start(more, flags);                                                      \
    mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(more, mode_t) : 0;     \
    va_end(more);                                                               \
    int writes = (flags & O_ACCMODE) != O_RDONLY;                               \
    if (refused(path, writes)) return -1;                                       \
    return opened((REAL(name))(folder, path, flags, mode), path, writes);       \
  }
OPENAT(openat)
OPENAT(openat64)

#define FOPEN(name)                                                             \
  FILE *name(const char *path, const char *mode) {                              \
    int writes = strpbrk(mode, "wa+") != NULL;                                  \
    if (refused(path, writes)) return NULL;                                     \
    FILE *file = (REAL(name))(path, mode);                                      \
    if (file) opened(fileno(file), path, writes);                               \
    return file;                                                                \
  }
FOPEN(fopen)
FOPEN(fopen64)

int close(int file) {
  if (file >= 0 && file < FILES) marked[file] = 0;
  return (REAL(close))(file);
}

ssize_t read(int file, void *data, size_t count) {
  return stopped(file, count) ? -1 : (REAL(read))(file, data, count);
}
ssize_t pread(int file, void *data, size_t count, off_t from) {
  return stopped(file, count) ? -1 : (REAL(pread))(file, data, count, from);
}
ssize_t pread64(int file, void *data, size_t count, off64_t from) {
  return stopped(file, count) ? -1 : (REAL(pread64))(file, data, count, from);
}
ssize_t write(int file, const void *data, size_t count) {
  return stopped(file, count) ? -1 : (REAL(write))(file, data, count);
}
ssize_t pwrite(int file, const void *data, size_t count, off_t from) {
  return stopped(file, count) ? -1 : (REAL(pwrite))(file, data, count, from);
}
ssize_t pwrite64(int file, const void *data, size_t count, off64_t from) {
  return stopped(file, count) ? -1 : (REAL(pwrite64))(file, data, count, from);
}
size_t fwrite(const void *data, size_t size, size_t count, FILE *file) {
  return stopped(fileno(file), size * count) ? 0 : (REAL(fwrite))(data, size, count, file);
}
int rename(const char *from, const char *to) {
  return at("change") && is_meant(to) ? fail() : (REAL(rename))(from, to);
}
int mkdir(const char *path, mode_t mode) {
  return at("change") && is_meant(path) ? fail() : (REAL(mkdir))(path, mode);
}
int unlink(const char *path) {
  return at("change") && is_meant(path) ? fail() : (REAL(unlink))(path);
}
