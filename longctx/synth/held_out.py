"""Texts that rows must not hold: what is looked for of evaluation sets, and in what of a row.

Decontamination as FILM describes it (arXiv 2404.16811), for all systems alike: a text that shares a
run of n words with an evaluation text is not used. Words are those of `ngram_hit`: case,
punctuation and symbols do not count, characters of Han, kana and Hangul are words.

What we changed: long values of fields that nobody named are contexts, which a corpus may hold, and
are left out as in `filter.decontaminate`; a row is looked at with all its columns, for columns that
no turn shows (questions that were not drawn, steps of a plan) are written, too. Cost: linear, 4 to
8 MB/s. Lost: paraphrases and translations, copies in which every n-th word is another, evaluation
texts of fewer than n words.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from longctx.filter.evaluation import LONGEST, Value
from longctx.synth.checks import answer_tokens

# Shorter texts are looked at faster than they are searched for in others.
_SHORT = 200
NOTHING = "`against` names no evaluation texts, so nothing was held out"


class LookedFor(NamedTuple):
    """Texts of evaluation sets, how many are there by kind, and sets that have none to look for.

    The kinds are `texts`, `too_short` (fewer than n words) and `contexts`.
    """

    texts: list[str]
    counts: dict[str, int]
    idle: list[str]


def looked_for(sets: Mapping[str, Sequence[tuple[bool, Value]]], ngram: int) -> LookedFor:
    """What is looked for of the values of sets, each with whether its field was named."""
    texts: list[str] = []
    counts: Counter[str] = Counter(texts=0, too_short=0, contexts=0)
    idle: list[str] = []
    for name, values in sets.items():
        before = len(texts)
        for named, value in values:
            words = len(answer_tokens(value.text))
            kind = "contexts" if words > LONGEST and not named else "texts"
            kind = "too_short" if words < ngram else kind
            counts[kind] += 1
            texts += [value.text] if kind == "texts" else []
        idle += [name] if len(texts) == before else []
    return LookedFor(texts, dict(counts), idle)


def texts_of(value: Any) -> list[str]:
    """All texts of a value (a text, or what JSON can hold), each once, the longest first.

    One that stands in a longer one, with blanks around it, has no run that this has not, and is
    left out: a context in its turn, a passage in its prompt.
    """
    found: list[str] = []
    for text in sorted(set(_strings(value)), key=lambda t: (-len(t), t)):
        if len(text) < _SHORT or not any(_stands_in(text, longer) for longer in found):
            found.append(text)
    return found


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for inner in value.values():
            yield from _strings(inner)
    elif isinstance(value, Sequence):
        for inner in value:
            yield from _strings(inner)


def _stands_in(text: str, longer: str) -> bool:
    """Whether a text stands in another as whole words; only the first place is looked at."""
    start = longer.find(text)
    end = start + len(text)
    before, behind = longer[max(0, start - 1) : max(0, start)], longer[end : end + 1]
    return start >= 0 and all(not char or char.isspace() for char in (before, behind))


def decontamination(hits: int, texts: int, ngram: int) -> dict[str, Any]:
    """The check over all rows that were written: `hits` of them share a run with `texts`.

    Without texts nothing was looked at: `hits` and `ok` are None, and `note` says so.
    """
    if not texts:
        return {"hits": None, "texts": 0, "ngram": ngram, "ok": None, "note": NOTHING}
    return {"hits": hits, "texts": texts, "ngram": ngram, "ok": hits == 0}
