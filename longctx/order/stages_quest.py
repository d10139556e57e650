"""`order.quest` on the engine: a keyword for each document, tours by keyword, what they hold.

The keywords come from `stages_keywords.py`; the arrangement is one process over one keyword and one
vector a document. The step `keywords` keeps what the tours are about.
"""

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field, field_validator

from longctx.engine.barrier import BarrierContext
from longctx.engine.op import Setting
from longctx.engine.steps import Stats, StepRef
from longctx.errors import RecipeError
from longctx.location import Location
from longctx.order.stages_keywords import (
    EXTRACTIVE,
    Asking,
    draw_keywords,
    in_order,
)
from longctx.order.stages_semantic import SemanticOrder
from longctx.text.language import base_language

if TYPE_CHECKING:
    from longctx.cluster.similarity import I64
    from longctx.order.quest import Tour
    from longctx.order.tours import Arranged, Graph

_BUDGET = "quest_budget"


class OrderQuest(SemanticOrder):
    """Quest: documents that answer similar queries, by a keyword of their predicted queries.

    `generator` is "extractive" (title and central sentences, no model) or a local folder with a
    doc2query-style seq2seq model. Keywords stand in at least `min_documents` documents and at most
    `max_documents` or `max_share` of all, whichever is more. A tour is closed as soon as it holds
    `length` tokens (default: the length of `pack`): `long` tours have one keyword, `short` ones
    several, the `pool` none in common.

    Key phrases need stop-words. English is built in (also for code and where no language is given);
    `stop_words` gives lists for others. Documents in languages without one are grouped by their
    vectors instead (k-means and paths, as `order.cluster_path` does), at random where they have
    none.

    With `budget_tokens` tours are selected, a share `split_ratio` of them short, at most
    `max_tours_per_keyword` long ones of one keyword; all other documents leave (`drop_reason`
    quest_budget).
    """

    op: Literal["order.quest"]
    length: int | None = Field(None, ge=1)
    generator: Location = EXTRACTIVE
    title_field: str = Field("title", min_length=1)
    stop_words: dict[str, list[str]] = Field(default_factory=dict)
    min_documents: int = Field(3, ge=1)
    max_documents: int = Field(50, ge=1)
    max_share: float = Field(0.001, ge=0, le=1)
    budget_tokens: int | None = Field(None, ge=1)
    split_ratio: float = Field(0.5, ge=0, le=1)
    max_tours_per_keyword: int = Field(64, ge=1)
    device: str = "auto"
    batch_size: int = Field(16, ge=1)

    summary: ClassVar[str] = "documents that answer similar queries (Quest)"
    source: ClassVar[str] = "Quest 2405.19846; RAKE (Rose et al. 2010); doc2query 1904.08375"
    cost: ClassVar[str] = (
        "extractive: 10 MB/s of text per core; a T5: 1.4 (small) to 4.8 s (base) of a core for "
        "each 512 tokens, at most 8 times a document"
    )
    reads: ClassVar[tuple[str, ...]] = ("embedding", "text", "language", "n_tokens")
    neutral: ClassVar[frozenset[str]] = frozenset({"device"})

    @field_validator("stop_words")
    @classmethod
    def _bybase_language(cls, value: dict[str, list[str]]) -> dict[str, list[str]]:
        return {base_language(language): words for language, words in value.items()}

    def check(self, setting: Setting) -> None:
        if self.length is None:
            raise RecipeError(
                "a tour is as long as one context, and no stage says how long that is",
                where=f"{setting.stage}: length",
                remedy="add `pack` as the last stage, or give `length` in tokens",
            )
        if self.generator != EXTRACTIVE and not Path(self.generator).is_dir():
            raise RecipeError(
                f"there is no model folder {self.generator}",
                where=f"{setting.stage}: generator",
                remedy='correct the path, or use "extractive", which needs no model',
            )

    def places_all(self) -> bool:
        return True

    def needs_all(self) -> str | None:
        return "the keywords of order.quest make tours of documents from anywhere"

    def bring(self, context: BarrierContext, numbered: StepRef) -> list[StepRef]:
        asking = Asking(**{name: getattr(self, name) for name in Asking._fields})
        most = max(self.max_documents, int(self.max_share * context.rows))
        fields = type(self).model_fields
        return [draw_keywords(context, asking, self.min_documents, most, fields)]

    def arrange(self, graph: "Graph", brought: list[StepRef], setting: Setting) -> "Arranged":
        from longctx.order.quest import by_mean_vector, quest_tours, within_budget
        from longctx.order.tours import Arranged

        assert self.length is not None  # `check` refused such a recipe
        table = in_order(brought[0]).take(pa.array(graph.row))
        keywords = table.column("keyword").to_pylist()
        languages = table.column("language").to_pylist()
        own = np.flatnonzero(table.column("language").is_null().to_numpy())
        words = [keywords[i] for i in own.tolist()]
        path = by_mean_vector(graph.X[own])
        tours = quest_tours(words, graph.tokens[own], graph.priority[own], self.length, path)
        if self.budget_tokens is not None:
            limits = (self.budget_tokens, self.split_ratio, self.max_tours_per_keyword)
            tours = within_budget(tours, words, graph.tokens[own], graph.priority[own], *limits)
        placed = [own[tour.documents] for tour in tours]
        links = [link for tour in tours for link in _links(tour, words)]
        if self.budget_tokens is None:
            for language in sorted({name for name in languages if name is not None}):
                members = np.array([i for i, name in enumerate(languages) if name == language])
                placed += self._by_vectors(graph, members, setting)
                links += [f"language: {language}"] * len(members)
        sizes = np.array([len(tour) for tour in placed], dtype=np.int64)
        order = np.concatenate([np.zeros(0, dtype=np.int64), *placed])
        left = None if self.budget_tokens is None else _BUDGET
        return Arranged(order, np.cumsum(sizes) - sizes, links, named=True, left=left)

    def _by_vectors(self, graph: "Graph", members: "I64", setting: Setting) -> list["I64"]:
        """Tours of documents in a language without stop-words: groups and paths, then by chance."""
        from longctx.cluster.groups import balanced_groups
        from longctx.order.cluster_path import cluster_path
        from longctx.order.clusters import number_of_clusters
        from longctx.order.quest import closed

        assert self.length is not None
        known = members[graph.has_vector[members]]
        tours: list[I64] = []
        if len(known):
            X, tokens = graph.X[known], graph.tokens[known]
            k = min(number_of_clusters(int(tokens.sum()), self.length), len(known))
            groups = balanced_groups(
                X, tokens, graph.priority[known], k, max_tokens=2 * self.length, seed=setting.seed
            )
            order, starts = cluster_path(X, groups, self.k)
            tours += np.split(known[order], starts[1:])
        rest = members[~graph.has_vector[members]]
        rest = rest[np.argsort(graph.priority[rest], kind="stable")]
        full, last = closed(rest, graph.tokens, self.length)
        return tours + [tour for tour in [*full, last] if len(tour)]

    def describe(self, context: BarrierContext, tours: StepRef, brought: list[StepRef]) -> None:
        rule = partial(_describe, self, tours, brought[0])
        context.single("keywords", rule, [tours, brought[0]])


