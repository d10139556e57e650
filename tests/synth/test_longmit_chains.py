"""Chains and verdicts of LongMIT without an engine, and figures that each fault is caught by."""

from typing import Any

import numpy as np
import pytest

from longctx.synth.checks import ks_uniform
from longctx.synth.longmit import Link, SingleQA, link_bounds
from longctx.synth.longmit_chains import (
    Candidate,
    Chain,
    Chains,
    across,
    as_reply,
    bounds_of,
    candidates_of,
    chains_of,
    duplicates,
    from_reply,
    levels_of,
    merge_items,
    necessity_by_model,
    necessity_by_rule,
    necessity_items,
    other_texts,
    similarities,
)
from longctx.synth.longmit_figures import facts, figures, judged, limit_share, row_problems
from longctx.synth.longmit_path import ASKED, NECESSITY, Path, PathDoc, questions_of
from longctx.synth.longmit_rows import Doc, Merged, Scores, assemble, long_context
from longctx.synth.tokens import TokenCounter

Row = dict[str, Any]
TEXTS = ["Orvik has 812 boats. Bergen is near.", "Bergen has 300 boats. Lund is far.", "Lund: 7."]
CUTS = [20, 21, 8]
DOCS = [
    PathDoc(f"d{i}", "s", len(text.split()), None, text, [[0, cut], [cut, len(text)]])
    for i, (text, cut) in enumerate(zip(TEXTS, CUTS, strict=True))
]
PATH = Path("d0", "en", DOCS)
SINGLES = [
    SingleQA("d0", 0, "How many boats has Orvik?", "812", "Orvik has 812 boats."),
    SingleQA("d1", 0, "How many boats has Bergen?", "300", "Bergen has 300 boats."),
    SingleQA("d0", 1, "What is near Orvik?", "Bergen", "Bergen is near."),
]
ROOM = 131_072 - 8_192
MERGED = Merged("Which has more boats, Orvik or Bergen?", "Orvik", "812 are more than 300.")


def candidate(*used: int) -> Candidate:
    return Candidate("d0/inter-0/2", [SINGLES[i] for i in used], [Link(None, None)] * 2, MERGED)


def test_what_is_left_without_a_clue() -> None:
    assert other_texts(PATH, candidate(0, 1), 0) == [TEXTS[1]]
    assert other_texts(PATH, candidate(0, 1), 1) == [TEXTS[0]]
    assert other_texts(PATH, candidate(0, 2), 0) == [" Bergen is near."]
    whole = PATH._replace(docs=[DOCS[0]._replace(chunks=[[0, len(TEXTS[0])]])])
    assert other_texts(whole, candidate(0)._replace(used=[SINGLES[0]] * 2), 0) == []


def test_necessity_by_rule_and_by_model() -> None:
    both, own = candidate(0, 1), candidate(0, 2)
    assert necessity_by_rule(PATH, both) == (True, None)
    again = [DOCS[0], DOCS[1]._replace(text=f"{TEXTS[1]} Orvik has 812."), DOCS[2]]
    assert necessity_by_rule(PATH._replace(docs=again), both) == (False, "clue_not_needed")
    vague = both._replace(used=[SINGLES[0]._replace(answer="yes"), SINGLES[1]])
    assert necessity_by_rule(PATH, vague) == (None, None)
    # Nothing is left of a document of one chunk.
    whole = PATH._replace(docs=[DOCS[0]._replace(chunks=[[0, 36]])])
    alone = own._replace(used=[SINGLES[0]] * 2)
    assert necessity_by_rule(whole, alone) == (None, None)
    assert necessity_items(whole, [alone]) == []
    assert necessity_by_model(whole, alone, {NECESSITY: {}}) == (None, None)
    no, yes = {"answer": "", "answerable": False}, {"answer": "812", "answerable": True}

    def said(first: Row | None, second: Row) -> Any:
        replies = {"d0/inter-0/2/0": first, "d0/inter-0/2/1": second}
        known = {NECESSITY: {i: reply for i, reply in replies.items() if reply}}
        return necessity_by_model(PATH, both, known)

    assert said(no, no) == (True, None)
    assert said(no, yes) == (False, "clue_not_needed")
    assert said(None, no) == (None, "judge_failed")
    assert said(None, yes) == (False, "clue_not_needed")
    asked = [item.replies[ASKED] for item in necessity_items(PATH, [both])]
    assert [(one["short"], one["texts"]) for one in asked] == [
        ("812", [TEXTS[1]]),
        ("300", [TEXTS[0]]),
    ]


