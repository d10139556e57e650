"""What is asked about the documents of a path, one after the other, and what comes of it.

Every stage of LongMIT (arXiv 2409.01893) makes its questions from documents and the replies of the
stages before, so a stage that is done again asks the same. Here are the stages of single questions:
chunks, their questions, references, answers, short answers. A reply that a question fails by (its
reference is unresolved, its chunk does not answer it) is an answer, not a fault: it is kept and its
code counted (`turned_away`), where a reply that cannot be right is asked for again.

What we changed: equal questions of a document are merged before they are asked on, which saves
calls. Linear in chunks and questions. Lost: a question whose one request failed.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from longctx.synth.checks import norm_answer
from longctx.synth.items import Item
from longctx.synth.longmit import SingleQA
from longctx.synth.longmit_calls import (
    check_answer,
    check_extract,
    check_merge,
    check_necessity,
    check_reference,
    check_simplify,
    check_verify,
    request_answer,
    request_extract,
    request_merge,
    request_necessity,
    request_reference,
    request_simplify,
    request_verify,
)
from longctx.synth.prompt import Prompt

EXTRACT, REFERENCE, ANSWER, SIMPLIFY = "mit.extract", "mit.reference", "mit.answer", "mit.simplify"
MERGE, VERIFY, NECESSITY = "mit.merge", "mit.verify", "mit.necessity"
SINGLE_STEPS = (EXTRACT, REFERENCE, ANSWER, SIMPLIFY)
ASKED = "asked"  # where an item holds the arguments of its request
# By which a question is turned away: answers of their stage, not faults of the reply.
VERDICTS = {
    REFERENCE: frozenset({"unresolved_reference"}),
    ANSWER: frozenset({"not_in_chunk"}),
    VERIFY: frozenset({"low_score", "not_multihop"}),
    NECESSITY: frozenset({"clue_not_needed"}),
}

Reply = Mapping[str, Any]
# What the stages have said so far: replies by id, by step.
Said = Mapping[str, Mapping[str, Reply]]
Check = Callable[[Reply, Mapping[str, Any]], str | None]

_REQUESTS: Mapping[str, Callable[..., Prompt]] = {
    EXTRACT: request_extract,
    REFERENCE: request_reference,
    ANSWER: request_answer,
    SIMPLIFY: request_simplify,
    MERGE: request_merge,
    VERIFY: request_verify,
    NECESSITY: request_necessity,
}
_CHECKS: Mapping[str, Check] = {
    EXTRACT: check_extract,
    REFERENCE: check_reference,
    ANSWER: check_answer,
    SIMPLIFY: check_simplify,
    MERGE: check_merge,
    VERIFY: check_verify,
    NECESSITY: check_necessity,
}


class PathDoc(NamedTuple):
    """A document of a path; `chunks` are half-open spans of characters that join to the text."""

    doc_id: str
    source: str
    n_tokens: int
    cluster_id: str | None
    text: str
    chunks: list[list[int]]

    def chunk(self, number: int) -> str:
        """The text of a chunk."""
        start, end = self.chunks[number]
        return self.text[start:end]

    def without(self, number: int) -> str:
        """The text with a chunk left out."""
        start, end = self.chunks[number]
        return self.text[:start] + self.text[end:]


class Path(NamedTuple):
    """Documents that follow one another, all in one language."""

    path_id: str
    lang: str
    docs: list[PathDoc]


class Question(NamedTuple):
    """A question that the model drew from chunk `chunk_id` of document `doc`, by its number."""

    id: str
    doc: int
    chunk_id: int
    text: str


def kind_of(step: str) -> str:
    """The stage of a step: merging has a step for every number of hops ("mit.merge-3")."""
    return step.partition("-")[0]


def fault_of(step: str) -> Check:
    """What is wrong with a reply of a step; a verdict is not wrong."""
    kind = kind_of(step)
    check, verdicts = _CHECKS[kind], VERDICTS.get(kind, frozenset())

    def fault(reply: Reply, parts: Mapping[str, Any]) -> str | None:
        found = check(reply, parts)
        return None if found in verdicts else found

    return fault


def verdict_of(step: str, item: Item, reply: Reply) -> str | None:
    """By which code a usable reply turns its question away; None where it goes on."""
    kind = kind_of(step)
    if kind == ANSWER:  # its check would read the chunk once more
        return None if reply["found"] else "not_in_chunk"
    return _CHECKS[kind](reply, item.replies[ASKED]) if kind in VERDICTS else None


def prompt_of(step: str, item: Item) -> Prompt:
    """What a step asks about an item."""
    kind = kind_of(step)
    made = _REQUESTS[kind](**item.replies[ASKED], lang=item.lang)
    # Rules of the scripted backend are found by the stage, whichever step asks.
    return Prompt(made.stage, made.messages, {**made.parts, "kind": made.stage}, made.schema)


def asked(path: Path, id: str, source: str, **arguments: Any) -> Item:
    """One request: its id, and the arguments that its prompt is made of."""
    return Item(id, path.lang, source, 0, "", {ASKED: arguments})


def single_items(step: str, paths: Iterable[Path], said: Said) -> list[Item]:
    """What one of the steps of single questions asks about some paths."""
    return [item for path in paths for item in _of_path(step, path, said)]


def _of_path(step: str, path: Path, said: Said) -> list[Item]:
    if step == EXTRACT:
        return _chunks(path)
    questions = questions_of(path, said)[0]
    if step == REFERENCE:
        return [asked(path, q.id, path.docs[q.doc].source, question=q.text) for q in questions]
    before = SINGLE_STEPS[SINGLE_STEPS.index(step) - 1]
    going_on = {item.id: reply for item, reply in passed(before, path, said)}
    return [_about(step, path, q, going_on[q.id]) for q in questions if q.id in going_on]


def _about(step: str, path: Path, q: Question, before: Reply) -> Item:
    doc = path.docs[q.doc]
    if step == ANSWER:
        return asked(path, q.id, doc.source, question=q.text, chunk=doc.chunk(q.chunk_id))
    return asked(path, q.id, doc.source, question=q.text, answer=before["answer"].strip())


def _chunks(path: Path) -> list[Item]:
    return [
        asked(path, chunk_name(doc, number), doc.source, chunk=chunk)
        for doc in path.docs
        for number in range(len(doc.chunks))
        if (chunk := doc.chunk(number)).strip()
    ]


def chunk_name(doc: PathDoc, number: int) -> str:
    """The id of a chunk."""
    return f"{doc.doc_id}#{number}"


def questions_of(path: Path, said: Said) -> tuple[list[Question], int]:
    """The questions that the model drew from a path, and how many repeat one of their document."""
    found: list[Question] = []
    repeated = 0
    for number, doc in enumerate(path.docs):
        known: set[str] = set()
        for chunk_id in range(len(doc.chunks)):
            name = chunk_name(doc, chunk_id)
            listed = said[EXTRACT].get(name, {"questions": []})["questions"]
            for place, text in enumerate(map(str.strip, listed)):
                if (norm := norm_answer(text)) in known:
                    repeated += 1
                    continue
                known.add(norm)
                found.append(Question(f"{name}/{place}", number, chunk_id, text))
    return found, repeated


def passed(step: str, path: Path, said: Said) -> list[tuple[Item, Reply]]:
    """What of a path a step was asked about, answered and not turned away, with the replies."""
    return [
        (item, reply)
        for item, reply in answered(_of_path(step, path, said), said[step])
        if verdict_of(step, item, reply) is None
    ]


def turned_away(
    step: str, items: Iterable[Item], replies: Mapping[str, Reply]
) -> list[tuple[str, str]]:
    """Ids of items that a step turned away, each with the code."""
    found = [(i.id, verdict_of(step, i, reply)) for i, reply in answered(items, replies)]
    return [(row_id, code) for row_id, code in found if code is not None]


def answered(items: Iterable[Item], replies: Mapping[str, Reply]) -> list[tuple[Item, Reply]]:
    """Items that have a usable reply."""
    return [(item, replies[item.id]) for item in items if item.id in replies]


def singles_of(path: Path, said: Said) -> list[SingleQA]:
    """The single questions of a path that all stages let pass, in the order of the documents."""
    places = {q.id: q for q in questions_of(path, said)[0]}
    found = []
    for item, reply in passed(SIMPLIFY, path, said):
        q, long = places[item.id], item.replies[ASKED]["answer"]
        doc_id = path.docs[q.doc].doc_id
        found.append(SingleQA(doc_id, q.chunk_id, q.text, reply["short"].strip(), long))
    return found


def vector_texts(singles: Sequence[SingleQA]) -> list[str]:
    """What is embedded of each question."""
    return [f"{single.question}\n{single.answer}" for single in singles]
