"""Producer as the base of other classes, and the signatures of the public classes."""

import gc
import inspect
import subprocess
import sys
import textwrap
import threading
from typing import Generic, TypeVar

import pytest

import fastprod
from fastprod import BulkFuture, FutureRecordMetadata, KafkaError, Producer, ProducerRecord, RecordMetadata
from tests.conftest import QUICK, eventually

pytestmark = pytest.mark.mock
T = TypeVar("T")


class Counting:
    """A mixin with state of its own."""

    def __init__(self, *arguments, **keywords):
        super().__init__(*arguments, **keywords)
        self.count = 0

    def send(self, *arguments, **keywords):
        self.count += 1
        return super().send(*arguments, **keywords)


class Orders(Counting, Producer):
    """Its __init__() takes other arguments than Producer's, also ones that would be options there."""

    def __init__(self, servers, topic, *, linger_ms="none"):
        super().__init__(QUICK, bootstrap_servers=servers)
        self.topic = topic
        self.given = linger_ms

    def order(self, value):
        return self.send(self.topic, value)

    def close(self):
        self.closed = True
        super().close(10)


class Of(Producer, Generic[T]):
    pass


def test_a_subclass_has_its_own_arguments_attributes_and_methods(mock_cluster, topic):
    with Orders(mock_cluster.bootstrap_servers, topic, linger_ms="some") as orders:
        future = orders.order(b"v")
        assert isinstance(future.result(10), RecordMetadata)
        assert (orders.count, orders.given, orders.topic) == (1, "some", topic)
        assert orders.send_many(topic, [b"v"] * 3).result(10).count == 3
        assert isinstance(orders, Producer) and repr(orders).startswith("<fastprod.Orders ")
    assert orders.closed and "closed" in repr(orders)


def test_a_subclass_may_be_generic_or_empty_and_have_slots(mock_cluster, topic):
    class Slotted(Producer):
        __slots__ = ("name",)

    for kind in (Of[int], Of, Slotted, type("Empty", (Producer,), {})):
        with kind(QUICK, bootstrap_servers=mock_cluster.bootstrap_servers) as producer:
            producer.name = "n"
            assert producer.send(topic, b"v").result(10).topic == topic


def never_made():
    class Forgetful(Producer):
        def __init__(self):
            pass

    return Forgetful()


USES = {
    "send": lambda producer: producer.send("t", b"v", b"k"),
    "send with more": lambda producer: producer.send("t", "v", headers={"h": b""}, on_delivery=print),
    "send a record": lambda producer: producer.send(ProducerRecord("t")),
    "send_many": lambda producer: producer.send_many("t", [b"v"]),
    "send_arrow": lambda producer: producer.send_arrow("t", None),
    "flush": lambda producer: producer.flush(),
    "purge": lambda producer: producer.purge(),
    "wait_ready": lambda producer: producer.wait_ready(1),
    "partitions_for": lambda producer: producer.partitions_for("t"),
    "metrics": lambda producer: producer.metrics(),
    "len": len,
    "buffer_available": lambda producer: producer.buffer_available,
    "with": lambda producer: producer.__enter__(),
    "init_transactions": lambda producer: producer.init_transactions(),
    "begin_transaction": lambda producer: producer.begin_transaction(),
    "commit_transaction": lambda producer: producer.commit_transaction(),
    "abort_transaction": lambda producer: producer.abort_transaction(),
    "send_offsets": lambda producer: producer.send_offsets_to_transaction({}, b""),
    "transaction": lambda producer: producer.transaction().__enter__(),
}


@pytest.mark.parametrize("use", USES)
@pytest.mark.parametrize("made", [never_made, lambda: Producer.__new__(Producer, {})], ids=["subclass", "__new__"])
def test_a_producer_whose_init_was_not_called_says_so_whatever_it_is_asked(made, use):
    producer = made()
    with pytest.raises(RuntimeError, match=r"its __init__\(\) did not run to its end.*super\(\).__init__") as caught:
        USES[use](producer)
    assert not isinstance(caught.value, KafkaError)
    assert "not initialized" in repr(producer)
    assert bool(producer) is True
    producer.close()
    producer.close(1)
    producer.__exit__(None, None, None)
    assert fastprod.memory_in_use() >= 0


