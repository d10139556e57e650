"""`pack` in runs: window lengths, spans, sentences, separators, the look-ahead that is chosen."""

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from rich.console import Console

from longctx.errors import RecipeError, RunError
from longctx.recipe import from_dict
from longctx.report.collect import collect
from longctx.report.html import render
from longctx.report.inspect import inspect_view
from longctx.text.offsets import sentence_token_ends
from longctx.text.tokenize import load_tokenizer
from tests.conftest import make_rows
from tests.stages import Finished, Row, recipe_of, run_rows

ORDER = {"op": "order.random"}
LONG = {"id": "long", "text": "One two three. Four five six seven eight. " * 150}
ROWS = [*make_rows(36)[:36], LONG]
TEXTS = {row["id"]: row["text"] for row in ROWS}


@pytest.fixture(scope="module")
def folder(ray_local: int, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("pack-more")


def packed(folder: Path, **fields: Any) -> Finished:
    settings = {"shard_tokens": 4_000, **fields}
    stages = [{"op": "embed"}, ORDER, {"op": "pack", **settings}]
    return run_rows(folder, ROWS, stages, output={"format": ["parquet", "mds"]})


def tokens_of(text: str) -> list[int]:
    ids: list[int] = load_tokenizer("embedded").encode_batch([text])[0].tolist()
    return ids


def windows_in(folder: Path) -> list[Row]:
    parts = sorted(folder.glob("part-*.parquet"))
    return [w for p in parts for w in pq.read_table(p).to_pylist()]


def assert_traced(windows: list[Row], prefix: list[int], separator: list[int]) -> set[str]:
    """Every segment against its framed document; the documents that were seen."""
    known = {i: [*prefix, *tokens_of(text), *separator] for i, text in TEXTS.items()}
    for window in windows:
        for s in window["segments"]:
            size = s["end"] - s["start"]
            expected = known[s["doc_id"]][s["doc_start"] : s["doc_start"] + size]
            assert window["input_ids"][s["start"] : s["end"]] == expected
    return {s["doc_id"] for w in windows for s in w["segments"]}


@pytest.mark.ray
def test_windows_of_several_lengths_lie_in_folders_of_their_own(folder: Path):
    lengths = [{"length": 512, "share": 0.6}, {"length": 128, "share": 0.4}]
    done = packed(folder, lengths=lengths)
    output = Path(done.record.output)
    manifest = json.loads((output / "manifest.json").read_text())
    assert not list(output.glob("part-*"))
    seen: set[str] = set()
    for entry in manifest["lengths"]:
        length, own = entry["length"], output / entry["folder"]
        windows = windows_in(own)
        assert own.name == f"length-{length}"
        assert max(w["n_tokens"] for w in windows) <= length
        assert (own / "mds" / "index.json").exists()
        assert json.loads((own / "manifest.json").read_text())["windows"] == len(windows)
        assert entry["windows"] == len(windows)
        eos = load_tokenizer("embedded").eos_id
        seen |= assert_traced(windows, [], [eos])
    assert seen == set(TEXTS)
    total = sum(e["tokens"] for e in manifest["lengths"])
    stretch = 4 * 512 + max(len(tokens_of(t)) for t in TEXTS.values())
    for entry in manifest["lengths"]:
        assert abs(entry["share_reached"] - entry["share"]) * total <= stretch
        assert entry["share_reached"] == pytest.approx(entry["tokens"] / total, abs=0.01)
    audit = done.stage("pack").steps["audit"]
    assert set(audit["by_length"]) == {"512", "128"}
    assert audit["tokens"] == total
    page = collect(done.record.run_dir)
    assert page.windows is not None
    assert [row.length for row in page.windows.lengths] == [512, 128]
    assert "Windows by length" in render(page)
    listing = Console(width=120, record=True)
    listing.print(inspect_view(done.record.run_dir, limit=3))
    assert f"3 of {audit['windows']}" in listing.export_text()


@pytest.mark.ray
def test_another_length_removes_the_folders_of_the_old_ones(folder: Path):
    several = [{"length": 512, "share": 0.5}, {"length": 64, "share": 0.5}]
    output = Path(packed(folder, lengths=several).record.output)
    assert (output / "length-64").is_dir()
    done = packed(folder, length=512)
    names = {p.relative_to(output).parts[0] for p in output.rglob("*") if p.is_file()}
    assert not [n for n in names if n.startswith("length-")]
    assert "lengths" not in json.loads((output / "manifest.json").read_text())
    assert {s["doc_id"] for w in done.windows() for s in w["segments"]} == set(TEXTS)


@pytest.mark.ray
def test_the_look_ahead_that_was_taken_is_told(folder: Path):
    done = packed(folder, length=512)
    choice = done.stage("pack").steps["plan"]["targets"]["512"]["choice"]
    tried = [(c["rule"], c["look_ahead"]) for c in choice["tried"]]
    assert tried == [(r, w) for r in ("first", "weighed") for w in (64, 512)]
    assert (choice["rule"], choice["look_ahead"]) in tried
    assert choice["coherence_kept"] == pytest.approx(
        choice["coherence"] / choice["coherence_of_order"]
    )
    audit = done.stage("pack").steps["audit"]
    assert audit["context_coherence"] == pytest.approx(choice["coherence"], abs=1e-5)
    page = collect(done.record.run_dir)
    assert page.windows is not None
    assert (
        page.windows.strategy == f"window ({choice['rule']}, look-ahead {choice['look_ahead']:,})"
    )


@pytest.mark.ray
def test_without_vectors_the_report_says_that_lengths_alone_were_looked_at(
    ray_local: int, tmp_path: Path
):
    done = run_rows(tmp_path, ROWS[:6], [{"op": "order.random"}, {"op": "pack", "length": 512}])
    plan = done.stage("pack").steps["plan"]
    assert plan["targets"]["512"]["choice"]["coherence"] is None
    assert [w for w in collect(done.record.run_dir).warnings if "no vectors" in w]


@pytest.mark.ray
def test_best_fit_with_a_prefix_and_a_separator_of_several_tokens(folder: Path):
    done = packed(
        folder, length=300, strategy="best_fit", prefix=[5], separator=[7, 8, 9], reserve=44
    )
    windows = done.windows()
    assert max(w["n_tokens"] for w in windows) <= 256
    assert assert_traced(windows, [5], [7, 8, 9]) == set(TEXTS)
    half = sum(2 * w["n_tokens"] <= 256 for w in windows)
    assert half <= 1


@pytest.mark.ray
@pytest.mark.parametrize("strategy", ["window", "best_fit"])
def test_long_documents_are_cut_where_a_sentence_ends(folder: Path, strategy: str):
    done = packed(folder, length=256, strategy=strategy, split_at="sentence")
    eos = load_tokenizer("embedded").eos_id
    assert assert_traced(done.windows(), [], [eos]) == set(TEXTS)
    ids = load_tokenizer("embedded").encode_batch([LONG["text"]])[0]
    ends = set(sentence_token_ends(load_tokenizer("embedded"), ids, LONG["text"]).tolist())
    cuts = [
        s["doc_start"] + s["end"] - s["start"]
        for w in done.windows()
        for s in w["segments"]
        if s["doc_id"] == "long"
    ]
    assert len(cuts) >= 6
    assert max(cuts) == len(ids) + 1
    assert set(cuts) - {len(ids) + 1} <= ends


@pytest.mark.ray
@pytest.mark.parametrize(
    "order",
    [{"variant": "knn_repeat", "dup_hi": 1}, {"p_knn": 0.4, "rel_lo": -1, "languages": ["en"]}],
    ids=["whole documents", "sentences"],
)
def test_spans_are_framed_as_documents_and_traced_into_theirs(
    ray_local: int, tmp_path: Path, order: Row
):
    stages = [
        {"op": "score.heuristics"},
        {"op": "embed"},
        {"op": "order.neighbours", **order},
        {"op": "pack", "length": 400, "separator": [7, 8]},
    ]
    rows = [{**row, "language": "en"} for row in ROWS[:12]]
    done = run_rows(tmp_path, rows, stages)
    plan = done.stage("pack").steps["plan"]
    placed = {r["doc_id"]: r for r in done.rows("order.neighbours")}
    known = {i: tokens_of(TEXTS[i]) for i in placed}
    spans = [s for r in placed.values() for s in r["spans"] or []]
    sizes = [s["end"] - s["start"] for s in spans]
    sizes += [len(known[i]) for i, r in placed.items() if r["tour_id"] is not None]
    assert plan["span_rows"] == len(spans) >= 8
    assert any(s["start"] > 0 for s in spans) == ("p_knn" in order)
    dropped = plan["dropped_separator"]
    assert plan["tokens_in"] == plan["tokens_placed"] + dropped == sum(sizes) + 2 * len(sizes)
    seen = set()
    for window in done.windows():
        for s in window["segments"]:
            ids = window["input_ids"][s["start"] : s["end"]]
            text = [i for i in ids if i not in (7, 8)]
            assert ids[len(text) :] in ([], [7], [7, 8], [8])
            first = s["doc_start"]
            assert text == known[s["doc_id"]][first : first + len(text)]
            seen.add(s["doc_id"])
    assert seen == set(placed)
    assert done.stage("pack").rows_out == 12


@pytest.mark.ray
def test_a_separator_that_the_tokenizer_lacks_is_refused_before_anything_runs(
    ray_local: int, tmp_path: Path
):
    with pytest.raises(RunError, match="`separator` holds the id 99999999"):
        packed(tmp_path, separator=[99_999_999])
    assert not (tmp_path / "run" / "stages").exists()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"length": 8, "lengths": [{"length": 8, "share": 1}]}, "`length` or `lengths`, not both"),
        ({"lengths": [{"length": 8, "share": 0.5}]}, "sum to 0.5, not 1"),
        ({"lengths": [{"length": 8, "share": 0.5}] * 2}, "named once"),
        ({"strategy": "concat", "split_at": "sentence"}, "cuts anywhere"),
        ({"rule": "similar"}, "reads `embedding`"),
        ({"rule": "weighed", "look_ahead": 64}, "reads `embedding`"),
        ({"eos": False, "separator": [1]}, "contradict each other"),
        ({"bos": True, "prefix": [1]}, "both say what begins"),
        ({"length": 9, "reserve": 9}, "leaves no room"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(tmp_path: Path, fields: Row, message: str):
    stages = [{"op": "order.random"}, {"op": "pack", **fields}]
    with pytest.raises(RecipeError, match=message):
        from_dict(recipe_of(tmp_path, ROWS[:2], stages))


def test_orders_take_the_longest_of_several_lengths(tmp_path: Path):
    lengths = [{"length": 512, "share": 0.5}, {"length": 2048, "share": 0.5}]
    stages = [
        {"op": "score.heuristics"},
        {"op": "order.neighbours"},
        {"op": "pack", "lengths": lengths},
    ]
    recipe = from_dict(recipe_of(tmp_path, ROWS[:2], stages))
    assert getattr(recipe.ops[1], "length", None) == 2048
