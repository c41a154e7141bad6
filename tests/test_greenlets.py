"""gevent and eventlet, which replace threading: each script runs in a process of its own, patched."""

import subprocess
import sys
import textwrap

import pytest

from tests.conftest import QUICK

pytestmark = pytest.mark.mock
TIMEOUT_S = 120  # seconds after which a process counts as hung

PATCHES = {
    "gevent": "from gevent import monkey; monkey.patch_all()",
    "eventlet": "import eventlet; eventlet.monkey_patch()",
    "gevent, late": "import fastprod; from gevent import monkey; monkey.patch_all()",
    "eventlet, late": "import fastprod; import eventlet; eventlet.monkey_patch()",
    "gevent, threads only": "from gevent import monkey; monkey.patch_thread()",
    "eventlet, threads only": "import eventlet; eventlet.monkey_patch(all=False, thread=True)",
    "gevent, no threads": "from gevent import monkey; monkey.patch_all(thread=False)",
    "eventlet, no threads": "import eventlet; eventlet.monkey_patch(thread=False)",
    "gevent, no time": "from gevent import monkey; monkey.patch_all(time=False, select=False)",
    "eventlet, injected": "import eventlet; fastprod = eventlet.import_patched('fastprod')",
}
BOTH = ["gevent", "eventlet"]

PREAMBLE = """
import contextlib, os, signal, sys, threading, time
from fastprod import *
from fastprod.testing import MockCluster

spawn = (sys.modules.get("gevent") or sys.modules.get("eventlet")).spawn

@contextlib.contextmanager
def others_run(least=5):
    "Another greenlet gets on in the body, which waits for half a second."
    turns, over = [], []
    def turn():
        while not over:
            turns.append(1)
            time.sleep(0.01)
    spawn(turn)
    try:
        yield
    finally:
        over.append(1)
    assert len(turns) >= least, turns

def after(seconds, act):
    def later():
        time.sleep(seconds)
        act()
    spawn(later)
"""


def command(patch, script, *arguments):
    code = f"{PATCHES[patch]}\nQUICK = {QUICK!r}\n{PREAMBLE}\n{textwrap.dedent(script)}"
    return [sys.executable, "-W", "ignore", "-X", "faulthandler", "-c", code, *map(str, arguments)]


def run(patch, script, *arguments, quiet=True):
    """What the script printed; it must end well. quiet: and say nothing else, as gevent does of Ctrl-C."""
    ended = subprocess.run(command(patch, script, *arguments), capture_output=True, text=True, timeout=TIMEOUT_S)
    assert ended.returncode == 0, ended.stderr
    assert ended.stderr == "" or not quiet
    return ended.stdout


@pytest.mark.parametrize("patch", PATCHES)
def test_a_producer_works_whatever_is_patched_and_when(mock_cluster, topic, patch):
    script = """
        producer = Producer({"bootstrap.servers": sys.argv[1], **QUICK})
        outcomes = []
        future = producer.send(sys.argv[2], b"1", on_delivery=lambda *outcome: outcomes.append(outcome))
        assert future.result(30).offset >= 0
        assert producer.send_many(sys.argv[2], [b"2", b"3"]).result(30).count == 2
        producer.send(sys.argv[2], b"4")
        producer.flush(30)
        assert len(outcomes) == 1 and outcomes[0][1] is None, outcomes
        producer.close(30)
        try:
            producer.send(sys.argv[2], b"5")
        except ProducerClosedError:
            print("ok")
    """
    assert run(patch, script, mock_cluster.bootstrap_servers, topic) == "ok\n"


@pytest.mark.parametrize("patch", BOTH)
def test_other_greenlets_run_while_one_waits(patch):
    script = """
        with MockCluster(topics={"t": 1, "u": 1}, process=True) as cluster:
            producer = Producer(
                bootstrap_servers=cluster.bootstrap_servers, buffer_memory=20000, batch_size=1000)
            producer.send("t", b"warm").result(30)
            cluster.set_round_trip_time(-1, 500)
            with others_run():
                producer.send("t", b"result").result(30)
            with others_run():
                producer.send_many("t", [b"bulk"]).result(30)
            producer.send("t", b"flush")
            with others_run():
                producer.flush(30)
            with others_run():
                assert producer.partitions_for("u")
            with others_run():
                producer.wait_ready(30)
            with others_run():
                for _ in range(60):
                    producer.send("t", b"x" * 900)
            with others_run():
                producer.close(30)
        print("ok")
    """
    assert run(patch, script) == "ok\n"


