"""A server that is some milliseconds away: a port that hands on to it, later."""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from tests.redis_servers import free_port
from tests.support import patient


@contextmanager
def distant(socket: str, seconds: float) -> Iterator[int]:
    """Hand on to a server's socket, and back, each way after so many seconds. Yields the port to connect to."""
    loop, port, ready = asyncio.new_event_loop(), free_port(), threading.Event()

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while read := await reader.read(1 << 16):
                loop.call_later(seconds, writer.write, read)  # calls of one loop keep their order
        loop.call_later(seconds, writer.close)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        server_reader, server_writer = await asyncio.open_unix_connection(socket)
        await asyncio.gather(pump(reader, server_writer), pump(server_reader, writer))

    async def listen() -> None:
        async with await asyncio.start_server(serve, "127.0.0.1", port):
            ready.set()
            with suppress(asyncio.CancelledError):
                await asyncio.Event().wait()

    task = loop.create_task(listen())

    def run() -> None:
        loop.run_until_complete(task)
        for left in asyncio.all_tasks(loop):
            left.cancel()
        loop.run_until_complete(asyncio.sleep(2 * seconds))
        loop.close()

    thread = threading.Thread(target=run)
    thread.start()
    try:
        assert ready.wait(patient(10))
        yield port
    finally:
        loop.call_soon_threadsafe(task.cancel)
        thread.join()