def unit_vectors(n: int, seed: int = 0) -> Any:
    X = np.random.default_rng(seed).normal(size=(n, 6)).astype(np.float32)
    return X / np.linalg.norm(X, axis=1, keepdims=True)


def test_repeated_chains_are_asked_once_and_come_back_from_their_reply() -> None:
    S = np.array([[1, 0.7, 0.1], [0.7, 1, 0.1], [0.1, 0.1, 1]])
    found = chains_of(
        PATH,
        SINGLES,
        S,
        3,
        kinds=("inter", "intra"),
        mode="walk",
        starts=10,
        max_hop=4,
        lo=0.5,
        hi=0.9,
    )
    assert sorted(found.starts) == [0, 1, 2]
    assert [sorted(chain.elements) for chain in found.chains] == [[0, 1]]
    assert found.repeated == 1
    assert from_reply(as_reply(found)) == found


def test_levels_go_on_while_they_are_merged() -> None:
    linked = [Link(None, None), Link(0, 0.7), Link(1, 0.6)]
    chain = Chain("c", "inter", [0, 1, 2], linked)
    other = Chain("o", "inter", [1, 0], linked[:2])
    chains = Chains([0], [chain, other], 0)
    assert [i.id for i in merge_items(2, PATH, SINGLES, chains, {})] == ["c/2", "o/2"]
    said: Any = {"mit.merge-2": {"c/2": MERGED._asdict(), "o/2": MERGED._asdict()}}
    (item,) = merge_items(3, PATH, SINGLES, chains, said)
    assert item.id == "c/3"
    assert item.replies[ASKED]["shorts"] == ["812", "300", "Bergen"]
    assert item.replies[ASKED]["question_1"] == MERGED.question
    assert len(levels_of(chain, SINGLES, said)) == 2
    assert merge_items(3, PATH, SINGLES, chains, {"mit.merge-2": {}}) == []
    found, repeated = candidates_of(SINGLES, chains, said)
    assert ([one.id for one in found], repeated) == (["c/2"], 1)


def test_equal_questions_of_a_document_are_asked_once() -> None:
    said = {
        "mit.extract": {
            "d0#0": {"questions": ["Who won? ", "Where?"]},
            "d0#1": {"questions": ["who won?"]},
            "d1#1": {"questions": ["Who won?"]},
        }
    }
    found, repeated = questions_of(PATH, said)
    assert ([q.id for q in found], repeated) == (["d0#0/0", "d0#0/1", "d1#1/0"], 1)


def test_measured_bounds_are_those_of_all_pairs() -> None:
    doc = [i % 7 for i in range(60)]
    S = similarities(unit_vectors(60))
    # Counted in ten-thousandths, and the nearest rank instead of a mean of two.
    assert bounds_of(across(S, doc)) == pytest.approx(link_bounds(S, doc), abs=0.01)
    assert across(S, [0] * 60) == {}


def test_a_question_is_like_earlier_ones_of_as_many_hops() -> None:
    X = unit_vectors(4)[[0, 1, 0, 0]]
    assert duplicates(X, [1, 1, 1, 2]) == [False, False, True, False]
    assert duplicates(np.zeros((2, 3), dtype=np.float32), [1, 1]) == [False, False]
    assert duplicates(np.zeros((0, 3), dtype=np.float32), []) == []


