"""Whether a text is in Latin letters, which is what the packaged English models can judge.

A text passes when at least nine in ten letters of a sample of it are Latin: on the development
corpus that keeps all of English and code, and 1 % of the pages in Korean and Chinese, half of which
are code by letters.
"""

_LOOK = 1_000
_LETTERS = [bytes([c]) for c in range(128) if chr(c).isalpha()]
_LAST_LATIN = "\u024f"


def is_latin(text: str) -> bool:
    """Whether at least nine in ten letters at the beginning and in the middle are Latin."""
    middle = max(_LOOK, len(text) // 2)
    seen = text[:_LOOK] + text[middle : middle + _LOOK]
    plain = seen.encode("ascii", "ignore")
    latin = sum(map(plain.count, _LETTERS))
    if len(plain) == len(seen):
        return latin > 0
    letters = [c for c in seen if c > "\x7f" and c.isalpha()]
    accented = sum(c <= _LAST_LATIN for c in letters)
    return latin + accented > 0 and latin + accented >= 9 * (len(letters) - accented)