@pytest.mark.parametrize("patch", BOTH)
def test_other_greenlets_run_while_a_transaction_waits(patch):
    script = """
        with MockCluster(topics={"t": 1}, process=True) as cluster:
            producer = Producer(bootstrap_servers=cluster.bootstrap_servers, transactional_id="x")
            cluster.set_round_trip_time(-1, 300)
            with others_run():
                producer.init_transactions(60)
            with producer.transaction():
                producer.send("t", b"1")
                refused = []
                def rival():
                    try:
                        producer.begin_transaction()
                    except TransactionStateError as error:
                        refused.append(error)
                after(0, rival)
                with others_run():
                    producer.commit_transaction(60)
                assert "another thread" in str(refused[0]), refused
                producer.begin_transaction()
            with others_run():
                producer.close(60)
        print("ok")
    """
    assert run(patch, script) == "ok\n"


@pytest.mark.parametrize("patch", BOTH)
def test_callbacks_may_wake_greenlets_and_log(mock_cluster, topic, patch):
    script = """
        import logging, queue, io
        class Slow(io.StringIO):           # whoever logs holds the handler's lock while others run
            def write(self, text):
                time.sleep(0.001)
                return super().write(text)
        logging.basicConfig(stream=Slow(), level=logging.INFO)
        producer = Producer({"bootstrap.servers": sys.argv[1], **QUICK})
        delivered, event = queue.Queue(), threading.Event()
        def on_delivery(metadata, error):
            logging.info("delivered %s", metadata)
            delivered.put(error)
        def log():
            while not event.is_set():
                logging.info("something else")
                time.sleep(0.001)          # else nobody else gets gevent's lock
        threads = [threading.Thread(target=log) for _ in range(5)]
        for thread in threads:
            thread.start()
        for _ in range(100):
            producer.send(sys.argv[2], b"x", on_delivery=on_delivery)
            time.sleep(0.001)
        for _ in range(100):
            assert delivered.get() is None
        producer.send(sys.argv[2], b"x").add_done_callback(lambda future: event.set())
        event.wait()
        for thread in threads:
            thread.join()
        producer.close(30)
        print("ok")
    """
    assert run(patch, script, mock_cluster.bootstrap_servers, topic) == "ok\n"


@pytest.mark.parametrize("patch", BOTH)
def test_many_greenlets_wait_for_memory_and_results_and_lose_nothing(mock_cluster, topic, patch):
    script = """
        producer = Producer({"bootstrap.servers": sys.argv[1], **QUICK}, buffer_memory=20000, batch_size=1000)
        offsets = []
        def work(number):
            def deeper(depth):             # stacks of different depth, which take each other's place
                if depth:
                    return deeper(depth - 1)
                for i in range(20):
                    future = producer.send(sys.argv[2], b"x" * 500)
                    if i % 5 == 0:
                        metadata = future.result(60)
                        offsets.append((metadata.partition, metadata.offset))
                    elif i % 7 == 0:
                        producer.flush(60)
            deeper(number % 30)
        threads = [threading.Thread(target=work, args=(number,)) for number in range(100)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        producer.flush(60)
        assert len(set(offsets)) == 400, len(set(offsets))
        assert producer.metrics()["record-send-total"] == 2000
        assert producer.buffer_available == 20000
        producer.close(30)
        print("ok")
    """
    assert run(patch, script, mock_cluster.bootstrap_servers, topic) == "ok\n"


WAITS = {
    "result": "producer.send('t', b'x').result()",
    "flush": "producer.send('t', b'x'); producer.flush()",
    "metadata": "producer.partitions_for('unheard-of')",
    "memory": "[producer.send('t', b'x' * 900) for _ in range(100)]",
    "close": "producer.send('t', b'x'); producer.close()",
}


