"""n-grams of evaluation sets in documents: planted copies are found whole, other texts are not."""

import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from longctx.dedup.shingles import token_hashes
from longctx.filter.decontaminate import (
    Hits,
    Index,
    Match,
    covered,
    cut,
    grams_of,
    item_grams,
    matches,
    token_places,
)
from longctx.text.normalise import dedup_tokens

steady = settings(derandomize=True, deadline=None, max_examples=60)

QUESTION = (
    "In the harbour of the small town, which of the two keepers went down to the glass house with "
    "the lamp of her sister, and why did nobody on the quay believe what she told them afterwards?"
)
SAME_TOPIC = (
    "The harbour of the small town has a glass house on its quay. Two keepers look after the lamp "
    "there; one of them has a sister, and both tell stories that hardly anybody on the boats "
    "believes, though the lamp went out twice that year and was lit again by nobody at all."
)
FILLER = "Ships came and went with salt, rope and letters; the tide rose twice a day as ever. " * 5


def index_of(*items: str, sets: list[int] | None = None, n: int = 13, least: int = 8) -> Index:
    found = []
    for number, text in enumerate(items):
        tokens, grams = item_grams(text, n, least)
        found.append((number, min(n, tokens), grams))
    return Index(grams_of(found, sets or [0] * len(items)))


def matched(text: str, index: Index) -> tuple[float, list[Match]]:
    """Share of tokens covered, and the stretches."""
    tokens, hits = index.hits(text)
    starts, ends = token_places(text)
    last = hits.token + hits.width - 1
    return covered(hits) / max(tokens, 1), matches(hits, starts[hits.token], ends[last], index)


def test_an_exact_copy_is_found_whole() -> None:
    text = FILLER + QUESTION + " " + FILLER
    share, found = matched(text, index_of(QUESTION))
    assert [text[m.start : m.end] for m in found] == [QUESTION]
    copied = len(dedup_tokens(QUESTION))
    assert share == pytest.approx(copied / len(dedup_tokens(text)))


@pytest.mark.parametrize(
    "changed",
    [
        QUESTION.upper(),
        re.sub(r"[,?]", "", QUESTION),
        QUESTION.replace(" ", "  \n"),
        QUESTION.replace(",", " --"),
        f"»{QUESTION}«".replace("harbour", "hárbour"),
        QUESTION.replace("small town", "small\u00a0town"),
    ],
)
def test_case_punctuation_accents_and_line_breaks_hide_nothing(changed: str) -> None:
    share, found = matched(changed, index_of(QUESTION))
    assert share == 1
    assert len(found) == 1


def test_of_a_partial_copy_the_part_is_found() -> None:
    half = QUESTION[: QUESTION.index(", and why")]
    text = FILLER + half + ". " + FILLER
    _, found = matched(text, index_of(QUESTION))
    assert [text[m.start : m.end] for m in found] == [half + "."]


def test_a_changed_word_makes_a_gap_only_where_both_sides_are_long_enough() -> None:
    words = QUESTION.split()
    words[16] = "entirely"
    text = " ".join(words)
    _, found = matched(text, index_of(QUESTION))
    assert [text[m.start : m.end] for m in found] == [" ".join(words[:16]), " ".join(words[17:])]
    words[8] = "other"
    _, found = matched(" ".join(words[:29]), index_of(QUESTION))
    assert found == []


def test_another_text_of_the_topic_has_no_hits() -> None:
    share, found = matched(SAME_TOPIC * 3, index_of(QUESTION))
    assert (share, found) == (0, [])


def test_items_shorter_than_n_are_looked_for_whole() -> None:
    ten = "Name the two rivers that meet below the castle hill"
    assert len(dedup_tokens(ten)) == 10
    index = index_of(ten, "Who was it?")
    assert len(index) == 1
    text = f"{FILLER} (a) {ten}? {FILLER}"
    _, found = matched(text, index)
    assert [text[m.start : m.end] for m in found] == [f"{ten}?"]
    assert matched(ten.rsplit(" ", 1)[0], index)[1] == []
    assert matched("Who was it?", index)[1] == []


def test_chinese_and_code_are_found_to_the_character_and_to_the_word() -> None:
    chinese = "那天晚上港口很安静，没有人看见墙上的灯熄灭了。"
    text = f"从前有一个人。{chinese}后来他们都走了。"
    _, found = matched(text, index_of(chinese))
    assert [text[m.start : m.end] for m in found] == [chinese[:-1]]
    code = "def collect(self, paths): return sorted(self.read(path, limit) for path in paths)"
    _, found = matched(f"x = 1\n{code}\ny = 2", index_of(code))
    assert len(found) == 1


