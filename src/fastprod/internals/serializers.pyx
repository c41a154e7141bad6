"""Serializers: the user's key and value serializers."""

from fastprod.internals.input cimport shorten

from fastprod.errors import SerializationError


cdef class Serializers:
    """Makes bytes of keys and values of any type.

    Owns the two serializers: each is None, a callable, or an object with serialize(topic, value). A serializer never
    sees None, which stays a null key or value. thread: app, with the GIL  lock: none
    """

    def __cinit__(self, key_serializer, value_serializer):
        self.key_serializer = key_serializer
        self.value_serializer = value_serializer

    cdef bint are_none(self) noexcept:
        return self.key_serializer is None and self.value_serializer is None

    cdef object key(self, object topic, object key):
        return key if self.key_serializer is None or key is None else serialize(self.key_serializer, topic, key, "key")

    cdef object value(self, object topic, object value):
        if self.value_serializer is None or value is None:
            return value
        return serialize(self.value_serializer, topic, value, "value")


cdef object serialize(object serializer, object topic, object value, str what):
    try:
        function = getattr(serializer, "serialize", None)
        given = serializer(value) if function is None else function(topic, value)
    except Exception as error:
        raise SerializationError(
            f"the {what}_serializer failed on {shorten(value)} for {topic!r}: {type(error).__name__}: {error}"
        ) from error
    if given is not None and not isinstance(given, (bytes, str, bytearray, memoryview)):
        raise SerializationError(
            f"the {what}_serializer must return bytes, bytearray, memoryview, str or None, but returned "
            f"{type(given).__name__} for {topic!r}: {shorten(given)}")
    return given
