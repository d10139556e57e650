"""Running units of work on Ray Data: tasks for Maps and Barriers, an actor pool for Models.

A dataset of unit descriptions is mapped; each worker reads what its unit needs, writes its files,
commits, and returns only the commit. So the driver sees counters, never documents, and a killed
driver loses nothing that was committed. Failures travel back as values, so that a user's mistake
never shows a stack of Ray frames.
"""

import json
import pickle
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol

import pyarrow as pa
import ray.data

from longctx.engine import commit
from longctx.engine.commit import Commit, FileRef
from longctx.errors import LongctxError, RunError
from longctx.io import paths


@dataclass(frozen=True)
class Unit:
    """A piece of a step: its name, the fingerprint of its result, and what the work needs."""

    name: str
    fingerprint: str
    payload: Any


class Sink:
    """Where a unit's work puts its files; it remembers what the commit must name."""

    def __init__(self, run_dir: str) -> None:
        self._run_dir = run_dir
        self.files: list[FileRef] = []

    def write(self, name: str, data: bytes, rows: int) -> None:
        """Write one file, named relative to the run folder or by a full URL."""
        url = name if "://" in name or name.startswith("/") else paths.join(self._run_dir, name)
        paths.write_atomic(url, data)
        self.files.append(FileRef(name, len(data), paths.checksum(data), rows))

    def discard(self, name: str) -> None:
        """Remove a file that an earlier run of the unit may have left."""
        paths.remove(paths.join(self._run_dir, name))


class Work(Protocol):
    """The rule of a step: picklable, gets a unit's payload, writes files, returns counters."""

    def __call__(self, payload: Any, sink: Sink, /) -> dict[str, Any]: ...


class LoadedWork(Protocol):
    """A Work that first builds something heavy, once in every worker."""

    def load(self) -> Work: ...


@dataclass(frozen=True)
class Step:
    """A step of a stage: where it commits and the units it consists of."""

    run_dir: str
    folder: str
    units: list[Unit]

    @property
    def label(self) -> str:
        """Stage and step for messages: the folder relative to the run folder."""
        return self.folder[len(self.run_dir) :].strip("/").removeprefix("stages/")


@dataclass
class StepResult:
    """Commits of a step in the order of its units, and how many of them were already there."""

    commits: list[Commit] = field(default_factory=list)
    skipped: int = 0


class PendingWorkError(Exception):
    """Raised instead of running, where only a look at what is committed was asked for."""

    def __init__(self, step: str, left: int, total: int) -> None:
        super().__init__(step, left, total)
        self.step, self.left, self.total = step, left, total

    def describe(self) -> str:
        """`3 of 12 parts to do`, or `to do` when nothing is there."""
        if self.left == self.total:
            return "to do" if not self.step else f"to do from step {self.step}"
        return f"{self.left} of {self.total} {self.step or 'units'} to do"


Listener = Callable[[Commit], None]


def execute(run_dir: str, folder: str, unit: Unit, work: Work) -> str:
    """Run one unit in a worker and commit it; the commit, or the failure, as JSON."""
    started = time.perf_counter()
    try:
        commit.revoke(folder, unit.name)
        sink = Sink(run_dir)
        stats = work(unit.payload, sink)
        stats["seconds"] = round(time.perf_counter() - started, 3)
        done = Commit(unit.name, unit.fingerprint, tuple(sink.files), stats)
        commit.write(folder, done)
    except LongctxError as error:
        failure = {"message": error.message, "where": error.where, "remedy": error.remedy}
        return json.dumps({"failed": unit.name, **failure})
    except Exception:
        return json.dumps({"failed": unit.name, "traceback": traceback.format_exc()})
    return json.dumps(done.to_json())


@dataclass(frozen=True)
class _Task:
    run_dir: str
    folder: str
    work: Work

    def __call__(self, table: pa.Table) -> pa.Table:
        units = [pickle.loads(u) for u in table.column("unit").to_pylist()]
        done = [execute(self.run_dir, self.folder, u, self.work) for u in units]
        return pa.table({"commit": pa.array(done, pa.large_string())})


