"""`filter.decontaminate` on the engine: n-grams of evaluation sets looked up in every document.

The index is built once and read by every worker. What a part has of it is stored beside the part
before anything is decided, so another `max_df` reads no text again.
"""

from collections import Counter
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
import pyarrow as pa
from pydantic import Field

from longctx.engine.barrier import BarrierContext
from longctx.engine.corpus import ROW, Part
from longctx.engine.op import Barrier, Setting
from longctx.engine.steps import Stats, StepRef
from longctx.filter.stages_evaluation import SNIPPET, Against, build_index, load_index, read_sets
from longctx.ids import doc_keys, priorities

if TYPE_CHECKING:
    from longctx.filter.decontaminate import Hits, Match

_OP = "filter.decontaminate"
_TEXT = "text"
_SPANS = 100  # of a document at most, in the order of the text
_FOUND = pa.large_list(
    pa.struct(
        [
            pa.field("token", pa.int64()),
            pa.field("width", pa.int32()),
            pa.field("gram", pa.int32()),
            pa.field("start_char", pa.int64()),
            pa.field("end_char", pa.int64()),
        ]
    )
)
_MATCHED = pa.schema([("decon_tokens", pa.int64()), ("decon_found", _FOUND)])
_SPAN = pa.struct(
    [
        pa.field("start_char", pa.int64()),
        pa.field("end_char", pa.int64()),
        pa.field("set", pa.string()),
        pa.field("row", pa.int64()),
        pa.field("field", pa.string()),
    ]
)
_COLUMNS = pa.schema(
    [
        ("decon_hits", pa.int64()),
        ("decon_share", pa.float32()),
        ("decon_spans", pa.large_list(_SPAN)),
        ("decon_status", pa.string()),
    ]
)
_SAMPLE = pa.schema(
    [
        ("priority", pa.uint64()),
        ("doc_id", pa.string()),
        ("source", pa.string()),
        *_SPAN,
        (_TEXT, pa.large_string()),
        ("item_text", pa.large_string()),
    ]
)
_ROWS = pa.schema([(ROW, pa.int32())])


class FilterDecontaminate(Barrier):
    """Finds what documents share with evaluation sets: runs of `ngram` words, as columns.

    `against` lists the sets: `{path: LongBench/*.jsonl, fields: [input, answers]}`. Without
    `fields` the usual names of questions and answers are looked for, and long values, which are
    contexts, are left out. Case, accents, punctuation and numbers do not count. Texts of less than
    `ngram` words are looked for whole, down to `min_tokens`. N-grams in more than `max_df`
    documents are boilerplate and do not count.

    Nothing is dropped: `decide` drops by `decon_share` or `decon_hits`, and moving that threshold
    recomputes nothing. With `cut` what was found is cut out of the text, and `cut_margin`
    characters on each side with it; the op must then stand before `score.heuristics`. The step
    `sample` holds up to `sample` matches with both texts.
    """

    op: Literal["filter.decontaminate"]
    against: list[Against] = Field(min_length=1)
    ngram: int = Field(13, ge=2, le=256)
    min_tokens: int = Field(8, ge=2)
    max_df: int | None = Field(10, ge=1)
    cut: bool = False
    cut_margin: int = Field(200, ge=0)
    sample: int = Field(100, ge=0)

    summary: ClassVar[str] = "find texts of evaluation sets in the documents"
    source: ClassVar[str] = "GPT-3 2005.14165 appendix C (13-grams, 200 characters, 10 documents)"
    cost: ClassVar[str] = "about 20 MB/s per core; 30 bytes an n-gram in every worker"
    reads: ClassVar[tuple[str, ...]] = (_TEXT,)
    writes: ClassVar[tuple[str, ...]] = tuple(_COLUMNS.names)

    def writes_columns(self) -> tuple[str, ...]:
        return (*self.writes, *([_TEXT] if self.cut else []))

    def precedes(self) -> tuple[str, ...]:
        return ("tokens", "embedding") if self.cut else ()

    def fingerprint_fields(self) -> dict[str, Any]:
        known = [one.identity(f"{_OP}: against.{i}") for i, one in enumerate(self.against)]
        return {**super().fingerprint_fields(), "against": known}

    def check(self, setting: Setting) -> None:
        read_sets(self.against, setting.stage)

    def run(self, context: BarrierContext) -> None:
        cutting, sampling = ("cut", "cut_margin"), ("sample",)
        later = ("max_df", *cutting, *sampling)
        index = context.single("index", partial(_build, self), ignore=later)
        context.sidecar(
            "matches",
            [],
            partial(_match, index),
            _ROWS,
            tuple(_MATCHED.names),
            columns=[_TEXT],
            inputs=[index],
            ignore=later,
        )
        found = ["decon_found"]
        counts = context.per_part("counts", _count, found, ignore=later)
        common = context.single(
            "common", partial(_common, self.max_df, counts), [counts], ignore=(*cutting, *sampling)
        )
        drawn = context.per_part(
            "drawn",
            partial(_draw, self.sample, index, common),
            ["doc_id", "source", _TEXT, *found],
            inputs=[index, common],
            ignore=cutting,
        )
        context.single("sample", partial(_first, self.sample, drawn), [drawn], ignore=cutting)
        context.sidecar(
            "",
            [],
            partial(_columns, self.cut_margin if self.cut else None, index, common),
            _ROWS,
            self.writes_columns(),
            columns=[*_MATCHED.names, *([_TEXT] if self.cut else [])],
            inputs=[index, common],
            ignore=sampling,
        )


