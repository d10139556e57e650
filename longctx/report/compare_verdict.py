"""What a comparison says in sentences: a verdict that weighs, and what to keep in mind.

Related context comes first because it is what orders differ in; fill, avoidable cuts and copies are
what it may be paid with. Limits (one point of a share, a fifth of documents without a vector) are
ours: they mark what is worth a sentence.
"""

from collections.abc import Iterator, Sequence

from longctx.compare.result import Comparison, Line
from longctx.report.compare_columns import (
    COPIES,
    CUT_SHORT,
    EARLIER,
    FILL,
    Column,
    best,
    coherence,
    leads,
)
from longctx.report.format import compact, count, decimal, one_line, percent

_POINT = 0.01
_LEFT_OUT = 0.2
_FLOORS = 0.02
_COPIES = 0.05
_FEW_WINDOWS = 30
_LABEL, _NAMED = 60, 4
_PRICES = {
    FILL: "more empty room",
    CUT_SHORT: "more documents cut that would fit",
    COPIES: "more windows with copies",
}


def verdict(comparison: Comparison) -> list[str]:
    """Two or three sentences or so: related context, its price, and what that means together."""
    lines = comparison.lines
    whole = coherence(comparison.sizes[-1], len(comparison.sizes) - 1)
    if all(whole.estimate(line).value is None for line in lines):
        return [
            "No two documents with a vector share a context, so nothing can be said about how "
            "related they are.",
            *_price(lines),
        ]
    if len(lines) == 1:
        return [_alone(lines[0], whole, comparison.sizes[-1]), *_price(lines)]
    return [_context(lines, whole, comparison.sizes[-1]), *_price(lines), _together(lines, whole)]


def label(line: Line) -> str:
    """The run's name as it can stand in a sentence."""
    return one_line(line.name, _LABEL)


def _alone(line: Line, whole: Column, size: int) -> str:
    return (
        f"Documents that share {count(size)} tokens have a mean similarity of "
        f"{whole.shown(line)}; in random places the same documents would have "
        f"{decimal(line.likeness.random_coherence[-1])}."
    )


def _context(lines: Sequence[Line], whole: Column, size: int) -> str:
    leaders = best(lines, whole)
    if not leaders:
        said = (
            f"In related context the runs cannot be told apart: documents in one context of "
            f"{count(size)} tokens have a mean similarity of {_range(lines, whole)}."
        )
    else:
        known = [line for line in lines if whole.estimate(line).value is not None]
        rest = [line for line in known if line not in leaders]
        behind = best(rest, whole) or rest
        keep = "keeps" if len(leaders) == 1 else "keep"
        said = (
            f"{_names(leaders)} {keep} the most related documents together: those in one context "
            f"of {count(size)} tokens have a mean similarity of {_range(leaders, whole)} (in "
            f"random places {decimal(leaders[0].likeness.random_coherence[-1])}); {_names(behind)} "
            f"{'follows' if len(behind) == 1 else 'follow'} with {_range(behind, whole)}."
        )
    first = best(lines, EARLIER)
    if not first:
        return f"{said} The best earlier document, which a model can use, does not separate them."
    if first == leaders:
        return f"{said} The best earlier document is also closest there ({_range(first, EARLIER)})."
    return (
        f"{said} The best earlier document, which a model can use, is closest in {_names(first)} "
        f"({_range(first, EARLIER)})."
    )


def _price(lines: Sequence[Line]) -> list[str]:
    """One sentence on empty room, avoidable cuts and copies."""
    said = (
        _spread(lines, FILL, "the room is filled"),
        _spread(lines, CUT_SHORT, "the documents that would fit are cut"),
        _spread(lines, COPIES, "the windows hold copies"),
    )
    sentence = "; ".join(part for part in said if part)
    return [f"{sentence[0].upper()}{sentence[1:]}."]


def _spread(lines: Sequence[Line], column: Column, what: str) -> str:
    known = [line for line in lines if column.estimate(line).value is not None]
    if not known:
        return ""
    ordered = sorted(known, key=lambda line: column.estimate(line).value or 0.0)
    low, high = ordered[0], ordered[-1]
    if column.shown(low) == column.shown(high):
        share = "none" if column.estimate(high).value == 0 else column.shown(low)
        return f"{share} of {what}"
    return f"{column.shown(low)} ({label(low)}) to {column.shown(high)} ({label(high)}) of {what}"


def _together(lines: Sequence[Line], whole: Column) -> str:
    related, earlier = best(lines, whole) or lines, best(lines, EARLIER) or lines
    ahead = [line for line in related if line in earlier] or related
    free = [line for line in ahead if not _costs(line, lines)]
    if len(ahead) == len(lines):
        if len(free) in (0, len(lines)):
            return "Taken together, none of these runs is clearly better than the others."
        return f"Taken together, take {_names(free)}: equal context at a lower price."
    if free:
        chosen = "is the best choice" if len(free) == 1 else "are the best choices"
        dear = any(leads(o, line, c) for line in free for c in _PRICES for o in lines)
        costs = "less than a point" if dear else "nothing"
        return f"Taken together, {_names(free)} {chosen}: the lead costs {costs} elsewhere."
    cheapest = min(ahead, key=lambda line: len(_costs(line, lines)))
    return (
        f"Taken together, {label(cheapest)} is the one to take where related context counts; it "
        f"pays with {' and '.join(_costs(cheapest, lines))}."
    )


