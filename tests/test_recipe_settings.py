"""Recipes: lengths, secrets, variables, fingerprints and the schema for editors."""

import json
from typing import Any

import jsonschema
import pytest
import yaml

from longctx.errors import RecipeError
from longctx.recipe import Recipe, from_dict, json_schema, parse
from tests.test_recipe import EXAMPLE, changed, problems


class TestContextLength:
    """Ops that build whole contexts take the length of the pack stage."""

    TEXT = changed("op: order.icp", "op: order.cluster_path")

    def length(self, text: str, *overrides: str) -> int | None:
        op = next(o for o in parse(text, overrides=overrides).ops if o.op == "order.cluster_path")
        return op.model_dump()["length"]

    def test_is_that_of_pack(self) -> None:
        assert self.length(self.TEXT) == 32768
        assert self.length(self.TEXT, "stages.7.length=4096") == 4096
        assert self.length(self.TEXT.replace(", length: 32768", "")) == 8192

    def test_null_is_as_good_as_nothing_and_a_number_stays(self) -> None:
        assert self.length(self.TEXT, "stages.6.length=null") == 32768
        assert self.length(self.TEXT, "stages.6.length=1000") == 1000

    def test_without_pack_there_is_none(self) -> None:
        text = self.TEXT.replace("  - {op: pack, length: 32768, strategy: concat}\n", "")
        assert self.length(text) is None

    def test_what_was_written_is_kept(self) -> None:
        recipe = parse(self.TEXT)
        assert "length" not in recipe.raw["stages"][6]
        assert "length" not in recipe.ops[5].model_dump()  # cluster.kmeans builds no contexts

    def test_counts_like_one_that_was_written(self) -> None:
        found = [
            parse(self.TEXT, overrides=[o]).ops[6].fingerprint_fields()
            for o in ("seed=1", "stages.6.length=32768", "stages.7.length=4096")
        ]
        assert found[0] == found[1] != found[2]


