"""`pack` on the engine: plan on lengths, send token spans to their shard, write windows once.

The plan is one process over lengths and addresses (about 60 bytes a document); it says which span
of which document lies where and in which order the windows are written. Every part then cuts its
spans, an exchange brings them to their shard, and the shard is assembled, audited and written in
every format of the output.
"""

from functools import partial
from typing import Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pydantic import Field, model_validator

from longctx.engine import summary
from longctx.engine.barrier import BarrierContext
from longctx.engine.corpus import ROW, Part
from longctx.engine.op import DROP_REASON, Barrier, Setting
from longctx.engine.rows import PART, addressed, as_binary, vectors
from longctx.engine.steps import BUCKET, Stats, StepRef, read_table

I64 = npt.NDArray[np.int64]
_SHARD_TOKENS = 2**24
_SPANS = pa.schema(
    [
        ("window", pa.int64()),
        ("seq", pa.int32()),
        ("doc_id", pa.string()),
        ("source", pa.string()),
        ("license", pa.string()),
        ("tour_id", pa.string()),
        ("start", pa.int64()),
        ("end", pa.int64()),
        ("length", pa.int64()),
        ("tokens", pa.large_binary()),
        ("vector", pa.large_binary()),
    ]
)


class Pack(Barrier):
    """Packs the tours into windows of at most `length` tokens and writes them.

    `window` fills each window from the next `look_ahead` pieces and cuts only documents longer than
    a window; `concat` lays documents end to end and cuts anywhere. Windows are shuffled after
    packing (`shuffle_windows`), documents never. `reserve` leaves that many tokens of every window
    free: with 1, Megatron's files end each window with EOD, so that no loss crosses windows.
    """

    op: Literal["pack"]
    length: int = Field(8192, ge=1, le=2**24)
    reserve: int = Field(0, ge=0)
    strategy: Literal["window", "concat"] = "window"
    look_ahead: int = Field(64, ge=1)
    rule: Literal["first", "largest"] = "first"
    fill_policy: Literal["none", "split", "crop"] = "none"
    long_documents: Literal["split", "truncate", "drop"] = "split"
    min_tail: int = Field(1, ge=1)
    cross_tours: bool = True
    drop_last: bool = False
    bos: bool = False
    eos: bool = True
    inner_order: Literal["tour", "reverse", "shuffle"] = "tour"
    shuffle_windows: bool = True
    shard_tokens: int = Field(_SHARD_TOKENS, ge=1)

    summary: ClassVar[str] = "pack tours into windows and write them"
    source: ClassVar[str] = "concat: ICP 2310.10638 and others; window: longctx"
    cost: ClassVar[str] = "tokens move once; plan about 60 bytes a document in one process"
    rate_mb_s: ClassVar[float] = 20.0
    exchange_bytes_per_row: ClassVar[int] = 9000
    reads: ClassVar[tuple[str, ...]] = ("tour_id", "rank")

    @model_validator(mode="after")
    def _has_room(self) -> "Pack":
        if self.reserve >= self.length:
            raise ValueError(f"`reserve` {self.reserve} leaves no room in {self.length} tokens")
        return self

    @property
    def room(self) -> int:
        """Tokens that a window may hold."""
        return self.length - self.reserve

    def context_length(self) -> int:
        return self.room

    def check(self, setting: Setting) -> None:
        from longctx.pack.output import claim

        _framing(self, setting)
        claim(setting)

    def run(self, context: BarrierContext) -> None:
        from longctx.pack.output import Fill, publish, withdraw

        if not context.dry:
            withdraw(context.setting)
        if not context.corpus.has("tokens"):
            context.sidecar(
                "tokens",
                [],
                _tokenise,
                pa.schema([(ROW, pa.int32())]),
                ("tokens", "n_tokens"),
                columns=["text"],
                ignore=set(Pack.model_fields) - {"op"},
            )
        columns = ["doc_id", "tour_id", "rank", "n_tokens", "source", "license"]
        plan = context.single("plan", partial(_plan, self, context.parts()), columns=columns)
        stats = context.step_stats["plan"]
        with_vectors = ["embedding"] if context.corpus.has("embedding") else []
        spans = context.per_part(
            "spans",
            partial(_spans, self, plan),
            ["doc_id", "source", "license", "tour_id", "tokens", *with_vectors],
            inputs=[plan],
        )
        context.exchange(
            "windows",
            [(spans, partial(_to_shard, stats["windows_per_shard"]))],
            _unused,
            _SPANS,
            buckets=max(1, stats["shards"]),
            work=Fill(context.setting, self.length, context.setting.output),
            depends=[sorted({*context.setting.formats}), context.setting.output],
        )
        if context.dry:
            return
        commits = context.step_commits["windows"]
        audit = publish(context.setting, self.length, commits, stats)
        context.step_stats["audit"] = audit
        context.outcome = {
            "rows_in": context.rows,
            "rows_out": stats["documents"],
            "dropped": {k: n for k, n in stats["left"].items() if n},
            "quarantined": 0,
            "quarantine": {},
            "tokens": stats["doc_tokens"],
            **{k: stats[k] for k in ("by_source", "by_license", "lengths")},
        }


