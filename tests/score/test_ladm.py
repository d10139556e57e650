"""LADM: the specification's examples, the pass against whole matrices, uniform attention."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from longctx.errors import RunError
from longctx.score.causal_lm import CausalLM, load_causal_lm
from longctx.score.ladm import ladm_cds, ladm_index, ladm_windows, least_spans, pfs
from longctx.score.longattn import longattn_from_matrix
from tests.score.models import VOCABULARY, tiny_model
from tests.score.test_attention import eager

L, SPAN = 96, 4


def test_index_of_the_code() -> None:
    pairs = ladm_index(256)
    assert list(pairs) == list(range(255, 18, -4))
    assert len(pairs) == 60
    assert len(pairs[255]) == 63
    assert (pairs[255][0], pairs[255][-1]) == (251, 3)
    assert {j: i.tolist() for j, i in ladm_index(24).items()} == {
        23: [19, 15, 11, 7, 3],
        19: [15, 11, 7, 3],
    }
    assert ladm_index(17) == {}


def test_index_of_the_paper() -> None:
    pairs = ladm_index(256, index="paper")
    assert list(pairs) == list(range(16, 256, 4))
    assert pairs[16].tolist() == [1, 5, 9]
    assert pairs[252][-1] == 245
    assert ladm_index(16, index="paper") == {}


@pytest.mark.parametrize(
    ("settings", "spans"), [({}, 19), ({"step_i": 1}, 7), ({"index": "paper"}, 17)]
)
def test_fewest_spans_that_give_a_score(settings: dict[str, Any], spans: int) -> None:
    assert least_spans(**settings) == spans
    for n in (spans - 1, spans):
        pairs = ladm_index(n, **settings)
        found = ladm_cds({j: np.arange(float(n)) for j in pairs}, n, pairs)
        assert np.isnan(found.mean) == (n < spans)


@pytest.mark.parametrize("step", [1, 2, 4])
def test_steps_of_i_leave_four_values_at_least(step: int) -> None:
    for n in range(1, 80):
        for j, places in ladm_index(n, step_j=2, step_i=step).items():
            assert len(places) >= 4
            assert (np.diff(places) == -step).all()
            assert places[-1] >= 1
            assert places[0] == j - step


def test_pfs_of_the_example() -> None:
    logits = np.full((6, 6), -np.inf)
    logits[4, :5] = np.log([1, 3, 2, 2, 2])
    logits[5] = np.log([4, 1, 1, 2, 1, 1])
    assert pfs(logits, 2, 0, 2) == pytest.approx(1.125)
    assert pfs(logits, 2, 1, 2) == pytest.approx(0.875)
    assert pfs(logits, 2, 0, 2, include_self=True) == pytest.approx(0.9)
    assert pfs(logits, 2, 1, 2, include_self=True) == pytest.approx(0.7)
    assert pfs(np.stack([logits, logits]), 2, 0, 2) == pytest.approx(1.125)


def test_pfs_over_all_earlier_spans_is_the_length_of_a_span() -> None:
    logits = np.random.default_rng(0).normal(size=(3, 40, 40))
    assert sum(pfs(logits, 5, i, 6) for i in range(6)) == pytest.approx(5)
    assert sum(pfs(logits, 5, i, 6, include_self=True) for i in range(6)) < 5


def test_cds_of_the_example() -> None:
    weights = {23: np.zeros(23), 19: np.zeros(19)}
    weights[23][[19, 15, 11, 7, 3]] = 4, 2, 6, 1, 3
    weights[19][[15, 11, 7, 3]] = 2, 2, 5, 1
    found = ladm_cds(weights, 24, ladm_index(24))
    assert found.mean == pytest.approx(9.769397, abs=1e-6)
    assert found.sum == pytest.approx(19.538794, abs=1e-6)
    # sigma and AFS of each j, which the mean above is made of.
    alone = {j: ladm_cds(weights, 24, {j: i}).sum * 24 / j for j, i in ladm_index(24).items()}
    assert alone == pytest.approx({23: 14.426538, 19: 7.216878}, abs=1e-6)


def test_a_span_with_one_partner_is_left_out() -> None:
    weights = {5: np.array([1.0, 2, 3, 4, 5]), 3: np.array([2.0, 1, 0])}
    whole = ladm_cds(weights, 6, {5: np.array([1, 3]), 3: np.array([1])})
    assert whole.mean == ladm_cds(weights, 6, {5: np.array([1, 3])}).mean
    assert np.isnan(ladm_cds(weights, 6, {3: np.array([1])}).mean)
    assert np.isnan(ladm_cds(weights, 6, {}).sum)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model(tmp_path_factory.mktemp("tiny"), num_attention_heads=1, num_key_value_heads=1)


@pytest.fixture
def lm(folder: Path) -> CausalLM:
    return load_causal_lm(str(folder), dtype="float32", device="cpu")


def windows(count: int) -> np.ndarray:
    return np.random.default_rng(5).integers(0, VOCABULARY, (count, L)).astype(np.int32)


@pytest.mark.parametrize("include_self", [False, True])
@pytest.mark.parametrize("index", ["code", "paper"])
def test_windows_are_scored_as_from_whole_matrices(
    lm: CausalLM, folder: Path, include_self: bool, index: Any
) -> None:
    """With one head the weights give the logits, up to a constant that does not count."""
    pairs = ladm_index(L // SPAN, index=index)
    batch = windows(2)
    found = ladm_windows(lm, batch, SPAN, pairs, include_self=include_self)
    for row, window in enumerate(batch):
        of_layers = []
        for weights in eager(folder, window.astype(np.int64)):
            with np.errstate(divide="ignore"):
                logits = np.log(weights)
            of_spans = {
                j: np.array([pfs(logits, SPAN, i, j, include_self=include_self) for i in range(j)])
                for j in pairs
            }
            of_layers.append(ladm_cds(of_spans, L // SPAN, pairs))
        assert found.mean[row] == pytest.approx(np.mean([c.mean for c in of_layers]), rel=1e-4)
        assert found.sum[row] == pytest.approx(np.mean([c.sum for c in of_layers]), rel=1e-4)


def test_uniform_attention_has_no_dependency_for_ladm_and_much_for_longattn(lm: CausalLM) -> None:
    """They disagree by design: LADM asks how unevenly, LongAttn how far."""
    with torch.no_grad():
        for layer in lm.model.base_model.layers:
            layer.self_attn.q_proj.weight.zero_()
    found = ladm_windows(lm, windows(1), SPAN, ladm_index(L // SPAN))
    assert found.mean[0] == pytest.approx(0, abs=1e-5)
    uniform = np.tril(np.ones((512, 512))) / np.arange(1, 513)[:, None]
    assert longattn_from_matrix(uniform).ds == pytest.approx(0.4034, abs=2e-3)


def test_weights_that_are_not_numbers_stay_with_their_window(lm: CausalLM) -> None:
    batch = windows(3)
    batch[batch == 7] = 8
    batch[1, 5] = 7
    pairs = ladm_index(L // SPAN)
    expected = ladm_windows(lm, batch, SPAN, pairs).mean
    with torch.no_grad():
        lm.model.get_input_embeddings().weight[7] = float("nan")
    found = ladm_windows(lm, batch, SPAN, pairs).mean
    assert np.isnan(found).tolist() == [False, True, False]
    np.testing.assert_allclose(found[[0, 2]], expected[[0, 2]], rtol=1e-6)


def test_windows_that_do_not_fit_together_are_read_apart(
    lm: CausalLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    pairs = ladm_index(L // SPAN)
    expected = ladm_windows(lm, windows(3), SPAN, pairs)
    real = CausalLM.hidden

    def scarce(self: CausalLM, batch: torch.Tensor) -> torch.Tensor:
        if len(batch) > 1:
            raise torch.OutOfMemoryError("out of memory")
        return real(self, batch)

    monkeypatch.setattr(CausalLM, "hidden", scarce)
    found = ladm_windows(lm, windows(3), SPAN, pairs)
    np.testing.assert_allclose(found.mean, expected.mean, rtol=1e-5)

    def never(self: CausalLM, batch: torch.Tensor) -> torch.Tensor:
        raise torch.OutOfMemoryError("out of memory")

    monkeypatch.setattr(CausalLM, "hidden", never)
    with pytest.raises(RunError, match="runs out of memory with 96 tokens"):
        ladm_windows(lm, windows(1), SPAN, pairs)
