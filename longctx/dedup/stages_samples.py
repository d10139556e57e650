"""The samples of chunks as a step over parts: one row a document, lists of numbers as bytes."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from longctx.dedup.chunking import Sampling
from longctx.dedup.stages_profiles import Profile, by_profile
from longctx.engine.corpus import ROW, Part
from longctx.engine.op import Setting
from longctx.engine.rows import PART
from longctx.engine.steps import Stats, StepRef, read_table

if TYPE_CHECKING:
    from longctx.dedup.chunk_samples import Samples

I64 = npt.NDArray[np.int64]


def sample_part(
    sampling: Sampling,
    profile: Profile,
    profiles: Mapping[str, Profile],
    part: Part,
    setting: Setting,
) -> pa.Table:
    """Samples of every living document of a part, with its address, `doc_id` and `n_words`."""
    from longctx.dedup.chunk_samples import chunk_samples, chunks_of, in_places, run_sums

    found, n_samples = [], 0
    for table in part.groups(["doc_id", "text", "source"]):
        alike = by_profile(table, profile, profiles)
        held = in_places(
            ((rows, chunk_samples(texts, sampling, named)) for named, rows, texts in alike),
            sampling,
        )
        chunks = chunks_of(held.words, sampling.chunk, sampling.min_last)
        columns = {
            PART: pa.array(np.full(table.num_rows, part.index, dtype=np.int32)),
            ROW: table.column(ROW),
            "doc_id": table.column("doc_id"),
            "n_words": held.words,
            "sizes": packed(held.sizes.astype(np.int32), chunks),
            "hashes": packed(held.hashes, run_sums(held.sizes, chunks)),
        }
        found.append(pa.table(columns))
        n_samples += held.hashes.size
    return Stats.attach(pa.concat_tables(found), {"samples": n_samples})


def held(table: pa.Table) -> "Samples":
    """The samples of the documents of a file of the step, or of some of its rows."""
    from longctx.dedup.chunk_samples import Samples

    sizes, _ = unpacked(table.column("sizes"), np.int32)
    hashes, _ = unpacked(table.column("hashes"), np.uint64)
    # Copies: compiled functions would be compiled again for arrays that cannot be written.
    return Samples(np.array(table.column("n_words")), sizes.astype(np.int64), hashes.copy())


def of_part(samples: StepRef, part: int, columns: list[str] | None = None) -> pa.Table:
    """What the step holds of a part, in ascending order of rows."""
    (file,) = samples.units[part][1]
    return read_table(samples.run_dir, file, columns)


def packed(values: npt.NDArray[Any], counts: I64) -> pa.Array:
    """Runs of numbers as one large binary each, of which run i has counts[i] numbers."""
    offsets = np.concatenate([[0], np.cumsum(counts * values.itemsize)])
    buffers = [None, pa.py_buffer(offsets), pa.py_buffer(np.ascontiguousarray(values))]
    return pa.Array.from_buffers(pa.large_binary(), len(counts), buffers)


def unpacked(column: pa.ChunkedArray, dtype: type) -> tuple[npt.NDArray[Any], I64]:
    """Inverse of `packed`: all numbers one after another, and how many each run has."""
    array = column.combine_chunks()
    if not len(array):
        return np.empty(0, dtype=dtype), np.empty(0, dtype=np.int64)
    offsets = np.frombuffer(array.buffers()[1], dtype=np.int64)
    offsets = offsets[array.offset : array.offset + len(array) + 1]
    data = np.frombuffer(array.buffers()[2] or b"", dtype=np.uint8)
    counts = np.diff(offsets) // np.dtype(dtype).itemsize
    return data[offsets[0] : offsets[-1]].view(dtype), counts
