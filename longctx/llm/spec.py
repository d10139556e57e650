"""Which model a job asks, as a recipe says it, and the one client that a process asks it with.

A description names a backend and what it needs. What of it decides an answer is its `identity`, and
goes into fingerprints together with the model's id; how fast, how dear and with which key is left
out, so a changed rate recomputes nothing. Keys are never in it, only the names of the variables or
files that hold them.
"""

import os
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, model_validator

from longctx.errors import RecipeError
from longctx.io import paths
from longctx.llm.accounting import Price, parse_prices
from longctx.llm.cache import Cache
from longctx.llm.client import Client
from longctx.llm.faults import Fault, FaultPlan
from longctx.llm.llamacpp import LlamaCpp, LlamaCppSettings
from longctx.llm.local_model import LocalSettings
from longctx.llm.openai import OpenAICompat, OpenAISettings, check_settings
from longctx.llm.scripted import Rule, ScriptedBackend
from longctx.llm.settings import ClientSettings
from longctx.llm.types import Backend, LLMJobError
from longctx.llm.vllm import BatchedClient, VLLMBackend, VLLMSettings, require_vllm
from longctx.location import Location

CacheKind = Literal["sqlite", "shards"]
S = TypeVar("S", bound=BaseModel)
_SQLITE_FILE = "answers.sqlite"
_SHARED = ("in_flight", "requests_per_minute", "tokens_per_minute")


@dataclass(frozen=True)
class RuleSet:
    """What the scripted backend says: a rule for each kind of stage, and the version of them."""

    version: str = "words-1"
    rules: Mapping[str, Rule] = field(default_factory=dict)


class Asking(BaseModel):
    """How a model is asked, whichever it is. Limits hold for all processes together.

    `clients` processes ask at once, each with `in_flight` requests: by default one, or for a model
    in the process as many as there are workers. `cache` is where answers are kept, RUN_DIR/cache
    unless it is set; as an SQLite file on a local path, else as shards, which several nodes share.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
    decides: ClassVar[tuple[str, ...]] = ()

    in_flight: int = Field(32, ge=1)
    clients: int | None = Field(None, ge=1)
    requests_per_minute: float | None = Field(None, gt=0)
    tokens_per_minute: float | None = Field(None, gt=0)
    max_tokens_total: int | None = Field(None, ge=1)
    max_usd: float | None = Field(None, gt=0)
    price_file: Location | None = None
    cache: Location | None = None
    cache_kind: CacheKind | None = None

    def identity(self) -> dict[str, Any]:
        """The fields that can change an answer, as plain JSON values."""
        return self.model_dump(mode="json", include={"backend", *self.decides})

    def cache_place(self, run_dir: str) -> tuple[CacheKind, str]:
        """What kind of cache lies where."""
        url = paths.absolute(self.cache) if self.cache else paths.join(run_dir, "cache")
        return self.cache_kind or ("sqlite" if paths.is_local(url) else "shards"), url

    @model_validator(mode="after")
    def _has_a_place(self) -> "Asking":
        if self.cache_kind == "sqlite" and self.cache and not paths.is_local(self.cache):
            raise ValueError("cache_kind sqlite needs a local path as `cache`; leave it out")
        if self.max_usd is not None and self.price_file is None:
            raise ValueError("max_usd needs a price_file, which says what the model costs")
        return self


class LocalGenerator(LocalSettings, Asking):
    """A model in this process: the packaged one, or any that transformers can load."""

    decides: ClassVar[tuple[str, ...]] = ("model", "dtype")

    backend: Literal["local"]
    num_gpus: float = Field(0, ge=0)


class OpenAIGenerator(OpenAISettings, Asking):
    """A server that speaks OpenAI's chat completions (vLLM, llama-server, SGLang, vendors)."""

    decides: ClassVar[tuple[str, ...]] = ("model", "version", "max_context", "json_schema", "seed")

    backend: Literal["openai"]

    @model_validator(mode="after")
    def _holds_no_secret(self) -> "OpenAIGenerator":
        # Said of the recipe, before any of it is written down.
        try:
            check_settings(self)
        except LLMJobError as error:
            raise ValueError(error.detail) from None
        return self


class LlamaCppGenerator(LlamaCppSettings, Asking):
    """A GGUF file, served by `llama-server` on the node that asks."""

    decides: ClassVar[tuple[str, ...]] = ("ctx_per_slot", "deterministic")

    backend: Literal["llamacpp"]


class ScriptedGenerator(Asking):
    """No model: replies by the system's own rules, and the faults that a test plans."""

    decides: ClassVar[tuple[str, ...]] = ("faults",)

    backend: Literal["scripted"]
    faults: tuple[Fault, ...] = ()


class VLLMGenerator(VLLMSettings, Asking):
    """Batches of vLLM inside Ray, on the GPUs of the cluster: one execution a round of a step."""

    decides: ClassVar[tuple[str, ...]] = (
        *("model", "max_context", "dtype"),
        *("quantization", "kv_cache_dtype"),
    )

    backend: Literal["vllm"]

    def settings(self) -> VLLMSettings:
        """The fields that the engines are started with."""
        return _part(self, VLLMSettings)

    @model_validator(mode="after")
    def _sets_what_a_batch_obeys(self) -> "VLLMGenerator":
        for name in (*_SHARED, "max_usd", "price_file"):
            if getattr(self, name) != type(self).model_fields[name].default:
                raise ValueError(
                    f"{name} is for servers, a batch of vLLM does not obey it: leave it out "
                    "(max_tokens_total bounds what is spent, max_num_seqs what runs at once)"
                )
        return self


