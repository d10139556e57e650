"""The parts of the bench of `dedup.containment` that need neither a clock nor Ray."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jobs.bench import containment as bench
from longctx.dedup.shingles import text_shingles


def words(start: int, stop: int) -> str:
    return " ".join(
        "".join(chr(97 + i // 26**k % 26) for k in range(5)) for i in range(start, stop)
    )


def test_passages_that_nobody_changed_are_all_found() -> None:
    found = bench.planted([words(20_000 * i, 20_000 * i + 9_500) for i in range(6)])
    assert [p.changed for p in found] == list(bench.CHANGED)
    assert (found[0].found, found[0].strangers) == (1.0, 0)
    # What begins or ends inside a chunk is lost, at most one chunk and a half.
    assert found[0].covered >= 1 - 1.5 * 1024 / bench.PASSAGE
    assert found[0].covered >= found[-1].covered


def test_the_share_that_others_hold_and_how_alike_they_are() -> None:
    short, long = text_shingles(words(0, 104), 5), text_shingles(words(0, 204), 5)
    assert bench._overlap(short, long) == (1.0, 0.5)
    assert bench._overlap(long, short) == (0.5, 0.5)


def test_removals_are_told_by_the_number_of_chunks(tmp_path: Path) -> None:
    texts = {"whole": words(0, 400), "half": words(300, 500), "kept": words(0, 1004)}
    texts["half"] += " " + words(9000, 9200)
    rows = {
        "whole": (1, "kept", "contain"),
        "half": (12, "kept", "contain"),
        "kept": (9, None, None),
    }
    names = ("ct_n_chunks", "ct_prev_doc", "drop_reason")
    columns = dict(zip(names, map(list, zip(*rows.values(), strict=True)), strict=True))
    for folder, table in (
        ("documents", pa.table({"doc_id": list(texts), "text": list(texts.values())})),
        ("stages/02-x", pa.table(columns)),
    ):
        (tmp_path / folder).mkdir(parents=True)
        pq.write_table(table, tmp_path / folder / "a.parquet")
    found = {r.chunks: r for r in bench.removed(tmp_path, "02-x")}
    assert [(r.documents, r.mostly) for r in found.values()] == [(1, 1), (0, 0), (0, 0), (1, 0)]
    assert found["1"].median == 1.0
    assert found["10 or more"].median == pytest.approx(196 / 396)
    text = bench.report(10.0, {"a step": 0.5}, [], [], list(found.values()))
    assert "| a step | 0.50 | 20.0 |" in text
    assert "| 10 or more | 1 |" in text
