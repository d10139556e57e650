"""PAM QA (ASM QA in its first version; arXiv 2311.09198): questions over numbered passages.

A row teaches to find the right passages at any place among others, in three steps: the question is
said again, the numbers of the passages are named, and the answer follows from these. Here are the
text forms and their inverses, the counts of negatives, and the probe that moves a gold about.
`pamqa_rows` builds the rows.

What we changed. The published prompt is cut in its middle where it is too long, which can cut a
gold: we drop whole negatives. Passages are numbered after the shuffle and after brackets were
replaced, so the numbers that are named are those of this prompt. Lost: line breaks and square
brackets of the passages.
"""

import math
import re
from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Any, NamedTuple, TypedDict

from longctx.synth.checks import HAN_OR_KANA
from longctx.synth.pamqa_words import wording
from longctx.synth.rows import Row, turns_tokens
from longctx.synth.tokens import TokenCounter

SYSTEM = "pamqa"
PROMPT_VERSION = "pamqa-1"

_BLANKS = re.compile(r"\s+")
_BREAKS = frozenset("\n\r\v\f\x1c\x1d\x1e\x85\u2028\u2029")
_CLOSED, _STOPPED = frozenset("。！？；："), frozenset(".!?;:…")
_BRACKETS = str.maketrans("[]", "()")
_INDEX = re.compile(r"\[(\d+)\]")


class Kept(NamedTuple):
    """How many documents of each kind fit, and the tokens of all of them."""

    golds: int
    hard: int
    random: int
    tokens: int


class ResponseParts(TypedDict):
    """A response taken apart; `indices` are the 1-based numbers of passages, as they stand."""

    restate: str
    indices: list[int]
    answer: str


class PromptDoc(TypedDict):
    """A passage of a prompt."""

    idx: int
    title: str
    text: str


class PromptParts(TypedDict):
    """A prompt taken apart."""

    question: str
    docs: list[PromptDoc]


def sanitise(text: str) -> str:
    """A passage on one line and without square brackets, which belong to the numbers.

    A run of line breaks becomes nothing behind 。！？；：, a blank behind a mark that ends or halts
    a sentence, 。 behind Han and kana, a full stop and a blank elsewhere.
    """
    return _BLANKS.sub(_joint, text.translate(_BRACKETS).strip())


def _joint(run: re.Match[str]) -> str:
    if _BREAKS.isdisjoint(run[0]):
        return run[0]
    before = run.string[run.start() - 1]
    if before in _CLOSED:
        return ""
    if before in _STOPPED:
        return " "
    return "。" if HAN_OR_KANA.match(before) else ". "


def sanitise_title(title: str) -> str:
    """A title as it can stand before ": ", which a parser takes for the end of the title."""
    return sanitise(title).replace(": ", " - ").rstrip(" :")


def fill_counts(n_docs: int, n_gold: int, hard_share: float) -> tuple[int, int]:
    """Numbers of hard and of random negatives beside the golds; the share is rounded up.

    Raises ValueError for more golds than documents, or a share outside 0..1.
    """
    negatives = n_docs - n_gold
    if negatives < 0 or not 0 <= hard_share <= 1:
        raise ValueError(f"{n_gold} golds of {n_docs} documents, hard_share {hard_share}")
    hard = math.ceil(Fraction(repr(float(hard_share))) * negatives)
    return hard, negatives - hard


def fit_docs(
    golds: Sequence[int], hard: Sequence[int], random: Sequence[int], budget: int
) -> Kept | None:
    """How many documents of given lengths (tokens) fit into a budget; None if not even the golds.

    Random negatives go first, from the last drawn on, then hard ones, from the lowest rank on.
    """
    hard_kept, random_kept = len(hard), len(random)
    total = sum(golds) + sum(hard) + sum(random)
    while total > budget and random_kept:
        random_kept -= 1
        total -= random[random_kept]
    while total > budget and hard_kept:
        hard_kept -= 1
        total -= hard[hard_kept]
    return Kept(len(golds), hard_kept, random_kept, total) if total <= budget else None


def document_line(idx: int, doc: Mapping[str, Any]) -> str:
    """A passage (`title`, `text`, both sanitised) under its number."""
    title = doc["title"]
    return f"[{idx}] {title}: {doc['text']}" if title else f"[{idx}] {doc['text']}"


def render_documents(
    docs: Sequence[Mapping[str, Any]], lang: str = "en", end_of_document: str = ""
) -> str:
    """The heading and all passages, numbered from 1, each closed by `end_of_document`."""
    lines = (document_line(i, doc) + end_of_document for i, doc in enumerate(docs, start=1))
    return "\n".join([wording(lang).heading, *lines])


def render_prompt(
    question: str, docs: Sequence[Mapping[str, Any]], lang: str = "en", end_of_document: str = ""
) -> str:
    """Question, passages and task: the order of the published layout."""
    words = wording(lang)
    documents = render_documents(docs, lang, end_of_document)
    return f"{words.question}{one_line(question)}\n{documents}\n{words.task}"


