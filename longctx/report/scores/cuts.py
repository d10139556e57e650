"""What `decide` did with its rules of `keep`: figures of every group, documents next to borders.

Read from the step `cut` of the stage, which has them of all rows: nothing is sampled here.
"""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from longctx.errors import DamagedFileError
from longctx.io import paths
from longctx.report.scores.data import Closest, Cut, CutGroup, Shown
from longctx.report.scores.op_steps import table_of
from longctx.report.scores.passages import passages
from longctx.report.scores.reading import Address, rows_at
from longctx.report.scores.sample import Sample

_META = "cut_meta.json"
_SHOWN_GROUPS, _SHOWN_SIDE = 4, 3
_CLOSEST = ["name", "group", "edge", "kept", "doc_id", "score"]
_PLACE = ["part", "row"]
Stage = dict[str, Any]
Row = dict[str, Any]


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


def _closest(run_dir: str, stage: Stage) -> list[Row]:
    """The documents next to borders, as the stage wrote them, with their part and row."""
    folder = f"stages/{stage['stage']}/cut"
    table = table_of(run_dir, f"{folder}/closest.parquet", _CLOSEST)
    places = table_of(run_dir, f"{folder}/places.parquet", ["doc_id", *_PLACE])
    if table is None:
        return []
    known = {} if places is None else {row["doc_id"]: row for row in places.to_pylist()}
    return [{**row, **known.get(row["doc_id"], {})} for row in table.to_pylist()]


def _to_read(rows: Sequence[Row], cuts: Mapping[str, Any]) -> dict[int, Address]:
    """Numbers of the rows whose text is shown: the nearest three a side, of the largest groups."""
    found = {}
    largest = {name: {g.group for g in c["groups"][:_SHOWN_GROUPS]} for name, c in cuts.items()}
    seen: Counter[tuple[Any, ...]] = Counter()
    for number, row in enumerate(rows):
        side = (row["name"], row["group"], row["edge"], row["kept"])
        seen[side] += 1
        known = row.get("part") is not None and row.get("row") is not None
        if known and seen[side] <= _SHOWN_SIDE and row["group"] in largest.get(row["name"], ()):
            found[number] = Address(row["part"], row["row"])
    return found


def _read(sample: Sample, rows: Sequence[Row], cuts: Mapping[str, Any]) -> dict[int, Shown]:
    """What is shown of some rows, by their number; a text that stands for several is read once."""
    wanted = _to_read(rows, cuts)
    texts = {
        place: (len(text), passages(text))
        for place, values in rows_at(sample.run_dir, sample.texts, ["text"], wanted.values())
        for text in [values["text"] or ""]
    }
    return {
        number: Shown(
            str(rows[number]["doc_id"]),
            str(rows[number]["group"]),
            None,
            float(rows[number]["score"]),
            "",
            *texts[place],
        )
        for number, place in wanted.items()
        if place in texts
    }


def cuts_of(sample: Sample, stage: Stage) -> list[Cut]:
    """The rules of `keep` of a stage, with the documents next to their borders."""
    found = figures(sample.run_dir, stage)
    rows = _closest(sample.run_dir, stage) if found else []
    shown = _read(sample, rows, found)
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
                    shown.get(number),
                )
                for number, row in enumerate(rows)
                if row["name"] == name
            ],
        )
        for name, one in found.items()
    ]
