/* Mutex, condition, thread, clocks and atomics: thin over pthreads.
 *
 * Deadlines are absolute CLOCK_MONOTONIC nanoseconds, so a stepped wall clock
 * neither wakes nor strands anyone. */
#ifndef FASTPROD_SYNC_H
#define FASTPROD_SYNC_H

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdint.h>
#include <time.h>
#ifndef __APPLE__
#include <sys/syscall.h>
#include <unistd.h>
#endif

typedef pthread_mutex_t fp_mutex;
typedef pthread_cond_t fp_cond;
typedef pthread_t fp_thread;

static inline int64_t fp_monotonic_ns(void) {
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (int64_t)ts.tv_sec * 1000000000 + ts.tv_nsec;
}

/* A wait until deadline_ns goes in slices, so that Ctrl-C is noticed within 50 ms: the end of the one that begins now. */
static inline int64_t fp_slice_end(int64_t deadline_ns) {
    int64_t end = fp_monotonic_ns() + 50000000;
    return end < deadline_ns ? end : deadline_ns;
}

static inline int64_t fp_wall_ms(void) {
    struct timespec ts;
    clock_gettime(CLOCK_REALTIME, &ts);
    return (int64_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

/* The wall clock in ms, for callers that ask millions of times a second. On x86 the
 * last answer is given again while the time stamp counter has advanced by less
 * than 100,000: its rate is over 1 GHz, so an answer is never older than 0.1 ms,
 * and asking costs 8 ns instead of 18. Not thread-safe. */
typedef struct {
    uint64_t counter;
    int64_t ms;
} fp_wall_clock;

static inline int64_t fp_wall_clock_ms(fp_wall_clock *clock) {
#if defined(__x86_64__)
    uint64_t counter = __builtin_ia32_rdtsc();
    if (counter - clock->counter < 100000)
        return clock->ms;
    clock->counter = counter;
    return clock->ms = fp_wall_ms();
#else
    (void)clock;
    return fp_wall_ms();
#endif
}

/* Every critical section but those under sender_lock is shorter than a trip
 * into the kernel, so a thread that finds the mutex taken spins a little first where it can. */
static inline void fp_mutex_init(fp_mutex *m) {
#ifdef PTHREAD_MUTEX_ADAPTIVE_NP
    pthread_mutexattr_t attr;
    pthread_mutexattr_init(&attr);
    pthread_mutexattr_settype(&attr, PTHREAD_MUTEX_ADAPTIVE_NP);
    pthread_mutex_init(m, &attr);
    pthread_mutexattr_destroy(&attr);
#else
    pthread_mutex_init(m, NULL);
#endif
}
static inline void fp_mutex_destroy(fp_mutex *m) { pthread_mutex_destroy(m); }
static inline void fp_mutex_lock(fp_mutex *m) { pthread_mutex_lock(m); }
static inline int fp_mutex_trylock(fp_mutex *m) { return pthread_mutex_trylock(m) == 0; }
static inline void fp_mutex_unlock(fp_mutex *m) { pthread_mutex_unlock(m); }

static inline void fp_cond_init(fp_cond *c) {
#ifdef __APPLE__
    pthread_cond_init(c, NULL);
#else
    pthread_condattr_t attr;
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(c, &attr);
    pthread_condattr_destroy(&attr);
#endif
}
static inline void fp_cond_destroy(fp_cond *c) { pthread_cond_destroy(c); }
static inline void fp_cond_signal(fp_cond *c) { pthread_cond_signal(c); }
static inline void fp_cond_broadcast(fp_cond *c) { pthread_cond_broadcast(c); }

/* Waits for c until deadline_ns. Returns 1 once the deadline has passed, else
 * 0, which may also be a spurious wake-up. */
static inline int fp_cond_wait_until(fp_cond *c, fp_mutex *m,
                                     int64_t deadline_ns) {
    struct timespec ts;
#ifdef __APPLE__
    int64_t left = deadline_ns - fp_monotonic_ns();
    if (left <= 0)
        return 1;
    ts.tv_sec = left / 1000000000;
    ts.tv_nsec = left % 1000000000;
    return pthread_cond_timedwait_relative_np(c, m, &ts) == ETIMEDOUT;
#else
    if (deadline_ns <= 0)
        return 1;
    ts.tv_sec = deadline_ns / 1000000000;
    ts.tv_nsec = deadline_ns % 1000000000;
    return pthread_cond_timedwait(c, m, &ts) == ETIMEDOUT;
#endif
}

/* name: at most 15 characters; what top -H and perf show */
typedef void *(*fp_thread_main)(void *);
static inline int fp_thread_start(fp_thread *t, fp_thread_main main,
                                  void *arg, const char *name) {
    int error = pthread_create(t, NULL, main, arg);
#ifdef __linux__
    if (!error)
        pthread_setname_np(*t, name);
#endif
    return error;
}
static inline void fp_thread_join(fp_thread t) { pthread_join(t, NULL); }
static inline void fp_thread_detach(fp_thread t) { pthread_detach(t); }

/* Whether this is the process's first thread, or in a forked child the one that forked. */
static inline int fp_on_main_thread(void) {
#ifdef __APPLE__
    return pthread_main_np();
#else
    return syscall(SYS_gettid) == getpid();
#endif
}

static inline void fp_yield(void) { sched_yield(); }

/* At least so long, and some 50 us longer. */
static inline void fp_sleep_ns(int64_t ns) {
    struct timespec ts = {ns / 1000000000, ns % 1000000000};
    nanosleep(&ts, NULL);
}

static inline int32_t fp_atomic_add(int32_t *p, int32_t n) {
    return __atomic_add_fetch(p, n, __ATOMIC_ACQ_REL);
}
static inline int fp_atomic_load(const int *p) {
    return __atomic_load_n(p, __ATOMIC_SEQ_CST);
}
static inline void fp_atomic_store(int *p, int v) {
    __atomic_store_n(p, v, __ATOMIC_SEQ_CST);
}
static inline int fp_atomic_exchange(int *p, int v) {
    return __atomic_exchange_n(p, v, __ATOMIC_SEQ_CST);
}

#endif
