"""A step whose model answers in batches: what its units lack is collected and answered, in rounds.

Each round works the units that are left as far as their answers go (`vllm.OpenRequestsError`),
writes what they lack to files, and sends that through one execution of vLLM (`stages_vllm.py`).
When no unit lacks anything the step runs as any other, and finds everything it asks. Requests with
one key are sent once, for the first unit that asked.

All of it lies below `RUN_DIR/batches` until the step has ended: a run that was killed collects
anew, and finds in the cache what was answered. Requests travel by file and row, so the driver holds
16 bytes for each. A unit is worked once more than it has rounds of calls, all but the last time
without leaving files.
"""

import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from longctx.engine import commit, units
from longctx.engine.barrier import Beforehand
from longctx.engine.commit import FileRef
from longctx.engine.op import Setting
from longctx.engine.units import LoadedWork, Pool, Sink, Step, Unit, Work
from longctx.errors import RunError
from longctx.io import paths
from longctx.io.parquet_files import parquet_file
from longctx.llm import stages_vllm
from longctx.llm.spec import Asking, Terms, VLLMGenerator, close_client
from longctx.llm.types import LLMJobError
from longctx.llm.vllm import OpenRequestsError
from longctx.llm.vllm_rows import ANSWERS, ASKED

if TYPE_CHECKING:
    from ray.data import Dataset

_FOLDER = "batches"
_GROUP_ROWS = 32
# A file, one of its row groups, and the rows of it that are sent.
Piece = tuple[str, int, list[int]]


class _Nowhere(Sink):
    """Takes the files of a unit that is worked only to see what it asks."""

    def write(self, name: str, data: bytes | memoryview, rows: int) -> None:
        """Nothing is written."""

    def discard(self, name: str) -> None:
        """Nothing is removed."""


@dataclass(frozen=True)
class Collecting:
    """A work of a step, worked to see what it lacks; that is written below `folder`."""

    work: Any
    folder: str

    def load(self) -> "Collecting":
        """The same with its work loaded."""
        return replace(self, work=self.work.load())

    def __call__(self, payload: tuple[str, Any], sink: Sink) -> dict[str, Any]:
        name, _ = payload
        try:
            self.work(payload, _Nowhere(""))
        except OpenRequestsError as found:
            sink.write(f"{self.folder}/{name}.parquet", _asked(found.rows), len(found.rows))
            return {"stats": {"place": found.place}}
        return {"stats": {}}


def _asked(rows: Sequence[Mapping[str, Any]]) -> bytes:
    data = io.BytesIO()
    table = pa.Table.from_pylist(list(rows), ASKED)
    pq.write_table(table, data, compression="zstd", row_group_size=_GROUP_ROWS)
    return data.getvalue()


@dataclass(frozen=True)
class Batches:
    """The batches of one step. `specs` are its models by their role, "" being the first of them."""

    setting: Setting
    step: str
    specs: Mapping[str, VLLMGenerator]

    @property
    def folder(self) -> str:
        """Where requests and answers lie while the step goes on, relative to the run folder."""
        return "/".join([_FOLDER, self.setting.stage, self.step])

    def place(self, role: str = "") -> str:
        """The folder of the answers of a model, as a URL."""
        return paths.join(self.setting.run_dir, self.folder, f"answers-{role or 'first'}")

    def beforehand(
        self, work: Work | LoadedWork, pool: Pool, terms: Mapping[str, Terms]
    ) -> Beforehand:
        """What has to be done before the units of the step are worked: `answer`."""
        return partial(self.answer, work=work, pool=pool, terms=terms)

    def answer(
        self, step: Step, *, work: Work | LoadedWork, pool: Pool, terms: Mapping[str, Terms]
    ) -> None:
        """Answer all that the units of a step lack, in rounds.

        Raises RunError where the model has to be asked in more rounds than its settings allow, or
        no execution can be had; LLMJobError where the limits of `terms` are reached.
        """
        self.clear()
        waiting, allowed = step.units, min(spec.rounds for spec in self.specs.values())
        spent = dict.fromkeys(self.specs, 0)
        for number in range(allowed + 1):
            found = self._collected(number, waiting, work, pool)
            waiting = [unit for unit in waiting if unit.name in found]
            if not waiting:
                # Clients count a call once, and what they counted so far is told nowhere.
                close_client()
                return
            if number == allowed:
                raise self._too_many(len(waiting), len(step.units), allowed)
            for role, spec in self.specs.items():
                files = [file for place, file in found.values() if place == self.place(role)]
                if files:
                    left = _left(terms[role], spent[role])
                    spent[role] += self._execute(spec, files, self.place(role), left)

    def _collected(
        self, number: int, waiting: list[Unit], work: Any, pool: Pool
    ) -> dict[str, tuple[str, FileRef]]:
        """Of each unit that lacks something the place of its answers, and the file of requests."""
        folder = f"{self.folder}/asked-{number}"
        run_dir = self.setting.run_dir
        plan = Step(run_dir, paths.join(run_dir, folder), waiting)
        done = units.compute(plan, waiting, Collecting(work, folder), workers=pool.size, pool=pool)
        return {c.unit: (c.stats["stats"]["place"], c.files[0]) for c in done if c.files}

    def _execute(
        self, spec: VLLMGenerator, files: Sequence[FileRef], place: str, left: int | None
    ) -> int:
        """Send what stands in files, as far as the limit goes; the tokens that it took."""
        urls = [commit.url_of(self.setting.run_dir, f.name) for f in sorted(files, key=_name)]
        pieces, whole = _within(urls, left)
        used = 0
        if pieces:
            used = self._answered(spec, pieces, place)
        if not whole:
            raise LLMJobError("budget", f"{left:,} tokens were left", where=self.setting.stage)
        return used

    def _answered(self, spec: VLLMGenerator, pieces: Sequence[Piece], place: str) -> int:
        where = f"{self.setting.stage}/{self.step}"
        try:
            answers = stages_vllm.generate_dataset(
                _requests(pieces), spec.settings(), spec.cache_place(self.setting.run_dir)
            )
            told = answers.map_batches(
                _Leave(place), batch_size=None, batch_format="pyarrow"
            ).iter_rows()
            return sum(row["tokens"] for row in told)
        except (LLMJobError, RunError):
            raise
        except Exception as error:  # of Ray, of vLLM, of what they load
            raise stages_vllm.failed_execution(error, where) from error

    def _too_many(self, waiting: int, units: int, allowed: int) -> RunError:
        return RunError(
            f"{waiting:,} of {units:,} units of the step still wait for answers when vLLM was run "
            f"as often as allowed ({allowed} times)",
            where=f"{self.setting.stage}/{self.step}",
            remedy="each round of calls starts the engines anew: raise `rounds` of the generator, "
            "or start `vllm serve MODEL` and take backend openai, which asks as it goes; what was "
            "answered is in the cache",
        )

    def clear(self) -> None:
        """Remove what lies in the folder of the step, and clients here that have read it."""
        close_client()
        folder = paths.join(self.setting.run_dir, self.folder)
        for name in paths.list_files(folder, recursive=True):
            paths.remove(paths.join(folder, name))


