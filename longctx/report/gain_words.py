"""What the yardstick says in sentences: which run has more gain, where, and what to keep in mind.

A difference is called clear where its 95 % interval excludes 0. The verdict goes by LongFilter's
score, the one that weighs a gain by how sure the model is.
"""

from collections.abc import Callable, Iterator, Sequence

from longctx.compare.bootstrap import LEAST, Interval
from longctx.compare.gain import GainLine
from longctx.compare.result import Gain
from longctx.report.format import count, decimal, one_line, percent, plural
from longctx.score.causal_lm import PACKAGED

_LABEL = 60
_FEW = 30
_MANY = 3
_MOST, _ALL = 0.9, 0.999

# Group -> what it is called in a table, and what it means.
PLACES = {
    "all": ("all far tokens", "tokens that have any context beyond the short one"),
    "same": (
        "same document",
        "all their far context lies in the document that they stand in: the document's own gain",
    ),
    "other": (
        "other documents",
        "all of it lies in documents before it in the window: what the packing brought",
    ),
    "both": ("both", "it lies in both, so neither can be credited"),
}
MEASURES: dict[str, tuple[str, str]] = {
    "longfilter": (
        "LongFilter",
        "mean gain in nats, weighted by the probability that the token has with far context",
    ),
    "dnll": ("nats/token", "mean gain in log-likelihood"),
    "key_share": (
        "key tokens",
        "share of tokens that far context makes more likely by more than 2 nats, to a loss below 2",
    ),
}


def label(line: GainLine) -> str:
    """The run's name as it can stand in a sentence."""
    return one_line(line.name, _LABEL)


def shown(measure: str, value: float | None, *, signed: bool = False) -> str:
    """A mean or a difference of means as text: "0.0123", "+0.0123", "0.31 %", "+0.31 points"."""
    if value is None:
        return "n/a"
    unit = "" if measure != "key_share" else " points" if signed else " %"
    return f"{_number(measure, value, signed=signed)}{unit}"


def bounds(measure: str, found: Interval, *, signed: bool = False) -> str:
    """The interval as text without its unit, or nothing."""
    if found.low is None or found.high is None:
        return ""
    return " to ".join(_number(measure, v, signed=signed) for v in (found.low, found.high))


def _number(measure: str, value: float, *, signed: bool) -> str:
    if measure == "key_share":
        number = f"{100 * value:.2f}"
    else:
        # A bound that is next to 0 must not look as if it were 0.
        digits = 6 if abs(value) < 0.00005 else 4
        number = f"{value:.{digits}f}" if abs(value) < 1 else decimal(value)
    if not number.strip("-0."):
        return "0.00" if measure == "key_share" else "0.0000"
    return f"+{number}" if signed and value > 0 else number


def far(gain: Gain) -> str:
    """Where far context begins, in words."""
    return f"{count(gain.short)} to {count(2 * gain.short - 1)} tokens"


def gain_verdict(gain: Gain) -> list[str]:
    """One sentence on the first run, then where the others differ from it."""
    first, *others = gain.lines
    found = [_first(gain, first)]
    if others:
        found.append(f"Against {label(first)} the gain is {_differences(others, 'all')}.")
    if others and gain.of == "windows" and len(places(gain)) > 1:
        other, same = (_differences(others, group) for group in ("other", "same"))
        found += [
            f"Where far context lies in other documents, which is what an order decides, it is "
            f"{other}.",
            f"Where it lies in the same document, it is {same}.",
        ]
    return found


def places(gain: Gain) -> list[str]:
    """The places of far context that any run has tokens of."""
    named = [name for name in PLACES if name != "all"]
    return [g for g in named if any(line.groups[g].tokens for line in gain.lines)]


def _first(gain: Gain, line: GainLine) -> str:
    nats, score = line.groups["all"].dnll, line.groups["all"].longfilter
    raised = f"{shown('dnll', nats.value)} nats{_within('dnll', nats)}"
    where = "In" if gain.of != "borders" else "At the beginnings of documents inside windows of"
    said = (
        f"{where} {label(line)}, context farther back than {far(gain)} raises the log-likelihood "
        f"of a token under {gain.model} by {raised}; "
        f"LongFilter's score is {shown('longfilter', score.value)}{_within('longfilter', score)}."
    )
    if nats.low is not None and nats.side <= 0:
        said += " That is no gain that could be told from none."
    return said


def _within(measure: str, found: Interval) -> str:
    said = bounds(measure, found)
    return f" ({said})" if said else ""


