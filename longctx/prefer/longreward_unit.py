"""A unit of LongReward: all calls of several prompts, stage by stage.

Answers are sampled first; then notes of every chunk, once for all candidates of a prompt, and for
every distinct answer its marks of helpfulness and logicality and its statements; each statement is
judged by the passages nearest to it; at last completeness against all notes. Requests of a stage go
out together and ordered by their text, so candidates of one prompt, which begin alike, are
neighbours; equal requests of several prompts are one call.

Linear in prompts, candidates and statements. A unit holds the texts of its prompts and, for one
context at a time, the vectors of its chunks.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np

from longctx.llm.ask import Ok
from longctx.llm.rejects import Reject as Refused
from longctx.prefer import longreward as lr
from longctx.prefer.asked import Asked, asked_of
from longctx.prefer.asking import Asker, Call
from longctx.prefer.chunks import Chunk, chunk_text, label
from longctx.prefer.longreward import Empty, Fact
from longctx.prefer.retrieval import Embedder, nearest
from longctx.synth.items import Item
from longctx.synth.tokens import TokenCounter

SAMPLE, NOTES, HELPFULNESS, LOGICALITY = "sample", "notes", "helpfulness", "logicality"
STATEMENTS, SUPPORT, COMPLETENESS = "statements", "support", "completeness"
JUDGING = frozenset({NOTES, HELPFULNESS, LOGICALITY, STATEMENTS, SUPPORT, COMPLETENESS})
Answered = dict[str, Any]


@dataclass(frozen=True)
class Settings:
    """How prompts are sampled and judged. `ready` are answers that are there, by prompt."""

    n: int
    embed: Embedder
    empty: Empty = "drop"
    top_k: int = lr.TOP_K
    fact_chunk: int = lr.FACT_CHUNK
    notes_chunk: int = lr.NOTES_CHUNK
    ready: Mapping[str, Mapping[int, str]] | None = None


@dataclass
class Candidate:
    """One answer and what is known of it. `why` says what a mark that is missing failed with."""

    owner: str
    index: int
    answer: str | None
    same_as: int | None = None
    marks: dict[str, float | None] = field(default_factory=dict)
    statements: list[str] | None = None
    facts: list[Fact] = field(default_factory=list)
    why: list[str] = field(default_factory=list)

    def row_id(self, *more: int) -> str:
        """The id of its calls."""
        return "/".join([self.owner, str(self.index), *map(str, more)])

    def status(self) -> str:
        """`ok` where all four marks are there; else what it lacks, or is."""
        if self.why:
            return self.why[0]
        if self.same_as is not None:
            return "duplicate"
        if self.statements == [] and self.marks.get("faithfulness") is None:
            return "no_statements"
        return "ok"

    def told(self) -> dict[str, Any]:
        """The candidate as plain JSON values."""
        return {
            "sample_index": self.index,
            "answer": self.answer,
            "status": self.status(),
            "same_as": self.same_as,
            "scores": lr.scores(self.marks),
            "facts": [fact._asdict() for fact in self.facts],
        }


@dataclass
class Case:
    """One prompt of a unit."""

    item: Item
    asked: Asked
    candidates: list[Candidate] = field(default_factory=list)
    chunks: list[Chunk] = field(default_factory=list)
    notes: list[dict[str, Any]] = field(default_factory=list)

    @property
    def scored(self) -> Iterator[Candidate]:
        """The candidates that are judged: each text once."""
        return (c for c in self.candidates if c.answer is not None and c.same_as is None)

    @property
    def noted(self) -> list[tuple[str, list[str]]] | None:
        """The notes of all chunks with their labels; None where a chunk has none to show for."""
        if any(note["status"] != "ok" for note in self.notes):
            return None
        return [(note["label"], note["notes"]) for note in self.notes]


def judge_unit(
    items: Sequence[Item], asker: Asker, counter: TokenCounter, settings: Settings
) -> dict[str, Answered]:
    """What was found of every prompt: its candidates with their scores, and its notes."""
    cases = [Case(item, asked_of(item)) for item in items]
    if settings.ready is None:
        _sample(cases, asker, settings.n)
    else:
        _take(cases, settings.ready)
    _note(cases, asker, counter, settings.notes_chunk)
    judge_candidates(cases, asker, counter, settings)
    return {case.item.id: _told(case) for case in cases}


def judge_candidates(
    cases: Sequence[Case], asker: Asker, counter: TokenCounter, settings: Settings
) -> None:
    """All marks of the candidates of cases that have their notes."""
    for dimension in (HELPFULNESS, LOGICALITY):
        _mark(cases, asker, dimension)
    support(cases, asker, counter, settings)
    _complete(cases, asker)
    for case in cases:
        share_marks(case.candidates)


def _told(case: Case) -> Answered:
    return {"candidates": [c.told() for c in case.candidates], "notes": case.notes}


def _sample(cases: Sequence[Case], asker: Asker, n: int) -> None:
    calls = [
        Call(case.item.id, case.item.id, partial(_answer_prompt, case), sample)
        for case in cases
        for sample in range(n)
    ]
    found = iter(asker.ask(SAMPLE, calls))
    for case in cases:
        for sample in range(n):
            one = next(found)
            text = one.value["text"].strip() if isinstance(one, Ok) else None
            candidate = Candidate(case.item.id, sample, text)
            if isinstance(one, Refused):
                candidate.why.append(f"{SAMPLE}:{one.code}")
            case.candidates.append(candidate)
        mark_copies(case.candidates)


def _answer_prompt(case: Case) -> Any:
    return lr.request_answer(case.asked.whole, case.asked.context, case.asked.query)


def _take(cases: Sequence[Case], ready: Mapping[str, Mapping[int, str]]) -> None:
    for case in cases:
        answers = sorted(ready.get(case.item.id, {}).items())
        case.candidates = [Candidate(case.item.id, k, text.strip()) for k, text in answers]
        mark_copies(case.candidates)


def mark_copies(candidates: Sequence[Candidate]) -> None:
    """Let every candidate whose text is there before name the first that has it."""
    first: dict[str, int] = {}
    for one in candidates:
        if one.answer is not None:
            known = first.setdefault(one.answer, one.index)
            one.same_as = None if known == one.index else known


def share_marks(candidates: Sequence[Candidate]) -> None:
    """Give copies the marks of the text that they are copies of."""
    of = {one.index: one for one in candidates}
    for one in candidates:
        if one.same_as is not None:
            one.marks = dict(of[one.same_as].marks)


def _note(cases: Sequence[Case], asker: Asker, counter: TokenCounter, size: int) -> None:
    calls = []
    for case in cases:
        context = case.asked.context
        case.chunks = chunk_text(context, counter, size)
        total = case.chunks[-1].end_tok if case.chunks else 0
        for number, chunk in enumerate(case.chunks):
            place = label(chunk, total)
            asked = (chunk.of(context), place, case.asked.query, case.item.lang)
            row_id = f"{case.item.id}/{NOTES}/{number}"
            calls.append(Call(case.item.id, row_id, partial(lr.request_notes, *asked)))
            known = {"chunk_id": number, "start_tok": chunk.start_tok, "end_tok": chunk.end_tok}
            case.notes.append({**known, "label": place})
    found = iter(asker.ask(NOTES, calls))
    for case in cases:
        for note in case.notes:
            one = next(found)
            if isinstance(one, Ok):
                listed = [n.strip() for n in one.value["notes"] if n.strip()]
                note |= {"relevant": one.value["relevant"], "notes": listed, "status": "ok"}
            else:
                note |= {"relevant": None, "notes": [], "status": one.code}


def _mark(cases: Sequence[Case], asker: Asker, dimension: str) -> None:
    """Helpfulness or logicality of every candidate."""
    listed = [(case, one) for case in cases for one in case.scored]
    calls = [
        Call(
            case.item.id,
            one.row_id(),
            partial(lr.request_mark, dimension, case.asked.query, one.answer or "", case.item.lang),
        )
        for case, one in listed
    ]
    for (_, one), reply in zip(listed, asker.ask(dimension, calls), strict=True):
        _keep(one, dimension, reply)


def _keep(one: Candidate, dimension: str, reply: Ok | Refused) -> None:
    """A mark, or why it is missing."""
    if isinstance(reply, Ok):
        one.marks[dimension] = float(reply.value["score"])
    else:
        one.why.append(f"{dimension}:{reply.code}")


def support(cases: Sequence[Case], asker: Asker, counter: TokenCounter, settings: Settings) -> None:
    """Faithfulness of every candidate: its statements, each against the passages nearest to it."""
    listed = [(case, one) for case in cases for one in case.scored]
    calls = [
        Call(
            case.item.id,
            one.row_id(),
            partial(lr.request_statements, case.asked.query, one.answer or "", case.item.lang),
        )
        for case, one in listed
    ]
    for (_, one), reply in zip(listed, asker.ask(STATEMENTS, calls), strict=True):
        if isinstance(reply, Ok):
            one.statements = lr.distinct(reply.value["statements"])
        else:
            one.why.append(f"{STATEMENTS}:{reply.code}")
    grade(cases, asker, counter, settings)


def grade(cases: Sequence[Case], asker: Asker, counter: TokenCounter, settings: Settings) -> None:
    """Levels of all statements that are known, and the faithfulness that follows."""
    calls: list[Call] = []
    asked: list[tuple[Candidate, str, list[int]]] = []
    for case in cases:
        for one, statement, places, call in _support_calls(case, counter, settings):
            asked.append((one, statement, places))
            calls.append(call)
    failed: set[int] = set()
    for (one, statement, places), reply in zip(asked, asker.ask(SUPPORT, calls), strict=True):
        if isinstance(reply, Ok):
            said = reply.value
            evidence = sorted({places[n - 1] for n in said["evidence"]})
            known = [] if said["level"] == "none" else evidence
            one.facts.append(Fact(statement, said["level"], known, said["analysis"]))
        elif id(one) not in failed:
            failed.add(id(one))
            one.why.append(f"{SUPPORT}:{reply.code}")
    for case in cases:
        for one in case.scored:
            if one.statements is not None and id(one) not in failed:
                levels = [fact.level for fact in one.facts]
                one.marks["faithfulness"] = lr.faithfulness(levels, settings.empty)


def _support_calls(
    case: Case, counter: TokenCounter, settings: Settings
) -> list[tuple[Candidate, str, list[int], Call]]:
    """The statements of all candidates of a prompt with the chunks that each is judged by."""
    wanted = [(one, at, s) for one in case.scored for at, s in enumerate(one.statements or [])]
    context = case.asked.context
    chunks = [c.of(context) for c in chunk_text(context, counter, settings.fact_chunk)]
    if not wanted:
        return []
    vectors = settings.embed(chunks) if chunks else np.zeros((0, 1))
    places = nearest(settings.embed([s for _, _, s in wanted]), vectors, settings.top_k)
    found = []
    for (one, at, statement), near in zip(wanted, places, strict=True):
        passages = [chunks[i] for i in near]
        make = partial(lr.request_support, statement, passages, case.item.lang)
        found.append((one, statement, near, Call(case.item.id, one.row_id(at), make)))
    return found


def _complete(cases: Sequence[Case], asker: Asker) -> None:
    """Completeness of every candidate; a prompt that lacks notes cannot have it."""
    listed = []
    for case in cases:
        notes = case.noted
        for one in case.scored:
            if notes is None:
                one.why.append(f"{NOTES}:judge_failed")
            else:
                listed.append((case, one, notes))
    calls = [
        Call(
            case.item.id,
            one.row_id(),
            partial(
                lr.request_completeness, case.asked.query, one.answer or "", notes, case.item.lang
            ),
        )
        for case, one, notes in listed
    ]
    for (_, one, _), reply in zip(listed, asker.ask(COMPLETENESS, calls), strict=True):
        _keep(one, COMPLETENESS, reply)
