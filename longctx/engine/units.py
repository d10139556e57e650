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
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import pyarrow as pa

from longctx.engine import commit
from longctx.engine.commit import Commit, FileRef
from longctx.engine.usage import KEY, Meter
from longctx.errors import DamagedFileError, LongctxError, RunError
from longctx.io import paths

if TYPE_CHECKING:
    import ray.data
    from ray.exceptions import RayError


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

    def write(self, name: str, data: bytes | memoryview, rows: int) -> None:
        """Write one file, named relative to the run folder or by a full URL."""
        paths.write_atomic(commit.url_of(self._run_dir, name), data)
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
    """Commits of a step in the order of its units.

    `skipped` of them were already there; the others were made, for the reasons in `why`.
    """

    commits: list[Commit] = field(default_factory=list)
    skipped: int = 0
    why: dict[str, int] = field(default_factory=dict)


class PendingWorkError(Exception):
    """Raised instead of running, where only a look at what is committed was asked for."""

    def __init__(self, step: str, left: int, total: int) -> None:
        super().__init__(step, left, total)
        self.step, self.left, self.total = step, left, total


Listener = Callable[[Commit], None]

# A unit whose worker dies (killed for memory, crashed in native code) is tried again this often.
# Ray's own default is for ever: a document that crashes its worker would never end the run.
RETRIES = 3

# Units of one dataset.
AT_ONCE = 10_000


def execute(run_dir: str, folder: str, unit: Unit, work: Work, received: int = 0) -> str:
    """Run one unit in a worker and commit it; the commit, or the failure, as JSON.

    `received` is what an exchange brought to the unit, in bytes.
    """
    started, meter = time.perf_counter(), Meter()
    try:
        commit.revoke(folder, unit.name)
        sink = Sink(run_dir)
        stats = work(unit.payload, sink)
        stats["seconds"] = round(time.perf_counter() - started, 3)
        stats[KEY] = meter.read() | ({"received": received} if received else {})
        done = Commit(unit.name, unit.fingerprint, tuple(sink.files), stats)
        commit.write(folder, done)
    except Exception as error:
        return json.dumps({"failed": unit.name, **_failure(error)})
    return json.dumps(done.to_json())


def _failure(error: Exception) -> dict[str, str]:
    """What went wrong in a worker, as values."""
    if isinstance(error, DamagedFileError):
        return {"damaged": error.file, "message": error.reason, "where": error.where}
    if isinstance(error, LongctxError):
        return {"message": error.message, "where": error.where, "remedy": error.remedy}
    head = traceback.format_exception_only(error)[0].splitlines()[0]
    return {"message": head, "traceback": "".join(traceback.format_exception(error))}


@dataclass(frozen=True)
class _Task:
    run_dir: str
    folder: str
    work: Work

    def __call__(self, table: pa.Table) -> pa.Table:
        # Pickled by the driver of this run a moment ago and brought by Ray, which sends functions
        # in the same way; never written to storage, so nobody else can have made it.
        units = [pickle.loads(u) for u in table.column("unit").to_pylist()]
        done = [execute(self.run_dir, self.folder, u, self.work) for u in units]
        return pa.table({"commit": pa.array(done, pa.large_string())})


class _Actor:
    """Actor of a Model stage: loads once, then works like a task.

    A model that cannot be loaded fails its units: an actor that dies says nothing a user can read.
    """

    def __init__(self, run_dir: str, folder: str, work: LoadedWork) -> None:
        try:
            self._task = _Task(run_dir, folder, work.load())
        except Exception as error:
            self._failed = json.dumps({"failed": "load", **_failure(error)})

    def __call__(self, table: pa.Table) -> pa.Table:
        if hasattr(self, "_failed"):
            return pa.table({"commit": pa.array([self._failed], pa.large_string())})
        return self._task(table)


@dataclass(frozen=True)
class Pool:
    """Actors of a Model stage: how many, and what each of them holds.

    `ahead` bounds the units that an actor has been given: with 1 the first actor that is ready does
    not take those of the others. None leaves it to Ray.
    """

    size: int
    num_gpus: float = 0
    ahead: int | None = None


@dataclass(frozen=True)
class Standing:
    """What is committed of a step, what must run, and why it must: reason -> units."""

    valid: dict[str, Commit]
    todo: list[Unit]
    why: dict[str, int]


