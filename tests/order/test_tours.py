"""The tour table: one row for every document, whatever became of it."""

import numpy as np
import pyarrow as pa
import pytest

from longctx.cluster.near_duplicates import Pruned, prune
from longctx.order.tours import Arranged, Graph, figures, graph_of, tour_table
from tests.order.conftest import at_degrees, corpus_of

# Seven documents: `b` has no vector, `e` is a near-copy of the longer `d`.
IDS = pa.chunked_array([["a", "b", "c"], ["d", "e", "f", "g"]])
USABLE = np.array([0, 2, 3, 4, 5, 6])
TOKENS = np.array([10, 10, 10, 20, 10, 10, 10])


@pytest.fixture(scope="module")
def pruned() -> tuple[np.ndarray, Pruned]:
    corpus = corpus_of(at_degrees(0, 20, 41, 42, 60, 90), k_search=2, k=2)
    found = prune(corpus.vectors, corpus.lists, corpus.sims, TOKENS[USABLE], 0.99)
    return corpus.vectors, found


def graph(pruned: tuple[np.ndarray, Pruned], everything: bool = False) -> Graph:
    priority = np.arange(7, dtype=np.uint64)
    return graph_of(*pruned, USABLE, TOKENS, priority, everything=everything)


def test_every_document_has_one_row(pruned: tuple[np.ndarray, Pruned]) -> None:
    made = graph(pruned)
    np.testing.assert_array_equal(made.row, [0, 2, 3, 5, 6])
    order = Arranged(np.array([1, 0, 3, 4, 2]), np.array([0, 2]))  # c a | f g d
    table = tour_table(IDS, USABLE, pruned[1], made, order, 1).to_pydict()
    assert table["tour_id"] == [
        *("t00000000", "t00000002", "t00000000", "t00000001", None, "t00000001", "t00000001")
    ]
    assert table["rank"] == [1, 0, 0, 2, None, 0, 1]
    assert table["link"] == ["edge", None, "start", "jump", None, "start", "edge"]
    assert table["jump"] == [False, False, False, True, None, True, False]
    assert table["order_status"] == ["ok", "no_embedding", "ok", "ok", "order_dup", "ok", "ok"]
    assert table["order_kept_id"] == [None, None, None, None, "d", None, None]
    wanted = {0: 20, 3: 49, 6: 30}
    for i, sim in enumerate(table["sim_prev"]):
        assert (sim is None) == (i not in wanted)
        if sim is not None:
            assert sim == pytest.approx(np.cos(np.deg2rad(wanted[i])), abs=1e-6)
    assert table["order_kept_sim"][4] == pytest.approx(np.cos(np.deg2rad(1)), abs=1e-6)
    assert table["order_kept_sim"][:4] == [None] * 4


def test_an_op_may_leave_documents_out_and_name_its_links(
    pruned: tuple[np.ndarray, Pruned],
) -> None:
    words = ["root", None, "child"]
    order = Arranged(np.array([4, 0, 1]), np.array([0]), words, named=True, left="unused")
    table = tour_table(IDS, USABLE, pruned[1], graph(pruned), order, 2).to_pydict()
    assert table["link"] == [None, None, "child", None, None, None, "root"]
    assert table["order_status"] == [
        *("ok", "no_embedding", "ok", "unused", "order_dup", "unused", "ok")
    ]
    assert table["tour_id"][3:6] == [None] * 3
    assert table["tour_id"][1] == "t00000001"
    named = tour_table(IDS, USABLE, pruned[1], graph(pruned), order._replace(named=False), 2)
    assert named.column("link").to_pylist()[6] == "start"


def test_documents_without_a_vector_can_be_placed_too(pruned: tuple[np.ndarray, Pruned]) -> None:
    made = graph(pruned, everything=True)
    np.testing.assert_array_equal(made.row, [0, 1, 2, 3, 5, 6])
    np.testing.assert_array_equal(made.has_vector, [True, False, True, True, True, True])
    order = Arranged(np.arange(6), np.array([0]))
    table = tour_table(IDS, USABLE, pruned[1], made, order, 2).to_pydict()
    assert table["rank"] == [0, 1, 2, 3, None, 4, 5]
    assert [i for i, sim in enumerate(table["sim_prev"]) if sim is None] == [0, 1, 2, 4]
    assert figures(made, pruned[1], order, 2)["documents"] == 6


def test_no_documents_at_all() -> None:
    empty = corpus_of(at_degrees())
    nothing = np.zeros(0, dtype=np.int64)
    found = prune(empty.vectors, empty.lists, empty.sims, nothing)
    made = graph_of(
        empty.vectors,
        found,
        nothing,
        np.ones(2, np.int64),
        np.zeros(2, np.uint64),
        everything=False,
    )
    table = tour_table(
        pa.chunked_array([["x", "y"]]), nothing, found, made, Arranged(nothing, nothing), 3
    )
    assert table.column("tour_id").to_pylist() == ["t00000000"] * 2
    assert table.column("rank").to_pylist() == [0, 1]
    assert set(table.column("link").to_pylist()) == {None}
