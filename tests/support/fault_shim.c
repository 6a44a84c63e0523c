// Faults at chosen system calls, for tests on Linux: preloaded before the C
// library (LD_PRELOAD), it counts the calls that change what lies under a
// folder and does something else at the n-th of them.
//
//   PENNYWEIGHT_FAULT_UNDER  the folder, without links in its path; calls that
//                            touch nothing in it are not counted
//   PENNYWEIGHT_FAULT_AT     n, from 1; absent or 0: calls are only counted
//   PENNYWEIGHT_FAULT        kill: SIGKILL in place of the call
//                            torn: SIGKILL after half of what it writes
//                            short: half of what it writes, and success
//                            cut: first the file PENNYWEIGHT_FAULT_CUT is cut
//                            to 4 KiB, as by another process
//                            ENOSPC, EIO, EINTR, EMFILE, EAGAIN, ENOMEM:
//                            fails once; with a + behind it, from the n-th on
//   PENNYWEIGHT_FAULT_CALLS  names of the calls that count, with commas
//                            around each; absent: all that write
//   PENNYWEIGHT_FAULT_LOG    a file that gets a line "name path" a call

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

static atomic_long calls;
static const char* under;
static const char* only;
static const char* fault;
static long at;
static int log_fd = -1;

__attribute__((constructor)) static void read_environment(void) {
  under = getenv("PENNYWEIGHT_FAULT_UNDER");
  only = getenv("PENNYWEIGHT_FAULT_CALLS");
  fault = getenv("PENNYWEIGHT_FAULT");
  const char* n = getenv("PENNYWEIGHT_FAULT_AT");
  at = n && fault ? atol(n) : 0;
  const char* file = getenv("PENNYWEIGHT_FAULT_LOG");
  if (file) {
    log_fd = (int)syscall(
        SYS_openat, AT_FDCWD, file, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC,
        0644);
  }
}

static int starts_with_folder(const char* path) {
  const size_t size = strlen(under);
  return strncmp(path, under, size) == 0 &&
      (path[size] == '/' || path[size] == '\0');
}

static void path_of_descriptor(int fd, char* path, size_t size) {
  char link[64];
  snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
  const long length = syscall(SYS_readlink, link, path, size - 1);
  path[length > 0 ? length : 0] = '\0';
}

// The path of a name, which may be relative to the folder `dir`.
static void path_of_name(int dir, const char* name, char* path, size_t size) {
  if (name[0] == '/') {
    snprintf(path, size, "%s", name);
    return;
  }
  char folder[4096] = "";
  if (dir == AT_FDCWD) {
    if (syscall(SYS_getcwd, folder, sizeof(folder)) <= 0) {
      folder[0] = '\0';
    }
  } else {
    path_of_descriptor(dir, folder, sizeof(folder));
  }
  snprintf(path, size, "%.2000s/%.2000s", folder, name);
}

enum Act { kNothing, kFail, kHalf, kTear };

static int error_of(const char* name) {
  static const struct {
    const char* name;
    int number;
  } kErrors[] = {
      {"ENOSPC", ENOSPC}, {"EIO", EIO}, {"EINTR", EINTR}, {"EMFILE", EMFILE},
      {"EAGAIN", EAGAIN}, {"ENOMEM", ENOMEM}};
  for (size_t i = 0; i < sizeof(kErrors) / sizeof(kErrors[0]); ++i) {
    if (strncmp(name, kErrors[i].name, strlen(kErrors[i].name)) == 0) {
      return kErrors[i].number;
    }
  }
  static const char kWrong[] = "fault_shim: PENNYWEIGHT_FAULT is no fault\n";
  syscall(SYS_write, 2, kWrong, sizeof(kWrong) - 1);
  abort();
}

