"""What a reader should worry about, computed from the report's data alone.

A finding is a sentence with the section that shows its numbers. The limits below are ours: they
mark what is worth a look, not what is wrong; only lost rows, a run that did not finish, an empty
output and a large quarantine are called grave.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from longctx.report.data import Mix, ReportData
from longctx.report.format import decimal, one_line, percent, plural, ratio, tokens
from longctx.report.mixture.data import OPS
from longctx.report.mixture.section import remarks

FINISHED = "done"
UNKNOWN = frozenset({"", "unknown", "none", "null", "other"})

_QUARANTINED = 0.01
_STAGE_DROPS = 0.5
_TOKENS_DROPPED = 0.001
_FILL = 0.95
_SPLIT_SHORT = 0.1
_DOMINATES = 0.6
_MOVED = 0.1
_UNKNOWN_LICENCE = 0.01
_JUMPS = 0.2
_BARELY_ORDERED = 1.2
_REMARKS = 2


@dataclass(frozen=True)
class Finding:
    """One sentence for the reader, and the id of the section that shows why."""

    sentence: str
    section: str
    grave: bool = False


def findings(data: ReportData) -> list[Finding]:
    """All findings, the grave ones first, else in the order of the report."""
    found = [finding for rule in _RULES for finding in rule(data)]
    return sorted(found, key=lambda finding: not finding.grave)


def unaccounted(rows_in: int, rows_out: int, dropped: dict[str, int], quarantined: int) -> int:
    """Rows of a stage that are neither out, dropped nor quarantined; negative if too many."""
    return rows_in - rows_out - sum(dropped.values()) - quarantined


def _outcome(data: ReportData) -> Iterator[Finding]:
    if data.status != FINISHED:
        yield Finding(f"The run is not finished; its status is {data.status}.", "summary", True)
    if not data.stages or not data.stages[0].rows_in:
        yield Finding("No rows were read.", "stages" if data.stages else "summary", True)
    elif not data.stages[-1].rows_out:
        yield Finding(f"No rows came out of {data.stages[-1].stage}.", "stages", True)


def _rows(data: ReportData) -> Iterator[Finding]:
    for row in data.stages:
        lost = unaccounted(row.rows_in, row.rows_out, row.dropped, row.quarantined)
        if lost:
            what = "unaccounted for" if lost > 0 else "more than went in"
            yield Finding(f"{plural(abs(lost), 'row')} of {row.stage}: {what}.", "stages", True)
        share = ratio(sum(row.dropped.values()), row.rows_in)
        # A mixture takes as many documents as its budget asks for.
        if row.op in OPS:
            continue
        if share is not None and share >= _STAGE_DROPS:
            reason = max(row.dropped, key=lambda name: row.dropped[name])
            yield Finding(
                f"{row.stage} dropped {percent(share)} of its rows, most of them as {reason}.",
                "stages",
            )


def _quarantine(data: ReportData) -> Iterator[Finding]:
    rows = max(sum(s.quarantined for s in data.stages), sum(data.quarantine.values()))
    if not rows:
        return
    share = ratio(rows, data.stages[0].rows_in) if data.stages else None
    of_all = f" ({percent(share)} of those read)" if share is not None else ""
    most = max(data.quarantine, key=lambda name: data.quarantine[name], default="")
    why = f"; the most frequent reason is {one_line(most, 80)}" if most else ""
    verb = "is" if rows == 1 else "are"
    yield Finding(
        f"{plural(rows, 'row')}{of_all} {verb} in quarantine{why}.",
        "quarantine" if data.quarantine else "stages",
        (share or 0.0) > _QUARANTINED,
    )


def _warned(data: ReportData) -> Iterator[Finding]:
    """What the ops themselves said."""
    section = "order" if data.neighbours else "rows" if data.synthesis else "stages"
    for sentence in data.warnings:
        yield Finding(sentence, section)


def _order(data: ReportData) -> Iterator[Finding]:
    found = data.neighbours
    if found is None:
        return
    if found.mean_ordered < _BARELY_ORDERED * max(found.mean_random, 0.0):
        yield Finding(
            "Neighbours are hardly more similar than in a random order (mean cosine "
            f"{decimal(found.mean_ordered)} against {decimal(found.mean_random)}).",
            "order",
        )
    if found.jumps > _JUMPS:
        yield Finding(
            f"{percent(found.jumps)} of the steps from one document to the next are jumps "
            "between documents that are not near neighbours.",
            "order",
        )


def _windows(data: ReportData) -> Iterator[Finding]:
    audit = data.windows
    if audit is None:
        return
    if not audit.windows:
        yield Finding("No windows were written.", "windows", True)
        return
    if audit.fill < _FILL:
        yield Finding(
            f"Windows are only {percent(audit.fill)} full; a trainer that pads them spends "
            f"{percent(1 - audit.fill)} of its positions on padding.",
            "windows",
        )
    lost = sum(audit.tokens_dropped.values())
    share = ratio(lost, lost + audit.tokens)
    if share is not None and share >= _TOKENS_DROPPED:
        most = max(audit.tokens_dropped, key=lambda name: audit.tokens_dropped[name])
        yield Finding(
            f"Packing dropped {tokens(lost)} ({percent(share)}), most of them as {most}.",
            "windows",
        )
    if audit.split_short > _SPLIT_SHORT:
        yield Finding(
            f"{percent(audit.split_short)} of the documents that fit into one window were split.",
            "windows",
        )


def _mixture(data: ReportData) -> Iterator[Finding]:
    """What the plan and its result deserve; of many remarks the first, and how many there are."""
    said = remarks(data.mixture) if data.mixture is not None else []
    if len(said) > _REMARKS:
        said = [f"{said[0]} The page of the mixture has {len(said) - 1:,} more remarks."]
    for sentence in said:
        yield Finding(sentence, "mixture")


def _sources(data: ReportData) -> Iterator[Finding]:
    asked = data.mixture is not None
    yield from _balance(data.sources, data.made, "source", "sources", moves=not asked)


def _licences(data: ReportData) -> Iterator[Finding]:
    yield from _balance(data.licenses, data.made, "licence", "licences")
    packed = sum(mix.tokens_packed for mix in data.licenses)
    unknown = sum(m.tokens_packed for m in data.licenses if m.name.strip().lower() in UNKNOWN)
    share = ratio(unknown, packed)
    if share is not None and share >= _UNKNOWN_LICENCE:
        yield Finding(
            f"{percent(share)} of the {data.made} tokens have no known licence.", "licences"
        )


def _balance(
    mixes: Sequence[Mix], made: str, noun: str, section: str, *, moves: bool = True
) -> Iterator[Finding]:
    """One name dominates, one has moved most between reading and packing, some are lost.

    Without `moves` shares were meant to change, so the second is not told.
    """
    read, packed = sum(m.tokens_read for m in mixes), sum(m.tokens_packed for m in mixes)
    if len(mixes) < 2 or not read or not packed:
        return
    largest = max(mixes, key=lambda m: m.tokens_packed)
    if largest.tokens_packed / packed >= _DOMINATES:
        share = percent(largest.tokens_packed / packed)
        yield Finding(
            f"One {noun} dominates: {shown(largest)} holds {share} of the {made} tokens.", section
        )
    moved = max(mixes, key=lambda m: abs(m.tokens_packed / packed - m.tokens_read / read))
    before, after = moved.tokens_read / read, moved.tokens_packed / packed
    if moves and abs(after - before) >= _MOVED:
        verb = "grew" if after > before else "shrank"
        yield Finding(
            f"The {noun} {shown(moved)} {verb} from {percent(before)} of the tokens read to "
            f"{percent(after)} of the tokens {made}.",
            section,
        )
    gone = [m for m in mixes if m.tokens_read and not m.tokens_packed]
    if gone:
        others = f" and {len(gone) - 3:,} more" if len(gone) > 3 else ""
        names = ", ".join(shown(m) for m in gone[:3]) + others
        yield Finding(f"{plural(len(gone), noun)} left no token: {names}.", section)


def shown(mix: Mix) -> str:
    """The name of a source or licence, with words for an empty one."""
    return one_line(mix.name, 60) or "(none)"


_RULES: tuple[Callable[[ReportData], Iterator[Finding]], ...] = (
    _outcome,
    _rows,
    _quarantine,
    _warned,
    _mixture,
    _order,
    _windows,
    _sources,
    _licences,
)
