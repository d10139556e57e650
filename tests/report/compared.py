"""Comparisons made up for tests of words, marks and pages."""

from typing import Any

from longctx.compare.bounds import Bounded
from longctx.compare.counts import Counts
from longctx.compare.likeness import Estimate, Likeness
from longctx.compare.result import Comparison, Line

SIZES = [1024, 2048, 4096, 8192]


def line(
    name: str,
    *,
    related: float | None = 0.4,
    earlier: float | None = 0.5,
    error: float = 0.005,
    fill: float = 0.99,
    short: float | None = 0.0,
    copies: float = 0.0,
    documents: int = 10_000,
    floor: float | None = 0.1,
    **more: Any,
) -> Line:
    """A run of 1,000 windows; coherence falls a little with the context."""

    def estimate(value: float | None) -> Estimate:
        return Estimate() if value is None else Estimate(value, error)

    steps = (0.03, 0.02, 0.01, 0.0)
    counts = Counts(
        windows=1_000,
        tokens=8_000_000,
        documents=documents,
        fill=fill,
        split=None if short is None else 0.05,
        split_short=short,
        docs_mean=10.0,
        docs_median=9.0,
        one_document=0.2,
        sources_mean=1.5,
        repeats=0.0,
    )
    likeness = Likeness(
        windows=500,
        segments=5_000,
        unknown=100,
        adjacency=estimate(related),
        coherence=[estimate(None if related is None else related + step) for step in steps],
        best_earlier=estimate(earlier),
        duplicates=Estimate(copies, 0.001),
        random=floor,
        random_coherence=[floor] * len(SIZES),
        random_best_earlier=floor,
        seams=Bounded(500, related, 0.7, 0.5),
        inside=Bounded(0),
    )
    told = {
        "place": f"/data/{name}",
        "files": 3,
        "boundaries": "`segments` of each window",
        "tokenizer": "embedded",
        "tokenizer_known": True,
        "length": 8192,
        "length_known": True,
    }
    return Line(name=name, counts=counts, likeness=likeness, **{**told, **more})


def comparison(*lines: Line) -> Comparison:
    return Comparison(list(lines), SIZES, "static", 2000)


HOSTILE = "<script>window.top.planted = 1</script>\x1b[31m\u202e" + "long" * 40


def example() -> Comparison:
    return comparison(
        line("path", related=0.6, earlier=0.7, fill=0.966, short=0.0),
        line("concat", related=0.55, earlier=0.66, fill=0.9998, short=0.14),
        line("random", related=0.11, earlier=0.2, fill=0.9998, short=0.14),
    )


def awkward() -> Comparison:
    """Names made to break out, unknown figures, figures below zero, many runs."""
    lines = [
        line(HOSTILE, related=None, earlier=None, short=None, floor=None, tokenizer=HOSTILE),
        line("漢字", related=-0.05, floor=-0.01, copies=1.0, fill=0.01, length_known=False),
        *(line(f"run {i}", related=0.4 + i / 1000) for i in range(12)),
    ]
    return comparison(*lines)
