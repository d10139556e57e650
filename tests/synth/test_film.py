"""FILM: pieces, fillers, rows whose evidence may stand anywhere, the figures of VaL probing."""

from collections import Counter
from itertools import pairwise
from math import factorial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from longctx.synth.checks import adjacent_golds, chi2_shares, chi2_uniform, depth_counts, ks_uniform
from longctx.synth.film import (
    Segment,
    fill_to_target,
    n_segments,
    segment_spans,
    segments_of,
    val_avg_gap,
    word_recall,
)
from longctx.synth.film_fillers import choose_fillers, draw_target, pool_of
from longctx.synth.film_rows import (
    QA,
    WEIGHTS,
    asked_piece,
    assign_types,
    build_row,
    general_row,
    question_kind,
    row_problems,
    short_row,
)
from longctx.synth.rows import FILM, Reject, Row, table_of
from longctx.synth.tokens import token_counter

COUNTER = token_counter("whitespace")


def text_of(name: str, n: int) -> str:
    return " ".join(f"{name}w{i}" for i in range(n))


def pieces(name: str, n: int, cluster: str | None = None) -> list[Segment]:
    return segments_of(name, text_of(name, n), COUNTER, cluster)


FILLERS = [s for i in range(150) for s in pieces(f"f{i}", 700, "twins" if i < 2 else None)]
POOL = pool_of(FILLERS, contaminated=["f7"])
TEXTS = {s.seg_id: s.text for s in FILLERS}


@pytest.mark.parametrize(
    ("n", "expected"), [(63, 0), (64, 1), (128, 1), (191, 1), (192, 2), (570, 4), (600, 5)]
)
def test_n_segments(n: int, expected: int) -> None:
    assert n_segments(n) == expected
    assert len(segment_spans(text_of("d", n), COUNTER)) == expected


@settings(deadline=None)  # the tokenizer is loaded by the first
@given(st.text("ab é他🦜 \n", max_size=300), st.integers(1, 6), st.sampled_from(["w", "e"]))
def test_spans_join_to_the_text(text: str, size: int, kind: str) -> None:
    counter = token_counter("whitespace" if kind == "w" else "embedded")
    spans = segment_spans(text, counter, size, 1)
    assert all(a[1] == b[0] for a, b in pairwise(spans))
    if spans:
        assert (spans[0][0], spans[-1][1]) == (0, len(text))
        assert len(spans) == n_segments(counter.count(text), size, 1)


def test_a_short_tail_is_dropped() -> None:
    found = pieces("d", 570)
    assert [s.n_tokens for s in found] == [128] * 4
    assert [s.n_tokens for s in pieces("d", 600)] == [128] * 4 + [88]
    assert "".join(s.text for s in pieces("d", 600)) == text_of("d", 600)
    assert found[3].seg_id == "d#3"


def test_fill_to_target() -> None:
    assert fill_to_target([128], [128] * 300, 1000) == (6, 896)
    assert fill_to_target([128] * 4 + [88], [128] * 300, 4096) == (27, 4056)
    assert fill_to_target([128], [128] * 300, 32768) == (255, 32768)
    assert fill_to_target([128, 128], [128] * 9, 600, join_tokens=1) == (2, 515)
    assert fill_to_target([128], [64], 4096) == (1, 192)


@given(
    st.lists(st.integers(64, 128), min_size=1, max_size=5),
    st.integers(700, 5000),
    st.integers(0, 2),
)
def test_fillers_come_within_a_piece_of_the_target(
    source: list[int], target: int, join: int
) -> None:
    k, total = fill_to_target(source, [128] * 60, target, join)
    assert k < 60
    assert target - 128 - join < total <= target


def test_types_have_exact_shares() -> None:
    ids = [f"r{i}" for i in range(1000)]
    kinds = assign_types(ids, 3)
    assert Counter(kinds.values()) == {"fine": 629, "integration": 171, "short": 86, "general": 114}
    assert kinds == assign_types(list(reversed(ids)), 3)
    assert chi2_shares([Counter(kinds.values())[kind] for kind in WEIGHTS], list(WEIGHTS.values()))[
        "ok"
    ]


