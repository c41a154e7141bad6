"""flush(), close() and purge() that do not wait any longer."""

import threading
import time

import pytest

from fastprod import DeliveryError, KafkaError, ProducerClosedError
from tests.conftest import TOPIC, eventually
from tests.mock_failures.conftest import failures, whole

pytestmark = pytest.mark.mock


def test_flush_that_times_out_loses_nothing(make, paused):
    producer = make()
    with paused():
        futures = [producer.send(TOPIC, b"v", partition=0) for _ in range(100)]
        for timeout in (0, 0.2):
            with pytest.raises(TimeoutError, match="100 records.*on their way") as caught:
                producer.flush(timeout)
            assert not isinstance(caught.value, KafkaError)
        assert len(producer) == 100
    producer.flush(20)
    assert [future.result(0).offset for future in futures] == list(range(100))


def test_flush_that_times_out_says_what_it_waited_for(make, paused):
    producer, started, ended = make(), threading.Event(), threading.Event()

    def notified(*_):
        started.set()
        ended.wait(30)

    producer.send(TOPIC, b"v", on_delivery=notified)
    assert started.wait(10) and eventually(lambda: len(producer) == 0)
    try:
        with pytest.raises(TimeoutError, match="^the callbacks of 1 batches had not run after 0.2 s"):
            producer.flush(0.2)
        with paused():
            producer.send(TOPIC, b"v")
            with pytest.raises(TimeoutError, match="^1 records had not settled and the callbacks of 1 batches had not"):
                producer.flush(0.2)
    finally:
        ended.set()
    producer.flush(20)


@pytest.mark.parametrize("timeout", [0, 0.2])
def test_close_that_times_out_gives_up_and_says_how_many(make, paused, timeout):
    producer = make(batch_size=1000)  # of a partition that is new to it the first record goes alone
    values = [b"%03d" % i + b"v" * 300 for i in range(100)]
    requests = producer.metrics()["request-total"]
    with paused():
        futures = [producer.send(TOPIC, value, partition=0) for value in values]
        assert eventually(lambda: producer.metrics()["request-total"] > requests)
        started = time.monotonic()
        error = failures(producer.close, timeout)
        assert time.monotonic() - started < 15
    assert "gave up 100 records" in str(error) and error.count == 100
    assert sorted(record.value for record in error.records) == values
    assert all(type(future.exception(0)) is DeliveryError for future in futures)
    assert {future.exception(0).persisted for future in futures} == {"no", "possibly"}
    assert "closed" in repr(producer) and len(producer) == 0 and whole(producer)
    producer.close()


@pytest.mark.slow
def test_a_close_with_less_time_ends_the_wait_of_another_thread(make, paused):
    producer = make()
    with paused():
        future = producer.send(TOPIC, b"v", partition=0)
        raised = []

        def close(timeout):
            try:
                producer.close(timeout)
            except DeliveryError as error:
                raised.append(error)

        threads = [threading.Thread(target=close, args=(timeout,)) for timeout in (None, 600, 0.3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
            assert not thread.is_alive()
        assert len(raised) == 1 and [record.value for record in raised[0].records] == [b"v"]
        assert future.done() and "closed" in repr(producer)


def test_close_that_fails_records_raises_even_if_all_were_observed(make, paused):
    producer, errors = make(), []
    with paused():
        for _ in range(10):
            producer.send(TOPIC, b"v", on_delivery=lambda _, error: errors.append(error))
        with pytest.raises(DeliveryError, match="gave up 10 records") as raised:
            producer.close(0.1)
    assert (raised.value.count, raised.value.reasons, raised.value.records) == (
        0,
        {},
        [],
    )  # of those that nobody observed
    assert [type(error) for error in errors] == [DeliveryError] * 10


def test_purge_gives_up_what_has_not_settled_and_the_producer_works_on(make, cluster, paused):
    producer = make(batch_size=1000)  # a metadata request would take the only place, were one in flight the most
    for alone in (False, True, False):
        requests = producer.metrics()["request-total"]
        with paused():
            futures = [producer.send(TOPIC, b"v" * 300, partition=i % 2) for i in range(0 if alone else 100)]
            futures += [producer.send(TOPIC, b"lonely", partition=2)]
            assert eventually(lambda before=requests: producer.metrics()["request-total"] > before)
            started = time.monotonic()
            producer.purge()
            assert time.monotonic() - started < 15
            errors = [future.exception(0) for future in futures]
            assert {type(error) for error in errors} == {DeliveryError}
            assert {error.persisted for error in errors} == ({"possibly"} if alone else {"no", "possibly"})
            assert all("purge" in str(error) for error in errors)
            assert len(producer) == 0 and whole(producer)
            later = producer.send(TOPIC, b"later", partition=0)
        assert later.result(20).partition == 0
        assert producer.send(TOPIC, b"later", partition=1).result(20).partition == 1
    producer.purge()
    producer.flush()


def test_purge_ends_the_wait_of_others(make, paused):
    producer = make()
    with paused():
        future = producer.send(TOPIC, b"v", partition=0)
        thread = threading.Thread(target=lambda: pytest.raises(DeliveryError, future.result))
        thread.start()
        producer.purge()
        thread.join(20)
        assert not thread.is_alive()
    producer.close()
    with pytest.raises(ProducerClosedError):
        producer.purge()
