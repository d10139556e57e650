"""From what the steps of `synth.pam_qa` said of a question to its row (arXiv 2311.09198).

The step `documents` leaves a question with its golds, the passages that both retrievers found, in
fused order, and random ones; `support` leaves verdicts on them where the accepted answers are no
extracts, and `answer` an answer in sentences.
"""

from longctx.synth.items import Item
from longctx.synth.pamqa_negatives import Doc, Negatives, Question, mine
from longctx.synth.pamqa_rows import Settings, build_row, load
from longctx.synth.pamqa_table import asked_of, with_golds
from longctx.synth.rows import Made, Reject
from longctx.synth.tokens import TokenCounter

DOCUMENTS = "documents"
QUESTION, SUPPORT, ANSWER = "pam.question", "pam.support", "pam.answer"
GOLD, HARD, RANDOM = "gold", "hard", "random"
OTHERS = "others"
# Golds that share a run of words with an evaluation text; they come without their texts.
CONTAMINATED = "contaminated"


def question_of(item: Item) -> Question:
    """The question with the golds that have a text."""
    brought = item.replies[DOCUMENTS]
    known = {doc.doc_id: doc for doc in documents_of(item, GOLD)}
    return with_golds(asked_of(brought["asked"]), known)


def documents_of(item: Item, kind: str) -> list[Doc]:
    """The passages that were brought: `gold` (those of the corpus), `hard` or `random`."""
    return [Doc(**doc) for doc in item.replies[DOCUMENTS][kind]]


def loaded(item: Item) -> Question | Reject:
    """The question as a row needs it: narrowed to golds with an answer, or why there is none."""
    question = question_of(item)
    if not question.golds and (seen := item.replies[DOCUMENTS].get(CONTAMINATED)):
        return Reject(CONTAMINATED, f"evaluation texts share words with its golds: {seen[0]}")
    verdicts = item.replies.get(SUPPORT, {}).get(GOLD)
    # A gold that could not be judged does not count as one.
    return load(question, None if verdicts is None else [bool(v) for v in verdicts])


def needs_judge(question: Question) -> bool:
    """Whether golds are there, and answers that no text can be searched for."""
    found = load(question)
    return isinstance(found, Reject) and found.code == "answer_not_extractive"


def to_judge(item: Item, settings: Settings) -> tuple[list[Doc], list[Doc]]:
    """The passages of a question that are shown to a judge: its golds, and others.

    Of the others as many hard and as many random ones as a row can take at most, that nothing else
    speaks against.
    """
    question = question_of(item)
    negatives = Negatives(question, settings.near_duplicate)
    others = [
        doc
        for kind in (HARD, RANDOM)
        for doc in mine(documents_of(item, kind), negatives, settings.n_docs)
    ]
    return list(question.golds), list({doc.doc_id: doc for doc in others}.values())


def made_of(item: Item, counter: TokenCounter, settings: Settings, seed: int) -> Made | Reject:
    """The row of a question that has all replies."""
    question = loaded(item)
    if isinstance(question, Reject):
        return question
    hard, random = documents_of(item, HARD), documents_of(item, RANDOM)
    refused = _refused(item)
    said = item.replies.get(ANSWER, {}).get("answer")
    return build_row(
        question,
        hard,
        len(random),
        random.__getitem__,
        counter,
        settings,
        seed,
        answer=said.strip() if said else None,
        judged=None if refused is None else lambda doc: doc.doc_id not in refused,
    )


def _refused(item: Item) -> set[str] | None:
    """Ids of the passages that a judge found to answer nothing; None without a judge.

    A passage that could not be judged may answer, so it is no negative.
    """
    said = item.replies.get(SUPPORT, {})
    if OTHERS not in said:
        return None
    return {doc_id for doc_id, supports in said[OTHERS].items() if supports is False}