def _links(tour: "Tour", keywords: list[str | None]) -> list[str]:
    if tour.kw_class == "pool":
        return ["pool"] * len(tour.documents)
    return [f"{tour.kw_class}: {keywords[i]}" for i in tour.documents.tolist()]


def _describe(op: OrderQuest, tours: StepRef, chosen: StepRef, setting: Setting) -> dict[str, Any]:
    """One row for each keyword of each tour, figures by class, and what a reader should know."""
    placed, known = tours.read(["tour_id", "rank", "link", "order_status"]), in_order(chosen)
    placed = placed.append_column("n_tokens", known.column("n_tokens").fill_null(0))
    placed = placed.filter(pc.is_in(placed.column("order_status"), pa.array(["ok"])))
    rows = placed.group_by(["tour_id", "link"]).aggregate(
        [("rank", "min"), ("rank", "count"), ("n_tokens", "sum")]
    )
    rows = rows.sort_by([("tour_id", "ascending"), ("rank_min", "ascending")])
    named = [link.partition(": ") for link in rows.column("link").to_pylist()]
    kinds = [kind for kind, _, _ in named]
    table = pa.table(
        {
            "tour_id": rows.column("tour_id"),
            "keyword": pa.array(
                [w if kind in ("long", "short") else None for kind, _, w in named], pa.string()
            ),
            "kw_class": pa.array(kinds, pa.string()),
            "documents": rows.column("rank_count"),
            "tokens": rows.column("n_tokens_sum"),
        }
    )
    by_class = table.group_by("kw_class").aggregate(
        [("tour_id", "count_distinct"), ("documents", "sum"), ("tokens", "sum")]
    )
    figures = {
        row["kw_class"]: {
            "tours": row["tour_id_count_distinct"],
            "documents": row["documents_sum"],
            "tokens": row["tokens_sum"],
        }
        for row in sorted(by_class.to_pylist(), key=lambda row: row["kw_class"])
    }
    warnings = dict.fromkeys(_warnings(op, known, sum(table.column("tokens").to_pylist())), 1)
    stats = {"classes": figures, "keywords": pc.count_distinct(table.column("keyword")).as_py()}
    return {"keywords.parquet": Stats.attach(table, {**stats, "warnings": warnings})}


def _warnings(op: OrderQuest, known: pa.Table, tokens: int) -> Iterator[str]:
    """What the reader of a report should know before trusting the order."""
    n = known.num_rows
    if op.generator == EXTRACTIVE:
        yield (
            "order.quest took its queries from the documents' own sentences (`extractive`), where "
            "the paper predicts them with a model: give `generator` a doc2query model to follow it."
        )
    languages = sorted(pc.unique(known.column("language").drop_null()).to_pylist())
    if languages:
        others = n - known.column("language").null_count
        yield (
            f"{others:,} of {n:,} documents are in languages without a list of stop-words "
            f"({', '.join(languages)}): they have no keyword and are grouped by their vectors, or "
            "stand at random where they have none. Give `stop_words` for them."
        )
    else:
        others = 0
    read = n - others
    without = known.column("keyword").null_count - others
    if 2 * without > read:
        yield (
            f"{without:,} of {read:,} documents have no keyword that {op.min_documents} documents "
            "share; they form the pool, which is a random order."
        )
    if op.budget_tokens is not None and tokens < op.budget_tokens:
        yield (
            f"The tours with a keyword hold {tokens:,} tokens, less than budget_tokens "
            f"{op.budget_tokens:,}: all of them were taken."
        )
