"""What becomes of a record for every error code with which a broker can answer the request that carries it."""

import contextlib
import logging
import subprocess
import sys
import time

import pytest

from fastprod import (
    AuthenticationError,
    AuthorizationError,
    DeliveryError,
    FencedError,
    KafkaError,
    Producer,
    RecordTooLargeError,
)
from fastprod.testing import MockCluster
from tests.conftest import QUICK
from tests.kafka.oracle import java_errors

TOPIC = "t"
CODES = [-1, *range(1, 134)]  # all that Kafka 4.3 knows; 0 is none
OUT_OF_ORDER, DUPLICATE, UNKNOWN_PRODUCER_ID = 45, 46, 59
FATAL = -150  # librdkafka's own, for what it is given after a fatal error

# After these librdkafka sends the record again.
RETRIED = {2, 3, 5, 6, 7, 8, 9, 14, 15, 16, 19, 20, 56}
# With sequence numbers it also knows what these mean: it was written before; the broker has forgotten the producer.
RETRIED_IF_IDEMPOTENT = RETRIED | {DUPLICATE, UNKNOWN_PRODUCER_ID}
CLASSES = {
    10: RecordTooLargeError,
    29: AuthorizationError,
    31: AuthorizationError,
    53: AuthorizationError,
    47: FencedError,
    58: AuthenticationError,
    90: FencedError,
}
# The others say that the broker refused the record; UNKNOWN_SERVER_ERROR that it ran into a fault, anywhere on its way.
POSSIBLY_PERSISTED = {-1, OUT_OF_ORDER, DUPLICATE}

# Java's producer sends a record again after these too. As answers to a ProduceRequest brokers have only 13 and 51, from
# looking after a transaction, and give NOT_ENOUGH_REPLICAS in their place to who speaks librdkafka's version of it.
RETRIED_BY_JAVA_ALONE = {13, 51, 72, 74, 75, 89}
# Likewise, but they answer other requests: fetches, elections, offsets, sessions, topic ids.
NOT_OF_A_PRODUCER = {41, 70, 71, 78, 80, 83, 84, 88, 100, 103, 106, 122, 123, 133}
RETRIED_BY_LIBRDKAFKA_ALONE = {8}


@pytest.fixture(scope="module")
def cluster():
    """A cluster of its own, since the errors pushed to one hit whoever comes next."""
    with MockCluster(topics={TOPIC: 1}, process=True) as cluster:
        yield cluster


@pytest.fixture(scope="module", params=[True, False], ids=["idempotent", "plain"])
def make(cluster, request):
    """make() gives the producer of before, or a new one if that met a fatal error."""
    producers = []

    def make():
        if not producers or producers[-1].broken:
            producers.append(Owned(cluster, request.param))
        return producers[-1]

    yield make
    for owned in producers:
        with contextlib.suppress(DeliveryError):
            owned.producer.close(10)


class Owned:
    def __init__(self, cluster, idempotent):
        self.idempotent = idempotent
        self.broken = False
        self.producer = Producer(
            QUICK, bootstrap_servers=cluster.bootstrap_servers, enable_idempotence=idempotent, retry_backoff_ms=10
        )
        self.producer.send(TOPIC, b"first").result(20)


@pytest.mark.mock
@pytest.mark.parametrize("code", CODES)
def test_each_code_has_its_outcome_and_the_producer_works_on(make, cluster, code):
    owned = make()
    producer, retried = owned.producer, RETRIED_IF_IDEMPOTENT if owned.idempotent else RETRIED
    cluster.push_request_errors("Produce", [code])
    future = producer.send(TOPIC, b"v")
    error = future.exception(20)
    if code in retried:
        assert error is None
        assert future.result(0).has_offset == (code != DUPLICATE)
    else:
        assert type(error) is CLASSES.get(code, DeliveryError)
        assert (error.code, error.retriable) == (code, code in RETRIED_BY_JAVA_ALONE)
        assert error.persisted == ("possibly" if code in POSSIBLY_PERSISTED else "no")
    if code == OUT_OF_ORDER and owned.idempotent:
        owned.broken = True
        with pytest.raises(KafkaError, match="has a fatal error.*make a new one") as caught:
            producer.send(TOPIC, b"v")
        assert (caught.value.code, caught.value.fatal) == (code, True)
        return
    deadline = time.monotonic() + 20
    # After TOPIC_AUTHORIZATION_FAILED librdkafka takes nothing for the topic until it has fresh metadata.
    while (error := producer.send(TOPIC, b"v").exception(20)) is not None:
        assert error.code == code == 29 and time.monotonic() < deadline
        time.sleep(0.005)
    producer.flush(20)
    assert len(producer) == 0 and producer.buffer_available == producer.config.buffer_memory


@pytest.mark.mock
@pytest.mark.parametrize("code", [2, 7, 14, 19, 20, 56])
def test_without_retries_a_transient_code_is_retriable_all_the_same(cluster, code):
    """The others in RETRIED are retried for ever within delivery.timeout.ms, whatever retries says."""
    with Producer(QUICK, bootstrap_servers=cluster.bootstrap_servers, retries=0) as producer:
        producer.send(TOPIC, b"first").result(20)
        cluster.push_request_errors("Produce", [code])
        error = producer.send(TOPIC, b"v").exception(20)
    assert (type(error), error.code, error.retriable, error.fatal) == (DeliveryError, code, True, False)
    assert error.persisted == ("no" if code in (2, 14, 19) else "possibly")  # a disk fails after some bytes, too


