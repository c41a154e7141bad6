"""BufferPool: Kafka's BufferPoolTest, fairness, signals, and a ledger."""

import gc
import threading
import time

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from fastprod import BufferExhaustedError, ProducerClosedError
from fastprod_core_access import Buffer, ManualPool
from tests.conftest import Interrupted, eventually, interrupted, signalled

LONG_MS = 20_000  # a wait that ends by something else, or the test has failed


class Request(threading.Thread):
    """A thread that asks the pool for memory; `outcome` is the buffer or the error."""

    def __init__(self, pool, size, max_block_ms=LONG_MS, served=None):
        super().__init__(daemon=True)
        self.pool, self.size, self.max_block_ms, self.served = pool, size, max_block_ms, served
        self.outcome = None
        self.start()

    def run(self):
        try:
            self.outcome = self.pool.allocate_buffer(self.size, self.max_block_ms)
            if self.served is not None:
                self.served.append(self)
        except Exception as error:
            self.outcome = error

    def end(self):
        self.join(20)
        assert not self.is_alive(), "the request was never answered"
        return self.outcome


def waiting(pool):
    """The requests whose threads still run: sooner or later each is in the queue, or over."""
    return [thread for thread in threading.enumerate() if isinstance(thread, Request) and thread.pool is pool]


def queue_up(pool, sizes, **options):
    """Requests that wait in the order of `sizes`."""
    requests = []
    for size in sizes:
        requests.append(Request(pool, size, **options))
        assert eventually(lambda: pool.queued == len(waiting(pool)))
    return requests


# BufferPoolTest.


def test_a_buffer_that_comes_back_is_used_again():
    """testSimple."""
    total, size = 64 * 1024, 1024
    pool = ManualPool(total, size)
    buffer = pool.allocate_buffer(size)
    assert buffer.size == size
    assert pool.unallocated_memory == pool.available_memory == total - size
    address = buffer.address
    buffer.deallocate()
    assert pool.available_memory == total
    assert pool.unallocated_memory == total - size  # the buffer is in the free list
    buffer = pool.allocate_buffer(size)
    assert buffer.address == address
    buffer.deallocate()
    assert (pool.available_memory, pool.unallocated_memory) == (total, total - size)
    odd = pool.allocate_buffer(2 * size)
    assert (pool.available_memory, pool.unallocated_memory) == (total - 2 * size, total - 3 * size)
    odd.deallocate()
    assert (pool.available_memory, pool.unallocated_memory) == (total, total - size)


def test_more_than_there_will_ever_be_is_refused_at_once():
    """testCantAllocateMoreMemoryThanWeHave."""
    pool = ManualPool(1024, 512)
    pool.allocate_buffer(1024).deallocate()
    started = time.monotonic()
    with pytest.raises(BufferExhaustedError, match="1025 bytes asked of a buffer of 1024"):
        pool.allocate_buffer(1025, LONG_MS)
    assert time.monotonic() - started < LONG_MS / 2000
    assert (pool.queued, pool.available_memory) == (0, 1024)


def test_a_request_waits_until_memory_comes_back():
    """testDelayedAllocation."""
    pool = ManualPool(5 * 1024, 1024)
    held = pool.allocate_buffer(1024)
    (request,) = queue_up(pool, [5 * 1024])
    assert request.outcome is None
    held.deallocate()
    assert request.end().size == 5 * 1024
    assert (pool.queued, pool.available_memory) == (0, 0)


def test_a_wait_ends_after_max_block_ms():
    """testBlockTimeout, testCleanupMemoryAvailabilityWaiterOnBlockTimeout."""
    pool = ManualPool(2, 1)
    held = pool.allocate_buffer(1)
    with pytest.raises(BufferExhaustedError, match="max.block.ms"):
        pool.allocate_buffer(2, 10)
    assert (pool.queued, pool.available_memory) == (0, 1)
    assert pool.exhausted == 1
    assert pool.wait_time_ns >= 10_000_000
    held.deallocate()
    assert pool.allocate_buffer(2).size == 2


