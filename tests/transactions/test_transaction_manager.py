"""TransactionManager: what each call needs, does and raises, and what a fault leads to."""

import contextlib
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

import fastprod.internals.transaction_manager
from fastprod import (
    AuthorizationError,
    DeliveryError,
    FencedError,
    ForkedProducerError,
    KafkaError,
    Producer,
    ProducerClosedError,
    RecordTooLargeError,
    TransactionStateError,
)
from tests.conftest import TOPIC, interrupted, pausing, signalled
from tests.transactions.conftest import CALLS, LONG, values

pytestmark = pytest.mark.mock


# Where a call is possible


def test_before_init_nothing_is_possible(make):
    producer = make(ready=False)
    for name in CALLS.keys() - {"init"}:
        with pytest.raises(TransactionStateError, match=r"call init_transactions\(\) first"):
            CALLS[name](producer)
    assert isinstance(pytest.raises(RuntimeError, CALLS["send"], producer).value, KafkaError)
    assert len(producer) == 0


def test_between_transactions_only_begin_is_possible(make):
    producer = make()
    for _ in range(2):
        for name in ("send", "offsets", "commit", "abort"):
            with pytest.raises(TransactionStateError, match=r"no transaction is open: call begin_transaction\(\)"):
                CALLS[name](producer)
        with pytest.raises(TransactionStateError, match="called already"):
            producer.init_transactions()
        with producer.transaction():
            producer.send(TOPIC, b"v")


def test_in_a_transaction_neither_init_nor_begin_is_possible(make):
    producer = make()
    producer.begin_transaction()
    with pytest.raises(TransactionStateError, match="called already"):
        producer.init_transactions()
    with pytest.raises(TransactionStateError, match="open already"):
        producer.begin_transaction()
    producer.send(TOPIC, b"v")
    producer.commit_transaction()


def test_without_a_transactional_id_every_call_says_what_is_missing(mock_cluster):
    with Producer(bootstrap_servers=mock_cluster.bootstrap_servers) as producer:
        for name in CALLS.keys() - {"send"}:
            with pytest.raises(TransactionStateError, match=r"transactional\.id"):
                CALLS[name](producer)


def test_a_closed_producer_refuses(make):
    producer = make()
    producer.close()
    for name, call in CALLS.items():
        with pytest.raises(ProducerClosedError):
            call(producer)
        assert name


def test_a_forked_child_refuses(make):
    producer = make()
    producer.begin_transaction()
    child = os.fork()
    if child == 0:
        refused = 0
        for call in CALLS.values():
            try:
                call(producer)
            except ForkedProducerError:
                refused += 1
        os._exit(refused)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == len(CALLS)
    producer.send(TOPIC, b"v")
    producer.commit_transaction()


def test_a_callback_cannot_wait_for_itself(make):
    producer = make()
    raised = []

    def on_delivery(metadata, error):
        try:
            producer.commit_transaction()
        except RuntimeError as refused:
            raised.append(str(refused))

    with producer.transaction():
        producer.send(TOPIC, b"v", on_delivery=on_delivery)
    assert len(raised) == 1 and "callback" in raised[0]


# Commit


def test_commit_sends_what_lingers_and_its_callbacks_have_run(make, cluster):
    producer = make(linger_ms=LONG, delivery_timeout_ms=2 * LONG)
    called = []
    producer.begin_transaction()
    futures = [
        producer.send(TOPIC, b"%d" % i, on_delivery=lambda *outcome: called.append(outcome)) for i in range(1000)
    ]
    producer.commit_transaction()
    assert all(future.done() and future.exception(0) is None for future in futures)
    assert len(called) == 1000
    assert sorted(values(cluster)) == sorted(b"%d" % i for i in range(1000))


def test_an_empty_transaction_commits_and_aborts(make, cluster):
    producer = make()
    for _ in range(3):
        producer.begin_transaction()
        producer.commit_transaction()
        producer.begin_transaction()
        producer.abort_transaction()
    assert values(cluster) == []


def test_a_failed_record_makes_commit_raise_its_error_and_send_too(make, cluster):
    producer = make()
    producer.begin_transaction()
    cluster.push_request_errors("Produce", [87])  # INVALID_RECORD
    assert producer.send(TOPIC, b"v", partition=0).exception(20).code == 87
    for call in ("commit", "send", "offsets", "begin"):
        with pytest.raises(KafkaError, match=r"failed to validate record.*call abort_transaction\(\)") as raised:
            CALLS[call](producer)
        assert (raised.value.code, raised.value.abortable, raised.value.fatal) == (87, True, False)
    producer.abort_transaction()
    with producer.transaction():
        producer.send(TOPIC, b"after", partition=1)
    assert values(cluster) == [b"after"]


