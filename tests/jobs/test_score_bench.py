"""The bench of the scoring passes: what is noted, replayed and counted."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jobs.bench import score
from longctx.score.causal_lm import Segment, load_causal_lm
from tests.score.models import VOCABULARY, tiny_model


def test_what_a_pass_reads_is_noted_replayed_and_counted(tmp_path: Path) -> None:
    lm = load_causal_lm(str(tiny_model(tmp_path)), dtype="float32", batch_tokens=64)
    lm._rows = 16
    ids = np.arange(30, dtype=np.int32)
    with score.noting(lm) as noted:
        lm.scores([Segment(ids, 5, 25), Segment(ids[:10], 1, 10), Segment(ids, 29, 30)])
    assert [tuple(i.shape) for i in noted.ids] == [(2, 31), (1, 11)]
    assert noted.rows == [[16, 5], [9]]
    assert (noted.tokens, noted.scored) == (73, 30)
    lm.scores([Segment(ids, 5, 25)])
    assert len(noted.ids) == 2
    score.replay(lm, noted)
    # 2 layers of q, k, v, o (4 heads on 2) and three inner products, their norms, and the last.
    layer = 32 * 32 * 2 + 32 * 16 * 2 + 3 * 32 * 64 + 2 * 32
    attention = 2 * 2 * 32 * (2 * 31**2 + 11**2)
    assert score.flop_of(lm, noted) == (
        2 * (2 * layer + 32) * 73 + 2 * VOCABULARY * 32 * 30 + attention
    )


def test_limits_of_a_row() -> None:
    row = score.Row("likelihood", "bfloat16", 1, 10, 60, 9, 1, seconds=10, bare_seconds=9)
    assert row.held
    assert not row._replace(bare_seconds=8.9).held
    assert "MISSED" in score._page("m", [row._replace(bare_seconds=1)])


def test_documents_are_long_english_and_of_many_sources(tmp_path: Path) -> None:
    long = "x" * 80
    rows = [(long + "1", "en", "a"), (long + "2", "en", "a"), ("x", "en", "b")]
    rows += [(long + "3", "ko", "c"), (long + "4", None, "d")]
    names = ("text", "language", "source")
    columns = {n: [r[i] for r in rows] for i, n in enumerate(names)}
    pq.write_table(pa.table(columns), tmp_path / "x.parquet")
    assert [t[-1] for t in score.documents(tmp_path, 3, 10)] == ["1", "4", "2"]
    assert [t[-1] for t in score.documents(tmp_path, 1, 10)] == ["1"]


@pytest.mark.parametrize("name", score.PASSES)
def test_a_pass_is_measured(name: str, tmp_path: Path) -> None:
    folder = str(tiny_model(tmp_path, max_position_embeddings=128))
    row = score.measure(name, folder, "float32", [["the river " * 20], ["sea " * 50]], 96)
    assert (row.documents, row.document_tokens) == (2, 192)
    assert row.fed >= 192
    assert row.flop > 0
    assert row.of_bare > 0
