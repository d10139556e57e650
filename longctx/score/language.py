"""Which language a text is in, window by window, and where it is in none.

The identifier is langid's (Lui and Baldwin, "langid.py: an off-the-shelf language identification
tool", ACL 2012): naive Bayes over byte n-grams that an automaton finds, with the model of 139
languages that the package py3langid ships. What we changed:

- The package walks its automaton in Python. `_add_scores` does it compiled and adds in float64 in
  the order of the text: seven times as fast, and no number of threads changes a bit.
- Only prose is read (`prose_of`): runs of at least four plain words, and all letters outside of
  ASCII, which programming languages do not need. The model calls code English with certainty; here
  a window of whose bytes less than `MIN_PROSE` are prose has no language.
- A document's language is the one that most of its windows are in, by characters: so a document in
  two languages is told from one that is hard to tell.
- Varieties that ISO 639-1 counts to one language are one: Cantonese and Wu are `zh`.

Cost: 8 MB/s per core, 120 MB for the model. Lost: what stands beside less than a third of prose
(comments in code, a sentence above a table); languages without a code of two letters (status
"other"); all but the strongest language of a window.
"""

import functools
import re
import unicodedata
from collections import Counter
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
from numba import njit

U8 = npt.NDArray[np.uint8]
U32 = npt.NDArray[np.uint32]
I32 = npt.NDArray[np.int32]
F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]
Status = Literal["ok", "empty", "no_letters", "no_prose", "too_short", "uncertain", "other"]

MIN_PROSE = 0.3  # of the UTF-8 bytes that are no white space
MIN_BYTES = 24  # of prose; fewer are not asked about
MIN_COVERED = 0.5  # of a document's characters must lie in windows that have a language

_NO_LANGUAGE = "zxx"
# Codes of the model that are a variety of, or another name for, a language with two letters.
_SAME = {
    **dict.fromkeys(("yue", "wuu"), "zh"),
    **dict.fromkeys(("arz", "ary"), "ar"),
    "fuv": "ff",
    "gug": "gn",
    "kik": "ki",
    "ltg": "lv",
    "sdh": "ku",
    "uzs": "uz",
}
_PLAIN = r"[^\s!-@\[-`{-~]"  # neither white space nor ASCII punctuation and digits
_WORD = (
    r"""["'(\[*_]{0,3}+"""
    rf"(?:{_PLAIN}++(?:['’-]{_PLAIN}++){{0,4}}+"
    r"|[0-9]++(?:[.,:][0-9]++){0,3}+"
    r"|\$[^$\n]{1,60}+\$|`[^`\n]{1,60}+`)"  # a formula, a name in a sentence
    r"""[)"'\],.;:!?*_]{0,3}+"""
)
_BEYOND_ASCII = r"[^\x00-\xbf\u2000-\u2bff\ue000-\uf8ff\ufff0-\uffff]"  # nor symbols
_PROSE = re.compile(rf"(?<!\S){_WORD}(?:\s{{1,3}}+{_WORD}(?!\S)){{3,}}+|{_BEYOND_ASCII}{{2,}}+")


class Window(NamedTuple):
    """Characters start..end-1 of a text, and the language they are in (ISO 639-1) or why none.

    `sure` is its probability in [0, 1].
    """

    start: int
    end: int
    language: str | None
    sure: float | None
    status: Status


@dataclass(frozen=True)
class Languages:
    """What was found in a text; `mixed_share` counts the windows that have a language."""

    language: str | None
    confidence: float | None
    mixed_share: float | None
    status: Status
    windows: tuple[Window, ...]


def languages(text: str, model: "Model", window_chars: int, min_confidence: float) -> Languages:
    """The languages of the windows of a text, and of the whole.

    Windows below `min_confidence` are "uncertain". The whole's confidence is the mean of those of
    the windows in its language, weighted by characters, times their share of the characters in any
    language: 0.5 for a text that is half in another.
    """
    windows = tuple(
        _window(text, start, end, model, min_confidence)
        for start, end in windows_of(len(text), window_chars)
    )
    chars: Counter[str] = Counter()
    reasons: Counter[Status] = Counter()
    for one in windows:
        if one.language is None:
            reasons[one.status] += one.end - one.start
        else:
            chars[one.language] += one.end - one.start
    known = chars.total()
    if not known or known < MIN_COVERED * len(text):
        status: Status = min(reasons, key=lambda r: (-reasons[r], r)) if reasons else "empty"
        return Languages(None, None, None, status, windows)
    first = min(chars, key=lambda name: (-chars[name], name))
    own = [one for one in windows if one.language == first]
    sure = sum((one.end - one.start) * (one.sure or 0.0) for one in own)
    return Languages(first, sure / known, 1 - chars[first] / known, "ok", windows)