def test_after_a_refused_record_the_partition_is_usable_again_after_one_more_abort(make, cluster):
    """librdkafka does not take back the sequence number of the refused record; the broker then wants a new epoch."""
    producer = make()
    for attempt in range(4):
        try:
            with producer.transaction():
                if attempt == 0:
                    cluster.push_request_errors("Produce", [87])
                producer.send(TOPIC, b"%d" % attempt, partition=0)
            break
        except KafkaError as error:
            assert error.abortable and not error.fatal
    assert attempt == 2
    assert values(cluster) == [b"2"]


def test_a_record_that_librdkafka_never_took_keeps_the_transaction_from_committing(make, cluster):
    """librdkafka, which does not know of it, would commit the others."""
    producer = make(linger_ms=LONG, delivery_timeout_ms=2 * LONG, **{"librdkafka.message.max.bytes": 2000})
    producer.begin_transaction()
    fine = producer.send(TOPIC, b"fine", partition=0)
    large = producer.send(TOPIC, b"v" * 5000, partition=1)
    with pytest.raises(RecordTooLargeError, match=r"call abort_transaction\(\)") as raised:
        producer.commit_transaction()
    assert raised.value.abortable
    assert fine.exception(0) is None and large.exception(0).code == 10
    producer.abort_transaction()
    with producer.transaction():
        producer.send(TOPIC, b"after", partition=1)


def test_the_error_of_a_transaction_is_raised_and_not_those_of_its_records(make, cluster):
    producer = make()
    cluster.push_request_errors("AddPartitionsToTxn", [29])  # TOPIC_AUTHORIZATION_FAILED
    producer.begin_transaction()
    assert producer.send(TOPIC, b"v").exception(20).code == -152  # purged
    for call in ("send", "commit"):
        with pytest.raises(AuthorizationError) as raised:
            CALLS[call](producer)
        assert (raised.value.code, raised.value.abortable) == (29, True)
    producer.abort_transaction()
    with producer.transaction():
        producer.send(TOPIC, b"after")


def test_the_failures_of_one_transaction_do_not_reach_the_next_nor_close(make, cluster):
    producer = make()
    for round_number in range(3):
        producer.begin_transaction()
        cluster.push_request_errors("Produce", [87])
        producer.send(TOPIC, b"v", partition=round_number)
        with pytest.raises(KafkaError):
            producer.commit_transaction()
        producer.abort_transaction()
        with producer.transaction():
            producer.send(TOPIC, b"%d" % round_number, partition=3)
    producer.flush()
    producer.close()
    assert values(cluster) == [b"0", b"1", b"2"]


# Abort


def test_abort_drops_what_has_not_left_and_sends_none_of_it_later(make, cluster):
    producer = make(linger_ms=LONG, delivery_timeout_ms=2 * LONG)
    total = producer.config.buffer_memory
    producer.begin_transaction()
    futures = [producer.send(TOPIC, b"dropped") for _ in range(100)]
    producer.abort_transaction()
    for future in futures:
        error = future.exception(0)
        assert type(error) is DeliveryError and error.persisted == "no" and "abort" in str(error)
    assert len(producer) == 0 and producer.buffer_available == total
    with producer.transaction():
        producer.send(TOPIC, b"kept")
    producer.close()  # it raises no failures: the program knows that it has aborted
    assert values(cluster) == [b"kept"]


def test_abort_under_load_leaves_nothing_to_the_next_transaction(make, cluster, rng):
    """Batches are at every stage of their way when the abort comes."""
    producer = make(batch_size=2000)
    kept, dropped = [], 0
    for number in range(60):
        producer.begin_transaction()
        futures = [producer.send(TOPIC, b"%d %d" % (number, i)) for i in range(rng.randrange(1, 4000))]
        if rng.random() < 0.5:
            producer.abort_transaction()
            assert all(future.done() for future in futures)
            dropped += sum(future.exception(0) is not None for future in futures)
        else:
            producer.commit_transaction()
            assert all(future.exception(0) is None for future in futures)
            kept.append(len(futures))
        assert len(producer) == 0
    assert dropped > 0 and kept
    producer.close()