@pytest.mark.parametrize("wait", WAITS)
@pytest.mark.parametrize("patch", BOTH)
def test_ctrl_c_ends_every_wait(patch, wait):
    script = f"""
        with MockCluster(topics={{"t": 1}}, process=True) as cluster:
            producer = Producer({{"bootstrap.servers": cluster.bootstrap_servers, **QUICK}},
                                buffer_memory=20000, batch_size=1000)
            producer.send("t", b"warm").result(30)
            os.kill(cluster.pid, signal.SIGSTOP)
            time.sleep(0.5)                # until its last thread has stopped
            try:
                signal.setitimer(signal.ITIMER_REAL, 0.3)
                signal.signal(signal.SIGALRM, lambda *_: signal.raise_signal(signal.SIGINT))
                started = time.monotonic()
                try:
                    {WAITS[wait]}
                except KeyboardInterrupt:
                    assert time.monotonic() - started < 20
                    print("interrupted")
            finally:
                os.kill(cluster.pid, signal.SIGCONT)
            producer.close(30)
    """
    assert run(patch, script, quiet=False) == "interrupted\n"


def test_ctrl_c_comes_out_of_a_constructor_whose_threads_do_not_start():
    script = """
import signal, threading, time
threading.Thread.start = lambda thread: time.sleep(1000)   # as what replaces threading may do
from fastprod import Producer
signal.setitimer(signal.ITIMER_REAL, 1)
signal.signal(signal.SIGALRM, signal.default_int_handler)
try:
    Producer(bootstrap_servers="127.0.0.1:1")
except KeyboardInterrupt:
    print("interrupted")
"""
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=TIMEOUT_S)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "interrupted\n", "")


@pytest.mark.parametrize("patch", BOTH)
def test_ctrl_c_in_a_callback_reaches_the_main_greenlet(mock_cluster, topic, patch):
    script = """
        producer = Producer({"bootstrap.servers": sys.argv[1], **QUICK})
        def on_delivery(metadata, error):
            signal.raise_signal(signal.SIGINT)
        outcomes = []
        try:
            producer.send(sys.argv[2], b"x", on_delivery=on_delivery)
            time.sleep(60)
        except KeyboardInterrupt:
            producer.send(sys.argv[2], b"x", on_delivery=lambda *outcome: outcomes.append(outcome))
            producer.close(30)
            assert len(outcomes) == 1
            print("interrupted")
    """
    assert run(patch, script, mock_cluster.bootstrap_servers, topic, quiet=False) == "interrupted\n"


IN_HUB = {
    "gevent": "gevent.get_hub().loop.run_callback(act)",
    "eventlet": "eventlet.hubs.get_hub().schedule_call_global(0, act)",
}


@pytest.mark.parametrize("call", ["future.result(30)", "producer.flush(30)", "producer.close(30)"])
@pytest.mark.parametrize("patch", BOTH)
def test_what_waits_in_the_hub_itself_does_not_hang(mock_cluster, topic, patch, call):
    script = f"""
        import {patch}
        producer = Producer({{"bootstrap.servers": sys.argv[1], **QUICK}})
        outcomes, done = [], []
        def act():
            future = producer.send(sys.argv[2], b"x", on_delivery=lambda *outcome: outcomes.append(outcome))
            {call}
            done.append(1)
        producer.send(sys.argv[2], b"warm").result(30)
        {IN_HUB[patch]}
        deadline = time.monotonic() + 60
        while not outcomes and time.monotonic() < deadline:
            time.sleep(0.01)
        assert done and len(outcomes) == 1, (done, outcomes)
        producer.close(30)
        print("ok")
    """
    assert run(patch, script, mock_cluster.bootstrap_servers, topic) == "ok\n"


@pytest.mark.parametrize("patch", BOTH)
def test_two_greenlets_may_close_at_once_and_both_wait(patch):
    script = """
        with MockCluster(topics={"t": 1}, process=True) as cluster:
            producer = Producer(bootstrap_servers=cluster.bootstrap_servers)
            producer.send("t", b"warm").result(30)
            cluster.set_round_trip_time(-1, 300)
            future = producer.send("t", b"x")
            closed = []
            def close():
                producer.close(30)
                closed.append(future.done())
            threads = [threading.Thread(target=close) for _ in range(3)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            assert closed == [True] * 3, closed
        print("ok")
    """
    assert run(patch, script) == "ok\n"


