/* A wall clock that can be set, for one process and its children: `LD_PRELOAD` this.

   What is read from CLOCK_REALTIME is moved by an offset that stands, as a double in seconds, in
   the file that CHAOS_CLOCK names; it is mapped, so a change is seen at once. CLOCK_MONOTONIC is
   left alone, as a real step of the clock leaves it. Absolute deadlines on CLOCK_REALTIME are moved
   back, so that waits end when they would on a machine whose clock says so.

   libfaketime 0.9.10 cannot do this for Python 3.11: with DONT_FAKE_MONOTONIC its clock_nanosleep
   fails `time.sleep` with EINVAL, and without it the monotonic clock steps too. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdarg.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static volatile double *shared;
static double nothing = 0.0;
static int (*real_gettime)(clockid_t, struct timespec *);
static long (*real_syscall)(long, long, long, long, long, long, long);

__attribute__((constructor)) static void begin(void) {
  const char *path = getenv("CHAOS_CLOCK");
  int file = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
  void *page = file < 0 ? MAP_FAILED : mmap(NULL, sizeof(double), PROT_READ, MAP_SHARED, file, 0);
  if (file >= 0) close(file);
  shared = page == MAP_FAILED ? &nothing : page;
}

static double offset(void) { return shared ? *shared : 0.0; }

static struct timespec moved(struct timespec from, double by) {
  long long seconds = (long long)by;
  long long nanos = from.tv_nsec + (long long)((by - (double)seconds) * 1e9);
  if (nanos < 0) { nanos += 1000000000; seconds -= 1; }
  if (nanos >= 1000000000) { nanos -= 1000000000; seconds += 1; }
  from.tv_sec += seconds;
  from.tv_nsec = nanos;
  return from;
}

static int is_wall(clockid_t id) { return id == CLOCK_REALTIME || id == CLOCK_REALTIME_COARSE; }

int clock_gettime(clockid_t id, struct timespec *at) {
  if (!real_gettime) real_gettime = dlsym(RTLD_NEXT, "clock_gettime");
  int failed = real_gettime(id, at);
  if (!failed && is_wall(id)) *at = moved(*at, offset());
  return failed;
}

int gettimeofday(struct timeval *restrict at, void *restrict zone) {
  struct timespec now;
  (void)zone;
  if (clock_gettime(CLOCK_REALTIME, &now)) return -1;
  at->tv_sec = now.tv_sec;
  at->tv_usec = now.tv_nsec / 1000;
  return 0;
}

time_t time(time_t *at) {
  struct timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  if (at) *at = now.tv_sec;
  return now.tv_sec;
}

/* Of deadlines that do not say by which clock they are: the one that is nearer. */
static int is_by_wall(const struct timespec *deadline) {
  struct timespec wall, steady;
  clock_gettime(CLOCK_REALTIME, &wall);
  clock_gettime(CLOCK_MONOTONIC, &steady);
  return llabs((long long)deadline->tv_sec - wall.tv_sec) <
         llabs((long long)deadline->tv_sec - steady.tv_sec);
}

int pthread_cond_timedwait(pthread_cond_t *restrict cond, pthread_mutex_t *restrict mutex,
                           const struct timespec *restrict deadline) {
  static int (*real)(pthread_cond_t *, pthread_mutex_t *, const struct timespec *);
  if (!real) real = dlvsym(RTLD_NEXT, "pthread_cond_timedwait", "GLIBC_2.3.2");
  if (!real) real = dlsym(RTLD_NEXT, "pthread_cond_timedwait");
  if (!is_by_wall(deadline)) return real(cond, mutex, deadline);
  struct timespec back = moved(*deadline, -offset());
  return real(cond, mutex, &back);
}

int sem_timedwait(sem_t *restrict semaphore, const struct timespec *restrict deadline) {
  static int (*real)(sem_t *, const struct timespec *);
  if (!real) real = dlsym(RTLD_NEXT, "sem_timedwait");
  struct timespec back = moved(*deadline, -offset());
  return real(semaphore, &back);
}

int pthread_mutex_timedlock(pthread_mutex_t *restrict mutex,
                            const struct timespec *restrict deadline) {
  static int (*real)(pthread_mutex_t *, const struct timespec *);
  if (!real) real = dlsym(RTLD_NEXT, "pthread_mutex_timedlock");
  struct timespec back = moved(*deadline, -offset());
  return real(mutex, &back);
}

/* Abseil, and gRPC with it, waits on futexes by number. */
long syscall(long number, ...) {
  long a[6];
  va_list given;
  va_start(given, number);
  for (int at = 0; at < 6; at++) a[at] = va_arg(given, long);
  va_end(given);
  if (!real_syscall) real_syscall = dlsym(RTLD_NEXT, "syscall");
  if (number == SYS_futex && (a[1] & FUTEX_CLOCK_REALTIME) && a[3]) {
    struct timespec back = moved(*(struct timespec *)a[3], -offset());
    return real_syscall(number, a[0], a[1], a[2], (long)&back, a[4], a[5]);
  }
  return real_syscall(number, a[0], a[1], a[2], a[3], a[4], a[5]);
}