def _costs(line: Line, lines: Sequence[Line]) -> list[str]:
    """Where another line is better by a point at least, in words."""
    found = []
    for column, words in _PRICES.items():
        mine = column.estimate(line).value
        others = [o for o in lines if leads(o, line, column)]
        if mine is None or not others:
            continue
        rival = max(others, key=lambda o: abs((column.estimate(o).value or 0.0) - mine))
        if abs((column.estimate(rival).value or 0.0) - mine) >= _POINT:
            found.append(f"{words} ({column.shown(line)} against {column.shown(rival)})")
    return found


def _range(lines: Sequence[Line], column: Column) -> str:
    values = sorted(
        (v, column.shown(line)) for line in lines if (v := column.estimate(line).value) is not None
    )
    if not values:
        return "unknown"
    low, high = values[0][1], values[-1][1]
    return low if low == high else f"{low} to {high}"


def _names(lines: Sequence[Line]) -> str:
    names = [label(line) for line in lines]
    if len(names) > _NAMED:
        names = [*names[: _NAMED - 1], f"{len(names) - _NAMED + 1} more"]
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def caveats(comparison: Comparison) -> list[str]:
    """What a reader has to know before believing the figures."""
    return [sentence for rule in _CAVEATS for sentence in rule(comparison)]


def _sampling(comparison: Comparison) -> Iterator[str]:
    compared = max(line.likeness.windows for line in comparison.lines)
    held = sorted({line.counts.windows for line in comparison.lines})
    among = count(held[0]) if len(held) == 1 else f"{count(held[0])} to {count(held[-1])}"
    yield (
        f"Similarity was measured in up to {count(compared)} windows of each run (of {among}), "
        f"chosen by a hash of what they hold, with the encoder "
        f"{one_line(comparison.encoder, _LABEL)}. Differences within two standard errors are not "
        "called a lead."
    )


def _corpora(comparison: Comparison) -> Iterator[str]:
    lines = comparison.lines
    for what, values, shown in (
        ("documents", [n.counts.documents for n in lines], count),
        ("tokens", [n.counts.tokens for n in lines], compact),
    ):
        if max(values) > (1 + _POINT) * min(values):
            yield (
                f"The runs hold different numbers of {what} ({shown(min(values))} to "
                f"{shown(max(values))}): part of a difference may be the corpus, not the order."
            )
    floors = [f for n in lines if (f := n.likeness.random_coherence[-1]) is not None]
    if floors and max(floors) - min(floors) > _FLOORS:
        yield (
            f"Documents in random places differ in similarity from run to run "
            f"({decimal(min(floors))} to {decimal(max(floors))}): look at what each run adds to "
            "its own floor."
        )


def _settings(comparison: Comparison) -> Iterator[str]:
    lines = comparison.lines
    if len({n.length for n in lines}) > 1:
        yield (
            f"The windows differ in length; similarity is compared in contexts of at most "
            f"{count(comparison.sizes[-1])} tokens, the shortest."
        )
    if len({n.tokenizer for n in lines}) > 1:
        yield "The runs use different tokenizers, so equal numbers of tokens are not equal text."
    for line in lines:
        if not line.tokenizer_known:
            yield (
                f"Nothing tells the tokenizer of {label(line)}: {line.tokenizer} was assumed. If "
                "that is wrong, so are its texts; name it with --tokenizer."
            )
        if not line.length_known:
            yield (
                f"Nothing tells the length of the windows of {label(line)}: its longest window "
                f"({count(line.length)} tokens) was taken for full; name it with --length."
            )
        if line.counts.split is None:
            yield (
                f"{label(line)} has no document ids: cuts cannot be seen, and pieces of one "
                "document count as documents."
            )


def _measured(comparison: Comparison) -> Iterator[str]:
    lines = comparison.lines
    left_out = [(n, n.likeness.unknown / max(1, n.likeness.segments)) for n in lines]
    many = [f"{percent(share)} in {label(n)}" for n, share in left_out if share > _LEFT_OUT]
    if many:
        yield (
            f"Many documents have no vector ({', '.join(many)}): they are in other languages than "
            "the encoder knows, or have no words. How related they are was not measured."
        )
    few = [label(n) for n in lines if n.likeness.windows < _FEW_WINDOWS]
    if few:
        yield f"Standard errors from less than {_FEW_WINDOWS} windows are rough: {', '.join(few)}."
    copies = [(n, n.likeness.duplicates.value or 0.0) for n in lines]
    dense = [f"{percent(v)} of the windows of {label(n)}" for n, v in copies if v > _COPIES]
    if dense:
        yield (
            f"Near-copies raise similarity without adding context: {', '.join(dense)} hold some."
        )


def _training(comparison: Comparison) -> Iterator[str]:
    yield (
        "Order inside a window matters only where training lets documents attend to each other; "
        "no model was trained here, and which figure predicts its gain is an open question."
    )


_CAVEATS = (_sampling, _corpora, _settings, _measured, _training)
