"""How many processes ask a stage's model, where their answers are kept, what ends a stage."""

from collections import Counter
from collections.abc import Mapping
from typing import Any

from longctx.engine import cluster, commit
from longctx.engine.barrier import BarrierContext
from longctx.engine.op import Setting
from longctx.errors import RunError
from longctx.llm.ask import CallStage
from longctx.llm.rejects import StageCount
from longctx.llm.spec import GeneratorSpec, LocalGenerator, ScriptedGenerator, VLLMGenerator
from longctx.llm.types import LLMJobError

# Codes of requests that failed on their way: the next run asks them again.
PASSING = ("transport", "rate_limited")


def clients_of(spec: GeneratorSpec, workers: int, units: int) -> int:
    """Processes that ask at once: one for a server, as many as there is room for models.

    Those of vLLM inside Ray hold no engine: they read what batches have answered.
    """
    wanted = spec.clients or 1
    if spec.clients is None and isinstance(spec, LocalGenerator) and spec.num_gpus:
        wanted = max(1, int(cluster.cluster_total("GPU") / spec.num_gpus))
    elif spec.clients is None and isinstance(spec, LocalGenerator):
        wanted = max(1, workers // spec.threads)
    elif spec.clients is None and isinstance(spec, ScriptedGenerator | VLLMGenerator):
        wanted = workers
    return max(1, min(wanted, units))


def refuse_split_cache(spec: GeneratorSpec, setting: Setting) -> None:
    """LLMJobError where several nodes would share an SQLite file."""
    kind, place = spec.cache_place(setting.run_dir)
    if kind == "sqlite" and cluster.nodes() > 1:
        raise LLMJobError(
            "misconfigured",
            "the cache is an SQLite file, which several nodes cannot share: set cache_kind shards",
            where=place,
        )


def check_share(told: Mapping[str, Any], place: str, away: frozenset[str], most: float) -> None:
    """RunError where a stage lost rows or rejected too many; the codes `away` do not count."""
    count = StageCount(told["rows_in"], told["ok"], 0, Counter(told["rejects"]))
    count.check(place)
    failed = Counter({c: n for c, n in count.rejects.items() if c not in away})
    others = StageCount(count.rows_in, count.rows_in - failed.total(), 0, failed)
    others.check_share(place, most)


def check_rejects(
    context: BarrierContext, call: CallStage, away: frozenset[str], most: float
) -> None:
    """`check_share` of a step; what failed on its way is asked again by the next run."""
    place = f"{context.setting.stage}/{call.step}"
    try:
        check_share(context.step_stats[call.step], place, away, most)
    except RunError:
        # The tables stay to be read until then.
        folder = f"{context.folder}/{call.step}"
        for done in context.step_commits[call.step]:
            if any(done.stats["stats"]["rejects"].get(code) for code in PASSING):
                commit.reopen(folder)
                commit.revoke(folder, done.unit)
        raise
