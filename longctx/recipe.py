"""Recipes: plain YAML in, frozen models out, and errors that name file, line, field and remedy.

No class paths, no imports, no evaluation: `op` picks one of the registered ops, unknown fields are
refused, and `key.path=value` overrides are parsed as YAML scalars. `${NAME}` in paths is replaced
from the environment after the recipe was recorded, so that a secret in a path is not written down.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.json_schema import models_json_schema

from longctx.engine.op import Op
from longctx.errors import RecipeError
from longctx.location import Location
from longctx.recipe_errors import Located, explain
from longctx.registry import OPS, resolve


class Strict(BaseModel):
    """Frozen, and no field that the model does not name."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)


class Input(Strict):
    """Where documents come from and which fields they have.

    `path` is a file, a folder or a glob (or a list of them). `source` names the corpus; with
    `source_field` it is taken from each row. Without `id` ids are derived from the file's place
    below the path and the row number. `constants` fills language and licence for formats that have
    no fields.
    """

    path: Location | list[Location]
    source: str | None = Field(None, min_length=1)
    format: Literal["auto", "jsonl", "parquet", "text"] = "auto"
    text: str = "text"
    id: str | None = None
    source_field: str | None = None
    language: str | None = "language"
    license: str | None = "license"
    meta: list[str] = []
    constants: dict[Literal["language", "license"], str] = {}
    encoding: str = "utf-8"

    @property
    def paths(self) -> list[str]:
        """The paths as a list."""
        return [self.path] if isinstance(self.path, str) else list(self.path)


class Output(Strict):
    """Where windows are written, and in which formats beside the canonical Parquet."""

    path: Location | None = None
    format: list[Literal["parquet", "mds"]] = ["parquet"]


class TokenizerSpec(Strict):
    """`embedded`, a path to a tokenizer.json (or its folder), or a Hugging Face name."""

    path: Location = "embedded"


class Engine(Strict):
    """Limits of the run; none of them changes a byte of the windows.

    `part_mb` is the text of one part in megabytes, `batch_mb` that of one batch inside a worker;
    `workers` bounds the parallel tasks (default: all CPUs of the cluster).
    """

    part_mb: float = Field(64, gt=0)
    batch_mb: float = Field(8, gt=0)
    workers: int | None = Field(None, ge=1)
    exchange_mb: float = Field(256, gt=0)
    max_quarantine_fraction: float = Field(0.01, ge=0, le=1)


class RecipeBody(Strict):
    """A recipe without its stages, which are validated by op."""

    name: str = Field(min_length=1, pattern=r"^[\w.-]+$")
    input: list[Input] = Field(min_length=1)
    run_dir: Location
    seed: int = Field(0, ge=0, lt=2**63)
    tokenizer: TokenizerSpec = TokenizerSpec()
    stages: list[dict[str, Any]] = Field(min_length=1)
    output: Output = Output()
    engine: Engine = Engine()


@dataclass(frozen=True)
class Recipe:
    """A validated recipe: `body` and `ops` are resolved, `raw` is what the user wrote."""

    body: RecipeBody
    ops: tuple[Op, ...]
    raw: dict[str, Any]
    origin: str

    @property
    def fingerprint(self) -> str:
        """Identity of what is computed: ops, seed, tokenizer and inputs in canonical order."""
        inputs = sorted(json.dumps(i, sort_keys=True) for i in self.raw["input"])
        content = {
            "inputs": inputs,
            "seed": self.body.seed,
            "tokenizer": self.raw.get("tokenizer", {}),
            "stages": [op.fingerprint_fields() for op in self.ops],
        }
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]

    def stage_names(self) -> list[str]:
        """`01-score.heuristics`, … : an op at its place in the recipe."""
        return [f"{i:02d}-{op.op}" for i, op in enumerate(self.ops, start=1)]