def test_limits_that_the_path_exceeds_stand_for_all_below() -> None:
    rng = np.random.default_rng(1)
    room, shares = 9_000, []
    for _ in range(800):
        fixed = int(rng.integers(3_000, 8_000))
        limit = max(int(rng.integers(4_096, room + 1)), fixed)
        shares.append(limit_share(limit, fixed, room, float(rng.random())))
    assert ks_uniform(shares, 0, 1)["ok"]
    plain = [limit_share(7_000, 1, room, 0.5)] * 800
    assert ks_uniform(plain, 0, 1)["ok"] is False


def sound(seed: int = 0) -> tuple[Row, Any]:
    clues = [Doc(doc.doc_id, doc.text, doc.n_tokens) for doc in DOCS[:2]]
    rest = [Doc(f"r{i}", f"Nothing of {i}.", 3) for i in range(6)]
    context: Any = long_context(clues, clues, rest, 4_096, np.random.default_rng(seed))
    row = assemble(
        "x",
        "en",
        "s",
        "d0",
        SINGLES[:2],
        [Link(None, None), Link(0, 0.7)],
        MERGED,
        context,
        Scores(9.0, True, True),
        TokenCounter(),
        1,
    )
    assert isinstance(row, dict)
    return row, context


def test_each_problem_of_a_row_has_its_name() -> None:
    row, context = sound()
    total = sum(placed.doc.n_tokens for placed in context.docs)
    assert row_problems(row, total) == []
    for changed, name in [
        ({"docs": [*row["docs"], row["docs"][0]]}, "repeated_document"),
        ({"clue_pos": row["clue_pos"][::-1]}, "clue_place"),
        ({"chain": [row["chain"][0]] * 2}, "clue_documents"),
        ({"hop": 3}, "hops"),
        ({"docs": [{**doc, "role": "path"} for doc in row["docs"]]}, "role"),
        ({"token_limit": total - 1}, "limit"),
        ({"answer": "Bergen"}, "round_trip"),
    ]:
        assert name in row_problems({**row, **changed}, total)


def test_each_figure_has_its_check() -> None:
    row, context = sound()
    base = facts(row, context, ["d0", "d1", "d2"], (0.5, 0.92), ROOM)
    base |= {"duplicate": False, "filled": True}
    mark = judged(
        dict.fromkeys(("correctness", "multi_fact", "clarity", "naturalness"), 9)
        | {"multihop": True},
        True,
        True,
    )

    def failed(change: Row | None = None, marks: Row | None = None) -> set[str]:
        spread = [
            {**base, "limit": (i + 0.5) / 20, "question": f"q{i}", **(change or {})}
            for i in range(20)
        ]
        found = figures([*spread, {**mark, **(marks or {})}], 131_072)
        return {name for name, check in found.items() if check["ok"] is False}

    assert failed() == set()
    assert failed({"sims": [0.93]}) == failed({"one_path": False}) == {"links"}
    assert failed({"hop": 5}) == {"hops"}
    assert failed({"limit": 0.01}) == {"token_limit"}
    assert failed({"filled": False}) == {"contexts"}
    assert failed({"n_tokens": 131_073}) == {"row_tokens"}
    assert failed({"support": 0.1}) == {"support"}
    assert failed({"left_out": False}) == {"leave_clues_out"}
    assert failed({"problems": ["hops"]}) == {"sound_rows"}
    assert failed({"duplicate": True}) == failed({"question": "q"}) == {"non_duplicate"}
    assert failed(marks={"multihop": False}) == {"multihop"}
    assert failed(marks={"good": False}) == {"quality_passed"}
    assert failed(marks={"necessity": False}) == {"necessary"}
    assert figures([], 1) == {}
    assert set(figures([mark], 1)) == {"multihop", "quality_passed", "necessary", "non_duplicate"}
