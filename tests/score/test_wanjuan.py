"""LongWanjuan by hand: chunks, lines, words that hold a text together."""

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from longctx.filter.derived import wanjuan
from longctx.score.causal_lm import Segment, TokenScores
from longctx.score.cohesion import (
    CHINESE_CONNECTIVES,
    ENGLISH_CONNECTIVES,
    ENGLISH_PRONOUNS,
    cohesion,
)
from longctx.score.likelihood import numbers
from longctx.score.wanjuan import (
    Chunks,
    coherence,
    complexity,
    dmr,
    fitting,
)
from longctx.text.normalise import words
from tests.score.stubs import CopyLM

PAPER = Chunks(4096, 2048, 1024)
PIECES = ("as", "a", "result", "so", "that", "is", "if", "not", "on", "the", "other", "hand", ",")


class Sure:
    """Right with .6 where at least 2,500 tokens are before, else with .5; perplexities 8 and 16."""

    def scores(self, segments: Sequence[Segment]) -> list[TokenScores]:
        found = []
        for segment in segments:
            far = np.arange(segment.lo, segment.hi) >= 2_500
            assert not segment.bos
            nll = np.where(far, np.log(8), np.log(16)).astype(np.float32)
            found.append(TokenScores(nll, np.where(far, 0.6, 0.5)))  # type: ignore[arg-type]
        return found


def test_coherence_by_hand() -> None:
    (found,) = coherence(Sure(), [np.zeros(4096, np.int32)], PAPER)
    assert found == pytest.approx(
        {
            "lw_acc_long": 0.6,
            "lw_acc_short": 0.5,
            "lw_acc_diff": 0.1,
            "lw_acc_ratio": 0.166664,
            "lw_ppl_long": 8,
            "lw_ppl_short": 16,
            "lw_ppl_diff": 8,
            "lw_ppl_ratio": 8 / 16.00001,
            "lw_n_chunks": 1,
        },
        abs=1e-6,
    )


def test_targets_see_what_they_should() -> None:
    class Contexts(Sure):
        def scores(self, segments: Sequence[Segment]) -> list[TokenScores]:
            seen.extend((s.lo, s.hi, int(s.ids[0]), int(s.ids[-1])) for s in segments)
            return super().scores(segments)

    seen: list[tuple[int, int, int, int]] = []
    coherence(Contexts(), [np.arange(9_000, dtype=np.int32)], PAPER)
    assert seen == [
        (3072, 4096, 0, 4095),
        (1024, 2048, 2048, 4095),
        (3072, 4096, 4096, 8191),
        (1024, 2048, 6144, 8191),
    ]


def test_the_tail_and_short_documents_have_no_chunk() -> None:
    documents = [np.zeros(n, np.int32) for n in (9_000, 4_095, 0, 4_096)]
    found = coherence(Sure(), documents, PAPER)
    assert [f and f["lw_n_chunks"] for f in found] == [2, None, None, 1]


def test_perplexity_is_a_mean_over_chunks() -> None:
    class Steps(Sure):
        def scores(self, segments: Sequence[Segment]) -> list[TokenScores]:
            values = [1.0, 2.0, 3.0, 4.0]
            return [
                TokenScores(np.full(s.hi - s.lo, v, np.float32), np.zeros(s.hi - s.lo, bool))
                for s, v in zip(segments, values, strict=True)
            ]

    (found,) = coherence(Steps(), [np.zeros(8, np.int32)], Chunks(4, 2, 1))
    assert found is not None
    assert found["lw_ppl_long"] == pytest.approx((np.exp(1) + np.exp(3)) / 2)
    assert found["lw_ppl_short"] == pytest.approx((np.exp(2) + np.exp(4)) / 2)


def test_what_is_no_number_shows() -> None:
    class Broken(Sure):
        def scores(self, segments: Sequence[Segment]) -> list[TokenScores]:
            return [s._replace(nll=s.nll * np.nan) for s in super().scores(segments)]

    (found,) = coherence(Broken(), [np.zeros(8, np.int32)], Chunks(4, 2, 1))
    assert found is not None
    assert not numbers(found)


def test_chunks_fit_the_model() -> None:
    assert fitting(8_192) == PAPER
    assert fitting(1_000) == Chunks(1000, 500, 250)
    assert fitting(8_192, window=512) == Chunks(512, 256, 128)
    assert fitting(8_192, 512, 300, 200) == Chunks(512, 300, 200)


def lines(text: str) -> dict[str, float | int | None]:
    return complexity(text, np.array([1, 1, 2, 3], np.int32))


def test_type_token_ratios() -> None:
    assert lines("abcd")["lw_ttr"] == 0.75
    assert lines("abcd")["lw_ttr_win"] == 0.75
    assert lines("abcd")["lw_tok_per_char"] == 1
    ids = np.concatenate([np.zeros(1000), np.arange(1000), np.zeros(999)]).astype(np.int32)
    found = complexity("x", ids)
    assert found["lw_ttr_win"] == pytest.approx((0.001 + 1) / 2)
    assert found["lw_ttr"] == pytest.approx(1000 / 2999)
    assert complexity("x", np.zeros(5, np.int32))["lw_ttr"] == 0.2


