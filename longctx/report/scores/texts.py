"""Texts of the documents that pages show, read once each and cut at once to what is shown."""

import json
from collections.abc import Sequence
from typing import Any, NamedTuple

from longctx.report.format import one_line
from longctx.report.scores.data import Passage
from longctx.report.scores.passages import masked, passages
from longctx.report.scores.places import EndsOf, in_tokens, place_columns, places_of
from longctx.report.scores.plan import Stage, StagePlan
from longctx.report.scores.reading import Address, rows_at
from longctx.report.scores.sample import Sample
from longctx.report.scores.tokens import ends_of

_FIELD = 400


class Text(NamedTuple):
    """A text that was read: its length, and what each stage shows of it."""

    chars: int
    passages: dict[str, list[Passage]]
    remarks: dict[str, list[str]]


class _Said(NamedTuple):
    """What a stage said of the documents that its page shows, by their place."""

    plan: StagePlan
    rows: set[int]
    beside: dict[Address, dict[str, Any]]
    ends: EndsOf | None
    remarks: dict[Address, list[str]]

    def shown(self, place: Address, text: str) -> list[Passage]:
        """The passages of a text, with the stage's places marked in them."""
        places = places_of(self.plan.op, self.beside.get(place, {}), text, self.ends)
        return passages(text, places)


def read_texts(
    sample: Sample, plans: Sequence[StagePlan], stages: Sequence[Stage]
) -> dict[int, Text]:
    """The texts of all documents that any page shows, cut to what is shown."""
    said = [_said(sample, plan, stages[plan.number]["settings"]) for plan in plans]
    rows = {sample.address(row): row for one in said for row in one.rows}
    found = {row: Text(0, {}, {}) for row in rows.values()}
    for place, values in rows_at(sample.run_dir, sample.texts, ["text"], rows):
        text, row = values["text"] or "", rows[place]
        own = [one for one in said if row in one.rows]
        found[row] = Text(
            len(text),
            {one.plan.stage: one.shown(place, text) for one in own},
            {one.plan.stage: one.remarks.get(place, []) for one in own},
        )
    return found


def _said(sample: Sample, plan: StagePlan, settings: dict[str, Any]) -> _Said:
    rows = plan.rows
    places = [sample.address(row) for row in rows]
    columns = place_columns(plan.op, sample.schemas[plan.stage])
    beside: dict[Address, dict[str, Any]] = {}
    ends = None
    if columns:
        beside = dict(rows_at(sample.run_dir, f"stages/{plan.stage}", columns, places))
        if in_tokens(plan.op):
            ends = ends_of(settings)
            plan.unknown_tokens = ends is None
    remarks = _instructions(sample, places, settings) if plan.op == "select.gateau" else {}
    return _Said(plan, rows, beside, ends, remarks)


def _instructions(
    sample: Sample, places: Sequence[Address], settings: dict[str, Any]
) -> dict[Address, list[str]]:
    """What an instruction row has beside its context: the fields that the stage reads of `meta`."""
    names = [str(settings.get(role, role)) for role in ("instruction", "response")]
    found = {}
    for place, values in rows_at(sample.run_dir, "documents", ["meta"], places):
        try:
            meta = json.loads(values["meta"] or "{}")
        except ValueError:
            meta = {}
        fields = {n: meta.get(n) for n in names} if isinstance(meta, dict) else {}
        found[place] = [
            f"{name}: {one_line(masked(value, _FIELD), _FIELD)}"
            for name, value in fields.items()
            if isinstance(value, str)
        ]
    return found
