"""flush() and close() raise the failures that nothing has observed."""

import asyncio
import sys

import pytest

from fastprod import DeliveryError, Producer
from tests.conftest import QUICK, TOPIC, eventually, shown
from tests.mock_failures.conftest import INVALID_RECORD, TOO_LARGE, fail_next, failures, read, whole

pytestmark = pytest.mark.mock


def test_flush_raises_with_the_failed_records_themselves(make, cluster):
    producer = make(linger_ms=80_000)
    fail_next(cluster)
    headers = [("h", b"1"), ("n", None), ("h", b"")]
    producer.send(TOPIC, b"value", b"key", partition=0, timestamp=1_700_000_000_000, headers=headers)
    producer.send(TOPIC, None, b"", partition=0, timestamp=1_700_000_000_001)
    producer.send(TOPIC, b"", partition=0, timestamp=1_600_000_000_000, headers={"utf-8": "ä"})
    producer.send(TOPIC, "text ä", "k", partition=1, timestamp=5)
    error = failures(producer.flush, 10)
    assert error.count == 4 and list(error.reasons.values()) == [4]
    assert (error.persisted, error.retriable, error.code) == ("no", False, INVALID_RECORD)
    fields = {(r.partition, r.key, r.value, tuple(r.headers), r.timestamp) for r in error.records}
    assert fields == {
        (0, b"key", b"value", tuple(headers), 1_700_000_000_000),
        (0, b"", None, (), 1_700_000_000_001),
        (0, None, b"", (("utf-8", "ä".encode()),), 1_600_000_000_000),
        (1, b"k", "text ä".encode(), (), 5),
    }
    assert {record.topic for record in error.records} == {TOPIC}
    assert {type(record.error) for record in error.records} == {DeliveryError}
    assert {(record.error.code, record.error.persisted) for record in error.records} == {(INVALID_RECORD, "no")}
    assert len({id(record.error) for record in error.records}) == 4
    assert [r.value for r in error.records if r.partition == 0] == [b"value", None, b""]  # in order


@pytest.mark.parametrize("end", ["flush", "close"])
def test_exactly_the_unobserved_failures_are_raised_and_only_once(make, cluster, end):
    producer = make(linger_ms=200)
    fail_next(cluster)
    outcomes = []
    futures = {}
    for name in (b"asked", b"result", b"looked at", b"done callback", b"timed out", b"cancelled", b"awaited"):
        futures[name] = producer.send(TOPIC, name, partition=0)
    producer.send(TOPIC, b"on_delivery", partition=0, on_delivery=lambda _, error: outcomes.append(error))
    producer.send(TOPIC, b"dropped", partition=0)
    futures[b"done callback"].add_done_callback(lambda future: outcomes.append(future))
    with pytest.raises(TimeoutError):
        futures[b"timed out"].result(0)

    async def main():
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(futures[b"cancelled"], 0.001)
        with pytest.raises(DeliveryError):
            await futures[b"awaited"]

    asyncio.run(main())
    assert futures[b"asked"].exception(10) is not None
    with pytest.raises(DeliveryError):
        futures[b"result"].result(10)
    assert eventually(futures[b"looked at"].done) and "DeliveryError" in repr(futures[b"looked at"])
    error = failures(getattr(producer, end), 10)
    assert [record.value for record in error.records] == [b"looked at", b"timed out", b"cancelled", b"dropped"]
    assert error.count == 4 and len(outcomes) == 2
    if end == "flush":
        producer.flush(10)
    producer.close(10)


def test_a_flush_whose_failures_were_all_observed_is_silent(make, cluster):
    producer = make()
    fail_next(cluster)
    outcomes = []
    for _ in range(100):
        producer.send(TOPIC, b"v", on_delivery=lambda _, error: outcomes.append(error.code))
    producer.flush(10)
    assert outcomes == [INVALID_RECORD] * 100 and whole(producer)
    producer.close(10)


def test_a_future_asked_after_the_failure_and_before_flush_observes_it(make, cluster):
    producer = make()
    fail_next(cluster)
    futures = [producer.send(TOPIC, b"%d" % i, partition=0) for i in range(50)]
    assert eventually(lambda: all(future.done() for future in futures))
    for future in futures[::2]:
        assert future.exception(0) is not None
        assert future.exception(0) is not None  # twice observes no other record
    error = failures(producer.flush, 10)
    assert [record.value for record in error.records] == [b"%d" % i for i in range(1, 50, 2)]
    assert whole(producer)


class Silent:
    def on_send(self, record):
        return record


class Hearing(Silent):
    def __init__(self):
        self.heard = []

    def on_acknowledgement(self, metadata, error):
        self.heard.append(error.code)


@pytest.mark.parametrize("end", ["flush", "close"])
def test_interceptors_do_not_observe_an_outcome(make, cluster, end):
    hearing = Hearing()
    outcomes = []
    producer = make(ready=False, interceptors=[Silent(), hearing])
    fail_next(cluster)
    for value in (b"a", b"b"):
        producer.send(TOPIC, value, partition=0)
    producer.send(TOPIC, b"c", partition=0, on_delivery=lambda _, error: outcomes.append(error.code))
    error = failures(getattr(producer, end), 10)
    assert sorted(record.value for record in error.records) == [b"a", b"b"]
    assert hearing.heard == [INVALID_RECORD] * 3 and outcomes == [INVALID_RECORD]


