"""Judging removal lists, reading what tools print, and the page of the comparison."""

import json
import sys
from dataclasses import asdict, replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jobs.bench import minhash_peers, watch
from jobs.bench.minhash_peers import OURS, Run
from jobs.bench.minhash_truth import agreement, read_pairs, scores
from jobs.bench.peers import environments
from jobs.bench.peers.job import Job, Outcome, ids, missing, outcome_of

PAIRS = [("a", "b", 0.95), ("b", "c", 0.75), ("d", "e", 0.72), ("f", "g", 0.55)]


def test_a_pair_is_solved_when_one_of_it_went_and_a_removal_right_when_it_has_a_partner() -> None:
    found = {s.level: s for s in scores(PAIRS, {"b", "f", "x"})}
    assert {level: s.pairs for level, s in found.items()} == {
        0.5: 4,
        0.6: 3,
        0.7: 3,
        0.8: 1,
        0.9: 1,
    }
    assert found[0.7].recall == 2 / 3
    assert found[0.7].precision == 1 / 3
    assert found[0.5].recall == 3 / 4
    assert found[0.5].precision == 2 / 3
    assert found[0.9].recall == 1


def test_removing_all_or_nothing_scores_what_it_is_worth() -> None:
    everything = scores(PAIRS, {"a", "b", "c", "d", "e", "f", "g", "x", "y", "z"}, [0.7])[0]
    assert (everything.recall, everything.precision) == (1.0, 0.5)
    nothing = scores(PAIRS, set(), [0.7])[0]
    assert (nothing.recall, nothing.precision) == (0.0, 1.0)
    assert scores([], set(), [0.7])[0].recall == 1.0


def test_agreement_of_removal_lists() -> None:
    assert agreement({"a", "b"}, {"b", "c"}) == 1 / 3
    assert agreement(set(), set()) == 1.0


def test_pairs_are_read_with_their_similarity(tmp_path: Path) -> None:
    a, b, jaccard = zip(*PAIRS, strict=True)
    written = pa.table({"id_a": a, "id_b": b, "jaccard": jaccard, "containment": jaccard})
    pq.write_table(written, tmp_path / "pairs.parquet")
    assert read_pairs(tmp_path / "pairs.parquet") == PAIRS


def test_the_last_line_is_the_result() -> None:
    outcome = Outcome("tool", "1.0", "as it is", 3, ["a"], {"filter s": 0.5})
    assert outcome_of("progress 1\n" + json.dumps(asdict(outcome)) + "\n") == outcome
    for printed in ("", "progress", '{"package": "tool"}', "[1]"):
        with pytest.raises(ValueError, match="no result"):
            outcome_of(printed)


def test_removed_is_what_was_not_kept(tmp_path: Path) -> None:
    pq.write_table(pa.table({"id": ["c", "a"], "text": ["x", "y"]}), tmp_path / "1.parquet")
    pq.write_table(pa.table({"id": ["b"], "text": ["zé"]}), tmp_path / "0.parquet")
    job = Job(tmp_path, tmp_path, 1)
    assert ids(job) == ["b", "c", "a"]
    assert missing(job, ["c"]) == ["b", "a"]
    assert minhash_peers.text_mb(tmp_path) == 5e-6


def _run(tool: str, cpu: float, removed: list[str], corpus: str = "corpus") -> Run:
    outcome = Outcome(tool, "1.0", "as it is", 7, removed, {"filter s": 0.5})
    return Run(tool, corpus, 100.0, cpu, cpu, 10**9, outcome)


def test_aims_are_checked_against_the_fastest_and_the_best() -> None:
    slow, fast = _run("slow", 100.0, ["b", "d", "f"]), _run("fast", 25.0, ["a"])
    warm = _run(minhash_peers.WARM, 4.0, ["b", "d"])
    judged = {"set": minhash_peers.judge(PAIRS, [_run(OURS, 9.0, ["b", "d"]), slow, fast])}
    assert minhash_peers.misses([warm, slow, fast], [], judged) == []
    judged = {"set": minhash_peers.judge(PAIRS, [_run(OURS, 20.0, ["b"]), slow, fast])}
    warm = _run(minhash_peers.WARM, 12.5, ["b"])
    assert minhash_peers.misses([warm, slow, fast], [], judged) == [
        "8.0 MB/s/core of the op, aimed at 10",
        "2.0 times fast, aimed at 5",
        "set: recall 0.667, slow has 1.000",
    ]
    assert minhash_peers.misses([_run(OURS, 9.0, [])], [], {}) == []


def test_a_start_is_what_a_small_corpus_takes() -> None:
    whole = _run("tool", 25.0, [])
    small = replace(_run("tool", 5.0, [], "small"), mb=20.0)
    assert minhash_peers.steady(whole, [small]) == 4.0
    assert minhash_peers.steady(whole, [replace(small, tool="other")]) == whole.speed == 4.0
    assert minhash_peers.steady(_run("tool", 30.0, []), [small]) == 80 / 25


def test_the_page_holds_what_was_measured_and_why_a_tool_is_absent() -> None:
    runs = [_run(OURS, 5.0, ["b"]), _run("peer", 50.0, ["a", "b"])]
    judged = {"set": minhash_peers.judge(PAIRS, runs)}
    page = minhash_peers.report(runs, judged, {"third": "no wheel"}, ["too slow"])
    assert "| peer 1.0 | 50.0 | 50.0 | 2.00 | 2.00 | 10.0 x | 1.00 | 2 |" in page
    assert "| ours | 5.0 | 5.0 | 20.00 | 20.00 | 1.0 x | 1.00 | 1 |" in page
    assert "| ours | 1.000 | 0.500 |" in page
    assert "| ours | 0.500 / 1.000 |" in page
    assert "third could not be measured: no wheel." in page
    assert "- missed: too slow" in page


def test_a_peer_that_cannot_be_installed_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(environments, "HERE", tmp_path)
    monkeypatch.setattr(environments, "FOLDER", tmp_path / "environments")
    (tmp_path / "tool.txt").write_text("./no-such-file.whl\n")
    assert "no-such-file.whl" in (environments.install("tool") or "")
    (tmp_path / "tool.txt").write_text("")
    (tmp_path / "environments" / "tool").mkdir(exist_ok=True)
    (tmp_path / "environments" / "tool" / "installed").write_text("")
    assert environments.install("tool") is None


def test_a_run_that_says_nothing_is_a_reason_and_no_figure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(environments, "python", lambda name: sys.executable)
    found = minhash_peers.run("no_such_tool", "set", tmp_path, tmp_path, 1, tmp_path)
    assert isinstance(found, str)
    assert "ended with 1" in found
    assert "no_such_tool" in found


def test_processes_below_a_command_are_counted() -> None:
    burn = "import time\nwhile time.process_time() < 0.3: pass"
    below = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {burn!r}]); print(1)"
    taken = watch.watched([sys.executable, "-c", below])
    assert (taken.code, taken.printed) == (0, "1\n")
    assert taken.cpu >= 0.3
