"""`run` and `plan`: the two functions that the command line, Python and jobs share."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from longctx.engine.manifest import RunRecord
from longctx.engine.planning import Plan
from longctx.engine.progress import Reporter
from longctx.recipe import Recipe, from_dict, load

if TYPE_CHECKING:
    from longctx.engine.scaling import ScalePlan


def run(
    recipe: str | Path | dict[str, Any] | Recipe,
    overrides: Sequence[str] = (),
    *,
    reporter: Reporter | None = None,
    num_cpus: int | None = None,
    verify: bool = False,
) -> RunRecord:
    """Run a recipe (a file, a dictionary or a Recipe) and write its report.

    What an earlier run in the same run folder committed, and is still valid, is skipped; with
    `verify` its files are first compared with their checksums, else with their sizes. Raises
    RecipeError for a wrong recipe and RunError when the run cannot go on.
    """
    from longctx.engine.pipeline import execute
    from longctx.report.collect import write_report

    record = execute(
        _recipe(recipe, overrides), reporter=reporter, num_cpus=num_cpus, verify=verify
    )
    write_report(record.run_dir)
    return record


def plan(recipe: str | Path | dict[str, Any] | Recipe, overrides: Sequence[str] = ()) -> Plan:
    """What a run would read, do and skip, without starting Ray or reading a row of text."""
    from longctx.engine.planning import make_plan

    return make_plan(_recipe(recipe, overrides))


def plan_at(
    recipe: str | Path | dict[str, Any] | Recipe,
    overrides: Sequence[str] = (),
    *,
    docs: float | None = None,
    tokens_per_doc: float | None = None,
    nodes: int = 1,
    cores_per_node: int | None = None,
    memory_per_node: float | None = None,
    gpus: float = 0,
) -> "ScalePlan":
    """What a recipe would take for `docs` documents on a cluster; defaults are those of here.

    Inputs are looked at only for what is not given. `memory_per_node` is in bytes.
    """
    from longctx.cost.model import Cluster
    from longctx.engine.scaling import cores_here, memory_here, plan_size

    cores, memory = cores_per_node or cores_here(), memory_per_node or memory_here()
    cluster = Cluster(nodes, cores, memory, gpus)
    return plan_size(_recipe(recipe, overrides), docs, tokens_per_doc, cluster)


def _recipe(recipe: str | Path | dict[str, Any] | Recipe, overrides: Sequence[str]) -> Recipe:
    if isinstance(recipe, Recipe):
        return recipe
    if isinstance(recipe, dict):
        return from_dict(recipe, overrides)
    return load(recipe, overrides)
