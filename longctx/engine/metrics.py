"""What a run tells Prometheus: through Ray's metrics port, and as a text file where one is named.

Labels are bounded: names of a recipe (run, stage, step) and reasons, of which the rarest are put
together. Rows, tokens, units and seconds of a stage appear when it ends and are those of
`run.json`; commits appear as they come. Ray puts `ray_` before every name.
"""

import contextlib
import os
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from longctx.engine.commit import Commit
from longctx.engine.manifest import StageRecord
from longctx.engine.progress import Reporter
from longctx.errors import RecipeError

REASONS = 50
OTHER = "other"
_FILE_SECONDS = 5.0
_REFRESH_SECONDS = 5.0


@dataclass(frozen=True)
class Metric:
    """A metric; a counter's name ends with `_total`, as Prometheus wants it."""

    name: str
    description: str
    labels: tuple[str, ...]

    @property
    def is_counter(self) -> bool:
        """Whether it only grows while the run lasts."""
        return self.name.endswith("_total")


ROWS = Metric(
    "longctx_rows_total",
    "Rows of finished stages: kept, dropped or quarantined, and why; their sum is what came in",
    ("run", "stage", "outcome", "reason"),
)
TOKENS = Metric(
    "longctx_tokens", "Tokens of the documents that a finished stage left", ("run", "stage")
)
UNITS = Metric(
    "longctx_units_total",
    "Units of work of finished stages: done by this run, or skipped since an earlier one did them",
    ("run", "stage", "outcome"),
)
SECONDS = Metric("longctx_stage_seconds", "Wall time of finished stages", ("run", "stage"))
RUNNING = Metric(
    "longctx_stage_running", "1 for the stage at work, 0 once it ended", ("run", "stage")
)
TO_DO = Metric(
    "longctx_step_units", "Units that a step had to do when it began", ("run", "stage", "step")
)
COMMITS = Metric(
    "longctx_commits_total", "Units committed by this run so far", ("run", "stage", "step")
)
LAST = Metric(
    "longctx_last_commit_timestamp_seconds", "When a unit was last committed, Unix time", ("run",)
)
METRICS = (ROWS, TOKENS, UNITS, SECONDS, RUNNING, TO_DO, COMMITS, LAST)


class Sample(NamedTuple):
    """The value of a metric for the values of its labels but the first, which is the run."""

    metric: Metric
    labels: tuple[str, ...]
    value: float


def of_stage(record: StageRecord) -> Iterator[Sample]:
    """What the record of a finished stage says."""
    stage = record.stage
    yield Sample(ROWS, (stage, "kept", ""), record.rows_out)
    for reason, rows in _bounded(record.dropped).items():
        yield Sample(ROWS, (stage, "dropped", reason), rows)
    quarantine = record.summary.get("quarantine") or {}
    unexplained = record.quarantined - sum(quarantine.values())
    for reason, rows in _bounded({**quarantine, "": unexplained}).items():
        yield Sample(ROWS, (stage, "quarantined", reason), rows)
    if (tokens := record.summary.get("tokens")) is not None:
        yield Sample(TOKENS, (stage,), tokens)
    yield Sample(UNITS, (stage, "done"), record.units - record.skipped)
    yield Sample(UNITS, (stage, "skipped"), record.skipped)
    yield Sample(SECONDS, (stage,), record.seconds)
    yield Sample(RUNNING, (stage,), 0)


def _bounded(reasons: Mapping[str, int]) -> dict[str, int]:
    """The commonest reasons, and the others in one."""
    ranked = sorted(((n, r) for r, n in reasons.items() if n), key=lambda x: (-x[0], x[1]))
    kept = {r: n for n, r in ranked[:REASONS]}
    if rest := sum(n for n, _ in ranked[REASONS:]):
        kept[OTHER] = kept.get(OTHER, 0) + rest
    return kept


class Target(Protocol):
    """Where samples go."""

    def put(self, sample: Sample) -> None:
        """Take the new value of one metric for some labels."""

    def flush(self, now: bool) -> None:
        """Publish what was put; unless `now`, it may wait for more."""

    def close(self) -> None:
        """The run ended."""


class Metered:
    """A Reporter that tells another one, and besides publishes metrics.

    A target that fails is given up with one line on stderr: no run ends for its metrics.
    """

    def __init__(self, inner: Reporter, targets: list[Target]) -> None:
        self._inner, self._targets = inner, targets
        self._stage = self._step = ""
        self._commits: Counter[tuple[str, str]] = Counter()

    def stage(self, name: str, note: str = "") -> None:
        """See Reporter."""
        self._inner.stage(name, note)
        self._stage = name
        self._publish([Sample(RUNNING, (name,), 1)], now=True)

    def step(self, name: str, units: int) -> None:
        """See Reporter."""
        self._inner.step(name, units)
        self._step = name
        self._publish([Sample(TO_DO, (self._stage, name), units)])

    def unit(self, commit: Commit) -> None:
        """See Reporter."""
        self._inner.unit(commit)
        place = (self._stage, self._step)
        self._commits[place] += 1
        self._publish([Sample(COMMITS, place, self._commits[place]), Sample(LAST, (), time.time())])

    def done(self, record: StageRecord) -> None:
        """See Reporter."""
        self._inner.done(record)
        self._publish(list(of_stage(record)), now=True)

    def close(self) -> None:
        """See Reporter."""
        self._inner.close()
        if self._stage:
            self._publish([Sample(RUNNING, (self._stage,), 0)], now=True)
        for target in self._targets:
            target.close()

    def _publish(self, samples: list[Sample], now: bool = False) -> None:
        for target in list(self._targets):
            try:
                for sample in samples:
                    target.put(sample)
                target.flush(now)
            except Exception as error:
                self._targets.remove(target)
                kind = type(target).__name__
                print(f"longctx: {kind} is off for this run: {error}", file=sys.stderr)


