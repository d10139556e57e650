"""Which documents a proxy run may see, and how often it sees each source.

Repetition changes which mixture is best (arXiv 2606.07597), so a proxy has to see every source as
often as the run that it stands for. With f = tokens of the proxy / tokens of that run, the proxy's
pool is the documents whose number u01(seed, id, "mixture.proxy") lies below f, the same f for every
source: shares, lengths and epochs are then those of the large run, up to the noise of the draw,
sqrt(sum of squared sizes · (1 - f) / f) / size. Pools are nested in f. Held-out documents are cut
off before and are in no pool.

Costs two SHA-256 a document. Lost: of a source with few documents a small f keeps a handful, or
none; `thin` names those.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from longctx.errors import RecipeError
from longctx.mixture.chance import held_out, u01, uniforms

F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]
Bool = npt.NDArray[np.bool_]

PROXY, EXCERPT = "mixture.proxy", "mixture.excerpt"
FEW_DOCUMENTS = 20


@dataclass(frozen=True)
class Counted:
    """What was read of a source: documents and tokens in all, in the pool, and held out."""

    docs: int = 0
    tokens: int = 0
    pool_docs: int = 0
    pool_tokens: int = 0
    held_docs: int = 0

    def __add__(self, other: "Counted") -> "Counted":
        mine, theirs = vars(self).values(), vars(other).values()
        return Counted(*(a + b for a, b in zip(mine, theirs, strict=True)))


def pool_factor(proxy_tokens: float, target_tokens: float) -> float:
    """Share of every source's documents that a proxy may see: proxy_tokens / target_tokens.

    Raises RecipeError where either is not above 0.
    """
    if not (proxy_tokens > 0 and target_tokens > 0 and math.isfinite(proxy_tokens)):
        raise RecipeError(
            f"expected token budgets above 0, got {proxy_tokens:g} and {target_tokens:g}",
            remedy="give the tokens of one proxy and those of the run that it stands for",
        )
    return proxy_tokens / target_tokens


def roles(
    seed: int, ids: Sequence[str], keys: Iterable[str], factor: float, holdout: float
) -> tuple[Bool, Bool]:
    """Which documents are in the pool, and which are held out, bool [n] each.

    `keys` says what is held out together (ids of clusters of near-copies, else the documents' own).
    """
    held = held_out(seed, keys, holdout)
    pool = ~held
    if factor < 1:
        pool &= uniforms(seed, ids, PROXY) < factor
    return pool, held


def fair_length(sizes: Sequence[int], wanted: int, least: int) -> int:
    """How much to take of each held-out document at most, so that they give `wanted` tokens.

    At least `least`; where documents are few and long more, and of all of them alike.
    """
    left, most = wanted, least
    for place, size in enumerate(sorted(sizes)):
        most = max(least, -(-left // (len(sizes) - place)))
        if size >= most:
            return most
        left -= size
    return most


def excerpt(seed: int, doc_id: str, size: int, most: int) -> tuple[int, int]:
    """Where the held-out piece of a document of `size` tokens begins and ends.

    At most `most` tokens, at a place drawn by hash, since documents begin alike.
    """
    if size <= most:
        return 0, size
    begin = int(u01(seed, doc_id, EXCERPT) * (size - most + 1))
    return begin, begin + most


def blocks_of(shares: F64, blocks: int) -> I64:
    """Whole blocks of each source, int64 [m], by largest remainder (ties to the earlier)."""
    exact = shares / shares.sum() * blocks
    found = np.floor(exact).astype(np.int64)
    order = np.argsort(-(exact - found), kind="stable")
    found[order[: blocks - int(found.sum())]] += 1
    return found


def epochs(blocks: I64, block: int, sizes: I64) -> F64:
    """Passes over each source, float64 [m]: infinite where there is nothing and some is asked."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(blocks > 0, blocks * block / sizes, 0.0)


def check_epochs(
    ids: Sequence[str],
    sources: Sequence[str],
    passes: F64,
    max_epochs: float,
    counted: Mapping[str, Counted],
) -> None:
    """Refuse mixtures that would read a source too often; `passes` float64 [mixtures, m].

    RecipeError names the worst, with what there is and how many others there are.
    """
    over = passes > max_epochs
    if not over.any():
        return
    i, j = divmod(int(np.argmax(passes)), passes.shape[1])
    worst, there = float(passes[i, j]), counted.get(sources[j], Counted())
    how = f"{worst:.1f} passes over" if math.isfinite(worst) else "tokens of"
    others = int(over.any(axis=1).sum()) - 1
    names = sorted({sources[int(k)] for k in np.flatnonzero(over.any(axis=0))} - {sources[j]})
    more = f"; {others:,} more mixtures ask for too much" if others else ""
    also = f", also of {', '.join(names)}" if names else ""
    raise RecipeError(
        f"mixture '{ids[i]}' asks for {how} source '{sources[j]}', which has "
        f"{there.pool_tokens:,} tokens in {there.pool_docs:,} documents for training; at most "
        f"{max_epochs:g} passes are allowed{more}{also}",
        where="--budget-tokens",
        remedy="give a smaller budget, draw mixtures with `longctx mix sample --available --budget-"
        "tokens`, or raise --max-epochs (repetition changes which mixture is best)",
    )


def thin(counted: Mapping[str, Counted]) -> list[str]:
    """Sources of whose documents few are left to train on, in words."""
    return [
        f"source '{name}' keeps {found.pool_docs:,} of {found.docs:,} documents for training: what "
        "it teaches hangs on which ones"
        for name, found in sorted(counted.items())
        if found.pool_docs < FEW_DOCUMENTS
    ]
