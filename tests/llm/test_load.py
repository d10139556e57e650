"""Many requests against a server that fails in every way, and a client that is killed."""

import os
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from longctx.llm.cache_shards import FLUSH_ROWS
from longctx.llm.cache_sqlite import SQLiteCache
from longctx.llm.client import Client
from longctx.llm.faults import Fault, FaultPlan
from longctx.llm.keys import canonical_key
from longctx.llm.openai import OpenAICompat, OpenAISettings
from longctx.llm.settings import ClientSettings
from tests.llm.fault_server import FaultServer
from tests.llm.killed_client import client
from tests.llm.test_openai import Impatient
from tests.llm.virtual import request
from tests.servers import wait_until

ROOT = Path(__file__).parents[2]
PASSING = [
    Fault(kind="http_429", probability=0.025, retry_after="0"),
    Fault(kind="http_429", probability=0.05),
    Fault(kind="http_500", probability=0.03),
    Fault(kind="hang", probability=0.02),
    Fault(kind="html_200", probability=0.01),
    Fault(kind="reset", probability=0.01),
]


def test_two_thousand_requests_through_every_fault(tmp_path: Path) -> None:
    """Every request has one end, and none is answered (and so paid for) twice."""
    lasting = Fault(kind="http_400_context", probability=0.01, times=None)
    faults = [lasting, *PASSING]
    asked = [request(str(i)) for i in range(2000)]
    keys = [canonical_key(r, "api:scripted") for r in asked]
    rejected = {k for k in keys if lasting.meets(k, "", "", 0)}
    expected = Counter({k: 1 + sum(f.meets(k, "", "", 0) for f in PASSING) for k in keys})
    expected.update({k: 1 - expected[k] for k in rejected})
    assert sum(expected.values()) > 2200
    cache = SQLiteCache(tmp_path / "c.sqlite")
    with FaultServer(plan=FaultPlan(faults)) as server:
        backend = OpenAICompat(OpenAISettings(base_url=server.url, model="scripted", read_s=4.0))
        settings = ClientSettings(backoff_base_s=0.05)
        with Client(backend, cache, settings, rng=Impatient(0)) as client:
            results = client.generate(asked)
            assert [r.request_id for r in results] == [r.request_id for r in asked]
            assert {r.key for r in results if r.error is None} == set(keys) - rejected
            assert {r.error.code for r in results if r.error} == {"context_overflow"}
            assert all(bool(r.text) != bool(r.error) for r in results)
            assert server.by_key == expected
            (usage,) = client.usage_rows()
            assert usage["attempts"] == server.requests
            assert usage["rejects"] == {"context_overflow": len(rejected)}
            again = client.generate(asked)
        assert {r.key for r in again if r.from_cache} == set(keys) - rejected
        assert server.requests == sum(expected.values()) + len(rejected)


@pytest.mark.faults
@pytest.mark.parametrize("place", ["c.sqlite", "shards"])
def test_a_killed_client_pays_again_only_for_what_was_under_way(tmp_path: Path, place: str) -> None:
    rows, in_flight = 900, 8
    with FaultServer(latency_s=0.05) as server:
        arguments = [server.url, str(tmp_path / place), str(rows), str(in_flight)]
        killed = subprocess.Popen(
            [sys.executable, "-m", "tests.llm.killed_client", *arguments], cwd=ROOT
        )
        wait_until(lambda: server.requests >= 400, "400 requests")
        os.kill(killed.pid, signal.SIGKILL)
        killed.wait()
        sent = server.requests
        assert sent < rows
        with client(server.url, str(tmp_path / place), in_flight) as resumed:
            results = resumed.generate([request(str(i)) for i in range(rows)])
    assert all(r.error is None for r in results)
    assert len(server.by_key) == rows
    assert max(server.by_key.values()) <= 2
    twice = sum(n - 1 for n in server.by_key.values())
    kept = sum(r.from_cache for r in results)
    assert twice == sent - kept
    # SQLite has every answer at once; shards have lost what was not flushed.
    assert 0 < twice <= in_flight + (FLUSH_ROWS if place == "shards" else 0)
