"""TopicMetadata: what is known of a topic."""


cdef class TopicMetadata:
    """A topic's partitions and leaders, as last heard. Written by the metadata thread, read by anyone with the GIL."""

    @property
    def leaderless(self):
        return -1 in self.leaders
