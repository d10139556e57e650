"""Samples of a corpus by hash: the same documents for any parts, workers and order of rows.

Each part gives those of its documents whose priority is below a bound, so no part must know of
another and no part gives more than its share. The bound follows from the number of documents; it is
a step of its own, so that a sample is drawn again when the corpus grows.
"""

from collections.abc import Iterable

import numpy as np
import pyarrow as pa

from longctx.engine.barrier import BarrierContext
from longctx.engine.op import Setting
from longctx.engine.steps import StepRef

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


def numbers_of(size: StepRef) -> list[int]:
    """Documents, wanted in the sample, and the numbers that `bound_step` was given."""
    numbers: list[int] = size.read().column("numbers")[0].as_py()
    return numbers


def bound_of(size: StepRef) -> np.uint64:
    """The largest priority of a document of the sample."""
    return np.uint64(size.read().column("bound")[0].as_py())
