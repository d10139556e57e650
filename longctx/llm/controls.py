"""Whether a judge judges: statistics of its marks on a sample, each with what counts as passed.

Pure arithmetic on marks; who asks the judge is the stage. A hard control that fails ends the job
unless the user says that a weak judge is wanted. Thresholds are ours; the failures that they catch
are not: judges that give one mark to everything, marks that stay when the context is another
document's, marks that follow the length of an answer.
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from longctx.errors import RunError

Marks = Sequence[float | None]

REFUSAL = "I'm sorry, but I can't help with that."
_VARYING, _FALL, _CAUGHT, _TAU, _AGREEING = 0.5, 3.0, 0.9, 0.6, 0.8
_SAME_WITHIN, _LENGTH = 1.0, 0.5


@dataclass(frozen=True, slots=True)
class Control:
    """One control: what was measured on how many cases, and whether that is enough.

    `passed` is None where there was nothing to measure, which is no pass; `value` is None then. A
    control that is not `hard` only reports.
    """

    name: str
    value: float | None
    passed: bool | None
    n: int
    hard: bool = False
    wanted: str = ""


def kendall_tau_b(x: Sequence[float], y: Sequence[float]) -> float | None:
    """(C - D) / sqrt((n0 - tx)(n0 - ty)), Kendall 1945; None where one side is all ties.

    ValueError for lengths that differ. O(n^2) in time and memory: for a prompt's candidates.
    """
    if len(x) != len(y):
        raise ValueError(f"{len(x)} marks cannot be compared with {len(y)}")
    above = np.triu_indices(len(x), 1)
    dx, dy = (np.sign(np.subtract.outer(v, v))[above] for v in (np.array(x), np.array(y)))
    root = math.sqrt(float(np.count_nonzero(dx)) * float(np.count_nonzero(dy)))
    return float((dx * dy).sum()) / root if root else None


def spearman(x: Sequence[float], y: Sequence[float]) -> float | None:
    """Correlation of ranks, ties sharing their mean rank; None where one side does not vary."""
    if len(x) != len(y):
        raise ValueError(f"{len(x)} marks cannot be compared with {len(y)}")
    a, b = (_ranks(v) - (len(v) + 1) / 2 for v in (x, y))
    root = math.sqrt(float(a @ a) * float(b @ b))
    return float(a @ b) / root if root else None


def _ranks(values: Sequence[float]) -> np.ndarray[Any, np.dtype[np.float64]]:
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    return ((ends - counts + 1 + ends) / 2)[inverse]


def constant_judge(marks: Mapping[str, Sequence[Marks]]) -> list[Control]:
    """For each dimension: the share of prompts whose candidates got different marks. Hard.

    `marks[dimension]` holds the marks of the candidates of each prompt; prompts with fewer than two
    marks say nothing.
    """
    found = []
    for dimension, prompts in sorted(marks.items()):
        known = [k for k in map(_known, prompts) if len(k) > 1]
        share = _mean([float(len(set(k)) > 1) for k in known])
        found.append(_at_least(f"constant:{dimension}", share, _VARYING, len(known), hard=True))
    return found


def shuffled_context(right: Marks, shuffled: Marks) -> Control:
    """How far faithfulness falls on average beside the context of another row. Hard."""
    fall = [a - b for a, b in _pairs(right, shuffled)]
    return _at_least("shuffled_context", _mean(fall), _FALL, len(fall), hard=True)


def planted_contradiction(caught: Sequence[bool | None]) -> Control:
    """The share of negated facts that the judge found. Hard where it is used."""
    known = [float(c) for c in caught if c is not None]
    return _at_least("planted_contradiction", _mean(known), _CAUGHT, len(known), hard=True)


def stability(first: Marks, second: Marks) -> Control:
    """Kendall's tau-b between two rounds of marks, the second sampled at temperature 0.7."""
    pairs = _pairs(first, second)
    tau = kendall_tau_b([a for a, _ in pairs], [b for _, b in pairs])
    return _at_least("stability", tau, _TAU, len(pairs))


