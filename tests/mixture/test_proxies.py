"""The pure parts of proxy runs: pools, vocabulary, order of data, model, training, run table."""

from collections import Counter

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from longctx.errors import RecipeError
from longctx.mixture.pools import (
    Counted,
    blocks_of,
    check_epochs,
    epochs,
    excerpt,
    fair_length,
    roles,
    thin,
)
from longctx.mixture.proxies import (
    Result,
    blocks_table,
    check_held_out,
    check_sources,
    decided,
    jobs_of,
    pool_factor,
    remarks,
    result_of,
    run_table,
    training_of,
)
from longctx.mixture.proxy_data import Piece, Reading, Rows, assemble, take
from longctx.mixture.proxy_model import SHAPES, Shape, initial, logits
from longctx.mixture.proxy_order import Documents, batches
from longctx.mixture.proxy_training import Training, evaluate, train
from longctx.mixture.proxy_vocabulary import build_vocabulary, coverage
from longctx.mixture.tables import Losses, Mixtures, join, read_losses

I64 = npt.NDArray[np.int64]
TINY = Shape(layers=2, width=16, heads=2, vocabulary=64)
IDS = [f"doc-{i}" for i in range(2000)]


# Pools


def test_the_proxy_sees_a_source_as_often_as_the_large_run() -> None:
    assert pool_factor(1e9, 1e11) == 0.01
    source, share = 2e9, 0.2
    assert share * 1e11 / source == 10
    assert share * 1e9 / source == 0.1
    assert share * 1e9 / (source * pool_factor(1e9, 1e11)) == pytest.approx(10)
    with pytest.raises(RecipeError, match="above 0"):
        pool_factor(0, 1)


@given(st.floats(0.01, 1), st.floats(0.01, 1), st.integers(0, 3))
@settings(max_examples=10)
def test_pools_are_nested_and_never_hold_what_is_held_out(a: float, b: float, seed: int) -> None:
    small, held = roles(seed, IDS, IDS, min(a, b), 0.1)
    large, same = roles(seed, IDS, IDS, max(a, b), 0.1)
    assert (held == same).all()
    assert not (small & ~large).any()
    assert not (large & held).any()
    assert 100 < held.sum() < 300


def test_near_copies_are_held_out_together() -> None:
    keys = [f"cluster-{i // 4}" for i in range(len(IDS))]
    _, held = roles(0, IDS, keys, 1, 0.2)
    assert set(held.reshape(-1, 4).sum(axis=1).tolist()) == {0, 4}


@given(st.lists(st.floats(0.001, 1), min_size=1, max_size=9), st.integers(1, 1000))
def test_blocks_keep_the_shares(parts: list[float], total: int) -> None:
    shares = np.array(parts) / sum(parts)
    found = blocks_of(shares, total)
    assert found.sum() == total
    assert np.abs(found - shares * total).max() < 1


def test_too_many_passes_are_refused_with_their_number() -> None:
    counted = {"web": Counted(9, 900, 9, 900, 0), "books": Counted(3, 100, 2, 80, 1)}
    passes = np.stack([epochs(np.array([5, 45]), 10, np.array([900, 80])), np.zeros(2)])
    with pytest.raises(RecipeError) as raised:
        check_epochs(["m1", "m2"], ["web", "books"], passes, 4, counted)
    assert "mixture 'm1' asks for 5.6 passes over source 'books'" in str(raised.value)
    assert "80 tokens in 2 documents" in str(raised.value)
    check_epochs(["m1", "m2"], ["web", "books"], passes, 6, counted)
    empty = epochs(np.array([1]), 10, np.array([0]))[None]
    with pytest.raises(RecipeError, match="asks for tokens of source 'web', which has 0 tokens"):
        check_epochs(["m"], ["web"], empty, 4, {})


def test_few_documents_are_told() -> None:
    (said,) = thin({"a": Counted(30, 1, 19, 1), "b": Counted(30, 1, 20, 1)})
    assert "'a' keeps 19 of 30 documents" in said


@given(st.lists(st.integers(1, 500), min_size=1, max_size=20), st.integers(1, 800))
def test_held_out_pieces_are_as_even_as_the_documents_allow(sizes: list[int], wanted: int) -> None:
    most = fair_length(sizes, wanted, 5)
    assert most >= 5
    taken = sum(min(size, most) for size in sizes)
    assert taken >= min(wanted, sum(sizes))
    if most > 5:
        assert sum(min(size, most - 1) for size in sizes) < wanted
    for i, size in enumerate(sizes):
        first, last = excerpt(0, f"d{i}", size, most)
        assert 0 <= first <= last <= size
        assert last - first == min(size, most)


# Vocabulary

COUNTS = {
    "big": (np.arange(500), np.arange(500)[::-1] * 1000 + 1),
    "small": (np.array([480, 490]), np.array([70, 30])),
}


