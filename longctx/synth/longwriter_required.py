"""The length that a writing task asks for, read from its wording.

A rule over numbers and units (words, characters, 字, 词, 단어, 자), after the labels of
LongBench-Write (LongWriter, arXiv 2408.07055); the relations (at least, at most, between) are ours.
Numbers may have commas, a multiplier (k, 千, 万, 천, 만) or be Chinese numerals; of those a single
digit before 字 is no length (四字成语). "Characters" count only where no other unit is named, for
stories have characters, too. Linear in the prompt. Lost: numbers in English or Korean words, and
units in front of the number (字数：2000).
"""

import re
import unicodedata
from collections.abc import Iterator
from typing import Literal, NamedTuple, TypedDict

Relation = Literal["exact", "range", "above", "below"]
Unit = Literal["word", "字", "词", "단어", "자", "character"]


class Required(TypedDict):
    """A wanted length `x` > 0 in `unit`; `lo` and `hi` are None where the relation has no end."""

    x: int
    lo: int | None
    hi: int | None
    relation: Relation
    unit: Unit


_ABOVE = (
    *("at least", "no less than", "not less than", "no fewer than", "more than", "over"),
    *("minimum of", "不少于", "不低于", "至少", "最少", "超过", "大于", "多于", "최소"),
)
_BELOW = (
    *("at most", "no more than", "not more than", "not exceeding", "less than", "fewer than"),
    *("under", "up to", "within", "不超过", "最多", "最大", "小于", "少于", "최대"),
)
_PHRASES: dict[str, Relation] = {**dict.fromkeys(_ABOVE, "above"), **dict.fromkeys(_BELOW, "below")}
_BEHIND = re.compile(
    r"\s*(?:(?P<above>以上|이상|or\s+more\b)|(?P<below>以内|以下|이하|이내|미만|or\s+(?:less|fewer)\b))",
    re.IGNORECASE,
)
_DIGITS = {c: i for i, c in enumerate("零一二三四五六七八九")} | {"〇": 0, "两": 2, "兩": 2}
_TENS = {"十": 10, "百": 100, "千": 1_000}
_MYRIADS = {"万": 10_000, "萬": 10_000}
_MULTIPLIERS = {
    "k": 1_000,
    "K": 1_000,
    "천": 1_000,
    "만": 10_000,
    "백": 100,
    **_TENS,
    **_MYRIADS,
}
# A comma in front belongs to the number only behind a digit: normal form makes one of ，, too.
_ARABIC = r"(?<![\d.])(?<!\d,)(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?"
_SIGN = r"(?:[kK](?![A-Za-z])|[百千万萬백천만])"
_MORE = r"(?:\s?\d+[百千백천])?"
_HAN = "[零〇一二两兩三四五六七八九十百千万萬]+"
_NUMBER = rf"(?:{_ARABIC}(?:\s?{_SIGN}{_MORE})?|(?<![几幾数數好第]){_HAN})"
# 자 is the beginning of many words (자동차); a particle or the end of the word shows the unit.
_PARTICLES = "로|를|의|가|는|은|이|정도|내외|짜리|까지|미만|분량|씩|만|에|도|쯤|가량|안팎|보다"
_JA = rf"자(?![가-힣])|자(?={_PARTICLES})"
_UNIT = rf"(?:words?\b|characters?\b|个?字|个?词|단어|{_JA})"
_GAP = r"[\s-]?"
_JOIN = r"(?:\s*[-–—~]\s*|\s+to\s+|\s+and\s+|\s*[到至]\s*)"
_SINGLE = re.compile(rf"(?P<n>{_NUMBER}){_GAP}(?P<unit>{_UNIT})", re.IGNORECASE)
_RANGE = re.compile(
    rf"(?P<lo>{_NUMBER})(?:{_GAP}{_UNIT})?{_JOIN}(?P<hi>{_NUMBER}){_GAP}(?P<unit>{_UNIT})",
    re.IGNORECASE,
)
_PARTS = re.compile(rf"({_ARABIC})\s?({_SIGN})?(?:\s?(\d+)([百千백천]))?")


