"""The proxy itself, before a server that sends back what it gets."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from tests.fault_bench.proxy import FaultProxy


class Echo:
    """Sends back what it gets, and counts."""

    def __init__(self) -> None:
        self.received = 0
        self.resets = 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                threading.Thread(target=self._echo, args=(connection,), daemon=True).start()

    def _echo(self, connection: socket.socket) -> None:
        with connection:
            try:
                while data := connection.recv(65536):
                    self.received += len(data)
                    connection.sendall(data)
            except ConnectionError:
                self.resets += 1


@pytest.fixture
def echo() -> Iterator[Echo]:
    server = Echo()
    yield server
    server.close()


@pytest.fixture
def proxy(echo: Echo) -> Iterator[FaultProxy]:
    with FaultProxy(echo.port) as made:
        yield made


def connect(proxy: FaultProxy) -> socket.socket:
    return socket.create_connection(("127.0.0.1", proxy.port), timeout=20)


def receive(connection: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count and (more := connection.recv(65536)):
        data += more
    return data


def wait_for(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.005)


def is_silent(connection: socket.socket, seconds: float = 0.2) -> bool:
    connection.settimeout(seconds)
    try:
        connection.recv(1)
    except TimeoutError:
        return True
    finally:
        connection.settimeout(20)
    return False


def test_bytes_pass_unchanged_both_ways(proxy: FaultProxy) -> None:
    data = bytes(range(256)) * 20_000
    with connect(proxy) as connection:
        threading.Thread(target=connection.sendall, args=(data,), daemon=True).start()
        assert receive(connection, len(data)) == data
    assert proxy.forwarded == (len(data), len(data))
    assert (proxy.accepted, proxy.resets) == (1, 0)


def test_the_end_of_a_client_reaches_the_server_and_frees_the_connection(proxy: FaultProxy, echo: Echo) -> None:
    with connect(proxy) as connection:
        connection.sendall(b"x")
        receive(connection, 1)
    wait_for(lambda: proxy.connections == 0, "the end of the connection")
    assert proxy.resets == 0


def test_reset_breaks_every_connection_on_both_sides(proxy: FaultProxy, echo: Echo) -> None:
    with connect(proxy) as one, connect(proxy) as two:
        for connection in (one, two):
            connection.sendall(b"x")
            assert receive(connection, 1) == b"x"
        assert proxy.reset() == 2
        for connection in (one, two):
            with pytest.raises(ConnectionResetError):
                connection.recv(1)
    wait_for(lambda: echo.resets == 2, "resets at the server")
    with connect(proxy) as after:
        after.sendall(b"y")
        assert receive(after, 1) == b"y"


def test_a_reset_breaks_connections_that_have_only_just_come(proxy: FaultProxy) -> None:
    """So young that the proxy has accepted them and done no more; hence many, while resets rain."""
    over = threading.Event()

    def rain() -> None:
        while not over.is_set():
            proxy.reset()

    raining = threading.Thread(target=rain)
    raining.start()
    left: list[socket.socket] = []
    try:
        for _ in range(200):
            with contextlib.suppress(ConnectionResetError):
                left.append(connect(proxy))
    finally:
        over.set()
        raining.join()
    wait_for(lambda: proxy.accepted == 200, "the last connection")
    proxy.reset()
    for connection in left:
        with connection, contextlib.suppress(ConnectionResetError):
            connection.settimeout(5)
            assert connection.recv(1) == b""
    assert left
    wait_for(lambda: proxy.connections == 0, "the end of all connections")


def test_a_stalled_proxy_takes_bytes_and_gives_them_on_afterwards(proxy: FaultProxy, echo: Echo) -> None:
    with connect(proxy) as connection:
        with proxy.stalled():
            connection.sendall(b"x" * 1000)
            assert is_silent(connection)
            assert echo.received == 0
        assert receive(connection, 1000) == b"x" * 1000


def test_a_delay_holds_back_both_directions_and_keeps_the_order(proxy: FaultProxy) -> None:
    with connect(proxy) as connection:
        with proxy.slowed(to_broker=0.15, to_client=0.1):
            began = time.monotonic()
            connection.sendall(b"first")
            time.sleep(0.05)
            connection.sendall(b"second")
            assert receive(connection, 11) == b"firstsecond"
            assert time.monotonic() - began >= 0.3
        connection.sendall(b"z")
        assert receive(connection, 1) == b"z"


def test_a_throttle_limits_bytes_per_second(proxy: FaultProxy) -> None:
    with connect(proxy) as connection, proxy.slowed(rate=100_000):
        began = time.monotonic()
        connection.sendall(b"x" * 30_000)
        assert len(receive(connection, 30_000)) == 30_000
        assert time.monotonic() - began >= 0.25


def test_lost_responses_were_still_asked_for_and_end_in_a_reset(proxy: FaultProxy, echo: Echo) -> None:
    with connect(proxy) as connection:
        with proxy.losing_responses():
            connection.sendall(b"x" * 100)
            wait_for(lambda: proxy.swallowed == 100, "swallowed bytes")
            assert echo.received == 100
            assert is_silent(connection, 0.05)
        with pytest.raises(ConnectionResetError):
            connection.recv(1)
    with connect(proxy) as after:
        after.sendall(b"y")
        assert receive(after, 1) == b"y"


def test_a_forgotten_connection_is_reset_by_the_next_to_write_and_not_before(proxy: FaultProxy, echo: Echo) -> None:
    with connect(proxy) as connection:
        connection.sendall(b"x")
        assert receive(connection, 1) == b"x"
        assert proxy.forget() == 1
        assert is_silent(connection)
        connection.sendall(b"y")
        with pytest.raises(ConnectionResetError):
            connection.recv(1)
    assert echo.received == 1
    with connect(proxy) as after:
        after.sendall(b"y")
        assert receive(after, 1) == b"y"


def test_a_silenced_connection_brings_requests_and_no_responses(proxy: FaultProxy, echo: Echo) -> None:
    with connect(proxy) as connection:
        connection.sendall(b"x")
        assert receive(connection, 1) == b"x"
        assert proxy.silence() == 1
        connection.sendall(b"y" * 100)
        wait_for(lambda: proxy.swallowed == 100, "swallowed bytes")
        with connect(proxy) as after:
            after.sendall(b"z")
            assert receive(after, 1) == b"z"
        assert is_silent(connection)
    assert (echo.received, proxy.resets) == (102, 0)


def test_a_cut_lets_so_many_bytes_pass_and_happens_once(proxy: FaultProxy, echo: Echo) -> None:
    proxy.cut_after(150)
    with connect(proxy) as connection:
        connection.sendall(b"x" * 100)
        assert receive(connection, 100) == b"x" * 100
        connection.sendall(b"x" * 100)
        with pytest.raises(ConnectionResetError):
            while connection.recv(100):
                pass
    assert proxy.forwarded[0] == 150
    with connect(proxy) as after:
        after.sendall(b"y" * 500)
        assert receive(after, 500) == b"y" * 500


def test_without_a_server_a_connection_is_reset(echo: Echo) -> None:
    echo.close()
    with FaultProxy(echo.port) as proxy, pytest.raises(ConnectionResetError), connect(proxy) as connection:
        connection.sendall(b"x")
        connection.recv(1)


def test_a_closed_proxy_lets_go_of_port_and_connections(proxy: FaultProxy) -> None:
    with connect(proxy) as connection:
        connection.sendall(b"x")
        receive(connection, 1)
        proxy.close()
        with pytest.raises(ConnectionResetError):
            connection.recv(1)
    with pytest.raises(ConnectionRefusedError):
        connect(proxy)
