"""An order of more documents than one process holds, on the engine: partition by partition.

Documents are divided into partitions of similar ones (`stages_division.py`); an exchange brings
them and their vectors to their partition, where they are numbered, searched, pruned of
near-duplicates and arranged by the op's own rule as one unit of work; the ends of all partitions
decide in one place how they follow one another; and every partition's rows go home under their
final tour and rank.

What one process holds, for d dimensions and partitions of m documents: 12·d + 400 bytes for each of
m documents where a partition is arranged (its vectors as they come, in order, and once more without
near-duplicates: 5 GB for 1,000,000 documents of 384 dimensions); one part elsewhere; 128·d bytes a
cell where cells are trained (at most 16,384, or 4 a partition); a few numbers and two vectors a
partition where they are joined. Nothing in any process grows with the number of documents but the
lists of parts and of partitions. Stored once more: the vectors, 4·d bytes a document.
"""

import json
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from longctx.engine.barrier import BarrierContext
from longctx.engine.corpus import parquet_groups
from longctx.engine.op import Setting
from longctx.engine.rows import PART, from_binary
from longctx.engine.steps import BUCKET, Prepare, Stats, StepRef, read_table
from longctx.engine.units import Sink
from longctx.order.stages_division import PARTITION, POINTS, divide, grouping_of
from longctx.order.stages_seats import seat
from longctx.order.stages_semantic import SemanticOrder

_MOVED_ROWS = 65_536
_ABOUT = ".about.parquet"


def arrange_partitions(op: SemanticOrder, context: BarrierContext) -> tuple[StepRef, Prepare]:
    """Steps that arrange all documents; the rows of every partition, and how they go home.

    The step `tours` holds the place of each partition, and the figures of the whole order.
    """
    limit = min(op.one_place_up_to, op.partition_documents)
    partitions, points = divide(context, limit, set(type(op).model_fields) - {"op"})
    placed = context.exchange(
        "placed",
        [(points, _to_partition)],
        None,
        POINTS,
        buckets=max(1, context.step_stats["partitions"]["count"]),
        work=_Arrange(op, context.setting, context.relative("placed")),
        ignore=op.limits,
    )
    join = partial(_join, op, partitions, placed)
    tours = context.single("tours", join, [partitions, placed], ignore=op.limits)
    return placed, partial(_home, tours)


def _to_partition(table: pa.Table, setting: Setting) -> pa.Table:
    return table.append_column(BUCKET, table.column(PARTITION))


@dataclass(frozen=True)
class _Arrange:
    """Work of the exchange's solve side: all documents of a partition, in the order of the op."""

    op: SemanticOrder
    setting: Setting
    folder: str

    def __call__(self, payload: tuple[str, pa.Table | None], sink: Sink) -> dict[str, Any]:
        from longctx.cluster.lists import search_all

        name, rows = payload
        table, X = _numbered(POINTS.empty_table() if rows is None else rows)
        del rows, payload
        keys = table.column("doc_key").to_numpy()[table.column("has_vector").to_numpy()]
        found = search_all(X, keys, self.setting.seed, self.op.k_search, self.op.exact_up_to)
        seated = seat(self.op, table, X, found, [], self.setting)
        partition = table.column(PARTITION)
        placed = seated.table.append_column(PARTITION, partition)
        best = seated.top1[np.isfinite(seated.top1)]
        figures = {**seated.figures, "top1": [float(best.sum(dtype=np.float64)), len(best)]}
        about = pa.table(
            {
                "figures": [json.dumps(figures)],
                "ends": pa.array([seated.ends.tobytes()], pa.large_binary()),
                "placed": [table.num_rows],
            }
        )
        sink.write(f"{self.folder}/{name}.parquet", parquet_groups([placed]), placed.num_rows)
        # Not rows of the table: what reads those passes over a file of none.
        sink.write(f"{self.folder}/{name}{_ABOUT}", parquet_groups([about]), 0)
        return {"stats": {}}


