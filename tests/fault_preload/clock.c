/* A wall clock that can be set, for this process alone. The monotonic clock stays what it is. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdint.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <threads.h>
#include <time.h>
#include <unistd.h>

static int64_t ahead_s;

void set_wall_clock_ahead(int64_t seconds) { __atomic_store_n(&ahead_s, seconds, __ATOMIC_SEQ_CST); }

int clock_gettime(clockid_t clock, struct timespec *ts) {
    int failed = syscall(SYS_clock_gettime, clock, ts);
    if (!failed && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE))
        ts->tv_sec += __atomic_load_n(&ahead_s, __ATOMIC_SEQ_CST);
    return failed;
}

int gettimeofday(struct timeval *restrict tv, void *restrict zone) {
    struct timespec ts;
    (void)zone;
    clock_gettime(CLOCK_REALTIME, &ts);
    tv->tv_sec = ts.tv_sec;
    tv->tv_usec = ts.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *seconds) {
    struct timespec ts;
    clock_gettime(CLOCK_REALTIME, &ts);
    if (seconds)
        *seconds = ts.tv_sec;
    return ts.tv_sec;
}

/* librdkafka's waits, which go by the wall clock. The kernel looks at it again when it is set; here every 5 ms. */
int cnd_timedwait(cnd_t *restrict condition, mtx_t *restrict mutex, const struct timespec *restrict until) {
    static int (*next)(cnd_t *, mtx_t *, const struct timespec *);
    struct timespec now, soon;
    int status;
    if (!next)
        next = (int (*)(cnd_t *, mtx_t *, const struct timespec *))dlsym(RTLD_NEXT, "cnd_timedwait");
    for (;;) {
        clock_gettime(CLOCK_REALTIME, &now);
        if (now.tv_sec > until->tv_sec || (now.tv_sec == until->tv_sec && now.tv_nsec >= until->tv_nsec))
            return thrd_timedout;
        syscall(SYS_clock_gettime, CLOCK_REALTIME, &soon);
        soon.tv_nsec += 5000000;
        soon.tv_sec += soon.tv_nsec / 1000000000;
        soon.tv_nsec %= 1000000000;
        status = next(condition, mutex, &soon);
        if (status != thrd_timedout)
            return status;
    }
}
