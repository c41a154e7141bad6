"""ClientErrors: what librdkafka reports of connections and of the whole producer, not of a record."""

from libc.stdint cimport int64_t
from libc.string cimport strncpy, strstr
from fastprod.librdkafka.declarations cimport RD_KAFKA_RESP_ERR__ALL_BROKERS_DOWN
from fastprod.internals.sync cimport (
    fp_atomic_store, fp_monotonic_ns, fp_mutex_destroy, fp_mutex_init, fp_mutex_lock, fp_mutex_unlock,
)


cdef class ClientErrors:
    """The newest error event of librdkafka, and its fatal error.

    A fatal error stays. Thread-safe. lock is a leaf: no other lock is taken while it is held.
    """

    def __cinit__(self):
        fp_mutex_init(&self.lock)

    def __dealloc__(self):
        fp_mutex_destroy(&self.lock)

    cdef void record(self, int code, const char *text, int fatal) noexcept nogil:
        """Records an error event. thread: any  lock: none, or sender_lock"""
        fp_mutex_lock(&self.lock)
        if code == RD_KAFKA_RESP_ERR__ALL_BROKERS_DOWN:
            self.all_down_ns = fp_monotonic_ns()   # the cause comes before it, and says more
        elif strstr(text, b"Send failed: Broken pipe") is NULL:
            # "Broken pipe" only says that the broker had ended the connection, which mostly gives no error at all.
            if strstr(self.error_text, b"PLAINTEXT") is NULL or strstr(text, b"in state SSL_HANDSHAKE") is NULL:
                # Otherwise librdkafka has already said what that end means. It says so only now and then.
                strncpy(self.error_text, text, sizeof(self.error_text) - 1)
            self.error_code = code
            self.error_ns = fp_monotonic_ns()
        if fatal:
            strncpy(self.fatal_text, text, sizeof(self.fatal_text) - 1)
            fp_atomic_store(&self.fatal_code, code)
        fp_mutex_unlock(&self.lock)

    def last_error(self, int64_t since_ns):
        """(code, text) of the newest error event after a monotonic time, such as a refused connection, or (0, "").

        librdkafka gives none if a broker accepts a connection and closes it at once.
        """
        fp_mutex_lock(&self.lock)
        code, text, error_ns = self.error_code, <bytes>self.error_text, self.error_ns
        all_down_ns = self.all_down_ns
        fp_mutex_unlock(&self.lock)
        if code and error_ns > since_ns:
            return code, text.decode("utf-8", "replace")
        if all_down_ns > since_ns:
            return RD_KAFKA_RESP_ERR__ALL_BROKERS_DOWN, (
                "the brokers close the connection at once, as a port for TLS or SASL does if the client uses neither: "
                "check security.protocol")
        return 0, ""

    @property
    def refused_certificate(self):
        """OpenSSL's code for the last broker's certificate that was refused (X509_V_ERR_...), or 0."""
        return self.certificate_error

    @property
    def fatal_reason(self):
        """librdkafka's text on the fatal error: topic, partition, broker, and its cause."""
        fp_mutex_lock(&self.lock)
        text = <bytes>self.fatal_text
        fp_mutex_unlock(&self.lock)
        return text.decode("utf-8", "replace").removeprefix("Fatal error: ")
