"""Example data for the report: a believable run, an empty one, and one full of hostile text."""

import math
from dataclasses import fields, is_dataclass, replace
from typing import Any

from longctx.report.data import (
    ClusterMember,
    DuplicateCluster,
    Histogram,
    Mix,
    Neighbours,
    ReportData,
    StageRow,
    WindowAudit,
)

HOSTILE = (
    "<script>window.top.planted = 1</script></style></title></textarea>"
    "\"><img src=x onerror='window.top.planted = 1'>&amp;<!--"
)


def bell(edges: list[float], total: int, centre: float, width: float, unit: str) -> Histogram:
    """About `total` counts in a bell over the bins' numbers (not over their edges)."""
    weights = [math.exp(-(((i + 0.5 - centre) / width) ** 2)) for i in range(len(edges) - 1)]
    return Histogram(edges, [round(total * w / sum(weights)) for w in weights], unit)


def log2_edges(first: int, last: int) -> list[float]:
    return [float(1 << i) for i in range(first, last + 1)]


def stages() -> list[StageRow]:
    return [
        StageRow("00-read", "read", 118_204, 118_121, {}, 83, 41.2, 1_912_400_112, None, 24),
        StageRow(
            "01-score.heuristics",
            "score.heuristics",
            118_121,
            118_107,
            {},
            14,
            96.8,
            1_912_210_004,
            488_120_441,
            24,
            12,
        ),
        StageRow(
            "02-decide",
            "decide",
            118_107,
            96_540,
            {"too_short": 14_118, "low_quality": 5_920, "mostly_symbols": 1_529},
            0,
            3.4,
            1_702_201_330,
            431_377_020,
            24,
        ),
        StageRow(
            "03-dedup.minhash",
            "dedup.minhash",
            96_540,
            75_311,
            {"near_duplicate": 21_229},
            0,
            214.6,
            1_369_000_112,
            347_002_918,
            24,
        ),
        StageRow("04-embed", "embed", 75_311, 75_311, {}, 0, 1_904.0, None, 347_002_918, 24),
        StageRow(
            "05-dedup.semantic",
            "dedup.semantic",
            75_311,
            71_310,
            {"semantic_duplicate": 4_001},
            0,
            58.9,
            None,
            331_190_244,
            24,
        ),
        StageRow("06-order.icp", "order.icp", 71_310, 71_310, {}, 0, 77.1, None, 331_190_244, 1),
        StageRow(
            "07-pack", "pack", 71_310, 71_296, {"tail_dropped": 14}, 0, 132.4, None, 331_100_101, 8
        ),
    ]


def neighbours() -> Neighbours:
    edges = [round(-0.2 + 0.05 * i, 2) for i in range(25)]
    return Neighbours(
        bell(edges, 71_000, 16.8, 4.2, "cosine"),
        bell(edges, 20_000, 6.3, 2.3, "cosine"),
        mean_ordered=0.642,
        mean_random=0.123,
        jumps=0.159,
        bound=0.781,
    )


def window_audit() -> WindowAudit:
    return WindowAudit(
        length=32_768,
        strategy="concat",
        windows=10_127,
        windows_lower_bound=10_105,
        tokens=331_100_101,
        fill=0.9978,
        fill_histogram=Histogram(
            [i / 10 for i in range(11)], [3, 0, 1, 4, 2, 6, 9, 14, 120, 9_968], "share"
        ),
        docs_per_window=bell([float(i) for i in range(1, 21)], 10_127, 6, 4, "documents"),
        docs_per_window_mean=7.9,
        split_docs=0.142,
        split_short=0.1191,
        one_document=0.031,
        several_sources=0.384,
        coherence=0.503,
        adjacent=0.617,
        tokens_dropped={"min_tail": 61_020, "separator": 29_123},
        span_ge={"8k": 0.612, "32k": 0.288, "128k": 0.041},
    )


def clusters() -> list[DuplicateCluster]:
    text = (
        "Permission is hereby granted, free of charge, to any person obtaining a copy of this "
        "software and associated documentation files, to deal in the Software without restriction"
    )
    members = [
        ClusterMember("gh:9f2c41a07e6d", "github", True, None, text),
        ClusterMember("gh:0aa1d3be5512", "github", False, 0.981, text.replace("free", "at no")),
        ClusterMember("gh:77b0e2c9a4f1", "github", False, 0.942, "MIT License.\n\n" + text),
        ClusterMember("web:51de0098", "web", False, 0.873, text + " including the rights to use"),
    ]
    return [
        DuplicateCluster("03-dedup.minhash", 1_412, members),
        DuplicateCluster(
            "03-dedup.minhash",
            388,
            [
                ClusterMember(
                    "web:c01d77aa",
                    "web",
                    True,
                    None,
                    "We use cookies to make this site work. By continuing you accept our policy",
                ),
                ClusterMember(
                    "web:0b7e11f2",
                    "web",
                    False,
                    0.91,
                    "This site uses cookies. By continuing to browse you accept our cookie policy",
                ),
            ],
        ),
        DuplicateCluster("05-dedup.semantic", 41, members[1:3]),
    ]


