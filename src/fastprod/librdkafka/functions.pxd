cdef const void *functions() noexcept
