"""The record of a run that mixed, made by the code that makes it, of documents that are planted."""

import json
from functools import lru_cache
from typing import Any

import numpy as np
import pyarrow as pa

from longctx.mixture.account import account
from longctx.mixture.census import add_cells, buckets, count_cells, edges_with
from longctx.mixture.chance import copies, uniforms
from longctx.mixture.plan import build_plan
from longctx.mixture.planned import Plan
from longctx.mixture.realised import Taken, realised
from longctx.mixture.rules import Fixed, KeepBelow, Settings
from longctx.mixture.strategies import compare_strategies, natural_mix
from tests.report.mixed import weights_file
from tests.report.recorded import Json, record, stage

STAGE = "03-mix.weights"
SEED = 17
_DOCS = {"web": (4_000, 800, 1.1), "books": (60, 60_000, 0.7), "code": (900, 2_500, 1.4)}


@lru_cache
def mixture(mark: str = "", evidence: bool = True) -> dict[str, Any]:
    """What `summary.mixture` of the stage holds; `mark` stands before every name."""
    rng = np.random.default_rng(0)
    names, sizes = [], []
    for source, (docs, middle, spread) in _DOCS.items():
        names += [mark + source] * docs
        sizes += np.exp(rng.normal(np.log(middle), spread, docs)).astype(np.int64).tolist()
    size = np.array(sizes)
    edges = edges_with([4096])
    census = add_cells([count_cells(pa.array(names), size, None, edges)], edges)
    asked = weights_file("law", mark)["weights"]
    plan = build_plan(
        census,
        Settings(budget=9e6, calibrate="never", max_epochs=4),
        Fixed(kind="fixed", shares=asked),
        KeepBelow(kind="keep_below", threshold=4096, p=0.3),
        seed=SEED,
    )
    found = account(
        plan,
        realised(plan, _taken(plan, names, size, edges)),
        natural_mix(census, 4096),
        compare_strategies(census, 9e6),
        weights_file("law", mark)["evidence"] if evidence else None,
    )
    told: dict[str, Any] = json.loads(json.dumps(found))
    return told


def _taken(plan: Plan, names: list[str], size: Any, edges: Any) -> dict[Any, Taken]:
    """Documents and copies of every cell, by the rates of the plan."""
    u = uniforms(SEED, [f"doc-{i}" for i in range(len(names))], "mixture")
    place = buckets(size, edges)
    found = {}
    for cell, (_, planned) in plan.cells().items():
        inside = (np.array(names) == cell.source) & (place == cell.bucket)
        many = copies(np.full(inside.sum(), planned.rate), u[inside], plan.max_epochs)
        found[cell] = Taken(
            int(inside.sum()),
            int(size[inside].sum()),
            int((many > 0).sum()),
            int(many.sum()),
            int((many * size[inside]).sum()),
        )
    return found


def run_json(mark: str = "", evidence: bool = True) -> Json:
    """The record of a whole run with this stage."""
    mixed = stage(3, "mix.weights", 9)
    mixed["summary"]["mixture"] = json.loads(json.dumps(mixture(mark, evidence)))
    stages = record()["stages"]
    return record([*stages[:3], mixed, *stages[3:]], name=f"{mark}small")
