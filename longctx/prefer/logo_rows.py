"""A LOGO row: a question, three answers from three sets of chunks, and what trainers need of them.

`plan` says from which chunks of a document a question is answered (`logo`), `build_row` what the
answers come to: a pair row of all systems with its second rejected answer, the chunks with their
scores and roles, and the tokens of the compact training form (`logo_train`). The context of a row
is not the document but its chunks, so exporters are given `context_of`. Pure; the model's replies
are passed in. Cost: one tokenisation of the document for each call of `plan`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import pyarrow as pa

from longctx.prefer import logo, logo_train
from longctx.prefer.logo import PROMPT_VERSION, SYSTEM, Delta, Selection
from longctx.prefer.logo_calls import SIDES, request_answer
from longctx.prefer.logo_train import Frame, Tokens, Window
from longctx.prefer.pairs import (
    LENGTH_RATIO,
    PAIRS,
    ContextRef,
    Group,
    Side,
    build,
    pair_id,
    pair_problems,
)
from longctx.synth.draw import generator
from longctx.synth.rows import Reject, Row
from longctx.synth.tokens import TokenCounter

Scorer = Callable[[Sequence[str], str], list[int]]
_TEXT, _NUMBER, _SHARE = pa.string(), pa.int32(), pa.float32()
_PLACES = pa.list_(_NUMBER)
_CHUNK = pa.struct(
    {
        "chunk_id": _NUMBER,
        "start_char": pa.int64(),
        "end_char": pa.int64(),
        "score": _NUMBER,
        "role": _TEXT,
    }.items()
)

LOGO = pa.schema(
    [
        *PAIRS,
        *{
            "question": _TEXT,
            "gold": _TEXT,
            "chunks": pa.list_(_CHUNK),
            **{f"{side}_chunks": _PLACES for side in SIDES},
            "n_chunks": _NUMBER,
            "delta": _SHARE,
            "gap": _SHARE,
            "window": logo_train.WINDOWS,
            "modes": pa.list_(_TEXT),
            "tokens": logo_train.TOKENS,
        }.items(),
    ]
)


@dataclass(frozen=True, slots=True)
class Choice:
    """How chunks are made and chosen; the fields of the op."""

    chunk: int = logo.CHUNK
    chunks: int = logo.CHUNKS
    delta: Delta = "auto"
    max_relevant: int = logo.CHUNKS // 2
    min_relevant: int = 2
    min_gap: float = logo.LEAST_GAP
    query_side: str = "question+gold"


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked about a document, and the right answer where one is known.

    Without a `doc_id` the text is none of the corpus, and its row has to hold the context.
    """

    id: str
    text: str
    gold: str | None
    lang: str
    source: str
    doc_id: str | None


class Plan(NamedTuple):
    """The chunks of a document as spans of its characters, their scores, and which are used."""

    spans: list[tuple[int, int]]
    scores: list[int]
    chosen: Selection

    def text(self, document: str, side: str) -> str:
        """What the answer of a side is taken from."""
        places = self.chosen.relevant if side == "chosen" else getattr(self.chosen, side)
        return logo.joined(document, self.spans, places)

    def context(self, document: str) -> str:
        """What the answers are trained with."""
        return logo.joined(document, self.spans, self.chosen.context)