def pending(step: Step) -> Standing:
    """Compare a step's units with what is committed."""
    known = commit.load(step.folder)
    present = commit.sizes(step.run_dir, step.folder) if known else {}
    present |= _present_elsewhere(step, known)
    valid: dict[str, Commit] = {}
    todo: list[Unit] = []
    why: Counter[str] = Counter()
    for unit in step.units:
        found = known.get(unit.name)
        if found is not None and commit.is_valid(found, unit.fingerprint, present):
            valid[unit.name] = found
            continue
        todo.append(unit)
        if found is None:
            why["new"] += 1
        else:
            same = found.fingerprint == unit.fingerprint
            why["file missing or damaged" if same else "settings or input changed"] += 1
    return Standing(valid, todo, dict(why))


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
    begin: Callable[[int], None] | None = None,
) -> StepResult:
    """Run what is pending of a step and return all its commits; `begin` hears how much that is.

    Raises RunError naming stage, unit and cause at the first unit that fails.
    """
    standing = pending(step)
    valid, todo = standing.valid, standing.todo
    skipped = len(valid)
    if begin:
        begin(len(todo))
    if todo:
        commit.reopen(step.folder)
    for done in compute(step, todo, work, workers=workers, pool=pool):
        valid[done.unit] = done
        if listener:
            listener(done)
    result = StepResult([valid[u.name] for u in step.units], skipped, standing.why)
    if todo:
        commit.finish(step.folder, result.commits)
    return result


def compute(
    step: Step,
    units: list[Unit],
    work: Work | LoadedWork,
    *,
    workers: int,
    pool: Pool | None = None,
) -> Iterator[Commit]:
    """Run units of a step, whatever is committed; their commits as they come.

    Ray's driver holds some kilobytes for every unit that it knows, so they are handed to it in
    waves.
    """
    for at in range(0, len(units), AT_ONCE):
        yield from _wave(step, units[at : at + AT_ONCE], work, workers=workers, pool=pool)


def _wave(
    step: Step,
    units: list[Unit],
    work: Work | LoadedWork,
    *,
    workers: int,
    pool: Pool | None = None,
) -> Iterator[Commit]:
    import ray.data

    rows = [{"unit": pickle.dumps(u)} for u in units]
    data = ray.data.from_items(rows, override_num_blocks=len(rows))
    if pool is None:
        mapped = data.map_batches(
            _Task(step.run_dir, step.folder, work),  # type: ignore[arg-type]
            batch_size=None,
            batch_format="pyarrow",
            compute=ray.data.TaskPoolStrategy(size=min(workers, len(rows))),
            max_retries=RETRIES,
        )
    else:
        mapped = data.map_batches(
            _Actor,
            fn_constructor_args=(step.run_dir, step.folder, work),
            batch_size=None,
            batch_format="pyarrow",
            compute=ray.data.ActorPoolStrategy(
                size=min(pool.size, len(rows)), max_tasks_in_flight_per_actor=pool.ahead
            ),
            num_gpus=pool.num_gpus,
            max_restarts=RETRIES,
            max_task_retries=RETRIES,
        )
    yield from collect(mapped, step.label)


def collect(data: "ray.data.Dataset", label: str) -> Iterator[Commit]:
    """Commits as they come from the workers. Raises RunError at the first failure."""
    from ray.exceptions import RayError

    try:
        for row in data.iter_rows():
            value = json.loads(row["commit"])
            if "failed" in value:
                raise _run_error(value, f"{label}/{value['failed']}")
            yield Commit.from_json(value)
    except RayError as error:
        raise _run_error(_cause(error), label) from None


def _cause(error: "RayError") -> dict[str, str]:
    """What a worker raised outside of a unit, or how it died."""
    if isinstance(cause := getattr(error, "cause", None), Exception):
        # Ray's text holds the worker's traceback, which the exception itself lost on its way.
        found = _failure(cause)
        return {**found, "traceback": str(error)} if "traceback" in found else found
    return {
        "message": f"a worker died {RETRIES + 1} times in a row ({type(error).__name__})",
        "where": "",
        "remedy": "most likely it ran out of memory (see dmesg): lower engine.workers, "
        "engine.batch_mb or engine.part_mb and run again; finished parts are kept",
    }


def _run_error(failure: dict[str, str], where: str) -> RunError:
    if "traceback" in failure:
        return RunError(
            f"{failure['message']}\n{failure['traceback'].strip()}",
            where=where,
            remedy="this is a fault of the op, please report it; finished parts are kept",
        )
    place = f"{where}: {failure['where']}" if failure["where"] else where
    if file := failure.get("damaged"):
        return DamagedFileError(failure["message"], file=file, where=place)
    return RunError(failure["message"], where=place, remedy=failure["remedy"])
