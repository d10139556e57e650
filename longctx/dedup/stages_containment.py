"""`dedup.containment` on the engine: samples, coverage, scores beside the documents, and a cut.

The steps up to `scores` do not depend on `theta`, so another `theta` is a new cut of stored shares.
"""

from functools import partial
from typing import Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field, model_validator

from longctx.dedup.chunking import Grid, Sampling
from longctx.dedup.stages_coverage import filled, find_coverage
from longctx.dedup.stages_profiles import Profile
from longctx.dedup.stages_samples import held, sample_part
from longctx.engine.barrier import BarrierContext
from longctx.engine.corpus import ROW
from longctx.engine.op import DROP_REASON, Barrier, Setting
from longctx.engine.rows import PART, home_of
from longctx.engine.steps import BUCKET

# What comes home: one row a document with `status`, at most one with `any_words`, and its pairs.
_HOME = pa.schema(
    [
        (ROW, pa.int32()),
        ("status", pa.string()),
        ("n_words", pa.int64()),
        ("n_chunks", pa.int64()),
        ("self_words", pa.int64()),
        ("any_words", pa.int64()),
        ("common_words", pa.int64()),
        ("other_id", pa.string()),
        ("words", pa.int64()),
        ("precedes", pa.bool_()),
    ]
)
_SCORES = (
    "ct_n_chunks",
    "ct_any_share",
    "ct_best_doc",
    "ct_best_share",
    "ct_prev_doc",
    "ct_prev_share",
    "ct_self_share",
    "ct_common_share",
    "ct_status",
)
_CUT = ("theta", "min_chunks")


class DedupContainment(Barrier):
    """Removes documents that a longer one holds nearly whole, and says who holds how much of whom.

    A document is cut into chunks of `chunk` words. A chunk is covered by another document that
    holds a share `tau` of its sampled shingles (one of `one_in`), wherever they stand there; how
    much a document covers of another is the share of words in covered chunks. A document goes when
    one that precedes it (more words, or as many and a smaller doc_id) covers a share of `theta` or
    more; `theta: null` removes nothing. A document of fewer than `min_chunks` chunks stays: that of
    one has a share of 0 or 1, decided by few samples.

    Shingles in more than `max_df` documents (licences, templates) are common: they are told in
    ct_common_share, and nobody covers anything by them. `min_last` words make a last chunk, and a
    document; a chunk of fewer than `min_samples` samples is not judged. The step `pairs` keeps who
    covers whom.
    """

    op: Literal["dedup.containment"]
    theta: float | None = Field(0.8, gt=0, le=1)
    min_chunks: int = Field(2, ge=1)
    tau: float = Field(0.6, gt=0, le=1)
    max_df: int = Field(100, ge=1, le=100_000)
    chunk: int = Field(1024, ge=1, le=1_000_000)
    min_last: int = Field(512, ge=1)
    ngram: int = Field(5, ge=1, le=1024)
    one_in: int = Field(32, ge=1, le=100_000)
    min_samples: int = Field(4, ge=1)
    profile: Profile = "text"
    profiles: dict[str, Profile] = Field(default_factory=dict)

    summary: ClassVar[str] = "remove documents that a longer one contains"
    source: ClassVar[str] = "containment from samples: Broder 1997; chunks and the rule are ours"
    cost: ClassVar[str] = (
        "samples as fast as dedup.minhash's signatures; exchange of 16 / one_in bytes a word, and "
        "of 8 bytes for each document that shares a sample with another, up to max_df"
    )
    reads: ClassVar[tuple[str, ...]] = ("text",)
    writes: ClassVar[tuple[str, ...]] = (*_SCORES, DROP_REASON)
    removes: ClassVar[bool] = True

    @model_validator(mode="after")
    def _last_chunk_fits(self) -> "DedupContainment":
        if self.min_last > self.chunk:
            raise ValueError(
                f"min_last = {self.min_last} exceeds chunk = {self.chunk}: lower min_last as well"
            )
        return self

    def run(self, context: BarrierContext) -> None:
        grid = Grid(self.chunk, self.min_last, self.min_samples, self.tau)
        sampling = Sampling(self.ngram, self.one_in, self.chunk, self.min_last)
        samples = context.per_part(
            "samples",
            partial(sample_part, sampling, self.profile, self.profiles),
            ["doc_id", "text", "source"],
            ignore=(*_CUT, "tau", "min_samples", "max_df"),
        )
        covered, pairs = find_coverage(context, samples, self.max_df, grid, _CUT)
        context.sidecar(
            "scores",
            [(samples, partial(_own, grid)), (covered, _totals), (pairs, _pairs)],
            _score,
            _HOME,
            _SCORES,
            ignore=_CUT,
        )
        rule = partial(_cut, self.theta, self.min_chunks)
        nothing = pa.schema([(ROW, pa.int32())])
        context.sidecar("", [], rule, nothing, self.writes, columns=_SCORES, removes=True)


