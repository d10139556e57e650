"""Words and the two normal forms in which texts are compared.

`norm_exact` (NFC, white space squeezed) is for byte-like identity; `norm_dedup` (no accents, case,
punctuation or digits) is for near-duplicates, in the spirit of datatrove's and Lee et al.'s
(arXiv 2107.06499) text cleaning; `dedup_tokens` cuts the latter into tokens. The exact scheme is
ours: scripts written without spaces get one token per character, so one shingle length serves
all languages.

This is the reference, plain and slow (a few MB/s). `longctx.dedup.kernel` computes the same tokens
about ten times faster and is tested against it character by character.
"""

import re
import unicodedata
from collections.abc import Iterator
from typing import Literal

Profile = Literal["text", "code"]

UNSPACED_RANGES = (
    (0x0E00, 0x0EFF),  # Thai, Lao
    (0x1780, 0x17FF),  # Khmer
    (0x3040, 0x30FF),  # Hiragana, Katakana
    (0x3400, 0x4DBF),  # CJK extension A
    (0x4E00, 0x9FFF),  # CJK unified ideographs
    (0xF900, 0xFAFF),  # CJK compatibility ideographs
)

_WHITE_SPACE = re.compile(r"\s")
_WORD = re.compile(r"\w+(?:['’]\w+)*|[^\w\s]")
_NUMBER = re.compile(r"\d+(?:[.,]\d+)*")
_UNSPACED = "".join(f"{chr(low)}-{chr(high)}" for low, high in UNSPACED_RANGES)
_TOKEN = re.compile(f"[{_UNSPACED}]|[^ {_UNSPACED}]+")
_SEPARATING = "PSZC"  # first letters of the general categories that become a space


class _SeparatorTable(dict[int, str]):
    """A `str.translate` table that learns each code point the first time it is met."""

    def __missing__(self, code: int) -> str:
        char = chr(code)
        self[code] = " " if unicodedata.category(char)[0] in _SEPARATING else char
        return self[code]


_SEPARATORS = _SeparatorTable()


def pieces(text: str, size: int = 1 << 20) -> Iterator[str]:
    """The text in pieces of about `size` characters, all but the first begun by white space.

    Across white space nothing composes, no word or number runs and no sigma looks, so texts of any
    length are normalised with the memory of one piece. A run without white space is never cut.
    """
    start = 0
    while gap := _WHITE_SPACE.search(text, start + size):
        yield text[start : gap.start()]
        start = gap.start()
    yield text[start:]


def words(text: str) -> list[str]:
    """Runs of word characters with inner apostrophes; every other non-space character alone."""
    return _WORD.findall(text)


def is_symbol(word: str) -> bool:
    """True for a word without any alphanumeric character."""
    return not any(char.isalnum() for char in word)


def squeeze(text: str) -> str:
    """Every run of white space becomes one space; none at the ends."""
    return " ".join(text.split())


def norm_exact(text: str) -> str:
    """Unicode NFC, white space squeezed."""
    return squeeze(unicodedata.normalize("NFC", text))


def norm_dedup(text: str, profile: Profile = "text") -> str:
    """Normal form for near-duplicates.

    Profile "text": marks (category Mn) dropped, lower case, every number "0", every character of
    the categories P, S, Z and C a space. Profile "code" only squeezes white space, because there
    the punctuation carries the structure. Raises ValueError on another profile.
    """
    if profile == "code":
        return squeeze(text)
    if profile != "text":
        raise ValueError(f"unknown normalisation profile {profile!r}; expected 'text' or 'code'")
    lowered = unicodedata.normalize("NFC", without_marks(text)).lower()
    return squeeze(_NUMBER.sub("0", lowered).translate(_SEPARATORS))


def without_marks(text: str) -> str:
    """The canonical decomposition of `text` without its non-spacing marks (category Mn)."""
    decomposed = unicodedata.normalize("NFD", text)
    return "".join(char for char in decomposed if unicodedata.category(char) != "Mn")


def dedup_tokens(text: str, profile: Profile = "text") -> list[str]:
    """Tokens of `norm_dedup(text, profile)`: split at spaces, unspaced scripts by character."""
    return _TOKEN.findall(norm_dedup(text, profile))
