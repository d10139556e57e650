"""Neighbour lists on the engine: blocks of documents in parallel, exact or from cells.

Up to a number of documents every block is compared with all of them. Above, cells are trained once,
documents are assigned to them in blocks, the number of cells that are searched is chosen by a
measured recall, and blocks search them; then each block looks at its neighbours' neighbours. A
worker maps the vectors and holds one block. What is stored are numbers, 4 bytes an entry: exact
similarities are made anew where one is needed.
"""

from collections.abc import Iterable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from longctx.engine.arrays import mapped, npy_bytes
from longctx.engine.barrier import BarrierContext
from longctx.engine.op import Setting
from longctx.engine.rows import as_binary, from_binary
from longctx.engine.steps import Stats, StepRef, read_table

if TYPE_CHECKING:
    from longctx.cluster.cells import Cells

F32 = npt.NDArray[np.float32]
I32 = npt.NDArray[np.int32]
I64 = npt.NDArray[np.int64]
Block = tuple[int, int]

EXACT_UP_TO = 200_000
VECTORS = "vectors.npy"
_ARRAYS = ("home", "order", "bounds", "centroids")
_EXACT_BLOCK = 4096
# Of a large block many queries look into the same cell, so its vectors are copied less often.
_CELL_BLOCK = 65_536


class Neighbours(NamedTuple):
    """Where the lists of a set of documents lie, block by block in the order of their numbers.

    `cells` is the step that holds their cells (None where the search was exact) and `recall` the
    measured share of true neighbours.
    """

    lists: StepRef
    cells: StepRef | None
    recall: float

    def steps(self) -> list[StepRef]:
        """The steps that a reader of both depends on."""
        return [self.lists, *([self.cells] if self.cells else [])]


def find_neighbours(
    context: BarrierContext,
    numbered: StepRef,
    n: int,
    k_search: int,
    exact_up_to: int,
    ignore: Iterable[str],
) -> Neighbours:
    """Steps that search `k_search` neighbours for each of n vectors of the step `numbered`.

    It holds `vectors.npy` and, in its table, `doc_key` and `has_vector`. `ignore` names the fields
    of the op that cannot change a list, beside the two that are given.
    """
    ignored = {*ignore, "k_search", "exact_up_to"}
    k = min(k_search, max(1, n - 1))
    if n <= exact_up_to:
        exact = [(*block, k) for block in _blocks(n, _EXACT_BLOCK)]
        lists = context.spread(
            "neighbours", partial(_exact, numbered), exact, [numbered], ignore=ignored
        )
        return Neighbours(lists, None, 1.0)
    blocks = _blocks(n, _CELL_BLOCK)
    centroids = context.single("centroids", partial(_train, numbered), [numbered], ignore=ignored)
    homes = context.spread(
        "homes",
        partial(_assign, numbered, centroids),
        blocks,
        [numbered, centroids],
        ignore=ignored,
    )
    ignored.discard("k_search")
    cells = context.single(
        "cells",
        partial(_cells, numbered, centroids, homes, k),
        [numbered, centroids, homes],
        ignore=ignored,
    )
    known = [numbered, centroids, cells]
    rule = partial(_search, numbered, cells, k)
    candidates = context.spread("candidates", rule, blocks, known, ignore=ignored)
    first = context.single("first", partial(_first, candidates), [candidates], ignore=ignored)
    tasks = list(zip(blocks, range(len(blocks)), strict=True))
    rule = partial(_refine, numbered, candidates, first)
    lists = context.spread("neighbours", rule, tasks, [numbered, candidates, first], ignore=ignored)
    return Neighbours(lists, cells, context.step_stats["cells"]["recall"])


def lists_in_blocks(lists: StepRef) -> Iterator[tuple[I64, I32]]:
    """Numbers int64[m] of a block of documents and their lists int32[m, k], block by block."""
    start = 0
    for ref in lists.files:
        found = _lists_of(lists, ref)
        yield np.arange(start, start + len(found), dtype=np.int64), found
        start += len(found)


def whole_lists(numbered: StepRef, lists: StepRef) -> tuple[I32, F32]:
    """All lists int32[n, k] with their similarities float32[n, k], for what needs them at once."""
    from longctx.cluster.similarity import pair_similarities

    X = mapped(numbered, VECTORS)
    found = np.concatenate([block for _, block in lists_in_blocks(lists)])
    sims = np.full(found.shape, -np.inf, dtype=np.float32)
    row, column = np.nonzero(found >= 0)
    sims[row, column] = pair_similarities(X, row, found[row, column])
    return found, sims


