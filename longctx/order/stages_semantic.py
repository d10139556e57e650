"""What every order over a neighbour graph shares: one table for all, then the op's own rule.

Documents are numbered in ascending order of their id, so neither parts nor workers can change an
order. The neighbour search is shared by the workers (a block of queries each); the arrangement is
one process over numbers and similarities. Near-duplicates of a kept document are dropped first:
next to each other they would teach a model to copy.
"""

import io
from collections.abc import Iterable
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
from longctx.ids import priorities

if TYPE_CHECKING:
    from longctx.order.tours import Arranged, Graph

F32 = npt.NDArray[np.float32]
I32 = npt.NDArray[np.int32]

_NO_VECTOR = 1e-6
_QUERY_BLOCK = 4096
_PLACED_STATUS = ("ok", "no_embedding")
_OPTIONAL = pa.schema([("n_tokens", pa.int64()), ("emb_cover", pa.float32())])
# What every order writes about each document; `tours.tour_table` makes the rows.
PLACED = pa.schema(
    [
        (ROW, pa.int32()),
        ("tour_id", pa.string()),
        ("rank", pa.int64()),
        ("sim_prev", pa.float32()),
        ("jump", pa.bool_()),
        ("link", pa.string()),
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
    writes: ClassVar[tuple[str, ...]] = (*PLACED.names[1:], DROP_REASON)
    removes: ClassVar[bool] = True

    def places_all(self) -> bool:
        """Whether documents without a vector are arranged too (orders that read the text)."""
        return False

    def graph_width(self) -> int:
        """How many neighbours of a document `arrange` looks at; at most `k_search`."""
        return self.k

    def bring(self, context: BarrierContext, numbered: StepRef) -> list[StepRef]:
        """Steps of the op's own that `arrange` reads; `numbered` is the table of documents."""
        return []

    def arrange(self, graph: "Graph", brought: list[StepRef], setting: Setting) -> "Arranged":
        """The op's rule: documents, their neighbours and what `bring` made, to an order."""
        raise NotImplementedError

    def describe(self, context: BarrierContext, tours: StepRef, brought: list[StepRef]) -> None:
        """Steps of the op's own that say more about finished tours than their table does."""

    def run(self, context: BarrierContext) -> None:
        graph = ("dup_cos", "dup_action", "k", *self._own_fields())
        numbered, lists = neighbour_lists(context, self.k_search, graph)
        brought = self.bring(context, numbered)
        tours = context.single(
            "tours",
            partial(_arrange, self, numbered, lists, brought),
            [numbered, lists, *brought],
        )
        self.describe(context, tours, brought)
        context.sidecar("", [(tours, to_part)], mark_part, PLACED, self.writes, removes=True)

    def _own_fields(self) -> tuple[str, ...]:
        return tuple(set(type(self).model_fields) - set(SemanticOrder.model_fields))


def neighbour_lists(
    context: BarrierContext, k_search: int, ignore: Iterable[str]
) -> tuple[StepRef, StepRef]:
    """Steps `documents` (read by `load_numbered`), `index` and `neighbours`.

    The last holds `numbers` and `sims` of `k_search` neighbours for each document with a vector;
    the fields of the op named by `ignore` do not decide them.
    """
    ignored = tuple(ignore)
    columns = ["doc_id", "embedding", *(n for n in _OPTIONAL.names if context.corpus.has(n))]
    numbered = context.single(
        "documents", partial(_number, context.parts()), columns=columns, ignore=ignored
    )
    n = context.step_stats["documents"]["with_vector"]
    index = context.single("index", partial(_index, numbered, n), [numbered], ignore=ignored)
    blocks = [(i, min(i + _QUERY_BLOCK, n)) for i in range(0, n, _QUERY_BLOCK)] or [(0, 0)]
    lists = context.spread(
        "neighbours",
        partial(_search, numbered, index, k_search),
        blocks,
        [numbered, index],
        ignore=ignored,
    )
    return numbered, lists


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


def load_numbered(numbered: StepRef) -> tuple[pa.Table, F32]:
    """The table of all living documents, and the vectors of those that have one."""
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

    table, matrix = load_numbered(numbered)
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

    _, matrix = load_numbered(numbered)
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
    op: SemanticOrder, numbered: StepRef, found: StepRef, brought: list[StepRef], setting: Setting
) -> dict[str, Any]:
    """The tour table: every living document once, with its link or the reason why it left."""
    from longctx.cluster.near_duplicates import prune
    from longctx.order import tours

    table, X = load_numbered(numbered)
    n = table.num_rows
    usable = np.flatnonzero(table.column("has_vector").to_numpy())
    rows = found.read().combine_chunks()
    lists = from_binary(rows.column("numbers"), np.int32)
    sims = from_binary(rows.column("sims"), np.float32)
    tokens = table.column("n_tokens").fill_null(0).to_numpy()
    cover = table.column("emb_cover")
    covered = None if cover.null_count == n else cover.fill_null(1).to_numpy()[usable]
    drops = op.dup_action == "drop"
    lonely = 0 if op.places_all() else n - len(usable)
    warnings = tours.warnings(sims, op.dup_cos if drops else None, lonely, n)
    pruned = prune(X, lists, sims, tokens[usable], op.dup_cos if drops else 2.0, covered)
    graph = tours.graph_of(
        X,
        pruned,
        usable,
        tokens,
        priorities(table.column("doc_key").to_numpy(), setting.seed),
        everything=op.places_all(),
    )
    arranged = op.arrange(graph, brought, setting)
    placed = tours.tour_table(table.column("doc_id"), usable, pruned, graph, arranged, op.k)
    for name in (ROW, PART):
        placed = placed.add_column(0, name, table.column(name))
    figures = tours.figures(graph, pruned, arranged, op.k)
    return {"tours.parquet": Stats.attach(placed, {**figures, "warnings": warnings})}


def mark_part(base: pa.Table, brought: pa.Table, setting: Setting) -> pa.Table:
    """The part's rows of the tour table; near-duplicates and what the op left out leave."""
    status = brought.column("order_status").to_pylist()
    reasons = pa.array([None if s in _PLACED_STATUS else s for s in status], pa.string())
    return brought.drop_columns([ROW]).append_column(DROP_REASON, reasons)
