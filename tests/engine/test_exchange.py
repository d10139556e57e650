"""How an exchange is cut: waves that fit the workers, and files that are read together."""

from pathlib import Path

import pytest

from longctx.engine import exchange, units
from longctx.engine.commit import FileRef
from longctx.engine.exchange import Limits, grouped, waves
from longctx.engine.op import Op, Setting
from longctx.engine.units import Unit
from tests.conftest import make_rows
from tests.stages import run_rows

LIMITS = Limits(workers=2, bucket_bytes=100)


def buckets(count: int) -> dict[int, Unit]:
    return {b: Unit(f"bucket-{b:05d}", "f", None) for b in range(count)}


def files(*sizes: int) -> list[FileRef]:
    return [FileRef(f"{i}.parquet", n, "", n) for i, n in enumerate(sizes)]


def test_what_fits_the_workers_is_one_wave() -> None:
    found = list(waves(buckets(30), 800, LIMITS))
    assert found == [buckets(30)]


def test_a_larger_exchange_goes_in_waves_that_hold_every_bucket_once() -> None:
    found = list(waves(buckets(30), 801, LIMITS))
    assert [len(w) for w in found] == [15, 15]
    assert {b: u for w in found for b, u in w.items()} == buckets(30)
    assert len(list(waves(buckets(30), 801, LIMITS._replace(copies=3)))) == 4
    assert len(list(waves(buckets(30), 801, LIMITS._replace(workers=20)))) == 1


def test_a_bucket_alone_is_the_smallest_wave_and_none_is_no_wave() -> None:
    assert [len(w) for w in waves(buckets(2), 10**9, LIMITS)] == [1, 1]
    assert list(waves({}, 10**9, LIMITS)) == []


def test_tasks_of_a_wave_carry_a_bounded_number_of_units(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exchange, "AT_ONCE", 7)
    assert [len(w) for w in waves(buckets(15), 1, LIMITS)] == [5, 5, 5]


def test_small_files_are_read_together_and_large_ones_alone() -> None:
    assert grouped(files(4, 4, 4, 20, 4), 10, 1) == [
        ["0.parquet", "1.parquet"],
        ["2.parquet"],
        ["3.parquet"],
        ["4.parquet"],
    ]
    assert grouped(files(1, 0, 1), 10, 1) == [["0.parquet", "2.parquet"]]
    assert grouped(files(0), 10, 1) == []


def test_every_worker_has_something_to_read() -> None:
    assert len(grouped(files(*[5] * 16), 1000, 8)) == 8
    assert len(grouped(files(*[5] * 4), 1000, 8)) == 4


@pytest.mark.ray
def test_waves_change_no_row(
    ray_local: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = make_rows()
    stages = [{"op": "dedup.exact"}, {"op": "dedup.minhash"}]
    engine = {"part_mb": 0.1, "exchange_mb": 0.02}
    whole = run_rows(tmp_path / "a", rows, stages)
    monkeypatch.setattr(exchange, "_BUCKETS_AT_ONCE", 1)
    monkeypatch.setattr(units, "AT_ONCE", 3)
    cut = run_rows(tmp_path / "b", rows, stages, engine=engine)
    costs = {s.op: s.costs for s in cut.record.stages}
    assert costs["dedup.minhash"]["edges"]["units"] > 14
    for op, column in (("dedup.exact", "ex_kept_id"), ("dedup.minhash", "dup_cluster_id")):
        assert cut.column(op, column) == whole.column(op, column)


@pytest.mark.ray
def test_the_record_says_what_every_step_took(
    ray_local: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepared: list[str] = []

    def note(op: Op, setting: Setting) -> None:
        prepared.append(setting.stage)

    monkeypatch.setattr(Op, "prepare", note)
    rows = make_rows(60)
    found = run_rows(tmp_path, rows, [{"op": "score.heuristics"}, {"op": "dedup.exact"}])
    assert prepared == ["00-read", "01-score.heuristics", "02-dedup.exact"]
    read, scored, exact = found.record.stages
    text = sum(len(r["text"].encode()) for r in rows)
    assert read.summary["text_bytes"] == text
    assert set(read.costs) == {"groups", "keys", "repeated", ""}
    assert set(exact.costs) == {"keys", "copies", ""}
    (cost,) = scored.costs.values()
    assert cost["place"] == "part"
    assert cost["rows"] == len(rows)
    assert cost["cpu"] > 0
    assert cost["peak"] > 10**8
    copies = exact.costs["copies"]
    assert copies["place"] == "bucket"
    # The keys alone are 32 characters each.
    assert copies["received"] > 32 * len(rows)
    assert 0 < copies["largest"] <= copies["received"]
    assert "used" not in found.record.stages[1].summary
