"""Pair rows: a prompt with a chosen and a rejected text, and what every pair has to pass.

Which of several candidates is rejected is a rule (`pick_rejected`): the lowest score, one near two
standard deviations below the mean (arXiv 2502.16825: the minimum gets worse the more is sampled),
or chance. Whatever system a pair comes from, its two texts must differ, be finished, be of
comparable length, and the chosen one no refusal; the bounds are ours. The context of a prompt is
not copied into a row but named (`context_ref`); exporters insert it.

Similarity is quadratic in the words at worst; it is computed in full only where cheap upper bounds
do not settle it. Lost: near-copies in languages without blanks, whose words are not told apart, and
pairs that rightly differ in length by more than the bound.
"""

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from difflib import SequenceMatcher
from itertools import pairwise
from typing import Any, Literal, NamedTuple

import numpy as np
import pyarrow as pa

from longctx.llm.structured import is_refusal, is_sentinel
from longctx.llm.types import Message
from longctx.synth.rows import Reject, Row
from longctx.synth.words import count_words

RejectedRule = Literal["min", "mu-2sigma", "random", "worst_k"]

ALIKE = 0.95
LENGTH_RATIO = 2.0
WORST_K = 3
# The check that says whether a chosen step ends its text; exporters of steps read it.
TERMINAL = "terminal"
_SEPARATOR = "\x1f"
_DEVIATIONS = 2.0
_FINISHED, _CUT = "stop", "length"
_TEXT = pa.string()
_SCORES = pa.map_(_TEXT, pa.float64())
_MAPS = ("dims_chosen", "dims_rejected", "checks")

PAIRS = pa.schema(
    {
        "id": _TEXT,
        "system": _TEXT,
        "lang": _TEXT,
        "source": _TEXT,
        "seed": pa.int64(),
        "prompt_version": _TEXT,
        "group_id": _TEXT,
        "depth": pa.int32(),
        "doc_id": _TEXT,
        "context_ref": pa.struct(
            {"doc_id": _TEXT, "start_char": pa.int64(), "end_char": pa.int64()}.items()
        ),
        "messages": pa.list_(pa.struct({"role": _TEXT, "content": _TEXT}.items())),
        "prefix": _TEXT,
        "chosen": _TEXT,
        "rejected": _TEXT,
        "rejected_2": _TEXT,
        "score_chosen": pa.float64(),
        "score_rejected": pa.float64(),
        "margin": pa.float64(),
        "dims_chosen": _SCORES,
        "dims_rejected": _SCORES,
        "rejected_rule": _TEXT,
        "model": _TEXT,
        "judge_model": _TEXT,
        "run_id": _TEXT,
        "checks": pa.map_(_TEXT, pa.bool_()),
    }.items()
)


class ContextRef(NamedTuple):
    """Which characters of which document stand before the prompt."""

    doc_id: str
    start_char: int
    end_char: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """What all pairs of one prompt share; `group_id` is the prompt's id.

    `messages` are the turns up to the answer, without the context that `context_ref` names.
    """

    system: str
    group_id: str
    lang: str
    source: str
    seed: int
    prompt_version: str
    messages: Sequence[Message]
    model: str
    judge_model: str | None = None
    doc_id: str | None = None
    context_ref: ContextRef | None = None
    gold: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """One text of a pair, with its score, the marks that make it, and why the model stopped."""

    text: str
    score: float | None = None
    dims: Mapping[str, float] = field(default_factory=dict)
    finish: str = _FINISHED


def pair_id(system: str, group_id: str, depth: int, chosen: str, rejected: str) -> str:
    """The first 16 hex digits of SHA-256 over the five, joined by U+001F."""
    text = _SEPARATOR.join([system, group_id, str(depth), chosen, rejected])
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def similarity(a: str, b: str) -> float:
    """Ratio of Python's sequence matcher over white-space tokens, in [0, 1]."""
    return _matcher(a, b).ratio()


def alike(a: str, b: str, bound: float = ALIKE) -> bool:
    """Whether `similarity` is at least `bound`, computed in full only where it could be."""
    matcher = _matcher(a, b)
    if matcher.real_quick_ratio() < bound or matcher.quick_ratio() < bound:
        return False
    return matcher.ratio() >= bound


def _matcher(a: str, b: str) -> "SequenceMatcher[str]":
    return SequenceMatcher(None, a.split(), b.split(), autojunk=False)


def length_ratio(chosen: str, rejected: str) -> float | None:
    """Words of the chosen text for one of the rejected; None where one of them has none."""
    words = count_words(chosen), count_words(rejected)
    return words[0] / words[1] if all(words) else None


