"""GATEAU: the specification's examples, and how a row is cut, fed and read."""

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from longctx.filter.cut import zscore
from longctx.score.attention import Query
from longctx.score.causal_lm import CausalLM, Segment, TokenScores, load_causal_lm
from longctx.score.gateau import cas, gateau_hmg, gateau_score, gateau_select, importance
from longctx.score.gateau_rows import (
    Fields,
    Limits,
    Parts,
    Role,
    fed,
    fields_of,
    fields_of_messages,
    read_row,
    role_of,
)
from tests.score.models import tiny_model
from tests.score.stubs import CopyLM
from tests.score.test_attention import eager

NLL_A, NLL_B, CAS = [3, 2, 2.5, 4], [1, 1.5, 2.5, 2], [0.9, 0.5, 0.7, 0.6]
IDS = list("abcd")


def i32(*values: int) -> np.ndarray:
    return np.array(values, dtype=np.int32)


NO_TITLES = Parts(i32(), i32(), i32())


def test_the_example() -> None:
    hmg = gateau_hmg(NLL_A, NLL_B)
    assert hmg.tolist() == [2, 0.5, 0, 2]
    assert zscore(hmg) == pytest.approx([0.848875, -0.606339, -1.091410, 0.848875], abs=1e-6)
    score = gateau_score(NLL_A, NLL_B, CAS, alpha=0.8)
    assert score == pytest.approx([0.942593, -0.690010, -0.843851, 0.591269], abs=1e-6)
    assert gateau_select(score, IDS, 1).tolist() == [0, 3, 1, 2]


def test_both_lists_normalised_first() -> None:
    hmg = gateau_hmg(NLL_A, NLL_B, hmg="z_each")
    assert hmg == pytest.approx([1.308280, -0.637397, -1.601050, 0.930167], abs=1e-6)
    score = gateau_score(NLL_A, NLL_B, CAS, hmg="z_each")
    assert score == pytest.approx(0.8 * zscore(hmg) + 0.2 * zscore(CAS))


def test_the_released_norm_puts_another_row_first() -> None:
    score = gateau_score(NLL_A, NLL_B, CAS, norm="released")
    assert gateau_select(score, IDS, 0.25).tolist() == [3]
    softmax = gateau_score(NLL_A, NLL_B, CAS, norm="paper_softmax", alpha=0)
    assert softmax.sum() == pytest.approx(1)
    ranks = gateau_score(NLL_A, NLL_B, CAS, norm="rank", alpha=1)
    assert ranks == pytest.approx([5 / 6, 1 / 3, 0, 5 / 6])


def test_cosines_of_the_example() -> None:
    assert cas([2, 1, 4], [0.2, 0.1, 0.4]) == pytest.approx(1)
    assert cas([10, 2], [1, 3]) == pytest.approx(0.496139, abs=1e-6)
    assert np.isnan(cas([2], [0.2]))
    assert np.isnan(cas([1, 2], [0, 0]))


@given(
    pairs=st.lists(st.tuples(st.floats(0.01, 1e3), st.floats(0.01, 1)), min_size=2, max_size=20),
    scale=st.floats(1e-3, 1e3),
)
def test_a_cosine_does_not_depend_on_scale(pairs: list[tuple[float, float]], scale: float) -> None:
    a, b = np.array(pairs).T
    assert 0 <= cas(a, b) <= 1
    assert cas(scale * a, b) == pytest.approx(cas(a, b))
    assert cas(a, scale * b) == pytest.approx(cas(a, b))


def test_kinds_of_importance() -> None:
    nll = [0.0, np.log(4)]
    assert importance(nll) == pytest.approx([1, 4])
    assert importance(nll, "exp_neg_nll") == pytest.approx([1, 0.25])
    assert cas(importance(nll, "neg_ppl"), [1, 4]) == pytest.approx(-1)


@pytest.mark.parametrize("norm", ["z", "rank"])
def test_alpha_leaves_one_part(norm: Any) -> None:
    rng = np.random.default_rng(0)
    a, b, c = rng.normal(size=(3, 50))
    only_hmg = gateau_score(a, b, c, alpha=1, norm=norm)
    only_cas = gateau_score(a, b, c, alpha=0, norm=norm)
    if norm == "z":
        assert np.corrcoef(only_hmg, gateau_hmg(a, b))[0, 1] == pytest.approx(1)
        assert np.corrcoef(only_cas, c)[0, 1] == pytest.approx(1)
        assert only_hmg.mean() == pytest.approx(0, abs=1e-12)
        assert only_hmg.std(ddof=1) == pytest.approx(1)
    assert np.argsort(only_hmg).tolist() == np.argsort(a - b).tolist()
    assert np.argsort(only_cas).tolist() == np.argsort(c).tolist()


