"""Completion: the order in which batches end, what is certain of failed records, and the batches in transit."""

import pytest

from tests.senders import NOBODY, Parts

FORBIDDEN, UNKNOWN_SERVER_ERROR, STORAGE_ERROR = 29, -1, 56
TIMED_OUT, PURGED_QUEUE, PURGED_IN_FLIGHT = -192, -152, -151
RETRY_US = 80_000
SMALL = {"log_level": "0", "message.max.bytes": "1000"}


def test_a_batch_that_fails_at_once_completes_after_the_older_ones_of_its_partition():
    with Parts(NOBODY, "t", properties=SMALL) as parts:
        parts.submit(b"in transit")
        parts.submit(bytes(2000))
        assert parts.sender.failed == 1
        assert parts.accumulator.unsettled_records == 2
        parts.transport.do_purge()
        assert parts.step_until(lambda: parts.sender.failed == 2)
        assert parts.accumulator.unsettled_records == 0


def test_a_batch_does_not_wait_for_those_of_other_partitions():
    with Parts(NOBODY, "t", (1, 1), properties=SMALL) as parts:
        parts.submit(b"in transit")
        parts.submit(bytes(2000), partition=1)
        assert (parts.sender.failed, parts.accumulator.unsettled_records) == (1, 1)


@pytest.mark.parametrize(
    ("code", "said", "requests", "latency_us", "certain"),
    [
        (TIMED_OUT, "no", 0, -1, "no"),  # nothing was sent
        (TIMED_OUT, "no", 1, -1, "possibly"),
        (PURGED_QUEUE, "no", 0, -1, "no"),
        (PURGED_QUEUE, "no", 1, -1, "possibly"),
        (PURGED_IN_FLIGHT, "possibly", 1, -1, "possibly"),
        (FORBIDDEN, "no", 1, RETRY_US, "no"),  # the answer to the only request
        (FORBIDDEN, "no", 2, RETRY_US - 1, "no"),  # too early for the answer to a repetition
        (FORBIDDEN, "no", 2, RETRY_US, "possibly"),
        (UNKNOWN_SERVER_ERROR, "no", 1, 0, "possibly"),
        (STORAGE_ERROR, "no", 1, 0, "possibly"),
        (0, "yes", 2, RETRY_US, "yes"),
    ],
)
def test_a_failed_record_is_not_in_the_log_only_where_that_is_certain(code, said, requests, latency_us, certain):
    with Parts(NOBODY, "t", properties=SMALL, retry_us=RETRY_US) as parts:
        assert parts.sender.persisted(code, said, requests=requests, latency_us=latency_us) == certain


def test_slow_topics_have_a_record_in_librdkafka_that_is_old():
    with Parts(NOBODY, "slow", properties=SMALL) as parts:
        for topic in ("new", "refused"):
            parts.accumulator.set_topic(topic, [1])
        parts.put(b"v", seconds_ago=10)
        parts.put(bytes(2000), topic="refused", seconds_ago=10)
        parts.put(b"v", topic="new")
        assert parts.sender.topics_older_than(5) == []  # librdkafka has none of them yet
        parts.sender.do_step()
        assert parts.sender.topics_older_than(5) == ["slow"]
        assert parts.sender.topics_older_than(0) == ["new", "slow"]


def test_of_many_slow_topics_eight_are_named():
    with Parts(NOBODY, "t0", properties=SMALL, max_in_flight=20) as parts:
        names = [f"t{i}" for i in range(10)]
        for name in names[1:]:
            parts.accumulator.set_topic(name, [1])
        for name in names:
            parts.put(b"v", topic=name, seconds_ago=10)
        parts.sender.do_step()
        slow = parts.sender.topics_older_than(5)
        assert len(slow) == len(set(slow)) == 8 and set(slow) <= set(names)
