"""Counters of a part that are merged by addition: who lives, by source and licence, and how long.

Every stage that writes an aligned sidecar reports them; the report, the closing table and the
conservation check are made from their sums.
"""

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from longctx.engine.corpus import QUARANTINED
from longctx.engine.op import DROP_REASON

LENGTH_BINS = 32


@dataclass(frozen=True)
class Stats:
    """Counters that a rule returns beside its table, attached as schema metadata."""

    KEY = b"longctx.stats"

    @staticmethod
    def attach(table: pa.Table, stats: dict[str, Any]) -> pa.Table:
        """The table carrying counters."""
        return table.replace_schema_metadata({Stats.KEY: json.dumps(stats)})

    @staticmethod
    def detach(table: pa.Table) -> tuple[pa.Table, dict[str, Any]]:
        """The bare table and its counters."""
        found = (table.schema.metadata or {}).get(Stats.KEY)
        bare = table.replace_schema_metadata(None)
        return bare, json.loads(found) if found else {}


def summarise(before: pa.Table, reasons: pa.ChunkedArray | None) -> dict[str, Any]:
    """Counters of one part.

    `before` holds the living rows that the stage got (`source`, `license`, optionally `n_tokens`
    and `n_chars`), `reasons` why each was removed (null: it lives on; None: none was).
    """
    alive = before
    dropped: Counter[str] = Counter()
    if reasons is not None:
        dropped.update(r for r in reasons.to_pylist() if r is not None)
        alive = before.filter(reasons.is_null())
    quarantined = sum(n for reason, n in dropped.items() if is_quarantine(reason))
    return {
        "rows_in": before.num_rows,
        "rows_out": alive.num_rows,
        "dropped": {r: n for r, n in sorted(dropped.items()) if not is_quarantine(r)},
        "quarantined": quarantined,
        "quarantine": {
            r.partition(":")[2]: n for r, n in sorted(dropped.items()) if is_quarantine(r)
        },
        "removed_by_source": _by(before.filter(reasons.is_valid()), "source", None)
        if reasons is not None
        else {},
        "by_source": _by(alive, "source", "n_tokens"),
        "by_license": _by(alive, "license", "n_tokens"),
        "tokens": _total(alive, "n_tokens"),
        "chars": _total(alive, "n_chars"),
        "lengths": _lengths(alive),
    }


def is_quarantine(reason: str) -> bool:
    """Whether a drop reason stands for quarantine (`quarantined:…`)."""
    return reason.startswith(QUARANTINED)


def _by(table: pa.Table, key: str, weight: str | None) -> dict[str, list[int]]:
    """Rows and tokens by the values of a column: name -> [rows, tokens]."""
    names = table.column(key).fill_null("unknown")
    columns = {"key": names, "tokens": pa.repeat(pa.scalar(0, pa.int64()), table.num_rows)}
    if weight and weight in table.column_names:
        columns["tokens"] = table.column(weight).fill_null(0).cast(pa.int64())
    grouped = pa.table(columns).group_by("key").aggregate([("key", "count"), ("tokens", "sum")])
    found = {r["key"]: [r["key_count"], r["tokens_sum"] or 0] for r in grouped.to_pylist()}
    return dict(sorted(found.items()))


def _total(table: pa.Table, column: str) -> int | None:
    if column not in table.column_names:
        return None
    return int(np.nansum(table.column(column).fill_null(0).to_numpy()))


def _lengths(table: pa.Table) -> list[int]:
    """Documents by floor(log2(tokens)); 0 and 1 tokens share the first bin."""
    if "n_tokens" not in table.column_names:
        return []
    tokens = np.maximum(table.column("n_tokens").fill_null(0).to_numpy(), 1)
    bins = np.minimum(np.floor(np.log2(tokens)).astype(int), LENGTH_BINS - 1)
    return [int(n) for n in np.bincount(bins, minlength=LENGTH_BINS)]


def merge(summaries: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """Sum of several summaries; numbers add, lists add element by element, dictionaries by key."""
    total: dict[str, Any] = {}
    for summary in summaries:
        total = _add(total, summary)
    return total


def _add(a: Any, b: Any) -> Any:
    if a is None or b is None:
        return a if b is None else b
    if isinstance(a, dict):
        merged = {
            k: _add(a[k], b[k]) if k in a and k in b else a.get(k, b.get(k)) for k in {**a, **b}
        }
        return dict(sorted(merged.items()))
    if isinstance(a, list):
        if not a or not b:
            return a or b
        return [_add(x, y) for x, y in zip(a, b, strict=True)]
    return a + b


def reasons_of(table: pa.Table) -> pa.ChunkedArray | None:
    """The drop reasons of a sidecar, if it has any."""
    return table.column(DROP_REASON) if DROP_REASON in table.column_names else None
