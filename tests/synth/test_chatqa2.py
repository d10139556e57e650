"""ChatQA2: places in pages, the insertion and its inverse, windows, rows within their limits."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from longctx.synth.chatqa2 import (
    BLEND,
    blend_shares,
    boundaries,
    choose_boundary,
    insert_summary,
    read_released,
    sentence_ends,
)
from longctx.synth.chatqa2_pages import (
    Paragraph,
    clean_page,
    index_page,
    page_window,
    paragraphs_page,
    related_paragraphs,
    trimmed,
)
from longctx.synth.chatqa2_rows import (
    QA,
    Settings,
    build_row,
    leave_summary_out,
    render_plain,
    row_problems,
    split_leaks,
    without_summary,
)
from longctx.synth.checks import chi2_uniform, depth_counts, ks_uniform, support
from longctx.synth.rows import CHATQA2, Reject, Row, table_of
from longctx.synth.tokens import token_counter

COUNTER = token_counter("whitespace")
PAGE = "One two. Three four. Five six."
SMALL = Settings(lo=300, hi=900, slack=30)


def test_boundaries_of_the_worked_page() -> None:
    assert boundaries(PAGE) == [0, 9, 21, 30]
    assert boundaries("") == [0]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Mr. Darcy left. He went to St. Ives at 3.15 p.m. and slept.", [16, 59]),
        ("他来了。她走了！好", [4, 8]),
        ('"Go!" he said. "Why?" She left.', [15, 22, 31]),
        ("Wait... no. Yes", [12]),
        ("A title\n\nthe text", [9]),
        ("See Vol. 2. Then J. Smith, etc. went.", [12, 37]),
        ("他说：“好。”她走了。", [7, 11]),
        ("no end", []),
        ("...", [3]),
    ],
)
def test_sentence_ends(text: str, expected: list[int]) -> None:
    assert sentence_ends(text) == expected


def test_dotted_leaders_take_no_time() -> None:
    assert sentence_ends("." * 200_000 + "x") == []
    assert sentence_ends("\n" * 100_000 + " " * 100_000 + "x") == [200_000]


def test_choose_boundary() -> None:
    offsets = [0, 10, 40, 50, 100]
    assert [choose_boundary(offsets, u) for u in (0.25, 0.30, 0.99)] == [10, 40, 100]


@pytest.mark.parametrize(
    ("at", "context", "inserted", "summary"),
    [
        (0, "S. One two. Three four. Five six.", (0, 3), (0, 2)),
        (9, "One two. S. Three four. Five six.", (9, 12), (9, 11)),
        (30, "One two. Three four. Five six. S.", (30, 33), (31, 33)),
    ],
)
def test_insert_summary(
    at: int, context: str, inserted: tuple[int, int], summary: tuple[int, int]
) -> None:
    assert insert_summary(PAGE, "S.", at) == (context, *inserted, *summary)


def test_no_blank_beside_han() -> None:
    assert insert_summary("他来了。她走了。", "摘要。", 4).context == "他来了。摘要。她走了。"
    assert insert_summary("한 문장.", "요약.", 5).context == "한 문장. 요약."


@given(st.text(" .!?\nAb他。”", max_size=80), st.text("Sx。.", min_size=1, max_size=9), st.data())
def test_an_insertion_can_be_taken_out(page: str, summary: str, data: st.DataObject) -> None:
    at = data.draw(st.sampled_from(boundaries(page)))
    found = insert_summary(page, summary, at)
    assert found.context[: found.inserted_start] + found.context[found.inserted_end :] == page
    assert found.context[found.summary_start : found.summary_end] == summary
    assert found.inserted_start <= found.summary_start <= found.summary_end <= found.inserted_end


def test_blend() -> None:
    assert sum(BLEND.values()) == pytest.approx(8.731)
    shares = blend_shares()
    assert shares["long_sft"] == pytest.approx(0.2863, abs=1e-4)
    assert shares["NarrativeQA_131072"] == pytest.approx(0.5727, abs=1e-4)
    with pytest.raises(ValueError, match="above 0"):
        blend_shares({"a": 0.0})


def test_released_rows_of_both_layouts() -> None:
    long = {
        "paragraph_id": "7",
        "question": "Who?",
        "sub-paragraphs": "<|begin_of_text|>The page.",
        "answer": ["He", "him"],
    }
    assert read_released(long) == {
        "id": "7",
        "context": "The page.",
        "question": "Who?",
        "answers": ["He", "him"],
    }
    short = {"question": "User: Why so?\n\nAssistant:", "sub-paragraphs": "", "answer": "So."}
    assert read_released(short)["question"] == "Why so?"
    assert read_released(short)["answers"] == ["So."]


def test_pages_are_cleaned() -> None:
    page = (
        "Header\n*** START OF THIS PROJECT GUTENBERG EBOOK X ***\n<|begin_of_text|>Tom &amp; Ann"
        "\n\n\n \n\nwent.\r\n*** END OF THIS PROJECT GUTENBERG EBOOK X ***\nLicence"
    )
    assert clean_page(page) == "Tom & Ann\n\nwent."
    assert clean_page("x The  Start of it. The\nEnd y The End z", "The Start", "The End") == (
        "The  Start of it. The\nEnd y The End"
    )
    assert clean_page("as it is", "not there", "nor this") == "as it is"
    assert clean_page("<s>a <s>b</s>") == "a <s>b</s>"


def page_of(sentences: int, seed: int = 0) -> str:
    lengths = np.random.default_rng(seed).integers(3, 30, size=sentences)
    return " ".join(
        f"S{i} " + " ".join(f"w{i}x{k}" for k in range(n - 2)) + " end."
        for i, n in enumerate(lengths.tolist())
    )


LONG = index_page(page_of(200), COUNTER)
SUMMARY = "Zed found the amulet in Lisbon. Then he sold it."


def test_windows_are_whole_sentences_and_as_long_as_fits() -> None:
    assert LONG.n_tokens == COUNTER.count(LONG.text)
    firsts = set()
    for seed in range(60):
        window = page_window(LONG, 500, np.random.default_rng(seed))
        assert window is not None
        assert window.text in LONG.text
        assert 500 - 30 < window.n_tokens == COUNTER.count(window.text) <= 500
        assert (window.places[0], window.places[-1]) == (0, len(window.text))
        firsts.add(window.text[:5])
    assert len(firsts) > 30
    assert page_window(LONG, LONG.n_tokens, np.random.default_rng(0)) is LONG
    assert page_window(LONG, 2, np.random.default_rng(0)) is None


def test_trimmed_keeps_what_is_near() -> None:
    at = 20
    less, around = trimmed(LONG, at, 400)
    assert LONG.n_tokens - 440 < less.n_tokens <= LONG.n_tokens - 400
    assert less.text[int(less.places[around]) :][:4] == LONG.text[int(LONG.places[at]) :][:4]
    assert less.text.startswith("S0 ")
    assert trimmed(LONG, at, 10**6)[0].n_tokens == 0


def test_paragraphs_are_fitted() -> None:
    texts = ["a b c", "own words", "Lisbon it was", "d e f g", "h"]
    docs = ["x", "doc", "y", "z", "w"]
    ranked = [
        Paragraph(str(i), d, t, len(t.split()))
        for i, (d, t) in enumerate(zip(docs, texts, strict=True))
    ]
    found = related_paragraphs(ranked, "doc", ["Lisbon"], 7)
    assert [p.text for p in found.paragraphs] == ["a b c", "d e f g"]
    assert found.with_answer == 1
    page = paragraphs_page(["a b c", "d e", "f"], COUNTER)
    assert (page.places.tolist(), page.tokens.tolist()) == ([0, 7, 12, 13], [0, 3, 5, 6])
    assert paragraphs_page([], COUNTER).places.tolist() == [0]


def qa(i: int) -> QA:
    return QA(f"r{i}", f"d{i % 7}", "What did Zed find in Lisbon?", ["the amulet", "an amulet"])


def test_rows_are_sound_and_fit_their_schema() -> None:
    rows: list[Row] = []
    for i in range(300):
        row = build_row(qa(i), LONG, SUMMARY, COUNTER, SMALL, 1)
        assert isinstance(row, dict)
        assert row_problems(row, LONG.text, SUMMARY, hi=900) == []
        assert 300 <= row["context_tokens"] <= row["target_len"]
        rows.append(row)
    assert table_of(rows, CHATQA2).num_rows == 300
    assert leave_summary_out(rows[0])
    assert support("the amulet", without_summary(rows[0])) == 0
    assert render_plain(rows[0]).endswith("User: What did Zed find in Lisbon?\n\nAssistant:")
    targets = [row["target_len"] for row in rows]
    assert ks_uniform(targets, 330, max(targets))["ok"]
    assert build_row(qa(0), LONG, SUMMARY, COUNTER, SMALL, 1) == rows[0]


def test_planted_faults_of_rows_are_found() -> None:
    row = build_row(qa(0), LONG, SUMMARY, COUNTER, SMALL, 1)
    assert isinstance(row, dict)

    def found(**changed: object) -> list[str]:
        return row_problems({**row, **changed}, LONG.text, SUMMARY, hi=900)

    assert "summary_span" in found(summary_start_char=row["summary_start_char"] + 1)
    assert "round_trip" in found(inserted_end_char=row["inserted_end_char"] - 1)
    assert "too_long" in found(context_tokens=10**6)
    assert "messages" in found(question="Another?")
    inside = row["context"].index(" w") + 1
    broken = insert_summary(without_summary(row), SUMMARY, inside)
    spans = {
        "inserted_start_char": broken.inserted_start,
        "inserted_end_char": broken.inserted_end,
        "summary_start_char": broken.summary_start,
        "summary_end_char": broken.summary_end,
    }
    assert "inside_sentence" in found(context=broken.context, **spans)
    assert split_leaks([row, {**row, "split": "test"}]) == ["d0"]
    assert split_leaks([row, row]) == []


def test_places_are_uniform_over_tokens_where_sentences_are_not() -> None:
    # Half of the sentences are long: a uniform sentence would be too early in tokens.
    text = page_of(100) + " " + " ".join(f"S{i} " + "long " * 60 + "end." for i in range(100))
    page = index_page(text, COUNTER)
    wide = Settings(lo=300, hi=page.n_tokens * 2, slack=page.n_tokens)
    rows = [build_row(qa(i), page, SUMMARY, COUNTER, wide, 3) for i in range(600)]
    depths = [row["depth"] for row in rows if isinstance(row, dict)]
    assert len(depths) == 600
    assert chi2_uniform(depth_counts([(0, 1)] * 600, np.minimum(depths, 0.999).tolist()))["ok"]
    by_sentence = [page.tokens[i] / page.n_tokens for i in range(200) for _ in range(3)]
    assert chi2_uniform(depth_counts([(0, 1)] * 600, by_sentence))["ok"] is False


def test_short_pages_are_rejected_or_filled() -> None:
    page = index_page(page_of(5), COUNTER)
    short = build_row(qa(1), page, SUMMARY, COUNTER, SMALL, 1)
    assert isinstance(short, Reject)
    assert short.code == "too_short"
    texts = [page_of(2, i + 5) for i in range(60)]
    ranked = [Paragraph(f"p{i}", f"x{i}", t, COUNTER.count(t)) for i, t in enumerate(texts)]
    fill = Settings(lo=300, hi=900, slack=100, on_short="fill")
    filled = build_row(qa(1), page, SUMMARY, COUNTER, fill, 1, ranked)
    assert isinstance(filled, dict)
    assert without_summary(filled).startswith(page.text)
    related = Settings(lo=300, hi=900, slack=100, mode="related_paragraphs")
    among = build_row(qa(1), page, SUMMARY, COUNTER, related, 1, ranked)
    assert isinstance(among, dict)
    assert page.text not in among["context"]
    start = among["inserted_start_char"]
    assert (
        start == 0 or among["context"][start - 1] in "\n." or start == len(without_summary(among))
    )
    room = build_row(qa(1), LONG, SUMMARY, COUNTER, Settings(lo=300, hi=330), 1)
    assert isinstance(room, Reject)
    assert room.code == "too_long"


def test_questions_of_a_document_can_share_their_draws() -> None:
    shared = Settings(lo=300, hi=900, slack=30, per_document=True)
    rows = [build_row(qa(i), LONG, SUMMARY, COUNTER, shared, 1) for i in (0, 7, 14)]
    assert len({row["context"] for row in rows if isinstance(row, dict)}) == 1
    apart = [build_row(qa(i), LONG, SUMMARY, COUNTER, SMALL, 1) for i in (0, 7, 14)]
    assert len({row["context"] for row in apart if isinstance(row, dict)}) == 3


def test_with_a_real_tokenizer_the_limits_are_hard() -> None:
    counter = token_counter("embedded")
    page = index_page(page_of(1200), counter)
    settings = Settings(lo=4_000, hi=9_000, slack=200)
    for i in range(6):
        row = build_row(qa(i), page, SUMMARY, counter, settings, 2)
        assert isinstance(row, dict)
        assert 4_000 <= counter.count(row["context"]) == row["context_tokens"] <= row["target_len"]
        assert row["n_tokens"] <= 9_000
        assert row_problems(row, page.text, SUMMARY, hi=9_000) == []
