"""The spans of `pack` on the engine: tokens cut per part, each on its way to its window."""

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from longctx.engine.corpus import ROW, Part
from longctx.engine.op import Setting
from longctx.engine.rows import as_binary, vectors
from longctx.engine.steps import BUCKET, StepRef, bucket_of, read_table

I64 = npt.NDArray[np.int64]
SPANS = pa.schema(
    [
        ("target", pa.int32()),
        ("window", pa.int64()),
        ("seq", pa.int32()),
        ("doc_id", pa.string()),
        ("source", pa.string()),
        ("license", pa.string()),
        ("tour_id", pa.string()),
        ("origin", pa.int64()),
        ("start", pa.int64()),
        ("end", pa.int64()),
        ("length", pa.int64()),
        ("tokens", pa.large_binary()),
        ("vector", pa.large_binary()),
    ]
)
# The pass of a copy, where a mixture was in the recipe.
PASS = pa.field("pass", pa.int32())
# What windows are sorted by, where the plan was made in blocks and they are shuffled.
_OPTIONAL = (pa.field("key", pa.uint64()), PASS)


def cut_spans(
    frame: tuple[list[int], list[int]], plan: StepRef, part: Part, setting: Setting
) -> pa.Table:
    """Token spans of a part's documents, each with the window it goes to; `frame` in ids."""
    placed = read_table(plan.run_dir, plan.files[part.index])
    schema = pa.schema([*SPANS, *(f for f in _OPTIONAL if f.name in placed.column_names)])
    embedded = ["embedding"] if "embedding" in part.columns() else []
    rows = placed.column(ROW).to_numpy()
    found = [schema.empty_table()]
    for table in part.groups(["doc_id", "source", "license", "tokens", *embedded]):
        here = table.column(ROW).to_numpy()
        if not len(here):
            continue
        low, high = np.searchsorted(rows, [here[0], here[-1] + 1])
        own = placed.slice(low, high - low)
        at = np.searchsorted(here, own.column(ROW).to_numpy())
        taken = table.select(["doc_id", "source", "license"]).take(pa.array(at))
        vector = (
            as_binary(vectors(table.column("embedding"))[at]).cast(pa.large_binary())
            if embedded
            else pa.nulls(len(at), pa.large_binary())
        )
        columns = {n: own.column(n) for n in own.column_names if n in schema.names}
        columns |= {n: taken.column(n) for n in taken.column_names}
        columns |= {"tokens": _cut(table, own, at, *frame), "vector": vector}
        found.append(pa.table(columns).select(schema.names).cast(schema))
    return pa.concat_tables(found)


def _cut(
    table: pa.Table, own: pa.Table, at: I64, prefix: list[int], separator: list[int]
) -> pa.Array:
    """Bytes of the int32 ids of each span, and of the one after it where the document goes on."""
    from longctx.pack.spans import cut
    from longctx.pack.windows import list_values

    values, offsets = list_values(table.column("tokens"))
    starts, ends, lengths, origins = (
        own.column(name).to_numpy() for name in ("start", "end", "length", "origin")
    )
    sizes = lengths - len(prefix) - len(separator)
    stops = np.minimum(ends + 1, lengths)
    found, borders = cut(values, offsets[at] + origins, sizes, starts, stops, prefix, separator)
    buffers = [None, pa.py_buffer(4 * borders), pa.py_buffer(found)]
    return pa.Array.from_buffers(pa.large_binary(), len(at), buffers)


def to_shard(target: int, per_shard: int, table: pa.Table, setting: Setting) -> pa.Table:
    """The spans of one window length, each with its shard as the bucket."""
    table = table.filter(pc.equal(table.column("target"), target))
    shard = table.column("window").to_numpy() // per_shard
    return table.append_column(BUCKET, pa.array(shard, pa.int32()))


def to_shard_by_key(target: int, shards: int, table: pa.Table, setting: Setting) -> pa.Table:
    """The same where windows are sorted by `key`: each shard has an equal range of keys."""
    table = table.filter(pc.equal(table.column("target"), target))
    return table.append_column(BUCKET, bucket_of(table.column("key").to_numpy(), shards))
