"""`export` on the engine: living documents as files, for recipes that end without `pack`.

In the order of the corpus a file is a run of consecutive documents of about `shard_mb` of text: a
pass over the texts finds where files begin (`sizes`), then every file is written from the few parts
that it lies in. With `order_by` a sample of places, drawn by hash, says where the sorted order is
cut; rows go to their file by exchange and are sorted there, by the column, nulls last, and by
doc_id. So no process holds more than a file, and the bytes depend neither on parts nor on workers.

Files, checksums and manifest follow the rules of windows: the folder is the run's own, a file
appears whole, `manifest.json` comes last and lists all of them.
"""

from functools import partial
from typing import Any, ClassVar, Literal

import pyarrow as pa
import pyarrow.compute as pc
from pydantic import BaseModel, ConfigDict, Field, model_validator

from longctx.engine import summary
from longctx.engine.barrier import BarrierContext
from longctx.engine.corpus import Part
from longctx.engine.op import Barrier, Setting
from longctx.engine.rows import numbers
from longctx.engine.sampling import bound_of, bound_step, numbers_of
from longctx.engine.steps import BUCKET, Stats, StepRef, read_table
from longctx.ids import doc_keys, priorities
from longctx.io.export_order import borders_of, files_of, shards_of, sort_keys
from longctx.io.exported import FIELDS, Compression, Shape
from longctx.io.output_folder import claim, withdraw
from longctx.io.stages_export_files import InOrder, Sorted, publish

MEGABYTE = 1_000_000
_SAMPLED = 256  # places for each file
FieldName = Literal["id", "text", "source", "language", "license", "meta"]
_FIELDS: tuple[FieldName, ...] = ("id", "text", "source", "language", "license", "meta")


