"""Orders on the engine: one neighbour table for all of them, then the op's own arrangement.

Documents are numbered in ascending order of their id, so neither parts nor workers can change an
order. The neighbour search is shared by the workers (a block of queries each); the arrangement is
one process over numbers and similarities. Near-duplicates of a kept document are dropped first:
next to each other they would teach a model to copy.
"""

import io
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pydantic import Field

from longctx.engine.barrier import BarrierContext
from longctx.engine.corpus import ROW, Part
from longctx.engine.op import DROP_REASON, Barrier, Setting
from longctx.engine.rows import PART, addressed, as_binary, from_binary, to_part, vectors
from longctx.engine.steps import Stats, StepRef
from longctx.ids import U64, priorities

if TYPE_CHECKING:
    from longctx.order.tours import Arranged

F32 = npt.NDArray[np.float32]
I32 = npt.NDArray[np.int32]

_NO_VECTOR = 1e-6
_QUERY_BLOCK = 4096
_OPTIONAL = pa.schema([("n_tokens", pa.int64()), ("emb_cover", pa.float32())])
_PLACED = pa.schema(
    [
        (ROW, pa.int32()),
        ("tour_id", pa.string()),
        ("rank", pa.int64()),
        ("sim_prev", pa.float32()),
        ("jump", pa.bool_()),
        ("order_status", pa.string()),
        ("order_kept_id", pa.string()),
        ("order_kept_sim", pa.float32()),
    ]
)


class SemanticOrder(Barrier):
    """What every order over a neighbour graph shares: its table, near-duplicates, the tour table.

    `k` neighbours make the graph, `k_search` are searched. With `dup_action: drop` documents at
    cosine >= `dup_cos` to a kept one leave (`drop_reason` order_dup), unless a vector saw less than
    half of its text; the longest of them stays (in tokens, where an earlier stage counted them).
    """

    k: int = Field(10, ge=1)
    k_search: int = Field(32, ge=1)
    dup_cos: float = Field(0.95, gt=0, le=1)
    dup_action: Literal["drop", "keep"] = "drop"

    reads: ClassVar[tuple[str, ...]] = ("embedding",)
    rate_mb_s: ClassVar[float] = 20.0
    exchange_bytes_per_row: ClassVar[int] = 120
    writes: ClassVar[tuple[str, ...]] = (*_PLACED.names[1:], DROP_REASON)
    removes: ClassVar[bool] = True

    def arrange(self, X: F32, lists: I32, sims: F32, priority: U64) -> "Arranged":
        """The op's rule: unit vectors (n, d) and their neighbour table to an order."""
        raise NotImplementedError

    def run(self, context: BarrierContext) -> None:
        columns = ["doc_id", "embedding", *(n for n in _OPTIONAL.names if context.corpus.has(n))]
        graph = ("dup_cos", "dup_action", "k", *self._own_fields())
        numbered = context.single(
            "documents", partial(_number, context.parts()), columns=columns, ignore=graph
        )
        n = context.step_stats["documents"]["with_vector"]
        index = context.single("index", partial(_index, numbered, n), [numbered], ignore=graph)
        blocks = [(i, min(i + _QUERY_BLOCK, n)) for i in range(0, n, _QUERY_BLOCK)] or [(0, 0)]
        lists = context.spread(
            "neighbours",
            partial(_search, numbered, index, self.k_search),
            blocks,
            [numbered, index],
            ignore=graph,
        )
        tours = context.single("tours", partial(_arrange, self, numbered, lists), [numbered, lists])
        context.sidecar("", [(tours, to_part)], _mark, _PLACED, self.writes, removes=True)

    def _own_fields(self) -> tuple[str, ...]:
        return tuple(set(type(self).model_fields) - set(SemanticOrder.model_fields))


