"""Controls of LongDPO's judge: marks that vary, negated facts that are found, refusals last.

What is known of every judge's failures (`longctx.llm.controls`), on the trees of a sample. Hard are
the first two. Marks have to vary between the candidates of a first step in their mean: a single
principle, harmlessness above all, may rightly be the same for all of them. Costs a call for each
fact that is negated and one for each refusal.
"""

from collections.abc import Callable, Sequence

from longctx.llm import controls
from longctx.llm.controls import REFUSAL, Control
from longctx.prefer.longdpo_search import Answer, Contradict, Judge, Questions
from longctx.prefer.longdpo_tree import Tree
from longctx.synth.words import count_words

_PLANTED = 2  # facts that are negated in a tree
_NEGATED = {
    "en": "It is not true that {}.",
    "zh": "“{}”这一说法不是真的。",
    "ko": "“{}”라는 말은 사실이 아니다.",
}
_ENDS = " .!?…。！？｡"


def negated(fact: str, lang: str) -> str:
    """A sentence that denies a fact."""
    return _NEGATED.get(lang, _NEGATED["en"]).format(fact.strip(_ENDS))


def planted(tree: Tree) -> list[Contradict]:
    """Facts of the tree, each beside its step with a sentence in front that denies it."""
    wanted = []
    for node in tree.nodes:
        for fact in node.facts or ():
            text = f"{negated(fact, tree.task.lang)} {node.text.strip()}"
            wanted.append(Contradict(tree.task, f"control/{node.number}", fact, text))
    return wanted[:_PLANTED]


def refusals(tree: Tree) -> list[Judge]:
    """A refusal as a first step."""
    return [Judge(tree.task, "control/refusal", "", REFUSAL)] if tree.root.children else []


def report(
    trees: Sequence[Tree], answers: Callable[[Questions], Sequence[Answer]], *, memory: bool
) -> list[Control]:
    """The controls of a sample, whose questions `answers` answers together."""
    asked = [q for tree in trees if memory for q in planted(tree)]
    refused = [q for tree in trees for q in refusals(tree)]
    replies = answers([*asked, *refused])
    caught = [None if reply is None else bool(reply) for reply in replies[: len(asked)]]
    marks = [None if r is None else sum(r) / len(r) for r in replies[len(asked) :]]
    layers = [layer for tree in trees if (layer := tree.children(tree.root))]
    found = controls.constant_judge({"R": [[n.R for n in layer] for layer in layers]})
    if memory:
        found.append(controls.planted_contradiction(caught))
    told = [(mark, [n.R for n in layer]) for mark, layer in zip(marks, layers, strict=True)]
    found.append(controls.refusal(told))
    lengths = [[count_words(n.text) for n in layer] for layer in layers]
    found.append(controls.length([[n.R for n in layer] for layer in layers], lengths))
    return found
