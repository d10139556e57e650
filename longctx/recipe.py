"""Recipes: plain YAML in, frozen models out, and errors that name file, line, field and remedy.

No class paths, no imports, no evaluation: `op` picks one of the registered ops, unknown fields are
refused, and `key.path=value` overrides are parsed as YAML scalars. `${NAME}` in paths is replaced
from the environment; what is recorded are the names. URLs with credentials are refused.
"""

import copy
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    TypeAdapter,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic.json_schema import models_json_schema

from longctx.engine.op import Op
from longctx.errors import RecipeError
from longctx.location import Location
from longctx.recipe_errors import Located, explain, refuse_credentials, shown
from longctx.recipe_stages import (
    misplaced,
    out_of_turn,
    unknown_sources,
    unread_fields,
    unused_formats,
)
from longctx.registry import OPS, resolve


class Strict(BaseModel):
    """Frozen, and no field that the model does not name."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", populate_by_name=True, allow_inf_nan=False
    )


def _shape(value: Any) -> str:
    return "several" if isinstance(value, list) else "one"


_Several = Annotated[list[Location], Field(min_length=1)]
_Locations = Annotated[
    Annotated[Location, Tag("one")] | Annotated[_Several, Tag("several")], Discriminator(_shape)
]


class Input(Strict):
    """Where documents come from and which fields they have.

    `path` is a file, a folder or a glob (or a list of them). `source` names the corpus; with
    `source_field` it is taken from each row. Without `id` ids are derived from the file's place
    below the path and the row number. `constants` fills language and licence for formats that have
    no fields. `encoding` is the one of JSONL lines and text files.
    """

    model_config = ConfigDict(
        json_schema_extra={"anyOf": [{"required": ["source"]}, {"required": ["source_field"]}]}
    )

    path: _Locations
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

    @field_validator("encoding")
    @classmethod
    def _is_known(cls, value: str) -> str:
        try:
            "a".encode(value)
        except LookupError:
            raise ValueError("there is no such text encoding (utf-8, latin-1, …)") from None
        return value

    @model_validator(mode="after")
    def _is_complete(self) -> "Input":
        if self.source is None and self.source_field is None:
            raise ValueError("an input needs `source` or `source_field`")
        if self.format in ("auto", "jsonl") and not _marks_lines(self.encoding):
            raise ValueError(
                f"lines cannot be told apart in {self.encoding}: convert the files to utf-8, or "
                "set `format: text` if each file is one document"
            )
        return self

    @property
    def paths(self) -> list[str]:
        """The paths as a list."""
        return [self.path] if isinstance(self.path, str) else list(self.path)


def _marks_lines(encoding: str) -> bool:
    """Whether the byte 0x0A is a line end in an encoding, and nothing else is."""
    try:
        return b"{\n".decode(encoding) == "{\n"
    except UnicodeError:
        return False


class Output(Strict):
    """Where windows are written, and in which formats beside the canonical Parquet.

    Each of the others has a folder of its own below the output; Parquet is always written.
    """

    path: Location | None = None
    format: list[Literal["parquet", "mds", "megatron", "ds", "jsonl", "webdataset", "trl"]] = [
        "parquet"
    ]


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

    @property
    def part_bytes(self) -> int:
        """Bytes of text in one part."""
        return int(self.part_mb * 1_000_000)

    @property
    def batch_bytes(self) -> int:
        """Bytes of text in one batch."""
        return int(self.batch_mb * 1_000_000)

    @property
    def exchange_bytes(self) -> int:
        """Bytes that one bucket of an exchange may hold."""
        return int(self.exchange_mb * 1_000_000)


class RecipeBody(Strict):
    """A recipe without its stages, which are validated by op."""

    name: str = Field(min_length=1, pattern=r"^[\w.-]+$")
    input: list[Input] = Field(min_length=1)
    run_dir: Location
    seed: int = Field(0, ge=0, lt=2**63)
    tokenizer: TokenizerSpec = TokenizerSpec()
    stages: list[Any] = Field(min_length=1)
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
        """Identity of what is computed: ops, seed, tokenizer and inputs in canonical order.

        Paths count as they are written, so that neither a secret nor the place of a folder on one
        machine is part of it.
        """
        inputs = [
            {**entry.model_dump(mode="json", exclude={"path"}), "path": _sorted(raw["path"])}
            for entry, raw in zip(self.body.input, self.raw["input"], strict=True)
        ]
        content = {
            "inputs": sorted(json.dumps(i, sort_keys=True) for i in inputs),
            "seed": self.body.seed,
            "tokenizer": (self.raw.get("tokenizer") or {}).get("path", TokenizerSpec().path),
            "stages": [op.fingerprint_fields() for op in self.ops],
        }
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]

    def stage_names(self) -> list[str]:
        """`01-score.heuristics`, … : an op at its place in the recipe."""
        return [f"{i:02d}-{op.op}" for i, op in enumerate(self.ops, start=1)]


def _sorted(paths: str | list[str]) -> list[str]:
    return [paths] if isinstance(paths, str) else sorted(paths)


def load(path: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """Read and validate a recipe file. Raises RecipeError naming file, line and field."""
    try:
        text = Path(path).read_text(encoding="utf-8")
    except FileNotFoundError:
        raise RecipeError(
            "there is no such recipe", where=str(path), remedy="check the path"
        ) from None
    except UnicodeDecodeError as error:
        raise RecipeError(
            f"the recipe is not UTF-8: {error.reason} at byte {error.start}",
            where=str(path),
            remedy="save the file as UTF-8",
        ) from None
    except OSError as error:
        raise RecipeError(
            f"the recipe cannot be read: {error.strerror or error}",
            where=str(path),
            remedy="give a YAML file that you may read",
        ) from None
    return parse(text, origin=str(path), overrides=overrides)


def parse(text: str, *, origin: str = "<recipe>", overrides: Sequence[str] = ()) -> Recipe:
    """Validate a recipe given as YAML text."""
    located = Located.parse(text, origin).override(overrides)
    return validate(located.value, located)


def from_dict(raw: dict[str, Any], overrides: Sequence[str] = ()) -> Recipe:
    """Validate a recipe given as a dictionary (Python API)."""
    located = Located(copy.deepcopy(raw), "<dict>", None).override(overrides)
    return validate(located.value, located)


def validate(raw: Any, located: Located) -> Recipe:
    """Turn plain data into a Recipe, or raise one RecipeError that lists every problem."""
    if not isinstance(raw, dict):
        got = "an empty file" if raw is None else type(raw).__name__
        raise RecipeError(
            f"a recipe is a mapping, got {got}",
            where=located.origin,
            remedy="start with `name:`, `input:`, `run_dir:` and `stages:`",
        )
    refuse_credentials(located)
    problems: list[str] = []
    body = None
    try:
        body = RecipeBody.model_validate(raw)
    except ValidationError as error:
        problems += explain(error, located, (), RecipeBody)
    stages = raw.get("stages")
    ops = (
        [_op(stage, i, located, problems) for i, stage in enumerate(stages)]
        if isinstance(stages, list)
        else []
    )
    problems += misplaced(stages, ops, located) if isinstance(stages, list) else []
    problems += out_of_turn(ops, located)
    problems += unused_formats(raw.get("output"), ops, located)
    if body is not None:
        problems += unknown_sources(body, ops, located) + unread_fields(body, ops, located)
    if problems or body is None:
        raise RecipeError("\n".join(problems), remedy="correct the recipe; nothing was run")
    resolved = _with_context_length([op for op in ops if op is not None])
    return Recipe(body, resolved, raw, located.origin)


def _with_context_length(ops: list[Op]) -> tuple[Op, ...]:
    """Ops that build whole contexts (`length: null`) take the length that `pack` will use."""
    packs = [op for op in ops if op.op == "pack"]
    length = packs[-1].context_length() if packs else None
    wanting = (getattr(op, "length", 0) is None for op in ops)
    return tuple(
        op.model_copy(update={"length": length}) if wants else op
        for op, wants in zip(ops, wanting, strict=True)
    )


def _op(stage: Any, index: int, located: Located, problems: list[str]) -> Op | None:
    place = ("stages", index)
    if not isinstance(stage, dict) or not isinstance(stage.get("op"), str):
        problems.append(
            f"{located.at(place)}: a stage is a mapping with an `op`, such as "
            f"`- {{op: dedup.exact}}`, got {shown(stage)}"
        )
        return None
    try:
        kind = resolve(stage["op"])
        return kind.model_validate(stage)
    except RecipeError as error:
        problems.append(f"{located.at((*place, 'op'))}: {error.message}; {error.remedy}")
    except ValidationError as error:
        problems.extend(explain(error, located, place, kind))
    return None


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