def _build(op: FilterDecontaminate, setting: Setting) -> dict[str, "pa.Table | bytes | memoryview"]:
    return {**build_index(op.against, op.ngram, op.min_tokens, setting.stage)}


def _match(index: StepRef, base: pa.Table, brought: pa.Table, setting: Setting) -> pa.Table:
    """Tokens of every document, and the n-grams of the index that it has."""
    from longctx.filter.decontaminate import token_places

    lookup, _ = load_index(index)
    rows = []
    for text in base.column(_TEXT).to_pylist():
        tokens, hits = lookup.hits(text)
        found = []
        if len(hits.token):
            starts, ends = token_places(text)
            last = hits.token + hits.width - 1
            columns = (*hits, starts[hits.token], ends[last])
            found = [
                dict(zip(_FOUND.value_type.names, values, strict=True))
                for values in zip(*(c.tolist() for c in columns), strict=True)
            ]
        rows.append({"decon_tokens": tokens, "decon_found": found})
    return pa.Table.from_pylist(rows, schema=_MATCHED)


def _count(part: Part, setting: Setting) -> pa.Table:
    """How many documents of a part have each n-gram."""
    documents: Counter[int] = Counter()
    for table in part.groups(["decon_found"]):
        for found in table.column("decon_found").to_pylist():
            documents.update({hit["gram"] for hit in found})
    grams = sorted(documents)
    counts = pa.array([documents[g] for g in grams], pa.int64())
    return pa.table({"gram": pa.array(grams, pa.int32()), "documents": counts})


def _common(
    max_df: int | None, counts: StepRef, setting: Setting
) -> dict[str, "pa.Table | bytes | memoryview"]:
    """N-grams that more than `max_df` documents have."""
    table = counts.read()
    grams, place = np.unique(table.column("gram").to_numpy(), return_inverse=True)
    documents = np.bincount(place, weights=table.column("documents").to_numpy()).astype(np.int64)
    common = documents > max_df if max_df is not None else np.zeros(len(grams), dtype=bool)
    found = pa.table({"gram": pa.array(grams[common], pa.int32()), "documents": documents[common]})
    stats = {"n_grams_met": len(grams), "n_grams_common": int(common.sum())}
    return {"common.parquet": Stats.attach(found, stats)}