def _own(grid: Grid, table: pa.Table, setting: Setting) -> pa.Table:
    """What a document's own samples say of it."""
    from longctx.dedup.chunk_samples import chunks_of
    from longctx.dedup.containment import evaluated, self_covered

    own = held(table)
    status = np.full(table.num_rows, "ok", dtype=object)
    status[evaluated(own, grid) == 0] = "few_samples"
    status[own.words < grid.min_last] = "too_short"
    status[own.words == 0] = "empty"
    chunks = chunks_of(own.words, grid.chunk, grid.min_last)
    return _homewards(
        table.select([PART, ROW, "n_words"]),
        status=status,
        n_chunks=pa.array(chunks, mask=own.words < grid.min_last),
        self_words=self_covered(own, grid),
    )


def _totals(table: pa.Table, setting: Setting) -> pa.Table:
    """What any other document covers, and what is common."""
    totals = table.filter(table.column("common_words").is_valid())
    return _homewards(totals.select([PART, ROW, "common_words"]), any_words=totals.column("words"))


def _pairs(table: pa.Table, setting: Setting) -> pa.Table:
    return _homewards(table.select([PART, ROW, "other_id", "words", "precedes"]))


def _homewards(table: pa.Table, **columns: Any) -> pa.Table:
    """Rows of _HOME, with their part as bucket."""
    return filled(_HOME, table, **columns).append_column(BUCKET, table.column(PART))


def _score(base: pa.Table, brought: pa.Table, setting: Setting) -> pa.Table:
    """Shares of the rows of a part; of `base` every row has one with `status`."""
    own = brought.filter(brought.column("status").is_valid())
    totals = brought.filter(brought.column("any_words").is_valid())
    pairs = brought.filter(brought.column("other_id").is_valid())
    rows, words = base.column(ROW).to_numpy(), own.column("n_words").to_numpy()
    unknown = pc.not_equal(own.column("status"), "ok").to_numpy()

    def share(found: pa.Table, column: str) -> pa.Array:
        covered = np.zeros(len(rows), dtype=np.int64)
        covered[np.searchsorted(rows, found.column(ROW).to_numpy())] = found.column(column)
        return pa.array(covered / np.maximum(words, 1), mask=unknown)

    best, before = _best(pairs), _best(pairs.filter(pairs.column("precedes")))
    return pa.table(
        {
            "ct_n_chunks": own.column("n_chunks").cast(pa.int32()),
            "ct_any_share": share(totals, "any_words"),
            "ct_best_doc": _ids(rows, best),
            "ct_best_share": share(best, "words"),
            "ct_prev_doc": _ids(rows, before),
            "ct_prev_share": share(before, "words"),
            "ct_self_share": share(own, "self_words"),
            "ct_common_share": share(totals, "common_words"),
            "ct_status": own.column("status"),
        }
    )


def _best(pairs: pa.Table) -> pa.Table:
    """Of each document the pair that covers most; of equal ones that with the smallest id."""
    order = [(ROW, "ascending"), ("words", "descending"), ("other_id", "ascending")]
    pairs = pairs.sort_by(order)
    return pairs.filter(pa.array(np.diff(pairs.column(ROW).to_numpy(), prepend=-1) != 0))


def _ids(rows: npt.NDArray[np.int32], best: pa.Table) -> pa.Array:
    """The other document of each row, null where none covers a chunk."""
    return best.column("other_id").combine_chunks().take(home_of(rows, best))


def _cut(
    theta: float | None, min_chunks: int, base: pa.Table, brought: pa.Table, setting: Setting
) -> pa.Table:
    share = base.column("ct_prev_share").fill_null(0).to_numpy()
    goes = base.column("ct_n_chunks").fill_null(0).to_numpy() >= min_chunks
    goes &= share >= (np.inf if theta is None else theta)
    reasons = pa.array(["contain" if g else None for g in goes], pa.string())
    return base.select(list(_SCORES)).append_column(DROP_REASON, reasons)
