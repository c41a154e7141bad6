# csrc/sync.h: declarations only.
from libc.stdint cimport int32_t, int64_t

cdef extern from "sync.h" nogil:
    ctypedef struct fp_mutex:
        pass
    ctypedef struct fp_cond:
        pass
    ctypedef struct fp_thread:
        pass
    ctypedef void *(*fp_thread_main)(void *) noexcept nogil

    int64_t fp_monotonic_ns() noexcept
    int64_t fp_slice_end(int64_t deadline_ns) noexcept
    int64_t fp_wall_ms() noexcept
    ctypedef struct fp_wall_clock:
        pass
    int64_t fp_wall_clock_ms(fp_wall_clock *) noexcept

    void fp_mutex_init(fp_mutex *) noexcept
    void fp_mutex_destroy(fp_mutex *) noexcept
    void fp_mutex_lock(fp_mutex *) noexcept
    int fp_mutex_trylock(fp_mutex *) noexcept
    void fp_mutex_unlock(fp_mutex *) noexcept

    void fp_cond_init(fp_cond *) noexcept
    void fp_cond_destroy(fp_cond *) noexcept
    void fp_cond_signal(fp_cond *) noexcept
    void fp_cond_broadcast(fp_cond *) noexcept
    int fp_cond_wait_until(fp_cond *, fp_mutex *, int64_t deadline_ns) noexcept

    int fp_thread_start(fp_thread *, fp_thread_main, void *, const char *name) noexcept
    void fp_thread_join(fp_thread) noexcept
    void fp_thread_detach(fp_thread) noexcept
    int fp_on_main_thread() noexcept

    void fp_yield() noexcept
    void fp_sleep_ns(int64_t) noexcept

    int32_t fp_atomic_add(int32_t *, int32_t) noexcept
    int fp_atomic_load(const int *) noexcept
    void fp_atomic_store(int *, int) noexcept
    int fp_atomic_exchange(int *, int) noexcept