def test_without_max_block_ms_there_is_no_wait():
    pool = ManualPool(2, 1)
    held = pool.allocate_buffer(2)
    for max_block_ms in (0, -5):
        with pytest.raises(BufferExhaustedError):
            pool.allocate_buffer(1, max_block_ms)
    assert pool.queued == 0
    held.deallocate()


def test_the_error_says_what_is_free():
    pool = ManualPool(1000, 100)
    held = pool.allocate_buffer(900)
    with pytest.raises(BufferExhaustedError, match="100 of 1000 bytes are free") as caught:
        pool.allocate_buffer(200)
    assert "buffer.memory" in str(caught.value)
    assert isinstance(caught.value, TimeoutError)
    held.deallocate()


def test_the_free_list_is_broken_up_for_another_size():
    pool = ManualPool(4096, 1024)
    for buffer in [pool.allocate_buffer(1024) for _ in range(4)]:
        buffer.deallocate()
    assert (pool.available_memory, pool.unallocated_memory) == (4096, 0)
    large = pool.allocate_buffer(2500)
    assert (pool.available_memory, pool.unallocated_memory) == (1596, 572)
    large.deallocate()
    assert pool.available_memory == 4096


def test_a_poolable_request_takes_unallocated_memory_too():
    pool = ManualPool(4096, 1024)
    buffers = [pool.allocate_buffer(1024) for _ in range(4)]
    with pytest.raises(BufferExhaustedError):
        pool.allocate_buffer(1)
    for buffer in buffers:
        buffer.deallocate()


def test_giving_back_twice_counts_once():
    pool = ManualPool(4096, 1024)
    buffer = pool.allocate_buffer(1000)
    buffer.deallocate()
    buffer.deallocate()
    assert pool.available_memory == 4096
    assert buffer.address == 0


def test_a_dropped_buffer_goes_back():
    pool = ManualPool(4096, 1024)
    buffer = pool.allocate_buffer(1024)
    del buffer
    assert pool.available_memory == 4096


def test_a_buffer_in_a_reference_cycle_goes_back():
    pool = ManualPool(4096, 1024)
    cycle = [pool.allocate_buffer(1024)]
    cycle.append(cycle)
    del cycle
    gc.collect()
    assert pool.available_memory == 4096


def test_a_buffer_keeps_its_pool_alive():
    buffer = ManualPool(4096, 1024).allocate_buffer(1024)
    gc.collect()
    buffer.deallocate()
    assert buffer.address == 0


def test_a_buffer_without_memory_is_harmless():
    buffer = Buffer()
    buffer.deallocate()
    assert (buffer.address, buffer.size) == (0, 0)


@pytest.mark.parametrize("size", [-1, 1 << 64, None, "1"])
def test_a_size_that_is_none_is_refused(size):
    pool = ManualPool(4096, 1024)
    with pytest.raises((OverflowError, TypeError)):
        pool.allocate_buffer(size)
    assert pool.available_memory == 4096


# Fairness.


def test_waiters_are_served_in_the_order_of_their_arrival():
    pool = ManualPool(4, 1)
    held = [pool.allocate_buffer(1) for _ in range(4)]
    served = []
    requests = queue_up(pool, [1] * 4, served=served)
    for number, buffer in enumerate(held, 1):
        buffer.deallocate()
        assert eventually(lambda number=number: len(served) == number)
        assert served == requests[:number]
        assert pool.queued == 4 - number


def test_a_small_request_queues_behind_a_large_one():
    pool = ManualPool(4, 1)
    held = [pool.allocate_buffer(1) for _ in range(2)]
    (large,) = queue_up(pool, [4])
    with pytest.raises(BufferExhaustedError, match="2 of 4 bytes are free"):
        pool.allocate_buffer(1)  # a newcomer does not barge
    (small,) = queue_up(pool, [1])
    held[0].deallocate()
    with pytest.raises(BufferExhaustedError, match="3 of 4 bytes are free"):
        pool.allocate_buffer(1)
    assert large.outcome is None
    assert small.outcome is None
    held[1].deallocate()
    whole = large.end()
    assert pool.queued == 1
    whole.deallocate()
    assert small.end().size == 1


