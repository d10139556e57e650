"""What the yardstick says: sentences, the table on 80 columns, the section and its figure."""

import json

import pytest
from rich.console import Console

from longctx.compare.bootstrap import Interval
from longctx.compare.result import Gain
from longctx.report.compare_page import render
from longctx.report.compare_table import compare_view
from longctx.report.gain_page import render_gain
from longctx.report.gain_table import gain_view
from longctx.report.gain_words import bounds, gain_caveats, gain_verdict, shown
from longctx.report.intervals import Whisker, WhiskerRow, whiskers
from tests.report.compared import HOSTILE, example
from tests.report.gained import gain_line, gain_of, gained
from tests.report.page import Page

FEW = {"all": 1.0, "same": 0.9, "other": 0.0, "both": 0.1}
ALONE = {"all": 1.0, "same": 1.0, "other": 0.0, "both": 0.0}


def said(gain: Gain) -> str:
    return " ".join([*gain_verdict(gain), *gain_caveats(gain)])


def test_the_verdict_names_what_differs_clearly_and_where() -> None:
    first, everywhere, other, same = gain_verdict(gained())
    assert first == (
        "In random, context farther back than 256 to 511 tokens raises the log-likelihood of a "
        "token under smollm2 by 0.0200 nats (0.0180 to 0.0220); LongFilter's score is 0.0100 "
        "(0.0080 to 0.0120)."
    )
    assert everywhere == (
        "Against random the gain is clearly higher in path (+0.0040, +0.0020 to +0.0060); not "
        "clearly different in source (+0.0001, -0.0019 to +0.0021)."
    )
    assert "what an order decides, it is clearly higher in path (+0.0080" in other
    assert "clearly lower in source (-0.0050" in same
    assert "not clearly different in path" in same


def test_a_gain_that_is_none_is_called_none() -> None:
    (sentence,) = gain_verdict(gain_of(gain_line("x", 0.0005)))
    assert sentence.endswith("no gain that could be told from none.")
    assert "told from none" not in gain_verdict(gained())[0]


def test_too_few_tokens_are_called_so() -> None:
    gain = gain_of(gain_line("a", width=None), gain_line("b", width=None, more={}))
    assert "not known for b: too few such tokens" in said(gain)


def test_borders_are_about_beginnings_of_documents() -> None:
    gain = gain_of(gain_line("a"), gain_line("b", more={"all": 0.01}), of="borders")
    first, everywhere = gain_verdict(gain)
    assert first.startswith("At the beginnings of documents inside windows of a, context farther")
    assert "clearly higher in b (+0.0100" in everywhere
    only = {"all": 1.0, "same": 0.0, "other": 1.0, "both": 0.0}
    gain = gain_of(gain_line("a", shares=only), of="borders")
    assert "Where far context lies" not in printed(gain)
    assert "0.0100 other documents" not in Page(render_gain(gain)).text


def test_documents_have_no_other_documents() -> None:
    line = gain_line("kept", more={"all": 0.01}, shares=ALONE, shared_first=0.4)
    gain = gain_of(gain_line("all", shares=ALONE), line, of="documents")
    assert len(gain_verdict(gain)) == 2
    assert "100 % of the far tokens of kept are of documents that all has too, and 40.0 %" in said(
        gain
    )
    assert "Where far context lies" not in printed(gain)
    assert "Comparison of documents" in Page(render_gain(gain)).text


@pytest.mark.parametrize(
    ("gain", "words"),
    [
        (gained(), "random and path and source hold the same documents"),
        (gained(), "a small model that makes little use of far context"),
        (gain_of(gain_line("x", units=3)), "From fewer than 5 windows no interval is given"),
        (gain_of(gain_line("x", units=12)), "Intervals from fewer than 30 windows are rough"),
        (gain_of(gain_line("x", units=12)), "32 windows of each are usual"),
        (gain_of(gain_line("x", looked=90)), "Windows looked at for those 32: 90 of x."),
        (
            gain_of(gain_line("x", looked=90), of="borders"),
            "shorter than 2,048 tokens, hold no beginning of a document that far inside, or",
        ),
        (gain_of(gain_line("x"), of="borders"), "the last 512 from the beginning of a document on"),
        (
            gain_of(gain_line("x", shares=FEW), gain_line("y", more={}, shares=FEW)),
            "in other documents (0 % in x and 0 % in y): to judge an order, read where documents",
        ),
        (gain_of(gain_line("x", unknown=0.25)), "is not counted: 25.0 % in x of the far tokens"),
        (
            gain_of(gain_line("x"), gain_line("y", more={}, shared=None)),
            "Documents of y or x have no ids",
        ),
        (
            gain_of(gain_line("x"), *(gain_line(f"r{i}", more={}) for i in range(5))),
            "5 runs were held against one: of twenty such intervals, one excludes 0 by chance",
        ),
    ],
)
def test_caveats_are_told_where_they_apply(gain: Gain, words: str) -> None:
    assert words in said(gain)