class _Reader:
    """Matches of documents, as they count after n-grams that are common were left out."""

    def __init__(self, index: StepRef, common: StepRef) -> None:
        self.lookup, self.items = load_index(index)
        self._common = common.read(["gram"]).column("gram").to_numpy()

    def __call__(self, found: list[dict[str, int]]) -> tuple["Hits", list["Match"]]:
        from longctx.filter.decontaminate import Hits, matches

        columns = {
            n: np.array([hit[n] for hit in found], np.int64) for n in _FOUND.value_type.names
        }
        own = ~np.isin(columns["gram"], self._common)
        token, width, gram, start, end = (columns[n][own] for n in columns)
        hits = Hits(token, width.astype(np.int32), gram.astype(np.int32))
        return hits, matches(hits, start, end, self.lookup)

    def span(self, match: "Match") -> dict[str, Any]:
        """A match as a row of decon_spans."""
        item = self.items[match.item]
        named = {name: item[name] for name in ("set", "row", "field")}
        return {"start_char": match.start, "end_char": match.end, **named}


def _draw(wanted: int, index: StepRef, common: StepRef, part: Part, setting: Setting) -> pa.Table:
    """One match of each of the part's documents with the smallest priorities, with both texts."""
    reader = _Reader(index, common)
    drawn: list[dict[str, Any]] = []
    if not any(part.table(["decon_found"]).column("decon_found").to_pylist()):
        return _SAMPLE.empty_table()
    for table in part.groups(["doc_id", "source", _TEXT, "decon_found"]):
        ids = table.column("doc_id").to_pylist()
        order = priorities(doc_keys(ids), setting.seed).tolist()
        for i, found in enumerate(table.column("decon_found").to_pylist()):
            _, matched = reader(found) if found else ((), [])
            if not matched:
                continue
            longest = max(matched, key=lambda m: (m.end - m.start, -m.start, -m.item))
            text = table.column(_TEXT)[i].as_py()[longest.start : longest.end]
            drawn.append(
                {
                    "priority": order[i],
                    "doc_id": ids[i],
                    "source": table.column("source")[i].as_py(),
                    **reader.span(longest),
                    _TEXT: text[:SNIPPET],
                    "item_text": reader.items[longest.item][_TEXT],
                }
            )
        drawn = sorted(drawn, key=lambda row: row["priority"])[:wanted]
    return pa.Table.from_pylist(drawn, schema=_SAMPLE)


def _first(
    wanted: int, drawn: StepRef, setting: Setting
) -> dict[str, "pa.Table | bytes | memoryview"]:
    rows = drawn.read().sort_by("priority").slice(0, wanted)
    return {"sample.parquet": rows.drop_columns(["priority"])}


def _columns(
    margin: int | None,
    index: StepRef,
    common: StepRef,
    base: pa.Table,
    brought: pa.Table,
    setting: Setting,
) -> pa.Table:
    """The stage's columns; with a margin also the text without what was found."""
    from longctx.filter.decontaminate import covered, cut

    reader = _Reader(index, common)
    rows: list[dict[str, Any]] = []
    texts: list[str] = []
    sets: dict[str, Counter[str]] = {}
    for i, found in enumerate(base.column("decon_found").to_pylist()):
        tokens = base.column("decon_tokens")[i].as_py()
        hits, matched = reader(found)
        spans = [reader.span(match) for match in matched]
        for name in {span["set"] for span in spans}:
            sets.setdefault(name, Counter())["documents"] += 1
        for span in spans:
            sets[span["set"]]["spans"] += 1
        rows.append(
            {
                "decon_hits": len(hits.token) if tokens else None,
                "decon_share": covered(hits) / tokens if tokens else None,
                "decon_spans": spans[:_SPANS],
                "decon_status": "ok" if tokens else "empty",
            }
        )
        if margin is not None:
            text = base.column(_TEXT)[i].as_py()
            texts.append(cut(text, [(m.start, m.end) for m in matched], margin))
    table = pa.Table.from_pylist(rows, schema=_COLUMNS)
    if margin is not None:
        table = table.append_column(_TEXT, pa.array(texts, pa.large_string()))
    hit = sum(bool(row["decon_hits"]) for row in rows)
    return Stats.attach(table, {"documents": hit, "sets": {k: dict(v) for k, v in sets.items()}})
