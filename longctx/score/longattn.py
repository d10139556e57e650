"""LongAttn (arXiv 2502.16860): how much of the first layer's attention goes far back.

In a window of L tokens, M is the causal softmax attention of a head of layer 0 and k = floor(L/4).
DS = sum of M[i, j] over i - j >= k, divided by L, says how much attention goes that far; Var, the
variance of those weights, how unevenly. Both are means over the heads. The score of a cut,
z(DS) - alpha·z(Var) (the paper) or its min-max form (the released code), is made by `decide` from
the two columns.

What we changed. The published code builds M, 4.3 GB a head at 32 k; here blocks of rows are summed
and forgotten: sums of weights and of their squares are all that DS and Var need. No entry right of
a block's last row is computed, and no row that looks back less than k. Logits and softmax are
float32, sums over rows float64. The paper drops a document of exactly L tokens (`keep_exact=False`)
and takes a wrong distance where 4 does not divide L; ours is floor(L/4) always. `nosink`, DS
without column 0, is ours: first tokens attract attention whatever they say.

Costs L²·d multiply-adds a head: 1.3e11 FLOP at 32 k and d 64. Memory is that of q and k, and `rows`
rows of L weights. Lost: attention weights are no proof that far text matters; later layers are not
seen.
"""

from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    import torch

I32 = npt.NDArray[np.int32]
VarMode = Literal["full", "triangle"]
# Rows of weights held at once. On a CPU they should fit its caches; a GPU wants few launches.
CPU_ROWS, CUDA_ROWS = 256, 4096
_ALIGNED = 16


class Window(NamedTuple):
    """Tokens start..end-1 of a document."""

    start: int
    end: int


class LongAttn(NamedTuple):
    """Distant share of the attention, variance of the distant weights, share without column 0."""

    ds: float
    var: float
    nosink: float


class FarSums(NamedTuple):
    """Sums over distant weights, of their squares, and over those in column 0; float64 [heads]."""

    weights: npt.NDArray[np.float64]
    squares: npt.NDArray[np.float64]
    sink: npt.NDArray[np.float64]


def attn_windows(n: int, size: int, *, keep_exact: bool = True) -> list[Window]:
    """Windows of `size` tokens in a document of n, from both ends towards its middle.

    While more than three windows are left, one is taken from each end; what then remains gives a
    front and a back window, which overlap where it is shorter than two, and one centred between
    them where it is longer. A document of exactly `size` tokens is one window, or none with
    `keep_exact=False` (as in the paper); a shorter one has none.
    """
    if n < size or (n == size and not keep_exact):
        return []
    if n == size:
        return [Window(0, n)]
    found = []
    left, right = 0, n
    while right - left > 3 * size:
        found += [Window(left, left + size), Window(right - size, right)]
        left, right = left + size, right - size
    starts = [left, right - size]
    if right - left > 2 * size:
        starts.insert(1, left + (right - left - size) // 2)
    return [*found, *(Window(start, start + size) for start in starts)]


def framed(ids: I32, bos: int | None) -> I32:
    """A window's ids int32 [L] as they are fed: with BOS in front, if any, and without the last."""
    return ids if bos is None else np.concatenate([[bos], ids[:-1]]).astype(np.int32)


def longattn_from_matrix(
    M: npt.ArrayLike, k: int | None = None, *, var_mode: VarMode = "full"
) -> LongAttn:
    """Scores of attention weights [L, L] or [heads, L, L], row i over the keys j <= i.

    `k` is the distance that counts as far (by default floor(L/4)).
    """
    weights = np.asarray(M, np.float64)
    weights = weights.reshape(-1, *weights.shape[-2:])
    n = weights.shape[-1]
    far = np.tril(weights, -_distance(n, k))
    sums = FarSums(far.sum((1, 2)), np.square(far).sum((1, 2)), far[:, :, 0].sum(1))
    return longattn_from_sums(sums, n, k, var_mode=var_mode)


def longattn_from_sums(
    sums: FarSums, n: int, k: int | None = None, *, var_mode: VarMode = "full"
) -> LongAttn:
    """Scores of a window of n tokens from what `far_sums` found.

    The variance is the unbiased one over all n² entries of the masked matrix, zeros included
    (`full`), or over those entries only that are far (`triangle`).
    """
    far = n - _distance(n, k)
    count = n * n if var_mode == "full" else far * (far + 1) // 2
    variances = (sums.squares - sums.weights**2 / count) / max(1, count - 1)
    return LongAttn(
        float(np.mean(sums.weights)) / n,
        float(np.mean(variances)),
        float(np.mean(sums.weights - sums.sink)) / n,
    )


def longattn_stream(
    q: "torch.Tensor",
    k: "torch.Tensor",
    distance: int | None = None,
    *,
    var_mode: VarMode = "full",
    rows: int | None = None,
) -> LongAttn:
    """Scores from queries and keys after RoPE, as `far_sums` takes them."""
    sums = far_sums(q, k, distance, rows=rows)
    return longattn_from_sums(sums, q.shape[1], distance, var_mode=var_mode)


def far_sums(
    q: "torch.Tensor", k: "torch.Tensor", distance: int | None = None, *, rows: int | None = None
) -> FarSums:
    """Sums of the softmax(q kᵀ/√d) weights of keys at least `distance` before their query.

    `q` [heads, L, d] and `k` [key heads, L, d] are float32 or float64, on one device; consecutive
    heads of q share a key head. `rows` is how many rows of weights are held at once; the result
    does not depend on it but for rounding. Weights that are no numbers give sums that are none.
    Raises torch's OutOfMemoryError.
    """
    import torch

    heads, n, width = q.shape
    shared = heads // len(k)
    far = _distance(n, distance)
    step = block_rows(rows or (CUDA_ROWS if q.is_cuda else CPU_ROWS), shared)
    found = torch.zeros(3, len(k), shared, dtype=torch.float64, device=q.device)
    held = torch.empty(shared * min(step, n) * n, dtype=q.dtype, device=q.device)
    # Rows that cannot look back so far add nothing, and are not computed.
    for start in range(far, n, step):
        end = min(start + step, n)
        future = torch.full((end - start, end - start), -torch.inf, device=q.device).triu_(1)
        for head, keys in enumerate(k):
            queries = q[head * shared : (head + 1) * shared, start:end].reshape(-1, width)
            block = held[: len(queries) * end].view(len(queries), end)
            torch.mm(queries * width**-0.5, keys[:end].T, out=block)
            weights = block.view(shared, end - start, end)
            weights[:, :, start:] += future
            torch.softmax(block, dim=1, out=block)
            # Only in the last columns does the border of "far" run through the rows.
            weights[:, :, start - far + 1 : end - far].tril_(-1)
            distant = weights[:, :, : end - far]
            found[0, head] += distant.sum(2).double().sum(1)
            found[1, head] += torch.linalg.vector_norm(distant, dim=2).double().square().sum(1)
            found[2, head] += distant[:, :, 0].double().sum(1)
    return FarSums(*found.reshape(3, heads).cpu().numpy())


def block_rows(rows: int, sharing: int) -> int:
    """Positions in a block of at most `rows` rows of weights, where `sharing` heads share keys.

    A multiple of 16 where that can be: products are a third slower where rows of weights do not
    begin at multiples of 64 bytes.
    """
    step = max(1, rows // sharing)
    return step // _ALIGNED * _ALIGNED or step


def _distance(n: int, k: int | None) -> int:
    return n // 4 if k is None else k
