"""ChatQA2's paragraphs: cut, drawn by marks, ranked, and never one that holds the answer."""

from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from longctx.synth import chatqa2_pages
from longctx.synth.chatqa2 import insert_summary
from longctx.synth.chatqa2_figures import facts
from longctx.synth.chatqa2_pages import (
    PARAGRAPH,
    Paragraph,
    index_page,
    joined,
    related_paragraphs,
)
from longctx.synth.chatqa2_pool import (
    MARKS,
    n_marks,
    paragraphs_of,
    rank_paragraphs,
    spacing,
)
from longctx.synth.chatqa2_rows import (
    QA,
    Settings,
    build_row,
    in_order,
    paragraph_budget,
    paragraph_problems,
    row_problems,
    without_summary,
)
from longctx.synth.checks import chi2_uniform, depth_counts, has_answer
from longctx.synth.rows import Reject, Row
from longctx.synth.tokens import TokenCounter

COUNTER = TokenCounter()
SUMMARY = "Zed found the amulet in Lisbon. Then he sold it."
RELATED = Settings(lo=300, hi=900, slack=40, mode="related_paragraphs")
FILL = Settings(lo=300, hi=900, slack=40, on_short="fill")
EMPTY = index_page("", COUNTER)


def test_short_blocks_are_joined_and_long_ones_cut_between_sentences() -> None:
    text = "A title\n\nOne two three. Four five.\n\nSix seven eight nine. Ten eleven. Twelve it is."
    # At most eight tokens, and two make a block: so the title stands alone.
    cuts = paragraphs_of(text, COUNTER, 8)
    assert [c.text for c in cuts] == [
        "A title",
        "One two three. Four five.",
        "Six seven eight nine. Ten eleven.",
        "Twelve it is.",
    ]
    assert [c.mark for c in cuts] == [0, 1, 4, 7]
    # With twelve, the title goes with the block behind it.
    assert paragraphs_of(text, COUNTER, 12)[0].text == "A title\n\nOne two three. Four five."


def test_a_sentence_that_is_too_long_is_left_out() -> None:
    text = "One two. Very " + "long " * 20 + "end. Three four five."
    assert [c.text for c in paragraphs_of(text, COUNTER, 8)] == ["One two.", "Three four five."]
    assert paragraphs_of("", COUNTER, 8) == []


_TEXTS = st.lists(
    st.sampled_from(["Wa wb", ". ", "\n\n", " wc wd we.", "。", "X y! "]), max_size=60
)


@given(_TEXTS.map("".join), st.integers(2, 30))
def test_paragraphs_are_pieces_of_the_text_each_with_a_mark_of_its_own(
    text: str, most: int
) -> None:
    cuts, at = paragraphs_of(text, COUNTER, most), 0
    for cut in cuts:
        at = text.index(cut.text, at) + len(cut.text)
        assert cut.n_tokens <= most + 1  # a border may part a token
    marks = [c.mark for c in cuts]
    assert marks == sorted(set(marks))
    assert all(0 <= mark < n_marks(COUNTER.count(text), most) for mark in marks)


def test_every_paragraph_of_the_least_length_has_a_mark_and_none_has_too_many() -> None:
    rng = np.random.default_rng(0)
    words = [f"W{i}{' it' * int(n)}." for i, n in enumerate(rng.integers(0, 20, 400))]
    text = " ".join(words)
    for most in (24, 40, 64):
        cuts = paragraphs_of(text, COUNTER, most)
        told = " ".join(c.text for c in cuts)
        assert text.startswith(told)
        assert COUNTER.count(text) - COUNTER.count(told) < spacing(most)
        assert len(cuts) >= n_marks(COUNTER.count(text), most) / MARKS
        assert min(c.n_tokens for c in cuts[:-1]) >= spacing(most)


@pytest.mark.parametrize("first", [1, 3, 100])
def test_ranked_by_cosine_with_ties_by_row_however_many_are_searched_for(first: int) -> None:
    root = 2**-0.5
    vectors = np.array([[1, 0], [0, 1], [root, root], [-1, 0], [root, root]], dtype=np.float32)
    near = np.array([0.9988, 0.0499], dtype=np.float32)
    assert list(rank_paragraphs(vectors, near, first)) == [0, 2, 4, 1, 3]
    assert list(rank_paragraphs(vectors[:0], near, first)) == []


