"""What every op that scores with a causal language model shares: which model, where, and how."""

import os
from pathlib import Path
from typing import Any, ClassVar, Literal

import pyarrow as pa
from pydantic import Field

from longctx.engine.op import Model, Setting
from longctx.errors import RecipeError
from longctx.location import Location


class ScoringModel(Model):
    """Base of the ops with a language model.

    `model` is "smollm2" (packaged; to try things with), the folder of a causal model in
    safetensors, or a Hugging Face name. `max_tokens` reads only so many tokens of a document, from
    its beginning; by default all. `batch_tokens` is how many padded tokens are read at once; it
    changes scores by float rounding only. Python code that comes with a model runs only with
    `trust_remote_code`: read that code first.
    """

    model: Location = "smollm2"
    dtype: Literal["float32", "bfloat16"] = "bfloat16"
    device: str = "auto"
    batch_tokens: int | None = Field(None, ge=1)
    max_tokens: int | None = Field(None, ge=2)
    trust_remote_code: bool = False

    reads: ClassVar[tuple[str, ...]] = ("text",)
    neutral: ClassVar[frozenset[str]] = frozenset({"num_gpus", "workers", "threads", "device"})

    def check(self, setting: Setting) -> None:
        if (
            self.model.startswith(("/", "./", "../", "~"))
            and not Path(self.model).expanduser().is_dir()
        ):
            raise RecipeError(
                f"there is no model folder {self.model}",
                where=f"{setting.stage}: model",
                remedy='correct the path, or name "smollm2" or a Hugging Face model',
            )

    def prepare(self, setting: Setting) -> None:
        from longctx.score.smollm2 import packaged_folder

        if self.model == "smollm2":
            packaged_folder()

    def load(self, setting: Setting) -> Any:
        from longctx.score.causal_lm import load_causal_lm

        # Tokenizers would take every core of the machine in each worker.
        os.environ["RAYON_NUM_THREADS"] = str(self.threads)
        os.environ["TOKENIZERS_PARALLELISM"] = "true" if self.threads > 1 else "false"
        return load_causal_lm(
            self.model,
            device=self.device,
            dtype=self.dtype,
            threads=self.threads,
            batch_tokens=self.batch_tokens,
            trust_remote_code=self.trust_remote_code,
        )

    def ids(self, table: pa.Table, model: Any) -> list[Any]:
        """Ids (int32 [n]) of each row's text in the model's vocabulary, at most `max_tokens`."""
        texts = table.column("text").to_pylist()
        return [ids[: self.max_tokens] for ids in model.encode(texts)]
