"""What the pairs of LongDPO look like together: margins, depths, lengths, and why depths have none.

Facts of a pair are plain values; what belongs to its tree is in the facts of each of its pairs and
counted once. Trees without any pair are counted as rejects and are not here.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from longctx.prefer.longdpo_pairs import SLACK, Pairs
from longctx.prefer.longdpo_tree import Tree
from longctx.prefer.pairs import histogram, length_ratio
from longctx.synth.rows import Row

_MARGINS = (0.0, 0.02, 0.05, 0.1, 0.2, 0.4)
_RATIOS = (0.5, 0.8, 1.0, 1.25, 2.0)
_SCORES = (20.0, 40.0, 60.0, 80.0, 90.0)


def told(tree: Tree, pairs: Pairs, final: Mapping[str, Any]) -> dict[str, Any]:
    """What the facts of every pair say of its tree."""
    return {
        "steps": len(tree.layers),
        "exported": sorted({pair.layer.depth for pair in pairs.pairs}),
        "layers": {str(depth): why.code for depth, why in sorted(pairs.rejects.items())},
        "s_l": final["s_l"],
        "joined": "".join(tree.nodes[layer.kept].text for layer in tree.layers) == final["text"],
        "counts": tree.counts,
    }


def facts(row: Row, tree: Mapping[str, Any]) -> dict[str, Any]:
    """The facts of a pair."""
    checks = dict(row["checks"])
    return {
        "group": row["group_id"],
        "depth": row["depth"],
        "margin": row["margin"],
        "ratio": length_ratio(row["chosen"], row["rejected"]),
        "inconsistent": row["rejected_rule"] == "inconsistent",
        "terminal": checks["terminal"],
        "permuted": sorted(row["chosen"].split()) == sorted(row["rejected"].split()),
        "tree": tree,
    }


def figures(rows: Sequence[Mapping[str, Any]], margin: float, least_s_l: float) -> dict[str, Any]:
    """The checks over all pairs, each with `ok`; None where there is nothing to judge by."""
    if not rows:
        return {}
    trees = {row["group"]: row["tree"] for row in rows}
    known = [t["s_l"] for t in trees.values() if t["s_l"] is not None]
    kept = [r["inconsistent"] or r["margin"] >= margin - SLACK for r in rows]
    counts: Counter[str] = Counter()
    for tree in trees.values():
        counts.update(tree["counts"])
    return {
        "margins": {"ok": all(kept), "below": kept.count(False), "histogram": _margins(rows)},
        "length_ratios": {"ok": None, "histogram": histogram([r["ratio"] for r in rows], _RATIOS)},
        "depths": _depths(rows, trees),
        "prefixes": {"ok": all(t["joined"] for t in trees.values()), "trees": len(trees)},
        "permutations": {
            "ok": not any(r["permuted"] for r in rows),
            "found": sum(r["permuted"] for r in rows),
        },
        "s_l": {
            "ok": all(s >= least_s_l - SLACK for s in known) if known else None,
            "trees": len(known),
            "mean": sum(known) / len(known) if known else None,
            "histogram": histogram(known, _SCORES),
        },
        "memory": {"ok": None, **{name: counts[name] for name in sorted(counts)}},
    }


def _margins(rows: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    return histogram([row["margin"] for row in rows], _MARGINS)


def _depths(
    rows: Sequence[Mapping[str, Any]], trees: Mapping[str, Mapping[str, Any]]
) -> dict[str, Any]:
    """Whether pairs and layers without one cover each path; how many pairs each depth has."""
    covered = [
        sorted({*tree["exported"], *map(int, tree["layers"])}) == list(range(1, tree["steps"] + 1))
        for tree in trees.values()
    ]
    ends = [not r["terminal"] or r["depth"] == r["tree"]["steps"] for r in rows]
    without = Counter(code for tree in trees.values() for code in tree["layers"].values())
    return {
        "ok": all(covered) and all(ends),
        "pairs": {str(d): n for d, n in sorted(Counter(r["depth"] for r in rows).items())},
        "without": dict(sorted(without.items())),
    }
