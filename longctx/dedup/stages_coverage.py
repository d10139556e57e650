"""Who covers whom, as steps of a barrier over the samples of chunks.

Samples stay in their part. What travels is (shingle, document), 16 bytes each, to whoever else
holds the shingle, and back come those documents; a chunk is then judged beside the samples of its
part, so no chunk moves. A document goes by part and row until it is found to cover something; only
then its part is asked for its id and its length.
"""

from collections.abc import Iterable
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from longctx.dedup.chunking import Grid
from longctx.dedup.stages_samples import held, of_part, packed, unpacked
from longctx.engine.barrier import BarrierContext
from longctx.engine.corpus import ROW
from longctx.engine.op import Setting
from longctx.engine.rows import PART
from longctx.engine.steps import BUCKET, Stats, StepRef, bucket_of

_HELD = pa.schema([("shingle", pa.uint64()), ("document", pa.int64())])
_MET = pa.schema([("shingle", pa.uint64()), (PART, pa.int32()), ("documents", pa.large_binary())])
# Of a document one row for each other one that covers some of it, and one without `other`: what
# any of them covers, and what is common.
_COVERED = pa.schema(
    [
        (PART, pa.int32()),
        (ROW, pa.int32()),
        ("doc_id", pa.string()),
        ("n_words", pa.int64()),
        ("other", pa.int64()),
        ("words", pa.int64()),
        ("n_chunks", pa.int64()),
        ("common_words", pa.int64()),
    ]
)


def find_coverage(
    context: BarrierContext, samples: StepRef, max_df: int, grid: Grid, ignore: Iterable[str]
) -> tuple[StepRef, StepRef]:
    """Steps `covered` and `pairs`: what others cover of each document, and the pair table.

    `samples` is the step of `sample_part` over all parts; `ignore` names the op's fields that
    cannot change who covers whom. In `covered` the rows without `other` count what any covers.
    """
    ignore = tuple(ignore)
    buckets, parts = context.buckets_for([samples]), len(samples.units)
    shared = context.exchange(
        "shared",
        [(samples, partial(_by_shingle, max_df, buckets))],
        partial(_meet, max_df),
        _HELD,
        buckets=buckets,
        ignore=(*ignore, "tau", "min_samples"),
    )
    covered = context.exchange(
        "covered",
        [(shared, _by_part)],
        partial(_cover, samples, grid),
        _MET,
        buckets=parts,
        # Rows of a shingle differ in the part alone, so files are compressed more than others.
        copies=3,
        ignore=ignore,
        depends=[samples.digest],
    )
    pairs = context.exchange(
        "pairs",
        [(covered, _by_other)],
        partial(_name, samples),
        _COVERED,
        buckets=parts,
        ignore=ignore,
        depends=[samples.digest],
    )
    return covered, pairs


def filled(schema: pa.Schema, table: pa.Table, **columns: Any) -> pa.Table:
    """Rows of a schema from a table and more columns; what neither has is null."""
    known = {n: table.column(n) for n in table.column_names} | columns
    arrays = [known.get(f.name, pa.nulls(table.num_rows, f.type)) for f in schema]
    return pa.table(arrays, schema=schema)


def _by_shingle(max_df: int, buckets: int, table: pa.Table, setting: Setting) -> pa.Table:
    """Who holds which sample, with the bucket of the shingle."""
    from longctx.dedup.containment import address, distinct_samples

    hashes, counts = unpacked(table.column("hashes"), np.uint64)
    own = address(table.column(PART).to_numpy(), table.column(ROW).to_numpy())
    # One more than max_df says that a shingle is common: the rest of the part need not travel.
    shingle, document = distinct_samples(hashes, np.repeat(own, counts), max_df + 1)
    rows = pa.table([shingle, document], schema=_HELD)
    return rows.append_column(BUCKET, bucket_of(shingle, buckets))


def _meet(max_df: int, table: pa.Table, setting: Setting) -> pa.Table:
    """Documents that share a shingle, told to every part that has one of them."""
    from longctx.dedup.containment import meetings

    met = meetings(table.column("shingle").to_numpy(), table.column("document").to_numpy(), max_df)
    rows = pa.table([met.shingles, met.parts, packed(met.documents, met.counts)], schema=_MET)
    common = len(np.unique(met.shingles[met.counts == 0]))
    shared = len(np.unique(met.shingles)) - common
    return Stats.attach(rows, {"shared_samples": shared, "common_samples": common})


def _by_part(table: pa.Table, setting: Setting) -> pa.Table:
    return table.append_column(BUCKET, table.column(PART))


def _cover(samples: StepRef, grid: Grid, table: pa.Table, setting: Setting) -> pa.Table:
    """What others cover of the documents of one part."""
    from longctx.dedup.containment import Meetings, address, coverage

    if table.num_rows == 0:
        return _COVERED.empty_table()
    part = table.column(PART)[0].as_py()
    own = of_part(samples, part)
    documents, counts = unpacked(table.column("documents"), np.int64)
    met = Meetings(
        table.column("shingle").to_numpy(), table.column(PART).to_numpy(), counts, documents
    )
    found = coverage(held(own), address(part, own.column(ROW).to_numpy()), met, grid)
    rows = own.select([PART, ROW, "doc_id", "n_words"])
    pairs = filled(
        _COVERED,
        rows.take(pa.array(found.document)),
        other=found.other,
        words=found.words,
        n_chunks=found.chunks,
    )
    touched = np.flatnonzero(found.any_words + found.common_words)
    totals = filled(
        _COVERED,
        rows.take(pa.array(touched)),
        words=found.any_words[touched],
        common_words=found.common_words[touched],
    )
    return pa.concat_tables([pairs, totals])


def _by_other(table: pa.Table, setting: Setting) -> pa.Table:
    """Pairs, with the part of the other document as bucket."""
    from longctx.dedup.containment import part_of

    pairs = table.filter(table.column("other").is_valid())
    return pairs.append_column(BUCKET, pa.array(part_of(pairs.column("other").to_numpy())))


def _name(samples: StepRef, table: pa.Table, setting: Setting) -> pa.Table:
    """Pairs whose others are documents of one part, with the ids of these."""
    from longctx.dedup.containment import part_of, row_of

    named = table
    if table.num_rows:
        other = table.column("other").to_numpy()
        known = of_part(samples, int(part_of(other)[0]), [ROW, "doc_id", "n_words"])
        places = np.searchsorted(known.column(ROW).to_numpy(), row_of(other))
        named = known.take(pa.array(places))
    longer = pc.greater(named.column("n_words"), table.column("n_words"))
    equal = pc.equal(named.column("n_words"), table.column("n_words"))
    smaller = pc.less(named.column("doc_id"), table.column("doc_id"))
    share = pc.divide(table.column("words").cast(pa.float64()), table.column("n_words"))
    pairs = pa.table(
        {
            "doc_id": table.column("doc_id"),
            "other_id": named.column("doc_id"),
            "cov_share": share,
            "n_chunks": table.column("n_chunks"),
            "words": table.column("words"),
            "precedes": pc.or_(longer, pc.and_(equal, smaller)),
            PART: table.column(PART),
            ROW: table.column(ROW),
        }
    ).sort_by([(PART, "ascending"), (ROW, "ascending"), ("other_id", "ascending")])
    return Stats.attach(pairs, {"pairs": pairs.num_rows})
