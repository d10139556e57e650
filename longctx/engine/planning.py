"""`plan`: what a run would read, do and skip, found out without Ray and without reading text.

Rows and bytes come from listings and Parquet footers; JSONL rows are estimated from the first
megabyte. What a resume would skip is decided by the run's own rule: the stages are walked with the
fingerprints that a run would compare, up to the first unit that is not committed.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from longctx.cost.coefficients import packaged
from longctx.cost.laws import Size
from longctx.cost.model import Cluster
from longctx.cost.model_calls import ModelCalls
from longctx.engine import ingest
from longctx.engine.barrier import BarrierContext
from longctx.engine.inputs import Group, InputFile, Listing, list_inputs
from longctx.engine.mapstage import map_step, sidecar_of
from longctx.engine.op import Barrier, Map, Model, Op, Setting
from longctx.engine.scaling import MEGABYTE, limits_of, stage_estimate
from longctx.engine.settings import setting_for, stage_folder
from longctx.engine.units import PendingWorkError, Step, StepResult, pending
from longctx.io import paths
from longctx.io.parquet_files import parquet_file
from longctx.io.read import format_of
from longctx.recipe import Recipe
from longctx.text.tokenize import load_tokenizer

ONE_CORE = Cluster(nodes=1, cores=1, memory=0)
_SAMPLE = 1 << 20
_UNITS = ("parts", "file groups")
_LAST_STEP = "result"  # the last step of a barrier has no name of its own


@dataclass(frozen=True)
class InputPlan:
    """What one source brings: files, stored bytes, and rows (exact only where footers tell)."""

    source: str
    files: int
    stored_bytes: int
    rows: int
    text_bytes: int
    exact: bool


@dataclass(frozen=True)
class StagePlan:
    """One stage: what it costs, roughly, and what a resume would find.

    `cpu_seconds` is for one core, `exchange_bytes` what crosses the network and `worker_bytes` what
    one process holds; all are None where the op was never measured. `workers` is what runs it
    ("tasks", "actors", "actors with 1 GPU"); `state` is "done", "to do" or how much of which step
    is left. What comes after a stage with work left counts as to do. `calls` is what it asks of a
    language model.
    """

    stage: str
    kind: str
    summary: str
    cpu_seconds: float | None
    exchange_bytes: float | None
    worker_bytes: float | None
    workers: str
    state: str
    settings: dict[str, Any] = field(default_factory=dict)
    calls: tuple[ModelCalls, ...] = ()


@dataclass(frozen=True)
class Plan:
    """The whole plan. Estimates assume that no row is dropped on the way: they are upper bounds."""

    recipe: Recipe
    run_dir: str
    output: str
    inputs: list[InputPlan]
    ignored: dict[str, int]
    parts: int
    stages: list[StagePlan]
    measured: Mapping[str, Any]

    @property
    def rows(self) -> int:
        """Rows over all inputs."""
        return sum(i.rows for i in self.inputs)

    @property
    def text_bytes(self) -> int:
        """UTF-8 bytes of text over all inputs."""
        return sum(i.text_bytes for i in self.inputs)


def make_plan(recipe: Recipe) -> Plan:
    """Plan a run of a recipe. Raises RecipeError when inputs are missing."""
    engine = recipe.body.engine
    part_bytes = engine.part_bytes
    listing = list_inputs(recipe.body.input, part_bytes)
    inputs = _inputs(listing)
    rows, text = sum(i.rows for i in inputs), sum(i.text_bytes for i in inputs)
    run_dir = paths.absolute(recipe.body.run_dir)
    output = paths.absolute(recipe.body.output.path or paths.join(run_dir, "output"))
    fingerprint = load_tokenizer(recipe.body.tokenizer.path).fingerprint
    states = _states(recipe, run_dir, output, fingerprint, listing, part_bytes)
    size, limits, measured = Size(rows, text / MEGABYTE), limits_of(recipe), packaged()
    stages = []
    ops: list[Op] = [ingest.CheckIds(), *recipe.ops]
    for name, op, state in zip([ingest.STAGE, *recipe.stage_names()], ops, states, strict=True):
        found = stage_estimate(name, op, size, ONE_CORE, limits, measured).estimate
        reads = name == ingest.STAGE
        stages.append(
            StagePlan(
                name,
                "read" if reads else op.kind,
                "read files into documents/, check ids" if reads else op.summary,
                found.cpu_seconds if found else None,
                found.exchange_bytes if found else None,
                found.node_bytes if found else None,
                _workers(op),
                state,
                op.model_dump(mode="json", exclude={"op"}, exclude_defaults=True),
                tuple(op.model_calls(rows)),
            )
        )
    parts = max(len(listing.groups), -(-text // part_bytes))
    return Plan(recipe, run_dir, output, inputs, listing.ignored, parts, stages, measured.when)


def inputs_of(recipe: Recipe) -> list[InputPlan]:
    """What each source brings. Raises RecipeError when inputs are missing."""
    return _inputs(list_inputs(recipe.body.input, recipe.body.engine.part_bytes))


def _workers(op: Op) -> str:
    if not isinstance(op, Model):
        return "tasks"
    return f"actors with {op.num_gpus:g} GPU" if op.num_gpus else "actors"


def _inputs(listing: Listing) -> list[InputPlan]:
    by_source: dict[str, list[tuple[int, int, int, bool]]] = {}
    for group in listing.groups:
        name = group.spec.source or f"from field `{group.spec.source_field}`"
        found = by_source.setdefault(name, [])
        found.extend((f.size, *_rows(f, group)) for f in group.files)
    return [
        InputPlan(
            name,
            len(files),
            sum(f[0] for f in files),
            sum(f[1] for f in files),
            sum(f[2] for f in files),
            all(f[3] for f in files),
        )
        for name, files in by_source.items()
    ]


def _rows(file: InputFile, group: Group) -> tuple[int, int, bool]:
    """Rows, bytes of text, and whether the rows are exact."""
    kind = format_of(file.url, group.spec.format)
    if kind == "parquet":
        return _parquet_rows(file, group.spec.text)
    if kind == "text":
        return 1, file.text_bytes, True
    if file.size == 0:
        return 0, 0, True
    fs, path = paths.filesystem(file.url)
    packed = file.text_bytes != file.size
    with paths.clear_errors(file.url), fs.open(path, "rb") as raw:
        head = raw.read(_SAMPLE)
    if packed:
        # A compressed head cannot be counted cheaply; 4 kB of text per row is a common size.
        return max(1, file.text_bytes // 4096), file.text_bytes, False
    lines = max(1, head.count(b"\n") + (not head.endswith(b"\n")))
    return max(1, file.size * lines // len(head)), file.size, len(head) == file.size


def _parquet_rows(file: InputFile, column: str) -> tuple[int, int, bool]:
    import pyarrow as pa

    fs, path = paths.filesystem(file.url)
    try:
        with paths.clear_errors(file.url), fs.open(path, "rb") as raw:
            meta = parquet_file(raw).metadata
    except pa.ArrowInvalid:
        return 0, 0, False
    size = 0
    for g in range(meta.num_row_groups):
        group = meta.row_group(g)
        for c in range(group.num_columns):
            if group.column(c).path_in_schema == column:
                size += group.column(c).total_uncompressed_size
    return meta.num_rows, size, True


def _states(
    recipe: Recipe, run_dir: str, output: str, tokenizer: str, listing: Listing, part_bytes: int
) -> list[str]:
    """What a resume would find, stage by stage."""
    names = [ingest.STAGE, *recipe.stage_names()]
    states: list[str] = []
    try:
        for state in _walk(recipe, run_dir, output, tokenizer, listing, part_bytes):
            states.append(state)
    except PendingWorkError as found:
        states.append(_left(found))
    return states + ["to do"] * (len(names) - len(states))


def _left(found: PendingWorkError) -> str:
    """What is left of the stage that a resume would start with."""
    step = found.step or _LAST_STEP
    if found.left == found.total:
        return "to do" if step in _UNITS else f"from step {step}"
    amount = f"{found.left:,} of {found.total:,}"
    return f"{amount} {step}" if step in _UNITS else f"{amount} in step {step}"


def _walk(
    recipe: Recipe, run_dir: str, output: str, tokenizer: str, listing: Listing, part_bytes: int
) -> Any:
    groups = ingest.group_step(listing, run_dir, part_bytes)
    read = _committed(groups, "file groups")
    corpus = ingest.corpus_of(run_dir, read.commits)
    rows = sum(c.stats["rows_out"] for c in read.commits)
    exchange = recipe.body.engine.exchange_bytes
    pairs = [(ingest.STAGE, ingest.CheckIds()), *zip(recipe.stage_names(), recipe.ops, strict=True)]
    for name, op in pairs:
        setting: Setting = setting_for(recipe, name, run_dir, output, tokenizer)
        folder = stage_folder(run_dir, name)
        if isinstance(op, Barrier):
            context = BarrierContext(
                corpus, op, setting, folder, rows=rows, workers=1, exchange_bytes=exchange, dry=True
            )
            op.run(context)
            corpus = context.corpus
            final = context.final
        else:
            assert isinstance(op, (Map, Model))
            final = _committed(map_step(corpus, op, setting, folder), "parts")
            corpus = corpus.with_sidecar(sidecar_of(name, op, final))
        if final is not None:
            rows = sum(c.stats["rows_out"] for c in final.commits)
        yield "done"


def _committed(step: Step, what: str) -> StepResult:
    standing = pending(step)
    if standing.todo:
        raise PendingWorkError(what, len(standing.todo), len(step.units))
    return StepResult([standing.valid[u.name] for u in step.units], len(step.units))
