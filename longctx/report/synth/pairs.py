"""From pairs of a better and a worse text to what their page shows. Pure.

Scores and marks are drawn for the chosen and the rejected texts over the same bins. The reason of a
preference is told from what a row holds: scores, marks, the rule by which the other was rejected.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from longctx.report.data import Histogram
from longctx.report.format import count, one_line
from longctx.report.scores.numbers import written
from longctx.report.scores.passages import masked
from longctx.report.scores.statistics import F64, constant, histogram
from longctx.report.synth.data import Dimension, Pair, PairsData, Tree
from longctx.report.synth.systems import shortened

Row = Mapping[str, Any]

FIGURES = (
    *("id", "system", "seed", "margin", "score_chosen", "score_rejected"),
    *("dims_chosen", "dims_rejected"),
)
_PROMPT, _PREFIX, _TEXT = 700, 500, 1_500
_DIMENSIONS = 12
_TREES, _DEEPEST = 2, 64
_ALL = "score"
_RULES = {
    "min": "the lowest of the other candidates is the rejected one",
    "mu-2sigma": "rejected is the candidate nearest to two standard deviations below the mean",
    "random": "the rejected one was drawn among the others",
    "worst_k": "the rejected one was drawn among the worst",
    "worst": "the lowest of the other candidates is the rejected one",
    "random_sibling": "the rejected one was drawn among the other candidates of its step",
    "random_below_margin": "the rejected one was drawn among those that are worse by the margin",
    "inconsistent": "the rejected one denies what was stated before",
    "irrelevant_chunks": "the rejected ones were answered from chunks that do not help",
}

# LongDPO's principles, which its rows number.
_MARKS = {
    "p1": "accurate (p1)",
    "p2": "useful (p2)",
    "p3": "harmless (p3)",
    "p4": "in form, consistent (p4)",
    "p5": "varied, complete (p5)",
    "p6": "pleasant (p6)",
    "p7": "insightful (p7)",
}


def figures(rows: Sequence[Row]) -> PairsData:
    """Scores, marks and margins of pairs."""
    names = sorted({name for row in rows for name in (*row["dims_chosen"], *row["dims_rejected"])})
    found = [_dimension(_ALL, [(r["score_chosen"], r["score_rejected"]) for r in rows])]
    found += [
        _dimension(name, [(r["dims_chosen"].get(name), r["dims_rejected"].get(name)) for r in rows])
        for name in names[:_DIMENSIONS]
    ]
    margins = _floats([row["margin"] for row in rows])
    return PairsData(
        dimensions=[one for one in found if one is not None],
        margins=None if constant(margins) else histogram(margins)[0],
    )


def _dimension(name: str, marks: Sequence[tuple[Any, Any]]) -> Dimension | None:
    """Both sides over the same bins; None where no mark is known or none differs."""
    chosen, rejected = (_floats([mark[side] for mark in marks]) for side in (0, 1))
    both = np.concatenate([chosen, rejected])
    if constant(both):
        return None
    bins = histogram(both)[0]
    sides = (_counted(side, bins) for side in (chosen, rejected))
    return Dimension(_name(name), *sides)


def _name(mark: str) -> str:
    return _MARKS.get(mark) or one_line(mark.replace("_", " "), 60)


def _counted(values: F64, bins: Histogram) -> Histogram:
    known = np.clip(values[np.isfinite(values)], bins.edges[0], bins.edges[-1])
    counts, _ = np.histogram(known, bins.edges)
    return Histogram(bins.edges, counts.tolist(), "")


def _floats(values: Sequence[Any]) -> F64:
    return np.array([np.nan if value is None else value for value in values], dtype=np.float64)


def pair_of(row: Row) -> Pair:
    """A pair as it is shown."""
    users = [turn["content"] for turn in row["messages"] if turn["role"] == "user"]
    ref = row["context_ref"]
    where = ""
    if ref["doc_id"]:
        size = count(ref["end_char"] - ref["start_char"])
        where = f"Before it stands the document {one_line(ref['doc_id'], 120)}, {size} characters."
    return Pair(
        row_id=one_line(row["id"], 120),
        source=one_line(row["source"], 60),
        lang=one_line(row["lang"], 20),
        prompt=shortened("\n\n".join(users), _PROMPT),
        where=where,
        prefix=_end(row["prefix"]),
        chosen=shortened(row["chosen"].strip(), _TEXT),
        rejected=shortened(row["rejected"].strip(), _TEXT),
        second=shortened(row["rejected_2"], _TEXT),
        reason=reason(row),
        margin=row["margin"],
        marks=[
            (_name(name), a.get(name), b.get(name))
            for a, b in [(row["dims_chosen"], row["dims_rejected"])]
            for name in sorted({*a, *b})[:_DIMENSIONS]
        ],
        checks=[(one_line(name.replace("_", " "), 60), v) for name, v in row["checks"].items()],
    )


def _end(prefix: str) -> str:
    """The end of what both texts go on from."""
    cut = prefix[-_PREFIX:]
    return ("... " if len(prefix) > _PREFIX else "") + shortened(cut, _PREFIX) if prefix else ""


def trees_shown(found: Mapping[str, Sequence[Row]]) -> list[Tree]:
    """The largest trees, without those that are none: files may come from anybody."""
    sound = [(name, nodes) for name, nodes in found.items() if _is_tree(nodes)]
    largest = sorted(sound, key=lambda one: (-len(one[1]), one[0]))[:_TREES]
    return [
        Tree(
            one_line(name, 120),
            [
                {**node, "text": masked(node["text"], _TEXT), "detail": masked(node["detail"], 200)}
                for node in nodes
            ],
        )
        for name, nodes in largest
    ]


def _is_tree(nodes: Sequence[Row]) -> bool:
    """Whether there is one root, and every other node comes after its parent, one deeper."""
    depths: dict[int, int] = {}
    for node in sorted(nodes, key=lambda one: one["node"]):
        above = -1 if node["parent"] is None else depths.get(node["parent"])
        if above is None or node["depth"] != above + 1 or node["node"] in depths:
            return False
        depths[node["node"]] = node["depth"]
    roots = sum(node["parent"] is None for node in nodes)
    return roots == 1 and max(depths.values()) <= _DEEPEST


def reason(row: Row) -> str:
    """Why the chosen text is preferred, in a sentence or two."""
    said = []
    if row["score_chosen"] is not None and row["score_rejected"] is not None:
        said.append(
            f"The chosen text scores {written(row['score_chosen'])}, the rejected one "
            f"{written(row['score_rejected'])}."
        )
    apart = _most_apart(row)
    if apart is not None:
        name, better, worse = apart
        said.append(f"They differ most in {name}: {written(better)} against {written(worse)}.")
    rule = row["rejected_rule"]
    if rule:
        known = _RULES.get(rule, f"rejected by the rule {one_line(rule, 60)}")
        said.append(f"{known[0].upper()}{known[1:]}.")
    return " ".join(said) or "The row holds no scores."


def _most_apart(row: Row) -> tuple[str, float, float] | None:
    both = [
        (one_line(name.replace("_", " "), 60), mark, row["dims_rejected"][name])
        for name, mark in sorted(row["dims_chosen"].items())
        if name in row["dims_rejected"]
    ]
    apart = [one for one in both if one[1] > one[2]]
    return max(apart, key=lambda one: one[1] - one[2], default=None)
