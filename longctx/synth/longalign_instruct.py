"""LongAlign's self-instruct: which documents are asked about, what is asked, what a row holds.

LongAlign (arXiv 2401.18058), method (a): a model proposes five questions on a whole document of 8k
to 64k tokens, of one of four kinds; one of the five is drawn and answered on the same document.
The paper samples long articles more often without saying by how much; ours takes equal quotas from
seven bins of 8,192 tokens, and what a bin lacks is reported, not filled from others. Both prompts
begin with the document, so a server reads it once. Two calls a row; no global step but one pass of
counting for the quotas. Lost: documents outside [8,192, 64,512] tokens; answers that share less
than half of their content words with the document, faithful paraphrases among them.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from longctx.llm.structured import is_refusal
from longctx.synth.checks import content_words, norm_answer, support
from longctx.synth.draw import generator
from longctx.synth.items import Bin, Quotas, first_of_bins
from longctx.synth.longalign import MAX_LEN, SYSTEM, parse_numbered
from longctx.synth.prompt import TEXT, Prompt, list_of, object_schema, prompt, sections
from longctx.synth.rows import Reject, Row, envelope
from longctx.synth.tokens import TokenCounter
from longctx.synth.words import count_words

PROMPT_VERSION = "longalign-1"
TASK_TYPES = ("general", "summary", "reasoning", "extraction")
QUESTIONS = 5
BIN = 8_192
RESERVE = 1_024  # tokens left for the question and the answer
LEAST_SUPPORT = 0.5
MOST_ANSWER_WORDS = 2_000
LANG_SHARE = {"en": 0.9, "zh": 0.1}

_QUESTIONS_SCHEMA = object_schema(questions=list_of(TEXT))
_ANSWER_SCHEMA = object_schema(answer=TEXT)


class Candidate(NamedTuple):
    """A document that may be asked about."""

    doc_id: str
    lang: str
    n_tokens: int


class Quota(NamedTuple):
    """What one bin of lengths [lo, hi) of one language was to give, had, and gave."""

    lang: str
    lo: int
    hi: int
    requested: int
    available: int
    reached: int


def select_documents(
    candidates: Sequence[Candidate],
    total: int,
    seed: int,
    lang_share: Mapping[str, float] = LANG_SHARE,
) -> tuple[list[str], list[Quota]]:
    """Ids of `total` documents at most, equally many from each bin of lengths, and the quotas.

    Inside a bin in hash order; the ids come out ascending.
    """
    quotas = Quotas(total, BIN, MAX_LEN - RESERVE, BIN, lang_share)
    binned: dict[Bin, list[str]] = {}
    for doc in candidates:
        if (place := quotas.bin_of(doc.lang, doc.n_tokens)) is not None:
            binned.setdefault(place, []).append(doc.doc_id)
    first = first_of_bins(binned, quotas, seed, SYSTEM)
    report = []
    for (lang, at), requested in quotas.wanted().items():
        lo, found = (at + 1) * BIN, len(binned.get((lang, at), []))
        report.append(Quota(lang, lo, lo + BIN, requested, found, min(requested, found)))
    return sorted(doc for ids in first.values() for doc in ids), report


def task_type(seed: int, doc_id: str) -> str:
    """The kind of question for a document, uniform over the four."""
    return TASK_TYPES[int(generator(seed, SYSTEM, "task_type", doc_id).integers(len(TASK_TYPES)))]


def chosen_question(seed: int, doc_id: str) -> int:
    """Which of the five questions is answered, uniform over 0..4."""
    return int(generator(seed, SYSTEM, "choose", doc_id).integers(QUESTIONS))


def request_questions(document: str, kind: str, lang: str) -> Prompt:
    """Stage `longalign.questions`: five questions of a kind on a document, in its language."""
    stage = "longalign.questions"
    parts = {"document": document, "task_type": kind, "lang": lang}
    manner = sections(stage, lang)[kind]
    return prompt(stage, lang, parts, _QUESTIONS_SCHEMA, shown={"manner": manner})


def questions_of_text(text: str) -> dict[str, Any] | None:
    """The reply of a model that answers with a numbered list instead of an object."""
    found = parse_numbered(text, QUESTIONS)
    return {"questions": found} if found else None


def check_questions(reply: Mapping[str, Any], parts: Mapping[str, Any]) -> str | None:
    """`question_count`, `duplicate` or `off_document`; None where five good ones came."""
    asked = [q.strip() for q in reply["questions"]]
    if len(asked) != QUESTIONS or not all(asked):
        return "question_count"
    if len({norm_answer(q) for q in asked}) < QUESTIONS:
        return "duplicate"
    known = content_words(parts["document"])
    return None if all(content_words(q) & known for q in asked) else "off_document"


def request_answer(document: str, question: str, lang: str) -> Prompt:
    """Stage `longalign.answer`: the question answered on the whole document."""
    parts = {"document": document, "question": question, "lang": lang}
    return prompt("longalign.answer", lang, parts, _ANSWER_SCHEMA)


def check_answer(reply: Mapping[str, Any], parts: Mapping[str, Any]) -> str | None:
    """`answer_length` (1 to 2,000 words), `refusal` (a code of its own) or `unsupported`."""
    answer = reply["answer"]
    if not 1 <= count_words(answer) <= MOST_ANSWER_WORDS:
        return "answer_length"
    if is_refusal(answer):
        return "refusal"
    return None if support(answer, parts["document"]) >= LEAST_SUPPORT else "unsupported"


def assemble(
    doc: Candidate,
    document: str,
    source: str,
    questions: Sequence[str],
    answer: str,
    counter: TokenCounter,
    seed: int,
) -> Row | Reject:
    """The row of a document, or `too_long` where it has more than 65,536 tokens.

    The user's turn is the document, a blank line and the question.
    """
    chosen = chosen_question(seed, doc.doc_id)
    question = questions[chosen].strip()
    turns = [
        {"role": "user", "content": f"{document}\n\n{question}"},
        {"role": "assistant", "content": answer.strip()},
    ]
    row = envelope(
        id=f"{SYSTEM}-{doc.doc_id}",
        system=SYSTEM,
        lang=doc.lang,
        messages=turns,
        context=document,
        instruction=question,
        counter=counter,
        source=source,
        seed=seed,
        prompt_version=PROMPT_VERSION,
    )
    if row["n_tokens"] > MAX_LEN:
        return Reject("too_long", f"{row['n_tokens']} tokens, more than {MAX_LEN}")
    return {
        **row,
        "dataset": source,
        "length": row["n_tokens"],
        "task_type": task_type(seed, doc.doc_id),
        "questions": [q.strip() for q in questions],
        "chosen": chosen,
        "doc_id": doc.doc_id,
    }


def released(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row in the layout of the released LongAlign-10k."""
    return {name: row[name] for name in ("id", "dataset", "length", "messages")}
