"""One real run over documents made to harm, with secrets around it: nothing runs, nothing leaks.

The pages are opened in Chromium inside frames of a wrapper, with their content security policy and
without it, so that escaping alone has to hold. Planted code marks the frame that it ran in.
"""

import html
import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml

from longctx.cli import main
from longctx.report.html import POLICY
from longctx.report.markup import tag
from tests.conftest import make_rows
from tests.servers import run_command

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
MARK = "(window.frameElement||document.documentElement).dataset.planted=1"
PLANTED = (
    f"<script>{MARK}</script>",
    f"\"><img src=x onerror='{MARK}'>",
    f"</style></title></textarea><svg onload='{MARK}'>",
    f"javascript:{MARK}",
    f"\u2028\u2029'-alert(1)-'<script>{MARK}</script>",
    f"{{{{{MARK}}}}}<style>*{{background:url(javascript:{MARK})}}</style>",
)
SECRETS = {
    "AWS_ACCESS_KEY_ID": "AKIAPLANTED0KEY1",
    "AWS_SECRET_ACCESS_KEY": "planted/secret+key2",
    "AWS_SESSION_TOKEN": "planted-session-3",
    "HF_TOKEN": "hf_planted4",
    "HTTPS_PROXY": "http://user:planted5@127.0.0.1:9",
    "AWS_ENDPOINT_URL": "http://user:planted6@127.0.0.1:9",
}
IN_URLS = (
    "s3://AKIAPLANTED0KEY1:planted/secret+key2@bucket/x",
    "https://user:planted7@host/x.jsonl",
    "https://host/x.jsonl?X-Amz-Credential=AKIAPLANTED0KEY1&X-Amz-Signature=planted8",
    "https://account.host/x.jsonl?sv=2024&sig=planted9%3D",
)
WORDS = (
    "planted/secret",
    "planted-session",
    "hf_planted",
    "AKIAPLANTED",
    *(f"planted{i}" for i in range(1, 10)),
)


def hostile_rows() -> list[dict[str, Any]]:
    """Documents whose every field begins with planted text, near-copies among them."""
    rows: list[dict[str, Any]] = []
    for i, row in enumerate(make_rows(60)):
        planted = PLANTED[i % len(PLANTED)]
        rows.append(
            {
                "id": f"{planted}{row['id']}",
                "text": f"{planted} {row['text']} {planted}",
                "source": planted,
                "license": f"{planted}licence",
                "language": planted,
                "note": planted,
            }
        )
    return [*rows, {"id": PLANTED[0], "text": None, "source": PLANTED[1]}]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The run folder, and all that the command said."""
    folder: Path = tmp_path_factory.mktemp("hostile")
    corpus = folder / "corpus"
    corpus.mkdir()
    lines = "".join(json.dumps(row) + "\n" for row in hostile_rows())
    (corpus / "<img src=x onerror=planted>.jsonl").write_text(lines)
    (corpus / f"x.<script>{MARK.replace('/', '')}").write_text("passed over")
    recipe = {
        "name": "hostile",
        "input": [{"path": str(corpus), "source_field": "source", "id": "id", "meta": ["note"]}],
        "run_dir": str(folder / "run"),
        "stages": [
            {"op": "score.heuristics"},
            {"op": "dedup.minhash"},
            {"op": "order.random"},
            {"op": "pack", "length": 512},
        ],
        "output": {"format": ["parquet", "mds", "jsonl", "webdataset"]},
        "engine": {"max_quarantine_fraction": 0.5},
    }
    ended = run_command(recipe, folder, "--cpus", "2", env=SECRETS)
    assert ended.code == 0, ended.said
    return {"folder": folder / "run", "said": ended.said, "recipe": recipe}


def texts_below(folder: Path) -> Iterator[tuple[str, str]]:
    """The content of every file; of Parquet files that of their rows and their metadata."""
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        if path.suffix == ".parquet":
            file = pq.ParquetFile(path)
            yield str(path), f"{file.metadata.metadata}{file.read().to_pylist()}"
        else:
            yield str(path), path.read_bytes().decode("utf-8", "replace")


def leaks(text: str) -> list[str]:
    """Planted secrets in a text, and a bare `planted` of a file's own name is none."""
    return [word for word in WORDS if word in text]


