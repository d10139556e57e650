"""vLLM inside Ray, as the client of a process sees it: answers that a batch has brought, or none.

Engines take minutes to start, so no unit may start one. A unit's client (`BatchedClient`) answers
from the cache and from what the batches of its step have left; a call that lacks an answer ends
the unit there with all requests of the call (`OpenRequestsError`), and the unit is worked again
from its beginning when a batch has answered them (`stages_batches.py`). So no request is sent that
a unit with all its answers would not have sent. The price is that a unit is worked once for each of
its rounds of calls: prompts are built anew, texts are read anew.

What a batch put into the cache is a call of the unit that first asked for it, and a hit for others.
Each client holds some 300 bytes for every request of its step.
"""

import importlib.util
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from longctx.io import paths
from longctx.io.parquet_files import parquet_file
from longctx.llm.cache import Cache
from longctx.llm.client import Client, Keyed
from longctx.llm.keys import BadRequestError
from longctx.llm.local_model import model_id
from longctx.llm.settings import ClientSettings
from longctx.llm.types import Answer, Caps, GenError, GenRequest, GenResult, LLMJobError
from longctx.llm.vllm_rows import Answered, answered, asked_row
from longctx.location import Location
from longctx.model_folders import check_folder


class VLLMSettings(BaseModel):
    """A model folder, how its engines run, and how often they may be started for one step.

    `model` is a folder that every node sees under the same path. Each of `engines` takes
    `tensor_parallel` times `pipeline_parallel` GPUs. `max_context` (tokens, prompt and text) has to
    be said, because a text that ends there is cut off and vLLM does not say so. A step that asks in
    more than `rounds` rounds ends the run: each of them starts the engines anew.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: Location
    max_context: int = Field(ge=2)
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    quantization: str | None = None
    kv_cache_dtype: str | None = None
    engines: int = Field(1, ge=1)
    tensor_parallel: int = Field(1, ge=1)
    pipeline_parallel: int = Field(1, ge=1)
    accelerator_type: str | None = None
    gpu_memory_utilization: float = Field(0.9, gt=0, le=1)
    max_num_seqs: int | None = Field(None, ge=1)
    batch_size: int = Field(32, ge=1)
    rounds: int = Field(16, ge=1)


class OpenRequestsError(Exception):
    """A unit needs answers that are not there yet: rows of `ASKED`, and where they are expected."""

    def __init__(self, rows: list[dict[str, Any]], place: str) -> None:
        super().__init__(f"{len(rows)} requests wait for a batch")
        self.rows, self.place = rows, place

    def __reduce__(self) -> tuple[object, ...]:
        return OpenRequestsError, (self.rows, self.place)


class VLLMBackend:
    """What is known of the model without an engine. It answers batches alone, so no attempt."""

    def __init__(self, settings: VLLMSettings) -> None:
        self.settings = settings
        folder = Path(settings.model).expanduser()
        if not folder.is_dir():
            raise LLMJobError(
                "misconfigured",
                "the vllm backend takes a model's folder, which every node sees: download the "
                "model and name its folder",
                where=settings.model,
            )
        check_folder(folder, settings.model)
        self.folder = folder
        self.model_id = model_id(folder, _numbers(settings))
        self.caps = Caps(
            max_context=settings.max_context, json_schema=True, seed=True, continuation="implicit"
        )
        self.facts = {"model": self.model_id, "dtype": settings.dtype, "engine": "vllm"}

    async def attempt(self, req: GenRequest, key: str) -> Answer:
        """Raises LLMJobError: nothing but a batch asks these engines."""
        raise LLMJobError("misconfigured", "vLLM inside Ray answers batches, not single requests")

    async def aclose(self) -> None:
        """Nothing was started."""


def _numbers(settings: VLLMSettings) -> str:
    """In which numbers the model calculates, as far as that is said: part of its id."""
    known = (settings.dtype, settings.quantization, settings.kv_cache_dtype)
    return ":".join(name for name in known if name)


def require_vllm() -> None:
    """Raise LLMJobError where vLLM is not installed."""
    if importlib.util.find_spec("vllm") is None:
        raise LLMJobError(
            "misconfigured",
            'vLLM is not installed: run `pip install "ray[llm]"` on every node and where the run '
            "is started, or start `vllm serve MODEL` elsewhere and take backend openai with its "
            "base_url",
        )


class BatchedClient(Client):
    """A client whose answers come in batches; `batch` is the folder in which they are left."""

    def __init__(
        self, backend: VLLMBackend, cache: Cache, settings: ClientSettings, batch: str | None
    ) -> None:
        super().__init__(backend, cache, settings)
        self.batch = batch
        self._counted: set[str] = set()
        self._read: set[str] = set()
        self._brought: dict[str, Answered] = {}

    def _looked_up(self, keyed: dict[int, Keyed]) -> dict[int, GenResult]:
        """Results of all requests. Raises OpenRequestsError if one of them is not there."""
        if any(key not in self._brought for _, (key, _) in keyed.values()):
            self._read_new()
        found = super()._looked_up(keyed)
        waiting: dict[str, dict[str, Any]] = {}
        for i, (req, keys) in keyed.items():
            key, _ = keys
            known = self._brought.get(key)
            if i not in found and known is not None and (known.code or known.text is not None):
                found[i] = known.result(req, key)
            if i in found and known is not None:
                found[i] = self._paid(req, known, found[i])
            elif i not in found:
                try:
                    waiting.setdefault(key, asked_row(req, keys))
                except BadRequestError as error:
                    said = GenError("bad_request", None, str(error))
                    found[i] = GenResult(request_id=req.request_id, key=key, error=said)
        if waiting:
            raise OpenRequestsError(list(waiting.values()), self.batch or "")
        return found

    def _read_new(self) -> None:
        """Read what batches have left since the last look."""
        if self.batch is None:
            return
        with self._lock:
            for name in paths.list_files(self.batch).keys() - self._read:
                self._read.add(name)
                for row in _rows(paths.join(self.batch, name)):
                    self._brought[row["key"]] = answered(row)

    def _paid(self, req: GenRequest, known: Answered, result: GenResult) -> GenResult:
        """The result as a call of its asker, the first time that it is seen; else as it is."""
        with self._lock:
            if known.asker != (req.stage, req.row_id) or result.key in self._counted:
                return result
            self._counted.add(result.key)
        self.meter.call(req)
        self.meter.attempt(req, known.latency_s, known.usage)
        return replace(result, from_cache=False, attempts=1, latency_s=known.latency_s)


def _rows(url: str) -> Sequence[dict[str, Any]]:
    source = paths.open_ranged(url)
    try:
        rows: list[dict[str, Any]] = parquet_file(source).read().to_pylist()
        return rows
    finally:
        if not isinstance(source, str):
            source.close()
