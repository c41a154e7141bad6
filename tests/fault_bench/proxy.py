"""A TCP proxy before one broker that breaks connections as networks do."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from typing import TypeVar

T = TypeVar("T")

CHUNK = 64 * 1024  # bytes
QUEUED = 16  # chunks that one direction of a connection takes in before its sender feels that nothing moves


class _Cut(Exception):
    """This connection is to be reset here."""


class _Way:
    """One direction, over all connections: what is done to the bytes, and how many there were."""

    def __init__(self) -> None:
        self.open = asyncio.Event()  # clear: take bytes, forward none
        self.open.set()
        self.delay = 0.0  # seconds
        self.rate = 0  # bytes per second; 0: as fast as it goes
        self.swallowing = False
        self.left: int | None = None  # bytes until the cut
        self.forwarded = 0
        self.swallowed = 0


class FaultProxy:
    """Forwards connections from `port` to `upstream_port`, both on 127.0.0.1, and does harm on demand.

    Runs in a thread of its own, so that each method here is called from any other. Harm done to a way applies to the
    connections that are there and to those that come. Times are in seconds.
    """

    def __init__(self, upstream_port: int) -> None:
        self.upstream_port = upstream_port
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self._listener.setblocking(False)
        self.port: int = self._listener.getsockname()[1]
        self._connections: set[_Connection] = set()
        self._accepted = 0
        self._resets = 0
        self._loop = asyncio.new_event_loop()
        self._to_broker = _Way()
        self._to_client = _Way()
        self._thread = threading.Thread(target=self._run, name=f"proxy-{self.port}", daemon=True)
        self._thread.start()

    def __enter__(self) -> FaultProxy:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Resets all connections and frees the port."""
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()

    @property
    def connections(self) -> int:
        """How many are open."""
        return len(self._connections)

    @property
    def accepted(self) -> int:
        """How many there were."""
        return self._accepted

    @property
    def resets(self) -> int:
        """How many this proxy has reset."""
        return self._resets

    @property
    def forwarded(self) -> tuple[int, int]:
        """Bytes to the broker, bytes to the client."""
        return self._to_broker.forwarded, self._to_client.forwarded

    @property
    def swallowed(self) -> int:
        """Bytes of responses that no client saw."""
        return self._to_client.swallowed

    def reset(self) -> int:
        """Resets all connections (RST to both sides) and returns how many."""
        return self._call(self._reset)

    def forget(self) -> int:
        """Forgets all connections, as a VIP does with idle ones: no end notices, and the one that writes next is reset.

        Returns how many.
        """
        return self._call(lambda: self._mark("forgotten"))

    def silence(self) -> int:
        """Swallows what the broker answers on the connections that are there, which stay open. Returns how many."""
        return self._call(lambda: self._mark("silenced"))

    def cut_after(self, count: int) -> None:
        """Lets `count` more bytes pass to the broker, then resets the connection that the next one comes on. Once."""

        def set_left() -> None:
            self._to_broker.left = count

        self._call(set_left)

    @contextlib.contextmanager
    def stalled(self) -> Iterator[None]:
        """While in the block: takes bytes in both directions and forwards none; connections stay open."""

        def stall(yes: bool) -> None:
            for way in (self._to_broker, self._to_client):
                if yes:
                    way.open.clear()
                else:
                    way.open.set()

        self._call(lambda: stall(True))
        try:
            yield
        finally:
            self._call(lambda: stall(False))

    @contextlib.contextmanager
    def slowed(self, to_broker: float = 0.0, to_client: float = 0.0, rate: int = 0) -> Iterator[None]:
        """While in the block: delays each direction, and forwards at most `rate` bytes per second to the broker."""

        def slow(there: float, back: float, bytes_per_second: int) -> None:
            self._to_broker.delay, self._to_client.delay, self._to_broker.rate = there, back, bytes_per_second

        self._call(lambda: slow(to_broker, to_client, rate))
        try:
            yield
        finally:
            self._call(lambda: slow(0.0, 0.0, 0))

    @contextlib.contextmanager
    def losing_responses(self) -> Iterator[None]:
        """While in the block: what the broker answers is swallowed. At its end all connections are reset.

        The broker does what it is asked, and the client never hears of it. A connection that lost bytes must not go on:
        its next response would follow half of another.
        """

        def lose(yes: bool) -> None:
            self._to_client.swallowing = yes
            if not yes:
                self._reset()

        self._call(lambda: lose(True))
        try:
            yield
        finally:
            self._call(lambda: lose(False))

    def _call(self, function: Callable[[], T]) -> T:
        """Runs `function` in the proxy's thread, to which all state belongs."""
        done: Future[T] = Future()

        def call() -> None:
            try:
                done.set_result(function())
            except BaseException as error:
                done.set_exception(error)

        self._loop.call_soon_threadsafe(call)
        return done.result(30)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.add_reader(self._listener, self._accept)
        try:
            self._loop.run_forever()
        finally:
            self._loop.remove_reader(self._listener)
            self._listener.close()
            self._reset()
            serving = [connection.task for connection in self._connections]
            self._loop.run_until_complete(asyncio.gather(*serving, return_exceptions=True))
            self._loop.close()

    def _accept(self) -> None:
        try:
            client, _ = self._listener.accept()
        except (BlockingIOError, ConnectionAbortedError):  # who came has gone already
            return
        client.setblocking(False)
        self._accepted += 1
        connection = _Connection(client, self._loop, self.upstream_port, self._to_broker, self._to_client)
        self._connections.add(connection)
        connection.task.add_done_callback(functools.partial(self._ended, connection))

    def _ended(self, connection: _Connection, task: asyncio.Task[None]) -> None:
        self._connections.discard(connection)
        self._resets += connection.was_reset

    def _reset(self) -> int:
        for connection in self._connections:
            connection.reset()
        return len(self._connections)

    def _mark(self, harm: str) -> int:
        for connection in self._connections:
            setattr(connection, harm, True)
        return len(self._connections)