def test_selection_takes_a_rounded_up_share_and_breaks_ties_by_id() -> None:
    scores = np.array([1.0, 2, 2, np.nan, 0, 2])
    ids = ["a", "d", "b", "x", "e", "c"]
    assert gateau_select(scores, ids, 0.6).tolist() == [2, 5, 1]
    assert gateau_select(scores, ids, 0.1).tolist() == [2]
    assert len(gateau_select(np.arange(100.0), [str(i) for i in range(100)], 0.07)) == 7
    assert gateau_select([], [], 0.5).tolist() == []
    kept = gateau_select(scores, ids, 1)
    again = gateau_select(scores[kept], [ids[i] for i in kept], 1)
    assert again.tolist() == list(range(5))


def chat(user: Any, answer: Any = "yes") -> list[dict[str, Any]]:
    return [{"role": "user", "content": user}, {"role": "assistant", "content": answer}]


def test_messages_are_split_at_the_last_blank_line() -> None:
    text = "One.\n\nTwo\nlines.\n \nWhat is it?\nSay.\n"
    found = fields_of_messages(chat(text, "It."))
    assert found == Fields("One.\n\nTwo\nlines.", "What is it?\nSay.", "It.")
    assert fields_of_messages(chat("One block\nonly")) == Fields("One block\nonly", "", "yes")


@pytest.mark.parametrize(
    "messages",
    [
        None,
        "text",
        [],
        chat("a\n\nb")[:1],
        chat("a\n\nb") + chat("c\n\nd"),
        chat("a\n\nb")[::-1],
        chat(None),
        chat("a\n\nb", 7),
        ["a", "b"],
    ],
)
def test_other_messages_are_no_row(messages: Any) -> None:
    assert fields_of_messages(messages) is None


def test_fields_beside_the_text() -> None:
    meta = {"q": "Which?", "a": "That.", "n": 3}
    assert fields_of("long", meta, "q", "a") == Fields("long", "Which?", "That.")
    assert fields_of("long", meta, "q", "b") is None
    assert fields_of("long", meta, "n", "a") is None


def test_a_row_is_fed_under_titles_with_the_end_of_its_context() -> None:
    titles = Parts(i32(1, 2), i32(3), i32(4))
    parts = Parts(i32(10, 11, 12, 13), i32(20, 21), i32(30))
    whole = fed(parts, titles, 11)
    assert whole is not None
    assert whole.ids.tolist() == [1, 2, 10, 11, 12, 13, 3, 20, 21, 4, 30]
    assert (whole.context, whole.response, whole.cut) == ((2, 6), (10, 11), False)
    less = fed(parts, titles, 9)
    assert less is not None
    assert less.ids.tolist() == [1, 2, 12, 13, 3, 20, 21, 4, 30]
    assert (less.context, less.response, less.cut) == ((2, 4), (8, 9), True)
    nothing = fed(parts, titles, 7)
    assert nothing is not None
    assert nothing.context == (2, 2)
    assert fed(parts, titles, 6) is None


def test_a_row_without_room_for_its_response_is_none() -> None:
    parts = Parts(i32(*range(50)), i32(*range(5)), i32(*range(20)))
    long = Role(CopyLM(100), NO_TITLES, 60), parts
    assert read_row((Role(CopyLM(100), NO_TITLES, 24), parts), long, attend=even) is None
    assert read_row((Role(CopyLM(100), NO_TITLES, 25), parts), long, attend=even) is not None


def even(lm: Any, segment: Segment, query: Query) -> tuple[TokenScores, np.ndarray]:
    """Attention that is the same everywhere."""
    weights = np.diff(query.borders) * (query.end - query.start) / 100
    return lm.scores([segment])[0], weights


def planted(rng: np.random.Generator, back: tuple[int, int]) -> Parts:
    """A row whose response repeats a span that lies so many tokens before it."""
    context = rng.integers(0, 5000, 3000)
    start = 3000 - int(rng.integers(*back))
    return Parts(
        context.astype(np.int32),
        rng.integers(0, 5000, 10).astype(np.int32),
        context[start : start + 60].astype(np.int32),
    )


def test_rows_that_need_their_far_context_are_found() -> None:
    rng = np.random.default_rng(4)
    far = set(rng.choice(60, 6, replace=False).tolist())
    rows = [planted(rng, (1500, 2900) if i in far else (100, 300)) for i in range(60)]
    short, long = (Role(CopyLM(5000), NO_TITLES, w) for w in (400, 6400))
    few = Limits(segments=0)
    read = [read_row((short, r), (long, r), limits=few, attend=even) for r in rows]
    swapped = [read_row((long, r), (short, r), limits=few, attend=even) for r in rows]
    hmg, other = (
        gateau_hmg([r.nll_a for r in found if r], [r.nll_b for r in found if r])
        for found in (read, swapped)
    )
    ids = [f"{i:02}" for i in range(60)]
    top = set(gateau_select(hmg, ids).tolist())
    assert len(top & far) / len(far) >= 0.95
    assert set(gateau_select(-other, ids).tolist()) == top
    assert other == pytest.approx(-hmg)


