"""The plan of `pack` for more documents than one process holds: block by block of the order.

A sample of the places (tour and rank) says where the order is cut into blocks of about
`one_place_up_to` documents at most; every part sends what is known of its documents and spans to
their blocks; each block is planned as a whole order would be (`stages_plan.py`); and the placements
go to the parts whose tokens they name. Windows are numbered block by block, and shuffled by sorting
every shard by the windows' hashes, so no process sees all of them.

What one process holds: a block, 450 bytes a document while it is planned, and 12·d where documents
of d dimensions are compared; one part elsewhere; the sample, 1,024 places a block. Costs against
one plan over all: at the end of each block one window of every length may be filled in part,
`drop_last` drops one of each block, the look-ahead is chosen for each block, shares of `lengths`
are reached in each to within a stretch, and shards hold about equally many windows instead of
exactly.
"""

from collections import Counter
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from longctx.engine.barrier import BarrierContext
from longctx.engine.corpus import ROW, Part
from longctx.engine.op import Setting
from longctx.engine.rows import PART, addressed, as_binary, from_binary, vectors
from longctx.engine.sampling import bound_of, bound_step, numbers_of
from longctx.engine.steps import BUCKET, Stats, StepRef, read_table
from longctx.ids import priorities
from longctx.pack.stages_passes import planned
from longctx.pack.stages_plan import (
    Frame,
    account,
    add_shares,
    in_part_order,
    shards,
    warnings,
)
from longctx.pack.stages_spans import PASS, cut_spans
from longctx.pack.stream import COPIES, MIXTURE, Stream

if TYPE_CHECKING:
    from longctx.pack.stages import Pack

_SAMPLED = 1024  # places for each block
# Fields that decide what is known of a row: its frame, and whether rows are compared.
_STREAMED = {"bos", "prefix", "strategy", "rule", "look_ahead"}
_PLACES = pa.schema([("tour_id", pa.string()), ("rank", pa.int64())])
_STREAM = pa.schema(
    [
        ("block", pa.int32()),
        (PART, pa.int32()),
        (ROW, pa.int32()),
        ("doc_id", pa.string()),
        ("doc_key", pa.uint64()),
        ("tour_id", pa.string()),
        ("rank", pa.int64()),
        ("origin", pa.int64()),
        ("size", pa.int64()),
        ("is_span", pa.bool_()),
        ("ends", pa.list_(pa.int64())),
        ("vector", pa.large_binary()),
    ]
)
_PLACED = pa.schema(
    [
        (ROW, pa.int32()),
        ("target", pa.int32()),
        ("window", pa.int64()),
        ("seq", pa.int32()),
        ("tour_id", pa.string()),
        ("origin", pa.int64()),
        ("start", pa.int64()),
        ("end", pa.int64()),
        ("length", pa.int64()),
        ("key", pa.uint64()),
    ]
)


