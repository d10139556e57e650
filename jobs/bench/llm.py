"""The client of language models against a server on loop-back: its own cost, and the server's use.

    python -m jobs.bench.llm [--requests N] [--write]

CPU of the client's process for a request (the loop, the cache and the caller together), beside a
bare aiohttp client; and requests a second beside the most that the server can do, where it lets
requests wait, where it refuses them, and where it fails in every way. Exit code 1 when a request
costs 2 ms of CPU or more, or a server that lets requests wait is used by less than 0.9.
"""

import argparse
import asyncio
import json
import random
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import aiohttp

from jobs.bench.llm_server import BUSY, Server, running
from jobs.bench.report import table, write_section
from longctx.llm.cache import Cache, NullCache
from longctx.llm.cache_shards import ShardCache
from longctx.llm.cache_sqlite import SQLiteCache
from longctx.llm.client import Client
from longctx.llm.openai import OpenAICompat, OpenAISettings
from longctx.llm.settings import ClientSettings
from longctx.llm.types import Answer, AttemptError, GenRequest

SHORT, LONG = 1_000, 256_000  # characters of a prompt; the longer one is about 64k tokens
MOST_CPU_MS, LEAST_SHARE = 2.0, 0.9
TITLE = "The client of language models"


class Run(NamedTuple):
    """One measurement: requests, seconds of the wall and of the client's CPU, rejects.

    `limit` is how many requests may be in flight at the end, `steady` the attempts that ended in a
    second in the middle of the run: without its first tenth and its last, which waits for back-off.
    """

    name: str
    requests: int
    wall_s: float
    cpu_s: float
    rejected: int = 0
    limit: int | None = None
    steady: float = 0.0

    @property
    def cpu_ms(self) -> float:
        return 1000 * self.cpu_s / self.requests


class Watched(OpenAICompat):
    """The backend, with the times at which attempts ended that a slot has worked on."""

    ended: list[float]

    async def attempt(self, req: GenRequest, key: str) -> Answer:
        try:
            answer = await super().attempt(req, key)
        except AttemptError as error:
            if error.message != BUSY:
                self.ended.append(time.monotonic())
            raise
        self.ended.append(time.monotonic())
        return answer


def steady(ended: list[float]) -> float:
    """Ends a second, between the first tenth of them and the last."""
    first, last = (int(q * (len(ended) - 1)) for q in (0.1, 0.9))
    return (last - first) / (ended[last] - ended[first])


