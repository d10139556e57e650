"""Packing as packing.md states it, in plain Python, and small builders shared by the tests."""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
from hypothesis import settings

from longctx.pack.frame import Placement, Plan, frame
from longctx.pack.windows import FramedDocuments

Span = tuple[int, int, int]

steady = settings(derandomize=True, deadline=None, max_examples=150)


def one_tour(n: int) -> np.ndarray:
    return np.zeros(n, dtype=np.int32)


def windows_of(plan: Plan | Placement) -> list[list[Span]]:
    """Windows as lists of (document, start, end); window numbers must be 0, 1, 2, ..."""
    p = plan.placement if isinstance(plan, Plan) else plan
    out: list[list[Span]] = []
    for w, d, s, e in zip(p.window, p.document, p.start, p.end, strict=True):
        if w == len(out):
            out.append([])
        assert w == len(out) - 1
        out[-1].append((int(d), int(s), int(e)))
    return out


def reference_window(
    lengths: Sequence[int],
    length: int,
    look_ahead: int,
    rule: str,
    fill_policy: str,
    vectors: np.ndarray | None = None,
) -> tuple[list[list[Span]], int]:
    """Section 4 word for word for one stream, and the tokens lost to cropping."""
    stream = [
        (doc, start, min(start + length, n))
        for doc, n in enumerate(lengths)
        for start in range(0, n, length)
    ]
    buffer: list[Span] = []
    windows: list[list[Span]] = []
    cropped = 0
    while True:
        while stream and len(buffer) < look_ahead:
            buffer.append(stream.pop(0))
        if not buffer:
            return [_merged(w) for w in windows], cropped
        windows.append([buffer.pop(0)])
        while True:
            while stream and len(buffer) < look_ahead:
                buffer.append(stream.pop(0))
            room = length - sum(e - s for _, s, e in windows[-1])
            fitting = [
                i
                for i, (doc, s, e) in enumerate(buffer)
                if e - s <= room and not any(other[0] == doc for other in buffer[:i])
            ]
            if not fitting:
                break
            if rule != "first":
                scores = {i: _score(rule, buffer[i], windows[-1], length, vectors) for i in fitting}
                fitting.sort(key=lambda i: -scores[i])
            windows[-1].append(buffer.pop(fitting[0]))
        if rule == "weighed":
            windows[-1].sort()
        if room and buffer and fill_policy != "none":
            doc, s, e = buffer.pop(0)
            windows[-1].append((doc, s, s + room))
            if fill_policy == "split":
                buffer.insert(0, (doc, s + room, e))
            else:
                cropped += e - s - room


def _score(
    rule: str, piece: Span, window: list[Span], length: int, vectors: np.ndarray | None
) -> float:
    doc, start, end = piece
    if rule == "largest":
        return end - start
    assert vectors is not None
    total = sum((e - s) * vectors[d].astype(np.float64) for d, s, e in window)
    norm = float(np.sqrt(total @ total))
    cosine = (1 / norm) * float(total @ vectors[doc].astype(np.float64)) if norm else 0.0
    return cosine + (0.2 / length) * (end - start) if rule == "weighed" else cosine


def reference_best_fit(lengths: Sequence[int], length: int) -> list[list[Span]]:
    """Section 3 in its plainest form: look at all open windows for every piece."""
    pieces = [
        (doc, start, min(start + length, n))
        for doc, n in enumerate(lengths)
        for start in range(0, n, length)
    ]
    windows: list[list[Span]] = []
    for piece in sorted(pieces, key=lambda p: p[1] - p[2]):
        size = piece[2] - piece[1]
        rooms = [length - sum(e - s for _, s, e in w) for w in windows]
        holding = [i for i, room in enumerate(rooms) if room >= size]
        if holding:
            windows[min(holding, key=lambda i: rooms[i])].append(piece)
        else:
            windows.append([piece])
    return windows


def _merged(window: list[Span]) -> list[Span]:
    out: list[Span] = []
    for doc, s, e in window:
        if out and out[-1][0] == doc and out[-1][2] == s:
            out[-1] = (doc, out[-1][1], e)
        else:
            out.append((doc, s, e))
    return out


def documents(
    lengths: Sequence[int],
    *,
    separator: Sequence[int] = (),
    doc_ids: Sequence[str] | None = None,
    tours: Sequence[str] | None = None,
) -> FramedDocuments:
    """Documents whose text token j of document i is 1000 i + j, framed."""
    n = len(lengths)
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    text = np.concatenate(
        [np.arange(k, dtype=np.int32) + 1000 * i for i, k in enumerate(lengths)]
        or [np.zeros(0, np.int32)]
    )
    tokens, offsets = frame(text, offsets, (), separator)
    return FramedDocuments(
        doc_id=pa.array(doc_ids or [f"d{i}" for i in range(n)], pa.string()),
        source=pa.array([("web", "code", "books")[i % 3] for i in range(n)], pa.string()),
        license=pa.array([None if i % 2 else "mit" for i in range(n)], pa.string()),
        tokens=tokens,
        offsets=offsets,
        tour_id=pa.array(tours or ["t0"] * n, pa.string()),
    )
