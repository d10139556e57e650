"""`longctx compare` on windows that tests wrote: ours, those of others, and what is no windows."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from longctx.cli import main
from longctx.compare.counts import Counts
from longctx.compare.likeness import Likeness
from longctx.compare.result import Line
from longctx.embed.encoders import load_encoder
from longctx.report.compare import compare
from longctx.text.latin import is_latin
from tests.compare.packed import dealt, foreign, output, run_folder, save, topical, written
from tests.io.packed import packed_windows

DOCUMENTS = topical(96)
BY_TOPIC = written(DOCUMENTS, dealt(DOCUMENTS, sorted(DOCUMENTS), 6))
DEALT = written(
    DOCUMENTS, dealt(DOCUMENTS, np.random.default_rng(5).permutation(list(DOCUMENTS)).tolist(), 6)
)


def lines(*runs: object, **more: Any) -> list[Line]:
    return compare([str(run) for run in runs], **more).lines


def test_related_windows_are_told_from_dealt_ones(tmp_path: Path):
    sorted_run = run_folder(tmp_path / "a", BY_TOPIC, "order.path")
    dealt_run = run_folder(tmp_path / "b", DEALT, "order.random")
    by_topic, random = lines(sorted_run, dealt_run)
    assert (by_topic.name, random.name) == ("small order.path", "small order.random")
    for high, low in (
        *zip(by_topic.likeness.coherence, random.likeness.coherence, strict=True),
        (by_topic.likeness.adjacency, random.likeness.adjacency),
        (by_topic.likeness.best_earlier, random.likeness.best_earlier),
    ):
        assert high.value > low.value + 2 * np.hypot(high.error, low.error)
    # Dealt windows are at the floor, which is the same for both: they hold the same documents.
    whole = random.likeness.coherence[-1]
    assert whole.value == pytest.approx(random.likeness.random_coherence[-1], abs=3 * whole.error)
    assert by_topic.likeness.random == pytest.approx(random.likeness.random, abs=1e-12)
    earlier = random.likeness.best_earlier
    for floor in (by_topic.likeness, random.likeness):
        assert floor.random_best_earlier == pytest.approx(earlier.value, abs=3 * earlier.error)
    assert 0 < random.likeness.seams.reached < 0.3 < by_topic.likeness.seams.reached <= 1
    assert by_topic.counts.documents == random.counts.documents == 96
    assert by_topic.counts.sources_mean == 1.0
    assert random.counts.sources_mean > 2


def test_order_of_windows_and_number_of_files_change_nothing(tmp_path: Path):
    turned = BY_TOPIC.take(np.random.default_rng(2).permutation(BY_TOPIC.num_rows))
    whole = output(tmp_path / "whole", BY_TOPIC)
    shuffled = output(tmp_path / "shuffled", turned.slice(0, 7))
    save(shuffled, turned.slice(0, 7), turned.slice(7))
    for windows in (2_000, 5):
        a, b = lines(whole, shuffled, most_windows=windows)
        assert a.counts == b.counts
        assert a.likeness == b.likeness
        assert a.likeness.windows == min(windows, 16)


def blind(counts: Counts) -> Counts:
    """What a form without names can tell."""
    return replace(counts, split=None, split_short=None, sources_mean=None)


def figures(found: Likeness) -> list[float | None]:
    """All numbers of a result in a fixed order."""
    flat: list[float | None] = []

    def walk(value: Any) -> None:
        if isinstance(value, dict):
            for inner in value.values():
                walk(inner)
        elif isinstance(value, list):
            for inner in value:
                walk(inner)
        else:
            flat.append(value)

    walk(json.loads(json.dumps(found, default=lambda o: o.__dict__)))
    return flat


def test_foreign_forms_give_the_figures_of_our_own(tmp_path: Path):
    forms = foreign(BY_TOPIC, DOCUMENTS)
    runs = [output(tmp_path / "ours", BY_TOPIC)]
    runs += [save(tmp_path / name, table) for name, table in forms.items()]
    ours, *theirs = lines(*runs, length=512)
    assert len(theirs) == len(forms)
    for line in theirs:
        assert line.counts == blind(ours.counts), line.name
        if line.name == "texts":  # its windows are summed, and dealt, in another order
            same = replace(line.likeness, random_best_earlier=ours.likeness.random_best_earlier)
            assert figures(same) == pytest.approx(figures(ours.likeness), abs=1e-9)
        else:
            assert line.likeness == ours.likeness, line.name
        assert not line.tokenizer_known


def test_a_document_has_the_vector_that_embed_gives_it(tmp_path: Path):
    two = {"a-0": DOCUMENTS["sea-000"], "b-0": DOCUMENTS["sea-004"]}
    (line,) = lines(output(tmp_path / "x", written(two, [list(two)])))
    vectors, _ = load_encoder("static").encode(list(two.values()))
    assert line.likeness.adjacency.value == pytest.approx(float(vectors[0] @ vectors[1]), abs=1e-6)
    assert line.likeness.adjacency.error is None


def test_languages_that_the_encoder_does_not_know_are_left_out(tmp_path: Path):
    mixed = {**topical(4), "zh-0": "数据压缩算法的基本原理" * 9, "zh-1": "图像处理与机器学习" * 9}
    (line,) = lines(output(tmp_path / "x", written(mixed, [list(mixed)])))
    assert (line.likeness.segments, line.likeness.unknown) == (6, 2)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Plain words, and a number: 3.", True),
        ("Ärger über größere Straßen", True),
        ("angle α and some more words in English", True),
        ("1234 + 5678", False),
        ("", False),
        ("데이터 압축 알고리즘", False),
        ("def f(x): return x  # 원래 값을 그대로 돌려준다 그리고 끝난다", False),
        ("word " * 500 + "压缩" * 2000, False),
    ],
)
def test_the_script_of_a_text(text: str, expected: bool):
    assert is_latin(text) is expected


def test_the_awkward_windows_of_the_writers_can_be_judged(tmp_path: Path):
    """Windows of one token and of 300 segments; ids that decode to no sensible text."""
    (line,) = lines(save(tmp_path / "x", packed_windows().slice(0, 40)), tokenizers=["embedded"])
    assert line.counts.windows == 40
    assert line.length == 2_048
    assert not line.length_known
    assert line.counts.fill == line.counts.tokens / (40 * 2_048)


def test_several_lengths_are_several_lines(tmp_path: Path):
    shorter = written(DOCUMENTS, dealt(DOCUMENTS, sorted(DOCUMENTS), 3))
    output(tmp_path / "out" / "length-256", shorter, length=256)
    output(tmp_path / "out" / "length-512", BY_TOPIC)
    (tmp_path / "out" / "manifest.json").write_text("{}")
    made = compare([str(tmp_path / "out")])
    assert [line.name for line in made.lines] == ["out 256", "out 512"]
    assert [line.length for line in made.lines] == [256, 512]
    assert made.sizes == [32, 64, 128, 256]


def test_names_are_given_or_made_and_never_equal(tmp_path: Path):
    a, b = save(tmp_path / "a" / "out", BY_TOPIC), save(tmp_path / "b" / "out", BY_TOPIC)
    assert [x.name for x in lines(f"mine={a}", b)] == ["mine", "out"]
    assert [x.name for x in lines(a, b)] == ["a out", "b out"]
    assert [x.name for x in lines(f"x={a}", f"x={a}")] == ["a x #1", "a x #2"]
    assert lines(f"{tmp_path}/*/out/part-00000.parquet")[0].counts.windows == 32


Call = Callable[..., tuple[int, str, str]]


@pytest.fixture
def call(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Call:
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.chdir(tmp_path)

    def run(*arguments: object) -> tuple[int, str, str]:
        code = main(["compare", *map(str, arguments)])
        printed = capsys.readouterr()
        return code, printed.out, printed.err

    return run


def test_the_command_prints_and_writes(call: Call, tmp_path: Path):
    a = run_folder(tmp_path / "a", BY_TOPIC, "order.path")
    b = run_folder(tmp_path / "b", DEALT, "order.random")
    code, out, err = call(a, f"chance={b / 'output'}", "--json", "found.json", "--windows", 10)
    assert code == 0
    assert max(map(len, out.splitlines())) <= 80
    assert "small order.path keeps the most related documents" in " ".join(out.split())
    assert "reading chance ..." in err
    assert out.splitlines()[-2:] == [str(tmp_path / "compare.html"), str(tmp_path / "found.json")]
    found = json.loads((tmp_path / "found.json").read_text())
    assert [line["name"] for line in found["lines"]] == ["small order.path", "chance"]
    assert found["most_windows"] == 10
    assert "small order.path" in (tmp_path / "compare.html").read_text()


def test_options_name_columns_of_others_and_leave_ours_alone(call: Call, tmp_path: Path):
    ours = output(tmp_path / "ours", BY_TOPIC)
    stops = [[s["end"] for s in row] for row in BY_TOPIC["segments"].to_pylist()]
    other = save(tmp_path / "other", pa.table({"x": BY_TOPIC["input_ids"], "stops": stops}))
    options = ["--ids", "x", "--boundaries", "stops", "--json", "j.json"]
    assert call(ours, other, "--tokenizer", "other=embedded", *options)[0] == 0
    first, second = json.loads((tmp_path / "j.json").read_text())["lines"]
    assert first["likeness"] == second["likeness"]
    assert second["tokenizer_known"]
    assert "numbers in `stops`" in second["boundaries"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nothere"], "there are no windows here"),
        (["*.parquet"], "there are no windows here"),
        (["broken.parquet"], "this is not a Parquet file"),
        (["text.parquet"], "no column of windows was recognised; the columns are: text"),
        (["text.parquet", "--text", "txet"], "did you mean 'text'?"),
        (["empty.parquet"], "these windows hold no tokens"),
        (["ours", "--length", "8"], "more than a length of 8"),
        (["ours", "--tokenizer", "outs=x"], "the run 'outs'; did you mean 'ours'?"),
        (["ours", "--eos", "-1"], "expected a token id"),
        (["ours", "--windows", "0"], "expected a whole number from 1"),
        (["unfinished"], "this run is not finished (status: failed)"),
        (["unpacked"], "there are no windows here"),
        ([], "required: [NAME=]RUN"),
    ],
)
def test_what_cannot_be_compared_is_explained(call: Call, tmp_path: Path, arguments, message: str):
    output(tmp_path / "ours", BY_TOPIC)
    run_folder(tmp_path / "unfinished", BY_TOPIC, "order.path", status="failed")
    unpacked = run_folder(tmp_path / "unpacked", BY_TOPIC, "order.path")
    (unpacked / "output" / "part-00000.parquet").unlink()
    folder = tmp_path / "files"
    folder.mkdir()
    (folder / "broken.parquet").write_text("not Parquet")
    pq.write_table(pa.table({"text": ["x"]}), folder / "text.parquet")
    pq.write_table(BY_TOPIC.slice(0, 0), folder / "empty.parquet")
    there = [folder / a if (folder / a).exists() else a for a in arguments]
    code, out, err = call(*there)
    assert (code, out) == (2, "")
    assert message in err
    assert "remedy: " in err
    assert "Traceback" not in err
    assert not (tmp_path / "compare.html").exists()


def test_a_damaged_file_is_named(call: Call, tmp_path: Path):
    file = tmp_path / "x.parquet"
    pq.write_table(BY_TOPIC, file, write_page_checksum=True)
    data = bytearray(file.read_bytes())
    data[200:264] = bytes(64)
    file.write_bytes(data)
    code, _, err = call(file)
    assert code == 1
    assert "x.parquet: the file cannot be read" in err
    assert "Traceback" not in err