def test_one_return_serves_as_many_waiters_as_it_can():
    pool = ManualPool(10, 100)
    held = pool.allocate_buffer(10)
    requests = queue_up(pool, [3, 3, 3, 3])
    held.deallocate()
    buffers = [request.end() for request in requests[:3]]
    assert (pool.queued, pool.available_memory) == (1, 1)
    buffers[0].deallocate()
    assert requests[3].end().size == 3


def test_memory_that_cannot_serve_the_first_waiter_serves_nobody():
    pool = ManualPool(10, 100)
    held = [pool.allocate_buffer(5), pool.allocate_buffer(5)]
    first, second = queue_up(pool, [8, 1])
    held[0].deallocate()
    assert (pool.queued, pool.available_memory) == (2, 5)
    held[1].deallocate()
    assert (first.end().size, second.end().size) == (8, 1)


def test_a_waiter_that_gives_up_lets_the_next_one_through():
    pool = ManualPool(4, 1)
    held = pool.allocate_buffer(3)
    (large,) = queue_up(pool, [4], max_block_ms=100)
    (small,) = queue_up(pool, [1])
    assert isinstance(large.end(), BufferExhaustedError)
    assert small.end().size == 1  # nothing was given back meanwhile
    assert pool.queued == 0
    held.deallocate()


def test_a_waiter_in_the_middle_can_give_up():
    pool = ManualPool(4, 1)
    held = pool.allocate_buffer(4)
    (first,) = queue_up(pool, [2])
    (middle,) = queue_up(pool, [2], max_block_ms=50)
    (last,) = queue_up(pool, [2])
    assert isinstance(middle.end(), BufferExhaustedError)
    assert pool.queued == 2
    held.deallocate()
    assert (first.end().size, last.end().size) == (2, 2)


def test_the_last_waiter_can_give_up_and_another_can_come():
    pool = ManualPool(4, 1)
    held = pool.allocate_buffer(4)
    (first,) = queue_up(pool, [2])
    (last,) = queue_up(pool, [2], max_block_ms=50)
    assert isinstance(last.end(), BufferExhaustedError)
    (newcomer,) = queue_up(pool, [2])
    held.deallocate()
    assert (first.end().size, newcomer.end().size) == (2, 2)


def test_a_pooled_buffer_is_handed_to_the_waiter():
    pool = ManualPool(1024, 1024)
    held = pool.allocate_buffer(1024)
    address = held.address
    (request,) = queue_up(pool, [1024])
    held.deallocate()
    assert request.end().address == address


# Closing.


def test_closing_wakes_every_waiter():
    pool = ManualPool(4, 1)
    held = pool.allocate_buffer(4)
    requests = queue_up(pool, [1, 4, 1])
    pool.close()
    for request in requests:
        assert isinstance(request.end(), ProducerClosedError)
    assert pool.queued == 0
    held.deallocate()
    assert pool.available_memory == 4


def test_a_closed_pool_gives_nothing_but_takes_back():
    pool = ManualPool(4, 1)
    held = pool.allocate_buffer(1)
    pool.close()
    pool.close()
    for size in (1, 2):
        with pytest.raises(ProducerClosedError):
            pool.allocate_buffer(size, LONG_MS)
    held.deallocate()
    assert (pool.available_memory, pool.queued) == (4, 0)


def test_a_closed_pool_keeps_no_free_buffers():
    pool = ManualPool(4, 1)
    free, held = pool.allocate_buffer(1), pool.allocate_buffer(1)
    free.deallocate()
    assert (pool.available_memory, pool.unallocated_memory) == (3, 2)
    pool.close()
    assert pool.unallocated_memory == 3
    held.deallocate()
    assert pool.unallocated_memory == 4


# Signals.


def test_a_signal_interrupts_the_wait():
    pool = ManualPool(4, 1)
    held = pool.allocate_buffer(3)
    with interrupted(0.02):
        pool.allocate_buffer(2, LONG_MS)
    assert (pool.queued, pool.available_memory) == (0, 1)
    held.deallocate()
    assert pool.available_memory == 4


