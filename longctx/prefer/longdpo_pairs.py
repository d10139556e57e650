"""From a tree to pairs of steps that share their beginning, and to the text that the path ends in.

One pair a layer of the path (LongDPO, arXiv 2502.02095): the step that was chosen against a sibling
that is worse by a margin, or that contradicts what was stated before. Ours: a sibling that no pair
may hold (a near-copy, the same words in another order, a text of another length) is passed over
before the rule chooses, and a layer without a pair says why. The whole tree is refused where the
joined text misses its length or repeats a paragraph. Lost: pairs of such a tree, good as single
steps may be.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
import pyarrow as pa

from longctx.prefer.longdpo import length_term
from longctx.prefer.longdpo_greedy import INCONSISTENT
from longctx.prefer.longdpo_mcts import values
from longctx.prefer.longdpo_tree import CHOSEN, REJECTED, Layer, Node, Tree, dims
from longctx.prefer.pairs import Side, pair_problems, two_below
from longctx.synth.longwriter import paragraph_duplicates
from longctx.synth.rows import Reject
from longctx.synth.words import count_words

Rule = Literal["random_sibling", "worst", "mu-2sigma"]
SLACK = 1e-9

FINALS = pa.schema(
    {
        "id": pa.string(),
        "text": pa.string(),
        "words": pa.int64(),
        "target": pa.int64(),
        "s_l": pa.float64(),
        "u_full": pa.float64(),
        "steps": pa.int32(),
        "pairs": pa.int32(),
        "code": pa.string(),
    }.items()
)


@dataclass(frozen=True)
class Choice:
    """How the rejected step of a layer is chosen."""

    search: Literal["greedy", "mcts"] = "greedy"
    rule: Rule = "random_sibling"
    margin: float = 0.02
    max_ratio: float = 2.0
    extra_pairs: bool = False


class StepPair(NamedTuple):
    """A pair of one layer; `last` where the chosen step ends the text of the path."""

    layer: Layer
    prefix: str
    chosen: Side
    rejected: Side
    rejected_node: int
    rule: str
    last: bool
    inconsistent: bool


class Pairs(NamedTuple):
    """Pairs of a tree in the order of their depths, and why other layers have none, by depth."""

    pairs: list[StepPair]
    rejects: dict[int, Reject]


Draw = Callable[[int], np.random.Generator]


def pairs_of(tree: Tree, choice: Choice, draw: Draw) -> Pairs:
    """The pairs of a tree; `draw` gives the generator of a layer by its depth."""
    known = values(tree) if choice.search == "mcts" else {}
    found: list[StepPair] = []
    rejects: dict[int, Reject] = {}
    for layer in tree.layers:
        made = _pairs_of_layer(tree, layer, choice, known, draw(layer.depth))
        if isinstance(made, Reject):
            rejects[layer.depth] = made
        else:
            found += made
    return Pairs(found, rejects)


def _pairs_of_layer(
    tree: Tree,
    layer: Layer,
    choice: Choice,
    known: Mapping[int, float],
    rng: np.random.Generator,
) -> list[StepPair] | Reject:
    if layer.code:
        return Reject(layer.code)
    chosen = tree.nodes[layer.chosen]
    siblings = [n for n in tree.children(tree.nodes[layer.parent]) if n.number != layer.chosen]
    scores = known if choice.search == "mcts" else {n.number: n.u or 0.0 for n in siblings}
    best = known.get(chosen.number, chosen.u or 0.0)
    if choice.search == "mcts":
        worse = [n for n in siblings if n.number in known and known[n.number] < best]
    else:
        limit = best - choice.margin + SLACK
        worse = [n for n in siblings if n.status == "dead" or scores[n.number] <= limit]
    if not worse:
        return Reject("small_margin", f"none of {len(siblings)} siblings is worse by enough")
    one = _side(chosen, best)
    told = [(n, _problem(one, _side(n, scores[n.number]), choice.max_ratio)) for n in worse]
    fit = [n for n, why in told if why is None]
    if not fit:
        return next(why for _, why in told if why is not None)
    everyone = [best, *(scores[n.number] for n in siblings if n.number in scores)]
    picked = [_picked(fit, scores, everyone, choice.rule, rng)]
    if choice.extra_pairs and layer.depth == 1:
        second = sorted(fit, key=lambda n: (scores[n.number], n.number))[1:2]
        picked += [n for n in second if n not in picked]
    return [_pair(tree, layer, one, n, scores[n.number], choice) for n in picked]


def _side(node: Node, score: float) -> Side:
    return Side(text=node.text, score=score, dims=dims(node), finish=node.finish)


def _problem(chosen: Side, rejected: Side, max_ratio: float) -> Reject | None:
    if Counter(chosen.text.split()) == Counter(rejected.text.split()):
        return Reject("duplicate", "the rejected step has the words of the chosen one")
    found = pair_problems(chosen, rejected, max_ratio=max_ratio, step=True)
    return found[0] if found else None


def _picked(
    among: Sequence[Node],
    scores: Mapping[int, float],
    everyone: Sequence[float],
    rule: Rule,
    rng: np.random.Generator,
) -> Node:
    if rule == "random_sibling":
        return among[int(rng.integers(len(among)))]
    if rule == "worst":
        return min(among, key=lambda n: (scores[n.number], n.number))
    aim = two_below(everyone)
    return min(among, key=lambda n: (abs(scores[n.number] - aim), n.number))


def _pair(
    tree: Tree, layer: Layer, chosen: Side, rejected: Node, score: float, choice: Choice
) -> StepPair:
    denies = rejected.status == "dead"
    return StepPair(
        layer=layer,
        prefix=tree.text(tree.nodes[layer.parent]),
        chosen=chosen,
        rejected=_side(rejected, score),
        rejected_node=rejected.number,
        rule=INCONSISTENT if denies else choice.rule,
        last=layer is tree.layers[-1] and not tree.code,
        inconsistent=denies,
    )


def roles(tree: Tree, pairs: Sequence[StepPair]) -> dict[int, str]:
    """Which nodes lie on the path or were rejected, by number."""
    rejected = dict.fromkeys((p.rejected_node for p in pairs), REJECTED)
    return rejected | dict.fromkeys((layer.chosen for layer in tree.layers), CHOSEN)


def final_row(tree: Tree, least_s_l: float = 80.0) -> dict[str, Any]:
    """The text that the path ends in: length, S_l (null without a wanted length), u, and its code.

    `code` is "" for a sound text, else `too_short`, `too_long`, `repetition`, or why the search
    ended before its text did.
    """
    text, target = tree.final, tree.task.target
    term = length_term(text, target) if text else None
    s_l = None if term is None else 100 * term
    words = count_words(text, target.counter) if target else count_words(text)
    return {
        "id": tree.task.id,
        "text": text,
        "words": words,
        "target": target.x if target else None,
        "s_l": s_l,
        "u_full": tree.u_full,
        "steps": len(tree.layers),
        "code": _code(tree, s_l, words, least_s_l),
    }


def _code(tree: Tree, s_l: float | None, words: int, least: float) -> str:
    target = tree.task.target
    if not tree.layers:
        return tree.code or "too_few_candidates"
    if s_l is not None and target is not None and s_l < least - SLACK:
        return "too_short" if words < target.x else "too_long"
    paragraphs = [p for p in tree.final.split("\n\n") if p.strip()]
    return "repetition" if paragraph_duplicates(paragraphs) else tree.code
