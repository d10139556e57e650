"""RAKE: the worked example, what a phrase is, and what is not a keyword."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from longctx.order.rake import GENERIC, STOP_WORDS, content_words, keywords, phrases

REEF = (
    "What causes coral reef bleaching? How does heat stress affect the coral reef, and which coral "
    "species survive heat?"
)


def test_worked_example():
    found = keywords([REEF])
    assert [k.phrase for k in found] == [
        "coral species survive heat",
        "causes coral reef bleaching",
        "heat stress affect",
        "coral reef",
    ]
    assert [k.score for k in found] == pytest.approx([14.833333, 14.333333, 9.5, 6.333333])


def test_queries_share_their_scores_but_no_phrase():
    together = keywords([REEF.partition("?")[0], REEF.partition("?")[2]])
    assert together == keywords([REEF])
    assert [k.phrase for k in keywords(["red fox", "brown bear"])] == ["brown bear", "red fox"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Well-known rock 'n' roll’s past", [("well-known", "rock", "n", "roll's", "past")]),
        ("foo_bar, baz (qux)", [("foo",), ("bar",), ("baz",), ("qux",)]),
        ("Straße nach Köln – 5 km", [("straße", "nach", "köln"), ("5", "km")]),
        ("the of and", []),
        ("reef -\n- coral", [("reef", "coral")]),
    ],
)
def test_phrases_are_runs_of_words_without_stop_words(text: str, expected: list[tuple[str, ...]]):
    assert list(phrases(text)) == expected


def test_long_generic_and_numeric_phrases_are_no_keywords_but_count():
    found = keywords(["one. two alpha beta gamma delta. beta. purpose. 12 34. types 7"])
    assert [k.phrase for k in found] == ["types 7", "beta"]
    # beta stands in a phrase of five words and alone.
    assert found[1].score == 3.0
    assert keywords(["purpose of use, main purpose"]) == []


def test_other_words_can_be_given():
    assert [k.phrase for k in keywords(["haus und hof"], frozenset({"und"}))] == ["haus", "hof"]
    assert keywords(["haus und hof"], frozenset({"und"}), frozenset({"haus"}))[0].phrase == "hof"
    assert content_words("The Reef's coral") == ["reef's", "coral"]


def test_the_lists():
    assert len(STOP_WORDS) == 150
    assert {"cannot", "whose", "yourself"} & STOP_WORDS == {"cannot", "whose"}
    assert len(GENERIC) == 11


@given(st.lists(st.text("abc the of.-'1 \n", max_size=60), max_size=5), st.integers(0, 9))
def test_keywords_are_sorted_and_bounded(texts: list[str], limit: int):
    found = keywords(texts)
    assert found == sorted(found, key=lambda k: (-k.score, k.phrase))
    assert len({k.phrase for k in found}) == len(found)
    assert all(k.score >= 1 and len(k.phrase.split(" ")) <= 4 for k in found)
    assert not any(set(k.phrase.split(" ")) & STOP_WORDS for k in found)
    assert keywords(texts, limit=limit) == found[:limit]
