"""A server that sends whatever bytes a test wants as its HTTP reply, broken ones included."""

import asyncio
import contextlib
import json
import threading
from collections.abc import Callable
from typing import Any


class RawServer:
    """Answers each request with the bytes that `reply` makes of its body, then closes."""

    def __init__(self, reply: Callable[[dict[str, Any]], bytes]) -> None:
        self.bodies: list[dict[str, Any]] = []
        self._reply = reply
        self._started = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._main()), daemon=True)

    def __enter__(self) -> "RawServer":
        self._thread.start()
        assert self._started.wait(30), "the server of the test did not start"
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stopping.set)
        self._thread.join(30)

    async def _main(self) -> None:
        self._loop, self._stopping = asyncio.get_running_loop(), asyncio.Event()
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
        self._started.set()
        await self._stopping.wait()
        server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().casefold()
        (length,) = (
            int(line.partition(":")[2])
            for line in head.splitlines()
            if line.startswith("content-length")
        )
        body = json.loads(await reader.readexactly(length))
        self.bodies.append(body)
        writer.write(self._reply(body))
        with contextlib.suppress(ConnectionError):  # the client may have had enough
            await writer.drain()
        writer.close()


def said(text: str, **more: Any) -> bytes:
    """A whole reply with a text."""
    choice = {"message": {"content": text}, "finish_reason": "stop"}
    return http(200, json.dumps({"choices": [choice], **more}).encode())


def http(status: int, body: bytes, *headers: str, length: int | None = None) -> bytes:
    """A reply; `length` is what it claims instead of the truth."""
    claimed = len(body) if length is None else length
    lines = [f"HTTP/1.1 {status} X", f"Content-Length: {claimed}", "Connection: close", *headers]
    return "\r\n".join([*lines, "", ""]).encode() + body
