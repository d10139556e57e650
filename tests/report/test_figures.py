"""Bars and histograms show the counts they were given."""

import re
from collections import Counter

import pytest

from longctx.report.data import Histogram
from longctx.report.figures import Bar, Segment, bars
from longctx.report.histogram import Axes, Mark, Series, common_edges, numbers, plot, y_ticks
from tests.report.page import Page

AXES = Axes("Lengths", "documents", "tokens", lambda edge: f"{edge:g}")
BEFORE = Series("before", Histogram([1, 2, 4, 8, 16], [0, 5, 7, 2], "tokens"), "neutral")
AFTER = Series("after", Histogram([4, 8, 16, 32], [6, 1, 0], "tokens"), "accent")


def drawn(page: str) -> Counter[str]:
    total: Counter[str] = Counter()
    for one in Page(page).named("rect"):
        total[one.attributes["class"]] += int(one.attributes.get("data-count", 0))
    return total


def test_bars_of_a_histogram_sum_to_its_counts() -> None:
    assert drawn(plot([BEFORE, AFTER], AXES)) == {"tone-neutral": 14, "tone-accent": 7}


def test_histograms_with_other_edges_share_a_plot_and_keep_their_bins() -> None:
    assert common_edges([BEFORE.histogram, AFTER.histogram]) == [1, 2, 4, 8, 16, 32]
    header, rows = numbers([BEFORE, AFTER], AXES)
    assert header == ["tokens", "before", "after"]
    assert rows == [["2 to 4", "5", "0"], ["4 to 8", "7", "6"], ["8 to 16", "2", "1"]]


def test_bins_that_do_not_align_are_drawn_apart() -> None:
    other = Series("after", Histogram([1, 3, 9], [3, 4], "tokens"), "accent")
    assert common_edges([BEFORE.histogram, other.histogram]) is None
    page = plot([BEFORE, other], AXES)
    assert len(Page(f"<div>{page}</div>").named("svg")) == 2
    assert drawn(page) == {"tone-neutral": 14, "tone-accent": 7}
    rows = numbers([BEFORE, other], AXES)[1]
    assert sum(int(row[-1]) for row in rows) == 21


def test_heights_are_proportional_to_counts() -> None:
    page = Page(plot([BEFORE], AXES))
    heights = {
        int(one.attributes["data-count"]): float(one.attributes["height"])
        for one in page.named("rect")
    }
    assert heights[5] / heights[7] == pytest.approx(5 / 7, abs=1e-4)


def test_shares_compare_samples_of_different_size() -> None:
    axes = Axes("Cosine", "pairs", "cosine", lambda edge: f"{edge:g}", as_share=True)
    small = Series("a", Histogram([0, 1, 2], [10, 10], ""), "neutral")
    large = Series("b", Histogram([0, 1, 2], [500, 500], ""), "accent")
    page = Page(plot([small, large], axes))
    assert len({one.attributes["height"] for one in page.named("rect")}) == 1


@pytest.mark.parametrize(("value", "x"), [(1, "0%"), (3, "37.5%"), (0, "0%"), (99, "100%")])
def test_marks_lie_where_their_value_is_and_inside_the_plot(value: float, x: str) -> None:
    axes = Axes("Lengths", "documents", "tokens", lambda edge: f"{edge:g}", trim=False)
    page = Page(plot([BEFORE], axes, [Mark(value, "mean", "accent")]))
    marks = [one for one in page.named("line") if "mark" in one.attributes["class"]]
    assert [mark.attributes["x1"] for mark in marks] == [x]


@pytest.mark.parametrize("highest", [0, 1, 3, 7, 19_700, 1e9, 0.244, 0.9])
def test_y_axis_covers_the_highest_bar_with_few_round_ticks(highest: float) -> None:
    ticks = y_ticks(highest, whole=highest >= 1 or highest == 0)
    assert ticks[0] == 0
    assert ticks[-1] >= highest
    assert 2 <= len(ticks) <= 6
    if highest >= 1:
        assert all(tick == int(tick) for tick in ticks)


def test_stacks_stay_inside_the_width_and_name_their_parts() -> None:
    line = [Segment(0.7, "accent", "70 kept"), Segment(0.7, "contrast", "too many")]
    page = Page(bars([Bar("stage", [line], ["70"])]))
    widths = [float(one.attributes["width"][:-1]) for one in page.named("rect")[1:]]
    assert widths == pytest.approx([70, 30])
    assert [one.text for one in page.named("desc")] == ["70 kept; too many"]


def test_figures_are_named_and_described_for_those_who_do_not_see_them() -> None:
    for page in (plot([BEFORE], AXES), bars([Bar("stage", [[]], [""])])):
        for one in Page(page).named("svg"):
            assert one.attributes["role"] == "img"
        assert re.search(r"<svg[^>]*><title>[^<]+</title><desc>", page)
