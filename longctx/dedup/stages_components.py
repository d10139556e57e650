"""Connected components of the edges between near-duplicates, as steps of a barrier.

Up to `local_edges` edges are one union-find in one process; above that come rounds of large-star
and small-star (Kiveris et al. 2014), each an exchange, until a round changes nothing. Both give
every node the smallest key of its component.
"""

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa

from longctx.engine.barrier import BarrierContext
from longctx.engine.op import Setting
from longctx.engine.steps import BUCKET, Prepare, Stats, StepRef, bucket_of

EDGES = pa.schema([("node", pa.uint64()), ("other", pa.uint64())])
_MAX_ROUNDS = 64


def find_components(
    context: BarrierContext, edges: StepRef, local_edges: int, ignore: Iterable[str]
) -> StepRef:
    """Step `components`: (node, other = label of its component) for every node that has an edge.

    `edges` holds rows of EDGES; `ignore` names the op's fields that cannot change them.
    """
    ignore = tuple(ignore)
    if edges.rows <= local_edges:
        rule = partial(_local_components, edges)
        return context.single("components", rule, [edges], ignore=ignore)
    current, before = edges, None
    for number in range(_MAX_ROUNDS):
        name = f"round-{number:02d}"
        large = _half(context, f"{name}-large", current, _both_ends, _large_star, ignore)
        started_from = context.step_stats[f"{name}-large"]
        state = (started_from.get("edges", 0), started_from.get("digest", 0) % 2**64)
        if state == before:
            return _labels(context, current, ignore)
        before = state
        current = _half(context, f"{name}-small", large, _larger_end, _small_star, ignore)
    raise AssertionError("large-star and small-star did not converge")


def _half(
    context: BarrierContext,
    step: str,
    edges: StepRef,
    bring: Callable[[int, pa.Table, Setting], pa.Table],
    star: Callable[[pa.Table, Setting], pa.Table],
    ignore: tuple[str, ...],
) -> StepRef:
    """One exchange of a round."""
    count = context.buckets_for([edges])
    sources: list[tuple[StepRef, Prepare]] = [(edges, partial(bring, count))]
    return context.exchange(step, sources, star, EDGES, buckets=count, ignore=ignore)


def _local_components(edges: StepRef, setting: Setting) -> dict[str, Any]:
    from longctx.dedup.components import connected_components

    table = edges.read()
    nodes, labels = connected_components(
        table.column("node").to_numpy(), table.column("other").to_numpy()
    )
    return {"labels.parquet": pa.table({"node": nodes, "other": labels}, schema=EDGES)}


def _labels(context: BarrierContext, edges: StepRef, ignore: tuple[str, ...]) -> StepRef:
    """Labels from a finished star forest: each edge (child, root), and each root its own label."""
    count = context.buckets_for([edges])
    sources: list[tuple[StepRef, Prepare]] = [(edges, partial(_with_roots, count))]
    return context.exchange("components", sources, _once, EDGES, buckets=count, ignore=ignore)


def _with_roots(buckets: int, table: pa.Table, setting: Setting) -> pa.Table:
    child, root = table.column("node").to_numpy(), table.column("other").to_numpy()
    roots = np.unique(root)
    node, other = np.concatenate([child, roots]), np.concatenate([root, roots])
    rows = pa.table({"node": node, "other": other}, schema=EDGES)
    return rows.append_column(BUCKET, bucket_of(node, buckets))


def _once(table: pa.Table, setting: Setting) -> pa.Table:
    """Each node once, ascending; a root comes from every file that holds an edge to it."""
    nodes, first = np.unique(table.column("node").to_numpy(), return_index=True)
    labels = table.column("other").to_numpy()[first]
    return pa.table({"node": nodes, "other": labels}, schema=EDGES)


def _both_ends(buckets: int, table: pa.Table, setting: Setting) -> pa.Table:
    from longctx.dedup.components import neighbourhoods

    node, other = neighbourhoods(table.column("node").to_numpy(), table.column("other").to_numpy())
    rows = pa.table({"node": node, "other": other}, schema=EDGES)
    return rows.append_column(BUCKET, bucket_of(node, buckets))


def _larger_end(buckets: int, table: pa.Table, setting: Setting) -> pa.Table:
    u, v = table.column("node").to_numpy(), table.column("other").to_numpy()
    node, other = np.maximum(u, v), np.minimum(u, v)
    rows = pa.table({"node": node, "other": other}, schema=EDGES)
    return rows.append_column(BUCKET, bucket_of(node, buckets))


def _large_star(table: pa.Table, setting: Setting) -> pa.Table:
    """One half-round; its counters identify the set of edges it started from."""
    from longctx.dedup.components import edges_digest, large_star

    node, other = table.column("node").to_numpy(), table.column("other").to_numpy()
    # Every edge stands here once under its larger end, so digests add up over the buckets.
    own = other < node
    number, digest = edges_digest(node[own], other[own])
    u, v = large_star(node, other)
    found = pa.table({"node": u, "other": v}, schema=EDGES)
    return Stats.attach(found, {"edges": number, "digest": digest})


def _small_star(table: pa.Table, setting: Setting) -> pa.Table:
    from longctx.dedup.components import small_star

    u, v = small_star(table.column("node").to_numpy(), table.column("other").to_numpy())
    return pa.table({"node": u, "other": v}, schema=EDGES)
