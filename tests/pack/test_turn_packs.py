"""Packs of sequences: the specification's worked examples, and the mean that weights stand for."""

import itertools
from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from longctx.pack.boundaries import IGNORE
from longctx.pack.turn_packs import Packs, Rules, left_out, padding, plan_packs, weighed
from longctx.synth.longalign import (
    TokenRow,
    loss_weights,
    one_pack,
    pack_rows,
    sorted_batches,
    with_final_weights,
)

USUAL = Rules(40, "best_fit", 10_000, "sequence", None, 2**24)


def rows_of(sizes: list[tuple[int, int]]) -> list[TokenRow]:
    """Sequences of so many tokens, of which the last ones are targets; ids ascend."""
    rows = []
    for number, (size, targets) in enumerate(sizes):
        ids = np.arange(1, size + 1)
        labels = np.where(ids > size - targets, ids, IGNORE)
        rows.append(TokenRow(f"s{number:04d}", ids.tolist(), labels.tolist()))
    return rows


def packed(rows: list[TokenRow], rules: Rules, seed: int = 5) -> tuple[Packs, list[dict[str, Any]]]:
    """The plan, and packs as files hold them."""
    targets = [sum(x != IGNORE for x in row.labels[1:]) for row in rows]
    lengths = [len(row.input_ids) for row in rows]
    plan = plan_packs([row.id for row in rows], lengths, targets, rules, seed)
    made = []
    for number, name in enumerate(plan.names):
        inside = np.flatnonzero(plan.pack == number)
        members = [rows[i] for i in inside[np.argsort(plan.place[inside])]]
        pack = weighed(one_pack(members), rules.weighting, float(plan.scale[number]))
        made.append(pack | {"pack_id": name, "batch_id": int(plan.batch[number])})
    return plan, made


def cross_entropies(packs: list[dict[str, Any]]) -> list[np.ndarray]:
    """Of random logits over 30 tokens, for the label of every position; 0 where there is none."""
    rng = np.random.default_rng(11)
    found = []
    for pack in packs:
        labels = pack["labels"]
        logits = rng.normal(0, 1, (len(labels), 30))
        wanted = np.where(labels == IGNORE, 0, labels % 30)
        logs = np.log(np.exp(logits).sum(axis=1)) - logits[np.arange(len(labels)), wanted]
        found.append(np.where(labels == IGNORE, 0.0, logs))
    return found


def means(packs: list[dict[str, Any]], losses: list[np.ndarray]) -> list[float]:
    """The mean loss of the targets of each sequence, by the borders of its pack."""
    found = []
    for pack, loss in zip(packs, losses, strict=True):
        for start, end in zip(pack["cu_seqlens"], pack["cu_seqlens"][1:], strict=False):
            count = int((pack["labels"][start:end] != IGNORE).sum())
            found.append(float(loss[start:end].sum()) / count)
    return found


def test_the_worked_example_of_the_specification() -> None:
    # Packs {200} and {10, 20, 30}: mean losses 1 | 2, 3, 4.
    rows = rows_of([(211, 200), (70, 10), (70, 20), (70, 30)])
    rules = Rules(211, "best_fit", 10_000, "sequence", 2, 2**24)
    _, made = packed(rows, rules)
    assert sorted(pack["seq_ids"] for pack in made) == [["s0000"], ["s0001", "s0002", "s0003"]]
    mean = {"s0000": 1.0, "s0001": 2.0, "s0002": 3.0, "s0003": 4.0}
    by_weight, plain = 0.0, 0.0
    for pack in made:
        borders = pack["cu_seqlens"].tolist()
        told = [mean[i] for i in pack["seq_ids"]]
        loss = np.repeat(told, np.diff(borders)) * (pack["labels"] != IGNORE)
        by_weight += float((pack["loss_weight"] * loss).sum()) / len(made)
        plain += float(loss.sum()) / int((pack["labels"] != IGNORE).sum()) / len(made)
        shares = [
            float(pack["loss_weight"][a:b].sum()) / len(made)
            for a, b in itertools.pairwise(borders)
        ]
        assert shares == pytest.approx([0.25] * len(told))
        # K / (N_i M)
        wanted = {"s0000": 0.0025, "s0001": 0.05, "s0002": 0.025, "s0003": 0.016667}
        last = pack["loss_weight"][np.array(borders[1:]) - 1].tolist()
        assert last == pytest.approx([wanted[i] for i in pack["seq_ids"]], abs=1e-6)
    assert by_weight == pytest.approx(2.5)
    assert plain == pytest.approx(2.166667, abs=1e-6)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(
        st.integers(2, 40).flatmap(lambda n: st.tuples(st.just(n), st.integers(1, n - 1))),
        min_size=1,
        max_size=30,
    ),
    st.sampled_from(["best_fit", "next_fit"]),
    st.sampled_from([None, 1, 3]),
    st.sampled_from([4, 10_000]),
)
def test_the_loss_is_the_mean_over_sequences(
    sizes: list[tuple[int, int]], strategy: Any, batch_packs: int | None, shard_rows: int
) -> None:
    rules = USUAL._replace(strategy=strategy, batch_packs=batch_packs, shard_rows=shard_rows)
    plan, made = packed(rows_of(sizes), rules)
    seen = Counter(i for pack in made for i in pack["seq_ids"])
    assert seen == Counter(row.id for row in rows_of(sizes))
    assert all(len(pack["input_ids"]) <= 40 for pack in made)
    losses = cross_entropies(made)
    # A batch, or all packs, is the step of an optimiser.
    for batch in np.unique(plan.batch):
        step = np.flatnonzero(plan.batch == batch)
        inside, of_step = [made[k] for k in step], [losses[k] for k in step]
        total = sum(
            float((pack["loss_weight"] * loss).sum())
            for pack, loss in zip(inside, of_step, strict=True)
        )
        weights = sum(float(pack["loss_weight"].sum(dtype=np.float64)) for pack in inside)
        wanted = float(np.mean(means(inside, of_step)))
        sequences = sum(pack["n_target_seqs"] for pack in inside)
        by = sequences if batch_packs is None else len(inside)
        assert weights == pytest.approx(by, rel=1e-6)
        assert abs(total / by - wanted) < 1e-6