@pytest.mark.ray
class TestSecrets:
    def test_nothing_leaks_into_files_or_onto_the_terminal(self, run: dict[str, Any]) -> None:
        found = {
            place: words for place, text in texts_below(run["folder"]) if (words := leaks(text))
        }
        assert found == {}
        assert leaks(run["said"]) == []
        assert len(list(texts_below(run["folder"]))) > 20

    def test_the_search_can_find(self, tmp_path: Path) -> None:
        (tmp_path / "a.json").write_text(json.dumps(SECRETS))
        ((_, text),) = texts_below(tmp_path)
        assert len(leaks(text)) >= 6

    @pytest.mark.parametrize("url", IN_URLS)
    @pytest.mark.parametrize("command", ["run", "plan", "validate"])
    def test_recipes_with_secrets_are_refused_without_repeating_them(
        self, url: str, command: str, run: dict[str, Any], tmp_path: Path, capfd: Any
    ) -> None:
        file = tmp_path / "recipe.yaml"
        places = {"input": [{"path": url, "source": "s"}], "run_dir": url, "output": {"path": url}}
        for field, value in places.items():
            file.write_text(yaml.safe_dump({**run["recipe"], field: value}))
            assert main([command, str(file)]) == 2
        assert main([command, str(file), "--set", f"tokenizer.path={url}"]) == 2
        said = "".join(capfd.readouterr())
        assert leaks(said) == []
        assert said.count("the URL holds a") >= 4

    @pytest.mark.parametrize("url", IN_URLS)
    @pytest.mark.parametrize("command", ["inspect", "compare", "report"])
    def test_arguments_with_secrets_are_not_repeated(
        self, url: str, command: str, capfd: Any
    ) -> None:
        assert main([command, url]) == 2
        assert leaks("".join(capfd.readouterr())) == []

    def test_failures_do_not_tell_the_environment(
        self,
        run: dict[str, Any],
        ray_local: int,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        capfd: Any,
    ) -> None:
        for name, value in SECRETS.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("HF_HUB_OFFLINE", "1")
        failing = {
            "tokenizer": {"path": "nobody/nothing"},
            "stages": [{"op": "decide", "rules": {"n_chars": {"min": 10**9}}}],
            "output": {"path": str(tmp_path / "recipe.yaml" / "below-a-file")},
        }
        file = tmp_path / "recipe.yaml"
        for field, value in failing.items():
            changed = {**run["recipe"], "run_dir": str(tmp_path / field), field: value}
            if field == "stages":
                changed["stages"] = [{"op": "score.heuristics"}, *value]
            file.write_text(yaml.safe_dump(changed))
            assert main(["run", str(file), "--quiet"]) == 1
        assert leaks("".join(capfd.readouterr())) == []
        assert [t for _, t in texts_below(tmp_path) if leaks(t)] == []


def test_no_script_fits_the_name_of_a_recipe(
    run: dict[str, Any], tmp_path: Path, capfd: Any
) -> None:
    file = tmp_path / "recipe.yaml"
    file.write_text(yaml.safe_dump({**run["recipe"], "name": PLANTED[0]}))
    assert main(["validate", str(file)]) == 2
    assert "name" in capfd.readouterr().err


@pytest.mark.ray
@pytest.mark.browser
@pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")
class TestPages:
    @pytest.fixture(scope="class")
    def pages(
        self, run: dict[str, Any], tmp_path_factory: pytest.TempPathFactory
    ) -> dict[str, str]:
        """The report of the run and a comparison of it with itself under a planted name."""
        folder: Path = tmp_path_factory.mktemp("pages")
        page = folder / "compare.html"
        # The name of a run ends at the first = and has no slash.
        named = [f"{re.sub('[=/]', '', planted)}={run['folder']}" for planted in PLANTED[:2]]
        assert main(["compare", *named, "--report", str(page), "--windows", "5"]) == 0
        scores = run["folder"] / "report"
        return {
            "report": (run["folder"] / "report.html").read_text(encoding="utf-8"),
            "scores": (scores / "01-score.heuristics.html").read_text(encoding="utf-8"),
            "correlations": (scores / "correlations.html").read_text(encoding="utf-8"),
            "compare": page.read_text(encoding="utf-8"),
        }

    def test_planted_texts_are_in_the_report(self, pages: dict[str, str]) -> None:
        written = [html.escape(planted.strip())[:40] for planted in PLANTED]
        assert [w for w in written if w not in pages["report"]] == []
        assert [w for w in written if w not in pages["scores"]] == []

    def test_nothing_planted_runs(self, pages: dict[str, str], tmp_path: Path) -> None:
        policy = tag("meta", http_equiv="Content-Security-Policy", content=POLICY)
        control = "<p>control</p>" + "".join(PLANTED)
        frames = {
            **pages,
            **{
                f"{name} without its policy": page.replace(policy, "")
                for name, page in pages.items()
            },
            "control": control,
            "control under the policy": f"{policy}{control}",
        }
        assert all(policy in page for page in pages.values())
        wrapper = tmp_path / "wrapper.html"
        wrapper.write_text(wrapped(frames), encoding="utf-8")
        found = opened(wrapper)
        ran = {
            title for title in frames if re.search(f'title="{title}"[^>]*data-planted="1"', found)
        }
        assert ran == {"control"}
        styled = re.findall(r'title="([^"]*)"[^>]*data-styled="yes"', found)
        assert set(styled) == {t for t in frames if "control" not in t}

    def test_the_file_itself_is_harmless(self, run: dict[str, Any]) -> None:
        found = opened(run["folder"] / "report.html")
        assert 'data-planted="1"' not in found
        assert "<script" not in found
        assert "<img" not in found


def wrapped(frames: dict[str, str]) -> str:
    """A page with others in frames, which notes whether their own style sheet applies."""
    drawn = "".join(
        f'<iframe title="{title}" srcdoc="{html.escape(page)}"></iframe>'
        for title, page in frames.items()
    )
    note = (
        "window.onload = () => document.querySelectorAll('iframe').forEach(f => { const page ="
        " f.contentDocument; f.dataset.styled = f.contentWindow.getComputedStyle(page.body)"
        ".backgroundColor === 'rgba(0, 0, 0, 0)' ? 'no' : 'yes'; })"
    )
    return f'<!DOCTYPE html><meta charset="utf-8">{drawn}<script>{note}</script>'


def opened(page: Path) -> str:
    """The document of a page after Chromium has loaded it and run what it would run."""
    assert CHROMIUM is not None
    done = subprocess.run(
        [
            *(CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run"),
            *("--disable-background-networking", f"--user-data-dir={page.parent / 'profile'}"),
            *("--virtual-time-budget=10000", "--dump-dom", page.as_uri()),
        ],
        capture_output=True,
        text=True,
        timeout=180,
        check=True,
    )
    return re.sub(r'srcdoc="[^"]*"', "", done.stdout)
