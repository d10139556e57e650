"""The plan of `pack` on the engine: one process over lengths, addresses and, where asked, vectors.

Reads every part's small columns, lays documents and spans in the order of the tours, lets
`stages_passes.py` pack them, and writes for every part which spans of its documents go to which
window. Long documents' sentence ends come from a step of their own, because only parts hold text.

What the process holds: 450 bytes a document at most, while windows are numbered; rules that compare
documents hold their vectors too (8·d bytes: float32, twice while they are put in order). Copies of
a mixture cost about 200 bytes each beyond the first. Above `one_place_up_to` documents the plan is
made in blocks (`stages_blocks.py`).
"""

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from longctx.engine import summary
from longctx.engine.corpus import ROW, Part
from longctx.engine.op import Setting
from longctx.engine.rows import PART, addressed, vectors
from longctx.engine.steps import Stats, StepRef, read_table
from longctx.pack.stages_passes import planned
from longctx.pack.stream import COPIES, F32, Stream

if TYPE_CHECKING:
    from longctx.pack.stages import Pack

Frame = tuple[list[int], list[int]]
_ENDS = pa.schema([(ROW, pa.int32()), ("ends", pa.list_(pa.int64()))])
# How the placements of a part are sorted; copies of a document by `pass` too.
_IN_PART = (ROW, "origin", "start", "pass")


def sentences(longest: int, part: Part, setting: Setting) -> pa.Table:
    """Tokens after which sentences end, for documents of a part with more text than `longest`."""
    from longctx.text.offsets import sentence_token_ends
    from longctx.text.tokenize import load_tokenizer

    tokenizer = load_tokenizer(setting.tokenizer)
    found = [_ENDS.empty_table()]
    for table in part.groups(["text", "tokens"]):
        long = table.filter(pc.greater(pc.list_value_length(table.column("tokens")), longest))
        ends = [
            sentence_token_ends(tokenizer, tokens.values.to_numpy().astype(np.int32), text.as_py())
            for tokens, text in zip(long.column("tokens"), long.column("text"), strict=True)
        ]
        rows = {ROW: long.column(ROW), "ends": pa.array(ends, pa.list_(pa.int64()))}
        found.append(pa.table(rows, schema=_ENDS))
    return pa.concat_tables(found)


def make_plan(
    op: "Pack",
    frame: Frame,
    parts: list[Part],
    columns: list[str],
    cuts: list[StepRef],
    setting: Setting,
) -> dict[str, Any]:
    """Placements of all spans, one file for each part, and the counters of the plan.

    `columns` are what to read of every part; `cuts` is empty or the step of sentence ends.
    """
    from longctx.pack import audit
    from longctx.pack.frame import framed_lengths
    from longctx.pack.mixed import cut_pieces
    from longctx.pack.rows import sentence_ends, stream_rows, tour_numbers

    documents, matrix = _documents(parts, columns)
    rows = stream_rows(documents, setting.stage)
    prefix, separator = (len(ids) for ids in frame)
    document = rows.column("document").to_numpy()
    stream = Stream(
        rows,
        framed_lengths(rows.column("size").to_numpy(), prefix, separator),
        tour_numbers(rows),
        sentence_ends(rows, _ends(cuts[0], documents), prefix) if cuts else None,
        matrix[document] if matrix is not None else None,
    )
    del matrix
    stream = cut_pieces(stream, prefix, separator)
    packed = planned(op, stream, documents, separator, setting.seed, setting.stage)
    targets = {
        str(length): {**p.sums, **shards(op, length, p.windows), "choice": p.choice}
        for length, p in packed.items()
    }
    add_shares(op, targets)
    total = audit.merge(p.sums for p in packed.values())
    audit.assert_conserved(total)
    every = pa.concat_tables([p.table for p in packed.values()])
    inside = np.zeros(documents.num_rows, dtype=bool)
    inside[every.column("document").to_numpy()] = True
    stats = {
        **total,
        **account(documents, inside),
        "span_rows": int(pc.sum(rows.column("is_span")).as_py() or 0),
        "targets": targets,
        "warnings": warnings(op, stream.vectors is not None),
    }
    return _by_part(in_part_order(every.drop_columns(["document"])), len(parts), stats)


