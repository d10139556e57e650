"""Rows of PAM QA (arXiv 2311.09198): golds, mined negatives and random ones, in random order.

A share of the rows has no gold at all and is answered by a refusal. Documents are dropped to fit
before the shuffle, and numbered behind it.

What we changed: golds without an accepted answer are left out of a row; numbers of negatives and
shares are ours, for the paper does not give them. Cost: each document of a row is counted once,
each prompt once or twice.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from longctx.synth.checks import has_answer, leave_gold_out, norm_answer
from longctx.synth.draw import generator
from longctx.synth.pamqa import (
    PROMPT_VERSION,
    SYSTEM,
    Kept,
    document_line,
    fill_counts,
    fit_docs,
    parse_prompt,
    parse_response,
    render_prompt,
    rendered,
    sanitise,
    sanitise_title,
)
from longctx.synth.pamqa_negatives import Doc, Negatives, Question, draw_random, mine
from longctx.synth.pamqa_words import wording
from longctx.synth.rows import Made, Reject, Row, envelope
from longctx.synth.tokens import TokenCounter

# Why a question cannot become a row, whatever a model says.
NO_ROW = frozenset({"no_gold", "empty_answer", "answer_not_extractive", "contaminated"})
_VERDICTS = frozenset({"yes", "no", "none", "true", "false"})


@dataclass(frozen=True, slots=True)
class Settings:
    """How rows are made; limits in tokens. All but the limits are ours."""

    n_docs: int = 20
    hard_share: float = 0.5
    unanswerable_share: float = 0.10
    min_docs: int = 5
    near_duplicate: float | None = 0.8
    max_prompt: int = 7_500
    max_tokens: int = 8_192
    end_of_document: str = ""


def load(question: Question, supported: Sequence[bool] | None = None) -> Question | Reject:
    """The question with the answers that say something and the golds that hold one of them.

    `supported` is a judge's verdict on each gold; it decides where the answers are no extracts.
    Rejects: `no_gold`, `empty_answer`, `answer_not_extractive`.
    """
    if not question.golds:
        return Reject("no_gold")
    answers = [a for a in question.answers if norm_answer(a)]
    if not answers:
        return Reject("empty_answer")
    extracts = [a for a in answers if can_be_found(a)]
    golds = [gold for gold in question.golds if has_answer(extracts, gold.text)]
    if golds:
        return _narrowed(question, extracts, golds)
    if supported is None:
        return Reject("answer_not_extractive")
    golds = [gold for gold, yes in zip(question.golds, supported, strict=True) if yes]
    return _narrowed(question, answers, golds) if golds else Reject("no_gold")


def _narrowed(question: Question, answers: Sequence[str], golds: Sequence[Doc]) -> Question:
    """A gold that is left out may still be a step to the answer: it is no negative either."""
    kept = {gold.doc_id for gold in golds}
    left = [gold.doc_id for gold in question.golds if gold.doc_id not in kept]
    return question._replace(answers=answers, golds=golds, beside=[*question.beside, *left])


def is_extractive_question(question: Question) -> bool:
    """Whether the golds of a loaded question hold its answers, so that texts can be searched."""
    extracts = [a for a in question.answers if can_be_found(a)]
    return any(has_answer(extracts, gold.text) for gold in question.golds)


def can_be_found(answer: str) -> bool:
    """Whether an answer is more than a verdict or one letter, so that a text can hold it."""
    said = norm_answer(answer)
    return len(said) >= 2 and said not in _VERDICTS


def build_row(
    question: Question,
    candidates: Iterable[Doc],
    size: int,
    doc_at: Callable[[int], Doc],
    counter: TokenCounter,
    settings: Settings,
    seed: int,
    answer: str | None = None,
    judged: Callable[[Doc], bool] | None = None,
) -> Made | Reject:
    """A row of a loaded question. Candidates are hard negatives in fused order.

    `size` and `doc_at` are the corpus that random ones are drawn from; `answer` is what a model
    wrote from the golds, else the first accepted answer. Counts: why candidates were dropped, and
    `short_of_hard`. Rejects: `too_few_candidates`, `too_long`.
    """
    negatives = Negatives(question, settings.near_duplicate, judged)
    answerable = is_answerable(question.id, settings, seed)
    golds = list(question.golds) if answerable else []
    if len(golds) > settings.n_docs:
        return Reject("too_long", f"{len(golds)} golds, {settings.n_docs} documents")
    hard_share = settings.hard_share if answerable else 1.0
    n_hard, n_random = fill_counts(settings.n_docs, len(golds), hard_share)
    hard = mine(candidates, negatives, n_hard)
    short = n_hard - len(hard)
    taken = [doc.doc_id for doc in (*hard, *question.golds)]
    rng = _rng(seed, "random", question)
    random = draw_random(rng, size, doc_at, negatives, taken, n_random + short)
    if (found := len(golds) + len(hard) + len(random)) < settings.min_docs:
        return Reject("too_few_candidates", f"{found} documents, at least {settings.min_docs}")
    said = (answer or question.answers[0]) if answerable else wording(question.lang).refusal
    pool = [
        [_as_shown(doc, role) for doc in docs]
        for role, docs in (("gold", golds), ("hard", hard), ("random", random))
    ]
    order = _rng(seed, "shuffle", question).permutation(settings.n_docs)
    fitted = _fitted(question, pool, said, order, counter, settings)
    if isinstance(fitted, Reject):
        return fitted
    kept, body = fitted
    row = {
        **envelope(
            id=question.id,
            system=SYSTEM,
            lang=question.lang,
            messages=body["messages"],
            context=body["context"],
            instruction=body["instruction"],
            counter=counter,
            source=question.source,
            seed=seed,
            prompt_version=PROMPT_VERSION,
        ),
        **body,
        "question": question.question,
        "answerable": answerable,
        "n_hard": kept.hard,
        "n_random": kept.random,
    }
    return Made(row, {**negatives.counts, "short_of_hard": short})


def is_answerable(question_id: str, settings: Settings, seed: int) -> bool:
    """Whether the row of a question has its golds, by the row's own chance."""
    drawn = generator(seed, SYSTEM, "answerable", question_id).random()
    return bool(drawn >= settings.unanswerable_share)


