"""kNN-Pretraining: contexts of related sentences that are not neighbours in their texts.

Levine et al. (arXiv 2110.04541) show that a transformer models dependencies inside a training
example far better than dependencies between examples, and put semantically related sentences of a
corpus into one example. `knn_examples` builds such examples around anchor sentences from their
neighbour lists. The paper's encoder, number of neighbours, lengths and shares are not public, so
all parameters are ours, and so are the rules that keep copies out: no two units of one document,
no near-copy of the anchor by cosine or of any chosen unit by its characters, no unit used twice.

`knn_repeat` is the document-level baseline that In-Context Pretraining (arXiv 2310.10638) compares
with and finds worse than a random order: every document with its nearest neighbours, repeats
allowed.

Cost of the examples: one pass over the lists; each candidate that passes the cheap rules has its
character 3-grams compared with those of the units chosen so far (about 1 µs a pair). Lost: anchors
whose neighbours are all copies, unrelated or used up.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numba
import numpy as np
import numpy.typing as npt

from longctx.cluster.similarity import F32, I32, I64
from longctx.ids import U64, mix64
from longctx.order.units import MIN_UNIT
from longctx.text.normalise import squeeze

InnerOrder = Literal["descending", "ascending", "shuffled"]
COPY_AT = 0.7


@dataclass(frozen=True)
class Units:
    """The units that lists name, 0..n-1 by (document, place in it).

    `doc` int64[n] the number of the document, `sent` int64[n] the unit's place in it, `tokens`
    int64[n], `text` n strings, `key` uint64[n] for the shuffled inner order.
    """

    doc: I64
    sent: I64
    tokens: I64
    text: Sequence[str]
    key: U64


class Example(NamedTuple):
    """One training example: units int64[m] in reading order and their cosine to the anchor."""

    anchor: int
    units: I64
    sims: F32


@dataclass(frozen=True)
class Rules:
    """What may stand in one example; the defaults are those of the op `order.neighbours`."""

    min_gap: int | None = None
    dup_hi: float = 0.95
    rel_lo: float = 0.5
    max_reuse: int = 1
    inner_order: InnerOrder = "descending"
    min_unit: int = MIN_UNIT


def knn_examples(
    units: Units,
    anchors: I64,
    lists: I32 | I64,
    sims: F32,
    length: int,
    *,
    separator: int = 1,
    rules: Rules | None = None,
    count: int | None = None,
) -> tuple[list[Example], dict[str, int]]:
    """Examples around the `anchors` (int64[a], in order of priority), `count` of them at most.

    `lists` [a, K] and `sims` float32[a, K] hold the neighbours of each anchor, best first, -1 where
    there are no more. Units are added in that order while all tokens and one `separator` for each
    unit fit into `length`; one that does not fit is skipped. An anchor that finds no company, or
    has been used up by earlier examples, gives no example.

    The second result counts anchors (`anchors_tried`, `anchors_used_up`, `anchors_alone`) and the
    candidates that were passed over, by reason (`passed_…`).
    """
    rules = rules or Rules()
    used: Counter[int] = Counter()
    counts: Counter[str] = Counter()
    copies = _Copies(units.text)
    found: list[Example] = []
    for anchor, row, sim in zip(anchors.tolist(), lists, sims, strict=True):
        if count is not None and len(found) >= count:
            break
        counts["anchors_tried"] += 1
        if used[anchor] >= rules.max_reuse:
            counts["anchors_used_up"] += 1
            continue
        chosen = _company(units, anchor, row, sim, length, separator, rules, used, copies, counts)
        if not chosen:
            counts["anchors_alone"] += 1
            continue
        used.update([anchor, *(u for u, _ in chosen)])
        found.append(_ordered(units, anchor, chosen, rules.inner_order))
    return found, dict(counts)


def _company(
    units: Units,
    anchor: int,
    row: I32 | I64,
    sim: F32,
    length: int,
    separator: int,
    rules: Rules,
    used: Counter[int],
    copies: "_Copies",
    counts: Counter[str],
) -> list[tuple[int, float]]:
    """Units that join an anchor, with their cosines, in order of similarity."""
    room = length - int(units.tokens[anchor]) - separator
    near: dict[int, list[int]] = {int(units.doc[anchor]): [int(units.sent[anchor])]}
    dup_hi, rel_lo = np.float32(rules.dup_hi), np.float32(rules.rel_lo)
    copies.begin(anchor)
    chosen: list[tuple[int, float]] = []
    for unit, cosine in zip(row.tolist(), sim, strict=True):
        if unit < 0 or cosine < rel_lo or room < rules.min_unit + separator:
            break
        doc, sent, size = int(units.doc[unit]), int(units.sent[unit]), int(units.tokens[unit])
        if _too_near(near.get(doc), sent, rules.min_gap):
            counts["passed_same_document"] += 1
        elif cosine >= dup_hi:
            counts["passed_near_copy_by_cosine"] += 1
        elif used[unit] >= rules.max_reuse:
            counts["passed_used"] += 1
        elif size + separator > room:
            counts["passed_too_long"] += 1
        elif not copies.add(unit):
            counts["passed_near_copy_by_characters"] += 1
        else:
            chosen.append((unit, float(cosine)))
            near.setdefault(doc, []).append(sent)
            room -= size + separator
    return chosen


def _too_near(taken: list[int] | None, sent: int, min_gap: int | None) -> bool:
    """Whether a unit stands in a document (or, with `min_gap`, near a place) already taken."""
    if taken is None:
        return False
    return min_gap is None or any(abs(sent - other) <= min_gap for other in taken)


def _ordered(
    units: Units, anchor: int, chosen: list[tuple[int, float]], inner: InnerOrder
) -> Example:
    numbers = np.array([anchor, *(u for u, _ in chosen)], dtype=np.int64)
    cosines = np.array([1.0, *(s for _, s in chosen)], dtype=np.float32)
    order = np.arange(len(numbers))
    if inner == "ascending":
        order = order[::-1]
    elif inner == "shuffled":
        order = np.argsort(mix64(units.key[numbers] ^ mix64(units.key[anchor])), kind="stable")
    return Example(anchor, numbers[order], cosines[order])


def grams(text: str) -> U64:
    """The set of character 3-grams of a text (white space squeezed), sorted; uint64[g].

    Exact: three code points fit one number. A text shorter than three characters is its own gram.
    """
    codes = np.frombuffer(squeeze(text).encode("utf-32-le"), dtype=np.uint32).astype(np.uint64)
    if len(codes) < 3:
        codes = np.append(codes, np.zeros(3 - len(codes), dtype=np.uint64))
    shift = np.uint64(21)
    return np.unique((((codes[:-2] << shift) | codes[1:-1]) << shift) | codes[2:])


def jaccard(a: str, b: str) -> float:
    """Shared share of the character 3-grams of two texts."""
    one, two = grams(a), grams(b)
    shared = len(np.intersect1d(one, two, assume_unique=True))
    return shared / (len(one) + len(two) - shared)


@numba.njit(cache=True, nogil=True)
def _resembles(flat, ends, count, found, at):  # type: ignore[no-untyped-def]
    """Whether a sorted set has a Jaccard of at least `at` with any of the first `count` sets."""
    m = found.shape[0]
    begin = 0
    for s in range(count):
        n = ends[s] - begin
        if min(m, n) >= at * max(m, n):
            i, j, shared = 0, begin, 0
            while i < m and j < ends[s]:
                if found[i] == flat[j]:
                    shared += 1
                    i += 1
                    j += 1
                elif found[i] < flat[j]:
                    i += 1
                else:
                    j += 1
            if shared / (m + n - shared) >= at:
                return True
        begin = ends[s]
    return False


class _Copies:
    """The 3-gram sets of the units chosen for one example, end to end."""

    def __init__(self, text: Sequence[str]) -> None:
        self._text = text
        self._flat: U64 = np.zeros(1 << 14, dtype=np.uint64)
        self._ends: npt.NDArray[np.int64] = np.zeros(1 << 8, dtype=np.int64)
        self._count = 0

    def begin(self, unit: int) -> None:
        """A new example around this unit."""
        self._count = 0
        self._put(grams(self._text[unit]))

    def add(self, unit: int) -> bool:
        """Take a unit in, unless it nearly equals one that is there."""
        found = grams(self._text[unit])
        if _resembles(self._flat, self._ends, self._count, found, COPY_AT):
            return False
        self._put(found)
        return True

    def _put(self, found: U64) -> None:
        begin = int(self._ends[self._count - 1]) if self._count else 0
        end = begin + len(found)
        if end > len(self._flat):
            self._flat = np.concatenate([self._flat, np.zeros(end, dtype=np.uint64)])
        if self._count == len(self._ends):
            self._ends = np.concatenate([self._ends, np.zeros_like(self._ends)])
        self._flat[begin:end] = found
        self._ends[self._count] = end
        self._count += 1


class Repeats(NamedTuple):
    """Contexts of whole documents: rows by context, then by place in it, all int64.

    `doc` stands in context `tour` with its first `end` tokens.
    """

    tour: I64
    doc: I64
    end: I64


def knn_repeat(
    lists: I32,
    sims: F32,
    tokens: I64,
    order: I64,
    length: int,
    *,
    separator: int = 1,
    dup_hi: float = 0.95,
) -> Repeats:
    """One context for each document: itself, then its neighbours, best first, until `length`.

    `lists` int32[n, k] and `sims` float32[n, k] are the neighbours of the documents 0..n-1, best
    first, -1 where there are no more; `tokens` int64[n]; `order` int64[n] the contexts' order.
    A document stands whole in its own context (alone, if it is longer than `length`), and in those
    of others as often as it is a neighbour; the last neighbour is cut to the room that is left.
    Neighbours at cosine `dup_hi` or above are passed over: they would teach copying. Documents
    without tokens stand nowhere.
    """
    tour: list[int] = []
    doc: list[int] = []
    end: list[int] = []
    placed = order[tokens[order] > 0]
    for context, own in enumerate(placed.tolist()):
        size = int(tokens[own])
        rows = [(own, size)]
        room = length - size - separator
        for other, sim in zip(lists[own].tolist(), sims[own], strict=True):
            if other < 0 or room <= separator:
                break
            if sim >= np.float32(dup_hi) or tokens[other] == 0:
                continue
            size = min(int(tokens[other]), room - separator)
            rows.append((other, size))
            room -= size + separator
        tour += [context] * len(rows)
        doc += [other for other, _ in rows]
        end += [size for _, size in rows]
    return Repeats(*(np.array(a, dtype=np.int64) for a in (tour, doc, end)))
