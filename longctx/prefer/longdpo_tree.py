"""The tree of one prompt: steps as nodes, what a search made of them, and the tree as a table.

Nodes are numbered as they were written, the root is 0 and has no text. A search changes nodes and
appends `Layer`s, one a depth of the path that it took; everything that follows (pairs, values, the
dump) is read from the tree afterwards.
"""

from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import pyarrow as pa

from longctx.prefer.longdpo import PRINCIPLES, Target, quality

# What became of a node. `dead`: it contradicts what the text stated before, or nothing could be
# written behind it. `refined`: written anew after critique; `replaced`: the step that it replaced.
Status = Literal["root", "scored", "open", "closed", "dead", "judge_failed", "replaced", "refined"]
CHOSEN, REJECTED = "chosen", "rejected"

NODES = pa.schema(
    {
        "id": pa.string(),
        "node": pa.int32(),
        "parent": pa.int32(),
        "depth": pa.int32(),
        "text": pa.string(),
        "finish": pa.string(),
        "marks": pa.list_(pa.float64()),
        "R": pa.float64(),
        "s": pa.float64(),
        "u": pa.float64(),
        "N": pa.int32(),
        "W": pa.float64(),
        "status": pa.string(),
        "role": pa.string(),
        "detail": pa.string(),
    }.items()
)


@dataclass(frozen=True)
class Task:
    """What is to be written: a prompt, its language, and the wanted length where there is one."""

    id: str
    prompt: str
    lang: str = "en"
    target: Target | None = None


@dataclass
class Node:
    """One step. `u` is None where no judge could mark it; N and W are those of rollouts."""

    number: int
    parent: int | None
    depth: int
    text: str
    finish: str
    marks: tuple[float, ...] | None = None
    R: float | None = None
    s: float | None = None
    u: float | None = None
    N: int = 0
    W: float = 0.0
    status: Status = "scored"
    detail: str = ""
    children: list[int] = field(default_factory=list)
    expanded: bool = False
    checked: bool = False
    facts: list[str] | None = None

    @property
    def mean(self) -> float:
        """W/N, and u of a node that was never visited."""
        return self.W / self.N if self.N else self.u or 0.0

    @property
    def q(self) -> float:
        """Quality without length; of a node that was marked."""
        assert self.R is not None, "only marked nodes are compared"
        return quality(self.R)


@dataclass(frozen=True)
class Layer:
    """One depth of the path. `chosen` is the step that pairs show, `kept` the one that goes on.

    They differ where a refined step is shown and the old one kept. `code` says why this depth gives
    no pair, "" where it may give one.
    """

    depth: int
    parent: int
    chosen: int
    kept: int
    code: str = ""


@dataclass
class Tree:
    """A prompt with its nodes; `counts` tell what was asked and what failed."""

    task: Task
    nodes: list[Node] = field(default_factory=list)
    layers: list[Layer] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)
    code: str = ""  # why the search ended before its text did
    u_full: float | None = None

    def __post_init__(self) -> None:
        if not self.nodes:
            self.nodes.append(Node(0, None, 0, "", "length", status="root"))

    @property
    def root(self) -> Node:
        return self.nodes[0]

    def add(self, parent: Node, text: str, finish: str) -> Node:
        """A new node below `parent`; it becomes a child when it is marked."""
        node = Node(len(self.nodes), parent.number, parent.depth + 1, text, finish)
        self.nodes.append(node)
        return node

    def path(self, node: Node) -> list[Node]:
        """The nodes from the first step to this one."""
        found = []
        while node.parent is not None:
            found.append(node)
            node = self.nodes[node.parent]
        return found[::-1]

    def text(self, node: Node) -> str:
        """All that is written up to the end of a node."""
        return "".join(step.text for step in self.path(node))

    def children(self, node: Node) -> list[Node]:
        """Marked children, in the order in which they were written."""
        return [self.nodes[i] for i in node.children]

    def label(self, node: Node) -> str:
        """The place of a node as text: numbers of the nodes on its path."""
        return ".".join(str(n.number) for n in [self.root, *self.path(node)])

    def memory(self, node: Node) -> list[str]:
        """Facts of the path up to a node, each once."""
        told = (fact for step in self.path(node) for fact in step.facts or ())
        return list(dict.fromkeys(told))

    def count(self, name: str, by: int = 1) -> None:
        self.counts[name] = self.counts.get(name, 0) + by

    @property
    def final(self) -> str:
        """The text that the path ends with; empty where no step was written."""
        return self.text(self.nodes[self.layers[-1].kept]) if self.layers else ""


def node_rows(tree: Tree, roles: dict[int, str]) -> list[dict[str, Any]]:
    """The tree as rows of `NODES`, in the order in which they were written."""
    return [
        {
            "id": tree.task.id,
            "node": node.number,
            "parent": node.parent,
            "depth": node.depth,
            "text": node.text,
            "finish": node.finish,
            "marks": None if node.marks is None else list(node.marks),
            **{name: getattr(node, name) for name in ("R", "s", "u", "N", "W", "status")},
            "role": roles.get(node.number, ""),
            "detail": node.detail,
        }
        for node in tree.nodes
    ]


def dims(node: Node) -> dict[str, float]:
    """The marks of a node by principle."""
    return dict(zip(PRINCIPLES, node.marks or (), strict=False))


def to_value(tree: Tree) -> dict[str, Any]:
    """The tree as plain JSON values, without its task."""
    return {
        "nodes": [asdict(node) for node in tree.nodes],
        "layers": [asdict(layer) for layer in tree.layers],
        "counts": tree.counts,
        "code": tree.code,
        "u_full": tree.u_full,
    }


def of_value(value: dict[str, Any], task: Task) -> Tree:
    """The tree of `to_value`, read back."""
    nodes = [Node(**{**node, "marks": _tuple(node["marks"])}) for node in value["nodes"]]
    layers = [Layer(**layer) for layer in value["layers"]]
    return Tree(task, nodes, layers, dict(value["counts"]), value["code"], value["u_full"])


def _tuple(marks: list[float] | None) -> tuple[float, ...] | None:
    return None if marks is None else tuple(marks)
