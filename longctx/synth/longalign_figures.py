"""What the rows of LongAlign's self-instruct must look like, all together.

The checks of section 3 of the specification, from a few numbers a row: kinds of question and the
one that was answered uniform (chi-squared), languages as they were asked for, lengths even
(Kolmogorov-Smirnov), every answer supported and every row within its length.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from longctx.synth.checks import chi2_shares, chi2_uniform, ks_uniform, support
from longctx.synth.longalign import MAX_LEN
from longctx.synth.longalign_instruct import LEAST_SUPPORT, QUESTIONS, TASK_TYPES
from longctx.synth.words import count_words

Facts = dict[str, Any]


def facts(row: Mapping[str, Any], document_tokens: int) -> Facts:
    """The numbers of one row that the checks read."""
    return {
        "task_type": row["task_type"],
        "chosen": row["chosen"],
        "lang": row["lang"],
        "document": document_tokens,
        "length": row["length"],
        "words": count_words(row["response"]),
        "support": round(support(row["response"], row["context"]), 4),
    }


def figures(
    rows: Sequence[Facts], shares: Mapping[str, float], least: int, most: int
) -> dict[str, Any]:
    """The checks by name, each with `ok` (None: too few rows to tell); empty without rows.

    `shares` are the languages as asked for, `least` and `most` the tokens of the documents.
    """
    if not rows:
        return {}
    types, langs = Counter(r["task_type"] for r in rows), Counter(r["lang"] for r in rows)
    chosen = Counter(r["chosen"] for r in rows)
    found: dict[str, Any] = {
        "task_type": chi2_uniform([types[t] for t in TASK_TYPES]),
        "chosen": chi2_uniform([chosen[k] for k in range(QUESTIONS)]),
        "support": _least([r["support"] for r in rows], LEAST_SUPPORT),
        "length": _most([r["length"] for r in rows], MAX_LEN),
        "answer_words": _spread([r["words"] for r in rows]),
    }
    if sum(share > 0 for share in shares.values()) > 1:
        found["lang"] = chi2_shares([langs[k] for k in shares], list(shares.values()))
    if most > least:
        found["even_lengths"] = ks_uniform([r["document"] for r in rows], least, most)
    return found


def _spread(values: Sequence[float]) -> dict[str, Any]:
    mean = round(sum(values) / len(values), 4)
    return {"min": min(values), "mean": mean, "max": max(values)}


def _least(values: Sequence[float], bound: float) -> dict[str, Any]:
    return {**_spread(values), "bound": bound, "ok": min(values) >= bound}


def _most(values: Sequence[float], bound: float) -> dict[str, Any]:
    return {**_spread(values), "bound": bound, "ok": max(values) <= bound}