class OrderICP(SemanticOrder):
    """In-Context Pretraining: a walk along the heaviest unvisited edge.

    `variant: algorithm1` is the paper's Algorithm 1 (over the `undirected` graph, its text, or the
    `directed` lists, its listing); `variant: released` is what the published code does, with chains
    of at most `cap` documents that are merged.
    """

    op: Literal["order.icp"]
    variant: Literal["algorithm1", "released"] = "algorithm1"
    graph: Literal["undirected", "directed"] = "undirected"
    pick: Literal["max", "min"] = "max"
    cap: int = Field(21, ge=1)

    summary: ClassVar[str] = "a walk over neighbours (In-Context Pretraining)"
    source: ClassVar[str] = "ICP 2310.10638, Algorithm 1 and the released code"
    cost: ClassVar[str] = "rows x k after the neighbour search; 12-20 % of the steps are jumps"

    def arrange(self, X: F32, lists: I32, sims: F32, priority: U64) -> "Arranged":
        if self.variant == "released":
            from longctx.order.icp_released import icp_released_order
            from longctx.order.tours import Arranged

            k = min(self.k, 9)
            return Arranged(*icp_released_order(lists, k, self.cap, priority=priority))
        from longctx.order.icp import icp_order
        from longctx.order.tours import Arranged

        return Arranged(
            *icp_order(lists, sims, self.k, priority=priority, graph=self.graph, pick=self.pick)
        )


class OrderPath(SemanticOrder):
    """The default: one path by greedy edges, joined ends, 2-opt and Or-opt."""

    op: Literal["order.path"]
    k_join: int = Field(32, ge=2)
    improve: Literal["none", "2opt", "2opt+oropt"] = "2opt+oropt"

    summary: ClassVar[str] = "one path of high similarity between neighbours"
    source: ClassVar[str] = "longctx; Bentley 1992 for the searches, Held-Karp 1970 for the bound"
    cost: ClassVar[str] = "about 0.1 ms per document after the neighbour search; 98 % of the bound"

    def arrange(self, X: F32, lists: I32, sims: F32, priority: U64) -> "Arranged":
        from longctx.cluster.knn import undirected_edges
        from longctx.order.improve import improve_path
        from longctx.order.path import greedy_edge_path
        from longctx.order.tours import Arranged

        path = greedy_edge_path(X, undirected_edges(lists, sims, self.k), k_join=self.k_join)
        if self.improve != "none" and len(path) > 2:
            path = improve_path(X, path, lists, sims, moves=self.improve)
        return Arranged(path, np.zeros(min(1, len(path)), dtype=np.int64))


def _number(parts: list[Part], setting: Setting) -> dict[str, Any]:
    """All living documents in ascending order of doc_id, and their vectors in the same order."""
    rows, matrices = [], []
    for part in parts:
        known = [n for n in _OPTIONAL.names if n in part.columns()]
        table = part.table(["doc_id", "embedding", *known])
        found = addressed(part, table)
        for field in _OPTIONAL:
            column = table.column(field.name) if field.name in known else pa.nulls(len(table))
            found = found.append_column(field, column.cast(field.type))
        rows.append(found)
        matrices.append(vectors(table.column("embedding")))
    merged, matrix = pa.concat_tables(rows), np.concatenate(matrices)
    del matrices
    order = np.argsort(np.array(merged.column("doc_id").to_pylist(), dtype=object), kind="stable")
    merged = merged.take(pa.array(order)).combine_chunks()
    matrix = matrix[order]
    # A row without a vector is equally far from all others: it would only slow the search down.
    usable = np.isfinite(matrix).all(axis=1) & (np.linalg.norm(matrix, axis=1) > _NO_VECTOR)
    merged = merged.append_column("has_vector", pa.array(usable))
    buffer = io.BytesIO()
    np.save(buffer, matrix[usable])
    described = Stats.attach(merged, {"with_vector": int(usable.sum())})
    return {"documents.parquet": described, "vectors.npy": buffer.getvalue()}


def _load(numbered: StepRef) -> tuple[pa.Table, F32]:
    table = StepRef(
        numbered.run_dir,
        tuple((u, tuple(f for f in fs if f.name.endswith(".parquet"))) for u, fs in numbered.units),
    ).read()
    return table, np.load(io.BytesIO(numbered.bytes("vectors.npy")))


