"""Pairs of steps: which sibling is rejected, what a pair must not be, depths without a gap."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from longctx.ids import h64
from longctx.prefer.longdpo import Target
from longctx.prefer.longdpo_memory import Fact
from longctx.prefer.longdpo_pairs import Choice, Pairs, final_row, pairs_of, roles
from longctx.prefer.longdpo_search import Expand, Settings, Written
from longctx.prefer.longdpo_tree import NODES, Task, Tree, node_rows
from longctx.synth.draw import generator
from tests.prefer.longdpo_world import World
from tests.prefer.test_longdpo_search import BRIDGE, bridged, denies, judged, traced, two_by_two

TEXTS = [
    "Ships came into the harbour with grain and salt.",
    "A quiet clerk counted barrels until the lamps failed.",
    "Nobody knew why the northern road had been closed.",
    "The council met twice and settled nothing at all.",
]


def draw(depth: int) -> np.random.Generator:
    return generator(0, "longdpo", f"rejected/{depth}", "t")


def planted(question: Expand) -> Written:
    text = f" Part {question.depth}. {TEXTS[question.sample]}"
    return Written(text, "stop" if question.depth == 3 else "length")


def by_rank(question: Any) -> float:
    return 4.8 - next((i for i, text in enumerate(TEXTS) if text in question.step), 0)


def grown(world: World | None = None, task: Task | None = None, **changes: Any) -> Tree:
    usual: dict[str, Any] = {"depth": 3, "tau": 0.3}
    made = Settings(**usual | changes)
    (tree,) = (world or World(planted, by_rank)).grow(made, task or Task("t", "Write."))
    return tree


def found(tree: Tree, **changes: Any) -> Pairs:
    return pairs_of(tree, Choice(**changes), draw)


def ranks(pairs: Pairs) -> list[tuple[int, int]]:
    def of(text: str) -> int:
        return next(i for i, known in enumerate(TEXTS) if known in text)

    return [(of(p.chosen.text), of(p.rejected.text)) for p in pairs.pairs]


def test_planted_candidates_are_ranked_as_planted() -> None:
    tree = grown()
    assert [c for c, _ in ranks(found(tree))] == [0, 0, 0]
    assert ranks(found(tree, rule="worst")) == [(0, 3)] * 3
    several = {r for seed in range(9) for _, r in ranks(pairs_of(tree, Choice(), at(seed)))}
    assert several == {1, 2, 3}
    assert ranks(found(tree)) == ranks(found(tree))
    # Of q = .95, .7, .45, .2 two deviations below the mean is .016.
    assert ranks(found(tree, rule="mu-2sigma")) == [(0, 3)] * 3
    order = sorted(tree.children(tree.root), key=lambda n: -(n.u or 0))
    assert [TEXTS[i] in order[i].text for i in range(4)] == [True] * 4


def at(seed: int) -> Any:
    return lambda depth: generator(seed, "longdpo", f"rejected/{depth}", "t")


def test_pairs_share_their_beginning_and_the_last_one_ends_the_text() -> None:
    tree = grown()
    pairs, rejects = found(tree)
    assert not rejects
    assert [p.prefix for p in pairs] == ["", *joins(tree)[:-1]]
    assert [p.last for p in pairs] == [False, False, True]
    assert all((p.chosen.score or 0) - (p.rejected.score or 9) >= 0.02 for p in pairs)
    assert pairs[0].chosen.dims.keys() == {f"p{i}" for i in range(1, 8)}
    marks = roles(tree, pairs)
    assert sorted(marks.values()) == ["chosen"] * 3 + ["rejected"] * 3
    rows = node_rows(tree, marks)
    assert {row["role"] for row in rows} == {"", "chosen", "rejected"}
    assert set(rows[0]) == set(NODES.names)


def joins(tree: Tree) -> list[str]:
    made, text = [], ""
    for layer in tree.layers:
        text += tree.nodes[layer.kept].text
        made.append(text)
    return made


def test_a_margin_that_nobody_keeps_leaves_the_layer_without_a_pair() -> None:
    tree = grown(World(planted, lambda q: 3.0 + 0.01 * by_rank(q)))
    pairs, rejects = found(tree)
    assert not pairs
    assert [rejects[d].code for d in (1, 2, 3)] == ["small_margin"] * 3
    assert len(found(tree, margin=0.001).pairs) == 3


def test_a_sibling_that_contradicts_may_be_rejected_although_it_is_better() -> None:
    world = World(bridged, judged, lambda q: [Fact(BRIDGE)] if BRIDGE in q.step else [], denies)
    tree = grown(world, depth=2)
    rejected = [found_at(tree, seed) for seed in range(12)]
    against = [p for p in rejected if p is not None and "not built" in p.rejected.text]
    assert against
    for pair in against:
        assert pair.inconsistent
        assert pair.rule == "inconsistent"
        assert pair.rejected.score > pair.chosen.score
        assert tree.nodes[pair.rejected_node].detail.endswith("not built in 1890")


def found_at(tree: Tree, seed: int) -> Any:
    made = pairs_of(tree, Choice(max_ratio=4), at(seed)).pairs
    return next((p for p in made if p.layer.depth == 2), None)


@pytest.mark.parametrize(
    ("second", "code"),
    [
        ("salt and grain with harbour the into came ships", "duplicate"),
        (f"{' '.join(f'w{i}' for i in range(40))} end", "length_ratio"),
        ("one", "length_ratio"),
    ],
)
def test_what_no_pair_may_hold_is_passed_over(second: str, code: str) -> None:
    first = "ships came into the harbour with grain and salt"

    def write(question: Expand) -> Written:
        return Written((first, second, first, first)[question.sample], "stop")

    tree = grown(World(write, lambda q: 4.0 if q.step == first else 2.0), depth=1)
    pairs, rejects = found(tree)
    assert not pairs
    assert rejects[1].code == code


def test_pairs_of_mcts_follow_values() -> None:
    tree = grown(World(two_by_two, traced), children=2, depth=2, search="mcts")
    pairs, rejects = found(tree, search="mcts")
    assert not rejects
    assert [(p.chosen.text, p.rejected.text) for p in pairs] == [(" A", " B"), (" A2", " A1")]
    scores = [p.chosen.score for p in pairs] + [p.rejected.score for p in pairs]
    assert scores == pytest.approx([0.6, 0.65, 0.55, 0.55])
    wide = World(planted, lambda q: by_rank(q))
    tree = grown(wide, search="mcts", depth=1)
    more = pairs_of(tree, Choice(search="mcts", rule="worst", extra_pairs=True), draw)
    assert ranks(more) == [(0, 3), (0, 2)]


def test_the_joined_text_has_a_code_of_its_own() -> None:
    tree = grown(task=Task("t", "Write.", target=Target(31)))
    row = final_row(tree)
    assert (row["code"], row["steps"], row["text"]) == ("", 3, tree.final)
    assert row["words"] == 33
    assert row["s_l"] == pytest.approx(100 * (1 - (33 / 31 - 1) / 3))
    assert row["u_full"] == tree.u_full
    for x, code in ((200, "too_short"), (5, "too_long")):
        assert final_row(grown(task=Task("t", "Write.", target=Target(x))))["code"] == code
    assert final_row(grown(task=Task("t", "Write.", target=Target(200))), 0)["code"] == ""
    again = World(lambda q: Written(f"\n\n{TEXTS[0]} {TEXTS[1]}", "length"), by_rank)
    assert final_row(grown(again))["code"] == "repetition"
    assert final_row(grown(World(lambda q: None, by_rank)))["code"] == "too_few_candidates"
    assert final_row(grown())["s_l"] is None


WORLDS = st.tuples(st.integers(1, 5), st.integers(1, 4), st.integers(0, 10**6))


@settings(max_examples=60, deadline=None)
@given(WORLDS, st.sampled_from(["greedy", "mcts"]), st.sampled_from(["inline", "offline"]))
def test_depths_are_covered_without_a_gap(
    made: tuple[int, int, int], search: Any, refine: Any
) -> None:
    k, depth, seed = made

    def write(question: Expand) -> Written | None:
        h = h64(f"{seed}{question.prefix}{question.sample}".encode())
        text = " ".join(f"w{h % (7 + i)}" for i in range(4 + h % 3))
        return None if h % 9 == 0 else Written(f" {text}", "stop" if h % 7 == 0 else "length")

    world = World(write, lambda q: 1 + h64(f"{seed}{q.step}".encode()) % 401 / 100)
    tree = grown(world, children=k, depth=depth, search=search, refine=refine)
    pairs, rejects = found(tree, search=search)
    depths = sorted({p.layer.depth for p in pairs} | set(rejects))
    assert depths == list(range(1, len(tree.layers) + 1))
    assert all(not p.last or p.layer.depth == len(tree.layers) for p in pairs)
    for pair in pairs:
        assert pair.chosen.score is not None
        assert pair.rejected.score is not None
        assert sorted(pair.chosen.text.split()) != sorted(pair.rejected.text.split())
        gap = pair.chosen.score - pair.rejected.score
        assert pair.inconsistent or gap >= (0.02 - 1e-6 if search == "greedy" else 0)
        assert tree.final.startswith(pair.prefix)
