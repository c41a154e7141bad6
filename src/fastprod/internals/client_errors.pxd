from libc.stdint cimport int64_t
from fastprod.internals.sync cimport fp_mutex

cdef class ClientErrors:
    cdef int certificate_error           # OpenSSL's code for the certificate refused last, or 0; written by any broker
    cdef int fatal_code                  # atomic; 0: none
    # guarded by lock
    cdef fp_mutex lock
    cdef int error_code
    cdef char error_text[512]
    cdef int64_t error_ns                # monotonic; 0: none yet
    cdef int64_t all_down_ns             # when librdkafka last found no broker left; 0: never
    cdef char fatal_text[512]

    cdef void record(self, int code, const char *text, int fatal) noexcept nogil
