"""What ChatQA2's rows (arXiv 2407.14482) must look like, all together.

The checks of section 5 of the specification, from a few numbers a row: places of summaries and
target lengths uniform (chi-squared, Kolmogorov-Smirnov), every row sound, answers supported by the
summary, and without the summary supported less. Of rows with paragraphs of other documents, that
none holds an answer, and that there were enough to reach the target (`contexts`).

What we changed: a place stands for all places that are nearer to it than to the next boundary, and
one of them is drawn for the test, or short pages with few sentences would give false alarms. Cost:
one pass over each context. Lost: an answer of common words has support in any long page, summary or
not, so `leave_summary_out` can fail where nothing is wrong.
"""

from bisect import bisect_left
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from longctx.synth.chatqa2 import SYSTEM, boundaries
from longctx.synth.chatqa2_pages import PARAGRAPH, Paragraph, joined
from longctx.synth.chatqa2_rows import (
    QA,
    Settings,
    in_order,
    leave_summary_out,
    paragraph_problems,
    row_problems,
    target_range,
    without_summary,
)
from longctx.synth.checks import chi2_uniform, depth_counts, ks_uniform, support
from longctx.synth.draw import generator
from longctx.synth.rows import Row

Facts = dict[str, Any]

LEAST_SUPPORT = 0.5  # of an answer in the summary
LEAST_SHARE = 0.9  # of rows, for checks that some sound rows may fail
_DIGITS = 6


def facts(
    row: Row, page: str, summary: str, settings: Settings, paragraphs: Sequence[Paragraph] = ()
) -> Facts:
    """The numbers of one row that the checks read; `page` is the whole page of the document.

    `paragraphs` are those of other documents that were to be in the context, the nearest first.
    """
    of_place, of_target = generator(row["seed"], SYSTEM, "figures", row["id"]).random(2).tolist()
    places: Sequence[int] | None = None
    texts = [paragraph.text for paragraph in paragraphs]
    if row["mode"] == "related_paragraphs":
        qa = QA(row["id"], row["document_id"], row["question"], row["answers"])
        page, places = joined(in_order(qa, texts, settings, row["seed"]))
    elif texts:
        page = PARAGRAPH.join([page, *texts])
    found = {
        "depth": round(spread_depth(row, of_place, _kept(page, places, row)), _DIGITS),
        "target": round(target_share(row, settings, of_target), _DIGITS),
        "support": round(support(row["answers"][0], summary), 4),
        "left_out": leave_summary_out(row),
        "context_tokens": row["context_tokens"],
        "n_tokens": row["n_tokens"],
        "problems": [
            *row_problems(row, page, summary, settings.hi),
            *paragraph_problems(row, paragraphs),
        ],
    }
    if places is not None or texts:
        found["short_by"] = row["target_len"] - row["context_tokens"]
    return found


def _kept(page: str, places: Sequence[int] | None, row: Row) -> Sequence[int]:
    """The places of a row's page: between sentences, or those of `places` that a cut left."""
    rest = without_summary(row)
    if places is None:
        return boundaries(rest)
    first = max(0, page.find(rest))
    return [at - first for at in places if first <= at <= first + len(rest)]


def spread_depth(row: Row, u: float, places: Sequence[int]) -> float:
    """A depth in [0, 1) for which the row's place is the nearest one; u in [0, 1) says which.

    `places` ascend, in characters of the page without the summary; characters stand for tokens on
    the way to the neighbouring ones.
    """
    page, at = without_summary(row), row["inserted_start_char"]
    after = bisect_left(places, at)
    before = after - 1
    if after < len(places) and places[after] == at:
        after += 1
    lead = at - places[before] if before >= 0 else 0
    trail = places[after] - at if after < len(places) else 0
    shift = (u * (lead + trail) - lead) / 2 / max(1, len(page))
    return min(max(float(row["depth"]) + shift, 0.0), 1 - 10.0**-_DIGITS)


def target_share(row: Row, settings: Settings, u: float) -> float:
    """How far a target is from the fewest tokens to the most; u in [0, 1) within its token.

    The range follows from the tokens around the context, but for one or two where texts meet.
    """
    first, last = target_range(row["n_tokens"] - row["context_tokens"], settings)
    return float((row["target_len"] - first + u) / max(1, last - first + 1))


def figures(rows: Sequence[Mapping[str, Any]], settings: Settings) -> dict[str, Any]:
    """The checks by name, each with `ok` (None: too few rows to tell); empty without rows."""
    if not rows:
        return {}
    depths = [r["depth"] for r in rows]
    problems = Counter(p for r in rows for p in r["problems"])
    short = [r["short_by"] <= settings.slack for r in rows if "short_by" in r]
    return {
        "depth": chi2_uniform(depth_counts([(0, 1)] * len(rows), depths)),
        "target_len": ks_uniform([r["target"] for r in rows], 0.0, 1.0),
        "support": _share([r["support"] >= LEAST_SUPPORT for r in rows]),
        "leave_summary_out": _share([r["left_out"] for r in rows]),
        "context_tokens": _within([r["context_tokens"] for r in rows], settings.lo, settings.hi),
        "row_tokens": _within([r["n_tokens"] for r in rows], settings.lo, settings.hi),
        **({"contexts": _share(short)} if short else {}),
        "sound_rows": {"problems": dict(sorted(problems.items())), "ok": not problems},
    }


def _share(holds: Sequence[bool]) -> dict[str, Any]:
    share = sum(holds) / len(holds)
    return {"share": round(share, 4), "bound": LEAST_SHARE, "ok": share >= LEAST_SHARE}


def _within(tokens: Sequence[int], least: int, most: int) -> dict[str, Any]:
    found = {"min": min(tokens), "mean": round(sum(tokens) / len(tokens), 1), "max": max(tokens)}
    return {
        **found,
        "least": least,
        "most": most,
        "ok": least <= min(tokens) and max(tokens) <= most,
    }
