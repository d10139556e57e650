"""Places in texts that a stage said something of, from the list columns of its sidecar. Pure.

Stages that count in tokens of their model need that model's tokenizer to say where a token stands;
`ends_of` gives the end of every token of a text in characters, or is null where it is not there.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from longctx.report.scores.passages import Place

I64 = npt.NDArray[np.int64]
Beside = dict[str, Any]
EndsOf = Callable[[str], I64]

_APART = 20


class _Rule(NamedTuple):
    """Columns that places are made of, whether they count in tokens, and how."""

    columns: tuple[str, ...]
    tokens: bool
    places: Callable[[Beside, I64], list[Place]]


def place_columns(op: str, schema: pa.Schema) -> list[str]:
    """Columns that `places_of` needs of a stage of this op; none for ops without places.

    Where `filter.decontaminate` cut its places out of the text, they are nowhere any more.
    """
    rule = _RULES.get(op)
    gone = op == "filter.decontaminate" and "text" in schema.names
    known = rule is not None and set(rule.columns) <= set(schema.names)
    return list(rule.columns) if rule is not None and known and not gone else []


def in_tokens(op: str) -> bool:
    """Whether places of this op are known in tokens of a model."""
    return op in _RULES and _RULES[op].tokens


def places_of(op: str, beside: Beside, text: str, ends_of: EndsOf | None) -> list[Place]:
    """Places of one document, the most telling first, from its values of `place_columns`."""
    rule = _RULES.get(op)
    if rule is None or not beside or any(beside[name] is None for name in rule.columns):
        return []
    if not rule.tokens:
        return rule.places(beside, np.zeros(0, np.int64))
    return rule.places(beside, ends_of(text)) if ends_of is not None else []


def _languages(beside: Beside, ends: I64) -> list[Place]:
    """Windows in another language than the document's."""
    return [
        Place(w["start_char"], w["end_char"], str(w["lang"]))
        for w in beside["lang_windows"]
        if w["lang"] is not None and w["lang"] != beside["lang"]
    ]


def _personal(beside: Beside, ends: I64) -> list[Place]:
    """Where personal data stands, or what stands in its place."""
    return [
        Place(s["start_char"], s["end_char"], s["kind"])
        if s["masked_start"] is None
        else Place(s["masked_start"], s["masked_end"], s["kind"])
        for s in beside["pii_spans"]
    ]


def _matched(beside: Beside, ends: I64) -> list[Place]:
    """What evaluation sets have, too; where several do, what begins first."""
    return [
        Place(s["start_char"], s["end_char"], f"{s['set']}, row {s['row']}, {s['field']}")
        for s in beside["decon_spans"]
    ]


def _attention(beside: Beside, ends: I64) -> list[Place]:
    """The windows with the most and the least distant attention."""
    windows = sorted(beside["la_windows"], key=lambda w: (-w["ds"], w["start"]))
    chosen = [(w, what) for w, what in zip((windows[:1] + windows[1:][-1:]), _ENDS, strict=False)]
    return [
        Place(*_span(ends, w["start"], w["end"]), f"{what} distant attention, {w['ds']:.3g}")
        for w, what in chosen
    ]


_ENDS = ("most", "least")


def _keys(beside: Beside, ends: I64) -> list[Place]:
    """Tokens that far context makes predictable, near ones together, the largest gain first."""
    from longctx.score.likelihood import key_tokens

    long, short = (np.asarray(beside[n], np.float32) for n in ("nll_long", "nll_short"))
    gain = short - long
    keys = np.flatnonzero(key_tokens(long, short))
    found: list[tuple[int, int, float]] = []
    for key in keys.tolist():
        # The first token is never scored: score i is of token i + 1.
        start, end = _span(ends, key + 1, key + 2)
        if found and start - found[-1][1] <= _APART:
            found[-1] = (found[-1][0], end, found[-1][2] + float(gain[key]))
        else:
            found.append((start, end, float(gain[key])))
    found.sort(key=lambda one: (-one[2], one[0]))
    return [Place(start, end, f"gain {total:.3g} nats") for start, end, total in found]


def _span(ends: I64, first: int, last: int) -> tuple[int, int]:
    """Characters of the tokens first..last-1; empty at the end where there are fewer."""
    at = np.concatenate([[0], ends])
    size = len(ends)
    return int(at[min(first, size)]), int(at[min(last, size)])


_RULES: dict[str, _Rule] = {
    "score.language": _Rule(("lang", "lang_windows"), False, _languages),
    "filter.pii": _Rule(("pii_spans",), False, _personal),
    "filter.decontaminate": _Rule(("decon_spans",), False, _matched),
    "score.longattn": _Rule(("la_windows",), True, _attention),
    "score.likelihood": _Rule(("nll_long", "nll_short"), True, _keys),
}


def meaning(op: str, columns: Sequence[str]) -> str:
    """What marks in the texts of a page stand for; nothing where there are none."""
    return _MARKS.get(op, "") if columns else ""


_MARKS = {
    "score.language": "Marked are windows in another language.",
    "filter.pii": "Marked is what was found; what it says is masked.",
    "filter.decontaminate": "Marked is what an evaluation set has, too.",
    "score.longattn": "Marked are the windows with the most and the least distant attention.",
    "score.likelihood": "Marked are tokens that far context alone predicts (LongPPL's keys).",
}
