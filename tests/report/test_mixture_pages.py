"""Pages about a fit and about recommended shares: complete, true to the numbers, escaped."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from longctx.cli import main
from longctx.report.mixture.evidence import Evidence
from longctx.report.mixture.models import render_fit
from longctx.report.mixture.optimum import gain_bins
from longctx.report.mixture.page import render_optimum
from longctx.report.mixture.ranges import Range, ranges
from longctx.report.mixture.scatter import decimals, linear_ticks, scatter
from longctx.report.mixture.words import optimum_words
from tests.report.example import HOSTILE
from tests.report.mixed import fitted, weights_file
from tests.report.page import Element, Page

VALUES = st.floats(-1e6, 1e6, allow_nan=False)


def fit_page(mark: str = "") -> Page:
    return Page(render_fit([fitted("law", mark), fitted("linear", mark)], fitted("law", mark)))


def test_equal_losses_lie_on_the_line_and_the_axes_are_alike() -> None:
    x = [2.0, 2.5, 3.25]
    parsed = Page(scatter("a", x, x, ("x", "y"), 200))
    line = next(e for e in parsed.named("line") if "mark" in e.attributes["class"])
    top, floor = float(line.attributes["y2"]), float(line.attributes["y1"])
    assert (line.attributes["x1"], line.attributes["x2"]) == ("0%", "100%")
    for circle in parsed.named("circle"):
        across = float(circle.attributes["cx"].rstrip("%")) / 100
        up = (floor - float(circle.attributes["cy"])) / (floor - top)
        assert up == pytest.approx(across, abs=1e-3)
    assert [e.text for e in parsed.named("text")][:2] == ["2.0", "2.0"]


def test_a_prediction_that_is_too_high_lies_above_the_line() -> None:
    parsed = Page(scatter("a", [2.0, 3.0], [2.5, 3.0], ("x", "y"), 200))
    first, second = (
        (float(c.attributes["cx"].rstrip("%")), float(c.attributes["cy"]))
        for c in parsed.named("circle")
    )
    assert first[1] < 3 + 200 * (1 - first[0] / 100) - 10
    assert second[1] == pytest.approx(3 + 200 * (1 - second[0] / 100), abs=1)


@given(VALUES, VALUES)
def test_ticks_are_round_within_the_range_and_told_apart(a: float, b: float) -> None:
    low, high = min(a, b), max(a, b)
    if high - low <= 1e-6 * max(abs(low), abs(high), 1e-6):
        return
    ticks = linear_ticks(low, high)
    step = (high - low) / 5
    assert 1 <= len(ticks) <= 6
    assert all(low - step * 1e-6 <= t <= high + step * 1e-6 for t in ticks)
    if len(ticks) > 1:
        digits = decimals(ticks[1] - ticks[0])
        assert len({f"{t:.{digits}f}" for t in ticks}) == len(ticks)


@pytest.mark.parametrize(
    ("step", "expected"), [(1, 0), (20, 0), (0.5, 1), (0.25, 2), (0.1, 1), (0.025, 3), (2.5, 1)]
)
def test_decimals(step: float, expected: int) -> None:
    assert decimals(step) == expected


@given(st.lists(st.floats(-10, 10), min_size=1, max_size=60), st.floats(0, 5))
def test_bins_of_gains_hold_each_once(gaps: list[float], error: float) -> None:
    found = gain_bins(gaps, [0.0, error])
    assert sum(found.counts) == len(gaps)
    assert len(found.edges) == len(found.counts) + 1
    assert len(found.counts) <= 60
    width = found.edges[1] - found.edges[0]
    assert found.edges[0] <= min(gaps) + width * 1e-6
    assert found.edges[-1] >= max(gaps) - width * 1e-6
    by_hand = [
        sum(a <= g < b for g in gaps) for a, b in zip(found.edges, found.edges[1:], strict=False)
    ]
    off = sum(abs(a - b) for a, b in zip(by_hand, found.counts, strict=True))
    on_an_edge = sum(any(abs(g - e) < width * 1e-6 for e in found.edges) for g in gaps)
    assert off <= 2 * on_an_edge


def test_zero_is_in_the_figure_where_the_gains_leave_it_room() -> None:
    assert gain_bins([0.05, 0.1], [0.0]).edges[0] <= 0
    assert gain_bins([0.5, 0.51], [0.0]).edges[0] > 0.4


def test_shares_stand_in_their_bands() -> None:
    rows = [
        Range("a", 0.5, 0.25, (0.1, 0.9), "", ["50 %"]),
        Range("b", 0.1, None, None, "", ["10 %"]),
    ]
    parsed = Page(ranges(rows))
    band, prior, ours, other = parsed.named("rect")[1:4] + parsed.named("rect")[5:]
    assert band.attributes["x"] == f"{10 / 0.6:.4g}%"
    assert place(prior) < place(ours)
    assert place(band) + float(band.attributes["width"].rstrip("%")) == pytest.approx(100)
    assert place(ours) == pytest.approx(100 * 0.5 / 0.6, abs=0.01)
    assert place(other) == pytest.approx(100 * 0.1 / 0.6, abs=0.01)


def place(element: Element) -> float:
    return float(element.attributes["x"].rstrip("%"))


def test_the_page_of_a_fit_has_scores_beside_rules() -> None:
    page = fit_page()
    assert page.faults == []
    assert [one.text for one in page.named("h2")] == [
        "Predicted against measured",
        "All scores on held-out runs",
        "other",
        "The runs",
    ]
    held = fitted().assessment()["web"]
    for number in (
        held["holdout"]["mean"]["spearman"],
        held["holdout"]["sd"]["mae"],
        held["rules"]["own_share"]["mean"]["spearman"],
        held["rules"]["ols"]["mean"]["mae"],
        held["rules"]["mean"]["mean"]["mae"],
        held["in_sample"]["spearman"],
    ):
        assert f"{number:.4f}" in page.text
    runs = sum(len(one["observed"]) for one in weights_file()["evidence"]["fit"]["targets"])
    assert len(page.named("circle")) == runs


def test_a_single_target_has_its_law_and_no_sum() -> None:
    model = fitted()
    from longctx.mixture.predictor import fit_model
    from longctx.mixture.tables import Runs

    runs = model.runs
    one = fit_model(Runs(runs.ids, runs.sources, ("web",), runs.X, runs.Y[:, :1]), "law", repeats=2)
    page = Page(render_fit([one], one))
    assert page.faults == []
    assert "The law" in [h.text for h in page.named("h2")]
    assert "their loss on web" in page.text
    assert "weighted sum" not in page.text.lower()


def test_the_page_of_an_optimum_has_verdict_shares_gains_and_the_fit() -> None:
    written = weights_file()
    page = Page(render_optimum(written))
    assert page.faults == []
    assert [one.text for one in page.named("h2")] == [
        "How sure the gain is",
        "Shares of tokens",
        "Beside mixtures that need no model",
        "Predicted against measured",
        "How they were found",
    ]
    counted = [
        int(e.attributes["data-count"]) for e in page.named("rect") if "data-count" in e.attributes
    ]
    assert sum(counted) == 12
    evidence = written["evidence"]
    assert f"Verdict: {evidence['verdict']}." in page.text
    for name, share in written["weights"].items():
        assert name in page.text
        assert f"{share * 100:.1f}\u00a0%, prior" in page.text.replace(" %", "\u00a0%")
        assert f"{evidence['bounds']['epochs'][name]:.2f} epochs" in page.text
    assert f"{evidence['baselines']['uniform']['predicted']:.4f}" in page.text
    assert "at its most (tokens)" in page.text


def test_words_of_the_optimum_are_those_of_its_numbers() -> None:
    written = json.loads(json.dumps(weights_file()))
    said = optimum_words(Evidence.model_validate(written["evidence"]))
    assert f"{written['evidence']['predicted']['gain']:.4f} nats predicted" in said[0]
    assert "books (most)" in " ".join(said)
    written["evidence"]["verdict"] = "not distinguishable"
    written["evidence"]["predicted"]["kl"] = None
    written["evidence"]["method"]["forced"] = ["web: flat"]
    words = " ".join(optimum_words(Evidence.model_validate(written["evidence"])))
    assert "do not show that they are better" in words
    assert "the prior lacks a source" in words
    assert "Solved although refused: web: flat" in words


def test_an_optimum_without_points_or_gains_is_drawn_without_them() -> None:
    written: dict[str, Any] = json.loads(json.dumps(weights_file()))
    del written["evidence"]["fit"], written["evidence"]["gaps"]
    page = Page(render_optimum(written))
    assert page.faults == []
    assert page.named("circle") == []
    assert "The gains of the single resamples are not stored." in page.text


def test_planted_names_stay_text() -> None:
    plain, planted = fit_page("plain"), fit_page(HOSTILE)
    assert planted.faults == []
    assert [e.name for e in planted.elements] == [e.name for e in plain.elements]
    plain, planted = (Page(render_optimum(weights_file("law", m))) for m in ("plain", HOSTILE))
    assert planted.faults == []
    assert [e.name for e in planted.elements] == [e.name for e in plain.elements]
    assert HOSTILE.split()[0] in planted.text


def test_commands_write_their_pages(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    runs = fitted().runs
    names = ",".join(runs.sources)
    rows = (f"{i},{','.join(map(str, x))}" for i, x in zip(runs.ids, runs.X.tolist(), strict=True))
    Path("m.csv").write_text(f"mixture_id,{names}\n" + "\n".join(rows) + "\n")
    rows = (f"{i},{','.join(map(str, y))}" for i, y in zip(runs.ids, runs.Y.tolist(), strict=True))
    Path("l.csv").write_text("mixture_id,web,books\n" + "\n".join(rows) + "\n")
    fit = ["mix", "fit", "--mixtures", "m.csv", "--losses", "l.csv", "--holdout", "3"]
    assert main([*fit, "--out", "model.json", "--report", "fit.html"]) == 0
    optimise = ["mix", "optimise", "--model", "model.json", "--bootstrap", "4"]
    assert main([*optimise, "--out", "w.json", "--report", "best.html"]) == 0
    for name in ("fit.html", "best.html"):
        assert Page(Path(name).read_text(encoding="utf-8")).faults == []
    told = capsys.readouterr()
    assert re.search(r"fit\.html", told.err + told.out)
    assert main([*optimise, "--report", "none/best.html"]) == 2
    assert "give --report a file in a folder that is there" in " ".join(
        capsys.readouterr().err.split()
    )
