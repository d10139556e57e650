"""Where a row stands in an order that no process holds, by counting in ever narrower ranges (ours).

Rows are ordered by score, descending, then by doc_id, ascending. A cell is a range of that order
with the number of its rows and tokens and of those before it. In each round every part counts its
rows in the subdivisions of the cells that matter, the counts are added, and only subdivisions that
still matter are divided again: a radix selection, whose digits follow the values that occur. So any
place of the order is found exactly, for any distribution and any division into parts, and equal
scores are told apart by their ids.

A part reports at most about 4,096 counts for each line (score and group) and round; a round divides
the rows in question by some hundreds: two rounds bring 10^9 rows to some millions.
"""

import itertools
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from longctx.filter.cut import F64
from longctx.ids import U64

I64 = npt.NDArray[np.int64]

MOST = 2**64 - 1
_SIGN = np.uint64(1 << 63)
_COUNTS = 12  # bits: counts of a line that a part may report
_LEAST = 2
_WORD = 8  # bytes of an id that are looked at in one round

COUNTS = pa.schema(
    [
        ("cell", pa.int32()),
        ("digit", pa.int32()),
        ("docs", pa.int64()),
        ("tokens", pa.int64()),
        ("lo", pa.uint64()),
        ("hi", pa.uint64()),
        ("first", pa.string()),
        ("last", pa.string()),
    ]
)


class Cell(NamedTuple):
    """Consecutive rows of an order: keys `lo` … `hi`, inclusive.

    Where these are equal the scores are, and `first` … `last` are the smallest and the largest id
    (None before ids were looked at). `docs` and `tokens` are inside, the other two before it.
    """

    lo: int = 0
    hi: int = MOST
    docs: int = 0
    tokens: int = 0
    docs_before: int = 0
    tokens_before: int = 0
    first: str | None = None
    last: str | None = None

    @property
    def is_tied(self) -> bool:
        """Whether all its rows have one score."""
        return self.lo == self.hi

    @property
    def end(self) -> int:
        """The place after its last row."""
        return self.docs_before + self.docs

    def holds(self, place: int) -> bool:
        """Whether the row at a place of the order (from 0) is in it."""
        return self.docs_before <= place < self.end


def order_keys(scores: npt.ArrayLike) -> U64:
    """Keys that ascend where scores descend; NaN must not be among them. Zeros are equal."""
    bits = (np.asarray(scores, np.float64) + 0.0).view(np.uint64)
    ascending = np.where(bits & _SIGN, ~bits, bits | _SIGN)
    return np.asarray(~ascending, np.uint64)


def scores_of(keys: npt.ArrayLike) -> F64:
    """Inverse of `order_keys`."""
    ascending = ~np.asarray(keys, np.uint64)
    bits = np.where(ascending & _SIGN, ascending & ~_SIGN, ~ascending)
    return np.asarray(bits, np.uint64).view(np.float64)


def locate(keys: U64, ids: pa.Array, cells: Sequence[Cell]) -> I64:
    """The cell of each row, int64[n], by its place in `cells`; -1 for rows that are in none."""
    found = np.full(len(keys), -1, np.int64)
    named = defaultdict(list)
    plain = []
    for number, cell in enumerate(cells):
        if cell.first is None:
            plain.append(number)
        else:
            named[cell.lo].append(number)
    if plain:
        lows, highs = (
            np.array([getattr(cells[i], n) for i in plain], np.uint64) for n in ("lo", "hi")
        )
        at = np.searchsorted(lows, keys, side="right") - 1
        inside = (at >= 0) & (keys <= highs[np.maximum(at, 0)])
        found[inside] = np.array(plain)[at[inside]]
    for key, numbers in named.items():
        firsts = [cells[i].first for i in numbers]
        rows = np.flatnonzero(keys == np.uint64(key))
        for row, doc_id in zip(rows.tolist(), ids.take(pa.array(rows)).to_pylist(), strict=True):
            at_id = bisect_right(firsts, doc_id) - 1
            if at_id >= 0 and doc_id <= cells[numbers[at_id]].last:
                found[row] = numbers[at_id]
    return found


