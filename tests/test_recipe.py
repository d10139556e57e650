"""Recipes: every mistake is named with file, line, field and remedy; nothing secret is kept."""

import copy
import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from longctx.errors import RecipeError
from longctx.recipe import Recipe, from_dict, json_schema, load, parse

EXAMPLE = """\
name: code-and-docs
input:
  - {path: "s3://raw/arxiv/*.jsonl.zst", source: arxiv, text: text, id: id}
  - {path: "s3://raw/code/", source: code}
run_dir: s3://work/runs/code-and-docs
seed: 17
tokenizer: {path: embedded}
stages:
  - {op: score.heuristics}
  - {op: decide, rules: {n_tokens: {min: 1024}}}
  - {op: dedup.minhash, threshold: 0.8}
  - {op: embed, model: sentence-transformers/all-MiniLM-L6-v2}
  - {op: dedup.semantic, eps: 0.05}
  - {op: cluster.kmeans}
  - {op: order.icp}
  - {op: pack, length: 32768, strategy: concat}
output: {path: s3://out/packed, format: [parquet, mds]}
"""
EMBED = "  - {op: embed, model: sentence-transformers/all-MiniLM-L6-v2}\n"


def changed(old: str, new: str) -> str:
    assert old in EXAMPLE
    return EXAMPLE.replace(old, new)


def problems(text: str, *overrides: str) -> list[str]:
    """The lines of the error that a recipe gives, the remedy last."""
    with pytest.raises(RecipeError) as caught:
        parse(text, origin="recipe.yaml", overrides=overrides)
    assert caught.value.exit_code == 2
    return str(caught.value).splitlines()


def test_example_is_read() -> None:
    recipe = parse(EXAMPLE)
    assert recipe.stage_names()[2] == "03-dedup.minhash"
    assert recipe.body.input[1].paths == ["s3://raw/code/"]
    assert recipe.body.output.format == ["parquet", "mds"]


def test_file_is_read_and_named_in_errors(tmp_path: Path) -> None:
    file = tmp_path / "r.yaml"
    file.write_text(EXAMPLE)
    assert load(file).body.seed == 17
    file.write_text(changed("seed: 17", "sede: 17"))
    with pytest.raises(RecipeError, match=rf"{file}:6: sede: unknown field; did you mean 'seed'"):
        load(file)


