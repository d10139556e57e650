"""Groups of about one context on the engine: documents at random inside, or a path inside each."""

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field, model_validator

from longctx.engine.op import Setting
from longctx.engine.steps import StepRef
from longctx.errors import RecipeError, RunError
from longctx.order.stages_semantic import SemanticOrder

if TYPE_CHECKING:
    from longctx.cluster.groups import Groups
    from longctx.cluster.similarity import I64
    from longctx.order.tours import Arranged, Graph


class ClusteredOrder(SemanticOrder):
    """What the orders over groups share: how many there are, and how large.

    Groups hold about `cluster_tokens` tokens (default: `contexts` contexts of `length`, which is
    the length of `pack`) and never more than `max_cluster_tokens` (default: twice as many) unless
    they are one document. `n_clusters` sets their number directly; documents then count as one each
    where no earlier stage counted tokens. Groups of fewer than `min_docs` documents join a near one
    that has room.
    """

    length: int | None = Field(None, ge=1)
    n_clusters: int | None = Field(None, ge=1)
    cluster_tokens: int | None = Field(None, ge=1)
    max_cluster_tokens: int | None = Field(None, ge=1)
    min_docs: int = Field(2, ge=1)

    contexts: ClassVar[int]

    @model_validator(mode="after")
    def _has_one_size(self) -> "ClusteredOrder":
        if self.n_clusters is not None and self.cluster_tokens is not None:
            raise ValueError("`n_clusters` and `cluster_tokens` contradict each other: give one")
        return self

    def reads_columns(self) -> tuple[str, ...]:
        return (*self.reads, "n_tokens") if self._counts_tokens() else self.reads

    def check(self, setting: Setting) -> None:
        if self.n_clusters is None and self.cluster_tokens is None and self.length is None:
            raise RecipeError(
                f"the size of a group follows from the length of a context, and no `pack` follows "
                f"{self.op} to tell it",
                where=f"{setting.stage}: length",
                remedy="set `length`, `cluster_tokens` or `n_clusters`, or add a `pack` stage",
            )

    def needs_all(self) -> str | None:
        if self.n_clusters is None:
            return None
        return "`n_clusters` counts the groups of all documents: set `cluster_tokens` instead"

    def _counts_tokens(self) -> bool:
        return self.n_clusters is None or self.max_cluster_tokens is not None

    def _grouped(self, graph: "Graph", niter: int, setting: Setting) -> "Groups":
        from longctx.cluster.groups import balanced_groups

        tokens, k, limit = self._sizes(graph.tokens, setting)
        return balanced_groups(
            graph.X,
            tokens,
            graph.priority,
            k,
            max_tokens=limit,
            min_docs=self.min_docs,
            niter=niter,
            seed=setting.seed,
        )

    def _sizes(self, tokens: "I64", setting: Setting) -> tuple["I64", int, int]:
        """Tokens of each document, the number of groups, and the most tokens of one."""
        from longctx.order.clusters import number_of_clusters

        total = int(tokens.sum())
        if total == 0 and len(tokens):
            if self._counts_tokens():
                raise RunError(
                    "groups are sized by tokens, and no earlier stage counted them",
                    where=setting.stage,
                    remedy="add `score.heuristics` before it, or set `n_clusters` alone",
                )
            tokens, total = tokens + 1, len(tokens)
        if self.n_clusters is not None:
            limit = self.max_cluster_tokens or max(1, 2 * total // self.n_clusters)
            return tokens, self.n_clusters, limit
        size = self.cluster_tokens or self.contexts * (self.length or 1)
        return tokens, number_of_clusters(total, size), self.max_cluster_tokens or 2 * size


class OrderClusters(ClusteredOrder):
    """k-means groups of about two contexts, one tour each.

    Documents of a group stand in random order, or by their distance to its centroid (`near` first,
    `far` first); the groups along a path over their centroids, or in random order.
    """

    op: Literal["order.clusters"]
    niter: int = Field(20, ge=1)
    inside: Literal["random", "near", "far"] = "random"
    cluster_order: Literal["path", "random"] = "path"

    summary: ClassVar[str] = "k-means groups of about two contexts"
    source: ClassVar[str] = "the clustering ablation of ICP 2310.10638; SemDeDup 2303.09540"
    cost: ClassVar[str] = "k-means, then a sort; contexts are coherent, neighbours far below a path"
    contexts: ClassVar[int] = 2

    def arrange(self, graph: "Graph", brought: list[StepRef], setting: Setting) -> "Arranged":
        from longctx.order.cluster_path import path_through
        from longctx.order.clusters import clusters_order, random_sequence
        from longctx.order.tours import Arranged

        groups = self._grouped(graph, self.niter, setting)
        if self.cluster_order == "path":
            sequence = path_through(groups.centroids, self.k)
        else:
            sequence = random_sequence(groups, graph.priority)
        return Arranged(*clusters_order(graph.X, groups, sequence, self.inside, graph.priority))


class OrderClusterPath(ClusteredOrder):
    """k-means groups of about one context, a path inside each and a path over them.

    The most coherent whole contexts; `cluster_tokens` may go up to four contexts. Chains of
    documents that are longer than a group (threads, chapters) are cut.
    """

    op: Literal["order.cluster_path"]
    niter: int = Field(8, ge=1)
    k_join: int = Field(32, ge=2)
    improve: Literal["none", "2opt", "2opt+oropt"] = "2opt+oropt"

    summary: ClassVar[str] = "paths inside k-means groups, a path over them"
    source: ClassVar[str] = "longctx; Bentley 1992 for the searches"
    cost: ClassVar[str] = "k-means, then about 0.1 ms per document; 92-99 % of a path's adjacency"
    contexts: ClassVar[int] = 1
    may_turn: ClassVar[bool] = True

    def arrange(self, graph: "Graph", brought: list[StepRef], setting: Setting) -> "Arranged":
        from longctx.order.cluster_path import cluster_path
        from longctx.order.tours import Arranged

        groups = self._grouped(graph, self.niter, setting)
        moves = None if self.improve == "none" else self.improve
        return Arranged(*cluster_path(graph.X, groups, self.k, self.k_join, moves))