def batches_of(setting: Setting, step: str, specs: Mapping[str, Asking]) -> Batches | None:
    """The batches of a step that asks these models by their role; None where none is of vLLM.

    Raises LLMJobError where only some are: a unit is worked several times, and what it asked of the
    others would be told as if it had cost nothing.
    """
    batched = {role: spec for role, spec in specs.items() if isinstance(spec, VLLMGenerator)}
    if not batched:
        return None
    if len(batched) < len(specs):
        raise LLMJobError(
            "misconfigured",
            "generator and judge of one step are either both of backend vllm or neither is",
            where=setting.stage,
        )
    return Batches(setting, step, batched)


def _name(file: FileRef) -> str:
    return file.name


def _left(terms: Terms, spent: int) -> int | None:
    return None if terms.tokens_left is None else terms.tokens_left - spent


def _within(urls: Sequence[str], left: int | None) -> tuple[list[Piece], bool]:
    """The rows of files that are sent, each key once, and whether those are all.

    What all may cost together stays within the limit, as for a client all of whose calls are under
    way at once.
    """
    seen: set[bytes] = set()
    pieces: list[Piece] = []
    for url in urls:
        for group, keys, costs in _groups(url):
            rows: list[int] = []
            for row, (key, cost) in enumerate(zip(keys, costs, strict=True)):
                prefix = bytes.fromhex(key[:32])
                if prefix in seen:
                    continue
                if left is not None:
                    left -= cost
                    if left < 0:
                        return [*pieces, *([(url, group, rows)] if rows else [])], False
                seen.add(prefix)
                rows.append(row)
            if rows:
                pieces.append((url, group, rows))
    return pieces, True


def _groups(url: str) -> Iterator[tuple[int, list[str], list[int]]]:
    """Keys and costs of the row groups of a file of requests."""
    source = paths.open_ranged(url)
    try:
        file = parquet_file(source)
        for group in range(file.num_row_groups):
            table = file.read_row_group(group, columns=["key", "reserved"])
            yield group, *(table.column(n).to_pylist() for n in ("key", "reserved"))
    finally:
        if not isinstance(source, str):
            source.close()


def _requests(pieces: Sequence[Piece]) -> "Dataset":
    """Rows of `ASKED`, read where they are needed. A block a piece, so all engines get some."""
    import ray.data

    rows = [{"url": url, "group": group, "rows": chosen} for url, group, chosen in pieces]
    data = ray.data.from_items(rows, override_num_blocks=len(rows))
    return data.map_batches(_read, batch_size=None, batch_format="pyarrow")


def _read(pieces: pa.Table) -> pa.Table:
    tables = []
    for piece in pieces.to_pylist():
        source = paths.open_ranged(piece["url"])
        try:
            group = parquet_file(source).read_row_group(piece["group"])
        finally:
            if not isinstance(source, str):
                source.close()
        tables.append(group.take(piece["rows"]))
    return pa.concat_tables(tables)


@dataclass(frozen=True)
class _Leave:
    """Writes answers for the units' clients, texts only where the cache does not hold them."""

    place: str

    def __call__(self, answers: pa.Table) -> pa.Table:
        # An answer from the cache, stored since it was asked for, was paid by somebody else.
        rows = [row for row in answers.to_pylist() if not row["from_cache"]]
        for row in rows:
            row["text"] = None if row["stored"] else row["text"]
        if rows:
            data = io.BytesIO()
            pq.write_table(pa.Table.from_pylist(rows, ANSWERS), data, compression="zstd")
            # Named by what it holds, so a task that is tried again writes the same file.
            name = f"{min(row['key'] for row in rows)}.parquet"
            paths.write_atomic(paths.join(self.place, name), data.getvalue())
        tokens = sum(row["prompt_tokens"] + row["completion_tokens"] for row in rows)
        return pa.table({"tokens": pa.array([tokens], pa.int64())})
