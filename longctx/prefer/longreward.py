"""LongReward: what several answers to one question are worth, and which two of them make a pair.

LongReward (arXiv 2410.21252) samples ten answers to a question about a long context and has an
ordinary model mark each from 0 to 10 on four dimensions without ever reading the whole context:
helpfulness and logicality from question and answer, faithfulness as the share of the answer's
statements that retrieved passages support, completeness against notes taken of every chunk. The sum
ranks; the best and the worst become a pair.

What we changed: labels and marks are read exactly, never by a part of a word; a mark that is
missing is missing, not the middle; a lead below `margin`, and floors for the chosen answer, turn a
pair away; statements are bounded in number and length. The sum is used, the paper's text says mean:
the order is the same. Costs ceil(T / 4096) + the sum over candidates of 4 + its statements calls a
prompt, about 250. Lost: answers that state nothing from the document (refusals among them) are not
scored by default, so they are never the rejected side.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
import pyarrow as pa

from longctx.prefer.pairs import RejectedRule, pick_rejected
from longctx.synth.checks import content_words
from longctx.synth.prompt import BOOL, INT, TEXT, Prompt, list_of, object_schema, prompt
from longctx.synth.rows import Reject
from longctx.synth.words import count_words

SYSTEM = "longreward"
PROMPT_VERSION = "longreward-1"
DIMENSIONS = ("helpfulness", "logicality", "faithfulness", "completeness")
LEVELS = {"full": 1.0, "partial": 0.5, "none": 0.0}
Empty = Literal["drop", "neutral", "zero"]

CANDIDATES, NOTES_CHUNK, FACT_CHUNK, TOP_K = 10, 4_096, 128, 5
MOST_STATEMENTS, STATEMENT_WORDS, QUESTION_WORDS = 60, (5, 60), (4, 60)
# Statements of an answer that a plan counts with, since no answer is there yet.
ASSUMED_STATEMENTS = 20
_EMPTY: dict[Empty, float | None] = {"drop": None, "neutral": 5.0, "zero": 0.0}
_PACKAGE = "longctx.prefer"
_LANGUAGES = {"en": "English", "zh": "Chinese", "ko": "Korean", "ja": "Japanese"}
_MARK: dict[str, Any] = {"type": "integer", "minimum": 0, "maximum": 10}
_MARKED = object_schema(analysis=TEXT, score=_MARK)
_SUPPORTED = object_schema(
    analysis=TEXT, level={"type": "string", "enum": list(LEVELS)}, evidence=list_of(INT)
)

WORDS = {
    "question_form": "The question must have 4 to 60 words and end with a question mark.",
    "off_document": "The question must be about what the document says, in its own words.",
    "notes_and_relevance": "`relevant` must be true where there are notes, else false.",
    "statement_count": "There must be at most 60 statements.",
    "statement_length": "Every statement must be one sentence of 5 to 60 words.",
    "foreign_statement": "Every statement must be one of the answer, with words of it.",
    "no_evidence": "A level other than none needs at least one number in `evidence`.",
    "evidence_out_of_range": "`evidence` must name passages by the numbers they have.",
}


class Fact(NamedTuple):
    """A statement of an answer with the level of its support, and the chunks that support it."""

    statement: str
    level: str
    evidence: list[int]
    analysis: str


@dataclass(frozen=True, slots=True)
class Scored:
    """A candidate that has all four marks."""

    index: int
    helpfulness: float
    logicality: float
    faithfulness: float
    completeness: float
    words: int

    @property
    def total(self) -> float:
        """The sum of the four, 0 to 40."""
        return math.fsum(self.marks().values())

    def marks(self) -> dict[str, float]:
        """The four marks by dimension."""
        return {name: getattr(self, name) for name in DIMENSIONS}


@dataclass(frozen=True, slots=True)
class PairRules:
    """What makes a pair of scored candidates. `margin` of 40, the floors of 10."""

    least_candidates: int = 5
    margin: float = 2.0
    least_faithfulness: float = 8.0
    least_completeness: float = 5.0
    rejected: RejectedRule = "min"
    worst_k: int = 3


_FACT = pa.struct(
    {
        "statement": pa.string(),
        "level": pa.string(),
        "evidence": pa.list_(pa.int32()),
        "analysis": pa.string(),
    }.items()
)
_SCORES = pa.struct({n: pa.float64() for n in (*DIMENSIONS, "total", "mean")}.items())
CANDIDATE_TABLE = pa.schema(
    {
        "id": pa.string(),
        "sample_index": pa.int32(),
        "answer": pa.string(),
        "status": pa.string(),
        "same_as": pa.int32(),
        "scores": _SCORES,
        "facts": pa.list_(_FACT),
    }.items()
)
NOTES_TABLE = pa.schema(
    {
        "id": pa.string(),
        "chunk_id": pa.int32(),
        "start_tok": pa.int32(),
        "end_tok": pa.int32(),
        "label": pa.string(),
        "relevant": pa.bool_(),
        "notes": pa.list_(pa.string()),
        "status": pa.string(),
    }.items()
)


def faithfulness(levels: Sequence[str], empty: Empty = "drop") -> float | None:
    """10 * mean support of the statements; what `empty` says for none, None for `drop`."""
    if not levels:
        return _EMPTY[empty]
    return 10 * math.fsum(LEVELS[level] for level in levels) / len(levels)


def scores(marks: Mapping[str, float | None]) -> dict[str, float | None]:
    """The four marks with `total` and `mean`, which are None where one of the four is."""
    known = [marks.get(name) for name in DIMENSIONS]
    total = None if None in known else math.fsum(m for m in known if m is not None)
    mean = None if total is None else total / len(DIMENSIONS)
    return {**{name: marks.get(name) for name in DIMENSIONS}, "total": total, "mean": mean}


def build_pair(
    candidates: Sequence[Scored], cfg: PairRules, rng: np.random.Generator | None = None
) -> tuple[Scored, Scored] | Reject:
    """The chosen and the rejected of the scored candidates of a prompt, or why there is no pair.

    Chosen is the highest total (of equals: higher faithfulness, fewer words, lower index). `rng`
    is needed by the rules that draw.
    """
    if len(candidates) < cfg.least_candidates:
        said = f"{len(candidates)} scored candidates, {cfg.least_candidates} are needed"
        return Reject("too_few_candidates", said)
    listed = sorted(candidates, key=lambda c: c.index)
    best = max(listed, key=lambda c: (c.total, c.faithfulness, -c.words, -c.index))
    totals, at = [c.total for c in listed], listed.index(best)
    chance = rng or np.random.default_rng(0)
    worst = listed[pick_rejected(totals, at, cfg.rejected, chance, cfg.worst_k)]
    lead = best.total - worst.total
    if lead < cfg.margin:
        said = f"{best.total:g} against {worst.total:g} of 40, a lead of {cfg.margin:g} is needed"
        return Reject("small_margin" if lead > 0 else "tie", said)
    for name, least in (
        ("faithfulness", cfg.least_faithfulness),
        ("completeness", cfg.least_completeness),
    ):
        if (mark := getattr(best, name)) < least:
            return Reject("low_score", f"{name} of the best is {mark:g}, wanted {least:g}")
    return best, worst


def language(lang: str) -> str:
    """The name of a language, as a judge is told which to answer in."""
    return _LANGUAGES.get(lang, lang or "the language of the question")


def request_question(document: str, lang: str) -> Prompt:
    """Stage `longreward.question`: one question on a document, in its language."""
    parts = {"document": document, "lang": lang}
    schema = object_schema(question=TEXT)
    return prompt("longreward.question", lang, parts, schema, package=_PACKAGE)


def check_question(reply: Mapping[str, Any], parts: Mapping[str, Any]) -> str | None:
    """`question_form` or `off_document`."""
    asked = reply["question"].strip()
    least, most = QUESTION_WORDS
    if not asked.endswith(("?", "？")) or not least <= count_words(asked) <= most:
        return "question_form"
    shared = content_words(asked) & content_words(parts["document"])
    return None if shared else "off_document"


def request_answer(whole: str, context: str, question: str) -> Prompt:
    """Stage `longreward.sample`: the context, a blank line and the question (`whole`), no more."""
    turn = {"role": "user", "content": whole}
    return Prompt("longreward.sample", (turn,), {"text": context, "question": question})


def check_answer(reply: Mapping[str, Any], parts: Mapping[str, Any]) -> str | None:
    """Any text is a candidate; what it is worth is what the judge says."""
    return None


def request_notes(text: str, label: str, question: str, lang: str) -> Prompt:
    """Stage `longreward.notes`: what a chunk says about the question."""
    parts = {"text": text, "label": label, "question": question}
    return _judging("notes", parts, lang, object_schema(relevant=BOOL, notes=list_of(TEXT)))


def check_notes(reply: Mapping[str, Any], parts: Mapping[str, Any]) -> str | None:
    """`notes_and_relevance` where one says something and the other nothing."""
    said = any(note.strip() for note in reply["notes"])
    return None if said == reply["relevant"] else "notes_and_relevance"


def request_mark(dimension: str, question: str, answer: str, lang: str) -> Prompt:
    """Stages `longreward.helpfulness` and `longreward.logicality`: from question and answer."""
    return _judging(dimension, {"question": question, "answer": answer}, lang, _MARKED)


def check_mark(reply: Mapping[str, Any], parts: Mapping[str, Any]) -> str | None:
    """The schema bounds marks; there is nothing else to check."""
    return None


def request_statements(question: str, answer: str, lang: str) -> Prompt:
    """Stage `longreward.statements`: what the answer takes from the document."""
    schema = object_schema(statements=list_of(TEXT))
    return _judging("statements", {"question": question, "answer": answer}, lang, schema)


def check_statements(reply: Mapping[str, Any], parts: Mapping[str, Any]) -> str | None:
    """`statement_count`, `statement_length` or `foreign_statement`; none at all are sound."""
    listed = distinct(reply["statements"])
    if len(listed) > MOST_STATEMENTS:
        return "statement_count"
    least, most = STATEMENT_WORDS
    if any(not least <= count_words(s) <= most for s in listed):
        return "statement_length"
    known = content_words(parts["answer"])
    return None if all(content_words(s) & known for s in listed) else "foreign_statement"


def distinct(statements: Sequence[str]) -> list[str]:
    """Statements without the blanks around them, each once, empty ones left out."""
    return list(dict.fromkeys(s.strip() for s in statements if s.strip()))


def request_support(statement: str, passages: Sequence[str], lang: str) -> Prompt:
    """Stage `longreward.support`: a statement against passages, numbered from 1."""
    parts = {"statement": statement, "evidence": list(passages)}
    shown = "\n\n".join(f"[{i}] {text.strip()}" for i, text in enumerate(passages, start=1))
    return _judging("support", parts, lang, _SUPPORTED, {"passages": shown})


def check_support(reply: Mapping[str, Any], parts: Mapping[str, Any]) -> str | None:
    """`no_evidence` or `evidence_out_of_range`."""
    if reply["level"] != "none" and not reply["evidence"]:
        return "no_evidence"
    known = range(1, len(parts["evidence"]) + 1)
    return None if all(n in known for n in reply["evidence"]) else "evidence_out_of_range"


def request_completeness(
    question: str, answer: str, notes: Sequence[tuple[str, Sequence[str]]], lang: str
) -> Prompt:
    """Stage `longreward.completeness`: the answer against all notes, each list with its label."""
    lines = [f"({label}) {note}" for label, listed in notes for note in listed]
    parts = {"question": question, "answer": answer}
    known = {**parts, "notes": [note for _, listed in notes for note in listed]}
    shown = {"listed": "\n".join(lines) or "(The document says nothing about it.)"}
    return _judging("completeness", known, lang, _MARKED, shown)


def _judging(
    step: str,
    parts: Mapping[str, Any],
    lang: str,
    schema: dict[str, Any],
    shown: Mapping[str, str] | None = None,
) -> Prompt:
    """The prompt of a judge: English, with replies in the language of the question."""
    values = {"language": language(lang), **(shown or {})}
    return prompt(f"{SYSTEM}.{step}", "en", parts, schema, values, package=_PACKAGE)
