"""Data sets and neighbour tables that the tests of orders share; each is built once."""

from functools import cache
from typing import NamedTuple

import numpy as np
import pytest

from jobs.bench.datasets import flat, hier
from longctx.cluster.knn import Edges, search, undirected_edges
from longctx.cluster.similarity import F32, I32
from longctx.ids import U64, doc_keys, priorities


class Corpus(NamedTuple):
    vectors: F32
    lists: I32
    sims: F32
    edges: Edges
    priority: U64


def corpus_of(vectors: F32, k_search: int = 32, k: int = 10, seed: int = 17) -> Corpus:
    n = len(vectors)
    lists, sims = search(vectors, 0, n, k_search)
    keys = doc_keys([f"d{i}" for i in range(n)])
    return Corpus(vectors, lists, sims, undirected_edges(lists, sims, k), priorities(keys, seed))


@cache
def named(name: str) -> Corpus:
    return corpus_of({"flat": flat, "hier": hier}[name](2000))


def at_degrees(*degrees: float) -> F32:
    angle = np.deg2rad(np.array(degrees))
    return np.stack([np.cos(angle), np.sin(angle)], axis=1).astype(np.float32)


EIGHT = np.array(
    [
        [-2, 0, 5],
        [1, 4, 3],
        [-3, -3, -4],
        [1, 2, 0],
        [0, 4, 2],
        [3, 0, 2],
        [-2, -4, 0],
        [-2, -1, -3],
    ],
    dtype=np.float64,
)


@pytest.fixture(scope="session")
def eight() -> Corpus:
    """The eight vectors of the worked examples, with lists of two."""
    unit = EIGHT / np.linalg.norm(EIGHT, axis=1, keepdims=True)
    return corpus_of(unit.astype(np.float32), k_search=2, k=2)


@pytest.fixture(params=["flat", "hier"])
def named_set(request: pytest.FixtureRequest) -> str:
    return str(request.param)