def recipe() -> dict[str, Any]:
    return {
        "name": "code-and-docs",
        "input": [
            {"path": "s3://raw/arxiv/*.jsonl.zst", "source": "arxiv", "text": "text", "id": "id"},
            {"path": "s3://raw/github/*.parquet", "source": "github", "text": "content"},
        ],
        "run_dir": "s3://work/runs/code-and-docs",
        "seed": 17,
        "tokenizer": {"path": "qwen"},
        "stages": [
            {"op": "score.heuristics"},
            {"op": "decide", "rules": {"n_tokens": {"min": 1024}}},
            {"op": "dedup.minhash", "threshold": 0.8, "num_perm": 128},
            {"op": "embed", "model": "sentence-transformers/all-MiniLM-L6-v2"},
            {"op": "dedup.semantic", "eps": 0.05},
            {"op": "order.icp"},
            {"op": "pack", "length": 32768, "strategy": "concat"},
        ],
        "output": {"path": "s3://out/packed", "format": ["parquet", "mds"]},
    }


def example() -> ReportData:
    """A believable run of every section."""
    return ReportData(
        name="code-and-docs",
        status="done",
        started="2025-11-03 09:14 UTC",
        seconds=2_528.4,
        run_dir="s3://work/runs/code-and-docs",
        output="s3://out/packed",
        seed=17,
        fingerprint="b5c1f0d2e84a7719",
        stages=stages(),
        lengths_before=bell(log2_edges(5, 20), 118_107, 6.3, 3.4, "tokens"),
        lengths_after=bell(log2_edges(10, 20), 71_310, 2.2, 2.6, "tokens"),
        duplicates_by_source={
            "github": {"dedup.minhash": 15_012, "dedup.semantic": 1_204},
            "web": {"dedup.minhash": 5_890, "dedup.semantic": 2_411},
            "arxiv": {"dedup.minhash": 327, "dedup.semantic": 386},
        },
        duplicate_clusters=clusters(),
        neighbours=neighbours(),
        windows=window_audit(),
        sources=[
            Mix("arxiv", 151_317_336, 134_100_010, 20_011, 16_800),
            Mix("github", 209_891_789, 102_200_091, 61_204, 31_119),
            Mix("web", 126_911_316, 94_800_000, 36_892, 23_377),
        ],
        licenses=[
            Mix("CC-BY-4.0", 151_317_336, 134_100_010, 20_011, 16_800),
            Mix("MIT", 140_891_789, 70_200_091, 41_204, 21_119),
            Mix("Apache-2.0", 69_000_000, 32_000_000, 20_000, 10_000),
            Mix("", 126_911_316, 94_800_000, 36_892, 23_377),
        ],
        quarantine={
            "UnicodeDecodeError: invalid start byte": 71,
            "JSONDecodeError: unterminated string": 12,
            "ValueError: text is null": 14,
        },
        notes={"embed.truncated_documents": 10_412, "read.renamed_columns": 2},
        recipe=recipe(),
        versions={"longctx": "0.1.0", "ray": "2.60.0", "pyarrow": "21.0.0", "python": "3.11.7"},
    )


def empty() -> ReportData:
    """A run that read nothing."""
    return ReportData(
        name="empty",
        status="done",
        started="2025-11-03 09:14 UTC",
        seconds=0.0,
        run_dir="/runs/empty",
        output="/runs/empty/output",
        seed=0,
        fingerprint="0",
        stages=[StageRow("00-read", "read", 0, 0, {}, 0, 0.0)],
        lengths_before=Histogram([1.0, 2.0], [0], "tokens"),
        windows=WindowAudit(
            length=8_192,
            strategy="concat",
            windows=0,
            windows_lower_bound=0,
            tokens=0,
            fill=0.0,
            fill_histogram=Histogram([0.0, 1.0], [0], "share"),
            docs_per_window=Histogram([1.0, 2.0], [0], "documents"),
            docs_per_window_mean=0.0,
            split_docs=0.0,
            split_short=0.0,
            one_document=0.0,
            several_sources=0.0,
            coherence=None,
            adjacent=None,
            tokens_dropped={},
            span_ge={},
        ),
    )


def hostile() -> ReportData:
    """The example with markup planted in front of every text, keys included."""
    poisoned: ReportData = prefixed(example(), HOSTILE)
    return poisoned


def prefixed(value: Any, prefix: str) -> Any:
    """`value` with `prefix` in front of every text in it, at any depth."""
    if isinstance(value, str):
        return prefix + value
    if isinstance(value, dict):
        return {prefix + key: prefixed(item, prefix) for key, item in value.items()}
    if isinstance(value, list):
        return [prefixed(item, prefix) for item in value]
    if is_dataclass(value) and not isinstance(value, type):
        changed = {f.name: prefixed(getattr(value, f.name), prefix) for f in fields(value)}
        return replace(value, **changed)
    return value
