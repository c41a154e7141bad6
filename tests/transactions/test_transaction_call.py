"""TransactionCall: librdkafka's answer to one call, and the offsets that a call takes."""

import pytest
from confluent_kafka import TopicPartition

from fastprod import KafkaError
from fastprod.internals.buffer_pool import BufferPool
from fastprod.internals.callbacks import Callbacks
from fastprod.internals.transport import Transport
from fastprod_core_access import call_transaction, offsets_of, read_group
from tests.conftest import TOPIC, pausing, shown
from tests.transactions.conftest import CALLS, group_metadata

pytestmark = pytest.mark.mock

STATE, TIMED_OUT, GROUP_NOT_AUTHORIZED, NOT_AUTHORIZED = -172, -185, 30, 53
DONE = (0, False, False, False, "")


@pytest.fixture
def transport(cluster):
    made = Transport(
        {"bootstrap.servers": cluster.bootstrap_servers, "transactional.id": "tx", "enable.idempotence": "true"},
        Callbacks(BufferPool(1 << 20, 1 << 14)),
    )
    yield made
    made.close()


def test_a_call_that_succeeds_leaves_nothing_of_an_earlier_answer(transport):
    assert call_transaction(transport, "init", 20_000) == DONE
    assert call_transaction(transport, "begin") == DONE
    assert call_transaction(transport, "commit", 20_000) == DONE
    assert call_transaction(transport, "begin") == DONE
    assert call_transaction(transport, "abort", 20_000) == DONE


def test_a_call_at_the_wrong_time_is_neither_fatal_nor_to_be_repeated(transport):
    code, fatal, retriable, abortable, text = call_transaction(transport, "begin")
    assert (code, fatal, retriable, abortable) == (STATE, False, False, False)
    assert text


def test_a_call_that_times_out_may_be_repeated(transport, cluster):
    with pausing(cluster):
        code, fatal, retriable, *_ = call_transaction(transport, "init", 100)
        assert (code, fatal, retriable) == (TIMED_OUT, False, True)
    assert call_transaction(transport, "init", 20_000) == DONE


def test_an_error_that_ends_the_producer_is_fatal(transport, cluster):
    cluster.push_request_errors("InitProducerId", [NOT_AUTHORIZED])
    code, fatal, retriable, _, text = call_transaction(transport, "init", 20_000)
    assert (code, fatal, retriable) == (NOT_AUTHORIZED, True, False)
    assert "Transactional Id authorization failed" in text


def test_an_error_that_ends_the_transaction_is_abortable(transport, cluster, consumer):
    call_transaction(transport, "init", 20_000)
    call_transaction(transport, "begin")
    cluster.push_request_errors("AddOffsetsToTxn", [GROUP_NOT_AUTHORIZED])
    code, fatal, _, abortable, _ = call_transaction(
        transport, "offsets", 20_000, offsets={(TOPIC, 0): 1}, group=group_metadata(consumer)
    )
    assert (code, fatal, abortable) == (GROUP_NOT_AUTHORIZED, False, True)
    assert call_transaction(transport, "abort", 20_000) == DONE


@pytest.mark.parametrize(
    ("offsets", "wanted"),
    [
        ({("t", 1): 5}, [(b"t", 1, 5, -1, None)]),
        ([TopicPartition("t", 1, 5)], [(b"t", 1, 5, -1, None)]),
        ([TopicPartition("t", 1, 5, "note", 3)], [(b"t", 1, 5, 3, b"note")]),
        ([TopicPartition("t", 1, 0, "", 0)], [(b"t", 1, 0, 0, b"")]),
        ([TopicPartition("t", 0), TopicPartition("t", 1, 5)], [(b"t", 1, 5, -1, None)]),
        ({}, []),
        (iter([TopicPartition("t", 2**31 - 1, 2**63 - 1)]), [(b"t", 2**31 - 1, 2**63 - 1, -1, None)]),
    ],
    ids=["mapping", "list", "with metadata and epoch", "empty metadata", "nothing consumed", "none", "the largest"],
)
def test_offsets_are_read(offsets, wanted):
    assert offsets_of(offsets) == wanted