def prompts(n: int, characters: int) -> list[GenRequest]:
    """Requests with prompts of their own."""
    filler = "some text that fills the prompt. " * (characters // 33 + 1)
    return [
        GenRequest(
            request_id=str(i),
            messages=[{"role": "user", "content": f"{i} {filler[:characters]}"}],
            max_tokens=200,
            system="bench",
            stage="answer",
            row_id=str(i),
        )
        for i in range(n)
    ]


def timed(name: str, n: int, work: Callable[[], Any]) -> tuple[Run, Any]:
    wall, cpu = time.monotonic(), time.process_time()
    found = work()
    return Run(name, n, time.monotonic() - wall, time.process_time() - cpu), found


def ours(
    name: str,
    url: str,
    reqs: Sequence[GenRequest],
    cache: Cache | None = None,
    *,
    in_flight: int = 32,
    twice: bool = False,
) -> list[Run]:
    """The client on some requests; with `twice` once more, out of the cache."""
    backend = Watched(OpenAISettings(base_url=url, model="bench", read_s=2.0), in_flight)
    settings = ClientSettings(in_flight=in_flight)
    with Client(backend, cache, settings, rng=random.Random(0)) as client:
        backend.ended = []
        client.generate(prompts(1, 10))  # opens the session
        runs = []
        for label in (name, f"{name}, again") if twice else (name,):
            run, results = timed(label, len(reqs), lambda: client.generate(reqs))
            rejected = sum(r.error is not None for r in results)
            limit, rate = client.limiter.limit, steady(backend.ended)
            runs.append(run._replace(rejected=rejected, limit=limit, steady=rate))
    return runs


def bare(name: str, url: str, reqs: Sequence[GenRequest], in_flight: int) -> Run:
    """The same posts by aiohttp alone: no key, no cache, nothing looked at but the status."""

    ended: list[float] = []

    async def ask() -> None:
        free = asyncio.Semaphore(in_flight)
        connector = aiohttp.TCPConnector(limit=in_flight)
        async with aiohttp.ClientSession(connector=connector) as session:

            async def one(req: GenRequest) -> None:
                body = {"model": "bench", "messages": list(req.messages), "max_tokens": 200}
                async with (
                    free,
                    session.post(f"{url}/chat/completions", data=json.dumps(body)) as reply,
                ):
                    await reply.json()
                ended.append(time.monotonic())

            await asyncio.gather(*(one(r) for r in reqs))

    run, _ = timed(name, len(reqs), lambda: asyncio.run(ask()))
    return run._replace(steady=steady(ended))


def costs(n: int, folder: Path) -> list[Run]:
    """CPU of a request by cache and length of prompt; the server is fast and lets wait."""
    short, long = prompts(n, SHORT), prompts(n // 10, LONG)
    with running(Server(slots=32, seconds=0.02)) as url:
        return [
            bare("bare aiohttp, 1 kB", url, short, 32),
            *ours("no cache, 1 kB", url, short, NullCache()),
            *ours("SQLite, 1 kB", url, short, SQLiteCache(folder / "s.sqlite"), twice=True),
            *ours("shards, 1 kB", url, short, ShardCache(str(folder / "shards")), twice=True),
            bare("bare aiohttp, 256 kB", url, long, 32),
            *ours("SQLite, 256 kB", url, long, SQLiteCache(folder / "l.sqlite"), twice=True),
        ]


def shares(n: int, folder: Path) -> list[tuple[Server, int, Run]]:
    """Requests a second of each server; the first run is bare aiohttp's, the most there is."""
    waits = Server(slots=16, seconds=0.05)
    refuses, faulty = waits._replace(refuses=True), waits._replace(faulty=True)
    servers = [
        ("lets requests wait", waits, 32),
        ("refuses what is beyond its slots, in_flight as its slots", refuses, 16),
        ("refuses what is beyond its slots, in_flight twice that", refuses, 32),
        ("fails in every way, 12 % of requests", faulty, 32),
    ]
    reqs = prompts(n, SHORT)
    with running(waits) as url:
        found = [(waits, 32, bare("lets requests wait, bare aiohttp", url, reqs, 32))]
    for i, (name, server, in_flight) in enumerate(servers):
        with running(server) as url:
            cache = SQLiteCache(folder / f"share{i}.sqlite")
            (run,) = ours(name, url, reqs, cache, in_flight=in_flight)
            found.append((server, in_flight, run))
    return found


def report(cost: list[Run], share: list[tuple[Server, int, Run]]) -> str:
    first = table(
        ["client", "requests", "CPU ms a request", "wall s"],
        [[r.name, f"{r.requests:,}", f"{r.cpu_ms:.2f}", f"{r.wall_s:.2f}"] for r in cost],
    )
    most = share[0][2].steady
    second = table(
        ["server", "in_flight", "attempts/s", "share", "limit at the end", "rejected"],
        [
            [
                *(r.name, str(in_flight), f"{r.steady:.0f}", f"{r.steady / most:.2f}"),
                *(str(r.limit or ""), str(r.rejected)),
            ]
            for _, in_flight, r in share
        ],
    )
    return (
        "CPU of the client's process, all threads; the server runs in another. `again`: the same "
        f"requests out of the cache.\n\n{first}\n\nThe use of a server of 16 slots, 50 ms each, in "
        "the middle of a run; `share` is of what bare aiohttp reaches. What was refused for want "
        f"of a slot is not counted.\n\n{second}"
    )


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="The client of language models, measured.")
    parser.add_argument("--requests", type=int, default=2000)
    parser.add_argument("--write", action="store_true", help="write them to docs/benchmarks.md")
    args = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as folder:
        cost = costs(args.requests, Path(folder))
        share = shares(args.requests, Path(folder))
    text = report(cost, share)
    print(text)
    if args.write:
        write_section(TITLE, text)
    return verdict(cost, share)


def verdict(cost: list[Run], share: list[tuple[Server, int, Run]]) -> int:
    """Exit code, and on stderr what is off."""
    off = []
    plain = {r.name.split(", ")[-1]: r.cpu_ms for r in cost if r.name.startswith("bare")}
    for run in cost:
        size = next(s for s in plain if s in run.name)
        if (own := run.cpu_ms - plain[size]) >= MOST_CPU_MS:
            off.append(f"{run.name}: {own:.2f} ms of CPU above bare, wanted below {MOST_CPU_MS}")
    for server, _, run in share:
        used = run.steady / share[0][2].steady
        if not server.refuses and used < LEAST_SHARE:
            off.append(f"{run.name}: the server is used by {used:.2f}, wanted {LEAST_SHARE}")
    print("\n".join(off), file=sys.stderr)
    return int(bool(off))


if __name__ == "__main__":
    sys.exit(main())
