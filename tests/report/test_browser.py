"""The page in a real browser: both themes, two widths, no overflow, nothing planted runs.

The pages stand in frames of a wrapper that measures them and writes what it found into its own
document, which headless Chromium then prints.
"""

import html
import json
import re
import shutil
import subprocess
import tempfile
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest

from longctx.report.collect import write_report
from longctx.report.compare_page import render as render_comparison
from longctx.report.gain_page import render_gain
from longctx.report.html import POLICY, render
from longctx.report.markup import tag
from longctx.report.mixture.collect import mixture_of
from longctx.report.mixture.models import render_fit
from longctx.report.mixture.page import render_optimum
from longctx.report.mixture.stage import render_stage
from tests.report import paired
from tests.report.compared import awkward
from tests.report.compared import example as compared
from tests.report.example import HOSTILE, empty, example, hostile
from tests.report.gained import gained
from tests.report.mixed import fitted, weights_file
from tests.report.mixed_run import run_json
from tests.report.score_run import stage_of, whole_run
from tests.report.synthesised import write_run

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
PAGES = {
    "example": lambda: render(example()),
    "empty": lambda: render(empty()),
    "hostile": lambda: render(hostile()),
    "comparison": lambda: render_comparison(compared()),
    "awkward comparison": lambda: render_comparison(awkward()),
    "gain": lambda: render_gain(gained()),
    "fit of mixtures": lambda: render_fit([fitted("law", HOSTILE)], fitted("law", HOSTILE)),
    "best mixture": lambda: render_optimum(weights_file("law", HOSTILE)),
    "mixture": lambda: mixed(HOSTILE),
    "rows of passages": lambda: made_rows("pamqa"),
    "rows with lengths": lambda: made_rows("longwriter"),
    "pairs": lambda: pairs(),
    "scores": lambda: about_scores("score.heuristics"),
    "a decision": lambda: about_scores("decide"),
    "correlations": lambda: about_scores(),
}
WIDTHS = (320, 390, 768, 1200)
BACKGROUND = {"light": "rgb(251, 250, 248)", "dark": "rgb(19, 22, 25)"}
CONTROL = "<p>control</p><script>window.top.control = 1</script>"
MEASURE = """
const found = [...document.querySelectorAll("iframe")].map(frame => {
  const page = frame.contentDocument, root = page.documentElement;
  page.querySelectorAll("details").forEach(one => one.open = true);
  return {name: frame.title, scroll: root.scrollWidth, client: root.clientWidth,
          background: frame.contentWindow.getComputedStyle(page.body).backgroundColor,
          elements: page.querySelectorAll("script, img").length,
          wide: page.querySelector(".wide") === null ? null :
            frame.contentWindow.getComputedStyle(page.querySelector(".wide")).display};
});
const result = {planted: window.planted || 0, control: window.control || 0, frames: found};
document.getElementById("result").textContent = JSON.stringify(result);
"""

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed"),
]


@lru_cache
def score_pages() -> dict[str, str]:
    """Pages about the scores of a run whose every text is planted, by the name of their file."""
    with tempfile.TemporaryDirectory() as folder:
        files = write_report(whole_run(Path(folder), HOSTILE))
        return {Path(f).name: Path(f).read_text(encoding="utf-8") for f in files}


def mixed(mark: str) -> str:
    found = mixture_of(run_json(mark))
    assert found is not None
    return render_stage(found)


def made_rows(system: str) -> str:
    """The page of rows whose every text is planted."""
    with tempfile.TemporaryDirectory() as folder:
        *_, page = write_report(write_run(Path(folder), system, HOSTILE))
        return Path(page).read_text(encoding="utf-8")


def pairs() -> str:
    with tempfile.TemporaryDirectory() as folder:
        *_, page = write_report(paired.write_run(Path(folder), HOSTILE))
        return Path(page).read_text(encoding="utf-8")


def about_scores(op: str = "") -> str:
    return score_pages()[f"{stage_of(op) if op else 'correlations'}.html"]


def frame(name: str, page: str, width: int) -> str:
    size = f'width="{width}" height="900" style="border: 0"'
    return f'<iframe title="{name}" {size} srcdoc="{html.escape(page)}"></iframe>'


def wrapper() -> str:
    """All pages at all widths, without their policy, so that escaping alone has to hold."""
    policy = tag("meta", http_equiv="Content-Security-Policy", content=POLICY)
    frames = []
    for name, make in PAGES.items():
        page = make()
        assert policy in page
        frames += [frame(name, page.replace(policy, ""), width) for width in WIDTHS]
    frames.append(frame("control", CONTROL, 390))
    return (
        '<!DOCTYPE html><meta charset="utf-8"><meta name="color-scheme" content="light dark">'
        f"{''.join(frames)}<pre id=result></pre>"
        f"<script>window.onload = () => {{ {MEASURE} }}</script>"
    )


@pytest.fixture(scope="module", params=["light", "dark"])
def measured(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder: Path = tmp_path_factory.mktemp("browser")
    page = folder / "wrapper.html"
    page.write_text(wrapper(), encoding="utf-8")
    assert CHROMIUM is not None
    done = subprocess.run(
        [
            CHROMIUM,
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--hide-scrollbars",
            "--no-first-run",
            "--disable-background-networking",
            f"--user-data-dir={folder / 'profile'}",
            f"--blink-settings=preferredColorScheme={int(request.param == 'light')}",
            "--window-size=1400,1000",
            "--virtual-time-budget=20000",
            "--dump-dom",
            page.as_uri(),
        ],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    written = re.search(r'<pre id="result">(.*?)</pre>', done.stdout, re.DOTALL)
    assert written, done.stderr[-2000:]
    return {"theme": request.param, **json.loads(html.unescape(written[1]))}


def reports(measured: Any) -> list[dict[str, Any]]:
    return [one for one in measured["frames"] if one["name"] != "control"]


def test_no_page_scrolls_sideways(measured: Any) -> None:
    assert [one["client"] for one in reports(measured)] == [*WIDTHS] * len(PAGES)
    assert [one for one in reports(measured) if one["scroll"] > one["client"]] == []


def test_pages_follow_the_theme(measured: Any) -> None:
    assert {one["background"] for one in reports(measured)} == {BACKGROUND[measured["theme"]]}


def test_a_phone_gets_fewer_axis_labels(measured: Any) -> None:
    shown = [one["wide"] for one in reports(measured) if one["name"] == "example"]
    assert [display == "none" for display in shown] == [True, True, False, False]


def test_nothing_planted_runs(measured: Any) -> None:
    assert measured["control"] == 1
    assert measured["planted"] == 0
    assert [one["elements"] for one in reports(measured)] == [0] * len(PAGES) * len(WIDTHS)
