from libc.stdint cimport int32_t, int64_t
from fastprod.internals.client_errors cimport ClientErrors
from fastprod.internals.future cimport FutureRecordMetadata
from fastprod.internals.interceptors cimport ProducerInterceptors
from fastprod.internals.producer_metadata cimport ProducerMetadata
from fastprod.internals.producer_state cimport ProducerState
from fastprod.internals.record cimport fp_record
from fastprod.internals.record_accumulator cimport RecordAccumulator
from fastprod.internals.serializers cimport Serializers
from fastprod.internals.sync cimport fp_wall_clock
from fastprod.internals.topic_metadata cimport TopicMetadata

cdef class RecordAppender:
    # fixed at construction
    cdef ProducerState state
    cdef ClientErrors errors
    cdef RecordAccumulator accumulator
    cdef ProducerMetadata metadata
    cdef ProducerInterceptors interceptors   # None: there are none
    cdef Serializers serializers
    cdef object partitioner                  # the user's, or None
    cdef bint no_hooks                       # no interceptors, serializers or user's partitioner
    cdef bint ignore_keys
    cdef size_t largest_record               # bytes: the lesser of max.request.size and buffer.memory
    cdef str size_limit                      # which of them that is
    cdef int64_t max_block_ns
    # guarded by the GIL
    cdef fp_wall_clock clock
    cdef TopicMetadata last_topic            # of the last send(): mostly that of the next one too

    cdef FutureRecordMetadata send_fast_path(self, object topic, object value, object key)
    cdef FutureRecordMetadata send(self, object topic, object value, object key, object partition, object timestamp,
                                   object headers, object on_delivery)
    cdef FutureRecordMetadata send_through(self, object topic, object value, object key, object partition,
                                           object timestamp, object headers, object on_delivery)
    cdef FutureRecordMetadata send_serialized(self, object topic, object value, object key, object partition,
                                              object timestamp, object headers, object on_delivery, object original)
    cdef int send_partitioned(self, TopicMetadata entry, fp_record *record, FutureRecordMetadata future,
                              tuple original, object on_delivery, int epoch, int64_t deadline) except -1
    cdef int32_t ask_partitioner(self, TopicMetadata entry, tuple original, bytes key_bytes, bytes value_bytes,
                                 object cluster) except -1
    cdef int append(self, TopicMetadata entry, int32_t partition, fp_record *record, FutureRecordMetadata future,
                    object on_delivery, int epoch, int64_t deadline, int abort_on_new_batch) except -1
    # for bulk calls too
    cdef int64_t block_deadline(self) noexcept
    cdef TopicMetadata topic_metadata(self, object topic, int64_t deadline)
    cdef int check_sending(self, int epoch) except -1
