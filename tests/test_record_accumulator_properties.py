"""RecordAccumulator against a model: whatever happens, in whatever order, nothing is lost, stuck or out of order."""

from collections import Counter, defaultdict, deque

from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from fastprod import BufferExhaustedError, partition_for_key
from fastprod.internals.buffer_pool import BufferPool
from fastprod_core_access import PHASES, ManualAccumulator

BATCH_SIZE = 2000
DELIVERY_TIMEOUT_MS = 200
GRACE_MS = 50
MAX_PARTITIONS = 8
LATE_MS = 1 << 40  # after whatever the monotonic clock says

BROKERS = st.integers(-1, 2)
SIZES = st.one_of(st.integers(0, 100), st.integers(100, 2500), st.sampled_from([900, 1000, 1930, 1939, 1940]))


@given(
    chunks=st.lists(
        st.tuples(
            st.lists(st.tuples(st.integers(0, 700), st.sampled_from([-1, -1, -1, 0, 1])), max_size=20), st.booleans()
        )
    ),
    partitioner=st.sampled_from(["uniform_sticky", "uniform_sticky", "sticky", "round_robin"]),
    availability_timeout_ms=st.sampled_from([0, 1000]),
    seed=st.integers(0, 1 << 32),
)
@example(  # batches that are drained before they are full hold the switch back, to twice batch.size at most
    chunks=[([(500, -1), (500, -1)], True)] * 3 + [([(100, -1)] * 15, False)],
    partitioner="uniform_sticky",
    availability_timeout_ms=0,
    seed=0,
)
def test_many_records_go_where_they_would_have_gone_one_by_one(chunks, partitioner, availability_timeout_ms, seed):
    """A chunk is the size and the partition of each record, and whether the batches are drained after it."""
    one_by_one, together = (
        ManualAccumulator(
            BufferPool(1 << 24, BATCH_SIZE),
            batch_size=BATCH_SIZE,
            partitioner=partitioner,
            availability_timeout_ms=availability_timeout_ms,
            seed=seed,
        )
        for _ in range(2)
    )
    for accumulator in (one_by_one, together):
        accumulator.set_topic("t", [0, 0, 0])
    drained = []
    for records, drain in chunks:
        values, partitions = [bytes(size) for size, _ in records], [partition for _, partition in records]
        placed = [one_by_one.put("t", value, partition=p) for value, p in zip(values, partitions, strict=True)]
        assert together.put_many("t", values, partitions) == placed
        assert together.queue_lengths("t") == one_by_one.queue_lengths("t")
        assert together.unsettled_records == one_by_one.unsettled_records
        if drain:
            batches = [accumulator.drain_batches(now_ms=LATE_MS) for accumulator in (one_by_one, together)]
            drained += sum(batches, [])
            old, new = ([(batch.partition, batch.records, batch.wire_size) for batch in found] for found in batches)
            assert new == old
    for batch in drained:
        batch.settle()


