"""Greedy search: of each layer the best candidate that contradicts nothing goes on.

What the published code of LongDPO in fact ran (arXiv 2502.02095). Ours: candidates are ordered by
reward and only the first that passes is kept, so later ones are never checked; a refined step
replaces a chosen one before the next layer is written; the last step is a layer like the others
(the reference stops before it saves it). D layers of K candidates: D * K texts and as many judge
calls, D - 1 extractions, checks, and one judge call for the complete text.
"""

from longctx.prefer.longdpo import STOP
from longctx.prefer.longdpo_search import (
    Search,
    Settings,
    contradictions,
    layer,
    refined,
    remember,
    whole,
)
from longctx.prefer.longdpo_tree import Layer, Node, Task, Tree
from longctx.prefer.retrieval import Embedder

INCONSISTENT = "inconsistent"


def greedy(task: Task, settings: Settings, embed: Embedder) -> Search[Tree]:
    """The tree of a task, with a layer for each step of its text."""
    tree = Tree(task)
    at = tree.root
    while at.depth < settings.depth and at.finish != STOP:
        few = yield from layer(tree, at, settings)
        if not at.children:
            # A node that became the end of its text has no reason to give.
            tree.code = few
            break
        memory = tree.memory(at)
        chosen, code = yield from _chosen(tree, at, memory, settings, embed)
        better = None
        if settings.refine != "off" and chosen.R is not None and settings.eta > chosen.R:
            better = yield from refined(tree, chosen, tree.children(at), memory, settings, embed)
        shown = better or chosen
        kept = chosen if settings.refine == "offline" else shown
        if better is not None and kept is better:
            chosen.status = "replaced"
        tree.layers.append(Layer(at.depth + 1, at.number, shown.number, kept.number, code or few))
        at = kept
        if at.depth < settings.depth and at.finish != STOP:
            yield from remember(tree, at, settings)
    if tree.layers:
        tree.u_full = yield from whole(tree, tree.final, tree.label(at), settings)
    return tree


def _chosen(
    tree: Tree, at: Node, memory: list[str], settings: Settings, embed: Embedder
) -> Search[tuple[Node, str]]:
    """The first candidate, best first, that contradicts nothing; else the one that does least."""
    order = sorted(tree.children(at), key=lambda n: (-(n.u or 0.0), -n.q, n.number))
    denied: dict[int, int] = {}
    for node in order:
        found = yield from contradictions(tree, node, memory, settings, embed)
        node.checked = True
        if not found:
            return node, ""
        node.status = "dead"
        denied[node.number] = len(found)
    return min(order, key=lambda n: denied[n.number]), INCONSISTENT
