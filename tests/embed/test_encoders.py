"""Encoders: unit vectors, pooling, cover, batch independence, and what has no vector."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from longctx.embed.encoders import distil_static, load_encoder, static_folder
from longctx.errors import RecipeError, RunError

TEXTS = [
    "The cat sat on the mat and looked at the moon.",
    "A kitten rested on a rug under the moonlight.",
    "Interest rates rose after the central bank met. " * 80,
    "def quicksort(items): return sorted(items)",
]


@pytest.fixture(scope="module", params=["static", "minilm"])
def encoder(request):
    return load_encoder(request.param, max_chunks=4)


@pytest.fixture(scope="module")
def static():
    return load_encoder("static", max_chunks=4)


def test_vectors_have_unit_norm_and_meaning(encoder):
    vectors, cover = encoder.encode(TEXTS)
    assert vectors.shape == (4, encoder.dim)
    assert (vectors.dtype, cover.dtype) == (np.float32, np.float32)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1.0, atol=1e-6)
    assert vectors[0] @ vectors[1] > vectors[0] @ vectors[2] + 0.2
    np.testing.assert_allclose(cover, 1.0)


def test_texts_without_a_known_token_have_a_zero_row(encoder):
    vectors, cover = encoder.encode(["", " \n", "\U0001f916 \U0001f916", "the"])
    assert not vectors[:3].any()
    assert cover.tolist() == [0, 0, 0, 1]
    assert np.linalg.norm(vectors[3]) == pytest.approx(1, abs=1e-6)


def test_no_texts(encoder):
    vectors, cover = encoder.encode([])
    assert vectors.shape == (0, encoder.dim)
    assert cover.shape == (0,)


def test_the_batch_does_not_matter(encoder):
    together, _ = encoder.encode(TEXTS)
    backwards, _ = encoder.encode(TEXTS[::-1])
    alone = np.vstack([encoder.encode([text])[0] for text in TEXTS])
    atol = 0.0 if encoder.name == "static" else 1e-5
    np.testing.assert_allclose(backwards[::-1], together, rtol=0, atol=atol)
    np.testing.assert_allclose(alone, together, rtol=0, atol=atol)


def test_pooling_is_the_token_weighted_mean_of_chunks():
    first, second = "the cat sat on the mat " * 86, "banks raised their rates again "
    whole = load_encoder("static", chunk_tokens=6 * 86, max_chunks=2)
    (pooled,), (cover,) = whole.encode([first + second])
    (a, b), _ = whole.encode([first, second])
    expected = 6 * 86 * a + 5 * b
    np.testing.assert_allclose(pooled, expected / np.linalg.norm(expected), atol=1e-6)
    assert cover == 1


def test_a_long_document_is_sampled_from_end_to_end(static):
    filler, end = "grey stones lie here " * 20_000, "quantum chromodynamics lattice " * 800
    long = static.encode([filler + end])
    short = static.encode([filler])
    about_end = static.encode([end])[0][0]
    assert long[0][0] @ about_end > short[0][0] @ about_end + 0.1
    tokens = 4 * 20_000 + 5 * 800
    assert long[1][0] == pytest.approx(4 * 512 / tokens, rel=0.2)


def test_only_the_sampled_spans_are_tokenised(static, monkeypatch):
    seen: list[int] = []
    tokenizer = static.tokenizer

    class Counting:
        def encode_batch(self, texts, **kwargs):
            seen.extend(map(len, texts))
            return tokenizer.encode_batch(texts, **kwargs)

        def encode_batch_fast(self, texts, **kwargs):
            seen.extend(map(len, texts))
            return tokenizer.encode_batch_fast(texts, **kwargs)

    monkeypatch.setattr(static, "tokenizer", Counting())
    static.encode(["word and another " * 1_000_000])
    assert len(seen) == 4
    assert sum(seen) <= 4 * 512 * 6


def test_unknown_tokens_carry_no_weight(static):
    known, unknown = "the cat sat on the mat ", "\U0001f916 " * 6
    vectors, cover = static.encode([known, known + unknown])
    np.testing.assert_array_equal(vectors[0], vectors[1])
    assert cover.tolist() == [1, 0.5]


def test_bf16_weights_stay_close_to_fp32():
    full, _ = load_encoder("minilm", max_chunks=2).encode(TEXTS)
    half, _ = load_encoder("minilm", dtype="bfloat16", max_chunks=2).encode(TEXTS)
    assert half.dtype == np.float32
    assert np.einsum("ij,ij->i", full, half).min() > 0.9995
    assert (full != half).any()


def test_threads_are_set():
    import torch

    before = torch.get_num_threads()
    try:
        load_encoder("minilm", threads=2)
        assert torch.get_num_threads() == 2
        load_encoder("minilm")
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(before)


def test_distilling_is_deterministic_and_needs_no_network(tmp_path):
    folder = tmp_path / "static"
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            "import sys, pathlib; from longctx.embed.encoders import distil_static; "
            "distil_static(pathlib.Path(sys.argv[1]))",
            str(folder),
        ],
        env=os.environ | {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout + done.stderr == ""
    assert [path.name for path in tmp_path.iterdir()] == ["static"]
    cached = static_folder()
    files = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert files == {path.name: path.read_bytes() for path in cached.iterdir()}
    assert "model.safetensors" in files


def test_a_second_distillation_keeps_the_first_folder(tmp_path, monkeypatch):
    """Two processes race: the loser finds the folder there, and leaves no draft behind."""
    import model2vec.distill

    class Distilled:
        def save_pretrained(self, folder: Path) -> None:
            (folder / "config.json").write_text('{"model_type": "model2vec"}')
            (folder / "README.md").touch()

    monkeypatch.setattr(model2vec.distill, "distill", lambda *args, **kwargs: Distilled())
    target = tmp_path / "static"
    distil_static(target)
    (target / "winner").touch()
    distil_static(target)
    assert [path.name for path in tmp_path.iterdir()] == ["static"]
    assert (target / "winner").exists()


def test_loading_is_silent(capfd):
    load_encoder("minilm").encode(["hello"])
    load_encoder("static").encode(["hello"])
    out, err = capfd.readouterr()
    assert out + err == ""


def test_wrong_names_say_what_to_do(monkeypatch, tmp_path):
    import huggingface_hub.constants as constants

    with pytest.raises(RecipeError, match="float16"):
        load_encoder("minilm", dtype="float16")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(RunError, match="cannot load the encoder"):
        load_encoder(str(tmp_path / "absent"))