class AccumulatorMachine(RuleBasedStateMachine):
    """The model knows, per partition, the records that are in the queue, oldest first, and when each came.

    Where a batch ends is the accumulator's affair; but what leaves a queue, drained or expired, must be its oldest
    records. The records are small beside the window, so only max_in_flight bounds what a leader is given.
    """

    @initialize(
        linger_ms=st.sampled_from([0, 10]),
        max_in_flight=st.integers(1, 3),
        partitioner=st.sampled_from(["uniform_sticky", "sticky", "timed_sticky", "round_robin", "random"]),
        adaptive=st.booleans(),
        memory=st.sampled_from([8_000, 100_000]),
        leaders=st.lists(BROKERS, min_size=1, max_size=4),
        seed=st.integers(0, 1 << 32),
        first_phase=st.sampled_from(["STEADY", "STEADY", "FIRST_RECORD"]),
    )
    def begin(self, linger_ms, max_in_flight, partitioner, adaptive, memory, leaders, seed, first_phase):
        self.linger_ms = linger_ms
        # partition -> bytes that may be in transit
        self.allowed = defaultdict(lambda: int(first_phase == "FIRST_RECORD"))
        self.pool = BufferPool(memory, BATCH_SIZE)
        self.accumulator = ManualAccumulator(
            self.pool,
            batch_size=BATCH_SIZE,
            linger_ms=linger_ms,
            delivery_timeout_ms=DELIVERY_TIMEOUT_MS,
            transit_grace_ms=GRACE_MS,
            partitioner=partitioner,
            adaptive=adaptive,
            max_in_flight=max_in_flight,
            seed=seed,
            first_phase=PHASES[first_phase],
        )
        self.leaders = leaders  # of all partitions that there ever were
        self.count = len(leaders)  # of those that there are
        self.accumulator.set_topic("t", leaders)
        self.now = 1
        self.records = 0
        self.queues = defaultdict(deque)  # partition -> (number, came at)
        self.outstanding = []  # (batch, leader, the numbers of its records, when its first record came)
        self.unsettled = Counter()  # record numbers, each once

    def numbers(self, batch):
        """The numbers of a batch's records, which it has left the queue with."""
        found = []
        for key, value, headers, timestamp in batch.records:
            assert headers == []
            assert value is None or set(value) <= {timestamp % 256}
            assert key is None or partition_for_key(key, 10**6) == timestamp % 997
            found.append(timestamp)
        return found

    # What may happen.

    @rule(
        size=st.one_of(st.none(), SIZES),
        key=st.one_of(st.none(), st.binary(max_size=20)),
        choice=st.one_of(st.none(), st.integers(0, MAX_PARTITIONS - 1)),
        abort=st.sampled_from([False, False, False, True]),
        burst=st.integers(1, 12),
    )
    def put(self, size, key, choice, abort, burst):
        count = self.count
        if key is not None:
            chosen = partition_for_key(key, count)
        elif choice is not None:
            chosen = choice % count
        else:
            chosen = -1
        for _ in range(burst):
            self.put_one(size, chosen, abort)

    @rule(choices=st.sets(st.integers(0, MAX_PARTITIONS - 1), min_size=1))
    def touch(self, choices):
        """Batches that are far from full, which wait for each other."""
        for choice in choices:
            self.put_one(5, choice % self.count, False)

    def put_one(self, size, chosen, abort):
        """A record's timestamp is its number."""
        number = self.records
        value = None if size is None else bytes([number % 256]) * size
        try:
            place = self.accumulator.put(
                "t", value, partition=chosen, timestamp=number, now_ms=self.now, abort_on_new_batch=abort
            )
        except BufferExhaustedError:  # with abort too: an open batch waits for memory to grow
            return
        if place is None:
            assert abort
            return
        partition, _ = place
        assert chosen in (-1, partition)
        assert 0 <= partition < self.count
        self.queues[partition].append((number, self.now))
        self.unsettled[number] += 1
        self.records += 1

    @rule(ms=st.sampled_from([1, 5, 9, 10, 11, 60, 100, 190, 200, 250]))
    def clock(self, ms):
        self.now += ms

    @rule(limit=st.sampled_from([1, 3000]))
    def drain(self, limit):
        batches = self.accumulator.drain_batches(self.now, limit=limit)
        for batch in batches:
            assert batch.in_transit
            came = self.leave_queue(batch)
            if self.allowed[batch.partition] == 1:
                assert batch.partition not in {other.partition for other, *_ in self.outstanding}
            self.outstanding.append((batch, self.leaders[batch.partition], self.numbers(batch), came))

    @rule()
    def run(self):
        """What the sender hands over before it sleeps."""
        before = -1
        while before < len(self.outstanding):
            before = len(self.outstanding)
            self.drain(1 << 40)
            self.accumulator.next_wakeup_ms(self.now)  # it looks once more before it sleeps
            self.drain(1 << 40)
        self.nothing_is_stuck()

    def leave_queue(self, batch):
        """Its records are the oldest of its partition. Returns when the first of them came."""
        queue = self.queues[batch.partition]
        oldest = [queue.popleft() for _ in batch.records]
        assert [number for number, _ in oldest] == self.numbers(batch)
        return oldest[0][1]

    def nothing_is_stuck(self):
        """What still waits is one batch that lingers, or its leader has another, whose report will set it off."""
        travelling = {leader for _, leader, _, _ in self.outstanding}
        awaited = self.awaited()
        for partition, queue in self.queues.items():
            if partition in awaited:
                continue
            assert self.accumulator.queue_lengths("t")[partition] <= 1
            if queue and self.now - queue[0][1] >= self.linger_ms:
                assert self.leaders[partition] in travelling

    def awaited(self):
        """Partitions of which no more may go before what is on its way has settled."""
        return {batch.partition for batch, *_ in self.outstanding if self.allowed[batch.partition]}

    @precondition(lambda self: self.outstanding)
    @rule(which=st.lists(st.integers(0, 50), min_size=1, max_size=5))
    def settle(self, which):
        for index in which:
            if self.outstanding:
                batch, _, numbers, _ = self.outstanding.pop(index % len(self.outstanding))
                self.settle_one(batch, numbers)

    def settle_one(self, batch, numbers):
        assert self.numbers(batch) == numbers  # the arena was left alone meanwhile
        batch.settle()
        self.unsettled.subtract(numbers)

    @rule()
    def expire(self):
        expired = self.accumulator.expire_batches(self.now)
        travelling = {tuple(numbers) for _, _, numbers, came in self.outstanding if self.too_old(came, GRACE_MS)}
        for batch in expired:
            if batch.in_transit:
                travelling.remove(tuple(self.numbers(batch)))
            else:
                assert self.too_old(self.leave_queue(batch))
                self.settle_one(batch, self.numbers(batch))
        assert not travelling
        for queue in self.queues.values():
            assert not queue or not self.too_old(queue[0][1])

    def too_old(self, came, grace=0):
        return self.now - came >= DELIVERY_TIMEOUT_MS + grace

    @rule(choice=st.integers(0, MAX_PARTITIONS - 1), request_limit=st.sampled_from([0, 1, 1 << 20]))
    def limit_requests(self, choice, request_limit):
        partition = choice % len(self.leaders)
        self.allowed[partition] = request_limit
        self.accumulator.limit_requests("t", partition, request_limit)

    @rule(leaders=st.lists(BROKERS, min_size=1, max_size=MAX_PARTITIONS))
    def change_leaders(self, leaders):
        """Partitions may be added, and be gone."""
        self.leaders = leaders + [-1] * (len(self.leaders) - len(leaders))
        self.count = len(leaders)
        self.accumulator.set_topic("t", leaders)

    @rule()
    def sleep(self):
        """The sender must not sleep longer than until something is to be done."""
        until = self.accumulator.next_wakeup_ms(self.now)
        came = [queue[0][1] for queue in self.queues.values() if queue]
        awaited = self.awaited()
        lingering = [
            queue[0][1] + self.linger_ms
            for partition, queue in self.queues.items()
            if queue and partition not in awaited and self.now - queue[0][1] < self.linger_ms
        ]
        if lingering:
            assert until is not None
            assert until <= min(lingering)
        if came or self.outstanding:
            assert until is not None

    # What holds at any time.

    @invariant()
    def the_books_agree(self):
        if not hasattr(self, "pool"):
            return
        lengths = self.accumulator.queue_lengths("t")
        for partition, length in enumerate(lengths):
            queue = self.queues[partition]
            assert bool(length) == bool(queue)
            assert length <= len(queue)
        assert self.accumulator.unsettled_records == sum(self.unsettled.values())
        assert all(count in (0, 1) for count in self.unsettled.values())
        used = self.pool.total_memory - self.pool.available_memory
        assert bool(used) == bool(sum(lengths) + len(self.outstanding))
        assert self.pool.queued == 0

    def teardown(self):
        """After enough time and enough reports everything has gone."""
        if not hasattr(self, "pool"):
            return
        while self.outstanding or any(self.queues.values()):
            self.now += self.linger_ms
            self.run()
            assert self.outstanding, "batches are stuck"
            for batch, _, numbers, _ in self.outstanding:
                self.settle_one(batch, numbers)
            self.outstanding.clear()
        assert sum(self.accumulator.queue_lengths("t")) == 0
        assert self.accumulator.unsettled_records == 0
        assert self.pool.available_memory == self.pool.total_memory
        self.run()
        assert not self.outstanding
        assert self.accumulator.next_wakeup_ms(self.now) is None


TestAccumulator = AccumulatorMachine.TestCase
TestAccumulator.settings = settings(
    max_examples=250,
    stateful_step_count=50,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
