"""A search tree of steps as inline SVG: what was written, what it was worth, what became of it.

From the left to the right by depth, candidates of a step below one another in the order in which
they were written. Each box says depth, reward u, mark R, visits, and in words what it is; its text
is the tooltip. A large tree shows the candidates along its path alone and says at each box how
many lie below. Positions are pixels, so labels keep their size and a wide tree scrolls. Linear in
the nodes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from longctx.report.markup import Markup, tag, text

MOST_NODES = 80
_WIDTH, _HEIGHT, _GAP, _COLUMN = 168, 60, 12, 212
_LINE, _MARGIN, _BAR = 17, 4, 5
_EXCERPT = 400
# What a box says and the tone of its edge, the first that fits.
_ROLES = {"chosen": ("chosen", "accent"), "rejected": ("rejected", "contrast")}
_STATES = {
    "dead": ("contradicts or leads nowhere", "neutral"),
    "judge_failed": ("not judged", "neutral"),
    "replaced": ("replaced", "neutral"),
}

Node = Mapping[str, Any]


@dataclass(frozen=True)
class _Box:
    """A node at its place; `below` is how many of its descendants are not drawn."""

    node: Node
    x: float
    y: float
    below: int


def tree_svg(nodes: Sequence[Node], most: int = MOST_NODES) -> Markup:
    """The tree of one prompt; `nodes` are its rows of `tree-*.parquet`, the root among them.

    Of more than `most` nodes only those on the path of chosen steps and their siblings are drawn.
    """
    ordered = sorted(nodes, key=lambda n: n["node"])
    below = _children(ordered)
    shown = {n["node"] for n in ordered}
    if len(shown) > most:
        path = {n["node"] for n in ordered if n["role"] == "chosen" or n["parent"] is None}
        shown = {n["node"] for n in ordered if n["node"] in path or n["parent"] in path}
    boxes = _placed(ordered, below, shown)
    width = max((b.x for b in boxes.values()), default=0) + _WIDTH + _MARGIN
    height = max((b.y for b in boxes.values()), default=0) + _HEIGHT + _MARGIN
    said = f"{len(ordered) - 1} steps, {max((n['depth'] for n in ordered), default=0)} deep"
    drawn = tag(
        "svg",
        tag("title", text("Search tree")),
        tag("desc", text(said)),
        *(_edge(boxes[b.node["parent"]], b) for b in boxes.values() if _has_parent(b, boxes)),
        *(_drawn(box) for box in boxes.values()),
        role="img",
        width=round(width),
        height=round(height),
        viewBox=f"0 0 {width:g} {height:g}",
    )
    return tag("div", drawn, class_="scroll")


def _children(nodes: Sequence[Node]) -> dict[int, list[int]]:
    found: dict[int, list[int]] = {n["node"]: [] for n in nodes}
    for node in nodes:
        if node["parent"] is not None:
            found[node["parent"]].append(node["node"])
    return found


def _placed(
    nodes: Sequence[Node], below: Mapping[int, Sequence[int]], shown: set[int]
) -> dict[int, _Box]:
    """Boxes by number: ends one below the other, every other node in the middle of its children."""
    boxes: dict[int, _Box] = {}
    sizes: dict[int, int] = {}
    rows = _rows(nodes, below, shown)
    # A child is numbered after its parent.
    for node in reversed(nodes):
        number, mine = node["node"], below[node["node"]]
        sizes[number] = 1 + sum(sizes[c] for c in mine)
        if number not in shown:
            continue
        drawn = [boxes[c].y for c in mine if c in boxes]
        y = (drawn[0] + drawn[-1]) / 2 if drawn else rows[number] * (_HEIGHT + _GAP) + _MARGIN
        hidden = sum(sizes[c] for c in mine if c not in shown)
        boxes[number] = _Box(node, node["depth"] * _COLUMN + _MARGIN, y, hidden)
    return dict(sorted(boxes.items()))


def _rows(
    nodes: Sequence[Node], below: Mapping[int, Sequence[int]], shown: set[int]
) -> dict[int, int]:
    """Rows of the ends, from above, in the order of the tree."""
    found: dict[int, int] = {}
    waiting = [n["node"] for n in reversed(nodes) if n["parent"] is None]
    while waiting:
        number = waiting.pop()
        mine = [c for c in below[number] if c in shown]
        if not mine:
            found[number] = len(found)
        waiting += reversed(mine)
    return found


def _has_parent(box: _Box, boxes: Mapping[int, _Box]) -> bool:
    return box.node["parent"] in boxes


def _edge(parent: _Box, child: _Box) -> Markup:
    x1, y1 = parent.x + _WIDTH, parent.y + _HEIGHT / 2
    x2, y2 = child.x, child.y + _HEIGHT / 2
    middle = (x1 + x2) / 2
    chosen = child.node["role"] == "chosen"
    return tag(
        "path",
        d=f"M{x1:g} {y1:g} C{middle:g} {y1:g} {middle:g} {y2:g} {x2:g} {y2:g}",
        fill="none",
        stroke="currentColor",
        stroke_width=2.5 if chosen else 1,
        stroke_opacity=0.9 if chosen else 0.35,
    )


def _drawn(box: _Box) -> Markup:
    node, x, y = box.node, box.x, box.y
    name, tone = _ROLES.get(node["role"]) or _STATES.get(node["status"]) or ("", None)
    dashed = node["status"] in _STATES
    frame = tag(
        "rect",
        x=x,
        y=y,
        width=_WIDTH,
        height=_HEIGHT,
        rx=4,
        fill="none",
        stroke="currentColor",
        stroke_opacity=0.9 if node["role"] == "chosen" else 0.35,
        stroke_dasharray="4 3" if dashed else None,
    )
    bar = tag("rect", x=x, y=y, width=_BAR, height=_HEIGHT, class_=f"tone-{tone}")
    lines = [_heading(node), _numbers(node), _mark(node, name, box.below)]
    return tag(
        "g",
        tag("title", text(_tooltip(node))),
        frame,
        *([bar] if tone else []),
        *(_line(said, x, y, i) for i, said in enumerate(lines) if said),
    )


def _line(said: str, x: float, y: float, i: int) -> Markup:
    return tag(
        "text",
        text(said),
        x=x + _BAR + 7,
        y=y + _LINE * (i + 1),
        font_size=12,
        font_weight="600" if i == 0 else None,
        fill="currentColor",
    )


def _heading(node: Node) -> str:
    if node["parent"] is None:
        return "prompt"
    worth = "no reward" if node["u"] is None else f"u {node['u']:.2f}"
    return f"depth {node['depth']}, {worth}"


def _numbers(node: Node) -> str:
    mark = "" if node["R"] is None else f"mark {node['R']:.2f}"
    visits = "" if not node["N"] else f"{node['N']} visit{'s' if node['N'] > 1 else ''}"
    mean = f" of {node['W'] / node['N']:.2f}" if node["N"] else ""
    return ", ".join(said for said in (mark, visits + mean) if said)


def _mark(node: Node, name: str, below: int) -> str:
    refined = "refined" if node["status"] == "refined" else ""
    more = f"{below} more below" if below else ""
    return ", ".join(said for said in (name, refined, more) if said)


def _tooltip(node: Node) -> str:
    if node["parent"] is None:
        return "the prompt"
    whole = " ".join(node["text"].split())
    excerpt = whole if len(whole) <= _EXCERPT else f"{whole[:_EXCERPT].rstrip()} …"
    return f"{excerpt}\n[{node['detail']}]" if node["detail"] else excerpt
