"""From a finished run folder to what the report draws.

Reads `run.json`, which holds all counters, and a handful of rows: the texts of the largest
duplicate clusters. Nothing here depends on the size of the corpus but the lists of parts.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import fields, replace
from itertools import pairwise
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from longctx.engine import commit, manifest
from longctx.engine.commit import FileRef
from longctx.engine.corpus import ROW
from longctx.engine.rows import PART
from longctx.engine.steps import read_table
from longctx.io import paths
from longctx.report.data import (
    ClusterMember,
    DuplicateCluster,
    Exported,
    Histogram,
    LengthRow,
    Mix,
    Neighbours,
    PackedTurns,
    ReportData,
    StageRow,
    WindowAudit,
)
from longctx.report.mixture.collect import check_mixture, mixture_of
from longctx.report.run_shape import check
from longctx.report.scores.data import CORRELATIONS, PAGES, page_of
from longctx.report.scores.passages import masked
from longctx.report.scores.sample import spaced
from longctx.report.synth.collect import check_synthesis, synthesis_of, with_rows
from longctx.report.texts import text_files, text_of

FILE = "report.html"
_CLUSTERS, _MEMBERS, _SNIPPET = 6, 4, 400
# Clusters lie in files of at most `engine.exchange_mb`; the largest of so many are shown.
_CLUSTER_FILES = 16
Run = dict[str, Any]
Stage = dict[str, Any]


def write_report(run_dir: str) -> list[str]:
    """Write `report.html` of a run and the pages beside it; returns their URLs, that first.

    Pages of stages that the recipe no longer has are removed.
    """
    from longctx.report.html import render
    from longctx.report.mixture.stage import render_stage
    from longctx.report.scores.collect import gather
    from longctx.report.scores.write import drawn, score_rows
    from longctx.report.synth.page import render as render_rows

    root = paths.absolute(run_dir)
    run = load_run(root)
    pages = gather(root, run)
    linked = replace(
        collect(root),
        scores=score_rows(pages),
        correlations=page_of(CORRELATIONS) if pages.correlations else "",
    )
    files = {FILE: render(linked), **drawn(pages)}
    if linked.mixture is not None:
        files[page_of(linked.mixture.stage)] = render_stage(linked.mixture)
    if linked.synthesis is not None:
        whole = with_rows(linked.synthesis, root, run)
        files[page_of(whole.stage)] = render_rows(whole)
    for name, page in files.items():
        paths.write_atomic(paths.inside(root, name), page.encode())
    known = {page_of(stage["stage"]) for stage in run["stages"]} | {page_of(CORRELATIONS)}
    for name in paths.list_files(paths.join(root, PAGES)):
        if name.endswith(".html") and f"{PAGES}/{name}" not in known:
            paths.remove(paths.join(root, PAGES, name))
    return [paths.join(root, name) for name in files]


def load_run(run_dir: str) -> Run:
    """A run's `run.json`, of the shape that everything here relies on. Raises RecipeError."""
    run = manifest.load(run_dir)
    file = paths.join(paths.absolute(run_dir), manifest.FILE)
    check("run", run, file)
    for number, stage in enumerate(run["stages"]):
        check_mixture(stage, file, ("stages", number))
        check_synthesis(stage, file, ("stages", number))
        for step, figures in stage["steps"].items():
            place = ("stages", number, "steps", step)
            check("warnings", figures.get("warnings", {}), file, (*place, "warnings"))
            if step == "tours" and stage["op"].startswith("order.") and _compared(figures):
                check("tours", figures, file, place)
            if step == "files" and stage["op"] == "export":
                check("files", figures, file, place)
            if step == "files" and stage["op"] == "pack.turns":
                check("packs", figures, file, place)
            if step == "audit" and stage["op"] == "pack" and figures.get("windows"):
                check("audit", figures, file, place)
                named = ("dropped_", "span_ge_")
                check(
                    "figures",
                    {k: v for k, v in figures.items() if k.startswith(named)},
                    file,
                    place,
                )
                targets = stage["steps"].get("plan", {}).get("targets")
                check("targets", targets, file, (*place[:-1], "plan", "targets"))
    return run


def collect(run_dir: str) -> ReportData:
    """What the report shows. Raises RecipeError if the folder holds no run."""
    run = load_run(run_dir)
    stages: list[Stage] = run["stages"]
    scored = [s for s in stages if s["summary"].get("lengths")]
    tokens = [s for s in stages if s["summary"].get("tokens") is not None]
    return ReportData(
        name=run["name"],
        status=run["status"],
        started=run["started"],
        seconds=run["seconds"],
        run_dir=run["run_dir"],
        output=run["output"],
        seed=run["seed"],
        fingerprint=run["fingerprint"],
        stages=[_row(s) for s in stages],
        lengths_before=_lengths(scored[0]) if scored else None,
        lengths_after=_lengths(scored[-1]) if len(scored) > 1 else None,
        duplicates_by_source=_duplicates(stages),
        duplicate_clusters=_clusters(paths.absolute(run_dir), stages),
        neighbours=_neighbours(stages),
        windows=_windows(run, stages),
        exported=_exported(stages),
        turns=_turns(stages),
        synthesis=synthesis_of(run),
        sources=_mixes(tokens, "by_source"),
        licenses=_mixes(tokens, "by_license"),
        quarantine=_quarantine(stages),
        notes=_notes(run, stages),
        warnings=_warnings(stages),
        recipe=run["recipe"],
        versions=run["versions"],
        mixture=mixture_of(run),
    )


