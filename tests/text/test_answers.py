"""Answers in texts: the worked examples of the checks that all systems share."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from longctx.text.answers import contains_answer, content_words, norm_answer, support


@pytest.mark.parametrize(
    ("answer", "text", "expected"),
    [
        ("art", "The article on parts", False),
        ("Michelangelo", "Michelangelo's David", True),
        ("1,000", "It sold 1000 copies.", True),
        ("U.S.", "the US army", False),
        ("the", "the the", False),
        ("北京", "他住在北 京市", True),
        ("서울", "그는 서울에 산다.", True),
        ("Straße", "in der STRASSE", True),
        ("new york", "New, York", True),
        ("York New", "New York", False),
    ],
)
def test_contains(answer: str, text: str, expected: bool) -> None:
    assert contains_answer(answer, text) is expected


def test_support_of_the_worked_example() -> None:
    answer = "The treaty was signed in Lisbon on 13 December 2007"
    passage = "Leaders met in Lisbon; the treaty, signed in December, came later."
    assert support(answer, passage) == pytest.approx(0.6667, abs=1e-4)
    assert support("of the", passage) == 0.0


def test_norm_answer() -> None:
    assert norm_answer("  The “Café”, No. 1,000! ") == "café no 1000"
    assert norm_answer("The cat", keep_articles=True) == "the cat"
    assert norm_answer("１２，３") == "123"


def test_content_words() -> None:
    assert content_words("What is the Treaty of Lisbon?") == {"treaty", "lisbon"}
    assert content_words("北京市 GPT模型 我") == {"北京", "京市", "gpt", "模型", "我"}
    assert content_words("서울에서") == {"서울", "울에", "에서"}


@given(st.text(max_size=40))
def test_normalising_twice_changes_nothing_of_what_is_compared(text: str) -> None:
    assert support(text, text) in (0.0, 1.0)
    assert contains_answer(text, text) is bool(norm_answer(text))
