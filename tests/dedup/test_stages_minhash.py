"""`dedup.minhash`: who is in a cluster and who of it stays, on tables and in runs."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from pydantic import ValidationError

from longctx.dedup.stages_minhash import DedupMinHash, _choose, _join_labels, _mark, _order
from longctx.engine.op import Setting
from tests.stages import Finished, run_rows

SETTING = Setting(seed=1, tokenizer="embedded", stage="01-x", run_dir="", output="")
OP = "dedup.minhash"


def word(number: int) -> str:
    """A word of letters of its own for each number: digits would all count as one."""
    return "".join(chr(97 + number // 26**i % 26) for i in range(4))


def words(start: int, stop: int) -> str:
    return " ".join(word(i) for i in range(start, stop))


def chain(name: str, first: int, length: int) -> list[dict[str, Any]]:
    """Documents of which each resembles the next (Jaccard 0.9) and the ends share nothing."""
    return [
        {"id": f"{name}{i:02d}", "text": words(first + 10 * i, first + 10 * i + 200)}
        for i in range(length)
    ]


def corpus() -> list[dict[str, Any]]:
    """Three chains, a pair, a triple with one longer member, and documents like no other."""
    base = words(30_000, 30_300)
    return [
        *chain("long", 0, 24),
        *chain("mid", 2_000, 9),
        *chain("two", 4_000, 2),
        {"id": "t-b", "text": base, "source": "one"},
        {"id": "t-a", "text": f"{base} and one more", "source": "two"},
        {"id": "t-c", "text": f"{base} more", "source": "one"},
        *({"id": f"alone{i}", "text": words(10_000 + 400 * i, 10_300 + 400 * i)} for i in range(8)),
        {"id": "empty", "text": ""},
        {"id": "marks", "text": "... !!! ..."},
    ]


def run_minhash(folder: Path, **fields: Any) -> Finished:
    engine = fields.pop("engine", {"part_mb": 0.02})
    stages = [{"op": "score.heuristics", "windows": False}, {"op": OP, **fields}]
    return run_rows(folder, corpus(), stages, engine=engine)


@pytest.fixture(scope="module")
def default(ray_local: int, tmp_path_factory: pytest.TempPathFactory) -> Finished:
    return run_minhash(tmp_path_factory.mktemp("default"))


@pytest.mark.ray
def test_chains_become_one_cluster_named_by_its_smallest_id(default: Finished):
    cluster = default.column(OP, "dup_cluster_id")
    size = default.column(OP, "dup_cluster_size")
    for name, length in (("long", 24), ("mid", 9), ("two", 2)):
        members = [i for i in cluster if i.startswith(name)]
        assert {cluster[i] for i in members} == {f"{name}00"}
        assert {size[i] for i in members} == {length}
    lonely = [i for i in cluster if i.startswith(("alone", "empty", "marks"))]
    assert all(cluster[i] == i and size[i] == 1 for i in lonely)
    assert default.stage(OP).dropped == {"minhash": 23 + 8 + 1 + 2}


@pytest.mark.ray
def test_rounds_of_stars_give_what_union_find_gives(default: Finished, tmp_path: Path):
    rounds = run_minhash(tmp_path, local_edges=0, engine={"part_mb": 0.02, "exchange_mb": 0.02})
    steps = rounds.stage(OP).steps
    assert "round-02-large" in steps
    assert not any(step.startswith("round") for step in default.stage(OP).steps)
    for column in ("dup_cluster_id", "dup_cluster_size", "dup_kept", "dup_sim_kept"):
        assert rounds.column(OP, column) == default.column(OP, column)


@pytest.mark.ray
def test_the_longest_text_stays(default: Finished):
    reasons = default.column(OP, "drop_reason")
    assert [reasons[i] for i in ("t-a", "t-b", "t-c")] == [None, "minhash", "minhash"]


@pytest.mark.ray
def test_another_choice_of_survivor_reuses_the_pairs(default: Finished, tmp_path: Path):
    first = run_minhash(tmp_path, keep="smallest_id")
    assert first.column(OP, "drop_reason")["t-a"] is None
    again = run_minhash(tmp_path, keep="min:n_tokens")
    reasons = again.column(OP, "drop_reason")
    assert [reasons[i] for i in ("t-a", "t-b", "t-c")] == ["minhash", None, "minhash"]
    # Signatures carry what the survivor is chosen by; pairs and components do not.
    assert 0 < again.stage(OP).skipped < again.stage(OP).units


@pytest.mark.ray
def test_in_their_source_only_documents_of_one_source_meet(ray_local: int, tmp_path: Path):
    found = run_minhash(tmp_path, scope="source").column(OP, "dup_cluster_id")
    assert [found[i] for i in ("t-a", "t-b", "t-c")] == ["t-a", "t-b", "t-b"]


@pytest.mark.ray
def test_a_least_similarity_to_the_survivor_keeps_the_far_end(ray_local: int, tmp_path: Path):
    done = run_minhash(tmp_path, min_kept_sim=0.7)
    similarity, kept = done.column(OP, "dup_sim_kept"), done.column(OP, "dup_kept")
    chained = [i for i in kept if i.startswith("long")]
    assert 1 < sum(kept[i] for i in chained) < len(chained)
    assert all(similarity[i] >= 0.7 for i in chained if not kept[i])
    assert done.column(OP, "dup_cluster_size")["long00"] == 24


@pytest.mark.ray
def test_bands_alone_find_more_pairs_than_a_strict_threshold(ray_local: int, tmp_path: Path):
    strict = run_minhash(tmp_path / "strict", threshold=0.97)
    loose = run_minhash(tmp_path / "loose", threshold=0.97, verify="none")
    assert strict.column(OP, "dup_cluster_size")["long00"] == 1
    assert loose.column(OP, "dup_cluster_size")["long00"] == 24


@pytest.mark.ray
def test_profiles_by_source_read_text_differently(ray_local: int, tmp_path: Path):
    lines = [f"{word(i)} = {word(i + 500)}" for i in range(120)]
    texts = ["\n".join(lines), "\n".join(line.replace(" ", "") for line in lines)]
    rows = [
        {"id": f"{source}{i}", "text": text, "source": source}
        for source in ("prose", "code")
        for i, text in enumerate(texts)
    ]
    stages = [{"op": OP, "scope": "source", "profiles": {"code": "code"}}]
    size = run_rows(tmp_path, rows, stages).column(OP, "dup_cluster_size")
    assert size["prose0"] == 2
    assert size["code0"] == 1


def members(rows: list[tuple[str, int, float]]) -> pa.Table:
    """Members of clusters as (doc_id, label, order); the signature is the label's."""
    ids, labels, orders = zip(*rows, strict=True)
    signatures = [np.full(4, label, dtype=np.uint32).tobytes() for label in labels]
    return pa.table(
        {
            "doc_id": ids,
            "doc_key": pa.array(range(len(rows)), pa.uint64()),
            "part": pa.array([0] * len(rows), pa.int32()),
            "row": pa.array(range(len(rows)), pa.int32()),
            "label": pa.array(labels, pa.uint64()),
            "order": orders,
            "source": ["s"] * len(rows),
            "sig": pa.array(signatures, pa.large_binary()),
        }
    )


