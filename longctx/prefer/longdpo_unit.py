"""A unit of LongDPO: the trees of many prompts, searched together, each round's calls in one go.

A round is what all trees want to know next. Its questions are sorted by stage, and steps by their
budget too, for prompts want different lengths; equal calls of different trees are one call. A call
without a usable reply is no answer, and the tree goes on without it. Rounds a tree: about three a
layer in greedy search, three and more a step of every rollout in the other.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, cast

from longctx.llm.ask import CallStage, Ok, Prompted
from longctx.llm.rejects import Reject as Lost
from longctx.prefer import longdpo_calls as calls
from longctx.prefer.asked import Asked
from longctx.prefer.asking import Asker, Call
from longctx.prefer.longdpo import SYSTEM, target_of
from longctx.prefer.longdpo import step_budget as budget_of
from longctx.prefer.longdpo_greedy import greedy
from longctx.prefer.longdpo_mcts import mcts
from longctx.prefer.longdpo_memory import facts_of
from longctx.prefer.longdpo_search import (
    AGAIN_TEMPERATURE,
    Answer,
    Contradict,
    Critique,
    Expand,
    Extract,
    Judge,
    Question,
    Questions,
    Refine,
    Settings,
    Written,
    together,
)
from longctx.prefer.longdpo_tree import Task, Tree
from longctx.prefer.retrieval import Embedder
from longctx.synth.longwriter_required import required_length

REFINE_TOP_P, REFINE_TOP_K = 0.8, 50


@dataclass(frozen=True)
class Budgets:
    """How long replies may be; a step's budget comes from the wanted length where none is set."""

    judge: int = 1_024
    step: int | None = None

    def of(self, task: Task, depth: int) -> int:
        return budget_of(task.target, depth, self.step)


def task_of(id_: str, asked: Asked, lang: str, target_length: int | None = None) -> Task:
    """The task of a prompt: its length is that of the file, or stated, or `target_length`."""
    required = required_length(asked.query) if asked.target_length is None else None
    wanted = required["x"] if required is not None else asked.target_length or target_length
    target = None if wanted is None else target_of(wanted, lang, required)
    return Task(id_, asked.whole, lang, target)


def stages(
    budgets: Budgets, temperature: float, top_p: float, refine_top_k: int = REFINE_TOP_K
) -> tuple[CallStage, ...]:
    """The stages of a unit. Steps are drawn; all that is judged is asked at temperature 0."""

    def stage(step: str, check: Callable[..., Any], **more: Any) -> CallStage:
        usual: dict[str, Any] = {"max_tokens": budgets.judge, "words": calls.WORDS}
        return CallStage(system=SYSTEM, name=f"{SYSTEM}.{step}", check=check, **{**usual, **more})

    drawn: dict[str, Any] = {"open_ended": True, "max_tokens": budgets.step or budget_of(None, 1)}
    again: dict[str, Any] = {"temperature": AGAIN_TEMPERATURE, "top_p": REFINE_TOP_P}
    extra = {"top_k": refine_top_k} if refine_top_k else {}
    return (
        stage(calls.STEP, calls.check_step, temperature=temperature, top_p=top_p, **drawn),
        stage(calls.JUDGE, calls.check_judge),
        stage(calls.FACTS, calls.check_facts),
        stage(calls.CONTRADICTION, calls.check_contradiction),
        stage(calls.CRITIQUE, calls.check_critique),
        stage(calls.REFINE, calls.check_step, extra=extra, **again, **drawn),
    )


def grown(
    tasks: Sequence[Task], asker: Asker, settings: Settings, budgets: Budgets, embed: Embedder
) -> list[Tree]:
    """The trees of tasks, in their order."""
    search = mcts if settings.search == "mcts" else greedy
    answer = partial(answers, asker, settings.depth, budgets)
    return together([search(task, settings, embed) for task in tasks], answer)


@dataclass(frozen=True)
class _Kind:
    """How questions of one kind are asked and their replies read."""

    step: str
    make: Callable[[Any], Prompted]
    read: Callable[[Question, dict[str, Any]], Answer]


def _kinds(depth: int) -> dict[type, _Kind]:
    def written(question: Question, value: dict[str, Any]) -> Written:
        return Written(value["text"], value["finish"])

    return {
        Expand: _Kind(calls.STEP, partial(calls.request_step, depth=depth), written),
        Judge: _Kind(calls.JUDGE, calls.request_judge, lambda q, v: calls.marks_of(v)),
        Extract: _Kind(
            calls.FACTS,
            calls.request_facts,
            lambda q, v: facts_of(v["facts"], cast(Extract, q).step),
        ),
        Contradict: _Kind(
            calls.CONTRADICTION, calls.request_contradiction, lambda q, v: calls.denial_of(v)
        ),
        Critique: _Kind(
            calls.CRITIQUE, calls.request_critique, lambda q, v: calls.suggestion_of(v)
        ),
        Refine: _Kind(calls.REFINE, partial(calls.request_refine, depth=depth), written),
    }


def answers(asker: Asker, depth: int, budgets: Budgets, questions: Questions) -> list[Answer]:
    """Answers to the questions of a round, in their order; None for each that came to nothing."""
    kinds, found = _kinds(depth), dict[int, Answer]()
    piles: dict[tuple[str, int, bool], list[int]] = {}
    for i, question in enumerate(questions):
        step, tokens, again = kinds[type(question)].step, 0, False
        if isinstance(question, Expand | Refine):
            tokens = budgets.of(question.task, depth)
            again = isinstance(question, Expand) and question.again
        piles.setdefault((step, tokens, again), []).append(i)
    for (step, tokens, again), places in sorted(piles.items()):
        stage = asker.stages[step]
        if tokens:
            stage = replace(stage, max_tokens=tokens)
        if again:
            stage = replace(stage, temperature=max(stage.temperature, AGAIN_TEMPERATURE))
        # The counts of both are the same ones.
        mine = replace(asker, stages={**asker.stages, step: stage})
        wanted = [_call(kinds, questions[i]) for i in places]
        for i, reply in zip(places, mine.ask(step, wanted), strict=True):
            found[i] = _read(kinds, questions[i], reply)
    return [found[i] for i in range(len(questions))]


def _call(kinds: dict[type, _Kind], question: Question) -> Call:
    sample = question.sample if isinstance(question, Expand) else 0
    row_id = f"{question.task.id}/{question.at}"
    if isinstance(question, Critique):
        row_id = f"{row_id}/p{question.principle}"
    make = partial(kinds[type(question)].make, question)
    return Call(question.task.id, row_id, make, sample)


def _read(kinds: dict[type, _Kind], question: Question, reply: Ok | Lost) -> Answer:
    if isinstance(reply, Ok):
        return kinds[type(question)].read(question, reply.value)
    # A model that says nothing more has nothing to add.
    return Written("", "stop") if reply.code == "empty" and isinstance(question, Expand) else None