def test_kinds_of_questions() -> None:
    assert question_kind("integration", 1, 0, "r") is None
    assert question_kind("integration", 65, 0, "r") is None
    assert question_kind("integration", 64, 0, "r") == "integration"
    drawn = Counter(question_kind("short", 5, 0, f"r{i}") for i in range(1000))
    assert chi2_shares([drawn["fine"], drawn["integration"]], [110, 30])["ok"]
    assert {question_kind("short", 1, 0, f"r{i}") for i in range(50)} == {"fine"}


def test_targets_are_spread_evenly() -> None:
    rng = np.random.default_rng(2)
    drawn = [draw_target(rng, 128) for _ in range(3000)]
    assert ks_uniform([t for t in drawn if t is not None], 4096, 32768)["ok"]
    assert draw_target(rng, 32769) is None
    assert draw_target(np.random.default_rng(1), 20000) is not None


def test_fillers_are_strangers() -> None:
    source = pieces("f0", 700, "twins")
    chosen = choose_fillers(np.random.default_rng(0), POOL, source, 20_000)
    assert chosen is not None
    assert len(set(chosen)) == len(chosen) == fill_to_target([128] * 5, [128] * 300, 20_000)[0]
    assert not {"f0", "f1", "f7"} & {FILLERS[i].doc_id for i in chosen}
    small = pool_of(FILLERS[:30])
    assert choose_fillers(np.random.default_rng(0), small, source, 20_000) is None
    assert choose_fillers(np.random.default_rng(0), pool_of([]), source, 5_000) is None


def made(i: int, kind: str = "fine", n: int = 600) -> Row:
    source = pieces(f"s{i}", n)
    asked = [asked_piece(len(source), 5, f"r{i}")] if kind == "fine" else [0, 2]
    row = build_row(QA(f"r{i}", kind, "What?", "That.", asked), source, POOL, COUNTER, 5)
    assert isinstance(row, dict)
    return row


def problems(row: Row, clusters: dict[str, str]) -> list[str]:
    own = {s.seg_id: s.text for s in pieces(row["source_doc_id"], 600)}
    return row_problems(row, lambda seg_id: {**TEXTS, **own}[seg_id], clusters)


def test_rows_are_sound_and_fit_their_schema() -> None:
    fine, several = made(1), made(2, "integration")
    for row in (fine, several):
        assert problems(row, {}) == []
        assert row["target_len"] - 128 < row["context_tokens"] <= row["target_len"]
        assert COUNTER.count(row["context"]) == row["context_tokens"]
    assert len(fine["gold_pos"]) == 1
    assert fine["needed_pos"] == fine["gold_pos"]
    assert len(several["gold_pos"]) == 5
    assert len(several["needed_pos"]) == 2
    short = short_row(
        QA("x", "short", "What?", "That.", [1]), text_of("s", 600), pieces("s", 600), COUNTER, 5
    )
    assert isinstance(short, dict)
    assert (short["needed_pos"], short["target_len"]) == ([1], None)
    general = general_row(QA("y", "general", "Do it.", "Done.", []), COUNTER, 5)
    assert table_of([fine, several, short, general], FILM).num_rows == 4
    assert made(1) == fine


def test_rows_that_cannot_be_made() -> None:
    long = pieces("s", 33_000)
    qa = QA("r", "integration", "What?", "That.", [0, 1])
    rejected = build_row(qa, long, POOL, COUNTER, 5)
    assert isinstance(rejected, Reject)
    assert rejected.code == "source_too_long"
    few = build_row(qa, pieces("s", 600), pool_of(FILLERS[:9]), COUNTER, 5)
    assert isinstance(few, Reject)
    assert few.code == "too_few_candidates"
    copies = [Segment(f"c#{i}", "c", None, i, pieces("s", 600)[0].text, 128) for i in range(2)]
    twice = build_row(qa, copies, POOL, COUNTER, 5)
    assert isinstance(twice, Reject)
    assert twice.code == "duplicate"


