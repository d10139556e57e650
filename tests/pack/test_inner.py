import numpy as np
import pytest

from longctx.ids import doc_keys, mix64
from longctx.pack.frame import Placement
from longctx.pack.inner import inner_order
from tests.pack.reference import windows_of

KEYS = doc_keys(["a", "b", "c", "d"])


def placement(*windows) -> Placement:
    rows = [(w, *span) for w, spans in enumerate(windows) for span in spans]
    return Placement(*np.array(rows, np.int64).reshape(-1, 4).T)


def test_tour_changes_nothing():
    packed = placement([(2, 0, 3), (1, 0, 1)])
    assert inner_order(packed, "tour", KEYS, 0) is packed


def test_reverse_turns_each_window_around():
    packed = placement([(0, 0, 3), (1, 0, 1), (2, 0, 2)], [(3, 0, 1), (2, 2, 3)])
    assert windows_of(inner_order(packed, "reverse", KEYS, 0)) == [
        [(2, 0, 2), (1, 0, 1), (0, 0, 3)],
        [(2, 2, 3), (3, 0, 1)],
    ]


def test_pieces_of_one_document_stay_in_order_and_join():
    packed = placement([(0, 5, 9), (1, 0, 2), (0, 9, 11), (1, 4, 5)])
    assert windows_of(inner_order(packed, "reverse", KEYS, 0)) == [
        [(1, 0, 2), (1, 4, 5), (0, 5, 11)]
    ]


def test_shuffle_follows_the_seeded_keys_of_the_documents():
    packed = placement([(0, 0, 1), (1, 0, 1), (2, 0, 1), (3, 0, 1)], [(0, 1, 2), (3, 1, 2)])
    orders = set()
    for seed in range(4):
        found = windows_of(inner_order(packed, "shuffle", KEYS, seed))
        expected = np.argsort(mix64(KEYS ^ np.uint64(seed))).tolist()
        assert [doc for doc, _, _ in found[0]] == expected
        assert [doc for doc, _, _ in found[1]] == [d for d in expected if d in (0, 3)]
        orders.add(tuple(expected))
    assert len(orders) > 1


def test_no_windows_and_unknown_names():
    assert windows_of(inner_order(placement(), "reverse", KEYS, 0)) == []
    with pytest.raises(ValueError, match="sorted"):
        inner_order(placement(), "sorted", KEYS, 0)
