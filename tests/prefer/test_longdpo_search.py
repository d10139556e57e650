"""Searches of LongDPO in planted worlds: the worked trace, contradictions, critique, invariants."""

import math
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from longctx.ids import h64
from longctx.prefer.longdpo import Target
from longctx.prefer.longdpo_mcts import values
from longctx.prefer.longdpo_memory import Fact
from longctx.prefer.longdpo_search import (
    Contradict,
    Critique,
    Expand,
    Judge,
    Refine,
    Settings,
    Suggestion,
    Written,
)
from longctx.prefer.longdpo_tree import Task, Tree, node_rows
from tests.prefer.longdpo_world import World, marked

U = {"A": 0.6, "B": 0.5, "A1": 0.7, "A2": 0.4, "B1": 0.3, "B2": 0.8}
V = {"A1": 0.55, "A2": 0.65, "B1": 0.2, "B2": 0.9}


def last(text: str) -> str:
    return text.split()[-1]


def two_by_two(question: Expand) -> Written:
    names = ("A", "B") if not question.prefix else [last(question.prefix) + d for d in "12"]
    return Written(f" {names[question.sample]}", "length")


def traced(question: Judge) -> float:
    return marked((V if question.whole else U)[last(question.step)])


def grow_traced(**changes: Any) -> tuple[World, Tree]:
    world = World(two_by_two, traced)
    usual: dict[str, Any] = {"children": 2, "depth": 2, "search": "mcts"}
    (tree,) = world.grow(Settings(**usual | changes))
    return world, tree


def named(tree: Tree) -> dict[str, Any]:
    return {node.text.strip(): node for node in tree.nodes}


def test_the_worked_trace_of_mcts() -> None:
    world, tree = grow_traced()
    wholes = [last(q.step) for q in world.questions if isinstance(q, Judge) and q.whole]
    assert wholes == ["A1", "B2", "B1", "A2"]
    found = named(tree)
    assert found[""].N == 4
    assert found[""].status == "closed"
    assert found["A"].mean == pytest.approx(0.6)
    assert found["B"].mean == pytest.approx(0.55)
    assert found[""].mean == pytest.approx(0.575)
    assert {name: found[name].W for name in V} == pytest.approx(V)
    assert {name: found[name].u for name in U} == pytest.approx(U)
    # Four texts are too few for ranks: values are means of V, so A2 wins although B2 is best.
    assert [tree.nodes[layer.chosen].text.strip() for layer in tree.layers] == ["A", "A2"]
    assert tree.u_full == pytest.approx(0.65)


def test_the_extremes_of_c() -> None:
    # Without a bonus the best mean is followed until it is closed.
    world, tree = grow_traced(c=0.0, rollouts=2)
    assert [last(q.step) for q in world.questions if isinstance(q, Judge) and q.whole] == [
        "A1",
        "A2",
    ]
    # With a huge one visits are spread evenly.
    wide = World(wide_steps, lambda q: marked(h64(q.step.encode()) % 100 / 100))
    (tree,) = wide.grow(Settings(children=3, depth=3, search="mcts", c=1e6, rollouts=9))
    assert [n.N for n in tree.children(tree.root)] == [3, 3, 3]
    assert tree.root.N == 9
    narrow = World(wide_steps, lambda q: marked(0.9 if q.step.endswith("0") else 0.1))
    (tree,) = narrow.grow(Settings(children=3, depth=3, search="mcts", c=0.0, rollouts=5))
    assert [n.N for n in tree.children(tree.root)] == [5, 0, 0]


def wide_steps(question: Expand) -> Written:
    return Written(f" {question.at}-{question.sample}", "length")


def test_buckets_of_ranks_go_up_as_means() -> None:
    steps = {"": ["A", "B"], "A": ["A1", "A2", "A3"], "B": ["B1", "B2", "B3"]}
    ends = dict(
        zip(["A1", "A2", "A3", "B1", "B2", "B3"], [0.9, 0.7, 0.5, 0.8, 0.4, 0.3], strict=True)
    )

    def write(question: Expand) -> Written | None:
        names = steps[last(question.prefix) if question.prefix else ""]
        there = question.sample < len(names)
        return Written(f" {names[question.sample]}", "length") if there else None

    world = World(write, lambda q: marked(ends.get(last(q.step), 0.5)))
    (tree,) = world.grow(Settings(children=3, depth=2, search="mcts", rollouts=16))
    found = values(tree)
    by_name = {node.text.strip(): found[node.number] for node in tree.nodes}
    assert [by_name[name] for name in ends] == [2, 0, 0, 1, -1, -2]
    assert by_name["A"] == pytest.approx(2 / 3)
    assert by_name["B"] == pytest.approx(-2 / 3)
    assert by_name[""] == pytest.approx(0)


BRIDGE = "The bridge was built in 1890."


def bridged(question: Expand) -> Written:
    if question.depth == 1:
        return Written(f"{BRIDGE} Version {'abcd'[question.sample]}.", "length")
    texts = [
        "It was not built in 1890 the bridge.",
        "Boats pass it.",
        "Carts use it.",
        "Rain falls.",
    ]
    return Written(f" {texts[question.sample]}", "stop" if question.depth == 3 else "length")