class _Number(NamedTuple):
    """A number and the multiplier that it ends with, 1 if none."""

    value: float
    multiplier: int


def required_length(prompt: str) -> Required | None:
    """The length that a prompt states, a range before a single number; None if it states none."""
    text = unicodedata.normalize("NFKC", prompt)
    found = [*_ranges(text), *_singles(text)]
    told = [required for required in found if required["unit"] != "character"]
    return next(iter([*told, *found]), None)


def _ranges(text: str) -> Iterator[Required]:
    for match in _RANGE.finditer(text):
        first, second = _number(match["lo"]), _number(match["hi"])
        lo, hi = first.value, second.value
        if first.multiplier == 1 and lo * second.multiplier <= hi:
            lo *= second.multiplier
        if 0 < lo <= hi:
            middle = (int(lo) + int(hi)) // 2
            yield _required(middle, int(lo), int(hi), "range", match["unit"])


def _singles(text: str) -> Iterator[Required]:
    for match in _SINGLE.finditer(text):
        x = int(_number(match["n"]).value)
        if x < 1 or (match["n"] in _DIGITS):
            continue
        relation = _relation(text[: match.start()], text[match.end() :])
        lo, hi = x if relation != "below" else None, x if relation != "above" else None
        yield _required(x, lo, hi, relation, match["unit"])


def _required(x: int, lo: int | None, hi: int | None, relation: Relation, unit: str) -> Required:
    return {"x": x, "lo": lo, "hi": hi, "relation": relation, "unit": _unit(unit)}


def _unit(written: str) -> Unit:
    lower = written.lower().removeprefix("个")
    if lower.startswith("word"):
        return "word"
    return "character" if lower.startswith("character") else lower  # type: ignore[return-value]


def _relation(before: str, after: str) -> Relation:
    """By the longest phrase that ends right before the number, else by what follows the unit."""
    head = " ".join(before.casefold().split()).rstrip(" :")
    ending = [phrase for phrase in _PHRASES if _ends(head, phrase)]
    if ending:
        return _PHRASES[max(ending, key=len)]
    if behind := _BEHIND.match(after):
        return "above" if behind["above"] else "below"
    return "exact"


def _ends(head: str, phrase: str) -> bool:
    """Whether a text ends with a phrase, a Latin one as whole words ("over", not "moreover")."""
    if not head.endswith(phrase):
        return False
    start = len(head) - len(phrase)
    return not phrase.isascii() or start == 0 or not head[start - 1].isalpha()


def _number(written: str) -> _Number:
    if written[0] in _DIGITS or written[0] in _TENS or written[0] in _MYRIADS:
        return _chinese(written)
    parts = _PARTS.match(written)
    if parts is None:
        raise AssertionError(f"{written!r} was matched as a number")
    multiplier = _MULTIPLIERS[parts[2]] if parts[2] else 1
    value = float(parts[1].replace(",", "")) * multiplier
    if parts[3]:
        value += int(parts[3]) * _MULTIPLIERS[parts[4]]
    return _Number(round(value), multiplier)


def _chinese(written: str) -> _Number:
    """两万五千 is 25,000, 一千五 is 1,500 (the digit behind is a tenth), 万 alone is 10,000."""
    whole = below = digit = 0
    last = 1
    for char in written:
        if char in _DIGITS:
            digit = _DIGITS[char]
            last = 10 if char in "零〇" else last
        elif char in _TENS:
            last = _TENS[char]
            below += (digit or 1) * last
            digit = 0
        else:
            last = _MYRIADS[char]
            whole += ((below + digit) or 1) * last
            below = digit = 0
    ends_in_digit = written[-1] in _DIGITS
    total = whole + below + (digit * last // 10 if ends_in_digit and last > 10 else digit)
    return _Number(total, 1 if ends_in_digit else last)
