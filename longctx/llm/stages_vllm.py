"""One execution of vLLM over a dataset of requests, with `ray.data.llm` (ray 2.60).

`generate_dataset` leaves out what the cache knows, sends the rest through the engines, stores what
came, and unites both. An engine that dies takes its actor along and Ray starts it again; a request
that fails is a row with its error (`should_continue_on_error`), because one over-long prompt would
else end a run of millions. `concurrency` is a pair: a number alone would let Ray start with one
engine. Prefix caching is on: prompts of a stage begin with the same documents.

The chat template is applied here, row by row, and not by the processor's own stages. Theirs fail
the whole dataset for one conversation that a template refuses, and put a begin token before prompts
whose template has written one; and only ids say before the engine whether a prompt fits.

All that is asked lies in Ray's object store once, as text, until the execution ends. This was tried
with a fake engine between the real stages only, never on a GPU.
"""

import importlib.metadata
import json
import logging
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from longctx.errors import RunError
from longctx.llm.cache import Cache, Entry, entry_of, is_storable
from longctx.llm.cache_shards import ShardCache, listed
from longctx.llm.chat import Chat, TemplateError, load_chat
from longctx.llm.shard_index import ShardIndex
from longctx.llm.spec import CacheKind, cache_of
from longctx.llm.structured import is_sentinel
from longctx.llm.types import GenError, GenResult, Usage
from longctx.llm.vllm import VLLMBackend, VLLMSettings
from longctx.llm.vllm_rows import (
    ANSWERS,
    ASKED,
    FAILED,
    KEPT,
    engine_row,
    failure,
    normalised,
)

if TYPE_CHECKING:
    import ray
    from ray.data import Dataset

Processor = Callable[["Dataset"], "Dataset"]
log = logging.getLogger(__name__)


def engine_config(settings: VLLMSettings, folder: Path) -> Any:
    """The settings as `ray.data.llm` takes them, checked by it."""
    from ray.data.llm import vLLMEngineProcessorConfig

    named = {
        "max_num_seqs": settings.max_num_seqs,
        "quantization": settings.quantization,
        "kv_cache_dtype": settings.kv_cache_dtype,
    }
    engine = {
        "max_model_len": settings.max_context,
        "dtype": settings.dtype,
        "tensor_parallel_size": settings.tensor_parallel,
        "pipeline_parallel_size": settings.pipeline_parallel,
        "gpu_memory_utilization": settings.gpu_memory_utilization,
        "enable_prefix_caching": True,
        **{name: value for name, value in named.items() if value is not None},
    }
    return vLLMEngineProcessorConfig(
        model_source=str(folder),
        engine_kwargs=engine,
        concurrency=(settings.engines, settings.engines),
        batch_size=settings.batch_size,
        accelerator_type=settings.accelerator_type,
        should_continue_on_error=True,
        chat_template_stage=False,
        tokenize_stage=False,
        # The engine writes text itself, and needs it for stop strings.
        detokenize_stage=False,
    )


def processor_of(settings: VLLMSettings, folder: Path) -> Processor:
    """The processor of `ray.data.llm` from rows of `ASKED` to rows of `KEPT`, or failed ones."""
    from ray.data.llm import build_processor

    built: Processor = build_processor(
        engine_config(settings, folder),
        preprocess=Prepare(str(folder), settings.max_context),
        postprocess=kept,
    )
    return built


@dataclass(frozen=True)
class Prepare:
    """Makes of a row of `ASKED` what the engine reads; what it cannot take passes by it."""

    folder: str
    max_context: int

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        try:
            ids = _chat(self.folder).encode(json.loads(row["messages"]))
        except TemplateError as error:
            said = f"the chat template refuses this: {error}"
            return engine_row(row, [], failure("bad_request", said))
        if not ids or row["max_tokens"] < 1:
            said = "an empty prompt, or no token to be written"
            return engine_row(row, ids, failure("bad_request", said))
        if len(ids) + row["max_tokens"] > self.max_context:
            said = (
                f"{len(ids)} tokens of the prompt and {row['max_tokens']} of the completion are "
                f"more than the {self.max_context} of max_context"
            )
            return engine_row(row, [], failure("context_overflow", said))
        return engine_row(row, ids)


def kept(row: dict[str, Any]) -> dict[str, Any]:
    """What is kept of a good row."""
    return {name: row.get(name) for name in KEPT}


@lru_cache(maxsize=2)
def _chat(folder: str) -> Chat:
    chat = load_chat(Path(folder), None)
    return chat if chat.templated else replace(chat, bos=chat.tokenizer.bos_token_id)


def generate_dataset(
    requests: "Dataset",
    settings: VLLMSettings,
    cache: tuple[CacheKind, str],
    *,
    processor: Processor | None = None,
) -> "Dataset":
    """Answers to requests: rows of `ASKED` with distinct keys in, one row of `ANSWERS` for each.

    What the cache has is not asked again; what can be stored is in it before its row goes on. The
    dataset is lazy but for the look into the cache: read it once, each reading starts the engines.
    Without requests that the cache lacks no engine is started. Raises ValueError for a key that is
    there twice, LLMJobError where the model or the cache cannot be had.
    """
    backend = VLLMBackend(settings)
    store = _Store(*cache, _shared_index(*cache), backend.model_id)
    looked = requests.map_batches(
        _Look(store), batch_size=settings.batch_size, batch_format="pyarrow"
    ).materialize()
    known, missing = _census(looked)
    found = looked.map_batches(_found, batch_format="pyarrow")
    log.info("%d requests are in the cache, %d go to vLLM", known, missing)
    if not missing:
        return found
    process = processor or processor_of(settings, backend.folder)
    answers = process(looked.map_batches(_asked, batch_format="pyarrow")).map_batches(
        _Keep(store, settings.max_context), batch_format="pyarrow"
    )
    return answers.union(found) if known else answers