def _differences(lines: Sequence[GainLine], group: str) -> str:
    """Runs by whether their LongFilter score is clearly higher, lower, or neither."""
    parts = []
    for side, words in ((1, "clearly higher in"), (-1, "clearly lower in")):
        named = [_with_difference(line, group) for line in lines if _side(line, group) == side]
        if named:
            parts.append(f"{words} {_listed(named)}")
    rest = [line for line in lines if _side(line, group) == 0]
    known = [
        _with_difference(line, group) for line in rest if _difference(line, group).low is not None
    ]
    if known:
        parts.append(f"not clearly different in {_listed(known)}")
    unknown = [label(line) for line in rest if _difference(line, group).low is None]
    if unknown:
        parts.append(f"not known for {_listed(unknown)}: too few such tokens")
    return "; ".join(parts)


def _difference(line: GainLine, group: str) -> Interval:
    return line.difference[group].longfilter if line.difference else Interval()


def _side(line: GainLine, group: str) -> int:
    return _difference(line, group).side


def _with_difference(line: GainLine, group: str) -> str:
    found = _difference(line, group)
    difference = shown("longfilter", found.value, signed=True)
    return f"{label(line)} ({difference}, {bounds('longfilter', found, signed=True)})"


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def gain_caveats(gain: Gain) -> list[str]:
    """What a reader has to know before believing the figures."""
    return [sentence for rule in _CAVEATS for sentence in rule(gain)]


def _sample(gain: Gain) -> Iterator[str]:
    units = gain.lines[0].units
    last = f", the last {count(2 * gain.short)} from the beginning of a document on"
    yield (
        f"The gain was measured in {plural(units, gain.unit)} of each run, chosen by hash, "
        f"{count(gain.long)} tokens of each{last if gain.of == 'borders' else ''}. Brackets are "
        f"95 % intervals over {gain.unit}s: another sample would lead to other figures, mostly "
        "within them."
    )
    if units < gain.wanted:
        yield (
            f"{count(gain.wanted)} {gain.unit}s of each are usual; one of the runs has no more "
            f"than {units} that can be read."
        )
    if units < LEAST:
        yield f"From fewer than {LEAST} {gain.unit}s no interval is given."
    elif units < _FEW:
        yield f"Intervals from fewer than {_FEW} {gain.unit}s are rough."


def _passed_over(gain: Gain) -> Iterator[str]:
    many = [n for n in gain.lines if n.units < _MOST * n.looked]
    if many:
        border = ", hold no beginning of a document that far inside" if gain.of == "borders" else ""
        looked = _listed([f"{count(n.looked)} of {label(n)}" for n in many])
        yield (
            f"{_upper(gain.unit)}s looked at for those {many[0].units}: {looked}. The others are "
            f"shorter than {count(gain.long)} tokens{border}, or nothing that the model knows; the "
            "figures are not about them."
        )
    few = [n for n in gain.lines if n.groups["other"].units < LEAST]
    if few and gain.of == "windows" and len(gain.lines) > 1:
        shares = _listed([f"{percent(n.groups['other'].share)} in {label(n)}" for n in few])
        yield (
            f"Few tokens have all their far context in other documents ({shares}): to judge an "
            "order, read where documents begin, with --gain-of borders."
        )


def _upper(word: str) -> str:
    return word[0].upper() + word[1:]


def _corpora(gain: Gain) -> Iterator[str]:
    first, *others = gain.lines
    same = [n for n in others if min(n.shared or 0.0, n.shared_first or 0.0) >= _ALL]
    if same:
        yield (
            f"{label(first)} and {_listed([label(n) for n in same])} hold the same documents: a "
            f"difference comes from how they were cut and placed."
        )
    for line in others:
        if line in same:
            continue
        if line.shared is None:
            yield (
                f"Documents of {label(line)} or {label(first)} have no ids: how many they share "
                "is not known, and part of a difference may be the documents."
            )
        else:
            yield (
                f"{percent(line.shared)} of the far tokens of {label(line)} are of documents that "
                f"{label(first)} has too, and {percent(line.shared_first)} the other way round: "
                "the rest of a difference may be the documents."
            )


def _model(gain: Gain) -> Iterator[str]:
    unknown = [f"{percent(n.unknown)} in {label(n)}" for n in gain.lines if n.unknown > 0]
    if unknown:
        yield (
            "Text in scripts that the packaged model does not know is context and is not counted: "
            f"{_listed(unknown)} of the far tokens."
        )
    if len(gain.lines) > 1 + _MANY:
        yield (
            f"{len(gain.lines) - 1} runs were held against one: of twenty such intervals, one "
            "excludes 0 by chance."
        )
    small = "a small model that makes little use of far context" if gain.model == PACKAGED else ""
    yield (
        f"The gain is that of one model, {gain.model}{f', {small}' if small else ''}. Nothing was "
        "trained: it helps to choose, and does not promise a better model."
    )


_CAVEATS: tuple[Callable[[Gain], Iterator[str]], ...] = (
    _sample,
    _passed_over,
    _corpora,
    _model,
)
