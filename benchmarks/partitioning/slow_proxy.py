"""Stands before a broker and makes it slow, as KIP-794's experiment did: a pause before each answer to Produce."""

import asyncio
import struct
import threading

PRODUCE = 0  # Kafka's number of the request


class SlowProxy:
    """Forwards connections from `port` to `upstream_port`, both on 127.0.0.1.

    Each response to a Produce request is held back for `delay` s, and what follows it on the same connection waits
    behind it: a broker does not begin with a connection's next request before the last is answered. A context manager.
    """

    def __init__(self, upstream_port: int, delay: float) -> None:
        self.upstream_port = upstream_port
        self.delay = delay
        self.delayed = 0  # responses
        self._loop = asyncio.new_event_loop()
        self._server = self._loop.run_until_complete(asyncio.start_server(self._serve, "127.0.0.1", 0))
        self.port: int = self._server.sockets[0].getsockname()[1]
        self._thread = threading.Thread(target=self._loop.run_forever, name=f"slow-{self.port}", daemon=True)
        self._thread.start()

    def __enter__(self) -> "SlowProxy":
        return self

    def __exit__(self, *exc: object) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.run_until_complete(self._end())
        self._loop.close()

    async def _end(self) -> None:
        self._server.close()
        serving = asyncio.all_tasks() - {asyncio.current_task()}
        for task in serving:
            task.cancel()
        await asyncio.gather(*serving, return_exceptions=True)

    async def _serve(self, client: asyncio.StreamReader, to_client: asyncio.StreamWriter) -> None:
        to_broker = None
        try:
            broker, to_broker = await asyncio.open_connection("127.0.0.1", self.upstream_port)
            produces: set[int] = set()  # correlation ids that are not answered yet
            ways = [self._requests(client, to_broker, produces), self._responses(broker, to_client, produces)]
            await asyncio.wait(map(asyncio.ensure_future, ways), return_when=asyncio.FIRST_COMPLETED)
        finally:
            to_client.close()
            if to_broker is not None:
                to_broker.close()

    async def _requests(self, client: asyncio.StreamReader, broker: asyncio.StreamWriter, produces: set[int]) -> None:
        while frame := await _frame(client):
            api_key, _version, correlation_id = struct.unpack_from(">hhi", frame, 4)
            if api_key == PRODUCE:
                produces.add(correlation_id)
            broker.write(frame)

    async def _responses(self, broker: asyncio.StreamReader, client: asyncio.StreamWriter, produces: set[int]) -> None:
        while frame := await _frame(broker):
            (correlation_id,) = struct.unpack_from(">i", frame, 4)
            if correlation_id in produces:
                produces.remove(correlation_id)
                await asyncio.sleep(self.delay)
                self.delayed += 1
            client.write(frame)


async def _frame(source: asyncio.StreamReader) -> bytes:
    """A request or response with its length before it; empty at the end of the connection."""
    try:
        head = await source.readexactly(4)
        return head + await source.readexactly(int.from_bytes(head, "big"))
    except (asyncio.IncompleteReadError, ConnectionError):
        return b""
