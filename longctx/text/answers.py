"""Whether an answer stands in a text: normalised answers, content words, lexical support.

Rules for questions and answers in English and in languages written without blanks (Han, kana) or
with many endings (Hangul), which are compared by pairs of characters. The containment test follows
what open-domain question answering calls "exact match inside a passage" (Karpukhin et al. 2020,
arXiv 2004.04906), on whole tokens: "art" is not in "The article on parts". Linear in the texts.
Lost: inflected forms, numbers in words, and the articles a, an, the.
"""

import re
import unicodedata

_ARTICLES = frozenset({"a", "an", "the"})
_COMMA = re.compile(r"(?<=\d),(?=\d)")
# Han with its extensions, kana, Hangul syllables and letters; all of them NFKC forms. For use
# inside the brackets of a regular expression.
UNSPACED = (
    "\u1100-\u11ff\u2e80-\u2fdf\u3005-\u3007\u3040-\u30ff\u3130-\u318f\u31f0-\u31ff\u3400-\u4dbf"
    "\u4e00-\u9fff\uac00-\ud7ff\uf900-\ufaff\U0001b000-\U0001b16f\U00020000-\U000323af"
)
_HAS_UNSPACED = re.compile(f"[{UNSPACED}]")
_RUNS = re.compile(f"([{UNSPACED}]+)|[^{UNSPACED}]+")
STOP_WORDS = frozenset(
    " ".join(
        [
            "of in on at to for from by with and or but if then than as is are was were be been",
            "being am do does did has have had it its this that these those he she they them his",
            "her their i you we my your our not no so such there here what which who whom whose",
            "when where why how can could will would shall should may might must also into over",
            "under about after before between during",
        ]
    ).split()
)


class _Blanks(dict[int, str | int]):
    """For `str.translate`: punctuation and symbols to blanks, looked up once a character."""

    def __missing__(self, code: int) -> str | int:
        found = " " if unicodedata.category(chr(code))[0] in "PS" else code
        self[code] = found
        return found


_BLANKS = _Blanks()


def norm_answer(s: str, keep_articles: bool = False) -> str:
    """Words joined by one blank: NFKC, case folded, without punctuation, symbols and articles.

    A comma between two digits disappears (1,000 is 1000); every other mark becomes a blank.
    """
    folded = unicodedata.normalize("NFKC", s).casefold()
    words = _COMMA.sub("", folded).translate(_BLANKS).split()
    return " ".join(w for w in words if keep_articles or w not in _ARTICLES)


def contains_answer(answer: str, text: str) -> bool:
    """Whether an answer stands in a text, both normalised, as whole tokens one after the other.

    Answers with Han, kana or Hangul are looked for as characters, blanks taken out on both sides.
    An answer of which nothing is left is in no text.
    """
    wanted, found = norm_answer(answer), norm_answer(text)
    if not wanted:
        return False
    if _HAS_UNSPACED.search(wanted):
        return wanted.replace(" ", "") in found.replace(" ", "")
    return f" {wanted} " in f" {found} "


def content_words(s: str) -> set[str]:
    """Words that carry content: no stop words; runs of Han, kana and Hangul as pairs of characters.

    A run of one such character stays as it is.
    """
    return set(content_tokens(s))


def content_tokens(s: str) -> list[str]:
    """The same one after the other, each as often as it is there."""
    found: list[str] = []
    for token in norm_answer(s).split():
        for run in _RUNS.finditer(token):
            if run[1] is None:
                found.append(run[0])
            elif len(run[1]) == 1:
                found.append(run[1])
            else:
                found += (run[1][i : i + 2] for i in range(len(run[1]) - 1))
    return [word for word in found if word not in STOP_WORDS]


def support(answer: str, passage: str) -> float:
    """Share of the answer's content words that stand in a passage; 0 if it has none."""
    wanted = content_words(answer)
    return len(wanted & content_words(passage)) / len(wanted) if wanted else 0.0
