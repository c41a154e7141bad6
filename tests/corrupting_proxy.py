"""A TCP proxy before a Kafka broker that corrupts the answers to requests of one kind."""

from __future__ import annotations

import contextlib
import random
import socket
import struct
import threading
from collections.abc import Callable

from fastprod.testing import API_KEYS

METADATA = API_KEYS["Metadata"]


def random_body(frame: bytes) -> bytes:
    return frame[:8] + random.Random(1).randbytes(len(frame) - 8)


def random_correlation_id(frame: bytes) -> bytes:
    return frame[:4] + b"\x5a\x5a\x5a\x5a" + frame[8:]


def nothing_but_random_bytes(frame: bytes) -> bytes:
    return random.Random(2).randbytes(1000)


def length_of_2_gib(frame: bytes) -> bytes:
    return struct.pack(">i", 2**31 - 1) + frame[4:]


def negative_length(frame: bytes) -> bytes:
    return struct.pack(">i", -1) + frame[4:]


def length_of_zero(frame: bytes) -> bytes:
    return struct.pack(">i", 0) + frame[4:]


def length_too_short(frame: bytes) -> bytes:
    return struct.pack(">i", len(frame) - 4 - 3) + frame[4:]


def empty_body(frame: bytes) -> bytes:
    return struct.pack(">i", 4) + frame[4:8]


def junk_behind(frame: bytes) -> bytes:
    return struct.pack(">i", len(frame) - 4 + 50) + frame[4:] + b"\xff" * 50


def sent_twice(frame: bytes) -> bytes:
    return frame + frame


def cut_short(frame: bytes) -> bytes:
    """The rest never comes, for the connection ends."""
    return frame[: len(frame) // 2]


def an_http_answer(frame: bytes) -> bytes:
    return b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n"


KINDS: list[Callable[[bytes], bytes]] = [
    random_body,
    random_correlation_id,
    nothing_but_random_bytes,
    length_of_2_gib,
    negative_length,
    length_of_zero,
    length_too_short,
    empty_body,
    junk_behind,
    sent_twice,
    cut_short,
    an_http_answer,
]
_ENDS_THE_CONNECTION = {cut_short, an_http_answer}


class CorruptingProxy:
    """Forwards connections from `port` to `upstream_port`, both on 127.0.0.1; clients hear of no other port.

    A context manager. corrupt_next() says which answers are corrupted, and `corrupted` counts them.
    """

    def __init__(self, upstream_port: int) -> None:
        self.upstream_port = upstream_port
        self.corrupted = 0
        self._lock = threading.Lock()
        self._api_key, self._kind, self._left = -1, random_body, 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._sockets: set[socket.socket] = set()
        self._closed = False
        threading.Thread(target=self._accept, daemon=True).start()

    def corrupt_next(self, request: str, kind: Callable[[bytes], bytes], count: int) -> None:
        """The next answers to requests of that name, `count` of them, are made into what kind(frame) gives."""
        with self._lock:
            self._api_key, self._kind, self._left, self.corrupted = API_KEYS[request], kind, count, 0

    def __enter__(self) -> CorruptingProxy:
        return self

    def __exit__(self, *exc: object) -> None:
        self._closed = True
        # An accept() that waits would outlive a bare close().
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
            pass
        self._listener.close()
        for one in list(self._sockets):
            _end(one)

    def _accept(self) -> None:
        while not self._closed:
            client, _ = self._listener.accept()
            if self._closed:
                client.close()
                return
            try:
                broker = socket.create_connection(("127.0.0.1", self.upstream_port))
            except OSError:
                client.close()
                continue
            asked: dict[bytes, int] = {}  # correlation id -> API key
            self._sockets |= {client, broker}
            for source, sink, ours in ((client, broker, self._request), (broker, client, self._answer)):
                threading.Thread(target=self._pump, args=(source, sink, ours, asked), daemon=True).start()

    def _pump(
        self,
        source: socket.socket,
        sink: socket.socket,
        change: Callable[[bytes, dict[bytes, int]], tuple[bytes, bool]],
        asked: dict[bytes, int],
    ) -> None:
        try:
            with source.makefile("rb") as stream:
                while head := stream.read(4):
                    frame, ends = change(head + stream.read(*struct.unpack(">i", head)), asked)
                    sink.sendall(frame)
                    if ends:
                        break
        except (OSError, ValueError, struct.error):
            pass
        finally:
            for one in (source, sink):
                self._sockets.discard(one)
                _end(one)

    def _request(self, frame: bytes, asked: dict[bytes, int]) -> tuple[bytes, bool]:
        asked[frame[8:12]] = struct.unpack(">h", frame[4:6])[0]
        return frame, False

    def _answer(self, frame: bytes, asked: dict[bytes, int]) -> tuple[bytes, bool]:
        api_key = asked.pop(frame[4:8], -1)
        if api_key == METADATA:
            host = b"127.0.0.1"
            frame = frame.replace(host + struct.pack(">i", self.upstream_port), host + struct.pack(">i", self.port))
        with self._lock:
            if api_key != self._api_key or self._left == 0:
                return frame, False
            self._left -= 1
            self.corrupted += 1
            kind = self._kind
        return kind(frame), kind in _ENDS_THE_CONNECTION


def _end(one: socket.socket) -> None:
    with contextlib.suppress(OSError):
        one.shutdown(socket.SHUT_RDWR)
    one.close()