def pair_problems(
    chosen: Side,
    rejected: Side,
    *,
    gold: str | None = None,
    max_ratio: float = LENGTH_RATIO,
    step: bool = False,
) -> list[Reject]:
    """What speaks against a pair, in the order in which a row says it; nothing for a sound one.

    `step` allows texts that their budget cut off.
    """
    found = []
    finished = {_FINISHED, _CUT} if step else {_FINISHED}
    for name, side in (("chosen", chosen), ("rejected", rejected)):
        if not side.text.strip():
            found.append(Reject("empty", f"the {name} text is empty"))
        if side.finish not in finished:
            found.append(Reject("truncated", f"the {name} text ended with {side.finish}"))
    if is_sentinel(chosen.text):
        found.append(Reject("sentinel", "the chosen text is a message of a client"))
    elif is_refusal(chosen.text):
        found.append(Reject("refusal", "the chosen text refuses"))
    if chosen.text == rejected.text:
        found.append(Reject("duplicate", "both texts are the same"))
    elif alike(chosen.text, rejected.text):
        share = similarity(chosen.text, rejected.text)
        found.append(Reject("duplicate", f"similarity {share:.3f}, wanted below {ALIKE}"))
    ratio = length_ratio(chosen.text, rejected.text)
    if ratio is None or not 1 / max_ratio <= ratio <= max_ratio:
        told = "a text without words" if ratio is None else f"{ratio:.2f} times as many words"
        found.append(Reject("length_ratio", f"{told}, wanted 1/{max_ratio:g} to {max_ratio:g}"))
    if gold is not None and rejected.text.strip() == gold.strip():
        found.append(Reject("unverified_pair", "the rejected text is the gold answer"))
    return found


def build(
    group: Group,
    chosen: Side,
    rejected: Side,
    *,
    rule: str,
    max_ratio: float = LENGTH_RATIO,
    depth: int = 1,
    prefix: str = "",
    rejected_2: str | None = None,
    step: bool = False,
    checks: Mapping[str, bool] | None = None,
) -> Row | Reject:
    """The row of a pair, or the first thing that speaks against it.

    A whole answer is the first and only step: depth 1, no prefix. `checks` are those of the system,
    beside the common ones. `run_id` is filled in where rows are written.
    """
    if bad := pair_problems(chosen, rejected, gold=group.gold, max_ratio=max_ratio, step=step):
        return bad[0]
    known = chosen.score is not None and rejected.score is not None
    passed = ("finished", "distinct", "answers", "length_ratio", "not_gold")
    return {
        "id": pair_id(group.system, group.group_id, depth, chosen.text, rejected.text),
        "system": group.system,
        "lang": group.lang,
        "source": group.source,
        "seed": group.seed,
        "prompt_version": group.prompt_version,
        "group_id": group.group_id,
        "depth": depth,
        "doc_id": group.doc_id,
        "context_ref": group.context_ref._asdict() if group.context_ref else None,
        "messages": [dict(turn) for turn in group.messages],
        "prefix": prefix,
        "chosen": chosen.text,
        "rejected": rejected.text,
        "rejected_2": rejected_2,
        "score_chosen": chosen.score,
        "score_rejected": rejected.score,
        "margin": (chosen.score or 0.0) - (rejected.score or 0.0) if known else None,
        "dims_chosen": dict(chosen.dims),
        "dims_rejected": dict(rejected.dims),
        "rejected_rule": rule,
        "model": group.model,
        "judge_model": group.judge_model,
        "run_id": None,
        "checks": {**dict.fromkeys(passed, True), **(checks or {})},
    }


def pick_rejected(
    scores: Sequence[float],
    chosen: int,
    rule: RejectedRule,
    rng: np.random.Generator,
    k: int = WORST_K,
) -> int:
    """Which candidate is rejected, of all but `chosen`; ties go to the lower index.

    `min`: the lowest score. `mu-2sigma`: the one nearest to mean - 2 * standard deviation, both of
    the population of all scores, the chosen one's included. `random`: any. `worst_k`: any of the k
    lowest. Raises ValueError where there is no other candidate or no such rule.
    """
    others = [i for i in range(len(scores)) if i != chosen]
    if not others:
        raise ValueError(f"{len(scores)} score(s): nothing is left to be rejected")
    if rule == "min":
        return min(others, key=lambda i: (scores[i], i))
    if rule == "mu-2sigma":
        target = two_below(scores)
        return min(others, key=lambda i: (abs(scores[i] - target), i))
    if rule == "random":
        return others[int(rng.integers(len(others)))]
    if rule == "worst_k":
        worst = sorted(others, key=lambda i: (scores[i], i))[:k]
        return worst[int(rng.integers(len(worst)))]
    raise ValueError(f"rule={rule!r} is none of min, mu-2sigma, random, worst_k")


def two_below(scores: Sequence[float]) -> float:
    """Mean less two standard deviations of the population."""
    mean = math.fsum(scores) / len(scores)
    variance = math.fsum((s - mean) ** 2 for s in scores) / len(scores)
    return mean - _DEVIATIONS * math.sqrt(variance)


def histogram(values: Sequence[float], edges: Sequence[float]) -> dict[str, int]:
    """Counts of values by half-open classes between edges, with one below and one above."""
    names = [f"below {edges[0]:g}", *(f"{a:g} to {b:g}" for a, b in pairwise(edges))]
    found = dict.fromkeys([*names, f"{edges[-1]:g} and above"], 0)
    classes = list(found)
    for at in np.searchsorted(np.asarray(edges), np.asarray(values), side="right"):
        found[classes[int(at)]] += 1
    return found


def plain(row: Mapping[str, Any]) -> Row:
    """A row with its maps as mappings, as Arrow gives them back as lists of pairs."""
    return {**row, **{name: dict(row[name] or ()) for name in _MAPS if name in row}}


def listed(row: Mapping[str, Any]) -> Row:
    """A row with its maps as sorted lists of pairs, as Arrow takes them."""
    return {n: sorted(v.items()) if n in _MAPS and v is not None else v for n, v in row.items()}
