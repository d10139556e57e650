"""Texts of several prompts at once, token by token, with a KV cache.

Prompts stand right-aligned, padding before them under a mask; a row that is finished leaves the
batch, so the others do not carry it. Every request draws from its own generator. What remains of a
row's neighbours is float rounding: where it could have decided a token (`sampling.Choice.safe`) the
row is given up and decoded alone, so a reply is that of the request alone whatever it was batched
with, as long as logits move by less than `tolerance`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from longctx.llm.sampling import Sampling, choose

if TYPE_CHECKING:
    import torch

    from longctx.score.causal_lm import CausalLM


@dataclass
class Row:
    """One request: its prompt and parameters, and what became of it.

    `is_wanted` is asked at every token: a caller that is gone need not be answered. `text_of` gives
    the text of the ids so far, asked only where there are stop strings. `unsafe` means that the row
    was given up, see above.
    """

    prompt: Sequence[int]
    max_tokens: int
    sampling: Sampling
    seed: int
    stop: Sequence[str] = ()
    text_of: Callable[[Sequence[int]], str] = lambda ids: ""
    is_wanted: Callable[[], bool] = lambda: True
    ids: list[int] = field(default_factory=list)
    finish_reason: Literal["stop", "length"] | None = None
    unsafe: bool = False

    def __post_init__(self) -> None:
        self.rng = np.random.Generator(np.random.PCG64(self.seed))

    def again(self) -> "Row":
        """The same request from its beginning."""
        return Row(
            *(self.prompt, self.max_tokens, self.sampling, self.seed),
            *(self.stop, self.text_of, self.is_wanted),
        )

    def take(self, logits: Any, ends: frozenset[int], tolerance: float) -> bool:
        """Choose the next token from logits [V]; whether the row goes on."""
        seen = np.array([*self.prompt, *self.ids], dtype=np.int64)
        token, safe = choose(logits, self.sampling, self.rng, seen, tolerance)
        if not safe:
            self.unsafe = True
            return False
        self.ids.append(token)
        if token in ends or self._is_stopped():
            self.finish_reason = "stop"
        elif len(self.ids) >= self.max_tokens:
            self.finish_reason = "length"
        return self.finish_reason is None and self.is_wanted()

    def _is_stopped(self) -> bool:
        if not self.stop:
            return False
        text = self.text_of(self.ids)
        return any(stop in text for stop in self.stop if stop)


def decode(
    lm: "CausalLM", rows: Sequence[Row], ends: frozenset[int], tolerance: float = 0.0
) -> None:
    """Decode rows to their ends, in place. `tolerance` is 0 for a row alone."""
    import torch

    live = list(rows)
    with torch.inference_mode():
        state = _Batch(lm, live)
        logits = state.begin()
        while True:
            kept = [i for i, row in enumerate(live) if row.take(logits[i], ends, tolerance)]
            if not kept:
                return
            if len(kept) < len(live):
                state.keep(kept)
                live = [live[i] for i in kept]
            logits = state.step([row.ids[-1] for row in live])


class _Batch:
    """The KV cache of rows that are decoded together, and which of its places are padding."""

    def __init__(self, lm: "CausalLM", rows: Sequence[Row]) -> None:
        from transformers import DynamicCache

        self._lm = lm
        self._prompts = [list(row.prompt) for row in rows]
        self._cache = DynamicCache(config=lm.model.config)
        self._mask: torch.Tensor

    def begin(self) -> Any:
        """Read the prompts; logits float32 [rows, V] behind each, on the CPU."""
        import torch

        width = max(map(len, self._prompts))
        ids = torch.tensor([[0] * (width - len(p)) + p for p in self._prompts])
        mask = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in self._prompts])
        self._mask = mask.to(self._lm.device)
        places = (self._mask.cumsum(1) - 1).clamp_min(0)
        return self._read(ids.to(self._lm.device), places)

    def step(self, tokens: Sequence[int]) -> Any:
        """Read one more token of each row; logits behind it."""
        import torch

        ids = torch.tensor([[t] for t in tokens], device=self._lm.device)
        self._mask = torch.cat([self._mask, torch.ones_like(ids)], dim=1)
        return self._read(ids, self._mask.sum(1, keepdim=True) - 1)

    def _read(self, ids: "torch.Tensor", places: "torch.Tensor") -> Any:
        found = self._lm.model.base_model(
            input_ids=ids,
            # Without padding none is given: the causal kernel is exact then, and faster.
            attention_mask=None if bool(self._mask.all()) else self._mask,
            position_ids=places,
            past_key_values=self._cache,
            use_cache=True,
        )
        return self._lm.logits(found.last_hidden_state[:, -1]).cpu().numpy()

    def keep(self, rows: Sequence[int]) -> None:
        """Go on with some of the rows only."""
        import torch

        chosen = torch.tensor(rows, device=self._lm.device)
        self._cache.batch_select_indices(chosen)
        self._mask = self._mask[chosen]


def rounding(lm: "CausalLM", prompts: Sequence[Sequence[int]], steps: int = 4) -> float:
    """The largest difference of a logit between prompts read together and each alone.

    Over the prompts and `steps` tokens behind each, which are those that the model finds likeliest
    alone.
    """
    import torch

    rows = [Row(prompt, steps, Sampling(), 0) for prompt in prompts]
    alone: list[list[Any]] = []
    with torch.inference_mode():
        for row in rows:
            state = _Batch(lm, [row])
            logits = [state.begin()[0]]
            for _ in range(steps):
                row.ids.append(int(logits[-1].argmax()))
                logits.append(state.step([row.ids[-1]])[0])
            alone.append(logits)
        state = _Batch(lm, rows)
        together = [state.begin()]
        together += [state.step([row.ids[i] for row in rows]) for i in range(steps)]
    found = np.array(together).swapaxes(0, 1)
    return float(np.abs(found - np.array(alone)).max())
