from fastprod.internals.produce_request_result cimport CallbackKind

cdef class ProducerInterceptors:
    cdef readonly tuple interceptors

    cdef object on_send(self, object topic, object value, object key, object partition, object timestamp,
                        object headers)
    cdef object acknowledgement(self, object on_delivery)
    cdef int on_send_error(self, object error) except -1

cdef class Acknowledgement:
    cdef tuple interceptors
    cdef object on_delivery

cdef CallbackKind callback_kind(object on_delivery) noexcept