def order(verdicts: Sequence[tuple[str | None, str | None]]) -> Control:
    """How often a pairwise judge names the same winner when A and B change places.

    Each verdict names the winner itself, not its place. Pairs without agreement are to be dropped
    (`disagreeing`).
    """
    known = [float(a == b) for a, b in verdicts if a is not None and b is not None]
    return _at_least("order", _mean(known), _AGREEING, len(known))


def disagreeing(verdicts: Sequence[tuple[str | None, str | None]]) -> list[int]:
    """Places of the pairs whose two verdicts differ, or lack one."""
    return [i for i, (a, b) in enumerate(verdicts) if a is None or a != b]


def duplicate(first: Marks, second: Marks) -> Control:
    """The largest difference between marks of one answer under two ids; at most 1 of 10."""
    gaps = [abs(a - b) for a, b in _pairs(first, second)]
    value = max(gaps, default=None)
    passed = None if value is None else value <= _SAME_WITHIN
    return Control("duplicate", value, passed, len(gaps), wanted=f"<= {_SAME_WITHIN:g}")


def length(marks: Sequence[Marks], words: Sequence[Sequence[int]]) -> Control:
    """Mean rank correlation between mark and number of words inside a prompt; warns above 0.5."""
    found = []
    for prompt, counts in zip(marks, words, strict=True):
        pairs = [(m, float(w)) for m, w in zip(prompt, counts, strict=True) if m is not None]
        rho = spearman([m for m, _ in pairs], [w for _, w in pairs])
        found += [] if rho is None else [rho]
    value = _mean(found)
    passed = None if value is None else value <= _LENGTH
    return Control("length", value, passed, len(found), wanted=f"<= {_LENGTH:g}")


def refusal(marks: Sequence[tuple[float | None, Marks]]) -> Control:
    """How often a planted refusal got the best mark of its prompt, alone or not; never is wanted.

    Of each prompt the mark of the refusal and those of the other candidates.
    """
    known = [
        (mark, others) for mark, rest in marks if mark is not None and (others := _known(rest))
    ]
    best = [float(mark >= max(others)) for mark, others in known]
    value = _mean(best)
    return Control("refusal", value, None if value is None else value == 0, len(best), wanted="= 0")


def self_judging(judge: str, generators: Sequence[str]) -> Control:
    """Whether the judge is one of the models whose texts it judges."""
    same = Counter(generators)[judge]
    return Control("self_judging", float(same > 0), same == 0, len(generators), wanted="= 0")


def report(controls: Sequence[Control], judge: str) -> dict[str, Any]:
    """What `judge_report.json` holds."""
    return {
        "judge": judge,
        "weak": [c.name for c in _failed(controls)],
        "controls": [asdict(c) for c in controls],
    }


def check(controls: Sequence[Control], stage: str, *, allow_weak: bool = False) -> None:
    """Raise RunError if a hard control was not passed; one without a case is not passed."""
    failed = _failed(controls)
    if failed and not allow_weak:
        said = ", ".join(f"{c.name} is {_shown(c.value)}, wanted {c.wanted}" for c in failed)
        raise RunError(
            f"the judge fails its controls: {said}",
            where=stage,
            remedy="take a stronger judge or better prompts: judge_report.json has all controls; "
            "with `on_bad_judge: report` its marks are used as they are",
        )


def _failed(controls: Sequence[Control]) -> list[Control]:
    return [c for c in controls if c.hard and not c.passed]


def _shown(value: float | None) -> str:
    return "without a case" if value is None else f"{value:.2f}"


def _at_least(
    name: str, value: float | None, least: float, n: int, *, hard: bool = False
) -> Control:
    passed = None if value is None else value >= least
    return Control(name, value, passed, n, hard, f">= {least:g}")


def _known(marks: Marks) -> list[float]:
    return [m for m in marks if m is not None]


def _pairs(x: Marks, y: Marks) -> list[tuple[float, float]]:
    """Marks that both sides have."""
    return [(a, b) for a, b in zip(x, y, strict=True) if a is not None and b is not None]


def _mean(values: Sequence[float]) -> float | None:
    return math.fsum(values) / len(values) if values else None