class RayMetrics:
    """Ray's own metrics: each node shows those of its processes at its metrics port.

    Ray forgets a gauge that was not set for two of its intervals of ten seconds, so all are set
    again every few seconds while the run lasts; counters it keeps.
    """

    def __init__(self, run: str) -> None:
        self._run = run
        self._known: dict[str, Any] = {}
        self._values: dict[Metric, dict[tuple[str, ...], float]] = {}
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._refresh, daemon=True)

    def put(self, sample: Sample) -> None:
        """See Target."""
        metric, labels, value = sample
        with self._lock:
            values = self._values.setdefault(metric, {})
            before, values[labels] = values.get(labels, 0), value
            if not metric.is_counter:
                self._set(metric, labels, value)
            elif value > before:
                self._metric(metric).inc(value - before, tags=self._tags(metric, labels))
            if self._thread.ident is None:
                self._thread.start()

    def _set(self, metric: Metric, labels: tuple[str, ...], value: float) -> None:
        self._metric(metric).set(value, tags=self._tags(metric, labels))

    def _refresh(self) -> None:
        while not self._ended.wait(_REFRESH_SECONDS):
            with self._lock, contextlib.suppress(Exception):  # `put` tells what is wrong
                gauges = [(m, v) for m, v in self._values.items() if not m.is_counter]
                for metric, values in gauges:
                    for labels, value in values.items():
                        self._set(metric, labels, value)

    def _tags(self, metric: Metric, labels: tuple[str, ...]) -> dict[str, str]:
        return dict(zip(metric.labels, (self._run, *labels), strict=True))

    def _metric(self, metric: Metric) -> Any:
        from ray.util import metrics

        if metric.name not in self._known:
            kind = metrics.Counter if metric.is_counter else metrics.Gauge
            self._known[metric.name] = kind(metric.name, metric.description, metric.labels)
        return self._known[metric.name]

    def flush(self, now: bool) -> None:
        """See Target; Ray collects by itself."""

    def close(self) -> None:
        """See Target."""
        self._ended.set()
        if self._thread.is_alive():
            self._thread.join()


class TextFile:
    """A file in Prometheus' text format, as node_exporter's textfile collector reads it.

    It is replaced as a whole, at most every five seconds while units are committed, and stays when
    the run has ended.
    """

    def __init__(self, path: Path, run: str) -> None:
        self._path, self._run = path, run
        self._values: dict[Metric, dict[tuple[str, ...], float]] = {}
        self._written = float("-inf")

    def put(self, sample: Sample) -> None:
        """See Target."""
        self._values.setdefault(sample.metric, {})[sample.labels] = sample.value

    def flush(self, now: bool) -> None:
        """See Target."""
        if now or time.monotonic() - self._written >= _FILE_SECONDS:
            self._written = time.monotonic()
            _replace(self._path, self.text())

    def close(self) -> None:
        """See Target."""

    def text(self) -> bytes:
        """All values in the text format."""
        from prometheus_client import CollectorRegistry, generate_latest

        registry = CollectorRegistry()
        registry.register(self)
        return generate_latest(registry)

    def collect(self) -> Iterator[Any]:
        """The values as families: what prometheus_client asks a collector for."""
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

        for metric in METRICS:
            kind = CounterMetricFamily if metric.is_counter else GaugeMetricFamily
            family = kind(metric.name, metric.description, labels=metric.labels)
            for labels, value in self._values.get(metric, {}).items():
                family.add_metric((self._run, *labels), value)
            yield family


def _replace(path: Path, content: bytes) -> None:
    draft, name = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)
    try:
        with os.fdopen(draft, "wb") as file:
            file.write(content)
        os.chmod(name, 0o644)
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def metered(inner: Reporter, run: str, file: str | None = None) -> Reporter:
    """`inner`, with metrics of the run besides. Raises RecipeError for a file nobody can write."""
    targets: list[Target] = [RayMetrics(run)]
    if file:
        target = TextFile(Path(file), run)
        try:
            target.flush(now=True)
        except OSError as error:
            raise RecipeError(
                f"the file cannot be written: {error.strerror}",
                where=f"--metrics-file {file}",
                remedy="name a file in a folder that is there",
            ) from None
        targets.append(target)
    return Metered(inner, targets)
