"""The layer-0 attention pass: queries and keys of a model's first layer, and no more of the model.

The first layer reads the embeddings themselves, so its attention needs only the token embeddings,
the layer's input norm, q_proj and k_proj (with their biases, and the norms of heads that Qwen3
has) and RoPE. These tensors are read by name from the safetensors files; values, the MLP and all
other layers stay on the disk: 1.1 of the 16 GB of an 8 B Llama. RoPE is transformers' own code for
the model's configuration, so scaled variants are right; it is defined at any position, but at
positions beyond the model's context its angles are some that the model was never trained on.
Raise `rope_theta` there, as the paper of LongAttn does (2.5e6 for Llama-3.1, windows of 32 k).

Before RoPE, q and k depend on the token alone: each distinct token of a window is projected once.

Layouts of Llama, Mistral, Qwen2 and Qwen3 are known. Whatever scales embeddings, caps logits, or
has other positions gives another attention and is refused.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from longctx.embed.chunked import quiet
from longctx.errors import RunError
from longctx.model_folders import folder_digest
from longctx.score.causal_lm import PACKAGED, loading, safe_folder
from longctx.score.longattn import CPU_ROWS, CUDA_ROWS, LongAttn, VarMode, framed, longattn_stream
from longctx.text.tokenize import Tokenizer, load_tokenizer

if TYPE_CHECKING:
    import torch

I32 = npt.NDArray[np.int32]

FAMILIES = ("llama", "mistral", "qwen2", "qwen3")
DEFAULT_WINDOW = 32_768
_EMBEDDINGS = "model.embed_tokens.weight"
_LAYER = "model.layers.0."
_ATTENTION = f"{_LAYER}self_attn."
_NORM = f"{_LAYER}input_layernorm.weight"
_LEAST_ROWS = 16


class QK(NamedTuple):
    """Queries [heads, n, d] and keys [key heads, n, d] after RoPE, float32."""

    q: "torch.Tensor"
    k: "torch.Tensor"


@dataclass
class Layer0:
    """What of a model gives the attention of its first layer; made by `load_layer0`.

    `weights` are named as in the files, without their prefix; `rotate` applies RoPE to q and k
    [1, heads, n, d]. `limit` is the model's context in tokens, `span` how far back its first layer
    looks (None: to the beginning), `bos` the token before a window; `digest` tells weights apart
    (`folder_digest`). `rows` of weights are held at once, half as many whenever memory runs out
    (`halved` times so far).
    """

    name: str
    tokenizer: Tokenizer
    bos: int | None
    limit: int
    span: int | None
    heads: int
    eps: float
    weights: dict[str, "torch.Tensor"]
    rotate: Callable[["torch.Tensor", "torch.Tensor"], tuple["torch.Tensor", "torch.Tensor"]]
    rows: int
    digest: str = ""
    halved: int = 0

    def encode(self, texts: Sequence[str]) -> list[I32]:
        """Ids of each text in the model's own vocabulary, without BOS or EOS."""
        return self.tokenizer.encode_batch(texts)

    @property
    def identity(self) -> dict[str, str]:
        """What decides the scores of the same text: scores of different ones do not compare."""
        dtype = str(self.weights[_NORM].dtype).removeprefix("torch.")
        return {
            "weights": self.digest,
            "dtype": dtype,
            "tokenizer": self.tokenizer.fingerprint[:16],
        }

    def window(self, asked: int | None) -> int:
        """Tokens of a window: as asked, else 32,768 or what the model reads, if that is less.

        Raises RunError where the first layer does not look back so far.
        """
        if asked is None:
            return min(DEFAULT_WINDOW, self.limit, self.span or DEFAULT_WINDOW)
        if self.span and asked > self.span:
            raise RunError(
                f"windows of {asked:,} tokens, but the first layer of {self.name} looks back only "
                f"{self.span:,}",
                where="score.longattn: window",
                remedy=f"set `window` to at most {self.span}, or take a model without a sliding "
                "window in its first layer",
            )
        return asked

    def longattn(self, ids: I32, *, var_mode: VarMode = "full") -> LongAttn:
        """Scores of one window of ids, int32 [n], NaN where a weight is no number.

        Raises RunError where it does not fit the device's memory.
        """
        import torch

        while True:
            try:
                return longattn_stream(
                    *self.qk(framed(ids, self.bos)), var_mode=var_mode, rows=self.rows
                )
            except torch.OutOfMemoryError:
                if self.rows <= _LEAST_ROWS:
                    raise RunError(
                        f"the first layer of {self.name} runs out of memory with a window of "
                        f"{len(ids):,} tokens",
                        where="score.longattn",
                        remedy="use shorter windows (`window`), fewer workers on a device, or one "
                        "with more memory",
                    ) from None
            self.halved += 1
            self.rows //= 2
            torch.cuda.empty_cache()

    def qk(self, ids: I32) -> QK:
        """Queries and keys of ids int32 [n] at positions 0..n-1."""
        import torch

        with torch.inference_mode():
            device = self.weights[_NORM].device
            distinct, inverse = np.unique(ids.astype(np.int64), return_inverse=True)
            tokens, places = (torch.from_numpy(a).to(device) for a in (distinct, inverse))
            embedded = self.weights[_EMBEDDINGS][tokens].to(self.weights[_NORM].dtype)
            normed = _rms(embedded, self.weights[_NORM], self.eps)
            q, k = (self._heads(name, normed)[places].transpose(0, 1)[None] for name in "qk")
            q, k = self.rotate(q, k)
            return QK(q[0].float(), k[0].float())

    def _heads(self, name: str, normed: "torch.Tensor") -> "torch.Tensor":
        """q or k of each distinct token [m, heads, d]."""
        import torch

        weight = self.weights[f"{_ATTENTION}{name}_proj.weight"]
        bias = self.weights.get(f"{_ATTENTION}{name}_proj.bias")
        width = len(self.weights[f"{_ATTENTION}q_proj.weight"]) // self.heads
        found = torch.nn.functional.linear(normed, weight, bias).view(len(normed), -1, width)
        norm = self.weights.get(f"{_ATTENTION}{name}_norm.weight")
        return found if norm is None else _rms(found, norm, self.eps)


