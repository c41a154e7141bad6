"""What goes wrong on the way to the broker: each record has an outcome, and the producer works on afterwards."""

import subprocess
import sys
import time

import pytest

from fastprod import AuthorizationError, DeliveryError, DeliveryTimeoutError, KafkaError, Producer, RecordTooLargeError
from fastprod.testing import MockCluster
from tests.conftest import PARTITIONS, TOPIC, eventually
from tests.mock_failures.conftest import (
    FORBIDDEN,
    INVALID_RECORD,
    NOT_LEADER,
    SHORT,
    TOO_LARGE,
    fail_next,
    failures,
    read,
    whole,
)

pytestmark = pytest.mark.mock


# What a record fails with


@pytest.mark.parametrize(
    ("code", "kind"),
    [(FORBIDDEN, AuthorizationError), (TOO_LARGE, RecordTooLargeError), (INVALID_RECORD, DeliveryError)],
)
def test_a_permanent_error_has_its_class_code_and_persistence(make, cluster, code, kind):
    producer = make()
    fail_next(cluster, code, 1)
    error = producer.send(TOPIC, b"v", partition=2).exception(10)
    assert type(error) is kind and isinstance(error, KafkaError)
    assert (error.code, error.persisted, error.fatal, error.retriable) == (code, "no", False, False)
    assert f"{TOPIC} [2]" in str(error) and f"code {code}" in str(error)
    # After TOPIC_AUTHORIZATION_FAILED librdkafka takes nothing for the topic until it has fresh metadata.
    assert eventually(lambda: producer.send(TOPIC, b"v", partition=2).exception(10) is None)
    assert eventually(lambda: whole(producer))


@pytest.mark.parametrize("code", [2, 3, 5, 6, 7, 19, 20, -195])
@pytest.mark.parametrize("idempotent", [True, False])
def test_a_transient_error_is_retried_to_success(make, cluster, code, idempotent):
    producer = make(enable_idempotence=idempotent, retry_backoff_ms=10, reconnect_backoff_ms=10)
    outcomes = []
    fail_next(cluster, code, 2)
    future = producer.send(TOPIC, b"v", partition=0, on_delivery=lambda *outcome: outcomes.append(outcome))
    metadata = future.result(20)
    producer.flush(20)
    assert metadata.offset == 0 and outcomes == [(metadata, None)]


def test_without_retries_a_transient_error_is_final(make, cluster):
    producer = make(retries=0, enable_idempotence=False)
    fail_next(cluster, 7, 1)
    error = producer.send(TOPIC, b"v").exception(10)
    assert error is not None and (error.code, error.retriable) == (7, True)


CALLED_BACK_EARLY = """
import sys
from fastprod import Producer
from fastprod.testing import MockCluster

errors = [int(code) for code in sys.argv[1:]]
with MockCluster(topics={"t": 1}, process=True) as cluster:
    for _ in range(6):
        with Producer(bootstrap_servers=cluster.bootstrap_servers, enable_idempotence=False) as producer:
            producer.partitions_for("t")
            cluster.push_request_errors("Produce", errors)
            outcomes = []
            for _ in range(10_000):
                producer.send("t", b"v" * 2000, on_delivery=lambda metadata, error: outcomes.append(error))
            producer.flush(20)
        assert len(outcomes) == 10_000
        assert errors or outcomes == [None] * 10_000
"""


@pytest.mark.parametrize("errors", [[], ["29"] * 3], ids=["delivered", "refused at once"])
def test_a_callback_that_is_due_before_send_has_returned_finds_its_record(errors):
    # A send() far ahead of the sender thread hands over in its place, and others run meanwhile.
    # In a process of its own: it once ended in a segmentation fault.
    command = [sys.executable, "-c", CALLED_BACK_EARLY, *errors]
    child = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert child.returncode == 0, child.stderr


