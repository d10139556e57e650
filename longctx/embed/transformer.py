"""A sentence-transformers model as an encoder of chunks: ids in batches of like length.

Chunks are sorted by length over all documents that are launched together, longest first, and cut
into batches of at most `batch_tokens` padded tokens: a batch holds many short chunks or few long
ones, so padding is nearly nothing and every batch is about the same work. A chunk's ids stand
between the model's own special tokens (and after its default prompt, if it has one).

On a CUDA device nothing waits for a result until it is asked for: ids are copied from pinned memory
and kernels are queued, so the caller tokenises the next documents meanwhile. Vectors depend on the
batch by float rounding.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from longctx.embed.chunked import (
    F32,
    I64,
    Chunk,
    Encoder,
    minilm_folder,
    quiet,
    untruncated,
)
from longctx.errors import RunError
from longctx.model_folders import check_folder, model_folder

if TYPE_CHECKING:
    import torch

# Documents that are cut while a device works on those before.
_CUDA_PILE = 256
# Chunks of full length at once: on a CPU the activations of more do not fit its caches (a sixth
# slower with 32), a GPU needs many to be busy.
_CPU_BATCH, _CUDA_BATCH = 8, 256


class Batch(NamedTuple):
    """Padded chunks: their places among all of them, int64[b], and what the model takes."""

    at: I64
    features: dict[str, Any]


@dataclass(frozen=True)
class Transformer:
    """A loaded `SentenceTransformer` that reads ids: `prefix` and `suffix` frame every chunk."""

    model: Any
    prefix: list[int]
    suffix: list[int]
    pad: int
    prompt_length: int | None
    batch_tokens: int

    def batches(self, chunks: list[Chunk]) -> Iterator[Batch]:
        """All chunks, longest first, as int64 tensors on the CPU."""
        import torch

        framed = len(self.prefix) + len(self.suffix)
        lengths = np.array([len(c.ids) + framed for c in chunks], dtype=np.int64)
        order = np.argsort(-lengths, kind="stable")
        first = 0
        while first < len(order):
            width = int(lengths[order[first]])
            at = order[first : first + max(1, self.batch_tokens // width)]
            ids = np.full((len(at), width), self.pad, dtype=np.int64)
            for row, i in zip(ids, at, strict=True):
                row[: lengths[i]] = [*self.prefix, *chunks[i].ids, *self.suffix]
            mask = (np.arange(width) < lengths[at][:, None]).astype(np.int64)
            features = {
                "input_ids": torch.from_numpy(ids),
                "attention_mask": torch.from_numpy(mask),
            }
            yield Batch(at, features)
            first += len(at)

    def launch(self, chunks: list[Chunk]) -> Callable[[], F32]:
        """Begin to embed chunks; the result waits for their vectors, float32 [m, dim]."""
        import torch

        found: list[tuple[I64, torch.Tensor]] = []
        with torch.inference_mode():
            for batch in self.batches(chunks):
                found.append((batch.at, self.forward(batch)))

        def wait() -> F32:
            vectors = torch.cat([v for _, v in found]).float().cpu().numpy()
            result = np.empty_like(vectors)
            result[np.concatenate([at for at, _ in found])] = vectors
            return result

        return wait

    def forward(self, batch: Batch) -> "torch.Tensor":
        """Vectors of a batch on the model's device: the model with its pooling."""
        features = self.moved(batch)
        if self.prompt_length is not None:
            features["prompt_length"] = self.prompt_length
        vectors: torch.Tensor = self.model(features)["sentence_embedding"]
        return vectors

    def moved(self, batch: Batch) -> dict[str, Any]:
        """What the model takes of a batch, on its device."""
        device = self.model.device
        if device.type != "cuda":
            return dict(batch.features)
        return {
            name: tensor.pin_memory().to(device, non_blocking=True)
            for name, tensor in batch.features.items()
        }


def load_transformer(
    name: str,
    device: str,
    dtype: str,
    threads: int,
    batch_size: int | None,
    *,
    chunk_tokens: int | None,
    max_chunks: int,
    trust_remote_code: bool = False,
    fetch: bool = True,
) -> Encoder:
    """Encoder of a sentence-transformers folder or name; RunError where it cannot be loaded."""
    with quiet():
        import torch
        from sentence_transformers import SentenceTransformer

        torch.set_num_threads(threads)
        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        try:
            folder = model_folder(
                minilm_folder() if name == "minilm" else name,
                trust_remote_code=trust_remote_code,
                fetch=fetch,
            )
            check_folder(folder, "embed", trust_remote_code=trust_remote_code)
            model = SentenceTransformer(
                str(folder),
                device=device,
                trust_remote_code=trust_remote_code,
                model_kwargs={"use_safetensors": True},
            )
            tokenizer = untruncated(model.tokenizer.backend_tokenizer)
        except RunError:
            raise
        except Exception as error:  # the loaders raise OSError, ValueError, hub errors, …
            raise RunError(
                f"cannot load the encoder {name!r}: {str(error).strip().splitlines()[0]}",
                where="embed",
                remedy='give a sentence-transformers or model2vec folder, "minilm" or "static" '
                "(both offline), or fetch the model where there is a network",
            ) from error
    model.eval()
    if dtype == "bfloat16":
        model[0].to(torch.bfloat16)
        model[0].register_forward_hook(_pool_in_float32)
    on_cuda = device.startswith("cuda")
    prefix, suffix = _frame(tokenizer)
    prompt = (model.prompts or {}).get(model.default_prompt_name or "", "")
    asked = tokenizer.encode(prompt, add_special_tokens=False).ids if prompt else []
    longest = (model.max_seq_length or 512) - len(prefix) - len(asked) - len(suffix)
    size = min(chunk_tokens or 512, longest)
    reader = Transformer(
        model,
        [*prefix, *asked],
        suffix,
        model.tokenizer.pad_token_id or 0,
        len(prefix) + len(asked) if asked else None,
        (batch_size or (_CUDA_BATCH if on_cuda else _CPU_BATCH)) * size,
    )
    return Encoder(
        name,
        int(model.get_embedding_dimension() or 0),
        reader,
        tokenizer,
        model.tokenizer.unk_token_id,
        size,
        max_chunks,
        pile=_CUDA_PILE if on_cuda else None,
    )


def _frame(tokenizer: Any) -> tuple[list[int], list[int]]:
    """The special ids that a tokenizer puts before and after a text."""
    bare = tokenizer.encode("a", add_special_tokens=False).ids
    framed = tokenizer.encode("a", add_special_tokens=True).ids
    start = next(i for i in range(len(framed)) if framed[i : i + len(bare)] == bare)
    return framed[:start], framed[start + len(bare) :]


def _pool_in_float32(_module: Any, _inputs: Any, features: dict[str, Any]) -> dict[str, Any]:
    """Forward hook: lift bf16 outputs, because a bf16 mean over 256 tokens costs 0.002 cosine."""
    for key, value in features.items():
        if hasattr(value, "is_floating_point") and value.is_floating_point():
            features[key] = value.float()
    return features
