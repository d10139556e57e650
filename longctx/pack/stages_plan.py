"""The plan of `pack` on the engine: one process over lengths, addresses and, where asked, vectors.

Reads every part's small columns, lays documents and spans in the order of the tours, deals them to
the window lengths, packs each length, numbers its windows, and writes for every part which spans of
its documents go to which window. Long documents' sentence ends come from a step of their own,
because only parts hold text.

What the process holds: 450 bytes a document at most, while windows are numbered; rules that compare
documents hold their vectors too (8·d bytes: float32, twice while they are put in order). Above
`one_place_up_to` documents the plan is made in blocks (`stages_blocks.py`).
"""

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from longctx.engine import summary
from longctx.engine.corpus import ROW, Part
from longctx.engine.op import Setting
from longctx.engine.rows import PART, addressed, vectors
from longctx.engine.steps import Stats, StepRef, read_table

if TYPE_CHECKING:
    from longctx.pack.frame import Plan, SentenceEnds
    from longctx.pack.stages import Pack

F32 = npt.NDArray[np.float32]
I32 = npt.NDArray[np.int32]
I64 = npt.NDArray[np.int64]
Frame = tuple[list[int], list[int]]
_ENDS = pa.schema([(ROW, pa.int32()), ("ends", pa.list_(pa.int64()))])
# How the placements of a part are sorted.
IN_PART = (ROW, "origin", "start")


class Stream(NamedTuple):
    """What is packed, in the order of the tours.

    `rows` of `pack.rows`, framed `lengths` int64[n], `tour` numbers int32[n]; sentence `ends` and
    `vectors` float32[n, d] where they are looked at.
    """

    rows: pa.Table
    lengths: I64
    tour: I32
    ends: "SentenceEnds | None"
    vectors: F32 | None

    def of(self, at: I64) -> "Stream":
        """Some rows of the stream, in its order."""
        ends = None if self.ends is None else self.ends.take(at)
        known = None if self.vectors is None else self.vectors[at]
        return Stream(self.rows.take(pa.array(at)), self.lengths[at], self.tour[at], ends, known)


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
    packed = planned(op, stream, documents, separator, setting.seed)
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
    order = [(n, "ascending") for n in (PART, *IN_PART)]
    return _by_part(every.drop_columns(["document"]).sort_by(order), len(parts), stats)


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


def _dealt(op: "Pack", lengths: I64, seed: int) -> I64:
    """Index into the op's window lengths of each row of the stream."""
    from longctx.pack.lengths import STRETCH, deal

    if op.lengths is None:
        return np.zeros(len(lengths), dtype=np.int64)
    stretch = STRETCH * max(op.windows)
    rooms = [length - op.reserve for length in op.windows]
    return deal(lengths, rooms, [w.share for w in op.lengths], seed, stretch)


class Packed(NamedTuple):
    """The windows of one length: a row for each placed span, sums that add up over lengths and
    blocks, the number of windows, and what the look-ahead was chosen by."""

    table: pa.Table
    sums: dict[str, Any]
    windows: int
    choice: dict[str, Any] | None


def planned(
    op: "Pack",
    stream: Stream,
    documents: pa.Table,
    separator: int,
    seed: int,
    *,
    block: bool = False,
) -> dict[int, Packed]:
    """The windows of every length of a stream, whose rows are of `documents`.

    `window` is the number under which a window is written. Of a `block` of a longer stream it is
    the number in the order of packing, and where windows are shuffled they are sorted by `key`.
    """
    target = _dealt(op, stream.lengths, seed)
    found = {}
    for k, length in enumerate(op.windows):
        at = np.flatnonzero(target == k)
        found[length] = _packed(op, stream.of(at), length, separator, documents, seed, block)
    return found


def _packed(
    op: "Pack",
    stream: Stream,
    length: int,
    separator: int,
    documents: pa.Table,
    seed: int,
    block: bool,
) -> Packed:
    from longctx.pack import audit
    from longctx.pack.inner import inner_order
    from longctx.pack.numbering import window_keys, window_numbers

    rows = stream.rows
    plan, choice = _strategy(op, stream, length - op.reserve, separator)
    keys = rows.column("doc_key").to_numpy()
    placement = inner_order(plan.placement, op.inner_order, keys, seed)
    in_documents = rows.column("document").to_numpy()
    origin = rows.column("origin").to_numpy()
    doc_ids = documents.column("doc_id").take(pa.array(in_documents))
    shuffled = seed if op.shuffle_windows and not block else None
    number = window_numbers(placement, doc_ids, shuffled, origin)
    document = in_documents[placement.document]
    address = documents.select([PART, ROW]).take(pa.array(document))
    first = np.diff(placement.window, prepend=-1) != 0
    starts = np.flatnonzero(first)
    seq = np.arange(len(first)) - np.repeat(starts, np.diff([*starts, len(first)]))
    table = pa.table(
        {
            PART: address.column(PART),
            ROW: address.column(ROW),
            "document": document,
            "target": pa.array(np.full(len(first), length), pa.int32()),
            "window": number,
            "seq": pa.array(seq, pa.int32()),
            "tour_id": rows.column("tour_id").take(pa.array(placement.document)),
            "origin": origin[placement.document],
            "start": placement.start,
            "end": placement.end,
            "length": stream.lengths[placement.document],
        }
    )
    if block and op.shuffle_windows:
        table = table.append_column("key", pa.array(window_keys(placement, doc_ids, seed, origin)))
    counted = audit.placement_partial(placement, stream.lengths, length - op.reserve)
    return Packed(table, {**plan.counts, **counted}, len(starts), choice)


def shards(op: "Pack", length: int, windows: int) -> dict[str, int]:
    """Into how many files windows of a length go, and how many to each."""
    per_shard = max(1, op.shard_tokens // length)
    return {"shards": -(-windows // per_shard), "windows_per_shard": per_shard}


def _strategy(
    op: "Pack", stream: Stream, room: int, separator: int
) -> tuple["Plan", dict[str, Any] | None]:
    """The plan by the op's strategy, and what the look-ahead was chosen by."""
    from longctx.pack.lookahead import plan_look_ahead
    from longctx.pack.plan import plan_windows

    shared: dict[str, Any] = {"cross_tours": op.cross_tours, "long_documents": op.long_documents}
    where = (stream.lengths, stream.tour, room)
    if op.strategy == "concat":
        return plan_windows("concat", *where, **shared, drop_last=op.drop_last), None
    shared |= {"separator": separator, "min_tail": op.min_tail, "ends": stream.ends}
    if op.strategy == "best_fit":
        return plan_windows("best_fit", *where, **shared), None
    return plan_look_ahead(
        *where,
        rule=op.rule,
        look_ahead=op.look_ahead,
        vectors=stream.vectors,
        fill_policy=op.fill_policy,
        **shared,
    )


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
    """Which documents are in windows and which are not, for conservation and the report."""
    text = documents.column("n_tokens").fill_null(0).to_numpy()
    reasons = np.where(text == 0, "no_tokens", "not_placed").astype(object)
    reasons[inside] = None
    counted = documents.select(["source", "license", "n_tokens"])
    found = summary.summarise(counted, pa.chunked_array([pa.array(reasons.tolist(), pa.string())]))
    kept = {k: found[k] for k in ("by_source", "by_license", "lengths")}
    return {
        **kept,
        "doc_tokens": found["tokens"],
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