@pytest.mark.parametrize("offset", [(2**31, 0), (-1, 0), (0, -1), (0, 2**63)], ids=shown)
def test_offsets_out_of_range_are_refused(offset):
    with pytest.raises(ValueError, match=r"the offset of t \[.* it must be that of the next record to consume"):
        offsets_of({("t", offset[0]): offset[1]})


@pytest.mark.parametrize("group", [b"", b"junk"])
def test_metadata_of_no_consumer_is_refused(group):
    with pytest.raises(ValueError, match="group_metadata is not what consumer.consumer_group_metadata"):
        read_group(group)


def test_metadata_of_a_consumer_is_taken(consumer):
    read_group(group_metadata(consumer))


@pytest.mark.parametrize(
    "offsets",
    [{"t": 3}, {TopicPartition("t", 0): 3}, [("t", 0, 3)], "x", 5, [{"topic": "t"}]],
    ids=shown,
)
def test_offsets_of_another_form_are_refused(make, offsets):
    producer = make()
    producer.begin_transaction()
    with pytest.raises(TypeError, match="offsets must be a list of confluent_kafka.TopicPartition, or a mapping"):
        producer.send_offsets_to_transaction(offsets, b"group")


def test_offsets_are_checked_before_anything_is_sent(make, consumer):
    producer = make()
    metadata = group_metadata(consumer)
    producer.begin_transaction()
    for offsets, group, kind in (
        ({(TOPIC, 0): 1}, "g", TypeError),
        ({(TOPIC, 0): 1}, b"junk", ValueError),
        ({(TOPIC, 0): 1}, metadata[:-1], ValueError),
        ({(TOPIC, 0): -5}, metadata, ValueError),
        ({(TOPIC, -1): 5}, metadata, ValueError),
        ({(TOPIC, 0): "5"}, metadata, TypeError),
        ({(5, 0): 5}, metadata, TypeError),
        ([TopicPartition(TOPIC, 0, -2)], metadata, ValueError),
    ):
        with pytest.raises(kind):
            producer.send_offsets_to_transaction(offsets, group)
    producer.send_offsets_to_transaction([], metadata)
    producer.send_offsets_to_transaction([TopicPartition(TOPIC, 0)], metadata)  # nothing consumed: no offset
    producer.send_offsets_to_transaction([TopicPartition(TOPIC, 1, 7, "note", 0)], metadata)
    producer.send_offsets_to_transaction({(TOPIC, 2): 7}, metadata)
    producer.commit_transaction()


@pytest.mark.parametrize("request_name", ["AddOffsetsToTxn", "TxnOffsetCommit"])
def test_offsets_that_the_broker_refuses_make_the_transaction_abortable(make, cluster, consumer, request_name):
    producer = make()
    producer.begin_transaction()
    cluster.push_request_errors(request_name, [30])  # GROUP_AUTHORIZATION_FAILED
    for call in ("offsets", "send", "commit"):
        with pytest.raises(KafkaError) as raised:
            CALLS[call](producer)
        assert (raised.value.code, raised.value.abortable) == (30, True), call
    producer.abort_transaction()
    with producer.transaction():
        producer.send_offsets_to_transaction({(TOPIC, 0): 1}, group_metadata(consumer))


@pytest.mark.parametrize(
    ("request_name", "code"), [("AddOffsetsToTxn", 51), ("TxnOffsetCommit", 14), ("TxnOffsetCommit", 15)]
)
def test_offsets_are_tried_again_while_the_coordinator_is_busy(make, cluster, consumer, request_name, code):
    producer = make()
    with producer.transaction():
        cluster.push_request_errors(request_name, [code])
        producer.send_offsets_to_transaction({(TOPIC, 0): 1}, group_metadata(consumer))
