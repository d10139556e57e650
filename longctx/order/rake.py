"""Key phrases of short texts by co-occurrence: RAKE (Rose et al. 2010), as Quest uses it.

Quest (arXiv 2405.19846) takes keywords from the predicted queries of a document. A phrase is a
maximal run of words without stop-words; a word's score is its degree (the summed length of the
phrases it stands in) over its frequency; a phrase's score is the sum of its words' scores.

The paper does not give its filters; the numbers, both word lists and the handling of apostrophes
are ours. Scores are counted over all queries of one document together, phrases never cross queries.
Linear in the text, about 3.5 MB of queries per second and core. Languages written without spaces
have runs of characters instead of words, so the method finds little in them.
"""

import re
from collections.abc import Iterable, Iterator
from typing import NamedTuple

MAX_WORDS = 4
MIN_SCORE = 1.0

_ENGLISH = """
a about above after again against all also although am among an and another any are as at be
because been before being below between both but by can cannot could did do does doing down
during each either else even ever every few for from further had has have having he her here
hers him his how however i if in into is it its itself just least less many may me might more
most much must my neither no nor not now of off often on once one only or other our out over own
per rather same she should since so some still such than that the their them then there these
they this those though through thus to too under until up upon us very was we were what when
where whether which while who whom whose why will with within without would yet you your
"""
STOP_WORDS = frozenset(_ENGLISH.split())

# Phrases that queries about anything contain.
GENERIC = frozenset(
    {
        "main purpose",
        "purpose",
        "difference",
        "following",
        "meaning",
        "example",
        "definition",
        "name",
        "number",
        "use",
        "types",
    }
)

# A word is letters and digits with inner apostrophes or hyphens; any other character that is not
# white space, an apostrophe or a hyphen ends the phrase.
_WORD = r"[^\W_]+(?:['\u2010\u2011-][^\W_]+)*"
_WORDS = re.compile(_WORD)
_TOKEN = re.compile(rf"{_WORD}|[^\w\s'\u2010\u2011-]|_")


class Keyword(NamedTuple):
    """A key phrase of one document and its score (1 for a word that always stands alone)."""

    phrase: str
    score: float


def content_words(text: str, stop_words: frozenset[str] = STOP_WORDS) -> list[str]:
    """The words of a text, lower-cased, without stop-words."""
    return [word for word in _WORDS.findall(_plain(text)) if word not in stop_words]


def _plain(text: str) -> str:
    return text.lower().replace("’", "'")


def phrases(text: str, stop_words: frozenset[str] = STOP_WORDS) -> Iterator[tuple[str, ...]]:
    """The maximal runs of words without stop-words in a text, lower-cased, in order."""
    run: list[str] = []
    for token in _TOKEN.findall(_plain(text)):
        if token[0].isalnum() and token not in stop_words:
            run.append(token)
        elif run:
            yield tuple(run)
            run = []
    if run:
        yield tuple(run)


def keywords(
    texts: Iterable[str],
    stop_words: frozenset[str] = STOP_WORDS,
    generic: frozenset[str] = GENERIC,
    limit: int | None = None,
) -> list[Keyword]:
    """Key phrases of a document from its queries, by (score descending, phrase ascending).

    Phrases of more than four words raise the scores of their words but are not returned, nor are
    generic phrases, phrases of digits only, and scores below 1. At most `limit` are returned.
    """
    found = [phrase for text in texts for phrase in phrases(text, stop_words)]
    frequency: dict[str, int] = {}
    degree: dict[str, int] = {}
    for phrase in found:
        for word in phrase:
            frequency[word] = frequency.get(word, 0) + 1
            degree[word] = degree.get(word, 0) + len(phrase)
    scored = [
        Keyword(" ".join(phrase), sum(degree[word] / frequency[word] for word in phrase))
        for phrase in set(found)
        if len(phrase) <= MAX_WORDS and not all(word.isdecimal() for word in phrase)
    ]
    kept = [k for k in scored if k.score >= MIN_SCORE and k.phrase not in generic]
    return sorted(kept, key=lambda k: (-k.score, k.phrase))[:limit]