def judged(question: Judge) -> float:
    return 4.6 if "not built" in question.step else 4.0 if "Boats" in question.step else 3.0


def denies(question: Contradict) -> str:
    return "not built in 1890" if "not built" in question.segment else ""


@pytest.mark.parametrize("search", ["greedy", "mcts"])
def test_a_planted_contradiction_is_skipped(search: Any) -> None:
    world = World(bridged, judged, lambda q: [Fact(BRIDGE)] if BRIDGE in q.step else [], denies)
    (tree,) = world.grow(Settings(depth=2, search=search, tau=0.3, rollouts=16))
    best = next(n for n in tree.nodes if "not built" in n.text)
    assert best.u is not None
    assert best.status == "dead"
    assert best.detail == f"{BRIDGE} | not built in 1890"
    assert tree.nodes[tree.layers[1].chosen].text == " Boats pass it."
    assert best.N == 0
    assert world.asked["Contradict"] >= 1
    assert tree.counts["contradictions"] >= 1
    assert tree.counts["pairs_passed"] == world.asked["Contradict"]
    untold = World(bridged, judged, lambda q: [Fact(BRIDGE, flagged=True)], denies)
    (tree,) = untold.grow(Settings(depth=2, search=search, tau=0.3))
    assert "not built" in tree.final or search == "mcts"
    assert untold.asked["Contradict"] == 0
    (tree,) = world.grow(Settings(depth=2, search=search, tau=0.3, memory=False))
    assert all(n.status != "dead" for n in tree.nodes)


def test_where_all_contradict_the_layer_has_no_pair() -> None:
    world = World(bridged, judged, lambda q: [Fact("Boats pass it.")], lambda q: q.segment)
    (tree,) = world.grow(Settings(depth=2, tau=-1.0))
    assert [layer.code for layer in tree.layers] == ["", "inconsistent"]
    assert tree.code == ""


def test_memory_holds_the_facts_of_the_path_alone() -> None:
    world = World(wide_steps, lambda q: 3.0, lambda q: [Fact(f"Told{q.step}")])
    (tree,) = world.grow(Settings(children=2, depth=3, search="mcts", rollouts=8))
    for node in tree.nodes:
        own = [f"Told{step.text}" for step in tree.path(node) if step.facts]
        assert tree.memory(node) == own
    extracted = [q.at for q in world.questions if type(q).__name__ == "Extract"]
    assert len(extracted) == len(set(extracted))


def test_equal_candidates_are_one_and_few_of_them_are_drawn_again() -> None:
    world = World(lambda q: Written(" same", "length"), lambda q: 3.0)
    (tree,) = world.grow(Settings(depth=1))
    assert world.asked["Expand"] == 8
    assert [q.again for q in world.questions if isinstance(q, Expand)] == [False] * 4 + [True] * 4
    assert [q.sample for q in world.questions if isinstance(q, Expand)] == list(range(8))
    assert [layer.code for layer in tree.layers] == ["too_few_candidates"]
    assert tree.final == " same"


def test_candidates_that_no_judge_marks_are_dropped() -> None:
    world = World(wide_steps, lambda q: None if q.step.endswith("-0") else 3.0)
    (tree,) = world.grow(Settings(depth=1))
    assert [n.status for n in tree.nodes[1:]] == ["judge_failed", "scored", "scored", "scored"]
    assert len(tree.children(tree.root)) == 3
    unmarked = World(wide_steps, lambda q: None)
    for search in ("greedy", "mcts"):
        (tree,) = unmarked.grow(Settings(depth=2, search=search))
        assert (tree.code, tree.layers) == ("judge_failed", [])


def test_a_model_with_nothing_to_add_ends_the_text_before() -> None:
    def write(question: Expand) -> Written:
        return wide_steps(question) if question.depth == 1 else Written("", "stop")

    for search in ("greedy", "mcts"):
        (tree,) = World(write, lambda q: 3.0).grow(Settings(depth=4, search=search, rollouts=2))
        assert len(tree.layers) == 1
        assert tree.code == ""
        assert tree.nodes[tree.layers[0].chosen].finish == "stop"


def test_failed_replies_end_the_search_with_a_reason() -> None:
    (tree,) = World(lambda q: None, lambda q: 3.0).grow(Settings())
    assert (tree.code, tree.counts["candidates_failed"]) == ("too_few_candidates", 8)
    late = World(lambda q: wide_steps(q) if q.depth < 3 else None, lambda q: 3.0)
    (tree,) = late.grow(Settings())
    assert (tree.code, len(tree.layers)) == ("too_few_candidates", 2)