def counted(keys: U64, tokens: I64, ids: pa.Array, cells: Sequence[Cell]) -> pa.Table:
    """Rows of a part in each subdivision of each cell, as COUNTS; empty ones are left out."""
    where = locate(keys, ids, cells)
    rows = np.flatnonzero(where >= 0)
    cell, key, names = where[rows], keys[rows], ids.take(pa.array(rows))
    bits = max(_LEAST, _COUNTS - (len(cells) - 1).bit_length())
    digit = _digits(key, names, cell, cells, bits)
    code = (cell << bits) | digit
    order = np.argsort(code, kind="stable")
    codes, starts = np.unique(code[order], return_index=True)
    if not len(codes):
        return COUNTS.empty_table()
    ends = np.append(starts[1:], len(order))
    key, held = key[order], tokens[rows][order]
    tied = np.array([c.is_tied for c in cells])[codes >> bits]
    first: list[str | None] = [None] * len(codes)
    last = list(first)
    for i in np.flatnonzero(tied).tolist():
        own = names.take(pa.array(order[starts[i] : ends[i]])).to_pylist()
        first[i], last[i] = min(own), max(own)
    return pa.table(
        {
            "cell": codes >> bits,
            "digit": codes & (2**bits - 1),
            "docs": ends - starts,
            "tokens": np.add.reduceat(held, starts),
            "lo": np.minimum.reduceat(key, starts),
            "hi": np.maximum.reduceat(key, starts),
            "first": first,
            "last": last,
        }
    ).cast(COUNTS)


def _digits(key: U64, ids: pa.Array, cell: I64, cells: Sequence[Cell], bits: int) -> I64:
    """The subdivision of its cell that each row lies in, in the order of the rows: below 2^bits."""
    lows = np.array([c.lo for c in cells], np.uint64)
    shifts = np.array([_shift(c.lo, c.hi, bits) for c in cells], np.uint64)
    digit = ((key - lows[cell]) >> shifts[cell]).astype(np.int64)
    for number in np.unique(cell).tolist():
        tied = cells[number]
        if tied.is_tied:
            rows = np.flatnonzero(cell == number)
            digit[rows] = _id_digits(ids.take(pa.array(rows)).to_pylist(), tied, bits)
    return digit


def _id_digits(ids: list[str], cell: Cell, bits: int) -> I64:
    """The same for rows of one score, by the first bytes in which the ids of the cell differ."""
    if cell.first is None or cell.last is None:
        at, low, high = 0, 0, MOST
    else:
        first, last = cell.first.encode(), cell.last.encode()
        same = itertools.takewhile(lambda pair: pair[0] == pair[1], zip(first, last, strict=False))
        at = sum(1 for _ in same)
        low, high = _word(first, at), _word(last, at)
    words = np.array([_word(i.encode(), at) for i in ids], np.uint64)
    shift = np.uint64(_shift(low, high, bits))
    return ((words - np.uint64(low)) >> shift).astype(np.int64)


def _shift(low: int, high: int, bits: int) -> int:
    return max(0, (high - low).bit_length() - bits)


def _word(name: bytes, at: int) -> int:
    return int.from_bytes(name[at : at + _WORD].ljust(_WORD, b"\0"), "big")


def added(counts: pa.Table, lines: list[str]) -> pa.Table:
    """Counts of all parts together; `lines` are the columns that tell lines apart."""
    sums = [(n, "sum") for n in ("docs", "tokens")]
    least = [(n, "min") for n in ("lo", "first")]
    most = [(n, "max") for n in ("hi", "last")]
    by = [*lines, "cell", "digit"]
    found = counts.group_by(by, use_threads=False).aggregate([*sums, *least, *most])
    names = {f"{n}_{how}": n for n, how in (*sums, *least, *most)}
    found = found.rename_columns([names.get(n, n) for n in found.column_names])
    return found.sort_by([(n, "ascending") for n in by])


def divided(cells: Sequence[Cell], counts: Iterable[dict[str, object]]) -> list[Cell]:
    """The subdivisions of a line's cells in order, from the added counts as rows."""
    found: list[Cell] = []
    number = -1
    docs = tokens = 0
    for row in counts:
        if row["cell"] != number:
            number = int(row["cell"])  # type: ignore[call-overload]
            docs, tokens = cells[number].docs_before, cells[number].tokens_before
        values = {n: row[n] for n in ("lo", "hi", "docs", "tokens", "first", "last")}
        made = Cell(**values, docs_before=docs, tokens_before=tokens)  # type: ignore[arg-type]
        found.append(made)
        docs, tokens = made.end, tokens + made.tokens
    return found