def test_frequent_ids_of_every_source_have_a_class_of_their_own() -> None:
    found = build_vocabulary(COUNTS, 600, 128)
    assert found.size == 128
    assert found.kept == 128 - 1 - 16
    assert {1, found.kept + 1} <= set(found.classes.tolist())
    assert found.classes.min() == 1  # 0 is the end of a document
    assert found.classes.max() == 127
    own = found.classes[[480, 490]]
    assert (own <= found.kept).all()
    assert coverage(found, COUNTS["small"]) == 1
    assert 0.3 < coverage(found, COUNTS["big"]) < 0.5
    assert found.surcharge[480] == 0


def test_ids_of_a_bucket_have_probabilities_that_sum_to_one() -> None:
    found = build_vocabulary(COUNTS, 600, 128)
    buckets = found.classes > found.kept
    summed = np.bincount(found.classes[buckets], np.exp(-found.surcharge[buckets]), 128)
    assert summed[found.kept + 1 :] == pytest.approx(1)
    assert np.isfinite(found.surcharge[599])  # never counted, may be held out


def test_a_small_tokenizer_keeps_all_its_ids() -> None:
    found = build_vocabulary({"a": (np.array([0, 3]), np.array([1, 2]))}, 5, 128)
    assert found.classes.tolist() == [1, 2, 3, 4, 5]
    assert found.size == 6


# Order


def documents(sizes: list[int]) -> Documents:
    starts = np.concatenate([[0], np.cumsum(sizes)])
    return Documents(np.arange(1, starts[-1] + 1).astype(np.uint16), starts)