class OrderBy(BaseModel):
    """A column of numbers to sort by, the largest first unless `descending` is false."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    column: str
    descending: bool = True


class Export(Barrier):
    """Writes the documents that are left, with columns of the stages, as JSON lines or Parquet.

    A record has the input's `fields` (id, text, source, language, license, and those of `meta` at
    its top level; in Parquet `meta` is a JSON string), then `columns`; `rename` says what they are
    called there, as in `{text: content, cut_gateau: score}`. Documents come in the order of the
    corpus, or with `order_by: {column: lf_score}` the best first (`descending: false`: the smallest
    first), nulls last, equal ones by id. A file holds about `shard_mb` of text, so the order goes
    on from file to file. JSON lines can be compressed (`gz`, `zst`); Parquet always is. A document
    that a mixture copies is written once; `mix_copies` among `columns` says how often it counts.
    """

    op: Literal["export"]
    format: Literal["jsonl", "parquet"] = "jsonl"
    compression: Compression = "none"
    fields: list[FieldName] = Field(list(_FIELDS), min_length=1)
    columns: list[str] = Field([])
    rename: dict[str, str] = Field(default_factory=dict)
    order_by: OrderBy | None = None
    shard_mb: float = Field(256, gt=0)

    summary: ClassVar[str] = "write what is left as documents, with scores"
    source: ClassVar[str] = "longctx"
    cost: ClassVar[str] = (
        "texts are read twice; with `order_by` they are stored once more and move once"
    )
    ends: ClassVar[str] = "documents"

    @model_validator(mode="after")
    def _is_possible(self) -> "Export":
        if self.format == "parquet" and self.compression != "none":
            raise ValueError("Parquet is compressed in itself: leave `compression` out")
        for name in self.columns:
            if name in FIELDS or name in FIELDS.values():
                raise ValueError(f"`{name}` is one of the input's fields: name it in `fields`")
        known = [*self.fields, *self.columns]
        if len(set(known)) < len(known):
            raise ValueError("each field and column is named once")
        for name in self.rename:
            if name not in known or name == "meta":
                raise ValueError(f"rename: `{name}` is not among {', '.join(known)}")
        called = [self.rename.get(n, n) for n in known]
        twice = next((n for n in called if called.count(n) > 1), None)
        if twice is not None:
            raise ValueError(f"two fields of a record would be called `{twice}`")
        return self

    def reads_columns(self) -> tuple[str, ...]:
        order = [self.order_by.column] if self.order_by else []
        return tuple(dict.fromkeys([*self.columns, *order]))

    @property
    def shape(self) -> Shape:
        """What a record is made of."""
        return Shape(tuple(self.fields), tuple(self.columns), self.rename)

    @property
    def shard_bytes(self) -> int:
        """Bytes of text in a file."""
        return max(1, int(self.shard_mb * MEGABYTE))

    def check(self, setting: Setting) -> None:
        claim(setting)

    def run(self, context: BarrierContext) -> None:
        if not context.dry:
            withdraw(context.setting)
        counted = [c for c in ("n_tokens", "n_chars") if context.corpus.has(c)]
        order = [self.order_by.column] if self.order_by else []
        columns = list(dict.fromkeys(["doc_id", "text", "source", "license", *counted, *order]))
        own = set(type(self).model_fields) - {"op", "order_by"}
        sizes = context.per_part(
            "sizes", partial(_sizes, self.order_by, columns), columns, ignore=own
        )
        if self.order_by is None:
            self._in_order(context)
        else:
            self._sorted(context, sizes)
        if not context.dry:
            publish(self, context)

    def _in_order(self, context: BarrierContext) -> None:
        """The step `files`, each a run of consecutive documents."""
        held = [c.stats.get("stats", {}).get("bytes", 0) for c in context.step_commits["sizes"]]
        work = InOrder(self, context.setting)
        columns = list(dict.fromkeys([*self.shape.reads(), "text"]))
        groups = shards_of(held, self.shard_bytes)
        context.over_parts("files", groups, columns, work, depends=[context.setting.output])

    def _sorted(self, context: BarrierContext, sizes: StepRef) -> None:
        """The step `files`, each a range of the sorted order."""
        own = self.own_fields()
        files = max(1, -(-context.step_stats["sizes"].get("bytes", 0) // self.shard_bytes))
        size = bound_step(context, _SAMPLED * files, files, ignore=own)
        read = [size, sizes]
        places = context.per_part("places", partial(_places, size, sizes), [], inputs=read)
        borders = context.single("borders", partial(_borders, size, places), [size, places])
        rule = partial(_rows, self.shape, sizes, borders)
        columns = list(dict.fromkeys(["doc_id", *self.shape.reads()]))
        rows = context.per_part("rows", rule, columns, inputs=[sizes, borders])
        context.exchange(
            "files",
            [(rows, _to_file)],
            None,
            pa.schema([]),
            buckets=context.step_stats["borders"].get("files", files),
            work=Sorted(self, context.setting),
            depends=[context.setting.output],
        )


def _sizes(order: OrderBy | None, columns: list[str], part: Part, setting: Setting) -> pa.Table:
    """Bytes of the texts of a part and its counters; with an order every row's key, id and size."""
    found, counted = [], []
    kept = [c for c in columns if c not in ("text", "doc_id")]
    for table in part.groups(columns):
        # One more, as a line end has: no row is without size.
        size = pc.add(pc.binary_length(table.column("text")).cast(pa.int64()), 1)
        rows = {"size": size}
        if order is not None:
            values = numbers(table.column(order.column), order.column, setting.stage)
            keys = sort_keys(values, order.descending)
            rows |= {"key": pa.array(keys), "doc_id": table.column("doc_id")}
        found.append(pa.table(rows))
        counted.append(table.select(kept))
    whole, documents = pa.concat_tables(found), pa.concat_tables(counted)
    total = int(pc.sum(whole.column("size")).as_py() or 0)
    stats = {"bytes": total, "summary": summary.summarise(documents, None)}
    if order is None:
        whole = pa.table({"size": pa.array([total], pa.int64())})
    return Stats.attach(whole, stats)


def _places(size: StepRef, sizes: StepRef, part: Part, setting: Setting) -> pa.Table:
    """Key, id and size of the rows of a part that the sample holds."""
    table = read_table(sizes.run_dir, sizes.files[part.index])
    keys = doc_keys(table.column("doc_id").to_pylist())
    return table.filter(pa.array(priorities(keys, setting.seed) <= bound_of(size)))


def _borders(size: StepRef, places: StepRef, setting: Setting) -> dict[str, Any]:
    """Key and id of the first row of every file but the first."""
    *_, files = numbers_of(size)
    borders = borders_of(places.read(), files)
    return {"borders.parquet": Stats.attach(borders, {"files": len(borders) + 1})}


def _rows(shape: Shape, sizes: StepRef, borders: StepRef, part: Part, setting: Setting) -> pa.Table:
    """What the records of a part are made of, each with its key and its file."""
    placed = read_table(sizes.run_dir, sizes.files[part.index])
    keys = placed.column("key").to_numpy()
    files = files_of(keys, placed.column("doc_id"), borders.read())
    table = part.table(list(dict.fromkeys(["doc_id", *shape.reads()])))
    return table.append_column("key", placed.column("key")).append_column("file", pa.array(files))


def _to_file(table: pa.Table, setting: Setting) -> pa.Table:
    return table.append_column(BUCKET, table.column("file"))