def plan_blocks(
    op: "Pack", context: BarrierContext, frame: Frame, columns: list[str], cuts: list[StepRef]
) -> StepRef:
    """The step `plan`: placements for each part, as `make_plan` makes them, and a `key`.

    `columns` are what to read of every part; `cuts` is empty or the step of sentence ends.
    """
    where = ["doc_id", *(c for c in columns if c in ("tour_id", "rank", "n_tokens", "spans"))]
    mixture = [c for c in MIXTURE if c in columns]
    ignore = op.own_fields()
    blocks = -(-context.rows // op.one_place_up_to)
    size = bound_step(context, _SAMPLED * blocks, blocks, ignore=ignore)
    rule = partial(_places, size, where)
    places = context.per_part("places", rule, where, inputs=[size], ignore=ignore)
    rule = partial(_borders, size, places)
    borders = context.single("borders", rule, [size, places], ignore=ignore)
    stream = context.per_part(
        "stream",
        partial(_stream, len(frame[0]), [*where, *mixture], "embedding" in columns, cuts, borders),
        [*where, *mixture, *(["embedding"] if "embedding" in columns else [])],
        inputs=[borders, *cuts],
        ignore=ignore - _STREAMED,
    )
    packed = context.exchange(
        "blocks",
        [(stream, _to_block)],
        partial(_plan_block, op, frame),
        _with_mixture(_STREAM, mixture),
        buckets=blocks,
    )
    held = context.step_stats["blocks"].get("windows", {})
    return context.exchange(
        "plan",
        [(packed, partial(_to_part, held, blocks))],
        _of_part,
        _PLACED.append(PASS) if COPIES in mixture else _PLACED,
        buckets=max(1, len(context.corpus)),
    )


def _with_mixture(schema: pa.Schema, names: list[str]) -> pa.Schema:
    """The schema of the stream with the columns of a mixture that there are."""
    return pa.schema([*schema, *(pa.field(n, pa.int32()) for n in names)])


def cut_and_count(frame: Frame, plan: StepRef, part: Part, setting: Setting) -> pa.Table:
    """`cut_spans` of a part, with the account of its documents."""
    copies = [c for c in (COPIES,) if c in part.columns()]
    documents = part.table(["source", "license", "n_tokens", *copies])
    placed = read_table(plan.run_dir, plan.files[part.index], [ROW])
    inside = np.isin(documents.column(ROW).to_numpy(), placed.column(ROW).to_numpy())
    return Stats.attach(cut_spans(frame, plan, part, setting), account(documents, inside))


def plan_stats(op: "Pack", context: BarrierContext) -> dict[str, Any]:
    """What the step `plan` says of itself where it is made in one place, from the blocks."""
    from longctx.pack import audit

    told, counted = context.step_stats["blocks"], context.step_stats["spans"]
    targets = {}
    for length in map(str, op.windows):
        windows = sum(told["windows"][length].values())
        targets[length] = {
            **told["sums"][length],
            **shards(op, int(length), windows),
            "choice": _choice(told["chosen"].get(length, {})),
        }
    add_shares(op, targets)
    total = audit.merge(told["sums"].values())
    audit.assert_conserved(total)
    return {
        **total,
        **counted,
        "span_rows": told["span_rows"],
        "targets": targets,
        "warnings": dict.fromkeys(told["remarks"], 1),
        "blocks": told["blocks"],
    }


def _choice(chosen: dict[str, int]) -> dict[str, Any] | None:
    """The rule and look-ahead that most blocks took, and how many took which."""
    if not chosen:
        return None
    ranked = sorted(Counter(chosen).items(), key=lambda item: (-item[1], item[0]))
    rule, look = ranked[0][0].split(", ")
    return {"rule": rule, "look_ahead": int(look), "blocks": dict(ranked)}


def _rows(part: Part, columns: list[str], setting: Setting) -> tuple[pa.Table, pa.Table]:
    """The documents of a part with their addresses, and its rows of the stream."""
    from longctx.pack.rows import stream_rows

    table = part.table(columns)
    documents = addressed(part, table)
    for name in columns[1:]:
        documents = documents.append_column(name, table.column(name))
    documents = documents.combine_chunks()
    return documents, stream_rows(documents, setting.stage)


def _places(size: StepRef, columns: list[str], part: Part, setting: Setting) -> pa.Table:
    """Where the documents of the sample that lie in this part stand, and their spans."""
    _, rows = _rows(part, columns, setting)
    drawn = priorities(rows.column("doc_key").to_numpy(), setting.seed) <= bound_of(size)
    return rows.filter(pa.array(drawn)).select(_PLACES.names).cast(_PLACES)


def _borders(size: StepRef, places: StepRef, setting: Setting) -> dict[str, Any]:
    from longctx.pack.blocks import choose_borders

    *_, blocks = numbers_of(size)
    sample = places.read()
    tour, rank = sample.column("tour_id").to_pylist(), sample.column("rank").to_numpy()
    found = choose_borders(tour, rank, blocks)
    table = pa.table({"tour_id": found.tour, "rank": found.rank}, schema=_PLACES)
    return {"borders.parquet": table}


def _stream(
    prefix: int,
    columns: list[str],
    compares: bool,
    cuts: list[StepRef],
    borders: StepRef,
    part: Part,
    setting: Setting,
) -> pa.Table:
    """Rows of the stream of a part, each with its block."""
    from longctx.pack.blocks import Borders, block_of
    from longctx.pack.rows import sentence_ends

    documents, rows = _rows(part, columns, setting)
    cut = borders.read()
    known = Borders(cut.column("tour_id").to_pylist(), cut.column("rank").to_numpy())
    at = rows.column("document")
    block = block_of(rows.column("tour_id"), rows.column("rank").to_numpy(), known)
    ends = pa.nulls(len(rows), pa.list_(pa.int64()))
    if cuts:
        told = read_table(cuts[0].run_dir, cuts[0].files[part.index])
        place = np.searchsorted(documents.column(ROW).to_numpy(), told.column(ROW).to_numpy())
        found = sentence_ends(rows, told.append_column("document", pa.array(place)), prefix)
        ends = pa.LargeListArray.from_arrays(found.offsets, found.values).cast(ends.type)
    vector = pa.nulls(len(rows), pa.large_binary())
    if compares:
        matrix = vectors(part.table(["embedding"]).column("embedding"))
        vector = as_binary(matrix[at.to_numpy()]).cast(pa.large_binary())
    schema = _with_mixture(_STREAM, [c for c in MIXTURE if c in columns])
    return (
        pa.table(
            {
                "block": block,
                **{name: documents.column(name).take(at) for name in (PART, ROW, "doc_id")},
                **{name: rows.column(name) for name in schema.names if name in rows.column_names},
                "ends": ends,
                "vector": vector,
            }
        )
        .select(schema.names)
        .cast(schema)
    )


def _to_block(table: pa.Table, setting: Setting) -> pa.Table:
    return table.append_column(BUCKET, table.column("block"))


def _plan_block(op: "Pack", frame: Frame, table: pa.Table, setting: Setting) -> pa.Table:
    """Placements of all rows of a block, and its counters."""
    from longctx.pack import audit

    prefix, separator = (len(ids) for ids in frame)
    documents = table.combine_chunks()
    stream = _ordered(documents, prefix, separator, setting)
    where = setting.stage
    packed = planned(op, stream, documents, separator, setting.seed, where, block=True)
    placed = pa.concat_tables([p.table for p in packed.values()]).drop_columns(["document"])
    if "key" not in placed.column_names:
        placed = placed.append_column("key", pa.nulls(len(placed), pa.uint64()))
    number = table.column("block")[0].as_py() if len(table) else 0
    placed = placed.append_column("block", pa.array(np.full(len(placed), number, np.int32)))
    by_length = {str(length): p for length, p in packed.items()}
    chosen = {n: p.choice for n, p in by_length.items() if p.choice is not None and p.windows}
    audit.assert_conserved(audit.merge(p.sums for p in packed.values()))
    stats = {
        "blocks": 1,
        "windows": {n: {str(number): p.windows} for n, p in by_length.items()},
        "sums": {n: p.sums for n, p in by_length.items()},
        "chosen": {n: {f"{c['rule']}, {c['look_ahead']}": 1} for n, c in chosen.items()},
        "span_rows": int(pc.sum(documents.column("is_span")).as_py() or 0),
        "remarks": warnings(op, stream.vectors is not None),
    }
    return Stats.attach(placed, stats)


def _ordered(documents: pa.Table, prefix: int, separator: int, setting: Setting) -> Stream:
    """The stream of a block from its rows in any order."""
    from longctx.pack.frame import SentenceEnds, framed_lengths
    from longctx.pack.mixed import cut_pieces
    from longctx.pack.rows import in_tour_order, tour_numbers
    from longctx.pack.windows import list_values

    mixture = [c for c in MIXTURE if c in documents.column_names]
    known = ["doc_key", "tour_id", "rank", "origin", "size", "is_span", *mixture]
    rows = documents.select(known)
    rows = rows.append_column("document", pa.array(np.arange(len(rows))))
    rows = in_tour_order(documents, rows, setting.stage)
    at = rows.column("document").to_numpy()
    ends = matrix = None
    if documents.column("ends").null_count < len(rows):
        values, offsets = list_values(documents.column("ends"))
        ends = SentenceEnds(offsets, values.astype(np.int64)).take(at)
    vector = documents.column("vector")
    if vector.null_count < len(rows):
        width = len(vector[0].as_py())
        matrix = from_binary(vector.cast(pa.binary(width)), np.float32)[at]
    lengths = framed_lengths(rows.column("size").to_numpy(), prefix, separator)
    stream = Stream(rows, lengths, tour_numbers(rows), ends, matrix)
    return cut_pieces(stream, prefix, separator)


def _to_part(
    held: dict[str, dict[str, int]], blocks: int, table: pa.Table, setting: Setting
) -> pa.Table:
    """Placements of a block on their way to their parts; windows are numbered over all blocks."""
    from longctx.pack.blocks import window_starts

    block = table.column("block")[0].as_py()
    target, window = (table.column(n).to_numpy() for n in ("target", "window"))
    first = np.zeros(len(window), dtype=np.int64)
    for length, counts in held.items():
        starts = window_starts({int(b): n for b, n in counts.items()}, blocks)
        first[target == int(length)] = starts[block]
    table = table.set_column(table.column_names.index("window"), "window", pa.array(window + first))
    bucket = table.column(PART)
    return table.drop_columns([PART, "block"]).append_column(BUCKET, bucket)


def _of_part(table: pa.Table, setting: Setting) -> pa.Table:
    known = [n for n in (*_PLACED.names, PASS.name) if n in table.column_names]
    return in_part_order(table.select(known))
