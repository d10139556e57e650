"""Clusters trained in partitions: `cluster.kmeans` and `dedup.semantic` above their limit."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from jobs.bench.datasets import hier
from longctx.cluster.stages import ClusterKMeans
from longctx.cluster.stages_apart import Points
from longctx.dedup.stages_semantic import DedupSemantic
from longctx.engine.barrier import BarrierContext
from longctx.engine.corpus import Corpus, Sidecar
from longctx.engine.op import DROP_REASON
from longctx.engine.steps import StepRef
from longctx.errors import RunError
from tests.engine.parts import documents, put
from tests.in_process import context_of, rows_of, run_here

N, D = 300, 16
# Partitions of at most 50 documents, which two clusters and more share.
APART: dict[str, Any] = {"one_place_clusters": 4, "partition_documents": 50}
Row = dict[str, Any]


@pytest.fixture(autouse=True)
def _here(monkeypatch: pytest.MonkeyPatch) -> None:
    run_here(monkeypatch)


def matrix() -> np.ndarray:
    """Topics inside topics; two documents have no vector, and every tenth is a near-copy."""
    X = hier(N, D)
    X[10::10] = X[9:-1:10] + np.float32(1e-3)
    X /= np.linalg.norm(X, axis=1, keepdims=True)
    X[[5, 77]] = 0
    return X


def corpus_of(folder: str, X: np.ndarray, parts: int) -> Corpus:
    files, beside = [], []
    for i in range(parts):
        at = np.arange(i, len(X), parts)
        half = [len(at) // 2, len(at) - len(at) // 2]
        table = documents(len(at), doc_id=[f"d{j:04d}" for j in at])
        files.append(put(folder, f"documents/s-{i:04d}.parquet", table, half))
        flat = pa.array(X[at].ravel(), pa.float32())
        columns = {
            "embedding": pa.FixedSizeListArray.from_arrays(flat, X.shape[1]),
            "emb_cover": pa.array(np.ones(len(at)), pa.float32()),
            DROP_REASON: pa.nulls(len(at), pa.string()),
        }
        beside.append(put(folder, f"stages/01/s-{i:04d}.parquet", pa.table(columns), half))
    written = Sidecar("01", ("embedding", "emb_cover"), True, tuple(beside))
    return Corpus(folder, tuple(files), (written,))


def run(folder: Path, op: Any, parts: int = 3, X: np.ndarray | None = None) -> BarrierContext:
    X = matrix() if X is None else X
    context = context_of(op, corpus_of(str(folder), X, parts), len(X))
    op.run(context)
    return context


def kmeans(**fields: Any) -> ClusterKMeans:
    return ClusterKMeans(op="cluster.kmeans", per_cluster=10, **fields)


def semantic(**fields: Any) -> DedupSemantic:
    return DedupSemantic(op="dedup.semantic", niter=10, **{"k": 12, **fields})


def test_clusters_lie_inside_partitions_and_say_how_near_they_are(tmp_path: Path) -> None:
    context = run(tmp_path, kmeans(**APART))
    found = rows_of(context)
    told = context.step_stats["partitions"]
    assert (told["documents"], told["without"]) == (N - 2, 2)
    assert told["count"] >= 6
    assert [i for i, r in found.items() if r["cluster"] is None] == ["d0005", "d0077"]
    X = matrix()
    label = np.array(
        [
            -1 if found[f"d{i:04d}"]["cluster"] is None else found[f"d{i:04d}"]["cluster"]
            for i in range(N)
        ]
    )
    assert 20 <= len(np.unique(label)) - 1 <= 32
    told = {i: found[f"d{i:04d}"]["cluster_sim"] for i in range(N) if label[i] >= 0}
    for one in np.unique(label[label >= 0]):
        members = np.flatnonzero(label == one)
        center = X[members].sum(axis=0)
        near = X[members] @ (center / np.linalg.norm(center))
        np.testing.assert_allclose([told[i] for i in members], near, atol=0.05)


def test_partitions_cost_little_of_the_closeness(tmp_path: Path) -> None:
    def closeness(folder: Path, **fields: Any) -> float:
        found = rows_of(run(folder, kmeans(**fields)))
        return float(
            np.mean([r["cluster_sim"] for r in found.values() if r["cluster"] is not None])
        )

    assert closeness(tmp_path / "a", **APART) > 0.97 * closeness(tmp_path / "b")


@pytest.mark.parametrize("op", [kmeans(**APART), semantic(**APART)])
def test_parts_change_nothing(op: Any, tmp_path: Path) -> None:
    runs = [rows_of(run(tmp_path / str(parts), op, parts)) for parts in (1, 4)]
    assert runs[0] == runs[1]


def test_near_copies_fall_as_they_do_in_one_place(tmp_path: Path) -> None:
    def removed(folder: Path, **fields: Any) -> set[str]:
        found = rows_of(run(folder, semantic(eps=0.001, mode="longest", **fields)))
        return {i for i, r in found.items() if r[DROP_REASON]}

    one = removed(tmp_path / "one")
    assert len(one) >= 25
    # A pair may lie on both sides of a border in either form.
    assert len(one ^ removed(tmp_path / "partitions", **APART)) <= 2


def test_another_eps_is_a_new_cut(tmp_path: Path) -> None:
    run(tmp_path, semantic(eps=0.001, **APART))
    again = run(tmp_path, semantic(eps=0.3, **APART))
    assert again.units - again.skipped == 3


def test_a_cell_of_texts_that_nothing_tells_apart_is_dealt_out(tmp_path: Path) -> None:
    X = np.repeat(hier(2, D), N // 2, axis=0)
    context = run(tmp_path, kmeans(one_place_clusters=4, partition_documents=20), X=X)
    assert context.step_stats["partitions"]["count"] >= 15
    assert all(r["cluster"] is not None for r in rows_of(context).values())


def test_no_document_has_a_vector(tmp_path: Path) -> None:
    found = rows_of(run(tmp_path, kmeans(**APART), X=np.zeros((N, D), np.float32)))
    assert {r["cluster"] for r in found.values()} == {None}


def test_more_clusters_than_numbers_are_refused() -> None:
    points = Points(StepRef("", ()), 20_000, 10**10, 1_000_000)
    assert points.share(2 * 10**8, 10, 1).width == 40_002
    with pytest.raises(RunError, match="more than can be numbered") as told:
        points.share(10**9, 10, 1)
    assert "partition_documents" in told.value.remedy
