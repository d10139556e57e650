"""GATEAU (arXiv 2410.15633): which long instruction rows teach the most.

HMG, homologous models' guidance: how much harder the response y is for a model with a short window
than for one with a long one, given context c and instruction x. CAM, contextual awareness: whether
the long model attends to those segments of the context that help it least, as the cosine CAS of the
segments' perplexities PPL(y | segment, x) with the attention that y gives them. The score is
alpha·z(HMG) + (1 - alpha)·z(CAS); `decide` makes it of the columns (`keep: {gateau: …}`), and
`gateau_score` is the same function for arrays.

What we changed: HMG is the difference of the log-perplexities. The paper normalises two lists of
perplexities over the data set first; noise of a nearly constant list then looks like signal, and
one outlier flattens all others (`z_each` and the norms `paper_softmax` and `released` are there for
parity). The released code never computes the cosine that its ranking reads. That a high CAS marks
rows to keep follows the paper's words; its code does not say.
"""

import math
from collections.abc import Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt

from longctx.filter.cut import zscore
from longctx.filter.derived import derive

F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]
Importance = Literal["ppl", "neg_ppl", "exp_neg_nll"]
Norm = Literal["z", "rank", "paper_softmax", "released"]
Hmg = Literal["log_difference", "z_each"]

ALPHA, RATIO = 0.8, 0.1


def gateau_hmg(nll_a: npt.ArrayLike, nll_b: npt.ArrayLike, *, hmg: Hmg = "log_difference") -> F64:
    """HMG of rows, float64 [n], from the mean NLL of their responses, short (A) and long (B)."""
    a, b = np.asarray(nll_a, np.float64), np.asarray(nll_b, np.float64)
    if hmg == "log_difference":
        return np.asarray(a - b)
    return np.asarray(zscore(a) - zscore(b))


def importance(nll: npt.ArrayLike, kind: Importance = "ppl") -> F64:
    """Importance of segments, float64 [n], from the mean NLL of the response after each alone."""
    values = np.asarray(nll, np.float64)
    if kind == "exp_neg_nll":
        return np.exp(-values)
    return np.exp(values) if kind == "ppl" else -np.exp(values)


def cas(importances: npt.ArrayLike, attention: npt.ArrayLike) -> float:
    """Cosine of importance and attention of a row's segments; NaN for fewer than two, or zeros."""
    a, b = np.asarray(importances, np.float64), np.asarray(attention, np.float64)
    norms = float(np.linalg.norm(a) * np.linalg.norm(b))
    if len(a) < 2 or norms == 0:
        return math.nan
    return float(np.clip(a @ b / norms, -1, 1))


def gateau_score(
    nll_a: npt.ArrayLike,
    nll_b: npt.ArrayLike,
    cas: npt.ArrayLike,
    *,
    alpha: float = ALPHA,
    norm: Norm = "z",
    hmg: Hmg = "log_difference",
) -> F64:
    """Scores of all rows of a data set, float64 [n], NaN where a part with weight is NaN.

    `norm` is that of the two parts: z-scores, percent ranks, `paper_softmax` (of the difference of
    min-max perplexities, and of CAS), or `released` (the same for HMG, CAS as it is).
    """
    columns = {
        "ga_nll_a": np.asarray(nll_a, np.float64),
        "ga_nll_b": np.asarray(nll_b, np.float64),
        "ga_hmg": gateau_hmg(nll_a, nll_b),
        "ga_cas": np.asarray(cas, np.float64),
    }
    return derive("gateau", columns, alpha=alpha, norm=norm, hmg=hmg)


def gateau_select(scores: npt.ArrayLike, ids: Sequence[str], ratio: float = RATIO) -> I64:
    """Rows to keep, best first, int64: ceil(ratio·n) of the n rows with a score; ties by id."""
    values = np.asarray(scores, np.float64)
    known = np.flatnonzero(~np.isnan(values)).tolist()
    order = sorted(known, key=lambda row: (-values[row], ids[row]))
    return np.array(order[: math.ceil(ratio * len(known) - 1e-9)], np.int64)
