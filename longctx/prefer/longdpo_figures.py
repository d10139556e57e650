"""What the pairs of LongDPO look like together: margins, depths, lengths, and why depths have none.

Facts of a pair are plain values; what belongs to its tree is in the facts of each of its pairs and
counted once. Trees without any pair are counted as rejects and are not here.
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from longctx.prefer.figures import pair_facts, pair_figures
from longctx.prefer.longdpo_greedy import INCONSISTENT
from longctx.prefer.longdpo_pairs import SLACK, Pairs
from longctx.prefer.longdpo_tree import Tree
from longctx.prefer.pairs import TERMINAL, histogram
from longctx.synth.rows import Row

_MARGINS = (0.0, 0.02, 0.05, 0.1, 0.2, 0.4)
_LEAST_SEEN = 50
_SCORES = (20.0, 40.0, 60.0, 80.0, 90.0)


def told(tree: Tree, pairs: Pairs, final: Mapping[str, Any]) -> dict[str, Any]:
    """What the facts of every pair say of its tree."""
    return {
        "steps": len(tree.layers),
        "exported": sorted({pair.layer.depth for pair in pairs.pairs}),
        "layers": {str(depth): why.code for depth, why in sorted(pairs.rejects.items())},
        "s_l": final["s_l"],
        "joined": "".join(tree.nodes[layer.kept].text for layer in tree.layers) == final["text"],
    }


def facts(row: Row, tree: Mapping[str, Any]) -> dict[str, Any]:
    """The facts of a pair. Of one whose rejected step denies a fact the margin says nothing."""
    inconsistent = row["rejected_rule"] == INCONSISTENT
    return {
        **pair_facts(row),
        **({"margin": None} if inconsistent else {}),
        "group": row["group_id"],
        "depth": row["depth"],
        "inconsistent": inconsistent,
        "terminal": dict(row["checks"])[TERMINAL],
        "permuted": sorted(row["chosen"].split()) == sorted(row["rejected"].split()),
        "tree": tree,
    }


def figures(
    rows: Sequence[Mapping[str, Any]], max_ratio: float, least_margin: float, least_s_l: float
) -> dict[str, Any]:
    """The checks over all pairs, each with `ok`; None where there is nothing to judge by."""
    if not rows:
        return {}
    trees = {row["group"]: row["tree"] for row in rows}
    known = [tree["s_l"] for tree in trees.values() if tree["s_l"] is not None]
    permuted = sum(row["permuted"] for row in rows)
    return {
        **pair_figures(rows, max_ratio, least_margin - SLACK, _MARGINS),
        "inconsistent": {"ok": None, "pairs": sum(row["inconsistent"] for row in rows)},
        "depths": _depths(rows, trees),
        "prefixes": {"ok": all(tree["joined"] for tree in trees.values()), "trees": len(trees)},
        "permutations": {"ok": permuted == 0, "found": permuted},
        "s_l": {
            "ok": all(s >= least_s_l - SLACK for s in known) if known else None,
            "trees": len(known),
            "mean": math.fsum(known) / len(known) if known else None,
            "histogram": histogram(known, _SCORES),
        },
    }


def near_facts(counts: Mapping[str, int]) -> dict[str, Any]:
    """How many pairs of a fact and a later piece were near enough to be judged, of all.

    Not ok where of many none is: then the bound does not suit the embedder, and nothing is checked.
    """
    seen, passed = counts.get("pairs_seen", 0), counts.get("pairs_passed", 0)
    share = passed / seen if seen else None
    ok = passed > 0 if seen >= _LEAST_SEEN else None
    return {"ok": ok, "share": share, "pairs": seen, "near": passed}


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
