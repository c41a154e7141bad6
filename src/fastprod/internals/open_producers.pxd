cdef enum:
    EXIT_TIMEOUT_S = 30        # for pending records, when the interpreter exits without close()

cdef int register_producer(object producer) except -1
cdef int unregister_producer(object producer) except -1
