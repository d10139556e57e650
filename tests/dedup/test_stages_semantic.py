"""`dedup.semantic` in runs: few documents, equal ones, and ones without a vector."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from longctx.dedup.stages_semantic import _cut
from longctx.engine.op import Setting
from tests.conftest import make_rows
from tests.stages import Finished, run_rows

OP = "dedup.semantic"
SETTING = Setting(seed=1, tokenizer="embedded", stage="01-x", run_dir="", output="")


def deduplicated(folder: Path, rows: list[dict[str, Any]], **fields: Any) -> Finished:
    return run_rows(folder, rows, [{"op": "embed"}, {"op": OP, **fields}])


@pytest.mark.ray
def test_one_document_stays(ray_local: int, tmp_path: Path):
    done = deduplicated(tmp_path, [{"id": "a", "text": "some words"}])
    row = done.rows(OP)[0]
    assert (row["drop_reason"], row["sd_rank"], row["sd_max_id"]) == (None, 0, None)


@pytest.mark.ray
def test_of_equal_vectors_one_stays(ray_local: int, tmp_path: Path):
    rows = [{"id": f"{i}", "text": "the very same words here"} for i in range(7)]
    for mode in ("hard", "easy", "random", "longest"):
        done = deduplicated(tmp_path, rows, mode=mode, k=3)
        assert done.stage(OP).dropped == {"semdedup": 6}
        assert done.stage(OP).rows_out == 1


@pytest.mark.ray
def test_documents_without_a_vector_stay(ray_local: int, tmp_path: Path):
    rows = [
        *({"id": f"k{i}", "text": "같은 말", "language": "ko"} for i in range(3)),
        {"id": "e0", "text": "the same words"},
        {"id": "e1", "text": "the same words"},
    ]
    done = deduplicated(tmp_path, rows)
    reasons, cluster = done.column(OP, "drop_reason"), done.column(OP, "sd_cluster")
    assert [reasons[f"k{i}"] for i in range(3)] == [None] * 3
    assert [cluster[f"k{i}"] for i in range(3)] == [None] * 3
    assert sorted(str(reasons[i]) for i in ("e0", "e1")) == ["None", "semdedup"]


@pytest.mark.ray
def test_no_document_has_a_vector(ray_local: int, tmp_path: Path):
    rows = [{"id": f"{i}", "text": "같은 말", "language": "ko"} for i in range(3)]
    assert deduplicated(tmp_path, rows).stage(OP).rows_out == 3


@pytest.mark.ray
def test_another_eps_cuts_the_stored_similarities(ray_local: int, tmp_path: Path):
    rows = make_rows(60)
    strict = deduplicated(tmp_path, rows, eps=0.001, k=4)
    removed = {i for i, r in strict.column(OP, "drop_reason").items() if r}
    similarity = strict.column(OP, "sd_max_sim")
    assert removed == {i for i, s in similarity.items() if s is not None and s > 0.999}
    loose = deduplicated(tmp_path, rows, eps=0.2, k=4)
    more = {i for i, r in loose.column(OP, "drop_reason").items() if r}
    assert removed < more
    # Only the last cut ran again.
    assert loose.stage(OP).units - loose.stage(OP).skipped == loose.stage("embed").units
    assert loose.column(OP, "sd_max_sim") == similarity


def cut(similarity: list[float | None], cover: list[float], eps: float, inclusive: bool):
    n = len(similarity)
    base = pa.table(
        {
            "sd_cluster": pa.array([0] * n, pa.int32()),
            "sd_rank": list(range(n)),
            "sd_max_sim": pa.array(similarity, pa.float32()),
            "sd_max_id": ["x"] * n,
            "emb_cover": pa.array(cover, pa.float32()),
        }
    )
    found = _cut(eps, inclusive, 0.5, base, base.slice(0, 0), SETTING)
    return found.column("drop_reason").to_pylist()


def test_the_limit_itself_counts_only_when_inclusive():
    similarity, cover = [0.5, 0.75, None], [1.0, 1.0, 0.0]
    assert cut(similarity, cover, 0.5, False) == [None, "semdedup", None]
    assert cut(similarity, cover, 0.5, True) == ["semdedup", "semdedup", None]


def test_a_vector_that_saw_little_removes_nothing():
    assert cut([0.99, 0.99], [0.4, 0.5], 0.1, False) == [None, "semdedup"]
