"""What the borders of a cut mean: a verdict for every row, and the numbers that decided.

`near` counts per part what each border keeps, with exact sums of the scores, and brings the rows
closest to it; `describe` sums up over all parts. `cut_meta.json` has for every score and group n,
nulls, mean, sd, quantiles, the border and what it keeps; `closest.parquet` the 20 documents next to
each border on either side, of the 50 largest groups: what a person should read before a threshold
is believed. `places.parquet` says in which part and row these documents lie.
"""

import json
from collections import defaultdict
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from longctx.engine.corpus import ROW, Part
from longctx.engine.op import Setting
from longctx.engine.rows import PART
from longctx.engine.steps import Stats, StepRef
from longctx.filter.borders import NOTHING, Border
from longctx.filter.cells import order_keys
from longctx.filter.cut import Moments
from longctx.filter.exact import ExactSums, exact_sums
from longctx.filter.line_tables import LINE, Found, borders_of, by_line
from longctx.filter.stages_scores import PartScores, Scores

if TYPE_CHECKING:
    from longctx.filter.stages_decide import Decide

Rows = npt.NDArray[np.int64]
Borders = dict[str, dict[str, Found]]

CLOSEST = 20  # documents on each side of a border
_SHOWN = 50  # groups whose closest documents are kept
_RECORDED = 20  # groups whose figures stand in the record of the run
_MANY_NULLS = 0.1
_NEAR = pa.schema(
    [
        *((n, pa.string()) for n in LINE),
        ("what", pa.string()),
        ("doc_id", pa.string()),
        ("score", pa.float64()),
        (PART, pa.string()),
        (ROW, pa.int32()),
        ("docs", pa.int64()),
        ("tokens", pa.int64()),
        ("sums", pa.large_string()),
    ]
)
_PLACES = pa.schema([("doc_id", pa.string()), (PART, pa.string()), (ROW, pa.int32())])
_CLOSEST = pa.schema(
    [
        *((n, pa.string()) for n in LINE),
        ("edge", pa.string()),
        ("kept", pa.bool_()),
        ("doc_id", pa.string()),
        ("score", pa.float64()),
    ]
)
# Rows beside a border: its edge, whether they are kept, whether the nearest comes last in order.
_SIDES = {
    "low, kept": ("low", True, True),
    "low, dropped": ("low", False, False),
    "high, dropped": ("high", False, True),
    "high, kept": ("high", True, False),
}


def verdicts(op: "Decide", part: PartScores, borders: Borders) -> npt.NDArray[np.object_]:
    """Why each row of a part goes, object[n] of str or None.

    What a row fails alone comes first, then the first score that does not keep it.
    """
    count = len(part.rows)
    concerned, failed = np.zeros(count, int), np.zeros(count, int)
    first = np.full(count, None, dtype=object)
    for name in op.keep:
        for rows, reasons in _reasons(op, name, part, borders.get(name, {})):
            out = np.array([r is not None for r in reasons], bool)
            concerned[rows] += 1
            failed[rows] += out
            new = rows[out & np.array([f is None for f in first[rows]], bool)]
            first[new] = reasons[np.isin(rows, new)]
    gone = failed > 0
    if op.combine == "any":
        gone = (failed == concerned) & (concerned > 0)
        first[gone & (concerned > 1)] = f"none of {', '.join(op.keep)}"
    reasons = np.array(part.rows.column("reason").to_pylist(), dtype=object)
    reasons[gone] = first[gone]
    return reasons


def _reasons(op: "Decide", name: str, part: PartScores, found: dict[str, Found]) -> Any:
    """Rows that a rule says something of, and why they go, group by group."""
    for group, rows in part.groups(op.keep[name].together(name)):
        rule = op.keep[name].of(group)
        reasons = np.full(len(rows), None, dtype=object)
        if name == "wanjuan":
            classes = _classes(part, rows)
            null = np.array([c is None for c in classes], bool)
            kept = rule.options(name)["classes"]
            out = np.array([c is not None and c not in kept for c in classes], bool)
            reasons[out] = [f"wanjuan {c}" for c in classes[out]]
        elif rule.mode().kind == "all":
            continue
        else:
            scores, ids = part.scores[name][rows], part.ids.take(pa.array(rows))
            null = np.isnan(scores)
            border = found[group].border if group in found else NOTHING
            too_low, too_high = rule.reasons(name)
            reasons[~border.spares(scores)] = too_high
            reasons[~border.reaches(scores, ids)] = too_low
        reasons[null] = f"{name} is null" if op.nulls == "drop" else None
        yield rows, reasons


