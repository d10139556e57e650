"""What `decide` did with its rules of `keep`: figures of every group, documents next to borders.

Read from the step `cut` of the stage, which has them of all rows: nothing is sampled here.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from longctx.errors import DamagedFileError
from longctx.io import paths
from longctx.report.scores.data import Closest, Cut, CutGroup, Shown
from longctx.report.scores.op_steps import table_of
from longctx.report.scores.reading import Address

_META = "cut_meta.json"
_SHOWN_GROUPS, _SHOWN_SIDE = 4, 3
_CLOSEST = ["name", "group", "edge", "kept", "doc_id", "score"]
_PLACE = ["part", "row"]
Stage = dict[str, Any]


def figures(run_dir: str, stage: Stage) -> dict[str, Any]:
    """The content of `cut_meta.json`; nothing where the stage has no rules of `keep`."""
    url = paths.inside(run_dir, f"stages/{stage['stage']}/cut/{_META}")
    data = paths.read_if_exists(url)
    if data is None:
        return {}
    try:
        found = json.loads(data)
        scores = found["scores"]
        return {name: _checked(scores[name]) for name in scores}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DamagedFileError(f"it is not as it was written: {error}", file=url) from None


def _checked(score: Any) -> dict[str, Any]:
    """One score: who was compared, and its groups. Raises what a wrong shape raises."""
    groups = [_group(name, said) for name, said in score["groups"].items()]
    return {"per": str(score["per"]), "groups": sorted(groups, key=lambda g: (-g.n, g.group))}


def _group(name: str, said: dict[str, Any]) -> CutGroup:
    border, rule = said.get("border", {}), said.get("rule", {})
    return CutGroup(
        group=name,
        n=int(said["n"]),
        nulls=int(said["nulls"]),
        tokens=int(said["tokens"]),
        kept=int(said["kept"]),
        kept_tokens=int(said["kept_tokens"]),
        low=_number(border.get("low")),
        high=_number(border.get("high")),
        rule=", ".join(f"{key} {_plain(value)}" for key, value in rule.items()),
    )


def _number(value: Any) -> float | None:
    return None if value is None else float(value)


def _plain(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else json.dumps(value, ensure_ascii=False)


def closest(run_dir: str, stage: Stage) -> list[dict[str, Any]]:
    """The documents next to borders, as the stage wrote them, with their part and row."""
    folder = f"stages/{stage['stage']}/cut"
    table = table_of(run_dir, f"{folder}/closest.parquet", _CLOSEST)
    places = table_of(run_dir, f"{folder}/places.parquet", ["doc_id", *_PLACE])
    if table is None:
        return []
    known = {} if places is None else {row["doc_id"]: row for row in places.to_pylist()}
    return [{**row, **known.get(row["doc_id"], {})} for row in table.to_pylist()]


def to_read(rows: Sequence[dict[str, Any]], cuts: Mapping[str, Any]) -> list[Address]:
    """Those of which the text is shown: the nearest three on each side, of the largest groups."""
    found = []
    largest = {name: {g.group for g in c["groups"][:_SHOWN_GROUPS]} for name, c in cuts.items()}
    seen: dict[tuple[Any, ...], int] = {}
    for row in rows:
        side = (row["name"], row["group"], row["edge"], row["kept"])
        seen[side] = seen.get(side, 0) + 1
        known = row.get("part") is not None and row.get("row") is not None
        if known and seen[side] <= _SHOWN_SIDE and row["group"] in largest.get(row["name"], ()):
            found.append(Address(row["part"], row["row"]))
    return found


def cuts_of(
    found: Mapping[str, Any], rows: Sequence[dict[str, Any]], shown: Mapping[Address, Shown]
) -> list[Cut]:
    """The cuts of a stage with the documents next to their borders."""
    return [
        Cut(
            name,
            one["per"],
            one["groups"],
            [
                Closest(
                    str(row["group"]),
                    str(row["edge"]),
                    bool(row["kept"]),
                    str(row["doc_id"]),
                    float(row["score"]),
                    shown.get(Address(row.get("part") or "", row.get("row") or 0)),
                )
                for row in rows
                if row["name"] == name
            ],
        )
        for name, one in found.items()
    ]