class TestCredentials:
    @pytest.mark.parametrize(
        "url",
        [
            "s3://AKIA1:hunter/2+x@bucket/run",
            "https://me:hunter2@host/run",
            "https://hunter2@host/run",
            "https://host/run?X-Amz-Signature=hunter2&x=1",
        ],
    )
    def test_urls_with_them_are_refused_and_not_repeated(self, url: str) -> None:
        for text in (changed("s3://work/runs/code-and-docs", url), changed("embedded", f"'{url}'")):
            lines = problems(text)
            assert "the URL holds a " in lines[0]
            assert "hunter" not in "".join(lines)

    def test_an_override_with_them_is_not_repeated(self) -> None:
        with pytest.raises(RecipeError) as caught:
            parse(EXAMPLE, overrides=["run_dir=s3://key:hunter2@bucket/run"])
        assert "the URL holds a user name or password" in str(caught.value)
        assert "AWS_SECRET_ACCESS_KEY" in str(caught.value)
        assert "hunter2" not in str(caught.value)

    def test_variables_must_not_bring_them(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("TEST_URL", "s3://key:hunter2@bucket/run")
        found = problems(changed("s3://work/runs/code-and-docs", "${TEST_URL}"))[0]
        assert "recipe.yaml:5: run_dir: with its variables the URL holds a user name" in found
        assert "hunter2" not in found


class TestEnvironment:
    TEXT = changed("s3://work/runs", "s3://${TEST_KEY}/runs")

    def test_the_name_of_a_variable_is_kept(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("TEST_KEY", "hunter2")
        recipe = parse(self.TEXT)
        assert recipe.body.run_dir == "s3://hunter2/runs/code-and-docs"
        assert "hunter2" not in json.dumps(recipe.raw)

    def test_its_value_is_not_in_errors(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("TEST_KEY", "hunter2")
        lines = problems(self.TEXT.replace("seed: 17", "sede: 17"))
        assert not any("hunter2" in line for line in lines)

    def test_variable_that_is_not_set_is_named(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("TEST_KEY", raising=False)
        found = problems(self.TEXT)[0]
        expected = "recipe.yaml:5: run_dir: the environment variable TEST_KEY is not set"
        assert found.startswith(expected)

    def test_empty_variable_is_no_path(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("TEST_KEY", "")
        text = changed("s3://work/runs/code-and-docs", "${TEST_KEY}")
        assert "the path is empty" in problems(text)[0]

    @pytest.mark.parametrize("broken", ["${}", "${1A}", "${TEST_KEY"])
    def test_broken_variable_is_refused(self, broken: str) -> None:
        text = changed("s3://work/runs/code-and-docs", f"'{broken}'")
        assert "must be followed by the name of a variable" in problems(text)[0]


class TestFingerprint:
    def of(self, edit: dict[str, Any] | None = None, *overrides: str) -> str:
        return self.recipe(edit, *overrides).fingerprint

    def recipe(self, edit: dict[str, Any] | None = None, *overrides: str) -> Recipe:
        return from_dict({**yaml.safe_load(EXAMPLE), **(edit or {})}, overrides)

    def test_order_of_inputs_and_of_their_paths_does_not_count(self) -> None:
        raw = yaml.safe_load(EXAMPLE)
        assert self.of({"input": raw["input"][::-1]}) == self.of()
        two = {"source": "s", "path": ["a", "b"]}
        assert self.of({"input": [two]}) == self.of({"input": [{**two, "path": ["b", "a"]}]})

    @pytest.mark.parametrize(
        "override",
        [
            "run_dir=elsewhere",
            "name=other",
            "output.path=elsewhere",
            "engine.part_mb=1",
            "engine.workers=3",
            "stages.3.workers=2",
            "stages.3.threads=2",
            "stages.3.num_gpus=1",
            "input.0.format=auto",
            "input.0.language=language",
            "tokenizer={path: embedded}",
        ],
    )
    def test_what_changes_no_byte_does_not_count(self, override: str) -> None:
        assert self.of(None, override) == self.of()

    def test_default_tokenizer_may_be_left_out(self) -> None:
        raw = yaml.safe_load(EXAMPLE)
        del raw["tokenizer"]
        assert from_dict(raw).fingerprint == self.of()

    @pytest.mark.parametrize(
        "override",
        [
            "stages.2.threshold=0.7",
            "stages.7.length=1024",
            "seed=18",
            "input.0.source=other",
            "input.0.path=other.jsonl",
            "input.0.encoding=latin-1",
            "tokenizer.path=other",
        ],
    )
    def test_what_changes_the_windows_counts(self, override: str) -> None:
        assert self.of(None, override) != self.of()

    def test_value_of_a_variable_does_not_count(self, monkeypatch: pytest.MonkeyPatch) -> None:
        entry = {"input": [{"path": "${TEST_ROOT}/a", "source": "s"}]}
        monkeypatch.setenv("TEST_ROOT", "/here")
        here = self.of(entry)
        monkeypatch.setenv("TEST_ROOT", "/there")
        assert self.of(entry) == here

    def test_is_the_same_in_every_process(self) -> None:
        assert self.of() == parse(EXAMPLE).fingerprint


class TestSchema:
    @pytest.fixture(scope="class")
    def validator(self) -> jsonschema.Draft202012Validator:
        schema = json.loads(json.dumps(json_schema()))
        jsonschema.Draft202012Validator.check_schema(schema)
        return jsonschema.Draft202012Validator(schema)

    def test_accepts_the_example(self, validator: jsonschema.Draft202012Validator) -> None:
        assert list(validator.iter_errors(yaml.safe_load(EXAMPLE))) == []

    @pytest.mark.parametrize(
        "override",
        [
            "sede=1",
            "stages.2.treshold=0.7",
            "stages.2.op=dedup.minhsh",
            "stages.2.threshold=high",
            "stages.2={threshold: 0.8}",
            "input.0.formt=jsonl",
            "input.1={path: a}",
            "input.1.path=[]",
            "output.format=[mdz]",
        ],
    )
    def test_rejects_what_validation_rejects(
        self, validator: jsonschema.Draft202012Validator, override: str
    ) -> None:
        with pytest.raises(RecipeError):
            parse(EXAMPLE, overrides=[override])
        raw = yaml.safe_load(EXAMPLE)
        path, _, value = override.partition("=")
        *parents, last = [int(k) if k.isdecimal() else k for k in path.split(".")]
        node = raw
        for key in parents:
            node = node[key]
        node[last] = yaml.safe_load(value)
        assert not validator.is_valid(raw)
