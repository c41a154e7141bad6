"""Servers whose workers are patched by gevent or eventlet, under load: what was acknowledged is in the topic."""

import collections
import http.client
import itertools
import os
import signal
import socket
import subprocess
import sys
import threading
import time

import pytest
from confluent_kafka import Consumer, TopicPartition

from tests.conftest import PARTITIONS, QUICK, READER, TOPIC, eventually

pytestmark = [pytest.mark.mock, pytest.mark.slow]
WORKERS, CLIENTS = 4, 8
TIMEOUT_S = 120  # seconds

APPLICATION = f"""
import os
from fastprod import ForkedProducerError, Producer

QUICK = {QUICK!r}
options = {{"bootstrap.servers": os.environ["KAFKA"], **QUICK}}
made_on_import = Producer(options) if os.environ.get("PRELOADED") else None
producer = None

def application(environ, start_response):
    global producer
    if made_on_import is not None:
        try:
            made_on_import.send("{TOPIC}", b"forked")
        except ForkedProducerError:
            pass
    if producer is None:
        producer = Producer(options)
    future = producer.send("{TOPIC}", environ["QUERY_STRING"].encode())
    if environ["PATH_INFO"] == "/settled":
        future.result(60)
    pid = str(os.getpid()).encode()
    start_response("200 OK", [("Content-Length", str(len(pid))), ("Connection", "close")])
    return [pid]
"""

# Its handler raises nothing: Python drops what comes out of a __del__(), and eventlet's sockets have one.
EVENTLET_SERVER = """
import signal
stopping = []
signal.signal(signal.SIGTERM, lambda *_: stopping.append(True))
import eventlet; eventlet.monkey_patch()
import socket, sys
from eventlet import wsgi
from application import application

server = eventlet.spawn(wsgi.server, socket.socket(fileno=int(sys.argv[1])), application, log_output=False)
while not stopping:
    eventlet.sleep(0.05)
server.kill(SystemExit)
server.wait()
"""


@pytest.fixture
def listener():
    with socket.create_server(("127.0.0.1", 0), backlog=100) as listener:
        yield listener


class Load:
    """Clients that send numbered requests until nobody answers any more."""

    def __init__(self, port):
        self.port = port
        self.numbers = itertools.count()
        self.acknowledged = []
        self.servers = collections.Counter()
        self.over = False
        self.threads = [threading.Thread(target=self.run) for _ in range(CLIENTS)]

    def __enter__(self):
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self.over = True
        for thread in self.threads:
            thread.join()

    def run(self):
        while not self.over:
            number = next(self.numbers)
            connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)
            try:
                connection.request("GET", f"/{'settled' if number % 2 else 'sent'}?{number}")
                answer = connection.getresponse()
                body = answer.read()
                assert answer.status == 200, body
            except (OSError, http.client.HTTPException):
                time.sleep(0.01)
                continue
            finally:
                connection.close()
            self.acknowledged.append(number)
            self.servers[int(body)] += 1


def records(servers):
    """Every record of the topic, and how often it is there."""
    consumer = Consumer({"bootstrap.servers": servers, **READER})
    try:
        places = [TopicPartition(TOPIC, partition, 0) for partition in range(PARTITIONS)]
        stored = sum(consumer.get_watermark_offsets(place, timeout=20)[1] for place in places)
        consumer.assign(places)
        found, deadline = [], time.monotonic() + 60
        while len(found) < stored and time.monotonic() < deadline:
            found += consumer.consume(stored - len(found), 1)
    finally:
        consumer.close()
    return collections.Counter(int(message.value()) for message in found)


def check(cluster, load, processes, seconds):
    """Under load all get SIGTERM; they end within their time, and what they acknowledged is in the topic, once.

    All workers serve by then: gunicorn's workers lose a signal that comes while they start, and are killed later.
    """
    assert eventually(lambda: len(load.servers) == WORKERS, TIMEOUT_S), load.servers
    assert eventually(lambda: len(load.acknowledged) >= 400, TIMEOUT_S), (len(load.acknowledged), load.servers)
    asked = time.monotonic()
    for process in processes:
        process.send_signal(signal.SIGTERM)
    codes = [process.wait(TIMEOUT_S) for process in processes]
    took = time.monotonic() - asked
    load.over = True
    assert codes == [0] * len(processes)
    assert took < seconds
    found = records(cluster.bootstrap_servers)
    assert set(load.acknowledged) <= set(found)
    assert set(found.values()) == {1}


def start(cluster, tmp_path, listener, *arguments, **environment):
    (tmp_path / "application.py").write_text(APPLICATION)
    return subprocess.Popen(
        [sys.executable, "-W", "ignore", *arguments],
        cwd=tmp_path,
        env={**os.environ, "KAFKA": cluster.bootstrap_servers, **environment},
        pass_fds=[listener.fileno()],
    )


@pytest.mark.parametrize("preloaded", [False, True])
def test_gunicorn_with_gevent_workers_loses_nothing_when_it_ends_under_load(cluster, tmp_path, listener, preloaded):
    """preloaded: the application made a producer before the workers were forked, which must say so to them."""
    arguments = ["-m", "gunicorn", "-k", "gevent", "-w", WORKERS, "-b", f"fd://{listener.fileno()}"]
    arguments += ["--log-level", "warning", "--graceful-timeout", 30, *(["--preload"] if preloaded else [])]
    master = start(
        cluster, tmp_path, listener, *map(str, arguments), "application", **({"PRELOADED": "1"} if preloaded else {})
    )
    try:
        with Load(listener.getsockname()[1]) as load:
            check(cluster, load, [master], 30)
    finally:
        master.kill()
        master.wait()


def test_eventlet_servers_lose_nothing_when_they_end_under_load(cluster, tmp_path, listener):
    (tmp_path / "server.py").write_text(EVENTLET_SERVER)
    servers = [start(cluster, tmp_path, listener, "server.py", str(listener.fileno())) for _ in range(WORKERS)]
    try:
        with Load(listener.getsockname()[1]) as load:
            check(cluster, load, servers, 35)
    finally:
        for server in servers:
            server.kill()
            server.wait()
