"""The next token from logits: greedy, or drawn with the request's own generator.

Drawn by the Gumbel-max trick: of logits / temperature, each with Gumbel noise added, the largest is
a draw from the softmax. top_k, top_p (Holtzman et al. 2019, arXiv 1904.09751), min_p (Nguyen et al.
2024, arXiv 2407.01082) and the repetition penalty (Keskar et al. 2019, arXiv 1909.05858) as usual;
each of the first three is a threshold, and whatever ties with it is kept.

Logits depend a little on what else is in a batch. `Choice.safe` says that no logits within
`tolerance` of those given could have led to another token: whoever decodes in batches does the
others again alone. O(V log V) for a vocabulary of V with top_p or top_k, else O(V).
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

F64 = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Sampling:
    """Parameters of one request; temperature 0 is greedy, top_k 0 is none."""

    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    repetition_penalty: float = 1.0


class Choice(NamedTuple):
    """A token, and whether it is the same for all logits within the tolerance."""

    token: int
    safe: bool


def choose(
    logits: npt.NDArray[np.floating],
    sampling: Sampling,
    rng: np.random.Generator,
    seen: npt.NDArray[np.int64],
    tolerance: float = 0.0,
) -> Choice:
    """The next token after `logits` [V]; `seen` are the ids so far, for the penalty.

    A draw takes V numbers from `rng`, whatever the parameters; a greedy choice none.
    """
    scores = np.array(logits, dtype=np.float64)
    if sampling.repetition_penalty != 1.0:
        _penalise(scores, np.unique(seen), sampling.repetition_penalty)
        tolerance *= max(sampling.repetition_penalty, 1 / sampling.repetition_penalty)
    if sampling.temperature <= 0.0:
        return _largest(scores, np.ones(len(scores), dtype=bool), 2 * tolerance)
    scores /= sampling.temperature
    slack = 2 * tolerance / sampling.temperature
    noisy = scores + rng.gumbel(size=len(scores))
    kept = scores >= _threshold(scores, sampling, 0.0)
    found = int(np.argmax(np.where(kept, noisy, -np.inf)))
    if not slack:
        return Choice(found, True)
    possible = scores >= _threshold(scores, sampling, slack) - slack
    best, apart = _largest(noisy, possible, slack)
    return Choice(found, best == found and apart and _stays(scores, found, sampling, slack))


def _penalise(scores: F64, seen: npt.NDArray[np.int64], penalty: float) -> None:
    known = scores[seen]
    scores[seen] = np.where(known > 0, known / penalty, known * penalty)


def _largest(scores: F64, among: npt.NDArray[np.bool_], slack: float) -> Choice:
    """The place of the largest score (of equals the first), and whether it leads by more."""
    allowed = np.where(among, scores, -np.inf)
    best = int(np.argmax(allowed))
    lead = allowed[best]
    allowed[best] = -np.inf
    return Choice(best, slack == 0.0 or bool(lead - allowed.max() > slack))


def _threshold(scores: F64, sampling: Sampling, slack: float) -> float:
    """The smallest score that is kept; with `slack` that of the largest nucleus there could be."""
    lowest = -np.inf
    if 0 < sampling.top_k < len(scores):
        lowest = max(lowest, float(np.partition(scores, -sampling.top_k)[-sampling.top_k]))
    if sampling.min_p > 0.0:
        lowest = max(lowest, float(scores.max() + np.log(sampling.min_p)))
    if sampling.top_p < 1.0:
        lowest = max(lowest, _nucleus(scores, _share(sampling.top_p, slack)))
    return lowest


def _share(p: float, slack: float) -> float:
    """The largest share that some tokens can have had, now p, if scores moved by slack / 2."""
    grown = max(p, 0.0) * np.exp(slack)
    return float(grown / (grown + 1.0 - p)) if p < 1.0 else 1.0


def _stays(scores: F64, token: int, sampling: Sampling, slack: float) -> bool:
    """Whether a kept token is kept for all scores nearby: too little can come before it."""
    ahead = scores > scores[token] - slack
    ahead[token] = False
    if not ahead.any():
        return True
    mass = np.exp(scores - scores.max())
    few = not 0 < sampling.top_k <= int(ahead.sum())
    light = mass[ahead].sum() / mass.sum() < _share(sampling.top_p, -slack)
    likely = sampling.min_p <= 0.0 or mass[token] > sampling.min_p * np.exp(slack)
    return few and (sampling.top_p >= 1.0 or bool(light)) and bool(likely)


def _nucleus(scores: F64, top_p: float) -> float:
    """The score at which the most probable tokens together reach `top_p`."""
    falling = np.sort(scores)[::-1]
    mass = np.exp(falling - falling[0])
    reached = int(np.searchsorted(np.cumsum(mass), max(top_p, 0.0) * mass.sum()))
    return float(falling[min(reached, len(falling) - 1)])