def _classes(part: PartScores, rows: Rows) -> npt.NDArray[np.object_]:
    assert part.classes is not None, "wanjuan ranks rows before it is cut by"
    return np.array(part.classes.column("lw_class").to_pylist(), dtype=object)[rows]


def near(scores: Scores, borders: StepRef | None, part: Part, setting: Setting) -> pa.Table:
    """Of a part: counts, sums and the rows closest to each border, as _NEAR."""
    op, own = scores.op, scores.of(part.index)
    known = borders_of(borders.read()) if borders else {}
    found: list[dict[str, Any]] = []
    for name in op.keep:
        shown = _largest(known.get(name, {}), _SHOWN)
        for group, rows in own.groups(scores.together(name)):
            said = (
                _about_classes(own, rows)
                if name == "wanjuan"
                else _about_scores(own, name, rows, known.get(name, {}).get(group), group in shown)
            )
            found += [{"name": name, "group": group, PART: part.name, **row} for row in said]
    return pa.Table.from_pylist(found, schema=_NEAR)


def _largest(lines: dict[str, Found], most: int) -> set[str]:
    return set(sorted(lines, key=lambda g: (-lines[g].docs, g))[:most])


def _about_classes(part: PartScores, rows: Rows) -> list[dict[str, Any]]:
    classes = _classes(part, rows)
    names = sorted({c for c in classes if c is not None})
    masks = {f"class {c}": classes == c for c in names}
    masks["null"] = np.array([c is None for c in classes], bool)
    return [_counted(what, part, rows[mask]) for what, mask in masks.items()]


def _about_scores(
    part: PartScores, name: str, rows: Rows, line: Found | None, shown: bool
) -> list[dict[str, Any]]:
    values = part.scores[name][rows]
    scored = rows[~np.isnan(values)]
    found = [_counted("null", part, rows[np.isnan(values)])]
    if line is None:
        return found
    values, ids = part.scores[name][scored], part.ids.take(pa.array(scored))
    sums = json.dumps(exact_sums(values).to_json())
    found.append({**_counted("scored", part, scored), "sums": sums})
    found.append(_counted("kept", part, scored[line.border.keeps(values, ids)]))
    if not shown:
        return found
    table = pa.table({"key": order_keys(values), "id": ids, "row": np.arange(len(scored))})
    table = table.sort_by([("key", "ascending"), ("id", "ascending")])
    order = table.column("row").to_numpy()
    for what, side in _beside(line.border, values[order], ids.take(pa.array(order))).items():
        at = order[side]
        rows_of = part.rows.column(ROW).take(pa.array(scored[at])).to_pylist()
        named = zip(ids.take(pa.array(at)).to_pylist(), values[at].tolist(), rows_of, strict=True)
        found += [{"what": what, "doc_id": i, "score": v, ROW: r} for i, v, r in named]
    return found


def _beside(border: Border, values: Any, ids: pa.Array) -> dict[str, slice]:
    """Rows next to a border, of some in their order."""
    found = {}
    if border.low is not None:
        k = int(border.reaches(values, ids).sum())
        found["low, kept"] = slice(max(0, k - CLOSEST), k)
        found["low, dropped"] = slice(k, k + CLOSEST)
    if border.high is not None:
        k = int((~border.spares(values)).sum())
        found["high, dropped"] = slice(max(0, k - CLOSEST), k)
        found["high, kept"] = slice(k, k + CLOSEST)
    return found


def _counted(what: str, part: PartScores, rows: Rows) -> dict[str, Any]:
    return {"what": what, "docs": len(rows), "tokens": int(part.tokens[rows].sum())}


def describe(
    op: "Decide", borders: StepRef | None, told: StepRef, setting: Setting
) -> dict[str, Any]:
    """The files of the step `cut` from what all parts say, and figures for the record."""
    known = borders_of(borders.read()) if borders else {}
    said = by_line(told.read().to_pylist())
    scores, closest = {}, []
    places: dict[str, dict[str, Any]] = {}
    for name, rule in op.keep.items():
        groups = {}
        for group, rows in sorted(said.get(name, {}).items()):
            own = rule.of(group)
            if name == "wanjuan":
                groups[group] = _class_figures(rows, own.options(name)["classes"])
            else:
                groups[group] = _figures(rows, known.get(name, {}).get(group))
            groups[group] |= {"rule": own.model_dump(exclude_none=True, exclude={"per_source"})}
            closest += [{"name": name, "group": group, **row} for row in _closest(rows)]
            places |= {r["doc_id"]: r for r in rows if r["doc_id"] is not None}
        per = "all" if rule.together(name) else "source"
        scores[name] = {"per": per, "options": rule.options(name), "groups": groups}
    meta = {"combine": op.combine, "nulls": op.nulls, "scores": scores}
    table = pa.Table.from_pylist(closest, schema=_CLOSEST)
    near = [places[doc_id] for doc_id in sorted({row["doc_id"] for row in closest})]
    return {
        "cut_meta.json": json.dumps(meta, indent=1, sort_keys=True).encode(),
        "closest.parquet": Stats.attach(table, _recorded(op, scores)),
        "places.parquet": pa.Table.from_pylist(near, schema=_PLACES),
    }


