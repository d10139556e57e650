"""Training of one proxy and what it loses on held-out text, on one device.

AdamW (.9, .95, weight decay .1 on matrices), gradients clipped to norm 1, warm-up over a tenth of
the steps (100 at most), then constant or a cosine down to a tenth (RegMix, arXiv 2407.01492, has
the same with a constant rate). Everything in float32: models are small, and on a CPU the figures
are then the same bits for the same seed, whoever else computes. On a GPU they agree to rounding.

Costs 6 floating-point operations per parameter and token. A loss that is no longer a number ends
the run; it is a result, with its reason, and never a loss.
"""

import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from longctx.mixture.proxy_model import Shape, initial, logits

if TYPE_CHECKING:
    import torch

    from longctx.mixture.proxy_model import Weights

I64 = npt.NDArray[np.int64]

SCHEDULES = ("cosine", "constant")
_BETAS, _DECAY, _CLIP = (0.9, 0.95), 0.1, 1.0
_WARM_UP, _LOWEST = 100, 0.1
_LOOK_EVERY = 50
_EVALUATED = 4096


@dataclass(frozen=True)
class Training:
    """How every proxy of a table is trained: blocks of `block` tokens, `batch` of them a step."""

    block: int
    batch: int
    steps: int
    learning_rate: float
    schedule: str

    @property
    def tokens(self) -> int:
        """Tokens that a run predicts."""
        return self.steps * self.batch * self.block

    def rate(self, step: int) -> float:
        """Learning rate of a step, counted from 0."""
        warm = min(_WARM_UP, -(-self.steps // 10))
        if step < warm:
            return self.learning_rate * (step + 1) / warm
        if self.schedule == "constant":
            return self.learning_rate
        done = (step - warm) / max(1, self.steps - warm)
        return self.learning_rate * (_LOWEST + (1 - _LOWEST) * (1 + math.cos(math.pi * done)) / 2)

    def as_dict(self) -> dict[str, Any]:
        """Plain form, for fingerprints and files."""
        return asdict(self)


def train(
    shape: Shape, training: Training, batches: Iterable[I64], seed: int, device: str = "cpu"
) -> "tuple[Weights, str]":
    """Train a model on batches int64 [batch, block + 1]; its weights, and why it failed ("")."""
    import torch

    weights = initial(shape, seed, device)
    matrices = [w for w in weights.values() if w.ndim > 1]
    gains = [w for w in weights.values() if w.ndim == 1]
    optimiser = torch.optim.AdamW(
        [{"params": matrices, "weight_decay": _DECAY}, {"params": gains, "weight_decay": 0.0}],
        lr=training.learning_rate,
        betas=_BETAS,
        fused=True,
    )
    for step, rows in enumerate(batches):
        for group in optimiser.param_groups:
            group["lr"] = training.rate(step)
        loss = _nll(weights, shape, torch.from_numpy(rows).to(device)).mean()
        optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(weights.values(), _CLIP)
        optimiser.step()
        # On an accelerator every look waits for it.
        looked_at = step % _LOOK_EVERY == 0 or step == training.steps - 1
        if looked_at and not math.isfinite(loss.item()):
            return weights, f"the training loss is {loss.item()} at step {step + 1}"
    return weights, ""


def evaluate(weights: "Weights", shape: Shape, blocks: I64, device: str = "cpu") -> float:
    """Nats per token on held-out blocks int64 [n, block + 1]; NaN or infinite where it broke."""
    import torch

    at_once = max(1, _EVALUATED // (blocks.shape[1] - 1))
    total = 0.0
    with torch.no_grad():
        for first in range(0, len(blocks), at_once):
            rows = torch.from_numpy(blocks[first : first + at_once].astype(np.int64)).to(device)
            total += float(_nll(weights, shape, rows).double().sum())
    return total / (len(blocks) * (blocks.shape[1] - 1))


def _nll(weights: "Weights", shape: Shape, rows: "torch.Tensor") -> "torch.Tensor":
    """Negative log-likelihood of each token but the first, float32 [blocks · length]."""
    import torch.nn.functional as F  # noqa: N812

    found = logits(weights, shape, rows[:, :-1])
    return F.cross_entropy(
        found.reshape(-1, shape.vocabulary), rows[:, 1:].reshape(-1), reduction="none"
    )
