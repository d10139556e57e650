"""The words of a text as numbers: what `longctx.text.normalise.words` cuts, without a string each.

Ours. A word is the number of an entry in the text's vocabulary, 4 bytes; all that is known of words
(their characters, length, hash, kind) stands once in the vocabulary. A text of 200 MB of prose has
40 million words, so anything more for each of them costs as much as the text. The vocabulary takes
about 25 bytes and its own characters for each distinct word: little for prose, 1.3 times the text
for one in which every fourth word is new.

The stop words are the first entries of every vocabulary. About 150 MB/s per core.
"""

from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from numba import njit

from longctx.text.utf8 import ALPHA, SPACE, U8, WORD, as_utf8, char_at, char_kinds

I32 = npt.NDArray[np.int32]
I64 = npt.NDArray[np.int64]
U64 = npt.NDArray[np.uint64]

STOP_WORDS = ("the", "be", "to", "of", "and", "that", "have", "with")
MAX_BYTES = 2**32 - 1  # places of words and lines are kept in 32 bits
BASE = np.uint64(0x9E3779B97F4A7C15)

_HAS_ALPHA, _HAS_ALNUM = 1, 2
_FIRST_ROOM = 1 << 14
_APOSTROPHE, _CURLED, _UNDERSCORE = 0x27, 0x2019, 0x5F
_MIX = np.uint64(0xBF58476D1CE4E5B9)
_POS, _WORDS, _DISTINCT, _CHARS, _PLAIN, _MARKS = range(6)


class Vocabulary(NamedTuple):
    """Distinct words in the order in which they were met, the stop words before all others.

    `text[bounds[w]:bounds[w + 1]]` are the UTF-8 bytes of word w, `lengths` its characters, `kinds`
    says whether it has a letter and whether it has a letter or digit. `hashes` are those of
    polynomials in its characters with the factor `BASE`.
    """

    text: U8
    bounds: npt.NDArray[np.uint32]
    lengths: npt.NDArray[np.uint32]
    hashes: U64
    kinds: U8


class Marks(NamedTuple):
    """Every so manieth word with a letter or digit: its number, and its place in the text.

    `words`, `bytes` and `chars` are int64 and begin with the first such word.
    """

    words: I64
    bytes: I64
    chars: I64


