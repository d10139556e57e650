"""What a recipe says of a model: which fields decide an answer, where answers are kept, errors."""

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from longctx.errors import RecipeError
from longctx.llm.spec import (
    GeneratorSpec,
    LocalGenerator,
    RuleSet,
    Terms,
    backend_of,
    client_of,
    close_client,
    model_id_of,
    price_of,
)
from longctx.llm.types import GenRequest, LLMJobError

ADAPTER: TypeAdapter[Any] = TypeAdapter(GeneratorSpec)
SERVER = {"backend": "openai", "base_url": "http://127.0.0.1:9/v1", "model": "m"}
RULES = RuleSet("t-1", {"s": lambda req: "yes"})


def spec(**fields: Any) -> Any:
    return ADAPTER.validate_python({"backend": "scripted", **fields})


@pytest.mark.parametrize(
    "changes",
    [
        {"in_flight": 4},
        {"requests_per_minute": 60},
        {"tokens_per_minute": 1e6},
        {"max_tokens_total": 10**9},
        {"max_usd": 5, "price_file": "prices.json"},
        {"cache": "/tmp/elsewhere"},
        {"clients": 3},
        {"api_key_env": "ANY_NAME"},
        {"base_url": "http://127.0.0.1:10/v1"},
    ],
)
def test_how_it_is_asked_is_no_part_of_what_is_answered(changes: dict[str, Any]) -> None:
    assert spec(**{**SERVER, **changes}).identity() == spec(**SERVER).identity()


def test_the_model_is() -> None:
    other = spec(**{**SERVER, "model": "n"})
    assert other.identity() != spec(**SERVER).identity()
    assert model_id_of(other, RULES) == "api:n"
    assert model_id_of(spec(**SERVER, version="7"), RULES) == "api:m@7"
    assert model_id_of(spec(), RULES) == "scripted:t-1"


def test_a_limit_in_dollars_needs_prices(tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match="price_file"):
        spec(max_usd=1)
    file = tmp_path / "prices.json"
    file.write_text(json.dumps({"api:m": {"input": 1, "output": 2}}))
    priced = spec(**SERVER, price_file=str(file))
    assert price_of(priced, "api:m") is not None
    assert price_of(priced, "api:other") is None
    with pytest.raises(RecipeError, match="no such price file"):
        price_of(spec(price_file=str(tmp_path / "none.json")), "api:m")


def test_answers_are_kept_below_the_run_unless_said_otherwise(tmp_path: Path) -> None:
    assert spec().cache_place("/run") == ("sqlite", "/run/cache")
    assert spec().cache_place("s3://bucket/run") == ("shards", "s3://bucket/run/cache")
    assert spec(cache_kind="shards").cache_place("/run")[0] == "shards"
    with pytest.raises(ValidationError, match="local path"):
        spec(cache="s3://bucket/cache", cache_kind="sqlite")


def test_a_missing_key_is_told_before_anything_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_SUCH_KEY", raising=False)
    keyed = spec(**SERVER, api_key_env="NO_SUCH_KEY")
    assert model_id_of(keyed, RULES) == "api:m"
    with pytest.raises(LLMJobError, match="NO_SUCH_KEY"):
        backend_of(keyed, RULES)


def test_a_local_model_has_the_fields_of_its_backend() -> None:
    local = spec(backend="local", threads=2, dtype="bfloat16")
    assert isinstance(local, LocalGenerator)
    assert local.identity() == {"backend": "local", "model": "smollm2", "dtype": "bfloat16"}


@pytest.mark.parametrize("kind", ["sqlite", "shards"])
def test_a_process_has_one_client_that_remembers(tmp_path: Path, kind: str) -> None:
    request = GenRequest(
        request_id="a", messages=[{"role": "user", "content": "?"}], max_tokens=4, stage="s"
    )
    described = spec(cache_kind=kind)
    try:
        first = client_of(described, str(tmp_path), RULES)
        assert client_of(spec(cache_kind=kind), str(tmp_path), RULES) is first
        (said,) = first.generate([request])
        second = client_of(described, str(tmp_path), RULES, Terms(clients=2))
        assert second is not first
        (again,) = second.generate([request])
    finally:
        close_client()
    assert (said.text, said.from_cache) == ("yes", False)
    assert (again.text, again.from_cache) == ("yes", True)


def test_a_recipe_with_a_secret_is_refused() -> None:
    with pytest.raises(ValidationError, match="'Authorization' looks like a secret"):
        spec(**SERVER, headers={"Authorization": "Bearer abc"})
    with pytest.raises(ValidationError, match="http:// or https://"):
        spec(**{**SERVER, "base_url": "model-server:8000"})
