"""`plan --docs --nodes`: what a recipe would take at a size and on a cluster that are not here.

The mean document is that of the inputs, unless tokens are given; no row is assumed to be dropped,
so all figures are upper bounds. The estimates are those of `cost/model.py`.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil
from typing import Any

from longctx.cost.coefficients import packaged
from longctx.cost.laws import Size, form_of
from longctx.cost.model import Cluster, Estimate, Limits, Measured, estimate
from longctx.engine import ingest
from longctx.engine.op import Model, Op
from longctx.errors import RecipeError
from longctx.recipe import Recipe

MEGABYTE = 1_000_000


@dataclass(frozen=True)
class StageScale:
    """A stage at that size; `estimate` is None where its op was not measured in this form."""

    stage: str
    op: str
    form: str
    gpu: bool
    estimate: Estimate | None


@dataclass(frozen=True)
class ScalePlan:
    """The whole recipe: `docs` documents of `text_bytes` in all, in `parts` parts.

    `driver_bytes` is what the driver holds for the units of the stage that has most.
    """

    name: str
    docs: float
    text_bytes: float
    parts: int
    cluster: Cluster
    stages: list[StageScale]
    driver_bytes: float
    measured: Mapping[str, Any]

    @property
    def known(self) -> list[Estimate]:
        """The estimates of the stages that were measured."""
        return [s.estimate for s in self.stages if s.estimate is not None]

    @property
    def unknown(self) -> list[str]:
        """Stages that were not."""
        return [s.stage for s in self.stages if s.estimate is None]


def stage_estimate(
    name: str, op: Op, size: Size, cluster: Cluster, limits: Limits, measured: Measured
) -> StageScale:
    """One stage of a recipe at a size."""
    settings = op.model_dump(mode="json")
    sized = size._replace(clusters=op.clusters(max(1, int(size.docs))))
    found = estimate(op.op, settings, sized, measured, cluster, limits)
    gpu = isinstance(op, Model) and op.num_gpus > 0
    return StageScale(name, op.op, form_of(op.op, settings, size.docs), gpu, found)


def limits_of(recipe: Recipe) -> Limits:
    """What the recipe says of parts and buckets."""
    return Limits(recipe.body.engine.part_bytes, recipe.body.engine.exchange_bytes)


def cores_here() -> int:
    """Cores of this machine."""
    return os.cpu_count() or 1


def memory_here() -> float:
    """Bytes of memory of this machine."""
    return float(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))


def plan_size(
    recipe: Recipe, docs: float | None, tokens_per_doc: float | None, cluster: Cluster
) -> ScalePlan:
    """Estimate a recipe for a number of documents; what is not given is that of its inputs.

    Raises RecipeError where the inputs are needed and hold no rows.
    """
    from longctx.engine.planning import inputs_of

    measured = packaged()
    mean = tokens_per_doc * measured.token_bytes if tokens_per_doc else None
    if docs is None or mean is None:
        inputs = inputs_of(recipe)
        rows, text = sum(i.rows for i in inputs), sum(i.text_bytes for i in inputs)
        if not rows:
            raise RecipeError(
                "the inputs hold no rows, so there is no mean document",
                where="input",
                remedy="give --docs and --tokens-per-doc",
            )
        docs, mean = docs or rows, mean or text / rows
    return make_scale_plan(recipe, cluster, docs, docs * mean, measured)


def make_scale_plan(
    recipe: Recipe,
    cluster: Cluster,
    docs: float,
    text_bytes: float,
    measured: Measured | None = None,
) -> ScalePlan:
    """Estimate every stage for `docs` documents of `text_bytes` UTF-8 bytes in all."""
    measured = measured or packaged()
    limits, size = limits_of(recipe), Size(docs, text_bytes / MEGABYTE)
    named: list[tuple[str, Op]] = [
        (ingest.STAGE, ingest.CheckIds()),
        *zip(recipe.stage_names(), recipe.ops, strict=True),
    ]
    stages = [stage_estimate(n, op, size, cluster, limits, measured) for n, op in named]
    units = max((s.estimate.units for s in stages if s.estimate), default=0)
    parts = ceil(text_bytes / limits.part_bytes)
    # Commits of the result and of the other steps of a stage, and names of all files so far.
    held = measured.part_bytes * parts + measured.unit_bytes * (units + parts * len(stages))
    return ScalePlan(
        recipe.body.name, docs, text_bytes, parts, cluster, stages, held, measured.when
    )