def test_planted_faults_of_rows_are_found() -> None:
    row = made(3)
    other = row["segments"][(row["gold_pos"][0] + 1) % row["n_segments"]]["doc_id"]
    assert "filler_of_source" in problems(row, {"s3": "c", other: "c"})
    assert "gold_pos" in problems({**row, "gold_pos": []}, {})
    assert {"context", "messages"} <= set(problems({**row, "context": row["context"][1:]}, {}))
    assert "too_long" in problems({**row, "target_len": 4000}, {})
    assert "positions" in problems({**row, "segments": row["segments"][1:]}, {})
    gold = row["context"].split("\n")[row["gold_pos"][0]]
    assert "source_repeated" in problems({**row, "context": row["context"] + "\n" + gold}, {})


def test_evidence_stands_anywhere_and_in_any_order() -> None:
    rng = np.random.default_rng(0)
    rows = [made(i) for i in range(600)]
    places = [(row["gold_pos"][0], row["n_segments"]) for row in rows]
    assert chi2_uniform(depth_counts(places, rng.random(len(places)).tolist()))["ok"]
    early = [(place // 2, n) for place, n in places]
    assert chi2_uniform(depth_counts(early, rng.random(len(places)).tolist()))["ok"] is False
    several = [made(i, "integration", 450) for i in range(300)]
    assert adjacent_golds([(r["n_segments"], r["gold_pos"]) for r in several]).ok
    orders = [[r["segments"][p]["seg_id"] for p in r["gold_pos"]] for r in several]
    in_order = sum(order == sorted(order) for order in orders)
    share = 1 / factorial(len(orders[0]))
    assert abs(in_order - 300 * share) <= 5 * np.sqrt(300 * share * (1 - share))


def test_with_a_real_tokenizer_the_limit_is_hard() -> None:
    counter = token_counter("embedded")
    prose = "He said it was so, and naïve 他们来了 café people agreed with {}; then they left. "
    docs = [
        s
        for i in range(60)
        for s in segments_of(f"p{i}", "".join(prose.format(i * 97 + k) for k in range(60)), counter)
    ]
    source = segments_of("q", "".join(prose.format(f"Q{k}") for k in range(9)), counter)
    for seed in range(3):
        qa = QA(f"r{seed}", "fine", "What?", "That.", [0])
        row = build_row(qa, source, pool_of(docs), counter, seed)
        assert isinstance(row, dict)
        assert counter.count(row["context"]) == row["context_tokens"] <= row["target_len"]
        assert row["context_tokens"] > row["target_len"] * 0.97 - 129


def test_word_recall() -> None:
    assert word_recall("a b c d", "D c x") == 0.5
    assert word_recall("end.", "end") == 0.0
    assert word_recall("", "x") == 0.0


def test_val_figures_count_every_position() -> None:
    records = [("a", p, 1.0) for p in range(8)] + [("b", p, float(p < 4)) for p in range(8)]
    assert val_avg_gap(records, 8, 4) == (0.75, 0.5)
    last = [("a", p, float(p != 3)) for p in range(4)]
    assert val_avg_gap(last, 4, 4).avg == 0.75
    assert val_avg_gap([("a", 0, 1.0), ("b", 0, 0.0), ("a", 2, 1.0)], 3, 2) == (0.75, 0.5)
    with pytest.raises(ValueError, match="no record in bucket 1"):
        val_avg_gap([("a", 0, 1.0)], 4, 2)
    with pytest.raises(ValueError, match="position 4"):
        val_avg_gap([("a", 4, 1.0)], 4, 2)
    published = [(85.4, 6.1), (83.3, 18.7), (89.0, 16.8)]
    assert np.mean(published, axis=0).round(2).tolist() == [85.9, 13.87]
