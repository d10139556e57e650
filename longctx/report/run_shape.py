"""What the report relies on in a `run.json`: a file that people pass on, cut short or edit.

The shape is checked before anything is drawn, so that a file which is not what a run wrote ends in
one sentence that names the field, what was expected and what stands there. Fields that the report
does not read may hold anything.
"""

from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from longctx.errors import RecipeError
from longctx.report.format import one_line

_SAID = 60
_REMEDY = "get the file as the run wrote it, or run the recipe again: finished parts are kept"


def _length(name: str) -> str:
    if not name.isdecimal() or not 0 < int(name) < 1 << 40:
        raise ValueError("expected a number of tokens")
    return name


Count = Annotated[int, Field(ge=0, lt=1 << 63)]
Number = Annotated[float, Field(allow_inf_nan=False, ge=-1e18, le=1e18)]
Seconds = Annotated[Number, Field(ge=0)]
Counts = dict[str, Count]
# Bins of lengths double, so 64 of them reach any length.
Doubling = Annotated[list[Count], Field(max_length=64)]
Bins = Annotated[list[Count], Field(min_length=1, max_length=1000)]
Pair = Annotated[list[Count], Field(min_length=2, max_length=2)]
Lengths = Annotated[str, AfterValidator(_length)]


class _Shape(BaseModel):
    model_config = ConfigDict(strict=True)


class _Summary(_Shape):
    """Counters of a stage."""

    lengths: Doubling | None = None
    tokens: Count | None = None
    chars: Count | None = None
    removed_by_source: dict[str, Pair] = {}
    by_source: dict[str, Pair] = {}
    by_license: dict[str, Pair] = {}
    quarantine: Counts | None = None
    notes: Counts | None = None


class _Stage(_Shape):
    stage: Annotated[str, Field(pattern=r"^\d{2,}-[a-z0-9_.]+$")]
    op: str
    seconds: Seconds
    units: Count
    skipped: Count
    rows_in: Count
    rows_out: Count
    dropped: Counts
    quarantined: Count
    summary: _Summary
    steps: dict[str, dict[str, Any]]
    settings: dict[str, Any]


class _Run(_Shape):
    name: str
    status: str
    started: str
    seconds: Seconds
    run_dir: str
    output: str
    seed: int
    fingerprint: str
    stages: list[_Stage]
    ignored_files: Counts
    recipe: dict[str, Any]
    versions: dict[str, str]


class _Tours(_Shape):
    """Figures of an order that compared its neighbours with a random order."""

    adjacency: Number
    adjacency_random: Number
    jumps: Number | None
    top2_bound: Number | None
    histogram: Bins
    histogram_random: Bins


class _Choice(_Shape):
    rule: str
    look_ahead: Count


class _Target(_Shape):
    share: Number | None = None
    share_reached: Number | None = None
    choice: _Choice | None = None


class _ByLength(_Shape):
    windows: Count = 0
    tokens: Count = 0
    fill: Number | None = None
    split_docs: Number | None = None
    context_coherence: Number | None = None


class _Audit(_Shape):
    """Figures of windows that were written."""

    windows: Count
    windows_lower_bound: Count
    tokens: Count
    fill: Number
    fill_histogram: Bins
    docs_histogram: Annotated[list[Pair], Field(min_length=1)]
    docs_per_window: Number
    split_docs: Number | None
    split_short: Number | None
    one_document: Number
    several_sources: Number
    context_coherence: Number | None = None
    context_adjacent: Number | None = None
    by_length: dict[Lengths, _ByLength] = {}


class _Packs(_Shape):
    """Packs of conversations that were written."""

    files: Count
    packs: Count
    length: Count
    sequences: Count
    tokens: Count
    fill: Number
    bytes: Count


class _Files(_Shape):
    """Files of documents that were written."""

    files: Count
    documents: Count
    bytes: Count
    format: str
    order_by: str = ""


_SHAPES: dict[str, TypeAdapter[Any]] = {
    "run": TypeAdapter(_Run),
    "tours": TypeAdapter(_Tours),
    "audit": TypeAdapter(_Audit),
    "files": TypeAdapter(_Files),
    "packs": TypeAdapter(_Packs),
    "targets": TypeAdapter(Annotated[dict[Lengths, _Target], Field(min_length=1)]),
    "warnings": TypeAdapter(Counts),
    "figures": TypeAdapter(dict[str, Number | None]),
}


def check(kind: str, value: Any, file: str, place: tuple[str | int, ...] = ()) -> None:
    """Raise RecipeError unless a value of `run.json` has a shape: "run", "tours", "audit", …

    `place` leads to the value in `file`.
    """
    check_shape(_SHAPES[kind], value, file, place)


def check_shape(
    shape: TypeAdapter[Any], value: Any, file: str, place: tuple[str | int, ...] = ()
) -> None:
    """Raise RecipeError unless a value of `run.json` has this shape; `place` leads to it."""
    try:
        shape.validate_python(value)
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        found = "nothing" if problem["type"] == "missing" else one_line(repr(problem["input"]), 200)
        field = ".".join(str(step) for step in (*place, *problem["loc"]))
        raise RecipeError(
            f"run.json is not as a run writes it: `{field}`: {problem['msg']}, found "
            f"{found if len(found) <= _SAID else found[:_SAID] + '...'}",
            where=file,
            remedy=_REMEDY,
        ) from None
