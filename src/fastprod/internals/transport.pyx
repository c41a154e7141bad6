"""Transport: hands records over to librdkafka and takes its delivery reports."""

from libc.stdint cimport int16_t, int32_t, int64_t, uint64_t, uintptr_t
from libc.stdlib cimport free, malloc, realloc
from libc.string cimport memset, strcmp, strncmp, strstr
from fastprod.internals.producer_batch cimport ProducerBatch
from fastprod.internals.produce_request_result cimport PERSISTED
from fastprod.librdkafka.declarations cimport *
from fastprod.librdkafka.functions cimport functions
from fastprod.internals.record cimport fp_header, fp_header_read, fp_record, fp_record_read
from fastprod.internals.sync cimport fp_atomic_add, fp_atomic_load, fp_sleep_ns, fp_wall_ms

from fastprod.internals.client_errors cimport ClientErrors
from fastprod.internals.delivery_report cimport (
    DeliveryReports, Report, acknowledgement_report, delivery_reports_init, record_tag, rejection_report, tag_is_single,
)
from fastprod.internals.handle cimport Handle, HandleFactory, OpenTopic, end_handle
from fastprod.internals.recreated_topics cimport RecreatedTopics
from fastprod.internals.update_request cimport EVERYTHING, UpdateRequest
from fastprod.librdkafka.codes cimport CRIT_SYS_RESOURCE

fp_librdkafka_use(functions())

cdef enum:
    LATE_MS = 5   # by how much the timestamp of a record that came without one may be later than send()
    MAX_MESSAGES_PER_CALL = 512   # records handed over by one call
    FIXED_ARGUMENTS = 6   # of produceva, before the headers
    PRODUCE = 0   # its API key in the protocol
    INFO = 6      # syslog's levels, as librdkafka has them
    DEBUG = 7


cdef int add_interceptors(rd_kafka_t *rk, const rd_kafka_conf_t *conf, void *transport, char *errstr,
                          size_t errstr_size) noexcept nogil:
    return (rd_kafka_interceptor_add_on_send(rk, b"fastprod", on_send, transport) or
            rd_kafka_interceptor_add_on_acknowledgement(rk, b"fastprod", on_acknowledgement, transport) or
            rd_kafka_interceptor_add_on_request_sent(rk, b"fastprod", on_request_sent, transport))


cdef int on_send(rd_kafka_t *rk, rd_kafka_message_t *message, void *transport) noexcept nogil:
    """librdkafka has made a message, which nobody else knows yet. thread: that of hand_over()"""
    if (<Transport>transport).stamping_zero:
        (<Transport>transport).stamping_zero = 0
        fp_stamp_zero(message)
    return 0


cdef int on_acknowledgement(rd_kafka_t *rk, rd_kafka_message_t *message, void *transport) noexcept nogil:
    """A record was delivered, or failed; its report follows. thread: librdkafka's, mostly that of the broker"""
    if message.err == 0 and tag_is_single(<uintptr_t>message._private):
        (<Transport>transport).record_acknowledgement(message)
    return 0


cdef int on_request_sent(rd_kafka_t *rk, int socket, const char *broker_name, int32_t broker_id, int16_t api_key,
                         int16_t api_version, int32_t correlation_id, size_t size, void *transport) noexcept nogil:
    """thread: librdkafka's, that of the broker"""
    if api_key == PRODUCE:
        fp_atomic_add(<int32_t *>&(<Transport>transport).requests, 1)
    return 0


cdef bint has_metadata(str debug):
    """Whether the lines of debug=metadata are among those that the user asked for."""
    return bool({"all", "metadata", "topic"} & {context.strip() for context in debug.split(",")})


cdef inline int is_of_metadata(const char *facility) noexcept nogil:
    """Whether librdkafka logs such a line for debug=metadata."""
    return strncmp(facility, b"METADATA", 8) == 0 or strcmp(facility, b"TOPICPROP") == 0 or (
        strcmp(facility, b"FASTQUERY") == 0)


cdef inline int goes_by_batch(const fp_record *record, int64_t now_ms) noexcept nogil:
    """Whether rd_kafka_produce_batch() may take the record, which then gets the time of the call as its timestamp."""
    return record.headers is NULL and not record.timed and 0 <= now_ms - record.timestamp <= LATE_MS


