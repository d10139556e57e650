"""Rules that really read, in a small way: what is planted in a text is found from end to end.

For the scripted backend. Each rule answers one kind of stage from the pieces of its prompt; content
words and support are those of `text/answers.py`. Marks come from shared words, so a judge of this
kind is honest about copies and blind to everything else.

| kind | pieces | reply |
|---|---|---|
| answer | question, text | the sentence that shares most words with the question, or "unknown" |
| statements | answer | {statements}: its sentences of five words and more |
| support | statement, evidence (list) | {analysis, level (full, partial, none), evidence: [1, …]} |
| notes | question, text | {relevant, notes}: sentences that share two words with the question |
| mark | question, answer | {analysis, score}: share of the question's words in the answer |
| completeness | notes (list), answer | {analysis, score}: share of the notes that are covered |
| principles | text | {analysis, p1..p7}: all weight on one mark, by how little it repeats |
| contradiction | fact, text | {analysis, contradicts, evidence}: the same words, one side negated |
"""

import json
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from longctx.llm.scripted import Rule
from longctx.llm.types import GenRequest
from longctx.text.answers import content_words, norm_answer, support
from longctx.text.sentences import sentence_spans

VERSION = "reader-1"
UNKNOWN = "unknown"
_SHORTEST_STATEMENT = 5
_FULL, _PARTIAL, _COVERED, _SAME = 0.8, 0.5, 0.5, 0.8
_PRINCIPLES = 7
_NEGATIONS = frozenset({"not", "no", "never", "none", "nor", "neither", "cannot", "without"})
_UNSPACED_NEGATIONS = ("不", "没", "無", "无", "않", "없", "아니", "ない", "ません")


def _piece(req: GenRequest, name: str) -> Any:
    """A named piece of the prompt; ValueError tells who built the request what is missing."""
    try:
        return (req.parts or {})[name]
    except KeyError:
        raise ValueError(f"the rule for {req.stage!r} reads parts[{name!r}]") from None


def _sentences(text: str) -> list[str]:
    spans = (text[a:b].strip() for a, b in sentence_spans(text))
    return [sentence for sentence in spans if sentence]


def _reply(**fields: Any) -> str:
    return json.dumps(fields, ensure_ascii=False)


def answer(req: GenRequest) -> str:
    """The sentence of `text` with most content words of `question`; the first of equals."""
    return best_sentence(_piece(req, "question"), _piece(req, "text") or "")


def best_sentence(question: str, text: str) -> str:
    """The sentence of a text with most content words of a question; "unknown" without a word."""
    wanted = content_words(question)
    best, most = UNKNOWN, 0
    for sentence in _sentences(text):
        if (shared := len(wanted & content_words(sentence))) > most:
            best, most = sentence, shared
    return best


def statements(req: GenRequest) -> str:
    """The sentences of `answer` that have at least five words."""
    found = _sentences(_piece(req, "answer"))
    return _reply(statements=[s for s in found if len(s.split()) >= _SHORTEST_STATEMENT])


def level_of(statement: str, evidence: Sequence[str]) -> tuple[str, int, float]:
    """Level, 0-based place of the best chunk (of equals the first) and its share of the words."""
    shares = [support(statement, chunk) for chunk in evidence] or [0.0]
    best = max(shares)
    level = "full" if best >= _FULL else "partial" if best >= _PARTIAL else "none"
    return level, shares.index(best), best


def grade_support(req: GenRequest) -> str:
    """How much of `statement` one chunk of `evidence` holds."""
    level, place, share = level_of(_piece(req, "statement"), _piece(req, "evidence"))
    return _reply(
        analysis=f"The best passage holds {share:.0%} of the words.",
        level=level,
        evidence=[] if level == "none" else [place + 1],
    )


def notes(req: GenRequest) -> str:
    """The sentences of `text` that share at least two content words with `question`."""
    wanted = content_words(_piece(req, "question"))
    found = [s for s in _sentences(_piece(req, "text")) if len(wanted & content_words(s)) >= 2]
    return _reply(relevant=bool(found), notes=found)


def mark(req: GenRequest) -> str:
    """0..10: the share of the content words of `question` that are found in `answer`."""
    share = support(_piece(req, "question"), _piece(req, "answer"))
    return _reply(analysis=f"{share:.0%} of the words are found.", score=round(10 * share))


def completeness(req: GenRequest) -> str:
    """0..10: the share of note sentences with at least half of their words in `answer`.

    10 without any notes: nothing can be missing.
    """
    sentences = [s for note in _piece(req, "notes") for s in _sentences(note)]
    covered = [s for s in sentences if support(s, _piece(req, "answer")) >= _COVERED]
    share = len(covered) / len(sentences) if sentences else 1.0
    said = f"{len(covered)} of {len(sentences)} notes are covered."
    return _reply(analysis=said, score=round(10 * share))


def principles(req: GenRequest) -> str:
    """All weight of every principle on mark 1 + min(4, floor(5 * distinct bigrams / bigrams))."""
    words = norm_answer(_piece(req, "text"), keep_articles=True).split()
    pairs = list(pairwise(words))
    reached = 1 + (min(4, 5 * len(set(pairs)) // len(pairs)) if pairs else 0)
    weights = [float(m == reached) for m in range(1, 6)]
    said = f"{len(set(pairs))} of {len(pairs)} pairs of words are distinct."
    return _reply(analysis=said, **{f"p{i + 1}": weights for i in range(_PRINCIPLES)})


def _is_negated(text: str) -> bool:
    words = norm_answer(text.replace("n't", " not ").replace("n’t", " not ")).split()
    return any(w in _NEGATIONS for w in words) or any(n in text for n in _UNSPACED_NEGATIONS)


def contradiction(req: GenRequest) -> str:
    """Whether a sentence of `text` has the words of `fact`, and exactly one of the two a negation.

    At least four fifths of the fact's content words; the sentence is the evidence.
    """
    fact = _piece(req, "fact")
    same = (s for s in _sentences(_piece(req, "text")) if support(fact, s) >= _SAME)
    against = next((s for s in same if _is_negated(s) != _is_negated(fact)), None)
    return _reply(
        analysis="One of the two is negated." if against else "Nothing is denied.",
        contradicts=against is not None,
        evidence=against or "",
    )


READER: dict[str, Rule] = {
    "answer": answer,
    "statements": statements,
    "support": grade_support,
    "notes": notes,
    "mark": mark,
    "completeness": completeness,
    "principles": principles,
    "contradiction": contradiction,
}