def test_files_that_are_no_recipe(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="there is no such recipe"):
        load(tmp_path / "none.yaml")
    with pytest.raises(RecipeError, match="Is a directory"):
        load(tmp_path)
    file = tmp_path / "latin.yaml"
    file.write_bytes("name: é".encode("latin-1"))
    with pytest.raises(RecipeError, match="not UTF-8"):
        load(file)


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        (
            "op: dedup.minhash, ",
            "op: dedup.minhsh, ",
            "recipe.yaml:11: stages.2.op: there is no op 'dedup.minhsh'; "
            "did you mean 'dedup.minhash'?; `longctx ops` lists the ops",
        ),
        (
            "threshold: 0.8",
            "treshold: 0.8",
            "recipe.yaml:11: stages.2.treshold: unknown field; did you mean 'threshold'?; fields: ",
        ),
        (
            "threshold: 0.8",
            "threshold: high",
            "recipe.yaml:11: stages.2.threshold: should be a valid number, "
            "unable to parse string as a number, got 'high'",
        ),
        (
            "threshold: 0.8",
            "threshold: 7",
            "recipe.yaml:11: stages.2.threshold: should be less than or equal to 1, got 7",
        ),
        (
            "min: 1024",
            "mn: 1024",
            "recipe.yaml:10: stages.1.rules.n_tokens.mn: unknown field; did you mean 'min'?; "
            "fields: max, min",
        ),
        (
            "min: 1024",
            "min: 5, max: 1",
            "recipe.yaml:10: stages.1.rules.n_tokens: min 5 is above max 1",
        ),
        (
            EMBED,
            "",
            "recipe.yaml:12: stages.3: dedup.semantic reads `embedding`, `emb_cover`, which no "
            "earlier stage writes; add `embed` before it",
        ),
        (
            "n_tokens",
            "n_token",
            "recipe.yaml:10: stages.1: decide reads `n_token`, which no earlier stage writes; "
            "did you mean 'n_tokens'?",
        ),
        (
            "  - {op: dedup.minhash, threshold: 0.8}\n" + EMBED,
            EMBED.replace("embed, ", "dedup.semantic, eps: 0.05, ").replace(
                ", model: sentence-transformers/all-MiniLM-L6-v2", ""
            )
            + EMBED,
            "recipe.yaml:11: stages.2: dedup.semantic reads `embedding`, `emb_cover`, which no "
            "earlier stage writes; move `embed` before it",
        ),
        (
            "  - {op: cluster.kmeans}\n  - {op: order.icp}\n",
            "  - {op: order.icp}\n  - {op: pack}\n",
            "recipe.yaml:15: stages.6: `pack` must be the last stage",
        ),
        (
            "{op: cluster.kmeans}",
            "cluster.kmeans",
            "recipe.yaml:14: stages.5: a stage is a mapping with an `op`, such as "
            "`- {op: dedup.exact}`, got 'cluster.kmeans'",
        ),
        (
            "source: code}",
            "}",
            "recipe.yaml:4: input.1: an input needs `source` or `source_field`",
        ),
        (
            "text: text",
            "format: jsnl",
            "recipe.yaml:3: input.0.format: should be 'auto', 'jsonl', 'parquet' or 'text', "
            "got 'jsnl'; did you mean 'jsonl'?",
        ),
        (
            "text: text",
            "language: no",
            "recipe.yaml:3: input.0.language: should be a valid string, got False; "
            "put text in quotes",
        ),
        (
            "text: text",
            "encoding: utf9",
            "recipe.yaml:3: input.0.encoding: there is no such text encoding (utf-8, latin-1, …), "
            "got 'utf9'",
        ),
        (
            "text: text",
            "encoding: utf-16",
            "recipe.yaml:3: input.0: lines cannot be told apart in utf-16: convert the files to "
            "utf-8, or set `format: text` if each file is one document",
        ),
        ('"s3://raw/code/"', "[a, 3]", "recipe.yaml:4: input.1.path.1: should be a valid string"),
        ('"s3://raw/code/"', "[]", "recipe.yaml:4: input.1.path: at least 1 is needed, got []"),
        ('"s3://raw/code/"', "''", "recipe.yaml:4: input.1.path: the path is empty, got ''"),
        ("seed: 17", "1: 2", "recipe.yaml:6: 1: keys should be strings, got 1"),
        (
            "[parquet, mds]",
            "[parquet, mdz]",
            "recipe.yaml:17: output.format.1: should be 'parquet', 'mds', 'megatron', 'ds', "
            "'jsonl', 'webdataset' or 'trl', got 'mdz'; did you mean 'mds'?",
        ),
        ("{path: embedded}", "", "recipe.yaml:7: tokenizer: should be a mapping of fields, got"),
        (
            "seed: 17",
            "engine: {part_mb: .inf}",
            "recipe.yaml:6: engine.part_mb: should be a finite number, got inf",
        ),
        ("seed: 17", "seed: -1", "recipe.yaml:6: seed: should be greater than or equal to 0"),
    ],
)
def test_message_names_line_field_expected_and_got(old: str, new: str, expected: str) -> None:
    lines = problems(changed(old, new))
    assert any(line.startswith(expected) for line in lines), lines


@pytest.mark.parametrize(
    ("text", "expected", "remedy"),
    [
        (changed("seed: 17", "seed: 17\nseed: 18"), ":7: not valid YAML: the key `seed`", "keep"),
        (changed("  - {op: decide", "\t- {op: decide"), ":10: not valid YAML: while", "tabs"),
        (changed("mds]", "mds"), ":17: not valid YAML: while parsing a flow", "quotes"),
        (EXAMPLE + "---\na: b\n", ":18: not valid YAML: expected a single document", "check"),
        (changed("source: code", "source: 2024-99-99"), ": not valid YAML: month", "quotes"),
        (EXAMPLE + "? [a]\n: 2\n", ":18: not valid YAML: .*unhashable key", "check"),
        ("[" * 5000, ": not valid YAML: nested too deeply", "give a recipe"),
        ("a: \x00", ": not valid YAML: unacceptable character", "quotes"),
        ("", ": a recipe is a mapping, got an empty file", "name:"),
        ("[a]", ": a recipe is a mapping, got list", "name:"),
    ],
)
def test_yaml_that_cannot_be_read(text: str, expected: str, remedy: str) -> None:
    with pytest.raises(RecipeError, match=f"^recipe.yaml{expected}") as caught:
        parse(text, origin="recipe.yaml")
    assert remedy in caught.value.remedy


