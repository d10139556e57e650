"""A `run.json` as a run with an order and windows of two lengths leaves it, without its costs."""

from typing import Any

Json = dict[str, Any]
SOURCES = {"web": [6, 900], "books": [4, 4100]}


def stage(number: int, op: str, rows_in: int = 10, **changes: Any) -> Json:
    """The record of a stage that kept all its rows."""
    return {
        "stage": f"{number:02d}-{op}",
        "op": op,
        "kind": "map",
        "seconds": 1.5,
        "units": 2,
        "skipped": 1,
        "rows_in": rows_in,
        "rows_out": rows_in,
        "dropped": {},
        "quarantined": 0,
        "summary": {
            "by_source": SOURCES,
            "by_license": {"MIT": [10, 5000]},
            "chars": 20_000,
            "tokens": 5000,
            "lengths": [0] * 6 + [2, 3, 5] + [0] * 23,
            "quarantine": {},
            "removed_by_source": {},
        },
        "steps": {},
        "settings": {"op": op},
        "why": {"new": 1},
        "costs": {},
        **changes,
    }


def record(stages: list[Json] | None = None, **changes: Any) -> Json:
    """The whole record; by default of a run that reads, scores, drops duplicates, orders, packs."""
    return {
        "name": "small",
        "recipe": {"name": "small", "stages": [{"op": "pack"}]},
        "fingerprint": "f99f967fe2cfbc24",
        "seed": 7,
        "started": "2026-11-28T23:01:11+00:00",
        "run_dir": "/runs/small",
        "output": "/runs/small/output",
        "status": "done",
        "seconds": 31.4,
        "error": None,
        "stages": stages or _stages(),
        "ignored_files": {"md": 2},
        "versions": {"longctx": "0.1.0"},
        "schema_version": 1,
        **changes,
    }


def _stages() -> list[Json]:
    read = stage(0, "read", 12, rows_out=10, quarantined=2)
    read["summary"] |= {"tokens": None, "lengths": [], "notes": {"blank lines": 3}}
    read["summary"]["quarantine"] = {"not UTF-8": 2}
    dropped = stage(2, "dedup.exact", rows_out=9, dropped={"exact_duplicate": 1})
    dropped["summary"]["removed_by_source"] = {"web": [1, 0]}
    return [
        read,
        stage(1, "score.heuristics"),
        dropped,
        stage(3, "order.path", 9, steps={"tours": _tours()}),
        stage(4, "pack", 9, steps=_packed(), settings={"op": "pack", "strategy": "window"}),
    ]


def _tours() -> Json:
    return {
        "adjacency": 0.98,
        "adjacency_random": 0.46,
        "jumps": 0.03,
        "top2_bound": 0.99,
        "histogram": [0, 0, 1, 8],
        "histogram_random": [0, 1, 6, 2],
        "warnings": {"2 of 9 documents have no vector.": 1},
    }


def _packed() -> Json:
    choice = {"rule": "weighed", "look_ahead": 64, "fill": 0.9}
    return {
        "plan": {
            "targets": {
                "4096": {"share": 0.6, "share_reached": 0.58, "choice": choice},
                "1024": {"share": 0.4, "share_reached": 0.42, "choice": None},
            }
        },
        "audit": {
            "windows": 4,
            "tokens": 4900,
            "fill": 0.957,
            "windows_lower_bound": 3,
            "fill_histogram": [0, 0, 0, 1, 3],
            "docs_per_window": 2.2,
            "docs_histogram": [[1, 1], [2, 2], [40, 1]],
            "one_document": 0.25,
            "several_sources": 0.5,
            "dropped_min_tail": 100,
            "split_docs": 0.1,
            "split_short": 0.0,
            "span_ge_8k": 0.0,
            "context_coherence": 0.97,
            "context_adjacent": 0.98,
            "by_length": {
                "4096": {"windows": 1, "tokens": 4000, "fill": 0.97, "split_docs": 0.1},
                "1024": {"windows": 3, "tokens": 900, "fill": 0.9, "split_docs": 0.0},
            },
        },
    }
