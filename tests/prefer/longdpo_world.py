"""A world without a model for searches of LongDPO: steps, marks and facts that a test plants."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from longctx.prefer.longdpo_greedy import greedy
from longctx.prefer.longdpo_mcts import mcts
from longctx.prefer.longdpo_memory import Fact
from longctx.prefer.longdpo_search import (
    Contradict,
    Critique,
    Expand,
    Extract,
    Judge,
    Refine,
    Settings,
    Suggestion,
    Written,
    answers_by,
    together,
)
from longctx.prefer.longdpo_tree import Task, Tree
from longctx.prefer.retrieval import hash_vectors


class World:
    """Answers to questions of a search, and how often each kind was asked.

    `steps` gives the candidates behind a prefix, `marks` the seven marks of a step or of a complete
    text, or one for all; nothing else is found unless a test plants it.
    """

    def __init__(
        self,
        steps: Callable[[Expand], Written | None],
        marks: Callable[[Judge], Sequence[float] | float | None],
        facts: Callable[[Extract], list[Fact] | None] = lambda question: [],
        denies: Callable[[Contradict], str | None] = lambda question: "",
        critique: Callable[[Critique], Suggestion | None] = lambda question: None,
        refine: Callable[[Refine], Written | None] = lambda question: None,
    ) -> None:
        self.asked: Counter[str] = Counter()
        self.questions: list[Any] = []
        self.marks = marks
        plain: Mapping[type, Callable[[Any], Any]] = {
            Expand: steps,
            Judge: self._judge,
            Extract: facts,
            Contradict: denies,
            Critique: critique,
            Refine: refine,
        }
        self._answer = answers_by(plain)

    def _judge(self, question: Judge) -> tuple[float, ...] | None:
        found = self.marks(question)
        if found is None or isinstance(found, Sequence):
            return None if found is None else tuple(found)
        return (found,) * 7

    def answer(self, questions: Sequence[Any]) -> list[Any]:
        self.asked.update(type(q).__name__ for q in questions)
        self.questions += questions
        return self._answer(questions)

    def grow(self, settings: Settings, *tasks: Task) -> list[Tree]:
        search = greedy if settings.search == "greedy" else mcts
        wanted = tasks or (Task("t", "Write."),)
        return together([search(task, settings, hash_vectors) for task in wanted], self.answer)


def marked(u: float) -> float:
    """The mark whose quality is u."""
    return 1 + 4 * u