class _Actor:
    """Actor of a Model stage: loads once, then works like a task."""

    def __init__(self, run_dir: str, folder: str, work: LoadedWork) -> None:
        self._task = _Task(run_dir, folder, work.load())

    def __call__(self, table: pa.Table) -> pa.Table:
        return self._task(table)


@dataclass(frozen=True)
class Pool:
    """Actors of a Model stage: how many, and what each of them holds."""

    size: int
    num_gpus: float = 0


def pending(step: Step) -> tuple[dict[str, Commit], list[Unit]]:
    """Valid commits of a step by unit, and the units that must run."""
    known = commit.load(step.folder)
    present = commit.sizes(step.run_dir, step.folder) if known else {}
    present |= _present_elsewhere(step, known)
    valid = {
        u.name: known[u.name]
        for u in step.units
        if commit.is_valid(known.get(u.name), u.fingerprint, present)
    }
    return valid, [u for u in step.units if u.name not in valid]


def _present_elsewhere(step: Step, known: dict[str, Commit]) -> dict[str, int]:
    """Sizes of committed files outside the step's folder (documents, quarantine, windows)."""
    prefix = step.folder[len(step.run_dir) :].strip("/") + "/"
    names = [f.name for c in known.values() for f in c.files if not f.name.startswith(prefix)]
    found: dict[str, int] = {}
    for parent in {n.rsplit("/", 1)[0] for n in names}:
        full = "://" in parent or parent.startswith("/")
        url = parent if full else paths.join(step.run_dir, parent)
        found |= {f"{parent}/{n}": s.size for n, s in paths.list_files(url).items()}
    return found


def run_units(
    step: Step,
    work: Work | LoadedWork,
    *,
    workers: int,
    pool: Pool | None = None,
    listener: Listener | None = None,
) -> StepResult:
    """Run what is pending of a step and return all its commits.

    Raises RunError naming stage, unit and cause at the first unit that fails.
    """
    valid, todo = pending(step)
    result = StepResult(skipped=len(valid))
    if todo:
        commit.reopen(step.folder)
        rows = [{"unit": pickle.dumps(u)} for u in todo]
        data = ray.data.from_items(rows, override_num_blocks=len(rows))
        if pool is None:
            mapped = data.map_batches(
                _Task(step.run_dir, step.folder, work),  # type: ignore[arg-type]
                batch_size=None,
                batch_format="pyarrow",
                compute=ray.data.TaskPoolStrategy(size=min(workers, len(rows))),
            )
        else:
            mapped = data.map_batches(
                _Actor,
                fn_constructor_args=(step.run_dir, step.folder, work),
                batch_size=None,
                batch_format="pyarrow",
                compute=ray.data.ActorPoolStrategy(size=pool.size),
                num_gpus=pool.num_gpus,
            )
        for done in collect(mapped, step.label):
            valid[done.unit] = done
            if listener:
                listener(done)
    result.commits = [valid[u.name] for u in step.units]
    if todo:
        commit.finish(step.folder, result.commits)
    return result


def collect(data: ray.data.Dataset, label: str) -> Iterator[Commit]:
    """Commits as they come from the workers. Raises RunError at the first failure."""
    for row in data.iter_rows():
        value = json.loads(row["commit"])
        if "failed" not in value:
            yield Commit.from_json(value)
            continue
        if "traceback" in value:
            last = value["traceback"].strip().splitlines()[-1]
            raise RunError(
                f"{last}\n{value['traceback']}",
                where=f"{label}/{value['failed']}",
                remedy="this is a fault of the op, please report it; finished parts are kept",
            )
        where = f"{label}/{value['failed']}" + (f": {value['where']}" if value["where"] else "")
        raise RunError(value["message"], where=where, remedy=value["remedy"])
