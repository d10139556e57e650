"""The drawing of a search tree: a place and words for every node, texts escaped."""

from itertools import pairwise
from typing import Any
from xml.etree import ElementTree

from hypothesis import given
from hypothesis import strategies as st

from longctx.report.prefer_tree import tree_svg

Row = dict[str, Any]


def node(number: int, parent: int | None, depth: int, **changes: Any) -> Row:
    usual: Row = {"id": "t", "text": f"step {number}", "finish": "length", "marks": None}
    usual |= {"R": 4.1, "s": None, "u": 0.775, "N": 0, "W": 0.0, "status": "scored"}
    usual |= {"role": "", "detail": "", "node": number, "parent": parent, "depth": depth}
    return usual | changes


ROOT = node(0, None, 0, R=None, u=None, status="root", text="")
TREE = [
    ROOT,
    node(1, 0, 1, role="chosen", N=2, W=1.5),
    node(2, 0, 1, role="rejected", text='<b>bold</b> & "more"'),
    node(3, 1, 2, status="dead", detail="The bridge is old. | not old"),
    node(4, 1, 2, role="chosen", status="refined"),
    node(5, 1, 2, status="judge_failed", R=None, u=None),
    node(6, 1, 2, status="replaced", text="x" * 900),
]


def parsed(nodes: list[Row], **changes: Any) -> ElementTree.Element:
    svg = ElementTree.fromstring(tree_svg(nodes, **changes)).find("svg")
    assert svg is not None
    return svg


def boxes(svg: ElementTree.Element) -> list[tuple[float, float, list[str]]]:
    found = []
    for group in svg.findall("g"):
        frame = group.find("rect")
        assert frame is not None
        lines = [t.text or "" for t in group.findall("text")]
        found.append((float(frame.get("x", "")), float(frame.get("y", "")), lines))
    return found


def test_boxes_say_what_their_nodes_are() -> None:
    lines = [lines for _, _, lines in boxes(parsed(TREE))]
    assert lines == [
        ["prompt"],
        ["depth 1, u 0.78", "mark 4.10, 2 visits of 0.75", "chosen"],
        ["depth 1, u 0.78", "mark 4.10", "rejected"],
        ["depth 2, u 0.78", "mark 4.10", "contradicts or leads nowhere"],
        ["depth 2, u 0.78", "mark 4.10", "chosen, refined"],
        ["depth 2, no reward", "not judged"],
        ["depth 2, u 0.78", "mark 4.10", "replaced"],
    ]


def test_texts_are_tooltips_escaped_and_cut() -> None:
    drawn = tree_svg(TREE)
    assert "<b>" not in drawn
    told = [group.findtext("title") or "" for group in parsed(TREE).findall("g")]
    assert told[2] == '<b>bold</b> & "more"'
    assert told[3] == "step 3\n[The bridge is old. | not old]"
    assert told[6] == "x" * 400 + " …"


def test_a_large_tree_shows_its_path_and_counts_the_rest() -> None:
    more = [*TREE, *(node(7 + i, 2, 2) for i in range(5)), node(12, 7, 3)]
    found = boxes(parsed(more, most=8))
    assert len(found) == 7
    assert found[2][2] == ["depth 1, u 0.78", "mark 4.10", "rejected, 6 more below"]
    assert len(boxes(parsed(more))) == len(more)


def test_a_root_alone_is_a_tree() -> None:
    assert [lines for _, _, lines in boxes(parsed([ROOT]))] == [["prompt"]]


@given(st.lists(st.integers(0, 10**6), max_size=40))
def test_no_two_boxes_overlap_and_all_lie_inside(parents: list[int]) -> None:
    nodes = [ROOT]
    for number, drawn in enumerate(parents, 1):
        above = nodes[drawn % number]
        nodes.append(node(number, above["node"], above["depth"] + 1))
    svg = parsed(nodes)
    places = [(x, y) for x, y, _ in boxes(svg)]
    assert len(places) == len(nodes)
    for x in {x for x, _ in places}:
        column = sorted(y for other, y in places if other == x)
        assert all(b - a >= 60 for a, b in pairwise(column))
    width, height = float(svg.get("width", "")), float(svg.get("height", ""))
    assert all(0 <= x <= width - 168 and 0 <= y <= height - 60 for x, y in places)
    assert len(svg.findall("path")) == len(nodes) - 1
