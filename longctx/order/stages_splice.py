"""SPLICE on the engine: what a document retrieves comes from vectors, from words or from its path.

Retrieval is shared by the workers; the trees are grown in one place over numbers.
"""

import json
from functools import partial
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np
import pyarrow as pa
from pydantic import Field, model_validator

from longctx.engine.barrier import BarrierContext
from longctx.engine.corpus import Part
from longctx.engine.op import Setting
from longctx.engine.steps import StepRef
from longctx.errors import RecipeError, RunError
from longctx.order.stages_bm25 import BM25, merged, numbers_by_place, retrieve
from longctx.order.stages_semantic import SemanticOrder

if TYPE_CHECKING:
    from longctx.order.tours import Arranged, Graph

_PATHS = pa.schema([("tree", pa.string()), ("path", pa.string())])


class OrderSplice(SemanticOrder):
    """SPLICE: each tour is one training example, grown breadth first by retrieval.

    The root is an unused document; each document of the example brings the `branches` documents
    that it retrieves, until the example holds `length` tokens (default: the length of `pack`). Each
    document is used once. `pool: unused` takes the nearest unused of the `k_search` retrieved,
    `index` (the paper) those of the first `branches` that are unused; an example that can retrieve
    no more goes on from a new root (`on_empty: restart`) or ends short (`emit_short`).
    `pack` with `cross_tours: false, fill_policy: crop, long_documents: truncate` cuts as the paper
    does.

    `retriever: dense` compares vectors, and documents without one form the last tour. `bm25`
    compares words: a document asks with its first `query_tokens` words, without those that more
    than `max_df` of the documents (and more than 100) hold; `shard_documents` are indexed at a
    time, which bounds the memory of a worker and changes no result.

    `repo` searches nothing: a tour is the depth-first walk of one directory tree (a source, or
    inside it a repository where `repo_field` names one), files before subdirectories. `path_field`
    and `repo_field` are fields kept by the input's `meta`. A document without the path is placed by
    its id if that is a path, else in a tour behind its tree. `length` plays no part.

    `k` and `k_search` make the neighbour graph as in every order; `k_search` is also how many
    documents BM25 retrieves.
    """

    op: Literal["order.splice"]
    retriever: Literal["dense", "bm25", "repo"] = "dense"
    branches: int = Field(1, ge=1)
    pool: Literal["index", "unused"] = "unused"
    on_empty: Literal["restart", "emit_short"] = "restart"
    order: Literal["identity", "reverse", "shuffle"] = "identity"
    length: int | None = Field(None, ge=1)
    query_tokens: int = Field(512, ge=1)
    k1: float = Field(1.5, ge=0, allow_inf_nan=False)
    b: float = Field(0.75, ge=0, le=1)
    max_df: float = Field(0.5, gt=0, le=1)
    shard_documents: int = Field(50_000, ge=1)
    path_field: str = Field("path", min_length=1)
    repo_field: str | None = Field(None, min_length=1)

    summary: ClassVar[str] = "contexts as trees of retrieved documents (SPLICE)"
    source: ClassVar[str] = "SPLICE 2312.17296; BM25: Robertson and Zaragoza 2009"
    cost: ClassVar[str] = (
        "the trees: linear; bm25: 45 MB/s of text and documents^2 / 70 million seconds per core "
        "(20,659 documents of 170 MB: 12 s)"
    )
    neutral: ClassVar[frozenset[str]] = frozenset({"shard_documents"})

    @model_validator(mode="after")
    def _retrieves_enough(self) -> "OrderSplice":
        if self.branches > self.k_search:
            raise ValueError(f"branches = {self.branches} exceeds k_search = {self.k_search}")
        return self

    def reads_columns(self) -> tuple[str, ...]:
        # Without n_tokens no example would know that it is full.
        return self.reads if self.retriever == "repo" else (*self.reads, "n_tokens")

    def check(self, setting: Setting) -> None:
        if self.retriever != "repo" and self.length is None:
            raise RecipeError(
                "an example is as long as one context, and no stage says how long that is",
                where=f"{setting.stage}: length",
                remedy="add `pack` as the last stage, or give `length` in tokens",
            )

    def places_all(self) -> bool:
        return self.retriever != "dense"

    def needs_all(self) -> str | None:
        if self.retriever == "dense":
            return None
        return f"`retriever: {self.retriever}` looks at all of them at once"

    def graph_width(self) -> int:
        looked_at = self.k_search if self.pool == "unused" else self.branches
        return max(self.k, looked_at) if self.retriever == "dense" else self.k

    def bring(self, context: BarrierContext, numbered: StepRef) -> list[StepRef]:
        fields = type(self).model_fields
        if self.retriever == "bm25":
            how = BM25(**{name: getattr(self, name) for name in BM25._fields})
            return [numbered, retrieve(context, numbered, how, fields)]
        if self.retriever == "repo":
            rule = partial(_paths, self.path_field, self.repo_field)
            unread = set(fields) - {"op", "path_field", "repo_field"}
            read = ["doc_id", "source", "meta"]
            return [numbered, context.per_part("paths", rule, read, ignore=unread)]
        return []

    def arrange(self, graph: "Graph", brought: list[StepRef], setting: Setting) -> "Arranged":
        from longctx.order.splice import LINKS, among, splice_tours
        from longctx.order.tours import Arranged

        if self.retriever == "repo":
            numbered, paths = brought
            return _walk(graph, numbered, paths, setting)
        lists = graph.lists
        if self.retriever == "bm25":
            numbered, retrieved = brought
            lists = among(merged(numbered, retrieved, self.k_search), graph.row)
        assert self.length is not None  # `check` refused such a recipe
        order, starts, how = splice_tours(
            lists,
            graph.tokens,
            self.length,
            self.branches,
            priority=graph.priority,
            pool=self.pool,
            on_empty=self.on_empty,
            order=self.order,
        )
        return Arranged(order, starts, [LINKS[i] for i in how])


def _paths(path_field: str, repo_field: str | None, part: Part, setting: Setting) -> pa.Table:
    """Tree and path of each document of a part; null where it has no path."""
    from longctx.order.repo import looks_like_path

    trees: list[str] = []
    paths: list[str | None] = []
    for table in part.groups(["doc_id", "source", "meta"]):
        columns = (table.column(c).to_pylist() for c in ("doc_id", "source", "meta"))
        for doc_id, source, meta in zip(*columns, strict=True):
            fields = json.loads(meta) if meta else {}
            path = fields.get(path_field)
            if not (isinstance(path, str) and path):
                path = doc_id if looks_like_path(doc_id) else None
            paths.append(path)
            repo = fields.get(repo_field) if repo_field else None
            trees.append(source if repo is None else f"{source}\n{repo}")
    return pa.table({"tree": trees, "path": paths}, schema=_PATHS)


def _walk(graph: "Graph", numbered: StepRef, paths: StepRef, setting: Setting) -> "Arranged":
    from longctx.order.repo import repository_tours
    from longctx.order.tours import Arranged

    table = paths.read()
    if table.num_rows and table.column("path").null_count == table.num_rows:
        raise RunError(
            "no document has a path, so there is no directory tree to walk",
            where=setting.stage,
            remedy="keep the field with the path in the `meta` of the input and name it in "
            "`path_field`, or take another `retriever`",
        )
    places = np.argsort(numbers_by_place(numbered))[graph.row]
    placed = table.take(pa.array(places))
    trees, names = (placed.column(c).to_pylist() for c in ("tree", "path"))
    return Arranged(*repository_tours(trees, names, graph.priority))
