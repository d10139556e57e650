"""Documents that share a band with another one, as steps of a barrier.

Keys of bands meet first, 20 bytes each; a signature stays in its part until one of its bands is
known to be shared. Where near-duplicates are few, an exchange of bands x 20 bytes a document takes
the place of one of bands x (16 + 4 x num_perm): at 10^9 documents 0.3 TB instead of 6.5 TB.
"""

from collections.abc import Iterable
from functools import partial
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from longctx.engine.barrier import BarrierContext
from longctx.engine.op import Setting
from longctx.engine.rows import PART, from_binary
from longctx.engine.steps import BUCKET, StepRef, bucket_of, read_table

_BANDED = pa.schema([("band_key", pa.uint64()), ("doc_key", pa.uint64()), (PART, pa.int32())])


class Banding(NamedTuple):
    """How signatures are cut, and whether only documents of one source may meet."""

    bands: int
    rows: int
    by_source: bool


def find_candidates(
    context: BarrierContext, signed: StepRef, banding: Banding, ignore: Iterable[str]
) -> StepRef:
    """Step `candidates`: the rows of `signed` that share a band, with `band_keys`, the shared ones.

    `signed` is a step over parts with the columns `doc_key`, `part`, `source` and `sig`; `ignore`
    names the op's fields that cannot change who shares a band.
    """
    ignore = tuple(ignore)
    buckets = context.buckets_for([signed])
    shared = context.exchange(
        "bands",
        [(signed, partial(_bands, banding, buckets))],
        _shared,
        _BANDED,
        buckets=buckets,
        ignore=ignore,
    )
    return context.exchange(
        "candidates",
        [(shared, _by_part)],
        partial(_fetch, signed),
        _BANDED,
        buckets=len(signed.units),
        ignore=ignore,
        depends=[signed.digest],
    )


def by_band(buckets: int, table: pa.Table, setting: Setting) -> pa.Table:
    """Candidates as rows (band key, document, signature) of their shared bands, with a bucket."""
    bands = table.column("band_keys").combine_chunks()
    flat = bands.flatten().to_numpy()
    rows = table.select(["doc_key", "sig"]).take(bands.value_parent_indices())
    found = pa.table({"band_key": flat, **{n: rows.column(n) for n in rows.column_names}})
    return found.append_column(BUCKET, bucket_of(flat, buckets))


def matrix(table: pa.Table) -> npt.NDArray[np.uint32]:
    """The signatures of a table, uint32 (n, num_perm)."""
    column = table.column("sig")
    if table.num_rows == 0:
        return np.zeros((0, 1), dtype=np.uint32)
    width = len(column[0].as_py())
    return from_binary(
        pa.chunked_array([column.combine_chunks().cast(pa.binary(width))]), np.uint32
    )


def _bands(banding: Banding, buckets: int, table: pa.Table, setting: Setting) -> pa.Table:
    """Rows of _BANDED for all bands, with their bucket."""
    from longctx.dedup.minhash import band_keys

    sig, (bands, rows, by_source) = matrix(table), banding
    if by_source:
        keys = np.zeros((table.num_rows, bands), dtype=np.uint64)
        sources = np.array(table.column("source").to_pylist(), dtype=object)
        for source in sorted(set(sources)):
            own = np.flatnonzero(sources == source)
            keys[own] = band_keys(sig[own], bands, rows, source)
    else:
        keys = band_keys(sig, bands, rows)
    flat = keys.reshape(-1)
    columns = [flat, *(np.repeat(table.column(n).to_numpy(), bands) for n in ("doc_key", PART))]
    banded = pa.table([pa.array(c) for c in columns], schema=_BANDED)
    return banded.append_column(BUCKET, bucket_of(flat, buckets))


def _shared(table: pa.Table, setting: Setting) -> pa.Table:
    """The rows whose band key stands in more than one of them."""
    _, group, sizes = np.unique(
        table.column("band_key").to_numpy(), return_inverse=True, return_counts=True
    )
    return table.select(_BANDED.names).filter(pa.array(sizes[group] > 1))


def _by_part(table: pa.Table, setting: Setting) -> pa.Table:
    return table.append_column(BUCKET, table.column(PART))


def _fetch(signed: StepRef, table: pa.Table, setting: Setting) -> pa.Table:
    """The documents of one part that `table` names, in ascending order of their keys."""
    if table.num_rows == 0:
        return table
    (file,) = signed.units[table.column(PART)[0].as_py()][1]
    whole = read_table(signed.run_dir, file)
    table = table.sort_by([("doc_key", "ascending"), ("band_key", "ascending")])
    wanted, starts = np.unique(table.column("doc_key").to_numpy(), return_index=True)
    keys = whole.column("doc_key").to_numpy()
    order = np.argsort(keys)
    rows = whole.take(pa.array(order[np.searchsorted(keys[order], wanted)]))
    offsets = pa.array([*starts, table.num_rows], pa.int32())
    bands = table.column("band_key").combine_chunks()
    return rows.append_column("band_keys", pa.ListArray.from_arrays(offsets, bands))