def _row(stage: Stage) -> StageRow:
    found = stage["summary"]
    return StageRow(
        stage=stage["stage"],
        op=stage["op"],
        rows_in=stage["rows_in"],
        rows_out=stage["rows_out"],
        dropped=stage["dropped"],
        quarantined=stage["quarantined"],
        seconds=stage["seconds"],
        chars_out=found.get("chars"),
        tokens_out=found.get("tokens"),
        parts=stage["units"],
        parts_skipped=stage["skipped"],
    )


def _lengths(stage: Stage) -> Histogram | None:
    counts: list[int] = stage["summary"]["lengths"]
    used = [i for i, n in enumerate(counts) if n]
    if not used:
        return None
    low, high = used[0], used[-1] + 1
    edges = [float(2**i) for i in range(low, high + 1)]
    return Histogram(edges, counts[low:high], "tokens")


def _duplicates(stages: Iterable[Stage]) -> dict[str, dict[str, int]]:
    """source -> op -> documents removed as duplicates."""
    found: dict[str, dict[str, int]] = defaultdict(dict)
    for stage in stages:
        if stage["op"].startswith(("dedup.", "order.")):
            for source, (rows, _) in stage["summary"].get("removed_by_source", {}).items():
                found[source][stage["op"]] = found[source].get(stage["op"], 0) + rows
    return dict(sorted(found.items()))


def _quarantine(stages: Iterable[Stage]) -> dict[str, int]:
    total: Counter[str] = Counter()
    for stage in stages:
        total.update(stage["summary"].get("quarantine") or {})
    return dict(sorted(total.items()))


def _notes(run: Run, stages: list[Stage]) -> dict[str, int]:
    notes = (
        {n: int(c) for n, c in (stages[0]["summary"].get("notes") or {}).items()} if stages else {}
    )
    ignored = {f"file passed over: {reason}": n for reason, n in run["ignored_files"].items()}
    return {**notes, **ignored}


def _warnings(stages: Iterable[Stage]) -> list[str]:
    steps = (step for stage in stages for step in stage["steps"].values())
    return [text for step in steps for text in step.get("warnings", {})]


def _neighbours(stages: Iterable[Stage]) -> Neighbours | None:
    order = next((s for s in stages if s["op"].startswith("order.")), None)
    figures = order["steps"].get("tours", {}) if order else {}
    if not _compared(figures):
        return None
    bins = len(figures["histogram"])
    edges = [-1 + 2 * i / bins for i in range(bins + 1)]
    return Neighbours(
        ordered=Histogram(edges, figures["histogram"], "cosine"),
        random=Histogram(edges, figures["histogram_random"], "cosine"),
        mean_ordered=figures["adjacency"],
        mean_random=figures["adjacency_random"],
        jumps=figures["jumps"] or 0.0,
        bound=figures["top2_bound"],
    )


def _compared(tours: dict[str, Any]) -> bool:
    """Whether an order compared its neighbours with those of a random order."""
    return tours.get("adjacency") is not None and tours.get("adjacency_random") is not None


def _exported(stages: Iterable[Stage]) -> Exported | None:
    export = next((s for s in stages if s["op"] == "export"), None)
    found = export["steps"].get("files") if export else None
    if not found:
        return None
    counts = (found["files"], found["documents"], found["bytes"])
    return Exported(*counts, found["format"], found.get("order_by", ""))


def _turns(stages: Iterable[Stage]) -> PackedTurns | None:
    pack = next((s for s in stages if s["op"] == "pack.turns"), None)
    found = pack["steps"].get("files") if pack else None
    return PackedTurns(**{f.name: found[f.name] for f in fields(PackedTurns)}) if found else None


def _windows(run: Run, stages: Iterable[Stage]) -> WindowAudit | None:
    pack = next((s for s in stages if s["op"] == "pack"), None)
    audit = pack["steps"].get("audit") if pack else None
    if not pack or not audit or not audit.get("windows"):
        return None
    counts = audit["fill_histogram"]
    docs = audit["docs_histogram"]
    dropped = {k.removeprefix("dropped_"): n for k, n in audit.items() if k.startswith("dropped_")}
    return WindowAudit(
        length=max(int(n) for n in _targets(pack)),
        strategy=_strategy(pack),
        windows=audit["windows"],
        windows_lower_bound=audit["windows_lower_bound"],
        tokens=audit["tokens"],
        fill=audit["fill"],
        fill_histogram=Histogram([i / len(counts) for i in range(len(counts) + 1)], counts, "fill"),
        docs_per_window=_docs_histogram(docs),
        docs_per_window_mean=audit["docs_per_window"],
        split_docs=audit["split_docs"] or 0.0,
        split_short=audit["split_short"] or 0.0,
        one_document=audit["one_document"],
        several_sources=audit["several_sources"],
        coherence=audit.get("context_coherence"),
        adjacent=audit.get("context_adjacent"),
        tokens_dropped={k: n for k, n in dropped.items() if n},
        span_ge={
            k.removeprefix("span_ge_"): v or 0.0
            for k, v in audit.items()
            if k.startswith("span_ge_")
        },
        lengths=_length_rows(pack, audit.get("by_length", {})),
    )