def test_ties_go_to_the_smallest_id():
    found = _choose("longest", members([("b", 7, -5.0), ("a", 7, -5.0), ("c", 7, -4.0)]), SETTING)
    kept = dict(zip(found["doc_id"].to_pylist(), found["dup_kept"].to_pylist(), strict=True))
    assert kept == {"a": True, "b": False, "c": False}


def test_clusters_do_not_mix_and_no_rows_give_none():
    found = _choose("longest", members([("b", 7, 1.0), ("a", 9, 1.0), ("c", 9, 0.0)]), SETTING)
    names = dict(zip(found["doc_id"].to_pylist(), found["dup_cluster_id"].to_pylist(), strict=True))
    assert names == {"a": "a", "b": "b", "c": "a"}
    assert _choose("longest", members([("a", 1, 0.0)]).slice(0, 0), SETTING).num_rows == 0


def test_labels_find_their_documents():
    documents = members([("a", 0, 0.0), ("b", 0, 0.0), ("c", 0, 0.0)])
    unlabelled = documents.set_column(4, "label", pa.nulls(3, pa.uint64()))
    labels = pa.table(
        {
            f.name: pa.array([2, 0], pa.uint64())
            if f.name == "doc_key"
            else pa.array([10, 11], pa.uint64())
            if f.name == "label"
            else pa.nulls(2, f.type)
            for f in documents.schema
        }
    )
    found = _join_labels(pa.concat_tables([labels, unlabelled]), SETTING)
    assert found.select(["doc_id", "label"]).to_pylist() == [
        {"doc_id": "a", "label": 11},
        {"doc_id": "c", "label": 10},
    ]


def test_documents_without_a_cluster_stay():
    base = pa.table({"doc_id": ["a", "b"], "row": pa.array([3, 8], pa.int32())})
    brought = pa.table(
        {
            "row": pa.array([8], pa.int32()),
            "doc_id": ["b"],
            "source": ["s"],
            "dup_cluster_id": ["z"],
            "dup_cluster_size": [2],
            "dup_kept": [False],
            "dup_sim_kept": pa.array([0.9], pa.float32()),
        }
    )
    found = _mark(0.0, base, brought, SETTING).to_pylist()
    assert [r["drop_reason"] for r in found] == [None, "minhash"]
    assert [r["dup_cluster_id"] for r in found] == ["a", "z"]
    assert _mark(0.95, base, brought, SETTING).column("drop_reason").null_count == 2


@pytest.mark.parametrize(
    ("keep", "order"),
    [
        ("longest", [-1, -2, -3]),
        ("smallest_id", [0, 0, 0]),
        ("max:x", [-2.0, np.inf, -1.0]),
        ("min:x", [2.0, np.inf, 1.0]),
    ],
)
def test_the_survivor_has_the_least_of_the_order(keep, order):
    table = pa.table({"text": pa.array(["a", "bb", "ccc"], pa.large_string()), "x": [2, None, 1]})
    assert _order(keep, table).tolist() == order


def test_bands_must_fit_the_permutations():
    with pytest.raises(ValidationError, match="bands x rows = 120 exceeds num_perm = 112"):
        DedupMinHash(op=OP, bands=15)


def test_the_column_that_chooses_is_read():
    assert DedupMinHash(op=OP, keep="max:n_tokens").reads_columns() == ("text", "n_tokens")
