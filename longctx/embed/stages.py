"""`embed` on the engine: an actor pool in which each worker loads the encoder once."""

import os
from pathlib import Path
from typing import Any, ClassVar, Literal

import pyarrow as pa
from pydantic import Field

from longctx.engine.op import Model, Setting
from longctx.errors import RecipeError
from longctx.location import Location
from longctx.schema import embedding_type
from longctx.text.language import base_language

_PACKAGED = ("static", "minilm")


class Embed(Model):
    """Writes one unit vector per document.

    `model` is "static" (packaged, thousands of documents per second on a CPU), "minilm" (packaged,
    slower and better), a folder, or a Hugging Face name. Long documents are pooled over at most
    `max_chunks` evenly spaced chunks; `emb_cover` is the share of the text that the vector saw.
    Documents whose `language` is known and not among `languages` get no vector (cover 0): the
    packaged models know English and code only, and would call all other texts alike. `languages`
    defaults to those for packaged models and to all for others.

    `batch_size` is how many chunks of full length a transformer reads at once (by default few on a
    CPU, whose caches they must fit, and many on a GPU). There give every GPU several workers
    (`num_gpus: 0.25`): one tokenises while another computes.

    Weights are read from safetensors only. Python code that comes with a model runs only with
    `trust_remote_code`: read that code first.
    """

    op: Literal["embed"]
    model: Location = "static"
    dtype: Literal["float32", "bfloat16"] = "float32"
    device: str = "auto"
    batch_size: int | None = Field(None, ge=1)
    max_chunks: int = Field(8, ge=1)
    chunk_tokens: int | None = Field(None, ge=8)
    languages: list[str] | None = None
    trust_remote_code: bool = False

    summary: ClassVar[str] = "one unit vector per document"
    source: ClassVar[str] = "Sentence-BERT 1908.10084; model2vec distillation for `static`"
    cost: ClassVar[str] = (
        "static: about 10 MB/s per core; minilm: 11 chunks of 256 tokens/s per core"
    )
    # 2: transformers read the ids that chunks were cut by, not the chunks' text tokenised again.
    code_version: ClassVar[int] = 2
    reads: ClassVar[tuple[str, ...]] = ("text", "language")
    writes: ClassVar[tuple[str, ...]] = ("embedding", "emb_cover")
    neutral: ClassVar[frozenset[str]] = frozenset({"num_gpus", "workers", "threads", "device"})

    def check(self, setting: Setting) -> None:
        if self.model.startswith(("/", "./", "../")) and not Path(self.model).is_dir():
            raise RecipeError(
                f"there is no encoder folder {self.model}",
                where=f"{setting.stage}: model",
                remedy='correct the path, or name "static", "minilm" or a Hugging Face model',
            )

    def prepare(self, setting: Setting) -> None:
        from longctx.embed.encoders import static_folder

        if self.model == "static":
            static_folder()

    def load(self, setting: Setting) -> Any:
        from longctx.embed.encoders import load_encoder

        # Tokenizers would take every core of the machine in each worker.
        os.environ["RAYON_NUM_THREADS"] = str(self.threads)
        os.environ["TOKENIZERS_PARALLELISM"] = "true" if self.threads > 1 else "false"
        return load_encoder(
            self.model,
            device=self.device,
            dtype=self.dtype,
            threads=self.threads,
            batch_size=self.batch_size,
            chunk_tokens=self.chunk_tokens,
            max_chunks=self.max_chunks,
            trust_remote_code=self.trust_remote_code,
        )

    def batch(self, table: pa.Table, setting: Setting, model: Any) -> pa.Table:
        known = self.knows(table.column("language").to_pylist())
        texts = [text if use else "" for text, use in zip(_texts(table), known, strict=True)]
        found, cover = model.encode(texts)
        values = pa.array(found.reshape(-1), pa.float32())
        return pa.table(
            {
                "embedding": pa.FixedSizeListArray.from_arrays(
                    values, type=embedding_type(model.dim)
                ),
                "emb_cover": pa.array(cover, pa.float32()),
            }
        )

    def knows(self, languages: list[str | None]) -> list[bool]:
        """Whether the model knows each language; one that is not given counts as known."""
        known = self.languages
        if known is None and self.model in _PACKAGED:
            known = ["en", "code"]
        if known is None:
            return [True] * len(languages)
        return [name is None or base_language(name) in known for name in languages]


def _texts(table: pa.Table) -> list[str]:
    texts: list[str] = table.column("text").to_pylist()
    return texts