def load_layer0(
    name: str = PACKAGED,
    *,
    device: str = "auto",
    dtype: str = "float32",
    threads: int = 1,
    rope_theta: float | None = None,
    rows: int | None = None,
    fetch: bool = True,
) -> Layer0:
    """The first layer of model `name`: "smollm2" (packaged), a folder, or a Hugging Face name.

    `dtype` "float32" or "bfloat16" is that of the projections (attention is float32 always),
    `rope_theta` replaces the model's own base, `rows` are the weights held at once (by default what
    suits the device); the rest is as for `load_causal_lm`.

    Raises RunError where the model cannot be loaded or is of a family that is not known.
    """
    import torch

    torch.set_num_threads(threads)
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    with loading(name), quiet():
        folder = safe_folder(name, fetch=fetch)
        config = _config(folder, rope_theta)
        files = _files(folder)
    kind = {"float32": torch.float32, "bfloat16": torch.bfloat16}[dtype]
    weights = _read(folder, files, _wanted(name, config, files))
    tokenizer = load_tokenizer(str(folder))
    sliding = getattr(config, "layer_types", None) or ["sliding_attention"]
    return Layer0(
        name,
        tokenizer,
        tokenizer.bos_id,
        int(config.max_position_embeddings),
        getattr(config, "sliding_window", None) if sliding[0] == "sliding_attention" else None,
        int(config.num_attention_heads),
        float(config.rms_norm_eps),
        # The table of embeddings is the largest of them: only rows that are needed change dtype.
        {n: w.to(device, None if n == _EMBEDDINGS else kind) for n, w in weights.items()},
        _rotation(config, device),
        rows or (CUDA_ROWS if device.startswith("cuda") else CPU_ROWS),
        folder_digest(folder),
    )


