"""The all-layer pass against eager attention of whole models of every family."""

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from longctx.errors import RunError
from longctx.score import attention
from longctx.score.attention import Query, collecting, key_weights
from longctx.score.causal_lm import CausalLM, Segment, load_causal_lm
from tests.score.models import FAMILIES, VOCABULARY, Largest, tiny_model

LENGTH = 64


def ids(n: int = LENGTH, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, VOCABULARY, n)


def eager(folder: Path, tokens: np.ndarray) -> np.ndarray:
    """Weights [layers, n, n], mean over the heads, as transformers' eager attention makes them."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager"
    )
    with torch.inference_mode():
        found = model(torch.from_numpy(tokens)[None], output_attentions=True).attentions
    return torch.stack(found)[:, 0].mean(1).numpy()


def tiny(folder: Path, family: str = "llama", **changes: Any) -> CausalLM:
    return load_causal_lm(str(tiny_model(folder, family, **changes)), dtype="float32", device="cpu")


def forward(lm: CausalLM, tokens: np.ndarray) -> None:
    with torch.inference_mode():
        lm.hidden(torch.from_numpy(np.atleast_2d(tokens)))


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("span", [None, 12])
def test_every_weight_is_that_of_eager_attention(
    tmp_path: Path, family: str, span: int | None
) -> None:
    sliding = {"sliding_window": span}
    if family.startswith("qwen"):
        sliding |= {"use_sliding_window": True, "max_window_layers": 1}
    lm = tiny(tmp_path, family, **(sliding if span and family != "llama" else {}))
    every = [Query(i, i + 1, np.arange(i + 2)) for i in range(LENGTH)]
    with collecting(lm, every) as found:
        forward(lm, ids())
    expected = eager(tmp_path, ids())
    for row, sums in enumerate(found.sums()):
        assert sums.shape == (2, 1, row + 1)
        assert np.abs(sums[:, 0] - expected[:, row, : row + 1]).max() <= 1e-6


def test_rows_and_groups_are_summed(tmp_path: Path) -> None:
    lm = tiny(tmp_path)
    borders = np.array([3, 10, 11, 30])
    query = Query(40, 57, borders)
    with collecting(lm, [query]) as found:
        forward(lm, ids())
    weights = eager(tmp_path, ids())[:, 40:57]
    expected = [weights[:, :, a:b].sum((1, 2)) for a, b in pairwise(borders)]
    np.testing.assert_allclose(found.sums()[0][:, 0], np.stack(expected, 1), atol=1e-5)


def test_without_its_own_keys_a_row_shares_its_weight_among_those_before(tmp_path: Path) -> None:
    lm = tiny(tmp_path)
    borders = np.arange(0, 41, 8)
    with collecting(lm, [Query(40, 48, borders, own=False)]) as found:
        forward(lm, ids())
    rows = eager(tmp_path, ids())[:, 40:48, :40]
    one = tiny_one_head(tmp_path / "one")
    with collecting(one, [Query(40, 48, borders, own=False)]) as alone:
        forward(one, ids())
    weights = eager(tmp_path / "one", ids())[:, 40:48, :40]
    # Of one head the weights before the span only have to be scaled to 1 again.
    shares = (weights / weights.sum(2, keepdims=True)).reshape(2, 8, 5, 8).sum((1, 3))
    np.testing.assert_allclose(alone.sums()[0][:, 0], shares, atol=1e-5)
    np.testing.assert_allclose(found.sums()[0].sum(2), 8, atol=1e-5)
    assert (found.sums()[0].sum(2)[:, 0] > rows.sum((1, 2))).all()


def tiny_one_head(folder: Path) -> CausalLM:
    return tiny(folder, num_attention_heads=1, num_key_value_heads=1)


def test_a_batch_is_its_members(tmp_path: Path) -> None:
    lm = tiny(tmp_path)
    query = Query(20, 50, np.array([0, 7, 20]))
    batch = np.stack([ids(seed=s) for s in range(3)])
    with collecting(lm, [query]) as found:
        forward(lm, batch)
    for i, row in enumerate(batch):
        with collecting(lm, [query]) as alone:
            forward(lm, row)
        np.testing.assert_allclose(found.sums()[0][:, i], alone.sums()[0][:, 0], atol=1e-6)


@pytest.mark.parametrize("rows", [1, 5, 64, 10_000])
def test_the_rows_held_at_once_do_not_matter(rows: int) -> None:
    generator = torch.Generator().manual_seed(1)
    q = torch.randn(2, 6, 30, 4, generator=generator)
    k = torch.randn(2, 3, 30, 4, generator=generator)
    for query in (Query(9, 28, np.array([0, 28])), Query(9, 28, np.array([0, 9]), own=False)):
        for span in (None, 20):
            whole = key_weights(q, k, query, 0.7, span, 4096)
            np.testing.assert_allclose(key_weights(q, k, query, 0.7, span, rows), whole, atol=1e-6)
            assert whole.sum(1).tolist() == pytest.approx([19, 19], abs=1e-5)


def test_scores_are_the_same_while_somebody_collects(tmp_path: Path) -> None:
    lm = tiny(tmp_path)
    segment = Segment(ids().astype(np.int32), 0, LENGTH)
    before = lm.scores([segment])[0]
    # The BOS that is fed before the ids is row 0.
    with collecting(lm, [Query(1, LENGTH + 1, np.array([0, 1]))]) as found:
        during = lm.scores([segment])[0]
    after = lm.scores([segment])[0]
    np.testing.assert_array_equal(before.nll, during.nll)
    np.testing.assert_array_equal(before.nll, after.nll)
    assert 0 < found.sums()[0].min() < LENGTH


def test_no_matrix_of_all_rows_is_ever_made(tmp_path: Path) -> None:
    lm = tiny(tmp_path)
    n = 1000
    with Largest() as largest, collecting(lm, [Query(0, n, np.array([0, n]))]) as found:
        forward(lm, ids(n))
    assert found.sums()[0].sum() == pytest.approx(2 * n, rel=1e-5)
    assert largest.elements <= found.rows * n < n * n


def test_the_last_forward_is_what_stays(tmp_path: Path) -> None:
    lm = tiny(tmp_path)
    query = Query(20, 50, np.array([0, 7, 20]))
    with collecting(lm, [query]) as both:
        forward(lm, ids(seed=1))
        forward(lm, ids(seed=2))
    with collecting(lm, [query]) as last:
        forward(lm, ids(seed=2))
    np.testing.assert_array_equal(both.sums()[0], last.sums()[0])


def test_a_model_that_does_not_ask_for_the_function_is_told(tmp_path: Path) -> None:
    lm = tiny(tmp_path)
    with collecting(lm, [Query(0, 4, np.array([0, 4]))]) as found:
        pass
    with pytest.raises(RunError, match="cannot be read: 0 of 2 layers"):
        found.sums()


def test_memory_that_runs_out_halves_the_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lm = tiny(tmp_path)
    query = Query(0, LENGTH, np.arange(0, LENGTH + 1, 16))
    with collecting(lm, [query]) as expected:
        forward(lm, ids())
    real = attention.key_weights

    def scarce(*args: Any) -> Any:
        if args[5] > 64:
            raise torch.OutOfMemoryError("out of memory")
        return real(*args)

    monkeypatch.setattr(attention, "key_weights", scarce)
    with collecting(lm, [query]) as found:
        forward(lm, ids())
    np.testing.assert_allclose(found.sums()[0], expected.sums()[0], atol=1e-5)
    assert (found.rows, found.halved) == (64, 2)
    monkeypatch.setattr(attention, "_LEAST_ROWS", 128)
    with pytest.raises(torch.OutOfMemoryError), collecting(lm, [query]):
        forward(lm, ids())
