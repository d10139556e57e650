"""Long texts in slices that tokenizers may take one by one, and their ids joined again.

Memory beyond the text and the ids is bounded, and no regular expression meets a run that it cannot
backtrack over (a million spaces overflow tiktoken's). Slices end between a letter or digit and a
space or separator that follows it: the pre-tokenisers of the GPT-2 family, from cl100k to Qwen, and
BERT's always break there, so ids are the same as in one piece. What is lost: a run of `SLICE_CHARS`
characters without such a place (a blob without spaces or punctuation) is cut by force, which
changes a few ids per cut (none in a run of one repeated character); a vocabulary with a word-start
marker (SentencePiece) gets one extra marker at each slice boundary.
"""

import re
import unicodedata
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from longctx.text.normalise import pieces

Ids = npt.NDArray[np.int32]

SLICE_CHARS = 1 << 17
# So many characters are encoded at once at the most.
BATCH_CHARS = 1 << 22
_CUT = re.compile(r"[^\W_](?=[\s,.;:!?，。；：！？、])")


def slices(text: str, limit: int = SLICE_CHARS) -> Iterator[str]:
    """Consecutive pieces of `text` of at most `limit` characters that join to it again.

    Pieces end where pre-tokenisers break; without such a place in `limit` characters, at `limit`.
    """
    start = 0
    while len(text) - start > limit:
        end = _last_cut(text, start, start + limit)
        yield text[start:end]
        start = end
    if start == 0 or start < len(text):
        yield text[start:]


def composed_slices(text: str, limit: int = SLICE_CHARS) -> Iterator[str]:
    """`slices` of the text in NFC, which is never composed as a whole: that takes ten times it."""
    held = ""
    for piece in pieces(text):
        held += unicodedata.normalize("NFC", piece)
        *whole, held = slices(held, limit)
        yield from whole
    yield held


def _last_cut(text: str, start: int, end: int) -> int:
    # Nearly every text has a cut in its last few words: look there before reading the whole slice.
    for first in (max(start, end - 1024), start):
        cut = max((m.end() for m in _CUT.finditer(text, first, end)), default=start)
        if cut > start:
            return cut
    return end


def joined(pieces: Iterator[npt.NDArray[Any]]) -> Ids:
    """Ids of consecutive pieces in one array that grows in place, int32."""
    first = next(pieces)
    ids, size = first.astype(np.int32), len(first)
    for piece in pieces:
        if size + len(piece) > len(ids):
            ids.resize((size + len(piece)) * 5 // 4, refcheck=False)
        ids[size : size + len(piece)] = piece
        size += len(piece)
    ids.resize(size, refcheck=False)
    return ids


def encodable(text: str) -> str:
    """Replace lone surrogates, which have no UTF-8 form, by U+FFFD."""
    if text.isascii():
        return text
    try:
        for start in range(0, len(text), BATCH_CHARS):
            text[start : start + BATCH_CHARS].encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text
