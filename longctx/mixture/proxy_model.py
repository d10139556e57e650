"""The language model of a proxy run: a small decoder, plain and short.

Pre-norm blocks of attention and a gated feed-forward layer (RMSNorm, arXiv 1910.07467; rotary
positions, 2104.09864; SwiGLU, 2002.05202), no biases, input and output embedding shared. Attention
is the fused one of torch and causal over the whole block; documents in a block see one another, as
in ordinary pre-training. Weights begin as N(0, .02), those that write to the residual stream
divided by sqrt(2 · layers), drawn from the seed alone.

Sizes are **total** parameters, the shared embedding counted once. RegMix (2407.01492) calls a model
of 15 M a "1M" one, after what is left without embeddings; `Shape.without_embedding` says that.
"""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from longctx.errors import RecipeError

if TYPE_CHECKING:
    import torch

    Weights = dict[str, torch.Tensor]

_ROPE_BASE = 10_000.0
_STD = 0.02


@dataclass(frozen=True)
class Shape:
    """Sizes of a decoder; `vocabulary` is the number of classes that it predicts."""

    layers: int
    width: int
    heads: int
    vocabulary: int

    def __post_init__(self) -> None:
        if self.width % self.heads or (self.width // self.heads) % 2:
            raise RecipeError(
                f"a width of {self.width} cannot be cut into {self.heads} heads of even width",
                where="--heads",
                remedy="give a width that is an even multiple of the heads, such as 128 and 4",
            )

    @property
    def inner(self) -> int:
        """Width of the feed-forward layer: 8/3 of the model's, in steps of 64."""
        return -(-8 * self.width // (3 * 64)) * 64

    @property
    def without_embedding(self) -> int:
        """Parameters of the blocks and norms."""
        block = 4 * self.width**2 + 3 * self.width * self.inner + 2 * self.width
        return self.layers * block + self.width

    @property
    def parameters(self) -> int:
        """All parameters; the embedding is input and output, and counts once."""
        return self.without_embedding + self.vocabulary * self.width


SHAPES = {
    "1m": Shape(2, 128, 4, 4096),
    "15m": Shape(6, 384, 6, 16_384),
    "60m": Shape(10, 576, 9, 32_768),
}
LEARNING_RATES = {"1m": 3e-3, "15m": 1.5e-3, "60m": 1e-3}


def initial(shape: Shape, seed: int, device: str = "cpu") -> "Weights":
    """Weights to begin with, float32; the same on every device."""
    import torch

    # Drawn on the CPU: generators of other devices give other numbers.
    generator = torch.Generator().manual_seed(seed % 2**63)
    d, inner = shape.width, shape.inner
    into = _STD / math.sqrt(2 * shape.layers)

    def drawn(rows: int, columns: int, std: float = _STD) -> "torch.Tensor":
        return torch.randn(rows, columns, generator=generator) * std

    weights = {"embedding": drawn(shape.vocabulary, d)}
    for layer in range(shape.layers):
        weights |= {
            f"{layer}.attention.norm": torch.ones(d),
            f"{layer}.attention.in": drawn(3 * d, d),
            f"{layer}.attention.out": drawn(d, d, into),
            f"{layer}.feed.norm": torch.ones(d),
            f"{layer}.feed.in": drawn(2 * inner, d),
            f"{layer}.feed.out": drawn(d, inner, into),
        }
    weights["norm"] = torch.ones(d)
    return {name: w.to(device).requires_grad_() for name, w in weights.items()}


def logits(weights: "Weights", shape: Shape, ids: "torch.Tensor") -> "torch.Tensor":
    """Logits float32 [blocks, length, classes] for classes int64 [blocks, length]."""
    import torch.nn.functional as F  # noqa: N812

    turns = _rotations(ids.shape[1], shape.width // shape.heads, ids.device)
    x = F.embedding(ids, weights["embedding"])
    for layer in range(shape.layers):
        part = {
            name.partition(".")[2]: w for name, w in weights.items() if name.startswith(f"{layer}.")
        }
        x = x + _attention(_norm(x, part["attention.norm"]), part, shape.heads, turns)
        x = x + _feed_forward(_norm(x, part["feed.norm"]), part)
    return F.linear(_norm(x, weights["norm"]), weights["embedding"])


def _norm(x: "torch.Tensor", gain: "torch.Tensor") -> "torch.Tensor":
    import torch.nn.functional as F  # noqa: N812

    return F.rms_norm(x, (x.shape[-1],), gain, 1e-6)


def _attention(x: "torch.Tensor", part: "Weights", heads: int, turns: Any) -> "torch.Tensor":
    import torch.nn.functional as F  # noqa: N812

    blocks, length, d = x.shape
    qkv = F.linear(x, part["attention.in"]).view(blocks, length, 3, heads, d // heads)
    q, k, v = qkv.permute(2, 0, 3, 1, 4)
    seen = F.scaled_dot_product_attention(_turned(q, turns), _turned(k, turns), v, is_causal=True)
    return F.linear(seen.transpose(1, 2).reshape(blocks, length, d), part["attention.out"])


def _feed_forward(x: "torch.Tensor", part: "Weights") -> "torch.Tensor":
    import torch.nn.functional as F  # noqa: N812

    gate, value = F.linear(x, part["feed.in"]).chunk(2, dim=-1)
    return F.linear(F.silu(gate) * value, part["feed.out"])


def _rotations(length: int, width: int, device: Any) -> "tuple[torch.Tensor, torch.Tensor]":
    import torch

    steps = torch.arange(0, width, 2, dtype=torch.float64) / width
    angles = torch.outer(torch.arange(length, dtype=torch.float64), _ROPE_BASE**-steps)
    return angles.cos().float().to(device), angles.sin().float().to(device)


def _turned(x: "torch.Tensor", turns: Any) -> "torch.Tensor":
    import torch

    cos, sin = turns
    a, b = x.chunk(2, dim=-1)
    return torch.cat([a * cos - b * sin, b * cos + a * sin], dim=-1)
