"""Which rows are looked at: all of a small run, a bounded and even share of a large one."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from longctx.engine.op import DROP_REASON
from longctx.errors import DamagedFileError, LongctxError
from longctx.report.collect import load_run, write_report
from longctx.report.scores import sample as sampling
from longctx.report.scores.reading import rows_at
from longctx.report.scores.sample import draw, spaced
from tests.report.scored import edit, write_run

LONG = "Nothing is said here that anybody would have to read to its end. " * 20


def scores(rows: int, seed: int) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    return {"h_alpha": rng.random(rows), "n_tokens": rng.integers(1, 9000, rows)}


def drawn(run_dir: str) -> sampling.Sample:
    found = draw(run_dir, load_run(run_dir)["stages"])
    assert found is not None
    return found


def large(folder: Path, parts: int, groups: tuple[int, ...] = (30, 20)) -> str:
    rows = sum(groups)
    own = pa.array([LONG * 3] * rows, pa.large_string())
    return write_run(
        folder,
        [("score.heuristics", lambda part: scores(rows, part))],
        parts=parts,
        groups=groups,
        columns=lambda part: {"text": own},
    )


def test_all_rows_of_a_small_run_are_there_with_their_scores(tmp_path: Path) -> None:
    run = write_run(tmp_path, [("score.heuristics", lambda part: scores(8, part))])
    found = drawn(run)
    assert found.doc_ids.tolist() == [f"p{part}-{i}" for part in range(2) for i in range(8)]
    expected = np.concatenate([scores(8, part)["h_alpha"] for part in range(2)])
    assert np.array_equal(found.stages["01-score.heuristics"].numbers["h_alpha"], expected)
    assert found.tokens is not None
    assert [found.source_names[i] for i in found.sources[:2]] == ["even", "odd"]
    assert (found.parts, found.parts_all) == (2, 2)
    places = [found.address(row) for row in (12, 3)]
    shown = {place.row: row["text"] for place, row in rows_at(run, "documents", ["text"], places)}
    assert shown == {3: "text of p0-3", 4: "text of p1-4"}


def test_rows_that_were_removed_are_known_with_stage_and_reason(tmp_path: Path) -> None:
    reasons = pa.array([None, "too short", *[None] * 6], pa.string())
    run = write_run(
        tmp_path,
        [
            ("decide", lambda part: {DROP_REASON: reasons}),
            ("score.language", lambda part: {"lang_mixed_share": [0.5] * 8}),
        ],
        parts=1,
    )
    found = drawn(run)
    assert found.died.tolist() == [3, 1, 3, 3, 3, 3, 3, 3]
    assert found.reasons[1] == "too short"
    assert found.alive(1).all()
    assert found.alive(2).sum() == 7
    assert np.isnan(found.stages["02-score.language"].numbers["lang_mixed_share"][1])


def test_texts_are_those_that_stages_read(tmp_path: Path) -> None:
    masked = pa.array([f"masked {i}" for i in range(8)], pa.large_string())
    run = write_run(
        tmp_path, [("filter.pii", lambda part: {"pii_count": list(range(8)), "text": masked})]
    )
    page = Path(write_report(run)[1]).read_text()
    assert "masked 1" in page
    assert "text of p" not in page


@pytest.mark.parametrize(("n", "k"), [(5, 9), (5, 5), (1000, 64), (7, 3), (0, 4)])
def test_numbers_are_spaced_evenly(n: int, k: int) -> None:
    found = spaced(n, k)
    assert len(found) == min(n, k)
    assert found == sorted(set(found))
    assert all(0 <= i < n for i in found)
    steps = np.diff(found)
    assert len(steps) == 0 or steps.max() - steps.min() <= 1


def test_a_sample_is_even_bounded_and_always_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sampling, "PARTS", 6)
    monkeypatch.setattr(sampling, "GROUPS", 8)
    monkeypatch.setattr(sampling, "ROWS", 60)
    run = large(tmp_path, 40)
    found = drawn(run)
    assert (found.parts, found.parts_all) == (6, 40)
    assert len(found.places) == 8
    assert 50 <= len(found.doc_ids) <= 60
    numbers = [int(place.part[2:]) for place in found.places]
    assert numbers == sorted(numbers)
    assert set(numbers) == {3, 10, 16, 23, 30, 36}
    again = drawn(run)
    assert again.doc_ids.tolist() == found.doc_ids.tolist()
    # Scores still stand beside their documents.
    values = found.stages["01-score.heuristics"].numbers["h_alpha"]
    for row in (0, 17, 41):
        part, number = found.doc_ids[row][1:].split("-")
        assert values[row] == scores(50, int(part))["h_alpha"][int(number)]


def bytes_read() -> int:
    """What this process has read so far, from files and otherwise, as the kernel counts it."""
    lines = Path("/proc/self/io").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("rchar")).split()[1])


def cost_of_report(run_dir: str) -> int:
    before = bytes_read()
    write_report(run_dir)
    return bytes_read() - before


@pytest.mark.skipif(not Path("/proc/self/io").exists(), reason="the kernel does not count reads")
def test_what_is_read_does_not_grow_with_the_corpus(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sampling, "PARTS", 8)
    monkeypatch.setattr(sampling, "GROUPS", 10)
    monkeypatch.setattr(sampling, "ROWS", 200)
    runs = {parts: large(tmp_path / str(parts), parts) for parts in (4, 20, 200)}
    cost_of_report(runs[4])
    cost = {parts: cost_of_report(run) for parts, run in runs.items()}
    rows = {parts: len(drawn(run).doc_ids) for parts, run in runs.items()}
    assert rows[20] == rows[200] <= rows[4] == 200
    assert cost[200] < 1.05 * cost[20]
    # The measure sees what is read: without bounds ten times the parts cost far more.
    monkeypatch.setattr(sampling, "PARTS", 200)
    monkeypatch.setattr(sampling, "GROUPS", 400)
    assert cost_of_report(runs[200]) > 4 * cost_of_report(runs[20])


def test_without_documents_there_are_no_pages(tmp_path: Path) -> None:
    run = write_run(tmp_path, [("score.heuristics", lambda part: scores(8, part))])
    for file in (tmp_path / "documents").iterdir():
        file.unlink()
    assert [Path(page).name for page in write_report(run)] == ["report.html"]


def cut_short(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-20])


def other_rows(file: Path) -> None:
    file.write_bytes((file.parents[2] / "documents" / "s-0000.parquet").read_bytes())


@pytest.mark.parametrize("harm", [cut_short, other_rows, Path.unlink])
def test_damaged_and_foreign_files_are_told(harm: Any, tmp_path: Path) -> None:
    run = write_run(tmp_path, [("score.heuristics", lambda part: scores(8, part))])
    harm(tmp_path / "stages" / "01-score.heuristics" / "s-0001.parquet")
    with pytest.raises(DamagedFileError) as caught:
        write_report(run)
    assert "s-0001.parquet" in caught.value.where
    assert "--verify" in caught.value.remedy


def test_a_stage_cannot_lead_out_of_the_folder(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", [("score.heuristics", lambda part: scores(8, part))])
    edit(run, lambda record: record["stages"][1].update(stage="../../planted"))
    with pytest.raises(LongctxError, match=r"stages\.1\.stage"):
        write_report(run)
    assert not (tmp_path / "planted.html").exists()


def test_pages_from_a_store_are_those_from_a_disk(tmp_path: Path) -> None:
    """A file system without local paths: files are opened in the store and read in pieces."""
    import fsspec

    stages = [("score.heuristics", lambda part: scores(8, part))]
    local = write_report(write_run(tmp_path, stages, run_dir="x"))
    store = "memory://scores-of-a-run"
    folder = write_run(store, stages, run_dir="x")
    stored = write_report(folder)
    assert stored[0] == f"{store}/report.html"
    files = fsspec.filesystem("memory")
    assert [files.cat_file(url) for url in stored] == [Path(file).read_bytes() for file in local]
