"""LongAlpaca: sizes of the mixture, choice of rows, Alpaca form, checks of replies."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from longctx.synth.checks import allocate
from longctx.synth.longalpaca import (
    QUOTA,
    assemble_long,
    assemble_short,
    check_qa,
    longalpaca_mix,
    mix_sizes,
    request_qa,
)
from longctx.synth.rows import LONGALPACA, Reject, table_of
from longctx.synth.rules_documents import longalpaca_qa
from longctx.synth.tokens import TokenCounter

STORY = " ".join(
    f"Captain Number{i} sailed {i} miles past the island of Sark." for i in range(1, 30)
)


def long_row(i: int, category: str, document: str = "", question: str = "") -> dict[str, Any]:
    return {
        "id": f"l{i}",
        "document": document or f"document {i}",
        "question": question or "What happens?",
        "answer": "Much.",
        "category": category,
        "file": None,
    }


def short_rows(n: int) -> list[dict[str, Any]]:
    return [{"id": f"s{i}", "instruction": "Add.", "input": "", "output": "3"} for i in range(n)]


def test_sizes_of_the_examples() -> None:
    assert mix_sizes({"other": 6_000}, 1_000, (3, 1), {"other": 1}) == ({"other": 3_000}, 1_000)
    supply = dict.fromkeys(QUOTA, 10**6)
    sizes, short = mix_sizes(supply, 10**6, (3, 1), QUOTA, total=12_000)
    assert (
        list(sizes.values()) == allocate(9000, [13, 7, 20, 20, 14]) == [1581, 851, 2433, 2432, 1703]
    )
    assert short == 3_000


@given(
    st.fixed_dictionaries({c: st.integers(0, 90) for c in QUOTA}),
    st.integers(0, 90),
    st.sampled_from(["shrink", "redistribute"]),
    st.none() | st.integers(0, 200),
)
def test_sizes_can_be_had_and_are_the_largest(
    supply: dict[str, int], short: int, fill: Any, total: int | None
) -> None:
    sizes, n_short = mix_sizes(supply, short, (3, 1), QUOTA, total, fill)
    size = sum(sizes.values()) + n_short
    assert all(sizes[c] <= supply[c] for c in QUOTA)
    assert n_short <= short
    assert total is None or size <= total
    assert [sum(sizes.values()), n_short] == allocate(size, [3, 1])
    if fill == "shrink":
        assert list(sizes.values()) == allocate(sum(sizes.values()), list(QUOTA.values()))


def test_a_missing_category_shrinks_the_mixture_or_is_filled_by_the_others() -> None:
    supply = {**dict.fromkeys(QUOTA, 1_000), "summary": 0}
    assert mix_sizes(supply, 1_000, (3, 1), QUOTA, 400) == (dict.fromkeys(QUOTA, 0), 0)
    sizes, short = mix_sizes(supply, 1_000, (3, 1), QUOTA, 400, "redistribute")
    assert (sizes["summary"], short) == (0, 100)
    assert [sizes[c] for c in QUOTA if c != "summary"] == allocate(300, [13, 20, 20, 14])


def test_mixture_has_no_row_twice_and_any_order_of_the_input_gives_it() -> None:
    categories = [c for c, n in QUOTA.items() for _ in range(n)]
    long = [long_row(i, c) for i, c in enumerate(categories * 4)]
    long += [
        long_row(1000 + i, long[i]["category"], f"document {i}", "what happens") for i in range(50)
    ]
    short = short_rows(150)
    mix = longalpaca_mix(long, short, total=200, seed=2)
    again = longalpaca_mix(long[::-1], short[::-1], total=200, seed=2)
    assert [row["id"] for row in mix.rows] == [row["id"] for row in again.rows]
    assert mix.duplicates == 50
    kinds = [row["kind"] for row in mix.rows]
    assert (kinds.count("long"), kinds.count("short")) == (150, 50)
    assert kinds != sorted(kinds)
    pairs = [
        (r["document"], r["question"].lower().strip("?")) for r in mix.rows if r["kind"] == "long"
    ]
    assert len(set(pairs)) == 150
    for part in mix.report.values():
        assert abs(part["requested_share"] - part["reached_share"]) < 0.01
    assert [r["id"] for r in longalpaca_mix(long, short, total=200, seed=3).rows] != [
        r["id"] for r in mix.rows
    ]


def assembled(words: int, **options: Any) -> Any:
    row = long_row(1, "book", "word " * words)
    return assemble_long(row, "en", "s", TokenCounter(), 0, limit=100, min_len=50, **options)


def test_long_rows_keep_question_and_answer_whatever_the_limit() -> None:
    fits = assembled(60)
    assert fits["alpaca"]["input"] == ""
    text = fits["alpaca"]["instruction"]
    assert text.index(fits["context"]) < text.index("What happens?")
    assert text.endswith("What happens?")
    assert fits["instruction"] == "What happens?"
    assert table_of([fits], LONGALPACA).num_rows == 1
    assert isinstance(assembled(10), Reject)
    assert assembled(10).code == "too_short"
    assert assembled(200).code == "too_long"
    cut = assembled(200, truncate="document")
    assert cut["n_tokens"] == 100
    assert cut["alpaca"]["instruction"].endswith("What happens?")
    assert cut["response"] == "Much."
    buried = {**long_row(1, "book", "one two"), "question": "why " * 200}
    refused = assemble_long(buried, "en", "s", TokenCounter(), 0, 100, 50, "document")
    assert isinstance(refused, Reject)
    assert refused.code == "too_long"


def test_short_rows_carry_their_input_in_the_instruction() -> None:
    row = {"id": "1", "instruction": "Add.", "input": "1 2", "output": "3"}
    made = assemble_short(row, "en", "alpaca", TokenCounter(), 0)
    assert made["alpaca"] == {"instruction": "Add.\n\n1 2", "input": "", "output": "3"}
    assert (made["kind"], made["category"], made["file"], made["context"]) == (
        "short",
        "short",
        None,
        "",
    )
    bare = assemble_short({**row, "input": ""}, "en", "alpaca", TokenCounter(), 0)
    assert bare["alpaca"]["instruction"] == "Add."


@pytest.mark.parametrize("lang", ["en", "zh", "ko"])
@pytest.mark.parametrize("category", list(QUOTA))
def test_the_rule_answers_what_is_asked(category: str, lang: str) -> None:
    asked = request_qa(STORY, category, lang)
    assert asked.messages[0]["content"].startswith(STORY)
    assert check_qa(longalpaca_qa(asked.parts), asked.parts) is None


@pytest.mark.parametrize(
    ("question", "words", "detail"),
    [
        ("Who sailed past Sark?", 40, None),
        ("Summarize the voyage.", 40, None),
        ("请概括这次航行。", 40, None),
        ("항해를 요약하십시오.", 40, None),
        ("The voyage.", 40, "question_form"),
        ("Who sailed past Sark?", 29, "answer_length"),
        ("Who sailed past Sark?", 1501, "answer_length"),
    ],
)
def test_replies_that_are_refused(question: str, words: int, detail: str | None) -> None:
    parts = {"document": STORY}
    assert check_qa({"question": question, "answer": "Captain " * words}, parts) == detail


def test_an_answer_from_elsewhere_is_refused() -> None:
    reply = {"question": "Who?", "answer": "Peru exports copper and tin. " * 10}
    assert check_qa(reply, {"document": STORY}) == "unsupported"