cdef void wake_for_retired(rd_kafka_t *rk, void *transport) noexcept nogil:
    """The retired librdkafka producer has an event. thread: librdkafka's"""
    (<Transport>transport).wake()


cdef class Transport:
    """Hands records over to librdkafka, and takes its delivery reports.

    Owns the librdkafka producer, which another one may replace. Records stay the caller's: librdkafka gets pointers
    into the batch's arena, so the arena must live until the batch's last report. Every record is reported exactly once.

    hand_over() and open_event() are called under sender_lock, next_event() under it or by the sender thread, wake() by
    any thread. A thread of librdkafka calls `acknowledged` for a record that is alone in its batch, before its report.

    It never passes RD_KAFKA_MSG_F_PARTITION (librdkafka would lose a message, and flush() with it), F_BLOCK (it would
    not learn a new leader) or F_FREE (it would free twice), and never calls rd_kafka_poll (it would drop reports).
    """

    def __cinit__(self, dict properties, Callbacks callbacks, bint has_token_provider=False):
        cdef Handle made
        self.errors = ClientErrors()
        self.factory = HandleFactory(properties, has_token_provider)
        self.recreated_topics = RecreatedTopics()
        self.update_request = UpdateRequest()
        self.log_level = DEBUG if properties.get("debug") else min(INFO, int(float(properties.get("log_level", INFO))))
        self.shows_metadata = has_metadata(properties.get("debug", ""))
        self.callbacks = callbacks
        self.without_acks = properties.get("acks") == "0"
        self.messages = <rd_kafka_message_t *>malloc(MAX_MESSAGES_PER_CALL * sizeof(rd_kafka_message_t))
        self.arguments = <rd_kafka_vu_t *>malloc((FIXED_ARGUMENTS + 16) * sizeof(rd_kafka_vu_t))
        self.arguments_size = FIXED_ARGUMENTS + 16
        if self.messages is NULL or self.arguments is NULL:
            raise MemoryError()
        self.generation = 1
        self.make(&made)
        self.rk, self.queue, self.sasl_queue = made.rk, made.queue, made.sasl_queue

    def __dealloc__(self):
        self.end_all()    # of a producer that did not get as far as its threads
        free(self.messages)
        free(self.arguments)

    def close(self):
        """Ends the handle. No report may be outstanding and no other call may be under way."""
        self.end_all()

    cdef int end_all(self) except -1:
        cdef Handle ended
        self.end(&self.coming)
        self.take_retired(&ended)
        self.end(&ended)
        ended.rk, ended.queue, ended.sasl_queue, ended.topics = self.rk, self.queue, self.sasl_queue, self.topics
        self.rk = NULL    # before the GIL goes: a token provider that was left behind may come back meanwhile
        self.queue = self.sasl_queue = NULL
        self.topics = NULL
        self.end(&ended)
        return 0

    cdef int make(self, Handle *made) except -1:
        """Makes a librdkafka producer with the transport's interceptors."""
        return self.factory.make(made, add_interceptors, <void *>self, &self.errors.certificate_error)

    cdef int end(self, Handle *handle) except -1:
        """Ends a librdkafka producer. No report may be outstanding, and no other call may use it."""
        cdef rd_kafka_queue_t *tokens = handle.sasl_queue
        cdef Handle ended = handle[0]
        memset(handle, 0, sizeof(Handle))    # before the GIL is released, so that no thread finds it
        while self.polled_for_tokens is not NULL and self.polled_for_tokens is tokens:
            rd_kafka_queue_yield(tokens)
            with nogil:
                fp_sleep_ns(1_000_000)
        return end_handle(&ended)

    # A new librdkafka producer replaces the current one. librdkafka never frees a topic or a leader epoch, so only a
    # new rd_kafka_t forgets them. One replacement at a time:
    #
    # 1. MetadataRequests.prepare() makes it, and waits until a broker has answered.
    # 2. switch_over() makes it the current one; the former is retired. What is handed over from here on goes to the new
    #    one, but for what must wait for reports of the former; see ProduceRequests.submit_next().
    # 3. The sender serves the queues of both. An event of the retired one wakes it by the current one's queue.
    # 4. When the last report has come, the sender takes it away, and it is ended.

    cdef int discard(self) except -1:
        """Ends the prepared one. thread: metadata"""
        if self.coming.sasl_queue is not NULL:
            rd_kafka_queue_yield(self.coming.sasl_queue)
        return self.end(&self.coming)

    cdef void switch_over(self) noexcept nogil:
        """Makes the prepared one the current one. thread: metadata, with the GIL  lock: sender_lock"""
        cdef rd_kafka_queue_t *polled = self.queue
        self.retired.rk, self.retired.queue = self.rk, self.queue
        self.retired.sasl_queue, self.retired.topics = self.sasl_queue, self.topics
        self.rk, self.queue, self.sasl_queue = self.coming.rk, self.coming.queue, self.coming.sasl_queue
        self.topics = NULL
        memset(&self.coming, 0, sizeof(Handle))
        self.generation += 1
        rd_kafka_queue_cb_event_enable(self.retired.queue, wake_for_retired, <void *>self)
        rd_kafka_queue_yield(polled)    # the thread that waits there moves to the new queue

    cdef void purge_retired(self) noexcept nogil:
        """Makes the retired one give up what waits to be sent, or sent again; each is still reported."""
        rd_kafka_purge(self.retired.rk, RD_KAFKA_PURGE_F_QUEUE | RD_KAFKA_PURGE_F_NON_BLOCKING)

    cdef void take_retired(self, Handle *taken) noexcept nogil:
        """Gives the retired one, if there is one, to the caller, who ends it. thread: metadata  lock: sender_lock"""
        taken[0] = self.retired
        memset(&self.retired, 0, sizeof(Handle))
        if taken.rk is not NULL:
            rd_kafka_queue_cb_event_enable(taken.queue, NULL, NULL)

    cdef OpenTopic *open_topic(self, const char *name) noexcept nogil:
        """A topic of the current librdkafka producer, whose life it shares; NULL: no memory. lock: sender_lock"""
        cdef OpenTopic *topic = <OpenTopic *>malloc(sizeof(OpenTopic))
        if topic is NULL:
            return NULL
        topic.rk = self.rk
        topic.topic = rd_kafka_topic_new(self.rk, name, NULL)
        if topic.topic is NULL:
            free(topic)
            return NULL
        topic.next = self.topics
        self.topics = topic
        return topic

    cdef int32_t hand_over(self, OpenTopic *topic, ProducerBatch *batch, int32_t first, int32_t count) noexcept nogil:
        """Gives librdkafka records of a batch from `first` on, up to count of them; returns how many it was given.

        next_rejected() then gives those that librdkafka rejected. thread: any  lock: sender_lock, until the last one

        rd_kafka_produce_batch() is the cheap call, but it stamps records with the time of the call and carries no
        headers. So it takes records that have none, came without a timestamp and were sent at most LATE_MS ago. The
        others go one by one, with the timestamp they have.
        """
        cdef fp_record record
        cdef int64_t now_ms = fp_wall_ms()
        fp_record_read(batch.cursor, &record, batch.base_timestamp)
        self.rejected_slot, self.rejected_from, self.rejected_read, self.rejected_end = batch.slot, first, 0, 0
        if goes_by_batch(&record, now_ms):
            return self.produce_batch(topic, batch, first, min(count, <int32_t>MAX_MESSAGES_PER_CALL), now_ms)
        return self.produce_each(topic, batch, first, count, now_ms)

    cdef int32_t produce_batch(self, OpenTopic *topic, ProducerBatch *batch, int32_t first, int32_t count,
                               int64_t now_ms) noexcept nogil:
        """hand_over() for records that rd_kafka_produce_batch() takes: one call."""
        cdef fp_record record
        cdef const char *at = batch.cursor
        cdef const char *after
        cdef rd_kafka_message_t *message = self.messages
        cdef int64_t base_timestamp = batch.base_timestamp
        cdef uint64_t tag = record_tag(batch.slot, first, 1, batch.count == 1)
        cdef int32_t taken = 0
        while taken < count:
            after = fp_record_read(at, &record, base_timestamp)
            if not goes_by_batch(&record, now_ms):
                break
            at = after
            message.payload = <char *>record.value
            message.len = record.value_len
            message.key = <char *>record.key
            message.key_len = record.key_len
            message._private = <void *><uintptr_t>(tag + <uint64_t>taken)
            message += 1
            taken += 1
        batch.cursor = at
        if rd_kafka_produce_batch(topic.topic, batch.result.partition, 0, self.messages, taken) != taken:
            self.rejected_end = taken
        return taken

    cdef int32_t produce_each(self, OpenTopic *topic, ProducerBatch *batch, int32_t first, int32_t count,
                              int64_t now_ms) noexcept nogil:
        """hand_over() for records that rd_kafka_produceva() must take, up to one that it rejects."""
        cdef fp_record record
        cdef const char *at = batch.cursor
        cdef const char *after
        cdef int32_t taken = 0
        while taken < count and self.rejected_end == 0:
            after = fp_record_read(at, &record, batch.base_timestamp)
            if goes_by_batch(&record, now_ms):
                break
            at = after
            self.rejected_from = first + taken
            self.produce_stamped(topic, batch, first + taken, &record)
            taken += 1
        batch.cursor = at
        return taken

    cdef int next_rejected(self, Report *report) noexcept nogil:
        """Reports the next record that the last hand_over() gave in vain; 0: there are no more."""
        cdef int32_t i
        while self.rejected_read < self.rejected_end:
            i = self.rejected_read
            self.rejected_read += 1
            if self.messages[i].err:
                rejection_report(report, self.rejected_slot, self.rejected_from + i, 1, self.messages[i].err)
                return 1
        return 0

    cdef void reject(self, int code) noexcept nogil:
        """Makes next_rejected() report the record at rejected_from."""
        self.messages[0].err = code
        self.rejected_end = 1

    cdef void produce_stamped(self, OpenTopic *topic, ProducerBatch *batch, int32_t index,
                              const fp_record *record) noexcept nogil:
        cdef rd_kafka_vu_t *arguments = self.arguments
        cdef const char *p = record.headers
        cdef const char *end = p + record.headers_len
        cdef fp_header header
        cdef size_t n = FIXED_ARGUMENTS
        cdef rd_kafka_error_t *error
        fp_vu_topic(&arguments[0], topic.topic)
        fp_vu_partition(&arguments[1], batch.result.partition)
        fp_vu_value(&arguments[2], record.value, record.value_len)
        fp_vu_key(&arguments[3], record.key, record.key_len)
        fp_vu_opaque(&arguments[4], <void *><uintptr_t>record_tag(batch.slot, index, 0, batch.count == 1))
        fp_vu_timestamp(&arguments[5], record.timestamp)
        while p < end:
            if n == self.arguments_size:
                arguments = <rd_kafka_vu_t *>realloc(self.arguments, 2 * n * sizeof(rd_kafka_vu_t))
                if arguments is NULL:
                    self.reject(CRIT_SYS_RESOURCE)
                    return
                self.arguments = arguments
                self.arguments_size = 2 * n
            p = fp_header_read(p, &header)
            fp_vu_header(&arguments[n], header.name, header.value, header.value_len)
            n += 1
        if record.timestamp == 0:          # librdkafka takes 0 for now
            fp_vu_timestamp(&arguments[5], 1)
            self.stamping_zero = 1         # until on_send()
        error = rd_kafka_produceva(topic.rk, arguments, n)
        if error is not NULL:
            self.stamping_zero = 0         # it may not have got as far as that
            self.reject(rd_kafka_error_code(error))
            rd_kafka_error_destroy(error)

    cdef rd_kafka_event_t *next_event(self, int timeout_ms) noexcept nogil:
        """Waits up to timeout_ms for an event; NULL if none came, or after wake().

        thread: sender; any under sender_lock, with timeout_ms 0
        """
        return rd_kafka_queue_poll(self.queue, timeout_ms)

    cdef rd_kafka_event_t *next_of(self, rd_kafka_queue_t *queue, int timeout_ms) noexcept nogil:
        """next_event() of a queue that was read under sender_lock: another may be the current one meanwhile."""
        return rd_kafka_queue_poll(queue, timeout_ms)

    cdef int open_event(self, rd_kafka_event_t *event, DeliveryReports *reports, int retired) noexcept nogil:
        """Begins to serve an event; returns whether next_report() has to read its reports before close_event().

        retired: the event is the retired librdkafka producer's.

        thread: any  lock: sender_lock
        """
        cdef int kind = rd_kafka_event_type(event)
        cdef int level
        cdef const char *facility
        cdef const char *text
        delivery_reports_init(reports, event)
        if kind == RD_KAFKA_EVENT_DR:
            return 1
        if kind == RD_KAFKA_EVENT_ERROR:
            self.errors.record(rd_kafka_event_error(event), rd_kafka_event_error_string(event),
                               rd_kafka_event_error_is_fatal(event))
            reports.failed = 1
        elif kind == RD_KAFKA_EVENT_LOG:
            if rd_kafka_event_log(event, &facility, &text, &level) == 0:
                self.log(level, facility, text, retired)
        return 0

    cdef void close_event(self, DeliveryReports *reports) noexcept nogil:
        """Ends an event. After a failure the leaders may be others."""
        if reports.failed:
            self.update_request.request(EVERYTHING)
        rd_kafka_event_destroy(reports.event)

    cdef void log(self, int level, const char *facility, const char *text, int retired) noexcept nogil:
        """Reads a line of librdkafka's log, and passes it on unless only fastprod has asked for it."""
        if level == DEBUG and is_of_metadata(facility):
            if not retired:
                self.recreated_topics.read_line(text)
            if not self.shows_metadata:
                return
        if level <= self.log_level and strstr(text, b"No `bootstrap.servers` configured") is NULL:
            self.callbacks.log(level, facility, text)    # HandleFactory gives it the servers after the login

    cdef void record_acknowledgement(self, const rd_kafka_message_t *message) noexcept nogil:
        """thread: librdkafka's, of a broker, which holds none of its locks when a record was delivered

        librdkafka also comes with err 0 for records of a refused batch whose errors it has one by one; those are not
        marked as persisted.
        """
        cdef Report report
        if not self.without_acks and rd_kafka_message_status(message) != PERSISTED:
            return
        acknowledgement_report(&report, message)
        if self.without_acks:
            report.offset = -1
        self.acknowledged(self.receiver, &report)

    cdef void wake(self) noexcept nogil:
        """Ends a next_event() that waits, or else the next one. thread: any  lock: none"""
        rd_kafka_queue_yield(self.queue)

    cdef void purge(self, int wait) noexcept nogil:
        """Makes librdkafka give up every record it holds; each is still reported, some time later.

        wait: until that is done, so that nothing handed over later is given up; a thread of librdkafka's may be at a
        DNS query. Else a record that is handed over soon may go with the others.
        """
        cdef int flags = RD_KAFKA_PURGE_F_QUEUE | RD_KAFKA_PURGE_F_INFLIGHT | (
            0 if wait else RD_KAFKA_PURGE_F_NON_BLOCKING)
        rd_kafka_purge(self.rk, flags)
        if self.retired.rk is not NULL:
            rd_kafka_purge(self.retired.rk, flags)

    cdef void purge_after_fatal(self) noexcept nogil:
        """Makes librdkafka give up what it will not send any more, if it met a fatal error.

        It does so itself when it meets one (rd_kafka_set_fatal_error0). But a request that is under way then may fail
        later, and its records come back to a queue that nobody looks at again, until their time is over.
        """
        if fp_atomic_load(&self.errors.fatal_code):
            rd_kafka_purge(self.rk, RD_KAFKA_PURGE_F_QUEUE | RD_KAFKA_PURGE_F_NON_BLOCKING)
            if self.retired.rk is not NULL:
                self.purge_retired()

    cdef void trigger_timeout_scan(self) noexcept nogil:
        """Has librdkafka's threads look for requests that have timed out, if their second is over.

        They look once a second, but not while they sleep, which may be for another one (rd_kafka_broker_serve). They
        wake up to purge, and without one of the other flags there is nothing that they purge.
        """
        rd_kafka_purge(self.rk, RD_KAFKA_PURGE_F_NON_BLOCKING)
        if self.retired.rk is not NULL:
            rd_kafka_purge(self.retired.rk, RD_KAFKA_PURGE_F_NON_BLOCKING)