def _totals(rows: list[dict[str, Any]]) -> dict[str, tuple[int, int]]:
    """Documents and tokens by what was counted."""
    found: dict[str, tuple[int, int]] = defaultdict(lambda: (0, 0))
    for row in rows:
        if row["docs"] is not None:
            docs, tokens = found[row["what"]]
            found[row["what"]] = docs + row["docs"], tokens + row["tokens"]
    return found


def _figures(rows: list[dict[str, Any]], line: Found | None) -> dict[str, Any]:
    """The figures of a group of scores."""
    total = _totals(rows)
    sums = sum((ExactSums.from_json(json.loads(r["sums"])) for r in rows if r["sums"]), ExactSums())
    found: dict[str, Any] = {
        "n": total["scored"][0],
        "nulls": total["null"][0],
        "tokens": total["scored"][1],
        "kept": total["kept"][0],
        "kept_tokens": total["kept"][1],
    }
    if line is None:
        return found
    spread = {"mean": sums.mean, "sd": Moments(sums.n, sums.mean, sums.m2).sd}
    ends = {"min": line.quantiles["q0"], "max": line.quantiles["q100"]}
    border = {k: v for k, v in line.border._asdict().items() if v is not None and v != np.inf}
    percent = {} if line.percent is None else {"percent": line.percent}
    return {**found, **spread, **ends, **line.quantiles, "border": border, **percent}


def _class_figures(rows: list[dict[str, Any]], kept: list[str]) -> dict[str, Any]:
    """The figures of a group of classes."""
    total = _totals(rows)
    classes = {w.partition(" ")[2]: t for w, t in total.items() if w.startswith("class ")}
    chosen = [classes[c] for c in kept if c in classes]
    return {
        "n": sum(docs for docs, _ in classes.values()),
        "nulls": total["null"][0],
        "tokens": sum(tokens for _, tokens in classes.values()),
        "kept": sum(docs for docs, _ in chosen),
        "kept_tokens": sum(tokens for _, tokens in chosen),
        "classes": {c: {"docs": d, "tokens": t} for c, (d, t) in sorted(classes.items())},
    }


def _closest(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows next to a group's border, nearest first on each side."""
    found = []
    for what, (edge, kept, last) in _SIDES.items():
        own = [(r["score"], r["doc_id"]) for r in rows if r["what"] == what]
        own.sort(key=lambda r: (-r[0], r[1]), reverse=last)
        found += [{"edge": edge, "kept": kept, "doc_id": i, "score": v} for v, i in own[:CLOSEST]]
    return found


def _recorded(op: "Decide", scores: dict[str, Any]) -> dict[str, Any]:
    """Small figures of every score for the run's record: its largest groups, and remarks."""
    cuts, remarks = {}, {}
    for name, said in scores.items():
        groups = said["groups"]
        total = {k: sum(g[k] for g in groups.values()) for k in _SUMMED}
        largest = sorted(groups, key=lambda g: (-groups[g]["n"], g))[:_RECORDED]
        cuts[name] = {
            "per": said["per"],
            **total,
            "groups": {g: _brief(groups[g]) for g in largest},
            "groups_in_all": len(groups),
        }
        nulls, rows = total["nulls"], total["nulls"] + total["n"]
        if rows and nulls >= _MANY_NULLS * rows:
            done = "were dropped" if op.nulls == "drop" else "were kept"
            said = f"{nulls:,} of {rows:,} documents have no {name} and {done} by decide."
            remarks[said] = 1
    return {"cuts": cuts, "warnings": remarks}


_SUMMED = ("n", "nulls", "tokens", "kept", "kept_tokens")


def _brief(group: dict[str, Any]) -> dict[str, Any]:
    border = {k: v for k, v in group.get("border", {}).items() if k in ("low", "high")}
    classes = {"classes": group["classes"]} if "classes" in group else {}
    return {k: group[k] for k in _SUMMED} | border | classes
