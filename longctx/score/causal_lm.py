"""A causal language model that reads tokens and says how likely each was: the likelihood pass.

`CausalLM.scores` takes stretches of tokens of any length and returns, for the positions asked for,
the negative log-likelihood (natural logarithm, computed in float32) and whether the most likely
token was the right one. All scores that come from likelihoods (LongFilter, delta-PPL, LongPPL,
LongWanjuan's coherence, ProLong's pairs, GATEAU's HMG) are read from it.

Stretches are sorted by length and read in batches of at most `batch_tokens` padded tokens. Padding
stands at the right: attention is causal, so no scored position ever sees it; no mask is needed.
Logits are made for the scored positions only and in slices of rows, never for a whole stretch
(128 k tokens of a vocabulary of 150 k would be 80 GB). On a CPU a slice fits its caches, and one
pass over it gives the largest logit and its place: half the time of argmax and logsumexp. What a
batch holds changes a score by float rounding only. Where an accelerator runs out of memory the
batch is halved, down to one stretch, then the slice of rows (`halved`).
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from longctx.embed.chunked import quiet
from longctx.errors import RunError
from longctx.model_folders import check_folder, folder_digest, model_folder
from longctx.score.smollm2 import packaged_folder
from longctx.text.tokenize import Tokenizer, load_tokenizer

if TYPE_CHECKING:
    import torch

I32 = npt.NDArray[np.int32]
F32 = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]

DTYPES = ("float32", "bfloat16")
PACKAGED = "smollm2"
# Activations of more do not fit a CPU's caches; a GPU needs many tokens to be busy.
_CPU_TOKENS, _CUDA_TOKENS = 2048, 65_536
_CPU_LOGITS, _CUDA_LOGITS = 1 << 25, 1 << 28  # bytes of float32 logits at once


class Segment(NamedTuple):
    """A stretch of ids, int32 [n], and the positions lo..hi-1 of it that are scored.

    With `bos` the model's own begin token is fed before it, so position 0 can be scored too.
    """

    ids: I32
    lo: int
    hi: int
    bos: bool = True


class TokenScores(NamedTuple):
    """Negative log-likelihood in nats, float32 [hi - lo], and top-1 hits, bool [hi - lo].

    A likelihood that a model gives as something else than a number stays NaN or infinite: whoever
    asked knows which document that is, and the others of the batch are as they should be.
    """

    nll: F32
    hit: Mask


@dataclass
class CausalLM:
    """A loaded model; made by `load_causal_lm`.

    `bos` is the token fed before a stretch (None: the tokenizer has none), `limit` the most tokens
    that the model can read at once, BOS included; `digest` tells weights apart (`folder_digest`);
    `halved` how often memory ran out.
    """

    name: str
    model: Any
    tokenizer: Tokenizer
    bos: int | None
    limit: int
    batch_tokens: int
    digest: str = ""
    halved: int = field(default=0)
    _rows: int = field(default=0)

    def encode(self, texts: Sequence[str]) -> list[I32]:
        """Ids of each text in the model's own vocabulary, without BOS or EOS."""
        return self.tokenizer.encode_batch(texts)

    @property
    def device(self) -> Any:
        """The device that the model is on."""
        return next(self.model.parameters()).device

    @property
    def vocabulary(self) -> int:
        """How many tokens the model gives logits for."""
        return int(self.model.config.get_text_config().vocab_size)

    @property
    def identity(self) -> dict[str, str]:
        """What decides the scores of the same text: scores of different ones do not compare."""
        dtype = str(self.model.dtype).removeprefix("torch.")
        tokenizer = self.tokenizer.fingerprint[:16]
        return {"weights": self.digest, "dtype": dtype, "tokenizer": tokenizer}

    def scores(self, segments: Sequence[Segment]) -> list[TokenScores]:
        """Scores of the positions that each segment asks for, in the order of `segments`.

        Raises ValueError for a position without anything before it, or a segment longer than
        `limit`.
        """
        for segment in segments:
            self._check(segment)
        found: list[TokenScores | None] = [None] * len(segments)
        for batch in self._batches(segments):
            rows = self._halving(batch, segments)
            for at, scores in zip(batch, rows, strict=True):
                found[at] = scores
        return [scores for scores in found if scores is not None]

    def _check(self, segment: Segment) -> None:
        size = len(segment.ids) + self._framed(segment)
        if size > self.limit:
            raise ValueError(f"{size} tokens are more than the {self.limit} that {self.name} reads")
        first = 1 - self._framed(segment)
        if not first <= segment.lo <= segment.hi <= len(segment.ids):
            raise ValueError(f"positions {segment.lo} to {segment.hi} cannot be scored")

    def _framed(self, segment: Segment) -> int:
        return int(segment.bos and self.bos is not None)

    def _batches(self, segments: Sequence[Segment]) -> Iterator[list[int]]:
        """Places of segments, longest first, in batches of at most `batch_tokens` padded tokens."""
        lengths = np.array([len(s.ids) + self._framed(s) for s in segments], dtype=np.int64)
        order = np.argsort(-lengths, kind="stable")
        first = 0
        while first < len(order):
            size = max(1, self.batch_tokens // max(1, int(lengths[order[first]])))
            yield order[first : first + size].tolist()
            first += size

    def _halving(self, batch: list[int], segments: Sequence[Segment]) -> list[TokenScores]:
        import torch

        try:
            return self._forward([segments[i] for i in batch])
        except torch.OutOfMemoryError:
            if len(batch) == 1 and self._slice() <= 16:
                raise RunError(
                    f"{self.name} runs out of memory with {len(segments[batch[0]].ids):,} tokens",
                    where="score",
                    remedy="read less at once (the stage's context fields), use dtype bfloat16, a "
                    "smaller model, or a device with more memory",
                ) from None
        self.halved += 1
        torch.cuda.empty_cache()
        if len(batch) == 1:
            self._rows = self._slice() // 2
            return self._halving(batch, segments)
        # What did not fit will not fit next time either.
        self.batch_tokens = max(1, self.batch_tokens // 2)
        middle = len(batch) // 2
        return [*self._halving(batch[:middle], segments), *self._halving(batch[middle:], segments)]

    def _forward(self, batch: list[Segment]) -> list[TokenScores]:
        import torch

        shifted = [(s, self._framed(s)) for s in batch]
        width = max(len(s.ids) + shift for s, shift in shifted)
        ids = np.zeros((len(batch), width), dtype=np.int64)
        for row, (segment, shift) in zip(ids, shifted, strict=True):
            row[:shift] = self.bos or 0
            row[shift : shift + len(segment.ids)] = segment.ids
        rows = np.concatenate(
            [i * width + shift - 1 + np.arange(s.lo, s.hi) for i, (s, shift) in enumerate(shifted)]
        )
        with torch.inference_mode():
            hidden = self.hidden(torch.from_numpy(ids).to(self.device)).flatten(0, 1)
            found = self._read(
                hidden[torch.from_numpy(rows).to(self.device)],
                torch.from_numpy(ids.reshape(-1)[rows + 1]).to(self.device),
            )
        ends = np.cumsum([s.hi - s.lo for s in batch])[:-1]
        return [TokenScores(*one) for one in zip(*(np.split(f, ends) for f in found), strict=True)]

    def hidden(self, ids: "torch.Tensor") -> "torch.Tensor":
        """Last hidden states [b, n, d] of ids int64 [b, n], padded at the right or not at all."""
        found: torch.Tensor = self.model.base_model(
            input_ids=ids, use_cache=False
        ).last_hidden_state
        return found

    def _read(self, hidden: "torch.Tensor", targets: "torch.Tensor") -> tuple[F32, Mask]:
        """Likelihoods of `targets`, int64 [m], and hits, from the hidden states [m, d] before."""
        import torch

        nll: list[torch.Tensor] = [torch.zeros(0, device=hidden.device)]
        hit: list[torch.Tensor] = [torch.zeros(0, dtype=torch.bool, device=hidden.device)]
        step = self._slice()
        for first in range(0, len(targets), step):
            right = targets[first : first + step]
            logits = self.logits(hidden[first : first + step])
            chosen = logits.gather(1, right[:, None])[:, 0]
            largest, at = logits.max(dim=1)
            sums = logits.sub_(largest[:, None]).exp_().sum(dim=1)
            nll.append(sums.log_() + (largest - chosen))
            hit.append(at == right)
        return torch.cat(nll).cpu().numpy(), torch.cat(hit).cpu().numpy()

    def logits(self, hidden: "torch.Tensor") -> "torch.Tensor":
        """Logits float32 [m, vocabulary] of hidden states [m, d]; nothing else refers to them."""
        head: Callable[[torch.Tensor], torch.Tensor] = self.model.get_output_embeddings()
        return head(hidden).float()

    def _slice(self) -> int:
        """Rows whose logits are made at once."""
        if not self._rows:
            room = _CUDA_LOGITS if self.device.type == "cuda" else _CPU_LOGITS
            self._rows = max(16, room // (4 * self.vocabulary))
        return self._rows


def load_causal_lm(
    name: str = PACKAGED,
    *,
    device: str = "auto",
    dtype: str = "bfloat16",
    threads: int = 1,
    batch_tokens: int | None = None,
    trust_remote_code: bool = False,
    fetch: bool = True,
) -> CausalLM:
    """Model `name`: "smollm2" (packaged), a folder, or a Hugging Face name.

    `device` "auto" is CUDA if there is one; `dtype` that of weights and activations, "float32" or
    "bfloat16"; `threads` torch's threads in this process; `batch_tokens` the padded tokens read at
    once (by default what suits the device). Pickled weights are never read, and a model's own code
    runs only with `trust_remote_code`. Without `fetch` a name must be in the local cache.

    Raises RunError where the model cannot be loaded, or makes its logits in a way of its own.
    """
    import torch

    torch.set_num_threads(threads)
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    with quiet():
        folder, model = _load(name, device, dtype, trust_remote_code, fetch)
    tokenizer = load_tokenizer(str(folder))
    config = model.config.get_text_config()
    found = CausalLM(
        name,
        model,
        tokenizer,
        tokenizer.bos_id,
        int(getattr(config, "max_position_embeddings", 0) or 1 << 30),
        batch_tokens or (_CUDA_TOKENS if device.startswith("cuda") else _CPU_TOKENS),
        folder_digest(folder),
    )
    _check_head(found)
    return found


def _load(
    name: str, device: str, dtype: str, trust_remote_code: bool, fetch: bool
) -> tuple[Path, Any]:
    import torch
    from transformers import AutoModelForCausalLM

    with loading(name):
        folder = safe_folder(name, trust_remote_code, fetch)
        model = AutoModelForCausalLM.from_pretrained(
            folder,
            dtype={"float32": torch.float32, "bfloat16": torch.bfloat16}[dtype],
            use_safetensors=True,
            trust_remote_code=trust_remote_code,
            attn_implementation="sdpa",
        )
    module: Any = model
    return folder, module.to(device).eval()


@contextmanager
def loading(name: str) -> Iterator[None]:
    """Whatever loaders raise about the model `name`, as one RunError."""
    try:
        yield
    except RunError:
        raise
    except Exception as error:  # they raise OSError, ValueError, KeyError, hub errors, …
        raise RunError(
            f"cannot load the language model {name!r}: {str(error).strip().splitlines()[0]}",
            where="score",
            remedy='give the folder of a causal model in safetensors, "smollm2" (packaged), or '
            "fetch the model where there is a network",
        ) from error


def safe_folder(name: str, trust_remote_code: bool = False, fetch: bool = True) -> Path:
    """The local folder of a model, without pickled weights."""
    folder = (
        packaged_folder()
        if name == PACKAGED
        else model_folder(name, owner="", trust_remote_code=trust_remote_code, fetch=fetch)
    )
    check_folder(folder, "score", trust_remote_code=trust_remote_code)
    return folder


def _check_head(lm: CausalLM) -> None:
    """Logits from the last hidden states must be those that the model itself would give."""
    import torch

    ids = torch.arange(1, 9, device=lm.device)[None]
    with torch.inference_mode():
        own = lm.model(input_ids=ids, use_cache=False).logits[0].float()
        ours = lm.logits(lm.hidden(ids)[0])
    if not torch.allclose(own, ours, rtol=1e-3, atol=1e-3):
        raise RunError(
            f"{lm.name} changes its logits after the output layer, which is not supported",
            where="score",
            remedy="use a model without soft-capped or scaled logits (Llama, Mistral, Qwen, …)",
        )