def _index(numbered: StepRef, n: int, setting: Setting) -> dict[str, Any]:
    """Nothing up to 200,000 documents (exact search); an inverted-file index above."""
    from longctx.cluster.knn import EXACT_UP_TO

    if n <= EXACT_UP_TO:
        empty = pa.table({"nprobe": pa.array([], pa.int64())})
        return {"index.parquet": Stats.attach(empty, {"recall": 1.0})}
    import faiss

    from longctx.cluster.knn import build_ivf, tune_nprobe

    table, matrix = _load(numbered)
    keys = table.column("doc_key").to_numpy()[table.column("has_vector").to_numpy()]
    index = build_ivf(matrix, keys, setting.seed)
    recall = tune_nprobe(matrix, index, keys, setting.seed)
    described = pa.table({"nprobe": pa.array([index.nprobe], pa.int64())})
    return {
        "index.parquet": Stats.attach(described, {"recall": recall}),
        "index.faiss": faiss.serialize_index(index).tobytes(),
    }


def _search(
    numbered: StepRef, index: StepRef, k_search: int, block: tuple[int, int], setting: Setting
) -> pa.Table:
    from longctx.cluster.knn import search

    _, matrix = _load(numbered)
    built: Any = None
    if any(f.name.endswith("index.faiss") for f in index.files):
        import faiss

        built = faiss.deserialize_index(np.frombuffer(index.bytes("index.faiss"), dtype=np.uint8))
        described = next(f for f in index.files if f.name.endswith(".parquet"))
        nprobe = StepRef(index.run_dir, (("all", (described,)),)).read().column("nprobe")
        built.nprobe = nprobe[0].as_py()
    lists, sims = search(
        matrix, *block, k_search=min(k_search, max(1, len(matrix) - 1)), index=built
    )
    return pa.table({"numbers": as_binary(lists), "sims": as_binary(sims)})


def _arrange(
    op: SemanticOrder, numbered: StepRef, found: StepRef, setting: Setting
) -> dict[str, Any]:
    """The tour table: every living document once, with its link or the reason why it left."""
    from longctx.cluster.near_duplicates import prune
    from longctx.order import tours

    table, X = _load(numbered)
    n = table.num_rows
    usable = np.flatnonzero(table.column("has_vector").to_numpy())
    rows = found.read().combine_chunks()
    lists = from_binary(rows.column("numbers"), np.int32)
    sims = from_binary(rows.column("sims"), np.float32)
    tokens = table.column("n_tokens").fill_null(0).to_numpy()[usable]
    cover = table.column("emb_cover")
    covered = None if cover.null_count == n else cover.fill_null(1).to_numpy()[usable]
    drops = op.dup_action == "drop"
    warnings = tours.warnings(sims, op.dup_cos if drops else None, n - len(usable), n)
    pruned = prune(X, lists, sims, tokens, op.dup_cos if drops else 2.0, covered)
    priority = priorities(table.column("doc_key").to_numpy(), setting.seed)[usable]
    Y = np.ascontiguousarray(X[pruned.keep])
    arranged = op.arrange(Y, pruned.lists, pruned.sims, priority[pruned.keep])
    placed = tours.tour_table(table.column("doc_id"), usable, pruned, arranged, Y, op.k)
    for name in (ROW, PART):
        placed = placed.add_column(0, name, table.column(name))
    figures = tours.figures(Y, pruned, arranged, priority[pruned.keep], op.k)
    return {"tours.parquet": Stats.attach(placed, {**figures, "warnings": warnings})}


def _mark(base: pa.Table, brought: pa.Table, setting: Setting) -> pa.Table:
    """The part's rows of the tour table; near-duplicates leave."""
    status = brought.column("order_status").to_pylist()
    reasons = pa.array(["order_dup" if s == "order_dup" else None for s in status], pa.string())
    return brought.drop_columns([ROW]).append_column(DROP_REASON, reasons)