def test_weights_of_tokens_give_the_mean_over_tokens() -> None:
    rows = rows_of([(30, 20), (9, 3), (15, 1), (40, 39), (12, 4)])
    for batch_packs in (None, 2):
        rules = USUAL._replace(weighting="token", batch_packs=batch_packs)
        plan, made = packed(rows, rules)
        losses = cross_entropies(made)
        for batch in np.unique(plan.batch):
            step = np.flatnonzero(plan.batch == batch)
            targets = sum(int((made[k]["labels"] != IGNORE).sum()) for k in step)
            total = sum(float((made[k]["loss_weight"] * losses[k]).sum()) for k in step)
            wanted = sum(float(losses[k].sum()) for k in step) / targets
            assert total / (targets if batch_packs is None else len(step)) == pytest.approx(wanted)
            if batch_packs is None:
                assert set(np.concatenate([made[k]["loss_weight"] for k in step])) == {0.0, 1.0}


def test_packs_are_those_of_the_plain_algorithm() -> None:
    rng = np.random.default_rng(2)
    sizes = rng.integers(2, 41, 200).tolist()
    rows = rows_of([(n, max(1, n // 3)) for n in sizes])
    _, made = packed(rows, USUAL._replace(shard_rows=60))
    plain = {p["pack_id"]: p for p in pack_rows(rows, 5, 40, 60).packs}
    assert {p["pack_id"] for p in made} == set(plain)
    for pack in made:
        for name, value in plain[pack["pack_id"]].items():
            assert np.array_equal(pack[name], value), name
    # Final weights are those of the plain way over packs in the order of the plan.
    rules = USUAL._replace(shard_rows=60, batch_packs=4)
    _, final = packed(rows, rules)
    usual = list(with_final_weights([plain[p["pack_id"]] for p in made], 4))
    for pack, wanted in zip(final, usual, strict=True):
        assert pack["batch_id"] == wanted["batch_id"]
        assert np.allclose(pack["loss_weight"], wanted["loss_weight"], rtol=1e-6)
    counts = [[int((p["labels"][a:b] != IGNORE).sum()) for a, b in borders(p)] for p in final[:4]]
    for pack, weights in zip(final[:4], loss_weights(counts), strict=True):
        found = [float(pack["loss_weight"][b - 1]) for _, b in borders(pack)]
        assert found == pytest.approx(weights, rel=1e-6)


def borders(pack: dict[str, Any]) -> list[tuple[int, int]]:
    ends = pack["cu_seqlens"].tolist()
    return list(itertools.pairwise(ends))


def test_batches_hold_short_and_long_sequences() -> None:
    rows = rows_of([(40, 1)] * 60 + [(4, 1)] * 600)
    _, made = packed(rows, USUAL._replace(batch_packs=12))
    full = [len(pack["seq_ids"]) == 1 for pack in made]
    assert len(made) == 120
    assert all(2 <= sum(full[i : i + 12]) <= 10 for i in range(0, 120, 12))


def test_sorted_batches_hold_rows_of_about_one_length() -> None:
    rng = np.random.default_rng(3)
    rows = rows_of([(int(n), 1) for n in rng.integers(2, 41, 103)])
    ids, lengths = [row.id for row in rows], [len(row.input_ids) for row in rows]
    rules = USUAL._replace(strategy="sorted_batches", batch_packs=10)
    out = left_out(ids, rules, 5)
    assert len(out) == 3
    kept = [row for i, row in enumerate(rows) if i not in set(out)]
    plan, made = packed(kept, rules)
    assert [pack["seq_ids"] for pack in made] == [
        [ids[i]] for group in sorted_batches(lengths, 10, 5, ids) for i in group
    ]
    assert np.bincount(plan.batch).tolist() == [10] * 10
    # K is M here, so final weights are 1 / N_i.
    assert plan.scale.tolist() == [1.0] * 100
    at_random = rng.permutation([len(row.input_ids) for row in kept])
    assert padding([len(p["input_ids"]) for p in made], plan.batch) < 0.2
    assert padding(at_random.tolist(), plan.batch) > 0.3
    assert padding([1, 2, 3, 4, 6, 7, 8, 9], np.arange(8, dtype=np.int32) // 2) == pytest.approx(
        0.0909, abs=1e-4
    )


def test_files_hold_whole_batches() -> None:
    rows = rows_of([(40, 1)] * 20)
    plan, _ = packed(rows, USUAL._replace(file_tokens=100))
    assert np.bincount(plan.file).tolist() == [3, 2, 3, 2, 3, 2, 3, 2]
    plan, _ = packed(rows, USUAL._replace(file_tokens=100, batch_packs=4))
    assert plan.file.tolist() == np.repeat(range(5), 4).tolist()


def test_what_does_not_fit_or_teaches_nothing_is_a_fault() -> None:
    for lengths, targets in (([41], [1]), ([40], [0])):
        with pytest.raises(ValueError, match="more than 40 tokens, or no target"):
            plan_packs(["a"], lengths, targets, USUAL, 1)
