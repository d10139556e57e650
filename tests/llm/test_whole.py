"""Client, backend, repair and rejects together: every row ends well or has a reason, repeatably."""

import random
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from longctx.llm.cache_sqlite import SQLiteCache
from longctx.llm.client import Client
from longctx.llm.faults import Fault, FaultPlan
from longctx.llm.local import LocalBackend
from longctx.llm.local_model import LocalSettings
from longctx.llm.loop_thread import LoopThread
from longctx.llm.reader import READER, VERSION
from longctx.llm.rejects import Reject, StageCount, reject_row, reject_table
from longctx.llm.repair import Outcome, generate_repaired
from longctx.llm.scripted import ScriptedBackend
from longctx.llm.settings import ClientSettings
from longctx.llm.types import GenRequest
from tests.llm.virtual import virtual_loop
from tests.score.models import tiny_model

SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "analysis": {"type": "string"},
        "score": {"type": "integer", "minimum": 0, "maximum": 10},
    },
    "required": ["analysis", "score"],
}
FAULTS = [
    *(Fault(kind=kind, probability=0.03, times=2) for kind in ("http_500", "reset", "hang")),
    *(
        Fault(kind=kind, probability=0.03, times=3)
        for kind in ("no_usage", "truncated", "html_200")
    ),
    *(Fault(kind=kind, probability=0.03) for kind in ("bad_json", "wrong_schema", "empty")),
    *(Fault(kind=kind, probability=0.03, times=None) for kind in ("refusal", "content_filter")),
    *(Fault(kind=kind, probability=0.03, times=None) for kind in ("http_400_context", "sentinel")),
]


@pytest.fixture
def loop() -> Iterator[LoopThread]:
    with virtual_loop() as thread:
        yield thread


def marks(n: int) -> list[GenRequest]:
    """Requests for marks, of which row i deserves i % 11."""
    words = [f"word{k}" for k in range(10)]
    return [
        GenRequest(
            request_id=str(i),
            messages=[{"role": "user", "content": f"mark answer {i}"}],
            max_tokens=64,
            schema=SCHEMA,
            system="test",
            stage="mark",
            row_id=f"{i:04d}",
            parts={"question": " ".join(words), "answer": " ".join(words[: i % 11])},
        )
        for i in range(n)
    ]


def run(loop: LoopThread, cache: Path, in_flight: int) -> tuple[list[Outcome], ScriptedBackend]:
    backend = ScriptedBackend(READER, VERSION, FaultPlan(FAULTS))
    client = Client(
        backend,
        SQLiteCache(str(cache)),
        ClientSettings(in_flight=in_flight),
        loop=loop,
        rng=random.Random(0),
    )
    found = generate_repaired(client, marks(400))
    client.close()
    return found, backend


def table_of(outcomes: list[Outcome]) -> Any:
    rows = [
        reject_row(
            Reject(code=o.code, request=o.request, result=o.result),
            run_id="run",
            system="test",
            stage="mark",
            row_id=o.request.row_id,
            model="m",
            ts_ms=0,
        )
        for o in outcomes
        if o.code
    ]
    return reject_table(rows).drop_columns(["attempts"])


def test_every_row_ends_well_or_with_a_reason(loop: LoopThread, tmp_path: Path) -> None:
    found, backend = run(loop, tmp_path / "one.db", in_flight=32)
    codes = Counter(o.code for o in found)
    count = StageCount(len(found), codes.pop(None))
    count.rejects.update({str(code): n for code, n in codes.items()})
    count.check("mark")
    assert {"refusal", "content_filter", "context_overflow", "sentinel"} == set(count.rejects)
    assert 20 < count.rejected < 80
    for i, outcome in enumerate(found):
        value = outcome.reply.value
        assert outcome.code or (value is not None and value["score"] == i % 11)
    assert any(o.repairs for o in found)
    assert any(o.grown for o in found)
    assert backend.attempts > 430


def test_how_many_are_in_flight_changes_nothing(loop: LoopThread, tmp_path: Path) -> None:
    wide, _ = run(loop, tmp_path / "wide.db", in_flight=32)
    narrow, _ = run(loop, tmp_path / "narrow.db", in_flight=1)
    assert [(o.code, o.reply, o.request) for o in wide] == [
        (o.code, o.reply, o.request) for o in narrow
    ]
    assert table_of(wide).equals(table_of(narrow))


def test_a_second_run_asks_only_for_what_was_rejected(loop: LoopThread, tmp_path: Path) -> None:
    first, _ = run(loop, tmp_path / "cache.db", in_flight=8)
    again, backend = run(loop, tmp_path / "cache.db", in_flight=8)
    good = [o for o in first if o.code is None]
    assert [o.reply for o in again if o.code is None] == [o.reply for o in good]
    # What was cut off or empty is never stored, so its first request is sent once more.
    unstored = sum(o.grown for o in first) + sum(o.code is not None for o in first)
    assert backend.attempts <= 3 * unstored
    assert all(o.result.from_cache for o in again if o.code is None and not o.grown)


def test_the_model_in_this_process_under_the_client(tmp_path: Path) -> None:
    backend = LocalBackend(LocalSettings(model=str(tiny_model(tmp_path / "tiny"))))
    reqs = [
        GenRequest(
            request_id=str(i),
            messages=[{"role": "user", "content": f"text {i % 3}"}],
            max_tokens=20,
            sample_index=i,
            temperature=1.0,
        )
        for i in range(9)
    ]
    kept = ClientSettings(store_truncated=True)
    with Client(backend, SQLiteCache(str(tmp_path / "cache.db")), kept) as client:
        first = client.generate(reqs)
        again = client.generate(reqs)
    assert [r.error for r in first] == [None] * 9
    assert len({r.text for r in first}) > 6
    assert [r.text for r in again] == [r.text for r in first]
    assert all(r.from_cache for r in again)
    assert all(r.usage.completion == 20 or r.finish_reason == "stop" for r in first)