def plan(
    question: Question,
    document: str,
    counter: TokenCounter,
    seed: int,
    choice: Choice,
    scorer: Scorer = logo.score_terms,
) -> Plan | Reject:
    """The chunks for a question; `low_score` where they cannot be told apart by it."""
    least = min(logo.LEAST_CHUNK, choice.chunk // 8)
    spans = logo.chunk_spans(document, counter, choice.chunk, least)
    if not spans:
        return Reject("too_short", "a document without a token")
    query = logo.query_of(question.text, question.gold, choice.query_side)
    scores = scorer([document[a:b] for a, b in spans], query)
    chosen = logo.select_chunks(
        scores,
        choice.chunks,
        choice.delta,
        choice.max_relevant,
        generator(seed, SYSTEM, "chunks", question.id),
        min_relevant=choice.min_relevant,
        min_gap=choice.min_gap,
    )
    return chosen if isinstance(chosen, Reject) else Plan(spans, scores, chosen)


def pair_problem(
    answers: Mapping[str, Side], gold: str | None, max_ratio: float = LENGTH_RATIO
) -> Reject | None:
    """The first thing that speaks against one of the two pairs of a triple."""
    for side in SIDES[1:]:
        if found := pair_problems(answers["chosen"], answers[side], gold=gold, max_ratio=max_ratio):
            code, detail = found[0]
            return Reject(code, f"{side}: {detail}")
    return None


def build_row(
    question: Question,
    document: str,
    plan: Plan,
    answers: Mapping[str, Side],
    *,
    counter: TokenCounter,
    frame: Frame,
    window: Window,
    variants: int,
    seed: int,
    model: str,
    judge_model: str | None,
    checks: Mapping[str, bool],
    max_ratio: float = LENGTH_RATIO,
) -> Row | Reject:
    """The row of a triple that was found to be right, wrong, wrong; or what else speaks against it.

    `checks` are those that it has passed.
    """
    if problem := pair_problem(answers, question.gold, max_ratio):
        return problem
    turns = turns_of(question)
    if question.doc_id is None:
        context = plan.context(document)
        turns[-1]["content"] = f"{context}\n\n{turns[-1]['content']}"
    said = {side: answers[side].text for side in SIDES}
    tokens = tokens_of(plan, document, question, said, counter, frame)
    if problem := logo_train.length_problem(tokens, window):
        return problem
    first, last = plan.chosen.context[0], plan.chosen.context[-1]
    places = (plan.spans[first][0], plan.spans[last][1])
    ref = None if question.doc_id is None else ContextRef(question.doc_id, *places)
    group = Group(
        system=SYSTEM,
        group_id=question.id,
        lang=question.lang,
        source=question.source,
        seed=seed,
        prompt_version=PROMPT_VERSION,
        messages=turns,
        model=model,
        judge_model=judge_model,
        doc_id=question.doc_id,
        context_ref=ref,
        gold=question.gold,
    )
    pair = build(
        group,
        answers["chosen"],
        answers["rejected_1"],
        rule="irrelevant_chunks",
        max_ratio=max_ratio,
        rejected_2=said["rejected_2"],
        checks=checks,
    )
    if isinstance(pair, Reject):
        return pair
    lens, prefix = logo_train.lengths(tokens), len(tokens["prefix"])
    draws = (logo_train.draw(lens, prefix, pair["id"], k, seed, window) for k in range(variants))
    modes = [mode for mode, _ in draws]
    placed = {"window": window._asdict(), "modes": modes, "tokens": tokens}
    return {**pair, **_own(question, plan), **placed}


def turns_of(question: Question) -> list[dict[str, str]]:
    """The turns of a row without its context, which exporters put in front of the question."""
    asked = request_answer("", question.text, question.lang)
    system, user = (dict(turn) for turn in asked.messages)
    return [system, {**user, "content": user["content"].lstrip("\n")}]


def tokens_of(
    plan: Plan,
    document: str,
    question: Question,
    answers: Mapping[str, str],
    counter: TokenCounter,
    frame: Frame,
) -> Tokens:
    """The compact training form of a triple."""
    system, user = turns_of(question)
    chunks = [document[a:b] for a, b in (plan.spans[i] for i in plan.chosen.context)]
    return logo_train.tokens_of(system["content"], chunks, user["content"], answers, counter, frame)


def _own(question: Question, plan: Plan) -> dict[str, Any]:
    """The columns that LOGO adds to a pair row, but for tokens and modes."""
    chosen = plan.chosen
    chunks = [
        {
            "chunk_id": i,
            "start_char": plan.spans[i][0],
            "end_char": plan.spans[i][1],
            "score": plan.scores[i],
            "role": logo.role_of(i, chosen),
        }
        for i in chosen.context
    ]
    used = (chosen.relevant, chosen.rejected_1, chosen.rejected_2)
    return {
        "question": question.text,
        "gold": question.gold,
        "chunks": chunks,
        **{f"{side}_chunks": places for side, places in zip(SIDES, used, strict=True)},
        "n_chunks": len(plan.spans),
        "delta": chosen.delta,
        "gap": chosen.gap,
    }


def context_of(row: Mapping[str, Any], document: str) -> str:
    """The context that the row's prompt has, from the document that it names."""
    return "\n".join(document[c["start_char"] : c["end_char"]] for c in row["chunks"])


def second_pair(row: Row) -> Row:
    """The pair of the chosen with the second rejected answer, under an id of its own."""
    rejected = row["rejected_2"]
    made = pair_id(row["system"], row["group_id"], row["depth"], row["chosen"], rejected)
    return {**row, "id": made, "rejected": rejected, "rejected_rule": "half_relevant_chunks"}