def _framing(op: Pack, setting: Setting) -> tuple[list[int], list[int]]:
    """Ids before and after every document."""
    from longctx.errors import RunError
    from longctx.text.tokenize import load_tokenizer

    tokenizer = load_tokenizer(setting.tokenizer)
    if op.bos and tokenizer.bos_id is None:
        raise RunError(
            f"the tokenizer {tokenizer.name} has no BOS token",
            where=setting.stage,
            remedy="set `bos: false` in the pack stage",
        )
    prefix = [tokenizer.bos_id] if op.bos and tokenizer.bos_id is not None else []
    return prefix, [tokenizer.eos_id] if op.eos else []


def _tokenise(base: pa.Table, brought: pa.Table, setting: Setting) -> pa.Table:
    from longctx.text.columns import token_columns
    from longctx.text.tokenize import load_tokenizer

    table = token_columns(load_tokenizer(setting.tokenizer), base.column("text").to_pylist())
    return table.append_column(DROP_REASON, pa.nulls(table.num_rows, pa.string()))


def _plan(op: Pack, parts: list[Part], setting: Setting) -> dict[str, Any]:
    """Placements of all spans, one file for each part, and the counters of the plan."""
    from longctx.ids import U64
    from longctx.pack import audit
    from longctx.pack.frame import framed_lengths
    from longctx.pack.inner import inner_order
    from longctx.pack.numbering import window_numbers
    from longctx.pack.plan import plan_windows

    columns = ["doc_id", "tour_id", "rank", "n_tokens", "source", "license"]
    tables = []
    for part in parts:
        table = part.table(columns)
        found = addressed(part, table)
        for name in columns[1:]:
            found = found.append_column(name, table.column(name))
        tables.append(found)
    rows = pa.concat_tables(tables).sort_by(
        [("tour_id", "ascending"), ("rank", "ascending"), ("doc_key", "ascending")]
    )
    rows = rows.combine_chunks()
    del tables
    prefix, separator = _framing(op, setting)
    text = rows.column("n_tokens").fill_null(0).to_numpy()
    lengths = framed_lengths(text, len(prefix), len(separator))
    tour = _numbers(rows.column("tour_id"))
    plan = plan_windows(op.strategy, lengths, tour, op.room, **_options(op, len(separator)))
    keys: U64 = rows.column("doc_key").to_numpy()
    placement = inner_order(plan.placement, op.inner_order, keys, setting.seed)
    number = window_numbers(
        placement, rows.column("doc_id"), setting.seed if op.shuffle_windows else None
    )
    windows = int(number.max()) + 1 if len(number) else 0
    per_shard = max(1, op.shard_tokens // op.length)
    first = np.concatenate([[True], np.diff(placement.window) != 0])[: len(placement.window)]
    starts = np.flatnonzero(first)
    seq = np.arange(len(first)) - np.repeat(starts, np.diff([*starts, len(first)]))
    document = placement.document
    placed = pa.table(
        {
            PART: rows.column(PART).take(pa.array(document)),
            ROW: rows.column(ROW).take(pa.array(document)),
            "window": number,
            "seq": pa.array(seq, pa.int32()),
            "start": placement.start,
            "end": placement.end,
            "length": lengths[document],
        }
    ).sort_by([(PART, "ascending"), (ROW, "ascending"), ("start", "ascending")])
    stats = {
        **plan.counts,
        **audit.placement_partial(placement, lengths, op.room),
        **_account(rows, lengths, document),
        "shards": -(-windows // per_shard),
        "windows_per_shard": per_shard,
    }
    audit.assert_conserved(plan.counts)
    return _by_part(placed, len(parts), stats)


def _options(op: Pack, separator: int) -> dict[str, Any]:
    shared = {"cross_tours": op.cross_tours, "long_documents": op.long_documents}
    if op.strategy == "concat":
        return {**shared, "drop_last": op.drop_last}
    window = {n: getattr(op, n) for n in ("look_ahead", "rule", "fill_policy", "min_tail")}
    return {**shared, **window, "separator": separator}


def _numbers(tours: pa.ChunkedArray) -> npt.NDArray[np.int32]:
    """Consecutive numbers of runs of equal tour ids (rows are sorted by them)."""
    codes = tours.combine_chunks().dictionary_encode()
    codes = codes.combine_chunks() if isinstance(codes, pa.ChunkedArray) else codes
    return codes.indices.to_numpy().astype(np.int32)


def _account(rows: pa.Table, lengths: I64, document: I64) -> dict[str, Any]:
    """Which documents are in windows and which are not, for conservation and the report."""
    inside = np.zeros(rows.num_rows, dtype=bool)
    inside[document] = True
    reasons = np.where(lengths == 0, "no_tokens", "not_placed").astype(object)
    reasons[inside] = None
    counted = rows.select(["source", "license", "n_tokens"])
    found = summary.summarise(counted, pa.chunked_array([pa.array(reasons.tolist(), pa.string())]))
    kept = {k: found[k] for k in ("by_source", "by_license", "lengths")}
    return {**kept, "doc_tokens": found["tokens"], "left": found["dropped"]}


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


def _spans(op: Pack, plan: StepRef, part: Part, setting: Setting) -> pa.Table:
    """Token spans of a part's documents, each with the window it goes to."""
    ref = next(f for f in plan.files if f.name.endswith(f"/{part.index:06d}.parquet"))
    placed = read_table(plan.run_dir, ref)
    prefix, separator = (np.array(ids, dtype=np.int32) for ids in _framing(op, setting))
    embedded = ["embedding"] if "embedding" in part.columns() else []
    columns = ["doc_id", "source", "license", "tour_id", "tokens", *embedded]
    rows = placed.column(ROW).to_numpy()
    found = []
    for table in part.groups(columns):
        here = table.column(ROW).to_numpy()
        if not len(here):
            continue
        low, high = np.searchsorted(rows, [here[0], here[-1] + 1])
        own = placed.slice(low, high - low)
        at = np.searchsorted(here, own.column(ROW).to_numpy())
        tokens = _cut(table, own, at, prefix, separator)
        taken = table.select(["doc_id", "source", "license", "tour_id"]).take(pa.array(at))
        vector = (
            as_binary(vectors(table.column("embedding"))[at]).cast(pa.large_binary())
            if embedded
            else pa.nulls(len(at), pa.large_binary())
        )
        span = {n: own.column(n) for n in ("window", "seq", "start", "end", "length")}
        more = {n: taken.column(n) for n in taken.column_names}
        rows_here = pa.table({**span, **more, "tokens": tokens, "vector": vector})
        found.append(rows_here.select(_SPANS.names).cast(_SPANS))
    return pa.concat_tables(found) if found else _SPANS.empty_table()


def _cut(
    table: pa.Table,
    own: pa.Table,
    at: I64,
    prefix: npt.NDArray[np.int32],
    separator: npt.NDArray[np.int32],
) -> pa.Array:
    """Bytes of the int32 ids of each span, and of the one after it where the document goes on."""
    from longctx.pack.windows import list_values

    values, offsets = list_values(table.column("tokens"))
    starts, ends = own.column("start").to_numpy(), own.column("end").to_numpy()
    lengths = own.column("length").to_numpy()
    cut: list[bytes] = []
    framed, last = np.zeros(0, dtype=np.int32), -1
    for i, place in enumerate(at):
        if place != last:
            text = values[offsets[place] : offsets[place + 1]]
            framed, last = np.concatenate([prefix, text, separator]).astype(np.int32), place
        cut.append(framed[starts[i] : min(ends[i] + 1, lengths[i])].tobytes())
    return pa.array(cut, pa.large_binary())


def _to_shard(per_shard: int, table: pa.Table, setting: Setting) -> pa.Table:
    shard = table.column("window").to_numpy() // per_shard
    return table.append_column(BUCKET, pa.array(shard, pa.int32()))


def _unused(table: pa.Table, setting: Setting) -> pa.Table:
    raise AssertionError("the windows are written by their own work")