@pytest.mark.slow
def test_a_callback_waits_for_those_of_earlier_records_of_its_partition():
    """librdkafka refuses a record at once after the topic was forbidden; an earlier one is on its way."""
    outcomes = []
    with (
        MockCluster(2, {TOPIC: 2}, process=True) as cluster,
        Producer(bootstrap_servers=cluster.bootstrap_servers) as producer,
    ):
        slow, fast = 0, 1
        cluster.set_leader(TOPIC, slow, 1)
        cluster.set_leader(TOPIC, fast, 2)
        for partition in (slow, fast) * 2:
            producer.send(TOPIC, b"first", partition=partition).result(10)

        def send(name, partition):
            producer.send(TOPIC, name, partition=partition, on_delivery=lambda _, error: outcomes.append((name, error)))

        cluster.set_round_trip_time(1, 2500)
        send(b"slow", slow)
        time.sleep(0.8)  # until the slow broker has it
        cluster.push_request_errors("Produce", [FORBIDDEN])
        send(b"forbidden", fast)
        assert eventually(lambda: outcomes)
        send(b"refused", slow)  # unless fresh metadata has opened the topic again already
        assert [name for name, _ in outcomes] == [b"forbidden"]
        producer.flush(10)
    assert [name for name, _ in outcomes] == [b"forbidden", b"slow", b"refused"]
    assert outcomes[1][1] is None


def test_an_idempotent_producer_has_one_request_of_a_partition_under_way(cluster):
    """If the first of two were refused and the second not, librdkafka would take a new epoch."""
    outcomes = []
    # Without QUICK: metadata asked for every 20 ms would take up all of a connection whose answers come so late.
    with Producer(bootstrap_servers=cluster.bootstrap_servers) as producer:
        for _ in range(2):  # the partition is not new any more
            producer.send(TOPIC, b"first", partition=0).result(10)
        cluster.set_round_trip_time(1, 2000)
        for _ in range(2):
            producer.send(TOPIC, b"", partition=0, on_delivery=lambda *_: outcomes.append(time.monotonic()))
        producer.flush(10)
    assert outcomes[1] - outcomes[0] > 1  # a round trip that began with the first one's answer


# Requests that are too large for the topic


def test_a_request_that_is_too_large_is_split_in_order(make, cluster, caplog):
    producer = make(linger_ms=20)
    producer.send(TOPIC, b"first", partition=0).result(10)
    cluster.push_request_errors("Produce", [TOO_LARGE, TOO_LARGE])
    outcomes = []
    for i in range(100):
        producer.send(
            TOPIC, b"%d" % i, partition=0, on_delivery=lambda metadata, error: outcomes.append((metadata, error))
        )
    producer.flush(10)
    assert [error for _, error in outcomes] == [None] * 100
    assert [metadata.offset for metadata, _ in outcomes] == list(range(1, 101))
    assert "max.message.bytes" in caplog.text


def test_a_record_that_is_too_large_alone_fails_alone(make, cluster):
    producer = make(linger_ms=20)
    producer.send(TOPIC, b"first", partition=0).result(10)
    cluster.push_request_errors("Produce", [TOO_LARGE] * 3)
    first, *others = [producer.send(TOPIC, b"v", partition=0) for _ in range(4)]
    error = failures(producer.flush, 10)  # of the four, of the first two, of the first
    assert error.count == 1
    assert isinstance(first.exception(0), RecordTooLargeError)
    assert first.exception(0).persisted == "no"
    assert [future.result(0).offset for future in others] == [1, 2, 3]


def test_what_cannot_be_split_without_breaking_order_fails_with_the_reason(make, cluster):
    producer = make(linger_ms=20, enable_idempotence=False, **{"librdkafka.batch.size": 3000})
    for _ in range(2):
        producer.send(TOPIC, b"first", partition=0).result(10)  # then several requests may be on their way
    cluster.push_request_errors("Produce", [TOO_LARGE])
    outcomes = []
    for i in range(40):
        producer.send(TOPIC, b"%0200d" % i, partition=0, on_delivery=lambda metadata, error: outcomes.append(error))
    producer.flush(10)
    failed = outcomes.index(None)
    assert 0 < failed < 20
    assert all(isinstance(error, RecordTooLargeError) for error in outcomes[:failed])
    assert all("max.message.bytes" in str(error) and error.persisted == "no" for error in outcomes[:failed])
    assert outcomes[failed:] == [None] * (40 - failed)
    assert producer.send(TOPIC, b"later", partition=0).result(10).offset == 2 + 40 - failed


# delivery.timeout.ms


@pytest.mark.slow
def test_a_record_whose_broker_was_no_longer_the_leader_may_have_been_written(make, cluster):
    # librdkafka calls it not persisted. A leader that is deposed while it waits for its followers answers this too.
    producer = make(**SHORT)
    cluster.push_request_errors("Produce", [NOT_LEADER] * 1000)
    error = producer.send(TOPIC, b"v", partition=0).exception(20)
    assert (type(error), error.persisted) == (DeliveryTimeoutError, "possibly")