def test_every_set_that_has_a_text_is_named_once_by_its_first_item() -> None:
    index = index_of(QUESTION, QUESTION, QUESTION, sets=[0, 0, 1])
    _, found = matched(QUESTION, index)
    assert [m.item for m in found] == [0, 2]


@pytest.mark.parametrize("text", ["", " \n", "\0\0", "word", "la " * 5000, "x" * 300_000])
def test_texts_that_hold_nothing_have_no_hits(text: str) -> None:
    assert matched(text, index_of(QUESTION)) == (0, [])


def test_a_repeated_token_matches_a_repeated_token() -> None:
    index = index_of("la " * 13)
    share, found = matched("la " * 100, index)
    assert share == 1
    assert len(found) == 1


tokens = st.lists(st.sampled_from(["a", "b", "c", "d"]), max_size=40).map(" ".join)


@given(text=tokens, items=st.lists(tokens, min_size=1, max_size=4), n=st.integers(2, 6))
@steady
def test_hits_are_those_of_a_plain_search(text: str, items: list[str], n: int) -> None:
    least = 2
    wanted: dict[tuple[str, ...], int] = {}
    for item in items:
        words = item.split()
        for i in range(max(1, len(words) - n + 1)):
            gram = tuple(words[i : i + n])
            if len(words) >= least:
                wanted.setdefault(gram, len(gram))
    words = text.split()
    expected = sorted(
        (i, width)
        for i in range(len(words))
        for width in set(wanted.values())
        if tuple(words[i : i + width]) in wanted and i + width <= len(words)
    )
    index = index_of(*items, n=n, least=least)
    n_tokens, hits = index.hits(text)
    assert (n_tokens, len(index)) == (len(words), len(wanted))
    assert list(zip(hits.token.tolist(), hits.width.tolist(), strict=True)) == expected
    inside = {t for i, width in expected for t in range(i, i + width)}
    assert covered(hits) == len(inside)


def test_slices_of_a_long_text_meet(monkeypatch: pytest.MonkeyPatch) -> None:
    index = index_of(QUESTION, "Name the two rivers that meet below the castle hill")
    text = FILLER + QUESTION + FILLER
    whole = index.hits(text)
    monkeypatch.setattr("longctx.filter.decontaminate._SLICE", 7)
    sliced = index.hits(text)
    assert whole[0] == sliced[0]
    for a, b in zip(whole[1], sliced[1], strict=True):
        np.testing.assert_array_equal(a, b)


@given(
    st.text(max_size=60)
    | st.lists(
        st.sampled_from(
            ["3,5", "1.2.3", "カ\u3099", "e\u0301", "ᄀ", "ᅡ", "漢", "ก็", "a.b(c)", " ", "Σ", "-"]
        ),
        max_size=20,
    ).map("".join)
)
@steady
def test_every_token_has_a_place(text: str) -> None:
    starts, ends = token_places(text)
    assert len(starts) == len(ends) == token_hashes(text).size
    assert (np.diff(starts) >= 0).all()
    assert (starts < ends).all()
    assert all(not re.search(r"\s", text[a:b]) for a, b in zip(starts, ends, strict=True))


def test_what_was_found_is_cut_with_its_margin_to_whole_words() -> None:
    text = "alpha beta gamma delta epsilon zeta eta theta"
    start = text.index("delta")
    assert cut(text, [(start, start + 5)], 0) == "alpha beta gamma\nepsilon zeta eta theta"
    assert cut(text, [(start, start + 5)], 3) == "alpha beta\nzeta eta theta"
    assert cut(text, [(0, 3), (start, start + 5)], 0) == "beta gamma\nepsilon zeta eta theta"
    assert cut(text, [(start, start + 5), (start + 6, start + 9)], 0) == (
        "alpha beta gamma\nzeta eta theta"
    )
    assert cut(text, [(0, len(text))], 0) == ""
    assert cut(f" {text} ", [], 9) == f" {text} "


@given(st.text("ab \n", max_size=60), st.lists(st.integers(0, 60), max_size=6), st.integers(0, 9))
@steady
def test_cutting_leaves_words_of_the_text_in_their_order(
    text: str, places: list[int], margin: int
) -> None:
    stretches = [(p, p + 2) for p in places if p + 2 <= len(text)]
    left, words = cut(text, stretches, margin).split(), iter(text.split())
    assert all(word in words for word in left)
    if stretches:
        assert sum(map(len, left)) <= sum(map(len, text.split()))


def test_no_hits_make_no_matches() -> None:
    index = index_of(QUESTION)
    none = np.empty(0, dtype=np.int64)
    hits = Hits(none, none.astype(np.int32), none.astype(np.int32))
    assert (covered(hits), matches(hits, none, none, index)) == (0, [])