def load(path: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """Read and validate a recipe file. Raises RecipeError naming file, line and field."""
    try:
        text = Path(path).read_text(encoding="utf-8")
    except FileNotFoundError:
        raise RecipeError(
            "there is no such recipe", where=str(path), remedy="check the path"
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(f"the recipe cannot be read: {error}", where=str(path)) from None
    return parse(text, origin=str(path), overrides=overrides)


def parse(text: str, *, origin: str = "<recipe>", overrides: Sequence[str] = ()) -> Recipe:
    """Validate a recipe given as YAML text."""
    located = Located.parse(text, origin)
    raw = located.value
    for override in overrides:
        raw = _override(raw, override)
    return validate(raw, located)


def from_dict(raw: dict[str, Any], overrides: Sequence[str] = ()) -> Recipe:
    """Validate a recipe given as a dictionary (Python API)."""
    for override in overrides:
        raw = _override(raw, override)
    return validate(raw, Located(raw, "<dict>", None))


def validate(raw: Any, located: Located) -> Recipe:
    """Turn plain data into a Recipe, or raise one RecipeError that lists every problem."""
    if not isinstance(raw, dict):
        raise RecipeError(
            f"a recipe is a mapping, got {type(raw).__name__}",
            where=located.origin,
            remedy="start with `name:`, `input:`, `run_dir:` and `stages:`",
        )
    problems: list[str] = []
    body = None
    try:
        body = RecipeBody.model_validate(raw)
    except ValidationError as error:
        problems += explain(error, located, (), RecipeBody)
    stages = raw.get("stages")
    ops = (
        [_op(stage, i, located, problems) for i, stage in enumerate(stages or [])]
        if isinstance(stages, list)
        else []
    )
    if problems or body is None:
        raise RecipeError("\n".join(problems), remedy="correct the recipe; nothing was run")
    recipe = Recipe(body, tuple(op for op in ops if op is not None), raw, located.origin)
    if problems := _check(recipe, located):
        raise RecipeError("\n".join(problems), remedy="correct the recipe; nothing was run")
    return recipe


def _op(stage: Any, index: int, located: Located, problems: list[str]) -> Op | None:
    place = ("stages", index)
    if not isinstance(stage, dict) or not isinstance(stage.get("op"), str):
        problems.append(f"{located.at(place)}: a stage is a mapping with an `op`, got {stage!r}")
        return None
    try:
        kind = resolve(stage["op"])
        return kind.model_validate(stage)
    except RecipeError as error:
        problems.append(f"{located.at((*place, 'op'))}: {error.message}")
    except ValidationError as error:
        problems.extend(explain(error, located, place, resolve(stage["op"])))
    return None


def _check(recipe: Recipe, located: Located) -> list[str]:
    """What single fields cannot tell: sources, columns that an earlier stage must write."""
    problems = [
        f"{located.at(('input', i))}: an input needs `source` or `source_field`"
        for i, entry in enumerate(recipe.body.input)
        if entry.source is None and entry.source_field is None
    ]
    known = {"doc_id", "text", "source", "language", "license", "meta"}
    for index, op in enumerate(recipe.ops):
        for column in op.reads_columns():
            if column not in known:
                writer = _writer(column)
                hint = f"add a `{writer}` stage before it" if writer else ""
                problems.append(
                    f"{located.at(('stages', index))}: {op.op} reads the column `{column}`, which "
                    f"no earlier stage writes{'; ' + hint if hint else ''}"
                )
        known |= set(op.writes)
    for index, op in enumerate(recipe.ops[:-1]):
        if op.op == "pack":
            problems.append(f"{located.at(('stages', index))}: `pack` must be the last stage")
    return problems


def _writer(column: str) -> str | None:
    """An op that writes a column. Imports every op, so it is asked only for an error."""
    return next((name for name in OPS if column in resolve(name).writes), None)


def _override(raw: Any, override: str) -> Any:
    """Apply one `key.path=value`; list elements are named by number."""
    path, equals, text = override.partition("=")
    where = f"--set {override}"
    if not equals or not path:
        raise RecipeError("an override is `key.path=value`", where=where)
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise RecipeError(f"the value is not YAML: {error}", where=where) from None
    raw = json.loads(json.dumps(raw))
    node, keys = raw, path.split(".")
    for depth, key in enumerate(keys):
        last = depth == len(keys) - 1
        if isinstance(node, list):
            if not key.isdigit() or int(key) >= len(node):
                raise RecipeError(
                    f"`{'.'.join(keys[:depth])}` has elements 0 to {len(node) - 1}, got `{key}`",
                    where=where,
                )
            key_or_index: int | str = int(key)
        elif isinstance(node, dict):
            key_or_index = key
        else:
            raise RecipeError(f"`{'.'.join(keys[:depth])}` is a single value", where=where)
        if last:
            node[key_or_index] = value
        elif isinstance(node, dict):
            node = node.setdefault(key, {})
        else:
            node = node[int(key)]
    return raw


def json_schema() -> dict[str, Any]:
    """JSON Schema of a recipe, with every registered op, for editors."""
    classes = [resolve(name) for name in OPS]
    _, definitions = models_json_schema([(c, "validation") for c in classes])
    schema = TypeAdapter(RecipeBody).json_schema()
    schema.setdefault("$defs", {}).update(definitions["$defs"])
    for cls in classes:
        definition = schema["$defs"][cls.__name__]
        definition["description"] = cls.summary
        definition["required"] = sorted({*definition.get("required", []), "op"})
    schema["properties"]["stages"]["items"] = {
        "oneOf": [{"$ref": f"#/$defs/{c.__name__}"} for c in classes],
        "discriminator": {
            "propertyName": "op",
            "mapping": {n: f"#/$defs/{c.__name__}" for n, c in zip(OPS, classes, strict=True)},
        },
    }
    return schema
