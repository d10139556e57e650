"""What a recipe can name: a frozen pydantic model whose fields are its configuration.

The base owns counting, batching, quarantine, commit and progress; an op is only its rule. There are
three kinds. A Map turns a batch of rows into columns for the same rows. A Model is a Map that first
loads something heavy, once per worker. A Barrier needs the whole set and is written as steps.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import pyarrow as pa
from pydantic import BaseModel, ConfigDict

if TYPE_CHECKING:
    from longctx.cost.model_calls import ModelCalls
    from longctx.engine.barrier import BarrierContext

DROP_REASON = "drop_reason"


@dataclass(frozen=True)
class Setting:
    """What an op may know of the run it is part of; small, frozen and picklable."""

    seed: int
    tokenizer: str
    stage: str
    run_dir: str
    output: str
    formats: tuple[str, ...] = ()
    recipe_fingerprint: str = ""
    tokenizer_fingerprint: str = ""


class RowsFailedError(Exception):
    """Some rows of a batch failed, and what was computed for the others is kept.

    An op whose rows are dear raises it instead of an exception that would have the batch halved and
    computed again. `output` holds one row for each of the batch, and anything for those that
    failed; `errors` says why, by their place in the batch.
    """

    def __init__(self, output: pa.Table, errors: Mapping[int, Exception]) -> None:
        super().__init__(f"{len(errors)} of {output.num_rows} rows failed")
        self.output, self.errors = output, errors


class Op(BaseModel):
    """Base of all ops.

    `reads` names the columns that earlier stages must have written; `writes` the columns of this
    stage's sidecar. `neutral` names the fields that can change speed but not a byte of output: they
    stay out of the fingerprint, so changing them recomputes nothing. `limits` names those that say
    up to which number of documents one process works: they are in the fingerprint only where a
    recipe sets them, and a step that they do not reach ignores them. An op that `ends` a recipe
    says what it leaves in the output; no stage follows it.

    Of ops with the same word as `once` a recipe has at most one. No op whose name begins as
    `last_of` says may follow: `why_late` says what it would do. `why_early` says what this op does
    to writers of columns that it `precedes`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    op: str
    kind: ClassVar[Literal["map", "model", "barrier"]]
    summary: ClassVar[str]
    source: ClassVar[str] = ""
    cost: ClassVar[str] = ""
    code_version: ClassVar[int] = 1
    reads: ClassVar[tuple[str, ...]] = ()
    writes: ClassVar[tuple[str, ...]] = ()
    removes: ClassVar[bool] = False
    ends: ClassVar[str] = ""
    once: ClassVar[str] = ""
    last_of: ClassVar[tuple[str, ...]] = ()
    why_early: ClassVar[str] = "changes the text, which `{}` has read by then"
    why_late: ClassVar[str] = ""
    neutral: ClassVar[frozenset[str]] = frozenset()
    limits: ClassVar[frozenset[str]] = frozenset()

    def reads_columns(self) -> tuple[str, ...]:
        """Columns this configuration needs; by default `reads`."""
        return self.reads

    def writes_columns(self) -> tuple[str, ...]:
        """Columns this configuration writes; by default `writes`."""
        return self.writes

    def reads_meta(self) -> tuple[str, ...]:
        """Fields of the input's rows that this configuration needs in `meta`, as they were read."""
        return ()

    def alternatives(self, column: str) -> tuple[str, ...]:
        """Names that the recipe could have given where this op asks for a column in vain."""
        return ()

    def precedes(self) -> tuple[str, ...]:
        """Columns that no earlier stage may have written: they tell of what this op rewrites."""
        return ()

    def named_sources(self) -> dict[str, tuple[str, ...]]:
        """Sources that the configuration names, by the field that does."""
        return {}

    @classmethod
    def own_fields(cls) -> frozenset[str]:
        """The fields of the configuration, beside the op's name."""
        return frozenset(cls.model_fields) - {"op"}

    def fingerprint_fields(self) -> dict[str, Any]:
        """The configuration that decides the output, as plain JSON values."""
        unset = {n for n in self.limits if getattr(self, n) == type(self).model_fields[n].default}
        fields = self.model_dump(mode="json", exclude={*self.neutral, *unset})
        return {**fields, "code_version": self.code_version}

    def context_length(self) -> int | None:
        """Tokens of the longest window that this op makes; None for all but `pack`."""
        return None

    def clusters(self, rows: int) -> int:
        """Into how many clusters k-means divides so many documents; 1 for ops without any."""
        return 1

    def model_calls(self, documents: int) -> "list[ModelCalls]":
        """What each of its stages will ask of a language model, with so many documents."""
        return []

    def check(self, setting: Setting) -> None:
        """Before a run begins: raise RecipeError or RunError for what would fail hours later."""

    def prepare(self, setting: Setting) -> None:
        """Once per stage, before the workers start: build files that every worker loads."""


class Map(Op):
    """Row-local op: `batch` gets living rows and returns one row of columns for each."""

    kind = "map"

    def batch(self, table: pa.Table, setting: Setting) -> pa.Table:
        """Columns `writes` (and `drop_reason` if it removes) for the rows of `table`, in order."""
        raise NotImplementedError


class Model(Op):
    """A Map with a heavy object, loaded once per worker from this light description.

    Subclasses that hold a GPU set `num_gpus`.
    """

    kind = "model"
    neutral = frozenset({"num_gpus", "workers", "threads"})

    num_gpus: float = 0
    workers: int | None = None
    threads: int = 1

    def finished(self, stats: Mapping[str, Any], setting: Setting) -> None:
        """When all parts are there: raise RunError for what their counters, summed, cannot be."""

    def load(self, setting: Setting) -> Any:
        """Build the heavy object; called once in every worker."""
        raise NotImplementedError

    def batch(self, table: pa.Table, setting: Setting, model: Any) -> pa.Table:
        """Columns `writes` for the rows of `table`, in order."""
        raise NotImplementedError


class Barrier(Op):
    """An op over the whole set, written as resumable steps on a BarrierContext."""

    kind = "barrier"

    def run(self, context: "BarrierContext") -> None:
        """Run the steps; the last one writes the aligned sidecar (or the windows)."""
        raise NotImplementedError
