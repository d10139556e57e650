"""Tokens or shares of each source: from a table, or from what a run counted."""

from collections.abc import Mapping, Sequence

import numpy as np

from longctx.errors import RecipeError
from longctx.mixture.evaluate import F64
from longctx.mixture.raw import number, read_raw
from longctx.registry import did_you_mean


def read_amounts(data: bytes, name: str, column: str) -> dict[str, float]:
    """Numbers above 0 of each source: a table `source, tokens` (or `source, share`)."""
    raw = read_raw(data, name)
    for wanted in ("source", column):
        if wanted not in raw.columns:
            raise RecipeError(
                f"there is no column `{wanted}`{did_you_mean(wanted, raw.columns)}",
                where=name,
                remedy=f"give a table with the columns source and {column}",
            )
    found: dict[str, float] = {}
    for i in range(raw.rows):
        source = raw.text(i, "source")
        value = number(raw, i, column, f"expected a number from 0 as {column}", least=0)
        if source in found:
            raise RecipeError(
                f"source '{source}' stands twice",
                where=raw.place(i, "source"),
                remedy="give one row per source",
            )
        found[source] = value
    return found


def amounts_of_run(record: Mapping[str, object], name: str) -> dict[str, float]:
    """Tokens left of each source in a run, from its run.json.

    Those of the last stage before packing and before any stage that chooses a mixture.
    """
    stages = record.get("stages")
    found: Mapping[str, Sequence[float]] = {}
    for stage in stages if isinstance(stages, list) else []:
        if stage["op"] == "pack" or stage["op"].startswith("mix."):
            break
        found = (stage.get("summary") or {}).get("by_source") or found
    tokens = {source: float(counts[1]) for source, counts in found.items()}
    if not tokens or not any(tokens.values()):
        raise RecipeError(
            "the run counted no tokens by source",
            where=name,
            remedy="put a stage that tokenises into its recipe, such as score.heuristics, or give "
            "a table with the columns source and tokens",
        )
    return tokens


def aligned(amounts: Mapping[str, float], sources: Sequence[str], name: str) -> F64:
    """Amounts in the order of `sources`, float64 [m]. Raises RecipeError where one is missing."""
    for source in sources:
        if source not in amounts:
            raise RecipeError(
                f"source '{source}' of the mixtures is not there{did_you_mean(source, amounts)}",
                where=name,
                remedy="name the sources as the mixture table does; 0 is an amount, too",
            )
    return np.array([amounts[s] for s in sources], dtype=np.float64)