@pytest.mark.slow
@pytest.mark.parametrize("code", [19, 20, 56])  # NOT_ENOUGH_REPLICAS, the same AFTER_APPEND, KAFKA_STORAGE_ERROR
def test_a_broker_that_cannot_store_is_asked_until_delivery_timeout(make, cluster, code):
    producer = make(**SHORT)
    cluster.push_request_errors("Produce", [code] * 1000)
    started = time.monotonic()
    error = producer.send(TOPIC, b"v", partition=0).exception(20)
    assert 1.4 < time.monotonic() - started < 20
    # librdkafka does not say how the requests were answered, so the error names no cause.
    assert (type(error), error.code, error.persisted) == (DeliveryTimeoutError, -192, "possibly")
    producer.flush(10)
    assert whole(producer)


@pytest.mark.slow
def test_a_record_that_no_request_took_along_was_not_written(make, cluster):
    producer = make(**SHORT)
    cluster.broker_down(1)
    error = producer.send(TOPIC, b"v", partition=0).exception(20)
    assert (type(error), error.persisted) == (DeliveryTimeoutError, "no")


@pytest.mark.slow
def test_with_the_broker_down_records_fail_by_delivery_timeout(make, cluster):
    producer = make(**SHORT)
    cluster.broker_down(1)
    started = time.monotonic()
    futures = [producer.send(TOPIC, b"%d" % i, partition=i % PARTITIONS) for i in range(100)]
    errors = [future.exception(30) for future in futures]
    assert 0.5 < time.monotonic() - started < 20
    assert {type(error) for error in errors} == {DeliveryTimeoutError}
    assert all(isinstance(error, TimeoutError) and error.retriable and error.code == -192 for error in errors)
    cluster.broker_up(1)
    producer.flush(10)
    assert eventually(lambda: producer.send(TOPIC, b"v").exception(20) is None) and whole(producer)


@pytest.mark.slow
def test_records_queued_and_in_transit_both_fail_by_delivery_timeout(make, paused):
    options = {"batch_size": 1000, **SHORT}  # one request in flight may be one for metadata
    producers = [make(enable_idempotence=idempotent, **options) for idempotent in (True, False)]  # they wait together
    with paused():
        started = time.monotonic()
        sent = [[producer.send(TOPIC, b"v" * 800, partition=0) for _ in range(3000)] for producer in producers]
        failed = [[future.exception(30) for future in futures] for futures in sent]
        assert time.monotonic() - started < 25
    for producer, errors in zip(producers, failed, strict=True):
        assert {type(error) for error in errors} == {DeliveryTimeoutError}
        assert {error.persisted for error in errors} == {"no", "possibly"}
        producer.flush(10)
        assert eventually(lambda p=producer: p.send(TOPIC, b"v").exception(20) is None) and whole(producer)


@pytest.mark.slow
def test_flush_raises_for_timed_out_records_even_those_in_transit(make, paused):
    producer = make(max_in_flight_requests_per_connection=1, batch_size=1000, **SHORT)
    values = [b"%03d" % i + b"v" * 700 for i in range(100)]
    with paused():
        for value in values:
            producer.send(TOPIC, value, partition=0)
        error = failures(producer.flush, 30)
    assert error.count == 100 and sorted(record.value for record in error.records) == values
    assert {type(record.error) for record in error.records} == {DeliveryTimeoutError}
    producer.flush(10)
    assert whole(producer)


# Outages


def test_what_is_sent_while_the_broker_is_down_arrives_once_it_is_up(make, cluster):
    producer = make(reconnect_backoff_ms=10, reconnect_backoff_max_ms=100)
    futures = []
    for _ in range(2):
        cluster.broker_down(1)
        futures += [producer.send(TOPIC, b"%d" % len(futures), partition=0) for _ in range(50)]
        with pytest.raises(TimeoutError):
            producer.flush(0.1)
        cluster.broker_up(1)
        futures += [producer.send(TOPIC, b"%d" % len(futures), partition=0) for _ in range(50)]
        producer.flush(20)
    assert [future.result(0).offset for future in futures] == list(range(200))
    assert len(producer) == 0 and whole(producer)


def test_a_pause_shorter_than_the_timeouts_goes_unnoticed(make, cluster, paused):
    producer = make(batch_size=500)
    futures = [producer.send(TOPIC, b"v", partition=0) for _ in range(100)]
    with paused():
        futures += [producer.send(TOPIC, b"v", partition=0) for _ in range(100)]
        time.sleep(0.2)
    producer.flush(20)
    assert [future.result(0).offset for future in futures] == list(range(200))
    assert len(read(cluster, 0, 200)) == 200
