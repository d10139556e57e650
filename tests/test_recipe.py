"""Recipes: every mistake is named with file, line, field and remedy; nothing secret is kept."""

import copy
from pathlib import Path

import pytest
import yaml

from longctx.errors import RecipeError
from longctx.recipe import from_dict, load, parse

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
