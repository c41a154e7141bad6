# Error codes that the core acts on: rd_kafka_resp_err_t without its prefix. The negative ones are librdkafka's own.
cdef enum:
    BAD_MSG = -199
    DESTROYED = -197               # RD_KAFKA_RESP_ERR__DESTROY
    CRIT_SYS_RESOURCE = -194       # no memory
    MSG_TIMED_OUT = -192
    UNKNOWN_PARTITION = -190
    TIMED_OUT = -185
    UNDERFLOW = -155
    PURGE_QUEUE = -152
    PURGE_INFLIGHT = -151
    FATAL = -150
    UNKNOWN_SERVER_ERROR = -1
    UNKNOWN_TOPIC_OR_PART = 3
    LEADER_NOT_AVAILABLE = 5
    MSG_SIZE_TOO_LARGE = 10
    TOPIC_AUTHORIZATION_FAILED = 29
    KAFKA_STORAGE_ERROR = 56
