"""Ctrl-C and signal handlers get through every wait, and lose nothing."""

import contextlib
import threading
import time

import pytest

from fastprod import DeliveryError, Producer, ProducerClosedError
from tests.conftest import TOPIC, Interrupted, eventually, interrupted, signalled
from tests.mock_failures.conftest import whole

pytestmark = pytest.mark.mock


def test_an_interrupt_comes_out_of_send_that_waits_for_memory(make, paused):
    producer = make(buffer_memory=100_000, max_block_ms=60_000)
    futures = []
    with paused():
        with interrupted(0.5):
            while True:
                futures.append(producer.send(TOPIC, b"v" * 1000, partition=0))
        assert producer.metrics()["waiting-threads"] == 0 and len(producer) == len(futures) >= 50
    producer.flush(20)
    assert [future.result(0).offset for future in futures] == list(range(len(futures)))
    assert producer.send(TOPIC, b"v").result(10) is not None and whole(producer)


def test_an_interrupt_comes_out_of_send_that_waits_for_metadata(make, paused):
    producer = make(ready=False, max_block_ms=60_000)
    with paused(), interrupted():
        producer.send(TOPIC, b"v")
    assert len(producer) == 0
    assert producer.send(TOPIC, b"v", partition=0).result(20).offset == 0 and whole(producer)


def test_an_interrupt_comes_out_of_flush(make, paused):
    producer = make()
    with paused():
        future = producer.send(TOPIC, b"v", partition=0)
        with interrupted():
            producer.flush()
        assert len(producer) == 1
    producer.flush(20)
    assert future.result(0).offset == 0
    assert producer.send(TOPIC, b"v", partition=0).result(10).offset == 1 and whole(producer)


@pytest.mark.parametrize("ask", ["result", "exception"])
def test_an_interrupt_comes_out_of_a_future(make, paused, ask):
    producer = make()
    with paused():
        future = producer.send(TOPIC, b"v", partition=0)
        with interrupted():
            getattr(future, ask)()
        assert not future.done()
    assert future.result(20).offset == 0
    assert producer.send(TOPIC, b"v", partition=0).result(10).offset == 1
    producer.flush(10)
    assert whole(producer)


def test_an_interrupt_comes_out_of_close_which_can_be_called_again(make, paused):
    producer = make()
    with paused():
        future = producer.send(TOPIC, b"v", partition=0)
        with interrupted():
            producer.close()
        with pytest.raises(ProducerClosedError):
            producer.send(TOPIC, b"v")
        assert len(producer) == 1
    producer.close(20)
    assert future.result(0).offset == 0 and "closed" in repr(producer)
    assert len(producer) == 0 and whole(producer)


@pytest.mark.parametrize("timeout", [None, 60])
def test_a_signal_handler_may_call_close_while_close_is_under_way(make, cluster, paused, timeout):
    producer, closed = make(), []

    def close():
        producer.close(timeout)
        closed.append(producer.buffer_available)
        cluster.resume()

    with paused():
        future = producer.send(TOPIC, b"v", partition=0)
        with signalled(close):
            producer.close()
    assert closed and future.result(0).offset == 0 and whole(producer)


def test_a_close_in_a_signal_handler_can_make_the_one_under_way_give_up_sooner(make, paused):
    producer = make()
    with paused():
        producer.send(TOPIC, b"v", partition=0)
        started = time.monotonic()
        with (
            signalled(lambda: producer.close(0.1)),
            pytest.raises(DeliveryError, match=r"gave up 1 .* after \d+\.\d s;"),
        ):
            producer.close()
        assert time.monotonic() - started < 20
    assert "closed" in repr(producer) and whole(producer)


def test_close_can_be_called_again_when_librdkafka_has_gone_meanwhile_with_a_token_provider():
    def interrupt():
        raise Interrupted

    before = threading.enumerate()
    producer = Producer(
        bootstrap_servers="127.0.0.1:1",
        security_protocol="SASL_SSL",
        sasl_mechanism="OAUTHBEARER",
        sasl_oauthbearer_token_provider=lambda _: ("a.b.c", time.time() + 3600, "me"),
    )
    started = {thread for thread in threading.enumerate() if thread not in before}
    with pytest.raises(TimeoutError):
        producer.wait_ready(0.3)  # the metadata thread asks on
    with contextlib.suppress(Interrupted), signalled(interrupt):
        producer.close()
    assert eventually(lambda: not any(thread.is_alive() for thread in started))
    producer.close()


@pytest.mark.parametrize("who", ["partitioner", "first interceptor", "nobody"])
def test_what_a_part_of_the_users_raises_in_its_close_hides_no_loss_nor_the_other_parts(make, paused, who):
    closed = []

    class Part:
        def __init__(self, name):
            self.name = name

        def partition(self, *_):
            return 0

        def on_send(self, record):
            return record

        def close(self):
            closed.append(self.name)
            if self.name == who:
                raise LookupError(who)

    names = ["partitioner", "first interceptor", "second interceptor"]
    partitioner, *interceptors = [Part(name) for name in names]
    for lost in (True, False):
        producer = make(partitioner=partitioner, interceptors=interceptors)
        if lost:
            with paused(), pytest.raises(DeliveryError, match="gave up 1 records") as caught:
                producer.send(TOPIC, b"v")
                producer.close(0)
            assert [record.value for record in caught.value.records] == [b"v"]
        elif who == "nobody":
            producer.close()
        else:
            with pytest.raises(LookupError, match=who):
                producer.close()
        producer.close()
        assert closed == names
        closed.clear()


def test_an_interrupt_while_close_lists_the_failures_loses_none(make, paused, monkeypatch):
    producer = make()

    def interrupt(*_):
        raise Interrupted

    with paused():
        for i in range(10):
            producer.send(TOPIC, b"%d" % i, partition=i % 2)
        with monkeypatch.context() as patched, pytest.raises(Interrupted):
            patched.setattr("fastprod.internals.failed_records.FailedRecord", interrupt)
            producer.close(0)
        with pytest.raises(DeliveryError) as caught:
            producer.close()
    assert sorted(record.value for record in caught.value.records) == [b"%d" % i for i in range(10)]
    producer.close()
