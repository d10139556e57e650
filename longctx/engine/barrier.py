"""Steps of a Barrier: over parts, through an exchange by key, or in one place.

Every step is materialised and every unit of it commits on its own, so a barrier that is killed
goes on where it stopped, and a step whose inputs did not change is not run again. The exchange is
Ray Data's hash shuffle from committed files to committed files: if it fails, it can run again.
"""

import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial
from typing import Any

import pyarrow as pa

from longctx.engine import commit, summary, usage
from longctx.engine.commit import Commit, fingerprint
from longctx.engine.corpus import Corpus, Part, Sidecar
from longctx.engine.exchange import Limits, shuffle, volume, waves
from longctx.engine.op import Op, Setting
from longctx.engine.steps import (
    BucketRule,
    BucketWork,
    PartRule,
    PartSidecarRule,
    PartWork,
    Prepare,
    SidecarWork,
    SingleRule,
    SingleWork,
    SpreadRule,
    SpreadWork,
    StepRef,
)
from longctx.engine.units import (
    Listener,
    LoadedWork,
    PendingWorkError,
    Pool,
    Step,
    StepResult,
    Unit,
    Work,
    compute,
    pending,
    run_units,
)
from longctx.io import paths

Beforehand = Callable[[Step], None]


class BarrierContext:
    """What a Barrier's `run` works with.

    `corpus` is what the stage sees (aligned steps extend it), `rows` the number of living rows that
    came in.
    """

    def __init__(
        self,
        corpus: Corpus,
        op: Op,
        setting: Setting,
        folder: str,
        *,
        rows: int,
        workers: int,
        exchange_bytes: int,
        listener: Listener | None = None,
        announce: Callable[[str, int], None] | None = None,
        dry: bool = False,
    ) -> None:
        self.corpus, self.op, self.setting = corpus, op, setting
        self.folder, self.rows, self.workers = folder, rows, workers
        self._exchange_bytes, self._listener = exchange_bytes, listener
        self._announce = announce
        # A dry context only looks: it raises PendingWorkError at the first step with work left.
        self.dry = dry
        self.skipped = self.units = 0
        self.why: Counter[str] = Counter()
        self.final: StepResult | None = None
        # Set by barriers that end in windows instead of a sidecar.
        self.outcome: dict[str, Any] | None = None
        self.step_stats: dict[str, dict[str, Any]] = {}
        self.costs: dict[str, dict[str, Any]] = {}
        self.step_commits: dict[str, list[Commit]] = {}

    def parts(self) -> list[Part]:
        """All parts, as workers need them; parts of a corpus that aligned steps have extended."""
        return [self.corpus.part(i) for i in range(len(self.corpus))]

    def per_part(
        self,
        step: str,
        rule: PartRule,
        columns: list[str],
        *,
        inputs: Iterable[StepRef] = (),
        ignore: Iterable[str] = (),
        depends: Iterable[Any] = (),
    ) -> StepRef:
        """Run a rule on every part.

        `columns` of the part and the `inputs` that the rule closes over are all that it may read;
        `depends` are plain values that decide its rows beside the op's fields.
        """
        seen = [self._base(step, ignore), [r.digest for r in inputs], *depends]
        base = fingerprint(seen)
        units = []
        for i, state in enumerate(self.corpus.states(columns)):
            part = self.corpus.part(i)
            units.append(Unit(part.name, fingerprint([base, i, state]), part))
        work = PartWork(rule, self.setting, self.relative(step))
        return self._run(step, units, work, "part")

    def over_parts(
        self,
        step: str,
        groups: list[list[tuple[int, Any]]],
        columns: list[str],
        work: Work | LoadedWork,
        *,
        depends: Iterable[Any] = (),
        ignore: Iterable[str] = (),
        pool: Pool | None = None,
        beforehand: Beforehand | None = None,
    ) -> StepRef:
        """Run a work on each of several lists of parts, named by number, each with a plain value.

        The work gets the unit's name and the list with the parts themselves; `columns` of them are
        all that it may read. `depends` are plain values that decide its files beside the op's
        fields. With a `pool` it is loaded once in each of its actors. What has to be done for all
        units together before any is worked, `beforehand` does, with the units that are left.
        """
        base = fingerprint([self._base(step, ignore), *depends])
        states = self.corpus.states(columns)
        units = []
        for i, group in enumerate(groups):
            seen = fingerprint([base, [(states[n], value) for n, value in group]])
            parts = [(self.corpus.part(n), value) for n, value in group]
            units.append(Unit(f"{i:06d}", seen, (f"{i:06d}", parts)))
        return self._run(step, units, work, "block", pool, beforehand)

    def over_values(
        self,
        step: str,
        values: list[Any],
        work: Work | LoadedWork,
        *,
        depends: Iterable[Any] = (),
        ignore: Iterable[str] = (),
        pool: Pool | None = None,
        beforehand: Beforehand | None = None,
    ) -> StepRef:
        """Run a work on each of several plain values, which name all files that it may read.

        The work gets the unit's name and its value; the rest is as for `over_parts`.
        """
        base = fingerprint([self._base(step, ignore), *depends])
        units = [
            Unit(f"{i:06d}", fingerprint([base, value]), (f"{i:06d}", value))
            for i, value in enumerate(values)
        ]
        return self._run(step, units, work, "block", pool, beforehand)

    def single(
        self,
        step: str,
        rule: SingleRule,
        inputs: Iterable[StepRef] = (),
        *,
        columns: Iterable[str] = (),
        ignore: Iterable[str] = (),
    ) -> StepRef:
        """Run a rule once, in one worker.

        It may read the steps named as `inputs` and, when it names `columns`, these columns of all
        parts; it closes over them.
        """
        read = list(columns)
        states = self.corpus.states(read) if read else []
        seen = fingerprint([self._base(step, ignore), [r.digest for r in inputs], states])
        work = SingleWork(rule, self.setting, self.relative(step))
        return self._run(step, [Unit("all", seen, None)], work, "one")

    def spread(
        self,
        step: str,
        rule: SpreadRule,
        payloads: list[Any],
        inputs: Iterable[StepRef],
        *,
        ignore: Iterable[str] = (),
    ) -> StepRef:
        """Run a rule on each of several payloads (plain values), in parallel."""
        base = fingerprint([self._base(step, ignore), [r.digest for r in inputs]])
        units = [
            Unit(f"{i:06d}", fingerprint([base, p]), (f"{i:06d}", p))
            for i, p in enumerate(payloads)
        ]
        work = SpreadWork(rule, self.setting, self.relative(step))
        return self._run(step, units, work, "block")

    def exchange(
        self,
        step: str,
        sources: list[tuple[StepRef, Prepare]],
        rule: BucketRule | None,
        schema: pa.Schema,
        *,
        buckets: int | None = None,
        copies: int = 1,
        work: Work | None = None,
        ignore: Iterable[str] = (),
        depends: Iterable[Any] = (),
    ) -> StepRef:
        """Bring rows with the same `bucket` together and run a rule on each bucket.

        `prepare` turns a committed file into rows of `schema` plus `bucket` (int32); the number of
        buckets it must use is `buckets` or what `buckets_for` said; `copies` is how many rows it
        makes of one. A `work` takes the rule's place where a bucket becomes files of its own;
        `depends` are plain values that decide its files beside the op's fields.
        """
        count = buckets or self.buckets_for([s for s, _ in sources])
        seen = [self._base(step, ignore), count, [s.digest for s, _ in sources], *depends]
        base = fingerprint(seen)
        units = {
            b: Unit(f"bucket-{b:05d}", fingerprint([base, b]), f"bucket-{b:05d}")
            for b in range(count)
        }
        if work is None:
            assert rule is not None, "an exchange has a rule or a work"
            work = BucketWork(rule, self.setting, self.relative(step), schema)
        result = self._exchange(step, sources, units, work, "bucket", copies)
        return self._ref(step, result)

    def sidecar(
        self,
        step: str,
        sources: list[tuple[StepRef, Prepare]],
        rule: PartSidecarRule,
        schema: pa.Schema,
        writes: tuple[str, ...],
        *,
        columns: Iterable[str] = (),
        inputs: Iterable[StepRef] = (),
        removes: bool = False,
        ignore: Iterable[str] = (),
    ) -> Sidecar:
        """Bring rows to the part they belong to and write an aligned sidecar.

        Without sources nothing is exchanged: the rule sees the part alone (and the `inputs` that it
        closes over).

        `prepare` gives rows of `schema`, which has `row` (int32), plus `bucket` = the part's
        number. The rule gets the part's living rows (`doc_id`, `source`, `row`, `part` and
        `columns`) and what was brought, sorted by row, and returns one row for each living row. The
        step named "" is the stage's result.
        """
        wanted = ["doc_id", "source", "license", *columns]
        counted = [c for c in ("n_tokens", "n_chars") if self.corpus.has(c)]
        read = [s.digest for s, _ in sources] + [r.digest for r in inputs]
        base = fingerprint([self._base(step, ignore), read])
        units = {}
        for i, state in enumerate(self.corpus.states([*wanted, *counted])):
            part = self.corpus.part(i)
            units[i] = Unit(part.name, fingerprint([base, i, state]), part)
        work = SidecarWork(rule, self.setting, self.relative(step), list(columns), schema)
        result = self._exchange(step, sources, units, work, "part")
        files = tuple(c.files[0] for c in result.commits)
        made = Sidecar(f"{self.setting.stage}/{step}".rstrip("/"), writes, removes, files)
        self.corpus = self.corpus.with_sidecar(made)
        if not step:
            self.final = result
        return made

    def buckets_for(self, sources: list[StepRef]) -> int:
        """How many buckets keep each below the exchange limit; depends on the data alone."""
        return max(1, -(-volume(sources) // self._exchange_bytes))

    def _exchange(
        self,
        step: str,
        sources: list[tuple[StepRef, Prepare]],
        units: dict[int, Unit],
        work: Work,
        place: str,
        copies: int = 1,
    ) -> StepResult:
        clock = time.perf_counter()
        plan = Step(self.setting.run_dir, self._path(step), list(units.values()))
        if self.dry:
            self._look(step, plan)
        standing = pending(plan)
        valid, names = standing.valid, {u.name for u in standing.todo}
        missing = {b: u for b, u in units.items() if u.name in names}
        self._say(step, len(standing.todo))
        if missing:
            commit.reopen(plan.folder)
        known = dict(valid)
        limits = Limits(self.workers, self._exchange_bytes, copies)
        for wave in waves(missing, volume([s for s, _ in sources]), limits):
            for done in shuffle(plan, sources, wave, work, self.setting, limits):
                self._heard(done, known)
        # Buckets that got no row have no group; they are solved with an empty table.
        rest = [
            Unit(u.name, u.fingerprint, (u.payload, None))
            for u in missing.values()
            if u.name not in known
        ]
        for done in compute(plan, rest, work, workers=self.workers):
            self._heard(done, known)
        result = StepResult([known[u.name] for u in units.values()], len(valid), standing.why)
        if missing:
            commit.finish(plan.folder, result.commits)
        self._count(step, result, place, clock)
        return result

    def _heard(self, done: Commit, known: dict[str, Commit]) -> None:
        known[done.unit] = done
        if self._listener:
            self._listener(done)

    def _run(
        self,
        step: str,
        units: list[Unit],
        work: Work | LoadedWork,
        place: str,
        pool: Pool | None = None,
        beforehand: Beforehand | None = None,
    ) -> StepRef:
        clock = time.perf_counter()
        plan = Step(self.setting.run_dir, self._path(step), units)
        if self.dry:
            self._look(step, plan)
        elif beforehand and (todo := pending(plan).todo):
            beforehand(replace(plan, units=todo))
        result = run_units(
            plan,
            work,
            workers=self.workers,
            pool=pool,
            listener=self._listener,
            begin=partial(self._say, step),
        )
        self._count(step, result, place, clock)
        return self._ref(step, result)

    def _look(self, step: str, plan: Step) -> None:
        todo = pending(plan).todo
        if todo:
            # A barrier of one step is told as a map is: it has parts and no steps.
            name = step if step or self.step_commits else "parts"
            raise PendingWorkError(name, len(todo), len(plan.units))

    def _ref(self, step: str, result: StepResult) -> StepRef:
        return StepRef(self.setting.run_dir, tuple((c.unit, c.files) for c in result.commits))

    def _count(self, step: str, result: StepResult, place: str, clock: float) -> None:
        self.skipped += result.skipped
        self.why.update(result.why)
        self.units += len(result.commits)
        self.step_commits[step] = result.commits
        self.step_stats[step] = summary.merge(c.stats.get("stats", {}) for c in result.commits)
        wall = round(time.perf_counter() - clock, 3)
        self.costs[step] = {"place": place, "wall": wall, **usage.of_step(result.commits)}

    def _say(self, step: str, todo: int) -> None:
        if self._announce:
            self._announce(step, todo)

    def _base(self, step: str, ignore: Iterable[str]) -> str:
        fields = self.op.fingerprint_fields()
        for name in ignore:
            fields.pop(name, None)
        return fingerprint([fields, step, self.setting.seed, self.setting.tokenizer_fingerprint])

    def _path(self, step: str) -> str:
        return paths.join(self.folder, step) if step else self.folder

    def relative(self, step: str) -> str:
        """A step's folder relative to the run folder."""
        return self._path(step)[len(self.setting.run_dir) :].strip("/")
