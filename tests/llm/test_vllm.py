"""vLLM inside Ray: the shape of rows, one execution over a dataset, and errors before it.

The engine is one by rule; everything around it is real, Ray's processor included.
"""

import importlib.util
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from longctx.engine.op import Setting
from longctx.engine.units import Pool, Sink, Step, Unit
from longctx.llm import stages_vllm, vllm_rows
from longctx.llm.cache_sqlite import SQLiteCache
from longctx.llm.keys import BadRequestError, key_pair
from longctx.llm.spec import (
    GeneratorSpec,
    RuleSet,
    Terms,
    VLLMGenerator,
    backend_of,
    client_of,
    close_client,
    model_id_of,
)
from longctx.llm.stages_batches import batches_of
from longctx.llm.stages_vllm import Prepare, engine_config, generate_dataset
from longctx.llm.types import GenRequest, GenResult, LLMJobError
from longctx.llm.vllm import VLLMBackend, VLLMSettings
from longctx.llm.vllm_rows import ANSWERS, ASKED, FAILED, asked_row, normalised, sampling_params
from longctx.score.smollm2 import packaged_folder
from tests.llm.fake_vllm import Letters, Table, engine_output, processor_here, real_processor

Row = dict[str, Any]
SCHEMAS: list[Row | None] = [
    None,
    {"type": "object", "required": ["a"], "properties": {"a": {"type": "string"}}},
    {"type": "object", "properties": {"b": {"type": "number", "minimum": 0}}},
]


def request(name: str, **fields: Any) -> GenRequest:
    usual: Row = {"request_id": name, "max_tokens": 20, "stage": "s", "row_id": name}
    messages = [{"role": "user", "content": f"Say {name}."}]
    return GenRequest(**{**usual, "messages": messages, **fields})


def row_of(req: GenRequest, model: str = "m") -> Row:
    return asked_row(req, key_pair(req, model))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder that passes for a model's."""
    made = tmp_path / "model"
    made.mkdir()
    (made / "config.json").write_text("{}")
    return made


def settings(folder: Path, **changes: Any) -> VLLMSettings:
    return VLLMSettings.model_validate({"model": str(folder), "max_context": 100, **changes})


@given(
    st.fixed_dictionaries(
        {
            "temperature": st.floats(0, 2),
            "seed": st.none() | st.integers(0, 2**31 - 1),
            "stop": st.none() | st.lists(st.text(max_size=3), max_size=2),
            "schema": st.sampled_from(SCHEMAS),
            "extra": st.none() | st.fixed_dictionaries({}, optional={"top_k": st.integers(1, 9)}),
        }
    )
)
def test_every_row_has_the_same_parameters_whatever_was_asked(asked: Row) -> None:
    found = sampling_params(request("a", **asked))
    usual = sampling_params(request("b", extra={"min_p": 0.1, "repetition_penalty": 1.2}))
    assert found.keys() == usual.keys()
    assert "n" not in found
    assert {n for n, v in found.items() if v is None} <= {"seed", "structured_outputs"}
    if asked["schema"] is not None:
        # As text: two schemas in one block would become one that is neither.
        assert json.loads(found["structured_outputs"]["json"]) == asked["schema"]


def test_a_parameter_that_vllm_is_not_given_is_refused() -> None:
    with pytest.raises(BadRequestError, match="knows no best_of, only top_k"):
        sampling_params(request("a", extra={"best_of": 2}))


def test_rows_hold_no_name_that_the_engine_takes_for_its_own() -> None:
    row = row_of(request("a"))
    assert list(row) == ASKED.names
    assert not row.keys() & {"model", "request_id", "prompt", "sampling_params"}
    assert row["reserved"] == 20 + len("Say a.") // 4 + 1 + 4


def came(**changes: Any) -> Row:
    """A good row behind the engine."""
    row = row_of(request("a"))
    usual: Row = {"generated_text": "yes", "num_input_tokens": 10, "num_generated_tokens": 3}
    return {n: row.get(n) for n in vllm_rows.KEPT} | usual | {"time_taken_llm": 0.5, **changes}


