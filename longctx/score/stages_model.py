"""What every op that scores with a causal language model shares: which model, where, and how."""

import json
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

import pyarrow as pa
from pydantic import Field

from longctx.engine.op import Model, RowsFailedError, Setting
from longctx.engine.summary import Stats
from longctx.errors import RecipeError, RunError
from longctx.location import Location
from longctx.model_folders import context_length


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
    feeds_bos: ClassVar[bool] = True

    def uses_model(self) -> bool:
        """Whether this configuration reads anything with the model; else none is loaded."""
        return True

    def sizes(self, room: int, stage: str) -> Any:
        """Windows of this configuration for a model that reads `room` tokens, BOS not counted.

        Raises RunError where a field asks for more.
        """

    def room(self, model: Any) -> int:
        """Tokens that a loaded model reads at once, beside the BOS that this op feeds."""
        return int(model.limit) - int(self.feeds_bos and model.bos is not None)

    def check(self, setting: Setting) -> None:
        if not self.uses_model():
            return
        folder = Path(self.model).expanduser()
        if self.model.startswith(("/", "./", "../", "~")) and not folder.is_dir():
            raise RecipeError(
                f"there is no model folder {self.model}",
                where=f"{setting.stage}: model",
                remedy='correct the path, or name "smollm2" or a Hugging Face model',
            )

        if self.model == "smollm2":
            from longctx.score.smollm2 import packaged_folder

            folder = packaged_folder()
        # Whether it is one more for a BOS is known when the model is loaded.
        if (room := context_length(folder)) is not None:
            self.sizes(room, setting.stage)

    def load(self, setting: Setting) -> Any:
        if not self.uses_model():
            return None
        from longctx.score.causal_lm import load_causal_lm

        bound_tokenizers(self.threads)
        model = load_causal_lm(
            self.model,
            device=self.device,
            dtype=self.dtype,
            threads=self.threads,
            batch_tokens=self.batch_tokens,
            trust_remote_code=self.trust_remote_code,
        )
        self.sizes(self.room(model), setting.stage)
        return model

    def finished(self, stats: Mapping[str, Any], setting: Setting) -> None:
        scorers = stats.get("scorer") or {}
        if len(scorers) > 1:
            raise RunError(
                f"the parts of this stage were scored by different scorers: {', '.join(scorers)}",
                where=setting.stage,
                remedy="the model under this name was changed between two runs: remove the folder "
                "of the stage and run again, or give the model of the first run",
            )

    def refuse(self, field: str, needed: int, room: int, stage: str) -> None:
        """Raise RunError if a field asks for stretches of more tokens than the model reads."""
        if needed > room:
            raise RunError(
                f"`{field}` needs {needed:,} tokens at once, and {self.model} reads {room:,}",
                where=stage,
                remedy="lower it, leave it out (then it fits the model), or take a model with a "
                "longer context",
            )

    def ids(self, table: pa.Table, model: Any) -> list[Any]:
        """Ids (int32 [n]) of each row's text in the model's vocabulary, at most `max_tokens`."""
        texts = table.column("text").to_pylist()
        return [ids[: self.max_tokens] for ids in model.encode(texts)]


def bound_tokenizers(threads: int) -> None:
    """Tokenizers loaded later take so many threads, not every core in each worker."""
    os.environ["RAYON_NUM_THREADS"] = str(threads)
    os.environ["TOKENIZERS_PARALLELISM"] = "true" if threads > 1 else "false"


def answer(
    rows: Sequence[Mapping[str, Any]],
    schema: pa.Schema,
    status: str,
    errors: Mapping[int, Exception],
    scorer: Mapping[str, Any] | None,
) -> pa.Table:
    """Columns of a batch, one of `rows` for each document, with counters for the stage's record.

    `status` is the column that says why scores are null, `scorer` what the scores depend on beside
    the text (None: no model). Raises RowsFailedError where documents failed, by their place in
    `errors`.
    """
    table = pa.Table.from_pylist(list(rows), schema=schema)
    good = [row[status] for i, row in enumerate(rows) if i not in errors]
    stats: dict[str, Any] = {"status": dict(sorted(Counter(good).items()))}
    if scorer is not None:
        stats["scorer"] = {json.dumps(scorer): len(good)}
    table = Stats.attach(table, stats)
    if errors:
        raise RowsFailedError(table, errors)
    return table
