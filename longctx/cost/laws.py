"""What the time and the volume of each step grow with, and which steps a size calls for.

A law is a property of the algorithm and stands here; its coefficient is measured (`fit.py`). Steps
that are not named grow with the number of documents.
"""

from collections.abc import Callable, Mapping
from math import log2, sqrt
from typing import Any, NamedTuple

SAMPLED = 256  # documents that k-means looks at for each cluster


class Size(NamedTuple):
    """How much a stage gets: documents, megabytes (10^6 bytes) of text, clusters of its k-means."""

    docs: float
    mb: float
    clusters: float = 1


LAWS: dict[str, Callable[[Size], float]] = {
    "nothing": lambda s: 1.0,
    "documents": lambda s: s.docs,
    "text": lambda s: s.mb,
    "documents x log documents": lambda s: s.docs * log2(max(2, s.docs)),
    "documents x sqrt documents": lambda s: s.docs * sqrt(s.docs),
    "documents squared": lambda s: s.docs * s.docs,
    "documents x clusters": lambda s: s.docs * s.clusters,
    "sample": lambda s: min(s.docs, SAMPLED * s.clusters),
    "sample x clusters": lambda s: min(s.docs, SAMPLED * s.clusters) * s.clusters,
    "documents squared / clusters": lambda s: s.docs * s.docs / s.clusters,
}

# (op, step) -> what its time grows with, and what its bytes do; an op of "" is any.
_STEPS: dict[tuple[str, str], tuple[str, str]] = {
    ("read", "groups"): ("text", "text"),
    ("score.heuristics", ""): ("text", "text"),
    ("score.language", ""): ("text", "text"),
    ("score.likelihood", ""): ("text", "documents"),
    ("score.wanjuan", ""): ("text", "documents"),
    ("score.prolong", ""): ("text", "documents"),
    ("filter.pii", ""): ("text", "text"),
    ("filter.decontaminate", "matches"): ("text", "documents"),
    ("filter.decontaminate", "drawn"): ("text", "documents"),
    ("dedup.exact", "keys"): ("text", "documents"),
    ("dedup.minhash", "signatures"): ("text", "documents"),
    ("dedup.containment", "samples"): ("text", "text"),
    ("dedup.containment", "shared"): ("text", "text"),
    ("dedup.containment", "covered"): ("text", "text"),
    ("embed", ""): ("text", "documents"),
    ("dedup.semantic", "centroids"): ("sample x clusters", "documents"),
    ("dedup.semantic", "assigned"): ("documents x clusters", "documents"),
    ("dedup.semantic", "pairs"): ("documents squared / clusters", "documents"),
    ("cluster.kmeans", "centroids"): ("sample x clusters", "documents"),
    ("cluster.kmeans", ""): ("documents x clusters", "documents"),
    ("", "neighbours"): ("documents squared", "documents"),
    ("", "homes in cells"): ("documents x sqrt documents", "documents"),
    ("", "candidates in cells"): ("documents x sqrt documents", "documents"),
    ("order.splice", "words"): ("text", "text"),
    ("order.splice", "vocabulary"): ("text", "text"),
    ("order.splice", "postings"): ("text", "text"),
    ("order.splice", "retrieved"): ("documents squared", "documents"),
    ("order.quest", "queries"): ("text", "documents"),
    ("order.neighbours", "units"): ("text", "text"),
    ("order.neighbours", "sample"): ("text", "text"),
    ("order.neighbours", "found"): ("text", "text"),
    ("order.neighbours", "texts"): ("text", "text"),
    ("mix.weights", "draft"): ("nothing", "nothing"),
    ("mix.upsample", "draft"): ("nothing", "nothing"),
    ("pack", "tokens"): ("text", "text"),
    ("pack", "sentences"): ("text", "documents"),
    ("pack", "spans"): ("text", "text"),
    ("pack", "windows"): ("text", "text"),
    ("export", "sizes"): ("text", "documents"),
    ("export", "borders"): ("nothing", "nothing"),
    ("export", "rows"): ("text", "text"),
    ("export", "files"): ("text", "text"),
}


def laws_of(op: str, step: str) -> tuple[str, str]:
    """What the CPU seconds and the bytes of a step grow with: two names of LAWS."""
    known = _STEPS.get((op, step)) or _STEPS.get(("", step))
    return known or ("documents", "documents")