@pytest.mark.mock
@pytest.mark.parametrize("idempotent", [True, False])
@pytest.mark.parametrize(
    "first", [7, 20, -195, 3, 6, 56], ids=["timed out", "after append", "no answer", "gone", "deposed", "disk"]
)
def test_a_refusal_does_not_make_an_earlier_attempt_undone(cluster, idempotent, first):
    """The record may have been written when the request was repeated, to a broker that by then refused it."""
    with Producer(QUICK, bootstrap_servers=cluster.bootstrap_servers, enable_idempotence=idempotent) as producer:
        producer.send(TOPIC, b"first").result(20)
        cluster.push_request_errors("Produce", [first, 87])
        error = producer.send(TOPIC, b"v").exception(20)
    assert (error.code, error.persisted) == (87, "possibly")


@pytest.mark.mock
def test_after_a_fatal_error_everything_settles_and_nothing_more_is_taken(cluster, caplog):
    caplog.set_level(logging.CRITICAL)
    producer = Producer(QUICK, bootstrap_servers=cluster.bootstrap_servers, batch_size=1000)
    try:
        producer.send(TOPIC, b"first").result(20)
        called = []
        cluster.push_request_errors("Produce", [OUT_OF_ORDER])
        cluster.pause()
        try:
            futures = [producer.send(TOPIC, b"v" * 900) for _ in range(50)]
            futures.append(producer.send(TOPIC, b"v", on_delivery=lambda _, error: called.append(error)))
        finally:
            cluster.resume()
        errors = [future.exception(20) for future in futures]
        with pytest.raises(KafkaError, match="has a fatal error.* with broker .*make a new one") as caught:
            producer.send(TOPIC, b"v")
        assert (caught.value.code, caught.value.fatal) == (OUT_OF_ORDER, True)
        producer.flush(20)
        failed = [error for error in errors if error is not None]  # the request behind the refused one may be taken
        assert failed and {error.code for error in failed} <= {OUT_OF_ORDER, FATAL}
        assert {error.persisted for error in failed if error.code == FATAL} <= {"no"}
        assert len(producer) == 0 and producer.buffer_available == producer.config.buffer_memory
    finally:
        producer.close(20)
    assert len(called) == 1


MORE_THAN_IS_HANDED_OVER_AT_ONCE = """
import logging, sys
from fastprod import DeliveryError, Producer
from fastprod.testing import MockCluster
from tests.conftest import QUICK

code, options = int(sys.argv[1]), {"transactional_id": "tx"} if sys.argv[2:] else {}
logging.disable(logging.CRITICAL)
with MockCluster(topics={"t": 1}, process=True) as cluster:
    producer = Producer(QUICK, bootstrap_servers=cluster.bootstrap_servers, **options)
    if options:
        producer.init_transactions()
        producer.begin_transaction()
    for _ in range(4):
        producer.send("t", b"first").result(20)
    producer.send_many("t", [bytes(1000)] * 800).result(20)
    cluster.push_request_errors("Produce", [code])
    cluster.pause()
    futures = [producer.send("t", bytes(1000)) for _ in range(4000)]
    cluster.resume()
    assert all(future.exception(20) is not None for future in futures[-2000:])
    if options:
        producer.abort_transaction()
    try:
        producer.close(20)
    except DeliveryError as error:
        assert "gave up" not in str(error)
    assert producer.buffer_available == producer.config.buffer_memory
"""


@pytest.mark.mock
@pytest.mark.parametrize("arguments", [[str(OUT_OF_ORDER)], ["87", "transaction"]], ids=["fatal", "abortable"])
def test_what_librdkafka_refuses_at_once_settles_whatever_waits_behind_it(arguments):
    # In a process of its own: flush() and close() once waited for ever.
    command = [sys.executable, "-c", MORE_THAN_IS_HANDED_OVER_AT_ONCE, *arguments]
    child = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert child.returncode == 0, child.stderr


@pytest.mark.mock
def test_after_a_fatal_error_a_request_that_fails_later_does_not_wait_for_its_deadline(caplog):
    """librdkafka gives up what it has at that moment; what comes back to its queue after that it would leave there."""
    caplog.set_level(logging.CRITICAL)
    with MockCluster(brokers=2, topics={TOPIC: 2}, process=True) as cluster:
        for partition in (0, 1):
            cluster.set_leader(TOPIC, partition, partition + 1)
        producer = Producer(QUICK, bootstrap_servers=cluster.bootstrap_servers, delivery_timeout_ms=120_000)
        try:
            for partition in (0, 1):
                producer.send(TOPIC, b"first", partition=partition).result(20)
            cluster.set_round_trip_time(1, 5000)
            under_way = producer.send(TOPIC, b"v", partition=0)
            time.sleep(0.2)  # it is on its way to broker 1
            cluster.push_request_errors("Produce", [OUT_OF_ORDER])
            assert producer.send(TOPIC, b"v", partition=1).exception(20).code == OUT_OF_ORDER
            cluster.broker_down(1)
            error = under_way.exception(20)
            assert (error.code, error.persisted, error.fatal) == (FATAL, "possibly", True)
            assert "make a new one" in str(error)
            producer.flush(20)
        finally:
            producer.close(20)


@pytest.mark.kafka
def test_the_codes_are_those_of_java_and_so_is_what_can_be_retried(kafka_libs):
    java = java_errors()
    assert sorted(java) == sorted([0, *CODES])
    retriable = {code for code, (_, retriable) in java.items() if retriable}
    assert retriable == (RETRIED - RETRIED_BY_LIBRDKAFKA_ALONE) | RETRIED_BY_JAVA_ALONE | NOT_OF_A_PRODUCER
