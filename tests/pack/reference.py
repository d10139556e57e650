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
    lengths: Sequence[int], length: int, look_ahead: int, rule: str, fill_policy: str
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
            if rule == "largest":
                fitting.sort(key=lambda i: buffer[i][1] - buffer[i][2])
            windows[-1].append(buffer.pop(fitting[0]))
        if room and buffer and fill_policy != "none":
            doc, s, e = buffer.pop(0)
            windows[-1].append((doc, s, s + room))
            if fill_policy == "split":
                buffer.insert(0, (doc, s + room, e))
            else:
                cropped += e - s - room


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
