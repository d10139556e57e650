"""Metrics say what run.json says, with bounded labels, and no run ends for them."""

from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from longctx.engine import metrics
from longctx.engine.commit import Commit
from longctx.engine.manifest import StageRecord
from longctx.engine.progress import Silent
from longctx.errors import RecipeError

RUN = "small"


def record(**changes) -> StageRecord:
    values = {
        "stage": "02-decide", "op": "decide", "kind": "map", "seconds": 1.5, "units": 5,
        "skipped": 2, "rows_in": 100, "rows_out": 90, "dropped": {"n_tokens_min": 6, "lang": 1},
        "quarantined": 3, "summary": {"quarantine": {"no text": 2}, "tokens": 1234},
    }  # fmt: skip
    return StageRecord(**{**values, **changes})


def read(path: Path) -> dict[tuple[str, tuple[str, ...]], float]:
    """Values of a text file by the metric's name and its labels without the run."""
    labels = {m.name: m.labels for m in metrics.METRICS}
    found = {}
    for family in text_string_to_metric_families(path.read_text()):
        for sample in family.samples:
            assert sample.labels["run"] == RUN
            values = tuple(sample.labels[name] for name in labels[sample.name][1:])
            found[(sample.name, values)] = sample.value
    return found


def test_a_stage_is_told_as_recorded():
    told = {(s.metric.name, s.labels): s.value for s in metrics.of_stage(record())}
    rows = {labels: n for (name, labels), n in told.items() if name == "longctx_rows_total"}
    assert rows == {
        ("02-decide", "kept", ""): 90,
        ("02-decide", "dropped", "n_tokens_min"): 6,
        ("02-decide", "dropped", "lang"): 1,
        ("02-decide", "quarantined", "no text"): 2,
        ("02-decide", "quarantined", ""): 1,
    }
    assert sum(rows.values()) == record().rows_in
    assert told["longctx_units_total", ("02-decide", "done")] == 3
    assert told["longctx_units_total", ("02-decide", "skipped")] == 2
    assert told["longctx_tokens", ("02-decide",)] == 1234
    assert told["longctx_stage_seconds", ("02-decide",)] == 1.5


def test_reasons_are_bounded_and_none_is_lost():
    many = {f"reason {i:03d}": i + 1 for i in range(200)}
    told = [s for s in metrics.of_stage(record(dropped=many)) if s.metric is metrics.ROWS]
    dropped = {s.labels[2]: s.value for s in told if s.labels[1] == "dropped"}
    assert len(dropped) == metrics.REASONS + 1
    assert sum(dropped.values()) == sum(many.values())
    assert dropped["reason 199"] == 200


def test_without_tokenised_text_there_are_no_tokens():
    told = {s.metric.name for s in metrics.of_stage(record(summary={}))}
    assert "longctx_tokens" not in told


def test_the_file_follows_the_run(tmp_path: Path):
    file = tmp_path / "longctx.prom"
    told = metrics.metered(Silent(), RUN, str(file))
    assert read(file) == {}
    told.stage("02-decide")
    assert read(file) == {("longctx_stage_running", ("02-decide",)): 1}
    told.step("", 3)
    for name in ("a", "b", "c"):
        told.unit(Commit(name, "f", ()))
    told.done(record())
    told.stage("03-dedup.exact")
    told.close()
    found = read(file)
    assert found["longctx_step_units", ("02-decide", "")] == 3
    assert found["longctx_commits_total", ("02-decide", "")] == 3
    assert found["longctx_rows_total", ("02-decide", "kept", "")] == 90
    assert found["longctx_last_commit_timestamp_seconds", ()] > 1.7e9
    assert found["longctx_stage_running", ("02-decide",)] == 0
    assert found["longctx_stage_running", ("03-dedup.exact",)] == 0
    assert [p.name for p in tmp_path.iterdir()] == ["longctx.prom"]


def test_reasons_are_escaped(tmp_path: Path):
    file = tmp_path / "longctx.prom"
    told = metrics.metered(Silent(), RUN, str(file))
    told.done(record(dropped={'a "b"\n\\c': 7}))
    assert read(file)["longctx_rows_total", ("02-decide", "dropped", 'a "b"\n\\c')] == 7


def test_a_file_that_cannot_be_written_is_refused_before_the_run(tmp_path: Path):
    with pytest.raises(RecipeError, match="--metrics-file"):
        metrics.metered(Silent(), RUN, str(tmp_path / "missing" / "x.prom"))


class Broken:
    """A target whose storage is gone."""

    def __init__(self) -> None:
        self.asked = 0

    def put(self, sample: metrics.Sample) -> None:
        self.asked += 1
        raise OSError("disk full")

    def flush(self, now: bool) -> None:
        raise AssertionError("never reached")

    def close(self) -> None:
        raise AssertionError("never reached")


def test_a_target_that_fails_is_given_up_and_the_others_go_on(tmp_path: Path, capsys):
    broken, file = Broken(), tmp_path / "longctx.prom"
    told = metrics.Metered(Silent(), [broken, metrics.TextFile(file, RUN)])
    told.stage("read")
    told.done(record())
    assert broken.asked == 1
    assert "Broken is off for this run: disk full" in capsys.readouterr().err
    assert read(file)["longctx_rows_total", ("02-decide", "kept", "")] == 90


def test_names_and_kinds_are_those_prometheus_expects():
    for metric in metrics.METRICS:
        assert metric.name.startswith("longctx_")
        assert metric.labels[0] == "run"
        assert metric.description
    assert len({m.name for m in metrics.METRICS}) == len(metrics.METRICS)
