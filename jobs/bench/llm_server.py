"""A model server on loop-back in a process of its own, for the bench of the client.

It has so many slots, each busy for a fixed time with a request. Requests beyond them wait in line
(as vLLM and llama-server let them) or are refused with 429; a share of all can fail in the ways of
real servers.
"""

import asyncio
import multiprocessing
import random
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from typing import NamedTuple

from aiohttp import web

LARGEST_BODY = 1 << 26
BUSY = "no slot is free"
_ANSWER = {
    "model": "bench",
    "choices": [{"message": {"content": "word " * 100}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 250, "completion_tokens": 100},
}
# The share of requests that meets each fault.
MIXED = {"429": 0.025, "429 at once": 0.025, "500": 0.03, "hang": 0.02, "html": 0.01, "reset": 0.01}


class Server(NamedTuple):
    """What a server can do: slots, seconds a request takes, and what happens beyond."""

    slots: int
    seconds: float
    refuses: bool = False
    faulty: bool = False


@contextmanager
def running(server: Server) -> Iterator[str]:
    """Start a server; yields its base URL."""
    spawned = multiprocessing.get_context("spawn")
    here, there = spawned.Pipe()
    process = spawned.Process(target=_main, args=(server, there), daemon=True)
    process.start()
    try:
        yield f"http://127.0.0.1:{here.recv()}/v1"
    finally:
        process.terminate()
        process.join()


def _main(server: Server, parent: Connection) -> None:
    asyncio.run(_serve(server, parent))


async def _serve(server: Server, parent: Connection) -> None:
    free = asyncio.Semaphore(server.slots)
    rng = random.Random(0)

    async def answer(request: web.Request) -> web.StreamResponse:
        await request.read()
        if server.refuses and free.locked():
            return web.json_response({"error": {"message": BUSY}}, status=429)
        fault = _fault(rng) if server.faulty else ""
        if fault == "hang":
            await asyncio.sleep(3600)
        async with free:
            await asyncio.sleep(server.seconds)
        return _reply(request, fault)

    app = web.Application(client_max_size=LARGEST_BODY)
    app.router.add_post("/v1/chat/completions", answer)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    parent.send(runner.addresses[0][1])
    await asyncio.Event().wait()


def _fault(rng: random.Random) -> str:
    draw = rng.random()
    for name, share in MIXED.items():
        if draw < share:
            return name
        draw -= share
    return ""


def _reply(request: web.Request, fault: str) -> web.StreamResponse:
    if fault == "reset" and request.transport is not None:
        request.transport.abort()
    if fault == "html":
        return web.Response(text="<html></html>", content_type="text/html")
    if fault:
        headers = {"Retry-After": "0"} if fault == "429 at once" else {}
        status = 500 if fault == "500" else 429
        return web.json_response({"error": {"message": fault}}, status=status, headers=headers)
    return web.json_response(_ANSWER)