@pytest.mark.parametrize("size", [1024, 1000], ids=["poolable", "odd"])
def test_a_grant_that_meets_an_exception_is_refunded(size):
    """The handler makes the grant itself and then raises: both have happened before the waiter looks."""

    def handler():
        held.deallocate()
        assert pool.queued == 0
        assert pool.available_memory == 1024 - size
        raise Interrupted

    pool = ManualPool(1024, 1024)
    held = pool.allocate_buffer(size)
    with signalled(handler, 0.02), pytest.raises(Interrupted):
        pool.allocate_buffer(size, LONG_MS)
    assert (pool.queued, pool.available_memory) == (0, 1024)
    assert pool.allocate_buffer(1024).size == 1024


def test_an_interrupted_waiter_lets_the_next_one_through():
    def handler():
        requests.append(Request(pool, 1))
        assert eventually(lambda: pool.queued == 2)  # it and the main thread
        raise Interrupted

    requests = []
    pool = ManualPool(4, 1)
    held = pool.allocate_buffer(3)
    with signalled(handler, 0.02), pytest.raises(Interrupted):
        pool.allocate_buffer(2, LONG_MS)
    assert requests[0].end().size == 1
    held.deallocate()


def test_a_handler_that_does_not_raise_leaves_the_wait_alone():
    def handler():
        held.deallocate()

    pool = ManualPool(4, 1)
    held = pool.allocate_buffer(3)
    with signalled(handler, 0.02):
        assert pool.allocate_buffer(2, LONG_MS).size == 2


# Sizes beyond 32 bits.


def test_a_limit_beyond_4_gib():
    total = 1 << 40
    pool = ManualPool(total, 1 << 33)
    assert (pool.total_memory, pool.poolable_size) == (total, 1 << 33)
    buffer = pool.allocate_buffer(1024)
    assert pool.available_memory == pool.unallocated_memory == total - 1024
    with pytest.raises(BufferExhaustedError, match=f"{total + 1} bytes asked of a buffer of {total}"):
        pool.allocate_buffer(total + 1)
    with pytest.raises(BufferExhaustedError):
        pool.allocate_buffer(total - 1023)
    buffer.deallocate()
    assert pool.available_memory == total


def test_a_free_list_beyond_4_gib():
    """Java's freeListSize overflows beyond 2 GiB. The memory is never touched."""
    size, count = 1 << 29, 9
    pool = ManualPool(count * size, size)
    try:
        buffers = [pool.allocate_buffer(size) for _ in range(count)]
    except MemoryError:
        pytest.skip("this machine does not hand out memory that it may not have")
    assert pool.available_memory == 0
    for number, buffer in enumerate(buffers, 1):
        buffer.deallocate()
        assert pool.available_memory == number * size
    assert pool.unallocated_memory == 0


def test_memory_that_the_machine_does_not_have():
    pool = ManualPool((1 << 63) - 1, 1024)
    with pytest.raises(MemoryError):
        pool.allocate_buffer(1 << 62)
    assert (pool.available_memory, pool.queued) == ((1 << 63) - 1, 0)


# Callbacks.


def test_memory_of_callbacks_is_not_handed_out():
    pool = ManualPool(1000, 100)
    assert pool.reserve(600) and not pool.reserve(401)
    assert (pool.available_memory, pool.callback_memory) == (400, 600)
    with pytest.raises(BufferExhaustedError, match="Callbacks that have not run take 600: .* slower than send"):
        pool.allocate_buffer(401)
    (request,) = queue_up(pool, [500])
    assert not pool.reserve(100)  # it would overtake
    pool.unreserve(600)
    assert request.end().size == 500
    assert (pool.available_memory, pool.callback_memory) == (500, 0)


def test_callbacks_take_what_lies_in_the_free_list():
    pool = ManualPool(1000, 100)
    buffers = [pool.allocate_buffer(100) for _ in range(10)]
    for buffer in buffers:
        buffer.deallocate()
    assert (pool.unallocated_memory, pool.available_memory) == (0, 1000)
    assert pool.reserve(250)
    assert (pool.unallocated_memory, pool.available_memory) == (50, 750)


