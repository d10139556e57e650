"""Samples of a corpus by hash: the same documents for any parts, workers and order of rows.

Each part gives those of its documents whose priority is below a bound, so no part must know of
another and no part gives more than its share. The bound follows from the number of documents; it is
a step of its own, so that a sample is drawn again when the corpus grows.
"""

from collections.abc import Iterable

import numpy as np
import pyarrow as pa

from longctx.engine.barrier import BarrierContext
from longctx.engine.corpus import Part
from longctx.engine.op import Setting
from longctx.engine.rows import as_binary, usable, vectors
from longctx.engine.steps import StepRef
from longctx.ids import doc_keys, priorities

_MOST = 2**64 - 1


def bound_step(
    context: BarrierContext, wanted: int, *numbers: int, ignore: Iterable[str]
) -> StepRef:
    """The step `size`: the bound below which about `wanted` documents lie, and `numbers`."""
    known = [(context.rows, wanted, *numbers)]
    return context.spread("size", _bound, known, [], ignore=ignore)


def _bound(numbers: tuple[int, ...], setting: Setting) -> pa.Table:
    n, wanted, *more = numbers
    bound = min(_MOST, 2**64 * wanted // max(1, n))
    return pa.table({"bound": pa.array([bound], pa.uint64()), "numbers": [[n, wanted, *more]]})


def sampled(size: StepRef, seed: int | None, part: Part, setting: Setting) -> pa.Table:
    """`priority` and `vector` of a part's documents below the bound that have a usable vector.

    Priorities follow from `seed`, or from the run's where it is None.
    """
    found, bound = [], bound_of(size)
    seed = setting.seed if seed is None else seed
    for table in part.groups(["doc_id", "embedding"]):
        matrix = vectors(table.column("embedding"))
        priority = priorities(doc_keys(table.column("doc_id").to_pylist()), seed)
        chosen = (priority <= bound) & usable(matrix)
        columns = {"priority": priority[chosen], "vector": as_binary(matrix[chosen])}
        found.append(pa.table(columns))
    return pa.concat_tables(found)


def numbers_of(size: StepRef) -> list[int]:
    """Documents, wanted in the sample, and the numbers that `bound_step` was given."""
    numbers: list[int] = size.read().column("numbers")[0].as_py()
    return numbers


def bound_of(size: StepRef) -> np.uint64:
    """The largest priority of a document of the sample."""
    return np.uint64(size.read().column("bound")[0].as_py())