def load_cells(step: StepRef) -> "Cells":
    """The cells of the step `cells`."""
    from longctx.cluster.cells import Cells

    described = next(f for f in step.files if f.name.endswith(".parquet"))
    probed = read_table(step.run_dir, described).column("probed")[0].as_py()
    home, order, bounds, centroids = (mapped(step, f"{name}.npy") for name in _ARRAYS)
    return Cells(home, order, bounds, centroids, probed)


def _blocks(n: int, size: int) -> list[Block]:
    return [(i, min(i + size, n)) for i in range(0, n, size)] or [(0, 0)]


def _lists_of(step: StepRef, ref: Any) -> I32:
    column = read_table(step.run_dir, ref).combine_chunks().column("numbers")
    return np.asarray(from_binary(column, np.int32))


def _exact(numbered: StepRef, block: tuple[int, int, int], setting: Setting) -> pa.Table:
    from longctx.cluster.knn import search

    lists, _ = search(mapped(numbered, VECTORS), *block)
    return pa.table({"numbers": as_binary(lists)})


def _keys(numbered: StepRef) -> Any:
    """Keys of the documents that have a vector, uint64[n]."""
    ref = next(f for f in numbered.files if f.name.endswith(".parquet"))
    table = read_table(numbered.run_dir, ref, ["doc_key", "has_vector"])
    return table.column("doc_key").to_numpy()[table.column("has_vector").to_numpy()]


def _train(numbered: StepRef, setting: Setting) -> dict[str, Any]:
    from longctx.cluster.cells import train_cells

    centroids = train_cells(mapped(numbered, VECTORS), _keys(numbered), setting.seed)
    return {"centroids.npy": npy_bytes(centroids)}


def _assign(numbered: StepRef, centroids: StepRef, block: Block, setting: Setting) -> pa.Table:
    from longctx.cluster.kmeans import assign

    home, _ = assign(mapped(numbered, VECTORS)[slice(*block)], mapped(centroids, "centroids.npy"))
    return pa.table({"home": home})


def _cells(
    numbered: StepRef, centroids: StepRef, homes: StepRef, k: int, setting: Setting
) -> dict[str, Any]:
    """The documents grouped by cell, and how many cells each looks into."""
    from longctx.cluster.cells import group, tune_probed

    home = homes.read().column("home").to_numpy()
    found, recall = tune_probed(
        mapped(numbered, VECTORS),
        group(home, mapped(centroids, "centroids.npy")),
        _keys(numbered),
        setting.seed,
        k,
    )
    described = pa.table({"probed": pa.array([found.probed], pa.int64())})
    figures = {"cells": len(found.centroids), "probed": found.probed, "recall": recall}
    return {
        "cells.parquet": Stats.attach(described, figures),
        **{f"{name}.npy": npy_bytes(getattr(found, name)) for name in _ARRAYS},
    }


def _search(numbered: StepRef, cells: StepRef, k: int, block: Block, setting: Setting) -> pa.Table:
    from longctx.cluster.cells import search_cells

    rows = np.arange(*block, dtype=np.int64)
    lists, _ = search_cells(mapped(numbered, VECTORS), load_cells(cells), rows, k)
    return pa.table({"numbers": as_binary(lists)})


def _first(candidates: StepRef, setting: Setting) -> dict[str, Any]:
    """The first neighbours of all documents in one array, for `_refine` to look up."""
    from longctx.cluster.cells import REFINED

    parts = [found[:, :REFINED] for _, found in lists_in_blocks(candidates)]
    return {"first.npy": npy_bytes(np.concatenate(parts))}


def _refine(
    numbered: StepRef,
    candidates: StepRef,
    first: StepRef,
    task: tuple[Block, int],
    setting: Setting,
) -> pa.Table:
    from longctx.cluster.cells import refine

    block, place = task
    found = _lists_of(candidates, candidates.files[place])
    rows = np.arange(*block, dtype=np.int64)
    X = mapped(numbered, VECTORS)
    lists, _ = refine(X, rows, found, mapped(first, "first.npy"))
    return pa.table({"numbers": as_binary(lists)})
