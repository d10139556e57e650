"""ICP and the path on the engine: rules over the neighbour graph of `stages_semantic`."""

from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np
from pydantic import Field

from longctx.engine.op import Setting
from longctx.engine.steps import StepRef
from longctx.order.stages_semantic import SemanticOrder

if TYPE_CHECKING:
    from longctx.order.tours import Arranged, Graph


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

    def arrange(self, graph: "Graph", brought: list[StepRef], setting: Setting) -> "Arranged":
        if self.variant == "released":
            from longctx.order.icp_released import icp_released_order
            from longctx.order.tours import Arranged

            k = min(self.k, 9)
            chains = icp_released_order(graph.lists, k, self.cap, priority=graph.priority)
            return Arranged(*chains)
        from longctx.order.icp import icp_order
        from longctx.order.tours import Arranged

        walk = icp_order(
            graph.lists,
            graph.sims,
            self.k,
            priority=graph.priority,
            graph=self.graph,
            pick=self.pick,
        )
        return Arranged(*walk)


class OrderPath(SemanticOrder):
    """The default: one path by greedy edges, joined ends, 2-opt and Or-opt."""

    op: Literal["order.path"]
    k_join: int = Field(32, ge=2)
    improve: Literal["none", "2opt", "2opt+oropt"] = "2opt+oropt"

    summary: ClassVar[str] = "one path of high similarity between neighbours"
    source: ClassVar[str] = "longctx; Bentley 1992 for the searches, Held-Karp 1970 for the bound"
    cost: ClassVar[str] = "about 0.1 ms per document after the neighbour search; 98 % of the bound"
    may_turn: ClassVar[bool] = True
    one_tour: ClassVar[bool] = True

    def graph_width(self) -> int:
        """Neighbours of the graph, or as many as the improvement looks at."""
        from longctx.order.improve import NEIGHBOURS

        return max(self.k, NEIGHBOURS)

    def arrange(self, graph: "Graph", brought: list[StepRef], setting: Setting) -> "Arranged":
        from longctx.cluster.cells import search_within
        from longctx.cluster.knn import edge_parts
        from longctx.order.improve import improve_path
        from longctx.order.path import path_of_parts
        from longctx.order.tours import Arranged

        parts = edge_parts(graph.lists, graph.sims, self.k)
        search = None if graph.cells is None else search_within(graph.X, graph.cells)
        path = path_of_parts(graph.X, parts, self.k_join, search)
        if self.improve != "none" and len(path) > 2:
            path = improve_path(graph.X, path, graph.lists, graph.sims, moves=self.improve)
        return Arranged(path, np.zeros(min(1, len(path)), dtype=np.int64))