def test_full_feeds_the_short_model_everything() -> None:
    row = planted(np.random.default_rng(1), (1500, 2900))
    short, long = Role(CopyLM(5000), NO_TITLES, 400), Role(CopyLM(5000), NO_TITLES, 6400)
    cut = read_row((short, row), (long, row), limits=Limits(segments=0), attend=even)
    full = read_row(
        (short, row), (long, row), short_mode="full", limits=Limits(segments=0), attend=even
    )
    assert cut is not None
    assert full is not None
    assert cut.nll_a > cut.nll_b + 3
    assert full.nll_a == full.nll_b == cut.nll_b


def test_the_segment_that_helps_is_the_least_important_by_perplexity() -> None:
    """One segment of five holds what the response repeats: its perplexity is the smallest."""
    rng = np.random.default_rng(2)
    context = rng.integers(0, 5000, 600).astype(np.int32)
    row = Parts(context, i32(7), context[300:340])
    role = Role(CopyLM(5000), NO_TITLES, 6400)
    found = read_row((role, row), (role, row), attend=even)
    assert found is not None
    assert len(found.alone) == len(found.attention) == 5
    assert int(np.argmin(found.alone)) == 2
    assert found.attention == pytest.approx([0.01] * 5)
    assert 0 < found.cas("ppl") < 1
    assert -1 < found.cas("neg_ppl") < 0


def test_segments_are_the_last_of_the_context_and_fields_are_cut() -> None:
    seen: list[Query] = []

    def note(lm: Any, segment: Segment, query: Query) -> tuple[TokenScores, np.ndarray]:
        seen.append(query)
        assert segment.ids[:37].tolist() == [*range(64, 100), 0]
        return even(lm, segment, query)

    row = Parts(np.arange(100, dtype=np.int32), i32(*range(9)), i32(*range(8)))
    role = Role(CopyLM(100), NO_TITLES, 1000)
    found = read_row((role, row), (role, row), limits=Limits(12, 3, 5), attend=note)
    assert found is not None
    assert len(found.alone) == 3
    assert seen[0].borders.tolist() == [0, 12, 24, 36]
    assert (seen[0].start, seen[0].end) == (41, 46)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def lm(folder: Path) -> CausalLM:
    return load_causal_lm(str(folder), dtype="float32", device="cpu")


def parts_of(lm: CausalLM, fields: Fields) -> Parts:
    return Parts(*lm.encode(list(fields)))


ROW = Fields("the cat sat on the mat " * 10, "Where was the cat?", "On the mat, of course.")


def test_one_model_that_fits_has_no_difference(lm: CausalLM) -> None:
    role = role_of(lm, 1024)
    row = parts_of(lm, ROW)
    found = read_row((role_of(lm, 500), row), (role, row), limits=Limits(64))
    assert found is not None
    assert found.nll_a == found.nll_b
    assert not found.cut
    shorter = read_row((role_of(lm, 150), row), (role, row), limits=Limits(64))
    assert shorter is not None
    assert shorter.nll_a != shorter.nll_b == found.nll_b


def test_attention_is_that_of_the_whole_model_on_its_segments(lm: CausalLM, folder: Path) -> None:
    role = role_of(lm, 1024)
    row = parts_of(lm, ROW)
    found = read_row((role, row), (role, row), limits=Limits(64))
    laid = fed(row, role.titles, 1024)
    assert found is not None
    assert laid is not None
    assert laid.ids[0] == lm.bos
    assert lm.tokenizer.decode(laid.ids[1:]).startswith("Input:\nthe cat")
    weights = eager(folder, laid.ids.astype(np.int64))[:, slice(*laid.response)]
    start, end = laid.context
    borders = [*range(start, end, 64), end]
    expected = [weights[:, :, a:b].mean() for a, b in pairwise(borders)]
    assert len(expected) == 4
    np.testing.assert_allclose(found.attention, expected, rtol=1e-4)
    plain = lm.scores([laid.segment])[0].nll.mean()
    assert found.nll_b == pytest.approx(plain, rel=1e-6)
    alone = fed(row._replace(context=row.context[64:128]), role.titles, 1024)
    assert alone is not None
    assert found.alone[1] == pytest.approx(lm.scores([alone.segment])[0].nll.mean(), abs=1e-5)


def test_one_segment_has_no_cosine(lm: CausalLM) -> None:
    role = role_of(lm, 1024)
    row = parts_of(lm, ROW)
    found = read_row((role, row), (role, row), limits=Limits(500))
    assert found is not None
    assert len(found.alone) == 0
    assert np.isnan(found.cas("ppl"))
    assert np.isfinite(found.nll_b)
