"""LongMIT's rows: merging along a chain, the long context around the clues, what is trained on.

MIMG (arXiv 2409.01893). Questions of a chain are folded from the left; every level that validates
is a row whose hops are the questions it used, and the first that fails ends the chain (the
reference went on, and attached all four clues to every row). The context has the clues, the other
documents of the path, and random ones until a drawn number of tokens; all are permuted, and only
then places are recorded. Ours: lengths by the tokenizer, no document twice, passages that parse
back. Linear in the tokens of a row. Lost: rows with a document that holds a passage's heading.
"""

import re
from collections.abc import Callable, Iterable, Sequence
from typing import Literal, NamedTuple

import numpy as np

from longctx.synth.longmit import SYSTEM, Link, SingleQA
from longctx.synth.longmit_calls import PROMPT_VERSION
from longctx.synth.rows import Reject, Row, envelope
from longctx.synth.tokens import TokenCounter

BOUND = 131_072
RESERVE = {"single": 4_096, "intra": 4_096, "inter": 8_192}
LEAST_LIMIT = 4_096
Role = Literal["clue", "path", "random"]


class Merged(NamedTuple):
    """A question of some hops, with its answer and the reasoning that leads to it."""

    question: str
    answer: str
    reasoning: str


class Doc(NamedTuple):
    """A document that may stand in a context; `cluster_id` names its near-duplicates."""

    doc_id: str
    text: str
    n_tokens: int
    cluster_id: str | None = None


class Placed(NamedTuple):
    """A document in its place of a context."""

    doc: Doc
    role: Role


class Context(NamedTuple):
    """The documents of a row in order, where each clue stands (0-based), tokens aimed at."""

    docs: list[Placed]
    clue_pos: list[int]
    token_limit: int


class Scores(NamedTuple):
    """What the verifiers found; None where one was not asked or could not tell."""

    quality: float | None
    multihop: bool | None
    necessity: bool | None


class _Wording(NamedTuple):
    question: str
    single: str
    multi: str
    passage: str
    reasoning: str
    answer: str


_WORDING = {
    "en": _Wording(
        "Question: {}",
        "Answer the question from the passages. Give the answer only.",
        "Answer the question from the passages. Give the whole reasoning first, then the answer.",
        "Passage {}:",
        "Reasoning: ",
        "Answer: ",
    ),
    "zh": _Wording(
        "问题：{}",
        "请根据各段材料回答问题，只给出答案。",
        "请根据各段材料回答问题，先写出完整的推理过程，再给出答案。",
        "材料{}：",
        "推理：",
        "答案：",
    ),
    "ko": _Wording(
        "질문: {}",
        "글들을 바탕으로 질문에 답하십시오. 답만 쓰십시오.",
        "글들을 바탕으로 질문에 답하십시오. 추론을 빠짐없이 쓴 다음 답을 쓰십시오.",
        "글 {}:",
        "추론: ",
        "답: ",
    ),
}


def fold_merges(
    chain: Sequence[SingleQA],
    merge: Callable[[Merged, SingleQA, list[str]], Merged | None],
) -> list[Merged]:
    """The questions of 1, 2, ... hops of a chain; the first that fails ends it.

    `merge` gets what is merged so far, the next question and the short answers of all used; None
    is a failure. The first of the result is the chain's first question alone.
    """
    levels = [Merged(chain[0].question, chain[0].answer, chain[0].rationale)] if chain else []
    for hop, single in enumerate(chain[1:], 2):
        merged = merge(levels[-1], single, [used.answer for used in chain[:hop]])
        if merged is None:
            break
        levels.append(merged)
    return levels


def type_of(used: Sequence[SingleQA]) -> Literal["single", "intra", "inter"] | None:
    """By the documents of the used questions; None where some but not all of them share one."""
    if len(used) == 1:
        return "single"
    docs = {single.doc_id for single in used}
    if len(docs) == 1:
        return "intra"
    return "inter" if len(docs) == len(used) else None


def clue_docs(used: Sequence[SingleQA]) -> list[str]:
    """The distinct documents of the used questions, in order."""
    return list(dict.fromkeys(single.doc_id for single in used))


def long_context(
    clues: Sequence[Doc],
    path: Sequence[Doc],
    candidates: Iterable[Doc],
    reserve: int,
    rng: np.random.Generator,
    bound: int = BOUND,
) -> Context | Reject:
    """Clues, then what fits of the path, then candidates until the next passes the drawn limit.

    `candidates` are random documents in drawn order; those on the path, and near-duplicates of
    clues, are passed over. `too_long` where the clues alone exceed `bound` - `reserve`.
    """
    room = bound - reserve
    if room < LEAST_LIMIT:
        raise ValueError(f"bound {bound} less reserve {reserve} is below {LEAST_LIMIT} tokens")
    total = sum(doc.n_tokens for doc in clues)
    if total > room:
        return Reject("too_long", f"clues of {total} tokens, more than {room}")
    names = {doc.doc_id for doc in clues}
    placed = [Placed(doc, "clue") for doc in clues]
    fitting = [doc for doc in path if doc.doc_id not in names]
    while fitting and total + sum(doc.n_tokens for doc in fitting) > room:
        fitting.pop()
    placed += [Placed(doc, "path") for doc in fitting]
    total += sum(doc.n_tokens for doc in fitting)
    limit = max(int(rng.integers(LEAST_LIMIT, room + 1)), total)
    placed += _fillers(clues, path, candidates, limit - total)
    shuffled = [placed[i] for i in rng.permutation(len(placed))]
    at = {piece.doc.doc_id: i for i, piece in enumerate(shuffled)}
    return Context(shuffled, [at[doc.doc_id] for doc in clues], limit)