GeneratorSpec = Annotated[
    LocalGenerator | OpenAIGenerator | LlamaCppGenerator | ScriptedGenerator | VLLMGenerator,
    Field(discriminator="backend"),
]


def model_id_of(spec: Asking, rules: RuleSet) -> str:
    """The id of the model, without starting it and without reading a key.

    Raises RunError where a model in the process or its file is not there.
    """
    if isinstance(spec, OpenAIGenerator):
        return f"api:{spec.model}@{spec.version}" if spec.version else f"api:{spec.model}"
    if isinstance(spec, VLLMGenerator):
        return VLLMBackend(spec.settings()).model_id
    return backend_of(spec, rules).model_id


def backend_of(spec: Asking, rules: RuleSet) -> Backend:
    """The backend of a description, not started yet. Raises RunError where it cannot work."""
    if isinstance(spec, LocalGenerator):
        from longctx.llm.local import LocalBackend

        return LocalBackend(_part(spec, LocalSettings))
    if isinstance(spec, OpenAIGenerator):
        return OpenAICompat(_part(spec, OpenAISettings), spec.in_flight)
    if isinstance(spec, LlamaCppGenerator):
        return LlamaCpp(_part(spec, LlamaCppSettings))
    if isinstance(spec, VLLMGenerator):
        require_vllm()
        return VLLMBackend(spec.settings())
    assert isinstance(spec, ScriptedGenerator)
    return ScriptedBackend(rules.rules, rules.version, FaultPlan(spec.faults))


def _part(spec: BaseModel, kind: type[S]) -> S:
    """The fields of a description that a backend's own settings have."""
    return kind(**{name: getattr(spec, name) for name in kind.model_fields})


def price_of(spec: Asking, model_id: str) -> Price | None:
    """What the price file says of the model. Raises RecipeError for a file that says nothing."""
    if spec.price_file is None:
        return None
    data = paths.read_if_exists(spec.price_file)
    if data is None:
        raise RecipeError(
            "there is no such price file",
            where=spec.price_file,
            remedy='write {"MODEL_ID": {"input": 0.5, "output": 1.5}}, in USD for a million tokens',
        )
    return parse_prices(data.decode("utf-8", "replace"), spec.price_file).get(model_id)


@dataclass(frozen=True)
class Terms:
    """What a client may spend, and with how many others it shares that.

    `batch` is the folder in which batches leave answers, for a model that answers no other way.
    """

    clients: int = 1
    tokens_left: int | None = None
    usd_left: float | None = None
    price: Price | None = None
    batch: str | None = None


_lock = threading.Lock()
_held: dict[tuple[int, str], tuple[tuple[Any, ...], Client]] = {}


def client_of(
    spec: Asking, run_dir: str, rules: RuleSet, terms: Terms | None = None, role: str = ""
) -> Client:
    """The client of this process for a description; another one that it held is closed.

    A process that asks several models at once holds one client for each `role`. Raises RunError
    where the backend or the cache cannot be had.
    """
    terms = terms or Terms()
    wanted = (spec.model_dump_json(), run_dir, rules.version, terms)
    with _lock:
        place = os.getpid(), role
        known, client = _held.get(place, (None, None))
        if client is not None and known == wanted:
            return client
        if client is not None:
            del _held[place]
            client.close()
        made = _client(spec, run_dir, rules, terms)
        _held[place] = wanted, made
        return made


def close_client() -> None:
    """Close the clients that this process holds, if it holds any."""
    with _lock:
        mine = [place for place in _held if place[0] == os.getpid()]
        clients = [_held.pop(place)[1] for place in mine]
    for client in clients:
        client.close()


def _client(spec: Asking, run_dir: str, rules: RuleSet, terms: Terms) -> Client:
    place = spec.cache_place(run_dir)
    if isinstance(spec, VLLMGenerator):
        # The engines run elsewhere, and whoever starts them keeps to the limits.
        batched = VLLMBackend(spec.settings())
        return BatchedClient(batched, cache_of(*place), ClientSettings(), terms.batch)
    settings = ClientSettings(
        **{name: getattr(spec, name) for name in _SHARED},
        max_tokens_total=terms.tokens_left,
        max_usd=terms.usd_left,
        actors=terms.clients,
    )
    backend = backend_of(spec, rules)
    return Client(backend, cache_of(*place), settings, price=terms.price)


def cache_of(kind: CacheKind, url: str) -> Cache:
    """The cache of a kind at a place, opened. Raises LLMJobError where it cannot be had."""
    if kind == "sqlite":
        from longctx.llm.cache_sqlite import SQLiteCache

        return SQLiteCache(Path(paths.absolute(url)) / _SQLITE_FILE)
    from longctx.llm.cache_shards import ShardCache

    return ShardCache(url)
