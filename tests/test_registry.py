"""Every registered op resolves, says what it is, and a wrong name gets the nearest one."""

import importlib
from typing import Literal, get_args, get_origin

import pytest

from longctx.engine.op import Barrier, Map, Model, Op
from longctx.errors import RecipeError
from longctx.registry import OPS, did_you_mean, resolve


@pytest.mark.parametrize("name", OPS)
def test_op_is_what_its_name_says(name: str) -> None:
    op = resolve(name)
    assert issubclass(op, (Map, Model, Barrier))
    annotation = op.model_fields["op"].annotation
    assert get_origin(annotation) is Literal
    assert get_args(annotation) == (name,)


@pytest.mark.parametrize("name", OPS)
def test_op_documents_itself(name: str) -> None:
    op = resolve(name)
    assert op.summary
    assert op.source
    assert op.cost
    assert op.__doc__
    assert op.__doc__ != Op.__doc__


@pytest.mark.parametrize("name", OPS)
def test_op_lives_in_a_stages_module(name: str) -> None:
    module = OPS[name].partition(":")[0].rpartition(".")[2]
    assert module.startswith("stages")


@pytest.mark.parametrize("name", OPS)
def test_neutral_fields_exist(name: str) -> None:
    op = resolve(name)
    own = op.neutral - Model.neutral if issubclass(op, Model) else op.neutral
    assert own <= set(op.model_fields)


def test_unknown_op_names_the_nearest() -> None:
    with pytest.raises(RecipeError, match=r"did you mean 'dedup\.minhash'") as caught:
        resolve("dedup.minhsh")
    assert "longctx ops" in caught.value.remedy


def test_no_suggestion_for_something_far_off() -> None:
    assert did_you_mean("zzzzzz", OPS) == ""


def test_resolving_imports_only_what_the_registry_names(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    real = importlib.import_module
    monkeypatch.setattr(importlib, "import_module", lambda n: asked.append(n) or real(n))
    with pytest.raises(RecipeError):
        resolve("os:system")
    assert asked == []
    resolve("dedup.exact")
    assert asked == ["longctx.dedup.stages"]
