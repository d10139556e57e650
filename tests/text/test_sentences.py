"""Sentences: spans that cover the text, ends in three languages, and what is not an end."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from longctx.text.sentences import sentence_spans


def cut(text: str) -> list[str]:
    return [text[a:b] for a, b in sentence_spans(text)]


@pytest.mark.parametrize(
    "parts",
    [
        ["One. ", "Two! ", "Three? ", "Four… ", "five"],
        ["Wait... ", "Really?! ", "Yes."],
        ['He said "no." ', "She left. ", "(All of it.) ", "End"],
        ["한국어 문장입니다. ", "다음 문장이다! ", "끝"],
        ["第一句。", "第二句！", "“第三句？”", "第四句……还没完"],
        ["A wrapped line\ngoes on here.\n", "Next\nline."],
        ["Title without a stop\n\n", "Body text. ", "More.\n \n\n", "End.\n"],
        ["Shopping:\n", "- bread and butter\n", "- milk. ", "Fresh.\n", "12. eggs"],
        ["Text\n", "## Heading\nmore"],
    ],
)
def test_sentences_end_at_marks_and_blank_lines(parts: list[str]):
    assert cut("".join(parts)) == parts


@pytest.mark.parametrize(
    "sentence",
    [
        "Mr. Smith met Dr. Who at St. Ives.",
        "J. R. R. Tolkien wrote it.",
        "Pi is 3.14 and version 2.0.1 of a.b.c is out.",
        "Use fruit, e.g. apples, i.e. Malus, in the U.S. Senate.",
        "Acme Inc. was here, etc. and so on.",
        "See fig. 3 and no. 5 on p. 12.",
        '"Why?" he asked.',
        "1. The first item",
        "In Jan. 2020 it began.",
    ],
)
def test_a_full_stop_may_stand_inside(sentence: str):
    assert cut(sentence) == [sentence]


def test_words_that_are_also_abbreviations_end_sentences():
    assert cut("Just say no. Then go.") == ["Just say no. ", "Then go."]
    assert cut("We sold Acme Inc. Nobody knew.") == ["We sold Acme Inc. ", "Nobody knew."]
    assert cut("It was 1999. We won 3. Good.") == ["It was 1999. ", "We won 3. ", "Good."]


def test_code_is_cut_into_lines():
    code = 'def f(x):\n    """Say. So."""\n    y = g(x)\n    return [y]\n\n\nclass A:\n    pass\n'
    assert cut(code) == [
        "def f(x):\n",
        '    """Say. So."""\n',
        "    y = g(x)\n",
        "    return [y]\n\n\n",
        "class A:\n",
        "    pass\n",
    ]


def test_nothing_and_white_space():
    assert sentence_spans("") == []
    assert sentence_spans(" \n\n ") == [(0, 4)]
    assert cut(" \n\n a. \n\n ") == [" \n\n a. \n\n "]


TEXTS = st.lists(
    st.sampled_from([*" \n.!?。！…\"')a1A-#;{}", "\n\n", "Mr", "e.g", "…", "\r\n", "한", "\u2028"]),
    max_size=60,
).map("".join)


@given(TEXTS | st.text(max_size=80))
@example("\n\n.")
@example(". . \n")
def test_spans_cover_the_text_without_gaps(text: str):
    spans = sentence_spans(text)
    assert "".join(text[a:b] for a, b in spans) == text
    assert all(a < b for a, b in spans)
    if text.strip():
        assert all(text[a:b].strip() for a, b in spans)


@pytest.mark.parametrize(
    "text",
    [
        "." * 300_000 + "x",
        ".)" * 150_000,
        "\n" + " " * 300_000 + "x",
        "a\n" * 150_000,
        "1. " * 99_999,
    ],
)
def test_long_runs_take_linear_time(text: str):
    # A quadratic scan of these would take minutes.
    assert sum(b - a for a, b in sentence_spans(text)) == len(text)
