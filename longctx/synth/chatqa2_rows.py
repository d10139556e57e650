"""Long rows of ChatQA2 (arXiv 2407.14482): a summary in 32k to 128k tokens of page.

Two descriptions of the data exist, and both are here. `own_document`: the summary is inserted into
its own page (the newest version of the paper). `related_paragraphs`: among paragraphs of other
documents that resemble it (the first version). A page that is too short is rejected, or filled with
such paragraphs (`on_short="fill"`); whether the paper used shorter ones it does not say.

What we changed: lengths and places are drawn for each row; a row over the limit loses sentences (or
paragraphs) far from the summary, never its end with the question; among paragraphs the summary is
one of its own, where the paper's wording leaves open whether it joins another. Cost: one pass of
the tokenizer over each context. Lost: an own page may hold the answer in other words besides, and
so may a paragraph; only one span is evidence.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np

from longctx.llm.types import Message
from longctx.synth.chatqa2 import PROMPT_VERSION, SYSTEM, Inserted, insert_summary, nearest
from longctx.synth.chatqa2_pages import (
    PARAGRAPH,
    Page,
    Paragraph,
    index_page,
    page_window,
    paragraphs_page,
    related_paragraphs,
    trimmed,
)
from longctx.synth.checks import has_answer, support
from longctx.synth.draw import generator
from longctx.synth.rows import Reject, Row, envelope
from longctx.synth.tokens import TokenCounter

Mode = Literal["own_document", "related_paragraphs"]

SYSTEM_TURN = {
    "en": "Answer the user's question from the text below.",
    "zh": "请根据下面的文本回答用户的问题。",
    "ko": "아래 글을 바탕으로 사용자의 질문에 답하십시오.",
}
LIMIT = 131_072
_SPARE = 64  # tokens for what a chat template adds


class QA(NamedTuple):
    """A question on the summary of a document."""

    id: str
    document_id: str
    question: str
    answers: Sequence[str]
    split: str = "train"
    lang: str = "en"
    source: str = ""


@dataclass(frozen=True, slots=True)
class Settings:
    """Limits in tokens. `slack` leaves room for cutting at ends of sentences.

    `per_document` draws length and place once for all questions of a document.
    """

    lo: int = 32_768
    hi: int = LIMIT
    slack: int = 1_024
    mode: Mode = "own_document"
    on_short: Literal["reject", "fill"] = "reject"
    per_document: bool = False


def draw_target(
    qa: QA, counter: TokenCounter, settings: Settings, rng: np.random.Generator
) -> int | None:
    """Tokens of the context, uniform; None where question and answers leave no room."""
    longest = max((counter.count(answer) for answer in qa.answers), default=0)
    template = counter.count(SYSTEM_TURN[qa.lang]) + counter.count(PARAGRAPH)
    first, last = target_range(counter.count(qa.question) + longest + template, settings)
    return int(rng.integers(first, last, endpoint=True)) if last >= first else None


def target_range(beside: int, settings: Settings) -> tuple[int, int]:
    """Fewest and most tokens that a context may aim at, with `beside` tokens of turns around it."""
    return settings.lo + settings.slack, settings.hi - beside - _SPARE


def build_row(
    qa: QA,
    page: Page,
    summary: str,
    counter: TokenCounter,
    settings: Settings,
    seed: int,
    ranked: Iterable[Paragraph] = (),
) -> Row | Reject:
    """A row of one question. `page` is indexed once for all questions of its document.

    `ranked` are paragraphs by their likeness to the summary, where the mode or `on_short` needs
    them. Rejects: `too_short` (context below `lo`), `too_long` (no sentence fits, or no room).
    """
    planned = _planned(qa, summary, counter, settings, seed)
    if isinstance(planned, Reject):
        return planned
    shown = _page_for(qa, page, planned, settings, seed, ranked, counter)
    if isinstance(shown, Reject):
        return shown
    target = planned.target
    between = PARAGRAPH if settings.mode == "related_paragraphs" else ""
    at = nearest(shown.tokens, _drawn(qa, settings, seed, "place").random())
    inserted = insert_summary(shown.text, summary, int(shown.places[at]), between)
    while (n_tokens := counter.count(inserted.context)) > target and len(shown.places) > 2:
        shown, at = trimmed(shown, at, n_tokens - target)
        inserted = insert_summary(shown.text, summary, int(shown.places[at]), between)
    if not settings.lo <= n_tokens <= target:
        code = "too_short" if n_tokens < settings.lo else "too_long"
        return Reject(code, f"{n_tokens} tokens of {settings.lo}..{target}")
    depth = float(shown.tokens[at]) / max(1, shown.n_tokens)
    row = _row(qa, inserted, depth, n_tokens, target, counter, settings.mode, seed)
    if row["n_tokens"] > settings.hi:
        return Reject("too_long", f"{row['n_tokens']} tokens, more than {settings.hi}")
    return row


def paragraph_budget(
    qa: QA, page: Page, summary: str, counter: TokenCounter, settings: Settings, seed: int
) -> int:
    """Tokens of paragraphs that a row asks for; 0 where it takes none, or none can be made."""
    planned = _planned(qa, summary, counter, settings, seed)
    return 0 if isinstance(planned, Reject) else _for_paragraphs(page, planned, settings, counter)


def in_order(qa: QA, texts: Sequence[str], settings: Settings, seed: int) -> list[str]:
    """Paragraphs of a row in the order that is drawn for it."""
    order = _drawn(qa, settings, seed, "paragraphs").permutation(len(texts))
    return [texts[i] for i in order.tolist()]


class _Planned(NamedTuple):
    """Most tokens of a context, and those of them that are left for what the summary goes into."""

    target: int
    budget: int


def _planned(
    qa: QA, summary: str, counter: TokenCounter, settings: Settings, seed: int
) -> _Planned | Reject:
    target = draw_target(qa, counter, settings, _drawn(qa, settings, seed, "target"))
    if target is None:
        return Reject("too_long", "question and answers leave no room for a context")
    budget = target - counter.count(summary) - 2  # with the blanks around it
    if budget <= 0:
        return Reject("too_long", "the summary leaves no room for a page")
    return _Planned(target, budget)


def _drawn(qa: QA, settings: Settings, seed: int, stage: str) -> np.random.Generator:
    return generator(seed, SYSTEM, stage, qa.document_id if settings.per_document else qa.id)


def _for_paragraphs(
    page: Page, planned: _Planned, settings: Settings, counter: TokenCounter
) -> int:
    target, budget = planned
    if settings.mode == "related_paragraphs":
        return budget
    short = page.n_tokens + target - budget < settings.lo
    return budget - page.n_tokens - counter.count(PARAGRAPH) if short and fills(settings) else 0


def fills(settings: Settings) -> bool:
    """Whether pages that are too short are filled with paragraphs."""
    return settings.mode == "own_document" and settings.on_short == "fill"


def _page_for(
    qa: QA,
    page: Page,
    planned: _Planned,
    settings: Settings,
    seed: int,
    ranked: Iterable[Paragraph],
    counter: TokenCounter,
) -> Page | Reject:
    """What the summary is inserted into."""
    found: list[str] = []
    if room := _for_paragraphs(page, planned, settings, counter):
        related = related_paragraphs(ranked, qa.document_id, qa.answers, room)
        found = [paragraph.text for paragraph in related.paragraphs]
    if settings.mode == "related_paragraphs":
        return paragraphs_page(in_order(qa, found, settings, seed), counter)
    if found:
        return index_page(PARAGRAPH.join([page.text, *found]), counter)
    window = page_window(page, planned.budget, _drawn(qa, settings, seed, "window"))
    return window or Reject("too_long", f"a sentence of more than {planned.budget} tokens")


def messages(context: str, question: str, answer: str, lang: str) -> list[Message]:
    """The training turns: what to do, the context with the question behind it, the answer."""
    return [
        {"role": "system", "content": SYSTEM_TURN[lang]},
        {"role": "user", "content": f"{context}{PARAGRAPH}{question}"},
        {"role": "assistant", "content": answer},
    ]


def render_plain(row: Row) -> str:
    """The prompt of a row in the published layout, without a chat template."""
    lead, context = SYSTEM_TURN[row["lang"]], row["context"]
    return f"System: {lead}\n\n{context}\n\nUser: {row['question']}\n\nAssistant:"


def _row(
    qa: QA,
    inserted: Inserted,
    depth: float,
    n_tokens: int,
    target: int,
    counter: TokenCounter,
    mode: Mode,
    seed: int,
) -> Row:
    return {
        **envelope(
            id=qa.id,
            system=SYSTEM,
            lang=qa.lang,
            messages=messages(inserted.context, qa.question, qa.answers[0], qa.lang),
            context=inserted.context,
            instruction=qa.question,
            counter=counter,
            source=qa.source,
            seed=seed,
            prompt_version=PROMPT_VERSION,
        ),
        "document_id": qa.document_id,
        "question": qa.question,
        "answers": list(qa.answers),
        "summary_start_char": inserted.summary_start,
        "summary_end_char": inserted.summary_end,
        "inserted_start_char": inserted.inserted_start,
        "inserted_end_char": inserted.inserted_end,
        "depth": depth,
        "context_tokens": n_tokens,
        "target_len": target,
        "mode": mode,
        "split": qa.split,
    }


def without_summary(row: Row) -> str:
    """The page of a row as it was before the insertion."""
    context: str = row["context"]
    return context[: row["inserted_start_char"]] + context[row["inserted_end_char"] :]


def leave_summary_out(row: Row) -> bool:
    """Whether the answer has less support without the summary than with it.

    An own page may hold the fact in other words, so this is a rate over rows.
    """
    answer = row["answers"][0]
    return support(answer, without_summary(row)) < support(answer, row["context"])


def row_problems(row: Row, page: str, summary: str, hi: int = LIMIT) -> list[str]:
    """What is wrong with a row whose context was cut from `page`; nothing for a sound one."""
    problems: list[str] = []
    context, rest = row["context"], without_summary(row)
    if context[row["summary_start_char"] : row["summary_end_char"]] != summary:
        problems.append("summary_span")
    if not rest or rest not in page:
        problems.append("round_trip")
    start = row["inserted_start_char"]
    if 0 < start < len(rest) and not _is_border(rest, start):
        problems.append("inside_sentence")
    if row["context_tokens"] > row["target_len"] or row["n_tokens"] > hi:
        problems.append("too_long")
    if row["messages"] != messages(context, row["question"], row["answers"][0], row["lang"]):
        problems.append("messages")
    return problems


def paragraph_problems(row: Row, paragraphs: Iterable[Paragraph]) -> list[str]:
    """What is wrong with the paragraphs of a row: its own document's, or with an answer in them."""
    listed = list(paragraphs)
    problems: list[str] = []
    if any(paragraph.doc_id == row["document_id"] for paragraph in listed):
        problems.append("own_paragraph")
    if any(has_answer(row["answers"], paragraph.text) for paragraph in listed):
        problems.append("answer_in_paragraph")
    return problems


def _is_border(text: str, at: int) -> bool:
    """Whether what stands before a character closes a sentence or ends a line."""
    before = text[:at].rstrip(" \t")
    return not before or before[-1] in "\n.!?\"'”’»)]}。！？」』）】》"


def split_leaks(rows: Iterable[Row]) -> list[str]:
    """Documents that stand in more than one split, ascending."""
    splits: dict[str, set[str]] = {}
    for row in rows:
        splits.setdefault(row["document_id"], set()).add(row["split"])
    return sorted(doc for doc, found in splits.items() if len(found) > 1)
