"""What the page shows of a row of each system: where its evidence stands, and the parts to read.

One layout for all; what a system has of its own is one small function for each entry of the table.
Rows come from files that anybody may have written: `rows_read` has filled what is null below the
top level, and every text is masked before it is shown.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from longctx.report.format import count, decimal, one_line, plural
from longctx.report.scores.passages import Place, masked
from longctx.report.synth.data import Block, Grid, Lengths, Passages, Said
from longctx.report.synth.excerpt import places_in
from longctx.synth import rows as schemas

Row = Mapping[str, Any]
# Texts that are not in the row, by name: of `synth.in2` the pieces of its source document.
Texts = Mapping[str, str]
Depth = tuple[float, float]

_LONG, _SHORT = 1_200, 240
_PASSAGE = 180
_ENTRIES = 40


@dataclass(frozen=True)
class System:
    """What is the system's own.

    `figures` are the columns that `depths` reads: of each piece of evidence the range of depths, in
    0..1, that its slot covers. `evidence` says where it stands in `context`, in characters.
    """

    title: str
    schema: pa.Schema
    kind: Callable[[Row], str]
    blocks: Callable[[Row], list[Block]]
    evidence: Callable[[Row, Texts], list[Place]] = lambda row, texts: []
    figures: tuple[str, ...] = ()
    depths: Callable[[Row], list[Depth]] = lambda row: []


def _slots(places: Sequence[Any], n: int) -> list[Depth]:
    """The depths that places of n slots cover."""
    known = [p for p in places if isinstance(p, int) and 0 <= p < n]
    return [(p / n, (p + 1) / n) for p in known]


def _asked(row: Row) -> list[Block]:
    return [_said("Question", row["question"]), _said("Answer", row["answer"])]


def _said(name: str, text: str | None, limit: int = _LONG) -> Said:
    return Said(name, shortened(text or "", limit))


def shortened(text: str, limit: int) -> str:
    """The beginning of a text, masked, with an ellipsis where it goes on."""
    return masked(text, limit) + (" ..." if len(text) > limit else "")


def _pamqa(row: Row) -> list[Block]:
    entries = [
        (
            f"[{doc['idx']}] {one_line(masked(doc['title'], 80), 80)}".rstrip(),
            f"{doc['role']}: {shortened(doc['text'], _PASSAGE)}",
            doc["role"] == "gold",
        )
        for doc in row["docs"][:_ENTRIES]
    ]
    golds = ", ".join(f"[{i}]" for i in row["gold_idx"]) or "none"
    caption = f"{plural(len(row['docs']), 'passage')}, with the answer: {golds}"
    return [
        _said("Question", row["question"]),
        Passages(caption, entries),
        _said("Answer", row["response"]),
    ]


def _pamqa_evidence(row: Row, _: Texts) -> list[Place]:
    return places_in(
        row["context"],
        [(d["text"], f"[{d['idx']}]" if d["role"] == "gold" else "") for d in row["docs"]],
    )


def _film(row: Row) -> list[Block]:
    needed, n = set(row["needed_pos"]), row["n_segments"]
    several = [s for s in row["segments"] if s["role"] == "source"]
    if row["type"] == "short" or len(several) < 2:
        return _asked(row)
    rows = [
        [
            f"{count(s['pos'] + 1)} of {count(n)}",
            one_line(s["seg_id"], 80),
            _yes(s["pos"] in needed),
        ]
        for s in several[:_ENTRIES]
    ]
    caption = "Pieces of the document that was asked about, in the order of the context"
    return [*_asked(row), Grid(caption, ["Place", "Piece", "Needed for the answer"], rows)]


def _yes(value: bool) -> str:
    return "yes" if value else "no"


def _film_evidence(row: Row, texts: Texts) -> list[Place]:
    """Pieces of the source; of a row without fillers, which is all source, those needed alone."""
    needed, n = set(row["needed_pos"]), row["n_segments"]
    short = row["type"] == "short"
    found = []
    for piece in row["segments"]:
        wanted = piece["pos"] in needed if short else piece["role"] == "source"
        text = texts.get(piece["seg_id"], "") if wanted else ""
        start = row["context"].find(text) if text else -1
        if start >= 0:
            also = ", needed" if piece["pos"] in needed and len(needed) > 1 else ""
            label = f"piece {count(piece['pos'] + 1)} of {count(n)}{also}"
            found.append(Place(start, start + len(text), label))
    return found


def _chatqa2(row: Row) -> list[Block]:
    also = "; ".join(row["answers"][1:])
    more = [_said("Other answers", also, _SHORT)] if also else []
    return [_said("Question", row["question"]), _said("Answer", row["response"]), *more]


def _chatqa2_evidence(row: Row, _: Texts) -> list[Place]:
    start, end = row["summary_start_char"] or 0, row["summary_end_char"] or 0
    among = row["mode"] == "related_paragraphs"
    where = "among paragraphs of other documents" if among else "inserted here"
    return [Place(start, end, f"summary, {where}")]


def _longalign(row: Row) -> list[Block]:
    entries = [
        (str(k + 1), shortened(question, _SHORT), k == row["chosen"])
        for k, question in enumerate(row["questions"])
    ]
    caption = f"Proposed questions of the kind {one_line(row['task_type'], 40)}; one was answered"
    return [Passages(caption, entries), _said("Answer", row["response"])]


def _longalpaca(row: Row) -> list[Block]:
    limit = _SHORT if row["kind"] == "long" else _LONG
    return [_said("Question", row["instruction"], limit), _said("Answer", row["response"])]


def _longmit(row: Row) -> list[Block]:
    chain = row["chain"]
    hops = [
        [
            str(k),
            one_line(masked(hop["doc_id"], 60), 60),
            shortened(hop["q"], _SHORT),
            shortened(hop["a"], _SHORT),
            *_link(hop, len(chain)),
        ]
        for k, hop in enumerate(chain, 1)
    ]
    header = ["Hop", "Document", "Question", "Answer", "Linked to hop", "Similarity"]
    grid = Grid(
        f"{plural(len(hops), 'hop')}, each with the question it was made of", header, hops, 2
    )
    reasoning = [_said("Reasoning", row["reasoning"])] if row["hop"] > 1 else []
    return [
        _said("Question", row["question"]),
        grid,
        *reasoning,
        _said("Answer", row["answer"]),
    ]


def _link(hop: Row, n: int) -> tuple[str, str]:
    linked = hop["linked_to"]
    known = isinstance(linked, int) and 0 <= linked < n and hop["sim"]
    return (str(linked + 1), decimal(hop["sim"])) if known else ("-", "-")


def _longmit_evidence(row: Row, _: Texts) -> list[Place]:
    clues = set(row["clue_pos"])
    return places_in(
        row["context"],
        [
            (d["text"], f"clue, passage {i + 1}" if i in clues else "")
            for i, d in enumerate(row["docs"])
        ],
    )


def _longwriter(row: Row) -> list[Block]:
    wrote = row["paragraph_lengths"]
    steps = [
        (shortened(step["main_point"], 120), step["words"], wrote[i] if i < len(wrote) else 0)
        for i, step in enumerate(row["plan"])
    ]
    asked = row["required"]
    unit = one_line(asked["unit"], 20) or "word"
    units = f"{unit}s" if unit.isascii() else unit
    note = (
        f"Wanted: {_wanted(asked)} {units} ({_from(row['length_source'])}); written: "
        f"{count(row['length'])}. Length score {decimal(row['s_l'])} of 100"
        + (f", quality score {decimal(row['s_q'])}." if row["s_q"] is not None else ".")
    )
    return [
        _said("Prompt", row["prompt"]),
        Lengths(f"Lengths of paragraphs, planned and written ({units})", steps, note),
        _said("Answer", row["response"]),
    ]


def _wanted(asked: Row) -> str:
    relation = {"above": "at least ", "below": "at most "}.get(asked["relation"], "")
    if asked["relation"] == "range":
        return f"{count(asked['lo'])} to {count(asked['hi'])}"
    return f"{relation}{count(asked['x'])}"


def _from(source: str) -> str:
    return "as the prompt says" if source == "stated" else "the sum of its plan"


def _other(row: Row) -> list[Block]:
    """A row of a system that this page knows nothing of."""
    return [_said("Question", row["instruction"]), _said("Answer", row["response"])]


SYSTEMS: dict[str, System] = {
    "pamqa": System(
        title="PAM QA",
        schema=schemas.PAMQA,
        kind=lambda row: "answerable" if row["answerable"] else "without an answer",
        blocks=_pamqa,
        evidence=_pamqa_evidence,
        figures=("gold_idx", "n_hard", "n_random"),
        depths=lambda row: _slots(
            [i - 1 for i in row["gold_idx"]],
            len(row["gold_idx"]) + (row["n_hard"] or 0) + (row["n_random"] or 0),
        ),
    ),
    "film": System(
        title="IN2 training",
        schema=schemas.FILM,
        kind=lambda row: str(row["type"]),
        blocks=_film,
        evidence=_film_evidence,
        figures=("type", "gold_pos", "n_segments"),
        depths=lambda row: (
            [] if row["type"] == "short" else _slots(row["gold_pos"], row["n_segments"] or 0)
        ),
    ),
    "chatqa2": System(
        title="ChatQA2",
        schema=schemas.CHATQA2,
        kind=lambda row: str(row["mode"]).replace("_", " "),
        blocks=_chatqa2,
        evidence=_chatqa2_evidence,
        figures=("depth",),
        depths=lambda row: [(row["depth"] or 0.0, row["depth"] or 0.0)],
    ),
    "longalign": System(
        title="LongAlign",
        schema=schemas.LONGALIGN,
        kind=lambda row: str(row["task_type"]),
        blocks=_longalign,
    ),
    "longalpaca": System(
        title="LongAlpaca",
        schema=schemas.LONGALPACA,
        kind=lambda row: f"{row['kind']}, {row['category']}",
        blocks=_longalpaca,
    ),
    "longmit": System(
        title="LongMIT",
        schema=schemas.LONGMIT,
        kind=lambda row: f"{row['type']}, {plural(row['hop'] or 0, 'hop')}",
        blocks=_longmit,
        evidence=_longmit_evidence,
        figures=("clue_pos", "docs.list.element.role"),
        depths=lambda row: _slots(row["clue_pos"], len(row["docs"])),
    ),
    "longwriter": System(
        title="LongWriter",
        schema=schemas.LONGWRITER,
        kind=lambda row: "length stated" if row["length_source"] == "stated" else "length planned",
        blocks=_longwriter,
    ),
}
OTHER = System("", schemas.ENVELOPE, lambda row: "", _other)


def system_of(name: str) -> System:
    """The entry of a system; of one that is not in the table, the columns that all share."""
    return SYSTEMS.get(name, OTHER)