def in_part_order(placed: pa.Table) -> pa.Table:
    """Placements sorted by part, where it is named, and as their tokens lie in it."""
    known = [n for n in (PART, *_IN_PART) if n in placed.column_names]
    return placed.sort_by([(n, "ascending") for n in known])


def _documents(parts: list[Part], columns: list[str]) -> tuple[pa.Table, F32 | None]:
    """Addresses and small columns of all living documents, and their vectors if they are read."""
    tables, matrices = [], []
    for part in parts:
        table = part.table(columns)
        found = addressed(part, table)
        for name in columns[1:]:
            if name != "embedding":
                found = found.append_column(name, table.column(name))
        tables.append(found)
        if "embedding" in columns:
            matrices.append(vectors(table.column("embedding")))
    matrix = np.concatenate(matrices) if matrices else None
    return pa.concat_tables(tables).combine_chunks(), matrix


def _ends(cuts: StepRef, documents: pa.Table) -> pa.Table:
    """The step of sentence ends with `document`, the row in `documents` (in order of parts)."""
    part = documents.column(PART).to_numpy()
    row = documents.column(ROW).to_numpy()
    found = []
    for index, file in enumerate(cuts.files):
        table = read_table(cuts.run_dir, file)
        first, stop = np.searchsorted(part, [index, index + 1])
        at = first + np.searchsorted(row[first:stop], table.column(ROW).to_numpy())
        found.append(table.append_column("document", pa.array(at, pa.int64())))
    return pa.concat_tables(found)


def shards(op: "Pack", length: int, windows: int) -> dict[str, int]:
    """Into how many files windows of a length go, and how many to each."""
    per_shard = max(1, op.shard_tokens // length)
    return {"shards": -(-windows // per_shard), "windows_per_shard": per_shard}


def add_shares(op: "Pack", targets: dict[str, dict[str, Any]]) -> None:
    """What share of the tokens every length was asked to take, and took."""
    if op.lengths is None:
        return
    total = sum(t["tokens_in"] for t in targets.values())
    for wanted in op.lengths:
        found = targets[str(wanted.length)]
        found["share"] = wanted.share
        found["share_reached"] = found["tokens_in"] / total if total else 0.0


def warnings(op: "Pack", compared: bool) -> dict[str, int]:
    if not op.compares() or compared:
        return {}
    return {
        "Documents have no vectors, so the packer chose its look-ahead by lengths alone: add "
        "`embed`, or set `rule` and `look_ahead` in pack.": 1
    }


def account(documents: pa.Table, inside: npt.NDArray[np.bool_]) -> dict[str, Any]:
    """Which documents are in windows and which are not, for conservation and the report.

    Documents are counted once; the tokens of those with copies as often as they are copied.
    """
    text = documents.column("n_tokens").fill_null(0).to_numpy()
    reasons = np.where(text == 0, "no_tokens", "not_placed").astype(object)
    reasons[inside] = None
    told = pa.chunked_array([pa.array(reasons.tolist(), pa.string())])
    counted = documents.select(["source", "license", "n_tokens"])
    found = copied = summary.summarise(counted, told)
    if COPIES in documents.column_names:
        times = text * documents.column(COPIES).fill_null(1).to_numpy().astype(np.int64)
        copied = summary.summarise(counted.set_column(2, "n_tokens", pa.array(times)), told)
    return {
        **{k: copied[k] for k in ("by_source", "by_license")},
        "lengths": found["lengths"],
        "doc_tokens": copied["tokens"],
        "left": found["dropped"],
        "placed_documents": int(inside.sum()),
    }


def _by_part(placed: pa.Table, parts: int, stats: dict[str, Any]) -> dict[str, Any]:
    """Placements as one small file for each part, so that a part reads only its own."""
    number = placed.column(PART).to_numpy()
    borders = np.searchsorted(number, np.arange(parts + 1))
    files: dict[str, Any] = {
        f"{i:06d}.parquet": placed.slice(borders[i], borders[i + 1] - borders[i])
        for i in range(parts)
    }
    files["000000.parquet"] = Stats.attach(files["000000.parquet"], stats)
    return files
