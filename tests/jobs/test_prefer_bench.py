"""The benchmark of calls: both ways agree, ours calls less, and prefixes are counted as kept."""

from pathlib import Path

import pytest

from jobs.bench import prefer
from jobs.bench.prefer import Prefixes, measured, report


def test_both_ways_agree_and_ours_calls_less(tmp_path: Path) -> None:
    runs, off = measured(3, 1_500, 4, tmp_path)
    assert off == []
    naive, ours, again = runs
    assert ours.calls < ours.requests < naive.requests == naive.calls
    assert ours.read - ours.again < naive.read - naive.again
    assert (again.requests, again.calls, again.read) == (ours.requests, 0, 0)
    assert "times fewer calls" in report(runs, 3, 1_500, 4)


def test_what_is_off_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = prefer.ours
    monkeypatch.setattr(
        prefer,
        "ours",
        lambda name, of, s, cache, slots: (*real(name, of, s, cache, slots)[:1], {}),
    )
    _, off = measured(1, 500, 4, tmp_path)
    assert off == ["the ways find other totals"]


def test_prefixes_are_whole_blocks_of_recent_prompts() -> None:
    kept, one = Prefixes(2), "a" * 600
    assert [kept.shared(t) for t in (one, one + "b", "c", "d", one)] == [0, 512, 0, 0, 0]