@pytest.mark.parametrize(
    ("changes", "finish", "code"),
    [
        ({}, "stop", None),
        ({FAILED: ""}, "stop", None),
        ({FAILED: None}, "stop", None),
        ({"num_generated_tokens": 19}, "stop", None),
        ({"num_generated_tokens": 20}, "length", None),
        ({"num_input_tokens": 97}, "length", None),
        ({"num_input_tokens": 96}, "stop", None),
        ({"generated_text": " \n"}, "error", "empty"),
        ({FAILED: "ValueError: top_p must be in (0, 1], got 7"}, "error", "bad_request"),
        (
            {FAILED: "ValueError: The decoder prompt is longer than the maximum model length of 9"},
            "error",
            "context_overflow",
        ),
        ({FAILED: "RuntimeError: CUDA error", "generated_text": None}, "error", "transport"),
        ({FAILED: "bad_request: no", "num_input_tokens": None}, "error", "bad_request"),
        ({FAILED: "context_overflow: 9 and 9"}, "error", "context_overflow"),
    ],
)
def test_what_came_is_told_as_every_backend_tells_it(
    changes: Row, finish: str, code: str | None
) -> None:
    found = normalised(came(**changes), 100)
    assert (found["finish_reason"], found["error_code"]) == (finish, code)
    assert found["text"] == ("" if code else "yes")
    assert list(found) == ANSWERS.names


def test_a_failed_row_without_the_columns_of_good_ones_is_read() -> None:
    row = row_of(request("a")) | {FAILED: "RuntimeError: gone"}
    assert normalised(row, 100)["error_code"] == "transport"


def rule(row: Row) -> tuple[str, int]:
    """What was set, as text: so every answer shows whether it got its own parameters."""
    sampling = row["sampling"]
    if sampling["top_k"] == 13:
        raise RuntimeError("the engine stumbled over this one")
    if row["max_tokens"] != sampling["max_tokens"]:
        raise ValueError("max_tokens went astray")
    text = json.dumps({**sampling, "stop": list(sampling["stop"]), "ids": len(row["ids"])})
    return text, 20 if sampling["seed"] == 5 else 3


MIXED = [
    request("plain"),
    request("first", schema=SCHEMAS[1], seed=3, stop=["END"]),
    request("second", schema=SCHEMAS[2], max_tokens=21, temperature=0.5),
    request("cut", seed=5),
    request("taken", seed=5, may_be_cut=True),
    request("failed", extra={"top_k": 13}),
    request("drawn", extra={"top_k": 7, "min_p": 0.5}),
    request("long", messages=[{"role": "user", "content": "long " * 90}]),
    request("again", sample_index=1, messages=[{"role": "user", "content": "Say plain."}]),
]


def check_mixed(rows: list[Row], cache: SQLiteCache, model: str) -> None:
    """Each request has one answer, its own; what may be kept is in the cache."""
    found = {row["row_id"]: row for row in rows}
    assert len(found) == len(rows) == len(MIXED)
    failed = {"failed": "transport", "long": "context_overflow"}
    for req in MIXED:
        row = found[req.row_id]
        assert row["error_code"] == failed.get(req.row_id)
        entry = cache.get([row["key"]]).get(row["key"])
        assert (entry is not None) == (req.row_id not in {*failed, "cut"})
        assert row["finish_reason"] == (
            "error" if req.row_id in failed else "length" if req.seed == 5 else "stop"
        )
        if req.row_id in failed:
            continue
        said = json.loads(row["text"])
        assert said.pop("ids") == row["prompt_tokens"]
        assert said == sampling_params(req)
        assert row["key"] == key_pair(req, model)[0]
        assert entry is None or (entry.text, entry.model) == (row["text"], model)