def _census(looked: "Dataset") -> tuple[int, int]:
    """How many requests the cache has and lacks. Raises ValueError for keys that are there twice.

    16 bytes a request on the driver.
    """
    known, prefixes = 0, [np.empty(0, "S16")]
    batch: pa.Table
    columns = looked.select_columns(["key", "stored"])
    batches: Iterable[Any] = columns.iter_batches(batch_size=None, batch_format="pyarrow")
    for batch in batches:
        known += sum(batch.column("stored").to_pylist())
        keys = batch.column("key").to_pylist()
        prefixes.append(np.array([bytes.fromhex(k[:32]) for k in keys], "S16"))
    every = np.concatenate(prefixes)
    if len(np.unique(every)) < len(every):
        raise ValueError("requests of a dataset have distinct keys: send equal ones once")
    return known, len(every) - known


def _shared_index(kind: CacheKind, url: str) -> "ray.ObjectRef[ShardIndex] | None":
    """The listing of a shard cache, made once and shared by all workers."""
    import ray

    return ray.put(listed(url)) if kind == "shards" else None


@dataclass(frozen=True)
class _Store:
    """The cache as workers open it."""

    kind: CacheKind
    url: str
    index: Any
    model_id: str

    def open(self) -> Cache:
        import ray

        if self.index is None:
            return cache_of(self.kind, self.url)
        return ShardCache(self.url, index=ray.get(self.index))


@dataclass(frozen=True)
class _Look:
    """Adds to rows of `ASKED` what the cache says of them."""

    store: _Store

    def __call__(self, asked: pa.Table) -> pa.Table:
        cache = self.store.open()
        try:
            stored = cache.get(asked.column("key").to_pylist())
        finally:
            cache.close()
        rows = [_row_of(row, stored.get(row["key"])) for row in asked.to_pylist()]
        beside = [f for f in ANSWERS if f.name not in asked.column_names]
        return pa.Table.from_pylist(rows, pa.schema([*ASKED, *beside]))


def _row_of(asked: dict[str, Any], entry: Entry | None) -> dict[str, Any]:
    if entry is None:
        return asked | {"stored": False, "from_cache": False}
    return {
        **asked,
        "text": entry.text,
        "finish_reason": entry.finish_reason,
        "prompt_tokens": entry.prompt_tokens,
        "completion_tokens": entry.completion_tokens,
        "latency_s": 0.0,
        "from_cache": True,
        "stored": True,
    }


def _found(looked: pa.Table) -> pa.Table:
    """The rows that the cache has, as `ANSWERS`."""
    return looked.filter(looked.column("stored")).select(ANSWERS.names)


def _asked(looked: pa.Table) -> pa.Table:
    """The rows that it lacks, as `ASKED`."""
    lacking = pa.array([not known for known in looked.column("stored").to_pylist()], pa.bool_())
    return looked.filter(lacking).select(ASKED.names)


@dataclass(frozen=True)
class _Keep:
    """Makes rows of `ANSWERS` of what came out of the processor, stored where it can be."""

    store: _Store
    max_context: int

    def __call__(self, came: pa.Table) -> pa.Table:
        names = [n for n in (*KEPT, FAILED) if n in came.column_names]
        rows = [normalised(row, self.max_context) for row in came.select(names).to_pylist()]
        entries = {row["key"]: e for row in rows if (e := self._entry(row)) is not None}
        cache = self.store.open()
        try:
            counting = cache.put(list(entries.values()))
        finally:
            cache.close()
        for row in rows:
            if row["key"] in entries:
                row["stored"] = True
                # Another run on the same cache may have been quicker.
                row["text"] = counting.get(row["key"], entries[row["key"]]).text
        return pa.Table.from_pylist(rows, ANSWERS)

    def _entry(self, row: dict[str, Any]) -> Entry | None:
        """What is stored of a row, by the rule of all backends; None for nothing."""
        error = None if row["error_code"] is None else GenError(row["error_code"])
        result = GenResult(
            request_id="",
            key=row["key"],
            text=row["text"],
            finish_reason=row["finish_reason"],
            usage=Usage(row["prompt_tokens"], row["completion_tokens"]),
            error=error,
        )
        if not is_storable(result, False, row["may_be_cut"]) or is_sentinel(row["text"]):
            return None
        return entry_of(result, row["logical"], self.store.model_id, time.time())


def failed_execution(error: Exception, where: str) -> RunError:
    """What a run ends with where the engines could not be run at all."""
    cause = getattr(error, "cause", None) or error
    head = (str(cause).strip().splitlines() or [""])[-1]
    version = importlib.metadata.version("ray")
    return RunError(
        f"vLLM inside Ray came to no end: {type(cause).__name__}: {head[:300]} (ray {version})",
        where=where,
        remedy="see the logs of the vLLM actors; most often the model does not fit the GPUs "
        "(tensor_parallel, max_context, gpu_memory_utilization) or no node has as many as an "
        "engine takes; what was answered is in the cache",
    )
