"""The likelihood pass against what the model itself says, whatever is read beside it."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from longctx.errors import RunError
from longctx.score.causal_lm import CausalLM, Segment, load_causal_lm
from tests.score.models import VOCABULARY, needs_smollm2, tiny_model


@pytest.fixture(scope="module")
def lm(tmp_path_factory: pytest.TempPathFactory) -> CausalLM:
    folder = tiny_model(tmp_path_factory.mktemp("tiny"))
    return load_causal_lm(str(folder), dtype="float32", batch_tokens=96)


def ids(n: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, VOCABULARY, n).astype(np.int32)


def by_the_model(lm: CausalLM, segment: Segment) -> tuple[np.ndarray, np.ndarray]:
    """Losses and hits of a segment from the whole model's own logits, alone in its batch."""
    fed = np.concatenate([[lm.bos], segment.ids]) if segment.bos else segment.ids
    shift = int(segment.bos)
    with torch.inference_mode():
        logits = lm.model(torch.from_numpy(fed.astype(np.int64))[None]).logits[0].double()
    rows = np.arange(segment.lo, segment.hi) + shift - 1
    wanted = segment.ids[segment.lo : segment.hi].astype(np.int64)
    logs = torch.log_softmax(logits[rows], dim=1).numpy()
    return -logs[np.arange(len(rows)), wanted], logs.argmax(axis=1) == wanted


def test_scores_are_those_of_the_whole_model(lm: CausalLM) -> None:
    asked = [Segment(ids(50), 0, 50), Segment(ids(80, 1), 40, 77), Segment(ids(9, 2), 1, 9, False)]
    for segment, found in zip(asked, lm.scores(asked), strict=True):
        nll, hit = by_the_model(lm, segment)
        np.testing.assert_allclose(found.nll, nll, atol=1e-5)
        assert found.hit.tolist() == hit.tolist()
        assert found.nll.dtype == np.float32


@given(
    lengths=st.lists(st.integers(1, 90), min_size=1, max_size=6),
    batch=st.integers(1, 400),
    rows=st.integers(1, 7),
)
@settings(max_examples=20, deadline=None)
def test_neither_batch_nor_padding_nor_slices_matter(
    lm: CausalLM, lengths: list[int], batch: int, rows: int
) -> None:
    asked = [Segment(ids(n, n), 0, n) for n in lengths]
    alone = [lm.scores([segment])[0] for segment in asked]
    lm.batch_tokens, lm._rows = batch, rows
    for one, other in zip(alone, lm.scores(asked), strict=True):
        np.testing.assert_allclose(one.nll, other.nll, atol=1e-5)


def test_nothing_to_score_is_an_empty_answer(lm: CausalLM) -> None:
    assert lm.scores([]) == []
    assert len(lm.scores([Segment(ids(4), 2, 2)])[0].nll) == 0


def test_impossible_positions_are_refused(lm: CausalLM) -> None:
    with pytest.raises(ValueError, match="cannot be scored"):
        lm.scores([Segment(ids(4), 0, 4, bos=False)])
    with pytest.raises(ValueError, match="cannot be scored"):
        lm.scores([Segment(ids(4), 1, 5)])
    with pytest.raises(ValueError, match="more than the 1024"):
        lm.scores([Segment(ids(1024), 1, 2)])


def test_a_batch_that_does_not_fit_is_halved(lm: CausalLM, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = [Segment(ids(30, s), 0, 30) for s in range(4)]
    expected = [s.nll for s in lm.scores(asked)]
    real = CausalLM.hidden

    def scarce(self: CausalLM, batch: torch.Tensor) -> torch.Tensor:
        if len(batch) > 1:
            raise torch.OutOfMemoryError("out of memory")
        return real(self, batch)

    monkeypatch.setattr(CausalLM, "hidden", scarce)
    lm.batch_tokens, lm.halved = 400, 0
    for one, other in zip(expected, lm.scores(asked), strict=True):
        np.testing.assert_allclose(one, other.nll, atol=1e-5)
    assert lm.halved > 0
    assert lm.batch_tokens < 400


def test_one_stretch_that_does_not_fit_is_told(
    lm: CausalLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none(self: CausalLM, batch: torch.Tensor) -> torch.Tensor:
        raise torch.OutOfMemoryError("out of memory")

    monkeypatch.setattr(CausalLM, "hidden", none)
    with pytest.raises(RunError, match="runs out of memory with 30 tokens"):
        lm.scores([Segment(ids(30), 0, 30)])


def test_likelihoods_that_are_not_numbers_stay_with_their_segment(tmp_path: Path) -> None:
    lm = load_causal_lm(str(tiny_model(tmp_path)), dtype="float32")
    fine, broken = np.array([5, 6, 7, 8], np.int32), np.array([5, 3, 7, 8], np.int32)
    expected = lm.scores([Segment(fine, 1, 4)])[0].nll
    with torch.no_grad():
        lm.model.get_input_embeddings().weight[3] = float("nan")
    found = lm.scores([Segment(broken, 1, 4), Segment(fine, 1, 4)])
    assert not np.isfinite(found[0].nll).all()
    np.testing.assert_allclose(found[1].nll, expected, atol=1e-6)


def test_identity_tells_weights_dtypes_and_vocabularies_apart(tmp_path: Path) -> None:
    folder = str(tiny_model(tmp_path / "a"))
    found = load_causal_lm(folder, dtype="float32").identity
    assert found == load_causal_lm(folder, dtype="float32").identity
    assert found["dtype"] == "float32"
    assert load_causal_lm(folder).identity == {**found, "dtype": "bfloat16"}
    other = load_causal_lm(str(tiny_model(tmp_path / "b", seed=1)), dtype="float32").identity
    assert other["weights"] != found["weights"]
    assert other["tokenizer"] == found["tokenizer"]


def test_a_folder_without_a_model_is_told(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="cannot load the language model"):
        load_causal_lm(str(tmp_path))


def test_changed_logits_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = CausalLM.logits
    monkeypatch.setattr(CausalLM, "logits", lambda self, h: 2 * real(self, h))
    with pytest.raises(RunError, match="changes its logits"):
        load_causal_lm(str(tiny_model(tmp_path)), dtype="float32")


@needs_smollm2()
def test_the_packaged_model_prefers_prose_to_its_words_shuffled() -> None:
    lm = load_causal_lm()
    prose = (
        "The river rises in the hills north of the town and flows past the old mill, where "
        "people used to bring their grain before the railway came."
    )
    words = prose.split()
    shuffled = " ".join(np.random.default_rng(1).permutation(words))
    real, mixed = (
        s.nll.mean()
        for s in lm.scores([Segment(i, 0, len(i)) for i in lm.encode([prose, shuffled])])
    )
    assert real < 4
    assert mixed > real + 1.5
