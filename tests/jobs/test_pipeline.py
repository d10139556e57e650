from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jobs.bench.enlarged import make, perturb, perturbed
from jobs.bench.pipeline import Measured, Stage, describe, verdict
from jobs.bench.watch import Taken

WORDS = [f"word{i}" for i in range(400)]


def rows(n: int) -> pa.Table:
    texts = [" ".join(WORDS[i:] + WORDS[:i]) for i in range(n)]
    columns = {"id": [f"d{i}" for i in range(n)], "text": texts}
    return pa.table({**columns, "source": ["s"] * n, "license": ["CC0"] * n})


def shingles(text: str) -> set[tuple[str, ...]]:
    words = text.split()
    return {tuple(words[i : i + 5]) for i in range(len(words) - 4)}


def test_a_copy_is_no_near_duplicate_but_has_the_same_words() -> None:
    text = rows(1)["text"][0].as_py()
    copy = perturb(text, 3)
    assert copy == perturb(text, 3) != perturb(text, 4)
    assert len(copy.split()) == len(text.split())
    assert set(copy.split()) <= set(text.split())
    a, b = shingles(text), shingles(copy)
    assert len(a & b) / len(a | b) < 0.15
    assert perturb("", 1) == ""
    assert perturb(" \n", 1) == " \n"


def test_characters_without_spaces_are_replaced_one_by_one() -> None:
    text = "".join(chr(0x4E00 + i) for i in range(200))
    copy = perturb(text, 1)
    same = sum(a == b for a, b in zip(text, copy, strict=True))
    assert 120 < same < 160


def test_the_first_copy_is_the_original_and_ids_differ() -> None:
    original = rows(3)
    assert perturbed(original, 0) is original
    copy = perturbed(original, 2)
    assert copy["id"].to_pylist() == ["d0#2", "d1#2", "d2#2"]
    assert copy["source"].equals(original["source"])


def test_shares_are_nested_and_enlargements_hold_every_copy(tmp_path: Path) -> None:
    file = tmp_path / "in.parquet"
    pq.write_table(rows(200), file)

    def ids(size: float) -> set[str]:
        folder = make([file], tmp_path / f"{size}", size)
        tables = [pq.read_table(f) for f in sorted(folder.glob("*.parquet"))]
        found = pa.concat_tables(tables)["id"].to_pylist()
        assert len(set(found)) == len(found)
        return set(found)

    quarter, half, three = ids(0.25), ids(0.5), ids(3)
    assert quarter < half < ids(1) < three
    assert 30 < len(quarter) < 70
    assert len(three) == 600
    with pytest.raises(ValueError, match="whole number"):
        make([file], tmp_path / "odd", 2.5)


def run(size: float, workers: int, wall: float, busy: float) -> Measured:
    taken = Taken(0, "", "", wall + 5, wall, 10**9, 10**8, 10**8)
    documents = int(1000 * size)
    return Measured(size, workers, documents, 1.0, taken, {"01-x": Stage(wall, busy)})


def test_the_verdict_compares_documents_workers_and_busy_seconds() -> None:
    runs = [run(0.5, 2, 5, 4), run(1, 1, 18, 17.1), run(1, 2, 10, 17), run(10, 2, 120, 190)]
    found = verdict(runs)
    assert found["growth"] == pytest.approx(1.2)
    assert found["speedup"] == pytest.approx(1.8)
    assert found["overhead"] == pytest.approx(0.05)
    page = describe(runs)
    assert "| 01-x, ms a document | 10.000 | 18.000 | 10.000 | 12.000 |" in page
    assert "5.0% of the time" in page
    assert verdict(runs[:1]) == {"growth": 1.0}