def test_a_producer_whose_init_failed_can_be_closed_and_made_after_all(mock_cluster, topic):
    class Retrying(Producer):
        def __init__(self, servers):
            try:
                super().__init__(linger_ms="wrong")
            except fastprod.ConfigError:
                self.close()
                super().__init__(QUICK, bootstrap_servers=servers)

    with Retrying(mock_cluster.bootstrap_servers) as producer:
        assert producer.send(topic, b"v").result(10).topic == topic


def test_a_producer_is_made_but_once(mock_cluster, topic):
    with Producer(QUICK, bootstrap_servers=mock_cluster.bootstrap_servers) as producer:
        with pytest.raises(RuntimeError, match="was called before"):
            producer.__init__(bootstrap_servers="other:9092")
        assert producer.send(topic, b"v").result(10).topic == topic
    with pytest.raises(RuntimeError, match="was called before"):
        producer.__init__(bootstrap_servers="other:9092")


@pytest.mark.parametrize("way", ["refcount", "cycle"])
def test_a_del_that_forgets_super_loses_nothing_and_leaves_no_thread(mock_cluster, topic, way):
    class Careless(Producer):
        def __del__(self):
            pass

    outcomes, before = [], threading.active_count()
    producer = Careless(QUICK, bootstrap_servers=mock_cluster.bootstrap_servers, linger_ms=60_000)
    producer.partitions_for(topic)
    for _ in range(100):
        producer.send(topic, b"v", on_delivery=lambda *outcome: outcomes.append(outcome))
    if way == "cycle":
        producer.itself = producer
    with pytest.warns(ResourceWarning, match="dropped without close"):
        del producer
        gc.collect()
    assert [error for _, error in outcomes] == [None] * 100
    assert eventually(lambda: threading.active_count() <= before)


def test_a_subclass_that_ends_without_close_is_closed_by_the_interpreter(mock_cluster, topic):
    """Its close() takes other arguments; what ends a producer does not go by it."""
    code = """
        import sys
        from fastprod import Producer

        class Own(Producer):
            def close(self):
                super().close()

        producer = Own(bootstrap_servers=sys.argv[1], linger_ms=60_000)
        for _ in range(50):
            producer.send(sys.argv[2], b"v")
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), mock_cluster.bootstrap_servers, topic],
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    with Producer(QUICK, bootstrap_servers=mock_cluster.bootstrap_servers) as producer:
        offsets = [producer.send(topic, b"v", partition=i).result(10).offset for i in range(4)]
    assert sum(offsets) == 50


# Signatures


def test_signatures_are_those_of_the_documentation():
    assert str(inspect.signature(Producer)) == "(config=None, **keywords)"
    assert Producer.__text_signature__ == "(config=None, **keywords)"
    assert str(inspect.signature(Producer.send)) == (
        "(self, topic, value=None, key=None, *, partition=None, timestamp=None, headers=None, on_delivery=None)"
    )
    assert str(inspect.signature(type("Sub", (Producer,), {}))) == "(config=None, **keywords)"
    assert str(inspect.signature(Orders)) == "(servers, topic, *, linger_ms='none')"
    assert Producer.__doc__.strip().startswith("Sends records to Kafka.")


PUBLIC = [value for value in map(fastprod.__dict__.get, fastprod.__all__) if callable(value)]


@pytest.mark.parametrize("public", PUBLIC, ids=lambda value: value.__name__)
def test_everything_public_has_a_signature(public):
    inspect.signature(public)
    if isinstance(public, type) and not issubclass(public, Exception):
        for name, value in vars(public).items():
            if callable(value) and not name.startswith("_"):
                inspect.signature(value)


@pytest.mark.parametrize("public", [BulkFuture, FutureRecordMetadata])
def test_futures_are_not_made_by_hand(public):
    assert str(inspect.signature(public)) == "()"
    with pytest.raises(TypeError, match="comes from Producer.send"):
        public()
