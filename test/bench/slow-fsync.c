/* Preloaded library: every call that asks the disk for durability takes longer, and is counted.
 *
 * Many disks of test machines answer such calls from a cache in microseconds, which hides what durability costs. The
 * call itself is still made. Compiled by tcc at bench time without libc headers, hence the declarations.
 *
 *   SLOW_FSYNC_NS     how much longer, in nanoseconds
 *   SLOW_FSYNC_COUNT  a file that grows by one byte a call: its size is the count, also after kill -9
 */

struct timespec {
  long seconds;
  long nanoseconds;
};

extern char *getenv(const char *name);
extern long atol(const char *text);
extern int open(const char *path, int flags, ...);
extern long write(int fd, const void *bytes, unsigned long size);
extern int nanosleep(const struct timespec *wanted, struct timespec *left);
extern long syscall(long number, ...);

#if defined(__x86_64__)
#define SYS_FSYNC 74
#define SYS_FDATASYNC 75
#define SYS_MSYNC 26
#define SYS_SYNC_FILE_RANGE 277
#define SYS_SYNCFS 306
#elif defined(__aarch64__)
#define SYS_FSYNC 82
#define SYS_FDATASYNC 83
#define SYS_MSYNC 227
#define SYS_SYNC_FILE_RANGE 84
#define SYS_SYNCFS 267
#else
#error "no system call numbers for this machine"
#endif

#define O_WRONLY_CREAT_APPEND_CLOEXEC (01 | 0100 | 02000 | 02000000)

static int count_fd = -1;

static void delayed(void) {
  struct timespec left;
  const char *text = getenv("SLOW_FSYNC_NS");
  const char *path = getenv("SLOW_FSYNC_COUNT");
  if (count_fd < 0 && path) count_fd = open(path, O_WRONLY_CREAT_APPEND_CLOEXEC, 0644);
  /* One byte in append mode: the kernel orders those of all threads and processes. */
  if (count_fd >= 0) write(count_fd, ".", 1);
  left.seconds = 0;
  left.nanoseconds = text ? atol(text) : 0;
  while (left.nanoseconds > 0 && nanosleep(&left, &left) != 0) {
  }
}

int fsync(int fd) {
  delayed();
  return (int)syscall(SYS_FSYNC, fd);
}

int fdatasync(int fd) {
  delayed();
  return (int)syscall(SYS_FDATASYNC, fd);
}

int syncfs(int fd) {
  delayed();
  return (int)syscall(SYS_SYNCFS, fd);
}

int msync(void *from, unsigned long size, int flags) {
  delayed();
  return (int)syscall(SYS_MSYNC, from, size, flags);
}

int sync_file_range(int fd, long from, long size, unsigned int flags) {
  delayed();
  return (int)syscall(SYS_SYNC_FILE_RANGE, fd, from, size, flags);
}
