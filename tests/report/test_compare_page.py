"""The page and the table of a comparison: well formed, escaped, explained, marked in words."""

import json

import pytest
from rich.console import Console

from longctx.compare.result import context_sizes
from longctx.report.compare_page import render
from longctx.report.compare_table import compare_view
from longctx.report.html import POLICY
from tests.report.compared import awkward, comparison, example, line
from tests.report.page import Page


@pytest.mark.parametrize("make", [example, awkward, lambda: comparison(line("alone"))])
def test_pages_are_well_formed_and_load_nothing(make):
    page = Page(render(make()))
    assert page.faults == []
    assert page.named("script", "img", "link", "iframe") == []
    policy = [m.attributes.get("content") for m in page.named("meta")]
    assert POLICY in policy
    links = {a.attributes["href"].removeprefix("#") for a in page.named("a")}
    assert links == {s.attributes["id"] for s in page.named("section")}


def test_the_page_says_what_is_best_in_words():
    page = Page(render(example()))
    marked = [one.text for one in page.named("strong") if "best" in one.text]
    assert "best 0.600" in marked
    assert "best 0 %" in marked
    assert all("0.550" not in one for one in marked)
    assert "path keeps the most related documents together" in page.text
    assert "± 0.010" in page.text
    assert "Mean similarity of all documents that share a context" in page.text
    assert "best" not in " ".join(
        one.text for one in Page(render(comparison(line("alone")))).named("strong")
    )


def test_bars_end_where_the_figures_say():
    page = Page(render(example()))
    lines = [e.text for e in page.named("title") if e.text.startswith("1,024 tokens: ")]
    assert lines == [f"1,024 tokens: {v}" for v in ("0.630", "0.580", "0.140")]
    widths = [
        float(r.attributes["width"].removesuffix("%")) + float(r.attributes["x"].removesuffix("%"))
        for r in page.named("rect")
        if r.attributes["class"] == "tone-accent"
    ]
    assert widths[0] == pytest.approx(100, abs=0.05)
    assert widths[4] == pytest.approx(100 * 0.58 / 0.63, abs=0.05)


def printed(made, width: int = 80) -> str:
    console = Console(width=width, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(compare_view(made))
    return console.export_text()


def test_the_table_fits_80_columns_and_marks_without_colour():
    text = printed(example())
    assert max(map(len, text.splitlines())) <= 80
    rows = [row for row in text.splitlines() if row.startswith("path")]
    assert "0.600*" in rows[0]
    assert "in random places" in text
    assert "is the one to take where related context counts" in " ".join(text.split())


def test_awkward_names_do_not_break_the_table():
    text = printed(awkward())
    assert max(map(len, text.splitlines())) <= 80
    assert "\x1b" not in text
    assert "n/a" in text


def test_json_holds_every_figure():
    found = json.loads(json.dumps(example().as_dict()))
    assert found["schema"] == 1
    assert found["sizes"] == [1024, 2048, 4096, 8192]
    first = found["lines"][0]
    assert first["likeness"]["coherence"][3] == {"value": 0.6, "error": 0.005}
    assert first["counts"]["fill"] == 0.966


@pytest.mark.parametrize(
    ("length", "sizes"), [(8192, [1024, 2048, 4096, 8192]), (100, [12, 25, 50, 100]), (1, [1])]
)
def test_context_sizes(length: int, sizes: list[int]):
    assert context_sizes(length) == sizes
