"""vLLM without vLLM: an engine by rule, in Ray's own processor or without Ray at all.

The engine behaves as that of ray 2.60 does towards rows: it takes `sampling_params` and the prompt
out of them, overwrites `request_id`, adds all columns that the real one adds, and keeps failed rows
among the others. `Table` is as much of a dataset as is used here, in this process.
"""

from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from longctx.llm.stages_vllm import Prepare, kept
from longctx.llm.types import Message
from longctx.llm.vllm_rows import FAILED

Row = dict[str, Any]
# A row that the engine reads -> text and number of its tokens. Raises what the engine would.
Rule = Callable[[Row], tuple[str, int]]


def engine_output(row: Row, rule: Rule) -> Row:
    """The columns that the engine stage adds to a row, which loses what the stage takes out."""
    ids = row.pop("tokenized_prompt")
    row.pop("prompt", None)
    sampling = row.pop("sampling_params")
    blank = {"embeddings": None, "metrics": None, "logprobs": None, "prompt_logprobs": None}
    output = {"prompt": "", "batch_uuid": "b" * 32, "params": str(sampling), **blank}
    try:
        text, tokens = rule({**row, "ids": list(ids), "sampling": sampling})
    except Exception as error:  # as the stage does with should_continue_on_error
        said = f"{type(error).__name__}: {error}"
        counts = {"num_input_tokens": 0, "num_generated_tokens": 0, "time_taken_llm": -1.0}
        tokens_of: Row = {"prompt_token_ids": None, "generated_tokens": [], "generated_text": ""}
        return {**output, **counts, **tokens_of, "params": "", "request_id": -1, FAILED: said}
    return {
        **output,
        "prompt_token_ids": list(ids),
        "generated_tokens": [1] * tokens,
        "generated_text": text,
        "num_input_tokens": len(ids),
        "num_generated_tokens": tokens,
        "time_taken_llm": 0.25,
        "request_id": 0,
        FAILED: "",
    }


def real_processor(rule: Rule, prepare: Prepare, batch_size: int) -> Any:
    """Ray's own processor and wrapping of stages, around an engine by rule in an actor."""
    import ray.data
    from ray.data.llm import vLLMEngineProcessorConfig
    from ray.llm._internal.batch.processor.base import Processor
    from ray.llm._internal.batch.stages.base import StatefulStage, StatefulStageUDF

    class Engine(StatefulStageUDF):
        async def udf(self, batch: list[Row]) -> AsyncIterator[Row]:  # type: ignore[override]
            # As they are answered, not as they came.
            for row in reversed(batch):
                place = {self.IDX_IN_BATCH_COLUMN: row[self.IDX_IN_BATCH_COLUMN]}
                yield engine_output(row, rule) | place

    class EngineStage(StatefulStage):
        fn: Any = Engine

        def get_required_input_keys(self) -> dict[str, str]:
            return {"sampling_params": "as the real stage"}

    config = vLLMEngineProcessorConfig(
        model_source="none", batch_size=batch_size, should_continue_on_error=True
    )
    compute = ray.data.ActorPoolStrategy(min_size=1, max_size=1)
    stage = EngineStage(map_batches_kwargs={"zero_copy_batch": True, "compute": compute})
    return Processor(config, [stage], preprocess=prepare, postprocess=kept)


@dataclass
class Table:
    """A dataset whose rows lie here."""

    table: pa.Table

    def map_batches(self, work: Any, batch_size: int | None = None, **_: Any) -> "Table":
        size = batch_size or max(1, self.table.num_rows)
        starts = range(0, self.table.num_rows, size)
        made = [work(self.table.slice(at, size)) for at in starts] or [work(self.table)]
        return Table(pa.concat_tables(made))

    def materialize(self) -> "Table":
        return self

    def select_columns(self, names: Sequence[str]) -> "Table":
        return Table(self.table.select(names))

    def iter_batches(self, **_: Any) -> Iterator[pa.Table]:
        yield self.table

    def iter_rows(self) -> Iterator[Row]:
        yield from self.table.to_pylist()

    def union(self, other: "Table") -> "Table":
        return Table(pa.concat_tables([self.table, other.table]))


def processor_here(rule: Rule, prepare: Prepare) -> Callable[[Table], Table]:
    """A processor over `Table`s: each row prepared, answered unless it failed, and tidied up."""

    def one(row: Row) -> Row:
        data = row | prepare(row)
        if data[FAILED]:
            return data
        data |= engine_output(data, rule)
        return data if data[FAILED] else {**kept(data), FAILED: ""}

    def process(data: Table) -> Table:
        rows = [one(row) for row in data.iter_rows()]
        names = sorted({name for row in rows for name in row})
        # As Ray merges rows that differ: what a row lacks is None.
        plain = [{n: row.get(n) for n in names if n != "sampling_params"} for row in rows]
        return Table(pa.Table.from_pylist(plain))

    return process


class Letters:
    """A chat whose tokens are characters."""

    def encode(self, messages: Sequence[Message]) -> list[int]:
        """Code points of all that was said."""
        return [ord(c) for m in messages for c in m["content"]]
