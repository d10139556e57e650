"""The words of the rules that stand in for a model in tests (section 0 of the specification).

A question asks about the first name or number of a sentence, its answer is the beginning of that
sentence, and a judge marks by shared words. So a run without a model has exact golds, and what was
planted in a document is found in the rows. Nothing here is random.
"""

import re

from longctx.synth.words import count_words
from longctx.text.answers import UNSPACED, content_words, norm_answer
from longctx.text.sentences import sentence_spans

ANSWER_WORDS = 20
_LONGEST_NAME = 3
_WORD = re.compile(
    rf"[{UNSPACED}]+|[^\W\d_{UNSPACED}](?:(?![{UNSPACED}])[\w'’\-])*"
    rf"|\d+(?:[.,]\d+)*(?:(?![{UNSPACED}])\w)*"
)
_QUESTION = {
    "en": "What is stated about {}?",
    "zh": "关于{}说了什么？",
    "ko": "{}에 대해 무엇이 언급되어 있습니까?",
}


def sentences(text: str) -> list[str]:
    """The sentences of a text without the blanks around them, empty ones left out."""
    return [s for a, b in sentence_spans(text) if (s := text[a:b].strip())]


def subject(sentence: str) -> str:
    """The first of `names_and_numbers`; without any the first content word.

    Where words have no blanks it is cut to four characters.
    """
    if runs := names_and_numbers(sentence):
        return runs[0]
    words = (w[0] for w in _WORD.finditer(sentence) if content_words(w[0]))
    first = next(words, sentence.strip())
    return first if first.isascii() else first[:4]


def names_and_numbers(sentence: str) -> list[str]:
    """Runs of capitalised words (three at most) and numbers, in order.

    A run of stop words alone ("In") is left out: nothing could be found by it.
    """
    found = list(_WORD.finditer(sentence))
    runs = []
    at = 0
    while at < len(found):
        end = at + 1
        if found[at][0][0].isupper():
            while end < min(at + _LONGEST_NAME, len(found)) and _goes_on(sentence, found, end):
                end += 1
        run = sentence[found[at].start() : found[end - 1].end()]
        if (run[0].isupper() or run[0].isdigit()) and content_words(run):
            runs.append(run)
        at = end
    return runs


def _goes_on(sentence: str, found: list[re.Match[str]], at: int) -> bool:
    """Whether word `at` is capitalised and only a blank stands between it and the one before."""
    between = sentence[found[at - 1].end() : found[at].start()]
    return found[at][0][0].isupper() and between == " "


def question(sentence: str, lang: str) -> str:
    """What is stated about the subject of a sentence."""
    return _QUESTION[lang].format(subject(sentence))


def questions(of: list[str], lang: str, k: int) -> list[str]:
    """Questions about `k` evenly spaced sentences; one that was asked before gives way to the next.

    Fewer where the sentences have fewer subjects.
    """
    found: dict[str, str] = {}
    for start in evenly(len(of), k) if of else []:
        for place in [*range(start, len(of)), *range(start)]:
            asked = question(of[place], lang)
            if found.setdefault(norm_answer(asked), asked) is asked:
                break
    return list(found.values())


def about(asked: str) -> str:
    """What a question of `question` is about; any other question whole."""
    for form in _QUESTION.values():
        before, behind = form.split("{}")
        if asked.startswith(before) and asked.endswith(behind):
            return asked.removeprefix(before).removesuffix(behind)
    return asked


def sentence_for(asked: str, of: list[str]) -> int:
    """The sentence that shares most content words with what is asked about; the first of equals."""
    wanted = content_words(about(asked))
    shared = [len(wanted & content_words(sentence)) for sentence in of]
    return shared.index(max(shared))


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