def _numbered(rows: pa.Table) -> tuple[pa.Table, np.ndarray]:
    """The documents of a partition by ascending doc_id, and the vectors of those that have one."""
    order = pc.sort_indices(rows.column("doc_id"))
    vector = rows.column("vector").combine_chunks()
    usable = vector.is_valid().take(order)
    table = rows.drop_columns(["vector"]).take(order).combine_chunks()
    table = table.append_column("has_vector", usable)
    count = usable.true_count
    if not count:
        return table, np.zeros((0, 1), dtype=np.float32)
    X = np.empty(
        (count, len(vector[pc.index(vector.is_valid(), True).as_py()].as_py()) // 4),
        dtype=np.float32,
    )
    at = 0
    for first in range(0, len(order), _MOVED_ROWS):
        block = vector.take(order.slice(first, _MOVED_ROWS)).drop_null()
        fixed = pa.chunked_array([block.cast(pa.binary(4 * X.shape[1]))])
        X[at : at + len(block)] = from_binary(fixed, np.float32)
        at += len(block)
    return table, X


def _join(
    op: SemanticOrder, partitions: StepRef, placed: StepRef, setting: Setting
) -> dict[str, Any]:
    """The place of every partition, and the figures of the whole order."""
    from longctx.order import tours
    from longctx.order.partitions import join_partitions, merged_figures

    _, known = grouping_of(partitions)
    told = [
        read_table(placed.run_dir, ref).to_pylist()[0]
        for ref in placed.files
        if ref.name.endswith(_ABOUT)
    ]
    figures = [json.loads(row["figures"]) for row in told]
    # Partitions in which no document has a place of its own have no ends.
    full = [i for i, row in enumerate(told) if row["ends"]]
    ends = [np.frombuffer(told[i]["ends"], np.float32).reshape(2, -1) for i in full]
    both = np.stack(ends) if ends else np.zeros((0, 2, 1), np.float32)
    joints = join_partitions(both[:, 0].copy(), both[:, 1].copy(), op.may_turn)
    turned, sims = np.zeros(len(told), bool), np.full(len(told), np.nan, np.float32)
    turned[full], sims[full] = joints.turned, joints.sim
    merged = merged_figures(figures, joints.sim, tours.BINS)
    best, of = np.sum([f["top1"] for f in figures], axis=0)
    dup_cos = op.dup_cos if op.dup_action == "drop" else None
    lonely, n = known["without_vector"], sum(row["placed"] for row in told)
    mean = np.array([[best / of]] if of else np.zeros((0, 1)), dtype=np.float32)
    stats = {
        **merged,
        **{name: known[name] for name in ("adjacency_random", "histogram_random")},
        "partitions": known["count"],
        "seam": float(np.nanmean(joints.sim)) if np.isfinite(joints.sim).any() else None,
        "warnings": {
            **tours.warnings(mean, dup_cos, lonely, n),
            f"The order was arranged in {known['count']:,} partitions of at most about "
            f"{known['most_documents']:,} documents: near-duplicates in two partitions were not "
            "seen, and the bound is that on links inside partitions.": 1,
        },
    }
    if op.one_tour:
        stats["tours"] = min(1, stats["documents"])
    table = _places(op, told, figures, turned, sims)
    return {"tours.parquet": Stats.attach(table, stats)}


def _places(
    op: SemanticOrder,
    told: list[dict[str, Any]],
    figures: list[dict[str, Any]],
    turned: np.ndarray,
    sims: np.ndarray,
) -> pa.Table:
    """One row for each partition, as `Place` has them; partitions without vectors come last."""
    lonely = [
        f["documents"] == 0 and bool(row["placed"]) for f, row in zip(figures, told, strict=True)
    ]
    held = [f["tours"] for f in figures]
    if op.one_tour:  # all of them but those without vectors are tour 0
        after = np.cumsum(lonely) - (0 if any(held) else 1)
        before = np.cumsum([0, *(f["documents"] for f in figures)])[:-1]
        number = [int(t) if alone else 0 for t, alone in zip(after, lonely, strict=True)]
        rank = [None if alone else int(r) for r, alone in zip(before, lonely, strict=True)]
        last = max(number, default=0)
    else:
        sizes = [tours + alone for tours, alone in zip(held, lonely, strict=True)]
        starts = np.cumsum([0, *sizes])
        number, rank, last = starts[:-1].tolist(), [None] * len(told), int(starts[-1])
    return pa.table(
        {
            "tour": pa.array(number, pa.int64()),
            "rank": pa.array(rank, pa.int64()),
            "turned": pa.array(turned),
            "sim": pa.array(sims, pa.float32(), mask=np.isnan(sims)),
            "width": pa.array([max(8, len(str(last)))] * len(told), pa.int64()),
        }
    )


def _home(tours: StepRef, table: pa.Table, setting: Setting) -> pa.Table:
    """The rows of a partition under their final tour and rank, on their way to their parts."""
    from longctx.order.partitions import Place, in_place

    places = tours.read()
    place = places.slice(table.column(PARTITION)[0].as_py(), 1).to_pylist()[0]
    moved = in_place(table.drop_columns([PARTITION]), Place(**place))
    bucket = moved.column(PART)
    return moved.drop_columns([PART]).append_column(BUCKET, bucket)
