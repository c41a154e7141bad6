"""TopicMetadata: what is known of a topic."""


cdef class TopicMetadata:
    """A topic's partitions and leaders, as last heard.

    The metadata thread writes it, with the GIL; partitions_of() writes used_ns. Any thread with the GIL reads it.
    """

    @property
    def leaderless(self):
        return -1 in self.leaders
