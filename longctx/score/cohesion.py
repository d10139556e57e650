"""Words that hold a text together: pronouns and connectives, in English and Chinese.

LongWanjuan (arXiv 2402.13583) counts them for cohesion. The English pronouns are its own; its list
of connectives is not published, so that one and the Chinese lists are ours. Phrases are matched
from left to right, the longest first, without overlap: "as a result" is three words of one match,
"so that" is not also "so". Where LongWanjuan runs over all words for every pronoun, one pass over
the text does both lists.

Cost: 5 MB/s per core. Lost: other languages (null), and what a word does in its sentence ("that"
counts as a pronoun everywhere).
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from itertools import chain
from typing import NamedTuple

from longctx.text.language import base_language
from longctx.text.normalise import words

Phrase = tuple[str, ...]

_PIECE = 1 << 20
_SPACE = re.compile(r"\s")


def _listed(*lines: str, by: str | None = None) -> tuple[str, ...]:
    return tuple(name for line in lines for name in line.split(by))


ENGLISH_PRONOUNS = _listed(
    "one ones i me my mine myself you your yours yourself he him his himself she her hers herself",
    "it its itself we us our ours ourselves they them their theirs themselves this that these",
    "those who whom whose",
)
ENGLISH_CONNECTIVES = _listed(
    "after all, also, although, and yet, as a result, as if, as long as, because, before that",
    "besides, but, consequently, despite, even though, finally, first, for example, for instance",
    "furthermore, hence, however, if, in addition, in contrast, in fact, in other words, indeed",
    "instead, later, likewise, meanwhile, moreover, nevertheless, next, nonetheless",
    "on the contrary, on the other hand, otherwise, rather, second, similarly, since, so, so that",
    "specifically, still, that is, then, therefore, though, thus, unless, until, when, whereas",
    "while, yet",
    by=", ",
)
CHINESE_PRONOUNS = _listed(
    "我 你 他 她 它 您 咱 谁 我们 你们 他们 她们 它们 咱们 自己 彼此",
    "这 那 这个 那个 这些 那些 这里 那里",
)
CHINESE_CONNECTIVES = _listed(
    "因为 所以 因此 于是 但是 可是 然而 不过 虽然 尽管 而且 并且 此外 另外 同时 首先 其次 最后",
    "然后 接着 例如 比如 也就是说 换句话说 总之 如果 假如 除非 即使 否则 由于 从而 以便 直到",
    "与此同时 相反 另一方面",
)


class Cohesion(NamedTuple):
    """Shares of a text's words (English) or characters (Chinese) that the two lists cover."""

    pronouns: float
    connectives: float


def cohesion(text: str, language: str | None) -> Cohesion | None:
    """Both shares; None in another language than English and Chinese, and without any words."""
    known = base_language(language) if language else None
    if known == "en":
        return english(text)
    return chinese(text) if known == "zh" else None


def english(text: str) -> Cohesion | None:
    """Words covered by matches over all words of `text.normalise.words`, punctuation included."""
    total = pronouns = connectives = 0
    rest: list[str] = []
    for piece in _pieces(text):
        found = words(piece.lower())
        total += len(found)
        pronouns += sum(word in _PRONOUNS for word in found)
        covered, rest = _covered([*rest, *found], _CONNECTIVES, _LONGEST - 1)
        connectives += covered
    connectives += _covered(rest, _CONNECTIVES, 0)[0]
    return Cohesion(pronouns / total, connectives / total) if total else None


def _pieces(text: str) -> Iterator[str]:
    """Pieces of about 1 M characters, each begun by white space: no word is in two of them."""
    start = 0
    while space := _SPACE.search(text, start + _PIECE):
        yield text[start : space.start()]
        start = space.start()
    yield text[start:]


def chinese(text: str) -> Cohesion | None:
    """Characters covered by matches over all characters."""
    if not text.strip():
        return None
    pronouns, connectives = (
        sum(len(match) for match in pattern.findall(text)) / len(text)
        for pattern in (_CHINESE_PRONOUNS, _CHINESE_CONNECTIVES)
    )
    return Cohesion(pronouns, connectives)


def _by_first_word(phrases: Iterable[str]) -> dict[str, list[Phrase]]:
    """Phrases by their first word, the longest first."""
    split = sorted((tuple(p.split()) for p in phrases), key=len, reverse=True)
    found: dict[str, list[Phrase]] = {}
    for phrase in split:
        found.setdefault(phrase[0], []).append(phrase)
    return found


def _covered(
    found: list[str], phrases: Mapping[str, list[Phrase]], keep: int
) -> tuple[int, list[str]]:
    """Words covered by matches, and the last words, up to `keep`, that were not looked at yet.

    More words may follow: a phrase that begins among the last `keep` is left for them.
    """
    end = len(found) - keep
    covered = at = 0
    for begin in [i for i, word in enumerate(found[: max(0, end)]) if word in phrases]:
        if begin < at:
            continue
        matches = (p for p in phrases[found[begin]] if tuple(found[begin : begin + len(p)]) == p)
        if phrase := next(matches, None):
            covered += len(phrase)
            at = begin + len(phrase)
    return covered, found[max(at, end, 0) :]


def _pattern(phrases: Iterable[str]) -> re.Pattern[str]:
    return re.compile("|".join(sorted(map(re.escape, phrases), key=len, reverse=True)))


_PRONOUNS = frozenset(ENGLISH_PRONOUNS)
_CONNECTIVES = _by_first_word(ENGLISH_CONNECTIVES)
_LONGEST = max(len(p) for p in chain.from_iterable(_CONNECTIVES.values()))
_CHINESE_PRONOUNS = _pattern(CHINESE_PRONOUNS)
_CHINESE_CONNECTIVES = _pattern(CHINESE_CONNECTIVES)
