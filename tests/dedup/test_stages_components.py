"""Labels from a finished star forest, bucket by bucket, are those of union-find over all edges."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from longctx.dedup.components import connected_components
from longctx.dedup.stages_components import EDGES, _once, _with_roots
from longctx.engine.op import Setting

SETTING = Setting(seed=1, tokenizer="embedded", stage="01-x", run_dir="", output="")


def test_buckets_give_each_node_its_label_once() -> None:
    rng = np.random.default_rng(5)
    u, v = rng.integers(0, 2**64 - 1, 400, dtype=np.uint64)[rng.integers(0, 400, (2, 300))]
    nodes, labels = connected_components(u, v)
    inside = nodes != labels
    star = pa.table({"node": nodes[inside], "other": labels[inside]}, schema=EDGES)
    files = [star.slice(0, 90), star.slice(90)]
    moved = pa.concat_tables([_with_roots(4, f, SETTING) for f in files])
    found = []
    for bucket in range(4):
        own = moved.filter(pc.equal(moved.column("bucket"), bucket))
        found.append(_once(own.select(EDGES.names), SETTING))
    assert all(t.num_rows for t in found)
    table = pa.concat_tables(found).sort_by("node")
    np.testing.assert_array_equal(table.column("node"), np.sort(nodes))
    np.testing.assert_array_equal(table.column("other"), labels[np.argsort(nodes)])


def test_no_edges_give_no_labels() -> None:
    assert _once(_with_roots(1, EDGES.empty_table(), SETTING).select(EDGES.names), SETTING) == (
        EDGES.empty_table()
    )
