"""One execution of one recipe: read, then stage by stage, every row accounted for.

The driver holds the list of parts, counters and commits, never documents. Each stage asks which of
its units are already committed for the same configuration and inputs, runs the others, checks that
no row was lost, and records what it did.
"""

import datetime
import time
from collections import Counter
from dataclasses import dataclass
from functools import partial
from typing import Any

from longctx.credentials import masked
from longctx.engine import cluster, ingest, manifest, repair, summary, usage
from longctx.engine.barrier import BarrierContext
from longctx.engine.commit import Commit
from longctx.engine.corpus import Corpus
from longctx.engine.inputs import Listing, list_inputs
from longctx.engine.lock import RunLock
from longctx.engine.manifest import RunRecord, StageRecord
from longctx.engine.mapstage import counted_columns, map_step, sidecar_of
from longctx.engine.mapwork import MapWork
from longctx.engine.op import Barrier, Map, Model, Op, Setting
from longctx.engine.progress import Reporter, Silent
from longctx.engine.settings import setting_for, stage_folder
from longctx.engine.units import Pool, StepResult, run_units
from longctx.errors import DamagedFileError, RunError
from longctx.io import paths
from longctx.io.uploads import abort_uploads
from longctx.recipe import Recipe
from longctx.text.tokenize import load_tokenizer

# Damaged files that one run makes again one after another; with more, the disk is the problem.
_REPAIRS = 8


@dataclass
class _State:
    """What a run carries from stage to stage."""

    recipe: Recipe
    run_dir: str
    output: str
    record: RunRecord
    reporter: Reporter
    workers: int
    corpus: Corpus
    tokenizer_fingerprint: str
    lock: RunLock
    rows: int = 0

    def unit(self, done: Commit) -> None:
        """A unit was committed; the run goes on only as long as the folder is its own."""
        self.lock.check()
        self.reporter.unit(done)


def execute(
    recipe: Recipe,
    *,
    reporter: Reporter | None = None,
    num_cpus: int | None = None,
    verify: bool = False,
) -> RunRecord:
    """Run a recipe to its end. Raises RunError when it cannot go on; what is committed stays.

    With `verify` all that is committed is first compared with its checksums.
    """
    reporter = reporter or Silent()
    run_dir = paths.absolute(recipe.body.run_dir)
    output = paths.absolute(recipe.body.output.path or paths.join(run_dir, "output"))
    listing = list_inputs(recipe.body.input, recipe.body.engine.part_bytes)
    tokenizer = load_tokenizer(recipe.body.tokenizer.path).fingerprint
    started = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    clock = time.perf_counter()
    with RunLock(run_dir) as lock:
        record = manifest.begin(recipe, run_dir, output, started)
        record.ignored_files = listing.ignored
        record.save()
        try:
            state = _State(
                recipe, run_dir, output, record, reporter, 1, Corpus(run_dir, ()), tokenizer, lock
            )
            _prepare(state)
            cpus = cluster.connect(num_cpus)
            state.workers = min(cpus, recipe.body.engine.workers or cpus)
            if verify:
                reporter.stage("verify")
                record.repaired += repair.verify(run_dir, state.workers)
            _walk(state, listing)
            _sweep(state)
            _abort_uploads(state)
            record.status = "done"
        except BaseException as error:
            record.status, record.error = "failed", masked(str(error)) or type(error).__name__
            raise
        finally:
            record.seconds = round(time.perf_counter() - clock, 3)
            _save_last(record)
            reporter.close()
    return record


def _walk(state: _State, listing: Listing) -> None:
    """Stage by stage. What a damaged file held is made again: then the walk begins anew."""
    for left in reversed(range(_REPAIRS + 1)):
        try:
            _read(state, listing)
            for name, op in zip(state.recipe.stage_names(), state.recipe.ops, strict=True):
                _stage(state, name, op)
            return
        except DamagedFileError as error:
            if not left or not repair.withdraw(state.run_dir, error.file):
                raise
            state.reporter.stage("repair", f"damaged, made again: {paths.printable(error.file)}")
            state.record.repaired.append(paths.printable(error.file))
            state.record.stages.clear()
            state.corpus, state.rows = Corpus(state.run_dir, ()), 0


