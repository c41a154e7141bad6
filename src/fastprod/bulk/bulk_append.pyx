"""BulkAppend: takes the records of one call to the accumulator, a chunk at a time.

The loop that appends runs without the GIL and without Python objects: a record costs the copy into its arena.
"""

from cpython.exc cimport PyErr_CheckSignals
from libc.stdint cimport int32_t, int64_t
from libc.stdlib cimport free, malloc
from fastprod.internals.open_batches cimport CallbackSlot, Placed, RecordAppendResult
from fastprod.internals.topic_metadata cimport TopicMetadata
from fastprod.internals.partitioner cimport key_partitions
from fastprod.internals.record cimport fp_record
from fastprod.internals.record_appender cimport RecordAppender
from fastprod.internals.sync cimport fp_atomic_load

from fastprod.errors import KafkaError
from fastprod.internals.error_codes import set_place

# Entering a Python function lets signal handlers run, and threads that have waited for the GIL for
# sys.getswitchinterval(). Serializers written in C never enter one. Releasing the GIL for a moment is no substitute: it
# would restart the wait of those threads each time.
cdef object python_function = eval("lambda: None")


cdef int give_way() except -1:
    """Lets signal handlers and other threads run, after a chunk of records that went through hooks."""
    python_function()
    return 0


cdef class BulkAppend:
    """Appends the records of one call, a chunk at a time. Its subclasses fill the arrays.

    Owns the arrays of a chunk. Used by one thread.
    """

    def __cinit__(self, BulkFuture future, RecordAppender appender, topic, TopicMetadata entry, int epoch):
        self.future = future
        self.appender = appender
        self.accumulator = appender.accumulator
        self.metadata = appender.metadata
        self.topic = topic
        self.entry = entry
        self.epoch = epoch
        self.max_block_ns = appender.max_block_ns
        self.largest_record = appender.largest_record
        self.size_limit = appender.size_limit
        self.ignore_keys = appender.ignore_keys
        self.records = <fp_record *>malloc(CHUNK * sizeof(fp_record))
        self.partitions = <int32_t *>malloc(CHUNK * sizeof(int32_t))
        self.placed = <Placed *>malloc(CHUNK * sizeof(Placed))
        if self.records is NULL or self.partitions is NULL or self.placed is NULL:
            raise MemoryError()

    def __dealloc__(self):
        free(self.records)
        free(self.partitions)
        free(self.placed)

    cdef int append_all(self) except -1:
        """Appends the records of the call, chunk by chunk."""
        while True:
            self.appender.check_sending(self.epoch)
            if not self.append_next():
                return 0

    cdef bint append_next(self) except -1:
        """Appends the next records. Returns False if none was left. Each subclass has its own."""
        raise NotImplementedError

    cdef int send_through(self, object value, object key, object partition, object timestamp, object headers) except -1:
        """Sends one record through the user's hooks."""
        self.appender.check_sending(self.epoch)
        self.future.add(self.appender.send_through(self.topic, value, key, partition, timestamp, headers, None))
        return 0

    cdef int append(self, Py_ssize_t count, bint wait) except -1:
        """Appends the chunk's first `count` records; without `wait`, those that need not wait for memory.

        Raises KeyboardInterrupt after Ctrl-C.
        """
        cdef Py_ssize_t done
        with nogil:
            self.place_keys(count)
            done = self.append_ready(0, count)
        return self.append_rest(done, count) if wait else 0

    cdef void place_keys(self, Py_ssize_t count) noexcept nogil:
        """Chooses the partition of each record that has a key and no partition."""
        cdef const unsigned char *keys[CHUNK]
        cdef unsigned int sizes[CHUNK]
        cdef unsigned int found[CHUNK]
        cdef int32_t places[CHUNK]
        cdef Py_ssize_t i, number = 0
        if self.ignore_keys:
            return
        for i in range(count):
            if self.partitions[i] < 0 and self.records[i].key is not NULL:
                keys[number] = <const unsigned char *>self.records[i].key
                sizes[number] = <unsigned int>self.records[i].key_len
                places[number] = <int32_t>i
                number += 1
        if number == 0:
            return
        key_partitions(keys, sizes, found, number, fp_atomic_load(<const int *>&self.entry.partitions))
        for i in range(number):
            self.partitions[places[i]] = <int32_t>found[i]

    cdef Py_ssize_t append_ready(self, Py_ssize_t first, Py_ssize_t count) noexcept nogil:
        """Appends records from `first` on. Returns the index of the first one that has to wait or fails, or count."""
        cdef Py_ssize_t runs, i
        cdef int64_t size = 0
        cdef Py_ssize_t end = first + self.accumulator.append_many(
            self.entry.topic, self.records + first, self.partitions + first, count - first, self.epoch,
            self.placed, &runs)
        for i in range(runs):
            if not self.future.place(&self.placed[i]):
                self.unrecorded = 1
        for i in range(first, end):
            size += self.records[i].key_len + self.records[i].value_len
        self.future.size += size
        return end

    cdef int append_rest(self, Py_ssize_t first, Py_ssize_t count) except -1:
        """Appends records from `first` on. Waits for memory if it has to."""
        while True:
            if first < count and not self.unrecorded:
                self.append_one(first)
                first += 1
            if self.unrecorded:
                raise MemoryError("no memory for a BulkFuture")
            PyErr_CheckSignals()
            if first == count:
                return 0
            with nogil:
                first = self.append_ready(first, count)

    cdef int append_one(self, Py_ssize_t i) except -1:
        """Appends a record that has to wait for memory. Raises the error for which append_many() has stopped."""
        cdef CallbackSlot callback
        cdef RecordAppendResult appended
        cdef Placed placed
        callback.function = NULL
        try:
            self.accumulator.append(self.entry.topic, self.partitions[i], &self.records[i], self.epoch, 0, 0,
                                    &callback, 0, &appended)
        except KafkaError as error:
            set_place(error, self.entry.name, self.partitions[i])
            raise
        placed.result = appended.result
        placed.index = appended.index
        placed.partition = appended.partition
        placed.count = 1
        if not self.future.place(&placed):
            self.unrecorded = 1
        self.future.size += self.records[i].key_len + self.records[i].value_len
        return 0