def test_a_send_that_waits_for_memory_is_refused_when_the_transaction_is_aborted(make, cluster):
    producer = make(buffer_memory=40_000, max_block_ms=60_000)
    producer.begin_transaction()
    producer.send(TOPIC, b"known").result(20)
    raised = []

    def fill():
        try:
            while True:
                producer.send(TOPIC, b"v" * 1000)
        except KafkaError as error:
            raised.append(error)

    with pausing(cluster):
        thread = threading.Thread(target=fill)
        thread.start()
        while producer.metrics()["waiting-threads"] == 0:
            time.sleep(0.001)
        with pytest.raises(TimeoutError):
            producer.abort_transaction(0.2)
    producer.abort_transaction(30)
    thread.join(30)
    assert [type(error) for error in raised] == [TransactionStateError]
    assert len(producer) == 0


def test_flush_does_not_raise_for_what_an_abort_has_dropped_that_has_not_ended(make, cluster):
    producer = make(linger_ms=LONG, delivery_timeout_ms=2 * LONG)
    producer.begin_transaction()
    producer.send(TOPIC, b"known")
    producer.flush(10)
    for _ in range(10):
        producer.send(TOPIC, b"dropped")
    with pausing(cluster), pytest.raises(TimeoutError):
        producer.abort_transaction(0.2)
    producer.flush(10)
    producer.abort_transaction(20)


@pytest.mark.parametrize("one_by_one", [False, True])
def test_a_bulk_call_goes_on_in_no_other_transaction(make, cluster, one_by_one):
    producer = make(value_serializer=bytes if one_by_one else None, linger_ms=LONG, delivery_timeout_ms=2 * LONG)
    inside, proceed, raised = threading.Event(), threading.Event(), []

    def numbers():
        for i in range(600):
            if i == 300:
                inside.set()
                proceed.wait(20)
            yield b"first %d" % i

    def send():
        try:
            producer.send_many(TOPIC, numbers())
        except TransactionStateError as error:
            raised.append(error)

    producer.begin_transaction()
    thread = threading.Thread(target=send)
    thread.start()
    assert inside.wait(20)
    producer.abort_transaction()
    producer.begin_transaction()
    producer.send(TOPIC, b"second")
    proceed.set()
    thread.join(20)
    producer.commit_transaction()
    assert values(cluster) == [b"second"]
    assert "the transaction ended" in str(raised[0]) and raised[0].index == raised[0].sent.count < 300


def test_a_signal_handler_may_close_while_send_is_refused(make, monkeypatch):
    producer = make()
    real, closed = fastprod.internals.transaction_manager.TransactionStateError, []

    def interrupted_error(text):
        monkeypatch.undo()
        signal.raise_signal(signal.SIGALRM)
        return real(text)

    with signalled(lambda: closed.append(producer.close(10)), seconds=0):
        monkeypatch.setattr("fastprod.internals.transaction_manager.TransactionStateError", interrupted_error)
        with pytest.raises(TransactionStateError, match="begin_transaction"):
            producer.send(TOPIC, b"v")
    assert closed == [None]


# Fencing


@pytest.mark.parametrize("request_name", ["AddPartitionsToTxn", "EndTxn"])
@pytest.mark.parametrize("code", [47, 90])  # INVALID_PRODUCER_EPOCH, PRODUCER_FENCED
def test_a_fenced_producer_says_so_whatever_it_is_asked(make, cluster, request_name, code):
    producer = make()
    producer.begin_transaction()
    cluster.push_request_errors(request_name, [code])
    producer.send(TOPIC, b"v")
    for call in ("commit", "send", "offsets", "abort", "begin", "init"):
        with pytest.raises(FencedError, match=r"transactional\.id") as raised:
            CALLS[call](producer)
        assert raised.value.fatal and not raised.value.abortable, call
    with pytest.raises(FencedError), producer.transaction():
        raise AssertionError("the block must not run")
    started = time.monotonic()
    with contextlib.suppress(DeliveryError):
        producer.close()
    assert time.monotonic() - started < 20


def test_being_fenced_while_sending_reaches_send(make, cluster):
    producer = make()
    producer.begin_transaction()
    cluster.push_request_errors("AddPartitionsToTxn", [90])
    with pytest.raises(FencedError):
        while True:
            producer.send(TOPIC, b"v")
            time.sleep(0.001)


