"""The `with` block of Producer.transaction()."""

import pytest

from fastprod import KafkaError, TransactionStateError
from fastprod.internals.transaction_block import transaction
from tests.conftest import TOPIC
from tests.transactions.conftest import LONG, values

pytestmark = pytest.mark.mock


def test_the_block_commits(make, cluster):
    producer = make(linger_ms=LONG, delivery_timeout_ms=2 * LONG)
    with producer.transaction() as nothing:
        future = producer.send(TOPIC, b"v")
    assert nothing is None
    assert future.result(0).offset == 0


def test_an_exception_aborts_and_comes_out(make, cluster):
    producer = make(linger_ms=LONG, delivery_timeout_ms=2 * LONG)
    with pytest.raises(ZeroDivisionError), producer.transaction():
        future = producer.send(TOPIC, b"v")
        raise ZeroDivisionError
    assert future.exception(0).persisted == "no"
    with producer.transaction():
        producer.send(TOPIC, b"kept")
    assert values(cluster) == [b"kept"]


def test_a_commit_that_fails_aborts_and_its_error_comes_out(make, cluster):
    producer = make()
    cluster.push_request_errors("Produce", [87])
    with pytest.raises(KafkaError) as raised, producer.transaction():
        producer.send(TOPIC, b"v", partition=0)
    assert raised.value.code == 87
    with producer.transaction():
        producer.send(TOPIC, b"kept", partition=1)
    assert values(cluster) == [b"kept"]


def test_when_the_abort_fails_too_the_first_error_comes_out(make, cluster, caplog):
    producer = make()
    with pytest.raises(ZeroDivisionError), producer.transaction():
        producer.send(TOPIC, b"v").result(20)
        cluster.push_request_errors("EndTxn", [90])
        raise ZeroDivisionError
    assert "could not be aborted" in caplog.text


def test_ctrl_c_in_the_block_aborts_too(make, cluster):
    producer = make(linger_ms=LONG, delivery_timeout_ms=2 * LONG)
    with pytest.raises(KeyboardInterrupt), producer.transaction():
        future = producer.send(TOPIC, b"v")
        raise KeyboardInterrupt
    assert future.exception(0).persisted == "no"


def test_a_block_that_cannot_begin_runs_nothing(make):
    producer = make()
    producer.begin_transaction()
    with pytest.raises(TransactionStateError, match="open already"), producer.transaction():
        pytest.fail("the body runs")
    producer.send(TOPIC, b"v")
    producer.commit_transaction()  # it is still the first transaction


class Failing:
    """A producer whose commit fails."""

    def __init__(self, abortable):
        self.error = KafkaError("no", code=1)
        self.error.abortable = abortable
        self.calls = []

    def begin_transaction(self):
        self.calls.append("begin")

    def commit_transaction(self):
        self.calls.append("commit")
        raise self.error

    def abort_transaction(self):
        self.calls.append("abort")


@pytest.mark.parametrize("abortable", [True, False])
def test_only_a_commit_that_can_be_aborted_is_aborted(abortable):
    producer = Failing(abortable)
    with pytest.raises(KafkaError) as raised, transaction(producer):
        pass
    assert raised.value is producer.error
    assert producer.calls == ["begin", "commit", "abort"][: 2 + abortable]
