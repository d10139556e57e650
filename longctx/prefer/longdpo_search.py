"""What both searches of LongDPO do at a node: write and mark candidates, check them, refine one.

A search is a generator: it yields what it wants to know, a list of questions, and is sent the
answers in the same order. So it knows no model, is tested with plain functions (`answers_by`), and
many trees go on together (`together`), all their questions of a round answered at once. Nothing
depends on who answers first: a tree is the same alone and among others.
"""

from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, TypeVar

from longctx.prefer.longdpo import (
    LENGTH,
    PRINCIPLES,
    STOP,
    cut_step,
    glued,
    length_term,
    mean_mark,
    reward,
)
from longctx.prefer.longdpo_memory import SEGMENT_WORDS, Fact, near_pairs, segments_of
from longctx.prefer.longdpo_tree import Node, Task, Tree
from longctx.prefer.retrieval import Embedder

T = TypeVar("T")
AGAIN_TEMPERATURE = 1.0
_JUDGE_FAILED, _TOO_FEW = "judge_failed", "too_few_candidates"


class Expand(NamedTuple):
    """A step to be written behind `prefix`; `at` and `sample` name it, `again` asks more freely."""

    task: Task
    at: str
    prefix: str
    depth: int
    sample: int
    again: bool = False


class Judge(NamedTuple):
    """Seven marks for a step behind `prefix`; `whole` is a complete text."""

    task: Task
    at: str
    prefix: str
    step: str
    whole: bool = False


class Extract(NamedTuple):
    """The facts that a step states."""

    task: Task
    at: str
    step: str


class Contradict(NamedTuple):
    """Whether a piece of a step denies a fact."""

    task: Task
    at: str
    fact: str
    segment: str


class Critique(NamedTuple):
    """What a step could learn from a sibling that is better in one principle (1..7)."""

    task: Task
    at: str
    prefix: str
    step: str
    better: str
    principle: int


class Refine(NamedTuple):
    """A step to be written again with suggestions in the prompt."""

    task: Task
    at: str
    prefix: str
    depth: int
    suggestions: tuple[str, ...]


class Written(NamedTuple):
    """What a model wrote. An empty text is a model that has nothing to add."""

    text: str
    finish: str


class Suggestion(NamedTuple):
    """How a step could be better, and how sure the critic is (1..5)."""

    text: str
    confidence: int


Question = Expand | Judge | Extract | Contradict | Critique | Refine
# Written | None, marks | None, facts | None, evidence or "" | None, Suggestion | None; None where
# no usable reply came.
Answer = Any
Questions = Sequence[Question]
Search = Generator[Questions, Sequence[Answer], T]


@dataclass(frozen=True)
class Settings:
    """How a tree is searched; see docs/preference.md."""

    children: int = 4
    depth: int = 4
    search: Literal["greedy", "mcts"] = "greedy"
    w_len: float = 0.25
    eta: float = 2.5
    memory: bool = True
    tau: float = 0.6
    top_segments: int | None = 3
    segment_words: int = SEGMENT_WORDS
    suggestions: int = 3
    refine: Literal["inline", "offline", "off"] = "inline"
    rollouts: int = 16
    c: float = 1.4


class Found(NamedTuple):
    """A contradiction: the fact that a candidate denies, and the words that deny it."""

    fact: str
    evidence: str


def layer(tree: Tree, parent: Node, settings: Settings) -> Search[str]:
    """Write and mark the children of a node; why there is none or one alone, "" for several.

    Equal candidates are one. With fewer than two there is another round, drawn more freely. Without
    any, and if the model had nothing to add, the node becomes the end of its text.
    """
    prefix, at, k = tree.text(parent), tree.label(parent), settings.children
    depth = parent.depth + 1
    parent.expanded = True
    replies = list((yield [Expand(tree.task, at, prefix, depth, i) for i in range(k)]))
    steps = _distinct(prefix, replies)
    if len(steps) < 2:
        more = [Expand(tree.task, at, prefix, depth, k + i, again=True) for i in range(k)]
        replies += yield more
        steps = _distinct(prefix, replies)
        tree.count("second_rounds")
    tree.count("candidates", len(replies))
    tree.count("candidates_failed", sum(reply is None for reply in replies))
    ended = any(reply is not None and not reply.text.strip() for reply in replies)
    if not steps and ended and parent.number:
        parent.finish = STOP
        return ""
    nodes = [tree.add(parent, text, finish) for text, finish in steps.items()]
    yield from _marked(tree, parent, nodes, settings)
    parent.children = [node.number for node in nodes if node.marks is not None]
    if len(parent.children) > 1:
        return ""
    return _JUDGE_FAILED if steps and not parent.children else _TOO_FEW


def _distinct(prefix: str, replies: Sequence[Written | None]) -> dict[str, str]:
    """Steps with why each ended, in the order in which they came, equal ones once."""
    found: dict[str, str] = {}
    for reply in replies:
        if reply is not None and (text := cut_step(reply.text, reply.finish)).strip():
            finish = LENGTH if reply.finish == LENGTH else STOP
            found.setdefault(glued(prefix, text), finish)
    return found