def _config(folder: Path, rope_theta: float | None) -> Any:
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(folder)
    if rope_theta is not None:
        config.rope_parameters["rope_theta"] = rope_theta
    return config


def _files(folder: Path) -> dict[str, str]:
    """Name of each tensor -> file of the folder that holds it."""
    from safetensors import safe_open

    index = folder / "model.safetensors.index.json"
    if index.is_file():
        files: dict[str, str] = json.loads(index.read_bytes())["weight_map"]
        for file in files.values():
            if PurePosixPath(file).name != file:
                raise ValueError(f"the index names {file!r}, which is outside of the folder")
        return files
    with safe_open(folder / "model.safetensors", framework="pt") as weights:
        return dict.fromkeys(weights.keys(), "model.safetensors")


def _wanted(name: str, config: Any, files: dict[str, str]) -> list[str]:
    """Names of the tensors to read. RunError, with what was found, where the layout is unknown."""
    needed = [_EMBEDDINGS, _NORM, f"{_ATTENTION}q_proj.weight", f"{_ATTENTION}k_proj.weight"]
    has_norms = config.model_type == "qwen3"
    if has_norms:
        needed += [f"{_ATTENTION}q_norm.weight", f"{_ATTENTION}k_norm.weight"]
    optional = [f"{_ATTENTION}q_proj.bias", f"{_ATTENTION}k_proj.bias"]
    # Scales of quantised weights, norms of another family: they would change q or k.
    changing = tuple(f"{_ATTENTION}{n}" for n in ("q_", "k_", "qkv", "Wqkv"))
    strange = {n for n in files if n.startswith(changing)} - {*needed, *optional}
    missing = [n for n in needed if n not in files]
    quantised = getattr(config, "quantization_config", None)
    if config.model_type not in FAMILIES or missing or strange or quantised:
        layer = sorted(n for n in files if n.startswith(_LAYER)) or sorted(files)[:12]
        raise RunError(
            f"the first layer of {name} has a layout that is not known: model_type "
            f"{config.model_type!r}{', quantised' if quantised else ''}, tensors "
            f"{', '.join(layer) or 'none'}",
            where="score.longattn",
            remedy="use an unquantised model of Llama, Mistral, Qwen2 or Qwen3, whose tensors are "
            f"called {', '.join(needed)}",
        )
    return [*needed, *(n for n in optional if n in files)]


def _read(folder: Path, files: dict[str, str], names: list[str]) -> dict[str, "torch.Tensor"]:
    from safetensors import safe_open

    found = {}
    for file in dict.fromkeys(files[n] for n in names):
        with safe_open(folder / file, framework="pt") as weights:
            found.update({n: weights.get_tensor(n) for n in names if files[n] == file})
    return found


def _rotation(
    config: Any, device: str
) -> Callable[["torch.Tensor", "torch.Tensor"], tuple["torch.Tensor", "torch.Tensor"]]:
    """RoPE of the model's configuration at positions 0..n-1."""
    import torch
    from transformers.models.llama import modeling_llama

    # The four families have the same rotary code under different names.
    angles = modeling_llama.LlamaRotaryEmbedding(config).to(device)

    def rotate(q: "torch.Tensor", k: "torch.Tensor") -> tuple["torch.Tensor", "torch.Tensor"]:
        places = torch.arange(q.shape[2], device=q.device)[None]
        cos, sin = angles(q, places)
        turned: tuple[torch.Tensor, torch.Tensor] = modeling_llama.apply_rotary_pos_emb(
            q, k, cos, sin
        )
        return turned

    return rotate


def _rms(x: "torch.Tensor", weight: "torch.Tensor", eps: float) -> "torch.Tensor":
    """Root-mean-square norm over the last axis, in float32 as the models do it."""
    import torch

    wide = x.float()
    scaled = wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + eps)
    return weight * scaled.to(x.dtype)
