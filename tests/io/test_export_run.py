"""A recipe that chooses by a score and ends in documents, on Ray: rows, files, what is told."""

import io
import json
from collections import Counter
from pathlib import Path

import pytest
from rich.console import Console
from zstandard import ZstdDecompressor

from longctx import run
from longctx.report.collect import collect
from longctx.report.terminal import closing_table
from tests.conftest import make_rows, output_bytes
from tests.stages import Finished, recipe_of

pytestmark = pytest.mark.ray

ROWS = make_rows(24)[:24]
CHOSEN = [
    {"op": "score.heuristics", "windows": False},
    {"op": "decide", "keep": {"n_words": {"top": 0.5}}},
]
EXPORT = {
    "op": "export",
    "compression": "zst",
    "columns": ["n_words"],
    "order_by": {"column": "n_words"},
    "shard_mb": 0.01,
}


def said(done: Finished) -> str:
    console = Console(width=80, file=io.StringIO())
    console.print(closing_table(collect(done.record.run_dir)))
    return " ".join(console.file.getvalue().split())  # type: ignore[attr-defined]


def test_the_best_half_of_each_source_is_exported(ray_local: int, tmp_path: Path) -> None:
    recipe = recipe_of(tmp_path, ROWS, CHOSEN, engine={"part_mb": 0.02})
    done = Finished(run(recipe))
    assert done.stage("decide").dropped == {"n_words not in top 0.5": 12}
    assert "The recipe ends without pack or export, so the output is empty" in said(done)
    page = (tmp_path / "run" / "report.html").read_text()
    assert "ends without pack or export" in page
    assert "packed" not in page

    recipe = {**recipe, "stages": [*CHOSEN, EXPORT]}
    done = Finished(run(recipe))
    assert all(s.units == s.skipped for s in done.record.stages[:-1])
    files = sorted(Path(done.record.output).glob("part-*.jsonl.zst"))
    assert len(files) > 1
    texts = [ZstdDecompressor().decompressobj().decompress(f.read_bytes()) for f in files]
    found = [json.loads(line) for text in texts for line in text.splitlines()]
    assert set(Counter(r["source"] for r in found).values()) == {3}
    order = [(-r["n_words"], r["id"]) for r in found]
    assert order == sorted(order)
    export = done.stage("export")
    assert (export.rows_in, export.rows_out, export.steps["files"]["documents"]) == (12, 12, 12)
    assert "24 documents went in and 12 came out (50.0 %). They are written to" in said(done)

    before = output_bytes(done.record.run_dir)
    again = run(recipe)
    assert all(s.units == s.skipped for s in again.stages)
    assert output_bytes(done.record.run_dir) == before
