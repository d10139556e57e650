"""Length and quality heuristics as columns: Gopher, C4 and FineWeb, per document and per window.

Gopher (arXiv 2112.11446), C4 (1910.10683), FineWeb (2406.17557). Nothing is dropped here; the
bounds are in `longctx.filter.profiles`. What we changed: the share of alphabetic words is over
words with an alphanumeric character (over all words, dialogue with its 18 % of punctuation sits at
the limit); lines and paragraphs are those of the stripped text; FineWeb's line ends are looked at
after stripping white space on the right, or files with "\\r\\n" would have none.

The text is read as UTF-8 where it lies, by compiled code, and its windows are slices of it. Memory
beside the text: about twice its bytes for prose (a number a word, then a table of n-grams), three
times where every fourth word is new.
"""

from collections.abc import Iterator
from itertools import pairwise, starmap
from typing import Any, NamedTuple

from longctx.filter import lines
from longctx.filter.c4_kernel import count_sentences
from longctx.filter.repetition import repeated_characters
from longctx.filter.words import Marks, Words, totals
from longctx.text.utf8 import U8, as_utf8, char_kinds, stripped

WINDOW_WORDS = 2_000


class Window(NamedTuple):
    """A window: its words, and where it lies in bytes and in characters, all half-open."""

    words: tuple[int, int]
    bytes: tuple[int, int]
    chars: tuple[int, int]


def doc_stats(text: str | U8) -> dict[str, Any]:
    """Columns `h_*` of one text, a string or its UTF-8 bytes.

    Counts are ints, `h_lorem` is a bool, the rest are floats in [0, 1] or counts per word; the mean
    word length and the share of alphabetic words are None for a text without words. Lengths are
    characters (`h_n_bytes`: UTF-8 bytes).
    """
    data = as_utf8(text)
    return _stats(data, Words.of(data))


def doc_and_window_stats(
    text: str | U8, window_words: int = WINDOW_WORDS
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Columns of a document, and of each of its windows with `win_id, start_char, end_char`.

    The windows tile the text: each runs from the start of its first word to that of the next
    window's, the first begins at 0, the last ends with the text. Their columns are those of
    `doc_stats(text[start_char:end_char].strip())`.
    """
    data = as_utf8(text)
    found, marks = Words.marked(data, window_words)
    whole = _stats(data, found)
    rows = []
    for win_id, window in enumerate(_windows(data, found, whole, marks, window_words)):
        start, end = stripped(data, *window.bytes, char_kinds())
        is_all = end - start == len(data)
        columns = whole if is_all else _stats(data[start:end], found.slice(*window.words))
        place = {"win_id": win_id, "start_char": window.chars[0], "end_char": window.chars[1]}
        rows.append(place | columns)
    return whole, rows


def _windows(
    data: U8, found: Words, whole: dict[str, Any], marks: Marks, size: int
) -> Iterator[Window]:
    """Windows of `size` words that are not of symbols only; `marks` are the first of each.

    A last window of less than half of that is merged into the one before; a text of less than
    `size` is one window.
    """
    count = len(marks.words)
    if count > 1 and whole["h_n_words"] - size * (count - 1) < size / 2:
        count -= 1
    ends = len(found), len(data), whole["h_n_chars"]
    edges = [[0, *at[1:count].tolist(), end] for at, end in zip(marks, ends, strict=True)]
    yield from starmap(Window, zip(*map(pairwise, edges), strict=True))


def _stats(data: U8, found: Words) -> dict[str, Any]:
    seen = lines.figures(data)
    return (
        _word_columns(data, found, seen)
        | _repetition_columns(data, found, seen)
        | _fineweb_columns(data, len(found), seen)
        | {
            "h_bullets": _ratio(seen.bullets, seen.lines),
            "h_end_ellipsis": _ratio(seen.trailing, seen.lines),
            "h_braces": seen.braces,
            "h_lorem": seen.lorem,
            "h_sentences": count_sentences(data),
        }
    )


def _word_columns(data: U8, found: Words, seen: lines.Figures) -> dict[str, Any]:
    counted = totals(found)
    return {
        "h_n_bytes": len(data),
        "h_n_chars": seen.chars,
        "h_n_words": counted.words,
        "h_n_tok": len(found),
        "h_mean_word_len": counted.chars / counted.words if counted.words else None,
        "h_hash": _ratio(seen.hashes, len(found)),
        "h_ellipsis": _ratio(seen.ellipses, len(found)),
        "h_alpha": counted.alpha / counted.words if counted.words else None,
        "h_stop": counted.stops,
        "h_max_word": seen.longest,
    }


def _repetition_columns(data: U8, found: Words, seen: lines.Figures) -> dict[str, float]:
    columns = {}
    inside = stripped(data, 0, len(data), char_kinds())
    for name, newlines in (("para", 2), ("line", 1)):
        spans = lines.spans_between(data, *inside, newlines, strip=False)
        duplicates, characters = lines.duplicates(data, spans)
        columns[f"h_dup_{name}"] = _ratio(duplicates, len(spans))
        columns[f"h_dup_{name}_chars"] = _ratio(characters, seen.chars)
    repeated = repeated_characters(found)
    return columns | {f"h_{key}": _ratio(value, seen.chars) for key, value in repeated.items()}


def _fineweb_columns(data: U8, n_tok: int, seen: lines.Figures) -> dict[str, float]:
    spans = lines.spans_between(data, 0, len(data), 1, strip=True)
    ended, short = lines.ended_and_short(data, spans)
    return {
        "h_line_punct": _ratio(ended, len(spans)),
        "h_short_lines": _ratio(short, len(spans)),
        "h_fw_dup_chars": _ratio(lines.duplicates(data, spans)[1], seen.chars - seen.newlines),
        "h_newlines": _ratio(seen.newlines, n_tok),
    }


def _ratio(part: int, whole: int) -> float:
    return part / whole if whole else 0.0
