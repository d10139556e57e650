"""`run` and `plan`: the two functions that the command line, Python and jobs share."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from longctx.engine.manifest import RunRecord
from longctx.engine.planning import Plan
from longctx.engine.progress import Reporter
from longctx.recipe import Recipe, from_dict, load


def run(
    recipe: str | Path | dict[str, Any] | Recipe,
    overrides: Sequence[str] = (),
    *,
    reporter: Reporter | None = None,
    num_cpus: int | None = None,
) -> RunRecord:
    """Run a recipe (a file, a dictionary or a Recipe) and write its report.

    What an earlier run in the same run folder committed, and is still valid, is skipped. Raises
    RecipeError for a wrong recipe and RunError when the run cannot go on.
    """
    from longctx.engine.pipeline import execute
    from longctx.report.collect import write_report

    record = execute(_recipe(recipe, overrides), reporter=reporter, num_cpus=num_cpus)
    write_report(record.run_dir)
    return record


def plan(recipe: str | Path | dict[str, Any] | Recipe, overrides: Sequence[str] = ()) -> Plan:
    """What a run would read, do and skip, without starting Ray or reading a row of text."""
    from longctx.engine.planning import make_plan

    return make_plan(_recipe(recipe, overrides))


def _recipe(recipe: str | Path | dict[str, Any] | Recipe, overrides: Sequence[str]) -> Recipe:
    if isinstance(recipe, Recipe):
        return recipe
    if isinstance(recipe, dict):
        return from_dict(recipe, overrides)
    return load(recipe, overrides)
