"""Between retrievers and rows of PAM QA: passages, the best of all parts, random documents."""

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from longctx.synth.checks import chi2_uniform
from longctx.synth.pamqa_calls import check_question, request_question
from longctx.synth.pamqa_mining import best, drawn, first_passage, fused, hash_bound, pools
from longctx.synth.rules_evidence import pam_question
from longctx.synth.tokens import TokenCounter, token_counter

WORDS = TokenCounter()
TEXT = "One two three. Four five six seven. Eight nine."


@pytest.mark.parametrize(
    ("most", "shown"),
    [
        (None, TEXT),
        (9, TEXT),
        (8, "One two three. Four five six seven."),
        (7, "One two three. Four five six seven."),
        (6, "One two three."),
        (3, "One two three."),
        (2, "One"),
    ],
)
def test_passages_are_whole_sentences(most: int | None, shown: str) -> None:
    assert first_passage(f" {TEXT}\n", WORDS, most) == shown


def test_a_long_text_is_cut_alike_whatever_stands_behind() -> None:
    counter = token_counter("embedded")
    text = "The harbour of Sark is old and small. " * 2000
    shown = first_passage(text, counter, 300)
    assert text.startswith(shown)
    assert shown.endswith("small.")
    assert 280 < counter.count(shown) <= 300
    assert first_passage(text[:9000], counter, 300) == shown
    assert first_passage("x" * 500, WORDS, 8) == "x" * 500
    blanks = "a " + " " * 10_000 + "b c d e f g h i"
    assert first_passage(blanks, WORDS, 8).split() == list("abcdefg")


@given(st.text("ab .!?。\n가", max_size=80), st.integers(1, 20))
def test_a_passage_is_a_beginning_that_fits(text: str, most: int) -> None:
    shown = first_passage(text, WORDS, most)
    assert text.strip().startswith(shown)
    assert WORDS.count(shown) <= most
    assert bool(shown) == bool(text.strip())


def hits(rows: list[tuple[int, int, float, str]]) -> pa.Table:
    names = ("question", "kind", "score", "doc_id")
    table = pa.Table.from_pylist([dict(zip(names, row, strict=True)) for row in rows])
    return table.append_column("lang", pa.array([r[3].partition("-")[2] or None for r in rows]))


def test_the_best_of_all_parts_are_those_of_one() -> None:
    rng = np.random.default_rng(3)
    rows = [
        (int(q), int(kind), float(score), f"d{i:03d}")
        for i, (q, kind, score) in enumerate(
            zip(
                rng.integers(4, size=300),
                rng.integers(2, size=300),
                rng.integers(6, size=300),
                strict=True,
            )
        )
    ]
    whole = best(hits(rows), 5)
    parts = [best(hits(rows[i::7]), 5) for i in range(7)]
    assert best(pa.concat_tables(parts), 5).equals(whole)
    first = [r for r in whole.to_pylist() if (r["question"], r["kind"]) == (0, 0)]
    wanted = sorted((-s, d) for q, k, s, d in rows if (q, k) == (0, 0))[:5]
    assert [(-r["score"], r["doc_id"]) for r in first] == wanted
    assert best(hits(rows).slice(0, 0), 5).num_rows == 0


def test_ranks_of_both_retrievers_are_fused_and_other_languages_left_out() -> None:
    table = best(
        hits([(0, 0, 3.0, "a"), (0, 0, 2.0, "b-zh"), (0, 0, 1.0, "c"), (0, 1, 0.9, "c-en")]), 9
    )
    ids = table.column("doc_id").to_pylist()
    assert [ids[i] for i in fused(table, "en")] == ["a", "c-en", "c"]
    assert [ids[i] for i in fused(table, "zh")] == ["a", "b-zh", "c"]


def test_random_documents_are_drawn_evenly_and_once() -> None:
    places = pools(["en", None, "zh", "en"] * 10, ["en", "zh"])
    assert [len(places[lang]) for lang in ("en", "zh")] == [30, 20]
    counts = np.zeros(40, dtype=np.int64)
    for i in range(1500):
        found = drawn(1, f"q{i}", places["en"], 10)
        assert len(set(found)) == 10
        counts[found] += 1
    assert chi2_uniform(counts[places["en"]].tolist())["ok"]
    assert counts[places["zh"][1]] == 0
    assert sorted(drawn(1, "q", places["zh"], 99)) == places["zh"].tolist()
    assert drawn(1, "q", places["en"], 5) == drawn(1, "q", places["en"], 5)


def test_a_pool_takes_about_what_is_wanted() -> None:
    assert hash_bound(100, 100) == 2**64 - 1
    assert hash_bound(1000, 10) == pytest.approx(2**64 / 100)


@pytest.mark.parametrize("lang", ["en", "zh", "ko"])
def test_questions_are_answered_by_words_of_their_passage(lang: str) -> None:
    passage = "Keeper Zora Lund built pier 913 in 1907. Boats rest there."
    prompt = request_question(passage, lang)
    reply = pam_question(prompt.parts)
    assert check_question(reply, prompt.parts) is None
    assert reply["answer"] in passage


@pytest.mark.parametrize(
    ("changed", "detail"),
    [
        ({}, None),
        ({"question": "Which pier?"}, "question_form"),
        ({"question": "Which pier was built according to the passage?"}, "refers_to_context"),
        ({"answer": "yes"}, "answer_length"),
        ({"answer": "pier 913 " * 6}, "answer_length"),
        ({"answer": "pier 914"}, "not_extractive"),
        ({"question": "What happened to pier 913 in those years?"}, "answer_given"),
    ],
)
def test_bad_questions_are_told_apart(changed: dict[str, Any], detail: str | None) -> None:
    sound = {"question": "What did Keeper Zora Lund build?", "answer": "pier 913"}
    parts = {"passage": "Keeper Zora Lund built pier 913 in 1907. yes", "lang": "en"}
    assert check_question({**sound, **changed}, parts) == detail
