"""`dedup.exact` on the engine: keys per part, one exchange by key, one back to the parts."""

from functools import partial
from typing import ClassVar, Literal

import numpy as np
import pyarrow as pa

from longctx.engine.barrier import BarrierContext
from longctx.engine.corpus import ROW, Part
from longctx.engine.op import DROP_REASON, Barrier, Setting
from longctx.engine.rows import ADDRESS, PART, addressed, to_part
from longctx.engine.steps import BUCKET, Stats, bucket_of

_KEYED = pa.schema([*ADDRESS, ("key", pa.string()), ("chars", pa.int64()), ("source", pa.string())])
_COPIES = pa.schema([(ROW, pa.int32()), ("ex_count", pa.int64()), ("ex_kept_id", pa.string())])


class DedupExact(Barrier):
    """Removes documents whose normalised text is identical; the smallest doc_id stays."""

    op: Literal["dedup.exact"]
    norm: Literal["exact", "raw", "dedup"] = "exact"
    scope: Literal["none", "source"] = "none"

    summary: ClassVar[str] = "remove documents with identical normalised text"
    source: ClassVar[str] = (
        "folklore; keys are BLAKE2b-128 of the NFC text with white space squeezed"
    )
    cost: ClassVar[str] = "one pass over the text, two exchanges of about 100 bytes a document"
    reads: ClassVar[tuple[str, ...]] = ("text",)
    writes: ClassVar[tuple[str, ...]] = ("ex_count", "ex_kept_id", DROP_REASON)
    removes: ClassVar[bool] = True

    def run(self, context: BarrierContext) -> None:
        keys = context.per_part("keys", partial(_keys, self.norm), ["text", "doc_id", "source"])
        buckets = context.buckets_for([keys])
        copies = context.exchange(
            "copies",
            [(keys, partial(_by_key, buckets))],
            partial(_copies, self.scope == "source"),
            _KEYED,
            buckets=buckets,
        )
        context.sidecar("", [(copies, to_part)], _mark, _COPIES, self.writes, removes=True)


def _keys(norm: Literal["exact", "raw", "dedup"], part: Part, setting: Setting) -> pa.Table:
    from longctx.dedup.exact import exact_key

    found = []
    for table in part.groups(["doc_id", "text", "source"]):
        pairs = [exact_key(t.as_py(), norm) for t in table.column("text")]
        rows = addressed(part, table)
        rows = rows.append_column("key", pa.array([k for k, _ in pairs], pa.string()))
        rows = rows.append_column("chars", pa.array([n for _, n in pairs], pa.int64()))
        found.append(rows.append_column("source", table.column("source")))
    return pa.concat_tables(found)


def _by_key(buckets: int, table: pa.Table, setting: Setting) -> pa.Table:
    heads = [int(k[:16], 16) for k in table.column("key").to_pylist()]
    return table.append_column(BUCKET, bucket_of(np.array(heads, dtype=np.uint64), buckets))


def _copies(by_source: bool, table: pa.Table, setting: Setting) -> pa.Table:
    """Rows that have copies, each with their number and the id that stays."""
    from longctx.dedup.exact import choose_exact

    table = table.sort_by("doc_key")
    ids = table.column("doc_id").to_pylist()
    count, kept = choose_exact(
        table.column("key").to_pylist(),
        ids,
        lengths=table.column("chars").to_pylist(),
        scopes=table.column("source").to_pylist() if by_source else None,
    )
    repeated = np.flatnonzero(count > 1)
    rows = table.take(pa.array(repeated))
    found = pa.table(
        {
            PART: rows.column(PART),
            ROW: rows.column(ROW),
            "ex_count": count[repeated],
            "ex_kept_id": pa.array([ids[k] for k in kept[repeated]], pa.string()),
        }
    )
    sizes = count[np.unique(kept[repeated])]
    return Stats.attach(found, {"groups": len(sizes), "empty": int((count == 0).sum())})


def _mark(base: pa.Table, brought: pa.Table, setting: Setting) -> pa.Table:
    places = np.searchsorted(base.column(ROW).to_numpy(), brought.column(ROW).to_numpy())
    ids = base.column("doc_id").to_pylist()
    count = np.ones(len(ids), dtype=np.int64)
    count[places] = brought.column("ex_count").to_numpy()
    kept = list(ids)
    for place, kept_id in zip(places, brought.column("ex_kept_id").to_pylist(), strict=True):
        kept[place] = kept_id
    reasons = ["exact" if k != i else None for k, i in zip(kept, ids, strict=True)]
    return pa.table(
        {
            "ex_count": count,
            "ex_kept_id": pa.array(kept, pa.string()),
            DROP_REASON: pa.array(reasons, pa.string()),
        }
    )
