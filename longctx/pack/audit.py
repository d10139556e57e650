"""Audit of packed windows: fill, cuts, documents per window, coherence, and token conservation.

The measures that packing papers compare (fill and cuts: "Fewer Truncations" 2404.10830; similarity
inside windows: ICP 2310.10638), as sums that add up: each worker audits its shard with `partial`,
each planned slice is audited with `placement_partial`, the driver adds everything with `merge`
(in a fixed order, for sums of floats) and turns it into figures with `finish`. Documents may have
segments in several shards, so cuts are counted from the placement, never from a shard.

Partial sums survive a round trip through JSON. The number of documents per window is kept as a full
histogram, so its quantiles are exact. O(segments); nothing is read per token.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from longctx.errors import RunError
from longctx.pack.frame import I64, Placement
from longctx.pack.similarity import Similarity

FILL_BINS = 20
SPANS = {"8k": 8_192, "32k": 32_768, "128k": 131_072}
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)

Sums = dict[str, Any]


def partial(
    windows: pa.Table,
    *,
    length: int,
    similarity: Similarity | None = None,
    dup_cos: float = 0.95,
) -> Sums:
    """Sums over the rows of a table of `schema.WINDOWS` (one shard).

    `length` is the target in tokens, `similarity` the sums of the same windows; a pair of documents
    at cosine >= `dup_cos` makes a window count as one with duplicates.
    """
    n_tokens = np.asarray(windows["n_tokens"], dtype=np.int64)
    n_docs, n_sources, n_tours = (
        np.asarray(pc.fill_null(pc.struct_field(windows["stats"], name), 0), dtype=np.int64)
        for name in ("n_docs", "n_sources", "n_tours")
    )
    bins = np.minimum(n_tokens * FILL_BINS // length, FILL_BINS - 1)
    sums: Sums = {
        "windows": len(n_tokens),
        "capacity": len(n_tokens) * length,
        "tokens": int(n_tokens.sum()),
        "fill_histogram": np.bincount(bins, minlength=FILL_BINS).tolist(),
        "docs_histogram": {str(k): n for k, n in sorted(Counter(n_docs.tolist()).items())},
        "one_document": int((n_docs == 1).sum()),
        "several_sources": int((n_sources > 1).sum()),
        "several_tours": int((n_tours > 1).sum()),
    }
    if similarity is not None:
        fields = ("pairs", "pairs_cos", "adjacent", "adjacent_cos", "earlier", "earlier_cos")
        sums |= {name: float(getattr(similarity, name).sum()) for name in fields}
        sums["dup_windows"] = int((similarity.top_cos >= dup_cos).sum())
        sums["compared_windows"] = len(similarity.top_cos)
    return sums


def placement_partial(placement: Placement, lengths: I64, length: int) -> Sums:
    """Sums over the documents of a plan or of a slice that holds every span of its documents.

    `lengths` int64[n] are the framed lengths in the placement's numbering.
    """
    segments = np.bincount(placement.document, minlength=len(lengths))
    is_split = segments > 1
    tokens = np.bincount(
        placement.document, weights=placement.end - placement.start, minlength=len(lengths)
    )
    return {
        "documents": int((segments > 0).sum()),
        "segments": len(placement.document),
        "split_docs": int(is_split.sum()),
        "split_short": int((is_split & (lengths <= length)).sum()),
        "span_tokens": {name: int(tokens[lengths >= size].sum()) for name, size in SPANS.items()},
    }


def merge(parts: Iterable[Mapping[str, Any]]) -> Sums:
    """Add partial sums and the `counts` of plans, key by key; any mixture of them."""
    total: Sums = {}
    for part in parts:
        for key, value in part.items():
            total[key] = _add(total[key], value) if key in total else value
    return total


def _add(a: Any, b: Any) -> Any:
    if isinstance(a, Mapping):
        return {key: a.get(key, 0) + b.get(key, 0) for key in sorted(a.keys() | b.keys())}
    if isinstance(a, list):
        return [x + y for x, y in zip(a, b, strict=True)]
    return a + b


def assert_conserved(sums: Mapping[str, Any]) -> None:
    """Raise RunError unless tokens in = placed + dropped by reason, and all placed are in windows.

    `sums` holds the merged `counts` of the plans and, where windows were audited, their `tokens`.
    """
    dropped = {k.removeprefix("dropped_"): n for k, n in sums.items() if k.startswith("dropped_")}
    tokens_in, placed = sums["tokens_in"], sums["tokens_placed"]
    if tokens_in != placed + sum(dropped.values()):
        raise RunError(
            f"tokens are not conserved: {tokens_in} in, {placed} placed, dropped {dropped}",
            where="pack",
            remedy="this is a defect of the packing; keep the run folder and report it",
        )
    if sums.get("tokens", placed) != placed:
        raise RunError(
            f"{placed} tokens were planned but the windows hold {sums['tokens']}",
            where="pack",
            remedy="a shard is missing or was written twice: run again with resume",
        )


def assert_copies(asked: int, tokens_in: int) -> None:
    """Raise RunError unless the tokens that came to the passes are those of all copies."""
    if tokens_in != asked:
        raise RunError(
            f"the documents of all passes have {asked} framed tokens, but {tokens_in} were packed "
            "or dropped",
            where="pack",
            remedy="this is a defect of the packing; keep the run folder and report it",
        )


def finish(sums: Mapping[str, Any]) -> dict[str, Any]:
    """Figures from merged sums: only those whose sums are there.

    Shares are fractions. `split_docs` and `split_short` are shares of all placed documents (short:
    framed length <= a window). `windows_lower_bound` is ceil(tokens / window), `docs_histogram` a
    list of [documents, windows with that many]. Means over nothing are None.
    """
    figures: dict[str, Any] = {
        key: value
        for key, value in sums.items()
        if key.startswith(("tokens_", "dropped_")) or key in _COUNTS
    }
    if "windows" in sums:
        figures |= _window_figures(sums)
    if "documents" in sums:
        n, tokens = sums["documents"], sums.get("tokens_placed", sums.get("tokens"))
        figures |= {name: _share(sums[name], n) for name in ("split_docs", "split_short")}
        figures["documents"], figures["segments"] = n, sums["segments"]
        if tokens is not None:
            spans = sums["span_tokens"].items()
            figures |= {f"span_ge_{name}": _share(held, tokens) for name, held in spans}
    if "pairs" in sums:
        figures["context_coherence"] = _share(sums["pairs_cos"], sums["pairs"])
        figures["context_adjacent"] = _share(sums["adjacent_cos"], sums["adjacent"])
        figures["context_best_earlier"] = _share(sums["earlier_cos"], sums["earlier"])
        figures["dup_in_window"] = _share(sums["dup_windows"], sums["compared_windows"])
    return figures


_COUNTS = ("separators_dropped", "documents_dropped", "empty_documents", "windows_by_pass")


def _window_figures(sums: Mapping[str, Any]) -> dict[str, Any]:
    n, tokens = sums["windows"], sums["tokens"]
    docs = {int(k): sums["docs_histogram"][k] for k in sorted(sums["docs_histogram"], key=int)}
    return {
        "windows": n,
        "tokens": tokens,
        "fill": _share(tokens, sums["capacity"]),
        "windows_lower_bound": -(-tokens * n // sums["capacity"]) if n else 0,
        "fill_histogram": sums["fill_histogram"],
        "docs_per_window": _share(sum(k * v for k, v in docs.items()), n),
        "docs_per_window_quantiles": _quantiles(docs),
        "docs_histogram": [[k, count] for k, count in docs.items()],
        "one_document": _share(sums["one_document"], n),
        "several_sources": _share(sums["several_sources"], n),
        "several_tours": _share(sums["several_tours"], n),
    }


def _share(part: float, whole: float) -> float | None:
    return part / whole if whole else None


def _quantiles(histogram: Mapping[int, int]) -> dict[str, int]:
    """Smallest value with at least a share q of the counts at or below it; values ascending."""
    if not histogram:
        return {}
    values = list(histogram)
    upto = np.cumsum(list(histogram.values()))
    return {f"{q:g}": values[np.searchsorted(upto, q * upto[-1])] for q in QUANTILES}


def pack_stats(
    windows: pa.Table,
    *,
    length: int,
    placement: Placement | None = None,
    lengths: I64 | None = None,
    similarity: Similarity | None = None,
    dup_cos: float = 0.95,
) -> dict[str, Any]:
    """All figures of a whole packing in one process; cuts need `placement` and `lengths`."""
    parts = [partial(windows, length=length, similarity=similarity, dup_cos=dup_cos)]
    if placement is not None and lengths is not None:
        parts.append(placement_partial(placement, lengths, length))
    return finish(merge(parts))