def test_line_measures() -> None:
    found = lines("abc\n\nabcde")
    assert {k.removeprefix("lw_line_"): v for k, v in found.items() if "_line_" in k} == {
        "mean": 4,
        "std": 1,
        "med": 4,
        "max": 5,
        "min": 3,
    }
    found = lines("a, b|c，\n")
    assert found["lw_comma_rate"] == found["lw_bar_rate"] * 2 == pytest.approx(2 / 8)  # type: ignore[operator]
    assert found["lw_newline_rate"] == found["lw_space_rate"] == pytest.approx(1 / 8)


def test_blank_lines_have_no_lengths_and_an_empty_text_nothing() -> None:
    found = lines("\n \r\n\t\n")
    assert {v for k, v in found.items() if "_line_" in k} == {None}
    assert found["lw_newline_rate"] == pytest.approx(3 / 6)
    assert set(complexity("", np.zeros(0, np.int32)).values()) == {None}


def test_cohesion_of_english() -> None:
    assert len(ENGLISH_PRONOUNS) == 39
    assert len(set(ENGLISH_CONNECTIVES)) == len(ENGLISH_CONNECTIVES)
    assert cohesion("It was his book and it was hers", "en") == (4 / 8, 0)
    text = "However, it rained; as a result, we stayed in because of the storm."
    assert cohesion(text, "en-GB") == (2 / 17, 5 / 17)
    assert cohesion("So that is that.", "en") == (2 / 5, 2 / 5)
    assert cohesion("on the other side, after all", "en") == (0, 2 / 7)
    assert cohesion("as a", "en") == (0, 0)


def test_cohesion_of_chinese() -> None:
    assert cohesion("因为下雨，所以我们留在家里。", "zh-Hans") == (2 / 14, 4 / 14)
    assert cohesion("与此同时", "zh") == (0, 1)
    assert len(set(CHINESE_CONNECTIVES)) == len(CHINESE_CONNECTIVES)


def test_cohesion_of_nothing_or_another_language_is_null() -> None:
    assert cohesion("It was his", "ko") is None
    assert cohesion("It was his", None) is None
    assert cohesion(" \n ", "en") is None
    assert cohesion(" \n ", "zh") is None


@given(st.lists(st.sampled_from(PIECES)))
@settings(deadline=None, max_examples=200)
def test_phrases_across_pieces_of_a_text(found: list[str]) -> None:
    """The same count for any size of the pieces, and that of a plain scan."""
    from unittest.mock import patch

    text = " ".join(found)
    phrases = sorted((p.split() for p in ENGLISH_CONNECTIVES), key=len, reverse=True)
    tokens, at, covered = words(text), 0, 0
    while at < len(tokens):
        size = next((len(p) for p in phrases if tokens[at : at + len(p)] == p), 0)
        covered += size
        at += max(1, size)
    for piece in (1, 7, 1 << 20):
        with patch("longctx.score.cohesion._PIECE", piece):
            result = cohesion(text, "en")
        assert (result.connectives if result else 0) == (covered / len(tokens) if tokens else 0)


def test_discourse_markers_of_neighbouring_spans() -> None:
    sentence = "This sentence has forty-one characters now."
    asked: list[tuple[str, str]] = []

    def no_connective(a: str, b: str) -> float:
        asked.append((a, b))
        return 0.75

    assert dmr(" ".join([sentence] * 13 + ["No."]), no_connective) == 0.25
    assert [len(a) > 256 for a, _ in asked] == [True, True]
    assert all("No." not in b for _, b in asked)
    assert dmr(sentence, no_connective) is None


def planted(rng: np.random.Generator, pieces: int, size: int) -> np.ndarray:
    """Runs of tokens in which each is followed by the same one: as many rules as pieces."""
    made = []
    for _ in range(pieces):
        follows = rng.permutation(200) + rng.integers(0, 100) * 200
        base = follows.min()
        ids = [int(follows[0])]
        for _ in range(size // pieces - 1):
            jump = rng.random() < 0.3
            ids.append(int(follows[rng.integers(200)] if jump else follows[ids[-1] - base]))
        made.append(ids)
    return np.concatenate(made).astype(np.int32)


def test_books_before_fragments_before_noise() -> None:
    """Coherence of one subject, of concatenated fragments and of random tokens: a copy model."""
    rng = np.random.default_rng(0)
    kinds = {
        "book": [planted(rng, 1, 1024) for _ in range(6)],
        "fragments": [planted(rng, 16, 1024) for _ in range(6)],
        "noise": [rng.integers(0, 20_000, 1024).astype(np.int32) for _ in range(6)],
    }
    documents = [ids for kind in kinds.values() for ids in kind]
    found = coherence(CopyLM(20_000), documents, Chunks(512, 128, 64))
    names = ("lw_acc_long", "lw_acc_diff")
    columns = {n: np.array([f[n] for f in found], float) for n in names}  # type: ignore[index]
    same = np.zeros(len(documents))
    rest = dict.fromkeys(("lw_pron_rate", "lw_conn_rate", "lw_ttr_win"), same)
    book, fragments, noise = wanjuan({**columns, **rest}).C.reshape(3, 6).mean(axis=1)
    assert book > fragments > noise
