"""Monte-Carlo tree search over steps: rollouts to complete texts, whose values go up the tree.

The search that LongDPO describes (arXiv 2502.02095). Ours: the bonus (`longdpo.ucb`), because the
printed one is undefined at first visits and the code's is zero as its visits are never counted;
a fresh level is followed by reward alone; complete texts are judged as a whole and never visited
twice. Pairs lie along the path of the highest values, which are means of the buckets of ranks of
complete texts (SuperWriter, arXiv 2506.04180). At most rollouts * D * K texts and judge calls, and
a judge call for each rollout.
"""

import math

from longctx.prefer.longdpo import STOP, rank_buckets, ucb
from longctx.prefer.longdpo_search import (
    Search,
    Settings,
    contradictions,
    layer,
    remember,
    whole,
)
from longctx.prefer.longdpo_tree import Layer, Node, Task, Tree
from longctx.prefer.retrieval import Embedder

_OVER = ("dead", "closed")


def mcts(task: Task, settings: Settings, embed: Embedder) -> Search[Tree]:
    """The tree of a task after all rollouts, with a layer for each step of its principal path."""
    tree = Tree(task)
    done = 0
    while done < settings.rollouts and tree.root.status not in _OVER:
        end = yield from _descend(tree, settings, embed)
        if end is None:
            continue
        done += 1
        value = yield from whole(tree, tree.text(end), tree.label(end), settings)
        if value is None:
            end.status = "judge_failed"
            _close(tree, end, "judge_failed")
            continue
        for node in [tree.root, *tree.path(end)]:
            node.N += 1
            node.W += value
        _close(tree, end, "closed")
    _principal(tree)
    return tree


def is_end(node: Node, settings: Settings) -> bool:
    """Whether a node ends its text."""
    return node.depth == settings.depth or (node.finish == STOP and node.parent is not None)


def _descend(tree: Tree, settings: Settings, embed: Embedder) -> Search[Node | None]:
    """The end of one rollout; None where the way led into a node that nothing can follow."""
    at = tree.root
    while not is_end(at, settings):
        if not at.expanded:
            if at.parent is not None:
                yield from remember(tree, at, settings)
            code = yield from layer(tree, at, settings)
            for one in tree.children(at):
                one.status = "open"
            if is_end(at, settings):
                break
            if not at.children:
                at.detail = code
                tree.code = code if at is tree.root else tree.code
                _close(tree, at, "dead")
                return None
        way = yield from _next(tree, at, settings, embed)
        if way is None:
            return None
        at = way
    return at


def _next(tree: Tree, at: Node, settings: Settings, embed: Embedder) -> Search[Node | None]:
    """The open child with the highest bound; one that denies what was stated dies on the way."""
    while True:
        children = [n for n in tree.children(at) if n.status == "open"]
        if not children:
            return None  # the last one died, and closed what lies above
        best = max(children, key=lambda n: (ucb(n.mean, n.N, at.N, settings.c), -n.number))
        if best.checked or not settings.memory:
            return best
        best.checked = True
        denied = yield from contradictions(tree, best, tree.memory(at), settings, embed)
        if not denied:
            return best
        _close(tree, best, "dead")


def _close(tree: Tree, node: Node, status: str) -> None:
    """Close a node, and above it every node that has nothing open left."""
    node.status = status  # type: ignore[assignment]
    while node.parent is not None:
        node = tree.nodes[node.parent]
        if any(child.status == "open" for child in tree.children(node)):
            return
        node.status = "closed" if node.N else "dead"


def values(tree: Tree) -> dict[int, float]:
    """The value of every node with a complete text below it, or that ends one.

    Of ends the bucket of the rank of V (V itself if there are fewer than six), of inner nodes the
    mean of their children that have a value.
    """
    visited = [n for n in tree.nodes if n.N]
    ends = [n for n in visited if not any(c.N for c in tree.children(n))]
    found = dict(zip((n.number for n in ends), rank_buckets([n.mean for n in ends]), strict=True))
    for node in sorted(visited, key=lambda n: -n.depth):
        below = [found[c.number] for c in tree.children(node) if c.number in found]
        if below:
            found[node.number] = math.fsum(below) / len(below)
    return found


def _principal(tree: Tree) -> None:
    """The layers along the highest values, from the root to a complete text."""
    known, at = values(tree), tree.root
    while ways := [n for n in tree.children(at) if n.number in known]:
        best = max(ways, key=lambda n: (known[n.number], -n.number))
        few = "too_few_candidates" if len(at.children) < 2 else ""
        tree.layers.append(Layer(at.depth + 1, at.number, best.number, best.number, few))
        at = best
    if at is not tree.root:
        tree.u_full = at.mean
    elif not tree.code:
        tree.code = "judge_failed"