def test_an_init_that_is_not_permitted_is_fatal(make, cluster):
    producer = make(ready=False)
    cluster.push_request_errors("InitProducerId", [53])  # TRANSACTIONAL_ID_AUTHORIZATION_FAILED
    for _ in range(2):
        with pytest.raises(AuthorizationError) as raised:
            producer.init_transactions(20)
        assert raised.value.fatal


# Time


def test_init_times_out_and_goes_on_when_called_again(make, cluster):
    with pausing(cluster):
        producer = make(ready=False, max_block_ms=300)
        for timeout in (None, 0.2, 0):
            with pytest.raises(TimeoutError, match=r"init_transactions\(\)"):
                producer.init_transactions(timeout)
        with pytest.raises(TransactionStateError, match="call it again"):
            producer.begin_transaction()
    producer.init_transactions(30)
    producer.begin_transaction()
    producer.abort_transaction()


def test_a_commit_whose_records_are_late_can_be_repeated_or_aborted(make, cluster):
    producer = make(max_block_ms=500)
    for finish in (producer.commit_transaction, producer.abort_transaction):
        producer.begin_transaction()
        producer.send(TOPIC, b"known").result(20)
        with pausing(cluster):
            producer.send(TOPIC, b"v")
            with pytest.raises(TimeoutError, match="1 records had not settled"):
                producer.commit_transaction()
            with pytest.raises(TransactionStateError, match="commit_transaction"):
                producer.send(TOPIC, b"v")
        finish(30)


def test_a_commit_that_librdkafka_has_begun_can_only_be_repeated(make, cluster):
    producer = make()
    producer.begin_transaction()
    producer.send(TOPIC, b"v").result(20)
    with pausing(cluster):
        with pytest.raises(TimeoutError, match=r"commit_transaction\(\).*again"):
            producer.commit_transaction(0.3)
        for call in ("abort", "begin", "send"):
            with pytest.raises(TransactionStateError, match=r"commit_transaction\(\) has not ended"):
                CALLS[call](producer)
    producer.commit_transaction(30)
    with producer.transaction():
        producer.send(TOPIC, b"v")


def test_an_abort_times_out_and_goes_on_when_called_again(make, cluster):
    producer = make()
    producer.begin_transaction()
    producer.send(TOPIC, b"v").result(20)
    with pausing(cluster):
        with pytest.raises(TimeoutError, match=r"abort_transaction\(\)"):
            producer.abort_transaction(0.3)
        with pytest.raises(TransactionStateError, match=r"abort_transaction\(\) has not ended"):
            producer.begin_transaction()
    producer.abort_transaction(30)
    with producer.transaction():
        producer.send(TOPIC, b"v")


@pytest.mark.parametrize("call", ["init", "offsets", "commit", "commit late", "abort"])
def test_ctrl_c_gets_through_every_wait_and_the_producer_works_on(make, cluster, call):
    producer = make(ready=call != "init")
    if call != "init":
        producer.begin_transaction()
        producer.send(TOPIC, b"v").result(20)
    with pausing(cluster):
        if call == "commit late":
            producer.send(TOPIC, b"v")
        with interrupted():
            CALLS[call.partition(" ")[0]](producer)
        if call == "offsets":
            # Nobody knows whether the offsets are in: a commit must not pretend to.
            with pytest.raises(KafkaError, match="not known") as raised:
                producer.commit_transaction()
            assert raised.value.abortable
    if call == "init":
        producer.init_transactions(30)
    elif call.startswith("commit"):
        producer.commit_transaction(30)
    else:
        producer.abort_transaction(30)
    with producer.transaction():
        producer.send(TOPIC, b"v")


def test_sends_that_are_refused_keep_no_call_from_its_work(make):
    """Each looks at the transaction for a moment, to say why it is refused."""
    producer = make()
    stop = threading.Event()

    def send():
        refused = 0
        while not stop.is_set():
            try:
                producer.send(TOPIC, b"v")
            except KafkaError:  # or the failure of what an abort has dropped
                refused += 1
        return refused

    switch_interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor() as pool:
            senders = [pool.submit(send) for _ in range(3)]
            try:
                for i in range(100):
                    producer.begin_transaction()
                    (producer.abort_transaction if i % 2 else producer.commit_transaction)(20)
            finally:
                stop.set()
            assert all(sender.result() for sender in senders)
    finally:
        sys.setswitchinterval(switch_interval)