def _abort_uploads(state: _State) -> None:
    """Abort what killed writers began to upload; nothing of this run is under way here."""
    for folder in {state.run_dir, state.output}:
        abort_uploads(folder)


def _save_last(record: RunRecord) -> None:
    try:
        record.save()
    except (RunError, OSError):
        # Storage is what failed: the error that ended the run says more than a second one.
        if record.status == "done":
            raise


def _sweep(state: _State) -> None:
    """Remove what killed writers left under temporary names, in this run and before it."""
    for folder in (state.run_dir, state.output):
        if not paths.is_local(folder):
            continue
        for name in paths.list_files(folder, recursive=True, temporary=True):
            if paths.TEMPORARY in name and not name.startswith("lock/"):
                paths.remove(paths.join(folder, name))


def _prepare(state: _State) -> None:
    """Remove what killed writers left, and find out now what would stop a later stage."""
    for name, op in zip(state.recipe.stage_names(), state.recipe.ops, strict=True):
        op.check(_setting(state, name))
    # Only now it is certain that the output folder is ours.
    _sweep(state)
    _abort_uploads(state)


def _setting(state: _State, stage: str) -> Setting:
    return setting_for(
        state.recipe, stage, state.run_dir, state.output, state.tokenizer_fingerprint
    )


def _read(state: _State, listing: Listing) -> None:
    clock = time.perf_counter()
    files = sum(len(g.files) for g in listing.groups)
    state.reporter.stage(ingest.STAGE, f"{files} file{'s' if files != 1 else ''}")
    body = state.recipe.body
    part_bytes = body.engine.part_bytes
    read = run_units(
        ingest.group_step(listing, state.run_dir, part_bytes),
        ingest.ReadWork(part_bytes),
        workers=state.workers,
        listener=state.unit,
        begin=partial(state.reporter.step, "groups"),
    )
    counted = summary.merge(c.stats for c in read.commits)
    _check_quarantine(state, ingest.STAGE, counted, counted["rows_in"])
    state.corpus = ingest.corpus_of(state.run_dir, read.commits)
    ingest.remove_stale(state.corpus)
    state.rows = counted["rows_out"]
    context = _barrier(state, ingest.STAGE, ingest.CheckIds())
    total = _final(context)
    total = {**total, "rows_in": counted["rows_in"]}
    total["quarantined"] += counted["quarantined"]
    total["quarantine"] = summary.merge([total["quarantine"], counted["quarantine"]])
    for name in ("notes", "chars", "text_bytes"):
        total[name] = counted.get(name)
    record = _record(state, ingest.STAGE, "read", "read", total, clock)
    more = {
        "units": len(read.commits) + context.units,
        "skipped": read.skipped + context.skipped,
        "why": dict(context.why + Counter(read.why)),
        "costs": {"groups": usage.of_parts(read.commits), **context.costs},
    }
    _finish(state, StageRecord(**{**vars(record), **more}), total)


def _stage(state: _State, name: str, op: Op) -> None:
    clock = time.perf_counter()
    state.reporter.stage(name)
    if isinstance(op, Barrier):
        context = _barrier(state, name, op)
        total = _final(context)
        units, skipped, steps = context.units, context.skipped, context.step_stats
        why, costs = dict(context.why), context.costs
    else:
        assert isinstance(op, (Map, Model))
        result = _map(state, name, op)
        total = summary.merge(c.stats for c in result.commits)
        if isinstance(op, Model):
            op.finished(total.get("stats") or {}, _setting(state, name))
        units, skipped = len(result.commits), result.skipped
        steps = {"": total["stats"]} if total.get("stats") else {}
        why, costs = result.why, {"": usage.of_parts(result.commits)}
    record = _record(state, name, op.op, op.kind, total, clock)
    # The user's own words win: a path must not be written down with its variables replaced.
    written = state.recipe.raw["stages"][state.recipe.ops.index(op)]
    settings = {**op.model_dump(mode="json"), **written}
    more = {
        "units": units,
        "skipped": skipped,
        "steps": steps,
        "settings": settings,
        "why": why,
        "costs": costs,
    }
    _finish(state, StageRecord(**{**vars(record), **more}), total)