// Counts a call on `path` and says what is to become of it; for kFail it has set
// errno. `standard`: whether the call counts when PENNYWEIGHT_FAULT_CALLS is
// absent.
static enum Act count(const char* name, const char* path, int standard) {
  char quoted[64];
  snprintf(quoted, sizeof(quoted), ",%s,", name);
  if (only ? !strstr(only, quoted) : !standard) {
    return kNothing;
  }
  if (path && (!under || !starts_with_folder(path))) {
    return kNothing;
  }
  const long number = atomic_fetch_add(&calls, 1) + 1;
  if (log_fd >= 0) {
    char line[4300];
    const int size =
        snprintf(line, sizeof(line), "%s %s\n", name, path ? path : "");
    syscall(SYS_write, log_fd, line, size);
  }
  const int lasting = at && fault[strlen(fault) - 1] == '+';
  if (!at || number < at || (number > at && !lasting)) {
    return kNothing;
  }
  if (strcmp(fault, "kill") == 0) {
    raise(SIGKILL);
  }
  if (strcmp(fault, "torn") == 0) {
    return kTear;
  }
  if (strcmp(fault, "short") == 0) {
    return kHalf;
  }
  if (strcmp(fault, "cut") == 0) {
    syscall(SYS_truncate, getenv("PENNYWEIGHT_FAULT_CUT"), 4096);
    return kNothing;
  }
  errno = error_of(fault);
  return kFail;
}

static enum Act count_name(const char* call, int dir, const char* name) {
  char path[4200];
  path_of_name(dir, name, path, sizeof(path));
  const enum Act act = count(call, path, 1);
  if (act == kTear) {
    raise(SIGKILL);
  }
  return act == kHalf ? kNothing : act;
}

static enum Act count_descriptor(const char* call, int fd, int standard) {
  char path[4200];
  path_of_descriptor(fd, path, sizeof(path));
  return count(call, path, standard);
}

#define NEXT(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

static int opened(
    int dir, const char* name, int flags, mode_t mode) {
  const int writes = flags & (O_WRONLY | O_RDWR | O_CREAT | O_TRUNC);
  char path[4200];
  path_of_name(dir, name, path, sizeof(path));
  const enum Act act = count(writes ? "open" : "open_read", path, writes);
  if (act == kTear) {
    raise(SIGKILL);
  }
  if (act == kFail) {
    return -1;
  }
  return (int)syscall(SYS_openat, dir, name, flags, mode);
}

static mode_t mode_of(int flags, va_list list) {
  return flags & (O_CREAT | __O_TMPFILE) ? va_arg(list, mode_t) : 0;
}

#define OPEN(function)                                \
  int function(const char* name, int flags, ...) {    \
    va_list list;                                     \
    va_start(list, flags);                            \
    const mode_t mode = mode_of(flags, list);         \
    va_end(list);                                     \
    return opened(AT_FDCWD, name, flags, mode);       \
  }
OPEN(open)
OPEN(open64)

#define OPENAT(function)                                   \
  int function(int dir, const char* name, int flags, ...) { \
    va_list list;                                          \
    va_start(list, flags);                                 \
    const mode_t mode = mode_of(flags, list);              \
    va_end(list);                                          \
    return opened(dir, name, flags, mode);                 \
  }
OPENAT(openat)
OPENAT(openat64)

static size_t half(size_t size) {
  return size > 1 ? size / 2 : size;
}

ssize_t write(int fd, const void* data, size_t size) {
  const enum Act act = count_descriptor("write", fd, 1);
  if (act == kFail) {
    return -1;
  }
  const ssize_t done =
      syscall(SYS_write, fd, data, act == kNothing ? size : half(size));
  if (act == kTear) {
    raise(SIGKILL);
  }
  return done;
}

#define PWRITE(function)                                                   \
  ssize_t function(int fd, const void* data, size_t size, off_t offset) {  \
    const enum Act act = count_descriptor("pwrite", fd, 1);                \
    if (act == kFail) {                                                    \
      return -1;                                                           \
    }                                                                      \
    const size_t now = act == kNothing ? size : half(size);                \
    const ssize_t done = syscall(SYS_pwrite64, fd, data, now, offset);     \
    if (act == kTear) {                                                    \
      raise(SIGKILL);                                                      \
    }                                                                      \
    return done;                                                           \
  }
PWRITE(pwrite)
PWRITE(pwrite64)

ssize_t read(int fd, void* data, size_t size) {
  const enum Act act = count_descriptor("read", fd, 0);
  return act == kFail ? -1
                      : syscall(
                            SYS_read, fd, data,
                            act == kNothing ? size : half(size));
}