def test_a_second_thread_is_refused_while_a_call_is_under_way(make, cluster):
    producer = make()
    producer.begin_transaction()
    producer.send(TOPIC, b"v").result(20)
    with pausing(cluster):
        thread = threading.Thread(target=producer.commit_transaction, args=(30,))
        thread.start()
        while True:
            try:
                producer.send(TOPIC, b"v")
            except TransactionStateError as error:
                assert "another thread" in str(error)
                break
        with pytest.raises(TransactionStateError, match="another thread"):
            producer.abort_transaction()
    thread.join(30)
    with producer.transaction():
        producer.send(TOPIC, b"v")


# Each costs half a second, librdkafka's pause, so each code and each request is tried, but not all together.
@pytest.mark.parametrize(
    ("request_name", "code"),
    [("EndTxn", 15), ("EndTxn", 51), ("AddPartitionsToTxn", 16), ("InitProducerId", 15), ("InitProducerId", -195)],
)
def test_what_passes_is_waited_for(make, cluster, request_name, code):
    cluster.push_request_errors(request_name, [code])
    producer = make()
    with producer.transaction():
        future = producer.send(TOPIC, b"v")
    assert future.result(0).offset == 0


# Close


def test_close_aborts_an_open_transaction_and_raises_for_its_records(make, cluster, caplog):
    producer = make(linger_ms=LONG, delivery_timeout_ms=2 * LONG)
    producer.begin_transaction()
    producer.send(TOPIC, b"lost")
    with caplog.at_level(logging.WARNING, "fastprod"), pytest.raises(DeliveryError) as raised:
        producer.close()
    assert [record.value for record in raised.value.records] == [b"lost"]
    assert "transaction open" in caplog.text
    assert values(cluster) == []


def test_close_ends_while_a_call_that_timed_out_is_under_way(make, cluster):
    starting = make(ready=False, transactional_id="init")
    committing, aborting = make(transactional_id="commit"), make(transactional_id="abort")
    for producer in (committing, aborting):
        producer.begin_transaction()
        producer.send(TOPIC, b"v").result(20)
    with pausing(cluster):
        for call in (starting.init_transactions, committing.commit_transaction, aborting.abort_transaction):
            with pytest.raises(TimeoutError):
                call(0.1)
        started = time.monotonic()
        with ThreadPoolExecutor(3) as pool:
            list(pool.map(lambda producer: producer.close(0.5), (starting, committing, aborting)))
        assert time.monotonic() - started < 30
    for producer in (starting, committing, aborting):
        with pytest.raises(ProducerClosedError):
            producer.commit_transaction()


def test_close_waits_for_a_commit_that_is_under_way(make, cluster):
    producer = make()
    producer.begin_transaction()
    producer.send(TOPIC, b"v").result(20)
    with pausing(cluster), pytest.raises(TimeoutError):
        producer.commit_transaction(0.1)
    producer.close()
    assert values(cluster) == [b"v"]


def test_a_transaction_is_aborted_and_not_purged(make):
    with pytest.raises(TransactionStateError, match="abort_transaction"):
        make().purge()


def test_close_in_a_signal_handler_of_a_thread_that_commits_is_refused(make, cluster):
    producer = make()
    producer.begin_transaction()
    producer.send(TOPIC, b"v").result(20)
    refused = pytest.raises(RuntimeError, match="in a call of the transaction")
    with refused, pausing(cluster), signalled(producer.close):
        producer.commit_transaction()
    producer.close()
    assert values(cluster) == [b"v"]


def test_a_transactional_producer_without_threads_is_nothing_but_an_error():
    script = """
import gc, threading
from fastprod import Producer

def start(thread):
    raise RuntimeError("can't start new thread")

threading.Thread.start = start
for _ in range(3):
    try:
        Producer(bootstrap_servers="127.0.0.1:1", transactional_id="x")
    except RuntimeError as error:
        print(error)
    gc.collect()
"""
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "can't start new thread\n" * 3, "")


def test_close_from_another_thread_ends_a_commit_that_does_not_get_through(make, cluster):
    producer = make()
    producer.begin_transaction()
    producer.send(TOPIC, b"v").result(20)
    raised = []

    def commit():
        try:
            producer.commit_transaction(600)
        except ProducerClosedError as error:
            raised.append(str(error))

    with pausing(cluster):
        thread = threading.Thread(target=commit)
        thread.start()
        while not raised:
            try:
                producer.begin_transaction()
            except TransactionStateError as error:
                if "another thread" in str(error):
                    break
        producer.close(0.3)
        thread.join(30)
    assert "commit_transaction() was under way" in raised[0]