def _map(state: _State, name: str, op: Map | Model) -> StepResult:
    setting, folder = _setting(state, name), stage_folder(state.run_dir, name)
    step = map_step(state.corpus, op, setting, folder)
    relative = folder[len(state.run_dir) :].strip("/")
    batch_bytes = state.recipe.body.engine.batch_bytes
    columns, counted = list(op.reads_columns()), counted_columns(state.corpus)
    work = MapWork(op, setting, columns, counted, batch_bytes, relative)
    pool = None
    op.prepare(setting)
    if isinstance(op, Model):
        pool = _pool(op, state.workers)
    result = run_units(
        step,
        work,
        workers=state.workers,
        pool=pool,
        listener=state.unit,
        begin=partial(state.reporter.step, ""),
    )
    state.corpus = state.corpus.with_sidecar(sidecar_of(name, op, result))
    return result


def _pool(op: Model, workers: int) -> Pool:
    """Actors of a Model stage: as many as the recipe says, else one per CPU or GPU.

    They may hold all CPUs: what feeds them is a list of units, not tasks that they could starve.
    """
    if op.workers:
        return Pool(op.workers, op.num_gpus)
    if op.num_gpus:
        return Pool(max(1, int(cluster.cluster_total("GPU") / op.num_gpus)), op.num_gpus)
    return Pool(workers)


def _barrier(state: _State, name: str, op: Barrier) -> BarrierContext:
    context = BarrierContext(
        state.corpus,
        op,
        _setting(state, name),
        stage_folder(state.run_dir, name),
        rows=state.rows,
        workers=state.workers,
        exchange_bytes=state.recipe.body.engine.exchange_bytes,
        listener=state.unit,
        announce=state.reporter.step,
    )
    op.prepare(context.setting)
    op.run(context)
    state.corpus = context.corpus
    return context


def _final(context: BarrierContext) -> dict[str, Any]:
    """Counters of a barrier's result: of its aligned sidecar, or what it reported itself."""
    if context.outcome is not None:
        return context.outcome
    assert context.final is not None, "a barrier ends with a sidecar or an outcome"
    return summary.merge(c.stats for c in context.final.commits)


def _record(
    state: _State, name: str, op: str, kind: str, total: dict[str, Any], clock: float
) -> StageRecord:
    counts = {k: total[k] for k in ("rows_in", "rows_out", "dropped", "quarantined")}
    kept = {k: v for k, v in total.items() if k not in (*counts, "seconds", "stats", usage.KEY)}
    seconds = round(time.perf_counter() - clock, 3)
    return StageRecord(name, op, kind, seconds, 0, 0, summary=kept, **counts)


def _finish(state: _State, record: StageRecord, total: dict[str, Any]) -> None:
    """Check conservation and quarantine, then write the record."""
    state.record.stages.append(record)
    state.reporter.done(record)
    state.record.save()
    record.check(state.rows if record.stage != ingest.STAGE else None)
    state.rows = record.rows_out
    _check_quarantine(state, record.stage, total, record.rows_in)
    if record.rows_out == 0:
        raise RunError(
            "no rows are left",
            where=record.stage,
            remedy="look at the drop reasons in run.json and loosen the thresholds",
        )


def _check_quarantine(state: _State, stage: str, total: dict[str, Any], rows_in: int) -> None:
    limit = state.recipe.body.engine.max_quarantine_fraction
    quarantined = int(total["quarantined"])
    if rows_in and quarantined > limit * rows_in:
        reasons = total.get("quarantine") or {}
        assert isinstance(reasons, dict)
        listed = ", ".join(
            f"{r} {n:,}" for r, n in sorted(reasons.items(), key=lambda x: -x[1])[:5]
        )
        raise RunError(
            f"{quarantined:,} of {rows_in:,} rows were quarantined ({listed}), more than the "
            f"allowed {limit:.1%}",
            where=stage,
            remedy=f"read {paths.join(state.run_dir, 'quarantine', stage)}, correct the input or "
            "the recipe, or raise engine.max_quarantine_fraction",
        )