def _rng(seed: int, stage: str, question: Question) -> np.random.Generator:
    return generator(seed, SYSTEM, stage, question.id)


def _as_shown(doc: Doc, role: str) -> Row:
    title, text = sanitise_title(doc.title), sanitise(doc.text)
    return {"idx": 0, "doc_id": doc.doc_id, "title": title, "text": text, "role": role}


def _fitted(
    question: Question,
    pool: Sequence[Sequence[Row]],
    answer: str,
    order: npt.NDArray[np.int64],
    counter: TokenCounter,
    settings: Settings,
) -> tuple[Kept, Row] | Reject:
    """The documents that fit, in the order of a permutation, rendered and counted again.

    Tokens at the seams of lines differ from the sum of all lines, so what is too long by a few is
    fitted again into so much less.
    """
    lang, end = question.lang, settings.end_of_document
    lengths = [
        [counter.count(document_line(settings.n_docs, doc) + end + "\n") for doc in docs]
        for docs in pool
    ]
    frame = counter.count(render_prompt(question.question, [], lang))
    budget = settings.max_prompt - frame
    while (kept := fit_docs(lengths[0], lengths[1], lengths[2], budget)) is not None:
        if sum(kept[:3]) < settings.min_docs:
            break
        docs = [*pool[0], *pool[1][: kept.hard], *pool[2][: kept.random]]
        # Of a uniform permutation of more, the places of those that are left are uniform too.
        shuffled = [docs[i] for i in order.tolist() if i < len(docs)]
        body = rendered(question.question, shuffled, answer, lang, end)
        prompt, response = counter.count(body["prompt"]), counter.count(body["response"])
        over = max(prompt - settings.max_prompt, prompt + response - settings.max_tokens)
        if over <= 0:
            return kept, body
        budget = min(budget, kept.tokens) - over
    return Reject("too_long", f"fewer than {settings.min_docs} documents fit")


def row_problems(row: Row, answers: Sequence[str], end_of_document: str = "") -> list[str]:
    """What is wrong with a row whose answers are extracts; nothing for a sound one.

    Parsed back, prompt and response must be what is stored; the answer part must hold either an
    accepted answer or the refusal; all golds must hold an answer and nothing else may.
    """
    problems: list[str] = []
    docs, lang = row["docs"], row["lang"]
    if parse_response(row["response"], lang) != row["response_parts"]:
        problems.append("response_parse_back")
    shown = [{"idx": d["idx"], "title": d["title"], "text": d["text"]} for d in docs]
    parsed = parse_prompt(row["prompt"], lang, end_of_document, [bool(d["title"]) for d in docs])
    if parsed is None or parsed["docs"] != shown:
        problems.append("prompt_parse_back")
    golds = [d for d in docs if d["role"] == "gold"]
    named = row["response_parts"]["indices"]
    if not row["gold_idx"] == named == [d["idx"] for d in golds]:
        problems.append("gold_idx")
    if row["answerable"] != bool(golds):
        problems.append("answerable")
    said = row["response_parts"]["answer"]
    refuses = wording(lang).refusal in said
    if refuses == has_answer(answers, said) or refuses == row["answerable"]:
        problems.append("answer_or_refusal")
    if not all(has_answer(answers, d["text"]) for d in golds):
        problems.append("gold_without_answer")
    others = (f"{d['title']}\n{d['text']}" for d in docs if d["role"] != "gold")
    if not leave_gold_out(answers, others):
        problems.append("negative_with_answer")
    return problems
