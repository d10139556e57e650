"""What all rows of PAM QA must look like together (section 8 of the specification).

Golds anywhere (chi-squared of depth; neighbouring golds against chance), refusals in their share,
no answer outside of the golds, prompts and responses that parse back to what is stored, lengths
below their limits, and rows that lack hard negatives. Linear in the rows.

Of several golds of a row only the first of its question is tested for its place: places of one row
are not independent. Rows whose answers are no extracts (a judge spoke for them) cannot be searched
for answers; they are tested for their form alone.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from longctx.synth.checks import adjacent_golds, chi2_shares, chi2_uniform, depth_counts
from longctx.synth.draw import generator
from longctx.synth.pamqa import SYSTEM
from longctx.synth.pamqa_negatives import Question
from longctx.synth.pamqa_rows import Settings, is_extractive_question, row_problems
from longctx.synth.rows import Row

_BINS = 10
_SEARCHED = frozenset({"answer_or_refusal", "gold_without_answer", "negative_with_answer"})
_MOST_SHORT = 0.5  # share of rows that may lack hard negatives; ours

Facts = dict[str, Any]


def facts(row: Row, question: Question, settings: Settings) -> Facts:
    """What the checks read of a row; `question` as it was loaded."""
    first = next(iter(question.golds)).doc_id
    place = next((d["idx"] - 1 for d in row["docs"] if d["doc_id"] == first), None)
    extractive = is_extractive_question(question)
    found = row_problems(row, question.answers, settings.end_of_document)
    return {
        "place": place if row["answerable"] else None,
        "n": len(row["docs"]),
        "u": float(generator(row["seed"], SYSTEM, "depth", row["id"]).random()),
        "golds": [i - 1 for i in row["gold_idx"]],
        "answerable": row["answerable"],
        "extractive": extractive,
        "problems": [p for p in found if extractive or p not in _SEARCHED],
        "tokens": row["n_tokens"],
    }


def figures(rows: Sequence[Mapping[str, Any]], settings: Settings) -> dict[str, Any]:
    """The checks by name, each with `ok` (None: too few rows to tell); empty without rows."""
    if not rows:
        return {}
    answered = [r for r in rows if r["answerable"]]
    found: dict[str, Any] = {
        "gold_position": chi2_uniform(
            depth_counts([(r["place"], r["n"]) for r in answered], [r["u"] for r in answered])
        ),
        "unanswerable": _unanswerable(rows, settings.unanswerable_share),
        "leave_gold_out": _leave_gold_out(rows),
        "short_of_hard": _short_of_hard(rows),
        "sound_rows": _problems(rows),
        "lengths": _lengths(rows, settings),
    }
    if several := [r for r in answered if len(r["golds"]) > 1]:
        found["adjacent"] = adjacent_golds([(r["n"], r["golds"]) for r in several])._asdict()
    return found


def _unanswerable(rows: Sequence[Mapping[str, Any]], share: float) -> dict[str, Any]:
    refused = sum(not r["answerable"] for r in rows)
    told = {"rows": refused, "share": round(refused / len(rows), 4), "wanted": share}
    if not 0 < share < 1:
        return {**told, "ok": refused == share * len(rows)}
    fit = chi2_shares([refused, len(rows) - refused], [share, 1 - share])
    return {**told, **fit}


def _leave_gold_out(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    searched = [r for r in rows if r["extractive"]]
    bad = sum("negative_with_answer" in r["problems"] for r in searched)
    return {"rows": len(searched), "answered": bad, "ok": bad == 0 if searched else None}


def _short_of_hard(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Rows in which random negatives stand in for hard ones, and why candidates were dropped."""
    counted = [r.get("counts", {}) for r in rows]
    short = sum(c.get("short_of_hard", 0) > 0 for c in counted)
    dropped = sum(map(Counter, counted), Counter[str]())
    missing = dropped.pop("short_of_hard", 0)
    told = {"rows": short, "share": round(short / len(rows), 4), "documents": missing}
    return {**told, "dropped": dict(dropped), "ok": short <= _MOST_SHORT * len(rows)}


def _problems(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    counts = Counter(problem for r in rows for problem in r["problems"])
    return {"problems": dict(sorted(counts.items())), "ok": not counts}


def _lengths(rows: Sequence[Mapping[str, Any]], settings: Settings) -> dict[str, Any]:
    tokens = [r["tokens"] for r in rows]
    told = {"min": min(tokens), "mean": round(sum(tokens) / len(tokens), 1), "max": max(tokens)}
    return {**told, "bound": settings.max_tokens, "ok": max(tokens) <= settings.max_tokens}
