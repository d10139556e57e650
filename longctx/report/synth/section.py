"""The section of the report that tells of the rows a model made, and leads to their page."""

from longctx.report.format import count, one_line, percent, plural, ratio
from longctx.report.layout import Section, paragraph
from longctx.report.markup import NOTHING, join, tag, text
from longctx.report.scores.data import page_of
from longctx.report.synth.data import SynthData


def rows_section(data: SynthData | None) -> Section | None:
    """What became of the documents, what the checks say, and the link to the page."""
    if data is None:
        return None
    body = [
        paragraph(outcome(data)),
        paragraph(verdicts(data)) if data.checks else NOTHING,
        tag("p", tag("a", text(f"All of it: {data.stage}"), href=page_of(data.stage))),
    ]
    return Section("rows", "Rows made", join(body))


def outcome(data: SynthData) -> str:
    """What was chosen and what became of it."""
    rejects = sum(data.rejects.values())
    if not rejects:
        lost = "none was lost"
    elif data.of_documents:
        share = percent(ratio(rejects, data.chosen))
        lost = f"{plural(rejects, data.items)} ({share}) came to nothing"
    else:
        lost = f"{plural(rejects, 'reject')}, of documents or of what was asked about them"
    model = f"with the model {one_line(data.model, 80)}"
    return (
        f"{plural(data.chosen, data.items)} became {plural(data.rows, 'row')} "
        f"{'without a model' if data.asked_none else model}; {lost}."
    )


def verdicts(data: SynthData) -> str:
    """How the checks of all rows together came out, in a sentence; which ones failed."""
    asked = [c for c in data.checks if c.verdict != "figure"]
    failed = [c.name for c in asked if c.verdict == "fails"]
    few = sum(c.verdict in ("too few rows", "not looked at") for c in asked)
    said = (
        f"Of {plural(len(asked), 'check')} of all rows {count(len(asked) - len(failed) - few)} hold"
    )
    if few:
        said += f", {count(few)} cannot be told"
    return f"{said}, {count(len(failed))} fail: {', '.join(failed)}." if failed else f"{said}."


def remarks(data: SynthData) -> list[str]:
    """What a reader should know of the rows before using them."""
    said = [f"Failed: {check.sentence}" for check in data.checks if check.verdict == "fails"]
    if len(data.models) > 1:
        named = " and ".join(one_line(name, 60) for name in data.models[:4])
        said.append(f"The server called its model {named}: rows may come from several models.")
    short = [q for q in data.quotas if q.reached < q.wanted]
    if short:
        lacking = sum(q.wanted - q.reached for q in short)
        said.append(
            f"{plural(lacking, 'document')} fewer were taken than asked for: "
            f"{count(len(short))} of {plural(len(data.quotas), 'bin')} of languages and lengths "
            "had not enough."
        )
    if data.without_language:
        said.append(
            f"{plural(data.without_language, 'document')} say no language and were passed over; "
            "`default_language` gives them one."
        )
    return said
