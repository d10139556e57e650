"""Examples of sentences and contexts of neighbours as placements, and the sidecar made of them.

One process: it holds the candidates of all anchors with their texts (about 200 bytes each), and 40
bytes for each document.
"""

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from longctx.cluster.stages_knn import whole_lists
from longctx.engine.corpus import ROW
from longctx.engine.op import Setting
from longctx.engine.rows import PART
from longctx.engine.steps import Stats, StepRef
from longctx.ids import U64, priorities
from longctx.order.stages_semantic import PLACED, load_numbered
from longctx.order.stages_units import NAMED, read_documents
from longctx.schema import SPANS_TYPE

if TYPE_CHECKING:
    from longctx.order.neighbours import Example, Rules, Units

I64 = npt.NDArray[np.int64]

_BINS = 40
_WORTHWHILE_FILL = 0.5
# A document in the ordinary tour (start and end null) or a span of one.
PLACE = pa.schema(
    [
        (PART, pa.int32()),
        (ROW, pa.int32()),
        ("tour_id", pa.string()),
        ("rank", pa.int64()),
        ("start", pa.int64()),
        ("end", pa.int64()),
        ("link", pa.string()),
    ]
)


def build_examples(
    rules: "Rules",
    length: int,
    wanted: int,
    documents: StepRef,
    anchors: StepRef,
    candidates: StepRef,
    texts: StepRef,
    setting: Setting,
) -> dict[str, Any]:
    """At most `wanted` examples as spans, behind all documents in random order."""
    from longctx.order.neighbours import knn_examples

    units, stand, first, lists, sims = _lists(anchors, candidates, texts)
    examples, counts = knn_examples(units, first, lists, sims, length, rules=rules, count=wanted)
    rows = read_documents(documents)
    tokens = int(rows.column("n_tokens").to_numpy().sum())
    stats = {**_figures(examples, units, length, wanted, tokens), **counts}
    stats |= {"documents": rows.num_rows, "tours": 1 + len(examples)}
    ordinary = _ordinary(rows, priorities(rows.column("doc_key").to_numpy(), setting.seed))
    placed = pa.concat_tables([ordinary, _example_spans(examples, stand)])
    return {"tours.parquet": Stats.attach(placed, stats)}


def build_repeats(
    numbered: StepRef, found: StepRef, length: int, dup_hi: float, setting: Setting
) -> dict[str, Any]:
    """One context for each document, as spans; the documents themselves have no tour."""
    from longctx.order.neighbours import knn_repeat
    from longctx.order.random import random_order

    table, _ = load_numbered(numbered)
    n = table.num_rows
    usable = np.flatnonzero(table.column("has_vector").to_numpy())
    near, near_sims = whole_lists(numbered, found)
    lists = np.full((n, near.shape[1]), -1, dtype=np.int32)
    sims = np.full(lists.shape, -np.inf, dtype=np.float32)
    if len(usable):
        lists[usable] = np.where(near >= 0, usable[near], -1)
        sims[usable] = near_sims
    tokens = table.column("n_tokens").fill_null(0).to_numpy()
    priority = priorities(table.column("doc_key").to_numpy(), setting.seed)
    repeats = knn_repeat(lists, sims, tokens, random_order(priority), length, dup_hi=dup_hi)
    spans = _span_table(
        table.take(pa.array(repeats.doc)), repeats.tour, np.zeros_like(repeats.end), repeats.end
    )
    empty = pa.nulls(n)
    alone = pa.table(
        {PART: table.column(PART), ROW: table.column(ROW), **dict.fromkeys(PLACE.names[2:], empty)}
    )
    placed = pa.concat_tables([alone.cast(PLACE), spans])
    contexts = int(repeats.tour.max(initial=-1)) + 1
    held = int(repeats.end.sum())
    stats = {
        "documents": n,
        "tours": contexts,
        "documents_without_vector": n - len(usable),
        "tokens_in_contexts": held,
        "tokens_repeated": _share(held, int(tokens.sum())),
        "documents_per_context": _share(len(repeats.doc), contexts),
        "most_uses": int(np.bincount(repeats.doc, minlength=1).max()),
    }
    return {"tours.parquet": Stats.attach(placed, stats)}


def _lists(
    anchors: StepRef, candidates: StepRef, texts: StepRef
) -> tuple["Units", pa.Table, I64, I64, npt.NDArray[np.float32]]:
    """All units that are named, by (document, place), with the lists of the anchors among them.

    The units, their addresses (`part`, `row`, `start`, `end`), the units of the anchors int64[a],
    and their neighbours [a, K], best first, -1 where there are no more.
    """
    from longctx.order.neighbours import Units

    names = [n for n, _ in NAMED]
    begun = anchors.read(names)
    pairs = candidates.read()
    named = pa.concat_tables([begun, pairs.select(names)])
    key = _address(named)
    unique, index = np.unique(key, return_index=True)
    place, number = (named.column(c).to_numpy()[index] for c in ("unit", "number"))
    order = np.lexsort((place, number))
    named = named.take(pa.array(index[order]))
    position = np.empty(len(order), dtype=np.int64)
    position[order] = np.arange(len(order))
    unit = position[np.searchsorted(unique, key)]

    said = texts.read()
    at = np.argsort(_address(said))[np.searchsorted(np.sort(_address(said)), _address(named))]
    said = said.take(pa.array(at))
    units = Units(
        named.column("number").to_numpy(),
        named.column("unit").to_numpy().astype(np.int64),
        named.column("tokens").to_numpy().astype(np.int64),
        said.column("text").to_pylist(),
        said.column("key").to_numpy(),
    )
    a = begun.num_rows
    anchor, sim = pairs.column("anchor").to_numpy(), pairs.column("sim").to_numpy()
    neighbour = unit[a:]
    best = np.lexsort((neighbour, -sim, anchor))
    anchor = anchor[best]
    place = np.arange(len(anchor)) - np.searchsorted(anchor, anchor)
    width = int(place.max(initial=-1)) + 1
    lists = np.full((a, width), -1, dtype=np.int64)
    sims = np.full((a, width), -np.inf, dtype=np.float32)
    lists[anchor, place], sims[anchor, place] = neighbour[best], sim[best]
    return units, said, unit[:a], lists, sims


