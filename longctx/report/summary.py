"""The top of the page: what went in, what came out, where it lies, what deserves a look."""

from longctx.credentials import masked
from longctx.report.data import Exported, ReportData
from longctx.report.findings import FINISHED, Finding, findings
from longctx.report.format import (
    compact,
    count,
    duration,
    one_line,
    percent,
    plural,
    ratio,
    size,
    tokens,
)
from longctx.report.layout import Section, code, facts, prose, tiles
from longctx.report.markup import NOTHING, Markup, join, tag, text
from longctx.report.synth.data import SynthData

_FORMATS = {"jsonl": "JSON Lines", "parquet": "Parquet"}


def heading(data: ReportData) -> Markup:
    """The page's heading: the run's name, its status, when it began and how long it took."""
    state = "good" if data.status == FINISHED else "bad"
    return tag(
        "header",
        tag("p", text("Run report"), class_="kicker"),
        tag("h1", text(data.name)),
        tag(
            "p",
            tag("span", text(data.status), class_=f"status {state}"),
            text(f" started {data.started}, took {duration(data.seconds)}"),
            class_="when",
        ),
    )


def summary(data: ReportData) -> Section:
    """Always there, also for a run that read nothing."""
    output = [("Output", data.output)] if data.writes_output else []
    places = [*output, ("Run folder", data.run_dir)]
    body = [
        tag("p", prose(outcome(data)), class_="lead"),
        tiles(_tiles(data)),
        _worries(findings(data)),
        facts([(name, code(masked(place))) for name, place in places]),
    ]
    return Section("summary", "Summary", join(body))


def outcome(data: ReportData) -> str:
    """What went in and what came out, in one or two sentences."""
    rows_in, rows_out = rows_through(data)
    if not rows_in:
        return "No rows went in, so nothing came out."
    share = percent(rows_out / rows_in)
    said = f"{plural(rows_in, 'document')} went in and {count(rows_out)} came out ({share})."
    if data.mixture is not None and not data.mixture.left_out:
        copies = sum(one.copies for one in data.mixture.sources)
        said += f" The mixture takes them {count(copies)} times in all."
    audit, exported = data.windows, data.exported
    if audit is not None:
        return (
            f"{said} They are packed into {plural(audit.windows, 'window')} of "
            f"{count(audit.length)} tokens, {percent(audit.fill)} full."
        )
    if exported is not None:
        order = f", by {one_line(exported.order_by, 60)}" if exported.order_by else ""
        return f"{said} They are written to {_files(exported)} ({size(exported.bytes)}){order}."
    if data.turns is not None:
        found = data.turns
        return (
            f"{said} They are packed into {plural(found.packs, 'pack')} of at most "
            f"{count(found.length)} tokens, {percent(found.fill)} full, in "
            f"{plural(found.files, 'file')} ({size(found.bytes)})."
        )
    if data.synthesis is not None:
        return f"{said} {_rows_made(data.synthesis)}"
    if data.status == FINISHED and not data.writes_output:
        return (
            f"{said} The recipe ends without pack or export, so the output is empty: scores and "
            "decisions lie in the run folder."
        )
    return said


def _rows_made(made: SynthData) -> str:
    """What a model made of the documents, with what, and what that took."""
    of_table = made.items != "document"
    about = f"{plural(made.chosen, made.items)} of a table" if of_table else count(made.chosen)
    rows = f"{plural(made.rows, 'row')} in {plural(made.files, 'file')} ({size(made.bytes)})"
    if made.asked_none:
        said = f"Without a language model {about} became {rows}"
    else:
        them = about if of_table else f"{about} of them"
        said = f"A language model ({one_line(made.model, 60)}) was asked about {them}: {rows}"
    if made.rejects:
        most = sorted(made.rejects.items(), key=lambda one: (-one[1], one[0]))
        codes = ", ".join(f"{code} {count(n)}" for code, n in most[:5])
        said += f", {plural(sum(made.rejects.values()), 'reject')} ({codes})"
    if made.asked_none:
        return f"{said}."
    used = made.used
    cost = "" if used.usd is None else f", {used.usd:,.2f} USD"
    took = f"{plural(used.calls, 'call')} and {compact(used.read + used.written)} tokens"
    return f"{said}. It took {took}{cost}."


def _files(exported: Exported) -> str:
    return plural(exported.files, f"{_FORMATS.get(exported.format, exported.format)} file")


def rows_through(data: ReportData) -> tuple[int, int]:
    """Rows into the first stage and out of the last."""
    return (data.stages[0].rows_in, data.stages[-1].rows_out) if data.stages else (0, 0)


def _tiles(data: ReportData) -> list[tuple[str, str, str]]:
    rows_in, rows_out = rows_through(data)
    dropped = sum(sum(stage.dropped.values()) for stage in data.stages)
    held = sum(stage.quarantined for stage in data.stages)
    shown = [
        ("Documents in", _number(rows_in), _first_tokens(data)),
        ("Documents out", _number(rows_out), _of(rows_out, rows_in)),
        ("Dropped", _number(dropped), _of(dropped, rows_in)),
        ("Quarantined", _number(held), _of(held, rows_in)),
    ]
    if data.exported is not None:
        shown.append(("Files", _number(data.exported.files), size(data.exported.bytes)))
    if data.synthesis is not None:
        made = data.synthesis
        share = _of(made.rows, made.chosen) if made.of_documents else ""
        shown.append(("Rows made", _number(made.rows), share))
    if data.turns is not None:
        found = data.turns
        shown += [
            ("Packs", _number(found.packs), f"of {count(found.length)} tokens"),
            ("Tokens packed", compact(found.tokens), f"{percent(found.fill)} of the room"),
        ]
    audit = data.windows
    if audit is not None:
        shown += [
            ("Windows", _number(audit.windows), f"of {count(audit.length)} tokens"),
            ("Tokens packed", compact(audit.tokens), f"{percent(audit.fill)} of the room"),
        ]
    return shown


def _first_tokens(data: ReportData) -> str:
    known = (s.tokens_out for s in data.stages if s.tokens_out is not None)
    first = next(known, None)
    return "" if first is None else f"{tokens(first)}"


def _of(part: int, whole: int) -> str:
    share = ratio(part, whole)
    return "" if share is None else f"{percent(share)} of those in"


def _number(value: int) -> str:
    return count(value) if abs(value) < 10_000_000 else compact(value)


def _worries(found: list[Finding]) -> Markup:
    if not found:
        return tag(
            "p", text("Nothing in the numbers of this run calls for a closer look."), class_="calm"
        )
    items = (
        tag(
            "li",
            tag("strong", text("Problem: ")) if one.grave else NOTHING,
            prose(f"{one.sentence} "),
            tag("a", text(f"See {one.section}"), href=f"#{one.section}")
            if one.section != "summary"
            else NOTHING,
            class_="grave" if one.grave else None,
        )
        for one in found
    )
    return tag("div", tag("h3", text("Worth a look")), tag("ul", *items), class_="worries")