def test_several_problems_are_reported_in_one_go() -> None:
    text = (
        changed("op: dedup.minhash, threshold: 0.8", "op: dedup.minhash, treshold: 7")
        .replace("seed: 17", "sede: 17\nengine: {part_mb: -3}")
        .replace(EMBED, "")
    )
    lines = problems(text)
    for field in ("sede", "engine.part_mb", "stages.2.treshold", "stages.3"):
        assert any(f" {field}: " in line for line in lines), lines
    assert lines[-1] == "  remedy: correct the recipe; nothing was run"


def test_one_missing_stage_is_one_problem() -> None:
    assert len(problems(changed(EMBED, ""))) == 2


def test_nothing_is_said_about_columns_after_an_unknown_op() -> None:
    lines = problems(changed("op: embed", "op: embd"))
    assert len([line for line in lines if "stages." in line]) == 1


def test_yaml_anchors_and_merges_are_plain_yaml() -> None:
    text = changed(
        "  - {op: cluster.kmeans}\n",
        "  - &k {op: cluster.kmeans}\n  - {<<: *k}\n",
    )
    assert parse(text).stage_names()[5:7] == ["06-cluster.kmeans", "07-cluster.kmeans"]


def test_override_replaces_a_value_and_leaves_the_text_alone() -> None:
    recipe = parse(EXAMPLE, overrides=["stages.2.threshold=0.7", "engine.part_mb=3", "seed=1"])
    assert recipe.ops[2].model_dump()["threshold"] == 0.7
    assert recipe.body.engine.part_mb == 3
    assert recipe.body.seed == 1
    assert recipe.raw["stages"][2]["threshold"] == 0.7


def test_override_of_a_dictionary_does_not_touch_the_callers() -> None:
    raw = yaml.safe_load(EXAMPLE)
    before = copy.deepcopy(raw)
    assert from_dict(raw, ["seed=99"]).body.seed == 99
    assert raw == before


def test_override_works_beside_dates() -> None:
    text = changed("source: arxiv", "source: 2024-01-01")
    assert "put text in quotes" in problems(text, "seed=1")[0]


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("stages.2.threshold=7", "stages.2.threshold: should be less than or equal to 1, got 7"),
        ("stages.2.treshold=0.7", "stages.2.treshold: unknown field; did you mean 'threshold'?"),
        ("egine.part_mb=3", "egine: unknown field; did you mean 'engine'?"),
        ("stages.9.x=1", "`stages` has no element `9`"),
        ("stages.-1.x=1", "`stages` has no element `-1`"),
        ("stages.²=1", "`stages` has no element `²`"),
        ("name.x=1", "`name` is a single value, it has no field `x`"),
        ("seed", "an override is `key.path=value`"),
        ("=3", "an override is `key.path=value`"),
        ("a..b=3", "an override is `key.path=value`"),
        ("seed=[", "the value is not YAML"),
        ("seed=2024-99-99", "the value is not YAML"),
    ],
)
def test_wrong_override_is_named_instead_of_the_file(override: str, expected: str) -> None:
    assert problems(EXAMPLE, override)[0].startswith(f"--set {override}: {expected}")


def test_missing_element_lists_the_stages() -> None:
    assert "2 dedup.minhash" in problems(EXAMPLE, "stages.dedup.x=1")[-1]


def test_the_last_of_two_overrides_counts() -> None:
    assert parse(EXAMPLE, overrides=["seed=1", "seed=2"]).body.seed == 2


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