def _fillers(
    clues: Sequence[Doc], path: Sequence[Doc], candidates: Iterable[Doc], room: int
) -> list[Placed]:
    taken = {doc.doc_id for doc in [*clues, *path]}
    alike = {doc.cluster_id for doc in clues if doc.cluster_id is not None}
    found = []
    for doc in candidates:
        if doc.doc_id in taken or doc.cluster_id in alike:
            continue
        if doc.n_tokens > room:
            break
        room -= doc.n_tokens
        taken.add(doc.doc_id)
        found.append(Placed(doc, "random"))
    return found


def render_passages(texts: Sequence[str], lang: str) -> str:
    """Passages numbered from 1, blank lines between them."""
    head = _WORDING[lang].passage
    return "\n\n".join(f"{head.format(k)}\n{text}" for k, text in enumerate(texts, 1))


def render_prompt(texts: Sequence[str], question: str, hop: int, lang: str) -> str:
    """The user's turn: instruction and question before and behind the passages."""
    wording = _WORDING[lang]
    asked = f"{wording.single if hop == 1 else wording.multi}\n{wording.question.format(question)}"
    return f"{asked}\n\n{render_passages(texts, lang)}\n\n{asked}"


def render_response(merged: Merged, hop: int, lang: str) -> str:
    """The assistant's turn: the answer alone for one hop, else reasoning and answer."""
    if hop == 1:
        return merged.answer
    wording = _WORDING[lang]
    return f"{wording.reasoning}{merged.reasoning}\n\n{wording.answer}{merged.answer}"


def parse_passages(context: str, lang: str) -> list[str] | None:
    """The texts that `render_passages` wrote; None for no such context.

    A text that holds the heading of the passage behind it on a line of its own cannot be told from
    that passage: such a context parses to other texts, and `assemble` refuses it.
    """
    texts: list[str] = []
    head, rest = _WORDING[lang].passage, context
    if not rest.startswith(f"{head.format(1)}\n"):
        return None
    rest = rest[len(head.format(1)) + 1 :]
    while True:
        text, found, rest = rest.partition(f"\n\n{head.format(len(texts) + 2)}\n")
        texts.append(text)
        if not found:
            return texts


def parse_response(response: str, lang: str) -> tuple[str, str] | None:
    """Reasoning and answer of a multi-hop response; None for any other text."""
    wording = _WORDING[lang]
    found = re.fullmatch(
        rf"{re.escape(wording.reasoning)}(.*)\n\n{re.escape(wording.answer)}(.*)",
        response,
        re.DOTALL,
    )
    return (found[1], found[2]) if found else None


def assemble(
    id: str,
    lang: str,
    source: str,
    path_id: str,
    used: Sequence[SingleQA],
    linked: Sequence[Link],
    merged: Merged,
    context: Context,
    scores: Scores,
    counter: TokenCounter,
    seed: int,
    bound: int = BOUND,
) -> Row | Reject:
    """The row of a question, or why there is none.

    `inconsistent` where the used questions are neither all of one document nor each of its own, or
    the passages do not parse back; `too_long` above `bound` tokens in all turns.
    """
    hop, kind = len(used), type_of(used)
    if kind is None:
        return Reject("inconsistent", f"{hop} questions of {len(clue_docs(used))} documents")
    texts = [placed.doc.text for placed in context.docs]
    passages = render_passages(texts, lang)
    if parse_passages(passages, lang) != texts:
        return Reject("inconsistent", "a document holds the heading of a passage")
    turns = [
        {"role": "user", "content": render_prompt(texts, merged.question, hop, lang)},
        {"role": "assistant", "content": render_response(merged, hop, lang)},
    ]
    shared = envelope(
        id=f"{SYSTEM}-{id}",
        system=SYSTEM,
        lang=lang,
        messages=turns,
        context=passages,
        instruction=merged.question,
        counter=counter,
        source=source,
        seed=seed,
        prompt_version=PROMPT_VERSION,
    )
    if shared["n_tokens"] > bound:
        return Reject("too_long", f"{shared['n_tokens']} tokens, more than {bound}")
    return shared | {
        "hop": hop,
        "type": kind,
        "question": merged.question,
        "answer": merged.answer,
        "reasoning": merged.reasoning,
        "chain": [_element(s, link) for s, link in zip(used, linked[:hop], strict=True)],
        "clue_docs": clue_docs(used),
        "docs": [
            {"doc_id": p.doc.doc_id, "text": p.doc.text, "role": p.role} for p in context.docs
        ],
        "clue_pos": context.clue_pos,
        "scores": scores._asdict(),
        "token_limit": context.token_limit,
        "path_id": path_id,
    }


def _element(single: SingleQA, link: Link) -> Row:
    return {
        "doc_id": single.doc_id,
        "chunk_id": single.chunk_id,
        "q": single.question,
        "a": single.answer,
        "rationale": single.rationale,
        **link._asdict(),
    }


def rates(multihop: int, passed: int, distinct: int, total: int) -> dict[str, float | None]:
    """Shares of a run that its report names; each is to be 0.85 at least. None of no rows."""
    counts = {"multihop": multihop, "quality_passed": passed, "non_duplicate": distinct}
    return {name: n / total if total else None for name, n in counts.items()}