def _address(table: pa.Table) -> I64:
    """One number for (part, row in the part's table of units)."""
    part = table.column(PART).to_numpy().astype(np.int64)
    return (part << 32) | table.column("at").to_numpy()


def _ordinary(rows: pa.Table, priority: U64) -> pa.Table:
    """All documents in random order, one tour."""
    from longctx.order.random import random_order

    n = rows.num_rows
    rank = np.empty(n, dtype=np.int64)
    rank[random_order(priority)] = np.arange(n)
    return pa.table(
        {
            PART: rows.column(PART),
            ROW: rows.column(ROW),
            "tour_id": pa.repeat(pa.scalar("t00000000"), n),
            "rank": rank,
            "start": pa.nulls(n, pa.int64()),
            "end": pa.nulls(n, pa.int64()),
            "link": pa.array(np.where(rank == 0, "start", "random").tolist(), pa.string()),
        },
        schema=PLACE,
    )


def _example_spans(examples: list["Example"], stand: pa.Table) -> pa.Table:
    """The units of all examples; `stand` says where each unit stands."""
    unit = np.concatenate([np.zeros(0, dtype=np.int64), *(e.units for e in examples)])
    tour = np.repeat(np.arange(len(examples)), [len(e.units) for e in examples])
    taken = stand.take(pa.array(unit))
    return _span_table(taken, tour, *(taken.column(c).to_numpy() for c in ("start", "end")))


def _span_table(stand: pa.Table, tour: I64, start: I64, end: I64) -> pa.Table:
    """Rows of PLACE for spans in the order of their tours; `stand` has their part and row."""
    rank = np.arange(len(tour)) - np.searchsorted(tour, tour)
    return pa.table(
        {
            PART: stand.column(PART),
            ROW: stand.column(ROW),
            "tour_id": pa.array([f"x{t:08d}" for t in tour], pa.string()),
            "rank": rank,
            "start": start,
            "end": end,
            "link": pa.nulls(len(tour), pa.string()),
        },
        schema=PLACE,
    )


def _figures(
    examples: list["Example"], units: "Units", length: int, wanted: int, tokens: int
) -> dict[str, Any]:
    """What the examples hold, and what they are among windows of the corpus's `tokens`."""
    everything = np.concatenate([np.zeros(0, dtype=np.int64), *(e.units for e in examples)])
    taken = [e.sims[e.units != e.anchor] for e in examples]
    sims = np.concatenate([np.zeros(0, dtype=np.float32), *taken]).astype(np.float64)
    held = int(units.tokens[everything].sum())
    fill = _share(held + len(everything), len(examples) * length)
    histogram, _ = np.histogram(np.clip(sims, -1, 1), bins=_BINS, range=(-1, 1))
    warnings: list[str] = []
    if len(examples) < wanted:
        warnings.append(
            f"Only {len(examples):,} of {wanted:,} examples found company: the corpus has too few "
            "related sentences in documents of their own. Lower rel_lo or p_knn."
        )
    if fill is not None and fill < _WORTHWHILE_FILL:
        warnings.append(
            f"An example fills {fill:.0%} of a context of {length:,} tokens: raise `candidates`, "
            "or lower rel_lo, to fill more."
        )
    return {
        "examples": len(examples),
        "examples_wanted": wanted,
        "units_in_examples": len(everything),
        "units_per_example": _share(len(everything), len(examples)),
        "tokens_in_examples": held,
        "example_fill": fill,
        "share_of_windows": _share(len(examples), len(examples) + tokens / length),
        "mean_similarity": float(sims.mean()) if len(sims) else None,
        "most_uses": int(np.bincount(everything, minlength=1).max()),
        "histogram": [int(c) for c in histogram],
        "warnings": dict.fromkeys(warnings, 1),
    }


def _share(part: float, whole: float) -> float | None:
    return part / whole if whole else None


def place_part(base: pa.Table, brought: pa.Table, setting: Setting) -> pa.Table:
    """The part's rows of the tour table, each with the spans of it that stand in span tours."""
    whole = brought.filter(brought.column("start").is_null())
    order = [(n, "ascending") for n in (ROW, "tour_id", "rank", "start")]
    spans = brought.filter(brought.column("start").is_valid()).sort_by(order).combine_chunks()
    rows = base.column(ROW).to_numpy()
    offsets = np.searchsorted(spans.column(ROW).to_numpy(), np.append(rows, rows[-1:] + 1))
    fields = [spans.column(f.name).combine_chunks() for f in SPANS_TYPE.value_type]
    n = base.num_rows
    known = {
        "tour_id": whole.column("tour_id"),
        "rank": whole.column("rank"),
        "link": whole.column("link"),
        "order_status": pa.repeat(pa.scalar("ok"), n),
    }
    columns = {
        f.name: known[f.name] if f.name in known else pa.nulls(n, f.type)
        for f in PLACED
        if f.name != ROW
    }
    lists = pa.ListArray.from_arrays(
        pa.array(offsets if n else [0], pa.int32()),
        pa.StructArray.from_arrays(fields, fields=list(SPANS_TYPE.value_type)),
    )
    return pa.table({**columns, "spans": lists.cast(SPANS_TYPE)})
