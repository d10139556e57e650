"""Length and quality heuristics as columns: Gopher, C4 and FineWeb, per document and per window.

Gopher (arXiv 2112.11446), C4 (1910.10683), FineWeb (2406.17557). Nothing is dropped here; the
bounds are in `longctx.filter.profiles`. What we changed: the share of alphabetic words is over
words with an alphanumeric character (over all words, dialogue with its 18 % of punctuation sits at
the limit); lines and paragraphs are those of the stripped text; FineWeb's line ends are looked at
after stripping white space on the right, or files with "\\r\\n" would have none.

The words of a document are found once and its windows are slices of the same arrays. Cost: a few
MB/s per core for a document with its windows (words and lines in Python, n-grams compiled), memory
about 15 bytes per character.
"""

import re
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from longctx.filter.c4 import count_sentences
from longctx.filter.repetition import Words, repeated_characters, slices_at_spaces

WINDOW_WORDS = 2_000
TERMINAL = tuple(".?!…\"'”’。！？」』؟।")
_PARAGRAPH = re.compile(r"\n{2,}")


def doc_stats(text: str) -> dict[str, Any]:
    """Columns `h_*` of one text.

    Counts are ints, `h_lorem` is a bool, the rest are floats in [0, 1] or counts per word; the mean
    word length and the share of alphabetic words are None for a text without words. Lengths are
    characters (`h_n_bytes`: UTF-8 bytes).
    """
    return _stats(text, Words.of(text))


def doc_and_window_stats(
    text: str, window_words: int = WINDOW_WORDS
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Columns of a document, and of each of its windows with `win_id, start_char, end_char`.

    The windows tile the text: each runs from the start of its first word to that of the next
    window's, the first begins at 0, the last ends with the text. Their columns are those of
    `doc_stats(text[start_char:end_char].strip())`.
    """
    found = Words.of(text)
    whole = _stats(text, found)
    rows = []
    for win_id, (first, last) in enumerate(window_words_of(found, window_words)):
        start = 0 if first == 0 else int(found.starts[first])
        end = len(text) if last == len(found) else int(found.starts[last])
        inside = text[start:end].strip()
        columns = whole if inside == text else _stats(inside, found.slice(first, last))
        rows.append({"win_id": win_id, "start_char": start, "end_char": end} | columns)
    return whole, rows


def window_words_of(found: Words, size: int = WINDOW_WORDS) -> list[tuple[int, int]]:
    """Half-open word ranges of the windows: `size` non-symbol words each.

    A last window of less than half of that is merged into the one before; a text of less than
    `size` is one window.
    """
    plain = np.flatnonzero(~found.symbol)
    starts = plain[::size].tolist()
    if len(starts) > 1 and len(plain) - size * (len(starts) - 1) < size / 2:
        starts.pop()
    edges = [0, *starts[1:], len(found)]
    return list(pairwise(edges))


def _stats(text: str, found: Words) -> dict[str, Any]:
    return (
        _word_columns(text, found)
        | _line_columns(text)
        | _repetition_columns(text, found)
        | _fineweb_columns(text, len(found))
        | {
            "h_braces": text.count("{"),
            "h_lorem": "lorem ipsum" in text.lower(),
            "h_sentences": count_sentences(text),
        }
    )


def _word_columns(text: str, found: Words) -> dict[str, Any]:
    n_tok = len(found)
    plain = ~found.symbol
    n_words = int(plain.sum())
    lengths = np.diff(found.bounds)
    stops = np.unique(found.stop)
    return {
        "h_n_bytes": len(text.encode("utf-8", "surrogatepass")),
        "h_n_chars": len(text),
        "h_n_words": n_words,
        "h_n_tok": n_tok,
        "h_mean_word_len": int(lengths[plain].sum()) / n_words if n_words else None,
        "h_hash": _ratio(text.count("#"), n_tok),
        "h_ellipsis": _ratio(text.count("...") + text.count("…"), n_tok),
        "h_alpha": int(found.alpha.sum()) / n_words if n_words else None,
        "h_stop": int((stops >= 0).sum()),
        "h_max_word": _longest_run(text),
    }


def _line_columns(text: str) -> dict[str, float]:
    lines = text.splitlines()
    bullets = sum(line.lstrip().startswith(("•", "-")) for line in lines)
    ends = sum(line.rstrip().endswith(("...", "…")) for line in lines)
    return {"h_bullets": _ratio(bullets, len(lines)), "h_end_ellipsis": _ratio(ends, len(lines))}


def _repetition_columns(text: str, found: Words) -> dict[str, float]:
    stripped = text.strip()
    # Each list is a copy of the text: none of them lives on while the next thing is done.
    columns = _element_columns("para", _PARAGRAPH.split(stripped), len(text))
    columns |= _element_columns("line", [x for x in stripped.split("\n") if x], len(text))
    repeated = repeated_characters(found)
    return columns | {f"h_{key}": _ratio(value, len(text)) for key, value in repeated.items()}


def _element_columns(name: str, elements: Sequence[str], length: int) -> dict[str, float]:
    duplicates, characters = _duplicates(elements)
    return {
        f"h_dup_{name}": _ratio(duplicates, len(elements)),
        f"h_dup_{name}_chars": _ratio(characters, length),
    }


def _fineweb_columns(text: str, n_tok: int) -> dict[str, float]:
    lines = [line for raw in text.split("\n") if (line := raw.rstrip())]
    ended = sum(line.endswith(TERMINAL) for line in lines)
    short = sum(len(line) <= 30 for line in lines)
    newlines = text.count("\n")
    return {
        "h_line_punct": _ratio(ended, len(lines)),
        "h_short_lines": _ratio(short, len(lines)),
        "h_fw_dup_chars": _ratio(_duplicates(lines)[1], len(text) - newlines),
        "h_newlines": _ratio(newlines, n_tok),
    }


def _duplicates(elements: Sequence[str]) -> tuple[int, int]:
    """Elements equal to an earlier one, and their characters."""
    total = sum(map(len, elements))
    distinct = set(elements)
    return len(elements) - len(distinct), total - sum(map(len, distinct))


def _longest_run(text: str) -> int:
    return max(max(map(len, piece.split()), default=0) for piece in slices_at_spaces(text))


def _ratio(part: int, whole: int) -> float:
    return part / whole if whole else 0.0