#define PREAD(function)                                              \
  ssize_t function(int fd, void* data, size_t size, off_t offset) {  \
    const enum Act act = count_descriptor("pread", fd, 0);           \
    const size_t now = act == kNothing ? size : half(size);          \
    return act == kFail ? -1                                         \
                        : syscall(SYS_pread64, fd, data, now, offset); \
  }
PREAD(pread)
PREAD(pread64)

#define OF_DESCRIPTOR(function, number)                   \
  int function(int fd) {                                  \
    const enum Act act = count_descriptor(#function, fd, 1); \
    if (act == kTear) {                                   \
      raise(SIGKILL);                                     \
    }                                                     \
    return act == kFail ? -1 : (int)syscall(number, fd);  \
  }
OF_DESCRIPTOR(fsync, SYS_fsync)
OF_DESCRIPTOR(fdatasync, SYS_fdatasync)

#define TRUNCATE(function)                                             \
  int function(int fd, off_t size) {                                   \
    const enum Act act = count_descriptor("ftruncate", fd, 1);         \
    return act == kFail ? -1 : (int)syscall(SYS_ftruncate, fd, size);  \
  }
TRUNCATE(ftruncate)
TRUNCATE(ftruncate64)

int rename(const char* from, const char* to) {
  return count_name("rename", AT_FDCWD, to) == kFail
      ? -1
      : (int)syscall(SYS_renameat2, AT_FDCWD, from, AT_FDCWD, to, 0);
}

int renameat(int from_dir, const char* from, int to_dir, const char* to) {
  return count_name("rename", to_dir, to) == kFail
      ? -1
      : (int)syscall(SYS_renameat2, from_dir, from, to_dir, to, 0);
}

int renameat2(
    int from_dir, const char* from, int to_dir, const char* to,
    unsigned flags) {
  return count_name("rename", to_dir, to) == kFail
      ? -1
      : (int)syscall(SYS_renameat2, from_dir, from, to_dir, to, flags);
}

int mkdir(const char* name, mode_t mode) {
  return count_name("mkdir", AT_FDCWD, name) == kFail
      ? -1
      : (int)syscall(SYS_mkdirat, AT_FDCWD, name, mode);
}

int mkdirat(int dir, const char* name, mode_t mode) {
  return count_name("mkdir", dir, name) == kFail
      ? -1
      : (int)syscall(SYS_mkdirat, dir, name, mode);
}

int unlink(const char* name) {
  return count_name("unlink", AT_FDCWD, name) == kFail
      ? -1
      : (int)syscall(SYS_unlinkat, AT_FDCWD, name, 0);
}

int unlinkat(int dir, const char* name, int flags) {
  return count_name("unlink", dir, name) == kFail
      ? -1
      : (int)syscall(SYS_unlinkat, dir, name, flags);
}

int rmdir(const char* name) {
  return count_name("rmdir", AT_FDCWD, name) == kFail
      ? -1
      : (int)syscall(SYS_unlinkat, AT_FDCWD, name, AT_REMOVEDIR);
}

int remove(const char* name) {
  struct stat info;
  if (lstat(name, &info) != 0) {
    return -1;
  }
  return S_ISDIR(info.st_mode) ? rmdir(name) : unlink(name);
}

// Counted only where PENNYWEIGHT_FAULT_CALLS names it, since it has no path.
int pthread_create(
    pthread_t* thread, const pthread_attr_t* attributes, void* (*start)(void*),
    void* argument) {
  return count("pthread_create", NULL, 0) == kFail
      ? EAGAIN
      : NEXT(pthread_create)(thread, attributes, start, argument);
}

// The buffers that oneDNN asks for in the midst of a product, which begin at a
// page; its small objects, which it does not check, do not. Counted only where
// PENNYWEIGHT_FAULT_CALLS names them.
int posix_memalign(void** memory, size_t alignment, size_t size) {
  Dl_info caller;
  const int counts = alignment >= 4096 &&
      dladdr(__builtin_return_address(0), &caller) && caller.dli_fname &&
      strstr(caller.dli_fname, "libdnnl");
  return counts && count("onednn_buffer", NULL, 0) == kFail
      ? ENOMEM
      : NEXT(posix_memalign)(memory, alignment, size);
}
