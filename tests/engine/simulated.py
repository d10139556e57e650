"""Barriers whose steps are only planned: units and their sizes are real, their commits fabricated.

A corpus of 10^9 documents is a list of file names here. A step costs nothing and leaves commits
with the sizes that its kind of rows has, so what follows is planned as it would be.
"""

import hashlib
import pickle
from dataclasses import dataclass, field
from typing import Any

from longctx.engine import exchange
from longctx.engine.barrier import BarrierContext
from longctx.engine.commit import Commit, FileRef
from longctx.engine.corpus import Corpus, Sidecar
from longctx.engine.exchange import Limits, volume, waves
from longctx.engine.op import Op, Setting
from longctx.engine.steps import StepRef
from longctx.engine.units import AT_ONCE, LoadedWork, Pool, StepResult, Unit, Work
from longctx.filter.stages import ScoreHeuristics

DOCUMENTS = 10**9
PARTS = 30_000
WORKERS = 1024
EXCHANGE_BYTES = 256_000_000
# Bytes a document leaves in a step, where it is not a few small columns.
_BYTES = {
    "signatures": 460,
    "candidates": 150,
    "edges": 5,
    "sample": 0.1,
    "scored": 60,
    "samples": 180,
    "shared": 60,
    "points": 1100,
    "stream": 1200,
    "spans": 2500,
    "words": 900,
    "export/rows": 2000,
    "pack.turns/turns": 25_000,
}
_SMALL = 30


@dataclass
class Planned:
    """What the driver had to hold for a step."""

    units: int
    unit_bytes: int
    work_bytes: int
    waves: int = 1
    readers: int = 0
    bucket_bytes: int = 0


@dataclass
class Ledger:
    """Steps as they were planned, in order."""

    steps: dict[str, Planned] = field(default_factory=dict)

    @property
    def units(self) -> int:
        return sum(s.units for s in self.steps.values())


class Simulated(BarrierContext):
    """A context in which every step is done as soon as it is planned."""

    def __init__(
        self, corpus: Corpus, op: Op, *, rows: int = DOCUMENTS, stats: dict[str, Any] | None = None
    ) -> None:
        setting = Setting(seed=1, tokenizer="embedded", stage="09-x", run_dir="/run", output="/out")
        super().__init__(
            corpus,
            op,
            setting,
            "/run/stages/09-x",
            rows=rows,
            workers=WORKERS,
            exchange_bytes=EXCHANGE_BYTES,
            dry=True,
        )
        self.ledger = Ledger()
        self._stats = stats or {}

    def _run(
        self,
        step: str,
        units: list[Unit],
        work: Work | LoadedWork,
        place: str,
        pool: Pool | None = None,
    ) -> StepRef:
        planned = self._planned(step, units, work)
        planned.waves = -(-len(units) // AT_ONCE)
        return self._ref(step, self._done(step, units))

    def _exchange(
        self,
        step: str,
        sources: list[Any],
        units: dict[int, Unit],
        work: Work,
        place: str,
        copies: int = 1,
    ) -> StepResult:
        planned = self._planned(step, list(units.values()), work)
        limits = Limits(self.workers, self._exchange_bytes, copies)
        moved = volume([s for s, _ in sources])
        of_wave = list(waves(units, moved, limits))
        planned.waves = len(of_wave)
        planned.bucket_bytes = moved * copies // len(units)
        most = limits.bucket_bytes // (exchange._READS * copies)
        for ref, _ in sources:
            planned.readers += len(exchange.grouped(ref.files, most, WORKERS * exchange._READS))
        return self._done(step, list(units.values()))

    def _planned(self, step: str, units: list[Unit], work: Work | LoadedWork) -> Planned:
        samples = [units[0], units[len(units) // 2], units[-1]]
        most = max(len(pickle.dumps(u)) for u in samples)
        assert len({u.fingerprint for u in units}) == len({u.name for u in units}) == len(units)
        planned = Planned(len(units), most, len(pickle.dumps(work)))
        self.ledger.steps[step] = planned
        return planned

    def _done(self, step: str, units: list[Unit]) -> StepResult:
        """Commits of a step: its rows and bytes dealt equally to its units."""
        each = _BYTES.get(f"{self.op.op}/{step}", _BYTES.get(step, _SMALL))
        rows = max(1, self.rows // len(units))
        size = max(1, int(self.rows * each) // len(units))
        folder = self.relative(step)
        commits = [
            Commit(
                u.name,
                u.fingerprint,
                (FileRef(f"{folder}/{u.name}.parquet", size, f"{i:032x}", rows),),
            )
            for i, u in enumerate(units)
        ]
        self.step_commits[step] = commits
        self.step_stats[step] = self._stats.get(step, {})
        return StepResult(commits, len(units))


def corpus(parts: int = PARTS, documents: int = DOCUMENTS) -> Corpus:
    """A corpus after scoring, embedding, clustering and ordering; sizes are only written down."""
    rows = documents // parts
    written = {
        "00-read": ((), True),
        "01-score.heuristics": (ScoreHeuristics.writes, False),
        "01-score.longattn": (("la_ds", "la_var"), False),
        "02-embed": (("embedding", "emb_cover"), False),
        "03-cluster.kmeans": (("cluster", "cluster_sim"), False),
        "04-order.path": (("tour_id", "rank", "sim_prev", "jump", "link"), True),
    }

    def files(folder: str) -> tuple[FileRef, ...]:
        start = hashlib.md5(folder.encode()).hexdigest()[:16]
        return tuple(
            FileRef(f"{folder}/web-0123456789-{i:05d}.parquet", 10**8, f"{start}{i:016x}", rows)
            for i in range(parts)
        )

    beside = tuple(
        Sidecar(label, columns, removes, files(f"stages/{label}"))
        for label, (columns, removes) in written.items()
    )
    return Corpus("/run", files("documents"), beside)
