"""The words of the rules that stand in for a model in tests (section 0 of the specification).

A question asks about the first name or number of a sentence, its answer is the beginning of that
sentence, and a judge marks by shared words. So a run without a model has exact golds, and what was
planted in a document is found in the rows. Nothing here is random.
"""

import re

from longctx.synth.words import count_words
from longctx.text.sentences import sentence_spans

ANSWER_WORDS = 20
_LONGEST_NAME = 3
_CAPITALISED = re.compile(r"[^\W\d_][\w'’\-]*|\d+(?:[.,]\d+)*")
_QUESTION = {
    "en": "What is stated about {}?",
    "zh": "关于{}说了什么？",
    "ko": "{}에 대해 무엇이 언급되어 있습니까?",
}


def sentences(text: str) -> list[str]:
    """The sentences of a text without the blanks around them, empty ones left out."""
    return [s for a, b in sentence_spans(text) if (s := text[a:b].strip())]


def subject(sentence: str) -> str:
    """The first run of capitalised words (three at most) or the first number of a sentence.

    Without either its first word, or its first four characters where words have no blanks.
    """
    found = list(_CAPITALISED.finditer(sentence))
    for at, word in enumerate(found):
        if word[0][0].isdigit():
            return word[0]
        if word[0][0].isupper():
            end = at + 1
            while end < min(at + _LONGEST_NAME, len(found)) and _goes_on(sentence, found, end):
                end += 1
            return sentence[word.start() : found[end - 1].end()]
    first = found[0][0] if found else sentence.strip()
    return first if first.isascii() else first[:4]


def _goes_on(sentence: str, found: list[re.Match[str]], at: int) -> bool:
    """Whether word `at` is capitalised and only a blank stands between it and the one before."""
    between = sentence[found[at - 1].end() : found[at].start()]
    return found[at][0][0].isupper() and between == " "


def question(sentence: str, lang: str) -> str:
    """What is stated about the subject of a sentence."""
    return _QUESTION[lang].format(subject(sentence))


def answer(of: list[str], at: int, least: int = 1) -> str:
    """The first 20 words of sentence `at`, or whole sentences from there on until `least` words.

    Sentences in front are taken too where those behind are too few; all of them may be.
    """
    short = " ".join(of[at].split()[:ANSWER_WORDS])
    if count_words(short) >= least:
        return short
    first, end = at, at + 1
    while count_words(" ".join(of[first:end])) < least and (first > 0 or end < len(of)):
        first, end = (first, end + 1) if end < len(of) else (first - 1, end)
    return " ".join(of[first:end])


def evenly(n: int, k: int) -> list[int]:
    """`k` evenly spaced places among `n`, ascending; repeated where n < k."""
    return [(2 * i + 1) * n // (2 * k) for i in range(k)]


def scaled(share: float, lo: int, hi: int) -> int:
    """A share of 0..1 as a mark of a scale, rounded to the nearest."""
    return lo + round(share * (hi - lo))
