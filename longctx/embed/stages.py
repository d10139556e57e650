"""`embed` on the engine: an actor pool in which each worker loads the encoder once."""

from typing import Any, ClassVar, Literal

import pyarrow as pa
from pydantic import Field

from longctx.engine.op import Model, Setting
from longctx.location import Location
from longctx.schema import embedding_type


class Embed(Model):
    """Writes one unit vector per document.

    `model` is "static" (packaged, thousands of documents per second on a CPU), "minilm" (packaged,
    slower and better), a folder, or a Hugging Face name. Long documents are pooled over at most
    `max_chunks` evenly spaced chunks; `emb_cover` is the share of the text that the vector saw.
    """

    op: Literal["embed"]
    model: Location = "static"
    dtype: Literal["float32", "bfloat16"] = "float32"
    device: str = "auto"
    batch_size: int = Field(32, ge=1)
    max_chunks: int = Field(8, ge=1)
    chunk_tokens: int | None = Field(None, ge=8)

    summary: ClassVar[str] = "one unit vector per document (sentence-transformers or static)"
    source: ClassVar[str] = "Sentence-BERT 1908.10084; model2vec distillation for `static`"
    cost: ClassVar[str] = (
        "static: about 10 MB/s per core; minilm: 11 chunks of 256 tokens/s per core"
    )
    reads: ClassVar[tuple[str, ...]] = ("text",)
    rate_mb_s: ClassVar[float] = 10.0
    writes: ClassVar[tuple[str, ...]] = ("embedding", "emb_cover")
    neutral: ClassVar[frozenset[str]] = frozenset({"num_gpus", "workers", "threads", "device"})

    def prepare(self, setting: Setting) -> None:
        from longctx.embed.encoders import static_folder

        if self.model == "static":
            static_folder()

    def load(self, setting: Setting) -> Any:
        from longctx.embed.encoders import load_encoder

        return load_encoder(
            self.model,
            device=self.device,
            dtype=self.dtype,
            threads=self.threads,
            batch_size=self.batch_size,
            chunk_tokens=self.chunk_tokens,
            max_chunks=self.max_chunks,
        )

    def batch(self, table: pa.Table, setting: Setting, model: Any) -> pa.Table:
        found, cover = model.encode(table.column("text").to_pylist())
        values = pa.array(found.reshape(-1), pa.float32())
        return pa.table(
            {
                "embedding": pa.FixedSizeListArray.from_arrays(
                    values, type=embedding_type(model.dim)
                ),
                "emb_cover": pa.array(cover, pa.float32()),
            }
        )