def test_a_forced_reservation_exceeds_the_memory_and_requests_wait_until_it_fits_again():
    pool = ManualPool(1000, 100)
    held = pool.allocate_buffer(100)
    pool.allocate_buffer(100).deallocate()
    assert pool.reserve(1500, forced=True)
    assert (pool.unallocated_memory, pool.available_memory, pool.callback_memory) == (-600, 0, 1500)
    (request,) = queue_up(pool, [50])
    held.deallocate()
    assert pool.unallocated_memory == -500  # and not in the free list
    pool.unreserve(500)
    assert (pool.unallocated_memory, pool.queued) == (0, 1)
    pool.unreserve(1000)
    assert request.end().size == 50
    assert (pool.unallocated_memory, pool.callback_memory) == (950, 0)


def test_a_closed_pool_reserves_only_what_is_forced():
    pool = ManualPool(1000, 100)
    pool.close()
    assert not pool.reserve(1) and pool.reserve(10, forced=True)
    pool.unreserve(10)
    assert pool.available_memory == 1000


# All at once.


def test_nothing_is_lost_under_stress(rng):
    """testStressfulSituation: threads that hold one buffer at a time, so that each is served in the end."""
    total, poolable = 8 * 1024, 1024
    pool = ManualPool(total, poolable)
    failures = []

    def work(random):
        try:
            for _ in range(400):
                size = poolable if random.random() < 0.5 else random.randrange(total)
                max_block_ms = random.choice([0, 0.1, LONG_MS, LONG_MS])
                try:
                    buffer = pool.allocate_buffer(size, max_block_ms)
                except BufferExhaustedError:
                    assert max_block_ms < LONG_MS
                    continue
                if random.random() < 0.5:
                    time.sleep(0)  # lets the others in while this one holds memory
                buffer.deallocate()
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(type(rng)(rng.randrange(1 << 32)),)) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not failures
    assert (pool.available_memory, pool.queued) == (total, 0)


class Ledger(RuleBasedStateMachine):
    """The pool against three numbers: what is handed out, what callbacks take, and how long the free list is."""

    buffers = Bundle("buffers")

    def __init__(self):
        super().__init__()
        self.pool = ManualPool(10_000, 1000)
        self.held = 0  # the callbacks' included
        self.callbacks = 0
        self.free = []  # addresses, the one that goes out next last

    @rule(target=buffers, size=st.one_of(st.just(1000), st.integers(0, 11_000)))
    def allocate(self, size):
        if size > 10_000 - self.held:
            with pytest.raises(BufferExhaustedError):
                self.pool.allocate_buffer(size)
            return None
        buffer = self.pool.allocate_buffer(size)
        if size == 1000 and self.free:
            assert buffer.address == self.free.pop()
        else:
            self.make_room(size)
        self.held += size
        return buffer

    def make_room(self, size):
        while self.free and self.held + 1000 * len(self.free) + size > 10_000:
            self.free.pop()

    @rule(size=st.integers(0, 11_000), forced=st.booleans())
    def reserve(self, size, forced):
        assert self.pool.reserve(size, forced) == (forced or size <= 10_000 - self.held)
        if forced or size <= 10_000 - self.held:
            self.make_room(size)
            self.held += size
            self.callbacks += size

    @rule(part=st.floats(0, 1))
    def unreserve(self, part):
        size = int(self.callbacks * part)
        self.pool.unreserve(size)
        self.held -= size
        self.callbacks -= size

    @rule(buffer=consumes(buffers))
    def deallocate(self, buffer):
        if buffer is not None:
            if buffer.size == 1000 and self.held <= 10_000:
                self.free.append(buffer.address)
            self.held -= buffer.size
            buffer.deallocate()

    @invariant()
    def the_books_agree(self):
        assert self.pool.available_memory == max(0, 10_000 - self.held)
        assert self.pool.callback_memory == self.callbacks
        assert self.pool.unallocated_memory == 10_000 - self.held - 1000 * len(self.free)
        assert self.pool.queued == 0


TestLedger = Ledger.TestCase
TestLedger.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)
