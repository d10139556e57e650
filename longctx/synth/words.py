"""How long a text is, in the words of a reader: one rule for every script.

Four counters. `longwriter` is that of LongWriter's released code (arXiv 2408.07055), to reproduce
its scores: Han characters and runs of Latin letters, so "don't" is two and digits, kana and Hangul
count nothing. `auto` is ours and the default: Han and kana by character, every other run of letters
and digits once, apostrophes and hyphens inside it included. `nonspace` counts characters.
`selflengthen` is that of Self-Lengthen's code (arXiv 2410.23933): Han, CJK and full-width marks by
character, and what blanks part of the rest. Linear in the text. Lost: words of Thai and other
scripts without blanks count as one run.
"""

import re
import unicodedata
from typing import Literal

Counter = Literal["auto", "longwriter", "nonspace", "selflengthen"]

_HAN_BASIC = re.compile("[\u4e00-\u9fff]")
_LATIN = re.compile(r"\b[a-zA-Z]+\b")
_BY_CHARACTER = re.compile("[\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\u3040-\u30ff]")
_HAN = re.compile("[\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff]")
_KANA = re.compile("[\u3040-\u30ff]")
_HANGUL = re.compile("[\uac00-\ud7a3]")
_LATIN_WORD = re.compile("[A-Za-z\u00c0-\u024f]+")
_HAN_AND_MARKS = re.compile("[\u4e00-\u9fff\u3000-\u303f\uff00-\uffef]")
_RUN = re.compile(r"[^\W_]+(?:['’\-][^\W_]+)*")


def count_words(text: str, counter: Counter = "auto") -> int:
    """Length of a text by one of the counters; ValueError for no such counter."""
    if counter == "longwriter":
        return len(_HAN_BASIC.findall(text)) + len(_LATIN.findall(text))
    if counter == "nonspace":
        return len("".join(text.split()))
    if counter == "selflengthen":
        spaced, single = _HAN_AND_MARKS.subn(" ", text)
        return single + len(spaced.split())
    if counter != "auto":
        raise ValueError(f"counter={counter!r} is none of auto, longwriter, nonspace, selflengthen")
    composed = unicodedata.normalize("NFC", text)
    rest, characters = _BY_CHARACTER.subn(" ", composed)
    return characters + len(_RUN.findall(rest))


def written_in(text: str) -> str:
    """The language that a text's script speaks for: "ko", "zh" or "en"; "" where none does.

    A Latin word counts as two characters of the others. Kana make a text Japanese, which is none of
    the three; among Latin ones no language is told from another.
    """
    letters = {
        "ko": len(_HANGUL.findall(text)),
        "zh": len(_HAN.findall(text)),
        "en": 2 * len(_LATIN_WORD.findall(text)),
    }
    most = max(letters, key=lambda lang: letters[lang])
    return most if letters[most] > 4 * len(_KANA.findall(text)) else ""
