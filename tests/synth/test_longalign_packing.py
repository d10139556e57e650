"""LongAlign's packs, weights and batches: the examples of the specification and what must hold."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from longctx.synth.longalign import (
    TokenRow,
    best_fit_decreasing,
    cu_seqlens,
    loss_weights,
    next_fit,
    pack_rows,
    padding_share,
    parse_numbered,
    remainder,
    sorted_batches,
    with_final_weights,
)

LENGTHS = [5, 3, 4, 8, 2, 7]


def test_packs_of_the_example() -> None:
    assert next_fit(LENGTHS, 10) == [[0, 1], [2], [3, 4], [5]]
    assert best_fit_decreasing(LENGTHS, 10) == [[3, 4], [5, 1], [0, 2]]


@pytest.mark.parametrize("fit", [next_fit, best_fit_decreasing])
def test_a_sequence_as_long_as_a_pack_fits_and_a_longer_one_is_in_none(fit: object) -> None:
    assert callable(fit)
    assert sorted(i for pack in fit([10, 11, 1], 10) for i in pack) == [0, 2]
    assert fit([], 10) == []
    with pytest.raises(ValueError, match="sequence 1 has 0 tokens"):
        fit([3, 0], 10)


@given(st.lists(st.integers(1, 12), max_size=40))
def test_every_sequence_that_fits_is_in_one_pack(lengths: list[int]) -> None:
    for packs in (next_fit(lengths, 10), best_fit_decreasing(lengths, 10)):
        placed = sorted(i for pack in packs for i in pack)
        assert placed == [i for i, n in enumerate(lengths) if n <= 10]
        assert all(sum(lengths[i] for i in pack) <= 10 for pack in packs)


def best_fit_by_hand(lengths: list[int], max_len: int) -> list[list[int]]:
    packs: list[list[int]] = []
    rooms: list[int] = []
    for i in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        fitting = [(room, p) for p, room in enumerate(rooms) if room >= lengths[i]]
        if not fitting:
            packs.append([])
            rooms.append(max_len)
        at = min(fitting)[1] if fitting else len(packs) - 1
        packs[at].append(i)
        rooms[at] -= lengths[i]
    return packs


@given(st.lists(st.integers(1, 20), max_size=60))
def test_best_fit_is_the_rule_done_by_hand(lengths: list[int]) -> None:
    assert best_fit_decreasing(lengths, 20) == best_fit_by_hand(lengths, 20)


def test_weights_of_the_example() -> None:
    weights = loss_weights([[200], [10, 20, 30]])
    assert weights[0] == [0.0025]
    assert weights[1] == pytest.approx([0.05, 0.025, 1 / 60])
    corrected = [
        [w * n for w, n in zip(*p, strict=True)]
        for p in zip(weights, [[200], [10, 20, 30]], strict=True)
    ]
    assert [c / 2 for p in corrected for c in p] == pytest.approx([0.25] * 4)
    losses = [[1.0], [2.0, 3.0, 4.0]]
    found = sum(
        c * x for p, q in zip(corrected, losses, strict=True) for c, x in zip(p, q, strict=True)
    )
    assert found / 2 == pytest.approx(2.5)
    plain = (1.0 + (10 * 2 + 20 * 3 + 30 * 4) / 60) / 2
    assert plain == pytest.approx(2.166667, abs=1e-6)


def test_weights_of_micro_batches_differ_where_their_sequences_do() -> None:
    packs = [[4], [2, 2], [5, 0], [1]]
    step = loss_weights(packs)
    assert step == loss_weights(packs, "micro", 4)
    assert step[2] == [4 / (5 * 5), 0.0]
    assert loss_weights(packs, "micro", 2)[0] == [2 / (4 * 3)]
    assert loss_weights([[0, 0]]) == [[0.0, 0.0]]
    with pytest.raises(ValueError, match="packs_per_micro=None"):
        loss_weights(packs, "micro")


@given(
    st.lists(st.lists(st.integers(0, 9), min_size=1, max_size=6), min_size=1, max_size=8), st.data()
)
def test_the_weighted_loss_is_the_mean_over_sequences(
    packs: list[list[int]], data: st.DataObject
) -> None:
    rng = np.random.default_rng(data.draw(st.integers(0, 9999)))
    losses = [[rng.random(n) for n in pack] for pack in packs]
    means = [x.mean() for pack in losses for x in pack if len(x)]
    if not means:
        return
    weights = loss_weights(packs)
    summed = [
        sum(w * x.sum() for w, x in zip(p, q, strict=True))
        for p, q in zip(weights, losses, strict=True)
    ]
    assert abs(np.mean(summed) - np.mean(means)) < 1e-9
    total = sum(
        w * n for p, q in zip(weights, packs, strict=True) for w, n in zip(p, q, strict=True)
    )
    assert total == pytest.approx(len(packs))


def test_cu_seqlens_of_the_example() -> None:
    found = cu_seqlens([[3, 4], [10], [2, 2, 2]], 10)
    assert found.tolist() == [0, 3, 7, 10, 20, 22, 24, 26, 30]
    assert found.dtype == np.int32
    with pytest.raises(ValueError, match="pack 1 has 11 tokens, more than 10"):
        cu_seqlens([[1], [5, 6]], 10)


@given(st.lists(st.lists(st.integers(1, 5), min_size=1, max_size=4), min_size=1, max_size=5))
def test_cu_seqlens_rise_to_the_end_of_the_batch(packs: list[list[int]]) -> None:
    found = cu_seqlens(packs, 20)
    assert (np.diff(found) > 0).all()
    assert found[-1] == 20 * len(packs)


def test_padding_of_the_example() -> None:
    assert padding_share([[1, 2], [3, 4], [6, 7], [8, 9]]) == pytest.approx(0.0909, abs=5e-5)
    assert padding_share([[9, 1], [8, 2], [7, 3], [6, 4]]) == pytest.approx(0.3333, abs=5e-5)
    assert padding_share([]) == 0


@given(st.lists(st.integers(1, 99), max_size=60), st.integers(1, 9), st.integers(0, 5))
def test_sorted_batches_keep_all_but_the_remainder(
    lengths: list[int], size: int, seed: int
) -> None:
    groups = sorted_batches(lengths, size, seed)
    kept = [i for group in groups for i in group]
    assert sorted([*kept, *remainder(len(lengths), size, seed)]) == list(range(len(lengths)))
    assert all(len(group) == size for group in groups)
    spans = sorted([min(lengths[i] for i in g), max(lengths[i] for i in g)] for g in groups)
    assert all(a[1] <= b[0] for a, b in pairwise(spans))
    assert groups == sorted_batches(lengths, size, seed)


def test_sorted_batches_pad_less_than_random_ones_and_are_shuffled() -> None:
    rng = np.random.default_rng(3)
    lengths = rng.integers(1, 1000, 400).tolist()
    groups = sorted_batches(lengths, 8, 1)
    random = rng.permutation(400).reshape(-1, 8)
    assert padding_share([[lengths[i] for i in g] for g in groups]) < 0.03
    assert padding_share([[lengths[i] for i in g] for g in random]) > 0.3
    first = [lengths[g[0]] for g in groups]
    assert first != sorted(first)


def test_the_remainder_does_not_prefer_long_rows() -> None:
    """Cut behind an ascending sort it would be the longest row every time."""
    lengths = list(range(1, 10))
    left = {remainder(9, 4, seed)[0] for seed in range(60)}
    assert len(left) == len(lengths)


def token_rows(n: int, seed: int) -> list[TokenRow]:
    rng = np.random.default_rng(seed)
    rows = []
    for i in range(n):
        size = int(rng.integers(1, 30))
        ids = rng.integers(0, 99, size).tolist()
        targets = rng.random(size) < 0.5
        labels = [t if wanted else -100 for t, wanted in zip(ids, targets, strict=True)]
        rows.append(TokenRow(f"r{i}", ids, labels))
    return rows


def test_packs_hold_every_row_once_with_weights_of_one() -> None:
    rows = token_rows(60, 1)
    rows.append(TokenRow("long", [1] * 41, [1] * 41))
    rows.append(TokenRow("mute", [1, 2], [-100, -100]))
    packed = pack_rows(rows, seed=5, max_len=40, shard_rows=25)
    assert packed.too_long == ["long"]
    by_id = {row.id: row for row in rows}
    seen = []
    for pack in packed.packs:
        ends = pack["cu_seqlens"]
        assert ends[-1] == len(pack["input_ids"]) <= 40
        weighted = 0
        for name, a, b in zip(pack["seq_ids"], ends[:-1], ends[1:], strict=True):
            seen.append(name)
            assert pack["input_ids"][a:b].tolist() == list(by_id[name].input_ids)
            assert pack["labels"][a] == -100
            assert pack["labels"][a + 1 : b].tolist() == list(by_id[name].labels[1:])
            assert pack["position_ids"][a:b].tolist() == list(range(b - a))
            weights = pack["loss_weight"][a:b]
            assert (weights > 0).tolist() == (pack["labels"][a:b] != -100).tolist()
            has_targets = any(label != -100 for label in by_id[name].labels[1:])
            assert weights.sum() == pytest.approx(float(has_targets))
            weighted += has_targets
        assert pack["n_target_seqs"] == weighted
    assert sorted([*seen, "long"]) == sorted(by_id)
    tokens = sum(len(row.input_ids) for row in rows) - 41
    assert packed.fill == pytest.approx(tokens / (40 * len(packed.packs)))
    again = pack_rows(rows[::-1], seed=5, max_len=40, shard_rows=25)
    assert [p["seq_ids"] for p in again.packs] == [p["seq_ids"] for p in packed.packs]


def test_final_weights_sum_to_the_packs_of_each_batch() -> None:
    packs = pack_rows(token_rows(50, 2), seed=1, max_len=40).packs
    final = list(with_final_weights(packs, 4))
    assert [p["batch_id"] for p in final] == [i // 4 for i in range(len(packs))]
    for batch in range(final[-1]["batch_id"] + 1):
        members = [p for p in final if p["batch_id"] == batch]
        total = sum(float(p["loss_weight"].sum()) for p in members)
        assert total == pytest.approx(len(members), rel=1e-5)
    rows = [TokenRow(str(n), [1] * (n + 1), [1] * (n + 1)) for n in (4, 9, 3)]
    found = list(with_final_weights(pack_rows(rows, 0, max_len=15).packs, 2))
    assert [p["seq_ids"] for p in found] == [["9", "4"], ["3"]]
    wanted = [max(weights) for weights in loss_weights([[9, 4], [3]])]
    assert [p["loss_weight"].max() for p in found] == pytest.approx(wanted)


def test_numbered_items_of_the_example() -> None:
    text = (
        "Here are five questions:\n1: What is A?\n2. Why B\n   happens?\n3) How C?\n"
        "4: In 1912: who won?\n5：最后一个问题？"
    )
    assert parse_numbered(text) == [
        "What is A?",
        "Why B happens?",
        "How C?",
        "In 1912: who won?",
        "最后一个问题？",
    ]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ('**1.** "What?"\n- 2) Why?', ["What?", "Why?"]),
        ("### 1: What?\n\n### 2: Why?\n\nI hope these help.", ["What?", "Why?"]),
        ("1. What?\n1912: who won?\n2. Why?", ["What? 1912: who won?", "Why?"]),
        ("1. What?\n2. Why?\n3. How?", None),
        ("1. What?\n3. How?", None),
        ("2. Why?\n1. What?", None),
        ("1. What?\n2. **", None),
        ("1.5 million of what?\n1. What?\n2. Why?", ["What?", "Why?"]),
        ("", None),
    ],
)
def test_numbered_items(text: str, found: list[str] | None) -> None:
    assert parse_numbered(text, 2) == found


@settings(max_examples=50)
@given(st.lists(st.from_regex(r"[A-Z][a-z ]{0,20}\?", fullmatch=True), min_size=1, max_size=6))
def test_numbered_items_come_back(items: list[str]) -> None:
    text = "\n".join(f"{k}. {item}" for k, item in enumerate(items, 1))
    assert parse_numbered(text, len(items)) == [" ".join(i.split("\n")) for i in items]