def test_critique_improves_a_weak_step_or_leaves_it() -> None:
    def marks(question: Judge) -> Sequence[float]:
        base = [2.0] * 7
        if question.step.endswith("-1"):
            base = [1.0] * 6 + [4.0]
        return [3.0] * 7 if "better" in question.step else base

    told = {7: Suggestion("Open a view.", 5)}
    usual: dict[str, Any] = {
        "critique": lambda q: told.get(q.principle),
        "refine": lambda q: Written(f" better {q.depth}", "length"),
    }
    world = World(wide_steps, marks, **usual)
    (tree,) = world.grow(Settings(children=2, depth=2))
    assert tree.final == " better 1 better 2"
    assert [q.principle for q in world.questions if type(q).__name__ == "Critique"] == [7, 7]
    (ask, _) = [q for q in world.questions if type(q).__name__ == "Refine"]
    assert ask.suggestions == ("Open a view.",)
    assert [n.status for n in tree.children(tree.root)] == ["replaced", "scored"]
    (tree,) = World(wide_steps, marks, **usual).grow(
        Settings(children=2, depth=2, refine="offline")
    )
    assert [tree.nodes[layer.chosen].status for layer in tree.layers] == ["refined", "refined"]
    assert "better" not in tree.final
    (tree,) = World(wide_steps, marks, **usual).grow(Settings(children=2, refine="off"))
    assert "refined" not in {n.status for n in tree.nodes}
    worse = {**usual, "refine": lambda q: Written(" worse", "length")}
    (tree,) = World(wide_steps, marks, **worse).grow(Settings(children=2, depth=1))
    assert tree.final.endswith("-0")


def test_suggestions_of_highest_confidence_are_taken() -> None:
    texts = (" one two three four", " one")
    sure = [3, 5, 5, 2, 5, 5, 1]
    world = World(
        lambda q: Written(texts[q.sample], "length"),
        lambda q: 2.0 if "four" in q.step else 2.5,
        critique=lambda q: Suggestion(f"s{q.principle}", sure[q.principle - 1]),
    )
    # The first is chosen for its length, and learns from the other in every principle.
    (tree,) = world.grow(Settings(children=2, depth=1), Task("t", "Write.", target=Target(4)))
    assert tree.final == texts[0]
    critiques = [q for q in world.questions if isinstance(q, Critique)]
    assert [(q.principle, q.step, q.better) for q in critiques] == [
        (p, *texts) for p in range(1, 8)
    ]
    (refine,) = (q for q in world.questions if isinstance(q, Refine))
    assert refine.suggestions == ("s2", "s3", "s5")


WORLDS = st.tuples(st.integers(1, 4), st.integers(1, 3), st.integers(0, 10**6), st.integers(1, 12))


def drawn(seed: int, k: int) -> World:
    """Steps that end, fail or repeat, and marks that fail, by the hash of what is asked."""

    def write(question: Expand) -> Written | None:
        h = h64(f"{seed}{question.task.id}{question.prefix}{question.sample}".encode())
        if h % 11 == 0:
            return None
        return Written(f" n{h % (3 * k)}" if h % 13 else "", "stop" if h % 5 == 0 else "length")

    def marks(question: Judge) -> float | None:
        h = h64(f"{seed}{question.prefix}{question.step}".encode())
        return None if h % 17 == 0 else 1 + h % 401 / 100

    def denied(question: Contradict) -> str:
        return question.segment if h64(question.segment.encode()) % 3 == 0 else ""

    return World(write, marks, lambda q: [Fact(f"fact {q.step}")], denied)


@settings(max_examples=60, deadline=None)
@given(WORLDS, st.sampled_from(["greedy", "mcts"]))
def test_invariants_of_any_search(given_world: tuple[int, int, int, int], search: Any) -> None:
    k, depth, seed, rollouts = given_world
    chosen = Settings(children=k, depth=depth, search=search, rollouts=rollouts, tau=0.1)
    (tree,) = drawn(seed, k).grow(chosen)
    (again,) = drawn(seed, k).grow(chosen)
    assert node_rows(tree, {}) == node_rows(again, {})
    for node in tree.nodes:
        below = tree.children(node)
        assert len({n.text for n in below}) == len(below) <= 2 * k
        assert node.depth <= depth
        if any(n.N for n in below):
            assert sum(n.N for n in below) == node.N
            assert math.isclose(node.W, math.fsum(n.W for n in below), abs_tol=1e-9)
    assert rollouts >= tree.root.N
    assert [layer.depth for layer in tree.layers] == list(range(1, len(tree.layers) + 1))
    for layer, after in zip(tree.layers, tree.layers[1:], strict=False):
        assert after.parent == layer.kept
    joined = "".join(tree.nodes[layer.kept].text for layer in tree.layers)
    assert joined == tree.final


@settings(max_examples=20, deadline=None)
@given(WORLDS)
def test_trees_are_the_same_alone_and_together(given_world: tuple[int, int, int, int]) -> None:
    k, depth, seed, rollouts = given_world
    tasks = [Task(f"t{i}", "Write.") for i in range(3)]
    chosen = Settings(children=k, depth=depth, search="mcts", rollouts=rollouts, tau=0.1)
    alone = [drawn(seed, k).grow(chosen, task)[0] for task in tasks]
    for a, b in zip(alone, drawn(seed, k).grow(chosen, *tasks), strict=True):
        assert node_rows(a, {}) == node_rows(b, {})
        assert a.layers == b.layers