def test_a_dataset_is_answered_once_and_then_from_the_cache(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stages_vllm, "_chat", lambda _: Letters())
    chosen, place = settings(folder, max_context=400), ("sqlite", str(tmp_path / "cache"))
    model = VLLMBackend(chosen).model_id
    sent: list[int] = []

    def process(data: Table) -> Table:
        sent.append(data.table.num_rows)
        return processor_here(rule, Prepare(str(folder), 400))(data)

    def answered() -> list[Row]:
        asked = pa.Table.from_pylist([row_of(req, model) for req in MIXED], ASKED)
        data: Any = Table(asked)
        return list(generate_dataset(data, chosen, place, processor=process).iter_rows())  # type: ignore[arg-type]

    first = answered()
    cache = SQLiteCache(tmp_path / "cache" / "answers.sqlite")
    check_mixed(first, cache, model)
    assert not any(row["from_cache"] for row in first)
    second = {row["row_id"]: row for row in answered()}
    # What cannot be kept is asked again: a failure, a text that was cut off, one that is too long.
    assert sent == [9, 3]
    assert {n for n, row in second.items() if not row["from_cache"]} == {"failed", "cut", "long"}
    texts = {row["row_id"]: row["text"] for row in first}
    assert {n: row["text"] for n, row in second.items()} == texts
    twice: Any = Table(pa.Table.from_pylist([row_of(MIXED[0], model)] * 2, ASKED))
    with pytest.raises(ValueError, match="distinct keys"):
        generate_dataset(twice, chosen, place)  # type: ignore[arg-type]


@dataclass(frozen=True)
class Asks:
    """A unit that asks for all of them at once."""

    spec: VLLMGenerator
    run_dir: str
    terms: Terms

    def load(self) -> "Asks":
        return self

    def __call__(self, payload: tuple[str, None], sink: Sink) -> Row:
        return {"results": self.results()}

    def results(self) -> list[GenResult]:
        return client_of(self.spec, self.run_dir, RuleSet(), self.terms).generate(MIXED)


