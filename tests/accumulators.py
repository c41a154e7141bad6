"""An accumulator with one topic, driven by hand: what the tests of its parts share."""

from fastprod_core_access import ManualAccumulator, ManualPool


class Topic:
    """An accumulator with one topic, t, whose batches are settled by hand."""

    def __init__(self, leaders=(0,), *, memory=1 << 26, batch_size=1024, **options):
        self.pool = ManualPool(memory, batch_size)
        self.accumulator = ManualAccumulator(self.pool, batch_size=batch_size, **options)
        self.set_leaders(*leaders)

    def set_leaders(self, *leaders):
        self.accumulator.set_topic("t", leaders)

    def put(self, value=b"v", partition=0, **options):
        return self.accumulator.put("t", value, partition=partition, **options)

    def drain(self, now_ms=1, **options):
        return self.accumulator.drain_batches(now_ms, **options)

    def run(self, now_ms):
        """What the sender hands over before it sleeps."""
        batches = self.drain(now_ms)
        while True:
            self.next_wakeup_ms(now_ms)  # it looks once more before it sleeps
            more = self.drain(now_ms)
            if not more:
                return batches
            batches += more

    def expire(self, now_ms):
        return self.accumulator.expire_batches(now_ms)

    def next_wakeup_ms(self, now_ms=1, **options):
        return self.accumulator.next_wakeup_ms(now_ms, **options)

    @property
    def queued(self):
        return self.accumulator.queue_lengths("t")

    @property
    def used(self):
        return self.pool.total_memory - self.pool.available_memory


def values(batches):
    return [value for batch in batches for _, value, _, _ in batch.records]


def partitions(batches):
    return [batch.partition for batch in batches]


def settle(batches):
    for batch in batches:
        batch.settle()
