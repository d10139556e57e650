"""What a judge of LongReward cannot fail if it judges, asked on a sample of prompts.

Statements of the best answer beside the context of another prompt must lose their support (hard); a
refusal must not be marked best; a second round at temperature 0.7 should rank alike; marks of one
prompt must differ (hard), and should not follow the length of answers. The same answer under two
ids is no control here: equal requests are one call. For a sampled prompt: as many calls as its best
answer has statements, three for the refusal, one for every candidate.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

from longctx.llm import controls
from longctx.llm.ask import Ok
from longctx.llm.controls import REFUSAL, Control
from longctx.prefer import longreward as lr
from longctx.prefer.asked import asked_of
from longctx.prefer.asking import Asker, Call
from longctx.prefer.longreward_unit import (
    COMPLETENESS,
    HELPFULNESS,
    LOGICALITY,
    Candidate,
    Case,
    Settings,
    grade,
)
from longctx.synth.items import Item
from longctx.synth.tokens import TokenCounter
from longctx.synth.words import count_words

STABILITY = "stability"
_MARKED = (HELPFULNESS, LOGICALITY, COMPLETENESS)
Told = dict[str, Any]


def control(
    items: Sequence[Item], asker: Asker, counter: TokenCounter, settings: Settings, step: str
) -> list[Control]:
    """Controls over prompts that were judged; `step` is where their replies stand."""
    told = [item.replies[step] for item in items]
    scored = [_scored(one) for one in told]
    marks = {n: [[c["scores"][n] for c in of] for of in scored] for n in lr.DIMENSIONS}
    totals = [[c["scores"]["total"] for c in of] for of in scored]
    words = [[count_words(c["answer"]) for c in of] for of in scored]
    return [
        *controls.constant_judge(marks),
        _shuffled(items, scored, asker, counter, settings),
        _refused(items, told, scored, asker),
        _again(items, scored, asker),
        controls.length(totals, words),
    ]


def _scored(told: Told) -> list[Told]:
    """The distinct candidates that have all their marks."""
    return [c for c in told["candidates"] if c["status"] == "ok"]


def _shuffled(
    items: Sequence[Item],
    scored: Sequence[Sequence[Told]],
    asker: Asker,
    counter: TokenCounter,
    settings: Settings,
) -> Control:
    """The best answers beside the contexts of other prompts."""
    cases, right = [], []
    for at, (item, of) in enumerate(zip(items, scored, strict=True)):
        other = _other(items, at)
        known = [c for c in of if c["facts"]]
        if other is None or not known:
            continue
        best = max(known, key=lambda c: (c["scores"]["total"], -c["sample_index"]))
        statements = [fact["statement"] for fact in best["facts"]]
        moved = Candidate(f"{item.id}/shuffled", best["sample_index"], best["answer"])
        moved.statements = statements
        asked = asked_of(item)._replace(context=asked_of(other).context)
        cases.append(Case(item, asked, [moved]))
        right.append(best["scores"]["faithfulness"])
    grade(cases, asker, counter, settings)
    found = [case.candidates[0].marks.get("faithfulness") for case in cases]
    return controls.shuffled_context(right, found)


def _other(items: Sequence[Item], at: int) -> Item | None:
    """The next prompt with another context, from the first again behind the last."""
    context = asked_of(items[at]).context
    following = [*items[at + 1 :], *items[:at]]
    return next((i for i in following if asked_of(i).context != context), None)


def _refused(
    items: Sequence[Item], told: Sequence[Told], scored: Sequence[Sequence[Told]], asker: Asker
) -> Control:
    """A refusal beside the candidates, by the three marks that it can have."""
    found: dict[str, list[float | None]] = {}
    for step in _MARKED:
        calls = []
        for item, one in zip(items, told, strict=True):
            query, lang = asked_of(item).query, item.lang
            notes = [(note["label"], note["notes"]) for note in one["notes"]]
            make = (
                partial(lr.request_completeness, query, REFUSAL, notes, lang)
                if step == COMPLETENESS
                else partial(lr.request_mark, step, query, REFUSAL, lang)
            )
            calls.append(Call(item.id, f"{item.id}/refusal", make))
        replies = asker.ask(step, calls)
        found[step] = [float(r.value["score"]) if isinstance(r, Ok) else None for r in replies]
    sums = []
    for at, of in enumerate(scored):
        known = [found[step][at] for step in _MARKED]
        total = None if None in known else sum(m for m in known if m is not None)
        sums.append((total, [sum(c["scores"][step] for step in _MARKED) for c in of]))
    return controls.refusal(sums)


def _again(items: Sequence[Item], scored: Sequence[Sequence[Told]], asker: Asker) -> Control:
    """Helpfulness once more, drawn at another temperature."""
    calls, first = [], []
    for item, of in zip(items, scored, strict=True):
        query = asked_of(item).query
        for one in of:
            make = partial(lr.request_mark, HELPFULNESS, query, one["answer"], item.lang)
            calls.append(Call(item.id, f"{item.id}/{one['sample_index']}", make, sample=1))
            first.append(one["scores"][HELPFULNESS])
    replies = asker.ask(STABILITY, calls)
    second = [float(r.value["score"]) if isinstance(r, Ok) else None for r in replies]
    return controls.stability(first, second)