def _targets(pack: Stage) -> dict[str, Any]:
    """What the plan did for every window length, by the length."""
    found: dict[str, Any] = pack["steps"]["plan"]["targets"]
    return found


def _strategy(pack: Stage) -> str:
    """The strategy in words, with the rule and the look-ahead that were taken where it has them."""
    name = str(pack["settings"].get("strategy", "unknown"))
    taken = (t.get("choice") for t in _targets(pack).values())
    named = dict.fromkeys(f"{c['rule']}, look-ahead {c['look_ahead']:,}" for c in taken if c)
    return f"{name} ({'; '.join(named)})" if named else name


def _length_rows(pack: Stage, by_length: dict[str, Any]) -> list[LengthRow]:
    return [
        LengthRow(
            int(length),
            figures.get("windows", 0),
            figures.get("tokens", 0),
            figures.get("fill") or 0.0,
            figures.get("split_docs") or 0.0,
            figures.get("context_coherence"),
            _targets(pack).get(length, {}).get("share"),
            _targets(pack).get(length, {}).get("share_reached"),
        )
        for length, figures in by_length.items()
    ]


def _docs_histogram(pairs: list[list[int]]) -> Histogram:
    """Windows by number of documents: single bins up to 16, then doubling ones."""
    last = pairs[-1][0]
    edges = [float(i) for i in range(1, min(last, 16) + 2)]
    while edges[-1] <= last:
        edges.append(edges[-1] * 2)
    counts = [sum(n for d, n in pairs if a <= d < b) for a, b in pairwise(edges)]
    return Histogram(edges, counts, "documents")


def _mixes(stages: list[Stage], key: str) -> list[Mix]:
    """Tokens and documents by name, as read (first stage that counted tokens) and as packed."""
    if len(stages) < 2:
        return []
    read, packed = (s["summary"].get(key, {}) for s in (stages[0], stages[-1]))
    mixes = [
        Mix(name, tokens, packed.get(name, [0, 0])[1], docs, packed.get(name, [0, 0])[0])
        for name, (docs, tokens) in read.items()
    ]
    return sorted(mixes, key=lambda m: (-m.tokens_read, m.name))


def _clusters(run_dir: str, stages: list[Stage]) -> list[DuplicateCluster]:
    found: list[DuplicateCluster] = []
    deduplicating = [s["stage"] for s in stages if s["op"] == "dedup.minhash"]
    texts = text_files(run_dir, stages) if deduplicating else []
    for stage in deduplicating:
        found += _minhash_clusters(run_dir, stage, texts)
    return sorted(found, key=lambda c: -c.size)[:_CLUSTERS]


def _minhash_clusters(run_dir: str, stage: str, texts: list[FileRef]) -> list[DuplicateCluster]:
    folder = paths.join(run_dir, "stages", stage, "clusters")
    found = [f for c in commit.load(folder).values() for f in c.files if f.rows]
    if not found:
        return []
    files = [found[i] for i in spaced(len(found), _CLUSTER_FILES)]
    tables = [read_table(run_dir, f, ["dup_cluster_id", "dup_cluster_size"]) for f in files]
    sizes = (
        pa.concat_tables(tables).group_by("dup_cluster_id").aggregate([("dup_cluster_size", "max")])
    )
    largest = sizes.sort_by(
        [("dup_cluster_size_max", "descending"), ("dup_cluster_id", "ascending")]
    )
    names = largest.column("dup_cluster_id").slice(0, _CLUSTERS)
    rows = pa.concat_tables(
        [
            t.filter(pc.is_in(t.column("dup_cluster_id"), names))
            for t in (read_table(run_dir, f) for f in files)
        ]
    )
    by_name: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in rows.to_pylist():
        by_name[row["dup_cluster_id"]].append(row)
    looked = (len(files), len(found))
    shown = [_cluster(run_dir, stage, by_name[n], texts) for n in names.to_pylist()]
    return [replace(cluster, files=looked) for cluster in shown]


def _cluster(
    run_dir: str, stage: str, rows: list[dict[str, Any]], texts: list[FileRef]
) -> DuplicateCluster:
    rows.sort(key=lambda r: (not r["dup_kept"], -r["dup_sim_kept"], r["doc_id"]))
    members = [
        ClusterMember(
            r["doc_id"],
            r["source"],
            r["dup_kept"],
            r["dup_sim_kept"],
            masked(text_of(run_dir, texts[r[PART]], r[ROW]), _SNIPPET),
        )
        for r in rows[:_MEMBERS]
    ]
    return DuplicateCluster(stage, rows[0]["dup_cluster_size"], members)
