"""`dedup.exact` in runs whose copies lie in different parts."""

from pathlib import Path

import pytest

from tests.stages import run_rows

pytestmark = pytest.mark.ray

ROWS = [
    {"id": "b", "text": "The same words.", "source": "one"},
    {"id": "a", "text": "The  same\nwords. ", "source": "two"},
    {"id": "c", "text": "The same words.", "source": "one"},
    {"id": "d", "text": "the same words", "source": "one"},
    {"id": "e", "text": "Other words.", "source": "two"},
    {"id": "f", "text": "", "source": "two"},
    {"id": "g", "text": " ", "source": "two"},
]


@pytest.fixture(scope="module")
def kept(ray_local: int, tmp_path_factory: pytest.TempPathFactory):
    def keep(**fields):
        stages = [{"op": "dedup.exact", **fields}]
        return run_rows(tmp_path_factory.mktemp("exact"), ROWS, stages)

    return keep


def test_the_smallest_id_stays_and_is_named(kept):
    done = kept()
    assert done.column("dedup.exact", "ex_kept_id") == {
        "a": "a", "b": "a", "c": "a", "d": "d", "e": "e", "f": "f", "g": "g",
    }  # fmt: skip
    assert done.column("dedup.exact", "drop_reason")["b"] == "exact"
    assert done.column("dedup.exact", "ex_count")["a"] == 3
    assert done.stage("dedup.exact").dropped == {"exact": 2}


def test_in_their_source_copies_of_other_sources_stay(kept):
    reasons = kept(scope="source").column("dedup.exact", "drop_reason")
    assert {i for i, reason in reasons.items() if reason} == {"c"}


def test_folded_text_meets_too_and_raw_text_only_itself(kept):
    folded = kept(norm="dedup").column("dedup.exact", "drop_reason")
    assert {i for i, reason in folded.items() if reason} == {"b", "c", "d"}
    raw = kept(norm="raw").column("dedup.exact", "drop_reason")
    assert {i for i, reason in raw.items() if reason} == {"c"}


def test_the_number_of_buckets_changes_nothing(ray_local: int, tmp_path: Path):
    rows = [{"id": f"{i:03d}", "text": f"text {i % 40}"} for i in range(200)]
    found, units = [], []
    for mb in (256, 0.004):
        engine = {"part_mb": 0.0005, "exchange_mb": mb}
        done = run_rows(tmp_path / str(mb), rows, [{"op": "dedup.exact"}], engine=engine)
        found.append(done.column("dedup.exact", "ex_kept_id"))
        assert done.stage("dedup.exact").rows_out == 40
        units.append(done.stage("dedup.exact").units)
    assert found[0] == found[1]
    assert units[1] > units[0]
