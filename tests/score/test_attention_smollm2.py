"""The attention passes with a real model: what they are worth on its weights, and what not."""

import time
from itertools import pairwise

import numpy as np
import pytest
import torch

from longctx.score.causal_lm import CausalLM, load_causal_lm
from longctx.score.gateau_rows import Parts, read_row, role_of
from longctx.score.ladm import ladm_index, ladm_windows
from longctx.score.layer0 import load_layer0
from longctx.score.longattn import framed, longattn_from_matrix
from longctx.score.smollm2 import packaged_folder
from tests.score.models import needs_smollm2

pytestmark = needs_smollm2()

L, SPAN = 512, 16


@pytest.fixture(scope="module")
def lm() -> CausalLM:
    return load_causal_lm(device="cpu")


@pytest.fixture(scope="module")
def texts(lm: CausalLM) -> list[np.ndarray]:
    """Tokens of chapters of Python's own manual."""
    from pydoc_data.topics import topics

    names = ("assignment", "async", "attribute-access", "calls")
    return [ids[40 : 40 + L] for ids in lm.encode([topics[name] for name in names])]


def test_a_repeated_half_depends_more_on_the_first_than_an_unrelated_one(
    lm: CausalLM, texts: list[np.ndarray]
) -> None:
    """LADM's score only: the first layer of this model attends to what is near, copy or not."""
    half = L // 2
    pairs = ladm_index(L // SPAN)
    scores = []
    for one, other in pairwise(texts):
        repeated = np.concatenate([one[:half], one[:half]])
        unrelated = np.concatenate([one[:half], other[:half]])
        windows = np.stack([framed(ids, lm.bos) for ids in (repeated, unrelated)])
        scores.append(ladm_windows(lm, windows, SPAN, pairs).mean)
    repeated, unrelated = np.array(scores).T
    assert (repeated > unrelated).all()
    assert repeated.sum() > 1.5 * unrelated.sum()


def test_an_answer_from_far_back_is_harder_for_the_short_window(
    lm: CausalLM, texts: list[np.ndarray]
) -> None:
    """The response quotes the first or the fourth of four segments; 320 tokens hold the last."""
    asked = lm.encode(["Quote the passage of the text that was asked for."])[0]
    short, long = role_of(lm, 320), role_of(lm, 4096)
    read = {}
    for segment, start in ((0, 70), (3, 430)):
        row = Parts(texts[0], asked, texts[0][start : start + 40])
        read[segment] = read_row((short, row), (long, row))
    for segment, found in read.items():
        assert found is not None
        assert int(np.argmin(found.alone)) == int(np.argmax(found.attention)) == segment
    far, near = read[0], read[3]
    assert far is not None
    assert near is not None
    assert far.nll_a - far.nll_b > 1 + near.nll_a - near.nll_b


def test_the_first_layer_is_that_of_the_whole_model(texts: list[np.ndarray]) -> None:
    from transformers import AutoModelForCausalLM

    first = AutoModelForCausalLM.from_pretrained(
        packaged_folder(), num_hidden_layers=1, dtype=torch.float32, attn_implementation="eager"
    )
    layer = load_layer0(device="cpu")
    fed = torch.from_numpy(framed(texts[0], layer.bos).astype(np.int64))[None]
    with torch.inference_mode():
        weights = first(fed, output_attentions=True).attentions[0][0].numpy()
    assert weights.shape == (9, L, L)
    found = layer.longattn(texts[0])
    assert found == pytest.approx(longattn_from_matrix(weights), rel=1e-4)
    assert 0.1 < found.ds < 0.75


def test_the_first_layer_costs_less_than_a_fifth_of_a_forward(
    lm: CausalLM, texts: list[np.ndarray]
) -> None:
    layer = load_layer0(device="cpu")
    layer.longattn(texts[0])
    start = time.process_time()
    layer.longattn(texts[1])
    alone = time.process_time() - start
    start = time.process_time()
    with torch.inference_mode():
        lm.hidden(torch.from_numpy(texts[1].astype(np.int64))[None])
    assert time.process_time() - start > 5 * alone
