"""LADM (arXiv 2503.02502): contextual dependency of a window, from attention between its spans.

A window of L tokens is N = L / l spans. PFS(i, j) is the weight that the rows of span j give to the
keys of span i, summed over both, mean over the heads. With sigma_j the sample standard deviation of
PFS(i, j) over its i, AFS(j) = sigma_j · sum over i of (j - i)/N · PFS(i, j), and CDS is the mean
(the released code) or the sum (the paper) over j of j/N · AFS(j); then the mean over the layers.

Paper and code differ, and the code is our default: it takes j = N-1, N-1-d, … and i = j-d, j-2d, …
(`index="paper"`: j = 16, 20, …, i = 1, 5, …), leaves a span's own keys out of its softmax
(`include_self` keeps them), and takes the mean. Steps of j and i are separate here; the code's
bound on j leaves at least four values of i.

Costs an ordinary forward and, with d = 4, a quarter of the logits of every layer once more. Windows
of other lengths cannot be compared: all weights are relative to N. Only every d-th span is looked
at, and span 0, which attracts attention whatever it says, never.
"""

from collections.abc import Mapping
from itertools import count
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from longctx.errors import RunError
from longctx.score.attention import Query, collecting
from longctx.score.causal_lm import CausalLM

F64 = npt.NDArray[np.float64]
I32 = npt.NDArray[np.int32]
I64 = npt.NDArray[np.int64]
Index = Literal["code", "paper"]
# Span j -> the earlier spans i that it is compared with.
Pairs = dict[int, I64]


class Cds(NamedTuple):
    """Mean (released code) and sum (paper) over j; NaN where no j has two values of i."""

    mean: F64
    sum: F64


def ladm_index(
    n_spans: int, *, index: Index = "code", step_j: int = 4, step_i: int = 4, first: int = 1
) -> Pairs:
    """Which spans are compared in a window of `n_spans`: each j, and its i in the index's order.

    `code` counts down from the last span while j > first + 4·step_i and i >= first; `paper` up from
    j = 16 and i = first, to i <= j - 5.
    """
    if index == "code":
        last = range(n_spans - 1, first + 4 * step_i, -step_j)
        return {j: np.arange(j - step_i, first - 1, -step_i) for j in last}
    return {j: np.arange(first, j - 4, step_i) for j in range(16, n_spans, step_j)}


def least_spans(*, index: Index = "code", step_j: int = 4, step_i: int = 4) -> int:
    """Spans that a window needs for a score: the fewest with a j that has two values of i."""
    found = (ladm_index(n, index=index, step_j=step_j, step_i=step_i) for n in count())
    return next(n for n, pairs in enumerate(found) if any(len(i) >= 2 for i in pairs.values()))


def pfs(logits: npt.ArrayLike, span: int, i: int, j: int, *, include_self: bool = False) -> float:
    """PFS(i, j) from the logits [L, L] of one head, or [heads, L, L] of several.

    Rows of span j see the spans before it, or with `include_self` also their own up to the row.
    """
    of_heads = np.asarray(logits, np.float64)
    of_heads = of_heads.reshape(-1, *of_heads.shape[-2:])
    total = 0.0
    for row in range(j * span, (j + 1) * span):
        seen = of_heads[:, row, : row + 1 if include_self else j * span]
        weights = np.exp(seen - seen.max(axis=1, keepdims=True))
        shares = weights / weights.sum(axis=1, keepdims=True)
        total += float(shares[:, i * span : (i + 1) * span].sum(axis=1).mean())
    return total


def ladm_cds(weights: Mapping[int, F64], n_spans: int, pairs: Pairs) -> Cds:
    """CDS of any number of layers and windows at once.

    `weights[j]` is float64 [..., at least j]: PFS(i, j) at place i of the last axis. A j with fewer
    than two values of i is left out.
    """
    terms = []
    for j, places in pairs.items():
        if len(places) < 2:
            continue
        of_j = np.asarray(weights[j], np.float64)[..., places]
        afs = of_j.std(axis=-1, ddof=1) * (of_j * ((j - places) / n_spans)).sum(axis=-1)
        terms.append(j / n_spans * afs)
    if not terms:
        return Cds(np.array(np.nan), np.array(np.nan))
    summed = np.sum(terms, axis=0)
    return Cds(summed / len(terms), summed)


def ladm_windows(
    lm: CausalLM, windows: I32, span: int, pairs: Pairs, *, include_self: bool = False
) -> Cds:
    """CDS of windows int32 [b, L], as they are fed, each the mean over the layers: float64 [b].

    Weights that are no numbers give NaN. Raises RunError where one window does not fit the device's
    memory.
    """
    import torch

    queries = [
        Query(
            j * span,
            (j + 1) * span,
            np.arange(j + 1 + include_self, dtype=np.int64) * span,
            own=include_self,
        )
        for j in pairs
    ]
    ids = torch.from_numpy(windows.astype(np.int64)).to(lm.device)
    try:
        with torch.inference_mode(), collecting(lm, queries) as found:
            lm.hidden(ids)
    except torch.OutOfMemoryError:
        if len(windows) == 1:
            raise RunError(
                f"{lm.name} runs out of memory with {windows.shape[1]:,} tokens",
                where="score.ladm",
                remedy="use shorter windows (`window`), dtype bfloat16, a smaller model, or a "
                "device with more memory",
            ) from None
        torch.cuda.empty_cache()
        half = len(windows) // 2
        both = [
            ladm_windows(lm, part, span, pairs, include_self=include_self)
            for part in (windows[:half], windows[half:])
        ]
        return Cds(*(np.concatenate(values) for values in zip(*both, strict=True)))
    weights = dict(zip(pairs, found.sums(), strict=True))
    of_layers = ladm_cds(weights, windows.shape[1] // span, pairs)
    return Cds(*(values.mean(axis=0) for values in of_layers))