@dataclass(frozen=True)
class Words:
    """The words of a text, or some consecutive ones: `ids` (int32) are entries of `vocabulary`."""

    ids: I32
    vocabulary: Vocabulary

    @classmethod
    def of(cls, text: str | U8) -> "Words":
        """Words of a text or of its UTF-8 bytes."""
        return cls.marked(text, MAX_BYTES)[0]

    @classmethod
    def marked(cls, text: str | U8, every: int) -> "tuple[Words, Marks]":
        """The words, and the place of every so manieth one that is not of symbols only.

        Raises ValueError for a text of 4 GiB or more.
        """
        data = as_utf8(text)
        if data.size > MAX_BYTES:
            raise ValueError(f"a text of {data.size:,} bytes; at most {MAX_BYTES:,} can be counted")
        room = _Room(min(32 + data.size // 12, _FIRST_ROOM))
        room.scan(as_utf8(" ".join(STOP_WORDS)), MAX_BYTES, len(STOP_WORDS))
        ids, marks = room.scan(data, every, data.size // 6 + 64)
        return cls(ids, room.vocabulary()), marks

    def slice(self, first: int, last: int) -> "Words":
        """Words first … last-1, as views."""
        return replace(self, ids=self.ids[first:last])

    def __len__(self) -> int:
        return len(self.ids)


class Totals(NamedTuple):
    """Words with a letter or digit, their characters, words with a letter, distinct stop words."""

    words: int
    chars: int
    alpha: int
    stops: int


def totals(found: Words) -> Totals:
    """Counts over words."""
    known = found.vocabulary
    return Totals(*_totals(found.ids, known.lengths, known.kinds, len(STOP_WORDS)))


class _Room:
    """A vocabulary that grows while texts are scanned."""

    def __init__(self, words: int) -> None:
        self._at = np.zeros(_MARKS + 1, np.int64)
        self._slots = np.zeros(1 << (2 * words - 1).bit_length(), np.int32)
        self._known = Vocabulary(
            np.empty(8 * words, np.uint8),
            np.zeros(words + 1, np.uint32),
            np.empty(words, np.uint32),
            np.empty(words, np.uint64),
            np.empty(words, np.uint8),
        )

    def scan(self, data: U8, every: int, guess: int) -> tuple[I32, Marks]:
        """Numbers of the words of a text; `guess` is how many they may be."""
        at = self._at
        at[[_POS, _WORDS, _CHARS, _PLAIN, _MARKS]] = 0
        ids = np.empty(guess, np.int32)
        marks = np.empty((16, 3), np.int64)
        while wanted := _scan(data, char_kinds(), every, at, ids, marks, self._slots, self._known):
            if at[_WORDS] == len(ids):
                _resize(ids, len(ids) * 5 // 4 + 16)
            if at[_MARKS] == len(marks):
                marks = np.concatenate([marks, np.empty_like(marks)])
            self._grow(wanted)
        _resize(ids, at[_WORDS])
        return ids, Marks(*marks[: at[_MARKS]].T.copy())

    def vocabulary(self) -> Vocabulary:
        """What was collected; the room is given up."""
        known, size = self._known, int(self._at[_DISTINCT])
        _resize(known.text, known.bounds[size])
        _resize(known.bounds, size + 1)
        for column in known[2:]:
            _resize(column, size)
        return known

    def _grow(self, wanted: int) -> None:
        """Make room for another word of so many bytes."""
        known, size = self._known, int(self._at[_DISTINCT])
        used = int(known.bounds[size])
        if used + wanted > len(known.text):
            _resize(known.text, max(used + wanted, len(known.text) * 3 // 2))
        if size == len(known.kinds):
            more = size * 3 // 2
            _resize(known.bounds, more + 1)
            for column in known[2:]:
                _resize(column, more)
        if _is_crowded(size, len(self._slots)):
            self._slots = np.zeros(2 * len(self._slots), np.int32)
            _fill_slots(self._slots, known.hashes[:size])


def _resize(array: npt.NDArray[Any], size: int) -> None:
    """Make an array longer or shorter; large ones are moved by the kernel, not copied."""
    array.resize(int(size), refcheck=False)


@njit(cache=True, nogil=True, inline="always")
def _is_crowded(size, slots):  # type: ignore[no-untyped-def]
    return 4 * (size + 1) > 3 * slots


@njit(cache=True, nogil=True, inline="always")
def _home(value, slots):  # type: ignore[no-untyped-def]
    value = (value ^ (value >> np.uint64(32))) * _MIX
    return np.int64(value >> np.uint64(32)) & (slots - 1)


@njit(cache=True, nogil=True)
def _fill_slots(slots, hashes):  # type: ignore[no-untyped-def]
    for w in range(hashes.size):
        slot = _home(hashes[w], slots.size)
        while slots[slot]:
            slot = (slot + 1) & (slots.size - 1)
        slots[slot] = w + 1


@njit(cache=True, nogil=True, inline="always")
def _word_at(data, pos, kinds):  # type: ignore[no-untyped-def]
    """End, characters, hash and kind of the word that begins at pos."""
    code, end = char_at(data, pos)
    kind = kinds[code]
    value, size = np.uint64(code) + np.uint64(1), 1
    has = _HAS_ALPHA * (kind & ALPHA != 0) | _HAS_ALNUM * (kind & WORD != 0 and code != _UNDERSCORE)
    if not kind & WORD:
        return end, size, value, has
    while end < data.size:
        code, after = char_at(data, end)
        kind = kinds[code]
        if not kind & WORD:
            # An apostrophe belongs to the word only where the word goes on.
            if (code != _APOSTROPHE and code != _CURLED) or after >= data.size:
                break
            follows, _ = char_at(data, after)
            if not kinds[follows] & WORD:
                break
        else:
            has |= _HAS_ALPHA * (kind & ALPHA != 0) | _HAS_ALNUM * (code != _UNDERSCORE)
        value = value * BASE + np.uint64(code) + np.uint64(1)
        size += 1
        end = after
    return end, size, value, has


@njit(cache=True, nogil=True)
def _scan(data, kinds, every, at, ids, marks, slots, known):  # type: ignore[no-untyped-def]
    """Number words from where `at` stands; 0 at the end, else bytes of the word without room."""
    text, bounds, lengths, hashes, has_of = known
    pos, n, distinct = at[_POS], at[_WORDS], at[_DISTINCT]
    chars, plain, n_marks = at[_CHARS], at[_PLAIN], at[_MARKS]
    wanted = 0
    while pos < data.size:
        code, after = char_at(data, pos)
        if kinds[code] & SPACE:
            pos, chars = after, chars + 1
            continue
        end, size, value, has = _word_at(data, pos, kinds)
        is_plain = has & _HAS_ALNUM != 0
        marked = is_plain and plain % every == 0
        wanted = end - pos
        if n == ids.size or (marked and n_marks == marks.shape[0]):
            break
        slot = _home(value, slots.size)
        word = -1
        while slots[slot] and word < 0:
            w = slots[slot] - 1
            if hashes[w] == value and bounds[w + 1] - bounds[w] == end - pos:
                word = w
                for k in range(end - pos):
                    if text[bounds[w] + k] != data[pos + k]:
                        word = -1
                        break
            slot = (slot + 1) & (slots.size - 1)
        if word < 0:
            used = np.int64(bounds[distinct])
            if (
                distinct == has_of.size
                or used + wanted > text.size
                or _is_crowded(distinct, slots.size)
            ):
                break
            word = distinct
            slots[slot] = word + 1
            text[used : used + wanted] = data[pos:end]
            bounds[word + 1] = used + wanted
            lengths[word], hashes[word], has_of[word] = size, value, has
            distinct += 1
        if marked:
            marks[n_marks, 0], marks[n_marks, 1], marks[n_marks, 2] = n, pos, chars
            n_marks += 1
        plain += is_plain
        ids[n] = word
        pos, n, chars, wanted = end, n + 1, chars + size, 0
    at[_POS], at[_WORDS], at[_DISTINCT] = pos, n, distinct
    at[_CHARS], at[_PLAIN], at[_MARKS] = chars, plain, n_marks
    return wanted


@njit(cache=True, nogil=True)
def _totals(ids, lengths, kinds, n_stops):  # type: ignore[no-untyped-def]
    words, chars, alpha = 0, 0, 0
    met = np.zeros(n_stops, np.bool_)
    for word in ids:
        words += kinds[word] & _HAS_ALNUM != 0
        alpha += kinds[word] & _HAS_ALPHA != 0
        if kinds[word] & _HAS_ALNUM:
            chars += lengths[word]
        if word < n_stops:
            met[word] = True
    return words, chars, alpha, met.sum()