def windows_of(length: int, size: int) -> list[tuple[int, int]]:
    """Windows of `size` characters that tile a text; a last one below half joins the one before."""
    bounds = [*range(0, length, size), length]
    if len(bounds) > 2 and bounds[-1] - bounds[-2] < size / 2:
        del bounds[-2]
    return list(pairwise(bounds))


def prose_of(text: str) -> str:
    """The parts of a text that can be in a language, joined by spaces."""
    return " ".join(_PROSE.findall(text))


def _window(text: str, start: int, end: int, model: "Model", min_confidence: float) -> Window:
    piece = text[start:end]
    status: Status
    dense = _dense(piece)
    if not dense:
        status = "empty"
    elif not any(map(str.isalpha, piece)):
        status = "no_letters"
    else:
        prose = prose_of(piece)
        found = _dense(prose)
        if found < MIN_PROSE * dense and dense >= MIN_BYTES:
            status = "no_prose"
        elif found < MIN_BYTES:
            status = "too_short"
        else:
            return _named(start, end, *model.classify(prose), min_confidence)
    return Window(start, end, None, None, status)


def _named(start: int, end: int, label: str, confidence: float, least: float) -> Window:
    name = _SAME.get(label, label)
    if confidence < least or label == _NO_LANGUAGE:
        return Window(start, end, None, None, "uncertain")
    if len(name) != 2:
        return Window(start, end, None, None, "other")
    return Window(start, end, name, confidence, "ok")


def _dense(text: str) -> int:
    """UTF-8 bytes that are no white space."""
    return len("".join(text.split()).encode())


@njit(nogil=True, cache=True)
def _add_scores(
    data: U8, moves: U32, row: U32, out: I32, table: F32, counts: I32, seen: I32, scores: F64
) -> None:
    """Add to `scores` log(1 + count) times the weights of every n-gram of `data`.

    `moves` has the 256 successors of a state at 256 * row[state]; `out` is the n-gram that ends in
    a state, or -1. `counts` is all zeros before and after, `seen` is room for all n-grams.
    """
    state, n_seen = 0, 0
    for byte in data:
        state = moves[(row[state] << 8) + byte]
        ngram = out[state]
        if ngram >= 0:
            if counts[ngram] == 0:
                seen[n_seen] = ngram
                n_seen += 1
            counts[ngram] += 1
    for ngram in seen[:n_seen]:
        weight = np.log1p(np.float64(counts[ngram]))
        counts[ngram] = 0
        for k in range(scores.size):
            scores[k] += weight * table[ngram, k]


class Model:
    """The packaged model of langid, and the arrays that its automaton and its sums work in."""

    def __init__(self, ptc: Any, pc: Any, classes: list[str], moves: Any, row: Any, out: Any):
        self._table = np.ascontiguousarray(ptc, dtype=np.float32)  # n-grams x classes
        self._prior = np.asarray(pc, dtype=np.float64)
        self._moves = np.asarray(moves, dtype=np.uint32)
        self._row = np.asarray(row, dtype=np.uint32)
        self._out = np.asarray(out, dtype=np.int32)
        # Several classes may have one name: Serbian has one for each script.
        self._names, named = np.unique(np.asarray(classes), return_inverse=True)
        self._named = named
        self._counts = np.zeros(len(self._table), dtype=np.int32)
        self._seen = np.empty(len(self._table), dtype=np.int32)

    def classify(self, text: str) -> tuple[str, float]:
        """The most probable label of a text and its probability.

        As in the package, scores are divided by the square root of the number of bytes before they
        become probabilities: n-grams that overlap are no independent evidence.
        """
        text = unicodedata.normalize("NFC", text.lower() if text.isupper() else text)
        data = np.frombuffer(text.encode(), dtype=np.uint8)
        scores = self._prior.copy()
        _add_scores(
            data, self._moves, self._row, self._out, self._table, self._counts, self._seen, scores
        )
        scores /= np.sqrt(max(data.size, 1))
        shares = np.exp(scores - scores.max())
        shares = np.bincount(self._named, weights=shares / shares.sum())
        best = int(shares.argmax())
        return str(self._names[best]), float(shares[best])


@functools.lru_cache(maxsize=1)
def packaged_model() -> Model:
    """The model of py3langid, loaded once per process (0.6 s)."""
    from py3langid.langid import MODEL_DIR, MODEL_FILE
    from py3langid.modelio import load_model

    return Model(*load_model(MODEL_DIR / MODEL_FILE))
