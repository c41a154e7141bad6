"""The functions of librdkafka, found by name in the library that confluent-kafka has loaded.

Each extension that calls them begins with ``fp_librdkafka_use(functions())``.
"""

from libc.stdint cimport uintptr_t

from fastprod.librdkafka.loader import address

cdef extern from "librdkafka.h" nogil:
    ctypedef struct fp_librdkafka_table:
        pass
    const fp_librdkafka_table fp_librdkafka_bound
    int fp_librdkafka_count() noexcept
    const char *fp_librdkafka_name(int) noexcept
    void fp_librdkafka_bind(int, void *) noexcept


cdef const void *functions() noexcept:
    """The table of all functions, filled while this module is imported; never changed after."""
    return &fp_librdkafka_bound


def _bind():
    cdef int i
    for i in range(fp_librdkafka_count()):
        fp_librdkafka_bind(i, <void *><uintptr_t>address(fp_librdkafka_name(i).decode()))


_bind()