class _Connection:
    """A client's connection and the one to the broker made for it. Ends with either, in the same way."""

    def __init__(
        self,
        client: socket.socket,
        loop: asyncio.AbstractEventLoop,
        upstream_port: int,
        to_broker: _Way,
        to_client: _Way,
    ) -> None:
        self.was_reset = False
        self.forgotten = False  # the next chunk, of either side, resets it
        self.silenced = False  # chunks to the client are swallowed
        self._ending = False
        self._client = client
        self._broker = socket.socket()
        self._broker.setblocking(False)
        for side in (self._client, self._broker):
            side.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.task = loop.create_task(self._serve(upstream_port, to_broker, to_client))
        self.task.add_done_callback(self._close)  # not in the task, which a reset may end before it has begun

    def reset(self) -> None:
        """Ends the connection with an RST to both sides."""
        if not self._ending:
            self._abort()
            self.task.cancel()

    def _abort(self) -> None:
        self.was_reset = True
        for side in (self._client, self._broker):
            # A linger of 0 s: close() sends RST and drops what is unsent.
            side.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    async def _serve(self, upstream_port: int, to_broker: _Way, to_client: _Way) -> None:
        loop = asyncio.get_running_loop()
        pumps: list[asyncio.Task[None]] = []
        try:
            await loop.sock_connect(self._broker, ("127.0.0.1", upstream_port))
            pumps.append(loop.create_task(self._pump(self._client, self._broker, to_broker)))
            pumps.append(loop.create_task(self._pump(self._broker, self._client, to_client)))
            done, _ = await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
            for pump in done:
                pump.result()
        except (OSError, _Cut):
            self._abort()
        finally:
            self._ending = True  # a reset that came now would cut short what follows
            for pump in pumps:
                pump.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)

    async def _pump(self, source: socket.socket, sink: socket.socket, way: _Way) -> None:
        """Forwards one direction of one connection. Returns when the source has ended; raises OSError, _Cut."""
        # Reading goes on while what came before waits for its time: a delay must not become a limit of the rate.
        chunks: asyncio.Queue[tuple[float, bytes | OSError]] = asyncio.Queue(QUEUED)
        reader = asyncio.get_running_loop().create_task(_read(source, chunks, way))
        try:
            while True:
                due, chunk = await chunks.get()
                if (wait := due - asyncio.get_running_loop().time()) > 0:
                    await asyncio.sleep(wait)
                await way.open.wait()
                if isinstance(chunk, OSError):
                    raise chunk
                if not chunk:
                    return
                if self.forgotten:
                    raise _Cut
                if self.silenced and sink is self._client:
                    way.swallowed += len(chunk)
                    continue
                await _forward(chunk, sink, way)
        finally:
            reader.cancel()
            await asyncio.gather(reader, return_exceptions=True)  # before the socket it waits for is closed

    def _close(self, task: asyncio.Task[None]) -> None:
        self._client.close()
        self._broker.close()


async def _read(source: socket.socket, chunks: asyncio.Queue[tuple[float, bytes | OSError]], way: _Way) -> None:
    """Puts what the source sends into the queue, each chunk with the time it is due; then its end or its error."""
    loop = asyncio.get_running_loop()
    chunk: bytes | OSError = b"-"
    while chunk and not isinstance(chunk, OSError):
        try:
            chunk = await loop.sock_recv(source, CHUNK)
        except OSError as error:
            chunk = error
        await chunks.put((loop.time() + way.delay, chunk))


async def _forward(chunk: bytes, sink: socket.socket, way: _Way) -> None:
    loop = asyncio.get_running_loop()
    while chunk:
        if way.swallowing:
            way.swallowed += len(chunk)
            return
        rate = way.rate
        piece = chunk[: max(1, rate // 50)] if rate else chunk
        if way.left is not None and len(piece) > way.left:
            cut, way.left = way.left, None
            way.forwarded += cut
            await loop.sock_sendall(sink, piece[:cut])
            raise _Cut
        if way.left is not None:
            way.left -= len(piece)
        # Counted first: who has received a byte finds it counted.
        way.forwarded += len(piece)
        await loop.sock_sendall(sink, piece)
        chunk = chunk[len(piece) :]
        if rate:
            await asyncio.sleep(len(piece) / rate)