# Steps in one place whose memory grows with something else than documents.
_HELD = {
    ("dedup.semantic", "centroids"): "sample",
    ("cluster.kmeans", "centroids"): "sample",
    # 256 places for each file of 256 MB.
    ("export", "borders"): "nothing",
    ("mix.weights", "draft"): "nothing",
    ("mix.upsample", "draft"): "nothing",
}


def held_by(op: str, step: str) -> str:
    """What the memory of a step in one place grows with: a name of LAWS."""
    return _HELD.get((op, step), "documents")


def bucket_documents(step: str, settings: Mapping[str, Any]) -> float | None:
    """Documents of a bucket that is sized by them (a partition, a block); None where bytes do."""
    if step not in ("placed", "blocks"):
        return None
    limit = settings.get("one_place_up_to")
    return settings.get("partition_documents", limit) if step == "placed" else limit


def own_bytes(op: str, step: str, settings: Mapping[str, Any]) -> float | None:
    """Bytes of text of a unit that the op sizes itself; None where parts and buckets do."""
    return settings["shard_mb"] * 1e6 if (op, step) == ("export", "files") else None


def form_of(op: str, settings: Mapping[str, Any], docs: float) -> str:
    """How an op with these settings works at a size: "" where there is but one way.

    Limits of the op decide it, by the same comparison as its own code. The edges between
    near-copies are not known before a run: one for each document is assumed, which is many.
    """

    def above(name: str) -> bool:
        return name in settings and docs > settings[name]

    if op == "embed":
        return str(settings["model"])
    if "one_place_clusters" in settings:
        clusters = settings["k"] or docs / settings["per_cluster"]
        return "partitions" if clusters > settings["one_place_clusters"] else ""
    if op == "export":
        return "sorted" if settings.get("order_by") else ""
    if op == "decide":
        if not settings.get("keep"):
            return ""
        return "rounds" if above("one_place_up_to") else "one place"
    if op == "order.neighbours":
        return str(settings["variant"])
    if op == "dedup.minhash":
        return "rounds" if above("local_edges") else "one place"
    words = []
    if op == "order.splice":
        words.append(str(settings["retriever"]))
    if above("one_place_up_to"):
        words.append("partitions")
    elif "exact_up_to" in settings:
        words.append("cells" if above("exact_up_to") else "exact")
    elif "one_place_up_to" in settings:
        words.append("one place")
    return ", ".join(words)


def step_name(step: str, form: str) -> str:
    """One name for steps that differ by a number only; another where cells or partitions change."""
    if step.startswith("round-"):
        return f"round-{step.rpartition('-')[2]}"
    if step.startswith(("counts-", "cells-")):
        return step.partition("-")[0]
    if step.startswith("windows-"):
        return "windows"
    if form.endswith("partitions") and step in ("", "centroids"):
        return f"{step} in partitions".strip()
    in_cells = form.endswith("cells") and step in ("homes", "candidates", "neighbours", "centroids")
    return f"{step} in cells" if in_cells else step


# What to set where a step in one place does not fit: (op, step) -> remedy.
REMEDIES: dict[tuple[str, str], str] = {
    ("cluster.kmeans", "centroids"): "lower `one_place_clusters`: partitions take over",
    ("dedup.semantic", "centroids"): "lower `one_place_clusters`: partitions take over",
    ("decide", "borders"): "lower `one_place_up_to`: rounds of counting take over",
    ("decide", "ranked"): "cut by a score that needs no ranks",
    ("dedup.minhash", "components"): "lower `local_edges`: rounds of exchanges take over",
    ("order.splice", "vocabulary"): "take `retriever: dense`",
    ("order.splice", "tours"): "take `retriever: dense`, which is arranged in partitions",
    ("order.quest", "tours"): "take order.path or order.cluster_path, arranged in partitions",
}
ANY_REMEDY = "take nodes with more memory, or split the corpus"


def remedy_of(op: str, step: str, settings: Mapping[str, Any]) -> str:
    """What to do about a step that one machine cannot hold."""
    found = REMEDIES.get((op, step))
    if found is None and "one_place_up_to" in settings:
        found = "lower `one_place_up_to`: partitions take over"
    return found or ANY_REMEDY
