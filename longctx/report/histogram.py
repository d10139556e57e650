"""Histograms as inline SVG: one or several series over the same bins, with marks.

Bins are drawn equally wide, which suits linear and log2 edges alike. Every drawn count is in its
bar's `data-count` and tooltip, and `numbers` gives the table behind the figure.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import count as count_up

from longctx.report.data import Histogram
from longctx.report.figures import percentage
from longctx.report.format import count, percent, rounded
from longctx.report.markup import Markup, join, tag, text

_PLOT, _AXIS = 180, 22  # pixels: the tallest bar, the tick labels below
_MARK_LINE = 17
_LABELS_WIDE, _LABELS_NARROW = 12, 6
_LANDMARKS = (0.0, 1024.0)
_WIDTHS = (0.86, 0.46, 0.2)  # of a bin, from the series behind to the one in front


@dataclass(frozen=True)
class Series:
    """A histogram, its name in the legend and its tone."""

    name: str
    histogram: Histogram
    tone: str


@dataclass(frozen=True)
class Mark:
    """A labelled vertical line at a value of the x axis."""

    value: float
    label: str
    tone: str


@dataclass(frozen=True)
class Axes:
    """How a histogram is read: names of the figure and its axes, and how an edge is written.

    `counted` is what the bins count. With `as_share` heights are shares of each series' own sum,
    so that samples of different size compare. With `trim` empty bins at both ends are left out.
    """

    title: str
    counted: str
    x_name: str
    tick: Callable[[float], str]
    as_share: bool = False
    trim: bool = True


@dataclass(frozen=True)
class _Bins:
    edges: list[float]
    counts: list[list[int]]

    @property
    def number(self) -> int:
        return len(self.edges) - 1

    @property
    def whole(self) -> bool:
        """Whether each bin holds one integer, which then names the bin better than its edges."""
        return all(b - a == 1 for a, b in zip(self.edges, self.edges[1:], strict=False))

    def name(self, index: int, tick: Callable[[float], str]) -> str:
        low, high = self.edges[index : index + 2]
        return tick(math.ceil(low)) if self.whole else f"{tick(low)} to {tick(high)}"

    def place(self, value: float) -> float:
        """Where `value` lies along the axis, in 0..1."""
        if value >= self.edges[-1]:
            return 1.0
        index = max(i for i, edge in enumerate(self.edges[:-1]) if i == 0 or edge <= value)
        low, high = self.edges[index : index + 2]
        return (index + min(max((value - low) / (high - low), 0.0), 1.0)) / self.number


def has_counts(histogram: Histogram | None) -> bool:
    """Whether there is anything to draw."""
    return histogram is not None and sum(histogram.counts) > 0


def common_edges(histograms: Sequence[Histogram]) -> list[float] | None:
    """All edges of all histograms, or null where one would have to split another's bin."""
    union = sorted({edge for h in histograms for edge in h.edges})
    for h in histograms:
        if [e for e in union if h.edges[0] <= e <= h.edges[-1]] != list(h.edges):
            return None
    return union


def y_ticks(highest: float, *, whole: bool) -> list[float]:
    """Three to six round numbers from 0 to at least `highest`; integers if `whole`."""
    rough = max(highest, 1.0 if whole else 1e-6) / 4
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(m * power for m in (1, 2, 2.5, 5, 10) if m * power >= rough * 0.999)
    if whole:
        step = max(1.0, math.ceil(step))
    return [i * step for i in range(max(1, math.ceil(highest / step - 1e-9)) + 1)]


def plot(series: Sequence[Series], axes: Axes, marks: Sequence[Mark] = ()) -> Markup:
    """The series in one plot if their bins agree, else one plot each, one below the other.

    The first series is drawn wide and the next ones narrower in front of it, so that each stays
    visible whichever is the higher.
    """
    bins = _bins(series, axes)
    if bins is None:
        return join(plot([one], axes, marks) for one in series)
    y_name = f"Share of {axes.counted}" if axes.as_share else axes.counted.capitalize()
    return tag(
        "div",
        tag("p", text(y_name), class_="axis"),
        _svg(series, bins, axes, marks),
        tag("p", text(axes.x_name), class_="axis end"),
        class_="plot",
    )


def numbers(series: Sequence[Series], axes: Axes) -> tuple[list[str], list[list[str]]]:
    """Header and rows of the table behind the plot: the bin, then each series' count."""
    bins = _bins(series, axes)
    if bins is None:
        header, rows = [axes.x_name, "Series", axes.counted.capitalize()], []
        for one in series:
            own = _Bins(list(one.histogram.edges), [list(one.histogram.counts)])
            rows += [
                [own.name(i, axes.tick), one.name, count(value)]
                for i, value in enumerate(one.histogram.counts)
            ]
        return header, rows
    return [axes.x_name, *(s.name for s in series)], [
        [bins.name(i, axes.tick), *(count(counts[i]) for counts in bins.counts)]
        for i in range(bins.number)
    ]