@pytest.mark.ray
def test_rays_own_processor_mixes_nothing_up(
    ray_local: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows with and without schema, seed and stops in blocks of four, and failed ones among them.

    A unit in an actor says what it lacks, Ray's processor answers around an engine by rule, and the
    unit finds everything.
    """
    import ray.data

    folder = packaged_folder()
    described = spec(folder, batch_size=4)
    model = model_id_of(described, RuleSet())
    build = stages_vllm.processor_of
    process = real_processor(rule, Prepare(str(folder), 100), 4)
    monkeypatch.setattr(stages_vllm, "processor_of", lambda *_: process)
    batches = batches_of(Setting(0, "", "01-x", str(tmp_path), ""), "asked", {"": described})
    assert batches is not None
    asks = Asks(described, str(tmp_path), Terms(batch=batches.place()))
    step = Step(str(tmp_path), str(tmp_path / "stages/01-x/asked"), [Unit("0", "f", ("0", None))])
    batches.answer(step, work=asks, pool=Pool(1, ahead=1), terms={"": Terms()})
    results = asks.results()
    close_client()
    rows = [
        {
            "row_id": result.request_id,
            "key": result.key,
            "text": result.text,
            "finish_reason": result.finish_reason,
            "prompt_tokens": result.usage.prompt,
            "error_code": result.error and result.error.code,
        }
        for result in results
    ]
    check_mixed(rows, SQLiteCache(tmp_path / "cache" / "answers.sqlite"), model)
    assert {
        (r.attempts, r.from_cache, r.latency_s > 0 or r.error is not None) for r in results
    } == {(1, False, True)}
    # What Ray itself builds of the settings, up to the point where an engine would start.
    built: Any = build(described.settings(), folder)
    assert built.list_stage_names() == ["vLLMEngineStage"]
    stage = built.get_stage_by_name("vLLMEngineStage")
    assert stage.map_batches_kwargs["compute"] == ray.data.ActorPoolStrategy(min_size=1, max_size=1)
    assert stage.map_batches_kwargs["num_gpus"] == 1
    assert stage.fn_constructor_kwargs["should_continue_on_error"] is True


def test_the_fake_engine_adds_what_the_real_one_adds() -> None:
    from ray.llm._internal.batch.stages.vllm_engine_stage import vLLMOutputData

    beside = {"request_id", "batch_uuid", "time_taken_llm", "params", FAILED}
    for top_k in (1, 13):
        sampling = sampling_params(request("a", extra={"top_k": top_k}))
        row = row_of(request("a")) | {"tokenized_prompt": [1], "sampling_params": sampling}
        assert engine_output(row, rule).keys() == {*vLLMOutputData.model_fields, *beside}
        assert "sampling_params" not in row


def test_settings_are_what_ray_takes(folder: Path) -> None:
    chosen = settings(folder, engines=3, tensor_parallel=2, max_num_seqs=64, quantization="fp8")
    config = engine_config(chosen, folder)
    assert config.get_concurrency() == {"min_size": 3, "max_size": 3}
    assert config.should_continue_on_error is True
    assert config.batch_size == 32
    assert config.engine_kwargs == {
        "max_model_len": 100,
        "dtype": "auto",
        "tensor_parallel_size": 2,
        "pipeline_parallel_size": 1,
        "gpu_memory_utilization": 0.9,
        "enable_prefix_caching": True,
        "max_num_seqs": 64,
        "quantization": "fp8",
        "task_type": "generate",
    }
    assert "trust_remote_code" not in config.engine_kwargs
    # No stage of Ray's touches the prompt: its template stage fails all for one.
    for name in ("chat_template_stage", "tokenize_stage", "detokenize_stage"):
        assert getattr(config, name) is False


def test_a_template_that_refuses_fails_its_own_row(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from longctx.llm.chat import TemplateError

    class Strict(Letters):
        def encode(self, messages: Any) -> list[int]:
            if messages[0]["role"] == "system":
                raise TemplateError("System role not supported")
            return super().encode(messages)

    monkeypatch.setattr(stages_vllm, "_chat", lambda _: Strict())
    prepare = Prepare(str(folder), 100)
    told = {
        "refused": request("a", messages=[{"role": "system", "content": "Be."}]),
        "empty": request("b", messages=[{"role": "user", "content": ""}]),
        "long": request("c", messages=[{"role": "user", "content": "x" * 81}]),
        "fits": request("d", messages=[{"role": "user", "content": "x" * 80}]),
    }
    found = {name: prepare(row_of(req)) for name, req in told.items()}
    assert {name: row[FAILED].partition(":")[0] for name, row in found.items()} == {
        "refused": "bad_request",
        "empty": "bad_request",
        "long": "context_overflow",
        "fits": "",
    }
    # The prompt is not carried twice.
    assert {row["messages"] for row in found.values()} == {""}


ADAPTER: TypeAdapter[Any] = TypeAdapter(GeneratorSpec)


def spec(folder: Path, **changes: Any) -> Any:
    usual = {"backend": "vllm", "model": str(folder), "max_context": 100}
    return ADAPTER.validate_python({**usual, **changes})


def test_without_vllm_the_run_ends_before_anything_is_asked(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(LLMJobError, match=r'pip install "ray\[llm\]".*backend openai') as raised:
        backend_of(spec(folder), RuleSet())
    assert raised.value.code == "misconfigured"
    # A plan says nothing of answers, so it needs no vLLM.
    assert model_id_of(spec(folder), RuleSet()).startswith("hf:dir:")


def test_a_model_is_a_folder_of_data(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(LLMJobError, match="a model's folder"):
        VLLMBackend(settings(tmp_path / "none"))
    (folder / "pytorch_model.bin").write_bytes(b"x")
    with pytest.raises(Exception, match=r"pytorch_model\.bin"):
        VLLMBackend(settings(folder))


def test_numbers_are_part_of_the_model_and_speed_is_not(folder: Path) -> None:
    def known(**changes: Any) -> tuple[str, Row]:
        described = spec(folder, **changes)
        return model_id_of(described, RuleSet()), described.identity()

    usual = known()
    assert known(engines=4, tensor_parallel=2, max_num_seqs=8, rounds=3, clients=2) == usual
    for changes in ({"dtype": "bfloat16"}, {"quantization": "fp8"}, {"kv_cache_dtype": "fp8"}):
        model, identity = known(**changes)
        assert model != usual[0]
        assert identity != usual[1]


def test_limits_of_servers_are_refused_and_a_written_recipe_is_read_again(folder: Path) -> None:
    for name in ("requests_per_minute", "tokens_per_minute", "in_flight"):
        with pytest.raises(ValidationError, match=f"{name} is for servers"):
            spec(folder, **{name: 7})
    described = spec(folder, max_tokens_total=1000, engines=2)
    assert ADAPTER.validate_python(described.model_dump(mode="json")) == described
