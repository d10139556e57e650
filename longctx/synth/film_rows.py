"""Rows of IN2 training (arXiv 2404.16811): source pieces scattered among pieces of other texts.

Four kinds: `fine` asks about one piece, `integration` about several of one text, `short` about the
bare text, `general` is an instruction row that passes through. Fillers are drawn uniformly from all
pieces, never from the source, its near-duplicates or what shares 10-grams with evaluation texts,
for else a question could be answered twice, or had been seen.

What we changed: pieces are joined by one line break; a source of more than 64 pieces is left out.
Cost: the joined context is tokenised once. Lost: a filler from another text may answer by chance.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from longctx.llm.types import Message
from longctx.synth.checks import allocate
from longctx.synth.draw import generator, hash_order
from longctx.synth.film import PROMPT_VERSION, SEGMENT, SYSTEM, Segment
from longctx.synth.film_fillers import LENGTHS, Pool, choose_fillers, draw_target
from longctx.synth.rows import Reject, Row, envelope
from longctx.synth.tokens import TokenCounter

WEIGHTS = {"fine": 110, "integration": 30, "short": 15, "general": 20}
MOST_PIECES = 64
JOIN = "\n"
_SEAMS = 0.01  # how far the joined text may be from the sum of its pieces

_LEAD = {
    "en": "Respond to the instruction at the end, using the context below.",
    "zh": "请利用下面的上下文回答最后的指令。",
    "ko": "아래의 문맥을 이용하여 마지막 지시에 답하십시오.",
}
_LABELS = {
    "en": ("Context:", "Instruction: "),
    "zh": ("上下文：", "指令："),
    "ko": ("문맥:", "지시: "),
}


class QA(NamedTuple):
    """A question on a document. `asked` are the numbers k of the pieces it was made from: one for
    `fine`, those that the answer needs for `integration`."""

    id: str
    type: str
    question: str
    answer: str
    asked: Sequence[int]
    lang: str = "en"
    source: str = ""


class Drawn(NamedTuple):
    """Tokens that a context may have, and numbers of the pool's pieces in the order drawn."""

    target: int
    numbers: list[int]


def assign_types(
    ids: Sequence[str], seed: int, weights: Mapping[str, float] = WEIGHTS
) -> dict[str, str]:
    """The kind of each row: exact shares, by default 110 : 30 : 15 : 20, in hash order."""
    counts = allocate(len(ids), list(weights.values()))
    kinds = [kind for kind, n in zip(weights, counts, strict=True) for _ in range(n)]
    return dict(zip(hash_order(ids, seed, SYSTEM, "type"), kinds, strict=True))


def question_kind(row_type: str, pieces: int, seed: int, row_id: str) -> str | None:
    """How a row of a type is asked, `fine` or `integration`; None where its text cannot be.

    Short rows are asked in either way, in the shares of the paper.
    """
    can_integrate = 2 <= pieces <= MOST_PIECES
    if row_type == "short":
        fine = WEIGHTS["fine"] / (WEIGHTS["fine"] + WEIGHTS["integration"])
        drawn = generator(seed, SYSTEM, "kind", row_id).random() >= fine
        return "integration" if drawn and can_integrate else "fine"
    return None if row_type == "integration" and not can_integrate else row_type


def asked_piece(pieces: int, seed: int, row_id: str) -> int:
    """The piece that a fine question is about, uniform."""
    return int(generator(seed, SYSTEM, "piece", row_id).integers(pieces))


def build_row(
    qa: QA, source: Sequence[Segment], pool: Pool, counter: TokenCounter, seed: int
) -> Row | Reject:
    """A row of type fine or integration; `source` are all pieces of the document, in order.

    Rejects: those of `draw_context` and `placed_row`.
    """
    drawn = draw_context(qa.id, used_pieces(qa, source), pool, counter.count(JOIN), seed)
    if isinstance(drawn, Reject):
        return drawn
    fillers = [pool.at(i) for i in drawn.numbers]
    return placed_row(qa, source, fillers, drawn.target, counter, seed)


