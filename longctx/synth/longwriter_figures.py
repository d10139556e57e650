"""What AgentWrite's rows must look like, one by one and all together.

Section 7 of the specification, from a few numbers a row: length scores and their distribution,
lengths in the buckets of LongBench-Write (arXiv 2408.07055), the share of rows whose prompt states
a length (of the 6,000 released rows 1,748, arXiv 2410.10210), calls, marks, languages, and every
row read back from what it stores. Cost: one more pass over each text. Lost: what a text says is
looked at by the judge alone.
"""

from bisect import bisect_right
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from longctx.synth.checks import chi2_shares
from longctx.synth.longwriter import DIMENSIONS, SLACK, Step
from longctx.synth.longwriter_rows import row_problems
from longctx.synth.rows import Row
from longctx.synth.words import Counter as Words

Facts = dict[str, Any]

LENGTH_BOUNDS = (500, 2_000, 4_000, 20_000)
SCORE_BOUNDS = (20, 40, 60, 80, 85, 90, 95, 100)


def facts(row: Row, other_calls: int, min_words: int, s_l_min: float) -> Facts:
    """What the checks read of one row; `other_calls` are those that wrote no paragraph."""
    return {
        "lang": row["lang"],
        "length": row["length"],
        "length_source": row["length_source"],
        "s_l": round(row["s_l"], 4),
        "s_q": None if row["s_q"] is None else round(row["s_q"], 4),
        "dims": row["dims"],
        "n_calls": row["n_calls"],
        "steps": len(row["plan"]),
        "problems": _problems(row, other_calls, min_words, s_l_min),
    }


def _problems(row: Row, other_calls: int, min_words: int, s_l_min: float) -> list[str]:
    """All that a finished row contradicts of what it stores, by name; empty for a sound one."""
    plan, paragraphs = [Step(**step) for step in row["plan"]], row["paragraphs"]
    stated = row["required"] if row["length_source"] == "stated" else None
    # Whatever did not end by itself was rejected when it was written.
    reasons = ["stop"] * len(paragraphs)
    # Characters were counted where the required length says so.
    counter: Words = "longwriter" if row["counter"] == "longwriter" else "auto"
    limits = (counter, min_words, s_l_min)
    found = row_problems(plan, paragraphs, reasons, stated, row["lang"], *limits)
    turns = [("user", row["prompt"]), ("assistant", row["response"])]
    holds = {
        "response": row["response"] == "\n\n".join(paragraphs),
        "messages": [(m["role"], m["content"]) for m in row["messages"]] == turns,
        "lengths": sum(row["paragraph_lengths"]) == row["length"],
        "calls": row["n_calls"] == len(plan) + other_calls,
    }
    broken = [name for name, held in holds.items() if not held]
    return [*(reject.detail.partition(":")[0] for reject in found), *broken]


def figures(
    rows: Sequence[Mapping[str, Any]], shares: Mapping[str, float], min_words: int, s_l_min: float
) -> dict[str, Any]:
    """The checks by name, each with `ok` (None: too few rows to tell); empty without rows."""
    if not rows:
        return {}
    scores, lengths = [r["s_l"] for r in rows], [r["length"] for r in rows]
    calls = [r["n_calls"] for r in rows]
    problems = Counter(p for r in rows for p in r["problems"])
    stated = sum(r["length_source"] == "stated" for r in rows)
    found: dict[str, Any] = {
        "s_l": _least(scores, s_l_min, SCORE_BOUNDS),
        "length": _least(lengths, min_words, LENGTH_BOUNDS),
        "stated_lengths": {"rows": stated, "share": round(stated / len(rows), 4)},
        "n_calls": {**_spread(calls), "total": sum(calls)},
        "sound_rows": {"problems": dict(sorted(problems.items())), "ok": not problems},
    }
    if marked := [r for r in rows if r["s_q"] is not None]:
        found["s_q"] = _spread([r["s_q"] for r in marked]) | {
            name: round(sum(r["dims"][name] for r in marked) / len(marked), 2)
            for name in DIMENSIONS
        }
    if sum(share > 0 for share in shares.values()) > 1:
        langs = Counter(r["lang"] for r in rows)
        found["lang"] = chi2_shares([langs[name] for name in shares], list(shares.values()))
    return found


def _spread(values: Sequence[float]) -> dict[str, Any]:
    return {
        "min": min(values),
        "mean": round(sum(values) / len(values), 4),
        "max": max(values),
    }


def _least(values: Sequence[float], bound: float, bounds: Sequence[float]) -> dict[str, Any]:
    return {
        **_spread(values),
        "bound": bound,
        "histogram": histogram(values, bounds),
        "ok": min(values) >= bound - SLACK - 1e-4,  # of the rounding
    }


def histogram(values: Sequence[float], bounds: Sequence[float]) -> dict[str, int]:
    """Counts of values between ascending bounds, lower ends included, by the words for each."""
    at = Counter(bisect_right(bounds, value) for value in values)
    ends = [f"below {bounds[0]:,}"]
    ends += [f"{lo:,} to {hi:,}" for lo, hi in pairwise(bounds)]
    ends += [f"{bounds[-1]:,} and above"]
    return {name: at[i] for i, name in enumerate(ends) if at[i]}
