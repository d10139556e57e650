"""The layer-0 pass against the eager attention of whole models of every family."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from longctx.errors import RunError
from longctx.score import layer0
from longctx.score.layer0 import Layer0, load_layer0
from longctx.score.longattn import longattn_from_matrix
from tests.score.models import FAMILIES, VOCABULARY, tiny_model

LENGTH = 64


def ids(n: int = LENGTH, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, VOCABULARY, n).astype(np.int32)


def eager(folder: Path, tokens: np.ndarray, **config: Any) -> torch.Tensor:
    """First-layer weights [heads, n, n] as transformers' eager attention makes them."""
    from transformers import AutoConfig, AutoModelForCausalLM

    settings = AutoConfig.from_pretrained(folder)
    settings.rope_parameters |= config
    model = AutoModelForCausalLM.from_pretrained(
        folder, config=settings, dtype=torch.float32, attn_implementation="eager"
    )
    with torch.inference_mode():
        found = model(torch.from_numpy(tokens.astype(np.int64))[None], output_attentions=True)
    weights: torch.Tensor = found.attentions[0][0]
    return weights


def weights(layer: Layer0, tokens: np.ndarray) -> torch.Tensor:
    """The same from the queries and keys of the pass, in one piece."""
    q, k = layer.qk(tokens)
    keys = k.repeat_interleave(len(q) // len(k), dim=0)
    logits = q @ keys.transpose(1, 2) / q.shape[2] ** 0.5
    return torch.softmax(logits.masked_fill(torch.ones_like(logits).triu(1).bool(), -torch.inf), 2)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("bias", [False, True])
def test_attention_is_that_of_the_whole_model(tmp_path: Path, family: str, bias: bool) -> None:
    """Biases: Qwen2 has them always, Llama and Qwen3 where the configuration says so."""
    changes = {} if family in ("mistral", "qwen2") else {"attention_bias": bias}
    folder = tiny_model(tmp_path, family, **changes)
    blow_up(folder)
    layer = load_layer0(str(folder), device="cpu")
    found = weights(layer, ids())
    assert (found - eager(folder, ids())).abs().max() <= 1e-6
    if bias and changes:
        assert any(name.endswith("bias") for name in layer.weights)


def blow_up(folder: Path) -> None:
    """Random norms and biases, which a new model has as ones and zeros."""
    tensors = load_file(folder / "model.safetensors")
    generator = torch.Generator().manual_seed(3)
    for name, tensor in tensors.items():
        if "norm" in name or name.endswith("bias"):
            tensor += torch.randn(tensor.shape, generator=generator) / 2
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def test_scores_of_a_window_are_those_of_the_eager_weights(tmp_path: Path) -> None:
    folder = tiny_model(tmp_path)
    layer = load_layer0(str(folder), device="cpu", rows=32)
    assert layer.bos == 256
    fed = np.concatenate([[256], ids()[:-1]]).astype(np.int32)
    expected = longattn_from_matrix(eager(folder, fed).numpy())
    assert layer.longattn(ids()) == pytest.approx(expected, rel=1e-5)


def test_without_a_bos_the_tokens_are_fed_as_they_are(tmp_path: Path) -> None:
    folder = tiny_model(tmp_path)
    (folder / "tokenizer_config.json").write_text(json.dumps({"eos_token": "<eos>"}))
    layer = load_layer0(str(folder), device="cpu")
    assert layer.bos is None
    expected = longattn_from_matrix(eager(folder, ids()).numpy())
    assert layer.longattn(ids()) == pytest.approx(expected, rel=1e-5)


def test_only_what_the_first_layer_needs_is_read(tmp_path: Path) -> None:
    layer = load_layer0(str(tiny_model(tmp_path, "qwen3")), device="cpu")
    assert {n.removeprefix("model.").removeprefix("layers.0.") for n in layer.weights} == {
        "embed_tokens.weight",
        "input_layernorm.weight",
        "self_attn.q_proj.weight",
        "self_attn.k_proj.weight",
        "self_attn.q_norm.weight",
        "self_attn.k_norm.weight",
    }


def test_weights_in_several_files_are_found_by_the_index(tmp_path: Path) -> None:
    folder = tiny_model(tmp_path)
    whole = load_layer0(str(folder), device="cpu").longattn(ids())
    tensors = load_file(folder / "model.safetensors")
    names = sorted(tensors)
    index = {}
    for i, own in enumerate((names[::2], names[1::2])):
        save_file({n: tensors[n] for n in own}, folder / f"model-{i}.safetensors")
        index |= dict.fromkeys(own, f"model-{i}.safetensors")
    (folder / "model.safetensors").unlink()
    file = folder / "model.safetensors.index.json"
    file.write_text(json.dumps({"weight_map": index}))
    assert load_layer0(str(folder), device="cpu").longattn(ids()) == whole
    file.write_text(json.dumps({"weight_map": index | {names[0]: "../elsewhere"}}))
    with pytest.raises(RunError, match="outside of the folder"):
        load_layer0(str(folder), device="cpu")


@pytest.mark.parametrize(
    "rope",
    [
        {"rope_type": "linear", "factor": 4.0},
        {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16},
        {
            "rope_type": "llama3",
            "factor": 8.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 16,
        },
    ],
    ids=lambda rope: str(rope["rope_type"]),
)
def test_scaled_rope_is_that_of_the_configuration(tmp_path: Path, rope: dict[str, Any]) -> None:
    folder = tiny_model(tmp_path, rope_parameters={"rope_theta": 500.0, **rope})
    found = weights(load_layer0(str(folder), device="cpu"), ids())
    assert (found - eager(folder, ids())).abs().max() <= 1e-6


def test_another_rope_base_is_used(tmp_path: Path) -> None:
    folder = tiny_model(tmp_path)
    found = weights(load_layer0(str(folder), device="cpu", rope_theta=2.5e6), ids())
    assert (found - eager(folder, ids(), rope_theta=2.5e6)).abs().max() <= 1e-6
    assert (found - eager(folder, ids())).abs().max() > 1e-3


def test_bfloat16_rounds_only_the_projections(tmp_path: Path) -> None:
    folder = str(tiny_model(tmp_path))
    exact, rounded = (
        load_layer0(folder, device="cpu", dtype=d).longattn(ids()) for d in ("float32", "bfloat16")
    )
    assert rounded != exact
    assert rounded == pytest.approx(exact, rel=0.05)


def test_windows_are_as_asked_or_what_the_model_reads(tmp_path: Path) -> None:
    layer = load_layer0(str(tiny_model(tmp_path)), device="cpu")
    assert layer.window(None) == 1024
    assert layer.window(4096) == 4096
    layer.limit = 131_072
    assert layer.window(None) == 32_768


def test_a_first_layer_that_looks_back_too_little_is_told(tmp_path: Path) -> None:
    layer = load_layer0(str(tiny_model(tmp_path, "mistral", sliding_window=128)), device="cpu")
    assert layer.window(None) == 128
    with pytest.raises(RunError, match=r"windows of 256 tokens, .* looks back only 128"):
        layer.window(256)
    full = tiny_model(tmp_path / "full", "qwen2", sliding_window=128, use_sliding_window=False)
    assert load_layer0(str(full), device="cpu").window(None) == 1024


def test_another_family_is_told_with_what_was_found(tmp_path: Path) -> None:
    from transformers import GPT2Config, GPT2LMHeadModel

    tiny_model(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    GPT2LMHeadModel(GPT2Config(n_layer=1, n_embd=8, n_head=2, vocab_size=9)).save_pretrained(
        tmp_path
    )
    with pytest.raises(RunError, match=r"model_type 'gpt2', tensors .*transformer\.h\.0\.attn"):
        load_layer0(str(tmp_path))


def test_a_layer_with_other_tensors_is_told_with_what_was_found(tmp_path: Path) -> None:
    folder = tiny_model(tmp_path)
    file = folder / "model.safetensors"
    tensors = load_file(file)
    scaled = tensors | {"model.layers.0.self_attn.q_proj.weight_scale": torch.ones(1)}
    save_file(scaled, file)
    with pytest.raises(RunError, match=r"not known: model_type 'llama', .*q_proj\.weight_scale"):
        load_layer0(str(folder))
    fused = {n: t for n, t in tensors.items() if ".k_proj." not in n}
    save_file(fused, file)
    with pytest.raises(RunError, match=r"input_layernorm\.weight.*self_attn\.q_proj\.weight"):
        load_layer0(str(folder))


def test_a_folder_without_a_model_is_told(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="cannot load the language model"):
        load_layer0(str(tmp_path))


def test_memory_that_runs_out_halves_the_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    layer = load_layer0(str(tiny_model(tmp_path)), device="cpu", rows=256)
    expected = layer.longattn(ids())
    real = layer0.longattn_stream

    def scarce(*args: Any, rows: int, **settings: Any) -> Any:
        if rows > 64:
            raise torch.OutOfMemoryError("out of memory")
        return real(*args, rows=rows, **settings)

    monkeypatch.setattr(layer0, "longattn_stream", scarce)
    assert layer.longattn(ids()) == pytest.approx(expected, rel=1e-6)
    assert (layer.rows, layer.halved) == (64, 2)

    def never(*args: Any, **settings: Any) -> Any:
        raise torch.OutOfMemoryError("out of memory")

    monkeypatch.setattr(layer0, "longattn_stream", never)
    with pytest.raises(RunError, match="runs out of memory with a window of 64 tokens"):
        layer.longattn(ids())


def test_weights_that_are_not_numbers_give_none(tmp_path: Path) -> None:
    layer = load_layer0(str(tiny_model(tmp_path)), device="cpu")
    layer.weights["model.embed_tokens.weight"][ids()[20]] = float("nan")
    assert np.isnan(layer.longattn(ids())).all()
    assert np.isfinite(layer.longattn(np.full(LENGTH, ids()[3], dtype=np.int32))).all()