@given(st.lists(st.integers(1, 60), min_size=1, max_size=8), st.integers(1, 12), st.integers(0, 2))
def test_blocks_are_text_and_nothing_is_read_twice_too_early(
    sizes: list[int], length: int, seed: int
) -> None:
    source = documents(sizes)
    whole = max(1, (source.stream - 1) // length)
    rows = np.concatenate(
        list(
            batches({"a": source}, {"a": whole}, mixture_id="m", seed=seed, length=length, batch=1)
        )
    )
    assert rows.shape == (whole, length + 1)
    firsts = set((source.starts[:-1] + 1).tolist())
    lasts = set(source.starts[1:].tolist())
    for before, after in zip(rows[:, :-1].ravel(), rows[:, 1:].ravel(), strict=True):
        within = after == before + 1 and before not in lasts and before
        assert within or (after == 0 and before in lasts) or (before == 0 and after in firsts)
    if source.stream > length:
        seen = Counter(rows[:, 1:].ravel().tolist())
        assert max((count for token, count in seen.items() if token), default=1) == 1


def test_order_hangs_on_seed_and_mixture_alone() -> None:
    sources = {"a": documents([30, 5, 9]), "b": documents([200, 40])}

    def read(mixture: str, seed: int, blocks: dict[str, int]) -> list[list[int]]:
        found = batches(sources, blocks, mixture_id=mixture, seed=seed, length=8, batch=2)
        return np.concatenate(list(found)).tolist()

    wanted = {"a": 4, "b": 6}
    assert read("m", 0, wanted) == read("m", 0, {"b": 6, "a": 4})
    assert read("m", 0, wanted) != read("m", 1, wanted)
    assert sorted(read("m", 0, wanted)) != sorted(read("n", 0, wanted))
    assert len(read("m", 0, wanted)) == 10


# Model and training


def test_sizes_are_what_they_say() -> None:
    for name, shape in (*SHAPES.items(), ("tiny", TINY)):
        if name in ("1m", "tiny"):
            assert shape.parameters == sum(w.numel() for w in initial(shape, 0).values())
    assert [round(s.parameters / 1e5) / 10 for s in SHAPES.values()] == [1.0, 16.9, 58.7]
    with pytest.raises(RecipeError, match="3 heads of even width"):
        Shape(1, 16, 3, 64)


def test_no_token_sees_a_later_one_and_place_matters() -> None:
    weights = {n: w.detach() for n, w in initial(TINY, 1).items()}
    ids = torch.randint(0, 64, (1, 12), generator=torch.Generator().manual_seed(0))
    other = ids.clone()
    other[0, 8] = (other[0, 8] + 1) % 64
    a, b = logits(weights, TINY, ids), logits(weights, TINY, other)
    assert torch.equal(a[:, :8], b[:, :8])
    assert not torch.equal(a[:, 8:], b[:, 8:])
    swapped = ids[:, [1, 0, *range(2, 12)]]
    assert not torch.allclose(logits(weights, TINY, swapped)[:, -1], a[:, -1], atol=1e-7)


def test_rates_rise_and_fall() -> None:
    training = Training(8, 2, 1000, 0.1, "cosine")
    assert training.rate(0) == pytest.approx(0.001)
    assert training.rate(99) == pytest.approx(0.1)
    assert training.rate(999) == pytest.approx(0.01, rel=0.01)
    assert Training(8, 2, 1000, 0.1, "constant").rate(999) == 0.1


def languages(seed: int = 0) -> dict[str, Documents]:
    """Two languages that differ in nothing but their words: 25 words, each with 3 that follow."""
    rng = np.random.default_rng(seed)
    follow = rng.integers(0, 25, (25, 3))
    found = {}
    for name, offset in (("a", 1), ("b", 31)):
        words = [0]
        for turn in rng.integers(0, 3, 5999).tolist():
            words.append(int(follow[words[-1], turn]))
        starts = np.arange(0, 6001, 100)
        found[name] = Documents((np.array(words) + offset).astype(np.uint16), starts)
    return found


def lost(share: float, seed: int = 0, rate: float = 1e-2) -> tuple[dict[str, float], str]:
    """Losses of a tiny model trained on the two languages."""
    torch.set_num_threads(1)
    sources = languages()
    training = Training(block=16, batch=8, steps=40, learning_rate=rate, schedule="cosine")
    counts = blocks_of(np.array([share, 1 - share]), training.steps * training.batch)
    blocks = dict(zip("ab", counts.tolist(), strict=True))
    rows = batches(sources, blocks, mixture_id="m", seed=seed, length=16, batch=8)
    weights, reason = train(TINY, training, rows, seed)
    held = {name: one.classes[:1701].astype(np.int64) for name, one in languages(0).items()}
    at = np.arange(100)[:, None] * 17 + np.arange(17)
    return {n: evaluate(weights, TINY, tokens[at]) for n, tokens in held.items()}, reason


def test_the_best_of_two_alike_sources_is_half_of_each() -> None:
    found = {share: lost(share)[0] for share in (0.05, 0.5, 0.95)}
    mean = {share: np.mean(list(losses.values())) for share, losses in found.items()}
    assert mean[0.5] < min(mean[0.05], mean[0.95]) - 0.05
    assert found[0.05]["a"] > found[0.5]["a"] > found[0.95]["a"]
    assert found[0.05]["b"] < found[0.5]["b"] < found[0.95]["b"]
    assert max(found[0.5].values()) < np.log(64)


def test_the_same_run_has_the_same_bits() -> None:
    assert lost(0.3) == lost(0.3)
    assert lost(0.3) != lost(0.3, seed=1)


def test_a_run_that_breaks_is_a_result_without_a_loss() -> None:
    losses, reason = lost(0.5, rate=1e12)
    assert "at step" in reason
    job = jobs_of(MIXTURES, np.array([[1, 1]] * 2), [0], [], {})[0]
    result = result_of(job, TINY, TRAINING, dict.fromkeys(losses, float("nan")), reason)
    assert result.losses == {"a": None, "b": None}
    lines = run_table([result], ["a", "b"]).splitlines()
    assert lines[1].startswith(f"natural,{TINY.parameters},{TRAINING.tokens},0,a,,the training")
    only = result_of(job, TINY, TRAINING, {"a": 1.5, "b": float("inf")}, "")
    assert only.reason == "the held-out loss is inf for b"


# What is read

READING = Reading(("a", "b"), seed=3, factor=1.0, holdout=0.2, evaluated=400, block=16)


def rows_of(count: int, source: str, seed: int) -> Rows:
    rng = np.random.default_rng(seed)
    ids = [f"{source}-{i:03d}" for i in range(count)]
    tokens = [rng.integers(0, 300, int(n)).astype(np.int32) for n in rng.integers(0, 90, count)]
    return Rows(ids, ids, [source] * count, tokens)


def cut(rows: Rows, at: int) -> list[Rows]:
    return [Rows(*(part[:at] for part in rows)), Rows(*(part[at:] for part in rows))]


@given(st.integers(0, 120), st.integers(0, 1))
@settings(max_examples=15)
def test_parts_and_their_order_change_nothing(at: int, turned: int) -> None:
    rows, others = rows_of(120, "a", 1), rows_of(9, "c", 2)
    found, pieces = take([rows, others], READING)
    assert set(found.counted) == {"a", "c"}
    assert found.counted["a"].docs == 120
    assert set(found.ids) == {"a", "b"}
    vocabulary = build_vocabulary(found.ids, found.highest + 1, 64)
    whole = assemble(vocabulary, READING, pieces["a"])
    parts = [take([part], READING)[1]["a"] for part in cut(rows, at)]
    again = assemble(vocabulary, READING, *(parts[::-1] if turned else parts))
    assert whole[2] == again[2]
    trained, held = whole[0], whole[1]
    assert len(trained.starts) - 1 == sum(
        1 for i, t in zip(rows.ids, rows.tokens, strict=True) if len(t) and i in pieces["a"].names
    )
    assert held.blocks.shape == (
        held.tokens // 16 if held.tokens % 16 else held.tokens // 16 - 1,
        17,
    )
    assert held.surcharge > 0


def test_held_out_text_is_never_trained_on() -> None:
    rows = rows_of(120, "a", 1)
    _, pieces = take([rows], READING)
    piece = pieces["a"]
    assert not {name for _, name, _ in piece.held} & set(piece.names)
    assert piece.held


def test_an_id_that_occurs_twice_is_refused() -> None:
    one = Piece(["x"], np.zeros(2, np.int32), np.array([2]), [])
    vocabulary = build_vocabulary({"a": (np.array([0]), np.array([1]))}, 1, 64)
    with pytest.raises(RecipeError, match="'x' occurs twice"):
        assemble(vocabulary, READING, one, one)


# The table

MIXTURES = Mixtures("m.csv", ("natural", "m1"), ("a", "b"), np.array([[0.5, 0.5], [0.9, 0.1]]))
TRAINING = training_of(7000, 16, 8, 1e-3, "cosine")


def test_budgets_become_whole_steps() -> None:
    assert TRAINING.steps == 54
    assert TRAINING.tokens == 54 * 128
    assert blocks_table(MIXTURES, TRAINING).tolist() == [[216, 216], [389, 43]]
    with pytest.raises(RecipeError, match="127 tokens are less than one step of 8 blocks"):
        training_of(127, 16, 8, 1e-3, "cosine")


def test_every_setting_has_its_own_fingerprint() -> None:
    def prints(**changes: object) -> dict[tuple[str, int], str]:
        given = {"shape": TINY, "training": TRAINING, "data": "d", "targets": ("a",)} | changes
        base = decided(**given, torch_version="2")  # type: ignore[arg-type]
        jobs = jobs_of(MIXTURES, blocks_table(MIXTURES, TRAINING), [0, 1], [0, 1, 2], base)
        return {(job.mixture_id, job.seed): job.fingerprint for job in jobs}

    own = prints()
    assert set(own) == {("natural", 0), ("natural", 1), ("natural", 2), ("m1", 0), ("m1", 1)}
    assert len(set(own.values())) == 5
    assert own == prints()
    changed = [
        prints(data="e"),
        prints(targets=("a", "b")),
        prints(shape=Shape(1, 16, 2, 64)),
        prints(training=training_of(7000, 16, 8, 2e-3, "cosine")),
    ]
    assert all(not set(own.values()) & set(other.values()) for other in changed)


def test_a_result_comes_back_only_for_its_own_proxy() -> None:
    result = Result("f" * 32, "m", 0, 10, 20, {"a": 1.5, "b": None}, "broke")
    assert Result.from_json(result.as_json(), "f" * 32) == result
    assert Result.from_json(result.as_json(), "e" * 32) is None
    for data in (b"", b"{", b"[]", b"{}", b'{"schema_version": 1, "x": 2}'):
        assert Result.from_json(data, "f" * 32) is None


def test_the_table_is_what_fit_reads() -> None:
    results = [
        Result("1", "natural", 0, 10, 20, {"b": 1.25, "a": 2.5}, ""),
        Result("2", "natural", 1, 10, 20, {"b": 1.75, "a": 2.5}, ""),
        Result("3", "m1", 0, 10, 20, {"b": None, "a": None}, "broke, badly"),
    ]
    losses: Losses = read_losses(run_table(results, ("a", "b")).encode(), "losses.csv")
    assert losses.targets == ("a", "b")
    runs = join(MIXTURES, losses)
    assert runs.Y.tolist() == [[2.5, 1.5]]
    assert runs.missing == ("m1",)


def test_what_does_not_fit_the_data_is_named() -> None:
    counted = {"a": Counted(3), "bb": Counted(3)}
    with pytest.raises(RecipeError, match="source 'b' is not in data; did you mean 'bb'"):
        check_sources(MIXTURES, (), counted, "data")
    with pytest.raises(RecipeError, match="--target: source 'x' is not in"):
        check_sources(MIXTURES, ("x",), {"a": Counted(), "b": Counted()}, "data")
    with pytest.raises(RecipeError, match="12 held-out tokens of source 'a' do not fill a block"):
        check_held_out(["a"], {"a": 12}, 16)


def test_remarks_before_the_runs() -> None:
    twins = Mixtures("m.csv", ("natural", "uniform"), ("a", "b"), np.full((2, 2), 0.5))
    said = " ".join(remarks(twins, training_of(1280, 16, 8, 1, "constant"), {"c": Counted()}))
    assert "10 steps only" in said
    assert "'natural' and 'uniform' have the same shares" in said
    assert "not trained on: c" in said
