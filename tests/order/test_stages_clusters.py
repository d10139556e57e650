"""Orders over groups: sizes from tokens, in recipes and in runs."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from longctx.engine.op import Setting
from longctx.errors import LongctxError, RecipeError, RunError
from longctx.order.stages_clusters import OrderClusterPath, OrderClusters
from longctx.order.tours import Graph
from longctx.recipe import Recipe, from_dict
from tests.conftest import make_rows
from tests.order.conftest import Corpus, named
from tests.order.test_stages import tours
from tests.stages import Finished, Row, recipe_of, run_rows

COUNT = [{"op": "score.heuristics", "windows": False}, {"op": "embed"}]
SETTING = Setting(seed=17, tokenizer="embedded", stage="03-order", run_dir="", output="")


def recipe(tmp_path: Path, *stages: Row) -> Recipe:
    return from_dict(recipe_of(tmp_path, [], list(stages)))


def graph_of(corpus: Corpus, tokens: np.ndarray) -> Graph:
    n = len(corpus.vectors)
    known = np.ones(n, dtype=bool)
    return Graph(
        corpus.vectors, corpus.lists, corpus.sims, corpus.priority, tokens, np.arange(n), known
    )


@pytest.mark.parametrize("op", ["order.clusters", "order.cluster_path"])
class TestSizes:
    def test_a_recipe_without_token_counts_is_told_what_counts_them(self, tmp_path: Path, op: str):
        with pytest.raises(RecipeError, match=r"reads `n_tokens`.*add `score\.heuristics`"):
            recipe(tmp_path, COUNT[1], {"op": op, "length": 1000})
        with pytest.raises(RecipeError, match="n_tokens"):
            recipe(tmp_path, COUNT[1], {"op": op, "n_clusters": 5, "max_cluster_tokens": 9})
        assert recipe(tmp_path, COUNT[1], {"op": op, "n_clusters": 5}).ops

    def test_no_context_length_anywhere(self, tmp_path: Path, op: str):
        made = recipe(tmp_path, *COUNT, {"op": op}).ops[-1]
        with pytest.raises(RecipeError, match=r"no `pack` follows") as caught:
            made.check(SETTING)
        assert "n_clusters" in caught.value.remedy
        for field in ("length", "n_clusters", "cluster_tokens"):
            recipe(tmp_path, *COUNT, {"op": op, field: 100}).ops[-1].check(SETTING)
        recipe(tmp_path, *COUNT, {"op": op}, {"op": "pack"}).ops[-2].check(SETTING)

    def test_two_sizes_contradict_each_other(self, tmp_path: Path, op: str):
        with pytest.raises(RecipeError, match="contradict each other: give one"):
            recipe(tmp_path, *COUNT, {"op": op, "n_clusters": 5, "cluster_tokens": 9})

    def test_documents_that_nobody_counted(self, op: str):
        made = {"order.clusters": OrderClusters, "order.cluster_path": OrderClusterPath}[op]
        graph = graph_of(named("flat"), np.zeros(2000, dtype=np.int64))
        for fields in ({"length": 9}, {"n_clusters": 5, "max_cluster_tokens": 9}):
            with pytest.raises(RunError, match="no earlier stage counted them") as caught:
                made(op=op, **fields).arrange(graph, [], SETTING)
            assert "score.heuristics" in caught.value.remedy
        # With their number alone, documents count as one each: at most twice the mean.
        starts = made(op=op, n_clusters=40).arrange(graph, [], SETTING).starts
        assert np.diff(starts, append=2000).max() <= 100
        assert 40 <= len(starts) <= 60

    def test_contexts_of_tokens(self, op: str):
        made = {"order.clusters": OrderClusters, "order.cluster_path": OrderClusterPath}[op]
        graph = graph_of(named("flat"), np.full(2000, 100))
        contexts = 2 if op == "order.clusters" else 1
        for fields, expected in (
            ({"length": 4000}, 4000 * contexts),
            ({"length": 1000, "cluster_tokens": 5000}, 5000),
        ):
            starts = made(op=op, **fields).arrange(graph, [], SETTING).starts
            sizes = 100 * np.diff(starts, append=2000)
            assert sizes.max() <= 2 * expected
            assert 200_000 / expected <= len(starts) <= 1.5 * 200_000 / expected
        starts = made(op=op, length=4000, max_cluster_tokens=300).arrange(graph, [], SETTING).starts
        assert np.diff(starts, append=2000).max() <= 3


@pytest.mark.parametrize(
    "change",
    [{"inside": "near"}, {"inside": "far"}, {"cluster_order": "random"}, {"min_docs": 9}],
    ids=str,
)
def test_fields_of_clusters_change_the_order_alone(change: dict[str, Any]):
    graph = graph_of(named("hier"), np.full(2000, 100))
    orders = [
        OrderClusters(op="order.clusters", length=2000, **fields).arrange(graph, [], SETTING)
        for fields in ({}, change)
    ]
    assert not np.array_equal(orders[0].order, orders[1].order)
    for arranged in orders:
        np.testing.assert_array_equal(np.sort(arranged.order), np.arange(2000))


def test_another_seed_gives_other_groups():
    graph = graph_of(named("flat"), np.full(2000, 100))
    op = OrderClusterPath(op="order.cluster_path", length=4000)
    again = Setting(seed=18, tokenizer="", stage="", run_dir="", output="")
    first, second, third = (op.arrange(graph, [], s).order for s in (SETTING, SETTING, again))
    np.testing.assert_array_equal(first, second)
    assert not np.array_equal(first, third)


def ordered(folder: Path, rows: list[Row], order: Row, **changes: Any) -> Finished:
    return run_rows(folder, rows, [*COUNT, {"dup_action": "keep", **order}], **changes)


@pytest.mark.ray
def test_tours_fit_their_limit_and_parts_do_not_change_them(ray_local: int, tmp_path: Path):
    rows = make_rows(96)
    for op, parts in (("order.clusters", (10,)), ("order.cluster_path", (10, 0.05))):
        found = []
        for mb in parts:
            order = {"op": op, "cluster_tokens": 6000}
            done = ordered(tmp_path / str(mb), rows, order, engine={"part_mb": mb})
            found.append(tours(done))
            tokens = done.column("score.heuristics", "n_tokens")
        assert found[0] == found[-1]
        placed = [i for ids in found[0].values() for i in ids]
        assert sorted(placed) == sorted(r["id"] for r in rows)
        sizes = [sum(tokens[i] for i in ids) for ids in found[0].values()]
        assert max(sizes) <= 12_000
        assert len(sizes) >= sum(sizes) / 12_000
        link = done.column(op, "link")
        assert {link[ids[0]] for ids in found[0].values()} == {"start"}
        assert {link[i] for ids in found[0].values() for i in ids[1:]} <= {"edge", "jump"}
    topic = {r["id"]: r["source"] for r in rows}
    mixed = [len({topic[i] for i in ids}) > 1 for ids in found[0].values()]
    assert sum(mixed) <= len(mixed) / 4


@pytest.mark.ray
def test_one_document_and_equal_ones(ray_local: int, tmp_path: Path):
    equal = [{"id": f"{i}", "text": "the very same words " * 20} for i in range(6)]
    for op in ("order.clusters", "order.cluster_path"):
        done = ordered(tmp_path / "one", equal[:1], {"op": op, "length": 4096})
        assert tours(done) == {"t00000000": ["0"]}
        order = {"op": op, "length": 50, "max_cluster_tokens": 200}
        done = ordered(tmp_path / "equal", equal, order)
        assert {len(ids) for ids in tours(done).values()} == {2}


@pytest.mark.ray
def test_a_run_without_a_context_length_ends_before_anything_is_read(
    ray_local: int, tmp_path: Path
):
    with pytest.raises(LongctxError, match="no `pack` follows"):
        ordered(tmp_path, make_rows(8), {"op": "order.cluster_path"})
    assert not (tmp_path / "run" / "documents").exists()
