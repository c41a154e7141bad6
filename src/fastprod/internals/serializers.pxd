cdef class Serializers:
    cdef object key_serializer
    cdef object value_serializer

    cdef bint are_none(self) noexcept
    cdef object key(self, object topic, object key)
    cdef object value(self, object topic, object value)
