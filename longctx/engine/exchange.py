"""Exchanges: rows of committed files to the bucket they belong to, by Ray Data's hash shuffle.

Ray's aggregators hold all rows of a shuffle in memory, so one shuffle may bring each worker only a
few buckets. What is larger goes in waves, for each of which the sources are read again: at 10^9
documents the keys of bands of `dedup.minhash` are 0.3 TB, whatever the cluster has. Small files are
read together, because a shuffle moves (reading tasks x partitions) pieces.
"""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np

from longctx.engine.commit import Commit, FileRef
from longctx.engine.op import Setting
from longctx.engine.steps import BUCKET, FilePrepare, Prepare, StepRef, Wanted, solver
from longctx.engine.units import AT_ONCE, RETRIES, Step, Unit, Work, collect

# Buckets that one shuffle may bring to each worker.
_BUCKETS_AT_ONCE = 4
# Tasks that read for each worker, and into how many of them the bytes of one bucket are cut.
_READS = 8

Sources = list[tuple[StepRef, Prepare]]


class Limits(NamedTuple):
    """What bounds a shuffle: parallel tasks, bytes of one bucket, rows that are made of one."""

    workers: int
    bucket_bytes: int
    copies: int = 1


def volume(sources: Iterable[StepRef]) -> int:
    """Bytes of the rows of some steps. Files are compressed about 1:2; rows in memory are not."""
    return 2 * sum(f.size for s in sources for f in s.files)


def waves(missing: dict[int, Unit], moved: int, limits: Limits) -> Iterator[dict[int, Unit]]:
    """The buckets to fill, in as many groups as `moved` bytes of source rows need."""
    fits = _BUCKETS_AT_ONCE * limits.bucket_bytes * limits.workers
    by_bytes, by_units = -(-moved * limits.copies // fits), -(-len(missing) // AT_ONCE)
    numbers = sorted(missing)
    size = max(1, -(-len(numbers) // max(by_bytes, by_units, 1)))
    for at in range(0, len(numbers), size):
        yield {b: missing[b] for b in numbers[at : at + size]}


def shuffle(
    plan: Step,
    sources: Sources,
    missing: dict[int, Unit],
    work: Work,
    setting: Setting,
    limits: Limits,
) -> Iterator[Commit]:
    """Commits of the buckets in `missing` that got any row, as they come."""
    import ray.data

    streams: list[ray.data.Dataset] = []
    wanted = np.array(sorted(missing), dtype=np.int32)
    for ref, prepare in sources:
        most = limits.bucket_bytes // (_READS * limits.copies)
        groups = grouped(ref.files, most, limits.workers * _READS)
        if not groups:
            continue
        files = ray.data.from_items([{"files": g} for g in groups], override_num_blocks=len(groups))
        mapped = files.map_batches(
            Wanted(FilePrepare(plan.run_dir, prepare, setting), wanted),
            batch_size=None,
            batch_format="pyarrow",
            max_retries=RETRIES,
        )
        streams.append(mapped)
    if not streams:
        return
    data = streams[0].union(*streams[1:]) if len(streams) > 1 else streams[0]
    partitions = min(len(missing), limits.workers)
    solved = data.groupby(BUCKET, num_partitions=partitions).map_groups(
        solver(plan.run_dir, plan.folder, missing, work),
        batch_format="pyarrow",
        max_retries=RETRIES,
    )
    yield from collect(solved, plan.label)


def grouped(files: Iterable[FileRef], most_bytes: int, least: int) -> list[list[str]]:
    """Names of the files that have rows, in groups that one task each reads.

    Consecutive files share a group while it holds at most `most_bytes`, and no more than its share
    of `least` equal groups.
    """
    files = [f for f in files if f.rows]
    limit = min(most_bytes, sum(f.size for f in files) // max(1, least))
    groups: list[list[str]] = []
    held = 0
    for file in files:
        if not groups or held + file.size > limit:
            groups.append([])
            held = 0
        groups[-1].append(file.name)
        held += file.size
    return groups
