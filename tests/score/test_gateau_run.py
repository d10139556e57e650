"""Chat rows from file to selection: read, scored by two windows of one model, cut, best first."""

import json
from pathlib import Path

import numpy as np
import pytest

from longctx.score.gateau import gateau_score, gateau_select
from tests.score.models import tiny_model
from tests.stages import run_rows

WORDS = ("river", "hill", "town", "mill", "grain", "railway", "bridge", "stone", "water", "boat")


@pytest.mark.ray
def test_rows_are_ranked_and_written_as_they_came(ray_local: int, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    rows = []
    for i in range(12):
        context, question, answer = (" ".join(rng.choice(WORDS, n)) for n in (40, 4, 6))
        asked = f"{context}\n\n{question}?" if i else context
        messages = [{"role": "user", "content": asked}, {"role": "assistant", "content": answer}]
        rows.append({"id": f"r{i:02}", "messages": messages, "dataset": f"set{i % 2}"})
    stages = [
        {
            "op": "select.gateau",
            "model": str(tiny_model(tmp_path / "model")),
            "dtype": "float32",
            "messages": "messages",
            "short_window": 160,
            "segment": 32,
        },
        {"op": "decide", "keep": {"gateau": {"top": 0.3, "per": "all"}}},
        {
            "op": "export",
            "fields": ["id", "meta"],
            "columns": ["ga_hmg", "cut_gateau"],
            "rename": {"cut_gateau": "score"},
            "order_by": {"column": "cut_gateau"},
        },
    ]
    source = {
        "path": f"{tmp_path}/data/*.jsonl",
        "source_field": "source",
        "id": "id",
        "text": "messages",
        "meta": ["messages", "dataset"],
    }
    done = run_rows(tmp_path, rows, stages, input=[source])
    read = {r["doc_id"]: r for r in done.rows("select.gateau")}
    assert read["r00"]["ga_status"] == "error:no_instruction"
    scored = [n for n in sorted(read) if read[n]["ga_status"] == "ok"]
    assert len(scored) == 11
    columns = [[read[n][c] for n in scored] for c in ("ga_nll_a", "ga_nll_b", "ga_cas")]
    score = gateau_score(*columns)
    best = [scored[i] for i in gateau_select(score, scored, 0.3)]
    files = sorted((tmp_path / "run" / "output").rglob("*.jsonl"))
    written = [json.loads(line) for file in files for line in file.read_text().splitlines()]
    assert [w["id"] for w in written] == best
    assert len(best) == 4
    for record in written:
        row = next(r for r in rows if r["id"] == record["id"])
        assert record["messages"] == row["messages"]
        assert record["dataset"] == row["dataset"]
        assert record["score"] == pytest.approx(score[scored.index(record["id"])])