def test_interceptors_without_on_acknowledgement_do_not_count_either(make, cluster):
    producer = make(ready=False, interceptors=[Silent()])
    fail_next(cluster)
    producer.send(TOPIC, b"a", partition=0)
    assert [record.value for record in failures(producer.flush, 10).records] == [b"a"]


def test_leaving_the_with_block_raises_for_what_failed(cluster):
    fail_next(cluster)
    with (
        pytest.raises(DeliveryError) as caught,
        Producer({"bootstrap.servers": cluster.bootstrap_servers, **QUICK}) as producer,
    ):
        producer.send(TOPIC, b"v")
    assert caught.value.count == 1 and "closed" in repr(producer)
    producer.close(10)


@pytest.mark.parametrize("raised", [KeyError("mine"), KeyboardInterrupt(), SystemExit(3)], ids=shown)
def test_what_leaves_the_with_block_goes_on_and_has_a_note_of_what_was_lost(cluster, caplog, raised):
    fail_next(cluster)
    with (
        pytest.raises(type(raised)) as caught,
        Producer({"bootstrap.servers": cluster.bootstrap_servers, **QUICK}) as producer,
    ):
        producer.send(TOPIC, b"v")
        raise raised
    assert caught.value is raised and "closed" in repr(producer)
    logged = [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]
    assert "1 record" in logged[-1] and repr(raised) in logged[-1]
    if sys.version_info >= (3, 11):
        assert "1 record" in raised.__notes__[0]


def test_failed_records_can_be_sent_again(make, cluster):
    producer = make()
    fail_next(cluster, INVALID_RECORD, requests=1)
    producer.send(TOPIC, b"v", b"k", partition=0, headers=[("h", b"1")])
    (record,) = failures(producer.flush, 10).records
    topic, partition, key, value, headers, timestamp, _ = record
    again = producer.send(topic, value, key, partition=partition, headers=headers, timestamp=timestamp)
    assert again.result(10).offset == 0
    assert read(cluster, 0, 1) == {0: b"v"}


@pytest.mark.parametrize("idempotent", [True, False])
@pytest.mark.parametrize(
    "codes", [(0, INVALID_RECORD, 0), (INVALID_RECORD, 0, INVALID_RECORD), (0, 0, INVALID_RECORD), (TOO_LARGE, 0, 0)]
)
def test_each_record_of_a_batch_that_is_split_gets_its_own_outcome(cluster, idempotent, codes):
    producer = Producer(
        {"bootstrap.servers": cluster.bootstrap_servers, "librdkafka.batch.num.messages": 3, **QUICK},
        enable_idempotence=idempotent,
        linger_ms=80_000,
    )
    try:
        producer.partitions_for(TOPIC)
        cluster.push_request_errors("Produce", codes)
        values = [b"%d" % i for i in range(9)]
        futures = [producer.send(TOPIC, value, partition=0) for value in values]
        error = failures(producer.flush, 20)
        failed = [record.value for record in error.records]
        assert error.count == len(failed) and 1 <= len(failed) < 9
        outcomes = {value: future.exception(0) for value, future in zip(values, futures, strict=True)}
        assert [value for value in values if outcomes[value] is not None] == failed
        assert {record.value: record.error.code for record in error.records} == {
            value: outcomes[value].code for value in failed
        }
        assert {outcomes[value].code for value in failed} == {code for code in codes if code}
        offsets = {
            future.result(0).offset: value
            for value, future in zip(values, futures, strict=True)
            if outcomes[value] is None
        }
        assert offsets == read(cluster, 0, 9 - len(failed))
        assert len(producer) == 0 and whole(producer)
    finally:
        producer.close(10)


def test_records_of_failures_are_kept_up_to_a_quarter_of_buffer_memory_and_counted_beyond(make, cluster):
    producer = make(buffer_memory=400_000)
    fail_next(cluster)
    values = [b"%05d" % i * 2000 for i in range(60)]  # 10 kB each
    for value in values:
        producer.send(TOPIC, value, partition=0)
    error = failures(producer.flush, 20)
    assert error.count == 60 and list(error.reasons.values()) == [60]
    kept = [record.value for record in error.records]
    assert 5 <= len(kept) <= 10 and set(kept) <= set(values)
    assert f"{len(kept)} of them" in str(error)
    assert whole(producer)
    producer.flush(10)


def test_failures_kept_for_flush_do_not_stop_the_producer(make, cluster):
    producer = make(buffer_memory=100_000, max_block_ms=10_000)
    fail_next(cluster, requests=100)
    for _ in range(100):
        producer.send(TOPIC, b"v" * 10_000, partition=0)  # ten times buffer.memory
    assert failures(producer.flush, 20).count == 100
    # A request may hold several records, so that errors are left over.
    assert whole(producer) and eventually(lambda: producer.send(TOPIC, b"v").exception(10) is None)