def _bins(series: Sequence[Series], axes: Axes) -> _Bins | None:
    edges = common_edges([s.histogram for s in series])
    if edges is None:
        return None
    counts = [_spread(edges, s.histogram) for s in series]
    used = [i for i in range(len(edges) - 1) if any(c[i] for c in counts)]
    if not axes.trim or not used:
        return _Bins(edges, counts)
    return _Bins(edges[used[0] : used[-1] + 2], [c[used[0] : used[-1] + 1] for c in counts])


def _spread(edges: list[float], histogram: Histogram) -> list[int]:
    before = edges.index(histogram.edges[0])
    after = len(edges) - 1 - before - len(histogram.counts)
    return [0] * before + list(histogram.counts) + [0] * after


def _svg(series: Sequence[Series], bins: _Bins, axes: Axes, marks: Sequence[Mark]) -> Markup:
    wholes = [max(sum(c), 1) if axes.as_share else 1 for c in bins.counts]
    highest = max(max(c) / whole for c, whole in zip(bins.counts, wholes, strict=True))
    ticks = y_ticks(highest, whole=not axes.as_share)
    top = 8 + _MARK_LINE * len(marks)
    described = ", ".join(f"{s.name}: {count(sum(s.histogram.counts))}" for s in series)
    drawn = [_grid(tick, ticks[-1], top, axes) for tick in ticks]
    for layer, (one, whole) in enumerate(zip(series, wholes, strict=True)):
        scale = _PLOT / (whole * ticks[-1])
        drawn += [
            _column(bins, layer, index, top, scale, one, axes)
            for index, value in enumerate(bins.counts[layer])
            if value
        ]
    return tag(
        "svg",
        tag("title", text(axes.title)),
        tag("desc", text(f"{axes.counted.capitalize()} by {axes.x_name}. {described}.")),
        *drawn,
        *_labels(bins, top + _PLOT, axes),
        *(_mark(mark, row, bins, top) for row, mark in enumerate(marks)),
        role="img",
        width="100%",
        height=top + _PLOT + _AXIS,
    )


def _grid(value: float, highest: float, top: int, axes: Axes) -> Markup:
    y = round(top + _PLOT * (1 - value / highest)) + 0.5
    line = tag("line", x1="0%", x2="100%", y1=y, y2=y, class_="grid" if value else "base")
    written = f"{value * 100:.3g} %" if axes.as_share else rounded(value)
    return join([line, tag("text", text(written), x=-8, y=y + 4, text_anchor="end")])


def _column(
    bins: _Bins, layer: int, index: int, top: int, scale: float, one: Series, axes: Axes
) -> Markup:
    value = bins.counts[layer][index]
    height = max(1.0, value * scale)
    width = _WIDTHS[min(layer, len(_WIDTHS) - 1)]
    share = percent(value / sum(one.histogram.counts))
    label = f"{one.name}, {bins.name(index, axes.tick)}: {count(value)} {axes.counted} ({share})"
    return tag(
        "rect",
        tag("title", text(label)),
        x=percentage((index + (1 - width) / 2) / bins.number),
        y=top + _PLOT - height,
        width=percentage(width / bins.number),
        height=height,
        class_=f"tone-{one.tone}",
        data_count=value,
    )


def _labels(bins: _Bins, floor: int, axes: Axes) -> list[Markup]:
    """Tick labels under edges, or under bars that hold one integer; fewer in a narrow plot."""
    shown = bins.number if bins.whole else bins.number + 1
    step = next(s for s in _steps() if s * _LABELS_WIDE >= shown)
    coarse = next(s for s in _steps() if s % step == 0 and s * _LABELS_NARROW >= shown)
    # The labels that are kept are counted from an edge that readers look for.
    anchor = next((bins.edges.index(e) for e in _LANDMARKS if e in bins.edges[:shown]), 0)
    return [
        tag(
            "text",
            text(axes.tick(math.ceil(bins.edges[i]) if bins.whole else bins.edges[i])),
            x=percentage((i + 0.5 * bins.whole) / bins.number),
            y=floor + 17,
            text_anchor="middle",
            class_=None if (i - anchor) % coarse == 0 else "wide",
        )
        for i in range(anchor % step, shown, step)
    ]


def _steps() -> Iterator[int]:
    return (digit * 10**power for power in count_up() for digit in (1, 2, 4, 5, 8))


def _mark(mark: Mark, row: int, bins: _Bins, top: int) -> Markup:
    """A vertical line; labels stand in rows of their own and turn inwards at the right end."""
    place = bins.place(mark.value)
    x, y = percentage(place), 12 + row * _MARK_LINE
    anchor, dx = ("end", -6) if place > 0.5 else ("start", 6)
    line = tag("line", x1=x, x2=x, y1=y - 10, y2=top + _PLOT, class_=f"mark line-{mark.tone}")
    label = tag("text", text(mark.label), x=x, y=y, dx=dx, text_anchor=anchor, class_="marked")
    return join([line, label])
