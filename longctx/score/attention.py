"""The all-layer attention pass: what chosen queries attend to, in each layer of a normal forward.

The model runs with its fast attention. transformers asks a registry for the attention function by
name; ours hands on to `sdpa` and, while somebody collects, first computes the weights of the chosen
rows from the queries and keys (after RoPE) that pass through it: softmax in float32 over the keys
that the row may see, summed over heads, over rows and over groups of keys. So neither heads x L x L
weights nor heads x L x L logits ever exist; at most `ROWS` rows of them do.

    with collecting(lm, queries) as found:
        lm.hidden(ids)              # or lm.scores(...): likelihoods of the same pass
    weights = found.sums()          # per query float64 [layers, batch, groups]

Costs 2·rows·keys·d operations a head and layer beside the forward. Sliding windows of a layer are
kept. Lost: nothing; weights are those of eager attention up to rounding.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from longctx.errors import RunError
from longctx.score.causal_lm import CausalLM
from longctx.score.longattn import block_rows

if TYPE_CHECKING:
    import torch

F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]

IMPLEMENTATION = "longctx"
# Rows of weights held at once, over heads that share keys and over the batch.
ROWS, _LEAST_ROWS = 256, 16


class Query(NamedTuple):
    """Rows start..end-1, and the groups of keys whose weights are wanted.

    Group g holds the keys borders[g]..borders[g+1]-1; `borders` int64 [groups + 1] rises strictly
    and ends where the last visible key does, or before. Each row sees the keys up to itself, or,
    without `own`, those before `start` only: the softmax is then over these.
    """

    start: int
    end: int
    borders: I64
    own: bool = True

    @property
    def keys(self) -> int:
        """How many keys any of the rows sees."""
        return self.end if self.own else self.start


@dataclass
class Collected:
    """What passes through the layers while it is open; made by `collecting`."""

    name: str
    layers: int
    queries: Sequence[Query]
    rows: int = ROWS
    halved: int = 0
    found: dict[int, list[F64]] = field(default_factory=dict)

    def sums(self) -> list[F64]:
        """For each query float64 [layers, batch, groups]: weights summed over rows and the keys of
        a group, mean over heads. All keys together give the number of rows; weights that are no
        numbers give sums that are none.

        Raises RunError where the model's attention did not pass by.
        """
        if sorted(self.found) != list(range(self.layers)):
            raise RunError(
                f"the attention of {self.name} cannot be read: {len(self.found)} of {self.layers} "
                "layers used the attention function that was set",
                where="score",
                remedy="use a model whose code is part of transformers (Llama, Mistral, Qwen, …)",
            )
        in_order = [self.found[layer] for layer in range(self.layers)]
        return [np.stack(layers) for layers in zip(*in_order, strict=True)]

    def read(
        self,
        layer: int,
        q: "torch.Tensor",
        k: "torch.Tensor",
        scale: float,
        span: int | None,
    ) -> None:
        """Note the weights of one layer: q [b, heads, n, d], k [b, key heads, n, d] after RoPE."""
        import torch

        keys = k.float()
        while True:
            try:
                least = q.shape[0] * q.shape[1] // k.shape[1]
                most_keys = max(query.keys for query in self.queries)
                held = keys.new_empty(max(self.rows, least) * most_keys)
                self.found[layer] = [
                    _grouped(
                        key_weights(q, keys, query, scale, span, self.rows, held), query.borders
                    )
                    for query in self.queries
                ]
                return
            except torch.OutOfMemoryError:
                if self.rows <= _LEAST_ROWS:
                    raise
            self.halved += 1
            self.rows //= 2
            torch.cuda.empty_cache()


def key_weights(
    q: "torch.Tensor",
    k: "torch.Tensor",
    query: Query,
    scale: float,
    span: int | None = None,
    rows: int = ROWS,
    held: "torch.Tensor | None" = None,
) -> "torch.Tensor":
    """Weights of each key float64 [b, query.keys]: summed over the rows, mean over the heads.

    `q` [b, heads, n, d] of any dtype, `k` [b, key heads, n, d] float32 or float64; consecutive
    heads share a key head. `span` is how many keys, itself included, a row sees at most. `held` is
    memory for the weights, at least rows·keys elements of k's type; it is overwritten.
    """
    import torch

    batch, heads, _, width = q.shape
    shared = heads // k.shape[1]
    step = block_rows(rows, shared * batch)
    total = torch.zeros(batch, query.keys, dtype=torch.float64, device=q.device)
    most = batch * shared * min(step, query.end - query.start)
    if held is None:
        held = torch.empty(most * query.keys, dtype=k.dtype, device=k.device)
    ones = torch.ones(batch, 1, most // batch, dtype=k.dtype, device=k.device)
    for first in range(query.start, query.end, step):
        last = min(first + step, query.end)
        seen = last if query.own else query.start
        hidden = _hidden(first, last, seen, span, q.device)
        for head in range(k.shape[1]):
            queries = q[:, head * shared : (head + 1) * shared, first:last].to(k.dtype) * scale
            flat = queries.reshape(batch, -1, width)
            block = held[: batch * flat.shape[1] * seen].view(batch, flat.shape[1], seen)
            torch.bmm(flat, k[:, head, :seen].transpose(1, 2), out=block)
            if hidden is not None:
                block.view(batch, shared, last - first, seen).masked_fill_(hidden, -torch.inf)
            torch.softmax(block, dim=2, out=block)
            # A product with ones reads the block along its rows, which a sum over them does not.
            total[:, :seen] += torch.bmm(ones[:, :, : flat.shape[1]], block)[:, 0].double()
    return total / heads


def _hidden(
    first: int, last: int, seen: int, span: int | None, device: Any
) -> "torch.Tensor | None":
    """Which keys [rows, seen] the rows first..last-1 may not see; None if they see all."""
    import torch

    if seen <= first + 1 and (span is None or last <= span):
        return None
    back = torch.arange(first, last, device=device)[:, None] - torch.arange(seen, device=device)
    return (back < 0) | (back >= (span or last))


def _grouped(weights: "torch.Tensor", borders: I64) -> F64:
    """Weights [b, keys] summed over groups: float64 [b, groups]."""
    of_keys = weights.cpu().numpy()[:, : borders[-1]]
    return np.asarray(np.add.reduceat(of_keys, borders[:-1], axis=1), np.float64)


_COLLECTED: ContextVar[Collected | None] = ContextVar("collected", default=None)


@contextmanager
def collecting(lm: CausalLM, queries: Sequence[Query]) -> Iterator[Collected]:
    """While open, every forward of `lm` notes the weights of `queries`; the last one stays."""
    _use(lm)
    config = lm.model.config.get_text_config()
    found = Collected(lm.name, int(config.num_hidden_layers), queries)
    token = _COLLECTED.set(found)
    try:
        yield found
    finally:
        _COLLECTED.reset(token)


def _use(lm: CausalLM) -> None:
    """Let a model ask for our attention function; it masks as `sdpa` does."""
    if lm.model.config._attn_implementation == IMPLEMENTATION:
        return
    from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    ALL_ATTENTION_FUNCTIONS.register(IMPLEMENTATION, _attend)
    ALL_MASK_ATTENTION_FUNCTIONS.register(IMPLEMENTATION, ALL_MASK_ATTENTION_FUNCTIONS["sdpa"])
    lm.model.set_attn_implementation(IMPLEMENTATION)


def _attend(
    module: Any,
    query: "torch.Tensor",
    key: "torch.Tensor",
    value: "torch.Tensor",
    attention_mask: "torch.Tensor | None",
    **settings: Any,
) -> Any:
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    if (found := _COLLECTED.get()) is not None:
        scale = settings.get("scaling") or module.scaling
        found.read(module.layer_idx, query, key, scale, settings.get("sliding_window"))
    return ALL_ATTENTION_FUNCTIONS["sdpa"](module, query, key, value, attention_mask, **settings)
