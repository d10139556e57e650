"""The losses that pairs are made for, on sums of token log-probabilities: a reference, no trainer.

DPO (arXiv 2305.18290) and LOGO (arXiv 2410.18533, equation 6). LOGO's paper prints its regulariser
without the minus sign and one common length of the rejected answers; here each answer has its own
length, and the regulariser is the mean negative log-likelihood of the chosen one, so that lowering
it raises the chosen answer. A few operations on numbers; nothing is lost.
"""

import math
from collections.abc import Sequence


def dpo(pw: float, pl: float, rw: float, rl: float, beta: float) -> float:
    """-log sigmoid(beta * ((pw - rw) - (pl - rl))), natural logarithm.

    `pw`, `pl` are the policy's sums over the tokens of the chosen and the rejected text, `rw`, `rl`
    those of the reference model.
    """
    return _minus_log_sigmoid(beta * ((pw - rw) - (pl - rl)))


def logo(
    logp_w: float,
    len_w: int,
    logp_l: Sequence[float],
    len_l: Sequence[int],
    beta: float,
    gamma: float,
    lam: float,
) -> float:
    """LOGO's loss of a chosen answer against M rejected ones, plus lam * (-logp_w / len_w).

    `logp` are sums over the tokens of an answer, `len` their numbers. Raises ValueError without a
    rejected answer, for a length below 1, and where the numbers of sums and lengths differ.
    """
    if not logp_l or len(logp_l) != len(len_l):
        raise ValueError(f"{len(logp_l)} sums and {len(len_l)} lengths of rejected answers")
    if min(len_w, *len_l) < 1:
        raise ValueError(f"answers of {len_w} and {list(len_l)} tokens; one has one at least")
    chosen = logp_w / len_w
    rejected = sum(p / n for p, n in zip(logp_l, len_l, strict=True)) / len(logp_l)
    return _minus_log_sigmoid(beta * chosen - beta * rejected - gamma) - lam * chosen


def _minus_log_sigmoid(z: float) -> float:
    """log(1 + exp(-z)), without an overflow at either end."""
    return math.log1p(math.exp(-z)) if z >= 0 else math.log1p(math.exp(z)) - z