def _marked(tree: Tree, parent: Node, nodes: Sequence[Node], settings: Settings) -> Search[None]:
    """Marks and rewards of new nodes; those that no judge could mark say so."""
    prefix = tree.text(parent)
    marks = yield [Judge(tree.task, tree.label(n), prefix, n.text) for n in nodes]
    for node, found in zip(nodes, marks, strict=True):
        if found is None:
            node.status = "judge_failed"
            tree.count("judge_failed")
            continue
        node.marks = tuple(found)
        node.R = mean_mark(found)
        share = 1.0 if node.finish == STOP else node.depth / settings.depth
        node.s = length_term(prefix + node.text, tree.task.target, share)
        node.u = reward(node.R, node.s, settings.w_len)


def whole(tree: Tree, text: str, at: str, settings: Settings) -> Search[float | None]:
    """V in [0, 1] of a complete text against the full length; None where it could not be marked."""
    (marks,) = yield [Judge(tree.task, at, "", text, whole=True)]
    if marks is None:
        tree.count("texts_failed")
        return None
    return reward(mean_mark(marks), length_term(text, tree.task.target), settings.w_len)


def contradictions(
    tree: Tree, node: Node, memory: Sequence[str], settings: Settings, embed: Embedder
) -> Search[list[Found]]:
    """What a candidate denies of what was stated before it. A check without reply finds nothing."""
    segments = segments_of(node.text, settings.segment_words)
    if not memory or not segments:
        return []
    near = near_pairs(embed(memory), embed(segments), settings.tau, settings.top_segments)
    tree.count("pairs_seen", len(memory) * len(segments))
    tree.count("pairs_passed", len(near))
    if not near:
        return []
    at = tree.label(node)
    replies = yield [Contradict(tree.task, at, memory[f], segments[s]) for f, s in near]
    tree.count("checks_failed", sum(reply is None for reply in replies))
    found = [Found(memory[f], reply) for (f, _), reply in zip(near, replies, strict=True) if reply]
    if found:
        node.detail = f"{found[0].fact} | {found[0].evidence}"
        tree.count("contradictions")
    return found


def remember(tree: Tree, node: Node, settings: Settings) -> Search[None]:
    """The facts of a node that is passed, once; those known to be wrong are counted, not kept."""
    if not settings.memory or node.facts is not None:
        return
    (found,) = yield [Extract(tree.task, tree.label(node), node.text)]
    told: Sequence[Fact] = found or ()
    node.facts = [fact.content for fact in told if not fact.flagged]
    tree.count("facts", len(node.facts))
    tree.count("facts_flagged", len(told) - len(node.facts))
    tree.count("facts_failed", found is None)


def refined(
    tree: Tree,
    chosen: Node,
    siblings: Sequence[Node],
    memory: Sequence[str],
    settings: Settings,
    embed: Embedder,
) -> Search[Node | None]:
    """The step written again after critique, if its mark is higher and it denies nothing."""
    parent = tree.nodes[chosen.parent or 0]
    prefix, at = tree.text(parent), tree.label(chosen)
    models = _better(chosen, siblings)
    if not models:
        return None
    task = tree.task
    asked = [Critique(task, at, prefix, chosen.text, n.text, p) for p, n in models.items()]
    replies = yield asked
    told = [reply for reply in replies if reply is not None]
    best = sorted(told, key=lambda one: -one.confidence)[: settings.suggestions]
    tree.count("critiques", len(asked))
    if not best:
        return None
    wanted = tuple(one.text for one in best)
    (reply,) = yield [Refine(task, at, prefix, chosen.depth, wanted)]
    steps = _distinct(prefix, [reply])
    if not steps or chosen.text in steps:
        return None
    ((text, finish),) = steps.items()
    node = tree.add(parent, text, finish)
    tree.count("refinements")
    yield from _marked(tree, parent, [node], settings)
    if node.R is None or chosen.R is None or node.R <= chosen.R:
        return None
    denied = yield from contradictions(tree, node, memory, settings, embed)
    if denied:
        node.status = "dead"
        return None
    node.status = "refined"
    tree.count("refined")
    return node


def _better(chosen: Node, siblings: Sequence[Node]) -> dict[int, Node]:
    """By principle the sibling with the highest mark, where that is higher than the chosen's."""
    found = {}
    for p in range(len(PRINCIPLES)):
        others = [n for n in siblings if n is not chosen and n.marks is not None]
        best = max(others, key=lambda n: (n.marks or ())[p], default=None)
        if best is not None and (best.marks or ())[p] > (chosen.marks or ())[p]:
            found[p + 1] = best
    return found


def together(
    searches: Sequence[Search[T]], answer: Callable[[Questions], Sequence[Answer]]
) -> list[T]:
    """What searches return, in their order; the questions of all are answered round by round."""
    done: dict[int, T] = {}
    asked: dict[int, Questions] = {}
    for i, search in enumerate(searches):
        _advance(i, search, None, asked, done)
    while asked:
        order = list(asked)
        answers = iter(answer([question for i in order for question in asked[i]]))
        replies = {i: [next(answers) for _ in asked[i]] for i in order}
        asked = {}
        for i in order:
            _advance(i, searches[i], replies[i], asked, done)
    return [done[i] for i in range(len(searches))]


def _advance(
    i: int,
    search: Search[T],
    replies: list[Answer] | None,
    asked: dict[int, Questions],
    done: dict[int, T],
) -> None:
    try:
        asked[i] = next(search) if replies is None else search.send(replies)
    except StopIteration as end:
        done[i] = end.value


def answers_by(
    functions: Mapping[type, Callable[[Any], Answer]],
) -> Callable[[Questions], list[Answer]]:
    """Answers question by question, by a plain function for each kind."""
    return lambda questions: [functions[type(question)](question) for question in questions]