@pytest.mark.parametrize(
    "words",
    ["by chance", "rough", "looked at for", "usual", "not counted", "have no ids", "other way"],
)
def test_and_only_there(words: str) -> None:
    assert words not in said(gained())


def test_numbers() -> None:
    assert shown("dnll", None) == "n/a"
    assert shown("dnll", -1e-9) == shown("dnll", 1e-9, signed=True) == "0.0000"
    assert shown("dnll", -0.00001) == "-0.000010"
    assert shown("longfilter", 0.0123, signed=True) == "+0.0123"
    assert shown("dnll", 3.456) == "3.46"
    assert shown("key_share", 0.0031) == "0.31 %"
    assert shown("key_share", -0.0031, signed=True) == "-0.31 points"
    assert bounds("key_share", Interval(0.0, -0.001, 0.002), signed=True) == "-0.10 to +0.20"
    assert bounds("dnll", Interval(0.0)) == ""


def printed(gain: Gain) -> str:
    console = Console(width=80, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(gain_view(gain))
    return console.export_text()


def test_the_table_fits_80_columns_and_marks_what_is_clear() -> None:
    text = printed(gained())
    assert max(map(len, text.splitlines())) <= 80
    rows = text.splitlines()
    path = next(row for row in rows if row.startswith("path"))
    assert "0.0140*" in path
    difference = rows[rows.index(path) + 2]
    assert difference.startswith("  minus random")
    assert "+0.0040" in difference
    assert "0.0101*" not in text.split("Where far context lies")[0]
    assert "other documents" in text
    long = gain_of(gain_line(HOSTILE, -123.4), gain_line("漢字" * 40, 0.5, more={"all": -12.5}))
    assert max(map(len, printed(long).splitlines())) <= 80


def test_a_comparison_shows_its_gain_everywhere() -> None:
    made = example()
    made = type(made)(made.lines, made.sizes, made.encoder, made.most_windows, gained())
    console = Console(width=80, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(compare_view(made))
    text = console.export_text()
    assert "keeps the most related documents" in " ".join(text.split())
    assert "Gain of far context" in text
    found = json.loads(json.dumps(made.as_dict()))
    assert found["gain"]["lines"][1]["difference"]["other"]["longfilter"]["low"] == 0.006
    page = Page(render(made))
    assert page.faults == []
    assert "gain" in {s.attributes["id"] for s in page.named("section")}
    assert "Against random the gain is clearly higher in path" in page.text
    assert "gain" not in {s.attributes["id"] for s in Page(render(example())).named("section")}


@pytest.mark.parametrize("gain", [gained(), gain_of(gain_line(HOSTILE)), gain_of(gain_line("x"))])
def test_pages_are_well_formed_and_load_nothing(gain: Gain) -> None:
    page = Page(render_gain(gain))
    assert page.faults == []
    assert page.named("script", "img", "link", "iframe") == []
    links = {a.attributes["href"].removeprefix("#") for a in page.named("a")}
    assert links == {s.attributes["id"] for s in page.named("section")} == {"gain"}


def test_clear_differences_are_marked_in_words() -> None:
    marked = [one.text for one in Page(render_gain(gained())).named("strong")]
    assert "clear +0.0040" in marked
    assert "clear -0.0050" in marked
    assert not any("+0.0001" in one for one in marked)


def test_bars_lie_where_the_figures_say() -> None:
    """The axis goes from -1 to 3 with 4 % of room at both ends."""
    row = WhiskerRow("x", [Whisker(Interval(1.0, -1.0, 3.0), "accent", "all", "1")])
    page = Page(str(whiskers([row])))
    bar, mean = (r for r in page.named("rect") if r.attributes["class"] == "tone-accent")
    (zero,) = page.named("line")
    at = {
        name: float(element.attributes[key].removesuffix("%"))
        for name, element, key in (
            ("bar", bar, "x"),
            ("width", bar, "width"),
            ("mean", mean, "x"),
            ("zero", zero, "x1"),
        )
    }
    whole = 4 * 1.08
    assert at["bar"] == pytest.approx(100 * 0.16 / whole, abs=0.01)
    assert at["width"] == pytest.approx(100 * 4 / whole, abs=0.01)
    assert at["mean"] == pytest.approx(50, abs=0.01)
    assert at["zero"] == pytest.approx(100 * 1.16 / whole, abs=0.01)
    without = Page(str(whiskers([WhiskerRow("x", [Whisker(Interval(), "accent", "a", "n/a")])])))
    assert [r.attributes["class"] for r in without.named("rect")] == ["track"]