def test_ranking_many_is_what_sorting_all_gives() -> None:
    rng = np.random.default_rng(5)
    vectors = rng.normal(size=(500, 16)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    near = vectors.astype(np.float64) @ vectors[7].astype(np.float64)
    expected = np.lexsort((np.arange(500), -near.astype(np.float32))).tolist()
    assert list(rank_paragraphs(vectors, vectors[7], 30)) == expected


def test_more_are_ranked_only_when_they_are_asked_for() -> None:
    asked: list[int] = []

    def ranked() -> Iterator[Paragraph]:
        for i in range(100):
            asked.append(i)
            yield Paragraph(str(i), f"d{i}", "one two three", 3)

    assert len(related_paragraphs(ranked(), "d1", ["none"], 10).paragraphs) == 3
    assert asked == [0, 1, 2, 3, 4]  # one of the own document, one that did not fit


def pool(n: int, words: int = 9) -> list[Paragraph]:
    texts = [f"P{i} " + " ".join(f"w{i}x{k}" for k in range(words)) + "." for i in range(n)]
    return [Paragraph(f"p{i}", f"x{i}", text, words + 1) for i, text in enumerate(texts)]


def qa(i: int) -> QA:
    return QA(f"r{i}", "own", "What did Zed find in Lisbon?", ["the amulet", "a charm"])


def sound(i: int, ranked: list[Paragraph], settings: Settings = RELATED) -> Row:
    row = build_row(qa(i), EMPTY, SUMMARY, COUNTER, settings, 1, ranked)
    assert isinstance(row, dict)
    return row


def taken(i: int, ranked: list[Paragraph]) -> list[Paragraph]:
    budget = paragraph_budget(qa(i), EMPTY, SUMMARY, COUNTER, RELATED, 1)
    return related_paragraphs(ranked, "own", qa(i).answers, budget).paragraphs


def test_a_summary_among_paragraphs_is_one_of_its_own() -> None:
    page, _ = joined(["One.", "Two.", "Three."])
    for at, context in (
        (0, "S.\n\nOne.\n\nTwo.\n\nThree."),
        (6, "One.\n\nS.\n\nTwo.\n\nThree."),
        (len(page), "One.\n\nTwo.\n\nThree.\n\nS."),
    ):
        found = insert_summary(page, "S.", at, PARAGRAPH)
        assert found.context == context
        assert context[found.summary_start : found.summary_end] == "S."
        assert context[: found.inserted_start] + context[found.inserted_end :] == page
    assert insert_summary("", "S.", 0, PARAGRAPH).context == "S."


def test_contexts_are_the_best_paragraphs_in_any_order_around_the_summary() -> None:
    ranked = pool(200)
    for i in range(60):
        row, own = sound(i, ranked), taken(i, ranked)
        blocks = row["context"].split(PARAGRAPH)
        assert sorted(blocks) == sorted([SUMMARY, *(p.text for p in own)])
        assert own == ranked[: len(own)]
        assert row["mode"] == "related_paragraphs"
        assert 300 <= row["context_tokens"] <= row["target_len"]
        assert row["target_len"] - row["context_tokens"] <= 12
        page = PARAGRAPH.join(in_order(qa(i), [p.text for p in own], RELATED, 1))
        assert row_problems(row, page, SUMMARY, hi=900) == []
        # What a row was given beforehand makes the same row.
        assert sound(i, own) == row
    firsts = {sound(i, ranked)["context"].split(PARAGRAPH)[0] for i in range(60)}
    assert len(firsts) > 20


def planted() -> list[Paragraph]:
    """Every third of the best holds an answer, written otherwise; two are of the own document."""
    ranked = pool(200)
    for i in range(0, 200, 3):
        ranked[i] = ranked[i]._replace(text=f"It was, they said, THE  Amulet; {ranked[i].text}")
    ranked[1] = ranked[1]._replace(text=f"{ranked[1].text} A Charm!")
    ranked[4], ranked[5] = (ranked[i]._replace(doc_id="own") for i in (4, 5))
    return ranked


def test_a_paragraph_with_an_answer_or_of_the_own_document_is_never_taken() -> None:
    ranked = planted()
    for i in range(30):
        row, own = sound(i, ranked), taken(i, ranked)
        assert not has_answer(row["answers"], without_summary(row))
        assert [p.para_id for p in own][:2] == ["p2", "p7"]
        assert paragraph_problems(row, own) == []
    budget = paragraph_budget(qa(0), EMPTY, SUMMARY, COUNTER, RELATED, 1)
    found = related_paragraphs(ranked, "own", qa(0).answers, budget)
    last = int(found.paragraphs[-1].para_id[1:]) + 1
    # Those before the last one taken, and perhaps one before the one that did not fit.
    expected = sum(i % 3 == 0 for i in range(last)) + 1
    assert expected <= found.with_answer <= expected + 1


def test_without_the_filter_the_checks_of_rows_find_it(monkeypatch: pytest.MonkeyPatch) -> None:
    ranked = planted()
    monkeypatch.setattr(chatqa2_pages, "has_answer", lambda answers, text: False)
    row, own = sound(0, ranked), taken(0, ranked)
    assert facts(row, "", SUMMARY, RELATED, own)["problems"] == ["answer_in_paragraph"]
    strange = [*own, ranked[4]]
    assert "own_paragraph" in paragraph_problems(row, strange)


def test_too_few_paragraphs_are_a_reject_and_short_contexts_are_counted() -> None:
    few = build_row(qa(0), EMPTY, SUMMARY, COUNTER, RELATED, 1, pool(20))
    assert isinstance(few, Reject)
    assert few.code == "too_short"
    listed = pool(32)
    rows = [build_row(qa(i), EMPTY, SUMMARY, COUNTER, RELATED, 1, listed) for i in range(20)]
    told = [facts(r, "", SUMMARY, RELATED, listed) for r in rows if isinstance(r, dict)]
    assert max(one["short_by"] for one in told) > RELATED.slack


def test_places_among_paragraphs_of_all_lengths_are_uniform() -> None:
    small = Settings(lo=60, hi=240, slack=40, mode="related_paragraphs")
    lengths = np.random.default_rng(2).integers(2, 38, 40)
    ranked = [p for i, n in enumerate(lengths.tolist()) for p in pool(i + 1, n)[-1:]]
    told = []
    for i in range(600):
        budget = paragraph_budget(qa(i), EMPTY, SUMMARY, COUNTER, small, 1)
        own = related_paragraphs(ranked, "own", qa(i).answers, budget).paragraphs
        told.append(facts(sound(i, own, small), "", SUMMARY, small, own))
    assert {problem for one in told for problem in one["problems"]} == set()
    depths = [one["depth"] for one in told]
    assert chi2_uniform(depth_counts([(0, 1)] * 600, depths))["ok"] is True
    first = [depth * depth for depth in depths]
    assert chi2_uniform(depth_counts([(0, 1)] * 600, first))["ok"] is False


def test_paragraphs_fill_pages_that_are_too_short_and_no_others() -> None:
    short = index_page("Own one two. " * 40, COUNTER)
    long = index_page("Own one two. " * 120, COUNTER)
    ranked = pool(100)
    assert paragraph_budget(qa(0), long, SUMMARY, COUNTER, FILL, 1) == 0
    assert paragraph_budget(qa(0), short, SUMMARY, COUNTER, Settings(300, 900, 40), 1) == 0
    budget = paragraph_budget(qa(0), short, SUMMARY, COUNTER, FILL, 1)
    own = related_paragraphs(ranked, "own", qa(0).answers, budget).paragraphs
    row = build_row(qa(0), short, SUMMARY, COUNTER, FILL, 1, ranked)
    assert isinstance(row, dict)
    assert without_summary(row) == PARAGRAPH.join([short.text, *(p.text for p in own)])
    told = facts(row, short.text, SUMMARY, FILL, own)
    assert told["problems"] == []
    assert 0 <= told["short_by"] <= FILL.slack
    whole = build_row(qa(0), long, SUMMARY, COUNTER, FILL, 1, ranked)
    assert isinstance(whole, dict)
    assert "short_by" not in facts(whole, long.text, SUMMARY, FILL)