@pytest.mark.parametrize("patch", BOTH)
def test_a_forked_child_is_refused_and_runs_no_callback_of_the_parents(mock_cluster, topic, patch):
    script = """
        producer = Producer({"bootstrap.servers": sys.argv[1], **QUICK}, linger_ms=300)
        outcomes = []
        producer.send(sys.argv[2], b"x", on_delivery=lambda *outcome: outcomes.append(os.getpid()))
        waiting = producer.send(sys.argv[2], b"x")
        outcome = []
        def wait():
            try:
                waiting.result()
                outcome.append("settled")
            except ForkedProducerError:
                outcome.append("forked")
        spawn(wait)
        time.sleep(0.01)
        child = os.fork()
        if not child:
            try:
                producer.send(sys.argv[2], b"x")
                os._exit(1)
            except ForkedProducerError:
                pass
            own = Producer({"bootstrap.servers": sys.argv[1], **QUICK})
            own.send(sys.argv[2], b"y", on_delivery=lambda *outcome: outcomes.append("own")).result(30)
            own.close(30)
            deadline = time.monotonic() + 20
            while not outcome and time.monotonic() < deadline:
                time.sleep(0.01)
            time.sleep(0.4)                # longer than linger.ms of the parent's producer
            os._exit(0 if outcomes == ["own"] and outcome == ["forked"] else 2)
        assert os.waitpid(child, 0)[1] == 0
        producer.flush(30)
        assert outcomes == [os.getpid()] and outcome == ["settled"], (outcomes, outcome)
        producer.close(30)
        print("ok")
    """
    assert run(patch, script, mock_cluster.bootstrap_servers, topic) == "ok\n"


@pytest.mark.parametrize("patch", BOTH)
def test_exit_without_close_delivers_everything(mock_cluster, topic, patch):
    script = """
        producer = Producer({"bootstrap.servers": sys.argv[1], **QUICK}, linger_ms=2000)
        outcomes = []
        for _ in range(1000):
            producer.send(sys.argv[2], b"x", on_delivery=lambda *outcome: outcomes.append(outcome) or (
                len(outcomes) == 1000 and print("all", flush=True)))
    """
    assert run(patch, script, mock_cluster.bootstrap_servers, topic) == "all\n"


@pytest.mark.parametrize("patch", BOTH)
def test_a_token_provider_may_wait_as_greenlets_do(patch):
    script = """
        asked, answered = threading.Event(), threading.Event()
        def provider(config):
            asked.set()
            answered.wait()
            raise RuntimeError("no token today")
        producer = Producer(
            bootstrap_servers="127.0.0.1:1", security_protocol="SASL_SSL", sasl_mechanism="OAUTHBEARER",
            sasl_oauthbearer_token_provider=provider)
        asked.wait()
        answered.set()
        try:
            with others_run(1):
                producer.wait_ready(60)
        except AuthenticationError as error:
            assert "no token today" in str(error)
            print("ok")
        producer.close(10)
    """
    assert run(patch, script) == "ok\n"


@pytest.mark.parametrize("patch", BOTH)
def test_a_producer_made_in_a_thread_of_the_systems_outlives_that_thread(mock_cluster, topic, patch):
    script = """
        def make():
            return Producer({"bootstrap.servers": sys.argv[1], **QUICK})
        if "gevent" in sys.modules:
            import gevent
            producer = gevent.get_hub().threadpool.apply(make)
        else:
            from eventlet import tpool
            producer = tpool.execute(make)
            tpool.killall()
        outcomes = []
        producer.send(sys.argv[2], b"x", on_delivery=lambda *outcome: outcomes.append(outcome)).result(30)
        producer.flush(30)
        assert len(outcomes) == 1
        producer.close(30)
        print("ok")
    """
    assert run(patch, script, mock_cluster.bootstrap_servers, topic) == "ok\n"
