"""ProducerInterceptors: the user's interceptors, which may change each record and hear of its outcome.

Source: org.apache.kafka.clients.producer.internals.ProducerInterceptors.
"""

from fastprod.internals.callback_check cimport check_callback, check_order
from fastprod.internals.callbacks cimport unraisable
from fastprod.internals.input cimport shorten
from fastprod.internals.produce_request_result cimport ON_ACKNOWLEDGEMENT, ON_DELIVERY, CallbackKind

from fastprod.errors import ConfigError
from fastprod.internals.error_codes import set_place
from fastprod.records import ProducerRecord


cdef class ProducerInterceptors:
    """The interceptors of a producer, in the order of the configuration.

    Owns them. Invariant: on_acknowledgement() is called once for each record that on_send() has returned: with the
    outcome, or with the error if send() raises. An interceptor without one of the two methods is skipped.

    thread: app for on_send() and refusals, callback for outcomes; with the GIL  lock: none
    """

    def __cinit__(self, interceptors):
        self.interceptors = tuple(interceptors)
        for interceptor in self.interceptors:
            check_interceptor(interceptor)

    cdef object on_send(self, object topic, object value, object key, object partition, object timestamp,
                        object headers):
        """Passes a record through each interceptor and returns the ProducerRecord that the last one returned.

        If one raises, those before it hear of that.
        """
        cdef Py_ssize_t asked = 0          # interceptors that have seen the record
        try:
            if hasattr(headers, "copy"):   # interceptors may change them
                headers = headers.copy()
            record = ProducerRecord(topic, value, key, partition, timestamp, headers)
            for interceptor in self.interceptors:
                if hasattr(interceptor, "on_send"):
                    returned = interceptor.on_send(record)
                    if type(returned) is not ProducerRecord:
                        raise TypeError(f"{type(interceptor).__name__}.on_send must return a ProducerRecord, "
                                        f"not {shorten(returned)}")
                    record, topic, partition = returned, returned.topic, returned.partition
                asked += 1
            return record
        except BaseException as error:
            set_place(error, topic, partition)
            if asked:
                Acknowledgement(self.interceptors[:asked], None)(None, error)
            raise

    cdef object acknowledgement(self, object on_delivery):
        """Returns the callback of a record: it passes the outcome to the interceptors, then to on_delivery."""
        return Acknowledgement(self.interceptors, on_delivery)

    cdef int on_send_error(self, object error) except -1:
        """Tells all interceptors of a record that was refused after on_send(), as in Java: KafkaProducer.doSend."""
        Acknowledgement(self.interceptors, None)(None, error)
        return 0


cdef int check_interceptor(object interceptor) except -1:
    """Raises ConfigError if it has an on_acknowledgement() that cannot be called with (metadata, error)."""
    function = getattr(interceptor, "on_acknowledgement", None)
    if function is None:
        return 0
    what = f"interceptors: {type(interceptor).__name__}.on_acknowledgement"
    try:
        check_callback(function, what)
        check_order(function, what)
    except TypeError as error:
        raise ConfigError(str(error)) from None
    return 0


cdef class Acknowledgement:
    """A callback that passes a record's outcome to the interceptors, then to on_delivery, if there is one."""

    def __init__(self, tuple interceptors, on_delivery):
        self.interceptors = interceptors
        self.on_delivery = on_delivery

    def __call__(self, metadata, error):
        for interceptor in self.interceptors:
            if getattr(interceptor, "on_acknowledgement", None) is not None:
                try:
                    interceptor.on_acknowledgement(metadata, error)
                except BaseException as raised:
                    unraisable(raised, interceptor)   # the other interceptors and on_delivery are still called
        if self.on_delivery is not None:
            self.on_delivery(metadata, error)


cdef CallbackKind callback_kind(object on_delivery) noexcept:
    """Interceptors alone do not observe an outcome. The user's on_delivery does."""
    if type(on_delivery) is Acknowledgement and (<Acknowledgement>on_delivery).on_delivery is None:
        return ON_ACKNOWLEDGEMENT
    return ON_DELIVERY
