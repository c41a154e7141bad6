"""TokenRequests: when librdkafka needs an OAUTHBEARER token, and how it gets one."""

from libc.stdint cimport int64_t, uintptr_t
from fastprod.librdkafka.declarations cimport *
from fastprod.librdkafka.functions cimport functions
from fastprod.internals.sync cimport fp_wall_ms
from fastprod.internals.threads cimport pause_greenlet

fp_librdkafka_use(functions())

cdef int64_t TOKEN_PAUSE_NS = 20_000_000   # between two looks of a greenlet


cdef class TokenRequests:
    """librdkafka's requests for OAUTHBEARER tokens, which the user's provider answers. thread: token

    Owns nothing: the queues are the transport's, which waits in end() until wanted() has left a queue.
    """

    def __cinit__(self, Transport transport):
        self.transport = transport

    def wanted(self):
        """Waits until librdkafka needs an OAUTHBEARER token. Returns sasl.oauthbearer.config; None after wake().

        Among greenlets it returns None now and then, so that others can run.
        """
        cdef rd_kafka_event_t *event
        cdef const char *text
        cdef rd_kafka_queue_t *queue = self.transport.coming.sasl_queue
        cdef int timeout_ms = 0 if pause_greenlet(TOKEN_PAUSE_NS) else -1
        if queue is NULL:
            queue = self.transport.sasl_queue
        self.transport.polled_for_tokens = queue
        with nogil:
            event = rd_kafka_queue_poll(queue, timeout_ms)
        self.transport.polled_for_tokens = NULL
        if event is NULL:
            return None
        found = None
        if rd_kafka_event_type(event) == RD_KAFKA_EVENT_OAUTHBEARER_TOKEN_REFRESH:
            text = rd_kafka_event_config_string(event)
            found = "" if text is NULL else (<bytes>text).decode("utf-8", "replace")
        rd_kafka_event_destroy(event)
        return found

    def wake(self):
        """Ends a wanted() that waits, or else the next one. thread: any"""
        if self.transport.coming.sasl_queue is not NULL:
            rd_kafka_queue_yield(self.transport.coming.sasl_queue)
        rd_kafka_queue_yield(self.transport.sasl_queue)

    def set(self, str token, int64_t expiry_ms, str principal, dict extensions):
        """Gives librdkafka a token that expires at expiry_ms, in ms since the epoch. ValueError: it is not valid."""
        cdef char text[512]
        cdef const char *pairs[32]
        cdef list encoded = [part.encode() for pair in extensions.items() for part in pair]
        cdef bytes principal_bytes = principal.encode()
        cdef Py_ssize_t i
        if expiry_ms <= fp_wall_ms():
            raise ValueError(f"the token has expired: its expiry is {expiry_ms / 1000:.0f}, and now is "
                             f"{fp_wall_ms() / 1000:.0f} (seconds since the epoch)")
        if len(encoded) > 32:
            raise ValueError(f"{len(extensions)} extensions are more than 16")
        for i in range(len(encoded)):
            pairs[i] = <bytes>encoded[i]
        for rk in (<uintptr_t>self.transport.rk, <uintptr_t>self.transport.coming.rk,
                   <uintptr_t>self.transport.retired.rk):
            if rk and rd_kafka_oauthbearer_set_token(
                    <rd_kafka_t *><uintptr_t>rk, token.encode(), expiry_ms, principal_bytes, pairs, len(encoded), text,
                    sizeof(text)):
                raise ValueError(text.decode("utf-8", "replace"))

    def fail(self, str reason):
        """Tells librdkafka that there is no token. It asks again in 10 s."""
        for rk in (<uintptr_t>self.transport.rk, <uintptr_t>self.transport.coming.rk):
            if rk:
                rd_kafka_oauthbearer_set_token_failure(
                    <rd_kafka_t *><uintptr_t>rk, reason.encode("utf-8", "replace"))