def used_pieces(qa: QA, source: Sequence[Segment]) -> list[Segment]:
    """The pieces of a document that stand in the context."""
    return [source[k] for k in qa.asked] if qa.type == "fine" else list(source)


def draw_context(
    row_id: str,
    used: Sequence[Segment],
    pool: Pool,
    join_tokens: int,
    seed: int,
    lengths: tuple[int, int] = LENGTHS,
) -> Drawn | Reject:
    """How long a context is and what fills it, from numbers alone: no text is read.

    Rejects: `source_too_long`; `too_few_candidates` (the pool is too small).
    """
    tokens = sum(s.n_tokens for s in used) + join_tokens * (len(used) - 1)
    target = draw_target(generator(seed, SYSTEM, "target", row_id), tokens, *lengths)
    if target is None:
        return Reject("source_too_long", f"{tokens} tokens")
    rng = generator(seed, SYSTEM, "filler", row_id)
    chosen = choose_fillers(rng, pool, used, target, join_tokens)
    if chosen is None:
        return Reject("too_few_candidates", f"{len(pool.docs)} pieces do not fill {target} tokens")
    return Drawn(target, chosen)


def placed_row(
    qa: QA,
    source: Sequence[Segment],
    fillers: Sequence[Segment],
    target: int,
    counter: TokenCounter,
    seed: int,
) -> Row | Reject:
    """A row of type fine or integration from all its pieces; fillers in the order of their draw.

    Rejects: `source_too_long`; `inconsistent` (the joined text is more than 1 % from the sum of its
    pieces); `duplicate` (a source piece stands in the context twice).
    """
    used, join_tokens = used_pieces(qa, source), counter.count(JOIN)
    pieces = [*used, *fillers]
    order = shuffled(len(pieces), len(used), seed, qa.id)
    while (n_tokens := counter.count(context := _joined(pieces, order))) > target:
        # Seams made it longer than the sum: fillers go, the last drawn first.
        excess = -(-(n_tokens - target) // SEGMENT)
        if len(pieces) - excess < len(used):
            return Reject("source_too_long", f"{n_tokens} tokens when joined")
        pieces = pieces[: len(pieces) - excess]
        order = [i for i in order if i < len(pieces)]
    expected = sum(s.n_tokens for s in pieces) + join_tokens * (len(pieces) - 1)
    if abs(n_tokens - expected) > _SEAMS * expected:
        return Reject("inconsistent", f"{n_tokens} tokens when joined, {expected} in sum")
    if any(occurrences(s.text, context) != 1 for s in used):
        return Reject("duplicate", "a source piece stands in the context more than once")
    placed = [pieces[i] for i in order]
    doc_id = source[0].doc_id
    return _row(qa, placed, doc_id, context, n_tokens, target, counter, seed)


def shuffled(n: int, golds: int, seed: int, row_id: str) -> list[int]:
    """The order of n pieces, of which the first `golds` are the source: any, with equal chance."""
    return [int(i) for i in generator(seed, SYSTEM, "shuffle", row_id).permutation(n)]


def _joined(pieces: Sequence[Segment], order: Sequence[int]) -> str:
    return JOIN.join(pieces[i].text for i in order)


def occurrences(piece: str, context: str) -> int:
    """How often a piece stands in a context, overlapping ones counted."""
    found, at = 0, context.find(piece)
    while at >= 0:
        found += 1
        at = context.find(piece, at + 1)
    return found


def short_row(
    qa: QA,
    text: str,
    source: Sequence[Segment],
    counter: TokenCounter,
    seed: int,
    most: int = LENGTHS[1],
) -> Row | Reject:
    """A row whose context is the document itself, without fillers; of `most` tokens at most."""
    n_tokens = counter.count(text)
    if n_tokens > most:
        return Reject("source_too_long", f"{n_tokens} tokens")
    return _row(qa, source, source[0].doc_id, text, n_tokens, None, counter, seed)


def general_row(qa: QA, counter: TokenCounter, seed: int) -> Row:
    """An ordinary instruction row, passed through: no context, no pieces."""
    messages = [
        {"role": "user", "content": qa.question},
        {"role": "assistant", "content": qa.answer},
    ]
    return _columns(qa, messages, "", [], "", 0, None, counter, seed)


def _row(
    qa: QA,
    placed: Sequence[Segment],
    doc_id: str,
    context: str,
    n_tokens: int,
    target: int | None,
    counter: TokenCounter,
    seed: int,
) -> Row:
    """A row whose pieces stand in their final order; those of document `doc_id` are its source."""
    messages = [
        {"role": "user", "content": render(context, qa.question, qa.lang)},
        {"role": "assistant", "content": qa.answer},
    ]
    return _columns(qa, messages, context, placed, doc_id, n_tokens, target, counter, seed)


def render(context: str, question: str, lang: str) -> str:
    """The user's turn: what to do, the context, the instruction."""
    context_label, instruction_label = _LABELS[lang]
    return f"{_LEAD[lang]}\n\n{context_label}\n{context}\n\n{instruction_label}{question}"


def _columns(
    qa: QA,
    messages: Sequence[Message],
    context: str,
    placed: Sequence[Segment],
    doc_id: str,
    n_tokens: int,
    target: int | None,
    counter: TokenCounter,
    seed: int,
) -> Row:
    golds = [pos for pos, s in enumerate(placed) if s.doc_id == doc_id]
    return {
        **envelope(
            id=qa.id,
            system=SYSTEM,
            lang=qa.lang,
            messages=messages,
            context=context,
            instruction=qa.question,
            counter=counter,
            source=qa.source,
            seed=seed,
            prompt_version=PROMPT_VERSION,
        ),
        "type": qa.type,
        "question": qa.question,
        "answer": qa.answer,
        "segments": [
            {
                "pos": pos,
                "doc_id": s.doc_id,
                "seg_id": s.seg_id,
                "role": "source" if s.doc_id == doc_id else "filler",
            }
            for pos, s in enumerate(placed)
        ],
        "gold_pos": golds,
        "needed_pos": [pos for pos in golds if placed[pos].k in set(qa.asked)],
        "n_segments": len(placed),
        "context_tokens": n_tokens,
        "target_len": target,
        "source_doc_id": doc_id,
    }


def row_problems(row: Row, text_of: Callable[[str], str], clusters: dict[str, str]) -> list[str]:
    """What is wrong with a row of type fine or integration; nothing for a sound one.

    `text_of` gives a piece by its id, `clusters` the near-duplicate cluster of documents that have
    one.
    """
    problems: list[str] = []
    segments, source = row["segments"], row["source_doc_id"]
    texts = [text_of(s["seg_id"]) for s in segments]
    if [s["pos"] for s in segments] != list(range(row["n_segments"])):
        problems.append("positions")
    if JOIN.join(texts) != row["context"]:
        problems.append("context")
    if row["gold_pos"] != [s["pos"] for s in segments if s["role"] == "source"]:
        problems.append("gold_pos")
    golds = [texts[pos] for pos in row["gold_pos"] if pos < len(texts)]
    if any(occurrences(text, row["context"]) != 1 for text in golds):
        problems.append("source_repeated")
    fillers = {s["doc_id"] for s in segments if s["role"] == "filler"}
    own = clusters.get(source)
    if source in fillers or (own and any(clusters.get(doc) == own for doc in fillers)):
        problems.append("filler_of_source")
    if row["target_len"] is not None and row["context_tokens"] > row["target_len"]:
        problems.append("too_long")
    if row["messages"][0]["content"] != render(row["context"], row["question"], row["lang"]):
        problems.append("messages")
    return problems