def one_line(question: str) -> str:
    """A question without line breaks and without blanks around it."""
    return " ".join(question.split())


def render_response(question: str, indices: Sequence[int], answer: str, lang: str = "en") -> str:
    """The three steps; `indices` are 1-based, none of them where nothing is relevant."""
    words = wording(lang)
    named = words.between.join(f"[{i}]" for i in indices) or words.none
    lines = (words.question + one_line(question), words.relevant + named, words.answer + answer)
    return "\n".join(lines)


def parse_response(text: str, lang: str = "en") -> ResponseParts | None:
    """The three steps of a response; None where it has another form.

    The answer reaches to the end of the text and may have lines and brackets of its own.
    """
    words = wording(lang)
    lines = text.split("\n", 2)
    labels = (words.question, words.relevant, words.answer)
    if len(lines) < 3 or not all(map(str.startswith, lines, labels)):
        return None
    restate, named, answer = (line[len(label) :] for line, label in zip(lines, labels, strict=True))
    return {
        "restate": restate,
        "indices": [int(i) for i in _INDEX.findall(named)],
        "answer": answer,
    }


def parse_prompt(
    text: str,
    lang: str = "en",
    end_of_document: str = "",
    titled: Sequence[bool] | None = None,
) -> PromptParts | None:
    """Question and passages of a prompt; None where it has another form.

    A line with ": " is taken to have a title unless `titled` says that its passage has none.
    """
    words = wording(lang)
    lines = text.split("\n")
    if len(lines) < 3 or not lines[0].startswith(words.question):
        return None
    if lines[1] != words.heading or lines[-1] != words.task:
        return None
    docs: list[PromptDoc] = []
    for i, line in enumerate(lines[2:-1], start=1):
        mark = f"[{i}] "
        if not line.startswith(mark) or not line.endswith(end_of_document):
            return None
        body = line[len(mark) : len(line) - len(end_of_document)]
        title, colon, rest = body.partition(": ")
        has_title = bool(colon) and (titled is None or titled[i - 1])
        docs.append({"idx": i, "title": title, "text": rest} if has_title else _untitled(i, body))
    return {"question": lines[0][len(words.question) :], "docs": docs}


def _untitled(idx: int, body: str) -> PromptDoc:
    return {"idx": idx, "title": "", "text": body}


def rendered(
    question: str,
    docs: Sequence[Mapping[str, Any]],
    answer: str,
    lang: str = "en",
    end_of_document: str = "",
) -> Row:
    """The columns of a row that follow from its documents in their final order.

    `docs` have doc_id, title, text and role; numbers are given here, after the shuffle.
    """
    numbered = [{**doc, "idx": i} for i, doc in enumerate(docs, start=1)]
    indices = [doc["idx"] for doc in numbered if doc["role"] == "gold"]
    prompt = render_prompt(question, numbered, lang, end_of_document)
    response = render_response(question, indices, answer, lang)
    return {
        "docs": numbered,
        "gold_idx": indices,
        "prompt": prompt,
        "response": response,
        "response_parts": {"restate": one_line(question), "indices": indices, "answer": answer},
        "messages": [
            {"role": "user", "content": prompt},
            {"role": "assistant", "content": response},
        ],
        "context": render_documents(numbered, lang, end_of_document),
        "instruction": f"{wording(lang).question}{one_line(question)}\n{wording(lang).task}",
    }


def position_probe(
    row: Row,
    positions: Sequence[int],
    counter: TokenCounter | None = None,
    end_of_document: str = "",
) -> list[Row]:
    """The row once for each 1-based position of its gold: a paired test of the bias of places.

    Question, negatives and their order stay. Without a counter `n_tokens` is None. Raises
    ValueError for a row that has not exactly one gold, or a position beyond its documents.
    """
    golds = [doc for doc in row["docs"] if doc["role"] == "gold"]
    others = [doc for doc in row["docs"] if doc["role"] != "gold"]
    if len(golds) != 1:
        raise ValueError(f"row {row['id']!r} has {len(golds)} golds; a probe moves exactly one")
    if odd := [p for p in positions if not 1 <= p <= len(row["docs"])]:
        raise ValueError(f"row {row['id']!r} has {len(row['docs'])} documents, no place {odd[0]}")
    answer, lang = row["response_parts"]["answer"], row["lang"]
    probes = []
    for p in positions:
        order = [*others[: p - 1], *golds, *others[p - 1 :]]
        moved = rendered(row["question"], order, answer, lang, end_of_document)
        tokens = turns_tokens(moved["messages"], counter) if counter else None
        probes.append({**row, **moved, "id": f"{row['id']}#at-{p}", "n_tokens": tokens})
    return probes
