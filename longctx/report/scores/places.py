"""Places in texts that a stage said something of, from the list columns of its sidecar. Pure."""

from collections.abc import Callable
from typing import Any

import pyarrow as pa

from longctx.report.scores.passages import Place

Beside = dict[str, Any]


def place_columns(op: str, schema: pa.Schema) -> list[str]:
    """Columns that `places_of` needs of a stage of this op; none for ops without places.

    Where `filter.decontaminate` cut its places out of the text, they are nowhere any more.
    """
    names = _COLUMNS.get(op, ((), None))[0]
    gone = op == "filter.decontaminate" and "text" in schema.names
    return list(names) if set(names) <= set(schema.names) and not gone else []


def places_of(op: str, beside: Beside) -> list[Place]:
    """Places of one document in ascending order, from its values of `place_columns`."""
    rule = _COLUMNS.get(op, ((), None))[1]
    return rule(beside) if rule is not None and beside else []


def _languages(beside: Beside) -> list[Place]:
    """Windows in another language than the document's."""
    return [
        Place(w["start_char"], w["end_char"], str(w["lang"]))
        for w in beside["lang_windows"] or []
        if w["lang"] is not None and w["lang"] != beside["lang"]
    ]


def _personal(beside: Beside) -> list[Place]:
    """Where personal data stands, or what stands in its place."""
    return [
        Place(s["start_char"], s["end_char"], s["kind"])
        if s["masked_start"] is None
        else Place(s["masked_start"], s["masked_end"], s["kind"])
        for s in beside["pii_spans"] or []
    ]


def _matched(beside: Beside) -> list[Place]:
    """What evaluation sets have, too; where several do, what begins first."""
    return [
        Place(s["start_char"], s["end_char"], f"{s['set']}, row {s['row']}, {s['field']}")
        for s in beside["decon_spans"] or []
    ]


_COLUMNS: dict[str, tuple[tuple[str, ...], Callable[[Beside], list[Place]]]] = {
    "score.language": (("lang", "lang_windows"), _languages),
    "filter.pii": (("pii_spans",), _personal),
    "filter.decontaminate": (("decon_spans",), _matched),
}
