"""Orders over the neighbour graph: numbering by id, and neighbours from cells, on the engine."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from longctx.engine.op import DROP_REASON, Setting
from longctx.engine.steps import Stats
from longctx.order.stages_semantic import _number
from tests.conftest import make_rows
from tests.engine import parts
from tests.stages import Finished, run_rows

Vectors = list[list[float] | None]
SETTING = Setting(seed=0, tokenizer="", stage="02-order.path", run_dir="", output="")


def numbered(corpus: Any) -> tuple[dict[str, list[Any]], np.ndarray, int]:
    """Columns of the table of documents, the vectors, and the number of them in the stats."""
    made = _number([corpus.part(i) for i in range(len(corpus))], SETTING)
    table, stats = Stats.detach(made["documents.parquet"])
    return table.to_pydict(), np.load(io.BytesIO(made["vectors.npy"])), stats["with_vector"]


def embedded(run_dir: str, rows: Vectors, dead: list[int]) -> Any:
    """Two parts of eight documents with these vectors, of which rows `dead` were removed before."""
    kind = pa.list_(pa.float32(), 2)
    corpus = parts.corpus(run_dir, parts=2)
    corpus = parts.beside(corpus, "00", True, **{DROP_REASON: parts.reasons(gone=dead)})
    return parts.beside(corpus, "01", embedding=pa.array(rows, kind))


def test_documents_are_numbered_by_id_and_unusable_vectors_are_left_out(tmp_path: Path) -> None:
    nan, inf = float("nan"), float("inf")
    rows: Vectors = [[1, 0], [nan, 1], [0, 1], None, [0, inf], [0, 0], [0.6, 0.8], [-1, 0]]
    table, vectors, count = numbered(embedded(str(tmp_path), rows, dead=[7]))
    assert table["doc_id"] == sorted(table["doc_id"])
    assert len(table["doc_id"]) == 14
    usable = [i for i, has in zip(table["doc_id"], table["has_vector"], strict=True) if has]
    assert usable == [f"p{part}-{row}" for part in (0, 1) for row in (0, 2, 6)]
    np.testing.assert_array_equal(vectors, np.array([[1, 0], [0, 1], [0.6, 0.8]] * 2, np.float32))
    assert count == 6
    assert table["part"] == [0] * 7 + [1] * 7
    assert table["row"] == [*range(7), *range(7)]


def test_no_vector_at_all(tmp_path: Path) -> None:
    table, vectors, count = numbered(embedded(str(tmp_path), [None] * 8, dead=[]))
    assert not any(table["has_vector"])
    assert vectors.shape == (0, 2)
    assert count == 0


def in_cells(folder: Path, rows: list[dict[str, Any]], **changes: Any) -> Finished:
    order = {"op": "order.path", "exact_up_to": 0, "dup_cos": 0.999}
    return run_rows(folder, rows, [{"op": "embed"}, order], **changes)


@pytest.mark.ray
def test_workers_and_blocks_change_no_order_from_cells(
    ray_local: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = make_rows(60)
    found = []
    for workers, block in ((2, 9), (1, 70)):
        monkeypatch.setattr("longctx.cluster.stages_knn._CELL_BLOCK", block)
        engine = {"part_mb": 0.02 * workers, "workers": workers}
        done = in_cells(tmp_path / str(workers), rows, engine=engine)
        steps = done.stage("order.path").steps
        assert steps["tours"]["neighbour_recall"] == steps["cells"]["recall"] >= 0.9
        assert steps["cells"]["cells"] == 4 * 9  # of 69 documents
        found.append({row["doc_id"]: row for row in done.rows("order.path")})
    assert found[0] == found[1]
    reasons = [row["drop_reason"] for row in found[0].values()]
    assert reasons.count("order_dup") == 9
    assert reasons.count(None) == 60


@pytest.mark.ray
@pytest.mark.parametrize("rows", [make_rows(24)[:2], [{"text": "the same words"}] * 7], ids=len)
def test_few_and_equal_documents_go_through_cells_too(
    ray_local: int, tmp_path: Path, rows: list[dict[str, Any]]
) -> None:
    done = in_cells(tmp_path, [{**row, "id": f"{i}"} for i, row in enumerate(rows)])
    kept = [i for i, reason in done.column("order.path", "drop_reason").items() if reason is None]
    assert kept == (["0", "1"] if len(rows) == 2 else ["0"])
